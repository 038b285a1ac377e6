//! The vector cores of a group: each unpacks its rows of every tile as far ahead as the ring allows, and scales the sums of
//! its tiles at the end, those of its last one by themselves or with the others.

use tcc_ir::encoding::w2nz::KR;
use tcc_ir::kernel::ScaleKind;

use super::{ACTIVATIONS, Chunk, Plan};
use crate::isa::matrix::lower::cores::reg;
use crate::isa::matrix::lower::emit::{Emit, F32, S32, Second, Strided, Types, U16, dense, strided};
use crate::isa::matrix::lower::matmul::tile::Mode;
use crate::isa::matrix::lower::model::memories;
use crate::isa::matrix::lower::split::{DONE, FREE, GO, NR, Via};
use crate::isa::matrix::lower::vector::ternary::PANEL;
use crate::isa::matrix::lower::vector::{Place, Space, UbTooSmall, behind};
use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::StartValues;
use crate::isa::matrix::program::addr::{Queue, Reg};
use crate::isa::matrix::program::inst::{CopyPath, Count, FRACTAL, FlagId, Order, ScalarOp, ScalarOperand};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::VecOp;

// The core's number in its group, the group, its first tile, its tiles in slots that are written for the first time, and
// in those written again.
const CORE: Reg = reg(1);
const GROUP: Reg = reg(2);
const FIRST: Reg = reg(3);
const NEW: Reg = reg(4);
const AGAIN: Reg = reg(5);
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
// Bits of the tensor's scale.
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
/// Flag of the late tile's sums.
const LATE_FLAG: u8 = 5;
/// Lanes of 32 bits in a repeat.
const LANES: usize = 64;
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

/// Tiles of a core whose sums are scaled together.
struct Part {
    /// The first tile, tiles that every core has, and true if some have one more.
    first: Reg,
    tiles: usize,
    has_extra: bool,
    /// Flag between queues.
    flag: u8,
    /// Columns of a token's sums in UB, filled up to whole repeats.
    columns: usize,
    sums: usize,
    scale: usize,
    bias: usize,
    residual: usize,
}

impl Part {
    fn new(plan: &Plan, space: &mut Space, is_late: bool) -> Result<Part, UbTooSmall> {
        let (first, tiles, flag) = if is_late { (LATE, 1, LATE_FLAG) } else { (SHARE, plan.common_tiles(), 0) };
        let has_extra = !is_late;
        let columns = (plan.tile.rows * (tiles + usize::from(has_extra))).next_multiple_of(LANES);
        let sums = space.floats(plan.cube_rows() * columns)?;
        let (scale, bias) = (space.floats(columns)?, space.floats(columns)?);
        let residual = space.floats(plan.p.m * columns)?;
        Ok(Part { first, tiles, has_extra, flag, columns, sums, scale, bias, residual })
    }
}

