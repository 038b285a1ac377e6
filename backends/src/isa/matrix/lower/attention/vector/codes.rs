//! Attention over int8 caches (`tcc_ir::attention_codes`): codes of queries and of weights are integers in f32, whose
//! products with the cache's codes are exact, and so are sums below 2^24. A score is a sum of a few elements at a time,
//! whose multiples of [`HIGH`] and rests are added up apart. Values are multiplied by the codes of weights, or by their
//! two planes, and what a few positions give is added up in s32.
//!
//! A third pass, between the other two, turns scores into weights, the largest of which the codes need.

use tcc_ir::attention_codes::{PLANE, PLANE_BITS, QUERY_MAX, WEIGHT_MAX};
use tcc_ir::numerics::ABSMAX_FLOOR;

use super::step::Step;
use super::{Attention, SCALES_AT, SCORES_AT, Seen, Tile, Way, flag};
use crate::isa::matrix::lower::emit::{Emit, F32, S32, Second, Strided, Types, block, dense, strided};
use crate::isa::matrix::lower::vector::cache::pitch;
use crate::isa::matrix::lower::vector::{Space, UbTooSmall, behind, in_eights};
use crate::isa::matrix::program::addr::Queue;
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::VecOp;

/// Elements of a head whose products are added up in the lanes of a block: `16 · 8191 · 128 < 2^24` in each.
const ELEMENTS: usize = 8 * 16;

/// A sum is cut into a multiple of this and a rest of half as much at most: both stay exact in sums of a head.
const HIGH: f32 = 4096.0;

/// What rounds to multiples of [`HIGH`] when it is added and subtracted: 1.5 · 2^23 of them.
const TO_HIGH: f32 = 12_582_912.0 * HIGH;

/// Positions of a cache at most for weights to stay whole: sums are below 2^31, so their high parts are below 2^24 and
/// nothing but their total is rounded; what eight positions at a time add is below 2^24.
const WHOLE_POSITIONS: usize = 1024;

/// Offsets in UB, beside those of [`At`](super::space::At).
pub struct CodesAt {
    /// Scales of the queries, in all lanes of a block.
    q_scales: usize,
    /// Rests of the sums of each pair.
    low: usize,
    /// What some elements of a head add to the sums of each pair, where not all are summed together.
    part: usize,
    /// The largest weight so far of each query in lanes of a unit, then the largest in every lane.
    largest: usize,
    /// High planes of weights, and their sums, s32; nothing where weights are whole. `At::x` and `At::out`
    /// are for low ones.
    high_codes: usize,
    high: usize,
    /// What the positions of a unit add to sums: 64 lanes of each query, or all.
    unit_sums: usize,
    /// Weights are not cut into planes.
    is_whole: bool,
}

impl CodesAt {
    /// Takes room of the first pass from `first`, and from `space` room of the others; high planes of codes lie at
    /// `high_codes`.
    pub fn take(
        a: &Attention,
        tile: &Tile,
        (first, space): (&mut Space, &mut Space),
        high_codes: usize,
    ) -> Result<CodesAt, UbTooSmall> {
        let (queries, pitch) = (tile.queries(), pitch(&a.cache));
        let pairs = queries * tile.unit;
        let is_whole = is_whole(a, tile);
        let lanes = match tile.way {
            Way::Queries => 64,
            Way::Positions => pitch,
        };
        Ok(CodesAt {
            q_scales: first.floats(8 * queries)?,
            low: first.floats(pairs)?,
            part: first.floats(if a.cache.d > ELEMENTS { pairs } else { 0 })?,
            largest: space.floats(pairs)?,
            high_codes,
            high: space.floats(if is_whole { 0 } else { queries * pitch })?,
            unit_sums: space.floats(queries * lanes)?,
            is_whole,
        })
    }
}

/// True if the weights of the tile need no planes.
pub fn is_whole(a: &Attention, tile: &Tile) -> bool {
    tile.way == Way::Queries && a.cache.ctx <= WHOLE_POSITIONS
}

