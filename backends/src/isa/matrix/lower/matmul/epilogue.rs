//! From sums to results: slices of rows leave L0C, the vector unit scales them, and they go to global memory.
//!
//! A slice is row-major, as wide as a span of the panel's columns. With two rows per token, high and low ones
//! alternate; results stand in the places of the high rows. Where k is cut, all but the last cut store their sums as
//! they are, and the next one adds them.

use std::collections::VecDeque;
use std::ops::Range;

use tcc_ir::kernel::ScaleKind;

use super::coupled::Gen;
use super::tile::Mode;
use super::{Block, flag, regs};
use crate::isa::matrix::lower::emit::{Emit, F32, S32, Second, Types, strided};
use crate::isa::matrix::program::addr::{Queue, Reg};
use crate::isa::matrix::program::inst::{Control, Fix, FixLayout, FixPath, FixScale, Order, Quant, UnitFlag, Work};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::VecOp;

/// Rows of one accumulator that are finished together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    pub tile: usize,
    pub span: usize,
    /// First row of the cube within the tile, and rows.
    pub row: usize,
    pub rows: usize,
    pub is_first: bool,
    pub is_last: bool,
}

/// How the arithmetic on a slice goes over it: from column `first` of the span on, the slice being at `at`, with `step`
/// blocks between the repeats of each row of the cube and `per_token` repeats for a token.
#[derive(Clone, Copy, Debug)]
struct Walk {
    at: usize,
    first: usize,
    per_token: usize,
    lanes: usize,
    step: usize,
}

/// Rows that are added to a slice, part by part: those that are still to be loaded, and the slots of the others.
#[derive(Default)]
struct Added {
    left: VecDeque<(Reg, Range<usize>)>,
    loaded: VecDeque<usize>,
}

/// Lanes of 32 bits in a repeat.
const LANES: usize = 64;

