//! Kernels that run on the vector unit, in the exact arithmetic of `docs/numerics.md`: everything but the ternary
//! product. Rows are worked on in groups where UB holds several, stage by stage.
//!
//! That the unit has correctly rounded f32 division, square root and multiply-add is an assumption of ours.

pub mod cache;
pub mod dense;
pub mod grid;
pub mod quantize;
pub mod rope;
pub mod rows;
pub mod ternary;

use tcc_ir::numerics;

use super::cores::reg;
use super::emit::{Emit, F32, S32, Second, Strided, dense as all};
use crate::isa::matrix::program::addr::{Addr, Queue, Reg};
use crate::isa::matrix::program::inst::{Count, ScalarOp, ScalarOperand};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::VecOp;
use crate::isa::matrix::program::{StartValues, SymbolId};

/// Where an operand lies: a symbol, and bytes behind it.
pub type Place = (SymbolId, i64);

/// Rows whose partial sums are added up together, and lanes of 32 bits in a repeat.
pub const ROWS: usize = 64;

/// Constants that kernels read from global memory.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// [`transpose_offsets`].
    pub transpose: Place,
    /// [`mask`].
    pub mask: Place,
    /// [`causal`].
    pub causal: Place,
    /// [`order_offsets`].
    pub order: Place,
    /// [`identity`].
    pub identity: Place,
}

impl Tables {
    /// The tables where `constant` puts them, given name, bytes and type.
    pub fn new(mut constant: impl FnMut(&str, Vec<u8>, &str) -> SymbolId) -> Tables {
        Tables {
            transpose: (constant("transpose", transpose_offsets(), "u32"), 0),
            mask: (constant("mask", mask(), "f32"), 0),
            causal: (constant("causal", causal(), "f32"), 0),
            order: (constant("order", order_offsets(), "u32"), 0),
            identity: (constant("identity", identity(), "s8"), 0),
        }
    }
}

/// Byte offsets that turn `f32[64][8]` into `[8][64]`.
pub fn transpose_offsets() -> Vec<u8> {
    // Below 2048.
    let offsets = (0..8 * ROWS).map(|i| ((i % ROWS * 8 + i / ROWS) * 4) as u32);
    offsets.flat_map(u32::to_le_bytes).collect()
}

/// Elements that [`order_offsets`] covers.
pub const ORDER_COUNT: usize = 512;

/// Byte offsets that put the elements of each block in the order 0 4 2 6 1 5 3 7: `BlockSum`, which adds neighbors first,
/// then adds what lies four apart, two apart, one apart, as `numerics::reduce` does.
pub fn order_offsets() -> Vec<u8> {
    const ORDER: [usize; 8] = [0, 4, 2, 6, 1, 5, 3, 7];
    // Below 2048.
    let offsets = (0..ORDER_COUNT).map(|i| (4 * (i / 8 * 8 + ORDER[i % 8])) as u32);
    offsets.flat_map(u32::to_le_bytes).collect()
}

/// `s8[32, 32]`.
fn identity() -> Vec<u8> {
    (0..32 * 32).map(|i| u8::from(i / 32 == i % 32)).collect()
}

/// Zeros of [`mask`].
pub const MASK_ZEROS: usize = 256;

/// A row of zeros, then as many values below every score: a query that sees the first n of some positions reads it from
/// [`MASK_ZEROS`] - n on.
fn mask() -> Vec<u8> {
    let values = (0..2 * MASK_ZEROS).map(|i| if i < MASK_ZEROS { 0.0f32 } else { HIDDEN });
    values.flat_map(f32::to_le_bytes).collect()
}

/// The row of [`causal`] for a query at the first of eight positions.
pub const CAUSAL_ZERO: usize = 128;

/// Rows of eight values for a query that is i - [`CAUSAL_ZERO`] positions ahead of the first of eight: zero for those that
/// it sees.
fn causal() -> Vec<u8> {
    let rows = (0..2 * CAUSAL_ZERO).flat_map(|i| (0..8).map(move |t| if CAUSAL_ZERO + t <= i { 0.0 } else { HIDDEN }));
    rows.flat_map(f32::to_le_bytes).collect()
}

