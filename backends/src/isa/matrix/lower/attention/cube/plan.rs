//! How attention over an int8 cache is cut, and where its parts lie.

use super::super::Attention;
use super::cut::Cut;
use crate::isa::matrix::lower::emit::Emit;
use crate::isa::matrix::lower::matmul::tile::Memories;
use crate::isa::matrix::lower::model::memories;
use crate::isa::matrix::lower::stage;
use crate::isa::matrix::lower::vector::cache::pitch;
use crate::isa::matrix::lower::vector::{MASK_ZEROS, ROWS, Space, UbTooSmall};
use crate::isa::matrix::machine::{Machine, OrganisationKind};
use crate::isa::matrix::program::inst::{CrossMode, FixPath};
use crate::isa::matrix::program::ty::CubeType;

/// Positions of a unit: lanes of a repeat, which stands for one query.
pub const POSITIONS: usize = ROWS;

/// Bytes of a fractal's row.
pub const STRIP: usize = 32;

/// Bytes of the identity `s8[32, 32]`, which stays in front of L1 and of L0A.
pub const IDENTITY: usize = STRIP * STRIP;

/// Units whose scores and weights are computed together, at most, and the repeats that they may then have: longer steps
/// keep the other side waiting.
const MOST_UNITS: usize = 3;
const MOST_REPEATS: usize = 128;

/// The same where a core has a piece of a tile's positions.
const MOST_PIECE_UNITS: usize = 6;

/// Bytes of the sums of a strip of turned values: `s32[32 elements, 64 positions]`.
pub const TURNED_STRIP: usize = 4 * STRIP * POSITIONS;

/// Vector cores beside a cube at most: registers say where each one's rows are.
const MOST_TOGETHER: usize = FixPath::UBS.len();

/// The cores that share an op.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    pub memories: Memories,
    /// Cubes.
    pub cubes: usize,
    /// Vector cores beside each, or `None` where a core is both.
    pub per: Option<usize>,
    /// Sums go from L0C straight to UB of those vector cores, which have one slot of them.
    pub is_direct: bool,
    /// They can meet within a stage.
    pub meet: bool,
}

impl Cores {
    /// Those of `machine`; `None` if their cubes, or the ways between them and the vector units, are not what it takes.
    pub fn of(machine: &Machine) -> Option<Cores> {
        let path = &machine.path;
        let (per, has_ways) = match machine.org.kind {
            OrganisationKind::Coupled => (None, path.ub_l1.is_some() && path.l0c_ub.is_some()),
            OrganisationKind::Split => {
                let per = machine.org.vector_per_cube.map_or(0, |per| per.value as usize);
                let has_ways = path.l0c_l1.is_some() && machine.has_cross_core(CrossMode::Group);
                (Some(per), has_ways && (1..=MOST_TOGETHER).contains(&per))
            }
        };
        let has_cube = machine.cube_mode(CubeType::S8).is_some();
        let cubes = machine.cube_cores() as usize;
        let is_direct = per.is_some() && path.l0c_ub.is_some();
        let meet = stage::can_meet(machine);
        (has_ways && has_cube).then(|| Cores { memories: memories(machine), cubes, per, is_direct, meet })
    }

    /// Slots of sums of scores between a cube and its vector cores.
    pub fn slots_of_sums(&self) -> usize {
        if self.is_direct { 1 } else { SLOTS }
    }

    /// Tiles that a cube multiplies at the same time.
    pub fn together(&self) -> usize {
        self.per.unwrap_or(1)
    }
}

/// What is done together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Token rows, and query heads of each; query `r · heads + h`.
    pub rows: usize,
    pub heads: usize,
    /// Units of a step where every query sees all positions.
    pub units: usize,
}

impl Tile {
    pub fn queries(&self) -> usize {
        self.rows * self.heads
    }

    /// Rows of a plane in L0A: whole fractals.
    pub fn padded(&self) -> usize {
        self.queries().next_multiple_of(16)
    }

    /// Pairs of a query and a position in a unit.
    pub fn pairs(&self) -> usize {
        self.queries() * POSITIONS
    }

    /// Bytes of an f32 for each pair of a step.
    pub fn array(&self) -> usize {
        4 * self.pairs() * self.units
    }
}

