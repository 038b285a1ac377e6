//! Scores to factors of the values with 256 bits: sixteen positions are two registers.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::xmm::*;
use iced_x86::code_asm::registers::ymm::*;
use iced_x86::code_asm::{AsmMemoryOperand, AsmRegisterYmm, CodeAssembler, dword_ptr, ymmword_ptr};
use tcc_ir::numerics::LANES;

use super::softmax::choose;
use crate::code::Function;
use crate::isa::x86_64::exp_avx2::{ARGUMENT, RESULT, exp, own, with_constants};
use crate::isa::x86_64::pieces::{int, largest, reduce_halves, while_left};

/// Offsets of the registers of a block.
const HALVES: [i32; 2] = [0, 32];

const TOTAL: [AsmRegisterYmm; 2] = [ymm0, ymm1];
const SCORES: AsmRegisterYmm = ymm2;
const LARGEST: AsmRegisterYmm = ymm4;
const SCALE: AsmRegisterYmm = ymm6;

/// `extern "C" fn(e, seen, k_scales, v_scales, scale) -> f32`.
pub(super) fn softmax() -> Function {
    let (e, seen, k_scales, v_scales) = (rdi, rsi, rdx, rcx);
    let (at, left) = (rax, r8);
    with_constants("attention_softmax", &[f32::NEG_INFINITY], |a| {
        a.vbroadcastss(SCALE, xmm0)?;
        a.vmovaps(LARGEST, own(0))?;
        choose(a, k_scales, |a, scales| {
            let scales = scales.map(|s| s + at);
            a.mov(left, seen)?;
            a.xor(at, at)?;
            while_left(a, left, LANES, |a| {
                scale_block(a, e + at, scales)?;
                find_largest(a, e + at)?;
                a.add(at, int(4 * LANES))
            })?;
            let mut done = a.create_label();
            a.test(left, left)?;
            a.je(done)?;
            scale_block(a, e + at, scales)?;
            fill_last_block(a)?;
            find_largest(a, e + at)?;
            a.set_label(&mut done)?;
            a.zero_bytes()
        })?;
        largest_lane(a)?;
        TOTAL.iter().try_for_each(|total| a.vxorps(*total, *total, *total))?;
        choose(a, v_scales, |a, scales| {
            a.lea(left, seen + int(LANES - 1))?;
            a.xor(at, at)?;
            while_left(a, left, LANES, |a| exponential_block(a, e + at, scales.map(|s| s + at)))
        })?;
        reduce_halves(a, (ymm0, xmm0), (ymm1, xmm1))
    })
}

/// Scales sixteen dot products, those behind the last position too.
fn scale_block(a: &mut CodeAssembler, e: AsmMemoryOperand, scales: Option<AsmMemoryOperand>) -> Result<(), IcedError> {
    for half in HALVES {
        a.vmovups(SCORES, ymmword_ptr(e + half))?;
        if let Some(scales) = scales {
            a.vmulps(SCORES, SCORES, ymmword_ptr(scales + half))?;
        }
        a.vmulps(SCORES, SCORES, SCALE)?;
        a.vmovups(ymmword_ptr(e + half), SCORES)?;
    }
    a.zero_bytes()
}

/// Writes minus infinity behind the last position, to the end of its block: its exponential is +0.
fn fill_last_block(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (e, seen, left, at) = (rdi, rsi, r8, r9);
    let mut top = a.create_label();
    a.lea(at, e + seen * 4)?;
    a.set_label(&mut top)?;
    a.mov(dword_ptr(at), f32::NEG_INFINITY.to_bits())?;
    a.add(at, 4)?;
    a.inc(left)?;
    a.cmp(left, int(LANES))?;
    a.jb(top)
}

fn find_largest(a: &mut CodeAssembler, e: AsmMemoryOperand) -> Result<(), IcedError> {
    for half in HALVES {
        a.vmovups(SCORES, ymmword_ptr(e + half))?;
        a.vmaxps(LARGEST, SCORES, LARGEST)?;
    }
    a.zero_bytes()
}

/// The largest lane of [`LARGEST`] in all of them.
fn largest_lane(a: &mut CodeAssembler) -> Result<(), IcedError> {
    largest(a, (LARGEST, xmm4), xmm2)?;
    a.vbroadcastss(LARGEST, xmm4)
}

/// The exponentials of sixteen scores less the largest, which are not above 0.
fn exponential_block(
    a: &mut CodeAssembler,
    e: AsmMemoryOperand,
    scales: Option<AsmMemoryOperand>,
) -> Result<(), IcedError> {
    for (half, total) in HALVES.into_iter().zip(TOTAL) {
        a.vmovups(ARGUMENT, ymmword_ptr(e + half))?;
        a.vsubps(ARGUMENT, ARGUMENT, LARGEST)?;
        exp(a)?;
        a.vaddps(total, total, RESULT)?;
        if let Some(scales) = scales {
            a.vmulps(RESULT, RESULT, ymmword_ptr(scales + half))?;
        }
        a.vmovups(ymmword_ptr(e + half), RESULT)?;
    }
    a.add(rax, int(4 * LANES))
}
