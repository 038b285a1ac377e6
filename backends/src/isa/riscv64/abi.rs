//! Binary interface of riscv64 Linux and ELF: start-up, system calls, probes, relocations.
//!
//! Source: RISC-V ELF psABI 1.0 (calling convention, relocations).

use tcc_ir::target::Features;

use super::desc::RV64GC;
use super::inst::{
    A0, A1, A2, A3, A4, A5, A6, A7, RA, SP, ZERO, auipc, bne, csrr_vlenb, ebreak, ecall, jalr, li, mv, patch_branch,
    put, ret,
};
use crate::asm::Asm;
use crate::code::{Function, Reloc, RelocKind, Target};
use crate::isa::{ElfAbi, Syscalls};

/// EM_RISCV; EF_RISCV_RVC and EF_RISCV_FLOAT_ABI_DOUBLE; R_RISCV_ADD64 and R_RISCV_SUB64.
pub const ELF: ElfAbi = ElfAbi { machine: 243, flags: 0x1 | 0x4, pc64: &[36, 40] };

/// The generic table of Linux, `include/uapi/asm-generic/unistd.h`.
pub const SYSCALLS: Syscalls = Syscalls { read: 63, write: 64, mmap: 222, exit_group: 94 };

pub(super) fn function(name: &str, asm: Asm, frame_bytes: u32) -> Function {
    Function { name: name.into(), bytes: asm.finish(), align: 16, frame_bytes, is_code: true, ..Function::default() }
}

/// The immediate of a feature set.
pub(super) fn bits(set: Features) -> i32 {
    i32::try_from(set.0).expect("few features")
}

/// The hint, or else the baseline: user code cannot ask the core.
pub fn probe() -> Function {
    let mut asm = Asm::new();
    let hinted = asm.label();
    asm.branch(bne(A0, ZERO), hinted, patch_branch);
    asm.word(li(A0, bits(RV64GC)));
    asm.bind(hinted);
    asm.word(ret());
    function("probe", asm, 0)
}

/// Register bytes: reads `vlenb`, which traps on cores without V.
pub fn vlen() -> Function {
    let mut asm = Asm::new();
    put(&mut asm, &[csrr_vlenb(A0), ret()]);
    function("vlen", asm, 0)
}

/// `_start`: the stack pointer the kernel gave, which is 16-byte aligned, goes to `exe_main`.
pub fn start() -> Function {
    let mut asm = Asm::new();
    asm.word(mv(A0, SP));
    let offset = u32::try_from(asm.here()).expect("a few instructions");
    put(&mut asm, &[auipc(RA), jalr(RA, RA, 0), ebreak()]);
    let target = Target::Symbol("exe_main".into());
    let relocs = vec![Reloc { offset, kind: RelocKind::RiscvCall, target, addend: 0 }];
    Function { relocs, calls: vec!["exe_main".into()], ..function("_start", asm, 0) }
}

/// `exe_syscall`: number to `a7`, arguments down by one register.
pub fn syscall() -> Function {
    let mut asm = Asm::new();
    // The number goes first: `a7` holds no argument (there are seven), and `a0` is overwritten next.
    asm.word(mv(A7, A0));
    for pair in [A0, A1, A2, A3, A4, A5, A6].windows(2) {
        asm.word(mv(pair[0], pair[1]));
    }
    put(&mut asm, &[ecall(), ret()]);
    function("exe_syscall", asm, 0)
}

