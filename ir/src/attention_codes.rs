//! Attention over an int8 cache, in integers: queries and the weights of positions become codes of fourteen bits, whose
//! sums with the cache's codes are exact, so that their order is free; and how those codes lie in memory.
//!
//! A query's codes are 64 times as fine as a key's, and weights 129 times as values: the error is that of the cache.

use crate::cache::BLOCK;
use crate::numerics::{ABSMAX_FLOOR, absmax, max, rne};
use crate::plan::BUFFER_ALIGN;

/// Largest magnitude of the code of an element of a query.
pub const QUERY_MAX: i16 = 8191;
/// Largest code of the weight of a position.
pub const WEIGHT_MAX: u16 = 16383;
/// A code is `PLANE · high + low` with `0 <= low < PLANE`: two planes of at most seven bits and a sign. So is a sum.
pub const PLANE: u16 = 128;
/// Bits of a low plane.
pub const PLANE_BITS: u32 = PLANE.trailing_zeros();
/// Elements of a head at most: `QUERY_MAX · 128 · 2048 < 2³¹`.
pub const MOST_ELEMENTS: usize = 2048;
/// Positions of a cache at most: `16383 · 131072 < 2³¹` is the high part of the largest sum.
pub const MOST_POSITIONS: usize = 131_072;
/// Blocks of positions at most whose codes may be summed in 32 bits: `16383 · 128 · 16 · 64 < 2³¹`.
pub const MOST_BLOCKS: usize = 64;

/// The codes `rne(q · (8191 / a))` of a query, with `a = max(absmax(q), 1e-5)`, and their scale `a / 8191`.
pub fn query(q: &[f32]) -> (Vec<i16>, f32) {
    let a = max(absmax(q), ABSMAX_FLOOR);
    let limit = f32::from(QUERY_MAX);
    let inv_scale = limit / a;
    (q.iter().map(|x| rne(x * inv_scale) as i16).collect(), a / limit)
}

/// The codes `rne(w · (16383 / a))` of weights that are not negative, the largest of which is `a > 0`, and their scale
/// `a / 16383`.
pub fn weights(w: &[f32]) -> (Vec<u16>, f32) {
    let a = w.iter().copied().fold(0.0, |a, w| max(w, a));
    let limit = f32::from(WEIGHT_MAX);
    let inv_scale = limit / a;
    (w.iter().map(|w| rne(w * inv_scale) as u16).collect(), a / limit)
}

/// The sum of products of a query's codes and a key's.
pub fn dot(query: &[i16], key: &[i8]) -> i32 {
    query.iter().zip(key).map(|(q, k)| i32::from(*q) * i32::from(*k)).sum()
}

/// The exact sum of products of weights' codes and values' as f32: `fma(f32(high), 128, f32(low))` of its two parts,
/// rounded as written.
pub fn total(sum: i64) -> f32 {
    let (high, low) = (sum.div_euclid(i64::from(PLANE)), sum.rem_euclid(i64::from(PLANE)));
    (high as f32).mul_add(f32::from(PLANE), low as f32)
}

/// How the codes of a query of `d` elements lie: what belongs to all of it, the two planes, and the codes themselves,
/// each filled with zeros to [`QueryCodes::padded`] elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryCodes {
    pub d: usize,
}

impl QueryCodes {
    /// Offset of the scale, f32.
    pub const SCALE: usize = 0;
    /// Offset of the sum of all codes, i32.
    pub const SUM: usize = 4;
    /// Offset of the high plane `i8[padded]`, `code >> 7`. The low plane `i8[padded]`, `code & 127`, and the codes
    /// `i16[padded]` follow.
    pub const HIGH: usize = BUFFER_ALIGN;

    /// Elements of a plane.
    pub fn padded(self) -> usize {
        self.d.next_multiple_of(BLOCK)
    }

    /// Bytes from the codes of one query to those of the next.
    pub fn stride_bytes(self) -> usize {
        Self::HIGH + 4 * self.padded()
    }
}

/// How the codes of sixteen positions lie, where their scores were: offsets in bytes.
pub struct WeightCodes;

impl WeightCodes {
    /// The high plane `u8[16]`, `code >> 7`.
    pub const HIGH: usize = 0;
    /// The low plane `u8[16]`, `code & 127`.
    pub const LOW: usize = BLOCK;
    /// The codes `u16[16]`.
    pub const CODES: usize = 2 * BLOCK;
    /// Bytes of a block: as many as sixteen scores have.
    pub const BYTES: usize = 4 * BLOCK;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sum_overflows() {
        let worst = i64::from(QUERY_MAX) * 128 * MOST_ELEMENTS as i64;
        assert!(worst <= i64::from(i32::MAX) && 2 * worst > i64::from(i32::MAX));
        let worst = i64::from(WEIGHT_MAX) * 128 * MOST_POSITIONS as i64;
        let high = (-worst).div_euclid(i64::from(PLANE));
        assert!(high >= i64::from(i32::MIN) && 2 * high < i64::from(i32::MIN));
        let worst = i64::from(WEIGHT_MAX) * 128 * (BLOCK * MOST_BLOCKS) as i64;
        assert!(worst <= i64::from(i32::MAX) && worst + worst / MOST_BLOCKS as i64 > i64::from(i32::MAX));
        assert_eq!([total(-1), total(-128), total(300), total(1 << 36)], [-1.0, -128.0, 300.0, 68_719_476_736.0]);
        assert_eq!(dot(&[-QUERY_MAX; MOST_ELEMENTS], &[-128; MOST_ELEMENTS]), 8191 * 128 * 2048);
    }

    #[test]
    fn extremes_have_the_extreme_codes() {
        let (codes, scale) = query(&[3.0, -3.0, 0.0, 1.5]);
        assert_eq!(codes, [QUERY_MAX, -QUERY_MAX, 0, 4096]);
        assert_eq!(scale, 3.0 / 8191.0);
        assert_eq!(query(&[0.0, 0.0]), (vec![0, 0], 1e-5 / 8191.0));
        // Whatever the largest is, its code is the largest, and planes are of seven bits.
        for i in 0..100_000 {
            let a = f32::from_bits(0x3800_0000 + i * 10_007);
            assert_eq!(query(&[a, -a]).0, [QUERY_MAX, -QUERY_MAX], "{a}");
            assert_eq!(weights(&[a, 0.0]).0, [WEIGHT_MAX, 0], "{a}");
        }
    }

    #[test]
    fn queries_lie_apart() {
        assert_eq!(QueryCodes { d: 5 }.stride_bytes(), 128);
        assert_eq!(QueryCodes { d: 128 }.stride_bytes(), 576);
        assert_eq!(WeightCodes::CODES + 2 * BLOCK, WeightCodes::BYTES);
    }
}
