//! Ternary product without vectors: one 64-bit register holds the sums of four output rows.
//!
//! A block of `i2-lane` gives four columns of eight rows in one 64-bit load. Shift and mask leave four codes of one
//! column in 16-bit fields; one `mul` by a signed activation and one `add` then do four multiply-accumulates. Read
//! as an integer, a register of sums is Σ over fields of `sum · 2^(16 field)` modulo 2^64, and because each sum stays
//! within -32768..=32767 over 128 columns, its signed digits are unique: negative products that borrow from the next
//! field do no harm. A bias of 32768 in every field, put in at the start, makes the digits plain bits at the end.

use tcc_ir::target::micro_args;

use super::super::floats::int;
use super::super::inst::{
    A1, A2, A3, A4, A5, A6, A7, RA, S0, S1, S2, S3, S4, S5, S6, S7, S8, S9, S10, S11, SP, T0, T1, T2, T3, T4, T5, T6,
    X, ZERO, add, addi, addw, and, beq, bge, bne, lb, ld, li, lui, lw, mul, mv, or, patch_branch, put, sd, slli, srai,
    srli, sub, sw, xor,
};
use super::{BLOCKS_PER_CHUNK, Frame, KR, NR, arg, token_rows};
use crate::asm::Asm;

/// Running address in the panel.
const W_AT: X = A1;
/// Blocks of this chunk still to do.
const BLOCKS: X = A2;
/// 3 in every 16-bit field, or the bias between chunks.
const FIELDS: X = A3;
/// Eight rows of code bytes.
const RAW: X = A4;
const TMP: [X; 2] = [T0, T1];
/// Running addresses in the token rows, then their activations, then the sums.
const POOL: [X; 21] = [A5, A6, A7, T2, T3, T4, T5, T6, RA, S0, S1, S2, S3, S4, S5, S6, S7, S8, S9, S10, S11];

/// Products of all token rows but the last; free where there is more than one.
const PRODUCTS: [X; 2] = [S10, S11];

/// Offsets in the frame of what lives in memory between chunks.
mod slot {
    pub const ACC: i32 = 0;
    /// The strip's first weights.
    pub const W: i32 = 8;
    pub const PANELS_LEFT: i32 = 16;
    pub const ROWS_LEFT: i32 = 24;
    pub const BLOCKS_LEFT: i32 = 32;
    pub const WORDS: i32 = 5;
}

const FRAME: Frame = Frame { saved: &[RA, S0, S1, S2, S3, S4, S5, S6, S7, S8, S9, S10, S11], words: slot::WORDS };

/// How the registers are shared out: `m` token rows times `rows` output rows.
#[derive(Clone, Copy)]
struct Shape {
    m: usize,
    rows: usize,
}

impl Shape {
    fn q_at(self) -> &'static [X] {
        &POOL[..self.m]
    }

    /// Activation of column `p`, token row `t`.
    fn act(self, p: usize, t: usize) -> X {
        POOL[self.m + KR * t + p]
    }

    /// Sums of token row `t`: rows `8 j + 2 field` in register `2 j`, the odd ones in the next.
    fn sums(self, t: usize) -> &'static [X] {
        let words = self.rows / 4;
        &POOL[(1 + KR) * self.m + words * t..][..words]
    }
}

/// Code of the kernel for `m` token rows (1 or 2), and its stack in bytes.
pub fn kernel(m: usize) -> (Vec<u8>, u32) {
    let shape = Shape { m, rows: if m == 1 { NR } else { 16 } };
    let mut asm = Asm::new();
    FRAME.enter(&mut asm);
    for (field, slot) in
        [(micro_args::ACC, slot::ACC), (micro_args::W, slot::W), (micro_args::PANELS, slot::PANELS_LEFT)]
    {
        put(&mut asm, &[arg(TMP[0], field), sd(TMP[0], slot, SP)]);
    }
    let done = asm.label();
    asm.branch(beq(TMP[0], ZERO), done, patch_branch);
    let panel = asm.bound();
    rows_of_panel(&mut asm, shape);
    bump(&mut asm, slot::PANELS_LEFT, -1);
    asm.branch(bne(TMP[0], ZERO), panel, patch_branch);
    asm.bind(done);
    FRAME.leave(&mut asm);
    // A hundred and some bytes.
    (asm.finish(), FRAME.bytes() as u32)
}

/// Adds to a word of the frame and leaves the result in `TMP[0]`.
fn bump(asm: &mut Asm, slot: i32, by: i32) {
    put(asm, &[ld(TMP[0], slot, SP), addi(TMP[0], TMP[0], by), sd(TMP[0], slot, SP)]);
}

