//! Quantization of activation rows, alone or behind a norm or a gate, into the strips that the cube reads.

use std::ops::Range;

use tcc_ir::numerics::ABSMAX_FLOOR;
use tcc_ir::ops::Act;

use super::grid::{Grid, Maxima, NormSpace, clear_tail, load_weights, spread};
use super::rows::{self, OUT, TOGETHER, W, X, Y, first_run};
use super::{Place, RUNS, Sharing, Space, Tables, UbTooSmall, behind, in_runs, reg, run_cores, share_rows};
use crate::isa::matrix::lower::emit::{Emit, F32, Second, U16, block, dense, strided};
use crate::isa::matrix::lower::matmul::tile::Mode;
use crate::isa::matrix::program::addr::{Addr, Queue, Reg};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::VecOp;

const SCALE: Reg = reg(9);
/// Where the codes of the piece at hand go.
const TO: Reg = reg(13);

/// First flags of slots, by number, and of parts of the rows. Between MTE3 and the vector unit, the one behind the slots'
/// says that the scales have been stored.
const SLOT: u8 = 0;
const SCALES: u8 = 2;
const PART: u8 = 2;
/// Runs of pieces that are loaded, and given back, by themselves.
const PARTS: usize = 4;
/// More bytes of a slot are of no use: magnitudes of both are one instruction.
const MOST_SLOT: usize = 128 * 255;

/// What happens to a row before it is quantized.
#[derive(Clone, Copy, Debug)]
pub enum Before {
    Nothing,
    /// RMS norm with the weights at the place.
    Norm {
        eps: f32,
        w: Place,
    },
    /// Gate with the second operand at the place.
    Glu {
        act: Act,
        u: Place,
    },
    GluNorm {
        act: Act,
        u: Place,
        eps: f32,
        w: Place,
    },
}

impl Before {
    fn gate(self) -> Option<(Act, Place)> {
        match self {
            Before::Glu { act, u } | Before::GluNorm { act, u, .. } => Some((act, u)),
            Before::Nothing | Before::Norm { .. } => None,
        }
    }

    fn norm(self) -> Option<(f32, Place)> {
        match self {
            Before::Norm { eps, w } | Before::GluNorm { eps, w, .. } => Some((eps, w)),
            Before::Nothing | Before::Glu { .. } => None,
        }
    }
}

/// What [`quantize`] has in UB. Everything but the rows goes through two slots.
struct Group {
    x: Grid,
    mode: Mode,
    norm: Option<NormSpace>,
    /// Weights of a norm, if UB has room for all of them.
    weights: Option<usize>,
    /// Scratch of gates.
    gate: usize,
    maxima: Maxima,
    scales: Scales,
    slots: [usize; 2],
    slot_bytes: usize,
}

impl Group {
    fn fit(ub: usize, rows: usize, shape: (usize, Mode), before: Before) -> Result<Group, UbTooSmall> {
        // Slots hold a row of a piece.
        Group::take(ub, rows, shape, before, false).or_else(|_| Group::take(ub, rows, shape, before, true))
    }

    fn take(
        ub: usize,
        rows: usize,
        (k, mode): (usize, Mode),
        before: Before,
        is_cut: bool,
    ) -> Result<Group, UbTooSmall> {
        let mut space = Space::new(ub);
        let x = Grid::take(&mut space, rows, k, is_cut)?;
        let gate = space.take(before.gate().map_or(0, |(act, _)| rows::gate_bytes(act, x.rows * x.columns)))?;
        let norm = before.norm().map(|_| NormSpace::take(&mut space)).transpose()?;
        let (maxima, scales) = (Maxima::take(&mut space)?, Scales::take(&mut space)?);
        // A row of a piece, and its codes.
        let least = (4 * x.columns).max(code_bytes(x.columns, mode));
        let mut rest = space.clone();
        let all = rest.floats(x.columns * x.pieces).ok().filter(|_| norm.is_some() && rest.left() >= 2 * least);
        if all.is_some() {
            space = rest;
        }
        let slot_bytes = (space.left() / 2 / 256 * 256).clamp(least, MOST_SLOT.max(least));
        let slots = [space.take(slot_bytes)?, space.take(slot_bytes)?];
        Ok(Group { x, mode, norm, weights: all, gate, maxima, scales, slots, slot_bytes })
    }
}

