//! The ternary product on cores that have cube, vector unit and the path from UB to L1.
//!
//! Packed panels stream from global memory to UB, the vector unit unpacks them part by part, parts go to L1 and on to
//! L0B, where they meet the activations that stay in L1 (or L0A). Sums leave L0C for UB, where the vector unit scales
//! them (`epilogue.rs`). Every memory between two pipes is a ring of slots: the consumer waits for a forward flag, the
//! producer for a reverse one, which is set once before anything runs. Slots start over with every panel of outputs, so
//! that the loop over panels has one body; only accumulators alternate, by registers.
//!
//! The epilogue of a panel runs among the unpacking of the next one, so that the vector unit never waits for the cube.
//! Where L0C holds the sums of one panel only, they leave as soon as they are final, span by span, for slots in UB that
//! unpacked parts lend where it has no others; the next panel begins in the spans that are free.

use tcc_ir::kernel::ScaleKind;

use super::flag;
use super::layout::Layout;
use super::regs;
use super::tile::{Rings, Shape, Tile};
use super::{Block, Operands};
use crate::isa::matrix::lower::emit::{Emit, Second, U16, strided};
use crate::isa::matrix::program::addr::Queue;
use crate::isa::matrix::program::inst::{CopyPath, Count, FlagId, Order, ScalarOp, ScalarOperand};
use crate::isa::matrix::program::vec::VecOp;

/// How many panels of outputs a core has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Panels {
    Fixed(usize),
    /// At least two; the register [`regs::MIDDLE`] holds how many are neither first nor last.
    Varying,
}

/// Where in the sequence of panels a body stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub block: usize,
    pub first: bool,
    last: bool,
    /// The block whose last panel is finished meanwhile.
    previous: Option<usize>,
    /// The block that goes on after this panel.
    next: Option<usize>,
}

pub(super) struct Gen<'a> {
    pub e: &'a mut Emit,
    pub shape: Shape,
    pub tile: Tile,
    pub rings: Rings,
    pub at: Layout,
    pub scale: ScaleKind,
    pub operands: Operands,
    pub blocks: Vec<Block>,
    /// `BAR M` between products of one tile of fewer fractals.
    pub bar_m_below: usize,
    /// Next slots.
    pub step_a: usize,
    pub step_b: usize,
    part: usize,
    pub unit: usize,
    pub loaded: usize,
    /// The block whose body lends slots of unpacked parts to the slices that were taken last.
    pub lender: Option<usize>,
    /// The slot of the first slice that was taken last.
    pub shift: usize,
    /// The panel being finished is the last one, which may be ragged.
    pub previous_is_last: bool,
}

impl<'a> Gen<'a> {
    pub(super) fn new(
        e: &'a mut Emit,
        (shape, tile, rings): (Shape, Tile, Rings),
        (scale, operands): (ScaleKind, Operands),
        bar_m_below: usize,
    ) -> Self {
        let at = Layout::new(&shape, &tile, &rings);
        let blocks = super::blocks(&shape, &tile);
        let (step_a, step_b, part, unit, loaded) = (0, 0, 0, 0, 0);
        Gen {
            e,
            shape,
            tile,
            rings,
            at,
            scale,
            operands,
            blocks,
            bar_m_below,
            step_a,
            step_b,
            part,
            unit,
            loaded,
            lender: None,
            shift: 0,
            previous_is_last: false,
        }
    }

    /// The whole product. Registers of [`regs`] hold the addresses of the core's first panel.
    pub(super) fn run(&mut self, panels: Panels) {
        self.presets(true);
        self.clear_padding();
        self.e.add(regs::W, regs::FIRST_W, 0);
        self.e.add(regs::COLUMN, regs::FIRST_COLUMN, 0);
        self.segment_loads(0, 0..1);
        for group in 0..self.packed_slots(0) {
            self.load_packed(group, 0, regs::W);
        }
        let count = self.blocks.len();
        for block in 0..count {
            let previous = block.checked_sub(1);
            let following = (block + 1 < count).then_some(block + 1);
            let place = |first, last, previous, next| Place { block, first, last, previous, next };
            if panels == Panels::Fixed(1) {
                self.body(place(true, true, previous, following));
                continue;
            }
            self.body(place(true, false, previous, Some(block)));
            let middle = match panels {
                Panels::Fixed(n) => Count::Fixed(u32::try_from(n - 2).expect("fewer panels than 2^32")),
                Panels::Varying => Count::Reg(regs::MIDDLE),
            };
            if middle != Count::Fixed(0) {
                self.e.begin(middle);
                self.body(place(false, false, Some(block), Some(block)));
                self.e.end(&[]);
            }
            self.body(place(false, true, Some(block), following));
        }
        self.previous_is_last = true;
        self.previous_addresses(count - 1);
        self.load_columns(count - 1);
        self.lend_rest(count - 1);
        self.finish(count - 1, 0..usize::MAX);
        self.presets(false);
    }