/// What lies in L1, each part in whole fractals.
#[derive(Clone, Copy, Debug)]
pub struct L1 {
    /// Zeros, a strip of both planes' rows or of all elements.
    pub zeros: usize,
    /// Both planes of the query codes of a tile, `[pitch / 32][2 · padded][32]`.
    codes: (usize, usize),
    /// Both planes of the codes of weights, `[2 · units][2 · padded][32 positions]`.
    weights: (usize, usize),
    /// Slots of rows of keys or of values, `[pitch / 32][64 positions][32]`.
    rows: (usize, usize),
    /// Values with the positions of an element side by side, `[2 · units][pitch][32 positions]`: those of a step, or of all.
    turned: (usize, usize),
    end: usize,
}

impl L1 {
    /// With room for so many units of turned values.
    fn of(a: &Attention, tile: &Tile, together: usize, turned_units: usize) -> L1 {
        let (pitch, both) = (pitch(&a.cache), 2 * tile.padded());
        let mut next = IDENTITY;
        let mut take = |count: usize, bytes: usize| {
            let at = next;
            next += count * bytes;
            (at, bytes)
        };
        let (zeros, _) = take(1, both.max(pitch) * STRIP);
        let codes = take(together, both * pitch);
        let weights = take(together, POSITIONS * tile.units * both);
        let rows = take(SLOTS, POSITIONS * pitch);
        let turned = take(together, POSITIONS * turned_units * pitch);
        L1 { zeros, codes, weights, rows, turned, end: next }
    }

    /// Bytes of zeros in front: behind a tile's last query there are rows that nothing else writes.
    pub fn zeros_bytes(&self, tile: &Tile) -> usize {
        let end = if tile.padded() == tile.queries() { self.codes.0 } else { self.rows.0 };
        end - self.zeros
    }

    pub fn codes(&self, tile: usize) -> usize {
        self.codes.0 + tile * self.codes.1
    }

    pub fn rows(&self, slot: usize) -> usize {
        self.rows.0 + slot * self.rows.1
    }

    pub fn turned(&self, tile: usize) -> usize {
        self.turned.0 + tile * self.turned.1
    }

    pub fn weights(&self, tile: usize) -> usize {
        self.weights.0 + tile * self.weights.1
    }
}

/// Slots of rows in L1 and in L0B, and of sums of scores in L0C.
pub const SLOTS: usize = 2;

/// What lies in L0C: sums of scores, or those of values and behind them turned ones.
#[derive(Clone, Copy, Debug)]
pub struct L0c {
    /// Slots of sums of scores.
    pub slots: usize,
    /// Bytes of the sums of a tile's values.
    pub sums: usize,
    pub turned: usize,
    /// Strips that turned values have room for.
    pub strips: usize,
}

/// Offsets in UB. Passes use [`Ub::big`] one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Ub {
    pub big: usize,
    /// Scales of queries, and the largest score or what weights are multiplied by, in all lanes of a block each.
    pub q_scales: usize,
    pub blocks: usize,
    /// Largest of what is seen so far of each query: the largest is in one of eight lanes.
    pub largest: usize,
    /// The largest of each query, and what follows from it: of the query itself, of its scores or weights.
    pub q_largest: usize,
    pub a: usize,
    /// The largest of each block of a step.
    pub step_largest: usize,
    /// Sums of weights: low eight partials of each query, then high eight.
    pub sums: usize,
    pub bits: usize,
    /// Scales of the positions of a step.
    pub scales: usize,
    /// A row for each token row: what hides positions.
    pub mask: usize,
    pub transpose: usize,
    pub scratch: usize,
    /// A block.
    pub zeros: usize,
    /// Turned values, `s8[pitch, positions]`, where they pass through UB.
    pub turned: usize,
    /// Sums of scores, high plane and low: in [`Ub::big`] but where a cube core may write them at any time; then those of
    /// values, too.
    pub cube_sums: usize,
}

