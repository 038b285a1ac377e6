//! Scores to factors of the values; the two reductions are the only steps across lanes.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::eax;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::k2;
use iced_x86::code_asm::registers::xmm::*;
use iced_x86::code_asm::registers::ymm::*;
use iced_x86::code_asm::registers::zmm::*;
use iced_x86::code_asm::{AsmMemoryOperand, AsmRegister64, AsmRegisterZmm, CodeAssembler, zmmword_ptr};
use tcc_ir::numerics::{EXP_MIN, EXP_POLY, LANES, LN2_HIGH, LN2_LOW, LOG2_E, ROUND_MAGIC};

use crate::code::Function;
use crate::isa::x86_64::function;
use crate::isa::x86_64::pieces::{int, reduce, tail_mask, while_left};

/// The scale, then the constants of the exponential.
const SCALE: AsmRegisterZmm = zmm16;
const LARGEST: AsmRegisterZmm = zmm17;
const TOTAL: AsmRegisterZmm = zmm5;
const LOWEST: AsmRegisterZmm = zmm19;
/// Of these, `r = fma(n, -LN2, x)` is one subtraction, rounded once.
const CONSTANTS: [(AsmRegisterZmm, f32); 7] = [
    (zmm20, EXP_MIN),
    (zmm21, LOG2_E),
    (zmm22, ROUND_MAGIC),
    (zmm23, LN2_HIGH),
    (zmm24, LN2_LOW),
    (zmm25, 1.0),
    (LOWEST, f32::NEG_INFINITY),
];
const POLY: [AsmRegisterZmm; 6] = [zmm26, zmm27, zmm28, zmm29, zmm30, zmm31];

/// `extern "C" fn(e, seen, k_scales, v_scales, scale) -> f32`.
pub(super) fn softmax() -> Function {
    let (e, seen, k_scales, v_scales) = (rdi, rsi, rdx, rcx);
    let (at, left) = (rax, r8);
    function("attention_softmax", 8, |a| {
        tail_mask(a, seen)?;
        a.vbroadcastss(SCALE, xmm0)?;
        for (register, value) in CONSTANTS.into_iter().chain(POLY.into_iter().zip(EXP_POLY)) {
            a.mov(eax, value.to_bits())?;
            a.vpbroadcastd(register, eax)?;
        }
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
fn choose(
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
    a.vextractf128(xmm1, ymm0, 1)?;
    a.vmaxps(xmm0, xmm0, xmm1)?;
    a.vmovhlps(xmm1, xmm0, xmm0)?;
    a.vmaxps(xmm0, xmm0, xmm1)?;
    a.vmovshdup(xmm1, xmm0)?;
    a.vmaxss(xmm0, xmm0, xmm1)?;
    a.vbroadcastss(LARGEST, xmm0)
}

/// `numerics::exp` of sixteen scores less the largest, which are not above 0, so that its upper bound never acts.
fn exponential_block(
    a: &mut CodeAssembler,
    e: AsmMemoryOperand,
    scales: Option<AsmMemoryOperand>,
) -> Result<(), IcedError> {
    let [smallest, log2_e, magic, ln2_high, ln2_low, one] = std::array::from_fn(|i| CONSTANTS[i].0);
    let (x, biased, n, r, p) = (zmm0, zmm1, zmm2, zmm3, zmm4);
    a.vmovups(x, zmmword_ptr(e))?;
    a.vsubps(x, x, LARGEST)?;
    a.vmulps(biased, x, log2_e)?;
    a.vaddps(biased, biased, magic)?;
    a.vsubps(n, biased, magic)?;
    a.vmovaps(r, x)?;
    a.vfnmadd231ps(r, n, ln2_high)?;
    a.vfnmadd231ps(r, n, ln2_low)?;
    a.vmovaps(p, POLY[0])?;
    for coefficient in &POLY[1..] {
        a.vfmadd213ps(p, r, *coefficient)?;
    }
    a.vmulps(n, r, r)?;
    a.vfmadd213ps(p, n, r)?;
    a.vaddps(p, p, one)?;
    // The magic number's low nine bits are 0, so shifting the biased sum by 23 leaves n in the exponent field.
    a.vpslld(biased, biased, 23)?;
    a.vpaddd(p, p, biased)?;
    // Not less than: predicate 5.
    a.vcmpps(k2, x, smallest, 5)?;
    a.vmovaps(p.k2().z(), p)?;
    a.vaddps(TOTAL, TOTAL, p)?;
    if let Some(scales) = scales {
        a.vmulps(p, p, zmmword_ptr(scales))?;
    }
    a.vmovups(zmmword_ptr(e), p)?;
    a.add(rax, int(4 * LANES))
}