    /// Zeros where L1 holds rows of fractals that no token has. Loads of other blocks may follow in the same slots.
    fn clear_padding(&mut self) {
        let mode = self.shape.mode;
        let mut copies = vec![];
        for (index, block) in self.blocks.iter().enumerate() {
            let rows = block.m * mode.rows();
            let padded = rows.next_multiple_of(16);
            for segment in 0..block.columns.div_ceil(self.at.segment) {
                if padded > rows {
                    let columns = self.at.segment.min(block.columns - segment * self.at.segment);
                    let to = self.at.a(self.segment_slot(index, segment)) + 32 * rows;
                    copies.push((to, columns / mode.strip(), 32 * (padded - rows), 32 * padded));
                }
            }
        }
        if copies.is_empty() {
            return;
        }
        self.e.fill(self.at.zeros, 0, 128);
        self.e.set(Queue::V, Queue::Mte3, flag::START);
        self.e.wait(Queue::V, Queue::Mte3, flag::START);
        for (to, strips, bytes, stride) in copies {
            let pair = (flag::at(to), flag::at(self.at.zeros));
            self.e.copy(CopyPath::UbToL1, pair, (strips, bytes), (0, stride));
        }
        let others: &[Queue] = if self.blocks.len() == 1 { &[Queue::Mte1] } else { &[Queue::Mte1, Queue::Mte2] };
        for &queue in others {
            self.e.set(Queue::Mte3, queue, flag::START);
            self.e.wait(Queue::Mte3, queue, flag::START);
        }
    }

    /// Sets every reverse flag, or takes them back in the end.
    fn presets(&mut self, begin: bool) {
        let r = self.rings;
        let b_only = if self.tile.a_stays { 0 } else { 2 };
        let rings = [
            (Queue::V, Queue::Mte2, flag::PACKED, r.packed),
            (Queue::V, Queue::Mte2, flag::RESIDUAL, r.residual),
            (Queue::V, Queue::Mte2, flag::TABLES, 1),
            (Queue::Mte3, Queue::V, flag::UNPACKED, r.unpacked),
            (Queue::Mte1, Queue::Mte3, flag::B, r.b),
            (Queue::Mte1, Queue::Mte2, flag::A, r.a),
            (Queue::M, Queue::Mte1, flag::L0A, b_only),
            (Queue::M, Queue::Mte1, flag::L0B, 2),
            (Queue::Fix, Queue::M, flag::C, r.c),
            (Queue::Mte3, Queue::Fix, flag::SLICE, r.slices),
        ];
        for (src, dst, base, slots) in rings {
            for slot in 0..slots {
                // At most six flags between two queues.
                let id = base + slot as u8;
                if begin { self.e.set(src, dst, id) } else { self.e.wait(src, dst, id) }
            }
        }
    }

    /// Slots of the ring of packed groups that a body uses.
    fn packed_slots(&self, block: usize) -> usize {
        self.rings.packed.min(self.groups(&self.blocks[block]).len())
    }

    /// The panels along k of a block: first column of the matrix, and columns.
    fn panels_k(&self, block: &Block) -> Vec<(usize, usize)> {
        let range = block.first_k..block.first_k + block.columns;
        self.shape.panel.along_k(self.shape.k).filter(|(first, _)| range.contains(first)).collect()
    }

    /// The panels along k of a block, as they are unpacked together.
    fn groups(&self, block: &Block) -> Vec<Vec<(usize, usize)>> {
        self.panels_k(block).chunks(self.tile.group).map(<[_]>::to_vec).collect()
    }

    /// Loads group `group` of `block` from the row panel at `base`.
    fn load_packed(&mut self, group: usize, block: usize, base: crate::isa::matrix::program::addr::Reg) {
        let panels = &self.groups(&self.blocks[block])[group];
        let (first, columns) = (panels[0].0, panels.iter().map(|(_, columns)| columns).sum::<usize>());
        let (slot, nr) = (group % self.packed_slots(block), self.shape.panel.nr);
        let id = flag::slot(flag::PACKED, slot);
        let (bytes, to) = (columns * nr / 4, self.at.packed(slot));
        self.e.wait(Queue::V, Queue::Mte2, id);
        self.e.load(to, flag::behind(base, first * nr / 4), 1, bytes, 0, 0);
        self.e.set(Queue::Mte2, Queue::V, id);
    }