/// Quantizes rows `x: f32[m, k]` into strips, and `act_scale: f32[m]`; returns the cores that share the rows.
pub fn quantize(
    e: &mut Emit,
    ub: usize,
    (m, k, mode): (usize, usize, Mode),
    before: Before,
    [x, q, act_scale]: [Place; 3],
    (tables, cores): (&Tables, usize),
) -> Result<Sharing, UbTooSmall> {
    let at = rows::most(m, |rows| Group::fit(ub, rows, (k, mode), before))?;
    let cores = run_cores(m, TOGETHER, cores);
    let starts = share_rows(e, (m, TOGETHER), cores, RUNS);
    at.tokens(e, true);
    at.scales.constants(e);
    if let (Some((_, w)), Some(norm)) = (before.norm(), &at.norm) {
        norm.load(e, tables, W);
        e.point(W, w);
        if let Some(weights) = at.weights {
            load_weights(e, weights, &at.x, W);
        }
        e.loaded();
    }
    first_run(e, &[(X, x, 4 * k), (OUT, q, 32 * mode.rows()), (SCALE, act_scale, 4)], TOGETHER);
    if let Some((_, u)) = before.gate() {
        first_run(e, &[(Y, u, 4 * k)], TOGETHER);
    }
    let strip_rows = (m * mode.rows()).next_multiple_of(16);
    in_runs(e, (m, TOGETHER), |e, rows| {
        rows::in_groups(e, rows, at.x.rows, |e, rows| at.quantize(e, rows, strip_rows, before));
        vec![]
    });
    at.tokens(e, false);
    Ok((cores, starts))
}

impl Group {
    /// Sets, or takes, the flags that say that rows, slots and scales are free.
    fn tokens(&self, e: &mut Emit, is_start: bool) {
        let parts = (PART..).take(self.parts().len()).map(|part| (Queue::V, Queue::Mte2, part));
        let stored = [SLOT, SLOT + 1, SCALES].map(|id| (Queue::Mte3, Queue::V, id));
        for (src, dst, id) in parts.chain(stored) {
            if is_start { e.set(src, dst, id) } else { e.wait(src, dst, id) }
        }
    }

    /// Runs of pieces that are loaded by themselves.
    fn parts(&self) -> Vec<Range<usize>> {
        let size = self.x.pieces.div_ceil(PARTS);
        (0..self.x.pieces).step_by(size).map(|first| first..self.x.pieces.min(first + size)).collect()
    }

    /// The next `rows` rows; how far the registers are to move.
    fn quantize(&self, e: &mut Emit, rows: usize, strip_rows: usize, before: Before) -> Vec<(Reg, i32)> {
        let x = Grid { rows, ..self.x };
        let mut slots = Slots { group: self, loads: self.loads(&x, before), next: 0 };
        for (part, pieces) in (PART..).zip(self.parts()) {
            e.wait(Queue::V, Queue::Mte2, part);
            if pieces.end == x.pieces && x.has_tail() {
                x.clear_tail(e);
                e.after(Queue::V, Queue::Mte2);
            }
            pieces.for_each(|piece| x.load(e, piece, X));
            e.set(Queue::Mte2, Queue::V, part);
        }
        if let Some(norm) = &self.norm {
            norm.clear(e, rows);
        }
        if before.gate().is_some() {
            slots.begin(e, 0);
        }
        for (part, pieces) in (PART..).zip(self.parts()) {
            e.wait(Queue::Mte2, Queue::V, part);
            for piece in pieces {
                match (before.gate(), &self.norm) {
                    (Some((act, _)), _) => rows::activate(e, act, [x.row(piece, 0), self.gate], rows * x.columns),
                    (None, Some(norm)) => norm.add(e, &x, piece),
                    (None, None) => {}
                }
            }
        }
        if before.gate().is_some() {
            slots.begin(e, 1);
            self.times_second(e, &x, &mut slots);
        } else {
            (0..2).for_each(|slot| slots.begin(e, slot));
        }
        if let (Some((eps, _)), Some(norm)) = (before.norm(), &self.norm) {
            norm.scale(e, &x, eps);
            for piece in 0..x.pieces {
                if let Some(weights) = self.weights {
                    x.times_columns(e, piece, weights + 4 * x.columns * piece);
                } else {
                    slots.with(e, |e, weights| x.times_columns(e, piece, weights));
                }
            }
        }
        e.wait(Queue::Mte3, Queue::V, SCALES);
        x.magnitudes(e, self.scales.a, &self.maxima, (self.slots[0], 2 * self.slot_bytes));
        self.scales.finish(e, rows, x.span());
        self.codes(e, &x, strip_rows);
        e.store(behind(SCALE, 0), self.scales.a, 1, 4 * rows, 0, 0);
        e.set(Queue::Mte3, Queue::V, SCALES);
        let bytes = rows::step(4 * x.width * rows);
        vec![(X, bytes), (Y, bytes), (OUT, rows::step(32 * self.mode.rows() * rows)), (SCALE, rows::step(4 * rows))]
    }

