//! The relocatable ELF object: one text section, the weights section, notes, and a symbol table.
//!
//! **Invariant:** no writable section, no undefined symbol, and one relocation: the displacement of the weights.
//! **Invariant:** weights are streamed; they are never held in memory.

use std::io::{self, Write};
use std::path::Path;

use object::Endianness;
use object::elf;
use object::write::StreamingBuffer;
use object::write::elf::{FileHeader, Rel, SectionHeader, SectionIndex, Sym, SymbolIndex, Writer};
use tcc_backends::image::{Image, SymbolKind, TEXT_ALIGN, WEIGHTS_SLOT};
use tcc_backends::isa::ElfAbi;
use tcc_ir::plan::WEIGHTS_ALIGN;
use tcc_runtime::abi::{TEXT_SECTION_PREFIX, WEIGHTS_SECTION};
use thiserror::Error;

use crate::output::{Mode, write_whole};

/// Most bytes of weights an object may carry: beyond it start-up code and libc of the host program overflow their
/// 32-bit references across the section.
pub const MAX_EMBEDDED_WEIGHTS: u64 = 7 << 28;

/// Why an object could not be written.
#[derive(Debug, Error)]
pub enum ObjectError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("object layout: {0}")]
    Layout(String),
    #[error("the weights are {found} bytes, expected {expected}")]
    WeightsLength { expected: u64, found: u64 },
    #[error("{bytes} bytes of weights do not link inside an object, at most {max} do; use --weights file")]
    WeightsTooLarge { bytes: u64, max: u64 },
}

/// Fails for weights too large to live in an object.
pub fn check_embeddable(bytes: u64) -> Result<(), ObjectError> {
    match bytes > MAX_EMBEDDED_WEIGHTS {
        true => Err(ObjectError::WeightsTooLarge { bytes, max: MAX_EMBEDDED_WEIGHTS }),
        false => Ok(()),
    }
}

/// A blob of known length, produced when it is its turn in the file.
pub struct WeightsSource<'a> {
    pub bytes: u64,
    /// Writes exactly `bytes` bytes.
    pub produce: &'a mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
}

/// What goes into one object.
pub struct ObjectParts<'a> {
    /// C prefix of the model.
    pub name: &'a str,
    pub elf: ElfAbi,
    pub image: &'a Image,
    /// Absent where the caller brings the weights.
    pub weights: Option<WeightsSource<'a>>,
    /// Lines of the note, `key=value`.
    pub note: &'a [(&'a str, String)],
}

/// Writes the object to `path`, whole or not at all.
pub fn write(path: &Path, parts: ObjectParts<'_>) -> Result<(), ObjectError> {
    if let Some(weights) = &parts.weights {
        check_embeddable(weights.bytes)?;
    }
    write_whole(path, Mode::Data, |out| write_to(out, parts))
}

/// Writes a `.weights` file to `path`, whole or not at all.
pub fn write_weights(path: &Path, weights: WeightsSource<'_>) -> Result<(), ObjectError> {
    write_whole(path, Mode::Data, |out| {
        let mut counted = Counted { bytes: 0, write: |data: &[u8]| out.write_all(data) };
        (weights.produce)(&mut counted)?;
        counted.expect(weights.bytes)
    })
}

/// Counts what a producer writes.
pub(crate) struct Counted<F: FnMut(&[u8]) -> io::Result<()>> {
    pub bytes: u64,
    pub write: F,
}

impl<F: FnMut(&[u8]) -> io::Result<()>> Counted<F> {
    pub fn expect(&self, expected: u64) -> Result<(), ObjectError> {
        match self.bytes {
            found if found == expected => Ok(()),
            found => Err(ObjectError::WeightsLength { expected, found }),
        }
    }
}

