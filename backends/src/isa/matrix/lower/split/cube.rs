//! The cube core of a group: activations of a block stay in L1 or pass through it, unpacked weights stream through L1
//! and L0B.
//!
//! Every memory between two pipes is a ring of two slots with a forward and a reverse flag; L0C may have room for one tile's
//! sums only. Rings of L0 start over with every tile, so that the loop over tiles has one body; weights and accumulators
//! alternate by registers.
//!
//! A later block's activations, if they stay, are loaded run by run, each with the weights that its first tile needs it for.
//! Invariant: what is overwritten then was read, for the run's slot is free: the last tile's loads are through with
//! that run. The checker sees it. Where weights come straight from vector cores, the slots' flags go round all the
//! same.

use super::{DONE, FREE, GO, NR, Part, Plan, READ, SLOTS, SUMS_IN_UB, Via, all_rows, row_bytes};
use crate::isa::matrix::lower::cores::reg;
use crate::isa::matrix::lower::emit::Emit;
use crate::isa::matrix::lower::model::memories;
use crate::isa::matrix::lower::vector::behind;
use crate::isa::matrix::lower::vector::ternary::PANEL;
use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::StartValues;
use crate::isa::matrix::program::addr::{Addr, Queue, Reg};
use crate::isa::matrix::program::inst::{
    CopyPath, Count, Fix, FixLayout, FixPath, FixScale, FlagId, LoadL0, Mmad, MmadInit, Order, Quant, ScalarOp,
    ScalarOperand, Side, UnitFlag, Work,
};
use crate::isa::matrix::program::ty::{CubeType, ElemType};

// The group's first panel of a block, its whole tiles, the panels behind them, and 1 if the ragged one follows.
const FIRST: Reg = reg(1);
const WHOLE: Reg = reg(2);
const RAGGED: Reg = reg(3);
// Unpacked weights and sums of the tile at hand, offset and flag of its accumulators.
const W: Reg = reg(4);
const SUMS: Reg = reg(5);
const C: Reg = reg(6);
const C_FLAG: Reg = reg(7);
const Q: Reg = reg(8);
const AT: Reg = reg(9);
// 1 while the block's first tile runs; number and offset of the slot of weights at hand.
const IS_FIRST: Reg = reg(10);
const B_SLOT: Reg = reg(11);
const B_AT: Reg = reg(12);
// The group's share, and the group.
const SHARE: [Reg; 2] = [reg(13), reg(14)];
const GROUP: Reg = reg(15);
const SINGLE: Reg = reg(16);

// Flags: MTE2 and MTE1, M and MTE1, M and FIX.
const B: u8 = 0;
const L0A: u8 = 0;
const L0B: u8 = 2;
const ACCUMULATORS: u8 = 0;

/// Steps of a tile through L0A and L0B, and its sums in L0C.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    /// Columns of a step through L0B, and through L0A.
    kb: usize,
    kc: usize,
    /// Bytes of a slot of each.
    l0a_slot: usize,
    l0b_slot: usize,
    c_slot: usize,
    /// Slots of accumulators.
    pub accumulators: usize,
}

impl Steps {
    /// `None` if the tile does not fit.
    pub fn of(machine: &Machine, plan: &Plan) -> Option<Steps> {
        let mem = memories(machine);
        let rows = plan.padded_rows();
        let longest =
            |room: usize, row: usize| [512, 256, 128].into_iter().find(|k| row * row_bytes(*k) <= room / SLOTS);
        let kb = longest(mem.l0b, plan.columns())?;
        let kc = longest(mem.l0a, rows)?.min(kb);
        let c_slot = rows * plan.columns() * 4;
        let accumulators = (mem.l0c / c_slot).min(SLOTS);
        let fits = plan.slots() >= plan.runs().len().min(SLOTS) && accumulators > 0 && rows <= 4080;
        let (l0a_slot, l0b_slot) = (rows * row_bytes(kc), plan.columns() * row_bytes(kb));
        fits.then_some(Steps { kb, kc, l0a_slot, l0b_slot, c_slot, accumulators })
    }
}

struct Gen<'a> {
    e: &'a mut Emit,
    plan: &'a Plan,
    steps: Steps,
    bar_m_below: u32,
}

/// Writes the stream.
pub(super) fn emit(e: &mut Emit, machine: &Machine, plan: &Plan, steps: Steps) -> Vec<StartValues> {
    Gen { e, plan, steps, bar_m_below: machine.quirk.bar_m_below }.run();
    // Tiles of one product: far below 2^63.
    let of = |f: &dyn Fn(usize) -> usize| (0..plan.groups).map(|group| f(group) as i64).collect();
    let share = SHARE.into_iter().enumerate();
    let mut start: Vec<StartValues> =
        share.map(|(next, reg)| StartValues { reg, values: of(&|group| plan.first(group + next)) }).collect();
    start.push(StartValues { reg: GROUP, values: of(&|group| group) });
    start
}

