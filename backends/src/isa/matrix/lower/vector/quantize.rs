//! Quantization of activation rows, alone or behind a norm or a gate, into the strips that the cube reads.

use std::ops::Range;

use tcc_ir::numerics::ABSMAX_FLOOR;
use tcc_ir::ops::Act;

use super::rows::{self, NormSpace, OUT, Rows, TOGETHER, X, Y, first_run};
use super::{Place, RUNS, Sharing, Space, Tables, UbTooSmall, behind, in_runs, reg, run_cores, share_rows};
use crate::isa::matrix::lower::emit::{Emit, F32, Second, U16, block, dense, strided};
use crate::isa::matrix::lower::matmul::tile::Mode;
use crate::isa::matrix::program::addr::{Queue, Reg};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::VecOp;

const SCALE: Reg = reg(9);

/// First flag of the parts of a group: the rows of one are loaded as soon as those before them have been stored. 0 is
/// [`Emit::after`]'s, the last one that of a gate's second operand.
const PART: u8 = 1;
const PARTS: usize = 4;
const SECOND: u8 = 5;
/// The scales have been stored.
const SCALES: u8 = 1;

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

/// UB of rows of codes.
pub struct Codes {
    max: usize,
    blocks: usize,
    /// The rows' scales, one behind the other.
    pub a: usize,
    inv: usize,
    /// A row as f32, not yet rounded; at other times one of a gate's second operand, perhaps.
    pub t: usize,
    padded: usize,
    mode: Mode,
}

/// What [`quantize`] has in UB. A row's codes take the place of its elements.
struct Group {
    x: Rows,
    norm: Option<NormSpace>,
    /// Scratch of gates.
    gate: usize,
    /// A row of a gate's second operand: where codes are made later, if UB has no other place.
    second: usize,
    codes: Codes,
}

impl Group {
    fn fit(ub: usize, rows: usize, (k, mode): (usize, Mode), before: Before) -> Result<Group, UbTooSmall> {
        let mut space = Space::new(ub);
        let pitch = (4 * k).max(Codes::row_bytes(k, mode)).next_multiple_of(32);
        let at = space.take(rows * pitch)?;
        let gate = space.take(before.gate().map_or(0, |(act, _)| rows::gate_bytes(act, k)))?;
        let norm = before.norm().map(|_| NormSpace::take(&mut space, k)).transpose()?;
        let codes = Codes::take(&mut space, k, mode)?;
        let second = space.floats(k).unwrap_or(codes.t);
        Ok(Group { x: Rows { at, rows, pitch }, norm, gate, second, codes })
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
    if let (Some((_, w)), Some(norm)) = (before.norm(), &at.norm) {
        norm.load(e, k, w, tables);
    }
    first_run(e, &[(X, x, 4 * k), (OUT, q, 32 * mode.rows()), (SCALE, act_scale, 4)], TOGETHER);
    if let Some((_, u)) = before.gate() {
        first_run(e, &[(Y, u, 4 * k)], TOGETHER);
    }
    let strip_rows = (m * mode.rows()).next_multiple_of(16);
    presets(e, before, true);
    in_runs(e, (m, TOGETHER), |e, rows| {
        rows::in_groups(e, rows, at.x.rows, |e, rows| at.quantize(e, rows, (k, strip_rows), before));
        vec![]
    });
    presets(e, before, false);
    Ok((cores, starts))
}

/// Sets, or takes, the flags that say that rows are free.
fn presets(e: &mut Emit, before: Before, is_start: bool) {
    let parts = (PART..).take(PARTS).map(|part| (Queue::Mte3, Queue::Mte2, part));
    let second = before.gate().map(|_| (Queue::V, Queue::Mte2, SECOND));
    for (src, dst, id) in parts.chain(second).chain([(Queue::Mte3, Queue::V, SCALES)]) {
        if is_start { e.set(src, dst, id) } else { e.wait(src, dst, id) }
    }
}

impl Group {
    /// The next `rows` rows; how far the registers are to move.
    fn quantize(&self, e: &mut Emit, rows: usize, (k, strip_rows): (usize, usize), before: Before) -> Vec<(Reg, i32)> {
        let (x, mode) = (Rows { rows, ..self.x }, self.codes.mode);
        let parts = Group::parts(rows);
        for (part, of) in parts.iter().enumerate() {
            let flag = PART + part as u8;
            e.wait(Queue::Mte3, Queue::Mte2, flag);
            e.load(x.row(of.start), behind(X, 4 * k * of.start), of.len(), 4 * k, 4 * k, x.pitch);
            e.set(Queue::Mte2, Queue::V, flag);
            if part == 0 && before.gate().is_some() {
                self.load_second(e, 0, k);
            }
        }
        if let Some(norm) = &self.norm {
            rows::clear_sums(e, norm, rows);
        }
        for (part, of) in parts.iter().enumerate() {
            e.wait(Queue::Mte2, Queue::V, PART + part as u8);
            if let Some((act, _)) = before.gate() {
                of.clone().for_each(|row| self.gate(e, act, (x, row), k));
            }
            if let (true, Some(norm)) = (x.are_far(), &self.norm) {
                // Row by row, while others are loaded.
                of.clone().for_each(|row| rows::sum_squares(e, norm, (x, row..row + 1), k));
            }
        }
        if let (Some((eps, _)), Some(norm)) = (before.norm(), &self.norm) {
            if !x.are_far() {
                rows::sum_squares(e, norm, (x, 0..rows), k);
            }
            rows::norm_summed(e, norm, x, k, eps);
        }
        e.wait(Queue::Mte3, Queue::V, SCALES);
        scale_rows(e, &self.codes, x, k);
        let strips = self.codes.padded / mode.strip();
        for (part, of) in parts.iter().enumerate() {
            let flag = PART + part as u8;
            of.clone().for_each(|row| code_row(e, &self.codes, (x, row), k));
            e.set(Queue::V, Queue::Mte3, flag);
            e.wait(Queue::V, Queue::Mte3, flag);
            for (row, plane) in of.clone().flat_map(|row| (0..mode.rows()).map(move |plane| (row, plane))) {
                let (to, from) = (behind(OUT, 32 * (row * mode.rows() + plane)), self.codes.plane(x.row(row), plane));
                e.store(to, from, strips, 32, 32, 32 * strip_rows);
            }
            e.set(Queue::Mte3, Queue::Mte2, flag);
        }
        if before.gate().is_some() && self.second == self.codes.t {
            // What was loaded there has become codes.
            e.set(Queue::V, Queue::Mte2, SECOND);
        }
        e.store(behind(SCALE, 0), self.codes.a, 1, 4 * rows, 0, 0);
        e.set(Queue::Mte3, Queue::V, SCALES);
        let bytes = rows::step(4 * k * rows);
        vec![(X, bytes), (Y, bytes), (OUT, rows::step(32 * mode.rows() * rows)), (SCALE, rows::step(4 * rows))]
    }
}

impl Group {
    /// The rows of a group of `rows` that are loaded, and stored, by themselves.
    fn parts(rows: usize) -> Vec<Range<usize>> {
        let size = rows.div_ceil(PARTS);
        (0..rows).step_by(size).map(|first| first..rows.min(first + size)).collect()
    }

