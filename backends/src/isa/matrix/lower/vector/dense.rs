//! Products with dense weights: `dot` over the stored row widened to f32, 64 output rows at a time.

use tcc_ir::ty::DType;

use super::rows::{element, step};
use super::{Place, ROWS, Space, Tables, UbTooSmall, behind, reg};
use crate::isa::matrix::lower::emit::{Emit, F32, Second, block, dense as all, strided};
use crate::isa::matrix::program::addr::Reg;
use crate::isa::matrix::program::inst::Count;
use crate::isa::matrix::program::vec::VecOp;

const X: Reg = reg(1);
const W: Reg = reg(2);
const OUT: Reg = reg(3);
const BIAS: Reg = reg(4);
const RESIDUAL: Reg = reg(5);
const W_ROW: Reg = reg(6);
const AT: Reg = reg(8);

/// Columns of a tile of weights in UB.
const COLUMNS: usize = 128;

/// Shape of the op.
#[derive(Clone, Copy, Debug)]
pub struct Dense {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub weight: DType,
    pub scale: f32,
}

/// Operands; bias and residual where there are some.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    pub x: Place,
    pub w: Place,
    pub out: Place,
    pub bias: Option<Place>,
    pub residual: Option<Place>,
}

struct At {
    x: usize,
    raw: usize,
    wide: usize,
    lo: usize,
    hi: usize,
    transpose: usize,
    sums: usize,
    tail: usize,
}

/// `out = dot(x, w) · scale + bias + residual`.
pub fn dense(e: &mut Emit, ub: usize, d: Dense, o: Operands, tables: &Tables) -> Result<(), UbTooSmall> {
    let mut space = Space::new(ub);
    let (_, size) = element(d.weight);
    let floats = [d.k.next_multiple_of(8), ROWS * COLUMNS, ROWS * COLUMNS, 512, 512, 512, 512, ROWS];
    let [x, raw, wide, lo, hi, transpose, sums, tail] = floats.map(|n| space.floats(n));
    let at = At { x: x?, raw: raw?, wide: wide?, lo: lo?, hi: hi?, transpose: transpose?, sums: sums?, tail: tail? };
    e.point(AT, tables.transpose);
    e.load(at.transpose, behind(AT, 0), 1, 2048, 0, 0);
    e.point(X, o.x);
    e.point(OUT, o.out);
    e.fill(at.x, 0, d.k.next_multiple_of(8));
    e.computed();
    if let Some(residual) = o.residual {
        e.point(RESIDUAL, residual);
    }
    e.begin(Count::Fixed(d.m as u32));
    e.load(at.x, behind(X, 0), 1, 4 * d.k, 0, 0);
    e.loaded();
    e.point(W, o.w);
    if let Some(bias) = o.bias {
        e.point(BIAS, bias);
    }
    let rows = d.n / ROWS;
    if rows > 0 {
        e.begin(Count::Fixed(rows as u32));
        tile(e, &d, &o, &at, ROWS);
        e.add(BIAS, BIAS, 4 * ROWS as i64);
        e.end(&[(W, step(ROWS * size * d.k)), (OUT, 4 * ROWS as i32), (RESIDUAL, 4 * ROWS as i32)]);
    }
    let tail = d.n % ROWS;
    if tail > 0 {
        tile(e, &d, &o, &at, tail);
        // A tail is below 64 rows.
        e.add(OUT, OUT, 4 * tail as i64);
        e.add(RESIDUAL, RESIDUAL, 4 * tail as i64);
    }
    e.end(&[(X, step(4 * d.k))]);
    Ok(())
}

/// One tile of `rows` output rows.
fn tile(e: &mut Emit, d: &Dense, o: &Operands, at: &At, rows: usize) {
    let (_, size) = element(d.weight);
    e.fill(at.lo, 0, 8 * ROWS);
    e.fill(at.hi, 0, 8 * ROWS);
    let (full, tail) = (d.k / COLUMNS, d.k % COLUMNS);
    e.add(W_ROW, W, 0);
    e.add(AT, Reg::ZERO, at.x as i64);
    if full > 0 {
        e.begin(Count::Fixed(full as u32));
        columns(e, d, at, rows, COLUMNS);
        e.end(&[(W_ROW, step(size * COLUMNS)), (AT, 4 * COLUMNS as i32)]);
    }
    if tail > 0 {
        columns(e, d, at, rows, tail);
    }
    let y = e.reduce(at.lo, at.hi, at.transpose, at.sums, rows);
    if d.scale != 1.0 {
        e.each(VecOp::Mul, F32, y, y, Second::f32(d.scale), rows);
    }
    for (reg, place) in [(BIAS, o.bias), (RESIDUAL, o.residual)] {
        if place.is_some() {
            e.computed();
            e.load(at.tail, behind(reg, 0), 1, 4 * rows, 0, 0);
            e.loaded();
            e.each2(VecOp::Add, y, y, at.tail, rows);
        }
    }
    e.computed();
    e.store(behind(OUT, 0), y, 1, 4 * rows, 0, 0);
    e.stored();
}

/// Adds the products of `columns` columns.
fn columns(e: &mut Emit, d: &Dense, at: &At, rows: usize, columns: usize) {
    let (ty, size) = element(d.weight);
    e.load(at.raw, behind(W_ROW, 0), rows, size * columns, size * d.k, size * COLUMNS);
    e.loaded();
    if !columns.is_multiple_of(8) {
        e.fill(at.wide, 0, ROWS * COLUMNS);
    }
    super::rows::widen_rows(e, at.wide, at.raw, ty, (rows, columns, COLUMNS));
    let pitch = COLUMNS / 8;
    for j in 0..columns.div_ceil(8) {
        let p = if j % 2 == 0 { at.lo } else { at.hi };
        let x = block(32 * j).behind(AT);
        let (full, tail) = (rows / 8, rows % 8);
        let w = |row: usize| Second::Vector(strided(at.wide + 32 * j + 4 * COLUMNS * row, pitch, 8 * pitch));
        if full > 0 {
            e.vec(VecOp::Mla, F32, all(p), x, w(0), full, 64);
        }
        if tail > 0 {
            e.vec(VecOp::Mla, F32, all(p + 256 * full), x, w(8 * full), 1, 8 * tail);
        }
    }
    e.computed();
}
