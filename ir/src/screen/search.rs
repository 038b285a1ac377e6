//! What the three levels of a screen compute, row by row, and the search that they make: the definition that kernels
//! reproduce bit for bit.

use super::pack::{Bounds, scale};
use super::query::{HIGH_FACTOR, HIGH_OFFSET, LIMIT, LOW_FACTOR, LOW_OFFSET, LOW_UNIT, Query, query};
use super::{BLOCK, BLOCK_BYTES, BOUNDS, GROUP, PANEL_ROWS, PIECE_BYTES, PIECE_GROUPS, ScreenLayout};
use crate::numerics::{dot, max};

/// A head with its screen.
#[derive(Clone, Copy, Debug)]
pub struct Screened<'a> {
    pub layout: ScreenLayout,
    /// As [`super::pack::screen`] makes it.
    pub screen: &'a [u8],
    /// The rows themselves, `f32[n, k]`.
    pub rows: &'a [f32],
}

/// A logit lies between `low` and `high`, both included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub low: f32,
    pub high: f32,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Exact logits of the rows that may be among the best, -∞ elsewhere.
    pub logits: Vec<f32>,
    /// Rows whose low bits, and whose weights, were read.
    pub rows: [usize; 2],
}

/// Largest distance of an estimate from the logit: `error` is the norm of the row minus its approximation.
pub fn bound(layout: &ScreenLayout, query: &Query, error: f32, norm: f32) -> f32 {
    error.mul_add(query.norm, norm.mul_add(query.slack, layout.underflow()))
}

/// The upper end of an interval from its lower one.
fn upper(low: f32, bound: f32) -> f32 {
    low + 2.0 * bound
}

/// Sum over one group of what the bits of a plane stand for times codes, exact.
fn group_sum(query: &Query, group: usize, (factor, offset): (i32, i32), bits: impl Fn(usize) -> u8) -> i32 {
    let codes = &query.codes[group * GROUP..][..GROUP];
    let sum: i32 = codes.iter().enumerate().map(|(i, q)| i32::from(bits(i)) * i32::from(*q)).sum();
    factor * sum + offset * query.sums[group]
}

