//! The aarch64 backend: Armv8.0 with NEON as the baseline; dotprod, i8mm, SVE and SME where declared.
//!
//! [`desc`] says what the target is, [`abi`] how its code enters and leaves, [`inst`] encodes, [`micro`] multiplies
//! ternary weights, [`dense`] float ones, [`attention`] holds the loops of attention, [`rows`] those of norms, gates and
//! quantization.

mod abi;
mod attention;
mod dense;
mod desc;
mod exp;
mod floats;
mod form;
#[cfg(test)]
mod golden;
mod inst;
mod micro;
mod rows;
mod screen;

use tcc_ir::target::{Features, MicroKernel, TargetDesc};
use tcc_ir::ty::DType;

use crate::code::{Function, RelocKind};
use crate::isa::{AttentionPart, Backend, ElfAbi, RowPart, ScreenLoops, Syscalls};

/// The aarch64 instruction set.
pub struct Aarch64;

impl Backend for Aarch64 {
    fn desc(&self) -> &'static TargetDesc {
        &desc::DESC
    }

    fn clif_triple(&self) -> &'static str {
        "aarch64-unknown-none-elf"
    }

    fn clif_flags(&self, features: Features) -> Vec<&'static str> {
        let mut flags = vec!["use_bti"];
        if features.contains(desc::LSE) {
            flags.push("has_lse");
        }
        flags
    }

    fn has_vectors(&self, features: Features) -> bool {
        features.contains(desc::NEON)
    }

    fn micro(&self, row: &MicroKernel, _features: Features) -> Option<Function> {
        micro::code(row)
    }

    fn dense_dot(&self, weight: DType, features: Features) -> Option<Function> {
        features.contains(desc::NEON).then(|| dense::emit(weight))
    }

    fn screen(&self, features: Features) -> Option<ScreenLoops> {
        features.contains(desc::NEON).then(|| screen::emit(features))
    }

    fn attention(&self, part: AttentionPart, features: Features) -> Option<Function> {
        features.contains(desc::NEON).then(|| attention::emit(part, features))
    }

    fn row_loop(&self, part: RowPart, features: Features) -> Option<Function> {
        if features.contains(desc::NEON) { rows::emit(part) } else { None }
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

    fn emulated_cpu(&self, features: Features, _vlen: u32) -> Option<String> {
        // The smallest core of the emulator that has them: code that uses more does not run.
        let cores = [("cortex-a53", desc::NEON), ("cortex-a76", desc::V82)];
        // The emulator has SME with SVE alone; without FA64 what streaming mode forbids does not run there. Before version
        // 10 `smopa` multiplies other elements than it should: a property of that version keeps older ones from starting.
        let largest = if features.contains(desc::SME) {
            "max,sme_fa64=off,pauth-qarma5=on"
        } else if features.contains(desc::SVE) {
            "max,sme=off"
        } else {
            "max,sve=off"
        };
        let core = cores.iter().find(|(_, has)| has.contains(features)).map_or(largest, |(name, _)| name);
        Some(core.to_owned())
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
