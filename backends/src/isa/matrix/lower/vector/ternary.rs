//! Ternary products on the vector unit: with float activations, with scales per group of columns, and on cores that have
//! no path from the vector unit to the cube.
//!
//! Packed panels of 64 output rows are unpacked part by part, each strip of 32 columns is widened to f32, and lanes sum
//! what `numerics::dot` sums, so float activations give its bits. Codes of int8 are summed the same way: below 2^24 every
//! f32 sum of integers is exact.

use tcc_ir::encoding::w2nz::{KR, Panel};
use tcc_ir::kernel::ScaleKind;

use super::rows::step;
use super::{Place, ROWS, Space, Tables, UbTooSmall, behind, reg, row_cores, share_rows};
use crate::isa::matrix::lower::emit::{Emit, F32, Second, U16, block, dense, strided};
use crate::isa::matrix::lower::matmul::tile::Mode;
use crate::isa::matrix::program::StartValues;
use crate::isa::matrix::program::addr::{Queue, Reg};
use crate::isa::matrix::program::inst::Count;
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::VecOp;

/// The layout of weights that the vector unit reads.
pub const PANEL: Panel = Panel { parts: 4, nr: ROWS, kp: 512 };

/// Longest reduction of int8 codes whose f32 sums are exact: 2^24 / 128.
pub const MAX_K: usize = 131_072;

// First panel of the core, its whole panels, and 1 if a ragged one follows: the same for all token rows.
const FIRST: Reg = reg(1);
const WHOLE: Reg = reg(2);
const RAGGED: Reg = reg(3);
// Operands, a token row after the other.
const X: Reg = reg(4);
const ACT: Reg = reg(5);
const OUT: Reg = reg(6);
const RESIDUAL: Reg = reg(7);
// Of the panel at hand.
const W: Reg = reg(8);
const SCALES: Reg = reg(9);
const BIAS: Reg = reg(10);
const OUT_AT: Reg = reg(11);
const RESIDUAL_AT: Reg = reg(12);
// Of the run of columns at hand.
const W_AT: Reg = reg(13);
const X_AT: Reg = reg(14);
const SCALES_AT: Reg = reg(15);
// Bits of the scales of the token row and of the tensor.
const ACT_BITS: Reg = reg(16);
const SCALE_BITS: Reg = reg(17);
const AT: Reg = reg(18);

/// Elements of a block of 32 bytes.
const BLOCK: usize = 8;

/// What activations are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// Rows of f32.
    Floats,
    /// Strips of int8 codes, and an act_scale per row.
    Codes,
}

/// Shape of the op.
#[derive(Clone, Copy, Debug)]
pub struct Ternary {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub scale: ScaleKind,
    pub activations: Activations,
}

/// Operands; those that the op has.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    pub x: Place,
    pub act: Option<Place>,
    pub w: Place,
    pub scales: Place,
    pub bias: Option<Place>,
    pub residual: Option<Place>,
    pub out: Place,
}

impl Ternary {
    /// Scales of an output row.
    fn groups(&self) -> usize {
        self.k / self.group()
    }

    /// Columns of a scale.
    fn group(&self) -> usize {
        match self.scale {
            ScaleKind::PerTensor | ScaleKind::PerRow => self.k,
            ScaleKind::PerGroup { group } => group,
        }
    }

    fn padded_k(&self) -> usize {
        self.k.next_multiple_of(KR)
    }

    /// Bytes of a row panel.
    fn panel_bytes(&self) -> usize {
        PANEL.codes_bytes(self.k) + PANEL.sums_bytes()
    }

    /// Cores that share the op.
    pub fn share(&self, cores: usize) -> usize {
        row_cores(self.n, ROWS, cores)
    }
}

