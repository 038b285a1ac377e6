//! The vector unit's side of the passes: scores from sums, weights, and their codes. What is before and behind them is in
//! `ends.rs`.
//!
//! A repeat stands for a query, its lanes for 64 positions or elements; what belongs to a query has a block, the same for
//! all lanes.

use std::ops::Range;

use tcc_ir::attention_codes::{PLANE, PLANE_BITS, WEIGHT_MAX};
use tcc_ir::numerics::EXP_MIN;

use super::items::{AT, FIRST, FREE, HEADS, OUT, POS, Q, SCRATCH, SUB, Step, V, pass};
use super::plan::{Cores, POSITIONS, SLOTS, STRIP};
use super::products::ub_to_l1;
use super::{DONE, GO, READ, Side, TAKEN, flag};
use crate::isa::matrix::lower::cores::reg;
use crate::isa::matrix::lower::emit::{Emit, F32, S32, Second, Strided, Types, block, dense, strided};
use crate::isa::matrix::lower::vector::{MASK_ZEROS, ROWS, behind, in_eights};
use crate::isa::matrix::program::addr::{Queue, Reg};
use crate::isa::matrix::program::inst::{CrossMode, Order, ScalarOp, ScalarOperand};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::VecOp;

// Behind those of the cube's side.
pub const Q_AT: Reg = reg(FREE + 2);
pub const OUT_AT: Reg = reg(FREE + 3);
// Scales of positions, scores, how far the tile's first row is ahead of them.
const SCALES_AT: Reg = reg(FREE + 4);
pub const SCORES_AT: Reg = reg(FREE + 5);
const AHEAD: Reg = reg(FREE + 6);
// On split machines, in place of the cube's: which slots are next.
const RING: Reg = reg(FREE);
const PLANES: Reg = reg(FREE + 1);
/// In the place of a register that nobody reads while positions are passed over.
const MASK: Reg = Q_AT;

/// Result and source of casts.
pub const TO_F32: Types = (ElemType::F32, ElemType::S32);
const TO_S16: Types = (ElemType::S16, ElemType::F32);
const TO_S8: Types = (ElemType::S8, ElemType::S16);
const S16: Types = (ElemType::S16, ElemType::S16);

/// Bits of a low plane in a code.
pub const LOW: Second = Second::Bits(PLANE as u32 - 1);
pub const BITS: Second = Second::Bits(PLANE_BITS);

/// Slots of the vector unit, `(src, dst, flag)`, as the cube's.
fn rings(cores: &Cores) -> Vec<(Queue, Queue, u8)> {
    let sums = if cores.per.is_some() { Queue::Mte2 } else { Queue::Fix };
    let slots = [
        (Queue::Mte2, Queue::V, flag::SCALES),
        (Queue::Mte2, Queue::V, flag::LOADED),
        (Queue::V, Queue::Mte3, flag::STORED),
    ];
    // Signals say it where sums come straight from another core.
    slots.into_iter().chain((!cores.is_direct).then_some((sums, Queue::V, flag::SUMS))).collect()
}

/// Says that all slots are free, or waits until they are.
pub fn presets(e: &mut Emit, cores: &Cores, is_start: bool) {
    for (src, dst, id) in rings(cores) {
        if is_start { e.set(dst, src, id) } else { e.wait(dst, src, id) }
    }
}

/// The signals that stand for free slots between the cores, as the cube takes them: see the cube's.
pub fn credits(e: &mut Emit, cores: &Cores, is_start: bool) {
    if is_start {
        [RING, PLANES].into_iter().for_each(|reg| e.add(reg, Reg::ZERO, 0));
        let read = Order::XSet { queue: Queue::Mte2, mode: CrossMode::Group, id: READ };
        (0..cores.slots_of_sums()).for_each(|_| e.push(read));
    } else {
        (0..SLOTS).for_each(|_| e.push(Order::XWait { queue: Queue::Mte3, mode: CrossMode::Group, id: TAKEN }));
    }
}

/// A block for each query.
pub fn each_query(base: usize) -> Strided {
    strided(base, 0, 1)
}

/// A repeat of lanes that all queries share.
fn shared(base: usize) -> Strided {
    strided(base, 1, 0)
}

