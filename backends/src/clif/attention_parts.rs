//! The portable forms of the loops of attention ([`AttentionPart`]).

use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::cache::BLOCK;
use tcc_ir::numerics::LANES;
use tcc_ir::ty::DType;

use super::attention::part_signature;
use super::attention_codes;
use super::func::FunctionCx;
use super::isa::ClifContext;
use super::lanes::{Lanes, Shape};
use super::math::{exp, load_float};
use super::rows::{for_count, regroup};
use crate::code::{EmitError, Function};
use crate::isa::AttentionPart;

/// Positions whose scores are computed side by side.
pub(super) const SCORE_LANES: usize = 8;

/// Queries that share what is loaded, most first; the last is 1.
const QUERIES: [usize; 2] = [2, 1];

/// Value lanes summed side by side, most first; each is a multiple of the next.
pub(super) const VALUE_LANES: [usize; 3] = [16, 4, 1];

/// The portable function of `part`.
pub(super) fn emit(cx: &ClifContext, part: AttentionPart) -> Result<Function, EmitError> {
    cx.function(part.symbol(), &part_signature(part), |f| match part {
        AttentionPart::Widen => widen(f),
        AttentionPart::Scores => scores(f),
        AttentionPart::Softmax => softmax(f),
        AttentionPart::Values => values(f),
        AttentionPart::QueryCodes => attention_codes::query_codes(f),
        AttentionPart::CodeScores => attention_codes::scores(f),
        AttentionPart::WeightCodes => attention_codes::weight_codes(f),
        AttentionPart::CodeValues => attention_codes::values(f),
    })
}

fn widen(f: &mut FunctionCx) {
    let (from, to, n) = (f.param(0), f.param(1), f.param(2));
    for_count(f, n, |f, shape, i| {
        let to = f.index(to, i, 4);
        load_float(f, shape, DType::F16, from, i).store(f, to);
    });
    f.return_(&[]);
}

/// Runs `body` with the number of queries processed together and the first of them, until all of `queries` are done.
pub(super) fn for_queries(f: &mut FunctionCx, queries: Value, body: impl Fn(&mut FunctionCx, usize, Value)) {
    let mut begin = f.i64(0);
    for count in QUERIES {
        let step = i64::try_from(count).expect("a few queries");
        let end = f.ins().band_imm_s(queries, -step);
        f.for_range(begin, end, count, |f, query| body(f, count, query));
        begin = end;
    }
}

fn scores(f: &mut FunctionCx) {
    let [q, k, d, queries, out, stride, blocks] = std::array::from_fn(|i| f.param(i));
    let (zero, sixteen) = (f.i64(0), f.size(BLOCK));
    let row_bytes = f.scaled(d, 4);
    let block_bytes = f.scaled(row_bytes, BLOCK);
    f.for_range(zero, blocks, 1, |f, block| {
        let at = f.ins().imul(block, block_bytes);
        let (k, out) = (f.ins().iadd(k, at), f.index(out, block, 4 * BLOCK));
        f.for_range(zero, sixteen, SCORE_LANES, |f, lane| {
            let (k, out) = (f.index(k, lane, 4), f.index(out, lane, 4));
            for_queries(f, queries, |f, count, query| {
                let q = addresses(f, q, row_bytes, query, count);
                let out = addresses(f, out, stride, query, count);
                let dots = dots(f, &q, k, d, 0, 1);
                dots.iter().zip(out).for_each(|(dot, out)| dot.store(f, out));
            });
        });
    });
    f.return_(&[]);
}

/// Addresses of `count` rows, `stride` bytes apart, from row `first` of `base` on.
pub(super) fn addresses(f: &mut FunctionCx, base: Value, stride: Value, first: Value, count: usize) -> Vec<Value> {
    let offset = f.ins().imul(first, stride);
    let mut row = f.ins().iadd(base, offset);
    let mut rows = vec![row];
    while rows.len() < count {
        row = f.ins().iadd(row, stride);
        rows.push(row);
    }
    rows
}

/// The part of the dot products of each query with the keys at `k: f32[d, BLOCK]` that partials `first`,
/// `first + step`, ... contribute, in the order of `numerics::reduce`: those of `2 · step` apart come first.
fn dots(f: &mut FunctionCx, q: &[Value], k: Value, d: Value, first: usize, step: usize) -> Vec<Lanes> {
    if step == LANES {
        return partials(f, q, k, d, first);
    }
    let low = dots(f, q, k, d, first, 2 * step);
    let high = dots(f, q, k, d, first + step, 2 * step);
    low.iter().zip(&high).map(|(low, high)| low.add(f, high)).collect()
}

/// Partial `partial` of the dot product of each query with each key of a block.
fn partials(f: &mut FunctionCx, q: &[Value], k: Value, d: Value, partial: usize) -> Vec<Lanes> {
    let shape = Shape::of(f, SCORE_LANES);
    let zeros = vec![Lanes::constant(f, shape, 0.0); q.len()];
    let first = f.size(partial);
    for_sums(f, [first, d], LANES, zeros, |f, i, sums| {
        let k = f.index(k, i, 4 * BLOCK);
        let k = Lanes::load_fixed(f, shape, k);
        let add = |f: &mut FunctionCx, (q, sum): (&Value, &Lanes)| {
            let q = f.index(*q, i, 4);
            let q = Lanes::splat_fixed(f, shape, q);
            q.fma(f, &k, sum)
        };
        q.iter().zip(sums).map(|pair| add(f, pair)).collect()
    })
}