/// Flag of a ring's slot.
fn slot(base: u8, slot: usize) -> u8 {
    // Two slots.
    base + (slot % SLOTS) as u8
}

fn at(offset: usize) -> Addr {
    // Local memories are far below 2^26 bytes.
    Addr::at(offset as i32)
}

impl Gen<'_> {
    fn run(&mut self) {
        self.presets(true);
        self.e.point(Q, self.plan.p.q);
        for reg in [C, C_FLAG, B_SLOT] {
            self.e.add(reg, Reg::ZERO, 0);
        }
        self.e.add(B_AT, Reg::ZERO, self.plan.slots_at() as i64);
        if self.plan.tile.via == Via::L1 {
            (0..self.plan.slots()).for_each(|_| self.e.signal(Queue::Mte1, FREE));
        }
        for (index, block) in self.plan.blocks().into_iter().enumerate() {
            // The first ones that stay need not wait for weights to be unpacked.
            let is_ahead = index == 0 && self.plan.tile.via == Via::L2 && !self.plan.tile.pass;
            if is_ahead {
                self.activations_ahead(block);
            }
            self.e.add(IS_FIRST, Reg::ZERO, i64::from(!is_ahead));
            self.plan.parts.iter().for_each(|part| self.block(part, index, block));
        }
        if self.plan.is_direct {
            self.e.await_signal(Queue::Fix, READ);
        }
        self.presets(false);
    }

    /// The first block's activations, on groups that have a tile in it.
    fn activations_ahead(&mut self, block: (usize, usize)) {
        let blocks = ScalarOperand::Imm(self.plan.blocks().len() as i64);
        for (reg, bound) in [(FIRST, SHARE[0]), (AT, SHARE[1])] {
            self.e.scalar(ScalarOp::Div, reg, bound, blocks);
        }
        self.e.scalar(ScalarOp::Sub, AT, AT, ScalarOperand::Reg(FIRST));
        self.e.scalar(ScalarOp::Min, AT, AT, ScalarOperand::Imm(1));
        self.e.begin(Count::Reg(AT));
        self.plan.runs().into_iter().for_each(|run| self.activations(block, run));
        self.e.end(&[]);
    }

    /// One block of token rows against the group's tiles of a product.
    fn block(&mut self, part: &Part, index: usize, (first, rows): (usize, usize)) {
        self.e.share_of(self.plan, (index, part), SHARE, [FIRST, WHOLE, SINGLE, RAGGED]);
        self.e.point(AT, self.plan.p.expanded);
        // A panel of its own stands behind each group's.
        self.e.scalar(ScalarOp::Add, W, FIRST, ScalarOperand::Reg(GROUP));
        self.e.add(W, W, part.panels_before as i64);
        self.e.index(W, AT, W, self.plan.expanded_panel());
        let (place, bytes) = (self.plan.p.sums, 4 * (first * all_rows(&self.plan.parts) + part.rows_before));
        // Within one array.
        self.e.point(AT, (place.0, place.1 + bytes as i64));
        self.e.index(SUMS, AT, FIRST, 4 * NR);
        let single = self.plan.matrices() * NR;
        for (count, columns) in [(WHOLE, self.plan.columns()), (SINGLE, single), (RAGGED, part.ragged_columns())] {
            if columns > 0 && (count != SINGLE || self.plan.out_panels() > 1) {
                self.e.begin(Count::Reg(count));
                self.tile(index, (first, rows), columns);
                self.e.end(&[]);
            }
        }
    }

    /// Sets the reverse flags before anything runs, or takes them back at the end.
    fn presets(&mut self, begin: bool) {
        for i in 0..self.plan.slots() {
            // At most `MOST_SLOTS`.
            let (src, dst, id) = (Queue::Mte1, Queue::Mte2, B + i as u8);
            if begin { self.e.set(src, dst, id) } else { self.e.wait(src, dst, id) }
        }
        for i in 0..SLOTS {
            let l0 = [L0A, L0B].map(|base| (Queue::M, Queue::Mte1, slot(base, i)));
            let sums = (i < self.steps.accumulators).then_some((Queue::Fix, Queue::M, slot(ACCUMULATORS, i)));
            for (src, dst, id) in l0.into_iter().chain(sums) {
                if begin { self.e.set(src, dst, id) } else { self.e.wait(src, dst, id) }
            }
        }
    }

    /// Where column `column` of a block of `rows` rows lies in L1, `within` its run.
    fn activations_at(&self, rows: usize, column: usize, within: usize) -> Addr {
        let padded = rows.next_multiple_of(16);
        match self.plan.tile.pass {
            true => behind(B_AT, self.plan.weights_bytes() + padded * row_bytes(within)),
            false => at(padded * row_bytes(column)),
        }
    }

    /// The block's activations of a run of columns into L1. Rows that fill a fractal repeat the block's: their sums are
    /// not read.
    fn activations(&mut self, (first, rows): (usize, usize), (column, columns): (usize, usize)) {
        let padded = rows.next_multiple_of(16);
        let (from, to) = (32 * self.plan.p.m.next_multiple_of(16), 32 * padded);
        let (strip, strips) = (column / PANEL.strip(), columns / PANEL.strip());
        let begin = self.activations_at(rows, column, 0);
        for row in (0..padded).step_by(rows) {
            let dst = Addr { offset: begin.offset + at(32 * row).offset, ..begin };
            let ends = (dst, behind(Q, strip * from + 32 * first));
            self.e.copy(CopyPath::GmToL1, ends, (strips, 32 * rows.min(padded - row)), (from, to));
        }
    }

    /// One tile of `columns` output rows against the token rows of block `index`.
    fn tile(&mut self, index: usize, block: (usize, usize), columns: usize) {
        let (rows, via) = (block.1, self.plan.tile.via);
        let panels = columns.div_ceil(NR);
        let (mut a, mut b) = (0, 0);
        // What is unpacked already comes in one piece.
        let pieces: Vec<usize> = self.plan.pieces().iter().map(|runs| runs[0].0).collect();
        for (first, count) in self.plan.runs() {
            let has_go = via == Via::L2 && pieces.contains(&first) && (index == 0 || first == 0);
            self.load_run(block, (first, count), panels, has_go);
            self.e.push(Order::Wait { src: Queue::Mte2, dst: Queue::Mte1, id: WEIGHTS });
            if via == Via::L1 {
                self.e.await_signal(Queue::Mte1, GO);
            }
            for step in (0..count).step_by(self.steps.kb) {
                let step_columns = self.steps.kb.min(count - step);
                self.load_b(step, step_columns, panels, b);
                for within in (0..step_columns).step_by(self.steps.kc) {
                    let k = self.steps.kc.min(step_columns - within);
                    self.multiply((rows, panels), (first, step + within, k), within, (a, b));
                    a += 1;
                }
                self.e.set(Queue::M, Queue::Mte1, slot(L0B, b));
                b += 1;
            }
            self.free_run();
        }
        self.e.add(IS_FIRST, Reg::ZERO, 0);
        self.sums(rows, columns);
        // Tiles of one array.
        self.e.add(W, W, (panels * self.plan.expanded_panel()) as i64);
        self.e.add(SUMS, SUMS, 4 * columns as i64);
        if self.steps.accumulators > 1 {
            for (reg, by) in [(C, self.steps.c_slot), (C_FLAG, 1)] {
                self.e.scalar(ScalarOp::Xor, reg, reg, ScalarOperand::Imm(by as i64));
            }
        }
    }

    /// Activations of a run of columns into L1, those that stay for the block's first tile, and unpacked weights if they
    /// do not come by themselves, once GO came if it has to: the panels' strips side by side.
    fn load_run(&mut self, block: (usize, usize), (first, count): (usize, usize), panels: usize, has_go: bool) {
        self.e.push(Order::Wait { src: Queue::Mte1, dst: Queue::Mte2, id: WEIGHTS });
        if self.plan.tile.pass {
            self.activations(block, (first, count));
        } else {
            self.e.begin(Count::Reg(IS_FIRST));
            self.activations(block, (first, count));
            self.e.end(&[]);
        }
        if has_go {
            self.e.await_signal(Queue::Mte2, GO);
        }
        let strip = NR * 32;
        let loaded = if self.plan.tile.via == Via::L2 { panels } else { 0 };
        for panel in 0..loaded {
            let src = behind(W, panel * self.plan.expanded_panel() + NR * row_bytes(first));
            let dst = behind(B_AT, panel * strip);
            let rows = count / PANEL.strip();
            self.e.copy(CopyPath::GmToL1, (dst, src), (rows, strip), (strip, panels * strip));
        }
        self.e.push(Order::Set { src: Queue::Mte2, dst: Queue::Mte1, id: WEIGHTS });
    }

    /// Lets the slot at hand be written again, and goes on to the next.
    fn free_run(&mut self) {
        self.e.push(Order::Set { src: Queue::Mte1, dst: Queue::Mte2, id: WEIGHTS });
        if self.plan.tile.via == Via::L1 {
            self.e.signal(Queue::Mte1, FREE);
        }
        self.e.next(B_SLOT, self.plan.slots());
        self.e.index(B_AT, Reg::ZERO, B_SLOT, self.plan.slot_bytes());
        self.e.add(B_AT, B_AT, self.plan.slots_at() as i64);
    }

    fn load_b(&mut self, step: usize, columns: usize, panels: usize, b: usize) {
        self.e.wait(Queue::M, Queue::Mte1, slot(L0B, b));
        self.e.push(Work::LoadL0(LoadL0 {
            side: Side::B,
            dst: at(b % SLOTS * self.steps.l0b_slot),
            src: behind(B_AT, panels * NR * row_bytes(step)),
            // Sizes of L0: below 65536 fractals.
            rows: (panels * NR / 16) as u16,
            cols: (columns / PANEL.strip()) as u16,
            src_stride: (panels * NR * 32) as u32,
            transpose: false,
        }));
    }

    /// Activations of `k` columns from `of_run` on in the run that begins at column `run` into L0A, and their product with
    /// the columns from `within` on in L0B.
    fn multiply(
        &mut self,
        (rows, panels): (usize, usize),
        (run, of_run, k): (usize, usize, usize),
        within: usize,
        (a, b): (usize, usize),
    ) {
        let column = run + of_run;
        let padded = rows.next_multiple_of(16);
        let id = slot(L0A, a);
        self.e.wait(Queue::M, Queue::Mte1, id);
        self.e.push(Work::LoadL0(LoadL0 {
            side: Side::A,
            dst: at(a % SLOTS * self.steps.l0a_slot),
            src: self.activations_at(rows, column, of_run),
            rows: (padded / 16) as u16,
            cols: (k / PANEL.strip()) as u16,
            src_stride: (padded * 32) as u32,
            transpose: false,
        }));
        self.e.set(Queue::Mte1, Queue::M, id);
        if column == 0 {
            self.e.push(Order::Wait { src: Queue::Fix, dst: Queue::M, id: ACCUMULATOR });
        }
        self.e.wait(Queue::Mte1, Queue::M, id);
        self.e.push(Work::Mmad(Mmad {
            ty: CubeType::S8,
            c: behind(C, 0),
            a: at(a % SLOTS * self.steps.l0a_slot),
            b: at(b % SLOTS * self.steps.l0b_slot + panels * NR * row_bytes(within)),
            // One row would switch the cube to its vector mode; the second one's sums are not read.
            m: rows.max(2) as u16,
            k: k as u16,
            n: (panels * NR) as u16,
            init: if column == 0 { MmadInit::Zero } else { MmadInit::Accumulate },
            unit_flag: UnitFlag::Off,
        }));
        // At most a few hundred fractals.
        if ((padded / 16 * panels * NR / 16) as u32) < self.bar_m_below {
            self.e.bar(Some(Queue::M));
        }
        self.e.set(Queue::M, Queue::Mte1, id);
        if column + k == self.plan.padded_k() {
            self.e.push(Order::Set { src: Queue::M, dst: Queue::Fix, id: ACCUMULATOR });
        }
    }

    /// The tile's sums to global memory, or to UB of the vector cores, each one's rows.
    fn sums(&mut self, rows: usize, columns: usize) {
        self.e.push(Order::Wait { src: Queue::M, dst: Queue::Fix, id: ACCUMULATOR });
        let padded = rows.next_multiple_of(16);
        if self.plan.is_direct {
            self.e.await_signal(Queue::Fix, READ);
            let each = self.plan.each(rows);
            for (path, first) in FixPath::UBS.into_iter().zip((0..rows).step_by(each)) {
                let to = (path, at(SUMS_IN_UB), 4 * self.plan.columns());
                self.out(to, (first, padded), (each.min(rows - first), columns));
            }
        } else {
            let to = (FixPath::Gm, behind(SUMS, 0), 4 * all_rows(&self.plan.parts));
            self.out(to, (0, padded), (rows, columns));
        }
        self.e.push(Order::Set { src: Queue::Fix, dst: Queue::M, id: ACCUMULATOR });
        self.e.signal(Queue::Fix, DONE);
    }

    /// `m` rows of the tile's sums from row `first` of its `padded` on.
    fn out(
        &mut self,
        (path, dst, dst_stride): (FixPath, Addr, usize),
        (first, padded): (usize, usize),
        (m, n): (usize, usize),
    ) {
        self.e.push(Work::Fix(Fix {
            path,
            dst,
            // A row of a fractal has 64 bytes.
            src: behind(C, 64 * first),
            // Below 4096 rows and columns.
            m: m as u16,
            n: n as u16,
            from: ElemType::S32,
            src_stride: (padded * 64) as u32,
            dst_stride: dst_stride as u32,
            quant: Quant::Keep,
            scale: FixScale::Tile(1.0),
            relu: false,
            layout: FixLayout::RowMajor,
            unit_flag: UnitFlag::Off,
        }));
    }
}

/// The flags of the slot of weights and of the accumulators at hand.
const WEIGHTS: FlagId = FlagId::Reg { base: B, reg: B_SLOT };
const ACCUMULATOR: FlagId = FlagId::Reg { base: ACCUMULATORS, reg: C_FLAG };
