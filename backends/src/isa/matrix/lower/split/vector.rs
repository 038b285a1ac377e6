//! The vector cores of a group: each unpacks its output rows of every panel, and scales its token rows of every tile's
//! sums.
//!
//! Tiles are unpacked ahead of the sums that are scaled, also into the next block, so that the cube core has work meanwhile.
//!
//! **Invariant:** beside the rings, MTE2 and the vector unit wait for each other in turn (loaded, then read), also on cores
//! that scale no rows: so no flag is set twice. The checker sees it.

use tcc_ir::kernel::ScaleKind;

use super::{DONE, FREE, GO, NR, Part, Plan, Product, READ, SLOTS, SUMS_IN_UB, Via, all_rows, row_bytes};
use crate::isa::matrix::lower::cores::reg;
use crate::isa::matrix::lower::emit::{Emit, F32, Second, Strided, U16, dense, strided};
use crate::isa::matrix::lower::matmul::tile::Mode;
use crate::isa::matrix::lower::model::memories;
use crate::isa::matrix::lower::vector::ternary::PANEL;
use crate::isa::matrix::lower::vector::{Place, Space, UbTooSmall, behind};
use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::StartValues;
use crate::isa::matrix::program::addr::{Addr, Queue, Reg};
use crate::isa::matrix::program::inst::{CopyPath, Count, ScalarOp, ScalarOperand};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::VecOp;

// The core's number in its group, and the group.
const CORE: Reg = reg(1);
const GROUP: Reg = reg(2);
// Of the block that is unpacked: the group's first panel, its whole tiles that are unpacked ahead, how many more, panels
// behind them, and 1 if the ragged one follows.
const FIRST: Reg = reg(3);
const EARLY: Reg = reg(4);
const MORE: Reg = reg(5);
const SINGLE: Reg = reg(6);
const RAGGED: Reg = reg(7);
// Of the block before, whose last tiles are scaled meanwhile.
const LAST: [Reg; 3] = [reg(8), reg(9), reg(10)];
// The core's rows of the packed and unpacked weights of the tile being unpacked, and where they begin in a strip.
const W: Reg = reg(11);
const EXPANDED: Reg = reg(12);
const ROWS_AT: Reg = reg(13);
// Bytes in front of the columns of the tile being scaled; the core's first row in sums, output and residual.
const COLUMN: Reg = reg(14);
const SUMS: Reg = reg(15);
const OUT: Reg = reg(16);
const RESIDUAL: Reg = reg(17);
const SCALE_BITS: Reg = reg(18);
const AT: Reg = reg(19);
// In the place of the residual, which gated products have none of: the second matrix, as the first one's.
const UP_W: Reg = RESIDUAL;
const UP_SCALE_BITS: Reg = RESIDUAL_AT;
// Slices of the core's rows, and 1 if the ragged one is among them.
const SLICES: Reg = reg(20);
const LAST_SLICE: Reg = reg(21);
// Of the slice at hand.
const SUMS_AT: Reg = reg(22);
const OUT_AT: Reg = reg(23);
const RESIDUAL_AT: Reg = reg(24);
const ACT_AT: Reg = reg(25);
// The slot at hand in the cube core's L1.
const L1_SLOT: Reg = reg(26);
// The group's share.
const SHARE: [Reg; 2] = [reg(27), reg(28)];

/// First flag of the rings; 0 is for plain order.
const RING: u8 = 1;

/// Flag of the slice of sums: loaded, scaled, stored.
const SLICE: u8 = 3;

/// Runs of columns that are unpacked together, of one panel or several.
const RUNS: usize = 2;

/// Lanes of 32 bits in a repeat.
const LANES: usize = 64;

pub(super) struct At {
    packed: usize,
    unpacked: usize,
    /// Bytes of packed weights in a slot, which are those of a part, and of a slot of unpacked ones.
    slot: usize,
    unpacked_slot: usize,
    sums: usize,
    residual: usize,
    act_raw: usize,
    /// A block per token row.
    act: usize,
    scale: usize,
    bias: usize,
}

