//! How the positions of a tile are cut into pieces, where cores would have no tile, and what the cores of a tile share.
//!
//! How many units the rows see is known when the program runs: each piece has as many as the longest, the last ones fewer or
//! none. The pieces of a group's vector cores follow each other, so that both have the same number of units; the second one
//! may have one more than there is, which no row sees.

use super::super::Attention;
use super::plan::{Cores, POSITIONS, Tile};
use crate::isa::matrix::lower::vector::cache::pitch;

/// Units whose exponentials are added up together at most, a power of two: blocks of an instruction are at most 255 blocks
/// apart; and pairs of queries and units.
const MOST_ADDED: usize = 16;
const MOST_ADDED_PAIRS: usize = 256;

/// Bytes that an offset behind a register reaches.
const FARTHEST: usize = 1 << 26;

/// Tiles that a group has pieces of at most.
const MOST_ROUNDS: usize = 3;

/// How tiles are cut, and offsets in what the cores of a tile share in global memory.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Groups that work on a tile, and pieces of each, one for a core.
    pub groups: usize,
    pub per: usize,
    /// Token rows of all, and of those that a core ends.
    rows: usize,
    pub ended: usize,
    /// Scores, then weights: `f32[units of the cache and one][queries][64]`, in front; exponentials, the same.
    pub exps: usize,
    /// The largest score of each query in each piece, then the largest weight: `f32[2][pieces][queries in eights]`.
    pub largest: usize,
    /// The sums of exponentials: `f32[2 halves][queries][8]`.
    pub sums: usize,
    /// Sums of values of each piece: `s32[pieces][2 planes][queries][pitch]`.
    pub planes: usize,
    pub tile_bytes: usize,
}

impl Cut {
    /// All ways to cut the positions of tiles of all rows.
    pub fn all(a: &Attention, cores: &Cores) -> Vec<Cut> {
        let tiles = a.parts();
        // Cores would share blocks of 32 bytes of the results, if several stored them.
        let is_shared = a.cache.d.is_multiple_of(8);
        if !cores.meet || tiles > if is_shared { cores.cubes } else { 1 } {
            return vec![];
        }
        let units = a.cache.ctx.div_ceil(POSITIONS);
        let groups = 1..=(MOST_ROUNDS * cores.cubes / tiles).min(units);
        // As few rows as there are cores for.
        let most = if is_shared { cores.cubes * cores.together() } else { 1 };
        let ended = (1..=a.m).find(|rows| a.m.is_multiple_of(*rows) && a.m / rows * tiles <= most).unwrap_or(a.m);
        let cuts = groups.map(|groups| Cut::of(a, (groups, cores.together()), ended));
        cuts.filter(|cut| cut.pieces() > 1 && cut.tile_bytes < FARTHEST).collect()
    }

    fn of(a: &Attention, (groups, per): (usize, usize), ended: usize) -> Cut {
        let (queries, pieces) = (a.m * a.heads_together(), groups * per);
        let mut next = 0;
        let mut take = |bytes: usize| {
            let at = next;
            next += bytes.next_multiple_of(512);
            at
        };
        let pairs = 4 * queries * POSITIONS * (a.cache.ctx.div_ceil(POSITIONS) + 1);
        take(pairs);
        let (exps, largest) = (take(pairs), take(2 * pieces * largest_bytes(queries)));
        let (sums, planes) = (take(64 * queries), take(pieces * planes_bytes(queries, pitch(&a.cache))));
        Cut { groups, per, rows: a.m, ended, exps, largest, sums, planes, tile_bytes: next }
    }

    pub fn pieces(&self) -> usize {
        self.groups * self.per
    }

    /// Parts of a tile's rows that are ended apart.
    pub fn ends(&self) -> usize {
        self.rows / self.ended
    }

    /// Bytes in UB for what passes have and exponentials that are added up, if the tile has all rows; for the sums and the
    /// largest weights of all pieces, if it has those that are ended together.
    pub fn ub_bytes(&self, tile: &Tile, pitch: usize) -> usize {
        let (queries, largest) = (tile.queries(), self.pieces() * largest_bytes(tile.queries()));
        let passes = (5 * tile.array()).max(most_added(queries) * 4 * tile.pairs()).max(largest);
        let ends = self.pieces() * planes_bytes(queries, pitch) + largest;
        let of = |rows: usize, bytes: usize| if tile.rows == rows { bytes } else { 0 };
        of(self.rows, passes).max(of(self.ended, ends))
    }
}

/// Units whose exponentials are added up together, from most to one.
pub fn added_units(queries: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(most_added(queries)), |units| (*units > 1).then_some(units / 2))
}

fn most_added(queries: usize) -> usize {
    let fits = |units: &usize| units * queries <= MOST_ADDED_PAIRS;
    std::iter::successors(Some(MOST_ADDED), |units| Some(units / 2))
        .find(|units| *units == 1 || fits(units))
        .unwrap_or(1)
}

/// Bytes of the sums of a piece.
pub fn planes_bytes(queries: usize, pitch: usize) -> usize {
    8 * queries * pitch
}

/// Bytes of an f32 for each query in whole blocks.
pub fn largest_bytes(queries: usize) -> usize {
    4 * queries.next_multiple_of(8)
}
