//! Several token rows with `smmla`: 2 output rows by 2 token rows by 8 columns in one instruction.
//!
//! Two blocks of a panel, interleaved by `trn`, hold in each plane eight columns of rows 0 and 2, and of rows 1 and 3:
//! four columns of either block. Activations are brought to the same order once per chunk of columns, in the scratch
//! memory, and serve all panels. A missing second block has zero activations.

use super::super::inst::{A64, V, X};
use super::{ACC, BLOCK_BYTES, BLOCKS, PANELS, Q, Q_STRIDE, SCRATCH, W, W_STRIDE, for_panels, repeat, shift_plane};

/// Columns whose activations are rearranged at a time.
const CHUNK_BLOCKS: usize = 64;

const COUNT: X = X(0);
const POINTER: X = X(15);
const CHUNK: X = X(16);
/// Registers that the panel loop moves, and where they are kept meanwhile.
pub(super) const KEPT: [(X, X); 3] = [(X(8), ACC), (X(9), W), (X(10), PANELS)];
const MASK: V = V(15);

/// Scratch bytes of the kernel for `mr` token rows.
pub(crate) const fn scratch_bytes(mr: usize) -> usize {
    CHUNK_BLOCKS * 16 * mr
}

/// A tile of `mr` token rows by `panels` panels.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub mr: usize,
    pub panels: usize,
}

impl Tile {
    /// Two interleaved blocks (or vectors of blocks) of a panel: rows 0 and 2 (`half` 0), 1 and 3 (`half` 1).
    pub fn packed(self, panel: usize, half: usize) -> V {
        V((2 * panel + half) as u8)
    }

    /// Activations of two token rows.
    pub fn pair(self, pair: usize) -> V {
        V((8 + pair) as u8)
    }

    /// Sums of two output rows and two token rows.
    pub fn acc(self, panel: usize, pair: usize, half: usize) -> V {
        V((16 + panel * self.mr + 2 * pair + half) as u8)
    }

    pub fn w_pointer(self, panel: usize) -> X {
        X((11 + panel) as u8)
    }

    pub fn pairs(self) -> usize {
        self.mr / 2
    }
}

/// `mr` is 4 or 8.
pub(super) fn emit(a: &mut A64, mr: usize) {
    a.movi(MASK, 3);
    let done = a.asm.label();
    a.cbz(BLOCKS, done);
    let chunk = a.asm.bound();
    a.mov_imm(CHUNK, CHUNK_BLOCKS as i64);
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
    a.add_lsl(W, W, CHUNK, 4);
    a.cbnz(BLOCKS, chunk);
    a.asm.bind(done);
}

/// Writes the chunk's activations: per two blocks, plane, and pair of token rows one register. `Q` moves on.
fn rearrange(a: &mut A64, mr: usize) {
    let q_pointer = |token: usize| if token == 0 { Q } else { X((8 + token) as u8) };
    let (store, count) = (X(0), X(8));
    for token in 1..mr {
        a.add(q_pointer(token), q_pointer(token - 1), Q_STRIDE);
    }
    a.mov(store, SCRATCH);
    a.lsr(count, CHUNK, 1);
    repeat(a, count, |a| {
        for pair in 0..mr / 2 {
            for i in 0..2 {
                a.ldp_q_post(V(2 * i), V(2 * i + 1), q_pointer(2 * pair + usize::from(i)), 2 * BLOCK_BYTES);
            }
            interleave(a, mr, pair, store);
        }
        a.add_imm(store, store, 32 * mr as i64);
    });
    a.and_1(count, CHUNK);
    repeat(a, count, |a| {
        for pair in 0..mr / 2 {
            for i in 0..2 {
                a.ldr_q_post(V(2 * i), q_pointer(2 * pair + usize::from(i)), BLOCK_BYTES);
                a.movi(V(2 * i + 1), 0);
            }
            interleave(a, mr, pair, store);
        }
    });
}

/// From blocks v0, v1 of one token row and v2, v3 of the next to one register per plane.
fn interleave(a: &mut A64, mr: usize, pair: usize, store: X) {
    for (i, first) in [(4, V(0)), (6, V(2))] {
        let second = V(first.0 + 1);
        a.trn1_s(V(i), first, second);
        a.trn2_s(V(i + 1), first, second);
    }
    // v4, v6: planes 0 and 2; v5, v7: planes 1 and 3.
    a.trn1_d(V(0), V(4), V(6));
    a.trn1_d(V(1), V(5), V(7));
    a.trn2_d(V(2), V(4), V(6));
    a.trn2_d(V(3), V(5), V(7));
    for plane in 0..4 {
        a.str_q(V(plane as u8), store, (16 * (plane * mr / 2 + pair)) as i64);
    }
}

fn group(a: &mut A64, tile: Tile) {
    let Tile { mr, panels } = tile;
    for panel in 0..panels {
        a.mov(tile.w_pointer(panel), W);
        a.add(W, W, W_STRIDE);
    }
    for i in 0..panels * mr {
        a.movi(V((16 + i) as u8), 0);
    }
    a.mov(POINTER, SCRATCH);
    a.lsr(COUNT, CHUNK, 1);
    repeat(a, COUNT, |a| {
        for panel in 0..panels {
            a.ldp_q_post(V(12), V(13), tile.w_pointer(panel), 2 * BLOCK_BYTES);
            a.trn1_s(tile.packed(panel, 0), V(12), V(13));
            a.trn2_s(tile.packed(panel, 1), V(12), V(13));
        }
        multiply(a, tile);
    });
    a.and_1(COUNT, CHUNK);
    repeat(a, COUNT, |a| {
        for panel in 0..panels {
            a.ldr_q_post(V(12), tile.w_pointer(panel), BLOCK_BYTES);
            a.trn1_s(tile.packed(panel, 0), V(12), V(12));
            a.trn2_s(tile.packed(panel, 1), V(12), V(12));
        }
        multiply(a, tile);
    });
    add_sums(a, tile);
}

fn multiply(a: &mut A64, tile: Tile) {
    for plane in 0..4 {
        for pair in (0..tile.pairs()).step_by(2) {
            a.ldp_q_post(tile.pair(pair), tile.pair(pair + 1), POINTER, 2 * BLOCK_BYTES);
        }
        for panel in 0..tile.panels {
            for half in 0..2 {
                let codes = V(12 + ((2 * panel + half) % 3) as u8);
                shift_plane(a, codes, tile.packed(panel, half), plane, MASK);
                for pair in 0..tile.pairs() {
                    a.smmla(tile.acc(panel, pair, half), codes, tile.pair(pair));
                }
            }
        }
    }
}

/// Adds the tile to the accumulators in memory: `trn` makes the four output rows of a token of the two halves.
fn add_sums(a: &mut A64, tile: Tile) {
    let mut offset = 0;
    for panel in 0..tile.panels {
        for pair in 0..tile.pairs() {
            let (first, second) = (tile.acc(panel, pair, 0), tile.acc(panel, pair, 1));
            a.trn1_s(V(0), first, second);
            a.trn2_s(V(1), first, second);
            for sums in [V(0), V(1)] {
                a.ldr_q(V(2), ACC, offset);
                a.add_s(V(2), V(2), sums);
                a.str_q(V(2), ACC, offset);
                offset += 16;
            }
        }
    }
    a.add_imm(ACC, ACC, offset);
}
