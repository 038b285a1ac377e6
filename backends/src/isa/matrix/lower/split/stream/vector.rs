//! The vector cores of a group: each unpacks its rows of every tile as far ahead as the ring allows, one product's behind the
//! other's, and scales the sums of its tiles at the end (`scale.rs`).

mod scale;

use tcc_ir::encoding::w2nz::KR;

use scale::Batch;

use super::{ACTIVATIONS, Chunk, Plan};
use crate::isa::matrix::lower::cores::reg;
use crate::isa::matrix::lower::emit::{Emit, Second, U16, dense, strided};
use crate::isa::matrix::lower::matmul::tile::Mode;
use crate::isa::matrix::lower::model::memories;
use crate::isa::matrix::lower::split::{FREE, GO, NR, Via};
use crate::isa::matrix::lower::vector::ternary::PANEL;
use crate::isa::matrix::lower::vector::{Space, UbTooSmall, behind};
use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::StartValues;
use crate::isa::matrix::program::addr::{Queue, Reg};
use crate::isa::matrix::program::inst::{CopyPath, Count, FRACTAL, FlagId, Order, ScalarOp, ScalarOperand};
use crate::isa::matrix::program::vec::VecOp;

// The core's number in its group, the group, its first tile, its tiles in slots that are written for the first time, and
// in those written again.
const CORE: Reg = reg(1);
const GROUP: Reg = reg(2);
const FIRST: Reg = reg(3);
const NEW: Reg = reg(4);
const AGAIN: Reg = reg(5);
// Of these, tiles of the product at hand, which has so many from the one at hand on.
const NEW_HERE: Reg = reg(8);
const AGAIN_HERE: Reg = reg(21);
const ROOM: Reg = reg(28);
// Token rows that the core splits, and 1 if it writes the row of eights.
const TOKENS: Reg = reg(6);
const HAS_EIGHTS: Reg = reg(7);
// The first tile that the core scales, 1 if it scales one more than others, and the one that it scales last.
const SHARE: Reg = reg(9);
const EXTRA: Reg = reg(10);
const LATE: Reg = reg(20);
// The core's rows in packed weights and in the ring; the tile and slot at hand, and where they are.
const WEIGHTS: Reg = reg(11);
const RING: Reg = reg(12);
const TILE: Reg = reg(13);
const SLOT: Reg = reg(14);
const W: Reg = reg(15);
const EXPANDED: Reg = reg(16);
const AT: Reg = reg(17);
// Codes of the token row at hand, and where its nibbles go.
const CODES: Reg = reg(18);
const NIBBLES: Reg = reg(19);
// Bits of a tensor's scale.
const SCALE_BITS: Reg = reg(22);
const BY: Reg = reg(23);
// The slot of packed weights at hand, and the number of its flag.
const PACKED: Reg = reg(24);
const PACKED_FLAG: Reg = reg(25);
// The same of unpacked weights, where a tile fills half of the slots.
const UNPACKED: Reg = reg(26);
const UNPACKED_FLAG: Reg = reg(27);

/// First flag of the rings; 0 is for plain order.
const RING_FLAG: u8 = 1;
/// Slots of packed weights in UB, and of unpacked ones.
const PACKED_SLOTS: usize = 2;
const UNPACKED_SLOTS: usize = 4;

struct At {
    packed: usize,
    unpacked: usize,
    slot: usize,
    /// Codes of a token, and what they are split with.
    codes: usize,
    split: [usize; 3],
    /// Scales of the token rows, and a block of each.
    act_raw: usize,
    act: usize,
}

struct Gen<'a> {
    e: &'a mut Emit,
    plan: &'a Plan,
    at: At,
    /// What is scaled, in order.
    batches: Vec<Batch>,
    /// Rows of a tile that are the core's.
    own: usize,
}

