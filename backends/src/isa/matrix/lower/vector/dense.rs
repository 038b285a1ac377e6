//! Products with dense weights: `dot` over the stored row widened to f32, as many output rows at a time as fit UB.
//!
//! Columns stream through two slots: one is loaded while the vector unit works on the other.

use tcc_ir::ty::DType;

use super::rows::{element, step};
use super::{Place, ROWS, Sharing, Space, Tables, UbTooSmall, behind, reg, row_cores, share_rows};
use crate::isa::matrix::lower::emit::{Emit, F32, Second, block, dense as all, strided};
use crate::isa::matrix::program::addr::{Queue, Reg};
use crate::isa::matrix::program::inst::Count;
use crate::isa::matrix::program::vec::VecOp;

// A token row after the other.
const X: Reg = reg(1);
const OUT: Reg = reg(2);
const RESIDUAL: Reg = reg(3);
// Of the tile at hand.
const W: Reg = reg(4);
const BIAS: Reg = reg(5);
const OUT_AT: Reg = reg(6);
const RESIDUAL_AT: Reg = reg(7);
const W_ROW: Reg = reg(8);
const AT: Reg = reg(9);
// First tile of the core, its whole tiles, and 1 if a ragged one follows: the same for all token rows.
const FIRST: Reg = reg(10);
const WHOLE: Reg = reg(11);
const RAGGED: Reg = reg(12);

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

/// The largest tile that fits `ub` bytes and leaves none of `cores` cores without one, if there are rows enough.
fn fitting(ub: usize, d: &Dense, cores: usize) -> Result<At, UbTooSmall> {
    let wide = TILES.into_iter().filter(|rows| d.n.div_ceil(*rows) >= cores);
    let found = wide.map(|rows| At::take(ub, d, rows)).find(Result::is_ok);
    found.unwrap_or_else(|| At::take(ub, d, ROWS))
}

/// `out = dot(x, w) · scale + bias + residual` on some of `cores` cores: how many, and what differs between them.
pub fn dense(
    e: &mut Emit,
    ub: usize,
    d: Dense,
    o: Operands,
    tables: &Tables,
    cores: usize,
) -> Result<Sharing, UbTooSmall> {
    let at = fitting(ub, &d, cores)?;
    let cores = row_cores(d.n, at.rows, cores);
    let starts = share_rows(e, (d.n, at.rows), cores, [FIRST, WHOLE, RAGGED]);
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
    addresses(e, &d, &o, at.rows);
    if d.n >= at.rows {
        e.begin(Count::Reg(WHOLE));
        tile(e, &d, &o, &at, at.rows);
        e.add(BIAS, BIAS, 4 * at.rows as i64);
        let row_bytes = step(4 * at.rows);
        e.end(&[(W, step(tile_bytes(&d, at.rows))), (OUT_AT, row_bytes), (RESIDUAL_AT, row_bytes)]);
    }
    if !d.n.is_multiple_of(at.rows) {
        e.begin(Count::Reg(RAGGED));
        tile(e, &d, &o, &at, d.n % at.rows);
        e.end(&[]);
    }
    let row_bytes = step(4 * d.n);
    e.end(&[(X, step(4 * d.k)), (OUT, row_bytes), (RESIDUAL, row_bytes)]);
    for slot in SLOT..SLOT + 2 {
        e.wait(Queue::V, Queue::Mte2, slot);
    }
    Ok((cores, starts))
}

/// Bytes of the weights of `rows` output rows.
fn tile_bytes(d: &Dense, rows: usize) -> usize {
    rows * element(d.weight).1 * d.k
}

/// Registers of the core's first tile.
fn addresses(e: &mut Emit, d: &Dense, o: &Operands, rows: usize) {
    e.point(AT, o.w);
    e.index(W, AT, FIRST, tile_bytes(d, rows));
    e.index(OUT_AT, OUT, FIRST, 4 * rows);
    if o.residual.is_some() {
        e.index(RESIDUAL_AT, RESIDUAL, FIRST, 4 * rows);
    }
    if let Some(bias) = o.bias {
        e.point(AT, bias);
        e.index(BIAS, AT, FIRST, 4 * rows);
    }
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
    for (reg, place) in [(BIAS, o.bias), (RESIDUAL_AT, o.residual)] {
        if place.is_some() {
            e.computed();
            e.load(at.tail, behind(reg, 0), 1, 4 * rows, 0, 0);
            e.loaded();
            e.each2(VecOp::Add, y, y, at.tail, rows);
        }
    }
    e.computed();
    e.store(behind(OUT_AT, 0), y, 1, 4 * rows, 0, 0);
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