impl<F: FnMut(&[u8]) -> io::Result<()>> Write for Counted<F> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (self.write)(data)?;
        self.bytes += data.len() as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_to(out: &mut dyn Write, parts: ObjectParts<'_>) -> Result<(), ObjectError> {
    let text_name = format!("{TEXT_SECTION_PREFIX}{}", parts.name);
    let rela_name = format!(".rela{text_name}");
    let weights_symbol = format!("{}_weights", parts.name);
    let names = Names { text: &text_name, rela: &rela_name, weights_symbol: &weights_symbol };
    let note = note_bytes(parts.note);
    let mut stream = StreamingBuffer::new(out);
    let mut writer = Writer::new(Endianness::Little, true, &mut stream);
    let sizes = Sizes {
        weights: parts.weights.as_ref().map(|w| w.bytes),
        note: note.len() as u64,
        relocs: parts.elf.pc64.len(),
    };
    let layout = reserve(&mut writer, parts.image, &names, &sizes).map_err(layout_error)?;
    write_sections(&mut writer, parts, &layout, &note)?;
    stream.result()?;
    Ok(())
}

fn layout_error(error: object::write::Error) -> ObjectError {
    ObjectError::Layout(error.to_string())
}

struct Names<'a> {
    text: &'a str,
    rela: &'a str,
    weights_symbol: &'a str,
}

/// What the first pass must know about the parts that are not the image.
struct Sizes {
    weights: Option<u64>,
    note: u64,
    relocs: usize,
}

/// A section's name, index and place in the file.
#[derive(Clone, Copy)]
struct Section {
    name: object::write::StringId,
    index: SectionIndex,
    offset: u64,
    bytes: u64,
}

/// Where everything goes.
struct Layout {
    text: Section,
    weights: Option<Section>,
    note: Section,
    stack: Section,
    rela: Option<Section>,
    symbols: Vec<PlacedSymbol>,
    n_local: u32,
    /// Symbols of the weights' first byte and of the slot that receives the displacement.
    reloc_symbols: Option<(SymbolIndex, SymbolIndex)>,
}

/// One entry of the symbol table.
struct PlacedSymbol {
    name: object::write::StringId,
    section: SectionIndex,
    info: elf::SymbolInfo,
    value: u64,
    bytes: u64,
}

/// First pass: names, indices, offsets, in the order the second pass writes.
fn reserve<'a>(
    writer: &mut Writer<'a>,
    image: &'a Image,
    names: &Names<'a>,
    sizes: &Sizes,
) -> object::write::Result<Layout> {
    writer.reserve_null_section_index();
    let text_name = writer.add_section_name(names.text.as_bytes());
    let text_index = writer.reserve_section_index();
    let embedded = sizes.weights;
    let weights_head =
        embedded.map(|_| (writer.add_section_name(WEIGHTS_SECTION.as_bytes()), writer.reserve_section_index()));
    let note_head = (writer.add_section_name(b".note.tcc"), writer.reserve_section_index());
    let stack_head = (writer.add_section_name(b".note.GNU-stack"), writer.reserve_section_index());
    let has_reloc = embedded.is_some() && image.weights_slot.is_some();
    let rela_head = has_reloc.then(|| (writer.add_section_name(names.rela.as_bytes()), writer.reserve_section_index()));
    writer.reserve_symtab_section_index();
    writer.reserve_strtab_section_index();
    writer.reserve_shstrtab_section_index();
    let (symbols, n_local, reloc_symbols) =
        reserve_symbols(writer, image, text_index, weights_head.map(|h| h.1).zip(embedded), names.weights_symbol);

    writer.reserve_file_header();
    let mut place = |head: (_, _), bytes: u64, align: u64| Section {
        name: head.0,
        index: head.1,
        offset: writer.reserve(bytes, align),
        bytes,
    };
    let text = place((text_name, text_index), image.text.len() as u64, TEXT_ALIGN);
    let note = place(note_head, sizes.note, 4);
    let stack = place(stack_head, 0, 1);
    let weights = weights_head.zip(embedded).map(|(head, bytes)| place(head, bytes, WEIGHTS_ALIGN as u64));
    let rela = rela_head.map(|head| Section {
        name: head.0,
        index: head.1,
        offset: writer.reserve_relocations(sizes.relocs, true),
        bytes: 0,
    });
    writer.reserve_symtab();
    writer.reserve_strtab()?;
    writer.reserve_shstrtab()?;
    writer.reserve_section_headers();
    Ok(Layout {
        text,
        weights,
        note,
        stack,
        rela,
        symbols,
        n_local,
        reloc_symbols: reloc_symbols.filter(|_| has_reloc),
    })
}

