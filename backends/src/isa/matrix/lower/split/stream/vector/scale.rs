//! What a vector core does with the sums of its tiles: those of its last one by themselves or with the others.
//!
//! A core's tiles may be of several products, whose scales, addends and outputs lie apart: each has its columns of the arrays
//! in UB, and the arithmetic is on all of them. A product without an addend that another has adds [`NOTHING`].

use tcc_ir::kernel::ScaleKind;

use super::{AT, BY, EXTRA, Gen, LATE, SCALE_BITS, SHARE};
use crate::isa::matrix::lower::cores::reg;
use crate::isa::matrix::lower::emit::{F32, S32, Second, Strided, Types, dense, strided};
use crate::isa::matrix::lower::matmul::tile::Mode;
use crate::isa::matrix::lower::split::stream::Plan;
use crate::isa::matrix::lower::split::{DONE, Part, Product, all_rows};
use crate::isa::matrix::lower::vector::{Place, Space, UbTooSmall, behind};
use crate::isa::matrix::program::addr::{Addr, Queue, Reg};
use crate::isa::matrix::program::inst::{CopyPath, ScalarOp, ScalarOperand};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::VecOp;

// Of a batch, on the way through the products: the tile at hand in its product, tiles that are left, and of these in the
// product, 1 if there are any, how often so many are worked on; bytes in front of the tile's columns in UB. Nothing is
// unpacked any more, so these are registers of `vector.rs`, too.
const TILE: Reg = reg(13);
const LEFT: Reg = reg(14);
const COUNT: Reg = reg(8);
const HAS_ANY: Reg = reg(21);
const TIMES: Reg = reg(28);
const UB_AT: Reg = reg(16);

/// Flag of the late tile's sums.
const LATE_FLAG: u8 = 5;
/// Lanes of 32 bits in a repeat.
const LANES: usize = 64;

/// Bits of -0, which changes no sum.
const NOTHING: u32 = 0x8000_0000;

/// Tiles of a core whose sums are scaled together.
pub(super) struct Batch {
    /// The first tile, tiles that every core has, and true if some have one more.
    first: Reg,
    tiles: usize,
    has_extra: bool,
    /// Flag between queues.
    flag: u8,
    /// Columns of a token's sums in UB, filled up to whole repeats.
    columns: usize,
    sums: usize,
    scale: usize,
    bias: usize,
    residual: usize,
}

impl Batch {
    pub(super) fn new(plan: &Plan, space: &mut Space, is_late: bool) -> Result<Batch, UbTooSmall> {
        let (first, tiles, flag) = if is_late { (LATE, 1, LATE_FLAG) } else { (SHARE, plan.common_tiles(), 0) };
        let has_extra = !is_late;
        let columns = (plan.tile.rows * (tiles + usize::from(has_extra))).next_multiple_of(LANES);
        let sums = space.floats(plan.cube_rows() * columns)?;
        let (scale, bias) = (space.floats(columns)?, space.floats(columns)?);
        let residual = space.floats(if plan.has(|p| p.residual) { plan.p.m * columns } else { 0 })?;
        Ok(Batch { first, tiles, has_extra, flag, columns, sums, scale, bias, residual })
    }
}

/// Neighboring tiles of a batch, in one product or in the list of all.
#[derive(Clone, Copy)]
struct Piece {
    /// The first tile, bytes in front of its columns in UB, and bytes that are added to either column.
    tile: Reg,
    ub: Reg,
    offset: usize,
    columns: usize,
}

impl Piece {
    /// Where its first column is in an array in UB.
    fn of(&self, base: usize) -> Addr {
        behind(self.ub, base + self.offset)
    }
}

impl Plan {
    /// True if scales are one for each column, also those of whole tensors.
    pub(super) fn has_scale_row(&self) -> bool {
        self.parts.len() > 1 || self.p.scale == ScaleKind::PerRow
    }

    /// True if a product has such an operand.
    fn has(&self, operand: impl Fn(&Product) -> Option<Place>) -> bool {
        self.parts.iter().any(|part| operand(&part.p).is_some())
    }
}

