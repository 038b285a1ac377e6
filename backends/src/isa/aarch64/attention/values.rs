//! Sums of values: lanes are elements of a value.

use super::super::floats::{repeat, while_left};
use super::super::inst::{A64, V, X};
use super::registers;

const E: X = X(0);
const FIRST_V: X = X(1);
const D: X = X(2);
const QUERIES: X = X(3);
const SUMS: X = X(4);
const STRIDE: X = X(5);
const POSITIONS: X = X(6);
/// Bytes of a value.
const ROW: X = X(7);
const V_AT: X = X(8);
const V_LANE: X = X(9);
const LEFT: X = X(10);
const SUMS_LANE: X = X(11);
const AT: X = X(12);
/// Running addresses in the factors of the current queries, and positions left.
const E_AT: [X; 4] = [X(13), X(14), X(15), X(16)];
const POSITIONS_LEFT: X = X(17);

/// Queries that share what is loaded, most first.
const QUERIES_AT_ONCE: [usize; 3] = [4, 2, 1];
/// Value lanes summed side by side, most first.
const VALUE_LANES: [i64; 3] = [16, 4, 1];
/// Positions whose factors are loaded together.
const FACTORS: usize = 4;

/// First registers of sums, values and factors.
const SUM: usize = 0;
const VALUE: usize = 16;
const FACTOR: usize = 20;

/// Queries and value lanes of one inner loop.
#[derive(Clone, Copy)]
struct Tile {
    queries: usize,
    lanes: i64,
}

impl Tile {
    /// Registers of the lanes of one query.
    fn width(self) -> usize {
        ((self.lanes + 3) / 4) as usize
    }

    fn sums(self, query: usize) -> impl Iterator<Item = V> {
        (0..self.width()).map(move |i| V((SUM + self.width() * query + i) as u8))
    }

    fn values(self) -> impl Iterator<Item = V> {
        (0..self.width()).map(|i| V((VALUE + i) as u8))
    }

    /// Loads the lanes at `at`, or the only one.
    fn load(self, a: &mut A64, registers: impl Iterator<Item = V>, at: X) {
        for (i, register) in registers.enumerate() {
            match self.lanes {
                1 => a.ldr_s(register, at, 0),
                _ => a.ldr_q(register, at, 16 * i as i64),
            }
        }
    }
}

/// `extern "C" fn(e, v, d, queries, sums, stride, positions)`.
pub(super) fn emit(a: &mut A64) {
    a.mov_imm(ROW, 0);
    a.add_lsl(ROW, ROW, D, 2);
    for queries in QUERIES_AT_ONCE {
        while_left(a, QUERIES, queries as i64, |a| {
            a.mov(V_LANE, FIRST_V);
            a.mov(SUMS_LANE, SUMS);
            a.mov(LEFT, D);
            for lanes in VALUE_LANES {
                while_left(a, LEFT, lanes, |a| {
                    tile(a, Tile { queries, lanes });
                    a.add_imm(V_LANE, V_LANE, 4 * lanes);
                    a.add_imm(SUMS_LANE, SUMS_LANE, 4 * lanes);
                });
            }
            for _ in 0..queries {
                a.add(E, E, STRIDE);
                a.add(SUMS, SUMS, ROW);
            }
        });
    }
}

/// Adds all positions to the sums of a tile.
fn tile(a: &mut A64, tile: Tile) {
    a.mov(AT, SUMS_LANE);
    for query in 0..tile.queries {
        tile.load(a, tile.sums(query), AT);
        a.add(AT, AT, ROW);
    }
    a.mov(V_AT, V_LANE);
    a.mov(E_AT[0], E);
    for pair in E_AT[..tile.queries].windows(2) {
        a.add(pair[1], pair[0], STRIDE);
    }
    a.lsr(POSITIONS_LEFT, POSITIONS, 2);
    repeat(a, POSITIONS_LEFT, |a| {
        for (query, at) in E_AT[..tile.queries].iter().enumerate() {
            a.ldr_q_post(V((FACTOR + query) as u8), *at, 4 * FACTORS as i64);
        }
        (0..FACTORS).for_each(|lane| position(a, tile, lane));
    });
    a.and_3(POSITIONS_LEFT, POSITIONS);
    repeat(a, POSITIONS_LEFT, |a| {
        for (query, at) in E_AT[..tile.queries].iter().enumerate() {
            a.ldr_s_post(V((FACTOR + query) as u8), *at, 4);
        }
        position(a, tile, 0);
    });
    a.mov(AT, SUMS_LANE);
    for query in 0..tile.queries {
        for (i, register) in tile.sums(query).enumerate() {
            match tile.lanes {
                1 => a.str_s(register, AT, 0),
                _ => a.str_q(register, AT, 16 * i as i64),
            }
        }
        a.add(AT, AT, ROW);
    }
}

/// One position, whose factors are in lane `lane`; moves `V_AT` past it.
fn position(a: &mut A64, tile: Tile, lane: usize) {
    if tile.width() == 4 {
        let [first, second, third, fourth] = registers(VALUE);
        a.ldp_q(first, second, V_AT, 0);
        a.ldp_q(third, fourth, V_AT, 32);
    } else {
        tile.load(a, tile.values(), V_AT);
    }
    a.add(V_AT, V_AT, ROW);
    for query in 0..tile.queries {
        for (sum, value) in tile.sums(query).zip(tile.values()) {
            a.fmla_lane(sum, value, V((FACTOR + query) as u8), lane as i64);
        }
    }
}