    /// One panel of outputs against one block of activations.
    fn body(&mut self, place: Place) {
        (self.step_a, self.step_b, self.part, self.unit) = (0, 0, 0, 0);
        self.previous_is_last = place.first;
        self.addresses(&place);
        let block = self.blocks[place.block];
        if place.first && block.first_k == 0 {
            self.load_act_scale(&block);
        }
        if let Some(previous) = place.previous {
            self.load_columns(previous);
        }
        let groups = self.groups(&block);
        let parts = groups.len() * self.shape.mode.parts();
        let slices = place.previous.map_or(0, |p| self.slices(p).len());
        let mut finished = 0;
        if place.first {
            self.begin_segments(&place, &groups[0], true);
        }
        for (g, group) in groups.iter().enumerate() {
            if place.first
                && let Some(next) = groups.get(g + 1)
            {
                self.begin_segments(&place, next, false);
            }
            for part in 0..self.shape.mode.parts() {
                let freed = self.freed(&place);
                self.unpack(g % self.packed_slots(place.block), part, group, freed);
                self.multiply(&place, group, part);
                let done = g * self.shape.mode.parts() + part + 1;
                let due = self.due(done, parts, slices, &block);
                if let Some(previous) = place.previous {
                    self.finish(previous, finished..due);
                }
                finished = due;
            }
            self.refill(&place, g);
            if place.last {
                self.free_segments(&place, group);
            }
        }
        self.e.add(regs::PREVIOUS_C, regs::C, 0);
        self.e.add(regs::PREVIOUS_C_FLAG, regs::C_FLAG, 0);
        self.take_first(place.block, place.last, place.next);
        let sums = self.tile.accumulators();
        if self.rings.c > sums {
            for (reg, by) in [(regs::C, sums * self.at.c_tile()), (regs::C_FLAG, sums)] {
                // Two panels of accumulators: far below 2^63.
                self.e.scalar(ScalarOp::Xor, reg, reg, ScalarOperand::Imm(by as i64));
            }
        }
        self.e.add(regs::PREVIOUS_W, regs::W, 0);
        self.e.add(regs::PREVIOUS_COLUMN, regs::COLUMN, 0);
        self.e.add(regs::W, regs::NEXT_W, 0);
        let column = if place.last { regs::FIRST_COLUMN } else { regs::COLUMN };
        let step = if place.last { 0 } else { 4 * self.shape.panel.nr as i64 };
        self.e.add(regs::COLUMN, column, step);
    }

    /// Registers of the body: the next panel, and the operands of the previous one.
    fn addresses(&mut self, place: &Place) {
        // A row panel is far below 2^63 bytes.
        let step = self.row_panel_bytes() as i64;
        let (from, step) = if place.last { (regs::FIRST_W, 0) } else { (regs::W, step) };
        self.e.add(regs::NEXT_W, from, step);
        if let Some(previous) = place.previous {
            self.previous_addresses(previous);
        }
    }

    pub fn row_panel_bytes(&self) -> usize {
        self.shape.panel.codes_bytes(self.shape.k) + self.shape.panel.sums_bytes()
    }

    /// Flag of the sums of a tile and span, of the panel that `reg` stands for.
    pub fn c_flag(&self, tile: usize, span: usize, reg: crate::isa::matrix::program::addr::Reg) -> FlagId {
        FlagId::Reg { base: flag::slot(flag::C, tile * self.tile.spans + span), reg }
    }

    /// Where those sums lie behind the register of a panel's: spans follow each other, whatever rows a block has.
    pub fn c_offset(&self, block: &Block, tile: usize, span: usize) -> usize {
        let rows = (self.tile_rows(block, tile) * self.shape.mode.rows()).next_multiple_of(16);
        tile * self.tile.spans * self.at.c_tile() + span * rows * self.tile.columns(&self.shape) * 4
    }

