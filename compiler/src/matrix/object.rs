//! Objects for a matrix unit: an ELF file of machine `EM_NONE` whose sections are data.
//!
//! `tcc_descriptor` (JSON), `tcc_machine` (the machine file's canonical form), `tcc_tiles` (text of the tiles), one
//! `tcc_program_NAME` for each graph (`.dvp`), `tcc_weights` (the blob), and a note. Nothing is code, nothing needs a
//! relocation or a symbol.
//!
//! **Invariant:** weights are streamed while writing. **Invariant:** what [`read`] accepts can be run: sizes agree with
//! each other, hashes with bytes, programs with the machine.

use std::io::Write;
use std::path::{Path, PathBuf};

use object::Endianness;
use object::elf;
use object::read::elf::{ElfFile64, FileHeader as _};
use object::read::{Object as _, ObjectSection as _};
use object::write::StreamingBuffer;
use object::write::elf::{FileHeader, SectionHeader, Writer};
use sha2::{Digest as _, Sha256};
use tcc_backends::isa::matrix::lower::model::{HIDDEN, INPUT, LOGITS, TOKENS_OFFSET, WEIGHTS};
use tcc_backends::isa::matrix::machine::Machine;
use tcc_backends::isa::matrix::machine::parse::{self, MachineError};
use tcc_backends::isa::matrix::program::codec::{self, DecodeError};
use tcc_backends::isa::matrix::program::{CoreKind, Program, SYMBOL_ALIGN, SymbolKind};
use tcc_ir::plan::WEIGHTS_ALIGN;
use tcc_runtime::abi::WEIGHTS_SECTION;
use tcc_runtime::map::MappedFile;

use super::descriptor::{Descriptor, Entry, FORMAT, FORMAT_VERSION};
use super::tiles::{self, Choice};
use super::{Body, MatrixModel};
use crate::error::Error;
use crate::object::{Counted, ObjectError, WeightsSource, note_bytes};
use crate::output::{Mode, write_whole};

pub const DESCRIPTOR_SECTION: &str = "tcc_descriptor";
pub const MACHINE_SECTION: &str = "tcc_machine";
pub const TILES_SECTION: &str = "tcc_tiles";

/// Global memory beside the weights that a simulated run may be asked to have.
const OTHER_BYTES_LIMIT: u64 = 16 << 30;

/// Bytes that are no object of ours, or one that contradicts itself.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("not an ELF file for a matrix unit: {0}")]
    Elf(String),
    #[error("there is no section '{0}'")]
    NoSection(String),
    #[error("section '{section}' is not {expected}: {reason}")]
    Section { section: String, expected: &'static str, reason: String },
    #[error("format '{format}' version {version}: this tcc reads '{FORMAT}' version {FORMAT_VERSION}")]
    Format { format: String, version: u32 },
    #[error("section '{MACHINE_SECTION}': {0}")]
    Machine(#[from] MachineError),
    #[error("section '{section}': {source}")]
    Program { section: String, source: DecodeError },
    #[error("{what}")]
    Contradiction { what: String },
    #[error("the weights have another SHA-256 than the descriptor says: the object is damaged")]
    Hash,
}

/// What an object holds.
pub struct MatrixObject<'a> {
    pub descriptor: Descriptor,
    pub model: MatrixModel,
    /// Text of the tiles.
    pub tiles: &'a str,
    pub weights: &'a [u8],
}

/// What goes into an object.
pub struct Parts<'a> {
    pub descriptor: &'a Descriptor,
    pub model: &'a MatrixModel,
    pub choices: &'a [Choice],
    pub weights: WeightsSource<'a>,
}

/// A mapped file, to be read as an object.
pub struct ObjectFile {
    path: PathBuf,
    file: MappedFile,
}

impl ObjectFile {
    pub fn open(path: &Path) -> Result<ObjectFile, Error> {
        let file = MappedFile::open(path).map_err(Error::io("read", path))?;
        Ok(ObjectFile { path: path.to_owned(), file })
    }