type ReservedSymbols = (Vec<PlacedSymbol>, u32, Option<(SymbolIndex, SymbolIndex)>);

/// Reserves local symbols first, as ELF asks, then the API.
fn reserve_symbols<'a>(
    writer: &mut Writer<'a>,
    image: &'a Image,
    text: SectionIndex,
    weights: Option<(SectionIndex, u64)>,
    weights_symbol: &'a str,
) -> ReservedSymbols {
    let mut symbols = Vec::with_capacity(image.symbols.len() + 1);
    let mut weights_index = None;
    let mut slot_index = None;
    if let Some((section, bytes)) = weights {
        weights_index = Some(writer.reserve_symbol_index(Some(section)));
        let name = writer.add_string(weights_symbol.as_bytes());
        symbols.push(PlacedSymbol { name, section, info: info(elf::STB_LOCAL, elf::STT_OBJECT), value: 0, bytes });
    }
    let is_api = |kind| kind == SymbolKind::Api;
    let locals = image.symbols.iter().filter(|s| !is_api(s.kind));
    let globals = image.symbols.iter().filter(|s| is_api(s.kind));
    for symbol in locals.chain(globals) {
        let index = writer.reserve_symbol_index(Some(text));
        if symbol.name == WEIGHTS_SLOT && symbol.kind == SymbolKind::Data {
            slot_index = Some(index);
        }
        let info = match symbol.kind {
            SymbolKind::Api => info(elf::STB_GLOBAL, elf::STT_FUNC),
            SymbolKind::Function | SymbolKind::Label => info(elf::STB_LOCAL, elf::STT_FUNC),
            SymbolKind::Data => info(elf::STB_LOCAL, elf::STT_OBJECT),
        };
        let name = writer.add_string(symbol.name.as_bytes());
        symbols.push(PlacedSymbol { name, section: text, info, value: symbol.offset, bytes: symbol.bytes });
    }
    let n_api = image.symbols.iter().filter(|s| is_api(s.kind)).count();
    let n_local = u32::try_from(1 + symbols.len() - n_api).expect("far fewer than 2^32 symbols");
    (symbols, n_local, weights_index.zip(slot_index))
}

fn info(bind: elf::SymbolBind, ty: elf::SymbolType) -> elf::SymbolInfo {
    elf::SymbolInfo::new(bind, ty)
}

/// Second pass: every byte, in the order reserved.
fn write_sections(
    writer: &mut Writer<'_>,
    parts: ObjectParts<'_>,
    layout: &Layout,
    note: &[u8],
) -> Result<(), ObjectError> {
    let header = FileHeader {
        os_abi: elf::ELFOSABI_NONE,
        abi_version: 0,
        e_type: elf::ET_REL,
        e_machine: elf::Machine(parts.elf.machine),
        e_entry: 0,
        e_flags: elf::FileFlags(parts.elf.flags),
    };
    writer.write_file_header(&header).map_err(layout_error)?;
    writer.pad_until(layout.text.offset);
    writer.write(&parts.image.text);
    writer.pad_until(layout.note.offset);
    writer.write(note);
    if let Some((section, source)) = layout.weights.zip(parts.weights) {
        writer.pad_until(section.offset);
        let mut counted = Counted {
            bytes: 0,
            write: |data: &[u8]| {
                writer.write(data);
                Ok(())
            },
        };
        (source.produce)(&mut counted)?;
        counted.expect(section.bytes)?;
    }
    write_relocation(writer, parts.elf, parts.image, layout);
    write_symbols(writer, layout);
    writer.write_strtab();
    writer.write_shstrtab();
    write_section_headers(writer, parts.elf, layout);
    Ok(())
}

/// The one displacement: a single relocation, or an ADD/SUB pair on ISAs that have only those.
fn write_relocation(writer: &mut Writer<'_>, abi: ElfAbi, image: &Image, layout: &Layout) {
    let (Some(_), Some((weights, slot)), Some(offset)) = (layout.rela, layout.reloc_symbols, image.weights_slot) else {
        return;
    };
    writer.write_align_relocation();
    for (r_type, symbol) in abi.pc64.iter().zip([weights, slot]) {
        let rel = Rel { r_offset: offset, r_sym: symbol.0, r_type: elf::RelocationType(*r_type), r_addend: 0 };
        writer.write_relocation(true, &rel);
    }
}