/// Writes the stream.
pub(super) fn emit(e: &mut Emit, machine: &Machine, plan: &Plan) -> Result<Vec<StartValues>, UbTooSmall> {
    let own = plan.own();
    let mut space = Space::new(memories(machine).ub);
    let slot = plan.chunks().iter().map(|chunk| chunk.bytes(own)).max().unwrap_or(0);
    let halves = if plan.tile.mode == Mode::I4 { plan.p.k.next_multiple_of(PANEL.kp) / 2 } else { 0 };
    let at = At {
        packed: space.take(PACKED_SLOTS * slot)?,
        unpacked: space.take(UNPACKED_SLOTS * slot)?,
        slot,
        codes: space.take(2 * halves)?,
        split: [space.take(halves)?, space.take(halves)?, space.take(halves)?],
        act_raw: space.floats(plan.p.m)?,
        act: space.floats(8 * plan.p.m)?,
    };
    let kinds = if plan.tile.early { &[false, true][..] } else { &[false] };
    let batches = kinds.iter().map(|is_late| Batch::new(plan, &mut space, *is_late)).collect::<Result<_, _>>()?;
    Gen { e, plan, at, batches, own }.run();
    let of = |f: &dyn Fn(usize, usize) -> usize| {
        // Tiles of a few products: far below 2^63.
        (0..plan.groups * plan.per).map(|core| f(core % plan.per, core / plan.per) as i64).collect::<Vec<i64>>()
    };
    let mut start = vec![
        StartValues { reg: CORE, values: of(&|core, _| core) },
        StartValues { reg: GROUP, values: of(&|_, group| group) },
        StartValues { reg: FIRST, values: of(&|_, group| plan.first(group)) },
        StartValues { reg: NEW, values: of(&|_, group| plan.kept(group)) },
        StartValues { reg: AGAIN, values: of(&|_, group| plan.count(group) - plan.kept(group)) },
        StartValues { reg: SHARE, values: of(&|core, group| plan.share(group, core).0) },
        StartValues { reg: EXTRA, values: of(&|core, group| plan.share(group, core).1 - plan.common_tiles()) },
    ];
    if plan.tile.early {
        let late = |core: usize, group: usize| plan.first(group + 1) - plan.late() + core;
        start.push(StartValues { reg: LATE, values: of(&late) });
    }
    if plan.tile.mode == Mode::I4 {
        // Token rows and the row of eights go round among all cores.
        let (per, cores, m) = (plan.per, plan.groups * plan.per, plan.p.m);
        let tokens = |core: usize, group: usize| m.saturating_sub(group * per + core).div_ceil(cores);
        start.push(StartValues { reg: TOKENS, values: of(&tokens) });
        let has_eights = |core: usize, group: usize| usize::from(m % cores == group * per + core);
        start.push(StartValues { reg: HAS_EIGHTS, values: of(&has_eights) });
    }
    Ok(start)
}

/// Flag of a slot of unpacked weights.
fn flag(slot: usize) -> u8 {
    // Four slots.
    RING_FLAG + (slot % UNPACKED_SLOTS) as u8
}