/// Fills a relocated field.
pub fn apply(kind: RelocKind, code: &mut [u8], at: usize, place: u64, target: u64) -> Result<(), String> {
    let distance = target.wrapping_sub(place).cast_signed();
    match kind {
        RelocKind::RiscvCall => {
            let (high, low) = split(distance)?;
            patch(code, at, high)?;
            patch(code, at + 4, low)
        }
        RelocKind::RiscvPcrelHigh20 => patch(code, at, split(distance)?.0),
        RelocKind::RiscvPcrelLow12I => patch(code, at, split(distance)?.1),
        RelocKind::Pc64 => {
            let field = code.get_mut(at..at + 8).ok_or_else(|| outside(at))?;
            field.copy_from_slice(&distance.to_le_bytes());
            Ok(())
        }
        RelocKind::X86Pc32 | RelocKind::Aarch64Call | RelocKind::Aarch64AdrpPage | RelocKind::Aarch64AddLow12 => {
            Err(format!("{kind:?} is not a relocation of riscv64"))
        }
    }
}

/// The fields of an `auipc` and of the I-type instruction that adds the rest: the low half is signed, so the high
/// half is rounded to the nearest page.
fn split(distance: i64) -> Result<(u32, u32), String> {
    let high = (distance + 0x800) >> 12;
    if !(-0x8_0000..0x8_0000).contains(&high) {
        return Err(format!("a distance of {distance} bytes, expected within 2 GiB"));
    }
    // 20 bits after the check, and 12.
    Ok(((high as u32) << 12, (distance as u32) << 20))
}

/// Replaces the immediate of a U-type or I-type word by the bits of `field`: those are zero in what is patched.
fn patch(code: &mut [u8], at: usize, field: u32) -> Result<(), String> {
    let bytes: &mut [u8] = code.get_mut(at..at + 4).ok_or_else(|| outside(at))?;
    let word = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    bytes.copy_from_slice(&(word | field).to_le_bytes());
    Ok(())
}

fn outside(at: usize) -> String {
    format!("a field at offset {at}, which is outside the code")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `auipc a5, 0` and `addi a5, a5, 0`, then both halves filled in for `distance`.
    fn applied(distance: i64) -> Result<[u8; 8], String> {
        let place = 0x4000_0000_u64;
        let target = place.wrapping_add_signed(distance);
        let mut code = [auipc(A5).to_le_bytes(), mv(A5, A5).to_le_bytes()].concat();
        apply(RelocKind::RiscvPcrelHigh20, &mut code, 0, place, target)?;
        apply(RelocKind::RiscvPcrelLow12I, &mut code, 4, place, target)?;
        Ok(code.try_into().expect("two words"))
    }

    /// What the pair adds to its own address: U-type and I-type immediates, both signed.
    fn displacement(code: [u8; 8]) -> i64 {
        let word = |at: usize| i32::from_le_bytes(code[at..at + 4].try_into().expect("a word"));
        i64::from(word(0) & !0xfff) + i64::from(word(4) >> 20)
    }

    #[test]
    fn both_halves_split_one_displacement() {
        for distance in [0, 1, 0x7fe, 0x7ff, 0x800, 0xfff, 0x1000, 0x7fff_f7ff, -1, -0x800, -0x801, -0x8000_0800] {
            assert_eq!(displacement(applied(distance).expect("within reach")), distance);
        }
        assert!(applied(0x7fff_f800).is_err());
        assert!(applied(-0x8000_0801).is_err());
    }

    #[test]
    fn a_call_reaches_its_target() {
        let mut code = [auipc(RA).to_le_bytes(), jalr(RA, RA, 0).to_le_bytes()].concat();
        apply(RelocKind::RiscvCall, &mut code, 0, 0x1000, 0x800).expect("within reach");
        assert_eq!(displacement(code.try_into().expect("two words")), -0x800);
    }

    #[test]
    fn wide_fields_and_wrong_ones() {
        let mut code = [0; 12];
        apply(RelocKind::Pc64, &mut code, 4, 0x1004, 0x9_0000_1000).expect("a field in the code");
        assert_eq!(code[4..], 0x8_ffff_fffc_u64.to_le_bytes());
        assert!(apply(RelocKind::Pc64, &mut code, 5, 0, 0).is_err(), "outside the code");
        assert!(apply(RelocKind::X86Pc32, &mut code, 0, 0, 0).is_err(), "of another machine");
    }
}
