//! The cube core of a group: activations of a block stay in L1, unpacked weights stream through L1 and L0B.
//!
//! Every memory between two pipes is a ring of two slots with a forward and a reverse flag. Rings start over with every
//! tile, so that the loop over tiles has one body; only accumulators alternate, by registers.

use super::{DONE, GO, NR, Plan, row_bytes};
use crate::isa::matrix::lower::emit::Emit;
use crate::isa::matrix::lower::model::memories;
use crate::isa::matrix::lower::vector::ternary::PANEL;
use crate::isa::matrix::lower::vector::{behind, reg};
use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::StartValues;
use crate::isa::matrix::program::addr::{Addr, Queue, Reg};
use crate::isa::matrix::program::inst::{
    CopyPath, Count, Fix, FixLayout, FixPath, FixScale, FlagId, LoadL0, Mmad, MmadInit, Order, Quant, ScalarOp,
    ScalarOperand, Side, UnitFlag, Work,
};
use crate::isa::matrix::program::ty::{CubeType, ElemType};

// The group's first tile, its whole tiles, and 1 if the ragged one follows.
const FIRST: Reg = reg(1);
const WHOLE: Reg = reg(2);
const RAGGED: Reg = reg(3);
// Unpacked weights and sums of the tile at hand, 1 while it is the block's first, offset and flag of its accumulators.
const W: Reg = reg(4);
const SUMS: Reg = reg(5);
const C: Reg = reg(6);
const C_FLAG: Reg = reg(7);
const Q: Reg = reg(8);
const AT: Reg = reg(9);

// Flags: MTE2 and MTE1, M and MTE1, M and FIX.
const B: u8 = 0;
const A_BLOCK: u8 = 2;
const L0A: u8 = 0;
const L0B: u8 = 2;
const ACCUMULATORS: u8 = 0;

/// Slots of every ring.
const SLOTS: usize = 2;

struct Gen<'a> {
    e: &'a mut Emit,
    plan: &'a Plan,
    /// Columns of a step through L0B, and through L0A.
    kb: usize,
    kc: usize,
    /// Offset of the rings of weights in L1, and bytes of a slot.
    b: usize,
    b_slot: usize,
    bar_m_below: u32,
    l0a_slot: usize,
    l0b_slot: usize,
    c_slot: usize,
}