impl Gen<'_> {
    fn run(&mut self) {
        self.presets(true);
        let (plan, p) = (self.plan, self.plan.p);
        if !plan.has_scale_row() {
            self.scale_bits(&p);
        }
        if plan.tile.mode == Mode::I4 {
            self.activations();
        }
        self.e.point(AT, p.expanded);
        self.e.index(RING, AT, GROUP, plan.slots() * plan.tile_bytes());
        self.move_by(RING, CORE, 32 * self.own);
        self.e.add(SLOT, Reg::ZERO, 0);
        // An offset in UB.
        self.e.add(PACKED, Reg::ZERO, self.at.packed as i64);
        for reg in [PACKED_FLAG, UNPACKED, UNPACKED_FLAG] {
            self.e.add(reg, Reg::ZERO, 0);
        }
        self.tiles();
        if plan.tile.via == Via::L1 {
            (0..plan.l1_slots()).for_each(|_| self.e.await_signal(Queue::Mte3, FREE));
        }
        self.finish();
        self.presets(false);
    }

    /// The group's tiles, one product's behind the other's: slots go round among those of all.
    fn tiles(&mut self) {
        self.e.add(TILE, FIRST, 0);
        let parts = &self.plan.parts;
        for (index, part) in parts.iter().enumerate() {
            self.e.point(AT, part.p.w);
            self.e.index(WEIGHTS, AT, CORE, 32 * self.own);
            let mut counts = [NEW, AGAIN];
            let is_last = index + 1 == parts.len();
            if !is_last {
                let tiles = self.plan.tiles_of(part);
                self.e.room(ROOM, TILE, tiles);
                self.e.scalar(ScalarOp::Min, NEW_HERE, NEW, ScalarOperand::Reg(ROOM));
                self.e.scalar(ScalarOp::Sub, ROOM, ROOM, ScalarOperand::Reg(NEW_HERE));
                self.e.scalar(ScalarOp::Min, AGAIN_HERE, AGAIN, ScalarOperand::Reg(ROOM));
                counts = [NEW_HERE, AGAIN_HERE];
            }
            self.guarded(counts[0], |this| this.tile(false));
            if self.plan.tile.via == Via::L2 {
                self.guarded(counts[1], |this| this.tile(true));
            }
            if !is_last {
                for (reg, here) in [(NEW, NEW_HERE), (AGAIN, AGAIN_HERE)] {
                    self.e.scalar(ScalarOp::Sub, reg, reg, ScalarOperand::Reg(here));
                }
                self.e.add(TILE, TILE, -(self.plan.tiles_of(part) as i64));
            }
        }
    }

    fn presets(&mut self, begin: bool) {
        let rings = [(Queue::V, Queue::Mte2, PACKED_SLOTS), (Queue::Mte3, Queue::V, UNPACKED_SLOTS)];
        for (src, dst, slots) in rings {
            for i in 0..slots {
                if begin { self.e.set(src, dst, flag(i)) } else { self.e.wait(src, dst, flag(i)) }
            }
        }
    }

    /// `reg += index · bytes`.
    fn move_by(&mut self, reg: Reg, index: Reg, bytes: usize) {
        self.e.index(BY, reg, index, bytes);
        self.e.add(reg, BY, 0);
    }

    /// `body` as often as the register says.
    fn guarded(&mut self, count: Reg, body: impl Fn(&mut Self)) {
        self.e.begin(Count::Reg(count));
        body(self);
        self.e.end(&[]);
    }

    /// Splits the codes of the core's token rows in nibbles, and may write the row of eights.
    fn activations(&mut self) {
        let (cores, row) = (self.plan.groups * self.plan.per, 32);
        self.e.point(CODES, self.plan.p.q);
        self.e.point(NIBBLES, self.plan.activations());
        for (reg, bytes) in [(CODES, 32), (NIBBLES, row)] {
            self.move_by(reg, GROUP, bytes * self.plan.per);
            self.move_by(reg, CORE, bytes);
        }
        self.guarded(TOKENS, |this| {
            this.split();
            // Rows of one array.
            this.e.add(CODES, CODES, (32 * cores) as i64);
            this.e.add(NIBBLES, NIBBLES, (row * cores) as i64);
        });
        self.guarded(HAS_EIGHTS, Self::eights);
        self.e.signal(Queue::Mte3, ACTIVATIONS);
    }

    /// Rows of high nibbles and of low ones of the token at hand.
    fn split(&mut self) {
        let k = self.plan.p.k.next_multiple_of(KR);
        let [high, low, _] = self.at.split;
        let stride = 32 * self.plan.p.m.next_multiple_of(FRACTAL as usize);
        self.e.load(self.at.codes, behind(CODES, 0), k / 32, 32, stride, 32);
        self.e.loaded();
        let (whole, rest) = (k / PANEL.kp, k % PANEL.kp);
        if whole > 0 {
            self.nibbles((0, PANEL.kp), PANEL.kp / 32, whole);
        }
        if rest > 0 {
            self.nibbles((k - rest, rest), 0, 1);
        }
        self.e.computed();
        self.store_row(high, 0);
        self.store_row(low, 32 * self.plan.p.m);
        self.e.stored();
    }

    /// Nibbles of `count` runs of `columns` columns from column `first` on, `blocks` blocks of codes apart.
    fn nibbles(&mut self, (first, columns): (usize, usize), blocks: usize, count: usize) {
        let (half, lanes) = (columns / 2, columns / 4);
        // Parts 0 and 1 of each run become high nibbles of bytes, parts 2 and 3 low ones.
        let of = |at: usize| strided(at + first, 1, blocks);
        let (upper, lower) = (of(self.at.codes), of(self.at.codes + half));
        let [high, low, scratch] = self.at.split.map(|at| strided(at + first / 2, 1, blocks / 2));
        let mut op = |op, dst, a, b| self.e.vec(op, U16, dst, a, b, count, lanes);
        let bits = Second::Bits;
        op(VecOp::Shr, scratch, lower, bits(4));
        op(VecOp::And, scratch, scratch, bits(0x0f0f));
        op(VecOp::And, high, upper, bits(0xf0f0));
        op(VecOp::Or, high, high, Second::Vector(scratch));
        op(VecOp::Shl, scratch, upper, bits(4));
        op(VecOp::And, scratch, scratch, bits(0xf0f0));
        op(VecOp::And, low, lower, bits(0x0f0f));
        op(VecOp::Or, low, low, Second::Vector(scratch));
        // Low nibbles count from -8.
        op(VecOp::Xor, low, low, bits(0x8888));
    }

    /// A row of -8, whose sums are -8 Σ w.
    fn eights(&mut self) {
        let [high, ..] = self.at.split;
        self.e.fill(high, 0x8888_8888, 8 * self.plan.strips());
        self.e.computed();
        // Behind those of all tokens.
        self.e.point(NIBBLES, self.plan.activations());
        self.store_row(high, 64 * self.plan.p.m);
        self.e.stored();
    }

    /// A row of the cube's activations, so many bytes behind the token's first. High nibbles of all tokens
    /// come first, then low ones, then the row of eights.
    fn store_row(&mut self, from: usize, bytes: usize) {
        let pitch = 32 * self.plan.cube_rows();
        self.e.store(behind(NIBBLES, bytes), from, self.plan.strips(), 32, 32, pitch);
    }

    /// The core's rows of a tile, unpacked into its slot.
    fn tile(&mut self, is_again: bool) {
        let tiles = (NR / self.plan.tile.rows) as i64;
        self.e.scalar(ScalarOp::Div, AT, TILE, ScalarOperand::Imm(tiles));
        self.e.index(W, WEIGHTS, AT, PANEL.codes_bytes(self.plan.p.k));
        self.e.scalar(ScalarOp::Rem, AT, TILE, ScalarOperand::Imm(tiles));
        self.move_by(W, AT, 32 * self.plan.tile.rows);
        let via = self.plan.tile.via;
        if via == Via::L2 {
            self.e.scalar(ScalarOp::Rem, AT, SLOT, ScalarOperand::Imm(self.plan.slots() as i64));
            self.e.index(EXPANDED, RING, AT, self.plan.tile_bytes());
        }
        if is_again {
            self.e.await_signal(Queue::Mte3, FREE);
        }
        let mut unpacked = 0;
        for chunk in self.plan.chunks() {
            if via == Via::L1 {
                self.l1_slot();
            }
            self.unpack(&chunk, &mut unpacked);
            if via == Via::L1 {
                self.e.signal(Queue::Mte3, GO);
            }
        }
        if via == Via::L2 {
            self.e.signal(Queue::Mte3, GO);
        }
        // Two parts use half of the slots: the next tile uses the other one.
        let moved = if 2 * unpacked == UNPACKED_SLOTS { unpacked } else { 0 };
        for (reg, by) in [(UNPACKED, moved * self.at.slot), (UNPACKED_FLAG, moved)] {
            self.e.scalar(ScalarOp::Xor, reg, reg, ScalarOperand::Imm(by as i64));
        }
        self.e.add(TILE, TILE, 1);
        if via == Via::L2 {
            self.e.add(SLOT, SLOT, 1);
        }
    }

    /// The next slot in L1, behind the activations, and the core's rows of it; once it is free.
    fn l1_slot(&mut self) {
        self.e.index(EXPANDED, Reg::ZERO, SLOT, self.plan.l1_slot_bytes());
        self.move_by(EXPANDED, CORE, 32 * self.own);
        self.e.next(SLOT, self.plan.l1_slots());
        self.e.await_signal(Queue::Mte3, FREE);
    }

    /// The core's rows of a chunk. Slots of packed weights alternate by registers, for tiles may have an odd number of
    /// chunks; those of unpacked ones where a tile has but two parts.
    fn unpack(&mut self, chunk: &Chunk, unpacked: &mut usize) {
        let (mode, row) = (self.plan.tile.mode, 32 * self.own);
        let packed = dense(0).behind(PACKED);
        let strips = chunk.strips();
        let id = FlagId::Reg { base: RING_FLAG, reg: PACKED_FLAG };
        self.e.push(Order::Wait { src: Queue::V, dst: Queue::Mte2, id });
        let from = NR * chunk.first / PANEL.parts;
        let rows = chunk.runs * strips;
        self.e.copy(CopyPath::GmToUb, (behind(PACKED, 0), behind(W, from)), (rows, row), (32 * NR, row));
        self.e.push(Order::Set { src: Queue::Mte2, dst: Queue::V, id });
        self.e.push(Order::Wait { src: Queue::Mte2, dst: Queue::V, id });
        let repeats = chunk.bytes(self.own) / 256;
        for part in 0..mode.parts() {
            let free = FlagId::Reg { base: flag(*unpacked), reg: UNPACKED_FLAG };
            let slot = self.at.unpacked + *unpacked % UNPACKED_SLOTS * self.at.slot;
            let to = dense(slot).behind(UNPACKED);
            self.e.push(Order::Wait { src: Queue::Mte3, dst: Queue::V, id: free });
            let mut source = packed;
            if part > 0 {
                // Two bits a part.
                let by = Second::Bits(2 * part as u32);
                self.e.vec(VecOp::Shl, U16, to, packed, by, repeats, 128);
                source = to;
            }
            let mask = Second::Bits(u32::from(mode.mask()));
            self.e.vec(VecOp::And, U16, to, source, mask, repeats, 128);
            if part + 1 == mode.parts() {
                self.e.push(Order::Set { src: Queue::V, dst: Queue::Mte2, id });
            }
            self.e.push(Order::Set { src: Queue::V, dst: Queue::Mte3, id: free });
            self.e.push(Order::Wait { src: Queue::V, dst: Queue::Mte3, id: free });
            let (path, first) = match self.plan.tile.via {
                Via::L2 => (CopyPath::UbToGm, self.plan.strips_of(chunk).0 * 32 * self.plan.tile.rows),
                Via::L1 => (CopyPath::UbToL1, self.plan.activations_l1_bytes()),
            };
            for run in 0..chunk.runs {
                let strip = run * chunk.columns / mode.strip() + part * strips;
                let to = first + strip * 32 * self.plan.tile.rows;
                let ends = (behind(EXPANDED, to), behind(UNPACKED, slot + run * strips * row));
                self.e.copy(path, ends, (strips, row), (row, 32 * self.plan.tile.rows));
            }
            self.e.push(Order::Set { src: Queue::Mte3, dst: Queue::V, id: free });
            *unpacked += 1;
        }
        for (reg, by) in [(PACKED, self.at.slot), (PACKED_FLAG, 1)] {
            self.e.scalar(ScalarOp::Xor, reg, reg, ScalarOperand::Imm(by as i64));
        }
    }
}

impl Emit {
    /// `room` = tiles of a product of `tiles` tiles from number `first` on; 0 behind the last.
    fn room(&mut self, room: Reg, first: Reg, tiles: usize) {
        self.scalar(ScalarOp::Mul, room, first, ScalarOperand::Imm(-1));
        self.add(room, room, tiles as i64);
        self.scalar(ScalarOp::Max, room, room, ScalarOperand::Imm(0));
    }
}
