//! Screening: the best rows of a dense head, exactly, without reading every weight (`docs/head.md` has the proof).
//!
//! Beside the stored rows each weight has six bits in two planes. The upper four give every row a lower and an upper
//! bound of its logit; the lower two narrow the bounds of the rows that may still be among the best; the stored rows
//! decide between the last few. A row goes only where at least as many rows as are wanted are surely better.
//!
//! **Invariant:** bounds hold for the rounded logit of `numerics::dot`, whatever weights and hidden row are.

pub mod kernel;
pub mod pack;
pub mod query;
pub mod search;

/// Rows of a panel: what one vector of lanes holds.
pub const PANEL_ROWS: usize = 16;

/// Bytes of a row of lanes: four for each row of a panel, or for each group of a piece.
pub const LANES_BYTES: usize = 4 * PANEL_ROWS;
const _: () = assert!(LANES_BYTES == 4 * PIECE_GROUPS);

/// Columns that share a scale.
pub const GROUP: usize = 32;

/// Columns of a block: two groups.
pub const BLOCK: usize = 2 * GROUP;

/// Bytes of a block of one panel: the scales of both groups (bf16, a row of 16 for each), then their high bits.
pub const BLOCK_BYTES: usize = 2 * PANEL_ROWS * 2 + PANEL_ROWS * BLOCK / 2;

/// Groups of a piece of a record: one lane of 32 bits for each.
pub const PIECE_GROUPS: usize = 16;

/// Bytes of a piece of one record: the scales (bf16) of 16 groups, then two rows of lanes with their low bits.
pub const PIECE_BYTES: usize = PIECE_GROUPS * 2 + PIECE_GROUPS * GROUP / 4;

/// Floats of the bounds of one row; see [`pack::Bounds`].
pub const BOUNDS: usize = 3;

/// Most columns of a screened head: bounds the sums of roundings.
pub const MAX_K: usize = 1 << 17;

/// Where the parts of a screen for a head `[n, k]` lie: high planes by panel, then one record per row, then the bounds
/// by panel (a row of 16 floats for each of [`BOUNDS`]), then the largest norm (f32).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScreenLayout {
    pub n: usize,
    pub k: usize,
}

impl ScreenLayout {
    pub fn panels(&self) -> usize {
        self.n.div_ceil(PANEL_ROWS)
    }

    pub fn blocks(&self) -> usize {
        self.k.div_ceil(BLOCK)
    }

    /// Groups of a row, the empty one of a last half block included.
    pub fn groups(&self) -> usize {
        2 * self.blocks()
    }

    /// Bytes of the high bits and scales of one panel.
    pub fn panel_bytes(&self) -> usize {
        self.blocks() * BLOCK_BYTES
    }

    pub fn pieces(&self) -> usize {
        self.groups().div_ceil(PIECE_GROUPS)
    }

    /// Bytes of the low bits and scales of one row.
    pub fn record_bytes(&self) -> usize {
        self.pieces() * PIECE_BYTES
    }

    pub fn records_offset(&self) -> usize {
        self.panels() * self.panel_bytes()
    }

    pub fn bounds_offset(&self) -> usize {
        (self.records_offset() + self.n * self.record_bytes()).next_multiple_of(64)
    }

    /// Where the largest norm lies.
    pub fn limit_offset(&self) -> usize {
        self.bounds_offset() + self.panels() * PANEL_ROWS * BOUNDS * 4
    }

    /// Bytes of the whole screen.
    pub fn bytes(&self) -> usize {
        self.limit_offset() + 4
    }

    /// The part of a bound that is there for underflow, whatever the hidden row: see `docs/head.md`.
    pub fn underflow(&self) -> f32 {
        // At most 2^17 + 2^12 · 2^17 + 64 units of 2^-149, doubled: exact up to one rounding, which the doubling covers.
        let units = self.k + (self.groups() << 17) + 64;
        let bound = 2.0 * units as f32 * f32::from_bits(1);
        // A normal number: some cores take a hundred cycles for each operation on a subnormal one.
        bound.max(f32::MIN_POSITIVE)
    }

    /// What a unit of the hidden row's norm adds to its quantization error, to cover every rounding on the way.
    pub fn rounding(&self) -> f64 {
        let roundings = self.k.div_ceil(16) + 2 * self.groups() + 128;
        2.02 * roundings as f64 / f64::from(1 << 24)
    }
}
