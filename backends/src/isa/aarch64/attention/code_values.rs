//! Sums of values over codes: four positions of each lane lie side by side.
//!
//! `sdot` sums four positions of four lanes; its other operand is a word of a plane of weights, of which a register
//! holds a block. Without it, two products at a time are summed in 16 bits, and pairs of those in 32: planes are of seven
//! bits, and 2 · 127 · 128 fits.

use tcc_ir::attention_codes::WeightCodes;

use super::super::floats::{repeat, while_left};
use super::super::inst::{A64, V, X};

const W: X = X(0);
const FIRST_V: X = X(1);
const LANES: X = X(2);
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
/// The next four positions, where two groups of them are read together.
const V_NEXT: X = X(15);

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
    for_tiles(a, 1, &[16, 4, 1], neon::add_values);
}

/// Runs `body` for all lanes of `queries` queries at a time.
fn for_tiles(a: &mut A64, queries: usize, lanes: &[usize], body: fn(&mut A64, Tile)) {
    while_left(a, QUERIES, queries as i64, |a| {
        a.mov(V_LANE, FIRST_V);
        a.mov(SUMS_LANE, SUMS);
        a.mov(LANES_LEFT, LANES);
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
        a.mov(V_AT, V_LANE);
        a.mov(W_AT[0], W);
        for pair in W_AT[..tile.queries].windows(2) {
            a.add(pair[1], pair[0], STRIDE);
        }
        a.mov(BLOCKS_LEFT, BLOCKS);
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

/// Sums of one query by products of 16 bits.
mod neon {
    use super::*;

    /// Half a register times weights.
    type Multiply = fn(&mut A64, V, V, V);

    /// Both planes of a block.
    const PLANES: [V; 2] = [V(30), V(31)];

    /// Half the lanes of a register: of each, the sums of even and odd pairs of positions.
    fn half_sum(tile: Tile, plane: usize, register: usize, half: usize) -> V {
        V((2 * (plane * tile.width() + register) + half) as u8)
    }

    /// Weights of a plane in the first or second group of two, repeated in every lane.
    fn weights(plane: usize, group: usize) -> V {
        V((16 + 2 * plane + group) as u8)
    }

    /// Two registers of either group.
    fn values(group: usize, register: usize) -> V {
        V((20 + 2 * group + register) as u8)
    }

    /// Products of half a register.
    fn products(plane: usize, half: usize) -> V {
        V((24 + 2 * plane + half) as u8)
    }

    /// Adds all positions to the sums of a tile.
    pub fn add_values(a: &mut A64, tile: Tile) {
        (0..4 * tile.width()).for_each(|register| a.movi(V(register as u8), 0));
        a.mov(V_AT, V_LANE);
        a.add(V_NEXT, V_LANE, ROW);
        a.mov(W_AT[0], W);
        a.mov(BLOCKS_LEFT, BLOCKS);
        repeat(a, BLOCKS_LEFT, |a| {
            a.ldp_q_post(PLANES[0], PLANES[1], W_AT[0], WeightCodes::BYTES as i64);
            for first in (0..GROUPS).step_by(2) {
                two_groups(a, tile, first);
            }
        });
        a.mov(AT, SUMS_LANE);
        for plane in 0..2 {
            for register in 0..tile.width() {
                let [sum, other] = [0, 1].map(|half| half_sum(tile, plane, register, half));
                a.addp_s(sum, sum, other);
                match tile.lanes {
                    1 => a.ldr_s(other, AT, 0),
                    _ => a.ldr_q(other, AT, 16 * register as i64),
                }
                a.add_s(sum, sum, other);
                tile.store(a, sum, AT, register);
            }
            a.add(AT, AT, ROW);
        }
    }

    /// Adds groups `first` and `first + 1` of a block.
    fn two_groups(a: &mut A64, tile: Tile, first: usize) {
        for (plane, codes) in PLANES.into_iter().enumerate() {
            (0..2).for_each(|group| a.dup_lane(weights(plane, group), codes, (first + group) as i64));
        }
        let registers: Vec<_> = (0..tile.width()).collect();
        for registers in registers.chunks(2) {
            for (group, at) in [V_AT, V_NEXT].into_iter().enumerate() {
                let [one, two] = [0, 1].map(|register| values(group, register));
                match registers {
                    [_] => tile.load(a, &[one], at),
                    more => a.ldp_q(one, two, at, 16 * more[0] as i64),
                }
            }
            for (i, register) in registers.iter().enumerate() {
                multiply(a, tile, *register, [0, 1].map(|group| values(group, i)));
            }
        }
        for at in [V_AT, V_NEXT] {
            a.add_lsl(at, at, ROW, 1);
        }
    }

    /// Adds the products of one register of either group.
    fn multiply(a: &mut A64, tile: Tile, register: usize, [one, other]: [V; 2]) {
        let steps: [(V, [Multiply; 2]); 2] = [(one, [A64::smull, A64::smull2]), (other, [A64::smlal, A64::smlal2])];
        for (group, (values, halves)) in steps.into_iter().enumerate() {
            for plane in 0..2 {
                for (half, multiply) in halves.into_iter().enumerate() {
                    multiply(a, products(plane, half), values, weights(plane, group));
                }
            }
        }
        for plane in 0..2 {
            (0..2).for_each(|half| a.sadalp_h(half_sum(tile, plane, register, half), products(plane, half)));
        }
    }
}
