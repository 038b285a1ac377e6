//! The riscv64 backend: rv64gc, with or without the vector extension 1.0 at any vector length.

mod abi;
mod desc;
mod hwcap;
mod inst;
mod micro;

use tcc_ir::target::{Features, MicroKernel, TargetDesc};

use crate::code::{Function, RelocKind};
use crate::isa::{Backend, ElfAbi, Syscalls};

/// The riscv64 instruction set.
pub struct Riscv64;

/// Code-generator flags of the baseline; M, A, F and D are on by default.
const CLIF_BASE: [&str; 2] = ["has_zca", "has_zcd"];

/// Code-generator flag, the feature it needs. `zvl128b` is part of V.
const CLIF_FLAGS: [(&str, Features); 4] =
    [("has_v", desc::V), ("has_zvl128b", desc::V), ("has_zba", desc::ZBA), ("has_zbb", desc::ZBB)];

impl Backend for Riscv64 {
    fn desc(&self) -> &'static TargetDesc {
        &desc::DESC
    }

    fn clif_triple(&self) -> &'static str {
        "riscv64gc-unknown-none-elf"
    }

    fn clif_flags(&self, features: Features) -> Vec<&'static str> {
        let optional = CLIF_FLAGS.iter().filter(|(_, needs)| features.contains(*needs)).map(|(flag, _)| *flag);
        CLIF_BASE.into_iter().chain(optional).collect()
    }

    fn has_vectors(&self, features: Features) -> bool {
        features.contains(desc::V)
    }

    fn micro(&self, row: &MicroKernel) -> Option<Function> {
        micro::micro(row)
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
        hwcap::hwcap()
    }

    fn vlen(&self) -> Option<Function> {
        Some(abi::vlen())
    }

    fn emulated_cpu(&self, features: Features, vlen: u32) -> Option<String> {
        let has = |feature| features.contains(feature);
        let vectors =
            if has(desc::V) { format!("v=true,vext_spec=v1.0,vlen={}", vlen.max(128)) } else { "v=false".into() };
        Some(format!("rv64,{vectors},zba={},zbb={}", has(desc::ZBA), has(desc::ZBB)))
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