/// As [`FunctionCx::for_carried`] with lanes carried.
pub(super) fn for_sums(
    f: &mut FunctionCx,
    [begin, end]: [Value; 2],
    step: usize,
    init: Vec<Lanes>,
    body: impl FnOnce(&mut FunctionCx, Value, &[Lanes]) -> Vec<Lanes>,
) -> Vec<Lanes> {
    let carried = flat(&init);
    let last = f.for_carried(begin, end, step, &carried, |f, i, values| {
        let sums = regroup(&init, values);
        flat(&body(f, i, &sums))
    });
    regroup(&init, &last)
}

fn flat(lanes: &[Lanes]) -> Vec<Value> {
    lanes.iter().flat_map(|l| l.values().to_vec()).collect()
}

fn softmax(f: &mut FunctionCx) {
    let [e, seen, k_scales, v_scales, scale] = std::array::from_fn(|i| f.param(i));
    let lanes = i64::try_from(LANES).expect("sixteen");
    let padded = f.ins().iadd_imm_s(seen, lanes - 1);
    let padded = f.ins().band_imm_s(padded, -lanes);
    let largest = scale_scores(f, e, [seen, padded], k_scales, scale);
    let block = Shape::block(f);
    let (zero, first) = (Lanes::constant(f, block, 0.0), f.i64(0));
    let sums = for_sums(f, [first, padded], LANES, vec![zero], |f, t, sums| {
        let at = f.index(e, t, 4);
        let largest = Lanes::splat(f, block, largest);
        let shifted = Lanes::load(f, block, at).sub(f, &largest);
        let factor = exp(f, &shifted);
        factor.store(f, at);
        vec![sums[0].add(f, &factor)]
    });
    let total = sums[0].sum(f);
    f.if_then(v_scales, |f| {
        f.for_range(first, padded, LANES, |f, t| {
            let (at, scales) = (f.index(e, t, 4), f.index(v_scales, t, 4));
            let scales = Lanes::load(f, block, scales);
            Lanes::load(f, block, at).mul(f, &scales).store(f, at);
        });
    });
    f.return_(&[total]);
}

/// Scales the scores of `seen` positions, fills the last block up with minus infinity, and returns the largest.
///
/// The exponential of minus infinity is +0, which leaves a partial as it is: partials start at +0 and never become
/// negative.
fn scale_scores(f: &mut FunctionCx, e: Value, [seen, padded]: [Value; 2], k_scales: Value, scale: Value) -> Value {
    let block = Shape::block(f);
    let first = f.i64(0);
    let for_blocks = |f: &mut FunctionCx, scales: Option<Value>| {
        f.for_range(first, padded, LANES, |f, t| {
            let at = f.index(e, t, 4);
            let mut scores = Lanes::load(f, block, at);
            if let Some(scales) = scales {
                let scales = f.index(scales, t, 4);
                let scales = Lanes::load(f, block, scales);
                scores = scores.mul(f, &scales);
            }
            let scale = Lanes::splat(f, block, scale);
            scores.mul(f, &scale).store(f, at);
        });
    };
    f.if_else(
        k_scales,
        |f| {
            for_blocks(f, Some(k_scales));
            vec![]
        },
        |f| {
            for_blocks(f, None);
            vec![]
        },
    );
    let lowest = f.f32(f32::NEG_INFINITY);
    f.for_range(seen, padded, 1, |f, t| {
        let at = f.index(e, t, 4);
        f.store(lowest, at, 0);
    });
    let least = vec![Lanes::splat(f, block, lowest)];
    let largest = for_sums(f, [first, padded], LANES, least, |f, t, largest| {
        let at = f.index(e, t, 4);
        vec![Lanes::load(f, block, at).max(f, &largest[0])]
    });
    largest[0].largest(f)
}

fn values(f: &mut FunctionCx) {
    let [e, v, d, queries, sums, stride, positions] = std::array::from_fn(|i| f.param(i));
    let row_bytes = f.scaled(d, 4);
    for_queries(f, queries, |f, count, query| {
        let e = addresses(f, e, stride, query, count);
        let sums = addresses(f, sums, row_bytes, query, count);
        let mut begin = f.i64(0);
        for lanes in VALUE_LANES {
            let step = i64::try_from(lanes).expect("a few lanes");
            let end = f.ins().band_imm_s(d, -step);
            f.for_range(begin, end, lanes, |f, lane| {
                let shape = Shape::of(f, lanes);
                let sums: Vec<_> = sums.iter().map(|sums| f.index(*sums, lane, 4)).collect();
                let v = f.index(v, lane, 4);
                add_values(f, shape, &e, [v, row_bytes, positions], &sums);
            });
            begin = end;
        }
    });
    f.return_(&[]);
}

/// Adds the values at `v`, one row for each position, times each query's factors to the lanes at `sums`.
fn add_values(f: &mut FunctionCx, shape: Shape, e: &[Value], v: [Value; 3], sums: &[Value]) {
    let [v, row_bytes, positions] = v;
    let init: Vec<_> = sums.iter().map(|at| Lanes::load(f, shape, *at)).collect();
    let first = f.i64(0);
    let after = for_sums(f, [first, positions], 1, init, |f, t, sums| {
        let at = f.ins().imul(t, row_bytes);
        let v = f.ins().iadd(v, at);
        let v = Lanes::load_fixed(f, shape, v);
        let add = |f: &mut FunctionCx, (e, sum): (&Value, &Lanes)| {
            let e = f.index(*e, t, 4);
            let e = Lanes::splat_fixed(f, shape, e);
            e.fma(f, &v, sum)
        };
        e.iter().zip(sums).map(|pair| add(f, pair)).collect()
    });
    after.iter().zip(sums).for_each(|(sum, at)| sum.store(f, *at));
}
