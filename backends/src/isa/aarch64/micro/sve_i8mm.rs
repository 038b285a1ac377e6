//! Several token rows with SVE `smmla`: the tile of [`i8mm`](super::i8mm) over vectors of any length.
//!
//! A step takes two vectors of a panel instead of two blocks; `trn` interleaves them segment by segment. Bytes past
//! the end of the chunk load as zero, in weights and in rearranged activations. See [`sve`](super::sve).

use super::super::inst::{A64, P, V, X};
use super::i8mm::{KEPT, Tile};
use super::sve::{add_segments, shift_plane_z, while_active};
use super::{ACC, BLOCKS, Q, Q_STRIDE, SCRATCH, W, W_STRIDE, for_panels};

/// Columns whose activations are rearranged at a time.
const CHUNK_COLUMNS: usize = 1024;
/// Two of the longest vectors: how far the last step may write beyond the chunk.
const STEP_COLUMNS: usize = 512;

const INDEX: X = X(0);
const POINTER: X = X(15);
/// Bytes of weights of a panel and of activations of a row in this chunk.
const CHUNK: X = X(16);
const MASK: V = V(15);
const ACTIVE: [P; 2] = [P(0), P(1)];

/// Scratch bytes of the kernel for `mr` token rows.
pub(crate) const fn scratch_bytes(mr: usize) -> usize {
    (CHUNK_COLUMNS + STEP_COLUMNS) * mr
}

/// `mr` is 4 or 8.
pub(super) fn emit(a: &mut A64, mr: usize) {
    a.mov_z_imm(MASK, 3);
    // From here on in bytes.
    a.mov_imm(CHUNK, 0);
    a.add_lsl(BLOCKS, CHUNK, BLOCKS, 4);
    let done = a.asm.label();
    a.cbz(BLOCKS, done);
    let chunk = a.asm.bound();
    a.mov_imm(CHUNK, CHUNK_COLUMNS as i64);
    a.cmp(BLOCKS, CHUNK);
    a.csel_lo(CHUNK, BLOCKS, CHUNK);
    a.sub(BLOCKS, BLOCKS, CHUNK);
    rearrange(a, mr);
    for (kept, register) in KEPT {
        a.mov(kept, register);
    }
    for_panels(a, 16 / mr, |a, panels| group(a, Tile { mr, panels }));
    for (kept, register) in KEPT {
        a.mov(register, kept);
    }
    a.add(W, W, CHUNK);
    a.add(Q, Q, CHUNK);
    a.cbnz(BLOCKS, chunk);
    a.asm.bind(done);
}

/// Writes the chunk's activations: per step, plane, and pair of token rows one vector.
fn rearrange(a: &mut A64, mr: usize) {
    let q_pointer = |token: usize| if token == 0 { Q } else { X((8 + token) as u8) };
    let vector = |token: usize, which: usize| V((2 * token + which) as u8);
    let store = X(8);
    for token in 1..mr {
        a.add(q_pointer(token), q_pointer(token - 1), Q_STRIDE);
    }
    a.mov(store, SCRATCH);
    // The rows fill z0..z15, the mask among them.
    while_active(a, ACTIVE[0], INDEX, CHUNK, |a| {
        for (which, active) in ACTIVE.into_iter().enumerate() {
            if which == 1 {
                a.whilelo_b(active, INDEX, CHUNK);
            }
            for token in 0..mr {
                a.ld1b(vector(token, which), active, q_pointer(token), INDEX);
            }
            a.incb(INDEX);
        }
        for pair in 0..mr / 2 {
            let rows = [2 * pair, 2 * pair + 1].map(|token| [vector(token, 0), vector(token, 1)]);
            interleave(a, mr, pair, rows, store);
        }
        a.addvl(store, store, 2 * mr as i64);
    });
    a.mov_z_imm(MASK, 3);
}

/// From two vectors of a token row and of the next to one vector per plane.
fn interleave(a: &mut A64, mr: usize, pair: usize, rows: [[V; 2]; 2], store: X) {
    let (even, odd) = ([V(16), V(17)], [V(18), V(19)]);
    for (i, [first, second]) in rows.into_iter().enumerate() {
        a.trn1_z_s(even[i], first, second);
        a.trn2_z_s(odd[i], first, second);
    }
    a.trn1_z_d(V(20), even[0], even[1]);
    a.trn1_z_d(V(21), odd[0], odd[1]);
    a.trn2_z_d(V(22), even[0], even[1]);
    a.trn2_z_d(V(23), odd[0], odd[1]);
    for plane in 0..4 {
        a.str_z(V(20 + plane as u8), store, (plane * mr / 2 + pair) as i64);
    }
}

fn group(a: &mut A64, tile: Tile) {
    let Tile { mr, panels } = tile;
    for panel in 0..panels {
        a.mov(tile.w_pointer(panel), W);
        a.add(W, W, W_STRIDE);
    }
    let sums: Vec<V> = (0..panels * mr).map(|i| V((16 + i) as u8)).collect();
    for sum in &sums {
        a.mov_z_imm(*sum, 0);
    }
    a.mov(POINTER, SCRATCH);
    while_active(a, ACTIVE[0], INDEX, CHUNK, |a| {
        load_weights(a, tile);
        multiply(a, tile);
    });
    add_sums(a, tile, &sums);
}

fn load_weights(a: &mut A64, tile: Tile) {
    for panel in 0..tile.panels {
        a.ld1b(tile.packed(panel, 0), ACTIVE[0], tile.w_pointer(panel), INDEX);
    }
    a.incb(INDEX);
    a.whilelo_b(ACTIVE[1], INDEX, CHUNK);
    for panel in 0..tile.panels {
        let (first, second) = (tile.packed(panel, 0), V((12 + panel % 3) as u8));
        a.ld1b(second, ACTIVE[1], tile.w_pointer(panel), INDEX);
        a.trn2_z_s(tile.packed(panel, 1), first, second);
        a.trn1_z_s(first, first, second);
    }
    a.incb(INDEX);
}

fn multiply(a: &mut A64, tile: Tile) {
    for plane in 0..4 {
        for pair in 0..tile.pairs() {
            a.ldr_z(tile.pair(pair), POINTER, plane * tile.pairs() as i64 + pair as i64);
        }
        for panel in 0..tile.panels {
            for half in 0..2 {
                let codes = V(12 + ((2 * panel + half) % 3) as u8);
                shift_plane_z(a, codes, tile.packed(panel, half), plane, MASK);
                for pair in 0..tile.pairs() {
                    a.smmla_z(tile.acc(panel, pair, half), codes, tile.pair(pair));
                }
            }
        }
    }
    a.addvl(POINTER, POINTER, 2 * tile.mr as i64);
}

/// Adds the tile to the accumulators in memory: `trn` makes the four output rows of a token of the two halves.
fn add_sums(a: &mut A64, tile: Tile, sums: &[V]) {
    for pair in sums.chunks(2) {
        let (first, second) = (pair[0], pair[1]);
        a.trn1_z_s(V(0), first, second);
        a.trn2_z_s(second, first, second);
        a.orr_z(first, V(0), V(0));
    }
    add_segments(a, sums, INDEX);
    for (i, sum) in sums.iter().enumerate() {
        a.ldr_q(V(0), ACC, 16 * i as i64);
        a.add_s(V(0), V(0), *sum);
        a.str_q(V(0), ACC, 16 * i as i64);
    }
    a.add_imm(ACC, ACC, 16 * (tile.panels * tile.mr) as i64);
}
