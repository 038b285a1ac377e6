//! Kernels over token rows: embedding, norms, gates, additions.

use tcc_ir::ops::Act;
use tcc_ir::ty::DType;

use super::grid::{Grid, NormSpace, load_weights};
use super::{Place, RUNS, Sharing, Space, Tables, UbTooSmall, behind, in_runs, reg, run_cores, share_rows};
use crate::isa::matrix::lower::emit::{Emit, F32, Second, Strided, strided};
use crate::isa::matrix::program::addr::{Queue, Reg};
use crate::isa::matrix::program::inst::{Count, ScalarOp, ScalarOperand};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::VecOp;

/// Registers of operands.
pub const X: Reg = reg(1);
pub const Y: Reg = reg(2);
pub const OUT: Reg = reg(3);
pub const W: Reg = reg(4);
pub const INDEX: Reg = reg(5);
pub const AT: Reg = reg(6);
pub const AT2: Reg = reg(7);
pub const POS: Reg = reg(8);

pub fn count(n: usize) -> Count {
    Count::Fixed(u32::try_from(n).expect("fewer rows than 2^32"))
}

/// Bytes of a row as a register update.
pub fn step(bytes: usize) -> i32 {
    i32::try_from(bytes).expect("rows are below 2 GiB")
}

/// Type of stored elements, and bytes of one.
pub fn element(dtype: DType) -> (ElemType, usize) {
    match dtype {
        DType::F16 => (ElemType::F16, 2),
        DType::Bf16 => (ElemType::Bf16, 2),
        DType::Q8 => (ElemType::S8, 1),
        DType::F32 | DType::I8 | DType::I32 | DType::U32 | DType::Trit => (ElemType::F32, 4),
    }
}

/// Widens `count` stored elements at `from` to f32 at `to`.
pub fn widen(e: &mut Emit, to: usize, from: usize, ty: ElemType, count: usize) {
    if ty == ElemType::F32 {
        e.each(VecOp::Mov, F32, to, from, Second::None, count);
    } else {
        e.each(VecOp::Cast, (ElemType::F32, ty), to, from, Second::None, count);
    }
}

/// `out[t] = table[tokens[t]]`, widened, times `scale` where that is not 1.
pub fn embed(
    e: &mut Emit,
    ub: usize,
    (m, h, table, scale): (usize, usize, DType, f32),
    [tokens, rows, out]: [Place; 3],
    cores: usize,
) -> Result<Sharing, UbTooSmall> {
    let mut space = Space::new(ub);
    let (ty, size) = element(table);
    let (raw, x) = (space.take(size * h)?, space.floats(h)?);
    let cores = run_cores(m, TOGETHER, cores);
    let starts = share_rows(e, (m, TOGETHER), cores, RUNS);
    first_run(e, &[(X, tokens, 4), (OUT, out, 4 * h)], TOGETHER);
    e.point(W, rows);
    in_runs(e, (m, TOGETHER), |e, rows| {
        e.begin(count(rows));
        e.scalar_load(INDEX, behind(X, 0));
        e.index(AT, W, INDEX, size * h);
        e.load(raw, behind(AT, 0), 1, size * h, 0, 0);
        e.loaded();
        widen(e, x, raw, ty, h);
        if scale != 1.0 {
            e.each(VecOp::Mul, F32, x, x, Second::f32(scale), h);
        }
        e.computed();
        e.store(behind(OUT, 0), x, 1, 4 * h, 0, 0);
        e.stored();
        e.end(&[(X, 4), (OUT, step(4 * h))]);
        vec![]
    });
    Ok((cores, starts))
}

/// Sets registers to the core's first run of `rows` rows, of so many bytes.
pub fn first_run(e: &mut Emit, operands: &[(Reg, Place, usize)], rows: usize) {
    for (reg, place, bytes) in operands {
        e.point(AT, *place);
        e.index(*reg, AT, RUNS[0], rows * bytes);
    }
}