impl Ub {
    fn take(cores: &Cores, a: &Attention, tile: &Tile, cut: Option<&Cut>) -> Result<Ub, UbTooSmall> {
        let (mut space, is_split) = (Space::new(cores.memories.ub), cores.per.is_some());
        let (pitch, queries, units) = (pitch(&a.cache), tile.queries(), tile.units);
        let q = 4 * queries * pitch;
        // Turned values lie at the end, behind what a step of weights has, and behind queries as they become codes.
        let turned = if is_split { 0 } else { POSITIONS * units * pitch };
        let codes = q + (q / 2).max(4 * tile.pairs());
        let bytes = (4 * tile.array()).max(3 * tile.array() + turned).max(codes + turned).max(2 * tile.array() + q);
        let bytes = bytes.max(cut.map_or(0, |cut| cut.ub_bytes(tile, pitch)));
        let big = space.take(bytes)?;
        let blocks = |space: &mut Space| space.floats(8 * queries);
        let (q_scales, blocks_at, largest) = (blocks(&mut space)?, blocks(&mut space)?, blocks(&mut space)?);
        Ok(Ub {
            big,
            q_scales,
            blocks: blocks_at,
            largest,
            q_largest: space.floats(queries)?,
            a: space.floats(queries)?,
            step_largest: space.floats(8 * queries * units)?,
            sums: space.floats(16 * queries)?,
            bits: space.take(Emit::mask_bytes(tile.pairs() * units))?,
            scales: space.floats(POSITIONS * units)?,
            mask: space.floats(POSITIONS * tile.rows)?,
            transpose: space.floats(8 * ROWS)?,
            scratch: space.floats(8 * ROWS)?,
            zeros: space.floats(8)?,
            turned: big + (bytes - turned) / STRIP * STRIP,
            cube_sums: if cores.is_direct { space.take(2 * tile.array().max(q))? } else { big },
        })
    }
}

/// A core's scratch in global memory: offsets from where it begins.
#[derive(Clone, Copy, Debug)]
pub struct Scratch {
    /// Slots of sums of scores on their way from the cube: `s32[2 planes][units][queries][64]`.
    pub ring: usize,
    pub ring_bytes: usize,
    /// Slots of planes of codes of weights on their way to it: `s8[units][2 strips][2 planes][queries][32]`.
    pub planes: usize,
    pub planes_bytes: usize,
    /// Planes of query codes, `s8[pitch / 32][2 planes][queries][32]`.
    pub codes: usize,
    /// Sums of values, `s32[2 planes][queries][pitch]`.
    pub result: usize,
    /// Scores, then weights: `f32[units of the cache][queries][64]`.
    pub scores: usize,
    bytes: usize,
}

impl Scratch {
    fn of(a: &Attention, tile: &Tile, is_split: bool) -> Scratch {
        let (pitch, queries) = (pitch(&a.cache), tile.queries());
        let mut bytes = 0;
        let mut take = |size: usize| {
            let at = bytes;
            bytes += if is_split { size.next_multiple_of(512) } else { 0 };
            at
        };
        let (ring_bytes, planes_bytes) = (2 * tile.array(), tile.array() / 2);
        let (ring, planes) = (take(SLOTS * ring_bytes), take(SLOTS * planes_bytes));
        let (codes, result) = (take(2 * queries * pitch), take(8 * queries * pitch));
        let scores = bytes;
        let bytes = scores + 4 * tile.pairs() * a.cache.ctx.div_ceil(POSITIONS);
        Scratch { ring, ring_bytes, planes, planes_bytes, codes, result, scores, bytes }
    }
}

/// A tile and where its parts lie.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    pub tile: Tile,
    pub ub: Ub,
    pub l1: L1,
    pub l0c: L0c,
    pub scratch: Scratch,
    /// The values of all positions are turned before any is multiplied, while the vector cores are busy with weights.
    pub turns_ahead: bool,
}

impl Placed {
    /// `None` if it does not fit.
    fn of(a: &Attention, cores: &Cores, tile: Tile, cut: Option<&Cut>) -> Option<Placed> {
        let (mem, together) = (&cores.memories, cores.together());
        let (pitch, both) = (pitch(&a.cache), 2 * tile.padded());
        let units = a.cache.ctx.div_ceil(POSITIONS).div_ceil(cut.map_or(1, Cut::pieces));
        let ahead = L1::of(a, &tile, together, units);
        let turns_ahead = cores.per.is_some() && ahead.end <= mem.l1;
        let l1 = if turns_ahead { ahead } else { L1::of(a, &tile, together, tile.units) };
        let scores = 4 * both * POSITIONS;
        let (sums, slots) = (4 * both * pitch, (mem.l0c / scores).min(SLOTS));
        let turned = together * sums;
        let strips = (mem.l0c.saturating_sub(turned) / TURNED_STRIP).min(pitch / STRIP);
        let in_l0a = together * both * pitch.max(POSITIONS * tile.units);
        let fits = l1.end <= mem.l1
            && slots > 0
            && strips > 0
            && IDENTITY + in_l0a <= mem.l0a
            && POSITIONS * pitch * (SLOTS + tile.units) <= mem.l0b
            // Masks say of so many positions that a row is ahead of.
            && (cut.is_some() || POSITIONS * tile.units + 2 * tile.rows <= MASK_ZEROS)
            && 2 * POSITIONS + tile.rows <= MASK_ZEROS;
        let ub = Ub::take(cores, a, &tile, cut).ok()?;
        let scratch = Scratch::of(a, &tile, cores.per.is_some());
        fits.then_some(Placed { tile, ub, l1, l0c: L0c { slots, sums, turned, strips }, scratch, turns_ahead })
    }

