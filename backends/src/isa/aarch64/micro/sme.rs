//! Sixteen token rows with SME: `smopa` adds the outer product of two vectors, four columns deep, to a tile of ZA.
//!
//! Rows of a tile are token rows, columns are output rows. Four tiles stand side by side: one vector of token rows, up to
//! sixteen, meets four vectors of output rows, each of as many panels as a vector has 128-bit segments. Both sides are
//! brought to that order in the scratch memory, once per chunk of columns, by writing rows of a tile and reading its
//! columns: elements are words for activations, the 128 bits of a block for weights. Columns of four tiles, as 128-bit
//! elements, are a panel's sums in the order of the accumulators, but that token rows come 0, 4, 8 .. before 1, 5, 9 ..:
//! so are they put in.
//!
//! The code is one for any vector length of streaming mode; of more than 512 bits it uses 512.
//!
//! Vectors, predicates and ZA are as the procedure call standard wants them (AAPCS64, sections "SME" and "ZA lazy saving
//! scheme"): streaming mode is off before and after; ZA is off after, and what a caller left in it is saved where the
//! caller said.

use super::super::inst::{A64, P, V, X};
use super::sve::shift_plane_z;
use super::{ACC, BLOCKS, PANELS, Q, Q_STRIDE, SCRATCH, W, W_STRIDE, load_panel_args};
use crate::asm::Label;

/// Token rows.
const MR: usize = 16;
/// Columns whose activations and weights are rearranged at a time.
const CHUNK_COLUMNS: i64 = 512;
/// Longest vector used, in bytes.
const LONGEST_BYTES: i64 = 64;
/// Tiles, and vectors of output rows.
const TILES: u8 = 4;
/// Bytes of the rearranged weights, from the start of the scratch memory; the activations follow.
const WEIGHTS_BYTES: i64 = CHUNK_COLUMNS / 16 * TILES as i64 * LONGEST_BYTES;
/// Bytes of a panel's accumulators.
const PANEL_BYTES: i64 = 16 * MR as i64;

/// Scratch bytes of the kernel.
pub(crate) const SCRATCH_BYTES: usize = WEIGHTS_BYTES as usize + CHUNK_COLUMNS as usize * MR;
/// Bytes of stack it uses itself.
pub(super) const FRAME_BYTES: i64 = 32;

/// Bytes of a vector.
const BYTES: X = X(8);
/// The chunk's weights in the first panel.
const CHUNK_W: X = X(9);
/// The slice of a tile that is read or written: w12.
const SLICE: X = X(12);
/// Bytes of a panel's weights and of a token row's activations in this chunk.
const CHUNK: X = X(16);
/// Blocks of a vector; panels of a vector.
const BLOCKS_WIDE: X = X(19);
/// Words of a vector; token rows of a vector.
const WORDS_WIDE: X = X(20);
/// Two and three times [`BYTES`].
const BYTES_TWICE: X = X(21);
const BYTES_THRICE: X = X(22);
const CALLEE_SAVED: [(X, X); 2] = [(BLOCKS_WIDE, WORDS_WIDE), (BYTES_TWICE, BYTES_THRICE)];

/// All of a vector.
const ALL: P = P(0);
/// Bytes of the chunk that are left.
const ACTIVE: P = P(1);
const MASK: V = V(31);

pub(super) fn emit(a: &mut A64) {
    for (first, second) in CALLEE_SAVED {
        a.stp_x_pre(first, second, -16);
    }
    start_streaming(a);
    a.mov_z_imm(MASK, 3);
    // From here on in bytes.
    a.mov_imm(CHUNK, 0);
    a.add_lsl(BLOCKS, CHUNK, BLOCKS, 4);
    a.mov(CHUNK_W, W);
    let done = a.asm.label();
    a.cbz(BLOCKS, done);
    let chunk = a.asm.bound();
    a.mov_imm(CHUNK, CHUNK_COLUMNS);
    a.cmp(BLOCKS, CHUNK);
    a.csel_lo(CHUNK, BLOCKS, CHUNK);
    a.sub(BLOCKS, BLOCKS, CHUNK);
    rearrange_tokens(a);
    panels(a);
    a.add(CHUNK_W, CHUNK_W, CHUNK);
    a.add(Q, Q, CHUNK);
    a.cbnz(BLOCKS, chunk);
    a.asm.bind(done);
    a.smstop();
    for (first, second) in CALLEE_SAVED.into_iter().rev() {
        a.ldp_x_post(first, second, 16);
    }
}

