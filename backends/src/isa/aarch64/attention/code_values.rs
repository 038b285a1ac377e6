//! Sums of values over codes: four positions of each lane lie side by side.
//!
//! `sdot` sums four positions of four lanes; its other operand is a word of a plane of weights, of which a register
//! holds a block. Without it, positions are parted while they are loaded, are widened once for all queries, and meet the
//! whole codes of 16 bits; what a call adds becomes two parts at its end.

use tcc_ir::attention_codes::{PLANE, PLANE_BITS, WeightCodes};

use super::super::floats::{repeat, while_left};
use super::super::inst::{A64, V, X};

const W: X = X(0);
const FIRST_V: X = X(1);
/// Lanes; then, without `sdot`, what a row has behind sixteen of them, in bytes.
const LANES: X = X(2);
const GAP: X = LANES;
const QUERIES: X = X(3);
const SUMS: X = X(4);
const STRIDE: X = X(5);
const BLOCKS: X = X(6);
/// Bytes of four positions, and of the sums of a plane.
const ROW: X = X(7);
const V_AT: X = X(8);
const V_LANE: X = X(9);
const LANES_LEFT: X = X(10);
const SUMS_LANE: X = X(11);
const AT: X = X(12);
const BLOCKS_LEFT: X = X(13);
/// Running addresses in the weights of the current queries.
const W_AT: [X; 4] = [X(14), X(15), X(16), X(17)];

/// Groups of four positions in a block.
const GROUPS: usize = 4;

/// Queries and lanes of one inner loop.
#[derive(Clone, Copy)]
struct Tile {
    queries: usize,
    lanes: usize,
}

impl Tile {
    /// Registers of four lanes, or of the only one.
    fn width(self) -> usize {
        self.lanes.div_ceil(4)
    }

    /// Loads or stores registers at `at` as 32-bit lanes.
    fn load(self, a: &mut A64, registers: &[V], at: X) {
        match registers {
            [one] if self.lanes == 1 => a.ldr_s(*one, at, 0),
            [one] => a.ldr_q(*one, at, 0),
            more => {
                for (i, pair) in more.chunks(2).enumerate() {
                    a.ldp_q(pair[0], pair[1], at, 32 * i as i64);
                }
            }
        }
    }

    fn store(self, a: &mut A64, register: V, at: X, index: usize) {
        match self.lanes {
            1 => a.str_s(register, at, 0),
            _ => a.str_q(register, at, 16 * index as i64),
        }
    }
}

/// `extern "C" fn(codes, v, lanes, queries, sums, stride, blocks)`, with `sdot`.
pub(super) fn emit_dotprod(a: &mut A64) {
    a.mov_imm(ROW, 0);
    a.add_lsl(ROW, ROW, LANES, 2);
    // The sums of both planes take sixteen registers.
    for (queries, lanes) in [(4, [8, 4, 1].as_slice()), (2, &[16, 4, 1]), (1, &[16, 4, 1])] {
        for_tiles(a, queries, lanes, dotprod::add_values);
    }
}

/// The same without `sdot`.
pub(super) fn emit(a: &mut A64) {
    a.mov_imm(ROW, 0);
    a.add_lsl(ROW, ROW, LANES, 2);
    // Negative where nothing reads it.
    a.sub_imm(GAP, ROW, 4 * neon::WHOLE as i64);
    for queries in [4, 2, 1] {
        for_tiles(a, queries, &[neon::WHOLE, 4, 1], neon::add_values);
    }
}

/// Runs `body` for all lanes of `queries` queries at a time.
fn for_tiles(a: &mut A64, queries: usize, lanes: &[usize], body: fn(&mut A64, Tile)) {
    while_left(a, QUERIES, queries as i64, |a| {
        a.mov(V_LANE, FIRST_V);
        a.mov(SUMS_LANE, SUMS);
        a.lsr(LANES_LEFT, ROW, 2);
        for lanes in lanes {
            while_left(a, LANES_LEFT, *lanes as i64, |a| {
                body(a, Tile { queries, lanes: *lanes });
                a.add_imm(V_LANE, V_LANE, 4 * *lanes as i64);
                a.add_imm(SUMS_LANE, SUMS_LANE, 4 * *lanes as i64);
            });
        }
        for _ in 0..queries {
            a.add(W, W, STRIDE);
            a.add_lsl(SUMS, SUMS, ROW, 1);
        }
    });
}

