//! Sums of values over codes: four positions of each lane lie side by side.
//!
//! Positions are parted into 16 bits, which all queries share, and meet whole codes; what a call adds becomes two parts
//! at its end. Codes serve the most lanes in the longest groups of registers, which hold sums of two queries: four are
//! for lanes that half of that holds.

use tcc_ir::attention_codes::{PLANE, PLANE_BITS, WeightCodes};
use tcc_ir::cache::{BLOCK, GROUP};

use super::super::floats::{int, repeat, while_left};
use super::super::inst::{
    A0, A1, A2, A3, A4, A5, A6, A7, Lmul, S0, S1, S2, S3, S4, S5, S6, Sew, T0, T1, T2, T3, T4, T5, T6, V, X, ZERO, add,
    addi, blt, bne, lh, li, mv, patch_branch, put, slli, sub, vadd_vv, vand_vx, vle32, vmv_v_i, vnsrl_wi, vse32,
    vsetvli, vsll_vi, vsra_vi, vwmacc_vx,
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
/// Bytes of four positions, and of the sums of one part.
const ROW: X = A7;
const V_LANE: X = T0;
const V_AT: X = T1;
const LANES_LEFT: X = T2;
/// Lanes in use.
const COUNT: X = T3;
/// Running addresses in the weights of the current queries.
const W_AT: [X; 4] = [T4, T5, T6, S2];
const SUMS_LANE: X = S3;
const BLOCKS_LEFT: X = S4;
/// Codes of a position, and between loops anything else.
const CODE: [X; 4] = [S0, S1, S5, S6];
const AT: X = S0;
const LOW_MASK: X = S1;

const FRAME: Frame = Frame { saved: &[S0, S1, S2, S3, S4, S5, S6], words: 0 };

/// First registers of what four positions are loaded to, of which only the halves are used later on, and of those
/// halves; at the end, of sums in memory and of parts of sums.
const LOADED: usize = 16;
const PARTS: usize = 24;

/// Queries of one inner loop; registers of sums of 32 bits; of the same lanes in 16.
#[derive(Clone, Copy)]
struct Tile {
    queries: usize,
    lmul: Lmul,
    narrow: Lmul,
}

impl Tile {
    const LONGEST: [Tile; 2] = [Tile::longest(2), Tile::longest(1)];
    const HALF: Tile = Tile { queries: 4, lmul: Lmul::M4, narrow: Lmul::M2 };

    const fn longest(queries: usize) -> Tile {
        Tile { queries, lmul: Lmul::M8, narrow: Lmul::M4 }
    }

    /// Sums of all queries take up to sixteen registers.
    fn sum(self, query: usize) -> V {
        self.lmul.group(query)
    }

    /// The first or the second two positions.
    fn half(self, half: usize) -> V {
        V::new(PARTS + half * self.narrow.registers())
    }

    /// A position in 16 bits.
    fn position(self, index: usize) -> V {
        V::new(LOADED + index % 2 * self.narrow.registers())
    }
}

/// `extern "C" fn(codes, v, lanes, queries, sums, stride, blocks)`; returns its stack in bytes.
pub(super) fn emit(asm: &mut Asm) -> u32 {
    FRAME.enter(asm);
    let too_many = asm.label();
    put(asm, &[slli(ROW, LANES, 2), vsetvli(COUNT, ZERO, Sew::E32, Tile::HALF.lmul)]);
    asm.branch(blt(COUNT, LANES), too_many, patch_branch);
    queries(asm, Tile::HALF);
    asm.bind(too_many);
    Tile::LONGEST.into_iter().for_each(|tile| queries(asm, tile));
    FRAME.leave(asm);
    // Eight words, of which one is padding.
    FRAME.bytes() as u32
}

/// All lanes of as many queries at a time as a tile has.
fn queries(asm: &mut Asm, tile: Tile) {
    while_left(asm, QUERIES, tile.queries, |asm| {
        put(asm, &[mv(V_LANE, FIRST_V), mv(SUMS_LANE, SUMS), mv(LANES_LEFT, LANES)]);
        let strip = asm.bound();
        asm.word(vsetvli(COUNT, LANES_LEFT, Sew::E32, tile.lmul));
        (0..tile.queries).for_each(|query| asm.word(vmv_v_i(tile.sum(query), 0)));
        put(asm, &[vsetvli(ZERO, COUNT, Sew::E16, tile.narrow), mv(V_AT, V_LANE), mv(W_AT[0], W)]);
        W_AT[..tile.queries].windows(2).for_each(|pair| asm.word(add(pair[1], pair[0], STRIDE)));
        asm.word(mv(BLOCKS_LEFT, BLOCKS));
        repeat(asm, BLOCKS_LEFT, |asm| block(asm, tile));
        asm.word(vsetvli(ZERO, COUNT, Sew::E32, tile.lmul));
        store(asm, tile);
        put(asm, &[sub(LANES_LEFT, LANES_LEFT, COUNT), slli(AT, COUNT, 2)]);
        put(asm, &[add(V_LANE, V_LANE, AT), add(SUMS_LANE, SUMS_LANE, AT)]);
        asm.branch(bne(LANES_LEFT, ZERO), strip, patch_branch);
        for _ in 0..tile.queries {
            put(asm, &[add(W, W, STRIDE), add(SUMS, SUMS, ROW), add(SUMS, SUMS, ROW)]);
        }
    });
}

/// Adds the next sixteen positions.
fn block(asm: &mut Asm, tile: Tile) {
    let (loaded, weights) = (V::new(LOADED), &W_AT[..tile.queries]);
    for group in 0..BLOCK / GROUP {
        put(asm, &[vle32(loaded, V_AT), add(V_AT, V_AT, ROW)]);
        put(asm, &[vnsrl_wi(tile.half(0), loaded, 0), vnsrl_wi(tile.half(1), loaded, 16)]);
        for i in 0..GROUP {
            let (value, from) = (tile.position(i), tile.half(i / 2));
            for (at, code) in weights.iter().zip(CODE) {
                asm.word(lh(code, int(WeightCodes::CODES + 2 * (GROUP * group + i)), *at));
            }
            match i % 2 {
                0 => put(asm, &[vsll_vi(value, from, 8), vsra_vi(value, value, 8)]),
                _ => asm.word(vsra_vi(value, from, 8)),
            }
            for (query, code) in CODE[..tile.queries].iter().enumerate() {
                asm.word(vwmacc_vx(tile.sum(query), *code, value));
            }
        }
    }
    weights.iter().for_each(|at| asm.word(addi(*at, *at, int(WeightCodes::BYTES))));
}

/// Adds the high and the low part of each sum to those in memory.
fn store(asm: &mut Asm, tile: Tile) {
    let (loaded, part) = (V::new(LOADED), V::new(PARTS));
    put(asm, &[mv(AT, SUMS_LANE), li(LOW_MASK, int(usize::from(PLANE) - 1))]);
    for query in 0..tile.queries {
        let sum = tile.sum(query);
        for take in [vsra_vi(part, sum, PLANE_BITS), vand_vx(part, sum, LOW_MASK)] {
            put(asm, &[vle32(loaded, AT), take, vadd_vv(loaded, loaded, part), vse32(loaded, AT), add(AT, AT, ROW)]);
        }
    }
}
