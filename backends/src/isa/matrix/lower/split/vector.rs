//! The vector cores of a group: each unpacks its parts of every panel, and scales its rows of every tile's sums.
//!
//! One tile is unpacked ahead of the sums that are scaled, so that the cube core has work meanwhile.
//!
//! **Invariant:** beside the rings, MTE2 and the vector unit wait for each other in turn (loaded, then read), also on cores
//! that scale no rows: so no flag is set twice. The checker sees it.

use tcc_ir::kernel::ScaleKind;

use super::{DONE, FREE, GO, NR, Plan, SLOTS, Via, row_bytes};
use crate::isa::matrix::lower::emit::{Emit, F32, Second, U16, dense, strided};
use crate::isa::matrix::lower::matmul::tile::Mode;
use crate::isa::matrix::lower::model::memories;
use crate::isa::matrix::lower::vector::ternary::PANEL;
use crate::isa::matrix::lower::vector::{Place, Space, UbTooSmall, behind, reg};
use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::StartValues;
use crate::isa::matrix::program::addr::{Addr, Queue, Reg};
use crate::isa::matrix::program::inst::{CopyPath, Count, ScalarOp, ScalarOperand};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::VecOp;

// The core's number in its group; the group's first tile of a block, 1 if it has whole ones, how many more, and 1 if the
// ragged one follows.
const CORE: Reg = reg(1);
const FIRST: Reg = reg(2);
const HAS_WHOLE: Reg = reg(3);
const MORE: Reg = reg(4);
const RAGGED: Reg = reg(5);
// What the core's parts are shifted by.
const SHIFTS: [Reg; 4] = [reg(6), reg(7), reg(8), reg(9)];
// Packed and unpacked weights of the tile being unpacked, and of the core's parts of a run.
const W: Reg = reg(10);
const EXPANDED: Reg = reg(11);
const PARTS: Reg = reg(12);
// Bytes in front of the columns of the tile being scaled; the core's first row in sums, output and residual.
const COLUMN: Reg = reg(13);
const SUMS: Reg = reg(14);
const OUT: Reg = reg(15);
const RESIDUAL: Reg = reg(16);
const SCALE_BITS: Reg = reg(17);
const AT: Reg = reg(18);
// Slices of the core's rows, and 1 if the ragged one is among them.
const SLICES: Reg = reg(19);
const LAST_SLICE: Reg = reg(20);
// Of the slice at hand.
const SUMS_AT: Reg = reg(21);
const OUT_AT: Reg = reg(22);
const RESIDUAL_AT: Reg = reg(23);
const ACT_AT: Reg = reg(24);
// The slot at hand in the cube core's L1: number and offset.
const L1_SLOT: Reg = reg(25);
const L1_AT: Reg = reg(26);
// The group's share.
const SHARE: [Reg; 2] = [reg(27), reg(28)];

/// First flag of the rings; 0 is for plain order.
const RING: u8 = 1;

/// Rows of a slice of sums.
const SLICE: usize = 32;

/// Lanes of 32 bits in a repeat.
const LANES: usize = 64;

struct At {
    packed: usize,
    unpacked: usize,
    /// Bytes of a slot of either ring.
    slot: usize,
    sums: usize,
    residual: usize,
    act_raw: usize,
    /// A block per token row.
    act: usize,
    scale: usize,
    bias: usize,
}

struct Gen<'a> {
    e: &'a mut Emit,
    plan: &'a Plan,
    at: At,
    /// Next slots.
    packed: usize,
    unpacked: usize,
}

/// Writes the stream.
pub(super) fn emit(e: &mut Emit, machine: &Machine, plan: &Plan) -> Result<Vec<StartValues>, UbTooSmall> {
    let mut space = Space::new(memories(machine).ub);
    let slot = NR * row_bytes(PANEL.kp) / PANEL.parts;
    let slice = SLICE * plan.columns();
    let (packed, unpacked) = (space.take(SLOTS * slot)?, space.take(SLOTS * slot)?);
    let (sums, residual) = (space.floats(slice)?, space.floats(slice)?);
    let rows = plan.tile.block_m.next_multiple_of(8);
    let (act_raw, act) = (space.floats(rows)?, space.floats(8 * rows)?);
    let (scale, bias) = (space.floats(plan.columns())?, space.floats(plan.columns())?);
    let at = At { packed, unpacked, slot, sums, residual, act_raw, act, scale, bias };
    Gen { e, plan, at, packed: 0, unpacked: 0 }.run();
    let of = |f: &dyn Fn(usize, usize) -> usize| {
        // Tiles of one product: far below 2^63.
        (0..plan.groups * plan.per).map(|core| f(core % plan.per, core / plan.per) as i64).collect()
    };
    let mut start = vec![StartValues { reg: CORE, values: of(&|core, _| core) }];
    let share = SHARE.into_iter().enumerate();
    start.extend(share.map(|(next, reg)| StartValues { reg, values: of(&|_, group| plan.first(group + next)) }));
    Ok(start)
}