    /// [`read`] with the file's name in the error.
    pub fn read(&self) -> Result<MatrixObject<'_>, Error> {
        let bytes = self.file.bytes(0..self.file.len()).map_err(Error::io("read", &self.path))?;
        read(bytes).map_err(|source| Error::MatrixObject { path: self.path.clone(), source })
    }
}

/// Sections of the object but the weights, in order, each with its type.
fn sections(parts: &Parts<'_>) -> Vec<(String, elf::SectionType, Vec<u8>)> {
    let data = |name: &str, bytes: Vec<u8>| (name.to_owned(), elf::SHT_PROGBITS, bytes);
    let descriptor = parts.descriptor;
    let mut json = serde_json::to_vec_pretty(descriptor).expect("a plain structure has a JSON form");
    json.push(b'\n');
    let note = note_bytes(&[
        ("name", descriptor.name.clone()),
        ("target", "matrix unit".into()),
        ("machine", descriptor.machine.clone()),
        ("tcc", descriptor.tcc.clone()),
    ]);
    let mut all = vec![
        (".note.tcc".to_owned(), elf::SHT_NOTE, note),
        data(DESCRIPTOR_SECTION, json),
        data(MACHINE_SECTION, parts.model.machine.canonical().into_bytes()),
        data(TILES_SECTION, tiles::text(parts.choices).into_bytes()),
    ];
    let programs = descriptor.entries().zip(parts.model.programs());
    all.extend(programs.map(|(entry, body)| data(&entry.section, codec::encode(&body.program))));
    all
}

/// Writes the object to `path`, whole or not at all.
pub fn write(path: &Path, parts: Parts<'_>) -> Result<(), ObjectError> {
    write_whole(path, Mode::Data, |out| write_to(out, parts))
}

/// Writes the object to `out`.
pub fn write_to(out: &mut dyn Write, parts: Parts<'_>) -> Result<(), ObjectError> {
    let layout_error = |error: object::write::Error| ObjectError::Layout(error.to_string());
    let sections = sections(&parts);
    let mut stream = StreamingBuffer::new(out);
    let mut writer = Writer::new(Endianness::Little, true, &mut stream);
    writer.reserve_null_section_index();
    let mut names = vec![];
    for (section, _, _) in &sections {
        names.push(writer.add_section_name(section.as_bytes()));
        writer.reserve_section_index();
    }
    let weights_name = writer.add_section_name(WEIGHTS_SECTION.as_bytes());
    writer.reserve_section_index();
    writer.reserve_shstrtab_section_index();
    writer.reserve_file_header();
    let offsets: Vec<u64> = sections.iter().map(|(_, _, bytes)| writer.reserve(bytes.len() as u64, 16)).collect();
    let weights_at = writer.reserve(parts.weights.bytes, WEIGHTS_ALIGN as u64);
    writer.reserve_shstrtab().map_err(layout_error)?;
    writer.reserve_section_headers();

    let header = FileHeader {
        os_abi: elf::ELFOSABI_NONE,
        abi_version: 0,
        e_type: elf::ET_REL,
        e_machine: elf::EM_NONE,
        e_entry: 0,
        e_flags: elf::FileFlags(0),
    };
    writer.write_file_header(&header).map_err(layout_error)?;
    for ((_, _, bytes), offset) in sections.iter().zip(&offsets) {
        writer.pad_until(*offset);
        writer.write(bytes);
    }
    writer.pad_until(weights_at);
    let mut counted = Counted {
        bytes: 0,
        write: |data: &[u8]| {
            writer.write(data);
            Ok(())
        },
    };
    (parts.weights.produce)(&mut counted)?;
    counted.expect(parts.weights.bytes)?;
    writer.write_shstrtab();
    writer.write_null_section_header();
    let placed = sections.iter().zip(names).zip(offsets).map(|(((_, ty, bytes), name), at)| {
        let align = if *ty == elf::SHT_NOTE { 4 } else { 16 };
        (name, *ty, at, bytes.len() as u64, align)
    });
    let weights = (weights_name, elf::SHT_PROGBITS, weights_at, parts.weights.bytes, WEIGHTS_ALIGN as u64);
    for (name, sh_type, sh_offset, sh_size, sh_addralign) in placed.chain([weights]) {
        let sh_name = writer.section_name_offset(Some(name));
        writer.write_section_header(&SectionHeader {
            sh_name,
            sh_type,
            sh_flags: elf::SectionFlags(0),
            sh_addr: 0,
            sh_offset,
            sh_size,
            sh_link: 0,
            sh_info: 0,
            sh_addralign,
            sh_entsize: 0,
        });
    }
    writer.write_shstrtab_section_header();
    stream.result()?;
    Ok(())
}