fn write_symbols(writer: &mut Writer<'_>, layout: &Layout) {
    writer.write_null_symbol();
    for symbol in &layout.symbols {
        let st_name = writer.string_offset(Some(symbol.name));
        writer.write_symbol(&Sym {
            section: Some(symbol.section.0),
            st_name,
            st_info: symbol.info,
            st_other: elf::SymbolOther::default(),
            st_shndx: elf::SymbolSection::default(),
            st_value: symbol.value,
            st_size: symbol.bytes,
        });
    }
}

fn write_section_headers(writer: &mut Writer<'_>, abi: ElfAbi, layout: &Layout) {
    writer.write_null_section_header();
    let alloc_exec = elf::SHF_ALLOC | elf::SHF_EXECINSTR;
    write_section_header(writer, &layout.text, elf::SHT_PROGBITS, alloc_exec, TEXT_ALIGN);
    if let Some(weights) = &layout.weights {
        write_section_header(writer, weights, elf::SHT_PROGBITS, elf::SHF_ALLOC, WEIGHTS_ALIGN as u64);
    }
    write_section_header(writer, &layout.note, elf::SHT_NOTE, elf::SectionFlags(0), 4);
    write_section_header(writer, &layout.stack, elf::SHT_PROGBITS, elf::SectionFlags(0), 1);
    if let Some(rela) = &layout.rela {
        let symtab = writer.symtab_index();
        writer.write_relocation_section_header(rela.name, layout.text.index, symtab, rela.offset, abi.pc64.len(), true);
    }
    writer.write_symtab_section_header(layout.n_local);
    writer.write_strtab_section_header();
    writer.write_shstrtab_section_header();
}

fn write_section_header(
    writer: &mut Writer<'_>,
    section: &Section,
    sh_type: elf::SectionType,
    sh_flags: elf::SectionFlags,
    align: u64,
) {
    let sh_name = writer.section_name_offset(Some(section.name));
    writer.write_section_header(&SectionHeader {
        sh_name,
        sh_type,
        sh_flags,
        sh_addr: 0,
        sh_offset: section.offset,
        sh_size: section.bytes,
        sh_link: 0,
        sh_info: 0,
        sh_addralign: align,
        sh_entsize: 0,
    });
}

/// An ELF note: owner `tcc`, type 1, lines of `key=value`.
pub(crate) fn note_bytes(lines: &[(&str, String)]) -> Vec<u8> {
    let mut text: Vec<u8> = lines.iter().flat_map(|(key, value)| format!("{key}={value}\n").into_bytes()).collect();
    let text_bytes = u32::try_from(text.len()).expect("a few lines");
    text.resize(text.len().next_multiple_of(4), 0);
    let mut note = Vec::with_capacity(16 + text.len());
    for word in [4, text_bytes, 1] {
        note.extend_from_slice(&word.to_le_bytes());
    }
    note.extend_from_slice(b"tcc\0");
    note.extend_from_slice(&text);
    note
}

#[cfg(test)]
mod tests {
    use object::read::elf::{ElfFile64, FileHeader as _, SectionHeader as _};
    use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
    use tcc_backends::image::Symbol;

    use super::*;

    /// A machine with one relocation type for 64-bit displacements.
    const ABI: ElfAbi = ElfAbi { machine: 62, flags: 0, pc64: &[24] };
    /// A machine that needs an ADD/SUB pair, and header flags.
    const PAIR_ABI: ElfAbi = ElfAbi { machine: 243, flags: 4, pc64: &[36, 40] };

    fn image() -> Image {
        let symbol = |name: &str, kind, offset, bytes| Symbol { name: name.into(), kind, offset, bytes };
        Image {
            text: (0..136).collect(),
            symbols: vec![
                symbol("toy_init", SymbolKind::Api, 0, 40),
                symbol("L00.q", SymbolKind::Label, 8, 16),
                symbol("dense_m1", SymbolKind::Function, 64, 64),
                symbol(WEIGHTS_SLOT, SymbolKind::Data, 128, 8),
            ],
            weights_slot: Some(128),
            stack_bytes: 64,
            task_stack_bytes: 0,
        }
    }