    /// Slices of the panel before, of `slices`, that are finished when `done` of `parts` group parts are unpacked.
    fn due(&self, done: usize, parts: usize, slices: usize, block: &Block) -> usize {
        if self.rings.c > self.tile.accumulators() {
            // The cube is behind the vector unit by what the rings hold.
            let held = self.rings.b * self.tile.parts_per_unit(&self.shape) / self.tile.group;
            let delay = (self.rings.unpacked + held + 2).min(parts - 1);
            let rest = parts - delay;
            return (done.saturating_sub(delay).min(rest) * slices).div_ceil(rest);
        }
        let Some(behind) = done.checked_sub(self.parts_before_sums(block)) else { return 0 };
        // Where UB holds them all, only those that lie in others' place are urgent.
        let is_whole = slices <= self.rings.slices + self.rings.lent;
        if is_whole && done < parts { slices.min(1 + self.lent(slices) + behind) } else { slices }
    }

    /// Group parts of a block that are unpacked before the vector unit turns to the sums of the panel before, where the
    /// cube waits for that: as many as L1 and L0B hold, while the scalar unit gets past their products.
    fn parts_before_sums(&self, block: &Block) -> usize {
        let parts = self.groups(block).len() * self.shape.mode.parts();
        self.tile.parts_held(&self.shape).min(self.rings.ahead).min(parts)
    }

    /// How many of a panel's slices take the place of unpacked parts: the last ones to leave L0C. The vector unit
    /// finishes them before it needs that place.
    pub fn lent(&self, slices: usize) -> usize {
        if self.rings.lent > 0 { slices.saturating_sub(self.rings.slices) } else { 0 }
    }

    /// The slot of unpacked parts that the `index`-th such slice of `slices` takes; any, behind the last body.
    pub fn lent_slot(&self, index: usize, slices: usize) -> usize {
        let before = self.lender.map(|block| self.parts_before_sums(&self.blocks[block]) - self.lent(slices));
        (before.unwrap_or(0) + index) % self.rings.unpacked
    }

    /// Whom the next part's slot goes to when L1 has the part: the vector unit, or a slice of sums.
    fn freed(&self, place: &Place) -> (Queue, FlagId) {
        let lent = self.lent(place.previous.map_or(0, |p| self.count(&self.blocks[p])));
        let first = self.parts_before_sums(&self.blocks[place.block]) - lent;
        let (to, id) = match self.part.checked_sub(first).filter(|index| *index < lent) {
            Some(index) => (Queue::Fix, flag::slot(flag::SLICE, self.rings.slices + index)),
            None => (Queue::V, flag::slot(flag::UNPACKED, self.part % self.rings.unpacked)),
        };
        (to, FlagId::Fixed(id))
    }

    /// Slots of unpacked parts for the slices of the last panel.
    fn lend_rest(&mut self, block: usize) {
        for index in 0..self.lent(self.count(&self.blocks[block])) {
            self.e.set(Queue::Mte3, Queue::Fix, flag::slot(flag::SLICE, self.rings.slices + index));
        }
    }

    /// Accumulator tiles of a block.
    pub fn tiles(&self, block: &Block) -> usize {
        block.m.div_ceil(self.tile.tile_m)
    }

    /// Token rows of tile `tile`.
    pub fn tile_rows(&self, block: &Block, tile: usize) -> usize {
        (block.m - tile * self.tile.tile_m).min(self.tile.tile_m)
    }

    /// Refills the slot that group `g` emptied: for this panel of outputs, or for the next one.
    fn refill(&mut self, place: &Place, g: usize) {
        let (count, slots) = (self.groups(&self.blocks[place.block]).len(), self.packed_slots(place.block));
        if g + slots < count {
            self.load_packed(g + slots, place.block, regs::W);
        } else if let Some(next) = place.next.filter(|next| g % slots < self.packed_slots(*next)) {
            self.load_packed(g % slots, next, regs::NEXT_W);
        }
        // A longer block after a shorter one: slots that this one left empty.
        if g + 1 == count {
            let more = place.next.map_or(0, |next| self.packed_slots(next));
            (slots..more).for_each(|group| self.load_packed(group, place.next.unwrap_or(0), regs::NEXT_W));
        }
    }

    /// Loads the segments of activations that begin in a group; a block's first one was loaded before it.
    fn begin_segments(&mut self, place: &Place, group: &[(usize, usize)], is_first: bool) {
        let block = self.blocks[place.block];
        for (first, _) in &group[usize::from(is_first)..] {
            let column = first - block.first_k;
            if column.is_multiple_of(self.at.segment) {
                let segment = column / self.at.segment;
                self.segment_loads(place.block, segment..segment + 1);
            }
        }
    }