impl Side<'_> {
    pub fn queries(&self) -> usize {
        self.set.placed.tile.queries()
    }

    /// Bytes in front of, and lanes of, each part of a row of elements that a repeat covers.
    pub fn columns(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let pitch = self.pitch();
        (0..pitch).step_by(ROWS).map(move |first| (4 * first, (pitch - first).min(ROWS)))
    }

    /// Before the tiles of a set: what stays in UB, and the codes of the first queries.
    pub fn begin_vector(&self, e: &mut Emit) {
        e.computed();
        e.stored();
        self.load_transpose(e);
        e.loaded();
        self.begin_passes(e);
        self.begin_codes(e);
    }

    /// Codes of the queries of the first tile.
    pub fn begin_codes(&self, e: &mut Emit) {
        self.plan.first(e, |e| {
            self.addresses(e);
            self.code_queries(e);
        });
    }

    /// Loads what ends sums.
    pub fn load_transpose(&self, e: &mut Emit) {
        e.point(AT, self.tables.transpose);
        e.load(self.set.placed.ub.transpose, behind(AT, 0), 1, 32 * ROWS, 0, 0);
    }

    /// What passes need in UB.
    pub fn begin_passes(&self, e: &mut Emit) {
        e.fill(self.set.placed.ub.zeros, 0, 8);
    }

    /// Codes of the queries of the tile that follows, while the cube ends the one at hand.
    pub fn code_next_queries(&self, e: &mut Emit) {
        self.plan.next(e, |e| {
            self.addresses(e);
            self.code_queries(e);
        });
        self.addresses(e);
    }

    /// Registers of the tile: its operands, and the KV head in place of its query heads.
    pub fn addresses(&self, e: &mut Emit) {
        let (tile, a) = (&self.set.placed.tile, self.a);
        let row_bytes = 4 * a.heads * a.cache.d;
        self.plan.tile(e, self.set, ScalarOperand::Reg(SUB));
        for (to, from) in [(Q_AT, Q), (OUT_AT, OUT)] {
            e.index(AT, from, FIRST, row_bytes);
            e.index(to, AT, HEADS, 4 * tile.heads * a.cache.d);
        }
        e.scalar(ScalarOp::Add, FIRST, FIRST, ScalarOperand::Reg(POS));
        self.plan.kv_head(e, a);
    }

    /// A pass over the tile's positions, with the scales of `cache`.
    pub fn pass(&self, e: &mut Emit, cache: Reg, body: impl Fn(&mut Emit, Step)) {
        let registers = self.positions(e, cache);
        pass(e, &self.set.placed.tile, &registers, |e| self.await_last(e, cache), body);
    }

    /// Before the last step of values' passes: what the pass before stored last is there. V and STORED see to the others.
    /// Where tiles are cut, cores have met.
    fn await_last(&self, e: &mut Emit, cache: Reg) {
        if cache == V && self.plan.cut.is_none() {
            e.wait(Queue::Mte3, Queue::Mte2, flag::LAST);
        }
    }

    /// A coupled core's pass, with the rows of `cache` for the cube.
    pub fn pass_with_rows(&self, e: &mut Emit, cache: Reg, body: impl Fn(&mut Emit, Step)) {
        let registers: Vec<_> = self.positions(e, cache).into_iter().chain([self.own_rows(e, cache)]).collect();
        pass(e, &self.set.placed.tile, &registers, |e| self.await_last(e, cache), body);
    }

    /// Points at the first positions; says how far registers advance for each unit.
    fn positions(&self, e: &mut Emit, cache: Reg) -> [(Reg, i32); 3] {
        let layout = &self.a.cache;
        e.index(AT, cache, HEADS, 4 * layout.positions());
        e.add(SCALES_AT, AT, layout.scales_offset_bytes() as i64);
        // A unit's.
        let scores = 4 * self.set.placed.tile.pairs() as i32;
        match &self.plan.cut {
            Some((cut, _)) => {
                cut.tile_at(e, SCORES_AT, self.shared());
                cut.first_unit(e, AHEAD, &self.set.placed.tile, ScalarOperand::Reg(SUB));
                for (reg, bytes) in [(SCALES_AT, 4 * POSITIONS as i64), (SCORES_AT, i64::from(scores))] {
                    e.scalar(ScalarOp::Mul, AT, AHEAD, ScalarOperand::Imm(bytes));
                    e.scalar(ScalarOp::Add, reg, reg, ScalarOperand::Reg(AT));
                }
                e.scalar(ScalarOp::Mul, AHEAD, AHEAD, ScalarOperand::Imm(-(POSITIONS as i64)));
                e.scalar(ScalarOp::Add, AHEAD, AHEAD, ScalarOperand::Reg(FIRST));
            }
            None => {
                e.add(SCORES_AT, SCRATCH, self.set.placed.scratch.scores as i64);
                e.add(AHEAD, FIRST, 0);
            }
        }
        [(SCALES_AT, 4 * POSITIONS as i32), (SCORES_AT, scores), (AHEAD, -(POSITIONS as i32))]
    }

    /// `limit` over what each query has at `a`, in all lanes of a block.
    pub fn over(&self, e: &mut Emit, limit: f32, a: usize) {
        let (ub, queries) = (&self.set.placed.ub, self.queries());
        e.fill(ub.step_largest, limit.to_bits(), queries);
        e.each2(VecOp::Div, ub.step_largest, ub.step_largest, a, queries);
        e.spread(ub.blocks, ub.step_largest, queries);
    }

    /// `count` f32 at `x` as codes in two planes, s8: the low one in their place, the high one at `high`.
    pub fn planes(&self, e: &mut Emit, [x, high]: [usize; 2], count: usize) {
        e.each(VecOp::Cast, TO_S16, x, x, Second::None, count);
        e.each(VecOp::Shr, S16, high, x, BITS, count);
        e.each(VecOp::And, S16, x, x, LOW, count);
        // A repeat reads all that it overwrites, and the ones behind it lie further on.
        e.each(VecOp::Cast, TO_S8, high, high, Second::None, count);
        e.each(VecOp::Cast, TO_S8, x, x, Second::None, count);
    }

    /// Loads the scales of a step's positions, whose slot is free; those behind the tile's last position are zero.
    fn load_scales(&self, e: &mut Emit, step: Step) {
        let ub = &self.set.placed.ub;
        e.load(ub.scales, behind(SCALES_AT, 0), 1, 4 * POSITIONS * step.units, 0, 0);
    }

    /// Loads what hides positions from some rows.
    fn load_mask(&self, e: &mut Emit, rows: Range<usize>) {
        let ub = &self.set.placed.ub;
        e.point(MASK, self.tables.mask);
        let mut ahead = AHEAD;
        if self.plan.cut.is_some() {
            // A piece's last units may be far behind the rows: no position is hidden.
            e.scalar(ScalarOp::Min, AT, AHEAD, ScalarOperand::Imm(POSITIONS as i64));
            ahead = AT;
        }
        e.scalar(ScalarOp::Mul, AT, ahead, ScalarOperand::Imm(-4));
        e.scalar(ScalarOp::Add, AT, AT, ScalarOperand::Reg(MASK));
        for row in rows {
            let from = behind(AT, 4 * (MASK_ZEROS - 1 - row));
            e.load(ub.mask + 4 * POSITIONS * row, from, 1, 4 * POSITIONS, 0, 0);
        }
    }

    /// Scales of positions that no row sees may be anything: they become zero.
    fn clear_scales(&self, e: &mut Emit) {
        let ub = &self.set.placed.ub;
        let last = ub.mask + 4 * POSITIONS * (self.set.placed.tile.rows - 1);
        e.compare(VecOp::CmpLt, ub.bits, last, 0.0, POSITIONS);
        e.select(ub.scales, block(ub.zeros), ub.bits, POSITIONS);
    }

    /// Loads scales, and what hides positions from `rows`, the last one among them, for the vector unit.
    fn scales(&self, e: &mut Emit, step: Step, rows: Range<usize>) {
        e.wait(Queue::V, Queue::Mte2, flag::SCALES);
        self.load_scales(e, step);
        if step.is_masked {
            self.load_mask(e, rows);
        }
        e.set(Queue::Mte2, Queue::V, flag::SCALES);
        e.wait(Queue::Mte2, Queue::V, flag::SCALES);
        if step.is_masked {
            self.clear_scales(e);
        }
    }

    /// The cube's sums of a step are in UB behind this.
    fn take_sums(&self, e: &mut Emit, step: Step) {
        let (placed, sums) = (&self.set.placed, if self.is_split { Queue::Mte2 } else { Queue::Fix });
        if self.plan.cores.is_direct {
            return self.await_cube(e);
        }
        if self.is_split {
            e.push(Order::XWait { queue: Queue::Mte2, mode: CrossMode::Group, id: DONE });
            e.wait(Queue::V, Queue::Mte2, flag::SUMS);
            e.index(AT, SCRATCH, RING, placed.scratch.ring_bytes);
            let array = placed.tile.array();
            let bytes = 4 * placed.tile.pairs() * step.units;
            e.load(placed.ub.big, behind(AT, placed.scratch.ring), 2, bytes, array, array);
            e.push(Order::XSet { queue: Queue::Mte2, mode: CrossMode::Group, id: READ });
            e.scalar(ScalarOp::Xor, RING, RING, ScalarOperand::Imm(1));
            e.set(Queue::Mte2, Queue::V, flag::SUMS);
        }
        e.wait(sums, Queue::V, flag::SUMS);
    }

    /// The cube core's sums are in UB behind this, where they come straight from it.
    pub fn await_cube(&self, e: &mut Emit) {
        e.push(Order::XWait { queue: Queue::V, mode: CrossMode::Group, id: DONE });
    }

    /// Gives the slot of sums back.
    pub fn free_sums(&self, e: &mut Emit) {
        if self.plan.cores.is_direct {
            e.push(Order::XSet { queue: Queue::V, mode: CrossMode::Group, id: READ });
        } else {
            e.set(Queue::V, if self.is_split { Queue::Mte2 } else { Queue::Fix }, flag::SUMS);
        }
    }

    /// Scores of a step from their sums, stored.
    pub fn score(&self, e: &mut Emit, step: Step) {
        let (placed, queries) = (&self.set.placed, self.queries());
        let (ub, tile, unit) = (&placed.ub, &placed.tile, 4 * placed.tile.pairs());
        let count = step.units * tile.pairs();
        let (high, s) = (ub.cube_sums, ub.big + 2 * tile.array());
        let low = high + tile.array();
        self.take_sums(e, step);
        e.each(VecOp::Shl, S32, high, high, BITS, count);
        e.each(VecOp::Add, S32, high, high, Second::Vector(dense(low)), count);
        e.wait(Queue::Mte3, Queue::V, flag::STORED);
        e.each(VecOp::Cast, TO_F32, s, high, Second::None, count);
        self.free_sums(e);
        let of_unit = |unit_index: usize| dense(s + unit * unit_index);
        for index in 0..step.units {
            let x = of_unit(index);
            e.vec(VecOp::Mul, F32, x, x, Second::Vector(each_query(ub.q_scales)), queries, ROWS);
        }
        self.scales(e, step, 0..tile.rows);
        for index in 0..step.units {
            let (x, scales) = (of_unit(index), Second::Vector(shared(ub.scales + 4 * POSITIONS * index)));
            e.vec(VecOp::Mul, F32, x, x, scales, queries, ROWS);
        }
        if !step.is_masked {
            e.set(Queue::V, Queue::Mte2, flag::SCALES);
        }
        e.each(VecOp::Mul, F32, s, s, Second::f32(self.a.scale), count);
        if step.is_masked {
            for head in 0..tile.heads {
                let x = strided(s + 4 * POSITIONS * head, 1, tile.heads * POSITIONS / 8);
                e.vec(VecOp::Add, F32, x, x, Second::Vector(dense(ub.mask)), tile.rows, ROWS);
            }
            e.set(Queue::V, Queue::Mte2, flag::SCALES);
        }
        self.keep_largest(e, s, step);
        self.store_pairs(e, &[(0, s)], count);
    }

    /// The largest so far of each query, with those of a step at `x`.
    fn keep_largest(&self, e: &mut Emit, x: usize, step: Step) {
        let (ub, queries) = (&self.set.placed.ub, self.queries());
        e.block_max(ub.step_largest, x, step.units * self.set.placed.tile.pairs());
        for unit in 0..step.units {
            e.each2(VecOp::Max, ub.largest, ub.largest, ub.step_largest + 32 * queries * unit, 8 * queries);
        }
    }

    /// Stores what belongs to the pairs of a step, so many bytes behind scores.
    fn store_pairs(&self, e: &mut Emit, arrays: &[(usize, usize)], count: usize) {
        e.set(Queue::V, Queue::Mte3, flag::STORED);
        e.wait(Queue::V, Queue::Mte3, flag::STORED);
        for (to, from) in arrays {
            e.store(behind(SCORES_AT, *to), *from, 1, 4 * count, 0, 0);
        }
        e.set(Queue::Mte3, Queue::V, flag::STORED);
    }

    /// Loads what belongs to the pairs of a step.
    fn load_pairs(&self, e: &mut Emit, step: Step) {
        let placed = &self.set.placed;
        e.wait(Queue::V, Queue::Mte2, flag::LOADED);
        e.load(placed.ub.big, behind(SCORES_AT, 0), 1, 4 * step.units * placed.tile.pairs(), 0, 0);
        e.set(Queue::Mte2, Queue::V, flag::LOADED);
        e.wait(Queue::Mte2, Queue::V, flag::LOADED);
    }

    /// Between passes: what was stored is loaded.
    fn turn_over(e: &mut Emit) {
        e.after(Queue::V, Queue::Mte2);
        e.set(Queue::Mte3, Queue::Mte2, flag::LAST);
    }

    /// Behind the scores: the largest of each query in a block, sums and largest weights of zero.
    pub fn between_scores(&self, e: &mut Emit) {
        let (ub, queries) = (&self.set.placed.ub, self.queries());
        Side::turn_over(e);
        e.block_max(ub.a, ub.largest, 8 * queries);
        e.spread(ub.blocks, ub.a, queries);
        e.fill(ub.sums, 0, 16 * queries);
        e.fill(ub.largest, 0, 8 * queries);
    }

    /// Weights of a step in place of its scores.
    pub fn weigh(&self, e: &mut Emit, step: Step) {
        let (placed, queries) = (&self.set.placed, self.queries());
        let (ub, tile, unit) = (&placed.ub, &placed.tile, 4 * placed.tile.pairs());
        let count = step.units * tile.pairs();
        let x = ub.big;
        self.load_pairs(e, step);
        for index in 0..step.units {
            let x = dense(x + unit * index);
            e.vec(VecOp::Sub, F32, x, x, Second::Vector(each_query(ub.blocks)), queries, ROWS);
        }
        let [n, p, t] = [1, 2, 3].map(|array| x + array * tile.array());
        e.compare(VecOp::CmpLt, ub.bits, x, EXP_MIN, count);
        e.exp_reduced(x, [n, t], count);
        // What the step before left is stored.
        e.wait(Queue::Mte3, Queue::V, flag::STORED);
        e.exp_of_reduced(x, [p, t], count);
        e.set(Queue::V, Queue::Mte2, flag::LOADED);
        e.exp_scaled(p, n, count);
        e.select(p, block(ub.zeros), ub.bits, count);
        let (w, arrays) = match &self.plan.cut {
            // A core adds up those of all pieces, in their order.
            Some((cut, _)) => (x + 4 * tile.array(), &[(0, x + 4 * tile.array()), (cut.exps, p)][..]),
            None => {
                self.add_weights(e, p, step);
                (p, &[(0, p)][..])
            }
        };
        self.scales(e, step, tile.rows - 1..tile.rows);
        for index in 0..step.units {
            let (w, p) = (dense(w + unit * index), dense(p + unit * index));
            let scales = Second::Vector(shared(ub.scales + 4 * POSITIONS * index));
            e.vec(VecOp::Mul, F32, w, p, scales, queries, ROWS);
        }
        e.set(Queue::V, Queue::Mte2, flag::SCALES);
        self.keep_largest(e, w, step);
        self.store_pairs(e, arrays, count);
    }

    /// Adds the exponentials of a step at `x` to the partial sums of their positions.
    fn add_weights(&self, e: &mut Emit, x: usize, step: Step) {
        let (sums, queries) = (self.set.placed.ub.sums, self.queries());
        for unit in 0..step.units {
            for part in (0..POSITIONS).step_by(8) {
                let half = part / 8 % 2;
                // A repeat has a block of each of eight queries.
                for (first, repeats, lanes) in in_eights(queries) {
                    let to = dense(sums + 32 * (half * queries + first));
                    let from = x + 4 * POSITIONS * (queries * unit + first) + 4 * part;
                    let from = Second::Vector(strided(from, POSITIONS / 8, POSITIONS));
                    e.vec(VecOp::Add, F32, to, to, from, repeats, lanes);
                }
            }
        }
    }

    /// Behind the weights: what makes codes of them in a block of each query.
    pub fn between_weights(&self, e: &mut Emit) {
        let (ub, queries) = (&self.set.placed.ub, self.queries());
        Side::turn_over(e);
        e.block_max(ub.a, ub.largest, 8 * queries);
        self.weight_factors(e);
    }

    /// What makes codes of weights, from the largest ones.
    pub fn weight_factors(&self, e: &mut Emit) {
        self.over(e, f32::from(WEIGHT_MAX), self.set.placed.ub.a);
    }

    /// Codes of the weights of a step in two planes, on their way to the cube.
    pub fn code_weights(&self, e: &mut Emit, step: Step) {
        let (placed, queries) = (&self.set.placed, self.queries());
        let (ub, tile, unit) = (&placed.ub, &placed.tile, 4 * placed.tile.pairs());
        let count = step.units * tile.pairs();
        let (w, y) = (ub.big, ub.big + tile.array());
        let low = ub.big + 2 * tile.array();
        let high = low + tile.array() / 2;
        self.load_pairs(e, step);
        for index in 0..step.units {
            let (y, w) = (dense(y + unit * index), dense(w + unit * index));
            e.vec(VecOp::Mul, F32, y, w, Second::Vector(each_query(ub.blocks)), queries, ROWS);
        }
        e.set(Queue::V, Queue::Mte2, flag::LOADED);
        e.each(VecOp::Cast, TO_S16, y, y, Second::None, count);
        e.wait(Queue::Mte3, Queue::V, flag::STORED);
        e.each(VecOp::Shr, S16, high, y, BITS, count);
        e.each(VecOp::And, S16, low, y, LOW, count);
        e.each(VecOp::Cast, TO_S8, high, high, Second::None, count);
        e.each(VecOp::Cast, TO_S8, low, low, Second::None, count);
        e.set(Queue::V, Queue::Mte3, flag::STORED);
        e.wait(Queue::V, Queue::Mte3, flag::STORED);
        self.weight_planes(e, [high, low], step);
        e.set(Queue::Mte3, Queue::V, flag::STORED);
    }

    /// Planes of the codes of weights `s8[units][queries][64]`, the high one first, to L1, or to global memory.
    fn weight_planes(&self, e: &mut Emit, planes: [usize; 2], step: Step) {
        let (placed, queries) = (&self.set.placed, self.queries());
        if self.is_split {
            e.push(Order::XWait { queue: Queue::Mte3, mode: CrossMode::Group, id: TAKEN });
            e.index(AT, SCRATCH, PLANES, placed.scratch.planes_bytes);
            e.scalar(ScalarOp::Xor, PLANES, PLANES, ScalarOperand::Imm(1));
        } else {
            e.wait(Queue::Mte1, Queue::Mte3, flag::WEIGHTS);
        }
        for (plane, unit) in (0..2).flat_map(|plane| (0..step.units).map(move |unit| (plane, unit))) {
            let from = planes[plane] + POSITIONS * queries * unit;
            if self.is_split {
                for strip in 0..2 {
                    let to = placed.scratch.planes + STRIP * queries * (2 * (2 * unit + strip) + plane);
                    e.store(behind(AT, to), from + STRIP * strip, queries, STRIP, POSITIONS, STRIP);
                }
            } else {
                let padded = placed.tile.padded();
                let to = placed.l1.weights(0) + STRIP * (2 * padded * 2 * unit + plane * padded);
                ub_to_l1(e, (to, from), (queries, POSITIONS), (POSITIONS, 2 * padded * STRIP));
            }
        }
        if self.is_split {
            e.push(Order::XSet { queue: Queue::Mte3, mode: CrossMode::Group, id: GO });
        } else {
            e.set(Queue::Mte3, Queue::Mte1, flag::WEIGHTS);
        }
    }
}
