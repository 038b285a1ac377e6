//! Scores over codes: keys come in blocks of sixteen positions, four elements of each position side by side.
//!
//! `sdot` sums four elements of four positions; its other operand is a word of a plane, of which a register holds four.
//! Without it, elements are parted while they are loaded and meet the whole codes of 16 bits.

use tcc_ir::attention_codes::{PLANE_BITS, QueryCodes};

use super::super::floats::{repeat, while_left};
use super::super::inst::{A64, V, X};
use super::BLOCK_BYTES;

/// The first of the current queries.
const Q: X = X(0);
const K: X = X(1);
/// Elements of a query, then groups of four of them.
const GROUPS: X = X(2);
const QUERIES: X = X(3);
const FIRST_OUT: X = X(4);
const STRIDE: X = X(5);
const BLOCKS: X = X(6);
/// Bytes from the codes of one query to those of the next.
const Q_BYTES: X = X(7);
/// Elements of a plane.
const PADDED: X = X(8);
/// The current block, what is read of it, and where its scores go.
const BLOCK: X = X(9);
const K_AT: X = X(10);
const OUT: X = X(11);
const BLOCKS_LEFT: X = X(12);
const STEPS_LEFT: X = X(13);
/// Running addresses in the codes of the current queries; then of their scales and scores.
const Q_AT: [X; 4] = [X(14), X(15), X(16), X(17)];
const SCALE_AT: X = Q_AT[0];
const OUT_AT: X = Q_AT[1];

/// Sums are in the upper sixteen registers.
const SCALE: V = V(0);
const SUMS: usize = 16;

/// Queries that share what is loaded, and registers of four positions each that are loaded together.
#[derive(Clone, Copy)]
struct Tile {
    queries: usize,
    width: usize,
}

/// Registers of a block.
const BLOCK_WIDTH: usize = 4;

/// `extern "C" fn(codes, k, d, queries, out, stride, blocks)`, with `sdot`.
pub(super) fn emit_dotprod(a: &mut A64) {
    // The sums of both planes take sixteen registers.
    let tiles = [(4, 2), (2, 4), (1, 4)].map(|(queries, width)| Tile { queries, width });
    for_tiles(a, tiles, |a, tile| {
        for first in (0..BLOCK_WIDTH).step_by(tile.width) {
            dotprod::dots(a, tile, first);
            store(a, tile, first, |a, query, register| dotprod::join(a, tile, query, register));
        }
    });
}

/// The same without `sdot`.
pub(super) fn emit(a: &mut A64) {
    let tiles = [4, 2, 1].map(|queries| Tile { queries, width: BLOCK_WIDTH });
    for_tiles(a, tiles, |a, tile| {
        neon::dots(a, tile);
        store(a, tile, 0, |_, query, register| neon::sum(query, register));
    });
}

/// Runs `body` for each block of keys and each tile of queries.
fn for_tiles(a: &mut A64, tiles: [Tile; 3], body: impl Fn(&mut A64, Tile)) {
    a.add_imm(PADDED, GROUPS, 15);
    a.lsr(PADDED, PADDED, 4);
    a.mov_imm(Q_BYTES, QueryCodes::HIGH as i64);
    a.add_lsl(Q_BYTES, Q_BYTES, PADDED, 6);
    a.mov_imm(K_AT, 0);
    a.add_lsl(PADDED, K_AT, PADDED, 4);
    a.add_imm(GROUPS, GROUPS, 3);
    a.lsr(GROUPS, GROUPS, 2);
    for tile in tiles {
        while_left(a, QUERIES, tile.queries as i64, |a| {
            a.mov(BLOCK, K);
            a.mov(OUT, FIRST_OUT);
            a.mov(BLOCKS_LEFT, BLOCKS);
            repeat(a, BLOCKS_LEFT, |a| {
                body(a, tile);
                a.add_lsl(BLOCK, BLOCK, GROUPS, 6);
                a.add_imm(OUT, OUT, BLOCK_BYTES);
            });
            for _ in 0..tile.queries {
                a.add(Q, Q, Q_BYTES);
                a.add(FIRST_OUT, FIRST_OUT, STRIDE);
            }
        });
    }
}