/// All rows of the next panel, a strip at a time; moves the accumulators and weights past it.
fn rows_of_panel(asm: &mut Asm, shape: Shape) {
    put(asm, &[li(TMP[0], int(NR)), sd(TMP[0], slot::ROWS_LEFT, SP)]);
    let strip = asm.bound();
    put(asm, &[ld(W_AT, slot::W, SP), arg(shape.q_at()[0], micro_args::Q)]);
    token_rows(asm, shape.q_at(), TMP[0]);
    put(asm, &[arg(TMP[0], micro_args::K_BLOCKS), sd(TMP[0], slot::BLOCKS_LEFT, SP)]);
    chunks(asm, shape);
    bump(asm, slot::W, int(shape.rows));
    bump(asm, slot::ACC, int(4 * shape.rows));
    bump(asm, slot::ROWS_LEFT, -int(shape.rows));
    asm.branch(bne(TMP[0], ZERO), strip, patch_branch);
    // The strips moved the accumulators over one token row, the weights over one block.
    bump(asm, slot::ACC, int(4 * NR * (shape.m - 1)));
    bump(asm, slot::W, -int(NR));
    put(asm, &[arg(TMP[1], micro_args::W_PANEL_STRIDE), add(TMP[0], TMP[0], TMP[1]), sd(TMP[0], slot::W, SP)]);
}

/// The whole reduction of one strip.
fn chunks(asm: &mut Asm, shape: Shape) {
    let (full, done) = (asm.label(), asm.label());
    let chunk = asm.bound();
    put(asm, &[ld(TMP[0], slot::BLOCKS_LEFT, SP), li(BLOCKS, BLOCKS_PER_CHUNK)]);
    asm.branch(bge(TMP[0], BLOCKS), full, patch_branch);
    asm.word(mv(BLOCKS, TMP[0]));
    asm.bind(full);
    asm.branch(beq(BLOCKS, ZERO), done, patch_branch);
    put(asm, &[sub(TMP[0], TMP[0], BLOCKS), sd(TMP[0], slot::BLOCKS_LEFT, SP)]);
    splat_bias(asm);
    for t in 0..shape.m {
        shape.sums(t).iter().for_each(|sums| asm.word(mv(*sums, FIELDS)));
    }
    asm.word(li(FIELDS, 3));
    splat(asm);
    let next = asm.bound();
    block(asm, shape);
    asm.word(addi(BLOCKS, BLOCKS, -1));
    asm.branch(bne(BLOCKS, ZERO), next, patch_branch);
    widen(asm, shape);
    asm.word(ld(TMP[0], slot::BLOCKS_LEFT, SP));
    asm.branch(bne(TMP[0], ZERO), chunk, patch_branch);
    asm.bind(done);
}

/// Copies the low 16-bit field of `FIELDS` to all four.
fn splat(asm: &mut Asm) {
    for shamt in [16, 32] {
        put(asm, &[slli(TMP[0], FIELDS, shamt), or(FIELDS, FIELDS, TMP[0])]);
    }
}

/// 32768 in every field of `FIELDS`.
fn splat_bias(asm: &mut Asm) {
    asm.word(lui(FIELDS, 8));
    splat(asm);
}

/// One block of four columns.
fn block(asm: &mut Asm, shape: Shape) {
    for t in 0..shape.m {
        for p in 0..KR {
            asm.word(lb(shape.act(p, t), int(p), shape.q_at()[t]));
        }
    }
    for j in 0..shape.rows / 8 {
        asm.word(ld(RAW, int(8 * j), W_AT));
        for p in 0..KR {
            columns(asm, shape, j, p);
        }
    }
    asm.word(addi(W_AT, W_AT, int(NR)));
    for q in shape.q_at() {
        asm.word(addi(*q, *q, int(KR)));
    }
}

/// Column `p` of the eight rows in `RAW`: even rows, then odd ones, for every token row.
fn columns(asm: &mut Asm, shape: Shape, j: usize, p: usize) {
    for (odd, codes) in TMP.into_iter().enumerate() {
        // At most 14.
        let shamt = (2 * p + 8 * odd) as u32;
        if shamt == 0 {
            asm.word(and(codes, RAW, FIELDS));
        } else {
            put(asm, &[srli(codes, RAW, shamt), and(codes, codes, FIELDS)]);
        }
    }
    for t in 0..shape.m {
        let act = shape.act(p, t);
        let sums = &shape.sums(t)[2 * j..][..2];
        // The last token row may overwrite the codes.
        let products = if t + 1 == shape.m { TMP } else { PRODUCTS };
        put(asm, &[mul(products[0], TMP[0], act), mul(products[1], TMP[1], act)]);
        put(asm, &[add(sums[0], sums[0], products[0]), add(sums[1], sums[1], products[1])]);
    }
}

/// Adds the signed digits of every sum to its accumulator.
fn widen(asm: &mut Asm, shape: Shape) {
    let (acc, digit, value) = (RAW, TMP[0], TMP[1]);
    splat_bias(asm);
    asm.word(ld(acc, slot::ACC, SP));
    for t in 0..shape.m {
        for (word, sums) in shape.sums(t).iter().enumerate() {
            asm.word(xor(*sums, *sums, FIELDS));
            for field in 0..4 {
                let row = 8 * (word / 2) + 2 * field + word % 2;
                let at = int(4 * (NR * t + row));
                // At most 48; the top field needs no move up.
                let up = (48 - 16 * field) as u32;
                let top = if up == 0 {
                    *sums
                } else {
                    asm.word(slli(digit, *sums, up));
                    digit
                };
                put(asm, &[srai(digit, top, 48), lw(value, at, acc), addw(value, value, digit), sw(value, at, acc)]);
            }
        }
    }
}
