//! What the aarch64 ABI asks for: entry point, system calls, feature detection, relocations.
//!
//! Sources: AAPCS64 (Arm IHI 0055), ELF for the Arm 64-bit Architecture (IHI 0056), Linux `asm/hwcap.h` and
//! `asm-generic/unistd.h`, ID registers in the Arm Architecture Reference Manual (DDI 0487), chapter D24.2.

use tcc_ir::target::Features;

use super::desc::{DOTPROD, I8MM, LSE, NEON, SME, SVE, SVE2};
use super::inst::{A64, SAVED_BYTES, X};
use crate::code::{Function, Reloc, RelocKind, Target};
use crate::isa::{ElfAbi, Syscalls};

pub(super) const ELF: ElfAbi = ElfAbi {
    machine: 183, // EM_AARCH64
    flags: 0,
    pc64: &[260], // R_AARCH64_PREL64
};

pub(super) const SYSCALLS: Syscalls = Syscalls { read: 63, write: 64, mmap: 222, exit_group: 94 };

/// A four-bit field of an ID register: the feature is there from `least` up.
struct IdField {
    feature: Features,
    /// CRm and op2 of the register; op0 is 3, op1 and CRn are 0.
    register: (i64, i64),
    lsb: i64,
    least: i64,
}

/// Registers: 6_0 ID_AA64ISAR0_EL1, 6_1 ID_AA64ISAR1_EL1, 4_0 ID_AA64PFR0_EL1, 4_1 ID_AA64PFR1_EL1, 4_4 ID_AA64ZFR0_EL1
/// (zero without SVE).
const ID_FIELDS: &[IdField] = &[
    IdField { feature: LSE, register: (6, 0), lsb: 20, least: 2 },
    IdField { feature: DOTPROD, register: (6, 0), lsb: 44, least: 1 },
    IdField { feature: I8MM, register: (6, 1), lsb: 52, least: 1 },
    IdField { feature: SVE, register: (4, 0), lsb: 32, least: 1 },
    IdField { feature: SVE2, register: (4, 4), lsb: 0, least: 1 },
    IdField { feature: SME, register: (4, 1), lsb: 24, least: 1 },
];

/// ID_AA64PFR0_EL1.AdvSIMD: every value but this one means NEON.
const ADVSIMD_ABSENT: i64 = 15;

/// Bits of `AT_HWCAP`.
const HWCAP: &[(Features, i64)] = &[(NEON, 1), (LSE, 8), (DOTPROD, 20), (SVE, 22)];

/// Bits of `AT_HWCAP2`.
const HWCAP2: &[(Features, i64)] = &[(SVE2, 1), (I8MM, 13), (SME, 23)];

pub(super) fn function(name: &str, code: A64, frame_bytes: u32) -> Function {
    Function {
        name: name.into(),
        bytes: code.asm.finish(),
        align: 16,
        frame_bytes,
        is_code: true,
        ..Function::default()
    }
}

/// The function of `body`, which leaves d8..d15 alone.
pub(super) fn leaf(name: &str, body: impl FnOnce(&mut A64)) -> Function {
    let mut a = A64::default();
    a.bti_c();
    body(&mut a);
    a.ret();
    function(name, a, 0)
}

/// The function of `body`, which may change all vector registers.
pub(super) fn saving(name: &str, body: impl FnOnce(&mut A64)) -> Function {
    let mut a = A64::default();
    a.bti_c();
    a.save_vectors();
    body(&mut a);
    a.restore_vectors_and_ret();
    function(name, a, u32::try_from(SAVED_BYTES).expect("a small constant"))
}

/// `or`s the 0 or 1 in `flag` into `set` at the bit of `feature`.
fn add_feature(a: &mut A64, set: X, flag: X, feature: Features) {
    a.orr_lsl(set, set, flag, feature.0.trailing_zeros().into());
}