/// The object in `bytes`.
///
/// Errors: whatever would keep its programs from being run.
pub fn read(bytes: &[u8]) -> Result<MatrixObject<'_>, ReadError> {
    let elf = ElfFile64::<Endianness>::parse(bytes).map_err(|e| ReadError::Elf(e.to_string()))?;
    let machine = elf.elf_header().e_machine(elf.endian());
    if machine != elf::EM_NONE || elf.endian() != Endianness::Little {
        return Err(ReadError::Elf(format!("its machine is {}, expected EM_NONE, little-endian", machine.0)));
    }
    let descriptor: Descriptor = serde_json::from_str(text(&elf, DESCRIPTOR_SECTION)?)
        .map_err(|e| malformed(DESCRIPTOR_SECTION, "a descriptor", e.to_string()))?;
    if descriptor.format != FORMAT || descriptor.version != FORMAT_VERSION {
        return Err(ReadError::Format { format: descriptor.format, version: descriptor.version });
    }
    let machine = parse::parse(text(&elf, MACHINE_SECTION)?)?;
    ensure(machine.digest() == descriptor.machine_sha256.0 && machine.name == descriptor.machine, || {
        "the machine is not the one that the descriptor names".into()
    })?;
    let body = |entry: &Entry| -> Result<Body, ReadError> {
        let failed = |source| ReadError::Program { section: entry.section.clone(), source };
        let program = codec::decode(section(&elf, &entry.section)?).map_err(failed)?;
        Ok(Body { m: entry.m, weights_bytes: entry.weights_bytes, program })
    };
    let bodies = descriptor.bodies.iter().map(body).collect::<Result<_, _>>()?;
    let head = body(&descriptor.head)?;
    let Descriptor { hidden, vocab, ctx, .. } = descriptor;
    let model = MatrixModel { machine, hidden, vocab, ctx, bodies, head };
    check(&descriptor, &model)?;
    let weights = section(&elf, WEIGHTS_SECTION)?;
    ensure(weights.len() as u64 == descriptor.weights_bytes, || {
        format!("section '{WEIGHTS_SECTION}' has {} bytes, expected {}", weights.len(), descriptor.weights_bytes)
    })?;
    if <[u8; 32]>::from(Sha256::digest(weights)) != descriptor.weights_sha256.0 {
        return Err(ReadError::Hash);
    }
    Ok(MatrixObject { tiles: text(&elf, TILES_SECTION)?, descriptor, model, weights })
}

fn malformed(section: &str, expected: &'static str, reason: String) -> ReadError {
    ReadError::Section { section: section.to_owned(), expected, reason }
}

fn section<'a>(elf: &ElfFile64<'a, Endianness>, name: &str) -> Result<&'a [u8], ReadError> {
    let section = elf.section_by_name(name).ok_or_else(|| ReadError::NoSection(name.to_owned()))?;
    section.data().map_err(|e| malformed(name, "in the file", e.to_string()))
}

fn text<'a>(elf: &ElfFile64<'a, Endianness>, name: &str) -> Result<&'a str, ReadError> {
    std::str::from_utf8(section(elf, name)?).map_err(|e| malformed(name, "text", e.to_string()))
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), ReadError> {
    if holds { Ok(()) } else { Err(ReadError::Contradiction { what: what() }) }
}

