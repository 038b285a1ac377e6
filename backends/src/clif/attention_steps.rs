//! `AttentionStep`: attention of one token row in three kernels, whose tasks are finer than KV heads.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::attention::{AttentionStep, AttentionWeights};
use tcc_ir::cache::BLOCK;

use super::attention::{Cx, Task, split};
use super::func::FunctionCx;
use super::kernel::Kernel;

/// Positions of which ranges are whole numbers: loops of scores take two blocks together.
const UNIT: usize = 2 * BLOCK;

/// One kernel: operands are those of `step`.
pub(super) fn build(f: &mut FunctionCx, kernel: &Kernel, cx: &Cx, step: AttentionStep) {
    f.for_range(kernel.begin, kernel.end, 1, |f, index| match step {
        AttentionStep::Scores => scores(f, kernel, cx, index),
        AttentionStep::Softmax { scale } => softmax(f, kernel, cx, index, scale),
        AttentionStep::Values => values(f, kernel, cx, index),
    });
}

/// Tile `tile` of the only token row.
fn task(f: &mut FunctionCx, kernel: &Kernel, cx: &Cx, tile: Value) -> Task {
    let (pos, one) = (kernel.pos(f), f.i64(1));
    let tile = cx.coordinates(f, tile);
    cx.task(f, tile, pos, one)
}

fn scores(f: &mut FunctionCx, kernel: &Kernel, cx: &Cx, index: Value) {
    let [q, k, weights] = [0, 1, 2].map(|i| kernel.operand(f, i));
    let (range, tile) = split(f, index, AttentionStep::RANGES);
    let task = task(f, kernel, cx, tile);
    let units = f.offset(task.seen, UNIT - 1);
    let units = f.ins().ushr_imm_u(units, i64::from(UNIT.trailing_zeros()));
    let one = f.i64(1);
    let next = f.ins().iadd(range, one);
    let ranges = i64::from(AttentionStep::RANGES.trailing_zeros());
    let [first, end] = [range, next].map(|range| {
        let before = f.ins().imul(units, range);
        let before = f.ins().ushr_imm_u(before, ranges);
        f.scaled(before, UNIT)
    });
    let end = f.min(end, task.seen);
    // Ranges of a tile follow each other: the codes of its queries are there but at the first one.
    let is_first = f.ins().icmp_imm_s(IntCC::Equal, range, 0);
    let is_begin = f.ins().icmp(IntCC::Equal, index, kernel.begin);
    let is_new = f.ins().bor(is_first, is_begin);
    let q = cx.queries(f, &task, q, is_new);
    let to = f.index(weights, task.head, cx.cache.scores_stride_bytes());
    cx.scores(f, &task, [q, k, to], [first, end]);
}

fn softmax(f: &mut FunctionCx, kernel: &Kernel, cx: &Cx, head: Value, scale: f32) {
    let [weights, k, v] = [0, 1, 2].map(|i| kernel.operand(f, i));
    let (_, kv_head) = split(f, head, cx.group);
    let pos = kernel.pos(f);
    let seen = f.offset(pos, 1);
    let at = f.index(weights, head, cx.cache.scores_stride_bytes());
    let totals = f.offset(weights, AttentionWeights::new(cx.heads, cx.cache).totals);
    let to = f.index(totals, head, 4);
    cx.softmax_of(f, kv_head, [at, seen, seen, k, v, to], scale);
}

fn values(f: &mut FunctionCx, kernel: &Kernel, cx: &Cx, index: Value) {
    let [weights, v, out] = [0, 1, 2].map(|i| kernel.operand(f, i));
    let (part, tile) = split(f, index, cx.cache.parts());
    let task = task(f, kernel, cx, tile);
    let totals = f.offset(weights, AttentionWeights::new(cx.heads, cx.cache).totals);
    let totals = f.index(totals, task.head, 4);
    let at = f.index(weights, task.head, cx.cache.scores_stride_bytes());
    cx.values(f, &task, part, [at, v, totals, out]);
}