    /// The tile of `rows` rows with the longest steps.
    fn of_rows(a: &Attention, cores: &Cores, rows: usize) -> Option<Placed> {
        let tile = |units| Tile { rows, heads: a.heads_together(), units };
        let most = (MOST_REPEATS / tile(1).queries()).clamp(1, MOST_UNITS);
        (1..=most).rev().find_map(|units| Placed::of(a, cores, tile(units), None))
    }
}

/// The tiles of one size, and the token row that the first ones begin at.
#[derive(Clone, Copy, Debug)]
pub struct Set {
    pub placed: Placed,
    pub first_row: usize,
    /// Tiles along token rows.
    pub along: usize,
    /// What a cube works on at the same time, of all sets before, and of this one.
    pub dealt: usize,
    pub pairs: usize,
}

/// How an op is cut.
#[derive(Clone, Debug)]
pub struct Plan {
    pub cores: Cores,
    /// Groups that share it.
    pub groups: usize,
    /// Parts of the query heads.
    pub parts: usize,
    /// Tiles of different vector cores of a group; the others' results are not stored.
    pub apart: usize,
    pub sets: Vec<Set>,
    /// How the positions of each tile are cut for several cores, and the tile of the rows that a core ends; of one set then.
    pub cut: Option<(Cut, Set)>,
}

impl Plan {
    /// The cheapest tiles by estimate; `None` if none fits, or the cache has no codes.
    pub fn of(a: &Attention, machine: &Machine) -> Option<Plan> {
        let cores = Cores::of(machine).filter(|_| a.cache.has_scales())?;
        let whole = (1..=a.m).filter_map(|rows| Plan::of_rows(a, &cores, rows));
        let cut = Cut::all(a, &cores).into_iter().filter_map(|cut| Plan::of_pieces(a, &cores, cut));
        // Of cuts that are as good, the one with the shortest pieces of a whole cache.
        let units =
            |plan: &Plan| plan.cut.as_ref().map_or(0, |(cut, _)| a.cache.ctx.div_ceil(POSITIONS * cut.pieces()));
        whole.chain(cut).min_by_key(|plan| (plan.estimate(a), units(plan)))
    }

    fn of_rows(a: &Attention, cores: &Cores, rows: usize) -> Option<Plan> {
        // Cores would share blocks of 32 bytes of the results: one does it.
        let is_shared = a.cache.d.is_multiple_of(8);
        let apart = if is_shared { cores.together() } else { 1 };
        let (along, rest) = (a.m / rows, a.m % rows);
        let mut sets = vec![];
        let mut dealt = 0;
        // Short tiles are the first rows, which see the fewest positions.
        for (rows, first_row, along) in [(rows, rest, along), (rest, 0, usize::from(rest > 0))] {
            if along > 0 {
                let pairs = (along * a.parts()).div_ceil(apart);
                sets.push(Set { placed: Placed::of_rows(a, cores, rows)?, first_row, along, dealt, pairs });
                dealt += pairs;
            }
        }
        let groups = if is_shared { cores.cubes.min(dealt) } else { 1 };
        Some(Plan { cores: *cores, groups, parts: a.parts(), apart, sets, cut: None })
    }