/// Addresses behind the first, a query apart.
fn other_queries(a: &mut A64, tile: Tile) {
    for pair in Q_AT[..tile.queries].windows(2) {
        a.add(pair[1], pair[0], Q_BYTES);
    }
}

/// Scales and stores the sums of each query, which `sum` leaves in a register; `first` is the first of the block.
fn store(a: &mut A64, tile: Tile, first: usize, sum: impl Fn(&mut A64, usize, usize) -> V) {
    a.mov(SCALE_AT, Q);
    a.add_imm(OUT_AT, OUT, 16 * first as i64);
    for query in 0..tile.queries {
        a.ldr_s(SCALE, SCALE_AT, QueryCodes::SCALE as i64);
        a.dup_s(SCALE, SCALE);
        let sums: Vec<_> = (0..tile.width).map(|register| sum(a, query, register)).collect();
        sums.iter().for_each(|sum| a.scvtf(*sum, *sum));
        sums.iter().for_each(|sum| a.fmul(*sum, *sum, SCALE));
        for (i, pair) in sums.chunks(2).enumerate() {
            a.stp_q(pair[0], pair[1], OUT_AT, 32 * i as i64);
        }
        if query + 1 < tile.queries {
            a.add(SCALE_AT, SCALE_AT, Q_BYTES);
            a.add(OUT_AT, OUT_AT, STRIDE);
        }
    }
}

/// Sums of both planes by `sdot`.
mod dotprod {
    use super::*;

    /// Groups that a register of a plane holds.
    const GROUPS_AT_ONCE: usize = 4;

    fn sum(tile: Tile, query: usize, plane: usize, register: usize) -> V {
        V((SUMS + (2 * query + plane) * tile.width + register) as u8)
    }

    fn plane_of(query: usize, plane: usize) -> V {
        V((2 * query + plane) as u8)
    }

    /// Keys of as many groups as eight registers hold.
    fn keys(tile: Tile, group: usize, register: usize) -> V {
        V((8 + (group * tile.width + register) % 8) as u8)
    }

    /// The sums of registers `first`.. of the current block.
    pub fn dots(a: &mut A64, tile: Tile, first: usize) {
        for register in 0..2 * tile.queries * tile.width {
            a.movi(V((SUMS + register) as u8), 0);
        }
        a.add_imm(Q_AT[0], Q, QueryCodes::HIGH as i64);
        other_queries(a, tile);
        a.add_imm(K_AT, BLOCK, 16 * first as i64);
        a.lsr(STEPS_LEFT, GROUPS, 2);
        repeat(a, STEPS_LEFT, |a| {
            load_planes(a, tile);
            load_keys(a, tile, 0);
            for group in 0..GROUPS_AT_ONCE {
                if group + 1 < GROUPS_AT_ONCE {
                    load_keys(a, tile, group + 1);
                }
                multiply(a, tile, group);
            }
            a.add_imm(K_AT, K_AT, GROUPS_AT_ONCE as i64 * BLOCK_BYTES);
        });
        let done = a.asm.label();
        a.and_3(STEPS_LEFT, GROUPS);
        a.cbz(STEPS_LEFT, done);
        load_planes(a, tile);
        for group in 0..GROUPS_AT_ONCE - 1 {
            load_keys(a, tile, group);
            multiply(a, tile, group);
            if group + 2 < GROUPS_AT_ONCE {
                a.cmp_imm(STEPS_LEFT, group as i64 + 2);
                a.b_lo(done);
            }
        }
        a.asm.bind(done);
    }

