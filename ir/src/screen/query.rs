//! A hidden row as a screen multiplies it: eight-bit codes with a scale per group, and the norms that bounds need.

use super::{BLOCK, GROUP, PIECE_GROUPS, ScreenLayout};
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
    /// Of each group's codes.
    pub sums: Vec<i32>,
    /// At least the norm of the row; not finite where the row is not.
    pub norm: f32,
    /// At least the norm of the quantization error, with what roundings add.
    pub slack: f32,
}

/// What four bits h of a code stand for: 2 h - 15 times the scale.
pub const HIGH_FACTOR: i32 = 2;
pub const HIGH_OFFSET: i32 = -15;

/// What two bits l of a code stand for: 4 l - 6 times [`LOW_UNIT`] of the scale, which is exact. The larger factor lets
/// sums whose bits lie two further up begin at the offset.
pub const LOW_FACTOR: i32 = 4;
pub const LOW_OFFSET: i32 = -6;
pub const LOW_UNIT: f32 = 0.125;

/// Where the parts of a query lie, in bytes: what each plane multiplies, with scales (f32) and offsets (i32: the group's
/// sum times that of the plane) of all groups behind the codes (i8).
#[derive(Clone, Copy, Debug)]
pub struct QueryLayout {
    groups: usize,
    pieces: usize,
}

impl QueryLayout {
    /// Offset of [`Query::norm`], f32.
    pub const NORM: i32 = 0;
    /// Offset of [`Query::slack`], f32.
    pub const SLACK: i32 = 4;
    /// Offset of the bound that decides which rows stay, f32: set before the second and the third level.
    pub const THRESHOLD: i32 = 8;
    /// Offset of the codes in the order of columns, for the high plane.
    pub const CODES: usize = 64;

    pub fn new(layout: &ScreenLayout) -> QueryLayout {
        QueryLayout { groups: layout.groups(), pieces: layout.pieces() }
    }

    pub fn scales(&self) -> usize {
        Self::CODES + self.groups * GROUP
    }

    pub fn offsets(&self) -> usize {
        self.scales() + 4 * self.groups
    }

    /// Offset of the codes for the low plane: of each piece one row of lanes (a lane is a group) for every four columns.
    pub fn lane_codes(&self) -> usize {
        (self.offsets() + 4 * self.groups).next_multiple_of(64)
    }

    pub fn lane_scales(&self) -> usize {
        self.lane_codes() + self.pieces * PIECE_GROUPS * GROUP
    }

    pub fn lane_offsets(&self) -> usize {
        self.lane_scales() + 4 * self.pieces * PIECE_GROUPS
    }

    pub fn bytes(&self) -> usize {
        self.lane_offsets() + 4 * self.pieces * PIECE_GROUPS
    }

    /// Offset of the codes of columns `4 four` to `4 four + 3` of group `group` among those for the low plane.
    pub fn lane_code(group: usize, four: usize) -> usize {
        group / PIECE_GROUPS * PIECE_GROUPS * GROUP + four * 4 * PIECE_GROUPS + group % PIECE_GROUPS * 4
    }
}

/// Quantizes the hidden row `x`.
pub fn query(layout: &ScreenLayout, x: &[f32]) -> Query {
    let groups = layout.groups();
    let mut query = Query {
        codes: vec![0; layout.blocks() * BLOCK],
        scales: vec![0.0; groups],
        sums: vec![0; groups],
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
        query.sums[g] = codes.iter().map(|c| i32::from(*c)).sum();
    }
    let norm = libm::sqrt(norm);
    let slack = libm::sqrt(error) + layout.rounding() * norm;
    query.norm = (norm * NORM_SLACK) as f32 + f32::MIN_POSITIVE;
    query.slack = (slack * NORM_SLACK) as f32 + f32::MIN_POSITIVE;
    query
}
