//! The portable loops of attention over the codes of a q8 cache (see [`AttentionPart`]).

use cranelift_codegen::ir::types::{F32, I32};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value};
use tcc_ir::attention_codes::{PLANE, PLANE_BITS, QUERY_MAX, QueryCodes, WEIGHT_MAX, WeightCodes};
use tcc_ir::cache::{BLOCK, GROUP};
use tcc_ir::numerics::{ABSMAX_FLOOR, LANES};

use super::attention_parts::{SCORE_LANES, VALUE_LANES, addresses, for_queries, for_sums};
use super::func::FunctionCx;
use super::lanes::{Lanes, Shape};
use super::quantize::{self, code};
use super::rows::for_count;

pub(super) fn query_codes(f: &mut FunctionCx) {
    let [q, d, queries, codes] = std::array::from_fn(|i| f.param(i));
    let padded = round_up(f, d, BLOCK);
    let row_bytes = f.scaled(d, 4);
    let stride = f.scaled(padded, 4);
    let stride = f.offset(stride, QueryCodes::HIGH);
    let zero = f.i64(0);
    f.for_range(zero, queries, 1, |f, query| {
        let (from, to) = (f.ins().imul(query, row_bytes), f.ins().imul(query, stride));
        let (from, to) = (f.ins().iadd(q, from), f.ins().iadd(codes, to));
        query_code(f, from, to, [d, padded]);
    });
    f.return_(&[]);
}

/// The codes of one query of `d` elements, padded to so many.
fn query_code(f: &mut FunctionCx, from: Value, to: Value, [d, padded]: [Value; 2]) {
    let largest = largest_magnitude(f, from, d);
    let limit = f.f32(f32::from(QUERY_MAX));
    let (scale, inv_scale) = (f.ins().fdiv(largest, limit), f.ins().fdiv(limit, largest));
    f.store(scale, to, offset(QueryCodes::SCALE));
    let no_sum = f.i32(0);
    f.store(no_sum, to, offset(QueryCodes::SUM));
    let high = f.offset(to, QueryCodes::HIGH);
    let low = f.ins().iadd(high, padded);
    let codes = f.ins().iadd(low, padded);
    for_count(f, d, |f, shape, i| {
        let from = f.index(from, i, 4);
        let code = code(f, shape, from, inv_scale);
        let sum = f.load(I32, to, offset(QueryCodes::SUM));
        let added = if shape == Shape::ONE { code.values()[0] } else { code.int_sum(f) };
        let sum = f.ins().iadd(sum, added);
        f.store(sum, to, offset(QueryCodes::SUM));
        store_planes(f, &code, [high, low, codes].map(|base| (base, i)));
    });
    let nothing = Lanes::int_constant(f, Shape::ONE, 0);
    f.for_range(d, padded, 1, |f, i| store_planes(f, &nothing, [high, low, codes].map(|base| (base, i))));
}

/// `max(absmax(x), ABSMAX_FLOOR)` of `n` elements.
fn largest_magnitude(f: &mut FunctionCx, x: Value, n: Value) -> Value {
    let magnitude = |f: &mut FunctionCx, shape: Shape, i: Value| {
        let x = f.index(x, i, 4);
        quantize::magnitude(f, shape, x)
    };
    let lanes = i64::try_from(LANES).expect("sixteen");
    let (first, whole) = (f.i64(0), f.ins().band_imm_s(n, -lanes));
    let block = Shape::block(f);
    let floor = vec![Lanes::int_constant(f, block, ABSMAX_FLOOR.to_bits().cast_signed())];
    let largest =
        for_sums(f, [first, whole], LANES, floor, |f, i, sums| vec![magnitude(f, block, i).int_max(f, &sums[0])]);
    let largest = largest[0].int_largest(f);
    let largest = f.for_carried(whole, n, 1, &[largest], |f, i, largest| {
        let x = magnitude(f, Shape::ONE, i).values()[0];
        vec![f.ins().smax(x, largest[0])]
    });
    f.ins().bitcast(F32, MemFlagsData::new(), largest[0])
}

/// Stores codes as two planes and as they are, each from an element of a base on.
fn store_planes(f: &mut FunctionCx, code: &Lanes, [high, low, whole]: [(Value, Value); 3]) {
    let shape = code.shape();
    let [high, low] = [high, low].map(|(base, i)| f.index(base, i, 1));
    let whole = f.index(whole.0, whole.1, 2);
    code.shift_right_signed(f, PLANE_BITS.into()).store_i8(f, high);
    let kept = Lanes::int_constant(f, shape, i32::from(PLANE) - 1);
    code.and(f, &kept).store_i8(f, low);
    let kept = Lanes::int_constant(f, shape, 0xffff);
    code.and(f, &kept).store_u16(f, whole);
}