impl Gen<'_> {
    /// The slices of a block's accumulators.
    pub(super) fn slices(&self, block: usize) -> Vec<Slice> {
        let block = self.blocks[block];
        let mut slices = vec![];
        for tile in 0..self.tiles(&block) {
            let rows = self.tile_rows(&block, tile) * self.shape.mode.rows();
            for span in 0..self.tile.spans {
                for row in (0..rows).step_by(self.rings.slice_rows) {
                    let take = self.rings.slice_rows.min(rows - row);
                    let (is_first, is_last) = (row == 0, row + take == rows);
                    slices.push(Slice { tile, span, row, rows: take, is_first, is_last });
                }
            }
        }
        slices
    }

    /// How many slices a block's sums are.
    pub(super) fn count(&self, block: &Block) -> usize {
        let rows = |tile| (self.tile_rows(block, tile) * self.shape.mode.rows()).div_ceil(self.rings.slice_rows);
        (0..self.tiles(block)).map(rows).sum::<usize>() * self.tile.spans
    }

    /// Loads act_scale of the block's rows, divides out the unit of the sums, and spreads each over a block.
    pub(super) fn load_act_scale(&mut self, block: &Block) {
        let (raw, to) = (self.at.act_raw, self.at.act(block.parity));
        self.e.wait(Queue::V, Queue::Mte2, flag::TABLES);
        self.e.load(raw, flag::behind(regs::ACT, 4 * block.first_m), 1, 4 * block.m, 0, 0);
        self.e.set(Queue::Mte2, Queue::V, flag::TABLES);
        self.e.wait(Queue::Mte2, Queue::V, flag::TABLES);
        self.e.each(VecOp::Mul, F32, raw, raw, Second::f32(1.0 / self.shape.mode.unit()), block.m);
        let blocks = self.at.act_blocks;
        (0..blocks).for_each(|b| self.e.spread_every(to + 32 * b, raw, block.m, blocks));
        self.e.set(Queue::V, Queue::Mte2, flag::TABLES);
    }

    /// Registers of the previous panel's operands.
    pub(super) fn previous_addresses(&mut self, block: usize) {
        let b = self.blocks[block];
        // Rows of the block in `[m, n]`: bounded by the size of the array.
        let rows = (b.first_m * self.shape.n * 4) as i64;
        let mut to = |reg: Reg, base: Reg, offset: i64| {
            self.e.add(reg, base, offset);
            self.e.push(Control::Scalar {
                op: crate::isa::matrix::program::inst::ScalarOp::Add,
                reg,
                a: reg,
                b: crate::isa::matrix::program::inst::ScalarOperand::Reg(regs::PREVIOUS_COLUMN),
            });
        };
        to(regs::PREVIOUS_OUT, if b.ends { regs::OUT } else { regs::SUMS }, rows);
        if b.adds {
            to(regs::PREVIOUS_SUMS, regs::SUMS, rows);
        }
        if b.ends && self.shape.residual {
            to(regs::PREVIOUS_RESIDUAL, regs::RESIDUAL, rows);
        }
        if b.ends && self.scale == ScaleKind::PerRow {
            to(regs::PREVIOUS_SCALE, regs::SCALE, 0);
        }
        if b.ends && self.operands.bias {
            to(regs::PREVIOUS_BIAS, regs::BIAS, 0);
        }
    }

    /// True if the block's epilogue reads something per column.
    fn reads_columns(&self, block: &Block) -> bool {
        block.ends && (self.scale == ScaleKind::PerRow || self.operands.bias || self.shape.mode == Mode::I4)
    }

    /// Loads what the previous panel's epilogue reads per column.
    pub(super) fn load_columns(&mut self, block: usize) {
        let block = self.blocks[block];
        if !self.reads_columns(&block) {
            return;
        }
        let bytes = 4 * self.columns();
        self.e.wait(Queue::V, Queue::Mte2, flag::TABLES);
        if self.scale == ScaleKind::PerRow {
            self.e.load(self.at.column_scale, flag::behind(regs::PREVIOUS_SCALE, 0), 1, bytes, 0, 0);
        }
        if self.operands.bias {
            self.e.load(self.at.column_bias, flag::behind(regs::PREVIOUS_BIAS, 0), 1, bytes, 0, 0);
        }
        if self.shape.mode == Mode::I4 {
            let behind = self.shape.panel.codes_bytes(self.shape.k);
            self.e.load(self.at.column_sums, flag::behind(regs::PREVIOUS_W, behind), 1, bytes, 0, 0);
        }
        self.e.set(Queue::Mte2, Queue::V, flag::TABLES);
    }

    /// Valid columns of a span of the panel being finished.
    fn span_columns(&self, span: usize) -> usize {
        let columns = self.tile.columns(&self.shape);
        self.columns().saturating_sub(span * columns).min(columns)
    }

    /// Valid columns of the panel being finished.
    fn columns(&self) -> usize {
        let (n, nr) = (self.shape.n, self.shape.panel.nr);
        if self.previous_is_last { n - (n - 1) / nr * nr } else { nr }
    }

    /// Finishes slices `range` of the previous panel, whose block is `block`.
    pub(super) fn finish(&mut self, block: usize, range: Range<usize>) {
        let slices = self.slices(block);
        let range = range.start.min(slices.len())..range.end.min(slices.len());
        for index in range {
            let b = self.blocks[block];
            if index == 0 && self.reads_columns(&b) {
                self.e.wait(Queue::Mte2, Queue::V, flag::TABLES);
            }
            if index == 0 && b.adds {
                // The sums of the cut before have been stored.
                self.e.set(Queue::Mte3, Queue::Mte2, flag::START);
                self.e.wait(Queue::Mte3, Queue::Mte2, flag::START);
            }
            let taken = self.finished(index, slices.len());
            self.finish_slice(&b, slices[taken], taken);
            // Further slices leave L0C while the vector unit works on those before.
            if let Some(next) = slices.get(index + self.slots()).filter(|_| self.rings.lent == 0) {
                self.take_sums(&b, *next, index + self.slots());
            }
            if index + 1 == slices.len() && self.reads_columns(&b) {
                self.e.set(Queue::V, Queue::Mte2, flag::TABLES);
            }
        }
    }

    /// Slices that UB holds.
    fn slots(&self) -> usize {
        self.rings.slices + self.rings.lent
    }

    /// Slot and place in UB of slice `index` of a block.
    fn slice_slot(&self, block: &Block, index: usize) -> (usize, usize) {
        let slices = self.count(block);
        if let Some(lent) = index.checked_sub(self.rings.slices).filter(|lent| *lent < self.lent(slices)) {
            return (index, self.at.unpacked(self.lent_slot(lent, slices)));
        }
        let slot = (index + self.shift) % self.rings.slices;
        (slot, self.at.slice(slot))
    }

    /// The slice that is finished as number `position` of `slices`: those that lie in the place of unpacked parts come
    /// behind the first one.
    fn finished(&self, position: usize, slices: usize) -> usize {
        let lent = self.lent(slices);
        match position {
            0 => 0,
            early if early <= lent => slices - lent + early - 1,
            late => late - lent,
        }
    }

    /// Takes the first slices of a panel's sums out of L0C, as soon as the cube is through with them; `next` is the block
    /// of the panel behind it. Panels start over with the slots, but that a block's last one goes on in those that are
    /// free.
    pub(super) fn take_first(&mut self, block: usize, is_last: bool, next: Option<usize>) {
        let (slices, b) = (self.slices(block), self.blocks[block]);
        self.lender = next;
        self.shift = if is_last && self.rings.lent == 0 { slices.len() % self.rings.slices } else { 0 };
        for (index, slice) in slices.iter().enumerate().take(self.slots()) {
            self.take_sums(&b, *slice, index);
        }
    }

    fn finish_slice(&mut self, block: &Block, slice: Slice, index: usize) {
        let (slot, at) = self.slice_slot(block, index);
        let id = flag::slot(flag::SLICE, slot);
        let (mode, width) = (self.shape.mode, self.tile.columns(&self.shape));
        let columns = self.span_columns(slice.span);
        let tokens = slice.rows / mode.rows();
        let token = slice.tile * self.tile.tile_m + slice.row / mode.rows();
        let offset = 4 * (token * self.shape.n + slice.span * width);
        let mut added = self.begin_rows(block, (offset, tokens, columns));
        self.e.wait(Queue::Fix, Queue::V, id);
        let is_dense = mode.rows() == 1 && columns == width && !self.reads_columns(block);
        // One repeat after the other through all rows, or a row per repeat.
        let groups = if is_dense { 1 } else { columns.div_ceil(LANES) };
        let per_token = if is_dense { width / LANES } else { 1 };
        let step = if is_dense { 8 } else { width / 8 };
        let walk = |group: usize| {
            let lanes = (columns - group * LANES).min(LANES);
            Walk { at, first: group * LANES, per_token, lanes, step }
        };
        let walks: Vec<Walk> = (0..groups).map(walk).collect();
        self.arithmetic(block, slice, &walks, (token, tokens), (offset, columns), &mut added);
        let stored = flag::slot(flag::UNPACKED, self.rings.unpacked + slot);
        self.e.set(Queue::V, Queue::Mte3, stored);
        self.e.wait(Queue::V, Queue::Mte3, stored);
        if columns > 0 {
            let to = flag::behind(regs::PREVIOUS_OUT, offset);
            self.e.store(to, at, tokens, 4 * columns, mode.rows() * width * 4, 4 * self.shape.n);
        }
        if slot < self.rings.slices {
            self.e.set(Queue::Mte3, Queue::Fix, id);
        } else if self.lender.is_some() {
            let lent = self.lent_slot(slot - self.rings.slices, self.count(block));
            self.e.set(Queue::Mte3, Queue::V, flag::slot(flag::UNPACKED, lent));
        }
    }

    /// Takes a slice out of L0C.
    fn take_sums(&mut self, block: &Block, slice: Slice, index: usize) {
        let (slot, at) = self.slice_slot(block, index);
        let (id, width) = (flag::slot(flag::SLICE, slot), self.tile.columns(&self.shape));
        let tile_rows = (self.tile_rows(block, slice.tile) * self.shape.mode.rows()).max(2);
        // Rows of fractals of 16 · 16 · 4 bytes.
        let column = tile_rows.next_multiple_of(16) * 64;
        if slice.is_first {
            let flag = self.c_flag(slice.tile, slice.span, regs::PREVIOUS_C_FLAG);
            self.e.push(Order::Wait { src: Queue::M, dst: Queue::Fix, id: flag });
        }
        self.e.wait(Queue::Mte3, Queue::Fix, id);
        self.e.push(Work::Fix(Fix {
            path: FixPath::Ub,
            dst: flag::at(at),
            src: flag::behind(regs::PREVIOUS_C, self.c_offset(block, slice.tile, slice.span) + slice.row * 64),
            // Rows and columns of a tile: at most 4095.
            m: slice.rows as u16,
            n: width as u16,
            from: ElemType::S32,
            src_stride: column as u32,
            dst_stride: (width * 4) as u32,
            quant: Quant::Keep,
            scale: FixScale::Tile(1.0),
            relu: false,
            layout: FixLayout::RowMajor,
            unit_flag: UnitFlag::Off,
        }));
        if slice.is_last {
            let flag = self.c_flag(slice.tile, slice.span, regs::PREVIOUS_C_FLAG);
            self.e.push(Order::Set { src: Queue::Fix, dst: Queue::M, id: flag });
        }
        self.e.set(Queue::Fix, Queue::V, id);
    }

    /// Begins to load what is added to a slice of `tokens` rows of `columns`, at `offset` in its arrays `[m, n]`.
    fn begin_rows(&mut self, block: &Block, (offset, tokens, columns): (usize, usize, usize)) -> Added {
        let sums = block.adds.then_some(regs::PREVIOUS_SUMS);
        let residual = (block.ends && self.shape.residual).then_some(regs::PREVIOUS_RESIDUAL);
        let mut added = Added::default();
        for base in [sums, residual].into_iter().flatten().filter(|_| columns > 0) {
            added.left.extend(self.row_parts(tokens).map(|part| (base, part)));
        }
        (0..self.rings.residual).for_each(|_| self.load_rows(&mut added, offset, columns));
        added
    }

    /// The rows of a slice that one slot holds, after each other.
    fn row_parts(&self, tokens: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let most = self.rings.residual_tokens;
        (0..tokens).step_by(most).map(move |first| first..tokens.min(first + most))
    }

    /// Loads the next rows into a slot of the residual's ring.
    fn load_rows(&mut self, added: &mut Added, offset: usize, columns: usize) {
        let Some((base, part)) = added.left.pop_front() else { return };
        let slot = self.loaded % self.rings.residual;
        self.loaded += 1;
        added.loaded.push_back(slot);
        let (id, to) = (flag::slot(flag::RESIDUAL, slot), self.at.residual(slot));
        let (from, width) = (4 * self.shape.n, self.tile.columns(&self.shape));
        self.e.wait(Queue::V, Queue::Mte2, id);
        self.e.load(to, flag::behind(base, offset + part.start * from), part.len(), 4 * columns, from, 4 * width);
        self.e.set(Queue::Mte2, Queue::V, id);
    }

    /// Adds the rows that are loaded next, and loads others in their place.
    fn add_rows(
        &mut self,
        types: Types,
        walks: &[Walk],
        (offset, tokens, columns): (usize, usize, usize),
        added: &mut Added,
    ) {
        let (rows, row_bytes) = (self.shape.mode.rows(), 4 * self.tile.columns(&self.shape));
        for part in self.row_parts(tokens).filter(|_| columns > 0) {
            let slot = added.loaded.pop_front().expect("as many loads as parts");
            let id = flag::slot(flag::RESIDUAL, slot);
            self.e.wait(Queue::Mte2, Queue::V, id);
            for w in walks {
                let y = strided(w.at + part.start * rows * row_bytes + 4 * w.first, 1, rows * w.step);
                let b = Second::Vector(strided(self.at.residual(slot) + 4 * w.first, 1, w.step));
                self.e.vec(VecOp::Add, types, y, y, b, part.len() * w.per_token, w.lanes);
            }
            self.e.set(Queue::V, Queue::Mte2, id);
            self.load_rows(added, offset, columns);
        }
    }

    /// The arithmetic on a slice, whose `tokens` begin at `token`, as `walks` go over it.
    fn arithmetic(
        &mut self,
        block: &Block,
        slice: Slice,
        walks: &[Walk],
        (token, tokens): (usize, usize),
        (offset, columns): (usize, usize),
        added: &mut Added,
    ) {
        let width = self.tile.columns(&self.shape);
        let (rows, row, span) = (self.shape.mode.rows(), width / 8, 4 * width * slice.span);
        let y = |w: &Walk| strided(w.at + 4 * w.first, 1, rows * w.step);
        let each = |e: &mut Emit, op, types, b: &dyn Fn(&Walk) -> Second| {
            walks.iter().for_each(|w| e.vec(op, types, y(w), y(w), b(w), tokens * w.per_token, w.lanes));
        };
        let per_column = |at: usize| move |w: &Walk| Second::Vector(strided(at + span + 4 * w.first, 1, 0));
        // Each token's scale fills a block for each repeat of its row.
        let blocks = self.at.act_blocks;
        let act = self.at.act(block.parity) + 32 * blocks * token;
        if rows == 2 {
            each(self.e, VecOp::Shl, S32, &|_| Second::Bits(4));
            each(self.e, VecOp::Add, S32, &|w| Second::Vector(y(w).plus(32 * row)));
        }
        if block.adds {
            self.add_rows(S32, walks, (offset, tokens, columns), added);
        }
        if !block.ends {
            return;
        }
        if rows == 2 {
            each(self.e, VecOp::Add, S32, &per_column(self.at.column_sums));
        }
        each(self.e, VecOp::Cast, (ElemType::F32, ElemType::S32), &|_| Second::None);
        each(self.e, VecOp::Mul, F32, &|w| Second::Vector(strided(act, 0, blocks * w.step / row)));
        match self.scale {
            ScaleKind::PerTensor => each(self.e, VecOp::Mul, F32, &|_| Second::Reg(regs::SCALE_BITS)),
            ScaleKind::PerRow => each(self.e, VecOp::Mul, F32, &per_column(self.at.column_scale)),
            ScaleKind::PerGroup { .. } => unreachable!("grouped products run on the vector unit"),
        }
        if self.operands.bias {
            each(self.e, VecOp::Add, F32, &per_column(self.at.column_bias));
        }
        if self.shape.residual {
            self.add_rows(F32, walks, (offset, tokens, columns), added);
        }
    }
}
