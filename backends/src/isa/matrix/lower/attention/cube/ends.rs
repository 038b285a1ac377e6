//! What the vector unit does before a tile's first pass and behind its last: codes of queries, and results from sums.

use tcc_ir::attention_codes::{PLANE, QUERY_MAX, WEIGHT_MAX};
use tcc_ir::numerics::ABSMAX_FLOOR;

use super::items::{SCRATCH, STORES};
use super::plan::STRIP;
use super::products::{at, ub_to_l1};
use super::vector::{BITS, LOW, OUT_AT, Q_AT, TO_F32, each_query};
use super::{DONE, GO, Side, flag};
use crate::isa::matrix::lower::emit::{Emit, F32, S32, Second, Strided, dense, strided};
use crate::isa::matrix::lower::vector::{ROWS, behind};
use crate::isa::matrix::program::addr::Queue;
use crate::isa::matrix::program::inst::{Count, CrossMode, FixPath, Order};
use crate::isa::matrix::program::vec::VecOp;

impl Side<'_> {
    /// The tile's query codes in two planes, on their way to the cube; no score and no weight yet.
    pub fn code_queries(&self, e: &mut Emit) {
        let (ub, queries, pitch) = (&self.set.placed.ub, self.queries(), self.pitch());
        let count = queries * pitch;
        let (q, other) = (ub.big, ub.big + 4 * count);
        let row = |base: usize| strided(base, 1, pitch / 8);
        // The vector unit alone has used the place of queries, planes of weights are on their way from that behind them.
        e.after(Queue::V, Queue::Mte2);
        self.load_queries(e, q);
        e.wait(Queue::Mte3, Queue::V, flag::STORED);
        for (index, (column, lanes)) in self.columns().enumerate() {
            let to = if index == 0 { ub.largest } else { ub.step_largest };
            e.fill(to, 0, if lanes < ROWS { 8 * queries } else { 0 });
            e.vec(VecOp::Abs, F32, dense(other), row(q + column), Second::None, queries, lanes);
            e.vec(VecOp::BlockMax, F32, dense(to), dense(other), Second::None, queries, lanes);
            if index > 0 {
                e.each2(VecOp::Max, ub.largest, ub.largest, to, 8 * queries);
            }
        }
        e.block_max(ub.q_largest, ub.largest, 8 * queries);
        e.each(VecOp::Max, F32, ub.q_largest, ub.q_largest, Second::f32(ABSMAX_FLOOR), queries);
        let limit = f32::from(QUERY_MAX);
        self.over(e, limit, ub.q_largest);
        for (column, lanes) in self.columns() {
            let x = row(q + column);
            e.vec(VecOp::Mul, F32, x, x, Second::Vector(each_query(ub.blocks)), queries, lanes);
        }
        e.each(VecOp::Div, F32, ub.q_largest, ub.q_largest, Second::f32(limit), queries);
        e.spread(ub.q_scales, ub.q_largest, queries);
        self.planes(e, [q, other], count);
        e.fill(ub.largest, f32::MIN.to_bits(), 8 * queries);
        e.after(Queue::V, Queue::Mte3);
        for (plane, from) in [other, q].into_iter().enumerate() {
            self.query_plane(e, plane, from);
        }
        e.set(Queue::Mte3, Queue::V, flag::STORED);
        // Sums take the place of the codes.
        if self.is_split {
            e.push(Order::XSet { queue: Queue::Mte3, mode: CrossMode::Group, id: GO });
            e.after(Queue::Mte3, Queue::Mte2);
        } else {
            e.set(Queue::Mte3, Queue::Mte1, flag::CODES);
            e.after(Queue::Mte3, Queue::Fix);
        }
    }

    fn load_queries(&self, e: &mut Emit, to: usize) {
        let (tile, d, pitch) = (&self.set.placed.tile, self.a.cache.d, self.pitch());
        let row = 4 * self.a.heads * d;
        if pitch == d {
            let bytes = 4 * tile.heads * d;
            e.load(to, behind(Q_AT, 0), tile.rows, bytes, row, bytes);
        } else {
            e.fill(to, 0, self.queries() * pitch);
            e.after(Queue::V, Queue::Mte2);
            for head in 0..tile.heads {
                let (to, from) = (to + 4 * head * pitch, behind(Q_AT, 4 * head * d));
                e.load(to, from, tile.rows, 4 * d, row, 4 * tile.heads * pitch);
            }
        }
        e.loaded();
    }

    /// A plane of query codes `s8[queries, pitch]` to L1, or to global memory.
    fn query_plane(&self, e: &mut Emit, plane: usize, from: usize) {
        let (placed, queries, pitch) = (&self.set.placed, self.queries(), self.pitch());
        if !self.is_split {
            let padded = placed.tile.padded();
            if plane == 0 {
                // The tile before is through with L1.
                e.after(Queue::Mte1, Queue::Mte3);
            }
            let to = placed.l1.codes(0) + plane * padded * STRIP;
            return ub_to_l1(e, (to, from), (queries, pitch), (pitch, 2 * padded * STRIP));
        }
        for strip in 0..pitch / STRIP {
            let to = placed.scratch.codes + STRIP * queries * (2 * strip + plane);
            e.store(behind(SCRATCH, to), from + STRIP * strip, queries, STRIP, pitch, STRIP);
        }
    }

    /// The tile's rows of the result, stored.
    pub fn finish(&self, e: &mut Emit) {
        let (ub, queries, pitch) = (&self.set.placed.ub, self.queries(), self.pitch());
        let tile = &self.set.placed.tile;
        // Sums of the next tile's scores come to the place of the high planes, not to that of what is stored.
        let (high, carried, out) = (ub.big, ub.big + tile.array(), ub.big + 2 * tile.array());
        e.wait(Queue::Mte3, Queue::V, flag::STORED);
        if self.is_split {
            e.after(Queue::V, Queue::Mte2);
            e.after(Queue::Mte3, Queue::Mte2);
        } else {
            e.after(Queue::V, Queue::Fix);
            e.after(Queue::Mte3, Queue::Fix);
            e.after(Queue::M, Queue::Fix);
        }
        self.result_scales(e);
        if self.plan.cores.is_direct {
            self.await_cube(e);
        }
        for (column, lanes) in self.columns() {
            let is_last = column + 4 * lanes == 4 * pitch;
            let row = |base: usize| strided(base + column, 1, pitch / 8);
            let y = row(out);
            let [low, high] = if self.plan.cores.is_direct {
                [ub.cube_sums + 4 * queries * pitch, ub.cube_sums].map(row)
            } else {
                self.take_results(e, [out, high], column / 4, lanes);
                [y, strided(high, 1, lanes / 8)]
            };
            self.total(e, y, [low, high, dense(carried)], lanes);
            if is_last || !self.plan.cores.is_direct {
                self.free_sums(e);
            }
            e.vec(VecOp::Mul, F32, y, y, Second::Vector(each_query(ub.blocks)), queries, lanes);
        }
        e.after(Queue::V, Queue::Mte3);
        self.store_rows(e, out);
        e.set(Queue::Mte3, Queue::V, flag::STORED);
    }

    /// What sums of codes are multiplied by, in a block of each query, from the largest weights and the sums of exponentials.
    pub fn result_scales(&self, e: &mut Emit) {
        let (ub, queries) = (&self.set.placed.ub, self.queries());
        e.each(VecOp::Div, F32, ub.a, ub.a, Second::f32(f32::from(WEIGHT_MAX)), queries);
        for first in (0..queries).step_by(ROWS) {
            let (lo, rows) = (ub.sums + 32 * first, (queries - first).min(ROWS));
            let l = e.reduce(lo, lo + 32 * queries, ub.transpose, ub.scratch, rows);
            e.each2(VecOp::Div, ub.a + 4 * first, ub.a + 4 * first, l, rows);
        }
        e.spread(ub.blocks, ub.a, queries);
    }

    /// `y` becomes the sums of both planes as f32; it may lie where the low ones do. The high ones and `carried` are lost.
    pub fn total(&self, e: &mut Emit, y: Strided, [low, high, carried]: [Strided; 3], lanes: usize) {
        let queries = self.queries();
        e.vec(VecOp::Shr, S32, carried, low, BITS, queries, lanes);
        e.vec(VecOp::And, S32, y, low, LOW, queries, lanes);
        e.vec(VecOp::Add, S32, high, high, Second::Vector(carried), queries, lanes);
        e.vec(VecOp::Cast, TO_F32, y, y, Second::None, queries, lanes);
        e.vec(VecOp::Cast, TO_F32, high, high, Second::None, queries, lanes);
        e.vec(VecOp::Mla, F32, y, high, Second::f32(f32::from(PLANE)), queries, lanes);
    }

    /// Brings sums of values to UB: with the first elements all of the low plane at `out`; `columns` elements of the high one.
    fn take_results(&self, e: &mut Emit, [out, high]: [usize; 2], first: usize, columns: usize) {
        let (placed, queries, pitch) = (&self.set.placed, self.queries(), self.pitch());
        let sums = if self.is_split { Queue::Mte2 } else { Queue::Fix };
        e.wait(Queue::V, sums, flag::SUMS);
        if self.is_split {
            let plane = 4 * queries * pitch;
            let from = behind(SCRATCH, placed.scratch.result + 4 * first);
            if first == 0 {
                e.push(Order::XWait { queue: Queue::Mte2, mode: CrossMode::Group, id: DONE });
                e.load(out, behind(SCRATCH, placed.scratch.result + plane), 1, plane, 0, 0);
            }
            e.load(high, from, queries, 4 * columns, 4 * pitch, 4 * columns);
        } else {
            let to = |place: usize, columns: usize| (FixPath::Ub, at(place), 4 * columns);
            if first == 0 {
                self.plane_out(e, to(out, pitch), (0, 1), (0, pitch));
            }
            self.plane_out(e, to(high, columns), (0, 0), (first, columns));
        }
        e.set(sums, Queue::V, flag::SUMS);
        e.wait(sums, Queue::V, flag::SUMS);
    }

    pub fn store_rows(&self, e: &mut Emit, out: usize) {
        let (tile, d, pitch) = (&self.set.placed.tile, self.a.cache.d, self.pitch());
        let row = 4 * self.a.heads * d;
        e.begin(Count::Reg(STORES));
        if pitch == d {
            let bytes = 4 * tile.heads * d;
            e.store(behind(OUT_AT, 0), out, tile.rows, bytes, bytes, row);
        } else {
            for head in 0..tile.heads {
                let (from, step) = (out + 4 * head * pitch, 4 * tile.heads * pitch);
                e.store(behind(OUT_AT, 4 * head * d), from, tile.rows, 4 * d, step, row);
            }
        }
        e.end(&[]);
    }
}