    /// The next sixteen elements of both planes of each query.
    fn load_planes(a: &mut A64, tile: Tile) {
        for (query, at) in Q_AT[..tile.queries].iter().enumerate() {
            a.ldr_q_at(plane_of(query, 1), *at, PADDED);
            a.ldr_q_post(plane_of(query, 0), *at, 16);
        }
    }

    fn load_keys(a: &mut A64, tile: Tile, group: usize) {
        for register in (0..tile.width).step_by(2) {
            let [first, second] = [0, 1].map(|i| keys(tile, group, register + i));
            a.ldp_q(first, second, K_AT, group as i64 * BLOCK_BYTES + 16 * register as i64);
        }
    }

    fn multiply(a: &mut A64, tile: Tile, group: usize) {
        for query in 0..tile.queries {
            for plane in 0..2 {
                for register in 0..tile.width {
                    let sum = sum(tile, query, plane, register);
                    a.sdot_lane(sum, keys(tile, group, register), plane_of(query, plane), group as i64);
                }
            }
        }
    }

    /// The sums of the codes themselves.
    pub fn join(a: &mut A64, tile: Tile, query: usize, register: usize) -> V {
        let [high, low] = [0, 1].map(|plane| sum(tile, query, plane, register));
        a.shl_s(high, high, PLANE_BITS.into());
        a.add_s(high, high, low);
        high
    }
}

/// Sums of codes of 16 bits.
mod neon {
    use super::*;

    /// Groups whose codes a register holds.
    const GROUPS_AT_ONCE: usize = 2;
    /// Four elements of sixteen positions, a register each, as bytes and as two registers of 16 bits.
    const BYTES: usize = 4;
    const WIDE: usize = 8;

    pub fn sum(query: usize, register: usize) -> V {
        V((SUMS + BLOCK_WIDTH * query + register) as u8)
    }

    /// The next eight codes of a query.
    fn codes(query: usize) -> V {
        V(query as u8)
    }

    /// The sums of the current block.
    pub fn dots(a: &mut A64, tile: Tile) {
        for query in 0..tile.queries {
            (0..BLOCK_WIDTH).for_each(|register| a.movi(sum(query, register), 0));
        }
        a.add_imm(Q_AT[0], Q, QueryCodes::HIGH as i64);
        a.add_lsl(Q_AT[0], Q_AT[0], PADDED, 1);
        other_queries(a, tile);
        a.mov(K_AT, BLOCK);
        a.lsr(STEPS_LEFT, GROUPS, 1);
        repeat(a, STEPS_LEFT, |a| {
            load_codes(a, tile);
            (0..GROUPS_AT_ONCE).for_each(|group| multiply(a, tile, group));
        });
        let done = a.asm.label();
        a.and_1(STEPS_LEFT, GROUPS);
        a.cbz(STEPS_LEFT, done);
        load_codes(a, tile);
        multiply(a, tile, 0);
        a.asm.bind(done);
    }

    fn load_codes(a: &mut A64, tile: Tile) {
        for (query, at) in Q_AT[..tile.queries].iter().enumerate() {
            a.ldr_q_post(codes(query), *at, 16);
        }
    }

    /// Adds the next group of elements.
    fn multiply(a: &mut A64, tile: Tile, group: usize) {
        a.ld4_b(K_AT);
        for element in 0..4 {
            let bytes = V((BYTES + element) as u8);
            a.sshll_h(V((WIDE + 2 * element) as u8), bytes);
            a.sshll2_h(V((WIDE + 2 * element + 1) as u8), bytes);
        }
        for element in 0..4 {
            for query in 0..tile.queries {
                for register in 0..BLOCK_WIDTH {
                    let multiply = if register % 2 == 0 { A64::smlal_lane } else { A64::smlal2_lane };
                    let wide = V((WIDE + 2 * element + register / 2) as u8);
                    multiply(a, sum(query, register), wide, codes(query), (4 * group + element) as i64);
                }
            }
        }
    }
}
