//! The x86-64 backend.

mod abi;
mod attention;
mod dense;
mod dense_avx2;
mod desc;
mod exp;
mod exp_avx2;
mod fetch;
mod micro;
mod pieces;
mod rows;
mod rows_avx2;
mod screen;

use iced_x86::code_asm::CodeAssembler;
use iced_x86::{Decoder, DecoderOptions, Formatter, IcedError, IntelFormatter};
use tcc_ir::target::{Features, MicroKernel, TargetDesc};
use tcc_ir::ty::DType;

use self::fetch::Fetch;
use super::{AttentionPart, Backend, CacheLoops, ElfAbi, RowPart, ScreenLoops, Syscalls};
use crate::code::{Function, RelocKind};

/// The x86_64 instruction set.
pub struct X86_64;

impl Backend for X86_64 {
    fn desc(&self) -> &'static TargetDesc {
        &desc::DESC
    }

    fn clif_triple(&self) -> &'static str {
        "x86_64-unknown-none-elf"
    }

    /// The baseline's flags whatever else is there: AVX-512 forms of portable code are little tested and no faster
    /// with vectors of 128 bits.
    fn clif_flags(&self, _features: Features) -> Vec<&'static str> {
        desc::CLIF_FLAGS.to_vec()
    }

    fn has_vectors(&self, _features: Features) -> bool {
        true
    }

    fn micro(&self, row: &MicroKernel, features: Features) -> Option<Function> {
        micro::emit(row, Fetch::of(features))
    }

    fn dense_dot(&self, weight: DType, features: Features) -> Option<Function> {
        let is_wide = features.contains(desc::AVX512);
        let fetch = Fetch::of(features);
        Some(if is_wide { dense::emit("dense_dot", weight, fetch) } else { dense_avx2::emit(weight, fetch) })
    }

    fn dense_ahead_bytes(&self, features: Features) -> usize {
        match Fetch::of(features) {
            // Intel Xeon of model 167, bf16 rows of 2560 in huge pages: 15 GB/s; 13 at 4 KiB, 11 at 8.
            Fetch::First => 2048,
            // On Zen 4, 8 KiB read 657 MB of bf16 at 26.5 GB/s, 2 KiB at 21.
            Fetch::Second => 8192,
        }
    }

    fn screen(&self, features: Features) -> Option<ScreenLoops> {
        Some(screen::emit(features))
    }

    fn attention(&self, part: AttentionPart, features: Features) -> Option<Function> {
        Some(attention::emit(part, features))
    }

    fn cache_loops(&self, cache: DType, features: Features) -> Option<CacheLoops> {
        let is_read = cache != DType::Q8 && features.contains(desc::AVX512);
        is_read.then(|| attention::cache_loops(cache, Fetch::of(features)))
    }

    fn row_loop(&self, part: RowPart, features: Features) -> Option<Function> {
        if features.contains(desc::AVX512) { rows::emit(part) } else { rows_avx2::emit(part) }
    }

    fn probe(&self) -> Function {
        abi::probe()
    }

    fn start(&self) -> Function {
        abi::start()
    }

    fn syscall(&self) -> Function {
        abi::syscall()
    }

    fn hwcap(&self) -> Function {
        abi::hwcap()
    }

    /// The emulator's largest core: it has the baseline and nothing of 512 bits.
    fn emulated_cpu(&self, _features: Features, _vlen: u32) -> Option<String> {
        Some("max".into())
    }

    fn disassemble(&self, code: &[u8], address: u64) -> Vec<(usize, String)> {
        let mut formatter = IntelFormatter::new();
        let instructions = Decoder::with_ip(64, code, address, DecoderOptions::NONE).into_iter();
        let list = instructions.map(|instruction| {
            let mut text = String::new();
            formatter.format(&instruction, &mut text);
            (instruction.len(), text)
        });
        list.collect()
    }

    fn syscalls(&self) -> Syscalls {
        abi::SYSCALLS
    }

    fn elf(&self) -> ElfAbi {
        abi::ELF
    }

    fn apply(&self, kind: RelocKind, code: &mut [u8], at: usize, place: u64, target: u64) -> Result<(), String> {
        abi::apply(kind, code, at, place, target)
    }
}

/// Assembles a function; `frame_bytes` counts the return address and everything pushed.
fn function(name: &str, frame_bytes: u32, fill: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Function {
    let mut assembler = CodeAssembler::new(64).expect("64 bits are supported");
    let filled = fill(&mut assembler).and_then(|()| assembler.assemble(0));
    let bytes = filled.expect("the instructions and labels are fixed by the source");
    Function { name: name.into(), bytes, align: 64, frame_bytes, is_code: true, ..Function::default() }
}