/// Rows that lie in UB one behind the other: at most [`TOGETHER`].
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    pub at: usize,
    pub rows: usize,
    /// Bytes from one to the next: whole blocks.
    pub pitch: usize,
}

impl Rows {
    pub fn row(&self, index: usize) -> usize {
        self.at + index * self.pitch
    }
}

/// Token rows that are worked on together, at most: their blocks of partial sums fill a repeat.
pub const TOGETHER: usize = 8;

/// Norms of `m · k / d` runs of `d` elements.
pub fn norm(
    e: &mut Emit,
    ub: usize,
    (runs, d, eps): (usize, usize, f32),
    [x, w, out]: [Place; 3],
    (tables, cores): (&Tables, usize),
) -> Result<Sharing, UbTooSmall> {
    let fit = |rows: usize| {
        let mut space = Space::new(ub);
        let (x, norm) = (Grid::take(&mut space, rows, d, false)?, NormSpace::take(&mut space)?);
        Ok((x, norm, space.floats(x.columns * x.pieces)?))
    };
    let (most_rows, norm, weights) = most(runs, fit)?;
    let cores = run_cores(runs, TOGETHER, cores);
    let starts = share_rows(e, (runs, TOGETHER), cores, RUNS);
    norm.load(e, tables, W);
    e.point(W, w);
    load_weights(e, weights, &most_rows, W);
    e.loaded();
    first_run(e, &[(X, x, 4 * d), (OUT, out, 4 * d)], TOGETHER);
    let group = |e: &mut Emit, rows: usize| {
        let x = Grid { rows, ..most_rows };
        if x.has_tail() {
            x.clear_tail(e);
            e.after(Queue::V, Queue::Mte2);
        }
        (0..x.pieces).for_each(|piece| x.load(e, piece, X));
        e.loaded();
        norm.clear(e, rows);
        (0..x.pieces).for_each(|piece| norm.add(e, &x, piece));
        norm.scale(e, &x, eps);
        (0..x.pieces).for_each(|piece| x.times_columns(e, piece, weights + 4 * x.columns * piece));
        e.computed();
        for piece in 0..x.pieces {
            let to = behind(OUT, 4 * piece * x.columns);
            e.store(to, x.row(piece, 0), rows, 4 * x.valid(piece), 4 * x.columns, 4 * d);
        }
        e.stored();
        vec![(X, step(4 * rows * d)), (OUT, step(4 * rows * d))]
    };
    in_runs(e, (runs, TOGETHER), |e, rows| {
        in_groups(e, rows, most_rows.rows, group);
        vec![]
    });
    Ok((cores, starts))
}

/// The space for as many of `total` rows as fit, a divisor of [`TOGETHER`].
pub fn most<T>(total: usize, fit: impl Fn(usize) -> Result<T, UbTooSmall>) -> Result<T, UbTooSmall> {
    let sizes = [TOGETHER, 4, 2].into_iter().filter(|rows| *rows <= total);
    sizes.filter_map(|rows| fit(rows).ok()).next().map_or_else(|| fit(1), Ok)
}

/// `total` rows in groups of `most` and a rest: `group` does one and says by how much registers grow.
pub fn in_groups(e: &mut Emit, total: usize, most: usize, group: impl Fn(&mut Emit, usize) -> Vec<(Reg, i32)>) {
    if total >= most {
        e.begin(count(total / most));
        let steps = group(e, most);
        e.end(&steps);
    }
    if !total.is_multiple_of(most) {
        // Callers may go on behind the last row.
        for (reg, by) in group(e, total % most) {
            e.add(reg, reg, i64::from(by));
        }
    }
}