/// Programs, descriptor and machine agree.
fn check(descriptor: &Descriptor, model: &MatrixModel) -> Result<(), ReadError> {
    let m: Vec<usize> = model.bodies.iter().map(|body| body.m).collect();
    ensure(m.first() == Some(&1) && m.is_sorted_by(|a, b| a < b) && model.head.m == 1, || {
        format!("bodies take {m:?} token rows, expected 1 and then more")
    })?;
    ensure([model.hidden, model.vocab, model.ctx].iter().all(|n| (1..1 << 31).contains(n)), || {
        "a width, vocabulary or context is not between 1 and 2^31".into()
    })?;
    let most = m.last().copied().unwrap_or(1) as u64;
    let (hidden, vocab) = (model.hidden as u64, model.vocab as u64);
    for (entry, body) in descriptor.entries().zip(model.programs()) {
        let program = &body.program;
        let at = |what: &str| format!("section '{}': {what}", entry.section);
        ensure(program.machine_digest == descriptor.machine_sha256.0, || at("made for another machine"))?;
        ensure(program.symbols == model.head.program.symbols, || at("its symbols are not those of the head"))?;
        ensure(constants_are_whole(program), || at("a constant has no bytes"))?;
        cores_exist(program, &model.machine).map_err(|what| ReadError::Contradiction { what: at(what) })?;
    }
    let head = &model.head.program;
    let bytes = |name: &str| head.find_symbol(name).map(|id| head.symbol(id)).map(|s| s.bytes);
    let tokens = 4u64.saturating_mul(most).saturating_add(TOKENS_OFFSET as u64);
    let least = [
        (INPUT, tokens),
        (HIDDEN, 4u64.saturating_mul(hidden).saturating_mul(most)),
        (LOGITS, 4u64.saturating_mul(vocab)),
    ];
    for (name, least) in least {
        ensure(bytes(name).is_some_and(|bytes| bytes >= least), || {
            format!("symbol '{name}' is missing or smaller than {least} bytes")
        })?;
    }
    let input = head.find_symbol(INPUT).map(|id| head.symbol(id).kind);
    ensure(input == Some(SymbolKind::Input), || format!("symbol '{INPUT}' is no input"))?;
    ensure(bytes(WEIGHTS) == Some(descriptor.weights_bytes), || {
        format!("symbol '{WEIGHTS}' is missing or has not {} bytes", descriptor.weights_bytes)
    })?;
    let others = head.symbols.iter().filter(|s| s.name != WEIGHTS);
    let others = others.fold(0u64, |sum, s| sum.saturating_add(s.bytes).saturating_add(SYMBOL_ALIGN));
    ensure(others <= OTHER_BYTES_LIMIT, || {
        format!("{others} bytes of memory beside the weights, at most {OTHER_BYTES_LIMIT} can be simulated")
    })
}

/// Every constant symbol comes with its bytes.
fn constants_are_whole(program: &Program) -> bool {
    let kinds = program.symbols.iter().enumerate().filter(|(_, s)| s.kind == SymbolKind::Constant);
    let mut indices = kinds.map(|(index, _)| index);
    indices.all(|index| program.constants.iter().any(|c| usize::from(c.symbol.0) == index))
}

/// No stream wants more cores than the machine has.
fn cores_exist(program: &Program, machine: &Machine) -> Result<(), &'static str> {
    let has = |kind: CoreKind| match kind {
        CoreKind::Coupled | CoreKind::Cube => machine.cube_cores(),
        CoreKind::Vector => machine.vector_cores(),
    };
    let mut streams = program.stages.iter().flat_map(|stage| &stage.streams);
    if streams.all(|stream| u32::from(stream.cores) <= has(stream.kind)) {
        Ok(())
    } else {
        Err("a stream wants more cores than the machine has")
    }
}