struct At {
    /// Activations of a row, f32, and as loaded.
    x: usize,
    codes: usize,
    packed: usize,
    unpacked: usize,
    wide: usize,
    lo: usize,
    hi: usize,
    transpose: usize,
    sums: usize,
    /// The row's result so far, the scales of a group, and those as loaded: one in a block.
    y: usize,
    scale: usize,
    scale_blocks: usize,
    tail: usize,
}

/// Writes the op for `cores` cores; returns the registers that differ between them.
pub fn ternary(
    e: &mut Emit,
    ub: usize,
    t: &Ternary,
    o: &Operands,
    tables: &Tables,
    cores: usize,
) -> Result<Vec<StartValues>, UbTooSmall> {
    let at = space(ub, t)?;
    let starts = share_rows(e, (t.n, ROWS), t.share(cores), [FIRST, WHOLE, RAGGED]);
    e.point(AT, tables.transpose);
    e.load(at.transpose, behind(AT, 0), 1, 2048, 0, 0);
    if t.scale == ScaleKind::PerTensor {
        e.point(AT, o.scales);
        e.scalar_load(SCALE_BITS, behind(AT, 0));
    }
    e.point(X, o.x);
    e.point(OUT, o.out);
    for (reg, place) in [(ACT, o.act), (RESIDUAL, o.residual)] {
        if let Some(place) = place {
            e.point(reg, place);
        }
    }
    if t.activations == Activations::Codes {
        // The scalar unit reads the scales that other cores left, once these are there.
        e.after(Queue::Mte2, Queue::S);
    }
    // What is behind the last column stays zero.
    e.fill(at.x, 0, t.k.next_multiple_of(BLOCK));
    e.computed();
    e.begin(Count::Fixed(u32::try_from(t.m).expect("fewer rows than 2^32")));
    load_row(e, t, &at);
    addresses(e, t, o);
    e.begin(Count::Reg(WHOLE));
    panel(e, t, o, &at, ROWS);
    e.add(RESIDUAL_AT, RESIDUAL_AT, 4 * ROWS as i64);
    e.add(BIAS, BIAS, 4 * ROWS as i64);
    let scales = step(4 * ROWS * t.groups());
    e.end(&[(W, step(t.panel_bytes())), (SCALES, scales), (OUT_AT, 4 * ROWS as i32)]);
    if !t.n.is_multiple_of(ROWS) {
        e.begin(Count::Reg(RAGGED));
        panel(e, t, o, &at, t.n % ROWS);
        e.end(&[]);
    }
    let x = match t.activations {
        Activations::Floats => 4 * t.k,
        Activations::Codes => 32,
    };
    e.end(&[(X, step(x)), (ACT, 4), (OUT, step(4 * t.n)), (RESIDUAL, step(4 * t.n))]);
    Ok(starts)
}

fn space(ub: usize, t: &Ternary) -> Result<At, UbTooSmall> {
    let mut space = Space::new(ub);
    let codes = match t.activations {
        Activations::Floats => 0,
        Activations::Codes => t.padded_k(),
    };
    let panel_bytes = ROWS * PANEL.kp / PANEL.parts;
    Ok(At {
        x: space.floats(t.padded_k())?,
        codes: space.take(codes)?,
        packed: space.take(panel_bytes)?,
        unpacked: space.take(panel_bytes)?,
        wide: space.floats(ROWS * PANEL.strip())?,
        lo: space.floats(BLOCK * ROWS)?,
        hi: space.floats(BLOCK * ROWS)?,
        transpose: space.floats(BLOCK * ROWS)?,
        sums: space.floats(BLOCK * ROWS)?,
        y: space.floats(ROWS)?,
        scale: space.floats(ROWS)?,
        scale_blocks: space.floats(BLOCK * ROWS)?,
        tail: space.floats(ROWS)?,
    })
}

