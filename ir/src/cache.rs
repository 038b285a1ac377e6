//! How a KV cache lies in memory. What attention reads together lies together.
//!
//! Elements come first, `[heads, positions, d]` with the positions padded to whole blocks of [`BLOCK`]; of a cache of
//! type q8 the f32 scales `[heads, positions]` follow, aligned to [`BUFFER_ALIGN`]. Keys are turned within each block:
//! element i of its sixteen positions, then element i + 1. So sixteen scores are sixteen lanes, and their sums need no
//! step across lanes. Values are cut in parts of [`PART`] lanes: all positions of one part, then those of the next. So
//! the sums of a part, which wait in registers, read one stream, and parts may be summed by different threads.
//!
//! Codes of a q8 cache lie in groups of [`GROUP`] that one 32-bit lane sums: of four elements of a key, and of one
//! element of four positions of the values. A key's elements are padded to whole groups; what the padding holds does
//! not matter.

use crate::attention_codes::QueryCodes;
use crate::plan::BUFFER_ALIGN;
use crate::ty::{DType, ValueType};

/// Positions of a block.
pub const BLOCK: usize = 16;

/// Codes of a q8 cache that one lane of an instruction multiplies and sums.
pub const GROUP: usize = 4;

/// Lanes of a part of the values; the last part of a head may have fewer. For four queries, registers of 512 bits hold
/// the sums of a part.
pub const PART: usize = 64;

/// A cache `[heads, ctx, d]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheLayout {
    /// KV heads.
    pub heads: usize,
    pub ctx: usize,
    pub d: usize,
    /// One of `ops::kv_write::CACHE_TYPES`.
    pub dtype: DType,
}

/// The order of the elements of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheOrder {
    /// `[positions / BLOCK, d, BLOCK]`; q8 `[positions / BLOCK, d / GROUP, BLOCK, GROUP]`.
    Keys,
    /// `[d / PART, positions, PART]`; q8 `[d / PART, positions / GROUP, PART, GROUP]`.
    Values,
}

/// Bytes of an element of a cache of type `dtype`, scales apart. Panics on a type that no cache has.
pub fn element_bytes(dtype: DType) -> usize {
    match dtype {
        DType::F32 => 4,
        DType::F16 => 2,
        DType::Q8 => 1,
        DType::Bf16 | DType::I8 | DType::I32 | DType::U32 | DType::Trit => {
            unreachable!("type rules admit no cache of {dtype}")
        }
    }
}

impl CacheLayout {
    /// Of rows this many bytes apart, or a multiple, more than a few would meet in one set of a first-level cache.
    const FEW_SETS: usize = 1024;

    /// The layout of a state of type `ty`. Panics on a type that no cache has.
    pub fn of(ty: &ValueType) -> CacheLayout {
        let [heads, ctx, d] = ty.shape[..] else { panic!("a cache has three extents, found {ty}") };
        CacheLayout { heads, ctx, d, dtype: ty.dtype }
    }

    /// Bytes of an element, scales apart.
    pub fn element_bytes(&self) -> usize {
        element_bytes(self.dtype)
    }

    /// True if every position of a head has a scale.
    pub fn has_scales(&self) -> bool {
        self.dtype == DType::Q8
    }

    /// Positions of a head, the padding included.
    pub fn positions(&self) -> usize {
        self.ctx.next_multiple_of(BLOCK)
    }

    /// Elements that lie together: of a key, or of as many positions of the values.
    pub fn group(&self) -> usize {
        if self.has_scales() { GROUP } else { 1 }
    }

    /// Bytes of the elements of one position of one head, the padding included.
    pub fn row_bytes(&self) -> usize {
        self.d.next_multiple_of(self.group()) * self.element_bytes()
    }

    /// Bytes of the elements of one head.
    pub fn head_bytes(&self) -> usize {
        self.positions() * self.row_bytes()
    }

    /// Offset of the element `i` of position `t` within its head, bytes.
    pub fn element_offset_bytes(&self, order: CacheOrder, t: usize, i: usize) -> usize {
        let group = self.group();
        let element = match order {
            CacheOrder::Keys => {
                let block = t / BLOCK * BLOCK * self.d.next_multiple_of(group);
                block + i / group * BLOCK * group + t % BLOCK * group + i % group
            }
            CacheOrder::Values => {
                let first = i / PART * PART;
                let lanes = (self.d - first).min(PART);
                first * self.positions() + t / group * group * lanes + i % PART * group + t % group
            }
        };
        element * self.element_bytes()
    }

    /// Parts of the values of a head.
    pub fn parts(&self) -> usize {
        self.d.div_ceil(PART)
    }

    /// Bytes from one part of the values of a head to the next.
    pub fn part_bytes(&self) -> usize {
        self.positions() * PART * self.element_bytes()
    }

    /// Bytes from the scores of one query, `f32[positions]`, to those of the next: such that the same
    /// positions of a tile's queries stay in a first-level cache together.
    pub fn scores_stride_bytes(&self) -> usize {
        let bytes = 4 * self.positions();
        if bytes.is_multiple_of(Self::FEW_SETS) { bytes + BUFFER_ALIGN } else { bytes }
    }

    /// Offset of the scales, bytes.
    pub fn scales_offset_bytes(&self) -> usize {
        (self.heads * self.head_bytes()).next_multiple_of(BUFFER_ALIGN)
    }

