//! Queries and weights become codes of fourteen bits, sixteen at a time, laid out by [`QueryCodes`] and [`WeightCodes`].

use tcc_ir::attention_codes::{PLANE, PLANE_BITS, QUERY_MAX, QueryCodes, WEIGHT_MAX, WeightCodes};
use tcc_ir::numerics::ABSMAX_FLOOR;
use tcc_ir::ty::DType;

use super::super::floats::{LANES, load_block, repeat, splat};
use super::super::inst::{A64, V, X};
use super::{BLOCK_BYTES, registers};

/// What is gathered of all elements, then the elements at hand.
const GATHERED: usize = 0;
const ELEMENTS: usize = 4;
/// The factor of all elements.
const INV_SCALE: V = V(16);
/// The largest code.
const LIMIT: V = V(17);
/// What the low plane keeps of a byte.
const LOW_MASK: V = V(18);
const ZERO: V = V(19);
/// Magnitude bits of a float.
const MAGNITUDE: V = V(20);
const FLOOR: V = V(21);

const SCRATCH: X = X(15);

/// Registers whose streams move on, of codes and their planes.
#[derive(Clone, Copy)]
struct Streams {
    high: X,
    low: X,
    codes: X,
}

/// `extern "C" fn(q, d, queries, codes)`.
pub(super) fn queries(a: &mut A64) {
    let [q, d, queries, base] = [0, 1, 2, 3].map(X);
    let [padded, blocks, tail, padding, at, left] = [4, 5, 6, 7, 8, 9].map(X);
    let to = Streams { high: X(10), low: X(11), codes: X(12) };
    load_constants(a, f32::from(QUERY_MAX));
    splat(a, MAGNITUDE, f32::from_bits(i32::MAX.cast_unsigned()), SCRATCH);
    splat(a, FLOOR, ABSMAX_FLOOR, SCRATCH);
    a.lsr(blocks, d, 4);
    a.and_15(tail, d);
    round_up(a, padded, d);
    a.sub(padding, padded, d);
    repeat(a, queries, |a| {
        a.mov(at, q);
        a.mov(left, blocks);
        registers(GATHERED).iter().for_each(|largest| a.orr_v(*largest, FLOOR, FLOOR));
        repeat(a, left, |a| {
            load_block(a, DType::F32, registers(ELEMENTS), at);
            registers(ELEMENTS).iter().for_each(|x| a.and_v(*x, *x, MAGNITUDE));
            both(a, GATHERED, ELEMENTS, A64::smax_s);
        });
        a.mov(left, tail);
        repeat(a, left, |a| {
            let (x, largest) = (V(ELEMENTS as u8), V(GATHERED as u8));
            a.ldr_s_post(x, at, 4);
            a.and_v(x, x, MAGNITUDE);
            a.smax_s(largest, largest, x);
        });
        let largest = join(a, A64::smax_s);
        a.smaxv_s(largest, largest);
        a.dup_s(largest, largest);
        a.fdiv(INV_SCALE, LIMIT, largest);
        a.fdiv(largest, largest, LIMIT);
        a.str_s(largest, base, QueryCodes::SCALE as i64);
        a.add_imm(to.high, base, QueryCodes::HIGH as i64);
        a.add(to.low, to.high, padded);
        a.add(to.codes, to.low, padded);
        a.mov(left, blocks);
        clear_gathered(a);
        repeat(a, left, |a| code_block(a, q, to));
        a.mov(left, tail);
        repeat(a, left, |a| code_one(a, q, to));
        let sum = join(a, A64::add_s);
        a.addv_s(sum, sum);
        a.str_s(sum, base, QueryCodes::SUM as i64);
        a.mov(left, padding);
        repeat(a, left, |a| store_one(a, [ZERO; 3], to));
        // Codes are the last of a query.
        a.mov(base, to.codes);
    });
}

