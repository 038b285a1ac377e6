//! Token rows in UB, cut into pieces of columns, and the operations over all of them: where an instruction has a block of
//! each row in its lanes, what belongs to a row is one block for all of its repeats, and so is a column for all rows.

use std::ops::Range;

use super::rows::TOGETHER;
use super::{Space, Tables, UbTooSmall, behind};
use crate::isa::matrix::lower::emit::{Emit, F32, Second, Strided, block, dense, strided};
use crate::isa::matrix::program::addr::{Queue, Reg};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::{MAX_REPEATS, VecOp};

/// Columns of a piece, at most: rows are a stride of blocks apart, whole repeats of 64 elements.
const MOST_COLUMNS: usize = MAX_REPEATS as usize / 8 * 64;

/// f32 rows in UB, `[piece][row][column]`. Columns behind a row's last element are zeros, which change neither sums of
/// squares nor the largest magnitude: so every repeat is full.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    pub at: usize,
    /// At most [`TOGETHER`].
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// Columns of a piece, whole repeats, and pieces of a row.
    pub columns: usize,
    pub pieces: usize,
}

impl Grid {
    /// Room for `rows` rows of `width` elements; a row has room for whole strips of codes. One or two rows stay in one
    /// piece unless they are to be cut: they are worked on one by one.
    pub fn take(space: &mut Space, rows: usize, width: usize, is_cut: bool) -> Result<Grid, UbTooSmall> {
        let padded = width.next_multiple_of(128);
        let most = padded.div_ceil(MOST_COLUMNS);
        let pieces = match rows {
            1 | 2 if !is_cut => 1,
            // With those of the next piece they fill the lanes.
            4 => most.next_multiple_of(2),
            _ => most,
        };
        let columns = padded.div_ceil(pieces).next_multiple_of(64).max(128);
        let pieces = padded.div_ceil(columns);
        Ok(Grid { at: space.floats(rows * columns * pieces)?, rows, width, columns, pieces })
    }

    pub fn row(&self, piece: usize, row: usize) -> usize {
        self.at + 4 * self.columns * (piece * self.rows + row)
    }

    /// Columns of a piece that are elements of rows.
    pub fn valid(&self, piece: usize) -> usize {
        self.columns.min(self.width - piece * self.columns)
    }

    /// Pieces whose rows are worked on together, as they fill the lanes.
    pub fn span(&self) -> usize {
        let span = TOGETHER / self.rows;
        if self.pieces.is_multiple_of(span) { span } else { 1 }
    }

    /// True if lanes hold a block of each row; few rows do better one by one.
    fn is_across(&self) -> bool {
        2 * self.rows * self.span() > TOGETHER
    }

    /// A block of each of the rows of a span in the lanes, the next one in each repeat.
    fn across(&self, piece: usize) -> Strided {
        strided(self.row(piece, 0), self.columns / 8, 1)
    }

    /// Pieces and rows, one by one.
    fn each_row(&self, pieces: Range<usize>) -> impl Iterator<Item = (usize, usize)> + use<> {
        let rows = self.rows;
        pieces.flat_map(move |piece| (0..rows).map(move |row| (piece, row)))
    }

    /// Loads the rows of a piece from behind `from`.
    pub fn load(&self, e: &mut Emit, piece: usize, from: Reg) {
        let from = behind(from, 4 * piece * self.columns);
        e.load(self.row(piece, 0), from, self.rows, 4 * self.valid(piece), 4 * self.width, 4 * self.columns);
    }

    /// True if the last piece has more columns than elements.
    pub fn has_tail(&self) -> bool {
        self.valid(self.pieces - 1) < self.columns
    }

    /// Zeros behind the last elements, before rows are loaded: what was there may have been multiplied with no number.
    pub fn clear_tail(&self, e: &mut Emit) {
        let last = self.pieces - 1;
        clear_tail(e, self.row(last, 0), (self.rows, self.columns), self.valid(last));
    }

