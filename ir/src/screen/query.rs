//! A hidden row as a screen multiplies it: eight-bit codes with a scale per group, and the norms that bounds need.

use super::{BLOCK, GROUP, ScreenLayout};
use crate::numerics::{absmax, rne};

/// Smallest largest magnitude of a group that is quantized; below it codes and scale are 0, and the whole group counts
/// as error.
pub const SMALLEST: f32 = f32::from_bits((127 - 100) << 23);

/// Slack on norms that were summed in f64 and rounded to f32 afterwards.
pub const NORM_SLACK: f64 = 1.0 + 1.0 / (1 << 20) as f64;

/// Norms of rows and hidden row whose product is below this leave every estimate, bound and logit finite.
pub const LIMIT: f32 = f32::from_bits((127 + 100) << 23);

/// A quantized hidden row.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// `k` codes of magnitude 127 at most, zeros up to whole blocks.
    pub codes: Vec<i8>,
    /// One per group: a column is about its code times this.
    pub scales: Vec<f32>,
    /// -15 times the sum of each group's codes: what codes of a plane stand for is 2 · nibble - 15.
    pub offsets: Vec<i32>,
    /// At least the norm of the row; not finite where the row is not.
    pub norm: f32,
    /// At least the norm of the quantization error, with what roundings add.
    pub slack: f32,
}

/// Where the parts of a query lie, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct QueryLayout {
    blocks: usize,
}

impl QueryLayout {
    /// Offset of [`Query::norm`], f32.
    pub const NORM: i32 = 0;
    /// Offset of [`Query::slack`], f32.
    pub const SLACK: i32 = 4;
    /// Offset of the bound that decides which rows stay, f32: set before the second and the third level.
    pub const THRESHOLD: i32 = 8;
    /// Offset of the codes, i8.
    pub const CODES: usize = 64;

    pub fn new(layout: &ScreenLayout) -> QueryLayout {
        QueryLayout { blocks: layout.blocks() }
    }

    /// Offset of the scales, f32.
    pub fn scales(&self) -> usize {
        Self::CODES + self.blocks * BLOCK
    }

    /// Offset of the offsets, i32.
    pub fn offsets(&self) -> usize {
        self.scales() + 8 * self.blocks
    }

    /// Offset of the codes once more, i16.
    pub fn wide_codes(&self) -> usize {
        self.offsets() + 8 * self.blocks
    }

    pub fn bytes(&self) -> usize {
        self.wide_codes() + 2 * self.blocks * BLOCK
    }
}

/// Quantizes the hidden row `x`.
pub fn query(layout: &ScreenLayout, x: &[f32]) -> Query {
    let groups = layout.groups();
    let mut query = Query {
        codes: vec![0; layout.blocks() * BLOCK],
        scales: vec![0.0; groups],
        offsets: vec![0; groups],
        norm: 0.0,
        slack: 0.0,
    };
    let (mut norm, mut error) = (0.0f64, 0.0f64);
    for (g, x) in x.chunks(GROUP).enumerate() {
        let codes = &mut query.codes[g * GROUP..][..x.len()];
        let largest = absmax(x);
        let (scale, inv_scale) = if largest >= SMALLEST { (largest / 127.0, 127.0 / largest) } else { (0.0, 0.0) };
        for (code, x) in codes.iter_mut().zip(x) {
            // A cast of what is not finite is nobody's promise: the norm says so.
            *code = rne(x * inv_scale) as i8;
            let rest = f64::from(scale) * f64::from(*code) - f64::from(*x);
            norm += f64::from(*x) * f64::from(*x);
            error += rest * rest;
        }
        query.scales[g] = scale;
        query.offsets[g] = -15 * codes.iter().map(|c| i32::from(*c)).sum::<i32>();
    }
    let norm = libm::sqrt(norm);
    let slack = libm::sqrt(error) + layout.rounding() * norm;
    query.norm = (norm * NORM_SLACK) as f32 + f32::MIN_POSITIVE;
    query.slack = (slack * NORM_SLACK) as f32 + f32::MIN_POSITIVE;
    query
}