impl Screened<'_> {
    fn panel(&self, row: usize) -> &[u8] {
        &self.screen[row / PANEL_ROWS * self.layout.panel_bytes()..][..self.layout.panel_bytes()]
    }

    fn float(&self, at: usize) -> f32 {
        f32::from_le_bytes(self.screen[at..at + 4].try_into().expect("four bytes"))
    }

    /// The largest norm of a row.
    pub fn limit(&self) -> f32 {
        self.float(self.layout.limit_offset())
    }

    pub fn bounds(&self, row: usize) -> Bounds {
        let panel = self.layout.bounds_offset() + row / PANEL_ROWS * PANEL_ROWS * BOUNDS * 4;
        let [high, both, norm] = std::array::from_fn(|i| self.float(panel + 4 * (i * PANEL_ROWS + row % PANEL_ROWS)));
        Bounds { high, both, norm }
    }

    /// The estimate of a row's logit by its high plane.
    pub fn estimate(&self, query: &Query, row: usize) -> f32 {
        let (panel, lane) = (self.panel(row), row % PANEL_ROWS);
        let mut sum = 0.0f32;
        for group in 0..self.layout.groups() {
            let (block, half) = (&panel[group / 2 * BLOCK_BYTES..][..BLOCK_BYTES], group % 2);
            let (scales, nibbles) = block.split_at(2 * 2 * PANEL_ROWS);
            let at = 2 * (half * PANEL_ROWS + lane);
            let scale = scale(u16::from_le_bytes([scales[at], scales[at + 1]]));
            let exact = group_sum(query, group, (HIGH_FACTOR, HIGH_OFFSET), |i| {
                let byte = nibbles[half * GROUP / 2 * PANEL_ROWS + i / 8 * 64 + 4 * lane + i % 4];
                if i % 8 < 4 { byte & 15 } else { byte >> 4 }
            });
            sum = (exact as f32).mul_add(scale * query.scales[group], sum);
        }
        sum
    }

    /// What a row's low plane adds to the estimate.
    pub fn refinement(&self, query: &Query, row: usize) -> f32 {
        let record = &self.screen[self.layout.records_offset() + row * self.layout.record_bytes()..];
        let terms: (Vec<f32>, Vec<f32>) = (0..self.layout.groups())
            .map(|group| {
                let (piece, lane) =
                    (&record[group / PIECE_GROUPS * PIECE_BYTES..][..PIECE_BYTES], group % PIECE_GROUPS);
                let (scales, lanes) = piece.split_at(2 * PIECE_GROUPS);
                let exact = group_sum(query, group, (LOW_FACTOR, LOW_OFFSET), |i| {
                    lanes[i / 16 * 4 * PIECE_GROUPS + 4 * lane + i % 4] >> (2 * (i % 16 / 4)) & 3
                });
                let scale = scale(u16::from_le_bytes([scales[2 * lane], scales[2 * lane + 1]]));
                (exact as f32, scale * query.scales[group])
            })
            .unzip();
        dot(&terms.0, &terms.1) * LOW_UNIT
    }

    /// Where the logit of a row lies by its high plane.
    pub fn first(&self, query: &Query, row: usize) -> Interval {
        let bounds = self.bounds(row);
        let bound = bound(&self.layout, query, bounds.high, bounds.norm);
        let low = self.estimate(query, row) - bound;
        Interval { low, high: upper(low, bound) }
    }

    /// Where the logit of a row lies by both planes; `low` is that of [`Screened::first`].
    pub fn second(&self, query: &Query, row: usize, low: f32) -> Interval {
        let bounds = self.bounds(row);
        let estimate = (low + bound(&self.layout, query, bounds.high, bounds.norm)) + self.refinement(query, row);
        let bound = bound(&self.layout, query, bounds.both, bounds.norm);
        let low = estimate - bound;
        Interval { low, high: upper(low, bound) }
    }

    /// The `count` best logits of the hidden row `x`, and maybe others; none where norms are too large to bound, or
    /// `count` is 0 or above the number of panels: then every logit must be computed.
    pub fn search(&self, x: &[f32], count: usize) -> Option<Found> {
        let query = query(&self.layout, x);
        let is_bounded = self.limit() * query.norm < LIMIT;
        if !is_bounded || count == 0 || count > self.layout.panels() {
            return None;
        }
        let lows = self.high_level(&query);
        let lows = self.low_level(&query, &lows, threshold(&lows, count));
        let logits = self.exact_level(&query, x, &lows, threshold(&lows, count));
        let rows = [&lows, &logits].map(|left| left.iter().filter(|low| is_in(**low)).count());
        Some(Found { logits, rows })
    }

    /// Lower ends of all rows' intervals by the high planes.
    pub fn high_level(&self, query: &Query) -> Vec<f32> {
        (0..self.layout.n).map(|row| self.first(query, row).low).collect()
    }

    /// Lower ends by both planes of the rows that may reach `threshold`, -∞ elsewhere.
    pub fn low_level(&self, query: &Query, lows: &[f32], threshold: f32) -> Vec<f32> {
        let error = |row| self.bounds(row).high;
        self.level(query, lows, threshold, error, |row| self.second(query, row, lows[row]).low)
    }

    /// Logits of the rows that may reach `threshold`, -∞ elsewhere.
    pub fn exact_level(&self, query: &Query, x: &[f32], lows: &[f32], threshold: f32) -> Vec<f32> {
        let (k, error) = (self.layout.k, |row| self.bounds(row).both);
        self.level(query, lows, threshold, error, |row| dot(x, &self.rows[row * k..][..k]))
    }

    /// `next` of the rows that are in and may reach `threshold`, given what made their intervals.
    fn level(
        &self,
        query: &Query,
        lows: &[f32],
        threshold: f32,
        error: impl Fn(usize) -> f32,
        next: impl Fn(usize) -> f32,
    ) -> Vec<f32> {
        let stays = |row: usize| {
            let bound = bound(&self.layout, query, error(row), self.bounds(row).norm);
            is_in(lows[row]) && upper(lows[row], bound) >= threshold
        };
        (0..lows.len()).map(|row| if stays(row) { next(row) } else { f32::NEG_INFINITY }).collect()
    }
}

/// True until a level has dropped the row.
fn is_in(low: f32) -> bool {
    low > f32::NEG_INFINITY
}

/// The largest of each panel.
pub fn maxima(lows: &[f32]) -> Vec<f32> {
    lows.chunks(PANEL_ROWS).map(|panel| panel.iter().fold(f32::NEG_INFINITY, |m, low| max(*low, m))).collect()
}

/// At least `count` of `lows` are this or larger: the `count`-th largest of the panels' largest.
pub fn threshold(lows: &[f32], count: usize) -> f32 {
    let mut largest = maxima(lows);
    largest.sort_by(|a, b| b.total_cmp(a));
    largest[count - 1]
}

const _: () = assert!(BLOCK == 2 * GROUP);

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
