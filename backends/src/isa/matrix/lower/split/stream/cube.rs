//! The cube core: activations stay in L1, and in L0A where they fit; a tile's weights come in halves, of two tiles in turn
//! where L1 has room, or chunk by chunk from the vector cores.

use super::{ACTIVATIONS, ALL_SPLIT, Plan};
use crate::isa::matrix::lower::cores::reg;
use crate::isa::matrix::lower::emit::Emit;
use crate::isa::matrix::lower::matmul::tile::Mode;
use crate::isa::matrix::lower::model::memories;
use crate::isa::matrix::lower::split::{DONE, FREE, GO, Via, all_rows};
use crate::isa::matrix::lower::vector::behind;
use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::StartValues;
use crate::isa::matrix::program::addr::{Addr, Queue, Reg};
use crate::isa::matrix::program::inst::{
    CopyPath, Count, CrossMode, FRACTAL, FRACTAL_BYTES, Fix, FixLayout, FixPath, FixScale, FlagId, LoadL0, Mmad,
    MmadInit, Order, Quant, ScalarOp, ScalarOperand, Side, UnitFlag, Work,
};
use crate::isa::matrix::program::ty::ElemType;

// The group, its tiles whose slots are written again and the others, both without the late ones, and the first of all.
const GROUP: Reg = reg(1);
const FREED: Reg = reg(2);
const KEPT: Reg = reg(3);
const FIRST: Reg = reg(4);
// The group's ring, the slot at hand, sums, and the accumulators with their flag.
const RING: Reg = reg(5);
const SLOT: Reg = reg(6);
const SUMS: Reg = reg(7);
const C: Reg = reg(8);
const C_FLAG: Reg = reg(9);
const AT: Reg = reg(10);
const W: Reg = reg(11);

// The place of the tile at hand in L1, and the first of its flags.
const L1: Reg = reg(12);
const L1_FLAG: Reg = reg(13);

/// Pieces of a tile in L1.
const UNITS: usize = 2;

// Flags: MTE2 and MTE1 (the units of two tiles, then activations), M and MTE1 (slots of L0B, then of L0A), M and FIX.
const A: u8 = 2 * UNITS as u8;
const L0B: u8 = 0;
const L0A: u8 = 2;
const ACCUMULATORS: u8 = 0;

/// Most columns of a product of the cube.
const MOST_K: usize = 4095;

struct Gen<'a> {
    e: &'a mut Emit,
    plan: &'a Plan,
    /// Strips of a unit, and of a step through L0.
    unit: usize,
    step: usize,
    /// True if all activations are in L0A.
    stays: bool,
    /// Offset of weights in L1, and tiles that it has room for; bytes of slots.
    b: usize,
    places: usize,
    l0b_slot: usize,
    l0a_slot: usize,
    c_slot: usize,
    bar_m_below: u32,
}

/// Writes the stream; `None` if it does not fit.
pub(super) fn emit(e: &mut Emit, machine: &Machine, plan: &Plan) -> Option<Vec<StartValues>> {
    let mem = memories(machine);
    let (strips, fractal) = (plan.strips(), FRACTAL_BYTES as usize);
    let b = plan.activations_l1_bytes();
    let c_slot = 4 * FRACTAL as usize * plan.tile.rows;
    let stays = b <= mem.l0a;
    let unit = match plan.tile.via {
        Via::L2 => strips.div_ceil(UNITS),
        Via::L1 => plan.l1_slot_bytes() / (32 * plan.tile.rows),
    };
    let fits = match plan.tile.via {
        Via::L2 => b + plan.tile_bytes() <= mem.l1,
        Via::L1 => plan.l1_slots() > 0,
    };
    let places = if b + 2 * plan.tile_bytes() <= mem.l1 { 2 } else { 1 };
    let in_l0a = if stays { strips } else { mem.l0a / 2 / fractal };
    let step = (mem.l0b / 2 / (32 * plan.tile.rows)).min(in_l0a).min(MOST_K / plan.tile.mode.strip()).min(unit);
    if !fits || 2 * c_slot > mem.l0c || step == 0 {
        return None;
    }
    let (l0b_slot, l0a_slot, bar_m_below) = (step * 32 * plan.tile.rows, step * fractal, machine.quirk.bar_m_below);
    Gen { e, plan, unit, step, stays, b, places, l0b_slot, l0a_slot, c_slot, bar_m_below }.run();
    let values = |f: &dyn Fn(usize) -> usize| {
        // Tiles of a few products: far below 2^63.
        (0..plan.groups).map(|group| f(group) as i64).collect()
    };
    Some(vec![
        StartValues { reg: GROUP, values: values(&|group| group) },
        StartValues { reg: FREED, values: values(&|group| plan.count(group) - plan.kept(group)) },
        StartValues { reg: KEPT, values: values(&|group| plan.kept(group) - plan.late()) },
        StartValues { reg: FIRST, values: values(&|group| plan.first(group)) },
    ])
}