/// Puts running addresses at the first block, those of weights at `part` of it.
fn begin(a: &mut A64, tile: Tile, part: usize) {
    a.mov(V_AT, V_LANE);
    a.add_imm(W_AT[0], W, part as i64);
    for pair in W_AT[..tile.queries].windows(2) {
        a.add(pair[1], pair[0], STRIDE);
    }
    a.mov(BLOCKS_LEFT, BLOCKS);
}

/// Sums by `sdot`.
mod dotprod {
    use super::*;

    fn sums(tile: Tile, query: usize, plane: usize) -> Vec<V> {
        (0..tile.width()).map(|i| V(((2 * query + plane) * tile.width() + i) as u8)).collect()
    }

    fn weights(query: usize, plane: usize) -> V {
        V((16 + 2 * query + plane) as u8)
    }

    /// Values of as many groups as eight registers hold.
    fn values(tile: Tile, group: usize) -> Vec<V> {
        (0..tile.width()).map(|i| V((24 + (group * tile.width() + i) % 8) as u8)).collect()
    }

    /// Adds all positions to the sums of a tile.
    pub fn add_values(a: &mut A64, tile: Tile) {
        for_sums(a, tile, |a, registers| tile.load(a, registers, AT));
        begin(a, tile, WeightCodes::HIGH);
        repeat(a, BLOCKS_LEFT, |a| block(a, tile));
        for_sums(a, tile, |a, registers| {
            registers.iter().enumerate().for_each(|(i, register)| tile.store(a, *register, AT, i));
        });
    }

    /// Runs `access` for the sums at [`AT`] of each query and plane.
    fn for_sums(a: &mut A64, tile: Tile, access: impl Fn(&mut A64, &[V])) {
        a.mov(AT, SUMS_LANE);
        for query in 0..tile.queries {
            for plane in 0..2 {
                access(a, &sums(tile, query, plane));
                a.add(AT, AT, ROW);
            }
        }
    }

    fn block(a: &mut A64, tile: Tile) {
        for (query, at) in W_AT[..tile.queries].iter().enumerate() {
            a.ldp_q_post(weights(query, 0), weights(query, 1), *at, WeightCodes::BYTES as i64);
        }
        let load = |a: &mut A64, group: usize| {
            tile.load(a, &values(tile, group), V_AT);
            a.add(V_AT, V_AT, ROW);
        };
        load(a, 0);
        for group in 0..GROUPS {
            if group + 1 < GROUPS {
                load(a, group + 1);
            }
            for query in 0..tile.queries {
                for plane in 0..2 {
                    for (sum, value) in sums(tile, query, plane).into_iter().zip(values(tile, group)) {
                        a.sdot_lane(sum, value, weights(query, plane), group as i64);
                    }
                }
            }
        }
    }
}

/// Sums of whole codes.
mod neon {
    use super::*;

    /// Lanes that `ld4` parts. Fewer are not: each of them then has a register of sums, a lane for each position.
    pub const WHOLE: usize = 16;

    /// Four positions of sixteen lanes, a register each; at the end, sums in memory.
    const LOADED: [V; 4] = [V(4), V(5), V(6), V(7)];
    /// The second of the wide positions: for few lanes, codes of a group in both halves; at the end, the bits of the low
    /// part.
    const BOTH: V = V(10);
    const LOW_MASK: V = V(10);

    /// Sums of four lanes, or of one.
    fn sum(query: usize, register: usize) -> V {
        V((16 + 4 * query + register) as u8)
    }

    /// Eight codes: those of the first or second two groups of a block. Elements are of the lower sixteen registers.
    fn codes(query: usize, half: usize) -> V {
        V((2 * query + half + if query < 2 { 0 } else { 8 }) as u8)
    }

