//! Scores: keys come in blocks of sixteen positions, element by element; the positions are lanes.
//!
//! Four partials of up to four queries are summed side by side, as many as the registers hold.

use tcc_ir::cache::BLOCK;

use super::super::floats::{by_vector_length, int, repeat, set_sixteen, while_left};
use super::super::inst::{
    A0, A1, A2, A3, A4, A5, A6, A7, F, FT0, FT1, FT2, FT3, Lmul, S0, S1, S2, S3, S4, S5, S6, S7, T0, T1, T2, T3, T4,
    T5, T6, V, X, ZERO, add, addi, andi, bge, flw, jal, jalr, li, mv, patch_branch, patch_jump, put, slli, srli,
    vfadd_vv, vfmacc_vf, vle32, vmv_v_i, vmv_v_v, vse32,
};
use super::super::micro::Frame;
use crate::asm::{Asm, Label};

const FIRST_Q: X = A0;
const K: X = A1;
const D: X = A2;
const QUERIES: X = A3;
const FIRST_OUT: X = A4;
const STRIDE: X = A5;
const BLOCKS: X = A6;
/// Whole sixteens of elements, and elements behind them.
const STEPS: X = A7;
const TAIL: X = S3;
/// Bytes of a query; of a block of keys.
const Q_BYTES: X = S4;
const K_BYTES: X = S5;
/// The current queries, and where their scores go.
const Q: X = S0;
const OUT: X = S1;
const QUERIES_LEFT: X = S2;
/// Running addresses, and sixteens left.
const K_AT: X = T1;
const Q_AT: [X; 4] = [T3, T4, T5, T6];
const STEPS_LEFT: X = T2;
/// Elements of the tail from the first partial on.
const TAIL_LEFT: X = S6;
const TMP: X = S7;
/// Where the sum of four partials returns to.
const LINK: X = T0;

const FRAME: Frame = Frame { saved: &[S0, S1, S2, S3, S4, S5, S6, S7], words: 0 };

/// Partials summed side by side, four elements apart: those that `numerics::reduce` adds first.
const PARTIALS: usize = 4;
const FACTORS: [F; 4] = [FT0, FT1, FT2, FT3];
/// Bytes of one element of a block of keys.
const ELEMENT_BYTES: usize = 4 * BLOCK;

/// Queries whose scores are computed together, sixteen lanes being a group of `lmul` registers.
#[derive(Clone, Copy)]
struct Tile {
    lmul: Lmul,
    queries: usize,
}

impl Tile {
    /// Queries that the registers hold, most first.
    fn queries(lmul: Lmul) -> &'static [usize] {
        match lmul {
            Lmul::M1 => &[4, 1],
            Lmul::M2 => &[2, 1],
            Lmul::M4 | Lmul::M8 => &[1],
        }
    }

    fn partial(self, partial: usize, query: usize) -> V {
        self.lmul.group(partial * self.queries + query)
    }

    fn sum(self, query: usize) -> V {
        self.lmul.group(PARTIALS * self.queries + query)
    }

    fn other_sum(self, query: usize) -> V {
        self.lmul.group((PARTIALS + 1) * self.queries + query)
    }

    fn keys(self) -> V {
        self.lmul.group((PARTIALS + 2) * self.queries)
    }
}

/// `extern "C" fn(q, k, d, queries, out, stride, blocks)`; returns its stack in bytes.
pub(super) fn emit(asm: &mut Asm) -> u32 {
    FRAME.enter(asm);
    put(asm, &[slli(Q_BYTES, D, 2), slli(K_BYTES, D, ELEMENT_BYTES.trailing_zeros())]);
    put(asm, &[srli(STEPS, D, 4), andi(TAIL, D, 15)]);
    by_vector_length(asm, |asm, lmul| {
        set_sixteen(asm, lmul);
        let tiles = Tile::queries(lmul).iter().map(|queries| Tile { lmul, queries: *queries });
        let tiles: Vec<_> = tiles.map(|tile| (tile, asm.label())).collect();
        repeat(asm, BLOCKS, |asm| {
            put(asm, &[mv(Q, FIRST_Q), mv(OUT, FIRST_OUT), mv(QUERIES_LEFT, QUERIES)]);
            for (tile, partials) in &tiles {
                while_left(asm, QUERIES_LEFT, tile.queries, |asm| dots(asm, *tile, *partials));
            }
            put(asm, &[addi(FIRST_OUT, FIRST_OUT, int(4 * BLOCK)), add(K, K, K_BYTES)]);
        });
        FRAME.leave(asm);
        for (tile, label) in tiles {
            asm.bind(label);
            partials(asm, tile);
        }
    });
    // Eight words.
    FRAME.bytes() as u32
}

