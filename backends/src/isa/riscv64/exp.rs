//! `numerics::exp` with RVV, for the loops that need exponentials.

use tcc_ir::numerics::{EXP_MIN, EXP_POLY, LN2_HIGH, LN2_LOW, LOG2_E, ROUND_MAGIC};

use super::floats::load_float;
use super::inst::{
    F, FA2, FA3, FA4, FA5, FT0, FT1, FT2, FT3, FT4, FT5, FT6, FT7, Lmul, V, X, put, vadd_vv, vfadd_vf, vfmacc_vf,
    vfmacc_vv, vfmul_vf, vfmul_vv, vfmv_v_f, vfnmsac_vf, vfsub_vf, vmerge_vim, vmflt_vf, vsll_vi,
};
use crate::asm::Asm;

const MAGIC: F = FA2;
const LOG2: F = FA3;
const HIGH: F = FA4;
const LOW: F = FA5;
/// Holds 1 for the loops too.
pub(super) const ONE: F = FT6;
const SMALLEST: F = FT7;
/// Horner coefficients.
const POLY: [F; 6] = [FT0, FT1, FT2, FT3, FT4, FT5];

/// Groups of four registers: the mask of what is too small, the argument, and three that change with the mask; the
/// others are the loop's.
pub(super) const LMUL: Lmul = Lmul::M4;
const MASK: usize = 0;
pub(super) const ARGUMENT: usize = 1;
const EXPONENT: usize = 2;
pub(super) const P: usize = 3;
pub(super) const NEXT: usize = 4;
pub(super) const FIRST_OTHER: usize = 5;

pub(super) fn v(index: usize) -> V {
    LMUL.group(index)
}

/// Loads fa2 to fa5 and ft0 to ft7, which [`exp`] keeps; changes `scratch`.
pub(super) fn load_constants(asm: &mut Asm, scratch: X) {
    let constants =
        [(MAGIC, ROUND_MAGIC), (LOG2, LOG2_E), (HIGH, LN2_HIGH), (LOW, LN2_LOW), (ONE, 1.0), (SMALLEST, EXP_MIN)];
    for (register, value) in constants.into_iter().chain(POLY.into_iter().zip(EXP_POLY)) {
        load_float(asm, register, value, scratch);
    }
}

/// [`ARGUMENT`], which is not above `EXP_MAX`, becomes its `numerics::exp`.
pub(super) fn exp(asm: &mut Asm) {
    let [x, e, n, next] = [ARGUMENT, EXPONENT, P, NEXT].map(v);
    put(asm, &[vmflt_vf(v(MASK), x, SMALLEST), vfmul_vf(e, x, LOG2), vfadd_vf(e, e, MAGIC)]);
    put(asm, &[vfsub_vf(n, e, MAGIC), vfnmsac_vf(x, HIGH, n), vfnmsac_vf(x, LOW, n)]);
    // The magic number's low nine bits are 0, so shifting the biased sum by 23 leaves n in the exponent field.
    asm.word(vsll_vi(e, e, 23));
    let (mut p, mut to) = (n, next);
    put(asm, &[vfmv_v_f(p, POLY[1]), vfmacc_vf(p, POLY[0], x)]);
    for coefficient in &POLY[2..] {
        put(asm, &[vfmv_v_f(to, *coefficient), vfmacc_vv(to, p, x)]);
        (p, to) = (to, p);
    }
    put(asm, &[vfmul_vv(to, x, x), vfmacc_vv(x, p, to), vfadd_vf(x, x, ONE), vadd_vv(x, x, e), vmerge_vim(x, x, 0)]);
}