impl Gen<'_> {
    fn run(&mut self) {
        self.presets(true);
        let parts = PANEL.parts / self.plan.per;
        for (i, reg) in SHIFTS.into_iter().enumerate().take(parts) {
            // Two bits a part.
            self.e.scalar(ScalarOp::Mul, reg, CORE, ScalarOperand::Imm(2 * parts as i64));
            self.e.add(reg, reg, 2 * i as i64);
        }
        if self.plan.p.scale == ScaleKind::PerTensor {
            self.e.point(AT, self.plan.p.scales);
            self.e.scalar_load(SCALE_BITS, behind(AT, 0));
        }
        self.e.add(L1_AT, Reg::ZERO, 0);
        self.e.add(L1_SLOT, Reg::ZERO, 0);
        let via = self.plan.tile.via;
        for (index, (first, rows)) in self.plan.blocks().into_iter().enumerate() {
            self.e.share_of(self.plan, index, SHARE, [FIRST, MORE, RAGGED]);
            self.e.scalar(ScalarOp::Min, HAS_WHOLE, MORE, ScalarOperand::Imm(1));
            self.e.scalar(ScalarOp::Sub, MORE, MORE, ScalarOperand::Reg(HAS_WHOLE));
            self.block(index == 0 || via == Via::L1, first, rows);
        }
        if via == Via::L1 {
            (0..self.plan.slots()).for_each(|_| self.e.await_signal(Queue::Mte3, FREE));
        }
        self.presets(false);
    }

    fn presets(&mut self, begin: bool) {
        for i in 0..SLOTS {
            for (src, dst) in [(Queue::V, Queue::Mte2), (Queue::Mte3, Queue::V)] {
                let id = ring(i);
                if begin { self.e.set(src, dst, id) } else { self.e.wait(src, dst, id) }
            }
        }
    }

    /// One block of token rows against all tiles of the group.
    fn block(&mut self, unpacks: bool, first: usize, rows: usize) {
        self.rows(first, rows);
        if unpacks {
            self.e.point(AT, self.plan.p.w);
            self.e.index(W, AT, FIRST, self.plan.tile.panels * PANEL.codes_bytes(self.plan.p.k));
            self.e.point(AT, self.plan.p.expanded);
            self.e.index(EXPANDED, AT, FIRST, self.plan.tile.panels * self.plan.expanded_panel());
        }
        let (whole, ragged) = (self.plan.columns(), self.plan.ragged_columns());
        self.e.scalar(ScalarOp::Mul, COLUMN, FIRST, ScalarOperand::Imm(4 * whole as i64));
        self.guarded(HAS_WHOLE, |this| this.go(unpacks, whole));
        self.guarded(MORE, |this| {
            this.go(unpacks, whole);
            this.scale(rows, whole);
        });
        if ragged > 0 {
            self.guarded(RAGGED, |this| this.go(unpacks, ragged));
        }
        self.guarded(HAS_WHOLE, |this| this.scale(rows, whole));
        if ragged > 0 {
            self.guarded(RAGGED, |this| this.scale(rows, ragged));
        }
    }

    /// `body` as often as the register says.
    fn guarded(&mut self, count: Reg, body: impl Fn(&mut Self)) {
        self.e.begin(Count::Reg(count));
        body(self);
        self.e.end(&[]);
    }

    /// Lets the cube core read a tile: unpacked now, or in an earlier block.
    fn go(&mut self, unpacks: bool, columns: usize) {
        let panels = columns.div_ceil(NR);
        // Rings start over, for the loop has one body.
        (self.packed, self.unpacked) = (0, 0);
        for (first, count) in if unpacks { self.plan.runs() } else { vec![] } {
            let via = self.plan.tile.via;
            if via == Via::L1 {
                self.e.await_signal(Queue::Mte3, FREE);
            }
            (0..panels).for_each(|panel| self.unpack((panel, panels), first, count));
            if via == Via::L1 {
                self.e.signal(Queue::Mte3, GO);
                self.e.next(L1_SLOT, self.plan.slots());
                self.e.index(L1_AT, Reg::ZERO, L1_SLOT, self.plan.slot_bytes());
            }
        }
        if unpacks {
            // Within one array.
            self.e.add(W, W, (panels * PANEL.codes_bytes(self.plan.p.k)) as i64);
            self.e.add(EXPANDED, EXPANDED, (panels * self.plan.expanded_panel()) as i64);
        }
        if self.plan.tile.via == Via::L2 {
            self.e.signal(Queue::Mte3, GO);
        }
    }

    /// The core's parts of one run of columns of a panel, one of `panels`.
    fn unpack(&mut self, (panel, panels): (usize, usize), first: usize, count: usize) {
        let bytes = NR * row_bytes(count) / PANEL.parts;
        let parts = PANEL.parts / self.plan.per;
        let id = ring(self.packed);
        let packed = self.at.packed + self.packed % SLOTS * self.at.slot;
        let from = panel * PANEL.codes_bytes(self.plan.p.k) + NR * first / 4;
        self.e.wait(Queue::V, Queue::Mte2, id);
        self.e.load(packed, behind(W, from), 1, bytes, 0, 0);
        self.e.set(Queue::Mte2, Queue::V, id);
        self.e.wait(Queue::Mte2, Queue::V, id);
        let strip = NR * 32;
        // Strips of a panel follow each other in global memory; those of all panels stand side by side in L1.
        let (path, base, apart, to_first) = match self.plan.tile.via {
            Via::L2 => (CopyPath::UbToGm, EXPANDED, 1, panel * self.plan.expanded_panel() + NR * row_bytes(first)),
            Via::L1 => (CopyPath::UbToL1, L1_AT, panels, self.plan.weights_at() + panel * strip),
        };
        self.e.index(PARTS, base, CORE, parts * bytes * apart);
        for (part, shift) in SHIFTS.into_iter().enumerate().take(parts) {
            let free = ring(self.unpacked);
            let to = self.at.unpacked + self.unpacked % SLOTS * self.at.slot;
            self.e.wait(Queue::Mte3, Queue::V, free);
            let (repeats, mask) = (bytes / 256, Second::Bits(u32::from(Mode::I8.mask())));
            self.e.vec(VecOp::Shl, U16, dense(to), dense(packed), Second::Reg(shift), repeats, 128);
            self.e.vec(VecOp::And, U16, dense(to), dense(to), mask, repeats, 128);
            if part + 1 == parts {
                self.e.set(Queue::V, Queue::Mte2, id);
            }
            self.e.set(Queue::V, Queue::Mte3, free);
            self.e.wait(Queue::V, Queue::Mte3, free);
            // An offset in UB.
            let ends = (behind(PARTS, to_first + part * bytes * apart), Addr::at(to as i32));
            self.e.copy(path, ends, (bytes / strip, strip), (strip, apart * strip));
            self.e.set(Queue::Mte3, Queue::V, free);
            self.unpacked += 1;
        }
        self.packed += 1;
    }

    /// Which of the block's rows the core scales, and their act_scale.
    fn rows(&mut self, first: usize, rows: usize) {
        let each = rows.div_ceil(self.plan.per).next_multiple_of(SLICE);
        let (whole, n) = (rows / SLICE * SLICE, self.plan.p.n);
        let imm = |value: usize| ScalarOperand::Imm(value as i64);
        // min(each, whole - core · each), at least 0.
        self.e.scalar(ScalarOp::Mul, AT, CORE, ScalarOperand::Imm(-(each as i64)));
        self.e.add(AT, AT, whole as i64);
        self.e.scalar(ScalarOp::Min, AT, AT, imm(each));
        self.e.scalar(ScalarOp::Max, AT, AT, imm(0));
        self.e.scalar(ScalarOp::Div, SLICES, AT, imm(SLICE));
        // 1 for the core that has the last row.
        self.e.scalar(ScalarOp::Xor, AT, CORE, imm((rows - 1) / each));
        self.e.scalar(ScalarOp::Min, AT, AT, imm(1));
        self.e.scalar(ScalarOp::Xor, LAST_SLICE, AT, imm(1));
        let p = self.plan.p;
        for (reg, place) in [(SUMS, Some(p.sums)), (OUT, Some(p.out)), (RESIDUAL, p.residual)] {
            if let Some(place) = place {
                self.e.point(AT, self.behind_rows(place, first));
                self.e.index(reg, AT, CORE, 4 * each * n);
            }
        }
        self.e.point(AT, p.act);
        self.e.load(self.at.act_raw, behind(AT, 4 * first), 1, 4 * rows, 0, 0);
        self.e.loaded();
        let raw = self.at.act_raw;
        self.e.each(VecOp::Mul, F32, raw, raw, Second::f32(1.0 / Mode::I8.unit()), rows);
        self.e.spread(self.at.act, raw, rows);
        self.e.after(Queue::V, Queue::Mte2);
    }

    fn behind_rows(&self, place: Place, first: usize) -> Place {
        // Within one array.
        (place.0, place.1 + (4 * first * self.plan.p.n) as i64)
    }

    /// Scales the core's rows of one tile's sums.
    fn scale(&mut self, rows: usize, columns: usize) {
        let each = rows.div_ceil(self.plan.per).next_multiple_of(SLICE);
        self.e.await_signal(Queue::Mte2, DONE);
        let p = self.plan.p;
        let by_column = [(self.at.scale, (p.scale == ScaleKind::PerRow).then_some(p.scales)), (self.at.bias, p.bias)];
        for (to, place) in by_column {
            if let Some(place) = place {
                self.e.point(AT, place);
                self.e.scalar(ScalarOp::Add, AT, AT, ScalarOperand::Reg(COLUMN));
                self.e.load(to, behind(AT, 0), 1, 4 * columns, 0, 0);
            }
        }
        self.e.loaded();
        self.e.after(Queue::V, Queue::Mte2);
        for (reg, base) in [(SUMS_AT, SUMS), (OUT_AT, OUT), (RESIDUAL_AT, RESIDUAL)] {
            self.e.scalar(ScalarOp::Add, reg, base, ScalarOperand::Reg(COLUMN));
        }
        // Offsets in UB.
        self.e.scalar(ScalarOp::Mul, ACT_AT, CORE, ScalarOperand::Imm(32 * each as i64));
        self.e.add(ACT_AT, ACT_AT, self.at.act as i64);
        if rows >= SLICE {
            self.guarded(SLICES, |this| this.slice(SLICE, columns));
        }
        if !rows.is_multiple_of(SLICE) {
            self.guarded(LAST_SLICE, |this| this.slice(rows % SLICE, columns));
        }
        self.e.add(COLUMN, COLUMN, 4 * self.plan.columns() as i64);
    }

    /// One slice of `rows` rows.
    fn slice(&mut self, rows: usize, columns: usize) {
        let (stride, pitch) = (4 * self.plan.p.n, 4 * self.plan.columns());
        self.e.load(self.at.sums, behind(SUMS_AT, 0), rows, 4 * columns, stride, pitch);
        if self.plan.p.residual.is_some() {
            self.e.load(self.at.residual, behind(RESIDUAL_AT, 0), rows, 4 * columns, stride, pitch);
        }
        self.e.loaded();
        for first in (0..columns).step_by(LANES) {
            self.arithmetic(rows, first, (columns - first).min(LANES));
        }
        self.e.computed();
        self.e.store(behind(OUT_AT, 0), self.at.sums, rows, 4 * columns, pitch, stride);
        self.e.stored();
        for reg in [SUMS_AT, OUT_AT, RESIDUAL_AT] {
            // Within one array.
            self.e.add(reg, reg, (rows * stride) as i64);
        }
        self.e.add(ACT_AT, ACT_AT, 32 * rows as i64);
    }

    /// The arithmetic on `lanes` columns from `first` on, a row per repeat.
    fn arithmetic(&mut self, rows: usize, first: usize, lanes: usize) {
        let row = self.plan.columns() / 8;
        let of = |base: usize, repeat: usize| strided(base + 4 * first, 1, repeat);
        let y = of(self.at.sums, row);
        let per_column = |base: usize| Second::Vector(of(base, 0));
        let (scale, bias, residual) = (self.at.scale, self.at.bias, self.at.residual);
        let mut op = |op, types, b: Second| self.e.vec(op, types, y, y, b, rows, lanes);
        op(VecOp::Cast, (ElemType::F32, ElemType::S32), Second::None);
        op(VecOp::Mul, F32, Second::Vector(strided(0, 0, 1).behind(ACT_AT)));
        match self.plan.p.scale {
            ScaleKind::PerTensor => op(VecOp::Mul, F32, Second::Reg(SCALE_BITS)),
            ScaleKind::PerRow => op(VecOp::Mul, F32, per_column(scale)),
            ScaleKind::PerGroup { .. } => unreachable!("grouped products run on the vector unit"),
        }
        if self.plan.p.bias.is_some() {
            op(VecOp::Add, F32, per_column(bias));
        }
        if self.plan.p.residual.is_some() {
            op(VecOp::Add, F32, Second::Vector(of(residual, row)));
        }
    }
}

/// Flag of slot `slot` of a ring.
fn ring(slot: usize) -> u8 {
    // Two slots.
    RING + (slot % SLOTS) as u8
}