    /// Gives the segments that end in a group back, after the block's last panel, and loads the next block's first one.
    fn free_segments(&mut self, place: &Place, group: &[(usize, usize)]) {
        let block = self.blocks[place.block];
        for (first, columns) in group {
            let end = first + columns - block.first_k;
            if !(end.is_multiple_of(self.at.segment) || end == block.columns) {
                continue;
            }
            let segment = (end - 1) / self.at.segment;
            let id = flag::slot(flag::A, self.segment_slot(place.block, segment));
            self.e.set(Queue::Mte1, Queue::Mte2, id);
            // The rest follows as the block needs it.
            if segment == 0 && place.block + 1 < self.blocks.len() {
                self.segment_loads(place.block + 1, 0..1);
            }
        }
    }

    pub fn segment_slot(&self, block: usize, segment: usize) -> usize {
        (block * self.rings.segments + segment) % self.rings.a
    }

    /// Loads segments of the activations of `block` into L1.
    fn segment_loads(&mut self, block: usize, segments: std::ops::Range<usize>) {
        let mode = self.shape.mode;
        for segment in segments {
            let b = self.blocks[block];
            let first = b.first_k + segment * self.at.segment;
            let columns = (b.first_k + b.columns).saturating_sub(first).min(self.at.segment);
            if columns == 0 {
                continue;
            }
            let slot = self.segment_slot(block, segment);
            let id = flag::slot(flag::A, slot);
            let rows = b.m * mode.rows();
            let from = (first / mode.strip() * self.shape.strip_rows() + b.first_m * mode.rows()) * 32;
            let (src, stride) = (flag::behind(regs::Q, from), self.shape.strip_rows() * 32);
            let dst = flag::at(self.at.a(slot));
            self.e.wait(Queue::Mte1, Queue::Mte2, id);
            let to = rows.next_multiple_of(16) * 32;
            self.e.copy(CopyPath::GmToL1, (dst, src), (columns / mode.strip(), rows * 32), (stride, to));
            self.e.set(Queue::Mte2, Queue::Mte1, id);
        }
    }

    /// Unpacks part `part` of the group in a packed slot and sends it to L1, to a unit for each panel; then `freed` has
    /// the slot.
    fn unpack(&mut self, packed_slot: usize, part: usize, group: &[(usize, usize)], freed: (Queue, FlagId)) {
        let (mode, nr) = (self.shape.mode, self.shape.panel.nr);
        let packed = flag::slot(flag::PACKED, packed_slot);
        let slot = self.part % self.rings.unpacked;
        self.part += 1;
        let unpacked = flag::slot(flag::UNPACKED, slot);
        let (from, to) = (self.at.packed(packed_slot), self.at.unpacked(slot));
        if part == 0 {
            self.e.wait(Queue::Mte2, Queue::V, packed);
        }
        self.e.wait(Queue::Mte3, Queue::V, unpacked);
        let all = |offset| strided(offset, 1, 8);
        let repeats = group.iter().map(|(_, columns)| columns * nr / 4).sum::<usize>() / 256;
        let shifted = if part == 0 {
            from
        } else {
            let by = Second::Bits(2 * part as u32);
            self.e.vec(VecOp::Shl, U16, all(to), all(from), by, repeats, 128);
            to
        };
        let mask = Second::Bits(u32::from(mode.mask()));
        self.e.vec(VecOp::And, U16, all(to), all(shifted), mask, repeats, 128);
        if part + 1 == self.shape.mode.parts() {
            self.e.set(Queue::V, Queue::Mte2, packed);
        }
        self.e.set(Queue::V, Queue::Mte3, unpacked);
        self.e.wait(Queue::V, Queue::Mte3, unpacked);
        let parts = self.tile.parts_per_unit(&self.shape);
        let mut from = to;
        for (panel, (_, columns)) in group.iter().enumerate() {
            let unit = (self.unit + panel) % self.rings.b;
            let (b, bytes) = (flag::slot(flag::B, unit), columns * nr / 4);
            if part.is_multiple_of(parts) {
                self.e.wait(Queue::Mte1, Queue::Mte3, b);
            }
            let to = self.at.b(unit) + part % parts * bytes;
            self.e.copy(CopyPath::UbToL1, (flag::at(to), flag::at(from)), (1, bytes), (0, 0));
            from += bytes;
            if part % parts + 1 == parts {
                self.e.set(Queue::Mte3, Queue::Mte1, b);
            }
        }
        self.e.push(Order::Set { src: Queue::Mte3, dst: freed.0, id: freed.1 });
    }
}