/// `extern "C" fn(w, seen, end) -> f32`.
pub(super) fn weights(a: &mut A64) {
    let [w, seen, end] = [0, 1, 2].map(X);
    let [padded, at, left] = [3, 4, 5].map(X);
    load_constants(a, f32::from(WEIGHT_MAX));
    round_up(a, padded, seen);
    a.add_lsl(at, w, seen, 2);
    a.sub(left, padded, seen);
    repeat(a, left, |a| a.str_s_post(ZERO, at, 4));
    clear_gathered(a);
    a.mov(at, w);
    a.lsr(left, padded, 4);
    repeat(a, left, |a| {
        load_block(a, DType::F32, registers(ELEMENTS), at);
        both(a, GATHERED, ELEMENTS, A64::fmax);
    });
    let largest = join(a, A64::fmax);
    a.fmaxv(largest, largest);
    a.dup_s(largest, largest);
    a.fdiv(INV_SCALE, LIMIT, largest);
    a.fdiv(largest, largest, LIMIT);
    // What is left of the positions before the end is whole blocks.
    round_up(a, end, end);
    a.sub(end, end, padded);
    a.lsr(end, end, 4);
    a.lsr(left, padded, 4);
    repeat(a, left, |a| {
        a.mov(at, w);
        load_block(a, DType::F32, registers(ELEMENTS), at);
        round(a);
        let [first, high, second, low] = split(a);
        a.stp_q(high, low, w, WeightCodes::HIGH as i64);
        a.stp_q(first, second, w, WeightCodes::CODES as i64);
        a.add_imm(w, w, BLOCK_BYTES);
    });
    repeat(a, end, |a| {
        a.stp_q_post(ZERO, ZERO, w, 32);
        a.stp_q_post(ZERO, ZERO, w, 32);
    });
}

fn load_constants(a: &mut A64, limit: f32) {
    splat(a, LIMIT, limit, SCRATCH);
    a.movi(LOW_MASK, i64::from(PLANE) - 1);
    a.movi(ZERO, 0);
}

/// `n` rounded up to whole blocks; changes [`SCRATCH`].
fn round_up(a: &mut A64, to: X, n: X) {
    a.add_imm(SCRATCH, n, LANES - 1);
    a.lsr(SCRATCH, SCRATCH, 4);
    a.mov_imm(to, 0);
    a.add_lsl(to, to, SCRATCH, 4);
}

fn clear_gathered(a: &mut A64) {
    registers(GATHERED).iter().for_each(|register| a.movi(*register, 0));
}

/// `op(a, x, x, y)` for the four registers x from `left` and y from `right` on.
fn both(a: &mut A64, left: usize, right: usize, op: fn(&mut A64, V, V, V)) {
    registers(left).into_iter().zip(registers(right)).for_each(|(x, y)| op(a, x, x, y));
}

/// Joins what was gathered by `op` in the first register.
fn join(a: &mut A64, op: fn(&mut A64, V, V, V)) -> V {
    let [first, second, third, fourth] = registers(GATHERED);
    op(a, first, first, second);
    op(a, third, third, fourth);
    op(a, first, first, third);
    first
}

/// Sixteen elements become codes of 32 bits.
fn round(a: &mut A64) {
    registers(ELEMENTS).iter().for_each(|x| a.fmul(*x, *x, INV_SCALE));
    registers(ELEMENTS).iter().for_each(|x| a.fcvtns(*x, *x));
}

/// The codes of 32 bits become those of 16, in the first and third register, with their high plane in the second and the
/// low one in the fourth.
fn split(a: &mut A64) -> [V; 4] {
    let [first, high, second, low] = registers(ELEMENTS);
    a.uzp1_h(first, first, high);
    a.uzp1_h(second, second, low);
    a.uzp1_b(low, first, second);
    a.and_v(low, low, LOW_MASK);
    a.shrn_h(high, first, PLANE_BITS.into());
    a.shrn2_h(high, second, PLANE_BITS.into());
    [first, high, second, low]
}

/// Sixteen elements of a query; the sum of their codes is gathered.
fn code_block(a: &mut A64, from: X, to: Streams) {
    load_block(a, DType::F32, registers(ELEMENTS), from);
    round(a);
    both(a, GATHERED, ELEMENTS, A64::add_s);
    let [first, high, second, low] = split(a);
    a.str_q_post(high, to.high, 16);
    a.str_q_post(low, to.low, 16);
    a.stp_q_post(first, second, to.codes, 32);
}

/// One element of a query: the others of its register are 0.
fn code_one(a: &mut A64, from: X, to: Streams) {
    let [code, high, low, _] = registers(ELEMENTS);
    let sum = V(GATHERED as u8);
    a.ldr_s_post(code, from, 4);
    a.fmul(code, code, INV_SCALE);
    a.fcvtns(code, code);
    a.add_s(sum, sum, code);
    a.and_v(low, code, LOW_MASK);
    a.shrn_h(high, code, PLANE_BITS.into());
    store_one(a, [high, low, code], to);
}

fn store_one(a: &mut A64, [high, low, code]: [V; 3], to: Streams) {
    a.str_b_post(high, to.high, 1);
    a.str_b_post(low, to.low, 1);
    a.str_h_post(code, to.codes, 2);
}