/// A score that hides; finite, and the difference to any maximum is far below what exp takes for 0.
pub const HIDDEN: f32 = -1e38;

/// Memory of a kernel, given out from the front.
#[derive(Clone)]
pub struct Space {
    next: usize,
    limit: usize,
}

/// A kernel needs more UB than the machine has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{needed} bytes of UB are needed, the machine has {limit}")]
pub struct UbTooSmall {
    pub needed: usize,
    pub limit: usize,
}

impl Space {
    pub fn new(limit: usize) -> Space {
        Space { next: 0, limit }
    }

    /// `bytes` bytes, aligned to a repeat.
    pub fn take(&mut self, bytes: usize) -> Result<usize, UbTooSmall> {
        let at = self.next;
        self.next = (at + bytes).next_multiple_of(256);
        if self.next > self.limit { Err(UbTooSmall { needed: self.next, limit: self.limit }) } else { Ok(at) }
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.limit.saturating_sub(self.next)
    }

    /// `count` f32.
    pub fn floats(&mut self, count: usize) -> Result<usize, UbTooSmall> {
        self.take(4 * count)
    }
}

/// Output rows that results must be a multiple of for several cores to write them: blocks of 32 bytes have one writer.
pub const ALIGN: usize = 8;

/// Cores of `cores` that share `n` output rows in tiles of `rows`.
pub fn row_cores(n: usize, rows: usize, cores: usize) -> usize {
    if n.is_multiple_of(ALIGN) { cores.min(n.div_ceil(rows)) } else { 1 }
}

/// Cores that share a step, and the registers that differ between them.
pub type Sharing = (usize, Vec<StartValues>);

/// Cores of `cores` that share `n` rows in tiles of `rows`.
pub fn run_cores(n: usize, rows: usize, cores: usize) -> usize {
    cores.min(n.div_ceil(rows))
}

/// Registers of [`share_rows`] where [`in_runs`] is to use them.
pub const RUNS: [Reg; 3] = [reg(10), reg(11), reg(12)];

/// Shares `n` rows in tiles of `rows` among as many cores, [`run_cores`] at most. The registers are for a core's first
/// tile, its whole tiles, and 1 if a ragged one follows; what differs between cores is returned.
pub fn share_rows(e: &mut Emit, (n, rows): (usize, usize), cores: usize, regs: [Reg; 3]) -> Vec<StartValues> {
    let (whole, tiles) = (n / rows, n.div_ceil(rows));
    let first = |core: usize| tiles * core / cores;
    let values = |core: usize| {
        let wholes = first(core + 1).min(whole) - first(core);
        // Tiles of one matrix: far below 2^63.
        [first(core), wholes, usize::from(first(core + 1) > whole)].map(|value| value as i64)
    };
    if cores == 1 {
        regs.into_iter().zip(values(0)).for_each(|(reg, value)| e.add(reg, Reg::ZERO, value));
        return vec![];
    }
    let start = |(i, reg)| StartValues { reg, values: (0..cores).map(|core| values(core)[i]).collect() };
    regs.into_iter().enumerate().map(start).collect()
}

/// The core's tiles of `n` rows, `rows` of each and then the ragged one's, as [`RUNS`] say; `body` says by how much
/// registers grow.
pub fn in_runs(e: &mut Emit, (n, rows): (usize, usize), body: impl Fn(&mut Emit, usize) -> Vec<(Reg, i32)>) {
    if n >= rows {
        e.begin(Count::Reg(RUNS[1]));
        let steps = body(e, rows);
        e.end(&steps);
    }
    if !n.is_multiple_of(rows) {
        e.begin(Count::Reg(RUNS[2]));
        body(e, n % rows);
        e.end(&[]);
    }
}

/// Queries, or rows, in eights, whose blocks fill a repeat: the first, repeats and lanes of all whole eights, then of the
/// rest.
pub fn in_eights(count: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let (full, tail) = (count / 8, count % 8);
    [(0, full, 64), (8 * full, 1, 8 * tail)].into_iter().filter(|(_, repeats, lanes)| *repeats > 0 && *lanes > 0)
}