/// The hint in x0, or features from the ID registers: Linux emulates their reads for user code.
pub(super) fn probe() -> Function {
    let (set, field) = (X(0), X(1));
    let mut a = A64::default();
    a.bti_c();
    let known = a.asm.label();
    a.cbnz(set, known);
    let read = |a: &mut A64, (m, p): (i64, i64), lsb: i64| {
        a.mrs_id(field, m, p);
        a.lsr(field, field, lsb);
        a.and_15(field, field);
    };
    read(&mut a, (4, 0), 20);
    a.cmp_imm(field, ADVSIMD_ABSENT);
    a.cset_ne(field);
    add_feature(&mut a, set, field, NEON);
    for id in ID_FIELDS {
        read(&mut a, id.register, id.lsb);
        a.cmp_imm(field, id.least);
        a.cset_hs(field);
        add_feature(&mut a, set, field, id.feature);
    }
    a.asm.bind(known);
    a.ret();
    function("probe", a, 0)
}

/// Features from the two words of the auxiliary vector.
pub(super) fn hwcap() -> Function {
    let (first, second, set, flag) = (X(0), X(1), X(2), X(3));
    let mut a = A64::default();
    a.bti_c();
    a.mov_imm(set, 0);
    for (word, bits) in [(first, HWCAP), (second, HWCAP2)] {
        for &(feature, bit) in bits {
            a.lsr(flag, word, bit);
            a.and_1(flag, flag);
            add_feature(&mut a, set, flag, feature);
        }
    }
    a.mov(X(0), set);
    a.ret();
    function("hwcap", a, 0)
}

/// `_start`: the stack pointer the kernel gave, which is 16-byte aligned, goes to `exe_main`.
pub(super) fn start() -> Function {
    let mut a = A64::default();
    a.bti_c();
    a.mov_from_sp(X(0));
    let offset = u32::try_from(a.asm.here()).expect("a few instructions");
    a.bl_0();
    a.brk_0();
    let target = Target::Symbol("exe_main".into());
    let relocs = vec![Reloc { offset, kind: RelocKind::Aarch64Call, target, addend: 0 }];
    Function { relocs, calls: vec!["exe_main".into()], ..function("_start", a, 0) }
}

/// `exe_syscall`: number to x8, arguments down by one register.
pub(super) fn syscall() -> Function {
    let mut a = A64::default();
    a.bti_c();
    a.mov(X(8), X(0));
    for i in 0..6 {
        a.mov(X(i), X(i + 1));
    }
    a.svc_0();
    a.ret();
    function("exe_syscall", a, 0)
}

/// Fills a relocated field.
pub(super) fn apply(kind: RelocKind, code: &mut [u8], at: usize, place: u64, target: u64) -> Result<(), String> {
    // Addresses of one image are far below 2^63.
    let distance = target.wrapping_sub(place) as i64;
    match kind {
        RelocKind::Aarch64Call => {
            check_reach(distance, 28)?;
            if distance % 4 != 0 {
                return Err(format!("a branch over {distance} bytes, which is not a whole number of instructions"));
            }
            // The low 26 bits of the checked word distance.
            patch(code, at, 0x03ff_ffff, (distance >> 2) as u32)
        }
        RelocKind::Aarch64AdrpPage => {
            let distance = (target & !0xfff).wrapping_sub(place & !0xfff) as i64;
            check_reach(distance, 33)?;
            // 21 bits after the check; immlo at bit 29, immhi at bit 5.
            let pages = (distance >> 12) as u32;
            patch(code, at, 0x60ff_ffe0, (pages & 3) << 29 | (pages >> 2 & 0x7ffff) << 5)
        }
        RelocKind::Aarch64AddLow12 => patch(code, at, 0xfff << 10, ((target & 0xfff) << 10) as u32),
        RelocKind::Pc64 => {
            let field = code.get_mut(at..at + 8).ok_or_else(|| outside(at))?;
            field.copy_from_slice(&distance.to_le_bytes());
            Ok(())
        }
        RelocKind::X86Pc32 | RelocKind::RiscvCall | RelocKind::RiscvPcrelHigh20 | RelocKind::RiscvPcrelLow12I => {
            Err(format!("{kind:?} is not a relocation of aarch64"))
        }
    }
}

