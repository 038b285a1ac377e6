//! `Attention`: softmax over the positions a row sees, one tile of queries of one KV head per task.
//!
//! All queries of a tile meet each block of the cache while it is near: elements of a chunk of positions are widened
//! once to f32, then read by every query. Scores of all positions go to scratch, exponentials replace them, values
//! are summed in increasing position; so neither tiles nor chunks can show in the bits. The loops are functions of
//! their own ([`AttentionPart`]), assembled where the backend has them. A tile of few queries reads the cache as it
//! is, where the backend has loops for that ([`CacheLoops`]).

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, I64};
use cranelift_codegen::ir::{InstBuilder, Signature, Value};
use tcc_ir::cache::{AttentionScratch, BLOCK, CacheLayout, QueryTile};
use tcc_ir::ty::DType;

use super::func::{FunctionCx, signature};
use super::isa::ClifContext;
use super::kernel::Kernel;
use super::lanes::{Lanes, Shape};
use super::rows::for_elements;
use crate::code::Function;
use crate::isa::{AttentionPart, CacheLoops};

/// Queries of a tile for which elements are not widened first: those that share each register of the cache.
const FEW_QUERIES: usize = 4;

/// Positions that loops over the cache as it is take together: rows of values pass once for each part of their lanes,
/// and are still near the second time.
const POSITIONS: usize = 256;

/// One kernel: operands are those of `KernelSpec::Attention`.
pub(super) struct Attention<'a> {
    pub m: usize,
    pub heads: usize,
    pub cache: &'a CacheLayout,
    pub scale: f32,
    /// What [`cache_loops`] found.
    pub loops: Option<&'a CacheLoops>,
}

/// The loops that read the cache as it is, where they are the best choice.
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
        AttentionPart::Widen(_) => signature(&[I64; 3], &[]),
        AttentionPart::Scores | AttentionPart::Values => signature(&[I64; 7], &[]),
        AttentionPart::Softmax => signature(&[I64, I64, I64, I64, F32], &[F32]),
    }
}

/// What all tasks of one kernel share.
struct Cx<'a> {
    /// Query heads of a token row.
    heads: usize,
    /// Query heads of a KV head.
    group: usize,
    tile: QueryTile,
    m: usize,
    cache: &'a CacheLayout,
    parts: AttentionScratch,
    /// Positions processed together.
    chunk: usize,
    loops: Option<&'a CacheLoops>,
    scale: f32,
    scratch: Value,
}

/// One task: its numbers and addresses at run time.
struct Task {
    /// First token row, and how many.
    row: Value,
    rows: Value,
    /// First query head within the token row, and how many.
    head: Value,
    heads: Value,
    /// `rows · heads`.
    queries: Value,
    kv_head: Value,
    /// Positions that the first row sees.
    seen: Value,
}

pub(super) fn build(f: &mut FunctionCx, kernel: &Kernel, attention: &Attention) {
    let Attention { m, heads, cache, scale, loops } = *attention;
    let group = heads / cache.heads;
    let tile = QueryTile::new(m, group);
    let parts = AttentionScratch::new(tile, cache);
    let chunk = if loops.is_some() { POSITIONS } else { parts.chunk };
    let cx = Cx { heads, group, tile, m, cache, parts, chunk, loops, scale, scratch: kernel.scratch };
    let [q, k, v, out] = [0, 1, 2, 3].map(|i| kernel.operand(f, i));
    let (pos, valid) = (kernel.pos(f), kernel.valid(f));
    f.for_range(kernel.begin, kernel.end, 1, |f, index| {
        let (row, head, kv_head) = cx.coordinates(f, index);
        let present = f.ins().icmp(IntCC::UnsignedLessThan, row, valid);
        f.if_then(present, |f| {
            let task = cx.task(f, [row, head, kv_head], pos, valid);
            cx.gather_queries(f, &task, q);
            cx.scores(f, &task, k);
            cx.softmax(f, &task, k, v);
            cx.values(f, &task, v);
            cx.store(f, &task, out);
        });
    });
}

