//! `Attention`: softmax over the positions a row sees, one tile of queries of one KV head per task.
//!
//! All queries of a tile meet each block of the cache while it is near: elements of a chunk of positions are widened
//! once to f32, then read by every query. Scores of all positions go to scratch, exponentials replace them, values
//! are summed in increasing position, part by part; so neither tiles nor chunks can show in the bits. The loops are
//! functions of their own ([`AttentionPart`]), assembled where the backend has them. A tile of few queries reads the
//! cache as it is, where the backend has loops for that ([`CacheLoops`]). Over q8 caches queries and weights become
//! codes, and all sums are of integers ([`tcc_ir::attention_codes`]).

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, I64};
use cranelift_codegen::ir::{InstBuilder, Signature, Value};
use tcc_ir::attention_codes::{MOST_BLOCKS, QueryCodes};
use tcc_ir::cache::{AttentionScratch, BLOCK, CacheLayout, PART, QueryTile};
use tcc_ir::ty::DType;

use super::attention_codes;
use super::func::{FunctionCx, signature};
use super::isa::ClifContext;
use super::kernel::Kernel;
use super::lanes::{Lanes, Shape};
use super::rows::{for_count, for_elements};
use crate::code::Function;
use crate::isa::{AttentionPart, CacheLoops};

/// Queries of a tile for which elements are not widened first: those that share each register of the cache.
const FEW_QUERIES: usize = 4;

/// Positions that loops over floats as they are take together: where more than one group of queries passes, they are
/// still near the second time.
const POSITIONS: usize = 256;

/// Positions whose codes loops take together, so that sums rarely leave the registers.
const CODE_POSITIONS: usize = MOST_BLOCKS * BLOCK;

/// The loops that read a cache of floats as it is, where they are the best choice.
pub(super) fn cache_loops<'a>(
    cx: &'a ClifContext,
    m: usize,
    heads: usize,
    cache: &CacheLayout,
) -> Option<&'a CacheLoops> {
    let tile = QueryTile::new(m, heads / cache.heads);
    cx.cache_loops(cache.dtype).filter(|_| tile.queries() <= FEW_QUERIES)
}

/// The signature of a part; see [`AttentionPart`].
pub(super) fn part_signature(part: AttentionPart) -> Signature {
    match part {
        AttentionPart::Widen => signature(&[I64; 3], &[]),
        AttentionPart::Scores | AttentionPart::Values | AttentionPart::CodeScores | AttentionPart::CodeValues => {
            signature(&[I64; 7], &[])
        }
        AttentionPart::Softmax => signature(&[I64, I64, I64, I64, F32], &[F32]),
        AttentionPart::QueryCodes => signature(&[I64; 4], &[]),
        AttentionPart::WeightCodes => signature(&[I64; 3], &[F32]),
    }
}

/// What all tasks of one kernel share.
pub(super) struct Cx<'a> {
    /// Query heads of a token row.
    pub heads: usize,
    /// Query heads of a KV head.
    pub group: usize,
    tile: QueryTile,
    m: usize,
    pub cache: &'a CacheLayout,
    parts: AttentionScratch,
    loops: Option<&'a CacheLoops>,
    scratch: Value,
}

/// One task: its numbers and addresses at run time.
pub(super) struct Task {
    /// First token row, and how many.
    row: Value,
    rows: Value,
    /// First query head within the token row, and how many.
    pub head: Value,
    heads: Value,
    /// `rows · heads`.
    queries: Value,
    kv_head: Value,
    /// Positions that the first row sees.
    pub seen: Value,
}

/// A part of the values of a task's KV head.
struct Part {
    index: Value,
    lanes: Value,
    /// Address of its elements `[positions, lanes]`.
    values: Value,
    /// Address of the sums `f32[queries, lanes]`, or `i32[queries, 2, lanes]` of two parts each.
    sums: Value,
}

