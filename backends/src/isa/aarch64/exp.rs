//! `numerics::exp` of eight lanes with NEON, for the loops that need exponentials.

use tcc_ir::numerics::{EXP_MIN, EXP_POLY, LN2_HIGH, LN2_LOW, LOG2_E, ROUND_MAGIC};

use super::floats::splat;
use super::inst::{A64, V, X};

const MAGIC: V = V(18);
const LOG2: V = V(19);
const HIGH: V = V(20);
const LOW: V = V(21);
/// Holds 1 for the loops too.
pub(super) const ONE: V = V(22);
const SMALLEST: V = V(23);
/// Horner coefficients.
const POLY: [V; 6] = [V(24), V(25), V(26), V(27), V(28), V(29)];

/// Registers of one exponential.
struct Exponential {
    /// The argument, then what is left of it, then the result.
    x: V,
    is_small: V,
    exponent: V,
    p: V,
    next: V,
}

const PAIR: [Exponential; 2] = [
    Exponential { x: V(0), is_small: V(2), exponent: V(3), p: V(30), next: V(31) },
    Exponential { x: V(1), is_small: V(8), exponent: V(9), p: V(10), next: V(11) },
];

/// What [`exp`] is of, and where it goes.
pub(super) const ARGUMENTS: [V; 2] = [PAIR[0].x, PAIR[1].x];

/// Loads v18 to v29, which [`exp`] keeps; changes `scratch`.
pub(super) fn load_constants(a: &mut A64, scratch: X) {
    let constants =
        [(MAGIC, ROUND_MAGIC), (LOG2, LOG2_E), (HIGH, LN2_HIGH), (LOW, LN2_LOW), (ONE, 1.0), (SMALLEST, EXP_MIN)];
    for (register, value) in constants.into_iter().chain(POLY.into_iter().zip(EXP_POLY)) {
        splat(a, register, value, scratch);
    }
}

/// [`ARGUMENTS`], which are not above `EXP_MAX`, become their `numerics::exp`; changes v2, v3, v8 to v11, v30 and v31.
pub(super) fn exp(a: &mut A64) {
    let both = |a: &mut A64, step: fn(&mut A64, &Exponential)| PAIR.iter().for_each(|e| step(a, e));
    both(a, |a, e| a.fcmgt(e.is_small, SMALLEST, e.x));
    both(a, |a, e| a.fmul(e.exponent, e.x, LOG2));
    both(a, |a, e| a.fadd(e.exponent, e.exponent, MAGIC));
    both(a, |a, e| a.fsub(e.p, e.exponent, MAGIC));
    both(a, |a, e| a.fmls(e.x, e.p, HIGH));
    both(a, |a, e| a.fmls(e.x, e.p, LOW));
    // The magic number's low nine bits are 0, so shifting the biased sum by 23 leaves n in the exponent field.
    both(a, |a, e| a.shl_s(e.exponent, e.exponent, 23));
    for e in &PAIR {
        a.orr_v(e.p, POLY[1], POLY[1]);
        a.fmla(e.p, e.x, POLY[0]);
    }
    for (step, coefficient) in POLY[2..].iter().enumerate() {
        for e in &PAIR {
            let (from, to) = if step % 2 == 0 { (e.p, e.next) } else { (e.next, e.p) };
            a.orr_v(to, *coefficient, *coefficient);
            a.fmla(to, from, e.x);
        }
    }
    both(a, |a, e| a.fmul(e.next, e.x, e.x));
    both(a, |a, e| a.fmla(e.x, e.p, e.next));
    both(a, |a, e| a.fadd(e.x, e.x, ONE));
    both(a, |a, e| a.add_s(e.x, e.x, e.exponent));
    both(a, |a, e| a.bic_v(e.x, e.x, e.is_small));
}
