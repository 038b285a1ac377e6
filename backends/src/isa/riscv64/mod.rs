//! The riscv64 backend: rv64gc, with or without the vector extension 1.0 at any vector length.

mod abi;
mod attention;
mod dense;
mod desc;
mod exp;
mod floats;
mod hwcap;
mod inst;
mod micro;
mod rows;
mod screen;

use tcc_ir::target::{Features, MicroKernel, TargetDesc};
use tcc_ir::ty::DType;

use crate::code::{Function, RelocKind};
use crate::isa::{AttentionPart, Backend, ElfAbi, RowPart, ScreenLoops, Syscalls};

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

    fn micro(&self, row: &MicroKernel, _features: Features) -> Option<Function> {
        micro::micro(row)
    }

    fn dense_dot(&self, weight: DType, features: Features) -> Option<Function> {
        features.contains(desc::V).then(|| dense::emit(weight))
    }

    fn screen(&self, features: Features) -> Option<ScreenLoops> {
        features.contains(desc::V).then(screen::emit)
    }

    fn attention(&self, part: AttentionPart, features: Features) -> Option<Function> {
        features.contains(desc::V).then(|| attention::emit(part))
    }

    fn row_loop(&self, part: RowPart, features: Features) -> Option<Function> {
        if features.contains(desc::V) { rows::emit(part) } else { None }
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

    /// Words for an assembler; only the lengths are read from the code.
    fn disassemble(&self, code: &[u8], _address: u64) -> Vec<(usize, String)> {
        let mut rest = code;
        let mut listed = Vec::new();
        while let Some(first) = rest.first() {
            let (bytes, after) = rest.split_at(inst::length(*first).min(rest.len()));
            let digits: String = bytes.iter().rev().map(|b| format!("{b:02x}")).collect();
            listed.push((bytes.len(), format!(".{}byte 0x{digits}", bytes.len())));
            rest = after;
        }
        listed
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_instructions_are_listed_by_their_length() {
        // c.nop, nop, c.nop, and a word cut short.
        let code = [0x01, 0x00, 0x13, 0x00, 0x00, 0x00, 0x01, 0x00, 0x13];
        let expected = [(2, ".2byte 0x0001"), (4, ".4byte 0x00000013"), (2, ".2byte 0x0001"), (1, ".1byte 0x13")];
        assert_eq!(Riscv64.disassemble(&code, 0), expected.map(|(length, text)| (length, text.to_owned())));
    }
}
