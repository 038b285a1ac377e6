//! Tests of loading: small objects made here, whole, cut at every length, foreign, and with parts missing.

use std::path::PathBuf;

use object::write::{Object as Writer, Relocation as NewRelocation, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope, elf};

use super::*;
use crate::abi::{ABI_MAJOR, FUNCTIONS, Status};

/// `info`: stores 1 to `abi_major` and returns 0.
#[cfg(target_arch = "x86_64")]
const INFO: [u8; 10] = [0xc7, 0x47, 0x04, ABI_MAJOR as u8, 0, 0, 0, 0x31, 0xc0, 0xc3];
#[cfg(target_arch = "aarch64")]
const INFO: [u8; 16] = [0x21, 0, 0x80, 0x52, 1, 4, 0, 0xb9, 0, 0, 0x80, 0x52, 0xc0, 3, 0x5f, 0xd6];

/// What differs between the objects of these tests.
struct Parts {
    architecture: Architecture,
    functions: &'static [&'static str],
    weights: Option<&'static [u8]>,
    /// ELF type of the one relocation.
    relocation: elf::RelocationType,
}

fn whole() -> Parts {
    let relocation = if HERE == Architecture::X86_64 { R_X86_64_PC64 } else { R_AARCH64_PREL64 };
    Parts { architecture: HERE, functions: FUNCTIONS, weights: Some(b"sixteen bytes..."), relocation }
}

fn object(parts: &Parts) -> Vec<u8> {
    let mut object = Writer::new(BinaryFormat::Elf, parts.architecture, Endianness::Little);
    let text = object.add_section(Vec::new(), b".text.toy".to_vec(), SectionKind::Text);
    let mut code = INFO.to_vec();
    code.resize(24, 0);
    object.append_section_data(text, &code, 64);
    let mut symbol = |name: String, section, value| {
        object.add_symbol(Symbol {
            name: name.into_bytes(),
            value,
            size: 0,
            kind: SymbolKind::Text,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        })
    };
    for function in parts.functions {
        symbol(format!("toy_{function}"), text, 0);
    }
    if let Some(weights) = parts.weights {
        let section = object.add_section(Vec::new(), WEIGHTS_SECTION.into(), SectionKind::ReadOnlyData);
        object.append_section_data(section, weights, 16384);
        let symbol = object.section_symbol(section);
        let flags = RelocationFlags::Elf { r_type: parts.relocation };
        let open = NewRelocation { offset: 16, symbol, addend: 0, flags };
        object.add_relocation(text, open).expect("a known relocation");
    }
    object.write().expect("a valid object")
}

/// A file that is removed at the end of the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, bytes: &[u8]) -> Scratch {
        let path = std::env::temp_dir().join(format!("tcc-module-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).expect("the temporary folder is writable");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A file that stays behind harms no test.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Why `bytes` are no object to load.
fn refusal(name: &str, bytes: &[u8]) -> String {
    let file = Scratch::new(name, bytes);
    Module::open(&file.0, None).expect_err("refused").to_string()
}

#[test]
fn an_object_is_loaded_and_runs() {
    let file = Scratch::new("whole", &object(&whole()));
    let module = Module::open(&file.0, None).expect("loads");
    assert_eq!(module.model().info().abi_major, ABI_MAJOR);
    assert_eq!(module._weights.bytes(), b"sixteen bytes...");
    assert!(module._weights.bytes().as_ptr().addr().is_multiple_of(16384));
}

#[test]
fn weights_come_from_a_file_where_the_object_has_none() {
    let file = Scratch::new("without", &object(&Parts { weights: None, ..whole() }));
    let weights = Scratch::new("weights", b"blob");
    let module = Module::open(&file.0, Some(&weights.0)).expect("loads");
    assert_eq!(module._weights.bytes(), b"blob");
    let error = Module::open(&file.0, None).expect_err("no weights");
    assert_eq!(error.to_string(), "no section 'tcc_weights': give the weights file");
}

/// Every prefix that lacks a byte the loader needs is an error; none is a crash.
#[test]
fn an_object_cut_short_is_refused() {
    let bytes = object(&whole());
    for length in (0..bytes.len()).step_by(7) {
        let file = Scratch::new("cut", &bytes[..length]);
        assert!(Module::open(&file.0, None).is_err(), "{length} of {} bytes", bytes.len());
    }
}

#[test]
fn foreign_objects_are_refused() {
    assert!(refusal("text", b"not an object").contains("file"), "the parser says what it expected");
    let foreign = object(&Parts { architecture: Architecture::Riscv64, weights: None, ..whole() });
    assert!(refusal("riscv", &foreign).contains("the object is for Riscv64"));
    let mut other = Writer::new(BinaryFormat::Elf, HERE, Endianness::Little);
    other.add_section(Vec::new(), b".text".to_vec(), SectionKind::Text);
    let other = other.write().expect("a valid object");
    assert!(refusal("other", &other).contains("not an object made by tcc"));
}

#[test]
fn missing_functions_and_unknown_relocations_are_refused() {
    let lacking = object(&Parts { functions: &["info", "strerror"], ..whole() });
    assert_eq!(refusal("lacking", &lacking), "the code has no 'toy_op_name'");
    let relocation = elf::RelocationType(1);
    let odd = object(&Parts { relocation, ..whole() });
    assert_eq!(refusal("odd", &odd), "an unknown relocation at offset 16 of the code");
}

#[test]
fn errors_read_as_sentences() {
    let error = ModuleError::Status(Status::ABI);
    assert_eq!(error.to_string(), "a struct is of another ABI major, or too short (TCC_E_ABI)");
    let missing = Module::open(&std::env::temp_dir().join("tcc-no-such-object"), None).expect_err("missing");
    assert!(matches!(missing, ModuleError::Io(_)));
}