/// The activations of a token row, widened.
fn load_row(e: &mut Emit, t: &Ternary, at: &At) {
    match t.activations {
        Activations::Floats => {
            e.load(at.x, behind(X, 0), 1, 4 * t.k, 0, 0);
            e.loaded();
        }
        Activations::Codes => {
            let strip_rows = (t.m * Mode::I8.rows()).next_multiple_of(16);
            e.load(at.codes, behind(X, 0), t.padded_k() / 32, 32, 32 * strip_rows, 32);
            e.scalar_load(ACT_BITS, behind(ACT, 0));
            e.loaded();
            e.each(VecOp::Cast, (ElemType::F32, ElemType::S8), at.x, at.codes, Second::None, t.padded_k());
        }
    }
}

/// Registers of the core's first panel.
fn addresses(e: &mut Emit, t: &Ternary, o: &Operands) {
    e.point(AT, o.w);
    e.index(W, AT, FIRST, t.panel_bytes());
    e.point(AT, o.scales);
    e.index(SCALES, AT, FIRST, 4 * ROWS * t.groups());
    e.index(OUT_AT, OUT, FIRST, 4 * ROWS);
    if o.residual.is_some() {
        e.index(RESIDUAL_AT, RESIDUAL, FIRST, 4 * ROWS);
    }
    if let Some(bias) = o.bias {
        e.point(AT, bias);
        e.index(BIAS, AT, FIRST, 4 * ROWS);
    }
}

/// One panel, `rows` of whose output rows exist.
fn panel(e: &mut Emit, t: &Ternary, o: &Operands, at: &At, rows: usize) {
    let (group, run) = (t.group(), PANEL.kp);
    e.fill(at.y, 0, rows);
    clear(e, at);
    e.add(W_AT, W, 0);
    e.add(X_AT, Reg::ZERO, at.x as i64);
    e.add(SCALES_AT, SCALES, 0);
    let (full, rest) = (t.k / run, t.k % run);
    // Where groups end at the same columns of every run, or in none.
    if full > 0 && (group == t.k || run.is_multiple_of(group)) {
        e.begin(Count::Fixed(u32::try_from(full).expect("a row has fewer than 2^32 columns")));
        columns(e, t, at, (0, run), rows);
        next_run(e);
        e.add(SCALES_AT, SCALES_AT, if group == t.k { 0 } else { 4 * (run / group) as i64 });
        e.end(&[]);
        if rest > 0 {
            columns(e, t, at, (0, rest), rows);
        }
    } else {
        for first in (0..t.k).step_by(run) {
            columns(e, t, at, (first, run.min(t.k - first)), rows);
            next_run(e);
        }
    }
    finish(e, t, o, at, rows);
}

fn next_run(e: &mut Emit) {
    e.add(W_AT, W_AT, (ROWS * PANEL.kp / 4) as i64);
    e.add(X_AT, X_AT, 4 * PANEL.kp as i64);
}

fn clear(e: &mut Emit, at: &At) {
    e.fill(at.lo, 0, BLOCK * ROWS);
    e.fill(at.hi, 0, BLOCK * ROWS);
}

/// Adds the products of `count` columns, one panel along k; they begin `first` columns behind the start of a group.
fn columns(e: &mut Emit, t: &Ternary, at: &At, (first, count): (usize, usize), rows: usize) {
    let bytes = count.next_multiple_of(KR) * ROWS / PANEL.parts;
    let (strip, part_strips) = (PANEL.strip(), count.div_ceil(KR));
    e.load(at.packed, behind(W_AT, 0), 1, bytes, 0, 0);
    e.loaded();
    for part in 0..PANEL.parts {
        if part * part_strips * strip >= count {
            break;
        }
        let mut from = at.packed;
        if part > 0 {
            // Two bits a part.
            let by = Second::Bits(2 * part as u32);
            e.vec(VecOp::Shl, U16, dense(at.unpacked), dense(from), by, bytes / 256, 128);
            from = at.unpacked;
        }
        let mask = Second::Bits(u32::from(Mode::I8.mask()));
        e.vec(VecOp::And, U16, dense(at.unpacked), dense(from), mask, bytes / 256, 128);
        for s in 0..part_strips {
            let column = (part * part_strips + s) * strip;
            if column >= count {
                break;
            }
            let elements = ROWS * strip;
            let types = (ElemType::F32, ElemType::S8);
            e.each(VecOp::Cast, types, at.wide, at.unpacked + s * elements, Second::None, elements);
            e.each(VecOp::Mul, F32, at.wide, at.wide, Second::f32(1.0 / Mode::I8.unit()), elements);
            for block in 0..strip.min(count - column).div_ceil(BLOCK) {
                block_products(e, t, at, (first, column + BLOCK * block, BLOCK * block), rows);
            }
        }
    }
    e.computed();
}