    /// Multiplies each row with its block at `factors`; the rows of a span have theirs one behind the other.
    pub fn times_rows(&self, e: &mut Emit, pieces: Range<usize>, factors: usize) {
        if self.is_across() {
            let factors = Second::Vector(strided(factors, 1, 0));
            for piece in pieces.step_by(self.span()) {
                let x = self.across(piece);
                e.vec(VecOp::Mul, F32, x, x, factors, self.columns / 8, 8 * self.rows * self.span());
            }
            return;
        }
        for (piece, row) in self.each_row(pieces) {
            let x = self.row(piece, row);
            e.each(VecOp::Mul, F32, x, x, Second::Vector(block(factors + 32 * row)), self.columns);
        }
    }

    /// Multiplies the rows of a piece with its columns' factors.
    pub fn times_columns(&self, e: &mut Emit, piece: usize, factors: usize) {
        if 2 * self.rows > TOGETHER {
            let (x, factors) = (self.across(piece), Second::Vector(strided(factors, 0, 1)));
            e.vec(VecOp::Mul, F32, x, x, factors, self.columns / 8, 8 * self.rows);
            return;
        }
        for (piece, row) in self.each_row(piece..piece + 1) {
            let x = self.row(piece, row);
            e.each2(VecOp::Mul, x, x, factors, self.columns);
        }
    }

    /// Adds the squares of a piece to each row's partial sums, eight at `sums[0]` and eight at `sums[1]`: one half of them,
    /// which comes in the order of the pieces. Of few rows, the first half is all.
    fn squares(&self, e: &mut Emit, piece: usize, sums: [usize; 2], half: usize) {
        let repeats = self.columns / 16;
        if self.rows > 2 {
            let (p, x) = (sums[half], strided(self.row(piece, 0) + 32 * half, self.columns / 8, 2));
            e.vec(VecOp::Mla, F32, strided(p, 1, 0), x, Second::Vector(x), repeats, 8 * self.rows);
        } else if half == 0 {
            for (piece, row) in self.each_row(piece..piece + 1) {
                // Both halves of the partials side by side.
                let p = strided(sums[0] + 32 * row, (sums[1] - sums[0]) / 32, 0);
                let x = strided(self.row(piece, row), 1, 2);
                e.vec(VecOp::Mla, F32, p, x, Second::Vector(x), repeats, 16);
            }
        }
    }

    /// The largest magnitude of each row at `to`, one behind the other, by way of `bytes` bytes at `t`.
    pub fn magnitudes(&self, e: &mut Emit, to: usize, at: &Maxima, (t, bytes): (usize, usize)) {
        let largest = |e: &mut Emit, to: usize, x: Strided, repeats: usize, lanes: usize| {
            let to = strided(to, 1, 0);
            let size = repeats.div_ceil(repeats.div_ceil(bytes / 256));
            for first in (0..repeats).step_by(size) {
                let (x, repeats) = (x.plus(32 * first * usize::from(x.stride.repeat)), size.min(repeats - first));
                e.vec(VecOp::Abs, F32, dense(t), x, Second::None, repeats, lanes);
                e.vec(VecOp::Max, F32, to, dense(t), Second::Vector(to), repeats, lanes);
            }
        };
        let (lanes, span) = (8 * self.rows, self.span());
        if self.is_across() {
            e.fill(at.blocks, 0, lanes * span);
            for piece in (0..self.pieces).step_by(span) {
                largest(e, at.blocks, self.across(piece), self.columns / 8, lanes * span);
            }
            for other in 1..span {
                e.each2(VecOp::Max, at.blocks, at.blocks, at.blocks + 4 * lanes * other, lanes);
            }
        } else {
            e.fill(at.lanes, 0, 64 * self.rows);
            for (piece, row) in self.each_row(0..self.pieces) {
                largest(e, at.lanes + 256 * row, dense(self.row(piece, row)), self.columns / 64, 64);
            }
            e.vec(VecOp::BlockMax, F32, dense(at.blocks), dense(at.lanes), Second::None, self.rows, 64);
        }
        e.vec(VecOp::BlockMax, F32, dense(to), dense(at.blocks), Second::None, 1, lanes);
    }
}

/// Zeros in whole blocks from column `valid` of rows of `columns` on.
pub fn clear_tail(e: &mut Emit, at: usize, (rows, columns): (usize, usize), valid: usize) {
    let tail = strided(at + 32 * (valid / 8), columns / 8, 1);
    // Rows of one piece are few columns wider than their elements.
    let blocks = (columns - valid).div_ceil(8);
    if blocks > 0 {
        e.vec(VecOp::Dup, F32, tail, tail, Second::Bits(0), blocks, 8 * rows);
    }
}