impl Gen<'_> {
    /// Scales the core's share of the group's sums, whole tiles.
    pub(super) fn finish(&mut self) {
        let (plan, p) = (self.plan, self.plan.p);
        let batches = std::mem::take(&mut self.batches);
        // Cores without an extra tile scale what is there all the same.
        for batch in &batches {
            let rows = [
                (plan.has_scale_row(), batch.scale, 1),
                (plan.has(|p| p.bias), batch.bias, 1),
                (plan.has(|p| p.residual), batch.residual, p.m),
            ];
            let rows = rows.into_iter().filter(|(is_there, ..)| *is_there);
            rows.for_each(|(_, at, rows)| self.e.fill(at, NOTHING, rows * batch.columns));
            self.e.fill(batch.sums, 0, plan.cube_rows() * batch.columns);
        }
        self.e.after(Queue::V, Queue::Mte2);
        self.e.point(AT, p.act);
        self.e.load(self.at.act_raw, behind(AT, 0), 1, 4 * p.m, 0, 0);
        // Before the sums are there.
        self.e.loaded();
        let raw = self.at.act_raw;
        self.e.each(VecOp::Mul, F32, raw, raw, Second::f32(1.0 / plan.tile.mode.unit()), p.m);
        self.e.spread(self.at.act, raw, p.m);
        batches.iter().for_each(|batch| self.operands(batch));
        for batch in &batches {
            self.e.await_signal(Queue::Mte2, DONE);
            self.pieces(batch, |this, piece| {
                this.load(batch, piece, batch.sums, p.sums, (plan.cube_rows(), all_rows(&plan.parts)));
            });
            self.e.set(Queue::Mte2, Queue::V, batch.flag);
            self.e.wait(Queue::Mte2, Queue::V, batch.flag);
            self.arithmetic(batch);
            self.e.set(Queue::V, Queue::Mte3, batch.flag);
            self.e.wait(Queue::V, Queue::Mte3, batch.flag);
            let store = |this: &mut Self, part: &Part, piece: Piece| {
                let ends = (this.columns_of(piece, part.p.out), piece.of(batch.sums));
                let sizes = (p.m, 4 * piece.columns);
                this.e.copy(CopyPath::UbToGm, ends, sizes, (4 * batch.columns, 4 * part.p.n));
            };
            self.pieces_of_products(batch, |_, _| {}, store);
        }
    }

    /// The bits of a whole tensor's scale.
    pub(super) fn scale_bits(&mut self, p: &Product) {
        self.e.point(AT, p.scales);
        self.e.scalar_load(SCALE_BITS, behind(AT, 0));
    }

    /// What a batch's sums are scaled with.
    fn operands(&mut self, batch: &Batch) {
        let has_row = self.plan.has_scale_row();
        let is_spread = |p: &Product| has_row && p.scale == ScaleKind::PerTensor;
        let before = |this: &mut Self, part: &Part| {
            if is_spread(&part.p) {
                this.scale_bits(&part.p);
            }
        };
        self.pieces_of_products(batch, before, |this, part, piece| {
            let p = part.p;
            if is_spread(&p) {
                this.spread_scale(batch, piece);
            }
            let per_row = (p.scale == ScaleKind::PerRow).then_some(p.scales);
            let all = [(batch.scale, per_row, 1), (batch.bias, p.bias, 1), (batch.residual, p.residual, p.m)];
            for (at, place, rows) in all {
                place.into_iter().for_each(|place| this.load(batch, piece, at, place, (rows, p.n)));
            }
        });
    }

    /// The scale of a tensor for each column.
    fn spread_scale(&mut self, batch: &Batch, piece: Piece) {
        let (whole, rest) = (piece.columns / LANES, piece.columns % LANES);
        for (first, repeats, lanes) in [(0, whole, LANES), (whole * LANES, usize::from(rest > 0), rest)] {
            let to = dense(batch.scale + piece.offset + 4 * first).behind(piece.ub);
            self.e.vec(VecOp::Dup, F32, to, to, Second::Reg(SCALE_BITS), repeats, lanes);
        }
    }

    /// Where the columns of a piece are in an array of global memory.
    fn columns_of(&mut self, piece: Piece, place: Place) -> Addr {
        self.e.point(BY, place);
        self.e.index(AT, BY, piece.tile, 4 * self.plan.tile.rows);
        behind(AT, piece.offset)
    }

    /// A piece of `rows` rows of `n` columns.
    fn load(&mut self, batch: &Batch, piece: Piece, at: usize, place: Place, (rows, n): (usize, usize)) {
        let ends = (piece.of(at), self.columns_of(piece, place));
        self.e.copy(CopyPath::GmToUb, ends, (rows, 4 * piece.columns), (4 * n, 4 * batch.columns));
    }

    /// `body` for the tiles of a batch in the list of all: those that every core has, and the one more that some have.
    fn pieces(&mut self, batch: &Batch, body: impl Fn(&mut Self, Piece)) {
        let rows = self.plan.tile.rows;
        let piece = |offset: usize, tiles: usize| {
            let (tile, ub) = (batch.first, Reg::ZERO);
            Piece { tile, ub, offset: 4 * offset * rows, columns: tiles * rows }
        };
        if batch.tiles > 0 {
            body(self, piece(0, batch.tiles));
        }
        if batch.has_extra {
            self.guarded(EXTRA, |this| body(this, piece(batch.tiles, 1)));
        }
    }

    /// `before` for each product that the batch has tiles of, then `body` for these: as many at a time as every core has, if
    /// all are the product's, the others one by one.
    fn pieces_of_products(
        &mut self,
        batch: &Batch,
        before: impl Fn(&mut Self, &Part),
        body: impl Fn(&mut Self, &Part, Piece),
    ) {
        let (plan, rows) = (self.plan, self.plan.tile.rows);
        if let [part] = &plan.parts[..] {
            before(self, part);
            return self.pieces(batch, |this, piece| body(this, part, piece));
        }
        self.e.add(TILE, batch.first, 0);
        self.e.add(LEFT, if batch.has_extra { EXTRA } else { Reg::ZERO }, batch.tiles as i64);
        self.e.add(UB_AT, Reg::ZERO, 0);
        for part in &plan.parts {
            self.e.room(COUNT, TILE, plan.tiles_of(part));
            self.e.scalar(ScalarOp::Min, COUNT, COUNT, ScalarOperand::Reg(LEFT));
            self.e.scalar(ScalarOp::Min, HAS_ANY, COUNT, ScalarOperand::Imm(1));
            self.guarded(HAS_ANY, |this| {
                before(this, part);
                this.e.scalar(ScalarOp::Sub, LEFT, LEFT, ScalarOperand::Reg(COUNT));
                let most = (batch.tiles > 1).then_some(batch.tiles);
                for tiles in most.into_iter().chain([1]) {
                    this.e.scalar(ScalarOp::Div, TIMES, COUNT, ScalarOperand::Imm(tiles as i64));
                    this.e.scalar(ScalarOp::Rem, COUNT, COUNT, ScalarOperand::Imm(tiles as i64));
                    this.guarded(TIMES, |this| {
                        body(this, part, Piece { tile: TILE, ub: UB_AT, offset: 0, columns: tiles * rows });
                        this.e.add(TILE, TILE, tiles as i64);
                        this.e.add(UB_AT, UB_AT, (4 * tiles * rows) as i64);
                    });
                }
            });
            self.e.add(TILE, TILE, -(plan.tiles_of(part) as i64));
        }
    }

    /// A batch's sums of all token rows.
    fn arithmetic(&mut self, batch: &Batch) {
        let (p, y, columns) = (self.plan.p, batch.sums, batch.columns);
        let count = p.m * columns;
        if self.plan.tile.mode == Mode::I4 {
            self.e.each(VecOp::Shl, S32, y, y, Second::Bits(4), count);
            self.e.each(VecOp::Add, S32, y, y, Second::Vector(dense(y + 4 * count)), count);
            self.by_column(VecOp::Sub, S32, batch, y + 8 * count);
        }
        self.e.each(VecOp::Cast, (ElemType::F32, ElemType::S32), y, y, Second::None, count);
        let act = self.at.act;
        self.lines(VecOp::Mul, F32, batch, |lines| lines.tokens(act));
        match self.plan.has_scale_row() {
            true => self.by_column(VecOp::Mul, F32, batch, batch.scale),
            false => self.e.each(VecOp::Mul, F32, y, y, Second::Reg(SCALE_BITS), count),
        }
        if self.plan.has(|p| p.bias) {
            self.by_column(VecOp::Add, F32, batch, batch.bias);
        }
        if self.plan.has(|p| p.residual) {
            self.e.each2(VecOp::Add, y, y, batch.residual, count);
        }
    }

    /// The operation with one row of operands for all tokens.
    fn by_column(&mut self, op: VecOp, types: Types, batch: &Batch, row: usize) {
        self.lines(op, types, batch, |lines| lines.columns(row));
    }

    /// The operation on a batch's sums of each token row, with an operand that is not one for each sum: tokens are the
    /// repeats of an instruction, or columns if that makes fewer instructions.
    fn lines(&mut self, op: VecOp, types: Types, batch: &Batch, second: impl Fn(&Lines) -> Strided) {
        let (m, y, columns) = (self.plan.p.m, batch.sums, batch.columns);
        let spans = columns / LANES;
        let are_tokens = spans <= m;
        let (count, repeats) = if are_tokens { (spans, m) } else { (m, spans) };
        for index in 0..count {
            let (token, column) = if are_tokens { (0, index * LANES) } else { (index, 0) };
            let lines = Lines { token, column, are_tokens };
            let at = lines.sums(y, columns);
            self.e.vec(op, types, at, at, Second::Vector(second(&lines)), repeats, LANES);
        }
    }
}

/// What one instruction works on: 64 columns from `column` on in the repeats' token rows, or in each repeat the next ones.
struct Lines {
    token: usize,
    column: usize,
    /// True if repeats are token rows, false if they are columns of one.
    are_tokens: bool,
}

impl Lines {
    /// Elements of a `[token][columns]` array.
    fn sums(&self, base: usize, columns: usize) -> Strided {
        let repeat = if self.are_tokens { columns / 8 } else { LANES / 8 };
        strided(base + 4 * (self.token * columns + self.column), 1, repeat)
    }

    /// Elements of one row for all tokens.
    fn columns(&self, base: usize) -> Strided {
        strided(base + 4 * self.column, 1, if self.are_tokens { 0 } else { LANES / 8 })
    }

    /// A block of each token.
    fn tokens(&self, base: usize) -> Strided {
        strided(base + 32 * self.token, 0, usize::from(self.are_tokens))
    }
}
