//! The codes of one row and what they stand for: the definition that kernels reproduce bit for bit.

use super::RowCode;
use crate::numerics::{absmax, rne};
use crate::screen::GROUP;
use crate::screen::pack::scale;
use crate::screen::query::{Query, SMALLEST};

/// A coded row: a weight is about its code times the scale of its group.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    code: RowCode,
    /// -127 to 127 with eight bits; with four an odd number, -15 to 15.
    pub codes: Vec<i8>,
    /// One for the row with eight bits; with four one for each [`GROUP`] columns, each of them a bf16.
    pub scales: Vec<f32>,
}

impl Row {
    /// The codes of `weights`.
    pub fn new(code: RowCode, weights: &[f32]) -> Row {
        let mut row = Row { code, codes: Vec::with_capacity(weights.len()), scales: Vec::new() };
        match code {
            RowCode::Int8 => {
                let (scale, inv_scale) = byte_scale(absmax(weights));
                row.scales.push(scale);
                // Magnitudes are at most 127, up to half a unit in the last place.
                row.codes.extend(weights.iter().map(|w| rne(w * inv_scale) as i8));
            }
            RowCode::Int4 => {
                for weights in weights.chunks(GROUP) {
                    let mut codes = [0; GROUP];
                    row.scales.push(scale(nibble_codes(weights, &mut codes)));
                    row.codes.extend(codes[..weights.len()].iter().map(|h| odd(*h)));
                }
            }
        }
        row
    }

    /// The weight that column `i` stands for.
    pub fn weight(&self, i: usize) -> f32 {
        let group = match self.code {
            RowCode::Int8 => 0,
            RowCode::Int4 => i / GROUP,
        };
        f32::from(self.codes[i]) * self.scales[group]
    }

    /// The logit of a quantized hidden row: exact sums per group, in a chain of fused steps over the scales; not finite
    /// where the hidden row is not.
    pub fn logit(&self, query: &Query) -> f32 {
        let groups = self.codes.chunks(GROUP).zip(query.codes.chunks(GROUP)).zip(&query.scales);
        let mut sum = 0.0f32;
        for (group, ((codes, query), query_scale)) in groups.enumerate() {
            let exact: i32 = codes.iter().zip(query).map(|(c, q)| i32::from(*c) * i32::from(*q)).sum();
            let factor = match self.code {
                RowCode::Int8 => *query_scale,
                RowCode::Int4 => self.scales[group] * query_scale,
            };
            sum = (exact as f32).mul_add(factor, sum);
        }
        let y = match self.code {
            RowCode::Int8 => sum * self.scales[0],
            RowCode::Int4 => sum,
        };
        y + 0.0 * query.norm
    }
}

/// What four bits stand for, in units of the scale.
fn odd(h: u8) -> i8 {
    // h is below 16.
    2 * h.cast_signed() - 15
}

/// Scale of a row of eight-bit codes and its inverse; 0 where the largest magnitude is too small to divide by.
fn byte_scale(largest: f32) -> (f32, f32) {
    if largest >= SMALLEST { (largest / 127.0, 127.0 / largest) } else { (0.0, 0.0) }
}

/// Scales that a group of four-bit codes may have, as parts of its largest magnitude: from no clipping downwards.
const CANDIDATES: [f32; 8] =
    [1.0 / 15.0, 1.0 / 15.5, 1.0 / 16.0, 1.0 / 16.5, 1.0 / 17.0, 1.0 / 17.75, 1.0 / 18.5, 1.0 / 19.5];

/// The codes of at most [`GROUP`] columns, 0 to 15, and the bits of their scale: of [`CANDIDATES`], rounded to the nearest
/// bf16, the first with the least sum of squared errors.
pub(super) fn nibble_codes(weights: &[f32], codes: &mut [u8; GROUP]) -> u16 {
    let largest = absmax(weights);
    // Codes of zeros and of what is nearly zero: the scale says that they are nothing.
    if largest < SMALLEST {
        codes.fill(8);
        return 0;
    }
    let mut best = (f32::INFINITY, 0);
    for part in CANDIDATES {
        let bits = half::bf16::from_f32(largest * part).to_bits();
        let mut trial = [8; GROUP];
        let error = round(weights, scale(bits), &mut trial);
        if error < best.0 {
            (best, *codes) = ((error, bits), trial);
        }
    }
    best.1
}

/// The nearest codes for a scale, and their squared error in units of it.
fn round(weights: &[f32], scale: f32, codes: &mut [u8; GROUP]) -> f32 {
    let inv_scale = 0.5 / scale;
    let mut errors = [0.0f32; 8];
    for (weights, codes) in weights.chunks(8).zip(codes.chunks_mut(8)) {
        for ((weight, code), error) in weights.iter().zip(codes).zip(&mut errors) {
            let real = weight * inv_scale + 7.5;
            let nearest = rne(real.clamp(0.0, 15.0));
            let rest = real - nearest;
            *code = nearest as u8;
            *error += rest * rest;
        }
    }
    errors.iter().sum::<f32>() * (scale * scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::ScreenLayout;
    use crate::screen::query::query;

    /// A hidden row that is not finite is seen, whatever its codes are.
    #[test]
    fn what_is_not_finite_shows() {
        let layout = ScreenLayout { n: 1, k: 70 };
        for code in RowCode::ALL {
            let row = Row::new(code, &[0.25; 70]);
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = [0.5; 70];
                assert!(row.logit(&query(&layout, &x)).is_finite());
                x[40] = value;
                assert!(!row.logit(&query(&layout, &x)).is_finite(), "{code:?} {value}");
            }
        }
    }

    /// Eight bits are near the exact logit, four less so, and zeros are zeros.
    #[test]
    fn logits_are_near_those_of_the_row() {
        let weights: Vec<f32> = (0..256).map(|i| ((i * 37 % 101) as f32 - 50.0) / 400.0).collect();
        let x: Vec<f32> = (0..256).map(|i| ((i * 53 % 89) as f32 - 44.0) / 20.0).collect();
        let query = query(&ScreenLayout { n: 1, k: 256 }, &x);
        let (exact, norms) = (crate::numerics::dot(&x, &weights), [&x, &weights].map(|v| crate::numerics::dot(v, v)));
        let norm = (norms[0] * norms[1]).sqrt();
        for (code, share) in [(RowCode::Int8, 0.002), (RowCode::Int4, 0.03)] {
            let error = (Row::new(code, &weights).logit(&query) - exact).abs();
            assert!(error <= share * norm, "{code:?}: off by {error} of {norm}");
            assert_eq!(Row::new(code, &[0.0; 256]).logit(&query), 0.0);
        }
    }
}