    /// Loads a row of a gate's second operand.
    fn load_second(&self, e: &mut Emit, row: usize, k: usize) {
        e.wait(Queue::V, Queue::Mte2, SECOND);
        e.load(self.second, behind(Y, 4 * k * row), 1, 4 * k, 0, 0);
        e.set(Queue::Mte2, Queue::V, SECOND);
    }

    /// The gate of a row; the first row's second operand is loaded with the first rows.
    fn gate(&self, e: &mut Emit, act: Act, (x, row): (Rows, usize), k: usize) {
        if row > 0 {
            self.load_second(e, row, k);
        }
        e.wait(Queue::Mte2, Queue::V, SECOND);
        rows::gate_row(e, act, [x.row(row), self.second, self.gate], k);
        if row + 1 < x.rows || self.second != self.codes.t {
            e.set(Queue::V, Queue::Mte2, SECOND);
        }
    }
}

impl Codes {
    /// Takes room for rows of `k` elements.
    pub fn take(space: &mut Space, k: usize, mode: Mode) -> Result<Codes, UbTooSmall> {
        let padded = k.next_multiple_of(128);
        Ok(Codes {
            max: space.floats(64 * TOGETHER)?,
            blocks: space.floats(8 * TOGETHER)?,
            a: space.floats(8)?,
            inv: space.floats(8 * TOGETHER)?,
            t: space.take((4 * k).max(Codes::row_bytes(k, mode)))?,
            padded,
            mode,
        })
    }

    /// Bytes of a row's codes; where they are split, they and their nibbles behind them fill whole repeats.
    fn bytes(k: usize, mode: Mode) -> usize {
        match mode {
            Mode::I8 => k.next_multiple_of(128),
            Mode::I4 => k.next_multiple_of(512),
        }
    }