    /// Half the lanes of a position in 16 bits, or two of few lanes.
    fn wide(position: usize, half: usize) -> V {
        V((8 + 2 * (position % 2) + half) as u8)
    }

    /// Adds all positions to the sums of a tile.
    pub fn add_values(a: &mut A64, tile: Tile) {
        let used = tile.lanes.min(4);
        for query in 0..tile.queries {
            (0..used).for_each(|register| a.movi(sum(query, register), 0));
        }
        begin(a, tile, WeightCodes::CODES);
        repeat(a, BLOCKS_LEFT, |a| {
            for (query, at) in W_AT[..tile.queries].iter().enumerate() {
                a.ldp_q_post(codes(query, 0), codes(query, 1), *at, WeightCodes::BYTES as i64);
            }
            for group in 0..GROUPS {
                if tile.lanes == WHOLE { whole_group(a, tile, group) } else { group_of_few(a, tile, group) }
            }
        });
        if tile.lanes < WHOLE {
            (0..tile.queries).for_each(|query| join(a, query, used));
        }
        store(a, tile);
    }

    /// Adds four positions of sixteen lanes.
    fn whole_group(a: &mut A64, tile: Tile, group: usize) {
        a.ld4_b(V_AT);
        a.add(V_AT, V_AT, GAP);
        let widen = |a: &mut A64, position: usize| {
            a.sshll_h(wide(position, 0), LOADED[position]);
            a.sshll2_h(wide(position, 1), LOADED[position]);
        };
        widen(a, 0);
        for position in 0..4 {
            if position < 3 {
                widen(a, position + 1);
            }
            for query in 0..tile.queries {
                for register in 0..4 {
                    let multiply = if register % 2 == 0 { A64::smlal_lane } else { A64::smlal2_lane };
                    let (values, codes) = (wide(position, register / 2), codes(query, group / 2));
                    multiply(a, sum(query, register), values, codes, (4 * (group % 2) + position) as i64);
                }
            }
        }
    }

    /// Adds four positions of four lanes or one.
    fn group_of_few(a: &mut A64, tile: Tile, group: usize) {
        tile.load(a, &LOADED[..1], V_AT);
        a.add(V_AT, V_AT, ROW);
        a.sshll_h(wide(0, 0), LOADED[0]);
        a.sshll2_h(wide(0, 1), LOADED[0]);
        for query in 0..tile.queries {
            let repeat: [fn(&mut A64, V, V, V); 2] = [A64::trn1_d, A64::trn2_d];
            let codes = codes(query, group / 2);
            repeat[group % 2](a, BOTH, codes, codes);
            for lane in 0..tile.lanes {
                let multiply = if lane.is_multiple_of(2) { A64::smlal_h } else { A64::smlal2_h };
                multiply(a, sum(query, lane), wide(0, lane / 2), BOTH);
            }
        }
    }

    /// Adds the positions of `lanes` lanes, which become those of the first register.
    fn join(a: &mut A64, query: usize, lanes: usize) {
        let [first, second, third, fourth] = [0, 1, 2, 3].map(|lane| sum(query, lane % lanes));
        a.addp_s(first, first, second);
        if lanes > 1 {
            a.addp_s(third, third, fourth);
        }
        a.addp_s(first, first, third);
    }

    /// Adds the high and the low part of each sum to those in memory.
    fn store(a: &mut A64, tile: Tile) {
        a.mov_imm(AT, i64::from(PLANE) - 1);
        a.dup_w(LOW_MASK, AT);
        a.mov(AT, SUMS_LANE);
        for query in 0..tile.queries {
            for is_high in [true, false] {
                let loaded = &LOADED[..tile.width()];
                tile.load(a, loaded, AT);
                for (i, loaded) in loaded.iter().enumerate() {
                    let sum = sum(query, i);
                    if is_high {
                        a.ssra_s(*loaded, sum, PLANE_BITS.into());
                    } else {
                        a.and_v(sum, sum, LOW_MASK);
                        a.add_s(*loaded, *loaded, sum);
                    }
                    tile.store(a, *loaded, AT, i);
                }
                a.add(AT, AT, ROW);
            }
        }
    }
}