/// `offset` bytes behind a register.
pub fn behind(reg: Reg, offset: usize) -> Addr {
    // Within one row or tile of an array: far below 2^26.
    Addr::behind(reg, offset as i32)
}

impl Emit {
    /// `reg` = address of an operand.
    pub fn point(&mut self, reg: Reg, place: Place) {
        self.address(reg, Some(place.0), place.1);
    }

    /// `reg = base + index · bytes`.
    pub fn index(&mut self, reg: Reg, base: Reg, index: Reg, bytes: usize) {
        // A stride of an array.
        self.scalar(ScalarOp::Mul, reg, index, ScalarOperand::Imm(bytes as i64));
        self.scalar(ScalarOp::Add, reg, reg, ScalarOperand::Reg(base));
    }

    /// Later vector work sees what was loaded.
    pub fn loaded(&mut self) {
        self.after(Queue::Mte2, Queue::V);
    }

    /// Later loads may overwrite what vector work has read, later stores see what it wrote.
    pub fn computed(&mut self) {
        self.after(Queue::V, Queue::Mte2);
        self.after(Queue::V, Queue::Mte3);
    }

    /// Later vector work, and loads, may overwrite what was stored.
    pub fn stored(&mut self) {
        self.after(Queue::Mte3, Queue::V);
        self.after(Queue::Mte3, Queue::Mte2);
    }

    /// The largest of each block of `count` elements.
    pub fn block_max(&mut self, to: usize, from: usize, count: usize) {
        let (full, tail) = (count / ROWS, count % ROWS);
        if full > 0 {
            self.vec(VecOp::BlockMax, F32, all(to), all(from), Second::None, full, ROWS);
        }
        if tail > 0 {
            self.vec(VecOp::BlockMax, F32, all(to + 32 * full), all(from + 256 * full), Second::None, 1, tail);
        }
    }

    /// Sums rows of eight: `out[r]` from `lo` and `hi`, both `f32[rows][8]`, in the order of `numerics::reduce`.
    pub fn reduce(&mut self, lo: usize, hi: usize, transpose: usize, scratch: usize, rows: usize) -> usize {
        self.each2(VecOp::Add, lo, lo, hi, 8 * rows);
        let from = Second::Vector(all(lo));
        self.vec(VecOp::Gather, (ElemType::U32, ElemType::U32), all(scratch), all(transpose), from, 8, rows);
        for half in [4, 2, 1] {
            let other = Second::Vector(all(scratch + half * 4 * ROWS));
            self.vec(VecOp::Add, F32, all(scratch), all(scratch), other, half, rows);
        }
        scratch
    }

    /// Puts the elements of each block of eight in the order of [`order_offsets`], which lie at `table`.
    pub fn in_order(&mut self, to: usize, from: usize, table: usize, count: usize) {
        for first in (0..count).step_by(ORDER_COUNT) {
            let from = Second::Vector(all(from + 4 * first));
            let count = ORDER_COUNT.min(count - first);
            let (full, tail) = (count / ROWS, count % ROWS);
            let types = (ElemType::U32, ElemType::U32);
            if full > 0 {
                self.vec(VecOp::Gather, types, all(to + 4 * first), all(table), from, full, ROWS);
            }
            if tail > 0 {
                let (to, table) = (all(to + 4 * first + 256 * full), all(table + 256 * full));
                self.vec(VecOp::Gather, types, to, table, from, 1, tail);
            }
        }
    }

