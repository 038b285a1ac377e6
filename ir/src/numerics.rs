//! The scalar arithmetic every backend must reproduce bit for bit (`docs/numerics.md`).
//!
//! f32 is IEEE-754 binary32, round to nearest even, subnormals kept; `mul_add` where written and nowhere else.

use half::{bf16, f16};

/// Number of interleaved partial sums of [`sum`] and [`dot`].
pub const LANES: usize = 16;

/// Smallest absmax a quantized activation row may have (the published model code's floor).
pub const ABSMAX_FLOOR: f32 = 1e-5;

/// Largest finite f16; the f16 KV cache saturates here.
pub const F16_MAX: f32 = 65504.0;

/// Adds the sixteen partials pairwise: p[l] + p[l+8], then +4, +2, +1.
pub fn reduce(mut p: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            p[l] += p[l + half];
        }
    }
    p[0]
}

/// Sum of `x`: element i goes to partial i mod 16, then [`reduce`].
pub fn sum(x: &[f32]) -> f32 {
    let mut p = [0.0f32; LANES];
    for (i, &v) in x.iter().enumerate() {
        p[i % LANES] += v;
    }
    reduce(p)
}

/// Dot product: `p[i mod 16] = fma(a_i, b_i, p[i mod 16])`, then [`reduce`].
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut p = [0.0f32; LANES];
    for (i, (&x, &y)) in a.iter().zip(b).enumerate() {
        p[i % LANES] = x.mul_add(y, p[i % LANES]);
    }
    reduce(p)
}

/// `a > b ? a : b`.
pub fn max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// Largest magnitude of `x`, 0 for an empty slice.
pub fn absmax(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |m, v| max(v.abs(), m))
}

// exp: n = rne(x / ln 2), r = x - n ln 2 in two steps, degree-6 polynomial, exponent added.
// Constants are f32 values given as bits of the hexadecimal literals in docs/numerics.md.
pub const EXP_MIN: f32 = f32::from_bits(0xc2ae_ac4f); // -0x1.5d589ep6
pub const EXP_MAX: f32 = f32::from_bits(0x42b0_c0a5); //  0x1.61814ap6
pub const LOG2_E: f32 = f32::from_bits(0x3fb8_aa3b); //  0x1.715476p0
pub const LN2_HIGH: f32 = f32::from_bits(0x3f31_7200); //  0x1.62e4p-1
pub const LN2_LOW: f32 = f32::from_bits(0x35bf_be8e); //  0x1.7f7d1cp-20
/// Horner coefficients of `(e^r - 1 - r) / r²`, highest power first.
pub const EXP_POLY: [f32; 6] = [
    f32::from_bits(0x3950_6967), // 0x1.a0d2cep-13
    f32::from_bits(0x3ab7_43ce), // 0x1.6e879cp-10
    f32::from_bits(0x3c08_8970), // 0x1.1112ep-7
    f32::from_bits(0x3d2a_aa81), // 0x1.555502p-5
    f32::from_bits(0x3e2a_aaaa), // 0x1.555554p-3
    0.5,
];
/// Adding and subtracting 1.5 · 2²³ rounds |x| < 2²² to the nearest even integer; the sum's low bits hold it.
pub const ROUND_MAGIC: f32 = 12_582_912.0;

/// Round half to even for |x| < 2²².
pub fn rne(x: f32) -> f32 {
    (x + ROUND_MAGIC) - ROUND_MAGIC
}

/// e^x, at most 1.09 ulp off for results that are normal numbers; 0 below [`EXP_MIN`].
pub fn exp(x: f32) -> f32 {
    if x < EXP_MIN {
        return 0.0;
    }
    let x = if x > EXP_MAX { EXP_MAX } else { x };
    let n = rne(x * LOG2_E);
    let r = n.mul_add(-LN2_HIGH, x);
    let r = n.mul_add(-LN2_LOW, r);
    let mut p = EXP_POLY[0];
    for c in &EXP_POLY[1..] {
        p = p.mul_add(r, *c);
    }
    let y = p.mul_add(r * r, r) + 1.0;
    // |n| <= 127 and y is in [0.7, 1.5), so adding n to the exponent field neither wraps nor leaves the normals.
    f32::from_bits(y.to_bits().wrapping_add((n as i32 as u32) << 23))
}

/// Exact widening of stored f16 bits.
pub fn f16_to_f32(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32()
}

/// Exact widening of stored bf16 bits.
pub fn bf16_to_f32(bits: u16) -> f32 {
    bf16::from_bits(bits).to_f32()
}

/// f32 to f16 bits, round half to even, saturating at ±65504.
pub fn f32_to_f16_saturating(x: f32) -> u16 {
    f16::from_f32(x.clamp(-F16_MAX, F16_MAX)).to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_the_documented_literals() {
        let hex = |m: u32, e: i32| m as f32 * 2.0f32.powi(e - 24 + 4 - 4);
        // 0x1.5d589ep6 = 0x15d589e * 2^(6-24)
        assert_eq!(EXP_MIN, -hex(0x15d_589e, 6));
        assert_eq!(EXP_MAX, hex(0x161_814a, 6));
        assert_eq!(LOG2_E, hex(0x171_5476, 0));
        assert_eq!(LN2_HIGH, hex(0x162_e400, -1));
        assert_eq!(LN2_LOW, hex(0x17f_7d1c, -20));
        let poly = [(0x1a0_d2ce, -13), (0x16e_879c, -10), (0x111_12e0, -7), (0x155_5502, -5), (0x155_5554, -3)];
        for (c, (m, e)) in EXP_POLY.iter().zip(poly) {
            assert_eq!(*c, hex(m, e));
        }
    }

    /// The error over every 5th float of the whole range: the documented bound, in units in the last place.
    #[test]
    fn exp_error_bound() {
        let mut worst = 0.0f64;
        let (low, high) = ((-EXP_MIN).to_bits(), EXP_MAX.to_bits());
        let negative = (0..=low).step_by(997).map(|b| -f32::from_bits(b));
        let positive = (0..=high).step_by(997).map(f32::from_bits);
        for x in negative.chain(positive) {
            let want = libm::exp(f64::from(x));
            if want < f64::from(f32::MIN_POSITIVE) {
                continue;
            }
            let ulp = 2.0f64.powi(((want as f32).to_bits() >> 23) as i32 - 127 - 23);
            worst = worst.max((f64::from(exp(x)) - want).abs() / ulp);
        }
        assert!(worst <= 1.09, "largest error {worst} ulp");
    }

    #[test]
    fn rounding_is_half_to_even() {
        assert_eq!([0.5, 1.5, 2.5, -0.5, -1.5, 126.5].map(rne), [0.0, 2.0, 2.0, 0.0, -2.0, 126.0]);
    }
}
