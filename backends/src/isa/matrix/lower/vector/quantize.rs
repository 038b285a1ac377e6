//! Quantization of activation rows, alone or behind a norm or a gate, into the strips that the cube reads.

use tcc_ir::numerics::ABSMAX_FLOOR;
use tcc_ir::ops::Act;

use super::rows::{self, NormSpace, OUT, Rows, TOGETHER, X, Y};
use super::{Place, Space, Tables, UbTooSmall, behind, reg, row_cores, share_rows};
use crate::isa::matrix::lower::emit::{Emit, F32, Second, U16, block, dense, strided};
use crate::isa::matrix::lower::matmul::tile::Mode;
use crate::isa::matrix::program::StartValues;
use crate::isa::matrix::program::addr::{Queue, Reg};
use crate::isa::matrix::program::inst::Count;
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::VecOp;

const SCALE: Reg = reg(9);
/// First of the core's runs of [`TOGETHER`] rows, how many are whole, and 1 if the ragged one is its own.
const FIRST: Reg = reg(10);
const WHOLE: Reg = reg(11);
const RAGGED: Reg = reg(12);

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
    /// A row as f32, not yet rounded; at other times one of a gate's second operand.
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
    codes: Codes,
}

impl Group {
    fn fit(ub: usize, rows: usize, (k, mode): (usize, Mode), before: Before) -> Result<Group, UbTooSmall> {
        let mut space = Space::new(ub);
        let pitch = (4 * k).max(Codes::row_bytes(k, mode)).next_multiple_of(32);
        let at = space.take(rows * pitch)?;
        let gate = space.take(before.gate().map_or(0, |(act, _)| rows::gate_bytes(act, k)))?;
        let norm = before.norm().map(|_| NormSpace::take(&mut space, k)).transpose()?;
        Ok(Group { x: Rows { at, rows, pitch }, norm, gate, codes: Codes::take(&mut space, k, mode)? })
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
) -> Result<(usize, Vec<StartValues>), UbTooSmall> {
    let at = rows::most(m, |rows| Group::fit(ub, rows, (k, mode), before))?;
    let starts = share_rows(e, (m, TOGETHER), cores, [FIRST, WHOLE, RAGGED]);
    if let (Some((_, w)), Some(norm)) = (before.norm(), &at.norm) {
        norm.load(e, k, w, tables);
    }
    let mut first = |reg: Reg, place: Place, bytes: usize| {
        e.point(rows::AT, place);
        e.index(reg, rows::AT, FIRST, TOGETHER * bytes);
    };
    first(X, x, 4 * k);
    first(OUT, q, 32 * mode.rows());
    first(SCALE, act_scale, 4);
    if let Some((_, u)) = before.gate() {
        first(Y, u, 4 * k);
    }
    let strip_rows = (m * mode.rows()).next_multiple_of(16);
    let group = |e: &mut Emit, rows: usize| at.quantize(e, rows, (k, strip_rows), before);
    if m >= TOGETHER {
        e.begin(Count::Reg(WHOLE));
        rows::in_groups(e, TOGETHER, at.x.rows, group);
        e.end(&[]);
    }
    if !m.is_multiple_of(TOGETHER) {
        e.begin(Count::Reg(RAGGED));
        rows::in_groups(e, m % TOGETHER, at.x.rows, group);
        e.end(&[]);
    }
    Ok((row_cores(m, TOGETHER, cores), starts))
}

impl Group {
    /// The next `rows` rows; how far the registers are to move.
    fn quantize(&self, e: &mut Emit, rows: usize, (k, strip_rows): (usize, usize), before: Before) -> Vec<(Reg, i32)> {
        let (x, mode) = (Rows { rows, ..self.x }, self.codes.mode);
        e.load(x.at, behind(X, 0), rows, 4 * k, 4 * k, x.pitch);
        e.loaded();
        if let Some((act, _)) = before.gate() {
            for row in 0..rows {
                e.load(self.codes.t, behind(Y, 4 * k * row), 1, 4 * k, 0, 0);
                e.loaded();
                rows::gate_row(e, act, [x.row(row), self.codes.t, self.gate], k);
                e.after(Queue::V, Queue::Mte2);
            }
        }
        if let (Some((eps, _)), Some(norm)) = (before.norm(), &self.norm) {
            rows::norm_rows(e, norm, x, k, eps);
        }
        code_rows(e, &self.codes, x, k);
        e.computed();
        let strips = self.codes.padded / mode.strip();
        for row in 0..rows {
            for plane in 0..mode.rows() {
                let (to, from) = (behind(OUT, 32 * (row * mode.rows() + plane)), self.codes.plane(x.row(row), plane));
                e.store(to, from, strips, 32, 32, 32 * strip_rows);
            }
        }
        e.store(behind(SCALE, 0), self.codes.a, 1, 4 * rows, 0, 0);
        e.stored();
        let bytes = rows::step(4 * k * rows);
        vec![(X, bytes), (Y, bytes), (OUT, rows::step(32 * mode.rows() * rows)), (SCALE, rows::step(4 * rows))]
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
    for row in 0..count {
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
