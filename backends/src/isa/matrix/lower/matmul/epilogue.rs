//! From sums to results: slices of rows leave L0C, the vector unit scales them, and they go to global memory.
//!
//! A slice is row-major, `nr` columns wide. With two rows per token, high and low ones alternate; results stand in the
//! places of the high rows. Where k is cut, all but the last cut store their sums as they are, and the next one adds them.

use std::ops::Range;

use tcc_ir::kernel::ScaleKind;

use super::coupled::Gen;
use super::{Block, flag, regs};
use crate::isa::matrix::lower::emit::{F32, S32, Second, Strided, strided};
use crate::isa::matrix::program::addr::{Addr, Queue, Reg};
use crate::isa::matrix::program::inst::{Control, Fix, FixLayout, FixPath, FixScale, Order, Quant, UnitFlag, Work};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::VecOp;

/// Rows of one accumulator tile that are finished together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    pub tile: usize,
    /// First row of the cube within the tile, and rows.
    pub row: usize,
    pub rows: usize,
    pub is_first: bool,
    pub is_last: bool,
}

/// How the arithmetic on a slice goes over it: from column `first` of `token` on, the slice being at `at`, with `step`
/// blocks between the repeats of each row of the cube.
#[derive(Clone, Copy, Debug)]
struct Walk {
    at: usize,
    token: usize,
    first: usize,
    repeats: usize,
    lanes: usize,
    step: usize,
}

/// Lanes of 32 bits in a repeat.
const LANES: usize = 64;