    /// All token rows in one tile for each part of the query heads, whose positions are cut.
    fn of_pieces(a: &Attention, cores: &Cores, cut: Cut) -> Option<Plan> {
        let (groups, apart, pairs) = (cores.cubes, cores.together(), a.parts() * cut.groups);
        let plan = |units| {
            let tile = Tile { rows: a.m, heads: a.heads_together(), units };
            let placed = Placed::of(a, cores, tile, Some(&cut))?;
            let sets = vec![Set { placed, first_row: 0, along: 1, dealt: 0, pairs }];
            let placed = Placed::of(a, cores, Tile { rows: cut.ended, ..tile }, Some(&cut))?;
            let ends = Set { placed, ..sets[0] };
            Some(Plan { cores: *cores, groups, parts: a.parts(), apart, sets, cut: Some((cut, ends)) })
        };
        (1..=MOST_PIECE_UNITS).filter_map(plan).min_by_key(|plan| plan.estimate(a))
    }

    /// The set of pair `pair`.
    fn set_of(&self, pair: usize) -> Option<&Set> {
        self.sets.iter().find(|set| pair < set.dealt + set.pairs)
    }

    /// Pairs of group `group`: it takes them there and back, so that those that see most meet those that see least.
    pub fn dealt(&self, group: usize) -> impl Iterator<Item = usize> {
        let (groups, all) = (self.groups, self.sets.iter().map(|set| set.pairs).sum());
        let nth = move |round: usize| {
            if round.is_multiple_of(2) { group + round * groups } else { (round + 1) * groups - 1 - group }
        };
        (0..).map(nth).take_while(move |pair| *pair < all)
    }

    /// Cycles of the busiest vector core, roughly: by instructions, each of which has a head and works on all queries.
    fn estimate(&self, a: &Attention) -> usize {
        const HEAD: usize = 20;
        // Instructions of a step, and of each of its units beside them; cycles of a query in a unit, and in a tile.
        const STEP: usize = 36;
        const UNIT: usize = 14;
        const QUERY_UNIT: usize = 55;
        const QUERY: usize = 50;
        const PIECE_QUERY: usize = 90;
        // What a tile waits for when it begins and ends.
        let wait = if self.cores.per.is_some() { 9000 } else { 3000 };
        let pos = (a.cache.ctx - a.m.min(a.cache.ctx)) / 2;
        let work = |tile: &Tile, units: usize| {
            let steps = units / tile.units + units % tile.units;
            // Queries that fill no eight take instructions of their own to add up weights.
            let eights = if tile.queries().is_multiple_of(8) { 0 } else { POSITIONS / 8 };
            HEAD * (STEP * steps + (UNIT + eights) * units) + (QUERY_UNIT * units + QUERY) * tile.queries()
        };
        if let (Some((cut, _)), [set, ..]) = (&self.cut, &self.sets[..]) {
            let units = (pos + a.m).div_ceil(POSITIONS).div_ceil(cut.pieces());
            // What begins and ends all steps, and those of a piece.
            let (all, piece) = if self.cores.per.is_some() { (8000, 3500) } else { (4000, 2500) };
            let queries = PIECE_QUERY * set.placed.tile.queries();
            return all + set.pairs.div_ceil(self.groups) * (piece + queries + work(&set.placed.tile, units));
        }
        let of = |pair: usize| {
            let Some(set) = self.set_of(pair) else { return 0 };
            let tile = &set.placed.tile;
            let row = set.along - 1 - (pair - set.dealt) * self.apart / self.parts;
            let first = pos + set.first_row + row * tile.rows;
            wait + work(tile, (first + tile.rows).div_ceil(POSITIONS))
        };
        (0..self.groups).map(|group| self.dealt(group).map(of).sum()).max().unwrap_or(0)
    }

    /// Bytes of a vector core's scratch.
    pub fn core_bytes(&self) -> usize {
        if self.cut.is_some() {
            // Scores lie with what the cores of a tile share.
            return self.sets.iter().map(|set| set.placed.scratch.scores).max().unwrap_or(0);
        }
        self.sets.iter().map(|set| set.placed.scratch.bytes).max().unwrap_or(0)
    }

    /// Bytes of global memory that all cores need.
    pub fn scratch_bytes(&self) -> usize {
        let shared = self.cut.as_ref().map_or(0, |(cut, _)| self.parts * cut.tile_bytes);
        self.cores_bytes() + shared
    }

    /// Those that are each core's own, in front.
    pub fn cores_bytes(&self) -> usize {
        self.groups * self.cores.together() * self.core_bytes()
    }
}
