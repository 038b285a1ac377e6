//! From L1 to the cube: weights go to L0B and activations to L0A step by step, and products follow them.
//!
//! Where the sums of a panel leave in two spans of columns, the first step and the last one of a panel are two products:
//! the one span leaves while the other one is finished, and the next panel begins in the one while the other one leaves.

use super::coupled::{Gen, Place};
use super::{Block, flag, regs};
use crate::isa::matrix::program::addr::{Addr, Queue};
use crate::isa::matrix::program::inst::{LoadL0, Mmad, MmadInit, Order, Side, UnitFlag, Work};

impl Gen<'_> {
    /// The products of the units that part `part` of a group completed.
    pub(super) fn multiply(&mut self, place: &Place, group: &[(usize, usize)], part: usize) {
        let parts = self.tile.parts_per_unit(&self.shape);
        if !(part + 1).is_multiple_of(parts) {
            return;
        }
        for panel in group {
            let part_columns = self.shape.part(panel.1);
            self.multiply_unit(place, *panel, ((part + 1 - parts) * part_columns, parts * part_columns));
        }
    }

    /// The products of a unit of weights of `unit_columns` from `begin` of a panel on, step by step.
    fn multiply_unit(
        &mut self,
        place: &Place,
        (first, columns): (usize, usize),
        (begin, unit_columns): (usize, usize),
    ) {
        let block = self.blocks[place.block];
        let run = self.shape.run(columns);
        let slot = self.unit % self.rings.b;
        self.unit += 1;
        self.e.wait(Queue::Mte3, Queue::Mte1, flag::slot(flag::B, slot));
        for step in (0..unit_columns).step_by(self.tile.kb) {
            let step_columns = self.tile.kb.min(unit_columns - step);
            let from = first - block.first_k + begin + step;
            let spans = self.spans(&block, from, step_columns);
            self.load_b(slot, (step, step_columns), spans);
            if step + step_columns == unit_columns {
                self.e.set(Queue::Mte1, Queue::Mte3, flag::slot(flag::B, slot));
            }
            let mut within = 0;
            while within < step_columns {
                let of_panel = begin + step + within;
                // A short panel has short runs.
                let step_k = self.tile.kc.min(step_columns - within).min(run - of_panel % run);
                let column = from + within;
                let strip = self.shape.strip(column, (of_panel, columns));
                if place.first && column.is_multiple_of(self.at.segment) {
                    let segment = self.segment_slot(place.block, column / self.at.segment);
                    self.e.wait(Queue::Mte2, Queue::Mte1, flag::slot(flag::A, segment));
                }
                for tile in 0..self.tiles(&block) {
                    self.load_a(place, tile, (column, step_k), strip);
                    self.product(&block, tile, (column, step_k), (within, step_columns), spans);
                }
                within += step_k;
            }
            self.e.set(Queue::M, Queue::Mte1, flag::slot(flag::L0B, self.step_b % 2));
            self.step_b += 1;
        }
    }

    /// Spans that a step goes through one by one: the first step, whose sums may be taken by then in part only, and the
    /// last one, whose sums leave.
    fn spans(&self, block: &Block, column: usize, columns: usize) -> usize {
        if column == 0 || column + columns == block.columns { self.tile.spans } else { 1 }
    }

    /// Weights of a step (first column of the unit, columns) into L0B, each of `spans` spans by itself.
    fn load_b(&mut self, slot: usize, (step, columns): (usize, usize), spans: usize) {
        let (mode, nr) = (self.shape.mode, self.shape.panel.nr);
        let to = self.step_b % 2;
        self.e.wait(Queue::M, Queue::Mte1, flag::slot(flag::L0B, to));
        for span in 0..spans {
            let (rows, strips) = (nr / spans, columns / mode.strip());
            self.e.push(Work::LoadL0(LoadL0 {
                side: Side::B,
                dst: flag::at(self.at.b_step(to) + span * rows * mode.row_bytes(columns)),
                src: flag::at(self.at.b(slot) + (step / mode.strip() * nr + span * rows) * 32),
                // Sizes of L0: below 65536 fractals.
                rows: (rows / 16) as u16,
                cols: strips as u16,
                src_stride: (nr * 32) as u32,
                transpose: false,
            }));
        }
    }

    /// Activations of one tile and step, which begin at `strip` of the block, into L0A, unless they stay there; then the
    /// flag that both operands lie there.
    fn load_a(&mut self, place: &Place, tile: usize, columns: (usize, usize), strip: usize) {
        if self.tile.a_stays {
            if place.first {
                self.e.push(Work::LoadL0(self.a_fractals(place.block, tile, columns, strip)));
            }
            self.e.set(Queue::Mte1, Queue::M, flag::slot(flag::L0B, self.step_b % 2));
            return;
        }
        let slot = self.step_a % 2;
        self.e.wait(Queue::M, Queue::Mte1, flag::slot(flag::L0A, slot));
        self.e.push(Work::LoadL0(self.a_fractals(place.block, tile, columns, strip)));
        self.e.set(Queue::Mte1, Queue::M, flag::slot(flag::L0A, slot));
    }

    fn a_fractals(&self, index: usize, tile: usize, (column, columns): (usize, usize), strip: usize) -> LoadL0 {
        let (mode, block) = (self.shape.mode, self.blocks[index]);
        let rows = (block.m * mode.rows()).next_multiple_of(16);
        let strips = self.at.segment / mode.strip();
        let (segment, within) = (strip / strips, strip % strips);
        let src =
            self.at.a(self.segment_slot(index, segment)) + (within * rows + tile * self.tile.tile_m * mode.rows()) * 32;
        LoadL0 {
            side: Side::A,
            dst: self.a_address(column),
            src: flag::at(src),
            rows: (self.tile_rows(&block, tile) * mode.rows()).div_ceil(16) as u16,
            cols: (columns / mode.strip()) as u16,
            src_stride: (self.shape.strip_step() * rows * 32) as u32,
            transpose: false,
        }
    }

    /// Where the step at `column` has its activations in L0A.
    fn a_address(&self, column: usize) -> Addr {
        let mode = self.shape.mode;
        let rows = (self.tile.tile_m * mode.rows()).next_multiple_of(16);
        if self.tile.a_stays {
            flag::at(rows * mode.row_bytes(column))
        } else {
            flag::at(self.at.a_step(self.step_a % 2))
        }
    }

    /// The product of a tile with `columns` columns from `column` of the block on, which begin at `within` of what lies
    /// in L0B; span by span where the weights were loaded so.
    fn product(
        &mut self,
        block: &Block,
        tile: usize,
        (column, columns): (usize, usize),
        (within, loaded): (usize, usize),
        spans: usize,
    ) {
        let mode = self.shape.mode;
        let (ring, slot) = if self.tile.a_stays { (flag::L0B, self.step_b % 2) } else { (flag::L0A, self.step_a % 2) };
        let rows = self.tile_rows(block, tile) * mode.rows();
        for span in 0..spans {
            let id = self.c_flag(tile, span, regs::C_FLAG);
            if column == 0 {
                self.e.push(Order::Wait { src: Queue::Fix, dst: Queue::M, id });
            }
            if span == 0 {
                self.e.wait(Queue::Mte1, Queue::M, flag::slot(ring, slot));
            }
            let n = self.shape.panel.nr / spans;
            self.e.push(Work::Mmad(Mmad {
                ty: mode.cube(),
                c: flag::behind(regs::C, self.c_offset(block, tile, span)),
                a: self.a_address(column),
                b: flag::at(
                    self.at.b_step(self.step_b % 2) + n * (span * mode.row_bytes(loaded) + mode.row_bytes(within)),
                ),
                // One row would switch the cube to its vector mode; the second one's sums are not read.
                m: rows.max(2) as u16,
                k: columns as u16,
                n: n as u16,
                init: if column == 0 { MmadInit::Zero } else { MmadInit::Accumulate },
                unit_flag: UnitFlag::Off,
            }));
            // As few as one span has: a product of one may follow.
            if rows.div_ceil(16) * (self.tile.columns(&self.shape) / 16) < self.bar_m_below {
                self.e.bar(Some(Queue::M));
            }
            if column + columns == block.columns {
                self.e.push(Order::Set { src: Queue::M, dst: Queue::Fix, id });
            }
        }
        if !self.tile.a_stays {
            self.e.set(Queue::M, Queue::Mte1, flag::slot(flag::L0A, slot));
            self.step_a += 1;
        }
    }
}