struct Gen<'a> {
    e: &'a mut Emit,
    plan: &'a Plan,
    at: At,
    /// What is scaled, in order.
    parts: Vec<Part>,
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
    let parts = kinds.iter().map(|is_late| Part::new(plan, &mut space, *is_late)).collect::<Result<_, _>>()?;
    Gen { e, plan, at, parts, own }.run();
    let of = |f: &dyn Fn(usize, usize) -> usize| {
        // Tiles of one product: far below 2^63.
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
        let p = self.plan.p;
        if p.scale == ScaleKind::PerTensor {
            self.e.point(AT, p.scales);
            self.e.scalar_load(SCALE_BITS, behind(AT, 0));
        }
        if self.plan.tile.mode == Mode::I4 {
            self.activations();
        }
        let (rows, tile) = (32 * self.own, self.plan.tile_bytes());
        self.e.point(AT, p.w);
        self.e.index(WEIGHTS, AT, CORE, rows);
        self.e.point(AT, p.expanded);
        self.e.index(RING, AT, GROUP, self.plan.slots() * tile);
        self.move_by(RING, CORE, rows);
        self.e.add(TILE, FIRST, 0);
        self.e.add(SLOT, Reg::ZERO, 0);
        // An offset in UB.
        self.e.add(PACKED, Reg::ZERO, self.at.packed as i64);
        for reg in [PACKED_FLAG, UNPACKED, UNPACKED_FLAG] {
            self.e.add(reg, Reg::ZERO, 0);
        }
        match self.plan.tile.via {
            Via::L2 => {
                for (count, is_again) in [(NEW, false), (AGAIN, true)] {
                    self.guarded(count, |this| this.tile(is_again));
                }
            }
            Via::L1 => {
                self.guarded(NEW, |this| this.tile(false));
                (0..self.plan.l1_slots()).for_each(|_| self.e.await_signal(Queue::Mte3, FREE));
            }
        }
        self.finish();
        self.presets(false);
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

    /// Scales the core's share of the group's sums, whole tiles.
    fn finish(&mut self) {
        let p = self.plan.p;
        let parts = std::mem::take(&mut self.parts);
        // Cores without an extra tile scale what is there all the same.
        for part in &parts {
            self.operands(part).into_iter().for_each(|(at, _, rows)| self.e.fill(at, 0, rows * part.columns));
            self.e.fill(part.sums, 0, self.plan.cube_rows() * part.columns);
        }
        self.e.after(Queue::V, Queue::Mte2);
        self.e.point(AT, p.act);
        self.e.load(self.at.act_raw, behind(AT, 0), 1, 4 * p.m, 0, 0);
        // Before the sums are there.
        self.e.loaded();
        let raw = self.at.act_raw;
        self.e.each(VecOp::Mul, F32, raw, raw, Second::f32(1.0 / self.plan.tile.mode.unit()), p.m);
        self.e.spread(self.at.act, raw, p.m);
        for part in &parts {
            self.operands(part).into_iter().for_each(|(at, place, rows)| self.load(part, at, place, rows));
        }
        for part in &parts {
            self.e.await_signal(Queue::Mte2, DONE);
            self.load(part, part.sums, p.sums, self.plan.cube_rows());
            self.e.set(Queue::Mte2, Queue::V, part.flag);
            self.e.wait(Queue::Mte2, Queue::V, part.flag);
            self.arithmetic(part);
            self.e.set(Queue::V, Queue::Mte3, part.flag);
            self.e.wait(Queue::V, Queue::Mte3, part.flag);
            self.shared(part, p.out, |this, to, from, own| {
                this.e.store(behind(AT, to), part.sums + from, p.m, 4 * own, 4 * part.columns, 4 * p.n);
            });
        }
    }

    /// What sums are scaled with: offset in UB, where it comes from, and its rows.
    fn operands(&self, part: &Part) -> Vec<(usize, Place, usize)> {
        let p = self.plan.p;
        let per_row = (p.scale == ScaleKind::PerRow).then_some(p.scales);
        let all = [(part.scale, per_row, 1), (part.bias, p.bias, 1), (part.residual, p.residual, p.m)];
        all.into_iter().filter_map(|(at, place, rows)| Some((at, place?, rows))).collect()
    }

    /// A part's columns of `rows` rows.
    fn load(&mut self, part: &Part, at: usize, place: Place, rows: usize) {
        let n = self.plan.p.n;
        self.shared(part, place, |this, from, to, own| {
            this.e.load(at + to, behind(AT, from), rows, 4 * own, 4 * n, 4 * part.columns);
        });
    }

    /// `body` for a part's tiles that every core scales, and for the one more that some do: bytes behind `AT` and in UB,
    /// and columns.
    fn shared(&mut self, part: &Part, place: Place, body: impl Fn(&mut Self, usize, usize, usize)) {
        let rows = self.plan.tile.rows;
        self.e.point(BY, place);
        self.e.index(AT, BY, part.first, 4 * rows);
        if part.tiles > 0 {
            body(self, 0, 0, part.tiles * rows);
        }
        if part.has_extra {
            let behind = 4 * part.tiles * rows;
            self.guarded(EXTRA, |this| body(this, behind, behind, rows));
        }
    }

    /// A part's sums of all token rows.
    fn arithmetic(&mut self, part: &Part) {
        let (p, y, columns) = (self.plan.p, part.sums, part.columns);
        let count = p.m * columns;
        if self.plan.tile.mode == Mode::I4 {
            self.e.each(VecOp::Shl, S32, y, y, Second::Bits(4), count);
            self.e.each(VecOp::Add, S32, y, y, Second::Vector(dense(y + 4 * count)), count);
            self.by_column(VecOp::Sub, S32, part, y + 8 * count);
        }
        self.e.each(VecOp::Cast, (ElemType::F32, ElemType::S32), y, y, Second::None, count);
        let act = self.at.act;
        self.lines(VecOp::Mul, F32, part, |lines| lines.tokens(act));
        match p.scale {
            ScaleKind::PerTensor => self.e.each(VecOp::Mul, F32, y, y, Second::Reg(SCALE_BITS), count),
            ScaleKind::PerRow => self.by_column(VecOp::Mul, F32, part, part.scale),
            ScaleKind::PerGroup { .. } => unreachable!("grouped products run on the vector unit"),
        }
        if p.bias.is_some() {
            self.by_column(VecOp::Add, F32, part, part.bias);
        }
        if p.residual.is_some() {
            self.e.each2(VecOp::Add, y, y, part.residual, count);
        }
    }

    /// The operation with one row of operands for all tokens.
    fn by_column(&mut self, op: VecOp, types: Types, part: &Part, row: usize) {
        self.lines(op, types, part, |lines| lines.columns(row));
    }

    /// The operation on a part's sums of each token row, with an operand that is not one for each sum: tokens are the
    /// repeats of an instruction, or columns if that makes fewer instructions.
    fn lines(&mut self, op: VecOp, types: Types, part: &Part, second: impl Fn(&Lines) -> Strided) {
        let (m, y, columns) = (self.plan.p.m, part.sums, part.columns);
        let spans = columns / LANES;
        let are_tokens = spans <= m;
        let (count, repeats) = if are_tokens { (spans, m) } else { (m, spans) };
        for index in 0..count {
            let (token, column) = if are_tokens { (0, index * LANES) } else { (index, 0) };
            let lines = Lines { token, column, are_tokens };
            let at = lines.sums(y, columns);
            self.e.vec(op, types, at, at, Second::Vector(second(&lines)), repeats, LANES);
        }
    }
}

/// What one instruction works on: 64 columns from `column` on in the repeats' token rows, or in each repeat the next ones.
struct Lines {
    token: usize,
    column: usize,
    /// True if repeats are token rows, false if they are columns of one.
    are_tokens: bool,
}

impl Lines {
    /// Elements of a `[token][columns]` array.
    fn sums(&self, base: usize, columns: usize) -> Strided {
        let repeat = if self.are_tokens { columns / 8 } else { LANES / 8 };
        strided(base + 4 * (self.token * columns + self.column), 1, repeat)
    }

    /// Elements of one row for all tokens.
    fn columns(&self, base: usize) -> Strided {
        strided(base + 4 * self.column, 1, if self.are_tokens { 0 } else { LANES / 8 })
    }

    /// A block of each token.
    fn tokens(&self, base: usize) -> Strided {
        strided(base + 32 * self.token, 0, usize::from(self.are_tokens))
    }
}