    /// Bytes of the whole cache.
    pub fn bytes(&self) -> usize {
        let scales = if self.has_scales() { 4 * self.heads * self.positions() } else { 0 };
        self.scales_offset_bytes() + scales
    }

    /// Bytes of a cache that attention reads for `seen` positions.
    pub fn read_bytes(&self, seen: usize) -> usize {
        let scale_bytes = if self.has_scales() { 4 } else { 0 };
        self.heads * seen * (self.row_bytes() + scale_bytes)
    }
}

/// The queries of one task of attention: `rows` token rows times `heads` query heads that share a KV head, so that
/// each block of the cache is read once for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryTile {
    pub rows: usize,
    pub heads: usize,
}

impl QueryTile {
    /// Query heads at most: enough to share the reading, few enough to share the work among threads.
    const MAX_HEADS: usize = 8;
    /// Queries aimed at, least and most, one for every two token rows between: the more, the less often a block is
    /// widened, but the more RAM each thread's scores take, and the fewer tiles there are to share.
    const QUERIES: [usize; 2] = [16, 32];

    /// The tile for `m` token rows and `group` query heads for each KV head.
    pub fn new(m: usize, group: usize) -> QueryTile {
        let heads = group.min(Self::MAX_HEADS);
        let queries = (m / 2).clamp(Self::QUERIES[0], Self::QUERIES[1]);
        QueryTile { heads, rows: (queries / heads).clamp(1, m) }
    }

    /// Most queries of a task.
    pub fn queries(&self) -> usize {
        self.rows * self.heads
    }
}

/// Private memory of one task of attention: offsets in bytes of its parts, each aligned to [`BUFFER_ALIGN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionScratch {
    /// Positions whose elements are widened together.
    pub chunk: usize,
    /// `f32[queries, PART]`, the sums of the values of one part; over q8 caches `i32[queries, 2, PART]`, whose sums are
    /// 128 times the first plus the second.
    pub sums: usize,
    /// `f32[queries]`, the sums of exponentials, or what the sums of planes are multiplied by.
    pub totals: usize,
    /// `f32[chunk, d]`, widened elements; only where the cache is f16.
    pub widened: usize,
    /// `f32[queries, positions]`, scores and then weights or their codes, [`CacheLayout::scores_stride_bytes`] apart.
    pub scores: usize,
    /// Bytes of all parts; the queries `f32[queries, d]`, or their [`QueryCodes`], lie at offset 0.
    pub bytes: usize,
}

impl AttentionScratch {
    /// Widened elements at most, so that they stay in the nearest memory; one block where a block has more.
    const WIDENED: usize = 4096;

    pub fn new(tile: QueryTile, cache: &CacheLayout) -> AttentionScratch {
        let chunk = BLOCK * (Self::WIDENED / (BLOCK * cache.d)).max(1);
        let widened_bytes = if cache.dtype == DType::F16 { 4 * chunk * cache.d } else { 0 };
        let (query_bytes, planes) = match cache.has_scales() {
            true => (QueryCodes { d: cache.d }.stride_bytes(), 2),
            false => (4 * cache.d, 1),
        };
        let mut end = 0;
        let mut place = |bytes: usize| {
            let at = end;
            end = (at + bytes).next_multiple_of(BUFFER_ALIGN);
            at
        };
        let queries = tile.queries();
        let [_, sums, totals, widened, scores] = [
            queries * query_bytes,
            4 * planes * queries * cache.d.min(PART),
            4 * queries,
            widened_bytes,
            queries * cache.scores_stride_bytes(),
        ]
        .map(&mut place);
        AttentionScratch { chunk, sums, totals, widened, scores, bytes: end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every element has its own place, and those of a head fill it.
    #[test]
    fn elements_fill_the_heads() {
        for (dtype, d) in crate::ops::kv_write::CACHE_TYPES.into_iter().flat_map(|t| [5, 64, 100].map(|d| (t, d))) {
            let layout = CacheLayout { heads: 2, ctx: 20, d, dtype };
            for order in [CacheOrder::Keys, CacheOrder::Values] {
                let at = |t, i| layout.element_offset_bytes(order, t, i);
                // Keys are padded.
                let d = if order == CacheOrder::Keys { layout.row_bytes() / layout.element_bytes() } else { d };
                let mut offsets: Vec<_> = (0..32).flat_map(|t| (0..d).map(move |i| at(t, i))).collect();
                offsets.sort_unstable();
                let expected: Vec<_> = (0..32 * d).map(|e| e * layout.element_bytes()).collect();
                assert_eq!(offsets, expected, "{dtype} {order:?}");
            }
            assert_eq!(layout.head_bytes(), 32 * layout.row_bytes());
        }
        let layout = CacheLayout { heads: 3, ctx: 20, d: 5, dtype: DType::Q8 };
        assert_eq!((layout.scales_offset_bytes(), layout.bytes()), (768, 768 + 4 * 3 * 32));
    }

    #[test]
    fn tiles_hold_some_queries() {
        let tile = |m, group| {
            let QueryTile { rows, heads } = QueryTile::new(m, group);
            (rows, heads)
        };
        assert_eq!([tile(1, 4), tile(32, 4), tile(32, 1), tile(32, 40)], [(1, 4), (4, 4), (16, 1), (2, 8)]);
        assert_eq!([tile(64, 4), tile(64, 1), tile(256, 4)], [(8, 4), (32, 1), (8, 4)]);
    }
}