    /// Rows of a gate's second operand that a slot holds.
    fn second_rows(&self) -> usize {
        self.slot_bytes / (4 * self.x.columns)
    }

    /// What the slots are loaded with, in this order: a gate's second operand, and weights that UB does not hold.
    fn loads(&self, x: &Grid, before: Before) -> Vec<Load> {
        let mut loads = vec![];
        let at = |piece: usize| 4 * piece * x.columns;
        if before.gate().is_some() {
            for (piece, row) in (0..x.pieces).flat_map(|p| (0..x.rows).step_by(self.second_rows()).map(move |r| (p, r)))
            {
                let rows = self.second_rows().min(x.rows - row);
                loads.push(Load { from: behind(Y, 4 * x.width * row + at(piece)), rows, valid: x.valid(piece) });
            }
        }
        if self.norm.is_some() && self.weights.is_none() {
            loads.extend((0..x.pieces).map(|p| Load { from: behind(W, at(p)), rows: 1, valid: x.valid(p) }));
        }
        loads
    }

    /// Multiplies the rows with a gate's second operand, and adds squares while more of it is loaded.
    fn times_second(&self, e: &mut Emit, x: &Grid, slots: &mut Slots) {
        let squares = |e: &mut Emit, piece: usize, half: usize| {
            if let Some(norm) = &self.norm {
                norm.add_half(e, x, piece, half);
            }
        };
        let chunks: Vec<usize> = (0..x.rows).step_by(self.second_rows()).collect();
        for piece in 0..x.pieces {
            for (index, row) in chunks.iter().enumerate() {
                if index == chunks.len() / 2 && piece > 0 {
                    squares(e, piece - 1, 1);
                }
                let (at, count) = (x.row(piece, *row), self.second_rows().min(x.rows - row) * x.columns);
                slots.with(e, |e, u| e.each2(VecOp::Mul, at, at, u, count));
            }
            squares(e, piece, 0);
        }
        squares(e, x.pieces - 1, 1);
    }

    /// Codes of all rows, through the slots. Rows of a piece are given back as soon as they have become codes.
    fn codes(&self, e: &mut Emit, x: &Grid, strip_rows: usize) {
        let rows = (1..=x.rows).rev().find(|rows| code_bytes(rows * x.columns, self.mode) <= self.slot_bytes);
        // A slot holds the codes of one.
        let rows = rows.unwrap_or(1);
        let (planes, strip, parts) = (self.mode.rows(), self.mode.strip(), self.parts());
        let mut uses = 0;
        for piece in 0..x.pieces {
            if piece.is_multiple_of(x.span()) {
                x.times_rows(e, piece..piece + x.span(), self.scales.inv);
            }
            // Slices of strips of a prompt: below 2^40.
            e.add(TO, OUT, (piece * x.columns / strip * 32 * strip_rows) as i64);
            let columns = x.columns.min(x.width.next_multiple_of(128) - piece * x.columns);
            for first in (0..x.rows).step_by(rows) {
                let (flag, at, count) = (SLOT + uses % 2, self.slots[usize::from(uses % 2)], rows.min(x.rows - first));
                if uses >= 2 {
                    e.wait(Queue::Mte3, Queue::V, flag);
                }
                // Saturates at -128 and 127, as the clamp does.
                let from = x.row(piece, first);
                e.each(VecOp::Cast, (ElemType::S8, ElemType::F32), at, from, Second::None, count * x.columns);
                split(e, self.mode, at, count * x.columns);
                e.set(Queue::V, Queue::Mte3, flag);
                e.wait(Queue::V, Queue::Mte3, flag);
                for (row, plane) in (0..count).flat_map(|row| (0..planes).map(move |plane| (row, plane))) {
                    let from = plane_at(self.mode, (at, count * x.columns), plane) + row * x.columns / strip * 32;
                    let to = behind(TO, 32 * ((first + row) * planes + plane));
                    e.store(to, from, columns / strip, 32, 32, 32 * strip_rows);
                }
                e.set(Queue::Mte3, Queue::V, flag);
                uses += 1;
            }
            if let Some(part) = parts.iter().position(|part| part.end == piece + 1) {
                // At most four parts.
                e.set(Queue::V, Queue::Mte2, PART + part as u8);
            }
        }
        // A slot that had no codes is free.
        (uses..2).for_each(|slot| e.set(Queue::Mte3, Queue::V, SLOT + slot));
    }
}

/// Bytes of `count` codes, and of their nibbles behind them, which whole repeats make.
fn code_bytes(count: usize, mode: Mode) -> usize {
    match mode {
        Mode::I8 => count,
        Mode::I4 => 2 * count.next_multiple_of(512),
    }
}