    /// Bytes of a row's codes and of their nibbles.
    pub fn row_bytes(k: usize, mode: Mode) -> usize {
        Codes::bytes(k, mode) * mode.rows()
    }

    /// A block of each row's scale, for stores that take one by one; returns the place of the first.
    pub fn spread_scales(&self, e: &mut Emit, rows: usize) -> usize {
        e.spread(self.inv, self.a, rows);
        self.inv
    }

    /// Where the codes of a row at `row` lie: bytes, or their high (0) or low (1) nibbles behind them.
    pub fn plane(&self, row: usize, plane: usize) -> usize {
        match self.mode {
            Mode::I8 => row,
            Mode::I4 => {
                let codes = Codes::bytes(self.padded, self.mode);
                row + codes + plane * codes / 2
            }
        }
    }
}

/// Codes of rows in place of their elements, in strips of nibbles too where the mode says so, and scales at `a`.
pub fn code_rows(e: &mut Emit, at: &Codes, x: Rows, k: usize) {
    scale_rows(e, at, x, k);
    (0..x.rows).for_each(|row| code_row(e, at, (x, row), k));
}

/// The scales of rows at `a`, and what their elements are to be multiplied with.
fn scale_rows(e: &mut Emit, at: &Codes, x: Rows, k: usize) {
    let count = x.rows;
    e.fill(at.max, 0, 64 * count);
    let (full, tail) = (k / 64, k % 64);
    for row in 0..count {
        e.each(VecOp::Abs, F32, at.t, x.row(row), Second::None, k);
        let to = strided(at.max + 256 * row, 1, 0);
        if full > 0 {
            e.vec(VecOp::Max, F32, to, dense(at.t), Second::Vector(to), full, 64);
        }
        if tail > 0 {
            e.vec(VecOp::Max, F32, to, dense(at.t + 256 * full), Second::Vector(to), 1, tail);
        }
    }
    e.vec(VecOp::BlockMax, F32, dense(at.blocks), dense(at.max), Second::None, count, 64);
    e.vec(VecOp::BlockMax, F32, dense(at.a), dense(at.blocks), Second::None, 1, 8 * count);
    e.each(VecOp::Max, F32, at.a, at.a, Second::f32(ABSMAX_FLOOR), count);
    e.fill(at.blocks, 127.0f32.to_bits(), count);
    e.each2(VecOp::Div, at.blocks, at.blocks, at.a, count);
    e.spread(at.inv, at.blocks, count);
    e.each(VecOp::Div, F32, at.a, at.a, Second::f32(127.0), count);
}

/// The codes of a row.
fn code_row(e: &mut Emit, at: &Codes, (x, row): (Rows, usize), k: usize) {
    e.each(VecOp::Mul, F32, at.t, x.row(row), Second::Vector(block(at.inv + 32 * row)), k);
    let bytes = Codes::bytes(k, at.mode);
    if bytes > k {
        e.fill(x.row(row), 0, bytes / 4);
    }
    // Saturates at -128 and 127, as the clamp does.
    e.each(VecOp::Cast, (ElemType::S8, ElemType::F32), x.row(row), at.t, Second::None, k);
    if at.mode == Mode::I4 {
        nibbles(e, at, x.row(row));
    }
}

/// Splits the codes of a row into strips of high and of low nibbles: column 64 s + b low, 64 s + 32 + b high in a byte.
fn nibbles(e: &mut Emit, at: &Codes, codes: usize) {
    // A repeat is eight strips; what lies behind the last one is not stored.
    let repeats = at.padded.div_ceil(512);
    let half = |which: usize| strided(codes + 32 * which, 2, 16);
    let to = |base: usize| strided(base, 1, 8);
    let (t, high, low) = (to(at.t), to(at.plane(codes, 0)), to(at.plane(codes, 1)));
    let mut op = |op, to, a, b| e.vec(op, U16, to, a, b, repeats, 128);
    let bits = Second::Bits;
    // a >> 4 of both columns.
    op(VecOp::Shr, t, half(0), bits(4));
    op(VecOp::And, t, t, bits(0x0f0f));
    op(VecOp::And, high, half(1), bits(0xf0f0));
    op(VecOp::Or, high, high, Second::Vector(t));
    // (a & 15) - 8 in four bits is (a & 15) ^ 8.
    op(VecOp::And, t, half(0), bits(0x0f0f));
    op(VecOp::Shl, low, half(1), bits(4));
    op(VecOp::And, low, low, bits(0xf0f0));
    op(VecOp::Or, low, low, Second::Vector(t));
    op(VecOp::Xor, low, low, bits(0x8888));
}
