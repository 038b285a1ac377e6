//! Rotary positions, through two slots of UB: a head of many token rows at a time, or all heads of one.

use super::rows::{AT2, INDEX, OUT, POS, W, X, first_run, step};
use super::{ALIGN, Place, RUNS, Sharing, Space, UbTooSmall, behind, in_runs, reg, run_cores, share_rows};
use crate::isa::matrix::lower::emit::{Emit, F32, Second, strided};
use crate::isa::matrix::program::addr::{Queue, Reg};
use crate::isa::matrix::program::inst::Count;
use crate::isa::matrix::program::vec::VecOp;

// Of the piece at hand.
const X_PIECE: Reg = reg(13);
const OUT_PIECE: Reg = reg(14);
// Of the run at hand: rows of the tables.
const COS: Reg = reg(15);
const SIN: Reg = reg(16);

/// The flag of the first slot; 0 is [`Emit::after`]'s.
const SLOT: u8 = 1;

/// Token rows of a run, to try.
const ROWS_TOGETHER: [usize; 4] = [64, 32, 16, ALIGN];

struct At {
    /// Of a run.
    rows: usize,
    heads: usize,
    half: usize,
    /// Both halves of what is rotated together, in two slots; results take their place.
    x: [[usize; 2]; 2],
    t: [usize; 2],
    cos: usize,
    sin: usize,
    /// Elements from one row to the next.
    pitch: usize,
}

impl At {
    fn take(ub: usize, rows: usize, (heads, half): (usize, usize)) -> Result<At, UbTooSmall> {
        let mut space = Space::new(ub);
        let pitch = half.next_multiple_of(8);
        let mut at = At { rows, heads, half, x: [[0; 2]; 2], t: [0; 2], cos: 0, sin: 0, pitch };
        let repeats = if at.is_by_head(rows) { rows } else { heads };
        for slot in at.x.iter_mut().flatten().chain(&mut at.t) {
            *slot = space.floats(repeats * pitch)?;
        }
        for table in [&mut at.cos, &mut at.sin] {
            *table = space.floats(rows * pitch)?;
        }
        Ok(at)
    }

    /// A head of `rows` rows is rotated at a time, as there are more of them than heads.
    fn is_by_head(&self, rows: usize) -> bool {
        rows > self.heads && rows == self.rows
    }
}

/// The most rows that fit `ub` bytes and leave none of `cores` cores without some, if there are rows enough.
fn fitting(ub: usize, m: usize, head: (usize, usize), cores: usize) -> Result<At, UbTooSmall> {
    let shared = ROWS_TOGETHER.into_iter().filter(|rows| rows * cores <= m);
    let found = shared.map(|rows| At::take(ub, rows, head)).find(Result::is_ok);
    found.unwrap_or_else(|| At::take(ub, ALIGN, head)).or_else(|_| At::take(ub, 1, head))
}

/// Rotates pairs (i, i + d/2) of each head; row r stands at position `pos + r`.
pub fn rope(
    e: &mut Emit,
    ub: usize,
    (m, heads, d): (usize, usize, usize),
    [x, cos, sin, out, pos]: [Place; 5],
    cores: usize,
) -> Result<Sharing, UbTooSmall> {
    let (row, half) = (4 * heads * d, d / 2);
    let at = fitting(ub, m, (heads, half), cores)?;
    // Blocks of 32 bytes have one writer.
    let cores = if at.rows.is_multiple_of(ALIGN) { run_cores(m, at.rows, cores) } else { 1 };
    let starts = share_rows(e, (m, at.rows), cores, RUNS);
    e.point(POS, pos);
    e.scalar_load(INDEX, behind(POS, 0));
    first_run(e, &[(X, x, row), (OUT, out, row), (W, cos, 4 * half), (AT2, sin, 4 * half)], at.rows);
    for (to, table) in [(COS, W), (SIN, AT2)] {
        e.index(to, table, INDEX, 4 * half);
    }
    presets(e, true);
    in_runs(e, (m, at.rows), |e, rows| {
        at.run(e, rows);
        let table = step(4 * half * rows);
        vec![(X, step(row * rows)), (OUT, step(row * rows)), (COS, table), (SIN, table)]
    });
    presets(e, false);
    Ok((cores, starts))
}