/// One kernel: operands are those of `KernelSpec::Attention`.
pub(super) fn build(f: &mut FunctionCx, kernel: &Kernel, cx: &Cx, scale: f32) {
    let [q, k, v, out] = [0, 1, 2, 3].map(|i| kernel.operand(f, i));
    let (pos, valid) = (kernel.pos(f), kernel.valid(f));
    f.for_range(kernel.begin, kernel.end, 1, |f, index| {
        let tile = cx.coordinates(f, index);
        let present = f.ins().icmp(IntCC::UnsignedLessThan, tile[0], valid);
        f.if_then(present, |f| {
            let task = cx.task(f, tile, pos, valid);
            let weights = f.offset(cx.scratch, cx.parts.scores);
            cx.gather_queries(f, &task, q);
            let range = [f.i64(0), cx.end(f, &task)];
            cx.scores(f, &task, [cx.scratch, k, weights], range);
            cx.softmax(f, &task, [weights, k, v], scale);
            let totals = f.offset(cx.scratch, cx.parts.totals);
            let (first, parts) = (f.i64(0), f.size(cx.cache.parts()));
            f.for_range(first, parts, 1, |f, part| cx.values(f, &task, part, [weights, v, totals, out]));
        });
    });
}

impl<'a> Cx<'a> {
    /// For `m` token rows of `heads` query heads; `loops` are what [`cache_loops`] found.
    pub fn new(
        m: usize,
        heads: usize,
        cache: &'a CacheLayout,
        loops: Option<&'a CacheLoops>,
        scratch: Value,
    ) -> Cx<'a> {
        let group = heads / cache.heads;
        let tile = QueryTile::new(m, group);
        Cx { heads, group, tile, m, cache, parts: AttentionScratch::new(tile, cache), loops, scratch }
    }

    /// First token row, first head within the group, and KV head of tile `index`.
    pub fn coordinates(&self, f: &mut FunctionCx, index: Value) -> [Value; 3] {
        let (row_tiles, head_tiles) = (self.m.div_ceil(self.tile.rows), self.group.div_ceil(self.tile.heads));
        let (row_tile, rest) = split(f, index, row_tiles);
        let (head_tile, kv_head) = split(f, rest, head_tiles);
        [f.scaled(row_tile, self.tile.rows), f.scaled(head_tile, self.tile.heads), kv_head]
    }

    pub fn task(&self, f: &mut FunctionCx, [row, head, kv_head]: [Value; 3], pos: Value, valid: Value) -> Task {
        let (most_rows, most_heads) = (f.size(self.tile.rows), f.size(self.tile.heads));
        let rows = f.ins().isub(valid, row);
        let rows = f.min(rows, most_rows);
        let group = f.size(self.group);
        let heads = f.ins().isub(group, head);
        let heads = f.min(heads, most_heads);
        let queries = f.ins().imul(rows, heads);
        let first = f.scaled(kv_head, self.group);
        let head = f.ins().iadd(first, head);
        let seen = f.ins().iadd(pos, row);
        let seen = f.offset(seen, 1);
        Task { row, rows, head, heads, queries, kv_head, seen }
    }

    /// Runs `body` for each token row of the task with the number of its first query, and the address of the task's
    /// first head in that row of `base: f32[m, heads · d]`.
    fn for_rows(&self, f: &mut FunctionCx, task: &Task, base: Value, body: impl FnOnce(&mut FunctionCx, Value, Value)) {
        let base = f.index(base, task.row, 4 * self.heads * self.cache.d);
        let base = f.index(base, task.head, 4 * self.cache.d);
        let zero = f.i64(0);
        f.for_range(zero, task.rows, 1, |f, row| {
            let query = f.ins().imul(row, task.heads);
            let at = f.index(base, row, 4 * self.heads * self.cache.d);
            body(f, query, at);
        });
    }

    /// How many positions the last row of the task sees.
    fn end(&self, f: &mut FunctionCx, task: &Task) -> Value {
        let end = f.ins().iadd(task.seen, task.rows);
        f.ins().iadd_imm_s(end, -1)
    }

    /// Copies the queries side by side to the start of the scratch, or puts their codes there.
    fn gather_queries(&self, f: &mut FunctionCx, task: &Task, q: Value) {
        let d = self.cache.d;
        self.for_rows(f, task, q, |f, query, from| {
            if self.cache.has_scales() {
                let to = f.index(self.scratch, query, QueryCodes { d }.stride_bytes());
                self.query_codes(f, from, task.heads, to);
                return;
            }
            let to = f.index(self.scratch, query, 4 * d);
            let zero = f.i64(0);
            f.for_range(zero, task.heads, 1, |f, head| {
                let (from, to) = (f.index(from, head, 4 * d), f.index(to, head, 4 * d));
                for_elements(f, d, |f, shape, i| {
                    let (from, to) = (f.index(from, i, 4), f.index(to, i, 4));
                    Lanes::load(f, shape, from).store(f, to);
                });
            });
        });
    }

    /// Writes the codes of `count` queries that follow each other at `q`.
    fn query_codes(&self, f: &mut FunctionCx, q: Value, count: Value, to: Value) {
        let d = f.size(self.cache.d);
        call(f, AttentionPart::QueryCodes, None, &[q, d, count, to]);
    }

    /// The task's queries of the only token row at `q: f32[heads, d]` as [`Cx::scores`] wants them. Codes are made where
    /// `is_new`; else they are those that this scratch got before.
    pub fn queries(&self, f: &mut FunctionCx, task: &Task, q: Value, is_new: Value) -> Value {
        let q = f.index(q, task.head, 4 * self.cache.d);
        if !self.cache.has_scales() {
            return q;
        }
        f.if_then(is_new, |f| self.query_codes(f, q, task.heads, self.scratch));
        self.scratch
    }

    /// Address of the first element of the task's head in the cache at `base`.
    fn elements(&self, f: &mut FunctionCx, task: &Task, base: Value) -> Value {
        f.index(base, task.kv_head, self.cache.head_bytes())
    }

    /// Address of the scales of KV head `kv_head` in the cache at `base`; null where it has none.
    fn scales(&self, f: &mut FunctionCx, kv_head: Value, base: Value) -> Value {
        if !self.cache.has_scales() {
            return f.i64(0);
        }
        let scales = f.offset(base, self.cache.scales_offset_bytes());
        f.index(scales, kv_head, 4 * self.cache.positions())
    }

    /// True if loops read elements of the cache where they are.
    fn is_in_place(&self) -> bool {
        self.loops.is_some() || self.cache.dtype != DType::F16
    }

    /// Address of `n` elements at `from` as scores and values want them: widened, or in place.
    fn elements_near(&self, f: &mut FunctionCx, from: Value, n: Value) -> Value {
        if self.is_in_place() {
            return from;
        }
        let to = f.offset(self.scratch, self.parts.widened);
        call(f, AttentionPart::Widen, None, &[from, to, n]);
        to
    }

    /// Positions that loops take together, of which each has `elements` elements: as many as are near at once.
    fn positions(&self, elements: usize) -> usize {
        if self.cache.has_scales() {
            return CODE_POSITIONS;
        }
        if self.loops.is_some() {
            return POSITIONS;
        }
        self.parts.chunk * self.cache.d / elements
    }

    /// Dot products of the queries at `q`, or of those whose codes are there, with keys `first..end` of the cache `k`,
    /// where `first` is a whole number of blocks; to `to`, the scores of the first query.
    pub fn scores(&self, f: &mut FunctionCx, task: &Task, [q, k, to]: [Value; 3], [first, end]: [Value; 2]) {
        let keys = self.elements(f, task, k);
        let (d, stride) = (f.size(self.cache.d), f.size(self.cache.scores_stride_bytes()));
        let part = if self.cache.has_scales() { AttentionPart::CodeScores } else { AttentionPart::Scores };
        let chunk = self.positions(self.cache.d);
        f.for_range(first, end, chunk, |f, t| {
            let left = f.ins().isub(end, t);
            let chunk = f.size(chunk);
            let count = f.min(left, chunk);
            let blocks = whole_blocks(f, count);
            let n = f.scaled(blocks, BLOCK * self.cache.d);
            let keys = f.index(keys, t, self.cache.row_bytes());
            let keys = self.elements_near(f, keys, n);
            let to = f.index(to, t, 4);
            let own = self.loops.map(|loops| &loops.scores);
            call(f, part, own, &[q, keys, d, task.queries, to, stride, blocks]);
        });
    }

    /// Replaces the scores of every query of the task by weights or their codes and keeps its total.
    fn softmax(&self, f: &mut FunctionCx, task: &Task, [weights, k, v]: [Value; 3], scale: f32) {
        let totals = f.offset(self.scratch, self.parts.totals);
        let (zero, end) = (f.i64(0), self.end(f, task));
        f.for_range(zero, task.queries, 1, |f, query| {
            let row = f.ins().udiv(query, task.heads);
            let seen = f.ins().iadd(task.seen, row);
            let at = f.index(weights, query, self.cache.scores_stride_bytes());
            let to = f.index(totals, query, 4);
            self.softmax_of(f, task.kv_head, [at, seen, end, k, v, to], scale);
        });
    }

    /// Replaces `seen` scores `at` of one query by weights and stores the sum of exponentials `to`. Over a q8 cache
    /// replaces them by codes, up to `end`, and stores what sums of codes are multiplied by.
    pub fn softmax_of(&self, f: &mut FunctionCx, kv_head: Value, [at, seen, end, k, v, to]: [Value; 6], scale: f32) {
        let [k_scales, v_scales] = [k, v].map(|base| self.scales(f, kv_head, base));
        let scale = f.f32(scale);
        let mut total = call(f, AttentionPart::Softmax, None, &[at, seen, k_scales, v_scales, scale])[0];
        if self.cache.has_scales() {
            let scale = call(f, AttentionPart::WeightCodes, None, &[at, seen, end])[0];
            total = f.ins().fdiv(scale, total);
        }
        f.store(total, to, 0);
    }

    /// Part `index` of the values of the cache `v`.
    fn part(&self, f: &mut FunctionCx, task: &Task, v: Value, index: Value) -> Part {
        let (d, most) = (f.size(self.cache.d), f.size(PART));
        let first = f.scaled(index, PART);
        let left = f.ins().isub(d, first);
        let lanes = f.min(left, most);
        let values = self.elements(f, task, v);
        let values = f.index(values, index, self.cache.part_bytes());
        Part { index, lanes, values, sums: f.offset(self.scratch, self.parts.sums) }
    }

    /// Sums part `part` of the values in the cache `v` and writes it, scaled by the totals, to `out`. `weights` are those
    /// of the first query, `totals` is its total.
    pub fn values(&self, f: &mut FunctionCx, task: &Task, part: Value, [weights, v, totals, out]: [Value; 4]) {
        let part = self.part(f, task, v, part);
        self.sum(f, task, &part, weights);
        self.store(f, task, &part, [totals, out]);
    }

    /// Sums values: of the positions that all rows see, then for each row of those that only later rows see; codes of
    /// what a row does not see are zero.
    fn sum(&self, f: &mut FunctionCx, task: &Task, part: &Part, weights: Value) {
        let count = f.ins().imul(task.queries, part.lanes);
        let count = f.scaled(count, self.words());
        for_count(f, count, |f, shape, i| {
            let to = f.index(part.sums, i, 4);
            Lanes::constant(f, shape, 0.0).store(f, to);
        });
        let seen = if self.cache.has_scales() { self.end(f, task) } else { task.seen };
        let chunk = self.positions(self.cache.d.min(PART));
        let first = f.i64(0);
        f.for_range(first, seen, chunk, |f, t| {
            let left = f.ins().isub(seen, t);
            let chunk = f.size(chunk);
            let count = f.min(left, chunk);
            let values = self.part_elements(f, part, t, count);
            let weights = f.index(weights, t, 4);
            self.add_values(f, part, [weights, values, task.queries, part.sums, count]);
        });
        if self.tile.rows == 1 || self.cache.has_scales() {
            return;
        }
        let one = f.i64(1);
        let more = f.ins().isub(task.rows, one);
        let values = self.part_elements(f, part, task.seen, more);
        let weights = f.index(weights, task.seen, 4);
        f.for_range(one, task.rows, 1, |f, row| {
            let query = f.ins().imul(row, task.heads);
            let weights = f.index(weights, query, self.cache.scores_stride_bytes());
            let of_query = f.ins().imul(query, part.lanes);
            let sums = f.index(part.sums, of_query, 4);
            self.add_values(f, part, [weights, values, task.heads, sums, row]);
        });
    }

    /// Words of a sum.
    fn words(&self) -> usize {
        if self.cache.has_scales() { 2 } else { 1 }
    }

    /// Address of `count` positions of a part from position `t` on, as [`Cx::elements_near`].
    fn part_elements(&self, f: &mut FunctionCx, part: &Part, t: Value, count: Value) -> Value {
        let before = f.ins().imul(t, part.lanes);
        let from = f.index(part.values, before, self.cache.element_bytes());
        let n = f.ins().imul(count, part.lanes);
        self.elements_near(f, from, n)
    }

    fn add_values(&self, f: &mut FunctionCx, part: &Part, [weights, values, queries, sums, count]: [Value; 5]) {
        let stride = f.size(self.cache.scores_stride_bytes());
        if self.cache.has_scales() {
            let blocks = whole_blocks(f, count);
            let args = [weights, values, part.lanes, queries, sums, stride, blocks];
            call(f, AttentionPart::CodeValues, None, &args);
            return;
        }
        let own = self.loops.map(|loops| &loops.values);
        call(f, AttentionPart::Values, own, &[weights, values, part.lanes, queries, sums, stride, count]);
    }

    /// Writes sums of values over totals, which are at `totals` for the task's queries; sums of codes times them.
    fn store(&self, f: &mut FunctionCx, task: &Task, part: &Part, [totals, out]: [Value; 2]) {
        self.for_rows(f, task, out, |f, query, to| {
            let to = f.index(to, part.index, 4 * PART);
            let zero = f.i64(0);
            f.for_range(zero, task.heads, 1, |f, head| {
                let query = f.ins().iadd(query, head);
                let (of_query, to) = (f.ins().imul(query, part.lanes), f.index(to, head, 4 * self.cache.d));
                let sums = f.index(part.sums, of_query, 4 * self.words());
                let low = f.index(sums, part.lanes, 4);
                let total = f.index(totals, query, 4);
                let total = f.load(F32, total, 0);
                for_count(f, part.lanes, |f, shape: Shape, i| {
                    let (from, to) = (f.index(sums, i, 4), f.index(to, i, 4));
                    let total = Lanes::splat(f, shape, total);
                    let scaled = if self.cache.has_scales() {
                        let low = f.index(low, i, 4);
                        let parts = [from, low].map(|at| Lanes::load_int(f, shape, at));
                        attention_codes::total(f, parts).mul(f, &total)
                    } else {
                        Lanes::load(f, shape, from).div(f, &total)
                    };
                    scaled.store(f, to);
                });
            });
        });
    }
}

/// Blocks that hold `count` positions.
fn whole_blocks(f: &mut FunctionCx, count: Value) -> Value {
    let count = f.offset(count, BLOCK - 1);
    f.ins().ushr_imm_u(count, i64::from(BLOCK.trailing_zeros()))
}

/// Calls `part`, or `own` in its place.
fn call(f: &mut FunctionCx, part: AttentionPart, own: Option<&Function>, args: &[Value]) -> Vec<Value> {
    let symbol = own.map_or(part.symbol(), |own| &own.name);
    f.call(symbol, &part_signature(part), args)
}

/// `value` mod and div `by`.
pub(super) fn split(f: &mut FunctionCx, value: Value, by: usize) -> (Value, Value) {
    if by == 1 {
        return (f.i64(0), value);
    }
    let by = f.size(by);
    (f.ins().urem(value, by), f.ins().udiv(value, by))
}