/// UB of [`Grid::magnitudes`].
pub struct Maxima {
    /// A block for each row.
    blocks: usize,
    /// A repeat for each of few rows.
    lanes: usize,
}

impl Maxima {
    pub fn take(space: &mut Space) -> Result<Maxima, UbTooSmall> {
        Ok(Maxima { blocks: space.floats(8 * TOGETHER)?, lanes: space.floats(32 * TOGETHER)? })
    }
}

/// UB of norms, their weights aside.
pub struct NormSpace {
    sums: [usize; 2],
    order: usize,
    ordered: usize,
    one: usize,
    r: usize,
}

impl NormSpace {
    pub fn take(space: &mut Space) -> Result<NormSpace, UbTooSmall> {
        let mut blocks = || space.floats(8 * TOGETHER);
        Ok(NormSpace {
            sums: [blocks()?, blocks()?],
            order: blocks()?,
            ordered: blocks()?,
            one: blocks()?,
            r: blocks()?,
        })
    }

    /// Sets constants, and has the table loaded, by way of `reg`.
    pub fn load(&self, e: &mut Emit, tables: &Tables, reg: Reg) {
        e.fill(self.one, 1.0f32.to_bits(), 8);
        e.point(reg, tables.order);
        e.load(self.order, behind(reg, 0), 1, 32 * TOGETHER, 0, 0);
    }

    /// Partial sums of `rows` rows that are zero.
    pub fn clear(&self, e: &mut Emit, rows: usize) {
        self.sums.into_iter().for_each(|half| e.fill(half, 0, 8 * rows));
    }

    /// Adds the squares of a piece to one half of the sums.
    pub fn add_half(&self, e: &mut Emit, x: &Grid, piece: usize, half: usize) {
        x.squares(e, piece, self.sums, half);
    }

    /// Adds the squares of a piece.
    pub fn add(&self, e: &mut Emit, x: &Grid, piece: usize) {
        (0..2).for_each(|half| self.add_half(e, x, piece, half));
    }

    /// `x = x · r`, with each row's factor from its sums.
    pub fn scale(&self, e: &mut Emit, x: &Grid, eps: f32) {
        let ([lo, hi], r, all) = (self.sums, self.r, 8 * x.rows * x.span());
        e.each2(VecOp::Add, lo, lo, hi, 8 * x.rows);
        // As `numerics::reduce` adds.
        let (words, sums) = ((ElemType::U32, ElemType::U32), Second::Vector(dense(lo)));
        e.vec(VecOp::Gather, words, dense(self.ordered), dense(self.order), sums, 1, 8 * x.rows);
        e.vec(VecOp::BlockSum, F32, dense(lo), dense(self.ordered), Second::None, 1, 8 * x.rows);
        spread(e, r, lo, (x.rows, x.span()));
        // Row lengths are far below 2^24.
        e.each(VecOp::Div, F32, r, r, Second::f32(x.width as f32), all);
        e.each(VecOp::Add, F32, r, r, Second::f32(eps), all);
        e.each(VecOp::Sqrt, F32, r, r, Second::None, all);
        e.vec(VecOp::Div, F32, dense(r), block(self.one), Second::Vector(dense(r)), 1, all);
        x.times_rows(e, 0..x.pieces, r);
    }
}

/// Has the weights of all columns loaded from behind `reg`, zeros behind them.
pub fn load_weights(e: &mut Emit, to: usize, x: &Grid, reg: Reg) {
    if x.has_tail() {
        clear_tail(e, to, (1, x.columns * x.pieces), x.width);
        e.after(Queue::V, Queue::Mte2);
    }
    e.load(to, behind(reg, 0), 1, 4 * x.width, 0, 0);
}

/// A block of each of `rows` values at `from`, `span` times, for [`Grid::times_rows`].
pub fn spread(e: &mut Emit, to: usize, from: usize, (rows, span): (usize, usize)) {
    for piece in 0..span {
        e.spread(to + 32 * rows * piece, from, rows);
    }
}
