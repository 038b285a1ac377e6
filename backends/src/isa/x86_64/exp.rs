//! `numerics::exp` of sixteen lanes with 512 bits, for the loops that need exponentials.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::eax;
use iced_x86::code_asm::registers::k2;
use iced_x86::code_asm::registers::zmm::*;
use iced_x86::code_asm::{AsmRegisterZmm, CodeAssembler};
use tcc_ir::numerics::{EXP_MIN, EXP_POLY, LN2_HIGH, LN2_LOW, LOG2_E, ROUND_MAGIC};

/// Holds 1 for the loops too.
pub(super) const ONE: AsmRegisterZmm = zmm25;
/// Of these, `r = fma(n, -LN2, x)` is one subtraction, rounded once.
const CONSTANTS: [(AsmRegisterZmm, f32); 6] =
    [(zmm20, EXP_MIN), (zmm21, LOG2_E), (zmm22, ROUND_MAGIC), (zmm23, LN2_HIGH), (zmm24, LN2_LOW), (ONE, 1.0)];
const POLY: [AsmRegisterZmm; 6] = [zmm26, zmm27, zmm28, zmm29, zmm30, zmm31];

/// What [`exp`] is of, and where it goes.
pub(super) const ARGUMENT: AsmRegisterZmm = zmm0;
pub(super) const RESULT: AsmRegisterZmm = zmm4;

/// Puts `value` into every lane; changes eax.
pub(super) fn splat(a: &mut CodeAssembler, to: AsmRegisterZmm, value: f32) -> Result<(), IcedError> {
    a.mov(eax, value.to_bits())?;
    a.vpbroadcastd(to, eax)
}

/// Loads zmm20 to zmm31, which [`exp`] keeps; changes eax.
pub(super) fn load_constants(a: &mut CodeAssembler) -> Result<(), IcedError> {
    CONSTANTS.into_iter().chain(POLY.into_iter().zip(EXP_POLY)).try_for_each(|(to, value)| splat(a, to, value))
}

/// [`RESULT`] becomes `numerics::exp` of [`ARGUMENT`], which is not above `EXP_MAX`; changes zmm1 to zmm3 and k2.
pub(super) fn exp(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let [smallest, log2_e, magic, ln2_high, ln2_low, one] = CONSTANTS.map(|(register, _)| register);
    let (x, biased, n, r, p) = (ARGUMENT, zmm1, zmm2, zmm3, RESULT);
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
    a.vmovaps(p.k2().z(), p)
}