impl Gen<'_> {
    /// The slices of a block's accumulators.
    pub(super) fn slices(&self, block: usize) -> Vec<Slice> {
        let block = self.blocks[block];
        let mut slices = vec![];
        for tile in 0..self.tiles(&block) {
            let rows = self.tile_rows(&block, tile) * self.shape.mode().rows();
            for row in (0..rows).step_by(self.rings.slice_rows) {
                let take = self.rings.slice_rows.min(rows - row);
                let (is_first, is_last) = (row == 0, row + take == rows);
                slices.push(Slice { tile, row, rows: take, is_first, is_last });
            }
        }
        slices
    }

    /// Loads act_scale of the block's rows, divides out the unit of the sums, and spreads each over a block.
    pub(super) fn load_act_scale(&mut self, block: &Block) {
        let (raw, to) = (self.at.act_raw, self.at.act(block.parity));
        self.e.wait(Queue::V, Queue::Mte2, flag::TABLES);
        self.e.load(raw, flag::behind(regs::ACT, 4 * block.first_m), 1, 4 * block.m, 0, 0);
        self.e.set(Queue::Mte2, Queue::V, flag::TABLES);
        self.e.wait(Queue::Mte2, Queue::V, flag::TABLES);
        self.e.each(VecOp::Mul, F32, raw, raw, Second::f32(1.0 / self.shape.mode().unit()), block.m);
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
        block.ends && (self.scale == ScaleKind::PerRow || self.operands.bias || self.shape.panel.sums_bytes() > 0)
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
        if self.shape.panel.sums_bytes() > 0 {
            let behind = self.shape.panel.codes_bytes(self.shape.k);
            self.e.load(self.at.column_sums, flag::behind(regs::PREVIOUS_W, behind), 1, bytes, 0, 0);
        }
        self.e.set(Queue::Mte2, Queue::V, flag::TABLES);
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
            // The next slice leaves L0C while the vector unit works on this one.
            if index == 0 {
                self.take_sums(&b, slices[0]);
            }
            if let Some(next) = slices.get(index + 1) {
                self.take_sums(&b, *next);
            }
            self.finish_slice(&b, slices[index]);
            if index + 1 == slices.len() && self.reads_columns(&b) {
                self.e.set(Queue::V, Queue::Mte2, flag::TABLES);
            }
        }
    }

    fn finish_slice(&mut self, block: &Block, slice: Slice) {
        let slot = self.slice % self.rings.slices;
        self.slice += 1;
        let (id, at) = (flag::slot(flag::SLICE, slot), self.at.slice(slot));
        let tokens = slice.rows / self.shape.mode().rows();
        let token = slice.tile * self.tile.tile_m + slice.row / self.shape.mode().rows();
        let row_offset = token * self.shape.n * 4;
        let added = block.adds.then(|| self.load_rows(regs::PREVIOUS_SUMS, row_offset, tokens));
        let reads_residual = block.ends && self.shape.residual;
        let residual = reads_residual.then(|| self.load_rows(regs::PREVIOUS_RESIDUAL, row_offset, tokens));
        self.e.wait(Queue::Fix, Queue::V, id);
        for ring in [added, residual].into_iter().flatten() {
            self.e.wait(Queue::Mte2, Queue::V, flag::slot(flag::RESIDUAL, ring));
        }
        let columns = self.columns();
        let is_dense = self.shape.mode().rows() == 1 && columns == self.shape.panel.nr && !self.reads_columns(block);
        // One repeat after the other through all rows, or a row per repeat.
        let groups = if is_dense { 1 } else { columns.div_ceil(LANES) };
        for group in 0..groups {
            let lanes = (columns - group * LANES).min(LANES);
            let step = if is_dense { 8 } else { self.shape.panel.nr / 8 };
            let repeats = if is_dense { tokens * columns / LANES } else { tokens };
            let walk = Walk { at, token, first: group * LANES, repeats, lanes, step };
            self.arithmetic(block, walk, added, residual);
        }
        for ring in [added, residual].into_iter().flatten() {
            self.e.set(Queue::V, Queue::Mte2, flag::slot(flag::RESIDUAL, ring));
        }
        let stored = flag::slot(flag::STORED, slot);
        self.e.set(Queue::V, Queue::Mte3, stored);
        self.e.wait(Queue::V, Queue::Mte3, stored);
        let from = self.shape.mode().rows() * self.shape.panel.nr * 4;
        let to = flag::behind(regs::PREVIOUS_OUT, row_offset);
        self.e.store(to, at, tokens, 4 * self.columns(), from, 4 * self.shape.n);
        self.e.set(Queue::Mte3, Queue::Fix, id);
    }

    /// Takes a slice out of L0C.
    fn take_sums(&mut self, block: &Block, slice: Slice) {
        let slot = self.taken % self.rings.slices;
        self.taken += 1;
        let (id, at) = (flag::slot(flag::SLICE, slot), self.at.slice(slot));
        let tile_rows = (self.tile_rows(block, slice.tile) * self.shape.mode().rows()).max(2);
        // Rows of fractals of 16 · 16 · 4 bytes.
        let column = tile_rows.next_multiple_of(16) * 64;
        if slice.is_first {
            let flag = self.c_flag(slice.tile, regs::PREVIOUS_C_FLAG);
            self.e.push(Order::Wait { src: Queue::M, dst: Queue::Fix, id: flag });
        }
        self.e.wait(Queue::Mte3, Queue::Fix, id);
        self.e.push(Work::Fix(Fix {
            path: FixPath::Ub,
            dst: flag::at(at),
            src: flag::behind(regs::PREVIOUS_C, slice.tile * self.at.c_tile() + slice.row * 64),
            // Rows and columns of a tile: at most 4095.
            m: slice.rows as u16,
            n: self.shape.panel.nr as u16,
            from: ElemType::S32,
            src_stride: column as u32,
            dst_stride: (self.shape.panel.nr * 4) as u32,
            quant: Quant::Keep,
            scale: FixScale::Tile(1.0),
            relu: false,
            layout: FixLayout::RowMajor,
            unit_flag: UnitFlag::Off,
        }));
        if slice.is_last {
            let flag = self.c_flag(slice.tile, regs::PREVIOUS_C_FLAG);
            self.e.push(Order::Set { src: Queue::Fix, dst: Queue::M, id: flag });
        }
        self.e.set(Queue::Fix, Queue::V, id);
    }

    /// Loads rows of an array `[m, n]` into a slot of the residual's ring, which it returns.
    fn load_rows(&mut self, base: Reg, offset: usize, rows: usize) -> usize {
        let slot = self.loaded % self.rings.residual;
        self.loaded += 1;
        let (id, to) = (flag::slot(flag::RESIDUAL, slot), self.at.residual(slot));
        self.e.wait(Queue::V, Queue::Mte2, id);
        let (from, row) = (4 * self.shape.n, 4 * self.columns());
        self.e.load(to, flag::behind(base, offset), rows, row, from, 4 * self.shape.panel.nr);
        self.e.set(Queue::Mte2, Queue::V, id);
        slot
    }

    /// The arithmetic on a slice, as `walk` goes over it.
    fn arithmetic(&mut self, block: &Block, walk: Walk, added: Option<usize>, residual: Option<usize>) {
        let Walk { at, token, first, repeats, lanes, step } = walk;
        let (rows, row) = (self.shape.mode().rows(), self.shape.panel.nr / 8);
        let y = strided(at + 4 * first, 1, rows * step);
        let mut op = |op, types, b: Second| self.e.vec(op, types, y, y, b, repeats, lanes);
        let per_row = |offset: usize| Second::Vector(strided(offset + 4 * first, 1, step));
        let per_column = |offset: usize| Second::Vector(strided(offset + 4 * first, 1, 0));
        // Each token's scale fills a block for each repeat of its row.
        let blocks = self.at.act_blocks;
        let act = strided(self.at.act(block.parity) + 32 * blocks * token, 0, blocks * step / row);
        if rows == 2 {
            op(VecOp::Shl, S32, Second::Bits(4));
            op(VecOp::Add, S32, Second::Vector(Strided { at: offset(y.at, 4 * 8 * row), ..y }));
        }
        if let Some(slot) = added {
            op(VecOp::Add, S32, per_row(self.at.residual(slot)));
        }
        if !block.ends {
            return;
        }
        if rows == 2 {
            op(VecOp::Add, S32, per_column(self.at.column_sums));
        }
        op(VecOp::Cast, (ElemType::F32, ElemType::S32), Second::None);
        op(VecOp::Mul, F32, Second::Vector(act));
        match self.scale {
            ScaleKind::PerTensor => op(VecOp::Mul, F32, Second::Reg(regs::SCALE_BITS)),
            ScaleKind::PerRow => op(VecOp::Mul, F32, per_column(self.at.column_scale)),
            ScaleKind::PerGroup { .. } => unreachable!("grouped products run on the vector unit"),
        }
        if self.operands.bias {
            op(VecOp::Add, F32, per_column(self.at.column_bias));
        }
        if let Some(slot) = residual {
            op(VecOp::Add, F32, per_row(self.at.residual(slot)));
        }
    }
}

fn offset(at: Addr, by: usize) -> Addr {
    // Within UB.
    Addr { offset: at.offset + by as i32, ..at }
}