/// The dot products of a tile's queries with a block of keys; moves `Q` and `OUT` past the queries.
///
/// Partials p, p + 8 and p + 4, p + 12 are added first, then for p = 0 those for 2, for 1 those for 3, then both.
fn dots(asm: &mut Asm, tile: Tile, partials: Label) {
    for (first, sum) in
        [(0, Tile::sum as fn(Tile, usize) -> V), (2, Tile::sum), (1, Tile::other_sum), (3, Tile::other_sum)]
    {
        put(asm, &[addi(K_AT, K, int(first * ELEMENT_BYTES)), addi(TAIL_LEFT, TAIL, -int(first))]);
        asm.word(addi(Q_AT[0], Q, int(4 * first)));
        for pair in Q_AT[..tile.queries].windows(2) {
            asm.word(add(pair[1], pair[0], Q_BYTES));
        }
        asm.branch(jal(LINK), partials, patch_jump);
        for query in 0..tile.queries {
            let (sum, partial) = (sum(tile, query), tile.partial(0, query));
            asm.word(if first < 2 { vmv_v_v(sum, partial) } else { vfadd_vv(sum, sum, partial) });
        }
    }
    for query in 0..tile.queries {
        put(asm, &[vfadd_vv(tile.sum(query), tile.sum(query), tile.other_sum(query)), vse32(tile.sum(query), OUT)]);
        put(asm, &[add(OUT, OUT, STRIDE), add(Q, Q, Q_BYTES)]);
    }
}

/// A function within the function: the sum of the four partials whose first elements are at `K_AT` and `Q_AT`, to the
/// registers of the first.
fn partials(asm: &mut Asm, tile: Tile) {
    for register in 0..PARTIALS * tile.queries {
        asm.word(vmv_v_i(tile.lmul.group(register), 0));
    }
    asm.word(mv(STEPS_LEFT, STEPS));
    repeat(asm, STEPS_LEFT, |asm| {
        (0..PARTIALS).for_each(|partial| multiply(asm, tile, partial));
        for q in &Q_AT[..tile.queries] {
            asm.word(addi(*q, *q, int(4 * BLOCK)));
        }
    });
    let done = asm.label();
    for partial in 0..PARTIALS {
        asm.word(li(TMP, int(4 * partial)));
        asm.branch(bge(TMP, TAIL_LEFT), done, patch_branch);
        multiply(asm, tile, partial);
    }
    asm.bind(done);
    for (to, from) in [(0, 2), (1, 3), (0, 1)] {
        for query in 0..tile.queries {
            let [to, from] = [to, from].map(|partial| tile.partial(partial, query));
            asm.word(vfadd_vv(to, to, from));
        }
    }
    asm.word(jalr(ZERO, LINK, 0));
}

/// One element of partial `partial`; moves `K_AT` to the next partial's.
fn multiply(asm: &mut Asm, tile: Tile, partial: usize) {
    put(asm, &[vle32(tile.keys(), K_AT), addi(K_AT, K_AT, int(4 * ELEMENT_BYTES))]);
    for (q, factor) in Q_AT[..tile.queries].iter().zip(FACTORS) {
        asm.word(flw(factor, int(4 * 4 * partial), *q));
    }
    for (query, factor) in FACTORS[..tile.queries].iter().enumerate() {
        asm.word(vfmacc_vf(tile.partial(partial, query), *factor, tile.keys()));
    }
}