/// Enters streaming mode with ZA on, and sets what follows from the vector length.
fn start_streaming(a: &mut A64) {
    let (before, longest) = (X(10), X(11));
    a.mrs_svcr(before);
    a.smstart();
    a.rdvl(BYTES, 1);
    save_za(a, before);
    a.mov_imm(longest, LONGEST_BYTES);
    a.cmp(BYTES, longest);
    a.csel_lo(BYTES, BYTES, longest);
    a.lsr(BLOCKS_WIDE, BYTES, 4);
    a.lsr(WORDS_WIDE, BYTES, 2);
    a.add(BYTES_TWICE, BYTES, BYTES);
    a.add(BYTES_THRICE, BYTES_TWICE, BYTES);
    a.mov_imm(longest, 0);
    a.whilelo_b(ALL, longest, BYTES);
}

/// Where SVCR was `svcr` before: if ZA was on and TPIDR2_EL0 is not 0, it is the address of a block that says where a
/// caller wants ZA saved (a pointer) and how many slices (16 bits, 8 bytes behind), if it does: neither is 0 then. 0 in
/// TPIDR2_EL0 tells the caller that it is done.
fn save_za(a: &mut A64, svcr: X) {
    let (block, to, slices) = (X(11), X(13), X(14));
    let [nothing, done] = [a.asm.label(), a.asm.label()];
    a.lsr(svcr, svcr, 1);
    a.and_1(svcr, svcr);
    a.cbz(svcr, nothing);
    a.mrs_tpidr2(block);
    a.cbz(block, nothing);
    a.ldr_x(to, block);
    a.ldrh_8(slices, block);
    a.cbz(to, done);
    a.cbz(slices, done);
    a.mov_imm(SLICE, 0);
    while_slices(a, slices, 1, |a| {
        a.str_za(to);
        a.add(to, to, BYTES);
    });
    a.asm.bind(done);
    a.msr_tpidr2_zero();
    a.asm.bind(nothing);
}

/// `body` for `SLICE` from what it is, by `step`, below `end`; once at least.
fn while_slices(a: &mut A64, end: X, step: i64, body: impl FnOnce(&mut A64)) {
    let again = a.asm.bound();
    body(a);
    a.add_imm(SLICE, SLICE, step);
    a.cmp(SLICE, end);
    a.b_lo(again);
}

/// `body` for `index` from 0 by vectors to the end of the chunk, with what is left active.
fn while_columns(a: &mut A64, index: X, body: impl FnOnce(&mut A64)) {
    a.mov_imm(index, 0);
    let again = a.asm.bound();
    a.whilelo_b(ACTIVE, index, CHUNK);
    body(a);
    a.add(index, index, BYTES);
    a.cmp(index, CHUNK);
    a.b_lo(again);
}

/// Puts the address of the rearranged activations into `to`.
fn tokens_address(a: &mut A64, to: X) {
    a.mov_imm(to, WEIGHTS_BYTES);
    a.add(to, SCRATCH, to);
}

/// Moves `tokens` from one vector of token rows to the next.
fn next_tokens(a: &mut A64, tokens: X) {
    a.add_lsl(tokens, tokens, BYTES, (CHUNK_COLUMNS / 4).ilog2().into());
}

/// Writes the chunk's activations: for each vector of token rows and each four columns one vector of words.
fn rearrange_tokens(a: &mut A64) {
    let (index, tokens, store, rows_left, row, first_row) = (X(1), X(2), X(3), X(4), X(10), X(11));
    a.mov(first_row, Q);
    tokens_address(a, tokens);
    a.mov_imm(rows_left, MR as i64);
    let again = a.asm.bound();
    a.mov(store, tokens);
    while_columns(a, index, |a| {
        a.add(row, first_row, index);
        for first in 0..4 {
            a.mov_imm(SLICE, first);
            while_slices(a, WORDS_WIDE, 4, |a| {
                a.ld1w_za0h(ACTIVE, row);
                a.add(row, row, Q_STRIDE);
            });
        }
        a.mov_imm(SLICE, 0);
        while_slices(a, WORDS_WIDE, 1, |a| {
            a.st1w_za0v(ALL, store);
            a.add(store, store, BYTES);
        });
    });
    // `row` is one vector less than `index` to the right.
    a.sub(first_row, row, index);
    a.add(first_row, first_row, BYTES);
    next_tokens(a, tokens);
    a.sub(rows_left, rows_left, WORDS_WIDE);
    a.cbnz(rows_left, again);
}

/// The chunk's products with all panels, four vectors of them at a time.
fn panels(a: &mut A64) {
    let (tokens, sums) = (X(15), X(14));
    let (moved, left, covered) = (X(10), X(13), X(11));
    load_panel_args(a);
    a.mov(W, CHUNK_W);
    let done = a.asm.label();
    a.cbz(PANELS, done);
    let again = a.asm.bound();
    rearrange_weights(a);
    tokens_address(a, tokens);
    a.mov(sums, ACC);
    let next = a.asm.bound();
    multiply(a, tokens);
    add_sums(a, sums, moved, left);
    a.sub(covered, moved, sums);
    next_tokens(a, tokens);
    a.add_lsl(sums, sums, BYTES, 2);
    a.sub(moved, sums, ACC);
    a.cmp_imm(moved, PANEL_BYTES);
    a.b_lo(next);
    a.add(ACC, ACC, covered);
    a.mov(PANELS, left);
    a.cbnz(PANELS, again);
    a.asm.bind(done);
}

