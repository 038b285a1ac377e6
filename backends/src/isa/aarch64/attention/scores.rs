//! Scores: keys come in blocks of sixteen positions, element by element.

use tcc_ir::ty::DType;

use super::super::floats::{LANES, load_block, repeat};
use super::super::inst::{A64, V, X};
use super::{BLOCK_BYTES, registers};

const FIRST_Q: X = X(0);
const K: X = X(1);
const D: X = X(2);
const QUERIES: X = X(3);
const FIRST_OUT: X = X(4);
const STRIDE: X = X(5);
const BLOCKS: X = X(6);
/// Bytes of a query; of a block of keys.
const Q_BYTES: X = X(7);
const K_BYTES: X = X(8);
const Q: X = X(9);
const OUT: X = X(10);
const QUERIES_LEFT: X = X(11);
/// Running addresses, blocks of sixteen elements left, and elements behind them.
const Q_AT: X = X(12);
const K_AT: X = X(13);
const STEPS_LEFT: X = X(14);
const TAIL: X = X(15);

/// Partials that are summed side by side, four elements apart: those that `numerics::reduce` adds first.
const PARTIALS: usize = 4;
const KEYS: usize = 16;
const FACTORS: usize = 20;
const SUM: usize = 24;
const OTHER_SUM: usize = 28;

/// `extern "C" fn(q, k, d, queries, out, stride, blocks)`.
pub(super) fn emit(a: &mut A64) {
    a.mov_imm(Q_BYTES, 0);
    a.add_lsl(K_BYTES, Q_BYTES, D, 6);
    a.add_lsl(Q_BYTES, Q_BYTES, D, 2);
    a.and_15(TAIL, D);
    repeat(a, BLOCKS, |a| {
        a.mov(Q, FIRST_Q);
        a.mov(OUT, FIRST_OUT);
        a.mov(QUERIES_LEFT, QUERIES);
        repeat(a, QUERIES_LEFT, |a| {
            dots(a);
            a.stp_q(V(SUM as u8), V(SUM as u8 + 1), OUT, 0);
            a.stp_q(V(SUM as u8 + 2), V(SUM as u8 + 3), OUT, 32);
            a.add(Q, Q, Q_BYTES);
            a.add(OUT, OUT, STRIDE);
        });
        a.add_imm(FIRST_OUT, FIRST_OUT, BLOCK_BYTES);
        a.add(K, K, K_BYTES);
    });
}

/// The dot products of a query with a block of keys, to the registers [`SUM`].
///
/// Partials p, p + 8 and p + 4, p + 12 are added first, then for p = 0 those for 2, for 1 those for 3, then both.
fn dots(a: &mut A64) {
    partials(a, 0, SUM);
    for (first, sum, to) in [(2, 0, SUM), (1, OTHER_SUM, OTHER_SUM), (3, 0, OTHER_SUM)] {
        partials(a, first, sum);
        if sum != to {
            add(a, to, to, sum);
        }
    }
    add(a, SUM, SUM, OTHER_SUM);
}

/// The sum of partials `first`, `first` + 4, + 8 and + 12 to the registers `to`.
fn partials(a: &mut A64, first: usize, to: usize) {
    (0..4 * PARTIALS).for_each(|register| a.movi(V(register as u8), 0));
    a.mov(Q_AT, Q);
    a.mov(K_AT, K);
    a.lsr(STEPS_LEFT, D, 4);
    repeat(a, STEPS_LEFT, |a| {
        load_block(a, DType::F32, registers(FACTORS), Q_AT);
        for partial in 0..PARTIALS {
            load_keys(a, first + 4 * partial);
            multiply(a, partial, FACTORS + partial, first);
        }
        a.add_imm(K_AT, K_AT, LANES * BLOCK_BYTES);
    });
    let done = a.asm.label();
    for partial in 0..PARTIALS {
        let element = (first + 4 * partial) as i64;
        a.cmp_imm(TAIL, element + 1);
        a.b_lo(done);
        load_keys(a, first + 4 * partial);
        a.ldr_s(V(FACTORS as u8), Q_AT, 4 * element);
        multiply(a, partial, FACTORS, 0);
    }
    a.asm.bind(done);
    add(a, 0, 0, 8);
    add(a, 4, 4, 12);
    add(a, to, 0, 4);
}

/// Element `element` of the current sixteen of a block of keys.
fn load_keys(a: &mut A64, element: usize) {
    for half in 0..2 {
        let [first, second] = [0, 1].map(|i| V((KEYS + 2 * half + i) as u8));
        a.ldp_q(first, second, K_AT, element as i64 * BLOCK_BYTES + 32 * half as i64);
    }
}

fn multiply(a: &mut A64, partial: usize, factors: usize, lane: usize) {
    for (sum, keys) in registers(4 * partial).into_iter().zip(registers(KEYS)) {
        a.fmla_lane(sum, keys, V(factors as u8), lane as i64);
    }
}

fn add(a: &mut A64, to: usize, left: usize, right: usize) {
    for i in 0..4 {
        let [to, left, right] = [to, left, right].map(|first| V((first + i) as u8));
        a.fadd(to, left, right);
    }
}