/// A product in a block of token rows.
#[derive(Clone, Copy)]
struct Item<'a> {
    part: &'a Part,
    /// Number of the block, its first row, and its rows.
    block: usize,
    first: usize,
    rows: usize,
}

struct Gen<'a> {
    e: &'a mut Emit,
    plan: &'a Plan,
    at: At,
    /// Rows of a slice of sums.
    slice: usize,
    /// Next slots.
    packed: usize,
    unpacked: usize,
}

/// Where everything lies in UB.
pub(super) fn place(machine: &Machine, plan: &Plan) -> Result<At, UbTooSmall> {
    let mut space = Space::new(memories(machine).ub);
    let slice = plan.slice_rows() * plan.columns();
    // They are first, which the cube core knows.
    let sums = space.floats(if plan.is_direct { plan.each(plan.tile.block_m) * plan.columns() } else { slice })?;
    debug_assert_eq!(sums, SUMS_IN_UB, "nothing lies in front of them");
    let slot = RUNS * plan.own() * row_bytes(PANEL.kp) / PANEL.parts;
    let unpacked_slot = if plan.tile.via == Via::L1 { PANEL.parts * slot } else { slot };
    let (packed, unpacked) = (space.take(SLOTS * slot)?, space.take(SLOTS * unpacked_slot)?);
    let residual = space.floats(slice)?;
    let rows = plan.tile.block_m.next_multiple_of(8);
    let (act_raw, act) = (space.floats(rows)?, space.floats(8 * rows)?);
    let (scale, bias) = (space.floats(plan.columns())?, space.floats(plan.columns())?);
    Ok(At { packed, unpacked, slot, unpacked_slot, sums, residual, act_raw, act, scale, bias })
}

/// Writes the stream.
pub(super) fn emit(e: &mut Emit, machine: &Machine, plan: &Plan) -> Result<Vec<StartValues>, UbTooSmall> {
    let at = place(machine, plan)?;
    Gen { e, plan, at, slice: plan.slice_rows(), packed: 0, unpacked: 0 }.run();
    let of = |f: &dyn Fn(usize, usize) -> usize| {
        // Tiles of one product: far below 2^63.
        (0..plan.groups * plan.per).map(|core| f(core % plan.per, core / plan.per) as i64).collect()
    };
    let mut start = vec![
        StartValues { reg: CORE, values: of(&|core, _| core) },
        StartValues { reg: GROUP, values: of(&|_, group| group) },
    ];
    let share = SHARE.into_iter().enumerate();
    start.extend(share.map(|(next, reg)| StartValues { reg, values: of(&|_, group| plan.first(group + next)) }));
    Ok(start)
}