/// `g = gate(g)` of `k` elements; `scratch` as [`Emit::exp`] needs it, and one row in front.
pub fn activate(e: &mut Emit, act: Act, [g, scratch]: [usize; 2], k: usize) {
    match act {
        Act::Relu2 => {
            e.each(VecOp::Max, F32, g, g, Second::f32(0.0), k);
            e.each2(VecOp::Mul, g, g, g, k);
        }
        Act::Silu => {
            let row = 4 * k.min(MOST_EXP).next_multiple_of(64);
            for (g, k) in (0..k).step_by(MOST_EXP).map(|first| (g + 4 * first, MOST_EXP.min(k - first))) {
                e.each(VecOp::Neg, F32, scratch, g, Second::None, k);
                e.exp(scratch, scratch + row, k);
                e.each(VecOp::Add, F32, scratch, scratch, Second::f32(1.0), k);
                e.each2(VecOp::Div, g, g, scratch, k);
            }
        }
    }
}

/// Bytes of [`activate`]'s scratch.
pub fn gate_bytes(act: Act, k: usize) -> usize {
    match act {
        Act::Relu2 => 0,
        Act::Silu => {
            let k = k.min(MOST_EXP);
            4 * k.next_multiple_of(64) + Emit::exp_bytes(k)
        }
    }
}

/// Elements of a row whose exp is computed at a time.
const MOST_EXP: usize = 2048;

/// Elements of a gate or an addition that are done at a time.
const RUN: usize = 1024;

/// `out = gate(g) · u` of `total` elements; without a gate, `out = g + u`.
pub fn pairs(
    e: &mut Emit,
    ub: usize,
    act: Option<Act>,
    total: usize,
    [g, u, out]: [Place; 3],
    cores: usize,
) -> Result<Sharing, UbTooSmall> {
    let mut space = Space::new(ub);
    let (a, b) = (space.floats(RUN)?, space.floats(RUN)?);
    let scratch = space.take(act.map_or(0, |act| gate_bytes(act, RUN)))?;
    let cores = run_cores(total, RUN, cores);
    let starts = share_rows(e, (total, RUN), cores, RUNS);
    first_run(e, &[(X, g, 4), (Y, u, 4), (OUT, out, 4)], RUN);
    in_runs(e, (total, RUN), |e, n| {
        e.load(a, behind(X, 0), 1, 4 * n, 0, 0);
        e.load(b, behind(Y, 0), 1, 4 * n, 0, 0);
        e.loaded();
        match act {
            Some(act) => {
                activate(e, act, [a, scratch], n);
                e.each2(VecOp::Mul, a, a, b, n);
            }
            None => e.each2(VecOp::Add, a, a, b, n),
        }
        e.computed();
        e.store(behind(OUT, 0), a, 1, 4 * n, 0, 0);
        e.stored();
        [X, Y, OUT].map(|reg| (reg, step(4 * n))).to_vec()
    });
    Ok((cores, starts))
}

/// `reg = reg / b`, rounded up.
pub fn divide_up(e: &mut Emit, to: Reg, from: Reg, b: usize) {
    // Small positive numbers.
    e.scalar(ScalarOp::Add, to, from, ScalarOperand::Imm(b as i64 - 1));
    e.scalar(ScalarOp::Div, to, to, ScalarOperand::Imm(b as i64));
}

/// Rows of floats `pitch` apart in UB from stored rows at `from`, widened.
pub fn widen_rows(e: &mut Emit, to: usize, from: usize, ty: ElemType, (rows, d, pitch): (usize, usize, usize)) {
    let size = ty.bits() as usize / 8;
    if d == pitch {
        return widen(e, to, from, ty, rows * d);
    }
    for first in (0..d).step_by(64) {
        let lanes = (d - first).min(64);
        let x: Strided = strided(from + size * first, 1, pitch * size / 32);
        let y = strided(to + 4 * first, 1, pitch / 8);
        let op = if ty == ElemType::F32 { VecOp::Mov } else { VecOp::Cast };
        e.vec(op, (ElemType::F32, ty), y, x, Second::None, rows, lanes);
    }
}
