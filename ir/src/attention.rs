//! Attention of one token row in three steps, each of which threads share finer than whole KV heads.
//!
//! Scores do not depend on each other, the sums of a part of the values do not depend on those of another part, and
//! softmax does not reach across query heads: so any split along these gives the bits of [`KernelSpec::Attention`].
//!
//! [`KernelSpec::Attention`]: crate::kernel::KernelSpec::Attention

use crate::cache::{AttentionScratch, CacheLayout, QueryTile};
use crate::plan::BUFFER_ALIGN;

/// A step; operand addresses follow in the order given. The weights are a buffer laid out by [`AttentionWeights`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AttentionStep {
    /// q, k cache, weights: the dot products. Tasks: [`AttentionStep::RANGES`] ranges of positions of each tile of the
    /// query heads of a KV head ([`QueryTile`]).
    Scores,
    /// weights, k cache, v cache, weights: what the sums multiply values by, in place; over q8 caches its codes
    /// ([`crate::attention_codes::WeightCodes`]). Tasks: query heads.
    Softmax { scale: f32 },
    /// weights, v cache, out. Tasks: parts of the values of each tile.
    Values,
}

impl AttentionStep {
    /// Ranges of the positions seen, as equal as whole pairs of blocks allow: the finer, the more evenly threads end.
    pub const RANGES: usize = 8;

    /// Number of operand addresses.
    pub fn operands(self) -> usize {
        match self {
            AttentionStep::Scores | AttentionStep::Values => 3,
            AttentionStep::Softmax { .. } => 4,
        }
    }

    /// Number of tasks for `heads` query heads.
    pub fn tasks(self, heads: usize, cache: &CacheLayout) -> usize {
        let group = heads / cache.heads;
        let tiles = cache.heads * group.div_ceil(QueryTile::new(1, group).heads);
        match self {
            AttentionStep::Scores => tiles * Self::RANGES,
            AttentionStep::Softmax { .. } => heads,
            AttentionStep::Values => tiles * cache.parts(),
        }
    }

    /// Private memory of one task, bytes: the parts of [`AttentionScratch`] before its scores.
    pub fn scratch_bytes(self, heads: usize, cache: &CacheLayout) -> usize {
        match self {
            AttentionStep::Scores | AttentionStep::Values => {
                AttentionScratch::new(QueryTile::new(1, heads / cache.heads), cache).scores
            }
            AttentionStep::Softmax { .. } => 0,
        }
    }

    /// Stem of the kernel's symbol.
    pub fn family(self) -> &'static str {
        match self {
            AttentionStep::Scores => "attention_scores",
            AttentionStep::Softmax { .. } => "attention_softmax",
            AttentionStep::Values => "attention_values",
        }
    }
}

/// The buffer that the steps share: `f32[heads, positions]` scores and then weights or their codes, at offset 0,
/// [`CacheLayout::scores_stride_bytes`] apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionWeights {
    /// Offset of `f32[heads]`, the sums of exponentials, or what sums of codes are multiplied by, bytes.
    pub totals: usize,
    pub bytes: usize,
}

impl AttentionWeights {
    pub fn new(heads: usize, cache: &CacheLayout) -> AttentionWeights {
        let totals = heads * cache.scores_stride_bytes();
        AttentionWeights { totals, bytes: (totals + 4 * heads).next_multiple_of(BUFFER_ALIGN) }
    }
}