/// Writes the stream; `None` if the tile does not fit.
pub(super) fn emit(e: &mut Emit, machine: &Machine, plan: &Plan) -> Option<Vec<StartValues>> {
    let mem = memories(machine);
    let rows = plan.tile.block_m.next_multiple_of(16);
    let longest = |room: usize, row: usize| [512, 256, 128].into_iter().find(|k| row * row_bytes(*k) <= room / SLOTS);
    let kb = longest(mem.l0b, plan.columns())?;
    let kc = longest(mem.l0a, rows)?.min(kb);
    let b_slot = plan.columns() * row_bytes(PANEL.kp);
    let b = rows * row_bytes(plan.padded_k());
    let c_slot = rows * plan.columns() * 4;
    if b + SLOTS * b_slot > mem.l1 || SLOTS * c_slot > mem.l0c || rows > 4080 {
        return None;
    }
    let (l0a_slot, l0b_slot) = (rows * row_bytes(kc), plan.columns() * row_bytes(kb));
    let bar_m_below = machine.quirk.bar_m_below;
    Gen { e, plan, kb, kc, b, b_slot, bar_m_below, l0a_slot, l0b_slot, c_slot }.run();
    let values = |f: &dyn Fn((usize, usize, bool)) -> usize| {
        // Tiles of one product: far below 2^63.
        (0..plan.groups).map(|group| f(plan.share(group)) as i64).collect()
    };
    Some(vec![
        StartValues { reg: FIRST, values: values(&|(first, _, _)| first) },
        StartValues { reg: WHOLE, values: values(&|(_, whole, _)| whole) },
        StartValues { reg: RAGGED, values: values(&|(_, _, ragged)| usize::from(ragged)) },
    ])
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
        for reg in [C, C_FLAG] {
            self.e.add(reg, Reg::ZERO, 0);
        }
        for (first, rows) in self.plan.blocks() {
            self.activations(first, rows);
            self.e.point(AT, self.plan.p.expanded);
            self.e.index(W, AT, FIRST, self.plan.tile.panels * self.plan.expanded_panel());
            let (place, bytes) = (self.plan.p.sums, 4 * first * self.plan.p.n);
            // Within one array.
            self.e.point(AT, (place.0, place.1 + bytes as i64));
            self.e.index(SUMS, AT, FIRST, 4 * self.plan.columns());
            self.e.begin(Count::Reg(WHOLE));
            self.tile(rows, self.plan.columns());
            self.e.end(&[]);
            let ragged = self.plan.ragged_columns();
            if ragged > 0 {
                self.e.begin(Count::Reg(RAGGED));
                self.tile(rows, ragged);
                self.e.end(&[]);
            }
            self.e.set(Queue::Mte1, Queue::Mte2, A_BLOCK);
        }
        self.presets(false);
    }

    /// Sets the reverse flags before anything runs, or takes them back at the end.
    fn presets(&mut self, begin: bool) {
        for i in 0..SLOTS {
            let flags = [
                (Queue::Mte1, Queue::Mte2, slot(B, i)),
                (Queue::M, Queue::Mte1, slot(L0A, i)),
                (Queue::M, Queue::Mte1, slot(L0B, i)),
                (Queue::Fix, Queue::M, slot(ACCUMULATORS, i)),
            ];
            for (src, dst, id) in flags {
                if begin { self.e.set(src, dst, id) } else { self.e.wait(src, dst, id) }
            }
        }
        if begin {
            self.e.set(Queue::Mte1, Queue::Mte2, A_BLOCK);
        } else {
            self.e.wait(Queue::Mte1, Queue::Mte2, A_BLOCK);
        }
    }

    /// The activations of a block into L1. Rows that fill a fractal repeat the block's: their sums are not read.
    fn activations(&mut self, first: usize, rows: usize) {
        let strips = self.plan.padded_k() / PANEL.strip();
        let (from, to) = (32 * self.plan.p.m.next_multiple_of(16), 32 * rows.next_multiple_of(16));
        self.e.wait(Queue::Mte1, Queue::Mte2, A_BLOCK);
        let mut row = 0;
        while row < rows.next_multiple_of(16) {
            let count = rows.min(rows.next_multiple_of(16) - row);
            let src = behind(Q, 32 * first);
            self.e.copy(CopyPath::GmToL1, (at(32 * row), src), (strips, 32 * count), (from, to));
            row += count;
        }
    }

    /// One tile of `columns` output rows against the block's `rows` token rows.
    fn tile(&mut self, rows: usize, columns: usize) {
        self.e.await_signal(Queue::Mte2, GO);
        let panels = columns.div_ceil(NR);
        let (mut a, mut b) = (0, 0);
        for (index, (first, count)) in self.plan.runs().into_iter().enumerate() {
            self.load_run(index, (first, count), panels);
            self.e.wait(Queue::Mte2, Queue::Mte1, slot(B, index));
            for step in (0..count).step_by(self.kb) {
                let step_columns = self.kb.min(count - step);
                self.load_b(index, step, step_columns, panels, b);
                if step + step_columns == count {
                    self.e.set(Queue::Mte1, Queue::Mte2, slot(B, index));
                }
                for within in (0..step_columns).step_by(self.kc) {
                    let k = self.kc.min(step_columns - within);
                    self.multiply((rows, panels), (first + step + within, k), within, (a, b));
                    a += 1;
                }
                self.e.set(Queue::M, Queue::Mte1, slot(L0B, b));
                b += 1;
            }
        }
        self.sums(rows, columns);
        // Tiles of one array.
        let bytes = self.plan.tile.panels * self.plan.expanded_panel();
        self.e.add(W, W, bytes as i64);
        self.e.add(SUMS, SUMS, 4 * self.plan.columns() as i64);
        for (reg, by) in [(C, self.c_slot), (C_FLAG, 1)] {
            self.e.scalar(ScalarOp::Xor, reg, reg, ScalarOperand::Imm(by as i64));
        }
    }

    /// Unpacked weights of a run of columns into L1: the panels' strips side by side.
    fn load_run(&mut self, index: usize, (first, count): (usize, usize), panels: usize) {
        let id = slot(B, index);
        self.e.wait(Queue::Mte1, Queue::Mte2, id);
        let strip = NR * 32;
        for panel in 0..panels {
            let src = behind(W, panel * self.plan.expanded_panel() + NR * row_bytes(first));
            let dst = at(self.b + index % SLOTS * self.b_slot + panel * strip);
            let rows = count / PANEL.strip();
            self.e.copy(CopyPath::GmToL1, (dst, src), (rows, strip), (strip, panels * strip));
        }
        self.e.set(Queue::Mte2, Queue::Mte1, id);
    }

    fn load_b(&mut self, index: usize, step: usize, columns: usize, panels: usize, b: usize) {
        self.e.wait(Queue::M, Queue::Mte1, slot(L0B, b));
        self.e.push(Work::LoadL0(LoadL0 {
            side: Side::B,
            dst: at(b % SLOTS * self.l0b_slot),
            src: at(self.b + index % SLOTS * self.b_slot + panels * NR * row_bytes(step)),
            // Sizes of L0: below 65536 fractals.
            rows: (panels * NR / 16) as u16,
            cols: (columns / PANEL.strip()) as u16,
            src_stride: (panels * NR * 32) as u32,
            transpose: false,
        }));
    }

    /// Activations of `k` columns from `column` on into L0A, and their product with the columns from `within` on in L0B.
    fn multiply(
        &mut self,
        (rows, panels): (usize, usize),
        (column, k): (usize, usize),
        within: usize,
        (a, b): (usize, usize),
    ) {
        let padded = rows.next_multiple_of(16);
        let id = slot(L0A, a);
        self.e.wait(Queue::M, Queue::Mte1, id);
        self.e.push(Work::LoadL0(LoadL0 {
            side: Side::A,
            dst: at(a % SLOTS * self.l0a_slot),
            src: at(padded * row_bytes(column)),
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
            a: at(a % SLOTS * self.l0a_slot),
            b: at(b % SLOTS * self.l0b_slot + panels * NR * row_bytes(within)),
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

    /// The tile's sums to global memory.
    fn sums(&mut self, rows: usize, columns: usize) {
        self.e.push(Order::Wait { src: Queue::M, dst: Queue::Fix, id: ACCUMULATOR });
        self.e.push(Work::Fix(Fix {
            path: FixPath::Gm,
            dst: behind(SUMS, 0),
            src: behind(C, 0),
            // Below 4096 rows and columns.
            m: rows as u16,
            n: columns as u16,
            from: ElemType::S32,
            src_stride: (rows.next_multiple_of(16) * 64) as u32,
            dst_stride: (4 * self.plan.p.n) as u32,
            quant: Quant::Keep,
            scale: FixScale::Tile(1.0),
            relu: false,
            layout: FixLayout::RowMajor,
            unit_flag: UnitFlag::Off,
        }));
        self.e.push(Order::Set { src: Queue::Fix, dst: Queue::M, id: ACCUMULATOR });
        self.e.signal(Queue::Fix, DONE);
    }
}

/// The flag of the accumulators at hand.
const ACCUMULATOR: FlagId = FlagId::Reg { base: ACCUMULATORS, reg: C_FLAG };
