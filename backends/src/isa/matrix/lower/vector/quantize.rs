//! Quantization of activation rows, alone or behind a norm or a gate, into the strips that the cube reads.

use tcc_ir::numerics::ABSMAX_FLOOR;
use tcc_ir::ops::Act;

use super::rows::{self, NormSpace, OUT, X, Y};
use super::{Place, Space, Tables, UbTooSmall, behind, reg};
use crate::isa::matrix::lower::emit::{Emit, F32, Second, U16, block, dense, strided};
use crate::isa::matrix::lower::matmul::tile::Mode;
use crate::isa::matrix::program::addr::Reg;
use crate::isa::matrix::program::inst::Count;
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::VecOp;

const SCALE: Reg = reg(9);

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

/// UB of one row's codes.
pub struct Codes {
    max: usize,
    blocks: usize,
    /// The row's scale.
    pub a: usize,
    inv: usize,
    pub codes: usize,
    low: usize,
    high: usize,
    /// The codes as f32, not yet rounded.
    pub t: usize,
    padded: usize,
}

/// Quantizes rows `x: f32[m, k]` into strips, and `act_scale: f32[m]`.
pub fn quantize(
    e: &mut Emit,
    ub: usize,
    (m, k, mode): (usize, usize, Mode),
    before: Before,
    [x, q, act_scale]: [Place; 3],
    tables: &Tables,
) -> Result<(), UbTooSmall> {
    let mut space = Space::new(ub);
    let row = space.floats(k)?;
    let gate = before.gate().map(|(act, u)| {
        let second = space.floats(k)?;
        Ok((act, u, second, space.take(rows::gate_bytes(act, k))?))
    });
    let gate = gate.transpose()?;
    let norm = before.norm().map(|(eps, w)| Ok((eps, NormSpace::load(e, &mut space, k, w, tables)?)));
    let norm = norm.transpose()?;
    let at = Codes::take(&mut space, k, mode)?;
    e.fill(at.codes, 0, at.padded / 4);
    e.point(X, x);
    e.point(OUT, q);
    e.point(SCALE, act_scale);
    if let Some((_, u, ..)) = gate {
        e.point(Y, u);
    }
    let strip_rows = (m * mode.rows()).next_multiple_of(16);
    e.begin(Count::Fixed(u32::try_from(m).expect("fewer rows than 2^32")));
    e.load(row, behind(X, 0), 1, 4 * k, 0, 0);
    if let Some((_, _, second, _)) = gate {
        e.load(second, behind(Y, 0), 1, 4 * k, 0, 0);
    }
    e.loaded();
    if let Some((act, _, second, scratch)) = gate {
        rows::gate_row(e, act, [row, second, scratch], k);
    }
    if let Some((eps, space)) = &norm {
        rows::norm_row(e, space, row, k, *eps);
    }
    code_row(e, &at, row, k);
    if mode == Mode::I4 {
        nibbles(e, &at);
    }
    e.computed();
    let strips = at.padded / if mode == Mode::I8 { 32 } else { 64 };
    let planes = if mode == Mode::I8 { vec![at.codes] } else { vec![at.high, at.low] };
    for (plane, from) in planes.into_iter().enumerate() {
        e.store(behind(OUT, 32 * plane), from, strips, 32, 32, 32 * strip_rows);
    }
    e.store(behind(SCALE, 0), at.a, 1, 4, 0, 0);
    e.stored();
    let row_bytes = rows::step(4 * k);
    e.end(&[(X, row_bytes), (Y, row_bytes), (OUT, rows::step(32 * mode.rows())), (SCALE, 4)]);
    Ok(())
}

impl Codes {
    /// Takes room for rows of `k` elements.
    pub fn take(space: &mut Space, k: usize, mode: Mode) -> Result<Codes, UbTooSmall> {
        let padded = k.next_multiple_of(128);
        let half = if mode == Mode::I4 { padded / 2 } else { 0 };
        Ok(Codes {
            max: space.floats(64)?,
            blocks: space.floats(8)?,
            a: space.floats(8)?,
            inv: space.floats(8)?,
            codes: space.take(padded)?,
            low: space.take(half)?,
            high: space.take(half)?,
            t: space.take(padded.max(4 * k))?,
            padded,
        })
    }
}

/// Codes of a row, and its scale at `a`.
pub fn code_row(e: &mut Emit, at: &Codes, row: usize, k: usize) {
    e.each(VecOp::Abs, F32, at.t, row, Second::None, k);
    e.fill(at.max, 0, 64);
    let (full, tail) = (k / 64, k % 64);
    let max = Second::Vector(strided(at.max, 1, 0));
    let to = strided(at.max, 1, 0);
    if full > 0 {
        e.vec(VecOp::Max, F32, to, dense(at.t), max, full, 64);
    }
    if tail > 0 {
        e.vec(VecOp::Max, F32, to, dense(at.t + 256 * full), max, 1, tail);
    }
    e.vec(VecOp::BlockMax, F32, dense(at.blocks), dense(at.max), Second::None, 1, 64);
    e.vec(VecOp::BlockMax, F32, dense(at.a), dense(at.blocks), Second::None, 1, 8);
    e.each(VecOp::Max, F32, at.a, at.a, Second::f32(ABSMAX_FLOOR), 1);
    e.fill(at.blocks, 127.0f32.to_bits(), 1);
    e.each2(VecOp::Div, at.blocks, at.blocks, at.a, 1);
    e.spread(at.inv, at.blocks, 1);
    e.each(VecOp::Div, F32, at.a, at.a, Second::f32(127.0), 1);
    e.each(VecOp::Mul, F32, at.t, row, Second::Vector(block(at.inv)), k);
    // Saturates at -128 and 127, as the clamp does.
    e.each(VecOp::Cast, (ElemType::S8, ElemType::F32), at.codes, at.t, Second::None, k);
}

/// Splits codes into strips of high and of low nibbles: column 64 s + b low, 64 s + 32 + b high in a byte.
fn nibbles(e: &mut Emit, at: &Codes) {
    let strips = at.padded / 64;
    for first in (0..strips).step_by(8) {
        let lanes = 16 * (strips - first).min(8);
        let half = |which: usize| strided(at.codes + 64 * first + 32 * which, 2, 0);
        let to = |base: usize| strided(base + 32 * first, 1, 0);
        let t = to(at.t);
        let mut op = |op, to, a, b| e.vec(op, U16, to, a, b, 1, lanes);
        let bits = Second::Bits;
        // a >> 4 of both columns.
        op(VecOp::Shr, t, half(0), bits(4));
        op(VecOp::And, t, t, bits(0x0f0f));
        op(VecOp::And, to(at.high), half(1), bits(0xf0f0));
        op(VecOp::Or, to(at.high), to(at.high), Second::Vector(t));
        // (a & 15) - 8 in four bits is (a & 15) ^ 8.
        op(VecOp::And, t, half(0), bits(0x0f0f));
        op(VecOp::Shl, to(at.low), half(1), bits(4));
        op(VecOp::And, to(at.low), to(at.low), bits(0xf0f0));
        op(VecOp::Or, to(at.low), to(at.low), Second::Vector(t));
        op(VecOp::Xor, to(at.low), to(at.low), bits(0x8888));
    }
}