/// What a slot is loaded with: rows of a piece, as far apart as those of the second operand.
struct Load {
    from: Addr,
    rows: usize,
    valid: usize,
}

/// The slots while they are loaded: the vector unit gives them to MTE2, one after the other.
struct Slots<'a> {
    group: &'a Group,
    loads: Vec<Load>,
    next: usize,
}

impl Slots<'_> {
    /// Takes a slot from those who store codes, and has it loaded.
    fn begin(&self, e: &mut Emit, slot: usize) {
        // Two slots.
        e.wait(Queue::Mte3, Queue::V, SLOT + slot as u8);
        self.load(e, slot);
    }

    fn load(&self, e: &mut Emit, index: usize) {
        let Some(load) = self.loads.get(index) else { return };
        let (at, flag, x) = (self.group.slots[index % 2], SLOT + (index % 2) as u8, &self.group.x);
        clear_tail(e, at, (load.rows, x.columns), load.valid);
        e.set(Queue::V, Queue::Mte2, flag);
        e.wait(Queue::V, Queue::Mte2, flag);
        e.load(at, load.from, load.rows, 4 * load.valid, 4 * x.width, 4 * x.columns);
        e.set(Queue::Mte2, Queue::V, flag);
    }

    /// Works with what comes next.
    fn with(&mut self, e: &mut Emit, work: impl FnOnce(&mut Emit, usize)) {
        e.wait(Queue::Mte2, Queue::V, SLOT + (self.next % 2) as u8);
        work(e, self.group.slots[self.next % 2]);
        self.load(e, self.next + 2);
        self.next += 1;
    }
}

/// UB of scales.
struct Scales {
    /// The rows' scales, one behind the other.
    a: usize,
    /// A block for each row: what its elements are to be multiplied with.
    inv: usize,
    /// A block of 127.
    top: usize,
}

impl Scales {
    fn take(space: &mut Space) -> Result<Scales, UbTooSmall> {
        Ok(Scales { a: space.floats(8)?, inv: space.floats(8 * TOGETHER)?, top: space.floats(8)? })
    }

    fn constants(&self, e: &mut Emit) {
        e.fill(self.top, 127.0f32.to_bits(), 8);
    }

    /// The scales of rows whose largest magnitudes are at `a`, factors `span` times.
    fn finish(&self, e: &mut Emit, rows: usize, span: usize) {
        let (a, inv) = (self.a, self.inv);
        e.each(VecOp::Max, F32, a, a, Second::f32(ABSMAX_FLOOR), rows);
        spread(e, inv, a, (rows, span));
        e.vec(VecOp::Div, F32, dense(inv), block(self.top), Second::Vector(dense(inv)), 1, 8 * rows * span);
        e.each(VecOp::Div, F32, a, a, Second::f32(127.0), rows);
    }
}

/// Where `count` codes at `at` lie: bytes, or their high (0) or low (1) nibbles behind them.
fn plane_at(mode: Mode, (at, count): (usize, usize), plane: usize) -> usize {
    match mode {
        Mode::I8 => at,
        Mode::I4 => {
            let codes = count.next_multiple_of(512);
            at + codes + plane * codes / 2
        }
    }
}

/// Splits `count` codes at `at`, where the mode says so, into strips of high and of low nibbles: column 64 s + b low,
/// 64 s + 32 + b high in a byte.
fn split(e: &mut Emit, mode: Mode, at: usize, count: usize) {
    if mode == Mode::I8 {
        return;
    }
    // A repeat is eight strips; what lies behind the last one is not stored.
    let repeats = count.div_ceil(512);
    if 512 * repeats > count {
        e.fill(at + count, 0, (512 * repeats - count) / 4);
    }
    let half = |which: usize| strided(at + 32 * which, 2, 16);
    let [high, low] = [0, 1].map(|plane| strided(plane_at(mode, (at, count), plane), 1, 8));
    let mut op = |op, to, a, b| e.vec(op, U16, to, a, b, repeats, 128);
    let bits = Second::Bits;
    // a >> 4 of both columns; the low plane has room for the first one.
    op(VecOp::Shr, low, half(0), bits(4));
    op(VecOp::And, low, low, bits(0x0f0f));
    op(VecOp::And, high, half(1), bits(0xf0f0));
    op(VecOp::Or, high, high, Second::Vector(low));
    // (a & 15) - 8 in four bits is (a & 15) ^ 8.
    op(VecOp::Shl, low, half(1), bits(4));
    op(VecOp::And, low, low, bits(0xf0f0));
    op(VecOp::And, half(0), half(0), bits(0x0f0f));
    op(VecOp::Or, low, low, Second::Vector(half(0)));
    op(VecOp::Xor, low, low, bits(0x8888));
}
