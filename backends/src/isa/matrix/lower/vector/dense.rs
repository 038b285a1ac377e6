//! Products with dense weights: `dot` over the stored row widened to f32, as many output rows at a time as fit UB.
//!
//! Columns stream through two slots: one is loaded while the vector unit works on the other.

use tcc_ir::ty::DType;

use super::rows::{element, step};
use super::{Place, ROWS, Space, Tables, UbTooSmall, behind, reg};
use crate::isa::matrix::lower::emit::{Emit, F32, Second, block, dense as all, strided};
use crate::isa::matrix::program::addr::{Queue, Reg};
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
const COLUMNS: usize = 64;

/// Output rows of a tile to try.
const TILES: [usize; 3] = [192, 128, ROWS];

/// The flag of the first slot of columns; 0 is [`Emit::after`]'s.
const SLOT: u8 = 1;

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
    /// Output rows of a tile.
    rows: usize,
    x: usize,
    raw: [usize; 2],
    wide: usize,
    lo: usize,
    hi: usize,
    transpose: usize,
    sums: usize,
    y: usize,
    tail: usize,
}

impl At {
    fn take(ub: usize, d: &Dense, rows: usize) -> Result<At, UbTooSmall> {
        let mut space = Space::new(ub);
        let (_, size) = element(d.weight);
        let slots = [0, 1].map(|_| space.take(size * rows * COLUMNS));
        let floats = [d.k.next_multiple_of(8), rows * COLUMNS, 8 * rows, 8 * rows, 512, 512, rows, rows];
        let [x, wide, lo, hi, transpose, sums, y, tail] = floats.map(|n| space.floats(n));
        let [first, second] = slots;
        Ok(At {
            rows,
            x: x?,
            raw: [first?, second?],
            wide: wide?,
            lo: lo?,
            hi: hi?,
            transpose: transpose?,
            sums: sums?,
            y: y?,
            tail: tail?,
        })
    }
}

/// `out = dot(x, w) · scale + bias + residual`.
pub fn dense(e: &mut Emit, ub: usize, d: Dense, o: Operands, tables: &Tables) -> Result<(), UbTooSmall> {
    let fitting = TILES.into_iter().map(|rows| At::take(ub, &d, rows)).find(Result::is_ok);
    let at = fitting.unwrap_or_else(|| At::take(ub, &d, ROWS))?;
    let (_, size) = element(d.weight);
    e.point(AT, tables.transpose);
    e.load(at.transpose, behind(AT, 0), 1, 2048, 0, 0);
    e.point(X, o.x);
    e.point(OUT, o.out);
    e.fill(at.x, 0, d.k.next_multiple_of(8));
    e.computed();
    if let Some(residual) = o.residual {
        e.point(RESIDUAL, residual);
    }
    for slot in SLOT..SLOT + 2 {
        e.set(Queue::V, Queue::Mte2, slot);
    }
    e.begin(Count::Fixed(d.m as u32));
    e.load(at.x, behind(X, 0), 1, 4 * d.k, 0, 0);
    e.loaded();
    e.point(W, o.w);
    if let Some(bias) = o.bias {
        e.point(BIAS, bias);
    }
    let tiles = d.n / at.rows;
    if tiles > 0 {
        e.begin(Count::Fixed(tiles as u32));
        tile(e, &d, &o, &at, at.rows);
        e.add(BIAS, BIAS, 4 * at.rows as i64);
        let row_bytes = step(4 * at.rows);
        e.end(&[(W, step(at.rows * size * d.k)), (OUT, row_bytes), (RESIDUAL, row_bytes)]);
    }
    let tail = d.n % at.rows;
    if tail > 0 {
        tile(e, &d, &o, &at, tail);
        // A tail is below 192 rows.
        e.add(OUT, OUT, 4 * tail as i64);
        e.add(RESIDUAL, RESIDUAL, 4 * tail as i64);
    }
    e.end(&[(X, step(4 * d.k))]);
    for slot in SLOT..SLOT + 2 {
        e.wait(Queue::V, Queue::Mte2, slot);
    }
    Ok(())
}

/// One tile of `rows` output rows.
fn tile(e: &mut Emit, d: &Dense, o: &Operands, at: &At, rows: usize) {
    let (_, size) = element(d.weight);
    e.fill(at.lo, 0, 8 * rows);
    e.fill(at.hi, 0, 8 * rows);
    let (pairs, rest) = (d.k / (2 * COLUMNS), d.k % (2 * COLUMNS));
    e.add(W_ROW, W, 0);
    e.add(AT, Reg::ZERO, at.x as i64);
    if pairs > 0 {
        e.begin(Count::Fixed(pairs as u32));
        columns(e, d, at, rows, (0, COLUMNS));
        columns(e, d, at, rows, (1, COLUMNS));
        e.end(&[(W_ROW, step(2 * size * COLUMNS)), (AT, step(8 * COLUMNS))]);
    }
    for slot in 0..rest.div_ceil(COLUMNS) {
        columns(e, d, at, rows, (slot, COLUMNS.min(rest - slot * COLUMNS)));
    }
    for first in (0..rows).step_by(ROWS) {
        let (p, count) = (32 * first, ROWS.min(rows - first));
        let y = e.reduce(at.lo + p, at.hi + p, at.transpose, at.sums, count);
        e.each(VecOp::Mov, F32, at.y + 4 * first, y, Second::None, count);
    }
    let y = at.y;
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

/// Adds the products of `columns` columns, which pass through `slot` and lie as many slots behind the registers.
fn columns(e: &mut Emit, d: &Dense, at: &At, rows: usize, (slot, columns): (usize, usize)) {
    let (ty, size) = element(d.weight);
    let (raw, flag) = (at.raw[slot], SLOT + slot as u8);
    e.wait(Queue::V, Queue::Mte2, flag);
    e.load(raw, behind(W_ROW, slot * size * COLUMNS), rows, size * columns, size * d.k, size * COLUMNS);
    e.set(Queue::Mte2, Queue::V, flag);
    e.wait(Queue::Mte2, Queue::V, flag);
    if !columns.is_multiple_of(8) {
        e.fill(at.wide, 0, rows * COLUMNS);
    }
    super::rows::widen_rows(e, at.wide, raw, ty, (rows, columns, COLUMNS));
    e.set(Queue::V, Queue::Mte2, flag);
    let pitch = COLUMNS / 8;
    for j in 0..columns.div_ceil(8) {
        let p = if j % 2 == 0 { at.lo } else { at.hi };
        let x = block(32 * j + 4 * slot * COLUMNS).behind(AT);
        let (full, tail) = (rows / 8, rows % 8);
        let w = |row: usize| Second::Vector(strided(at.wide + 32 * j + 4 * COLUMNS * row, pitch, 8 * pitch));
        if full > 0 {
            e.vec(VecOp::Mla, F32, all(p), x, w(0), full, 64);
        }
        if tail > 0 {
            e.vec(VecOp::Mla, F32, all(p + 256 * full), x, w(8 * full), 1, 8 * tail);
        }
    }
}
