//! A head's rows as a screen: codes of six bits in two planes, and what bounds the error of each plane.
//!
//! A group of columns has a scale T, its largest magnitude / 16, rounded up to bf16. A weight w has the code
//! q = floor(2 w / T) + 32, 0 to 63; its upper four bits h stand for T (2 h - 15), and its lower two l add
//! T (2 l - 3) / 4. Zero weights of a padded last group stand for nothing: the hidden row is zero there.

use super::{BLOCK, BLOCK_BYTES, BOUNDS, GROUP, PANEL_ROWS, PIECE_BYTES, PIECE_GROUPS, ScreenLayout};

/// What bounds the error of one row's estimates; each is rounded up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    /// Norm of the row minus its high plane.
    pub high: f32,
    /// Norm of the row minus both planes.
    pub both: f32,
    /// At least the norms of the row and of its approximations.
    pub norm: f32,
}

impl Bounds {
    pub fn values(self) -> [f32; BOUNDS] {
        [self.high, self.both, self.norm]
    }
}

/// The smallest f32 that is not below `x`.
fn up(x: f64) -> f32 {
    let nearest = x as f32;
    if f64::from(nearest) < x { nearest.next_up() } else { nearest }
}

/// A scale's bits widened to f32.
pub fn scale(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The codes of at most [`GROUP`] columns, and the bits of their scale.
fn quantize(weights: &[f32], codes: &mut [u8; GROUP]) -> u16 {
    let largest = weights.iter().fold(0.0f32, |m, w| if w.abs() > m { w.abs() } else { m });
    // Up to the next bf16: the low half is cut off after it was made to carry.
    let bits = ((largest / 16.0).to_bits() + 0xffff) >> 16;
    let bits = u16::try_from(bits).expect("a finite number is below the largest bf16");
    let inv_scale = 2.0 / scale(bits);
    codes[weights.len()..].fill(32);
    for (code, weight) in codes.iter_mut().zip(weights) {
        // Adding 2^23 leaves the nearest integer in the low bits; a zero times ∞ leaves 0.
        let real = (weight * inv_scale + 31.5).clamp(0.0, 63.0);
        *code = (real + 8_388_608.0).to_bits().to_le_bytes()[0];
    }
    bits
}

/// Sums of squares of one row, in f64: no square of an f32 overflows or underflows there.
#[derive(Default)]
struct Squares {
    row: [f64; 4],
    high: [f64; 4],
    both: [f64; 4],
}

impl Squares {
    fn add(&mut self, weights: &[f32], codes: &[u8; GROUP], scale: f32) {
        for (i, (weight, code)) in weights.iter().zip(codes).enumerate() {
            let lane = i % 4;
            // Products of a scale and a small integer are exact in f32, and so in f64.
            let high = scale * f32::from(2 * i16::from(code >> 2) - 15);
            let low = scale * f32::from(2 * i16::from(code & 3) - 3);
            let weight = f64::from(*weight);
            let rest = weight - f64::from(high);
            let last = rest - f64::from(low) / 4.0;
            self.row[lane] += weight * weight;
            self.high[lane] += rest * rest;
            self.both[lane] += last * last;
        }
    }

    fn bounds(&self) -> Bounds {
        // The relative error of a sum of 2^17 squares is far below 2^-20.
        let norm = |squares: &[f64; 4]| libm::sqrt(squares.iter().sum::<f64>()) * (1.0 + 1.0 / f64::from(1 << 20));
        let (row, high, both) = (norm(&self.row), norm(&self.high), norm(&self.both));
        // An approximation's norm is at most the row's and the difference's.
        Bounds { high: up(high), both: up(both), norm: up((row + high.max(both)) * (1.0 + f64::EPSILON)) }
    }
}

/// Packs the high planes of at most 16 rows (`rows: f32[_, k]`) to `panel`, of `panel_bytes`, and states their bounds.
/// Missing rows get scales and bounds of zero.
pub fn panel(layout: &ScreenLayout, rows: &[f32], panel: &mut [u8]) -> [Bounds; PANEL_ROWS] {
    let mut bounds = [Bounds::default(); PANEL_ROWS];
    panel.fill(0);
    for ((i, row), bounds) in rows.chunks_exact(layout.k).enumerate().zip(&mut bounds) {
        let mut squares = Squares::default();
        for (block, columns) in panel.chunks_exact_mut(BLOCK_BYTES).zip(row.chunks(BLOCK)) {
            for (half, weights) in columns.chunks(GROUP).enumerate() {
                let mut codes = [0; GROUP];
                let bits = quantize(weights, &mut codes);
                squares.add(weights, &codes, scale(bits));
                nibbles(block, half, i, bits, &codes.map(|code| code >> 2));
            }
        }
        *bounds = squares.bounds();
    }
    bounds
}

/// Packs the scale and the codes, below 16, of group `half` of one block of row `i`.
pub fn nibbles(block: &mut [u8], half: usize, i: usize, scale: u16, codes: &[u8; GROUP]) {
    let (scales, nibbles) = block.split_at_mut(2 * 2 * PANEL_ROWS);
    scales[2 * (half * PANEL_ROWS + i)..][..2].copy_from_slice(&scale.to_le_bytes());
    // Eight columns are one row of lanes: byte j of a lane holds columns j and 4 + j.
    for (lanes, codes) in nibbles[half * GROUP / 2 * PANEL_ROWS..].chunks_exact_mut(64).zip(codes.chunks_exact(8)) {
        for j in 0..4 {
            lanes[4 * i + j] = codes[j] | codes[4 + j] << 4;
        }
    }
}

/// Packs the low bits and scales of one row to `record`, of `record_bytes`. Byte j of a group's lane holds, of the
/// sixteen columns of a row of lanes, columns j, 4 + j, 8 + j and 12 + j, the first in the lowest bits.
pub fn record(row: &[f32], record: &mut [u8]) {
    record.fill(0);
    for (piece, columns) in record.chunks_exact_mut(PIECE_BYTES).zip(row.chunks(PIECE_GROUPS * GROUP)) {
        let (scales, lanes) = piece.split_at_mut(2 * PIECE_GROUPS);
        for (lane, weights) in columns.chunks(GROUP).enumerate() {
            let mut codes = [0; GROUP];
            scales[2 * lane..][..2].copy_from_slice(&quantize(weights, &mut codes).to_le_bytes());
            for (lanes, codes) in lanes.chunks_exact_mut(4 * PIECE_GROUPS).zip(codes.chunks_exact(16)) {
                for j in 0..4 {
                    lanes[4 * lane + j] =
                        (0..4).fold(0, |byte, plane| byte | (codes[4 * plane + j] & 3) << (2 * plane));
                }
            }
        }
    }
}

/// The bounds of one panel as stored: a row of 16 floats for each bound.
pub fn bounds_bytes(bounds: &[Bounds; PANEL_ROWS]) -> impl Iterator<Item = u8> + '_ {
    (0..BOUNDS).flat_map(|i| bounds.iter().flat_map(move |b| b.values()[i].to_le_bytes()))
}

/// The screen of a whole head, for heads that fit in memory.
pub fn screen(layout: &ScreenLayout, rows: &[f32]) -> Vec<u8> {
    let mut out = vec![0; layout.bytes()];
    let mut limit = 0.0f32;
    for (p, rows) in rows.chunks(PANEL_ROWS * layout.k).enumerate() {
        let bounds = panel(layout, rows, &mut out[p * layout.panel_bytes()..][..layout.panel_bytes()]);
        limit = bounds.iter().fold(limit, |m, b| m.max(b.norm));
        let at = layout.bounds_offset() + p * PANEL_ROWS * BOUNDS * 4;
        for (to, byte) in out[at..].iter_mut().zip(bounds_bytes(&bounds)) {
            *to = byte;
        }
    }
    for (i, row) in rows.chunks_exact(layout.k).enumerate() {
        let at = layout.records_offset() + i * layout.record_bytes();
        record(row, &mut out[at..at + layout.record_bytes()]);
    }
    out[layout.limit_offset()..].copy_from_slice(&limit.to_le_bytes());
    out
}