    fn write_object(elf: ElfAbi, weights: Option<u64>, produced: usize) -> Result<Vec<u8>, ObjectError> {
        let mut produce = |out: &mut dyn Write| out.write_all(&vec![7; produced]);
        let weights = weights.map(|bytes| WeightsSource { bytes, produce: &mut produce });
        let note = [("name", "toy".to_string())];
        let mut out = Vec::new();
        write_to(&mut out, ObjectParts { name: "toy", elf, image: &image(), weights, note: &note })?;
        Ok(out)
    }

    #[test]
    fn an_object_has_one_relocation_and_nothing_writable() {
        for elf in [ABI, PAIR_ABI] {
            let bytes = write_object(elf, Some(200), 200).expect("writable");
            let file = ElfFile64::<Endianness>::parse(&*bytes).expect("an ELF file");
            assert_eq!(file.elf_header().e_flags(Endianness::Little).0, elf.flags);
            let names: Vec<_> = file.sections().map(|s| s.name().expect("named").to_string()).collect();
            let expected =
                [".text.toy", "tcc_weights", ".note.tcc", ".note.GNU-stack", ".rela.text.toy", ".symtab", ".strtab"];
            assert_eq!(names[..7], expected);
            for section in file.sections() {
                let flags = section.elf_section_header().sh_flags(Endianness::Little);
                assert_eq!(flags.0 & elf::SHF_WRITE.0, 0, "{:?}", section.name());
            }
            let weights = file.section_by_name("tcc_weights").expect("embedded");
            assert_eq!((weights.align(), weights.data().expect("there")), (16384, &[7; 200][..]));
            let text = file.section_by_name(".text.toy").expect("there");
            let relocs: Vec<_> = text
                .relocations()
                .map(|(at, r)| {
                    (at, file.symbol_by_index(symbol_of(&r)).expect("a symbol").name().expect("named").to_string())
                })
                .collect();
            let targets = [(128, "toy_weights".to_string()), (128, WEIGHTS_SLOT.to_string())];
            assert_eq!(relocs, targets[..elf.pc64.len()]);
        }
    }

    fn symbol_of(reloc: &object::Relocation) -> object::SymbolIndex {
        match reloc.target() {
            object::RelocationTarget::Symbol(index) => index,
            other => panic!("a relocation against {other:?}"),
        }
    }

    #[test]
    fn only_the_api_is_global() {
        let bytes = write_object(ABI, Some(200), 200).expect("writable");
        let file = ElfFile64::<Endianness>::parse(&*bytes).expect("an ELF file");
        let globals: Vec<_> = file.symbols().filter(|s| s.is_global()).map(|s| s.name().expect("named")).collect();
        assert_eq!(globals, ["toy_init"]);
        assert!(file.symbols().skip(1).all(|s| !s.is_undefined()));
        let label = file.symbol_by_name("L00.q").expect("op labels are symbols");
        assert_eq!((label.address(), label.size()), (8, 16));
    }

    #[test]
    fn weights_from_the_caller_leave_no_section_and_no_relocation() {
        let bytes = write_object(ABI, None, 0).expect("writable");
        let file = ElfFile64::<Endianness>::parse(&*bytes).expect("an ELF file");
        assert!(file.section_by_name("tcc_weights").is_none());
        assert!(file.sections().all(|s| s.relocations().next().is_none()));
    }

    #[test]
    fn weights_of_another_length_are_refused() {
        let error = write_object(ABI, Some(200), 199).expect_err("a byte is missing");
        assert_eq!(error.to_string(), "the weights are 199 bytes, expected 200");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut produce = |_: &mut dyn Write| Ok(());
        let weights = Some(WeightsSource { bytes: MAX_EMBEDDED_WEIGHTS + 1, produce: &mut produce });
        let parts = ObjectParts { name: "toy", elf: ABI, image: &image(), weights, note: &[] };
        let error = write(&folder.path().join("toy.o"), parts).expect_err("too large");
        assert!(error.to_string().contains("use --weights file"), "{error}");
    }
}