/// Sets, or takes, the flags that say that slots are free.
fn presets(e: &mut Emit, is_start: bool) {
    for slot in SLOT..SLOT + 2 {
        if is_start { e.set(Queue::Mte3, Queue::Mte2, slot) } else { e.wait(Queue::Mte3, Queue::Mte2, slot) }
    }
}

/// What is rotated together: `count` rows of a head, or heads of a row.
#[derive(Clone, Copy)]
struct Piece {
    slot: usize,
    /// Bytes behind the registers, and from one to the next.
    skip: usize,
    apart: usize,
    count: usize,
    /// The first row of the tables, and if the next one has the next.
    table: usize,
    is_by_head: bool,
}

impl At {
    /// All heads of the next `rows` rows.
    fn run(&self, e: &mut Emit, rows: usize) {
        e.after(Queue::V, Queue::Mte2);
        for (to, from) in [(self.cos, COS), (self.sin, SIN)] {
            e.load(to, behind(from, 0), rows, 4 * self.half, 4 * self.half, 4 * self.pitch);
        }
        e.loaded();
        e.add(X_PIECE, X, 0);
        e.add(OUT_PIECE, OUT, 0);
        let head = 8 * self.half;
        if self.is_by_head(rows) {
            let apart = self.heads * head;
            let of = |i| Piece { slot: self.slot(i), skip: head * i, apart, count: rows, table: 0, is_by_head: true };
            if self.heads > 1 {
                // At most the model's heads.
                e.begin(Count::Fixed(self.heads as u32 / 2));
                (0..2).for_each(|i| self.rotate(e, of(i)));
                e.end(&[(X_PIECE, step(2 * head)), (OUT_PIECE, step(2 * head))]);
            }
            if !self.heads.is_multiple_of(2) {
                self.rotate(e, of(0));
            }
        } else {
            let (apart, count) = (head, self.heads);
            let of = |row| Piece {
                slot: self.slot(row),
                skip: count * head * row,
                apart,
                count,
                table: row,
                is_by_head: false,
            };
            (0..rows).for_each(|row| self.rotate(e, of(row)));
        }
    }

    /// The slot of piece `index`. Results may take the place of what is rotated: halves that share blocks of 32 bytes with
    /// others are stored before those are loaded.
    fn slot(&self, index: usize) -> usize {
        if self.half.is_multiple_of(8) { index % 2 } else { 0 }
    }

    /// A piece, through its slot.
    fn rotate(&self, e: &mut Emit, piece: Piece) {
        let Piece { slot, skip, apart, count, .. } = piece;
        let (half, [x1, x2], [t1, t2]) = (self.half, self.x[slot], self.t);
        // Two slots.
        let flag = SLOT + slot as u8;
        let halves = [(x1, skip), (x2, skip + 4 * half)];
        e.wait(Queue::Mte3, Queue::Mte2, flag);
        for (to, skip) in halves {
            e.load(to, behind(X_PIECE, skip), count, 4 * half, apart, 4 * self.pitch);
        }
        e.set(Queue::Mte2, Queue::V, flag);
        e.wait(Queue::Mte2, Queue::V, flag);
        let table_step = if piece.is_by_head { self.pitch / 8 } else { 0 };
        let [cos, sin] = [self.cos, self.sin].map(|table| table + 4 * self.pitch * piece.table);
        for first in (0..half).step_by(64) {
            let lanes = (half - first).min(64);
            let rows = |at: usize| strided(at + 4 * first, 1, self.pitch / 8);
            let table = |at: usize| strided(at + 4 * first, 1, table_step);
            let mut op = |op, to, a, b| e.vec(op, F32, rows(to), rows(a), Second::Vector(b), count, lanes);
            op(VecOp::Mul, t1, x1, table(sin));
            op(VecOp::Mul, t2, x2, table(sin));
            op(VecOp::Mul, x1, x1, table(cos));
            op(VecOp::Mul, x2, x2, table(cos));
            op(VecOp::Sub, x1, x1, rows(t2));
            op(VecOp::Add, x2, x2, rows(t1));
        }
        e.set(Queue::V, Queue::Mte3, flag);
        e.wait(Queue::V, Queue::Mte3, flag);
        for (from, skip) in halves {
            e.store(behind(OUT_PIECE, skip), from, count, 4 * half, 4 * self.pitch, apart);
        }
        e.set(Queue::Mte3, Queue::Mte2, flag);
    }
}
