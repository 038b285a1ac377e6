//! Scores to factors of the values; the two reductions are the only steps across lanes.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::xmm::*;
use iced_x86::code_asm::registers::ymm::*;
use iced_x86::code_asm::registers::zmm::*;
use iced_x86::code_asm::{AsmMemoryOperand, AsmRegister64, AsmRegisterZmm, CodeAssembler, zmmword_ptr};
use tcc_ir::numerics::LANES;

use crate::code::Function;
use crate::isa::x86_64::exp::{ARGUMENT, RESULT, exp, load_constants, splat};
use crate::isa::x86_64::function;
use crate::isa::x86_64::pieces::{int, largest, reduce, tail_mask, while_left};

const SCALE: AsmRegisterZmm = zmm16;
const LARGEST: AsmRegisterZmm = zmm17;
const TOTAL: AsmRegisterZmm = zmm5;
const LOWEST: AsmRegisterZmm = zmm19;

/// `extern "C" fn(e, seen, k_scales, v_scales, scale) -> f32`.
pub(super) fn softmax() -> Function {
    let (e, seen, k_scales, v_scales) = (rdi, rsi, rdx, rcx);
    let (at, left) = (rax, r8);
    function("attention_softmax", 8, |a| {
        tail_mask(a, seen)?;
        a.vbroadcastss(SCALE, xmm0)?;
        load_constants(a)?;
        splat(a, LOWEST, f32::NEG_INFINITY)?;
        a.vmovaps(LARGEST, LOWEST)?;
        choose(a, k_scales, |a, scales| {
            a.mov(left, seen)?;
            a.xor(at, at)?;
            while_left(a, left, LANES, |a| scale_block(a, e + at, scales.map(|s| s + at), false))?;
            a.test(left, left)?;
            let mut done = a.create_label();
            a.je(done)?;
            scale_block(a, e + at, scales.map(|s| s + at), true)?;
            a.set_label(&mut done)?;
            a.zero_bytes()
        })?;
        largest_lane(a)?;
        a.vpxord(TOTAL, TOTAL, TOTAL)?;
        choose(a, v_scales, |a, scales| {
            a.lea(left, seen + int(LANES - 1))?;
            a.xor(at, at)?;
            while_left(a, left, LANES, |a| exponential_block(a, e + at, scales.map(|s| s + at)))
        })?;
        reduce(a, (TOTAL, ymm5, xmm5), (ymm0, xmm0))?;
        a.vmovaps(xmm0, xmm5)?;
        a.vzeroupper()?;
        a.ret()
    })
}

/// Emits `body` for scales at `scales`, and for none where that is null.
pub(super) fn choose(
    a: &mut CodeAssembler,
    scales: AsmRegister64,
    body: impl Fn(&mut CodeAssembler, Option<AsmRegister64>) -> Result<(), IcedError>,
) -> Result<(), IcedError> {
    let [mut none, mut done] = [a.create_label(), a.create_label()];
    a.test(scales, scales)?;
    a.je(none)?;
    body(a, Some(scales))?;
    a.jmp(done)?;
    a.set_label(&mut none)?;
    body(a, None)?;
    a.set_label(&mut done)?;
    a.zero_bytes()
}

/// Scales sixteen dot products, or what is left of a block, whose other lanes become minus infinity.
fn scale_block(
    a: &mut CodeAssembler,
    e: AsmMemoryOperand,
    scales: Option<AsmMemoryOperand>,
    is_tail: bool,
) -> Result<(), IcedError> {
    a.vmovups(zmm0, zmmword_ptr(e))?;
    if let Some(scales) = scales {
        a.vmulps(zmm0, zmm0, zmmword_ptr(scales))?;
    }
    a.vmulps(zmm0, zmm0, SCALE)?;
    if is_tail {
        a.vblendmps(zmm0.k1(), LOWEST, zmm0)?;
    }
    a.vmovups(zmmword_ptr(e), zmm0)?;
    a.vmaxps(LARGEST, zmm0, LARGEST)?;
    a.add(rax, int(4 * LANES))
}

/// The largest lane of [`LARGEST`] in all of them.
fn largest_lane(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.vextractf32x8(ymm0, LARGEST, 1)?;
    a.vmaxps(zmm0, zmm0, LARGEST)?;
    largest(a, (ymm0, xmm0), xmm1)?;
    a.vbroadcastss(LARGEST, xmm0)
}

/// The exponentials of sixteen scores less the largest, which are not above 0.
fn exponential_block(
    a: &mut CodeAssembler,
    e: AsmMemoryOperand,
    scales: Option<AsmMemoryOperand>,
) -> Result<(), IcedError> {
    a.vmovups(ARGUMENT, zmmword_ptr(e))?;
    a.vsubps(ARGUMENT, ARGUMENT, LARGEST)?;
    exp(a)?;
    a.vaddps(TOTAL, TOTAL, RESULT)?;
    if let Some(scales) = scales {
        a.vmulps(RESULT, RESULT, zmmword_ptr(scales))?;
    }
    a.vmovups(zmmword_ptr(e), RESULT)?;
    a.add(rax, int(4 * LANES))
}