pub(super) fn scores(f: &mut FunctionCx) {
    let [codes, k, d, queries, out, stride, blocks] = std::array::from_fn(|i| f.param(i));
    let (zero, sixteen) = (f.i64(0), f.size(BLOCK));
    let padded = round_up(f, d, BLOCK);
    let query_bytes = f.scaled(padded, 4);
    let query_bytes = f.offset(query_bytes, QueryCodes::HIGH);
    let d = round_up(f, d, GROUP);
    let block_bytes = f.scaled(d, BLOCK);
    f.for_range(zero, blocks, 1, |f, block| {
        let at = f.ins().imul(block, block_bytes);
        let (k, out) = (f.ins().iadd(k, at), f.index(out, block, 4 * BLOCK));
        f.for_range(zero, sixteen, SCORE_LANES, |f, lane| {
            let (k, out) = (f.index(k, lane, GROUP), f.index(out, lane, 4));
            for_queries(f, queries, |f, count, query| {
                let codes = addresses(f, codes, query_bytes, query, count);
                let out = addresses(f, out, stride, query, count);
                dots(f, &codes, k, [d, padded], &out);
            });
        });
    });
    f.return_(&[]);
}

/// The scaled dot products of each query with some keys of the block at `k`, of `d` elements; planes are `padded` long.
fn dots(f: &mut FunctionCx, codes: &[Value], k: Value, [d, padded]: [Value; 2], out: &[Value]) {
    let shape = Shape::of(f, SCORE_LANES);
    let plane = f.scaled(padded, 2);
    let whole: Vec<_> = codes.iter().map(|codes| f.ins().iadd(*codes, plane)).collect();
    let first = f.i64(0);
    let zeros = vec![Lanes::int_constant(f, shape, 0); codes.len()];
    let sums = for_sums(f, [first, d], GROUP, zeros, |f, i, sums| {
        let k = f.index(k, i, BLOCK);
        let group = Lanes::load_int(f, shape, k);
        let mut sums = sums.to_vec();
        for j in 0..GROUP {
            let key = byte(f, &group, j);
            for (sum, codes) in sums.iter_mut().zip(&whole) {
                let at = f.index(*codes, i, 2);
                let code = f.load_i16(at, offset(QueryCodes::HIGH + 2 * j));
                let code = Lanes::splat(f, shape, code);
                *sum = key.int_mul(f, &code).int_add(f, sum);
            }
        }
        sums
    });
    for ((sum, codes), out) in sums.iter().zip(codes).zip(out) {
        let scale = f.load(F32, *codes, offset(QueryCodes::SCALE));
        let scale = Lanes::splat(f, shape, scale);
        sum.to_float(f).mul(f, &scale).store(f, *out);
    }
}

/// Signed byte `j` of each lane.
fn byte(f: &mut FunctionCx, lanes: &Lanes, j: usize) -> Lanes {
    let last = i64::try_from(8 * (GROUP - 1)).expect("bits of a lane");
    let up = last - i64::try_from(8 * j).expect("bits of a lane");
    let raised = if up == 0 { lanes.clone() } else { lanes.shift_left(f, up) };
    raised.shift_right_signed(f, last)
}

pub(super) fn weight_codes(f: &mut FunctionCx) {
    let [w, seen, end] = std::array::from_fn(|i| f.param(i));
    let [padded, end] = [seen, end].map(|n| round_up(f, n, BLOCK));
    let nothing = f.f32(0.0);
    f.for_range(seen, padded, 1, |f, t| {
        let at = f.index(w, t, 4);
        f.store(nothing, at, 0);
    });
    let block = Shape::block(f);
    let (first, least) = (f.i64(0), vec![Lanes::constant(f, block, 0.0)]);
    let largest = for_sums(f, [first, padded], LANES, least, |f, t, largest| {
        let at = f.index(w, t, 4);
        vec![Lanes::load(f, block, at).max(f, &largest[0])]
    });
    let largest = largest[0].largest(f);
    let limit = f.f32(f32::from(WEIGHT_MAX));
    let (scale, inv_scale) = (f.ins().fdiv(largest, limit), f.ins().fdiv(limit, largest));
    f.for_range(first, padded, LANES, |f, t| {
        let at = f.index(w, t, 4);
        let code = code(f, block, at, inv_scale);
        let planes =
            [WeightCodes::HIGH, WeightCodes::LOW, WeightCodes::CODES].map(|plane| (f.offset(at, plane), first));
        store_planes(f, &code, planes);
    });
    f.for_range(padded, end, LANES, |f, t| {
        let at = f.index(w, t, 4);
        Lanes::int_constant(f, block, 0).store(f, at);
    });
    f.return_(&[scale]);
}

