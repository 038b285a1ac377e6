//! One step of either pass, and what stands between and behind them.

use std::ops::Range;

use super::space::At;
use super::{AHEAD, AT, Attention, MASK, MASK_AT, OUT_AT, SCORES_AT, Seen, Tile, Way, flag};
use crate::isa::matrix::lower::emit::{Emit, F32, Second, Strided, block, dense, strided};
use crate::isa::matrix::lower::vector::cache::pitch;
use crate::isa::matrix::lower::vector::rows::{element, widen_rows};
use crate::isa::matrix::lower::vector::{CAUSAL_ZERO, MASK_ZEROS, ROWS, Tables, behind};
use crate::isa::matrix::program::addr::Queue;
use crate::isa::matrix::program::inst::{ScalarOp, ScalarOperand};
use crate::isa::matrix::program::vec::VecOp;

pub struct Step<'a> {
    pub a: &'a Attention,
    pub tile: &'a Tile,
    pub at: &'a At,
}

impl Step<'_> {
    fn pitch(&self) -> usize {
        pitch(&self.a.cache)
    }

    /// Pairs of a query and a position in a unit.
    pub fn pairs(&self) -> usize {
        self.tile.queries() * self.tile.unit
    }

    /// The tile's queries, or their codes, in order, and no score yet.
    pub fn load_queries(&self, e: &mut Emit) {
        let at = self.at;
        at.load_queries(e, self.a, self.tile);
        match &at.codes {
            Some(codes) => self.code_queries(e, codes),
            None => e.in_order(at.q, at.lo, at.order, self.tile.queries() * self.pitch()),
        }
        e.fill(at.max, f32::MIN.to_bits(), self.pairs());
    }

    /// Scores of `units` units, stored; what lies in the future of a query is hidden.
    pub fn scores(&self, e: &mut Emit, units: usize, seen: Seen, tables: &Tables) {
        let (masked, first) = self.masked(seen);
        for unit in 0..units {
            let positions = unit * self.tile.unit;
            e.wait(Queue::V, Queue::Mte2, flag::ROWS);
            self.load_rows(e, positions);
            if self.at.codes.is_some() {
                self.load_scales(e, positions, self.tile.unit);
            }
            if masked {
                self.load_mask(e, positions, tables);
            }
            e.set(Queue::Mte2, Queue::V, flag::ROWS);
            e.wait(Queue::Mte2, Queue::V, flag::ROWS);
            if masked {
                e.compare(VecOp::CmpLt, self.at.bits, self.at.mask, 0.0, self.pairs());
            }
            self.widen(e);
            if self.at.codes.is_some() {
                self.keep_scales(e, self.tile.unit);
            }
            e.set(Queue::V, Queue::Mte2, flag::ROWS);
            let keys = self.keys(e);
            e.wait(Queue::Mte3, Queue::V, flag::STORED);
            self.products(e, keys, first);
            self.scale_scores(e);
            if masked {
                e.select(self.at.s, block(self.at.hidden), self.at.bits, self.pairs());
            }
            e.each2(VecOp::Max, self.at.max, self.at.max, self.at.s, self.pairs());
            self.store_scores(e, positions);
        }
    }

    /// Whether some positions are hidden from some queries, and the first query that may see any.
    pub fn masked(&self, seen: Seen) -> (bool, usize) {
        match seen {
            Seen::All => (false, 0),
            Seen::From(row) => (true, row * self.tile.heads),
        }
    }

    /// Loads the rows of the unit that begins `positions` behind the registers, whose slot is free.
    pub fn load_rows(&self, e: &mut Emit, positions: usize) {
        let (cache, unit) = (&self.a.cache, self.tile.unit);
        let (size, d, pitch, row) = (cache.element_bytes(), cache.d, self.pitch(), cache.row_bytes());
        let from = behind(AT, positions * row);
        if pitch == d {
            e.load(self.at.raw, from, 1, unit * size * d, 0, 0);
        } else {
            e.load(self.at.raw, from, unit, size * d, row, size * pitch);
        }
    }

    /// Loads what is below zero where a query does not see a position of the unit.
    fn load_mask(&self, e: &mut Emit, positions: usize, tables: &Tables) {
        let (rows, heads, unit) = (self.tile.rows, self.tile.heads, self.tile.unit);
        match self.tile.way {
            Way::Queries => {
                e.point(MASK, tables.causal);
                e.index(MASK_AT, MASK, AHEAD, 32);
                for head in 0..heads {
                    let from = behind(MASK_AT, 32 * (CAUSAL_ZERO - positions));
                    e.load(self.at.mask + 32 * head, from, rows, 32, 32, 32 * heads);
                }
            }
            Way::Positions => {
                e.point(MASK, tables.mask);
                e.scalar(ScalarOp::Mul, MASK_AT, AHEAD, ScalarOperand::Imm(-4));
                e.scalar(ScalarOp::Add, MASK_AT, MASK_AT, ScalarOperand::Reg(MASK));
                for query in 0..rows * heads {
                    let from = behind(MASK_AT, 4 * (MASK_ZEROS - 1 - query / heads));
                    e.load(self.at.mask + 4 * unit * query, from, 1, 4 * unit, 0, 0);
                }
            }
        }
    }

    /// Widens the loaded rows.
    pub fn widen(&self, e: &mut Emit) {
        let (ty, _) = element(self.a.cache.dtype);
        widen_rows(e, self.at.wide, self.at.raw, ty, (self.tile.unit, self.a.cache.d, self.pitch()));
    }

    /// Where keys stand in the order of queries.
    fn keys(&self, e: &mut Emit) -> usize {
        if self.at.ordered == self.at.wide {
            return self.at.wide;
        }
        e.in_order(self.at.ordered, self.at.wide, self.at.order, self.tile.unit * self.pitch());
        self.at.ordered
    }

    /// `s = dot(q, k)` of the pairs of the unit, of queries from `first` on.
    fn products(&self, e: &mut Emit, keys: usize, first: usize) {
        let (at, pitch) = (self.at, self.pitch());
        match self.tile.way {
            Way::Queries => {
                let queries = strided(at.q + 4 * pitch * first, 0, pitch / 8);
                let rows = [queries, strided(keys, pitch / 8, 0)];
                self.sums(e, rows, self.tile.queries() - first, 4 * self.tile.unit * first);
            }
            Way::Positions => {
                for query in first..self.tile.queries() {
                    let rows = [block(at.q + 4 * pitch * query), strided(keys, pitch / 8, pitch)];
                    self.sums(e, rows, self.tile.unit / 8, 4 * self.tile.unit * query);
                }
            }
        }
    }

    /// Sums of products of rows of `q` and `k`, eight of a repeat in their blocks, `pair` bytes behind those of the first
    /// pair.
    fn sums(&self, e: &mut Emit, rows: [Strided; 2], repeats: usize, pair: usize) {
        if let Some(codes) = &self.at.codes {
            return self.code_sums(e, codes, rows, repeats, pair);
        }
        self.partials(e, rows, repeats, 0..self.a.cache.d.div_ceil(8));
        e.vec(VecOp::BlockSum, F32, dense(self.at.s + pair), dense(self.at.lo), Second::None, repeats, 64);
    }

    /// Partial sums of products of some blocks of the rows of `q` and `k`, eight at `At::lo` for each pair.
    pub fn partials(&self, e: &mut Emit, [q, k]: [Strided; 2], repeats: usize, blocks: Range<usize>) {
        let halves = [self.at.lo, self.at.hi];
        for (half, p) in halves.into_iter().enumerate() {
            for first in (blocks.start + half..blocks.end).step_by(2) {
                let op = if first == blocks.start + half { VecOp::Mul } else { VecOp::Mla };
                e.vec(op, F32, dense(p), q.plus(32 * first), Second::Vector(k.plus(32 * first)), repeats, 64);
            }
        }
        if blocks.len() > 1 {
            e.each2(VecOp::Add, halves[0], halves[0], halves[1], 64 * repeats);
        }
    }

    fn scale_scores(&self, e: &mut Emit) {
        let s = self.at.s;
        if let Some(codes) = &self.at.codes {
            self.scale_codes(e, codes);
        }
        e.each(VecOp::Mul, F32, s, s, Second::f32(self.a.scale), self.pairs());
    }

    fn store_scores(&self, e: &mut Emit, positions: usize) {
        e.set(Queue::V, Queue::Mte3, flag::STORED);
        e.wait(Queue::V, Queue::Mte3, flag::STORED);
        let to = behind(SCORES_AT, 4 * positions * self.tile.queries());
        e.store(to, self.at.s, 1, 4 * self.pairs(), 0, 0);
        e.set(Queue::Mte3, Queue::V, flag::STORED);
    }

    /// Between the passes: the largest score of each query in all of its lanes, and sums that start at zero.
    pub fn between(&self, e: &mut Emit) {
        let (at, queries) = (self.at, self.tile.queries());
        // Scores are loaded where queries lay.
        e.after(Queue::V, Queue::Mte2);
        e.stored();
        self.in_all_lanes(e, at.max);
        e.fill(at.out, 0, queries * self.pitch());
        e.fill(at.sums, 0, 16 * queries);
        if let Some(codes) = &at.codes {
            self.clear_codes(e, codes);
        }
    }

    /// Puts the largest of the lanes of each query at `max` in all of them.
    pub fn in_all_lanes(&self, e: &mut Emit, max: usize) {
        let (at, queries, unit) = (self.at, self.tile.queries(), self.tile.unit);
        match self.tile.way {
            Way::Queries => {
                e.block_max(at.scratch, max, 8 * queries);
                e.spread(max, at.scratch, queries);
            }
            Way::Positions => {
                for max in (0..queries).map(|query| max + 4 * unit * query) {
                    for first in (64..unit).step_by(64) {
                        e.each2(VecOp::Max, max, max, max + 4 * first, (unit - first).min(64));
                    }
                    let lanes = unit.min(64);
                    e.block_max(at.scratch, max, lanes);
                    e.block_max(at.scratch + 256, at.scratch, lanes / 8);
                    e.spread(at.scratch + 512, at.scratch + 256, 1);
                    e.each(VecOp::Max, F32, max, max, Second::Vector(block(at.scratch + 512)), unit);
                }
            }
        }
    }

    /// Weights of `units` units, and values times them.
    pub fn values(&self, e: &mut Emit, units: usize, seen: Seen) {
        let (_, first_query) = self.masked(seen);
        self.load_pairs(e, units);
        self.exponentials(e, units);
        for unit in 0..units {
            e.wait(Queue::V, Queue::Mte2, flag::ROWS);
            self.load_rows(e, unit * self.tile.unit);
            e.set(Queue::Mte2, Queue::V, flag::ROWS);
            e.wait(Queue::Mte2, Queue::V, flag::ROWS);
            self.widen(e);
            e.set(Queue::V, Queue::Mte2, flag::ROWS);
            self.weighted(e, self.at.out, self.at.x + 4 * unit * self.pairs(), first_query);
        }
    }

    /// Loads what `units` units left in global memory.
    pub fn load_pairs(&self, e: &mut Emit, units: usize) {
        e.wait(Queue::V, Queue::Mte2, flag::LOADED);
        e.load(self.at.loaded, behind(SCORES_AT, 0), 1, 4 * units * self.pairs(), 0, 0);
        e.set(Queue::Mte2, Queue::V, flag::LOADED);
        e.wait(Queue::Mte2, Queue::V, flag::LOADED);
    }

    /// Exponentials of the loaded scores of `units` units, added to their sums; frees the slot.
    pub fn exponentials(&self, e: &mut Emit, units: usize) {
        let (at, pairs) = (self.at, self.pairs());
        for first in (0..units).map(|unit| 4 * unit * pairs) {
            e.each2(VecOp::Sub, at.x + first, at.loaded + first, at.max, pairs);
        }
        e.set(Queue::V, Queue::Mte2, flag::LOADED);
        e.exp(at.x, at.scratch, units * pairs);
        self.add_weights(e, units);
    }

    /// Adds weights to the partial sums of their positions.
    fn add_weights(&self, e: &mut Emit, units: usize) {
        let (at, queries, unit) = (self.at, self.tile.queries(), self.tile.unit);
        match self.tile.way {
            Way::Queries => {
                for pair in 0..units / 2 {
                    e.each2(VecOp::Add, at.sums, at.sums, at.x + 64 * queries * pair, 16 * queries);
                }
            }
            Way::Positions => {
                for query in 0..queries {
                    for half in 0..2 {
                        let p = block(at.sums + 32 * (half * queries + query));
                        let x = strided(at.x + 4 * unit * query + 32 * half, 1, 2);
                        e.vec(VecOp::Add, F32, p, x, Second::Vector(p), unit / 16, 8);
                    }
                }
            }
        }
    }

    /// Bytes in front of, and lanes of, each part of a row that a repeat covers.
    pub fn columns(&self) -> impl Iterator<Item = (usize, usize)> {
        let d = self.a.cache.d;
        (0..d).step_by(64).map(move |first| (4 * first, (d - first).min(64)))
    }

    /// Adds the unit's values, times the weights at `x`, to the rows of queries from `first` on at `to`.
    pub fn weighted(&self, e: &mut Emit, to: usize, x: usize, first: usize) {
        let (at, queries, unit, pitch) = (self.at, self.tile.queries(), self.tile.unit, self.pitch());
        let (out_at, x) = (to + 4 * pitch * first, x + 4 * unit * first);
        match self.tile.way {
            Way::Queries => {
                e.spread(at.scratch, x, (queries - first) * unit);
                for position in 0..unit {
                    for (column, lanes) in self.columns() {
                        let out = strided(out_at + column, 1, pitch / 8);
                        let value = Second::Vector(strided(at.wide + 4 * pitch * position + column, 1, 0));
                        let weight = strided(at.scratch + 32 * position, 0, unit);
                        e.vec(VecOp::Mla, F32, out, weight, value, queries - first, lanes);
                    }
                }
            }
            Way::Positions => {
                for query in 0..queries - first {
                    e.spread(at.scratch, x + 4 * unit * query, unit);
                    for (column, lanes) in self.columns() {
                        let out = strided(out_at + 4 * pitch * query + column, 1, 0);
                        let value = Second::Vector(strided(at.wide + column, 1, pitch / 8));
                        e.vec(VecOp::Mla, F32, out, strided(at.scratch, 0, 1), value, unit, lanes);
                    }
                }
            }
        }
    }

    /// Divides by the sums of weights and stores the rows.
    pub fn finish(&self, e: &mut Emit) {
        let (at, queries, pitch) = (self.at, self.tile.queries(), self.pitch());
        let (d, heads) = (self.a.cache.d, self.a.heads);
        let spread = at.scratch + 32 * ROWS;
        for first in (0..queries).step_by(ROWS) {
            let (lo, rows) = (at.sums + 32 * first, (queries - first).min(ROWS));
            let l = e.reduce(lo, lo + 32 * queries, at.transpose, at.scratch, rows);
            e.spread(spread + 32 * first, l, rows);
        }
        match &at.codes {
            Some(codes) => self.finish_codes(e, codes, spread),
            None => {
                for (column, lanes) in self.columns() {
                    let out = strided(at.out + column, 1, pitch / 8);
                    e.vec(VecOp::Div, F32, out, out, Second::Vector(strided(spread, 0, 1)), queries, lanes);
                }
            }
        }
        e.computed();
        for head in 0..self.tile.heads {
            let (from, step) = (at.out + 4 * head * pitch, 4 * self.tile.heads * pitch);
            e.store(behind(OUT_AT, 4 * head * d), from, self.tile.rows, 4 * d, step, 4 * heads * d);
        }
        e.stored();
    }
}