impl Gen<'_> {
    fn run(&mut self) {
        self.presets(true);
        if self.plan.is_direct {
            self.e.signal(Queue::Mte3, READ);
        }
        self.e.add(L1_SLOT, Reg::ZERO, 0);
        self.e.index(ROWS_AT, Reg::ZERO, CORE, 32 * self.plan.own());
        let mut before = None;
        for (block, (first, rows)) in self.plan.blocks().into_iter().enumerate() {
            for part in &self.plan.parts {
                let item = Item { part, block, first, rows };
                self.item(item, before);
                before = Some(item);
            }
        }
        before.into_iter().for_each(|item| self.scale_last([EARLY, SINGLE, RAGGED], item));
        if self.plan.tile.via == Via::L1 {
            (0..self.plan.slots()).for_each(|_| self.e.await_signal(Queue::Mte3, FREE));
        }
        self.presets(false);
    }

    fn presets(&mut self, begin: bool) {
        let rings = (0..SLOTS).flat_map(|i| [(Queue::V, Queue::Mte2, ring(i)), (Queue::Mte3, Queue::V, ring(i))]);
        let slice: &[(Queue, Queue)] = match self.plan.is_direct {
            true => &[(Queue::V, Queue::Mte2), (Queue::Mte3, Queue::V)],
            false => &[(Queue::Mte3, Queue::Mte2)],
        };
        for (src, dst, id) in rings.chain(slice.iter().map(|(src, dst)| (*src, *dst, SLICE))) {
            if begin { self.e.set(src, dst, id) } else { self.e.wait(src, dst, id) }
        }
    }

    /// One block of token rows against the group's tiles of a product, but for the last sums; those of the item before are
    /// scaled in between.
    fn item(&mut self, item: Item, before: Option<Item>) {
        if before.is_some() {
            LAST.into_iter().zip([EARLY, SINGLE, RAGGED]).for_each(|(last, reg)| self.e.add(last, reg, 0));
        }
        let Item { part, block, .. } = item;
        self.e.share_of(self.plan, (block, part), SHARE, [FIRST, MORE, SINGLE, RAGGED]);
        self.e.scalar(ScalarOp::Min, EARLY, MORE, ScalarOperand::Imm(self.plan.ahead() as i64));
        self.e.scalar(ScalarOp::Sub, MORE, MORE, ScalarOperand::Reg(EARLY));
        let unpacks = block == 0 || self.plan.tile.via == Via::L1;
        if unpacks {
            self.e.point(AT, part.p.w);
            self.e.index(W, AT, FIRST, PANEL.codes_bytes(self.plan.p.k));
            self.e.point(AT, self.plan.p.expanded);
            // A panel of its own stands behind each group's.
            self.e.scalar(ScalarOp::Add, EXPANDED, FIRST, ScalarOperand::Reg(GROUP));
            self.e.add(EXPANDED, EXPANDED, part.panels_before as i64);
            self.e.index(EXPANDED, AT, EXPANDED, self.plan.expanded_panel());
            for reg in [W, EXPANDED] {
                self.e.scalar(ScalarOp::Add, reg, reg, ScalarOperand::Reg(ROWS_AT));
            }
            if let Some(up) = part.p.up {
                self.e.point(AT, up.w);
                self.e.index(UP_W, AT, FIRST, PANEL.codes_bytes(self.plan.p.k));
                self.e.scalar(ScalarOp::Add, UP_W, UP_W, ScalarOperand::Reg(ROWS_AT));
            }
        }
        let panels = self.plan.tile.panels;
        self.guarded(EARLY, |this| this.go(unpacks, panels));
        before.into_iter().for_each(|before| self.scale_last(LAST, before));
        self.rows(&item);
        self.e.index(COLUMN, Reg::ZERO, FIRST, 4 * NR);
        self.guarded(MORE, |this| {
            this.go(unpacks, panels);
            this.scale(&item, this.plan.columns());
        });
        if self.plan.out_panels() > 1 {
            self.guarded(SINGLE, |this| this.go(unpacks, this.plan.matrices()));
        }
        if part.ragged_columns() > 0 {
            self.guarded(RAGGED, |this| this.go(unpacks, 1));
        }
        if block == 0 && self.plan.tile.via == Via::L2 {
            self.unpack_later(part);
        }
    }

    /// Unpacks the panel that later blocks begin with, if there is one and it is the product's.
    fn unpack_later(&mut self, part: &Part) {
        let blocks = self.plan.blocks().len() as i64;
        if blocks == 1 {
            return;
        }
        // 1 if the share ends within the blocks of a panel. The product's panels in the share are behind.
        self.e.add(AT, SHARE[1], 0);
        self.e.add(FIRST, SHARE[1], blocks - 1);
        for reg in [AT, FIRST] {
            self.e.panels_of(self.plan, part, reg);
        }
        self.e.scalar(ScalarOp::Sub, AT, FIRST, ScalarOperand::Reg(AT));
        self.guarded(AT, |this| this.unpack(1, false));
    }

    /// Scales an item's tiles that were unpacked ahead, and those behind them.
    fn scale_last(&mut self, [early, single, ragged]: [Reg; 3], item: Item) {
        self.guarded(early, |this| this.scale(&item, this.plan.columns()));
        if self.plan.out_panels() > 1 {
            self.guarded(single, |this| this.scale(&item, this.plan.matrices() * NR));
        }
        if item.part.ragged_columns() > 0 {
            self.guarded(ragged, |this| this.scale(&item, item.part.ragged_columns()));
        }
    }

    /// `body` as often as the register says.
    fn guarded(&mut self, count: Reg, body: impl Fn(&mut Self)) {
        self.e.begin(Count::Reg(count));
        body(self);
        self.e.end(&[]);
    }

    /// Lets the cube core read a tile: unpacked now, or in an earlier block.
    fn go(&mut self, unpacks: bool, panels: usize) {
        if unpacks {
            self.unpack(panels, true);
        } else {
            self.e.signal(Queue::Mte3, GO);
        }
    }

    /// Unpacks the core's rows of a tile.
    fn unpack(&mut self, panels: usize, signals: bool) {
        // Rings start over, for the loop has one body.
        (self.packed, self.unpacked) = (0, 0);
        let via = self.plan.tile.via;
        let pieces = match self.has_slots(panels) {
            true => vec![self.plan.runs()],
            false => self.plan.pieces(),
        };
        for piece in pieces {
            if via == Via::L1 && !self.has_slots(panels) {
                self.next_slot();
            }
            // Runs of one length are unpacked together.
            for runs in piece.chunk_by(|a, b| a.1 == b.1) {
                let all = runs.iter().flat_map(|(first, _)| (0..panels).map(|panel| (panel, *first)));
                let all: Vec<(usize, usize)> = all.collect();
                all.chunks(RUNS).for_each(|some| self.unpack_runs(some, runs[0].1, panels));
            }
            if signals && !self.has_slots(panels) {
                self.e.signal(Queue::Mte3, GO);
            }
        }
        // Within one array.
        let bytes = panels / self.plan.matrices() * PANEL.codes_bytes(self.plan.p.k);
        self.e.add(W, W, bytes as i64);
        if self.plan.p.up.is_some() {
            self.e.add(UP_W, UP_W, bytes as i64);
        }
        if via == Via::L2 {
            self.e.add(EXPANDED, EXPANDED, (panels * self.plan.expanded_panel()) as i64);
        }
    }

    /// True if runs that are unpacked together go to a slot each.
    fn has_slots(&self, panels: usize) -> bool {
        self.plan.tile.via == Via::L1 && panels == 1
    }

    /// The next slot in L1, once it is free.
    fn next_slot(&mut self) {
        self.e.await_signal(Queue::Mte3, FREE);
        self.e.index(EXPANDED, ROWS_AT, L1_SLOT, self.plan.slot_bytes());
        self.e.next(L1_SLOT, self.plan.slots());
    }

    /// The core's rows of some runs of `count` columns, panel and first column of each, of a tile of `panels` panels.
    fn unpack_runs(&mut self, runs: &[(usize, usize)], count: usize, panels: usize) {
        let (own, pitch) = (32 * self.plan.own(), NR * 32);
        let strips = count / PANEL.strip() / PANEL.parts;
        let bytes = strips * own;
        let id = ring(self.packed);
        let packed = self.at.packed + self.packed % SLOTS * self.at.slot;
        self.packed += 1;
        self.e.wait(Queue::V, Queue::Mte2, id);
        for (i, (panel, first)) in runs.iter().enumerate() {
            // All panels of one matrix, then those of the other.
            let each = panels / self.plan.matrices();
            let w = if *panel < each { W } else { UP_W };
            let from = panel % each * PANEL.codes_bytes(self.plan.p.k) + NR * first / PANEL.parts;
            self.e.load(packed + i * bytes, behind(w, from), strips, own, pitch, own);
        }
        self.e.set(Queue::Mte2, Queue::V, id);
        self.e.wait(Queue::Mte2, Queue::V, id);
        // Slots want all parts of a run at once.
        let together = if self.has_slots(panels) { PANEL.parts } else { 1 };
        for first_part in (0..PANEL.parts).step_by(together) {
            let free = ring(self.unpacked);
            let to = self.at.unpacked + self.unpacked % SLOTS * self.at.unpacked_slot;
            self.unpacked += 1;
            self.e.wait(Queue::Mte3, Queue::V, free);
            for i in 0..together {
                self.part(to + i * self.at.slot, packed, first_part + i, runs.len() * bytes / 256);
            }
            if first_part + together == PANEL.parts {
                self.e.set(Queue::V, Queue::Mte2, id);
            }
            self.e.set(Queue::V, Queue::Mte3, free);
            self.e.wait(Queue::V, Queue::Mte3, free);
            for (i, run) in runs.iter().enumerate() {
                if self.has_slots(panels) {
                    self.next_slot();
                }
                for part in 0..together {
                    let from = to + part * self.at.slot + i * bytes;
                    self.move_run(from, *run, (first_part + part) * strips, strips, panels);
                }
                if self.has_slots(panels) {
                    self.e.signal(Queue::Mte3, GO);
                }
            }
            self.e.set(Queue::Mte3, Queue::V, free);
        }
    }

    /// Part `part` of what is packed.
    fn part(&mut self, to: usize, packed: usize, part: usize, repeats: usize) {
        let mut source = dense(packed);
        if part > 0 {
            // Two bits a part.
            let by = Second::Bits(2 * part as u32);
            self.e.vec(VecOp::Shl, U16, dense(to), source, by, repeats, 128);
            source = dense(to);
        }
        let mask = Second::Bits(u32::from(Mode::I8.mask()));
        self.e.vec(VecOp::And, U16, dense(to), source, mask, repeats, 128);
    }

    /// `strips` strips of the core's rows of a run, panel and first column, to where the run's strip `strip` begins.
    /// Strips of a panel follow each other in global memory; those of all panels stand side by side in L1.
    fn move_run(&mut self, from: usize, (panel, first): (usize, usize), strip: usize, strips: usize, panels: usize) {
        let (own, pitch) = (32 * self.plan.own(), NR * 32);
        let (path, apart, begin) = match self.plan.tile.via {
            Via::L2 => (CopyPath::UbToGm, pitch, panel * self.plan.expanded_panel() + NR * row_bytes(first)),
            Via::L1 => (CopyPath::UbToL1, panels * pitch, self.plan.slots_at() + panel * pitch),
        };
        // An offset in UB.
        let ends = (behind(EXPANDED, begin + strip * apart), Addr::at(from as i32));
        self.e.copy(path, ends, (strips, own), (own, apart));
    }

    /// Bytes from a row of sums to the next, and from a row of the output.
    fn pitches(&self, part: &Part) -> [usize; 2] {
        [all_rows(&self.plan.parts), part.p.n].map(|columns| 4 * columns)
    }

    /// Where the core's rows of an item begin, and what they are scaled with; with a block's first product which they are,
    /// and their act_scale.
    fn rows(&mut self, item: &Item) {
        let Item { part, first, rows, .. } = *item;
        let each = self.plan.each(rows);
        let (p, [sums_pitch, pitch]) = (part.p, self.pitches(part));
        // Within one array.
        let sums = (p.sums.0, p.sums.1 + 4 * part.rows_before as i64);
        let sums = Some(sums).filter(|_| !self.plan.is_direct);
        let arrays = [(SUMS, sums, sums_pitch), (OUT, Some(p.out), pitch), (RESIDUAL, p.residual, pitch)];
        for (reg, place, pitch) in arrays.into_iter().filter_map(|(reg, place, pitch)| Some((reg, place?, pitch))) {
            self.e.point(AT, (place.0, place.1 + (pitch * first) as i64));
            self.e.index(reg, AT, CORE, each * pitch);
        }
        let is_new = item.block == 0 || self.plan.parts.len() > 1;
        let scales = [(SCALE_BITS, Some(p.scales)), (UP_SCALE_BITS, p.up.map(|up| up.scales))];
        for (reg, place) in scales.into_iter().filter_map(|(reg, place)| Some((reg, place?))) {
            if is_new && p.scale == ScaleKind::PerTensor {
                self.e.point(AT, place);
                self.e.scalar_load(reg, behind(AT, 0));
            }
        }
        if part.panels_before == 0 {
            self.block_rows(first, rows, each);
        }
    }

    /// Which of a block's rows the core scales, at most `each`, and their act_scale.
    fn block_rows(&mut self, first: usize, rows: usize, each: usize) {
        let whole = rows / self.slice * self.slice;
        let imm = |value: usize| ScalarOperand::Imm(value as i64);
        // min(each, whole - core · each), at least 0.
        self.e.scalar(ScalarOp::Mul, AT, CORE, ScalarOperand::Imm(-(each as i64)));
        self.e.add(AT, AT, whole as i64);
        self.e.scalar(ScalarOp::Min, AT, AT, imm(each));
        self.e.scalar(ScalarOp::Max, AT, AT, imm(0));
        self.e.scalar(ScalarOp::Div, SLICES, AT, imm(self.slice));
        // 1 for the core that has the last row.
        self.e.scalar(ScalarOp::Xor, AT, CORE, imm((rows - 1) / each));
        self.e.scalar(ScalarOp::Min, AT, AT, imm(1));
        self.e.scalar(ScalarOp::Xor, LAST_SLICE, AT, imm(1));
        self.e.after(Queue::V, Queue::Mte2);
        self.e.point(AT, self.plan.p.act);
        self.e.load(self.at.act_raw, behind(AT, 4 * first), 1, 4 * rows, 0, 0);
        self.e.loaded();
        let raw = self.at.act_raw;
        self.e.each(VecOp::Mul, F32, raw, raw, Second::f32(1.0 / Mode::I8.unit()), rows);
        self.e.spread(self.at.act, raw, rows);
    }

    /// Scales the core's rows of one tile's sums.
    fn scale(&mut self, item: &Item, columns: usize) {
        let Item { part, rows, .. } = *item;
        let (each, slice, is_direct) = (self.plan.each(rows), self.slice, self.plan.is_direct);
        self.e.await_signal(if is_direct { Queue::V } else { Queue::Mte2 }, DONE);
        let p = part.p;
        let by_column = [(self.at.scale, (p.scale == ScaleKind::PerRow).then_some(p.scales)), (self.at.bias, p.bias)];
        let by_column = by_column.into_iter().filter_map(|(to, place)| Some((to, place?)));
        let by_column: Vec<(usize, Place)> = by_column.collect();
        if !by_column.is_empty() {
            self.e.after(Queue::V, Queue::Mte2);
        }
        for (to, place) in &by_column {
            self.e.point(AT, *place);
            self.e.scalar(ScalarOp::Add, AT, AT, ScalarOperand::Reg(COLUMN));
            self.e.load(*to, behind(AT, 0), 1, 4 * columns, 0, 0);
        }
        if !by_column.is_empty() {
            self.e.loaded();
        }
        let residual = p.residual.map(|_| (RESIDUAL_AT, RESIDUAL));
        for (reg, base) in [(SUMS_AT, SUMS), (OUT_AT, OUT)].into_iter().chain(residual) {
            self.e.scalar(ScalarOp::Add, reg, base, ScalarOperand::Reg(COLUMN));
        }
        if is_direct {
            self.e.add(SUMS_AT, Reg::ZERO, self.at.sums as i64);
        }
        // Offsets in UB.
        self.e.scalar(ScalarOp::Mul, ACT_AT, CORE, ScalarOperand::Imm(32 * each as i64));
        self.e.add(ACT_AT, ACT_AT, self.at.act as i64);
        if rows >= slice {
            self.guarded(SLICES, |this| this.slice(part, slice, columns));
        }
        if !rows.is_multiple_of(slice) {
            self.guarded(LAST_SLICE, |this| this.slice(part, rows % slice, columns));
        }
        if is_direct {
            self.e.signal(Queue::Mte3, READ);
        }
        self.e.add(COLUMN, COLUMN, (4 * columns / self.plan.matrices()) as i64);
    }

    /// One slice of `rows` rows.
    fn slice(&mut self, part: &Part, rows: usize, columns: usize) {
        let ([sums_stride, stride], pitch) = (self.pitches(part), 4 * self.plan.columns());
        let is_direct = self.plan.is_direct;
        // What MTE2 loads, and when it may: sums that do not come by themselves, once the last ones are stored.
        let has_residual = part.p.residual.is_some();
        let before = if is_direct { Queue::V } else { Queue::Mte3 };
        if has_residual || !is_direct {
            self.e.wait(before, Queue::Mte2, SLICE);
        }
        if !is_direct {
            self.e.load(self.at.sums, behind(SUMS_AT, 0), rows, 4 * columns, sums_stride, pitch);
        }
        if has_residual {
            self.e.load(self.at.residual, behind(RESIDUAL_AT, 0), rows, 4 * columns, stride, pitch);
        }
        if has_residual || !is_direct {
            self.e.set(Queue::Mte2, Queue::V, SLICE);
            self.e.wait(Queue::Mte2, Queue::V, SLICE);
        }
        let stored = columns / self.plan.matrices();
        for first in (0..columns).step_by(LANES) {
            let of_tensor = if first < stored { SCALE_BITS } else { UP_SCALE_BITS };
            self.arithmetic(&part.p, rows, (first, (columns - first).min(LANES)), of_tensor);
        }
        if part.p.up.is_some() {
            (0..stored).step_by(LANES).for_each(|first| self.gate(rows, [first, stored + first]));
        }
        if is_direct {
            if has_residual {
                self.e.set(Queue::V, Queue::Mte2, SLICE);
            }
            self.e.wait(Queue::Mte3, Queue::V, SLICE);
        }
        self.e.set(Queue::V, Queue::Mte3, SLICE);
        self.e.wait(Queue::V, Queue::Mte3, SLICE);
        let ends = (behind(OUT_AT, 0), self.sums_at().at);
        self.e.copy(CopyPath::UbToGm, ends, (rows, 4 * stored), (pitch, stride));
        self.e.set(Queue::Mte3, if is_direct { Queue::V } else { Queue::Mte2 }, SLICE);
        let sums_stride = if is_direct { pitch } else { sums_stride };
        let residual = has_residual.then_some((RESIDUAL_AT, stride));
        for (reg, stride) in [(SUMS_AT, sums_stride), (OUT_AT, stride)].into_iter().chain(residual) {
            // Within one array.
            self.e.add(reg, reg, (rows * stride) as i64);
        }
        self.e.add(ACT_AT, ACT_AT, 32 * rows as i64);
    }

    /// Where the slice of sums at hand begins in UB.
    fn sums_at(&self) -> Strided {
        let row = self.plan.columns() / 8;
        if self.plan.is_direct { strided(0, 1, row).behind(SUMS_AT) } else { strided(self.at.sums, 1, row) }
    }

    /// `relu²` of the columns from `gate` on, times those from `up` on, in place of the first.
    fn gate(&mut self, rows: usize, [gate, up]: [usize; 2]) {
        let [y, up] = [gate, up].map(|first| self.sums_at().plus(4 * first));
        self.e.vec(VecOp::Max, F32, y, y, Second::f32(0.0), rows, LANES);
        for by in [y, up] {
            self.e.vec(VecOp::Mul, F32, y, y, Second::Vector(by), rows, LANES);
        }
    }

    /// The arithmetic on `lanes` columns from `first` on, a row per repeat, with the scale of a tensor in a register.
    fn arithmetic(&mut self, p: &Product, rows: usize, (first, lanes): (usize, usize), of_tensor: Reg) {
        let y = self.sums_at().plus(4 * first);
        let of = |base: usize, repeat: usize| Second::Vector(strided(base + 4 * first, 1, repeat));
        let (scale, bias, residual) =
            (of(self.at.scale, 0), of(self.at.bias, 0), of(self.at.residual, y.stride.repeat.into()));
        let mut op = |op, types, b: Second| self.e.vec(op, types, y, y, b, rows, lanes);
        op(VecOp::Cast, (ElemType::F32, ElemType::S32), Second::None);
        op(VecOp::Mul, F32, Second::Vector(strided(0, 0, 1).behind(ACT_AT)));
        match p.scale {
            ScaleKind::PerTensor => op(VecOp::Mul, F32, Second::Reg(of_tensor)),
            ScaleKind::PerRow => op(VecOp::Mul, F32, scale),
            ScaleKind::PerGroup { .. } => unreachable!("grouped products run on the vector unit"),
        }
        if p.bias.is_some() {
            op(VecOp::Add, F32, bias);
        }
        if p.residual.is_some() {
            op(VecOp::Add, F32, residual);
        }
    }
}

/// Flag of slot `slot` of a ring.
fn ring(slot: usize) -> u8 {
    // Two slots.
    RING + (slot % SLOTS) as u8
}
