//! Scores over codes: keys come in blocks of sixteen positions, four elements of each position side by side in a lane.
//!
//! Elements are parted by shifts, which all queries share, and meet whole codes. Where registers divide into blocks, a
//! group of them holds lanes of several: so fewer instructions use each code.

use tcc_ir::attention_codes::QueryCodes;
use tcc_ir::cache::{BLOCK, GROUP};

use super::super::floats::{by_register_bytes, int, while_left};
use super::super::inst::{
    A0, A1, A2, A3, A4, A5, A6, A7, F, FT0, FT1, FT2, FT3, Lmul, S0, S1, S2, S3, S4, S5, S6, S7, S8, S9, S10, Sew, T0,
    T1, T2, T3, T4, T5, T6, V, X, ZERO, add, addi, andi, beq, bge, bne, flw, lh, li, mul, mv, patch_branch, put, slli,
    sub, vfcvt_f_x_v, vfmul_vf, vl1re8, vl2re8, vl4re8, vle32, vmacc_vx, vmv_v_i, vse32, vsetvli, vsll_vi, vsra_vi,
};
use super::super::micro::Frame;
use crate::asm::Asm;

const FIRST_Q: X = A0;
const FIRST_K: X = A1;
/// Elements of a query, then what its codes of 16 bits are behind its start.
const CODES: X = A2;
const QUERIES: X = A3;
const FIRST_OUT: X = A4;
const STRIDE: X = A5;
const BLOCKS: X = A6;
/// Bytes from the codes of one query to those of the next; of a block of keys.
const Q_BYTES: X = A7;
const K_BYTES: X = S0;
/// The current blocks, how many they are, and where their scores go.
const K: X = S1;
const COUNT: X = S2;
const OUT: X = S3;
const BLOCKS_LEFT: X = S4;
/// Running addresses in the blocks, and where the first ends.
const K_AT: [X; 4] = [S5, S6, S7, S8];
const K_END: X = S9;
const Q_AT: [X; 4] = [T0, T1, T2, T3];
/// The codes at hand, and between loops anything else.
const CODE: [X; 4] = [T4, T5, T6, S10];
const TMP: X = T4;
const OUT_AT: X = T5;

const FRAME: Frame = Frame { saved: &[S0, S1, S2, S3, S4, S5, S6, S7, S8, S9, S10], words: 0 };

const SCALES: [F; 4] = [FT0, FT1, FT2, FT3];
/// Queries that share each block, most first.
const QUERIES_AT_ONCE: [usize; 3] = [4, 2, 1];

/// Registers that a block of one group of elements fills, with the least bytes of a register; `None` where it fills none.
const BLOCK_REGISTERS: [(Option<Lmul>, Option<i32>); 4] =
    [(None, Some(128)), (Some(Lmul::M1), Some(64)), (Some(Lmul::M2), Some(32)), (Some(Lmul::M4), None)];

/// Queries and blocks that are multiplied together, in groups of registers.
#[derive(Clone, Copy)]
struct Tile {
    queries: usize,
    blocks: usize,
    lmul: Lmul,
}

impl Tile {
    /// The sums of all queries take up to sixteen registers.
    fn new(block: Option<Lmul>, queries: usize) -> Tile {
        let Some(block) = block else { return Tile { queries, blocks: 1, lmul: Lmul::M1 } };
        let registers = (16 / queries).min(8).min(K_AT.len() * block.registers());
        Tile { queries, blocks: registers / block.registers(), lmul: Lmul::of(registers) }
    }

    fn sum(self, query: usize) -> V {
        self.lmul.group(query)
    }

    /// All four elements, then one of them.
    fn group(self) -> V {
        self.lmul.group(self.queries)
    }

    fn element(self) -> V {
        self.lmul.group(self.queries + 1)
    }

    /// Loads the lanes of all blocks at [`K_AT`], which moves on.
    fn load(self, asm: &mut Asm) {
        let registers = self.lmul.registers() / self.blocks;
        for (i, at) in K_AT[..self.blocks].iter().enumerate() {
            let to = V::new(self.queries * self.lmul.registers() + i * registers);
            asm.word(match (self.blocks, registers) {
                (1, _) => vle32(to, *at),
                (_, 1) => vl1re8(to, *at),
                (_, 2) => vl2re8(to, *at),
                (_, 4) => vl4re8(to, *at),
                (_, other) => unreachable!("no block fills {other} registers"),
            });
            asm.word(addi(*at, *at, int(GROUP * BLOCK)));
        }
    }
}