/// Checks that `distance` fits a signed field of `bits` bits.
fn check_reach(distance: i64, bits: u32) -> Result<(), String> {
    let reach = 1i64 << (bits - 1);
    if (-reach..reach).contains(&distance) {
        Ok(())
    } else {
        Err(format!("a distance of {distance} bytes, expected -{reach}..{reach}"))
    }
}

fn outside(at: usize) -> String {
    format!("a field at offset {at}, which is outside the code")
}

/// Replaces the bits of `mask` in the word at `at`.
fn patch(code: &mut [u8], at: usize, mask: u32, bits: u32) -> Result<(), String> {
    let field = code.get_mut(at..at + 4).ok_or_else(|| outside(at))?;
    let word = u32::from_le_bytes(field.try_into().expect("four bytes")) & !mask | bits & mask;
    field.copy_from_slice(&word.to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The word at the field after `kind` has been applied to `word` from `place` to `target`.
    fn applied(kind: RelocKind, word: u32, place: u64, target: u64) -> Result<u32, String> {
        let mut code = word.to_le_bytes();
        apply(kind, &mut code, 0, place, target)?;
        Ok(u32::from_le_bytes(code))
    }

    #[test]
    fn calls_reach_128_mib_and_no_further() {
        let call = |place, target| applied(RelocKind::Aarch64Call, 0x9400_0000, place, target);
        // Bytes of `bl #8`, `bl #-4`, `bl #134217724` and `bl #-134217728` by llvm-mc 16.
        assert_eq!(call(0x1000, 0x1008), Ok(0x9400_0002));
        assert_eq!(call(0x1000, 0x0ffc), Ok(0x97ff_ffff));
        assert_eq!(call(0, 0x07ff_fffc), Ok(0x95ff_ffff));
        assert_eq!(call(0x0800_0000, 0), Ok(0x9600_0000));
        assert!(call(0, 0x0800_0000).is_err());
        assert!(call(0x0800_0004, 0).is_err());
        assert!(call(0, 2).is_err());
    }

    #[test]
    fn page_and_low_bits_make_the_address() {
        let (place, target) = (0x1_2345_6abc, 0x1_3456_7def);
        let page = applied(RelocKind::Aarch64AdrpPage, 0x9000_0000, place, target).expect("in reach");
        let pages = u64::from((page >> 29 & 3) | (page >> 5 & 0x7ffff) << 2);
        let low = applied(RelocKind::Aarch64AddLow12, 0x9100_0000, place, target).expect("always fits");
        assert_eq!((place & !0xfff) + (pages << 12) + u64::from(low >> 10 & 0xfff), target);
        assert_eq!(applied(RelocKind::Aarch64AdrpPage, 0x9000_0000, 0x1000, 0), Ok(0xf0ff_ffe0));
        assert!(applied(RelocKind::Aarch64AdrpPage, 0x9000_0000, 0, 1 << 32).is_err());
        assert!(applied(RelocKind::Aarch64AdrpPage, 0x9000_0000, 0, (1 << 32) - 1).is_ok());
    }

    #[test]
    fn distances_of_64_bits_and_foreign_kinds() {
        let mut code = [0; 12];
        assert_eq!(apply(RelocKind::Pc64, &mut code, 4, 0x1004, 0x0fff), Ok(()));
        assert_eq!(i64::from_le_bytes(code[4..].try_into().expect("eight bytes")), -5);
        assert!(apply(RelocKind::Pc64, &mut code, 8, 0, 0).is_err());
        assert!(apply(RelocKind::X86Pc32, &mut code, 0, 0, 0).is_err());
    }
}
