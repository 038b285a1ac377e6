//! Features of the core, for executables on Linux.
//!
//! The auxiliary vector knows V. Kernels from 6.4 on answer for every hart by `riscv_hwprobe`; on older ones, and
//! under emulators without that call, one instruction of each other extension is tried, with a handler that steps
//! over it where it is illegal.
//!
//! Sources: Linux `Documentation/arch/riscv/hwprobe.rst`; `arch/riscv/include/uapi/asm/{hwcap,ucontext}.h` and
//! `include/uapi/asm-generic/signal.h` for the two structures.

use super::abi::{bits, function};
use super::desc::{RV64GC, V, ZBA, ZBB};
use super::inst::{
    A0, A1, A2, A3, A4, A7, SP, T0, T1, T2, T3, X, ZERO, addi, andi, auipc, beq, bne, ecall, ld, li, max, mv, or,
    patch_address, patch_branch, put, ret, sd, sh1add, slli, srli,
};
use crate::asm::{Asm, Label};
use crate::code::Function;
use tcc_ir::target::Features;

/// `riscv_hwprobe(pairs, pair_count, cpusetsize, cpus, flags)`.
const SYS_HWPROBE: i32 = 258;
/// RISCV_HWPROBE_KEY_IMA_EXT_0.
const HWPROBE_EXTENSIONS: i32 = 4;
/// Bit of its value, feature.
const HWPROBE_BITS: [(u32, Features); 3] = [(2, V), (3, ZBA), (4, ZBB)];
/// Bit of `AT_HWCAP`: the letter's place in the alphabet.
const HWCAP_V: u32 = 21;

/// `rt_sigaction(signal, new, old, sizeof(sigset_t))`.
const SYS_RT_SIGACTION: i32 = 134;
const SIGILL: i32 = 4;
/// `struct sigaction`: handler, flags, mask, 8 bytes each.
const SIGACTION_BYTES: i32 = 24;
/// The program counter in a handler's `ucontext`.
const UCONTEXT_PC: i32 = 176;

/// What is gathered.
const SET: X = T0;
const VALUE: X = T1;
/// 1, while instructions are tried.
const ONE: X = T3;

/// Stack: what `hwprobe` is asked and answers, or the new action and the old one.
const FRAME_BYTES: i32 = 2 * SIGACTION_BYTES;

/// `extern "C" fn(hwcap: u64, hwcap2: u64) -> u64`.
pub fn hwcap() -> Function {
    let mut asm = Asm::new();
    let (unknown, done, handler) = (asm.label(), asm.label(), asm.label());
    put(&mut asm, &[addi(SP, SP, -FRAME_BYTES), li(SET, bits(RV64GC))]);
    copy_bit(&mut asm, A0, HWCAP_V, V);
    // One pair of key and value; no set of harts, no flags: all harts together.
    put(&mut asm, &[li(VALUE, HWPROBE_EXTENSIONS), sd(VALUE, 0, SP), sd(ZERO, 8, SP), mv(A0, SP), li(A1, 1)]);
    put(&mut asm, &[li(A2, 0), li(A3, 0), li(A4, 0), li(A7, SYS_HWPROBE), ecall()]);
    asm.branch(bne(A0, ZERO), unknown, patch_branch);
    asm.word(ld(VALUE, 8, SP));
    for (bit, feature) in HWPROBE_BITS {
        copy_bit(&mut asm, VALUE, bit, feature);
    }
    asm.branch(beq(ZERO, ZERO), done, patch_branch);
    asm.bind(unknown);
    attempts(&mut asm, handler);
    asm.bind(done);
    put(&mut asm, &[mv(A0, SET), addi(SP, SP, FRAME_BYTES), ret()]);
    asm.bind(handler);
    // (signal, siginfo, ucontext): go on behind the instruction.
    put(&mut asm, &[ld(T0, UCONTEXT_PC, A2), addi(T0, T0, 4), sd(T0, UCONTEXT_PC, A2), ret()]);
    function("hwcap", asm, FRAME_BYTES as u32)
}

/// Puts `feature` into the set if bit `from` of `word` is 1.
fn copy_bit(asm: &mut Asm, word: X, from: u32, feature: Features) {
    put(asm, &[srli(T2, word, from), andi(T2, T2, 1), slli(T2, T2, feature.0.trailing_zeros()), or(SET, SET, T2)]);
}

/// Tries one instruction of Zba and one of Zbb; each makes 1 of 1 and 0.
fn attempts(asm: &mut Asm, handler: Label) {
    asm.word(auipc(VALUE));
    asm.branch(addi(VALUE, VALUE, 0), handler, patch_address);
    put(asm, &[sd(VALUE, 0, SP), sd(ZERO, 8, SP), sd(ZERO, 16, SP), mv(A1, SP), addi(A2, SP, SIGACTION_BYTES)]);
    set_action(asm);
    asm.word(li(ONE, 1));
    for (attempt, feature) in [(sh1add(VALUE, ZERO, ONE), ZBA), (max(VALUE, ONE, ZERO), ZBB)] {
        put(asm, &[li(VALUE, 0), attempt]);
        copy_bit(asm, VALUE, 0, feature);
    }
    put(asm, &[addi(A1, SP, SIGACTION_BYTES), li(A2, 0)]);
    set_action(asm);
}

/// Sets the action for illegal instructions: `a1` new, `a2` where the old one goes. The kernel keeps all but `a0`.
fn set_action(asm: &mut Asm) {
    put(asm, &[li(A0, SIGILL), li(A3, 8), li(A7, SYS_RT_SIGACTION), ecall()]);
}