/// At most a vector's worth of `left` panels: their number, which `left` loses, in `count`; to `done` if there are none.
fn take_panels(a: &mut A64, left: X, count: X, done: Label) {
    a.cbz(left, done);
    a.cmp(left, BLOCKS_WIDE);
    a.csel_lo(count, left, BLOCKS_WIDE);
    a.sub(left, left, count);
}

/// Writes the chunk's weights of the next panels: for each block four vectors, of a block of each of their panels. Moves
/// `W` behind them. What belongs to panels that are not there is left as it is, and nobody reads its sums.
fn rearrange_weights(a: &mut A64) {
    let (row, store, count, left, index) = (X(10), X(11), X(13), X(14), X(15));
    let done = a.asm.label();
    a.mov(left, PANELS);
    for vector in 0..TILES {
        take_panels(a, left, count, done);
        a.mov(store, SCRATCH);
        if let Some(offset) = [BYTES, BYTES_TWICE, BYTES_THRICE].get(usize::from(vector).wrapping_sub(1)) {
            a.add(store, store, *offset);
        }
        while_columns(a, index, |a| {
            a.add(row, W, index);
            a.mov_imm(SLICE, 0);
            while_slices(a, count, 1, |a| {
                a.ld1q_za0h(ACTIVE, row);
                a.add(row, row, W_STRIDE);
            });
            a.mov_imm(SLICE, 0);
            while_slices(a, BLOCKS_WIDE, 1, |a| {
                a.st1q_za0v(ALL, store);
                a.add_lsl(store, store, BYTES, 2);
            });
        });
        // `row` is one vector less than `index` to the right.
        a.sub(W, row, index);
        a.add(W, W, BYTES);
    }
    a.asm.bind(done);
}

/// Four vectors at `from`, which moves behind them.
fn load_four(a: &mut A64, first: u8, from: X) {
    a.ld1b_0(V(first), ALL, from);
    for (i, offset) in (1..).zip([BYTES, BYTES_TWICE, BYTES_THRICE]) {
        a.ld1b(V(first + i), ALL, from, offset);
    }
    a.add_lsl(from, from, BYTES, 2);
}

/// Sums of the chunk, in the four tiles, of the vector of token rows at `tokens`.
fn multiply(a: &mut A64, tokens: X) {
    let (weights, activations, end) = (X(10), X(11), X(13));
    a.zero_za();
    a.mov(weights, SCRATCH);
    a.mov(activations, tokens);
    a.lsr(end, CHUNK, 2);
    a.madd(end, end, BYTES, SCRATCH);
    let again = a.asm.bound();
    load_four(a, 0, weights);
    load_four(a, 4, activations);
    for plane in 0..4 {
        for tile in 0..TILES {
            let codes = V(8 + (4 * plane + tile) % 16);
            shift_plane_z(a, codes, V(tile), plane.into(), MASK);
            a.smopa(tile.into(), ALL, ALL, V(4 + plane), codes);
        }
    }
    a.cmp(weights, end);
    a.b_lo(again);
}

/// Adds the tiles to the accumulators at `sums` of all panels that were multiplied. Leaves in `to` where those of the next
/// are, and in `left` how many there are.
fn add_sums(a: &mut A64, sums: X, to: X, left: X) {
    let count = X(11);
    let done = a.asm.label();
    a.mov(to, sums);
    a.mov(left, PANELS);
    for tile in 0..TILES {
        take_panels(a, left, count, done);
        a.mov_imm(SLICE, 0);
        while_slices(a, count, 1, |a| {
            let offsets = [None, Some(BYTES), Some(BYTES_TWICE), Some(BYTES_THRICE)];
            for (quarter, offset) in (0..).zip(offsets) {
                let (sum, acc) = (V(quarter), V(4 + quarter));
                a.mov_z_q(sum, ALL, i64::from(4 * quarter + tile));
                match offset {
                    None => a.ld1b_0(acc, ALL, to),
                    Some(offset) => a.ld1b(acc, ALL, to, offset),
                }
                a.add_z_s(acc, acc, sum);
                match offset {
                    None => a.st1b_0(acc, ALL, to),
                    Some(offset) => a.st1b(acc, ALL, to, offset),
                }
            }
            a.add_imm(to, to, PANEL_BYTES);
        });
    }
    a.asm.bind(done);
}
