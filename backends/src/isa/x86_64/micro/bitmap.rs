//! Unfolds a run of a bitmap panel to blocks of `i2` in the kernel's scratch, which the bodies of `i2` then read.
//!
//! First every word of presence (`tcc_ir::encoding::bitmap`) gets its signs put in place by `pdep`: one bit per weight,
//! 1 where it is 1. Then presence p and signs s become codes of two bits, `2 s + (not p)`: 0, 1 or 2 for -1, 0 and 1.
//! Even bits are the first block of `i2`, odd bits the second. The second step follows the whole first one, so that wide
//! loads of signs do not wait for the narrow stores.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::xmm::xmm0;
use iced_x86::code_asm::registers::ymm::*;
use iced_x86::code_asm::registers::zmm::*;
use iced_x86::code_asm::{AsmRegister64, CodeAssembler, byte_ptr, qword_ptr, ymmword_ptr, zmmword_ptr};
use tcc_ir::encoding::bitmap::{LONG, WORD_BYTES};
use tcc_ir::target::micro_args;

use super::panels::{ARGS, BLOCK_BYTES, BLOCKS, NR, RUN, W, W_PANEL, bind, scratch_argument};

/// The registers that make codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vectors {
    Avx2,
    Avx512,
}

/// Blocks of `i2` of one turn: few enough that the products of one turn overlap with the unfolding of the next.
pub(super) const TURN_BLOCKS: i32 = 16;

/// Blocks of `i2` of one block of a bitmap.
const HALVES: i32 = 2;

/// Scratch of one call, bytes.
pub(in crate::isa::x86_64) const SCRATCH_BYTES: usize = (TURN_BLOCKS * BLOCK_BYTES) as usize;

/// Words of presence of one block.
const WORDS: usize = BLOCK_BYTES as usize / WORD_BYTES;

/// Presence of the next block.
const PRESENCE: AsmRegister64 = r15;
/// Where the signs so far end, in bits.
const END: AsmRegister64 = r14;
/// First byte of the panel's signs.
const SIGNS: AsmRegister64 = rbx;
/// Blocks of the bitmap left in the turn.
const LEFT: AsmRegister64 = rbp;

/// Callee-saved registers in use.
pub(super) const SAVED: [AsmRegister64; 4] = [LEFT, SIGNS, END, PRESENCE];

/// Registers of the walk that the first step lends.
pub(super) const SPILLED: [AsmRegister64; 6] = [rax, rcx, rdx, r9, r10, r11];
/// A word of presence, and its ones.
const WORD: AsmRegister64 = rdx;
const COUNT: AsmRegister64 = r9;
/// Bytes, and bits of the last of them, before a word's signs.
const SIGN: AsmRegister64 = r10;
const SHIFT: AsmRegister64 = r11;
/// Not 7, and 3.
const WHOLE_BYTES: AsmRegister64 = rax;
const THREE: AsmRegister64 = rcx;

/// Presence and signs that are asked for ahead, bytes: a panel has two streams, and the hardware does not follow either
/// across pages.
const AHEAD_BYTES: i32 = 2048;

/// Points at the first block of the panel at [`W_PANEL`] and turns blocks of the bitmap into those of `i2`.
pub(super) fn begin(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(PRESENCE, W_PANEL)?;
    a.xor(END, END)?;
    a.add(BLOCKS, BLOCKS)
}

/// Unfolds the next [`RUN`] blocks of `i2` and points [`W`] at them.
pub(super) fn unfold(a: &mut CodeAssembler, vectors: Vectors) -> Result<(), IcedError> {
    place_signs(a)?;
    a.mov(W, qword_ptr(scratch_argument()))?;
    a.mov(LEFT, RUN)?;
    // From the end of the run's presence to its begin: half as many bytes as its codes.
    a.imul_3(SIGNS, RUN, BLOCK_BYTES / HALVES)?;
    a.sub(PRESENCE, SIGNS)?;
    make_codes(a, vectors)?;
    a.mov(W, qword_ptr(scratch_argument()))
}

