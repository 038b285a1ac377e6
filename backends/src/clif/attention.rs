//! `Attention`: softmax over the positions a row sees, one query head per task; its loops over the cache are assembled
//! where the backend has them.
//!
//! Scores of all positions go to scratch; the exponentials replace them; values are then summed in increasing
//! position, so no blocking can show in the bits.

use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::types::{F32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::numerics::LANES;

use super::func::{FunctionCx, signature};
use super::kernel::Kernel;
use super::kv_write::Cache;
use super::lanes::{Lanes, Shape};
use super::math::{exp, load_float};
use super::rows::{fold, for_elements, regroup};
use crate::isa::AttentionLoops;

/// Positions whose scores are computed together, so that their sums hide each other's latency.
const SCORES_AT_ONCE: usize = 2;

/// Value lanes accumulated together, widest first; each must be a multiple of the next.
const VALUE_LANES: [usize; 4] = [32, 16, 4, 1];

pub(super) fn build(
    f: &mut FunctionCx,
    kernel: &Kernel,
    heads: usize,
    cache: &Cache,
    scale: f32,
    loops: Option<&AttentionLoops>,
) {
    let [q, k, v, out] = [0, 1, 2, 3].map(|i| kernel.operand(f, i));
    let (pos, valid) = (kernel.pos(f), kernel.valid(f));
    let tasks = f.scaled(valid, heads);
    let end = f.min(kernel.end, tasks);
    let (per_row, per_kv_head) = (f.size(heads), f.size(heads / cache.heads));
    f.for_range(kernel.begin, end, 1, |f, task| {
        let (q, out) = (f.index(q, task, 4 * cache.d), f.index(out, task, 4 * cache.d));
        let row = f.ins().udiv(task, per_row);
        let head = f.ins().urem(task, per_row);
        let kv_head = f.ins().udiv(head, per_kv_head);
        let (k, v) = (cache.head(f, k, kv_head), cache.head(f, v, kv_head));
        let seen = f.ins().iadd(pos, row);
        let seen = f.offset(seen, 1);
        let e = kernel.scratch;
        match loops {
            Some(loops) => {
                let largest = assembled_scores(f, cache, scale, loops, [q, k, e, seen]);
                let total = exponentials(f, e, seen, largest);
                assembled_values(f, cache, loops, [e, v, out, seen], total);
            }
            None => {
                let largest = scores(f, cache, scale, q, k, e, seen);
                let total = exponentials(f, e, seen, largest);
                values(f, cache, v, e, seen, total, out);
            }
        }
    });
}

/// What [`scores`] does, for `[q, k, to, seen]`.
fn assembled_scores(
    f: &mut FunctionCx,
    cache: &Cache,
    scale: f32,
    loops: &AttentionLoops,
    [q, k, to, seen]: [Value; 4],
) -> Value {
    let (d, scale) = (f.size(cache.d), f.f32(scale));
    let signature = signature(&[I64, I64, I64, I64, I64, F32], &[F32]);
    f.call(&loops.scores.name, &signature, &[q, k, d, seen, to, scale])[0]
}

/// What [`values`] does, for `[e, v, out, seen]`.
fn assembled_values(
    f: &mut FunctionCx,
    cache: &Cache,
    loops: &AttentionLoops,
    [e, v, out, seen]: [Value; 4],
    total: Value,
) {
    let d = f.size(cache.d);
    f.call(&loops.values.name, &signature(&[I64; 5], &[]), &[e, v, d, seen, out]);
    for_elements(f, cache.d, |f, shape, lane| {
        let at = f.index(out, lane, 4);
        let total = Lanes::splat(f, shape, total);
        Lanes::load(f, shape, at).div(f, &total).store(f, at);
    });
}

/// Writes the scores of positions `0..seen` to `to` and returns the largest.
fn scores(f: &mut FunctionCx, cache: &Cache, scale: f32, q: Value, k: Value, to: Value, seen: Value) -> Value {
    let lowest = f.f32(f32::NEG_INFINITY);
    let (first, whole_end) = (f.i64(0), f.ins().iadd_imm_s(seen, 1 - SCORES_AT_ONCE as i64));
    let step = |f: &mut FunctionCx, count: usize, t: Value, largest: Value| {
        let mut largest = largest;
        for (i, score) in scores_at(f, cache, scale, q, k, t, count).into_iter().enumerate() {
            let to = f.index(to, t, 4);
            f.store(score, to, 4 * i32::try_from(i).expect("a few positions"));
            let greater = f.ins().fcmp(FloatCC::GreaterThan, score, largest);
            largest = f.ins().select(greater, score, largest);
        }
        largest
    };
    let largest = f.for_carried(first, whole_end, SCORES_AT_ONCE, &[lowest], |f, t, largest| {
        vec![step(f, SCORES_AT_ONCE, t, largest[0])]
    });
    let count = f.i64(SCORES_AT_ONCE as i64);
    let left = f.ins().urem(seen, count);
    let rest = f.ins().isub(seen, left);
    f.for_carried(rest, seen, 1, &largest, |f, t, largest| vec![step(f, 1, t, largest[0])])[0]
}

/// `dot(q, k_t) · scale` of `count` positions from `t` on.
fn scores_at(f: &mut FunctionCx, cache: &Cache, scale: f32, q: Value, k: Value, t: Value, count: usize) -> Vec<Value> {
    let block = Shape::block(f);
    let zero = Lanes::constant(f, block, 0.0);
    let first = f.index(k, t, cache.row_bytes());
    let keys: Vec<_> = (0..count).map(|i| f.offset(first, i * cache.row_bytes())).collect();
    let dots = fold(f, cache.d, vec![zero; count], |f, shape, i, partials| {
        let q = f.index(q, i, 4);
        let q = Lanes::load_fixed(f, shape, q);
        let one = |f: &mut FunctionCx, (key, partial): (&Value, &Lanes)| {
            let k = load_float(f, shape, cache.dtype, *key, i);
            q.fma(f, &k, partial)
        };
        keys.iter().zip(partials).map(|pair| one(f, pair)).collect()
    });
    let scale = f.f32(scale);
    dots.iter()
        .map(|dot| {
            let dot = dot.sum(f);
            f.ins().fmul(dot, scale)
        })
        .collect()
}

/// Replaces scores by `exp(score - largest)` and returns their sum.
///
/// The last block is filled up with exponentials of minus infinity: +0, which leaves a partial as it is, because
/// partials start at +0 and never become negative. Scratch is a whole number of blocks.
fn exponentials(f: &mut FunctionCx, scores: Value, seen: Value, largest: Value) -> Value {
    let block = Shape::block(f);
    let lanes = i64::try_from(LANES).expect("sixteen");
    let padded = f.ins().iadd_imm_s(seen, lanes - 1);
    let padded = f.ins().band_imm_s(padded, -lanes);
    let lowest = f.f32(f32::NEG_INFINITY);
    f.for_range(seen, padded, 1, |f, t| {
        let at = f.index(scores, t, 4);
        f.store(lowest, at, 0);
    });
    let zero = Lanes::constant(f, block, 0.0);
    let first = f.i64(0);
    let sums = f.for_carried(first, padded, LANES, zero.values(), |f, t, sums| {
        let at = f.index(scores, t, 4);
        let largest = Lanes::splat(f, block, largest);
        let shifted = Lanes::load(f, block, at).sub(f, &largest);
        let e = exp(f, &shifted);
        e.store(f, at);
        zero.with_values(sums).add(f, &e).values().to_vec()
    });
    zero.with_values(&sums).sum(f)
}

/// Writes `(Σ e_t · v_t) / total` for every value lane.
fn values(f: &mut FunctionCx, cache: &Cache, v: Value, e: Value, seen: Value, total: Value, out: Value) {
    let mut done = 0;
    for lanes in VALUE_LANES {
        let end = done + (cache.d - done) / lanes * lanes;
        if end == done {
            continue;
        }
        let shape = Shape::of(f, lanes);
        let (first, end_lane) = (f.size(done), f.size(end));
        f.for_range(first, end_lane, lanes, |f, lane| {
            let sums = weighted_sum(f, cache, shape, v, e, seen, lane);
            let total = Lanes::splat(f, shape, total);
            let out = f.index(out, lane, 4);
            sums.div(f, &total).store(f, out);
        });
        done = end;
    }
}

fn weighted_sum(
    f: &mut FunctionCx,
    cache: &Cache,
    shape: Shape,
    v: Value,
    e: Value,
    seen: Value,
    lane: Value,
) -> Lanes {
    let zero = vec![Lanes::constant(f, shape, 0.0)];
    let first = f.i64(0);
    let sums = f.for_carried(first, seen, 1, zero[0].values(), |f, t, sums| {
        let e = f.index(e, t, 4);
        let e = f.load(F32, e, 0);
        let e = Lanes::splat(f, shape, e);
        let v = f.index(v, t, cache.row_bytes());
        let v = load_float(f, shape, cache.dtype, v, lane);
        let sums = regroup(&zero, sums);
        e.fma(f, &v, &sums[0]).values().to_vec()
    });
    zero[0].with_values(&sums)
}