/// `attention_codes::total` of the sum that 128 times the first plus the second part is.
pub(super) fn total(f: &mut FunctionCx, [high, low]: [Lanes; 2]) -> Lanes {
    let shape = high.shape();
    let [carry, low] = parts(f, &low);
    let plane = Lanes::constant(f, shape, f32::from(PLANE));
    let [high, low] = [high.int_add(f, &carry), low].map(|part| part.to_float(f));
    high.fma(f, &plane, &low)
}

/// The high and the low part of a sum.
fn parts(f: &mut FunctionCx, sum: &Lanes) -> [Lanes; 2] {
    let kept = Lanes::int_constant(f, sum.shape(), i32::from(PLANE) - 1);
    [sum.shift_right_signed(f, PLANE_BITS.into()), sum.and(f, &kept)]
}

pub(super) fn values(f: &mut FunctionCx) {
    let [codes, v, d, queries, sums, stride, blocks] = std::array::from_fn(|i| f.param(i));
    let row_bytes = f.scaled(d, 4);
    let query_bytes = f.scaled(row_bytes, 2);
    for_queries(f, queries, |f, count, query| {
        let codes = addresses(f, codes, stride, query, count);
        let sums = addresses(f, sums, query_bytes, query, count);
        let mut begin = f.i64(0);
        for lanes in VALUE_LANES {
            let step = i64::try_from(lanes).expect("a few lanes");
            let end = f.ins().band_imm_s(d, -step);
            f.for_range(begin, end, lanes, |f, lane| {
                let v = f.index(v, lane, GROUP);
                let added = products(f, Shape::of(f, lanes), &codes, [v, row_bytes, blocks]);
                for (added, high) in added.iter().zip(&sums) {
                    let high = f.index(*high, lane, 4);
                    let low = f.ins().iadd(high, row_bytes);
                    for (part, at) in parts(f, added).iter().zip([high, low]) {
                        Lanes::load_int(f, part.shape(), at).int_add(f, part).store(f, at);
                    }
                }
            });
            begin = end;
        }
    });
    f.return_(&[]);
}

/// The sums of products of some lanes of the values at `v` and each query's weights.
fn products(f: &mut FunctionCx, shape: Shape, codes: &[Value], [v, row_bytes, blocks]: [Value; 3]) -> Vec<Lanes> {
    let zeros = vec![Lanes::int_constant(f, shape, 0); codes.len()];
    let first = f.i64(0);
    let positions = f.scaled(blocks, BLOCK);
    for_sums(f, [first, positions], GROUP, zeros, |f, t, sums| {
        let group = f.ins().ushr_imm_u(t, i64::from(GROUP.trailing_zeros()));
        let at = f.ins().imul(group, row_bytes);
        let v = f.ins().iadd(v, at);
        let values = Lanes::load_int(f, shape, v);
        // What a position is behind the first of its block, and the block itself.
        let lane = f.ins().band_imm_s(t, i64::try_from(BLOCK).expect("sixteen") - 1);
        let block = f.ins().isub(t, lane);
        let mut sums = sums.to_vec();
        for j in 0..GROUP {
            let value = byte(f, &values, j);
            for (sum, codes) in sums.iter_mut().zip(codes) {
                let at = f.index(*codes, block, WeightCodes::BYTES / BLOCK);
                let at = f.index(at, lane, 2);
                let weight = f.load_i16(at, offset(WeightCodes::CODES + 2 * j));
                let weight = Lanes::splat(f, shape, weight);
                *sum = value.int_mul(f, &weight).int_add(f, sum);
            }
        }
        sums
    })
}

/// `n` rounded up to a multiple of `to`, a power of two.
fn round_up(f: &mut FunctionCx, n: Value, to: usize) -> Value {
    let n = f.offset(n, to - 1);
    f.ins().band_imm_s(n, -i64::try_from(to).expect("a small power of two"))
}

fn offset(at: usize) -> i32 {
    i32::try_from(at).expect("a small offset")
}