/// Signs of every word of the run, where the codes of its block will be.
fn place_signs(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let [mut top, mut done] = std::array::from_fn(|_| a.create_label());
    let mut long: [_; WORDS] = std::array::from_fn(|_| a.create_label());
    let mut go_on: [_; WORDS] = std::array::from_fn(|_| a.create_label());
    SPILLED.iter().try_for_each(|register| a.push(*register))?;
    a.mov(SIGNS, qword_ptr(ARGS + micro_args::K_BLOCKS))?;
    a.shl(SIGNS, BLOCK_BYTES.trailing_zeros() as i32)?;
    a.add(SIGNS, W_PANEL)?;
    a.mov(W, qword_ptr(scratch_argument()))?;
    a.mov(WHOLE_BYTES, !7i64)?;
    a.mov(THREE, 3i64)?;
    a.mov(LEFT, RUN)?;
    bind(a, &mut top)?;
    a.prefetcht0(byte_ptr(PRESENCE + AHEAD_BYTES))?;
    for i in 0..WORDS {
        let at = i32::try_from(WORD_BYTES * i).expect("a few words");
        a.mov(WORD, qword_ptr(PRESENCE + at))?;
        a.popcnt(COUNT, WORD)?;
        a.cmp(COUNT, i32::try_from(LONG).expect("below 64"))?;
        a.ja(long[i])?;
        bind(a, &mut go_on[i])?;
        a.shrx(SIGN, END, THREE)?;
        a.andn(SHIFT, WHOLE_BYTES, END)?;
        if i == 0 {
            a.prefetcht0(byte_ptr(SIGNS + SIGN + AHEAD_BYTES))?;
        }
        a.mov(SIGN, qword_ptr(SIGNS + SIGN))?;
        a.shrx(SIGN, SIGN, SHIFT)?;
        a.add(END, COUNT)?;
        a.pdep(SIGN, SIGN, WORD)?;
        a.mov(qword_ptr(W + at), SIGN)?;
    }
    a.add(PRESENCE, BLOCK_BYTES)?;
    a.add(W, HALVES * BLOCK_BYTES)?;
    a.sub(LEFT, HALVES)?;
    a.jne(top)?;
    a.jmp(done)?;
    for (long, go_on) in long.iter_mut().zip(&go_on) {
        bind(a, long)?;
        a.add(END, 7)?;
        a.and(END, -8)?;
        a.jmp(*go_on)?;
    }
    bind(a, &mut done)?;
    SPILLED.iter().rev().try_for_each(|register| a.pop(*register))
}

/// Codes from the presence and the signs of the [`LEFT`] blocks of `i2` at [`W`].
fn make_codes(a: &mut CodeAssembler, vectors: Vectors) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.mov(SIGNS, 0x5555_5555i64)?;
    a.vmovq(xmm0, SIGNS)?;
    match vectors {
        Vectors::Avx2 => a.vpbroadcastd(ymm0, xmm0)?,
        Vectors::Avx512 => a.vpbroadcastd(zmm0, xmm0)?,
    }
    bind(a, &mut top)?;
    match vectors {
        Vectors::Avx2 => (0..NR as i32 / 8).try_for_each(|half| codes_avx2(a, 32 * half))?,
        Vectors::Avx512 => codes_avx512(a)?,
    }
    a.add(PRESENCE, BLOCK_BYTES)?;
    a.add(W, HALVES * BLOCK_BYTES)?;
    a.sub(LEFT, HALVES)?;
    a.jne(top)
}

fn codes_avx512(a: &mut CodeAssembler) -> Result<(), IcedError> {
    /// Not b where a is 1, else c.
    const NOT_B_OR_C: u32 = 0x3A;
    let (even_bits, presence, signs, first) = (zmm0, zmm1, zmm2, zmm3);
    a.vmovdqu64(presence, zmmword_ptr(PRESENCE))?;
    a.vmovdqu64(signs, zmmword_ptr(W))?;
    a.vpaddb(first, signs, signs)?;
    a.vmovdqa64(zmm4, even_bits)?;
    a.vpternlogq(zmm4, presence, first, NOT_B_OR_C)?;
    a.vmovdqu64(zmmword_ptr(W), zmm4)?;
    a.vpsrlw(presence, presence, 1)?;
    a.vmovdqa64(zmm5, even_bits)?;
    a.vpternlogq(zmm5, presence, signs, NOT_B_OR_C)?;
    a.vmovdqu64(zmmword_ptr(W + BLOCK_BYTES), zmm5)
}

/// Half of the rows of a block, `at` bytes behind the first.
fn codes_avx2(a: &mut CodeAssembler, at: i32) -> Result<(), IcedError> {
    let (even_bits, presence, signs, zero, code) = (ymm0, ymm1, ymm2, ymm3, ymm4);
    a.vmovdqu(presence, ymmword_ptr(PRESENCE + at))?;
    a.vmovdqu(signs, ymmword_ptr(W + at))?;
    a.vpandn(zero, presence, even_bits)?;
    a.vpaddb(code, signs, signs)?;
    a.vpandn(code, even_bits, code)?;
    a.vpor(code, code, zero)?;
    a.vmovdqu(ymmword_ptr(W + at), code)?;
    // Bits that come from the neighbor byte are at odd places.
    a.vpsrlw(presence, presence, 1)?;
    a.vpandn(zero, presence, even_bits)?;
    a.vpandn(code, even_bits, signs)?;
    a.vpor(code, code, zero)?;
    a.vmovdqu(ymmword_ptr(W + BLOCK_BYTES + at), code)
}