impl Cx<'_> {
    /// First token row, first head within the group, and KV head of task `index`.
    fn coordinates(&self, f: &mut FunctionCx, index: Value) -> (Value, Value, Value) {
        let (row_tiles, head_tiles) = (self.m.div_ceil(self.tile.rows), self.group.div_ceil(self.tile.heads));
        let (row_tile, rest) = split(f, index, row_tiles);
        let (head_tile, kv_head) = split(f, rest, head_tiles);
        (f.scaled(row_tile, self.tile.rows), f.scaled(head_tile, self.tile.heads), kv_head)
    }

    fn task(&self, f: &mut FunctionCx, [row, head, kv_head]: [Value; 3], pos: Value, valid: Value) -> Task {
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

    /// Runs `body` for each token row of the task with its index, the number of its first query, and the address of
    /// the task's first head in that row of `base: f32[m, heads · d]`.
    fn for_rows(
        &self,
        f: &mut FunctionCx,
        task: &Task,
        base: Value,
        body: impl FnOnce(&mut FunctionCx, Value, Value, Value),
    ) {
        let base = f.index(base, task.row, 4 * self.heads * self.cache.d);
        let base = f.index(base, task.head, 4 * self.cache.d);
        let zero = f.i64(0);
        f.for_range(zero, task.rows, 1, |f, row| {
            let query = f.ins().imul(row, task.heads);
            let at = f.index(base, row, 4 * self.heads * self.cache.d);
            body(f, row, query, at);
        });
    }

    /// Copies the queries side by side and clears the sums of values.
    fn gather_queries(&self, f: &mut FunctionCx, task: &Task, q: Value) {
        let d = self.cache.d;
        self.for_rows(f, task, q, |f, _, query, from| {
            let to = f.index(self.scratch, query, 4 * d);
            let zero = f.i64(0);
            f.for_range(zero, task.heads, 1, |f, head| {
                let (from, to) = (f.index(from, head, 4 * d), f.index(to, head, 4 * d));
                for_elements(f, d, |f, shape, i| {
                    let (from, to) = (f.index(from, i, 4), f.index(to, i, 4));
                    Lanes::load(f, shape, from).store(f, to);
                    let sums = f.offset(to, self.parts.sums);
                    Lanes::constant(f, shape, 0.0).store(f, sums);
                });
            });
        });
    }

    /// Bytes from the scores of one query to the next.
    fn stride_bytes(&self) -> usize {
        4 * self.cache.positions()
    }

    /// Address of part `offset` of the scratch.
    fn part(&self, f: &mut FunctionCx, offset: usize) -> Value {
        f.offset(self.scratch, offset)
    }

    /// Address of the first element of the task's head in the cache at `base`.
    fn elements(&self, f: &mut FunctionCx, task: &Task, base: Value) -> Value {
        f.index(base, task.kv_head, self.cache.head_bytes())
    }

    /// Address of the scales of the task's head in the cache at `base`; null where it has none.
    fn scales(&self, f: &mut FunctionCx, task: &Task, base: Value) -> Value {
        if !self.cache.has_scales() {
            return f.i64(0);
        }
        let scales = f.offset(base, self.cache.scales_offset_bytes());
        f.index(scales, task.kv_head, 4 * self.cache.positions())
    }

    /// Address of the elements of positions `t..t + count` of the head at `elements` as scores and values want them:
    /// widened, or in place.
    fn floats(&self, f: &mut FunctionCx, elements: Value, t: Value, count: Value) -> Value {
        let from = f.index(elements, t, self.cache.row_bytes());
        if self.loops.is_some() || self.cache.dtype == DType::F32 {
            return from;
        }
        let to = self.part(f, self.parts.widened);
        let n = f.scaled(count, self.cache.d);
        call(f, AttentionPart::Widen(self.cache.dtype), None, &[from, to, n]);
        to
    }

    fn scores(&self, f: &mut FunctionCx, task: &Task, k: Value) {
        let keys = self.elements(f, task, k);
        let seen = f.ins().iadd(task.seen, task.rows);
        let seen = f.ins().iadd_imm_s(seen, -1);
        let (first, d, stride) = (f.i64(0), f.size(self.cache.d), f.size(self.stride_bytes()));
        let scores = self.part(f, self.parts.scores);
        f.for_range(first, seen, self.chunk, |f, t| {
            let left = f.ins().isub(seen, t);
            let chunk = f.size(self.chunk);
            let count = f.min(left, chunk);
            let count = f.offset(count, BLOCK - 1);
            let blocks = f.ins().ushr_imm_u(count, i64::from(BLOCK.trailing_zeros()));
            let positions = f.scaled(blocks, BLOCK);
            let keys = self.floats(f, keys, t, positions);
            let to = f.index(scores, t, 4);
            self.call_scores(f, &[self.scratch, keys, d, task.queries, to, stride, blocks]);
        });
    }

    fn call_scores(&self, f: &mut FunctionCx, args: &[Value]) {
        call(f, AttentionPart::Scores, self.loops.map(|loops| &loops.scores), args);
    }

    fn call_values(&self, f: &mut FunctionCx, args: &[Value]) {
        call(f, AttentionPart::Values, self.loops.map(|loops| &loops.values), args);
    }

    /// Replaces scores by factors of the values and keeps the sums of exponentials.
    fn softmax(&self, f: &mut FunctionCx, task: &Task, k: Value, v: Value) {
        let [k_scales, v_scales] = [k, v].map(|base| self.scales(f, task, base));
        let (scores, totals) = (self.part(f, self.parts.scores), self.part(f, self.parts.totals));
        let (zero, scale) = (f.i64(0), f.f32(self.scale));
        f.for_range(zero, task.queries, 1, |f, query| {
            let row = f.ins().udiv(query, task.heads);
            let seen = f.ins().iadd(task.seen, row);
            let at = f.index(scores, query, self.stride_bytes());
            let args = [at, seen, k_scales, v_scales, scale];
            let total = call(f, AttentionPart::Softmax, None, &args)[0];
            let to = f.index(totals, query, 4);
            f.store(total, to, 0);
        });
    }

    /// Sums the values of the positions that all rows see, then for each row of those that only later rows see.
    fn values(&self, f: &mut FunctionCx, task: &Task, v: Value) {
        let values = self.elements(f, task, v);
        let factors = self.part(f, self.parts.scores);
        let sums = self.part(f, self.parts.sums);
        let (first, d, stride) = (f.i64(0), f.size(self.cache.d), f.size(self.stride_bytes()));
        f.for_range(first, task.seen, self.chunk, |f, t| {
            let left = f.ins().isub(task.seen, t);
            let chunk = f.size(self.chunk);
            let count = f.min(left, chunk);
            let values = self.floats(f, values, t, count);
            let factors = f.index(factors, t, 4);
            self.call_values(f, &[factors, values, d, task.queries, sums, stride, count]);
        });
        if self.tile.rows == 1 {
            return;
        }
        let one = f.i64(1);
        let more = f.ins().isub(task.rows, one);
        let values = self.floats(f, values, task.seen, more);
        let factors = f.index(factors, task.seen, 4);
        f.for_range(one, task.rows, 1, |f, row| {
            let query = f.ins().imul(row, task.heads);
            let (factors, sums) =
                (f.index(factors, query, self.stride_bytes()), f.index(sums, query, 4 * self.cache.d));
            self.call_values(f, &[factors, values, d, task.heads, sums, stride, row]);
        });
    }

    /// Writes the sums of values over those of exponentials.
    fn store(&self, f: &mut FunctionCx, task: &Task, out: Value) {
        let d = self.cache.d;
        let (sums, totals) = (self.part(f, self.parts.sums), self.part(f, self.parts.totals));
        self.for_rows(f, task, out, |f, _, query, to| {
            let zero = f.i64(0);
            f.for_range(zero, task.heads, 1, |f, head| {
                let query = f.ins().iadd(query, head);
                let (sums, to) = (f.index(sums, query, 4 * d), f.index(to, head, 4 * d));
                let total = f.index(totals, query, 4);
                let total = f.load(F32, total, 0);
                for_elements(f, d, |f, shape: Shape, i| {
                    let (from, to) = (f.index(sums, i, 4), f.index(to, i, 4));
                    let total = Lanes::splat(f, shape, total);
                    Lanes::load(f, shape, from).div(f, &total).store(f, to);
                });
            });
        });
    }
}

/// Calls `part`, or `own` in its place.
fn call(f: &mut FunctionCx, part: AttentionPart, own: Option<&Function>, args: &[Value]) -> Vec<Value> {
    let symbol = own.map_or_else(|| part.symbol(), |own| own.name.clone());
    f.call(&symbol, &part_signature(part), args)
}

/// `value` mod and div `by`.
fn split(f: &mut FunctionCx, value: Value, by: usize) -> (Value, Value) {
    if by == 1 {
        return (f.i64(0), value);
    }
    let by = f.size(by);
    (f.ins().urem(value, by), f.ins().udiv(value, by))
}
