//! Writes of int8 caches: codes and scales of all heads of up to eight token rows together.
//!
//! A scale is 4 bytes, so eight positions of a head share a block of 32, which has one writer. So where there are rows
//! enough, cores share eights of positions, wherever in its eight the first row is: the first and the last may have fewer
//! rows, which ones is known when the program runs. Whole eights are stored in one go, other rows one by one.

use std::ops::Range;

use tcc_ir::cache::CacheLayout;
use tcc_ir::numerics::ABSMAX_FLOOR;

use super::pitch;
use crate::isa::matrix::lower::cores::reg;
use crate::isa::matrix::lower::emit::{Emit, F32, Second, dense, strided};
use crate::isa::matrix::lower::vector::rows::{TOGETHER, count, divide_up, in_groups, most, step};
use crate::isa::matrix::lower::vector::{Place, RUNS, Sharing, Space, UbTooSmall, behind, run_cores, share_rows};
use crate::isa::matrix::program::addr::{Queue, Reg};
use crate::isa::matrix::program::inst::{CopyPath, Count, ScalarOp, ScalarOperand};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::VecOp;

// Operands, and the position of the first row.
const ALL_X: Reg = reg(1);
const CACHE: Reg = reg(2);
const POS: Reg = reg(3);
// Of the first row of a group: its elements, and its codes and scale in head 0.
const X: Reg = reg(4);
const CODES: Reg = reg(5);
const SCALES: Reg = reg(6);
// Of the row at hand: the same from its first head on, and where it lies in UB.
const X_AT: Reg = reg(7);
const CODES_AT: Reg = reg(8);
const SCALES_AT: Reg = reg(9);
const ROW_AT: Reg = reg(13);
const SCALE_AT: Reg = reg(14);
// Of an eight of positions: the row at its first one, which may be negative, its first row, its rows, 1 if they are
// eight, and those that are stored one by one.
const FIRST: Reg = reg(15);
const ROW: Reg = reg(16);
const COUNT: Reg = reg(17);
const WHOLE: Reg = reg(18);
const ALONE: Reg = reg(19);

/// Flag of what a group has in UB, between the queues that fill it and those that are done with it.
const ROWS: u8 = 1;

/// How many rows a group has.
struct Counts {
    all: Count,
    /// 1 if they are stored in one go.
    whole: Option<Count>,
    /// Rows that are stored one by one.
    alone: Count,
}

/// UB of a group: some heads of its rows, `[head][row]`.
struct Group<'a> {
    c: &'a CacheLayout,
    rows: usize,
    /// Heads that are done together.
    heads: usize,
    /// Rows as loaded, times what makes them codes, and codes.
    loaded: usize,
    scaled: usize,
    codes: usize,
    /// For each row of each head 64 lanes of magnitudes, and of the largest of them.
    t: usize,
    max: usize,
    blocks: usize,
    /// Scales, and a block for each: of what elements are multiplied with, then of the scale.
    a: usize,
    spread: usize,
}

/// Stores rows `x: f32[m, heads · d]` at positions `pos ..` of the cache.
pub fn write(
    e: &mut Emit,
    ub: usize,
    m: usize,
    c: CacheLayout,
    [x, cache, pos]: [Place; 3],
    cores: usize,
) -> Result<Sharing, UbTooSmall> {
    let group = most(m, |rows| Group::fit(ub, rows, &c))?;
    e.point(POS, pos);
    e.scalar_load(POS, behind(POS, 0));
    e.point(ALL_X, x);
    e.point(CACHE, cache);
    if group.rows == TOGETHER || pitch(&c) > c.d {
        // What no row is loaded to is worked on, too.
        e.fill(group.loaded, 0, group.rows * group.heads * pitch(&c));
    }
    presets(e, true);
    let shared = if group.rows == TOGETHER { group.eights(e, m, cores) } else { group.alone(e, m) };
    presets(e, false);
    Ok(shared)
}

/// Sets, or takes, the flags that say that UB is free.
fn presets(e: &mut Emit, is_start: bool) {
    for (src, dst) in [(Queue::V, Queue::Mte2), (Queue::Mte3, Queue::V)] {
        if is_start { e.set(src, dst, ROWS) } else { e.wait(src, dst, ROWS) }
    }
}

