//! Sums of values over codes: four positions of each lane lie side by side.
//!
//! Positions are parted into 16 bits and meet a weight of either plane. One query at a time takes as many lanes as the
//! registers hold sums of: each weight then serves the most.

use tcc_ir::attention_codes::WeightCodes;
use tcc_ir::cache::{BLOCK, GROUP};

use super::super::floats::{int, repeat};
use super::super::inst::{
    A0, A1, A2, A3, A4, A5, A6, A7, Lmul, S0, S1, Sew, T0, T1, T2, T3, T4, T5, T6, V, X, ZERO, add, addi, bne, lb, mv,
    patch_branch, put, slli, sub, vle32, vnsrl_wi, vse32, vsetvli, vsll_vi, vsra_vi, vwmacc_vx,
};
use super::super::micro::Frame;
use crate::asm::Asm;

const W: X = A0;
const FIRST_V: X = A1;
const LANES: X = A2;
const QUERIES: X = A3;
const SUMS: X = A4;
const STRIDE: X = A5;
const BLOCKS: X = A6;
/// Bytes of four positions, and of the sums of a plane.
const ROW: X = A7;
const V_LANE: X = T0;
const V_AT: X = T1;
const LANES_LEFT: X = T2;
/// Lanes in use.
const COUNT: X = T3;
const W_AT: X = T4;
const SUMS_LANE: X = T5;
const BLOCKS_LEFT: X = T6;
/// Weights of a position in both planes, and between loops anything else.
const WEIGHTS: [X; 2] = [S0, S1];
const AT: X = S0;

const FRAME: Frame = Frame { saved: &[S0, S1], words: 0 };

/// Registers of sums of 32 bits; of the same lanes in 16.
const SUM_LMUL: Lmul = Lmul::M8;
const LMUL: Lmul = Lmul::M4;
/// What four positions are loaded to, of which only the halves are used later on.
const GROUP_AT: usize = 2;

fn sum(plane: usize) -> V {
    SUM_LMUL.group(plane)
}

/// The first or the second two positions.
fn half(half: usize) -> V {
    LMUL.group(6 + half)
}

/// A position in 16 bits.
fn position(index: usize) -> V {
    LMUL.group(2 * GROUP_AT + index % 2)
}

/// `extern "C" fn(codes, v, lanes, queries, sums, stride, blocks)`; returns its stack in bytes.
pub(super) fn emit(asm: &mut Asm) -> u32 {
    FRAME.enter(asm);
    asm.word(slli(ROW, LANES, 2));
    repeat(asm, QUERIES, |asm| {
        put(asm, &[mv(V_LANE, FIRST_V), mv(SUMS_LANE, SUMS), mv(LANES_LEFT, LANES)]);
        let strip = asm.bound();
        asm.word(vsetvli(COUNT, LANES_LEFT, Sew::E32, SUM_LMUL));
        for_sums(asm, vle32);
        put(asm, &[vsetvli(ZERO, COUNT, Sew::E16, LMUL), mv(V_AT, V_LANE), mv(W_AT, W), mv(BLOCKS_LEFT, BLOCKS)]);
        repeat(asm, BLOCKS_LEFT, block);
        asm.word(vsetvli(ZERO, COUNT, Sew::E32, SUM_LMUL));
        for_sums(asm, vse32);
        put(asm, &[sub(LANES_LEFT, LANES_LEFT, COUNT), slli(AT, COUNT, 2)]);
        put(asm, &[add(V_LANE, V_LANE, AT), add(SUMS_LANE, SUMS_LANE, AT)]);
        asm.branch(bne(LANES_LEFT, ZERO), strip, patch_branch);
        put(asm, &[add(W, W, STRIDE), add(SUMS, SUMS, ROW), add(SUMS, SUMS, ROW)]);
    });
    FRAME.leave(asm);
    // Two words.
    FRAME.bytes() as u32
}

fn for_sums(asm: &mut Asm, access: fn(V, X) -> u32) {
    put(asm, &[access(sum(0), SUMS_LANE), add(AT, SUMS_LANE, ROW), access(sum(1), AT)]);
}

/// Adds the next sixteen positions.
fn block(asm: &mut Asm) {
    for group in 0..BLOCK / GROUP {
        let four = SUM_LMUL.group(GROUP_AT);
        put(asm, &[vle32(four, V_AT), add(V_AT, V_AT, ROW)]);
        put(asm, &[vnsrl_wi(half(0), four, 0), vnsrl_wi(half(1), four, 16)]);
        for i in 0..GROUP {
            let (value, from) = (position(i), half(i / 2));
            match i % 2 {
                0 => put(asm, &[vsll_vi(value, from, 8), vsra_vi(value, value, 8)]),
                _ => asm.word(vsra_vi(value, from, 8)),
            }
            for (weight, plane) in WEIGHTS.into_iter().zip([WeightCodes::HIGH, WeightCodes::LOW]) {
                asm.word(lb(weight, int(plane + GROUP * group + i), W_AT));
            }
            (0..2).for_each(|plane| asm.word(vwmacc_vx(sum(plane), WEIGHTS[plane], value)));
        }
    }
    asm.word(addi(W_AT, W_AT, int(WeightCodes::BYTES)));
}