/// Adds the products of eight columns: `column` within the run, `within` its strip.
fn block_products(e: &mut Emit, t: &Ternary, at: &At, (first, column, within): (usize, usize, usize), rows: usize) {
    let p = if (column / BLOCK).is_multiple_of(2) { at.lo } else { at.hi };
    let pitch = PANEL.strip() / BLOCK;
    let weights = Second::Vector(strided(at.wide + 4 * within, pitch, BLOCK * pitch));
    e.vec(VecOp::Mla, F32, dense(p), block(4 * column).behind(X_AT), weights, ROWS / BLOCK, 64);
    let (group, end) = (t.group(), first + column + BLOCK);
    if group < t.k && end.is_multiple_of(group) {
        add_group(e, t, at, end / group - 1, rows);
    }
}

/// `y = fma(sum, scale of the group, y)`, and the sums start again.
fn add_group(e: &mut Emit, t: &Ternary, at: &At, group: usize, rows: usize) {
    e.computed();
    e.load(at.scale_blocks, behind(SCALES_AT, 4 * group), rows, 4, 4 * t.groups(), 32);
    let sums = e.reduce(at.lo, at.hi, at.transpose, at.sums, rows);
    e.loaded();
    // The first offsets of the table step by blocks.
    let types = (ElemType::U32, ElemType::U32);
    let blocks = Second::Vector(dense(at.scale_blocks));
    e.vec(VecOp::Gather, types, dense(at.scale), dense(at.transpose), blocks, 1, rows);
    e.each2(VecOp::Mla, at.y, sums, at.scale, rows);
    clear(e, at);
}

/// Scales, bias and residual of a panel, and its result.
fn finish(e: &mut Emit, t: &Ternary, o: &Operands, at: &At, rows: usize) {
    let act = Second::Reg(ACT_BITS);
    if t.group() == t.k {
        let sums = e.reduce(at.lo, at.hi, at.transpose, at.sums, rows);
        let is_grouped = matches!(t.scale, ScaleKind::PerGroup { .. });
        let scale = if t.scale == ScaleKind::PerTensor {
            Second::Reg(SCALE_BITS)
        } else {
            e.load(at.scale, behind(SCALES, 0), 1, 4 * rows, 0, 0);
            e.loaded();
            Second::Vector(dense(at.scale))
        };
        if t.activations == Activations::Codes && !is_grouped {
            e.each(VecOp::Mul, F32, sums, sums, act, rows);
            e.each(VecOp::Mul, F32, at.y, sums, scale, rows);
        } else {
            e.each(VecOp::Mla, F32, at.y, sums, scale, rows);
        }
    }
    if t.activations == Activations::Codes && matches!(t.scale, ScaleKind::PerGroup { .. }) {
        e.each(VecOp::Mul, F32, at.y, at.y, act, rows);
    }
    for (reg, place) in [(BIAS, o.bias), (RESIDUAL_AT, o.residual)] {
        if place.is_some() {
            e.computed();
            e.load(at.tail, behind(reg, 0), 1, 4 * rows, 0, 0);
            e.loaded();
            e.each2(VecOp::Add, at.y, at.y, at.tail, rows);
        }
    }
    e.computed();
    e.store(behind(OUT_AT, 0), at.y, 1, 4 * rows, 0, 0);
    e.stored();
}
