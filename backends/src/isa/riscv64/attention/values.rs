//! Sums of values: lanes are elements of a value.

use super::super::floats::{int, repeat, while_left};
use super::super::inst::{
    A0, A1, A2, A3, A4, A5, A6, A7, F, FT0, FT1, FT2, FT3, Lmul, S0, S1, S2, S3, Sew, T0, T1, T2, T3, T4, T5, T6, V, X,
    ZERO, add, addi, andi, bne, flw, mv, patch_branch, put, slli, srli, sub, vfmacc_vf, vle32, vse32, vsetvli,
};
use super::super::micro::Frame;
use crate::asm::Asm;

const E: X = A0;
const FIRST_V: X = A1;
const D: X = A2;
const QUERIES: X = A3;
const SUMS: X = A4;
const STRIDE: X = A5;
const POSITIONS: X = A6;
/// Bytes of a value.
const ROW: X = A7;
/// The value at hand, and the current lanes of the first.
const V_AT: X = T0;
const V_LANE: X = T1;
const LANES_LEFT: X = T2;
/// Running addresses in the factors.
const E_AT: [X; 4] = [T3, T4, T5, T6];
const SUMS_LANE: X = S0;
const AT: X = S1;
const POSITIONS_LEFT: X = S2;
/// Lanes in use.
const LANES: X = S3;

const FRAME: Frame = Frame { saved: &[S0, S1, S2, S3], words: 0 };

/// Queries that share each value, most first.
const QUERIES_AT_ONCE: [usize; 3] = [4, 2, 1];
const FACTORS: [F; 4] = [FT0, FT1, FT2, FT3];
/// Positions of one turn of the inner loop.
const UNROLL: usize = 4;
/// With the sums of four queries, values of two positions fit.
const LMUL: Lmul = Lmul::M4;

fn sums(query: usize) -> V {
    LMUL.group(query)
}

fn value(position: usize) -> V {
    LMUL.group(4 + position % 2)
}

/// `extern "C" fn(e, v, d, queries, sums, stride, positions)`; returns its stack in bytes.
pub(super) fn emit(asm: &mut Asm) -> u32 {
    FRAME.enter(asm);
    asm.word(slli(ROW, D, 2));
    for queries in QUERIES_AT_ONCE {
        while_left(asm, QUERIES, queries, |asm| {
            put(asm, &[mv(V_LANE, FIRST_V), mv(SUMS_LANE, SUMS), mv(LANES_LEFT, D)]);
            let strip = asm.bound();
            asm.word(vsetvli(LANES, LANES_LEFT, Sew::E32, LMUL));
            add_values(asm, queries);
            put(asm, &[slli(AT, LANES, 2), add(V_LANE, V_LANE, AT), add(SUMS_LANE, SUMS_LANE, AT)]);
            asm.word(sub(LANES_LEFT, LANES_LEFT, LANES));
            asm.branch(bne(LANES_LEFT, ZERO), strip, patch_branch);
            for _ in 0..queries {
                put(asm, &[add(E, E, STRIDE), add(SUMS, SUMS, ROW)]);
            }
        });
    }
    FRAME.leave(asm);
    // Four words.
    FRAME.bytes() as u32
}

/// Adds all positions to the current lanes of the sums of `queries` queries.
fn add_values(asm: &mut Asm, queries: usize) {
    for_sums(asm, queries, vle32);
    put(asm, &[mv(V_AT, V_LANE), mv(E_AT[0], E)]);
    for pair in E_AT[..queries].windows(2) {
        asm.word(add(pair[1], pair[0], STRIDE));
    }
    asm.word(srli(POSITIONS_LEFT, POSITIONS, UNROLL.trailing_zeros()));
    repeat(asm, POSITIONS_LEFT, |asm| positions(asm, queries, UNROLL));
    asm.word(andi(POSITIONS_LEFT, POSITIONS, int(UNROLL - 1)));
    repeat(asm, POSITIONS_LEFT, |asm| positions(asm, queries, 1));
    for_sums(asm, queries, vse32);
}

fn for_sums(asm: &mut Asm, queries: usize, access: fn(V, X) -> u32) {
    asm.word(mv(AT, SUMS_LANE));
    for query in 0..queries {
        put(asm, &[access(sums(query), AT), add(AT, AT, ROW)]);
    }
}

/// The next `count` positions.
fn positions(asm: &mut Asm, queries: usize, count: usize) {
    for position in 0..count {
        put(asm, &[vle32(value(position), V_AT), add(V_AT, V_AT, ROW)]);
        for (e, factor) in E_AT[..queries].iter().zip(FACTORS) {
            asm.word(flw(factor, int(4 * position), *e));
        }
        for (query, factor) in FACTORS[..queries].iter().enumerate() {
            asm.word(vfmacc_vf(sums(query), *factor, value(position)));
        }
    }
    for e in &E_AT[..queries] {
        asm.word(addi(*e, *e, int(4 * count)));
    }
}