    /// `x = exp(x)` of `count` elements; `scratch` has [`Emit::exp_bytes`].
    pub fn exp(&mut self, x: usize, scratch: usize, count: usize) {
        let size = (4 * count).next_multiple_of(256);
        let [n, p, t] = [0, 1, 2].map(|i| scratch + i * size);
        let mask = scratch + 3 * size;
        let f = Second::f32;
        self.compare(VecOp::CmpGe, mask, x, numerics::EXP_MIN, count);
        self.each(VecOp::Max, F32, x, x, f(numerics::EXP_MIN), count);
        self.each(VecOp::Min, F32, x, x, f(numerics::EXP_MAX), count);
        self.exp_reduced(x, [n, t], count);
        self.exp_of_reduced(x, [p, t], count);
        self.exp_scaled(p, n, count);
        self.fill(x, 0, count);
        self.select(x, all(p), mask, count);
    }

    /// First part of exp: `x` becomes what is left of it beside `n` times the logarithm of 2; `t` is lost.
    pub fn exp_reduced(&mut self, x: usize, [n, t]: [usize; 2], count: usize) {
        let (float, int) = ((ElemType::F32, ElemType::S32), (ElemType::S32, ElemType::F32));
        let f = Second::f32;
        self.each(VecOp::Mul, F32, t, x, f(numerics::LOG2_E), count);
        self.each(VecOp::Cast, int, n, t, Second::None, count);
        self.each(VecOp::Cast, float, t, n, Second::None, count);
        self.each(VecOp::Mla, F32, x, t, f(-numerics::LN2_HIGH), count);
        self.each(VecOp::Mla, F32, x, t, f(-numerics::LN2_LOW), count);
    }

    /// Second part: `p` becomes the exponential of what is left, but for the 1; `t` is lost, `x` is not needed any more.
    pub fn exp_of_reduced(&mut self, x: usize, [p, t]: [usize; 2], count: usize) {
        self.fill(p, numerics::EXP_POLY[0].to_bits(), count);
        for c in &numerics::EXP_POLY[1..] {
            self.each(VecOp::Madd, F32, p, x, Second::f32(*c), count);
        }
        self.each2(VecOp::Mul, t, x, x, count);
        self.each2(VecOp::Madd, p, t, x, count);
    }

    /// Third part: `p` becomes the result, `n` is lost.
    pub fn exp_scaled(&mut self, p: usize, n: usize, count: usize) {
        self.each(VecOp::Add, F32, p, p, Second::f32(1.0), count);
        self.each(VecOp::Shl, S32, n, n, Second::Bits(23), count);
        self.each(VecOp::Add, S32, p, p, Second::Vector(all(n)), count);
    }

    /// Bytes that [`Emit::exp`] needs beside its operand.
    pub const fn exp_bytes(count: usize) -> usize {
        3 * (4 * count).next_multiple_of(256) + Emit::mask_bytes(count).next_multiple_of(256)
    }

    /// Bytes of the mask of `count` elements.
    pub const fn mask_bytes(count: usize) -> usize {
        mask_tail(count) + 32
    }

    /// The mask of `x op value` of `count` elements, for [`Emit::select`].
    pub fn compare(&mut self, op: VecOp, mask: usize, x: usize, value: f32, count: usize) {
        let (full, tail) = (count / ROWS, count % ROWS);
        if full > 0 {
            self.vec(op, F32, all(mask), all(x), Second::f32(value), full, ROWS);
        }
        if tail > 0 {
            let (to, x) = (all(mask + mask_tail(count)), all(x + 256 * full));
            self.vec(op, F32, to, x, Second::f32(value), 1, tail);
        }
    }

    /// `x = y` where the mask's bit is set.
    pub fn select(&mut self, x: usize, y: Strided, mask: usize, count: usize) {
        let (full, tail) = (count / ROWS, count % ROWS);
        if full > 0 {
            self.vec(VecOp::Select, F32, all(x), y, Second::Vector(all(mask)), full, ROWS);
        }
        if tail > 0 {
            let y = if y.stride.block == 0 { y } else { y.plus(256 * full) };
            let mask = Second::Vector(all(mask + mask_tail(count)));
            self.vec(VecOp::Select, F32, all(x + 256 * full), y, mask, 1, tail);
        }
    }
}

/// Where in a mask the bits of a repeat that is not full lie: in a block of their own.
const fn mask_tail(count: usize) -> usize {
    (count / ROWS * 8).next_multiple_of(32)
}