/// `extern "C" fn(codes, k, d, queries, out, stride, blocks)`; returns its stack in bytes.
pub(super) fn emit(asm: &mut Asm) -> u32 {
    FRAME.enter(asm);
    let padded = TMP;
    put(asm, &[addi(K_BYTES, CODES, int(GROUP - 1)), andi(K_BYTES, K_BYTES, -int(GROUP))]);
    put(asm, &[slli(K_BYTES, K_BYTES, BLOCK.trailing_zeros())]);
    put(asm, &[addi(padded, CODES, int(BLOCK - 1)), andi(padded, padded, -int(BLOCK)), slli(padded, padded, 1)]);
    put(asm, &[addi(CODES, padded, int(QueryCodes::HIGH)), add(Q_BYTES, CODES, padded)]);
    by_register_bytes(asm, &BLOCK_REGISTERS, |asm, block| {
        for queries in QUERIES_AT_ONCE {
            let tile = Tile::new(block, queries);
            while_left(asm, QUERIES, queries, |asm| {
                let done = asm.label();
                put(asm, &[mv(K, FIRST_K), mv(OUT, FIRST_OUT), mv(BLOCKS_LEFT, BLOCKS)]);
                asm.branch(beq(BLOCKS_LEFT, ZERO), done, patch_branch);
                let again = asm.bound();
                blocks(asm, tile);
                asm.branch(bne(BLOCKS_LEFT, ZERO), again, patch_branch);
                asm.bind(done);
                for _ in 0..queries {
                    put(asm, &[add(FIRST_Q, FIRST_Q, Q_BYTES), add(FIRST_OUT, FIRST_OUT, STRIDE)]);
                }
            });
        }
        FRAME.leave(asm);
    });
    // Twelve words, of which one is padding.
    FRAME.bytes() as u32
}

/// The scores of the next blocks, as many as a tile has and are left.
fn blocks(asm: &mut Asm, tile: Tile) {
    let all = asm.label();
    asm.word(li(COUNT, int(tile.blocks)));
    asm.branch(bge(BLOCKS_LEFT, COUNT), all, patch_branch);
    asm.word(mv(COUNT, BLOCKS_LEFT));
    asm.bind(all);
    put(asm, &[sub(BLOCKS_LEFT, BLOCKS_LEFT, COUNT), slli(TMP, COUNT, BLOCK.trailing_zeros())]);
    asm.word(vsetvli(ZERO, TMP, Sew::E32, tile.lmul));
    put(asm, &[mv(K_AT[0], K), add(K_END, K, K_BYTES)]);
    for (i, pair) in K_AT[..tile.blocks].windows(2).enumerate() {
        // What is not there is the last one again, and not stored.
        let none = asm.label();
        put(asm, &[mv(pair[1], pair[0]), li(TMP, int(i + 1))]);
        asm.branch(bge(TMP, COUNT), none, patch_branch);
        asm.word(add(pair[1], pair[1], K_BYTES));
        asm.bind(none);
    }
    dots(asm, tile);
    asm.word(mv(OUT_AT, OUT));
    for (query, scale) in SCALES[..tile.queries].iter().enumerate() {
        let sum = tile.sum(query);
        put(asm, &[vfcvt_f_x_v(sum, sum), vfmul_vf(sum, sum, *scale), vse32(sum, OUT_AT)]);
        asm.word(add(OUT_AT, OUT_AT, STRIDE));
    }
    put(asm, &[mul(TMP, COUNT, K_BYTES), add(K, K, TMP)]);
    put(asm, &[slli(TMP, COUNT, (4 * BLOCK).trailing_zeros()), add(OUT, OUT, TMP)]);
}

/// The dot products of the blocks at [`K_AT`] with each query, and the queries' scales.
fn dots(asm: &mut Asm, tile: Tile) {
    let queries = &Q_AT[..tile.queries];
    for query in 0..tile.queries {
        asm.word(if query == 0 { mv(Q_AT[0], FIRST_Q) } else { add(Q_AT[query], Q_AT[query - 1], Q_BYTES) });
        put(asm, &[flw(SCALES[query], int(QueryCodes::SCALE), Q_AT[query]), vmv_v_i(tile.sum(query), 0)]);
    }
    queries.iter().for_each(|at| asm.word(add(*at, *at, CODES)));
    let again = asm.bound();
    tile.load(asm);
    let (group, element) = (tile.group(), tile.element());
    for i in 0..GROUP {
        for (at, code) in queries.iter().zip(CODE) {
            asm.word(lh(code, int(2 * i), *at));
        }
        let mut from = group;
        if i + 1 < GROUP {
            asm.word(vsll_vi(element, group, 8 * (GROUP - 1 - i) as u32));
            from = element;
        }
        asm.word(vsra_vi(element, from, 8 * (GROUP - 1) as u32));
        for (query, code) in CODE[..tile.queries].iter().enumerate() {
            asm.word(vmacc_vx(tile.sum(query), *code, element));
        }
    }
    queries.iter().for_each(|at| asm.word(addi(*at, *at, int(2 * GROUP))));
    asm.branch(bne(K_AT[0], K_END), again, patch_branch);
}
