//! The static Linux executable: headers, the text image, the weights; no section, no relocation, no libc.

use std::io::Write;
use std::path::Path;

use object::Endianness;
use object::elf;
use object::write::StreamingBuffer;
use object::write::elf::{FileHeader, ProgramHeader, Writer};
use tcc_backends::emit::START;
use tcc_backends::image::{Image, TEXT_ALIGN};
use tcc_backends::isa::ElfAbi;

use crate::object::{Counted, ObjectError, WeightsSource};
use crate::output::{Mode, write_whole};

/// Address of the file's first byte in memory.
const BASE: u64 = 0x40_0000;

/// Alignment of the weights in file and memory: a huge page of every target.
const WEIGHTS_ALIGN: u64 = 2 << 20;

/// Program headers: text, weights, stack.
const SEGMENTS: u32 = 3;

/// Where the parts are, as offsets in the file; memory follows at [`BASE`].
struct Layout {
    text: u64,
    weights: u64,
}

/// Address of the text in memory: behind the headers, which fit its alignment.
pub const TEXT_ADDRESS: u64 = BASE + TEXT_ALIGN;

/// Writes the executable of `image` (which holds the entry point) to `path`, whole or not at all.
pub fn write(path: &Path, elf: ElfAbi, image: &Image, weights: WeightsSource<'_>) -> Result<(), ObjectError> {
    write_whole(path, Mode::Executable, |out| write_to(out, elf, image, weights))
}

fn write_to(out: &mut dyn Write, abi: ElfAbi, image: &Image, weights: WeightsSource<'_>) -> Result<(), ObjectError> {
    let entry = image.symbol(START).ok_or_else(|| ObjectError::Layout(format!("the image has no '{START}'")))?;
    let mut stream = StreamingBuffer::new(out);
    let mut writer = Writer::new(Endianness::Little, true, &mut stream);
    writer.reserve_file_header();
    writer.reserve_program_headers(SEGMENTS);
    let text = writer.reserve(image.text.len() as u64, TEXT_ALIGN);
    if BASE + text != TEXT_ADDRESS {
        return Err(ObjectError::Layout(format!("the text lies at {text:#x} of the file")));
    }
    let layout = Layout { text, weights: writer.reserve(weights.bytes, WEIGHTS_ALIGN) };

    let header = FileHeader {
        os_abi: elf::ELFOSABI_NONE,
        abi_version: 0,
        e_type: elf::ET_EXEC,
        e_machine: elf::Machine(abi.machine),
        e_entry: BASE + layout.text + entry.offset,
        e_flags: elf::FileFlags(abi.flags),
    };
    writer.write_file_header(&header).map_err(|e| ObjectError::Layout(e.to_string()))?;
    writer.write_align_program_headers();
    for segment in segments(&layout, image.text.len() as u64, weights.bytes) {
        writer.write_program_header(&segment);
    }
    writer.pad_until(layout.text);
    let mut linked = image.clone();
    linked.set_weights((layout.weights - layout.text).cast_signed());
    writer.write(&linked.text);
    writer.pad_until(layout.weights);
    let mut counted = Counted {
        bytes: 0,
        write: |data: &[u8]| {
            writer.write(data);
            Ok(())
        },
    };
    (weights.produce)(&mut counted)?;
    counted.expect(weights.bytes)?;
    stream.result()?;
    Ok(())
}

fn segments(layout: &Layout, text_bytes: u64, weights_bytes: u64) -> [ProgramHeader; SEGMENTS as usize] {
    let segment = |p_flags, start: u64, bytes, p_align| ProgramHeader {
        p_type: elf::PT_LOAD,
        p_flags,
        p_offset: start,
        p_vaddr: BASE + start,
        p_paddr: BASE + start,
        p_filesz: bytes,
        p_memsz: bytes,
        p_align,
    };
    let stack =
        ProgramHeader { p_type: elf::PT_GNU_STACK, p_vaddr: 0, p_paddr: 0, ..segment(elf::PF_R | elf::PF_W, 0, 0, 16) };
    [
        segment(elf::PF_R | elf::PF_X, layout.text, text_bytes, TEXT_ALIGN),
        segment(elf::PF_R, layout.weights, weights_bytes, WEIGHTS_ALIGN),
        stack,
    ]
}

#[cfg(test)]
mod tests {
    use object::Object as _;
    use object::read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _};
    use tcc_backends::image::{Symbol, SymbolKind};

    use super::*;

    const ABI: ElfAbi = ElfAbi { machine: 62, flags: 0, pc64: &[24] };

    fn image(entry: &str) -> Image {
        let entry = Symbol { name: entry.into(), kind: SymbolKind::Function, offset: 64, bytes: 8 };
        Image { text: vec![0; 100], symbols: vec![entry], weights_slot: Some(80), stack_bytes: 0, task_stack_bytes: 0 }
    }

    fn written(entry: &str) -> Result<Vec<u8>, ObjectError> {
        let mut out = Vec::new();
        let mut produce = |out: &mut dyn Write| out.write_all(&[7; 128]);
        write_to(&mut out, ABI, &image(entry), WeightsSource { bytes: 128, produce: &mut produce })?;
        Ok(out)
    }

    #[test]
    fn the_slot_reaches_the_weights() {
        let bytes = written(START).expect("writable");
        let file = ElfFile64::<Endianness>::parse(&*bytes).expect("an ELF file");
        let headers = file.elf_header().program_headers(Endianness::Little, &*bytes).expect("there");
        let loads: Vec<_> =
            headers.iter().map(|h| (h.p_offset(Endianness::Little), h.p_vaddr(Endianness::Little))).collect();
        let (text, weights) = (loads[0], loads[1]);
        assert_eq!(file.entry(), text.1 + 64);
        let slot = &bytes[text.0 as usize + 80..][..8];
        let displacement = u64::from_le_bytes(slot.try_into().expect("eight bytes"));
        assert_eq!(text.1 + 80 + displacement, weights.1);
        assert_eq!(&bytes[weights.0 as usize..], [7; 128]);
        assert!(headers.iter().all(|h| (h.p_flags(Endianness::Little) & elf::PF_X).0 == 0
            || (h.p_flags(Endianness::Little) & elf::PF_W).0 == 0));
    }

    #[test]
    fn an_image_without_entry_point_is_refused() {
        assert_eq!(written("other").expect_err("no entry").to_string(), "object layout: the image has no '_start'");
    }
}