impl Step<'_> {
    /// The codes of the loaded queries, and their scales.
    pub fn code_queries(&self, e: &mut Emit, codes: &CodesAt) {
        let (at, queries, pitch) = (self.at, self.tile.queries(), pitch(&self.a.cache));
        let count = queries * pitch;
        let columns = || (0..pitch).step_by(64).map(|first| (4 * first, (pitch - first).min(64)));
        let row = |base: usize| strided(base, 1, pitch / 8);
        // Nothing lies yet where codes and scores go.
        let (a, blocks) = (at.q, at.s);
        e.each(VecOp::Abs, F32, at.q, at.lo, Second::None, count);
        for (column, lanes) in columns().skip(1) {
            e.vec(VecOp::Max, F32, row(at.q), row(at.q), Second::Vector(row(at.q + column)), queries, lanes);
        }
        e.fill(blocks, 0, 8 * queries);
        e.vec(VecOp::BlockMax, F32, dense(blocks), row(at.q), Second::None, queries, pitch.min(64));
        e.block_max(a, blocks, 8 * queries);
        e.each(VecOp::Max, F32, a, a, Second::f32(ABSMAX_FLOOR), queries);
        let limit = f32::from(QUERY_MAX);
        e.fill(codes.q_scales, limit.to_bits(), queries);
        e.each2(VecOp::Div, codes.q_scales, codes.q_scales, a, queries);
        e.spread(blocks, codes.q_scales, queries);
        e.each(VecOp::Div, F32, a, a, Second::f32(limit), queries);
        e.spread(codes.q_scales, a, queries);
        for (column, lanes) in columns() {
            let (x, inv) = (row(at.lo + column), Second::Vector(strided(blocks, 0, 1)));
            e.vec(VecOp::Mul, F32, x, x, inv, queries, lanes);
        }
        round(e, at.lo, count);
        e.each(VecOp::Cast, TO_F32, at.q, at.lo, Second::None, count);
    }

    /// Sums of products of rows of `q` and `k`, eight of a repeat in their blocks, in two parts, each `pair` bytes behind
    /// those of the first pair.
    pub fn code_sums(&self, e: &mut Emit, codes: &CodesAt, rows: [Strided; 2], repeats: usize, pair: usize) {
        let blocks = self.a.cache.d.div_ceil(8);
        let (lo, hi) = (self.at.lo, self.at.hi);
        for first in (0..blocks).step_by(ELEMENTS / 8) {
            self.partials(e, rows, repeats, first..blocks.min(first + ELEMENTS / 8));
            e.each(VecOp::Add, F32, hi, lo, Second::f32(TO_HIGH), 64 * repeats);
            e.each(VecOp::Sub, F32, hi, hi, Second::f32(TO_HIGH), 64 * repeats);
            e.each2(VecOp::Sub, lo, lo, hi, 64 * repeats);
            for (from, sums) in [(hi, self.at.s + pair), (lo, codes.low + pair)] {
                let to = if first == 0 { sums } else { codes.part + pair };
                e.vec(VecOp::BlockSum, F32, dense(to), dense(from), Second::None, repeats, 64);
                if first > 0 {
                    e.each2(VecOp::Add, sums, sums, to, 8 * repeats);
                }
            }
        }
    }

    /// Puts the two parts of the unit's sums together, rounded once, and multiplies by the scales of queries and of keys.
    pub fn scale_codes(&self, e: &mut Emit, codes: &CodesAt) {
        let (s, unit, pairs) = (self.at.s, self.tile.unit, self.pairs());
        e.each2(VecOp::Add, s, s, codes.low, pairs);
        match self.tile.way {
            Way::Queries => e.each2(VecOp::Mul, s, s, codes.q_scales, pairs),
            Way::Positions => {
                for query in 0..self.tile.queries() {
                    let (s, scale) = (s + 4 * unit * query, block(codes.q_scales + 32 * query));
                    e.each(VecOp::Mul, F32, s, s, Second::Vector(scale), unit);
                }
            }
        }
        self.times_scales(e, s, self.at.scales);
    }

    /// Loads the scales of `count` positions.
    pub fn load_scales(&self, e: &mut Emit, positions: usize, count: usize) {
        e.load(self.at.raw_scales, behind(SCALES_AT, 4 * positions), 1, 4 * count, 0, 0);
    }

    /// Moves loaded scales out of their slot.
    pub fn keep_scales(&self, e: &mut Emit, count: usize) {
        e.each(VecOp::Mov, F32, self.at.scales, self.at.raw_scales, Second::None, count);
    }

    /// `x` of the pairs of a unit times the scales of their positions.
    fn times_scales(&self, e: &mut Emit, x: usize, scales: usize) {
        let unit = self.tile.unit;
        match self.tile.way {
            Way::Queries => e.each(VecOp::Mul, F32, x, x, Second::Vector(block(scales)), self.pairs()),
            Way::Positions => {
                for query in 0..self.tile.queries() {
                    let x = x + 4 * unit * query;
                    e.each2(VecOp::Mul, x, x, scales, unit);
                }
            }
        }
    }

    /// Before weights are known: sums and largest weights of zero.
    pub fn clear_codes(&self, e: &mut Emit, codes: &CodesAt) {
        e.fill(codes.largest, 0, self.pairs());
        if !codes.is_whole {
            e.fill(codes.high, 0, self.tile.queries() * pitch(&self.a.cache));
        }
    }

    /// Weights of `units` units in place of their scores, and the largest so far.
    pub fn weights(&self, e: &mut Emit, codes: &CodesAt, units: usize, seen: Seen) {
        let (at, pairs, unit) = (self.at, self.pairs(), self.tile.unit);
        let (masked, _) = self.masked(seen);
        e.wait(Queue::V, Queue::Mte2, flag::LOADED);
        e.load(at.loaded, behind(SCORES_AT, 0), 1, 4 * units * pairs, 0, 0);
        self.load_scales(e, 0, units * unit);
        e.set(Queue::Mte2, Queue::V, flag::LOADED);
        e.wait(Queue::Mte2, Queue::V, flag::LOADED);
        e.wait(Queue::Mte3, Queue::V, flag::STORED);
        self.keep_scales(e, units * unit);
        self.exponentials(e, units);
        for number in 0..units {
            let x = at.x + 4 * number * pairs;
            if masked {
                e.compare(VecOp::CmpEq, at.bits, x, 0.0, pairs);
            }
            self.times_scales(e, x, at.scales + 4 * number * unit);
            if masked {
                // Anything may lie behind the last position.
                e.select(x, block(at.zeros), at.bits, pairs);
            }
            e.each2(VecOp::Max, codes.largest, codes.largest, x, pairs);
        }
        e.set(Queue::V, Queue::Mte3, flag::STORED);
        e.wait(Queue::V, Queue::Mte3, flag::STORED);
        e.store(behind(SCORES_AT, 0), at.x, 1, 4 * units * pairs, 0, 0);
        e.set(Queue::Mte3, Queue::V, flag::STORED);
    }

    /// Behind the pass over weights: what they are multiplied by takes the place of the largest scores.
    pub fn between_codes(&self, e: &mut Emit, codes: &CodesAt) {
        // Weights are loaded from where they were stored, and become codes where they waited for that.
        e.stored();
        self.in_all_lanes(e, codes.largest);
        let (inv, pairs) = (self.at.max, self.pairs());
        e.fill(inv, f32::from(WEIGHT_MAX).to_bits(), pairs);
        e.each2(VecOp::Div, inv, inv, codes.largest, pairs);
    }

    /// Codes of the weights of `units` units, and values times them.
    pub fn coded_values(&self, e: &mut Emit, codes: &CodesAt, units: usize, seen: Seen) {
        let (at, pairs) = (self.at, self.pairs());
        let (_, first_query) = self.masked(seen);
        self.load_pairs(e, units);
        for first in (0..units).map(|unit| 4 * unit * pairs) {
            e.each2(VecOp::Mul, at.x + first, at.loaded + first, at.max, pairs);
        }
        e.set(Queue::V, Queue::Mte2, flag::LOADED);
        round(e, at.x, units * pairs);
        let mut planes = vec![(at.x, at.out)];
        if !codes.is_whole {
            let (high, low) = (codes.high_codes, at.x);
            // A power of two.
            e.each(VecOp::Shr, S32, high, low, Second::Bits(PLANE_BITS), units * pairs);
            e.each(VecOp::And, S32, low, low, Second::Bits(u32::from(PLANE) - 1), units * pairs);
            planes.push((high, codes.high));
        }
        for (plane, _) in &planes {
            e.each(VecOp::Cast, TO_F32, *plane, *plane, Second::None, units * pairs);
        }
        for unit in 0..units {
            e.wait(Queue::V, Queue::Mte2, flag::ROWS);
            self.load_rows(e, unit * self.tile.unit);
            e.set(Queue::Mte2, Queue::V, flag::ROWS);
            e.wait(Queue::Mte2, Queue::V, flag::ROWS);
            self.widen(e);
            e.set(Queue::V, Queue::Mte2, flag::ROWS);
            for (plane, sums) in &planes {
                self.add_values(e, codes.unit_sums, plane + 4 * unit * pairs, *sums, first_query);
            }
        }
    }

    /// Adds the unit's values, times the codes at `x`, to the sums of queries from `first` on; what the unit adds is at
    /// `part` before.
    fn add_values(&self, e: &mut Emit, part: usize, x: usize, sums: usize, first: usize) {
        let (at, unit, pitch) = (self.at, self.tile.unit, pitch(&self.a.cache));
        let count = self.tile.queries() - first;
        match self.tile.way {
            Way::Queries => {
                e.spread(at.scratch, x + 4 * unit * first, count * unit);
                let unit_sums = dense(part);
                for (column, lanes) in self.columns() {
                    for position in 0..unit {
                        let op = if position == 0 { VecOp::Mul } else { VecOp::Mla };
                        let value = Second::Vector(strided(at.wide + 4 * pitch * position + column, 1, 0));
                        let weight = strided(at.scratch + 32 * position, 0, unit);
                        e.vec(op, F32, unit_sums, weight, value, count, lanes);
                    }
                    e.vec(VecOp::Cast, TO_S32, unit_sums, unit_sums, Second::None, count, lanes);
                    let to = strided(sums + 4 * pitch * first + column, 1, pitch / 8);
                    e.vec(VecOp::Add, S32, to, to, Second::Vector(unit_sums), count, lanes);
                }
            }
            Way::Positions => {
                e.fill(part, 0, count * pitch);
                self.weighted(e, part, x, first);
                e.each(VecOp::Cast, TO_S32, part, part, Second::None, count * pitch);
                let to = sums + 4 * pitch * first;
                e.each(VecOp::Add, S32, to, to, Second::Vector(dense(part)), count * pitch);
            }
        }
    }

    /// The output, from its sums and the blocks of the sums of exponentials at `l`, which are lost.
    pub fn finish_codes(&self, e: &mut Emit, codes: &CodesAt, l: usize) {
        let (at, queries, unit, pitch) = (self.at, self.tile.queries(), self.tile.unit, pitch(&self.a.cache));
        let count = queries * pitch;
        if !codes.is_whole {
            self.carry(e, codes);
        }
        e.each(VecOp::Cast, TO_F32, at.out, at.out, Second::None, count);
        if !codes.is_whole {
            e.each(VecOp::Cast, TO_F32, codes.high, codes.high, Second::None, count);
            e.each(VecOp::Mla, F32, at.out, codes.high, Second::f32(f32::from(PLANE)), count);
        }
        e.each(VecOp::Div, F32, codes.largest, codes.largest, Second::f32(f32::from(WEIGHT_MAX)), self.pairs());
        for (first, repeats, lanes) in in_eights(queries) {
            let (l, scale) = (dense(l + 32 * first), strided(codes.largest + 4 * unit * first, unit / 8, unit));
            e.vec(VecOp::Div, F32, l, scale, Second::Vector(l), repeats, lanes);
        }
        for (column, lanes) in self.columns() {
            let out = strided(at.out + column, 1, pitch / 8);
            e.vec(VecOp::Mul, F32, out, out, Second::Vector(strided(l, 0, 1)), queries, lanes);
        }
    }

    /// Leaves less than [`PLANE`] of the sums of low planes, and adds what that takes away to those of the high ones.
    fn carry(&self, e: &mut Emit, codes: &CodesAt) {
        let (out, queries, pitch) = (self.at.out, self.tile.queries(), pitch(&self.a.cache));
        for (column, lanes) in self.columns() {
            let [low, high] = [out, codes.high].map(|sums| strided(sums + column, 1, pitch / 8));
            let carried = dense(codes.unit_sums);
            e.vec(VecOp::Shr, S32, carried, low, Second::Bits(PLANE_BITS), queries, lanes);
            e.vec(VecOp::Add, S32, high, high, Second::Vector(carried), queries, lanes);
        }
        e.each(VecOp::And, S32, out, out, Second::Bits(u32::from(PLANE) - 1), queries * pitch);
    }
}

/// Result and source of casts.
const TO_S32: Types = (ElemType::S32, ElemType::F32);
const TO_F32: Types = (ElemType::F32, ElemType::S32);

/// `count` f32 in place as the nearest s32, half to even.
fn round(e: &mut Emit, x: usize, count: usize) {
    e.each(VecOp::Cast, TO_S32, x, x, Second::None, count);
}