impl<'a> Group<'a> {
    /// As many heads of `rows` rows as fit.
    fn fit(ub: usize, rows: usize, c: &'a CacheLayout) -> Result<Group<'a>, UbTooSmall> {
        let of = |parts: usize| Group::take(ub, (rows, c.heads.div_ceil(parts)), c);
        (1..c.heads).find_map(|parts| of(parts).ok()).map_or_else(|| of(c.heads), Ok)
    }

    fn take(ub: usize, (rows, heads): (usize, usize), c: &'a CacheLayout) -> Result<Group<'a>, UbTooSmall> {
        let mut space = Space::new(ub);
        let pairs = rows * heads;
        let elements = pairs * pitch(c);
        Ok(Group {
            c,
            rows,
            heads,
            loaded: space.floats(elements)?,
            scaled: space.floats(elements)?,
            codes: space.take(elements)?,
            t: space.floats(64 * pairs)?,
            max: space.floats(64 * pairs)?,
            blocks: space.floats(8 * pairs)?,
            a: space.floats(pairs)?,
            spread: space.floats(8 * pairs)?,
        })
    }

    /// Groups of rows one behind the other, by one core.
    fn alone(&self, e: &mut Emit, m: usize) -> Sharing {
        self.point(e, Reg::ZERO);
        in_groups(e, m, self.rows, |e, rows| {
            self.write(e, rows, &Counts { all: count(rows), whole: None, alone: count(rows) });
            let sizes = [(X, 4 * self.c.heads * self.c.d), (CODES, self.c.row_bytes()), (SCALES, 4)];
            sizes.map(|(reg, bytes)| (reg, step(rows * bytes))).to_vec()
        });
        (1, vec![])
    }

    /// Eights of positions, shared among cores.
    fn eights(&self, e: &mut Emit, m: usize, cores: usize) -> Sharing {
        let imm = |value: usize| ScalarOperand::Imm(value as i64);
        // With the first row at the last position of its eight.
        let most = (m + TOGETHER - 1).div_ceil(TOGETHER);
        let cores = run_cores(most, 1, cores);
        let starts = share_rows(e, (most, 1), cores, RUNS);
        let [first, eights, _] = RUNS;
        e.scalar(ScalarOp::Rem, FIRST, POS, imm(TOGETHER));
        e.add(COUNT, FIRST, m as i64);
        divide_up(e, COUNT, COUNT, TOGETHER);
        e.scalar(ScalarOp::Sub, COUNT, COUNT, ScalarOperand::Reg(first));
        e.scalar(ScalarOp::Min, eights, eights, ScalarOperand::Reg(COUNT));
        e.scalar(ScalarOp::Mul, ROW, first, imm(TOGETHER));
        e.scalar(ScalarOp::Sub, FIRST, ROW, ScalarOperand::Reg(FIRST));

        e.begin(Count::Reg(eights));
        e.scalar(ScalarOp::Max, ROW, FIRST, imm(0));
        e.add(COUNT, FIRST, TOGETHER as i64);
        e.scalar(ScalarOp::Min, COUNT, COUNT, imm(m));
        e.scalar(ScalarOp::Sub, COUNT, COUNT, ScalarOperand::Reg(ROW));
        self.point(e, ROW);
        // Codes of rows that fill whole blocks lie in UB as they do in the cache.
        let counts = if self.c.d.is_multiple_of(32) {
            e.scalar(ScalarOp::Div, WHOLE, COUNT, imm(TOGETHER));
            e.scalar(ScalarOp::Rem, ALONE, COUNT, imm(TOGETHER));
            Counts { all: Count::Reg(COUNT), whole: Some(Count::Reg(WHOLE)), alone: Count::Reg(ALONE) }
        } else {
            Counts { all: Count::Reg(COUNT), whole: None, alone: Count::Reg(COUNT) }
        };
        self.write(e, self.rows, &counts);
        e.end(&[(FIRST, step(TOGETHER))]);
        (cores, starts)
    }

    /// Addresses of a group whose first row is `row`.
    fn point(&self, e: &mut Emit, row: Reg) {
        e.index(X, ALL_X, row, 4 * self.c.heads * self.c.d);
        e.scalar(ScalarOp::Add, SCALES, POS, ScalarOperand::Reg(row));
        e.index(CODES, CACHE, SCALES, self.c.row_bytes());
        e.index(SCALES, CACHE, SCALES, 4);
        e.add(SCALES, SCALES, self.c.scales_offset_bytes() as i64);
    }

    /// A group of at most `rows` rows.
    fn write(&self, e: &mut Emit, rows: usize, counts: &Counts) {
        for first in (0..self.c.heads).step_by(self.heads) {
            let heads = first..self.c.heads.min(first + self.heads);
            self.load(e, rows, counts, &heads);
            self.code(e, rows * heads.len());
            self.store(e, rows, counts, &heads);
        }
    }

    /// Loads some heads of the rows.
    fn load(&self, e: &mut Emit, rows: usize, counts: &Counts, heads: &Range<usize>) {
        let (d, pitch) = (self.c.d, pitch(self.c));
        e.wait(Queue::V, Queue::Mte2, ROWS);
        e.add(X_AT, X, (4 * d * heads.start) as i64);
        e.add(ROW_AT, Reg::ZERO, self.loaded as i64);
        e.begin(counts.all);
        let places = (behind(ROW_AT, 0), behind(X_AT, 0));
        e.copy(CopyPath::GmToUb, places, (heads.len(), 4 * d), (4 * d, 4 * pitch * rows));
        e.end(&[(X_AT, step(4 * d * self.c.heads)), (ROW_AT, step(4 * pitch))]);
        e.set(Queue::Mte2, Queue::V, ROWS);
    }

    /// Codes and scales of `pairs` rows of heads.
    fn code(&self, e: &mut Emit, pairs: usize) {
        let (d, pitch) = (self.c.d, pitch(self.c));
        let columns = || (0..d).step_by(64).map(|first| (first, (d - first).min(64)));
        let of = |x: usize, first: usize| strided(x + 4 * first, 1, pitch / 8);
        e.wait(Queue::Mte2, Queue::V, ROWS);
        let x = self.loaded;
        if d < 64 {
            e.fill(self.max, 0, 64 * pairs);
        }
        for (first, lanes) in columns() {
            let others = if first == 0 { Second::f32(0.0) } else { Second::Vector(dense(self.max)) };
            e.vec(VecOp::Abs, F32, dense(self.t), of(x, first), Second::None, pairs, lanes);
            e.vec(VecOp::Max, F32, dense(self.max), dense(self.t), others, pairs, lanes);
        }
        e.wait(Queue::Mte3, Queue::V, ROWS);
        self.scales(e, pairs);
        let inv = Second::Vector(strided(self.spread, 0, 1));
        for (first, lanes) in columns() {
            e.vec(VecOp::Mul, F32, of(self.scaled, first), of(x, first), inv, pairs, lanes);
        }
        e.set(Queue::V, Queue::Mte2, ROWS);
        for (first, lanes) in columns() {
            // Saturates at -128 and 127, as the clamp does.
            let (to, types) = (strided(self.codes + first, 1, pitch / 32), (ElemType::S8, ElemType::F32));
            e.vec(VecOp::Cast, types, to, of(self.scaled, first), Second::None, pairs, lanes);
        }
        e.spread(self.spread, self.a, pairs);
        e.set(Queue::V, Queue::Mte3, ROWS);
    }

    /// Scales from what 64 lanes hold for each pair, and a block for each of what its elements are to be multiplied with.
    fn scales(&self, e: &mut Emit, pairs: usize) {
        let (a, inv) = (self.a, self.blocks);
        e.vec(VecOp::BlockMax, F32, dense(inv), dense(self.max), Second::None, pairs, 64);
        e.block_max(a, inv, 8 * pairs);
        e.each(VecOp::Max, F32, a, a, Second::f32(ABSMAX_FLOOR), pairs);
        e.fill(inv, 127.0f32.to_bits(), pairs);
        e.each2(VecOp::Div, inv, inv, a, pairs);
        e.spread(self.spread, inv, pairs);
        e.each(VecOp::Div, F32, a, a, Second::f32(127.0), pairs);
    }

    /// Stores codes and scales of some heads of the rows.
    fn store(&self, e: &mut Emit, rows: usize, counts: &Counts, heads: &Range<usize>) {
        let (d, pitch) = (self.c.d, pitch(self.c));
        let (head_bytes, scales_bytes) = (self.c.head_bytes(), 4 * self.c.positions());
        e.wait(Queue::V, Queue::Mte3, ROWS);
        e.add(CODES_AT, CODES, (head_bytes * heads.start) as i64);
        e.add(SCALES_AT, SCALES, (scales_bytes * heads.start) as i64);
        if let Some(whole) = counts.whole {
            e.begin(whole);
            e.store(behind(CODES_AT, 0), self.codes, heads.len(), d * rows, d * rows, head_bytes);
            e.store(behind(SCALES_AT, 0), self.a, heads.len(), 4 * rows, 4 * rows, scales_bytes);
            e.end(&[]);
        }
        e.add(ROW_AT, Reg::ZERO, self.codes as i64);
        e.add(SCALE_AT, Reg::ZERO, self.spread as i64);
        e.begin(counts.alone);
        let mut copy = |to: Reg, from: Reg, bytes: usize, strides: (usize, usize)| {
            e.copy(CopyPath::UbToGm, (behind(to, 0), behind(from, 0)), (heads.len(), bytes), strides);
        };
        copy(CODES_AT, ROW_AT, d, (pitch * rows, head_bytes));
        copy(SCALES_AT, SCALE_AT, 4, (32 * rows, scales_bytes));
        let row = [(CODES_AT, self.c.row_bytes()), (ROW_AT, pitch), (SCALES_AT, 4), (SCALE_AT, 32)];
        e.end(&row.map(|(reg, bytes)| (reg, step(bytes))));
        e.set(Queue::Mte3, Queue::V, ROWS);
    }
}