fn at(offset: usize) -> Addr {
    // Local memories are far below 2^26 bytes.
    Addr::at(offset as i32)
}

/// Flag of a unit of the tile at hand.
fn unit_flag(unit: usize) -> FlagId {
    // Two units.
    FlagId::Reg { base: unit as u8, reg: L1_FLAG }
}

/// Flag of a slot of two.
fn flag(base: u8, slot: usize) -> u8 {
    base + (slot % 2) as u8
}

impl Gen<'_> {
    fn run(&mut self) {
        self.presets(true);
        for reg in [C, C_FLAG, SLOT, L1, L1_FLAG] {
            self.e.add(reg, Reg::ZERO, 0);
        }
        self.e.point(AT, self.plan.p.expanded);
        self.e.index(RING, AT, GROUP, self.plan.slots() * self.plan.tile_bytes());
        self.e.point(AT, self.plan.p.sums);
        self.e.index(SUMS, AT, FIRST, 4 * self.plan.tile.rows);
        if self.plan.tile.via == Via::L1 {
            (0..self.plan.l1_slots()).for_each(|_| self.e.signal(Queue::Mte1, FREE));
        }
        self.activations();
        let via = self.plan.tile.via;
        if via == Via::L2 {
            self.tiles(Count::Reg(FREED), |this| this.tile(true));
        }
        let last = |this: &mut Self| match via {
            Via::L2 => this.tile(false),
            Via::L1 => this.tile_of_chunks(),
        };
        self.tiles(Count::Reg(KEPT), last);
        if self.plan.tile.early {
            self.e.signal(Queue::Fix, DONE);
            // A group's vector cores.
            self.tiles(Count::Fixed(self.plan.late() as u32), last);
        }
        self.e.signal(Queue::Fix, DONE);
        self.presets(false);
    }

    /// So many tiles.
    fn tiles(&mut self, count: Count, tile: impl Fn(&mut Self)) {
        self.e.begin(count);
        tile(self);
        self.e.end(&[]);
    }

    /// Sets the reverse flags before anything runs, or takes them back at the end.
    fn presets(&mut self, begin: bool) {
        let units = if self.plan.tile.via == Via::L2 { self.units().len() } else { 0 };
        let units = (0..units).flat_map(|unit| (0..self.places).map(move |place| place * UNITS + unit));
        // Two units of two tiles.
        let mut flags: Vec<(Queue, Queue, u8)> = units.map(|id| (Queue::Mte1, Queue::Mte2, id as u8)).collect();
        for i in 0..2 {
            flags.push((Queue::M, Queue::Mte1, flag(L0B, i)));
            if !self.stays {
                flags.push((Queue::M, Queue::Mte1, flag(L0A, i)));
            }
            flags.push((Queue::Fix, Queue::M, flag(ACCUMULATORS, i)));
        }
        for (src, dst, id) in flags {
            if begin { self.e.set(src, dst, id) } else { self.e.wait(src, dst, id) }
        }
    }

    /// First strip and strips of each unit.
    fn units(&self) -> Vec<(usize, usize)> {
        let strips = self.plan.strips();
        (0..strips).step_by(self.unit).map(|first| (first, self.unit.min(strips - first))).collect()
    }

    /// Activations into L1, and L0A. Rows that fill a fractal repeat the others: their sums are not read.
    fn activations(&mut self) {
        let (strips, rows) = (self.plan.strips(), self.plan.cube_rows());
        let from = match self.plan.tile.mode {
            Mode::I8 => {
                self.e.point(AT, self.plan.p.q);
                32 * self.plan.p.m.next_multiple_of(FRACTAL as usize)
            }
            Mode::I4 => {
                self.e.await_signal(Queue::Mte2, ACTIVATIONS);
                // Other groups' vector cores split the other rows.
                let (queue, mode, id) = (Queue::Mte2, CrossMode::All, ALL_SPLIT);
                self.e.push(Order::XSet { queue, mode, id });
                self.e.push(Order::XWait { queue, mode, id });
                self.e.point(AT, self.plan.activations());
                32 * rows
            }
        };
        for row in (0..FRACTAL as usize).step_by(rows) {
            let count = rows.min(FRACTAL as usize - row);
            self.e.copy(CopyPath::GmToL1, (at(32 * row), behind(AT, 0)), (strips, 32 * count), (from, 512));
        }
        self.e.set(Queue::Mte2, Queue::Mte1, A);
        self.e.wait(Queue::Mte2, Queue::Mte1, A);
        if self.stays {
            self.load_a(0, 0, strips);
        }
    }

    fn load_a(&mut self, to: usize, first: usize, strips: usize) {
        self.e.push(Work::LoadL0(LoadL0 {
            side: Side::A,
            dst: at(to),
            src: at(first * FRACTAL_BYTES as usize),
            rows: 1,
            // Strips of one row of an operand: below 65536.
            cols: strips as u16,
            src_stride: FRACTAL_BYTES,
            transpose: false,
        }));
    }

    fn tile(&mut self, is_freed: bool) {
        self.e.await_signal(Queue::Mte2, GO);
        self.e.scalar(ScalarOp::Rem, W, SLOT, ScalarOperand::Imm(self.plan.slots() as i64));
        self.e.index(W, RING, W, self.plan.tile_bytes());
        let units = self.units();
        let row = 32 * self.plan.tile.rows;
        for (index, (first, strips)) in units.iter().enumerate() {
            let id = unit_flag(index);
            self.e.push(Order::Wait { src: Queue::Mte1, dst: Queue::Mte2, id });
            let (dst, src) = (behind(L1, self.b + first * row), behind(W, first * row));
            self.e.copy(CopyPath::GmToL1, (dst, src), (1, strips * row), (0, 0));
            self.e.push(Order::Set { src: Queue::Mte2, dst: Queue::Mte1, id });
        }
        if is_freed {
            self.e.signal(Queue::Mte2, FREE);
        }
        let mut steps = 0;
        for (index, (first, strips)) in units.into_iter().enumerate() {
            self.e.push(Order::Wait { src: Queue::Mte2, dst: Queue::Mte1, id: unit_flag(index) });
            for step in (0..strips).step_by(self.step) {
                let count = self.step.min(strips - step);
                let frees = Order::Set { src: Queue::Mte1, dst: Queue::Mte2, id: unit_flag(index) };
                let frees = (step + count == strips).then_some(frees);
                self.multiply((first + step, count), first + step, steps, frees);
                steps += 1;
            }
        }
        self.sums();
        self.e.add(SLOT, SLOT, 1);
        let place = if self.places == 2 { (self.plan.tile_bytes(), UNITS) } else { (0, 0) };
        for (reg, by) in [(L1, place.0), (L1_FLAG, place.1)] {
            self.e.scalar(ScalarOp::Xor, reg, reg, ScalarOperand::Imm(by as i64));
        }
    }

    /// A tile whose weights the vector cores put into slots of L1, a chunk each.
    fn tile_of_chunks(&mut self) {
        let mut steps = 0;
        for chunk in self.plan.chunks() {
            let (first, strips) = self.plan.strips_of(&chunk);
            self.e.await_signal(Queue::Mte1, GO);
            self.e.index(L1, Reg::ZERO, SLOT, self.plan.l1_slot_bytes());
            for step in (0..strips).step_by(self.step) {
                let count = self.step.min(strips - step);
                let frees = Order::XSet { queue: Queue::Mte1, mode: CrossMode::Group, id: FREE };
                let frees = (step + count == strips).then_some(frees);
                self.multiply((first + step, count), step, steps, frees);
                steps += 1;
            }
            self.e.next(SLOT, self.plan.l1_slots());
        }
        self.sums();
    }

    /// The product of `strips` strips from `first` on, which are strip `at_b` of the weights at hand; then these may be
    /// written again.
    fn multiply(&mut self, (first, strips): (usize, usize), at_b: usize, index: usize, frees: Option<Order>) {
        let (rows, b) = (self.plan.tile.rows, flag(L0B, index));
        let to = index % 2 * self.l0b_slot;
        self.e.wait(Queue::M, Queue::Mte1, b);
        self.e.push(Work::LoadL0(LoadL0 {
            side: Side::B,
            dst: at(to),
            src: behind(L1, self.b + at_b * 32 * rows),
            // Sizes of L0: below 65536 fractals.
            rows: (rows / FRACTAL as usize) as u16,
            cols: strips as u16,
            src_stride: 32 * rows as u32,
            transpose: false,
        }));
        if let Some(frees) = frees {
            self.e.push(frees);
        }
        let mut a = first * FRACTAL_BYTES as usize;
        if !self.stays {
            a = index % 2 * self.l0a_slot;
            self.e.wait(Queue::M, Queue::Mte1, flag(L0A, index));
            self.load_a(a, first, strips);
        }
        self.e.set(Queue::Mte1, Queue::M, b);
        if first == 0 {
            self.e.push(Order::Wait { src: Queue::Fix, dst: Queue::M, id: ACCUMULATOR });
        }
        self.e.wait(Queue::Mte1, Queue::M, b);
        self.e.push(Work::Mmad(Mmad {
            ty: self.plan.tile.mode.cube(),
            c: behind(C, 0),
            a: at(a),
            b: at(to),
            // One row would switch the cube to its vector mode; the second one's sums are not read. At most 16.
            m: self.plan.cube_rows().max(2) as u16,
            // At most `MOST_K`, and a panel.
            k: (strips * self.plan.tile.mode.strip()) as u16,
            n: rows as u16,
            init: if first == 0 { MmadInit::Zero } else { MmadInit::Accumulate },
            unit_flag: UnitFlag::Off,
        }));
        // At most a few fractals.
        if ((rows / FRACTAL as usize) as u32) < self.bar_m_below {
            self.e.bar(Some(Queue::M));
        }
        self.e.set(Queue::M, Queue::Mte1, b);
        if !self.stays {
            self.e.set(Queue::M, Queue::Mte1, flag(L0A, index));
        }
    }

    /// The tile's sums to global memory.
    fn sums(&mut self) {
        self.e.push(Order::Set { src: Queue::M, dst: Queue::Fix, id: ACCUMULATOR });
        self.e.push(Order::Wait { src: Queue::M, dst: Queue::Fix, id: ACCUMULATOR });
        self.e.push(Work::Fix(Fix {
            path: FixPath::Gm,
            dst: behind(SUMS, 0),
            src: behind(C, 0),
            // At most 16 and 64.
            m: self.plan.cube_rows() as u16,
            n: self.plan.tile.rows as u16,
            from: ElemType::S32,
            src_stride: FRACTAL * 64,
            dst_stride: (4 * all_rows(&self.plan.parts)) as u32,
            quant: Quant::Keep,
            scale: FixScale::Tile(1.0),
            relu: false,
            layout: FixLayout::RowMajor,
            unit_flag: UnitFlag::Off,
        }));
        self.e.push(Order::Set { src: Queue::Fix, dst: Queue::M, id: ACCUMULATOR });
        self.e.add(SUMS, SUMS, 4 * self.plan.tile.rows as i64);
        for (reg, by) in [(C, self.c_slot), (C_FLAG, 1)] {
            self.e.scalar(ScalarOp::Xor, reg, reg, ScalarOperand::Imm(by as i64));
        }
    }
}

/// The flag of the accumulators at hand.
const ACCUMULATOR: FlagId = FlagId::Reg { base: ACCUMULATORS, reg: C_FLAG };
