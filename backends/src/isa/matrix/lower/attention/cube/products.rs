//! The cube's side: scores and values of the tiles that a group works on.
//!
//! The two planes of a tile's query codes are rows of L0A while its scores are summed, high ones first; rows of keys, as they
//! lie in the cache, are columns. For values a product needs the positions of an element side by side, and no load turns
//! bytes. So the cube does: the identity times rows of values is `s32[element, position]`, which leaves L0C as s8, and goes by
//! L1 back to L0B. The two planes of the codes of weights are rows of L0A then, and their sums stay in L0C until the pass is
//! over: they are exact in s32.

use super::items::{AT, FREE, GROUP, HEADS, SCRATCH, Step, V, pass};
use super::plan::{Cores, IDENTITY, POSITIONS, Plan, SLOTS, STRIP, TURNED_STRIP};
use super::{DONE, GO, READ, Side, TAKEN, flag};
use crate::isa::matrix::lower::cores::reg;
use crate::isa::matrix::lower::emit::Emit;
use crate::isa::matrix::lower::vector::{MASK_ZEROS, Tables, behind};
use crate::isa::matrix::program::addr::{Addr, Queue, Reg};
use crate::isa::matrix::program::inst::{
    Copy, CopyForm, CopyPath, CrossMode, Fix, FixLayout, FixPath, FixScale, LoadL0, Mmad, MmadInit, Order, Quant,
    ScalarOp, ScalarOperand, Side as Operand, UnitFlag, Work,
};
use crate::isa::matrix::program::ty::{CubeType, ElemType};

/// Rows of keys or values of each tile of the group.
const ROWS_AT: [Reg; 2] = [reg(FREE), reg(FREE + 1)];
// On split machines: the scratch of each vector core, and which slots are next.
const CORE_AT: [Reg; 2] = [reg(FREE + 2), reg(FREE + 3)];
const RING: Reg = reg(FREE + 4);
const PLANES: Reg = reg(FREE + 5);
/// Bytes in L1 in front of the turned values at hand, where all are turned ahead.
const TURNED: Reg = reg(FREE + 6);

/// A fixed address in a local memory.
pub fn at(offset: usize) -> Addr {
    // Local memories are far below 2^26 bytes.
    Addr::at(offset as i32)
}

/// Loads `rows` rows of `strips` strips, in fractals at `src` in L1, to a place in L0A or L0B.
fn load_operand(e: &mut Emit, (side, dst): (Operand, usize), src: Addr, (rows, strips): (usize, usize)) {
    // Sizes of L0: below 65536 fractals.
    e.push(Work::LoadL0(LoadL0 {
        side,
        dst: at(dst),
        src,
        rows: (rows / 16) as u16,
        cols: strips as u16,
        src_stride: (rows * STRIP) as u32,
        transpose: false,
    }));
}

/// A product of `m` rows in L0A, `n` columns in L0B and `k` bytes of each, at `c`, `a` and `b`.
fn multiply(e: &mut Emit, [c, a, b]: [usize; 3], [m, k, n]: [usize; 3], init: MmadInit) {
    // Rows of a tile and elements of a head: within the fields.
    e.push(Work::Mmad(Mmad {
        ty: CubeType::S8,
        c: at(c),
        a: at(a),
        b: at(b),
        m: m as u16,
        k: k as u16,
        n: n as u16,
        init,
        unit_flag: UnitFlag::Off,
    }));
}

/// Sums `s32[m, n]` at `src` in L0C, whose columns of fractals are `columns` bytes apart, out of it.
fn out(
    e: &mut Emit,
    (path, dst, stride): (FixPath, Addr, usize),
    (src, columns): (usize, usize),
    [m, n]: [usize; 2],
    (quant, layout): (Quant, FixLayout),
) {
    e.push(Work::Fix(Fix {
        path,
        dst,
        src: at(src),
        m: m as u16,
        n: n as u16,
        from: ElemType::S32,
        src_stride: columns as u32,
        dst_stride: stride as u32,
        quant,
        scale: FixScale::Tile(1.0),
        relu: false,
        layout,
        unit_flag: UnitFlag::Off,
    }));
}

/// From global memory to L1.
fn to_l1(
    e: &mut Emit,
    form: CopyForm,
    (dst, src): (usize, Addr),
    (rows, row_bytes): (usize, usize),
    (from, to): (usize, usize),
) {
    // Rows of a cache and of a tile: within the fields.
    e.push(Work::Copy(Copy {
        path: CopyPath::GmToL1,
        form,
        dst: at(dst),
        src,
        rows: rows as u16,
        row_bytes: row_bytes as u32,
        src_stride: from as u32,
        dst_stride: to as u32,
    }));
}

/// Slots between queues, `(src, dst, flag)`: set the one way when they are full, the other way when they are free.
fn rings(is_split: bool) -> Vec<(Queue, Queue, u8)> {
    use Queue::{Fix, M, Mte1, Mte2, Mte3};
    let slots = |src, dst, first: u8| (0..SLOTS as u8).map(move |slot| (src, dst, first + slot));
    let both = slots(Mte2, Mte1, flag::ROWS).chain(slots(Mte1, M, flag::ROWS)).chain(slots(M, Fix, flag::ROWS));
    let weights = [(Mte1, M, flag::WEIGHTS), (M, Fix, flag::TURNED)];
    let own = match is_split {
        true => vec![(Fix, Mte1, flag::TURNED), (Fix, Mte1, flag::TURNED + 1), (Mte2, Mte1, flag::WEIGHTS)],
        false => vec![(Fix, Mte3, flag::TURNED), (Mte3, Mte1, flag::TURNED), (Mte3, Mte1, flag::WEIGHTS)],
    };
    both.chain(weights).chain(own).collect()
}

/// Says that all slots are free, or waits until they are.
pub fn presets(e: &mut Emit, is_split: bool, is_start: bool) {
    for (src, dst, id) in rings(is_split) {
        if is_start { e.set(dst, src, id) } else { e.wait(dst, src, id) }
    }
}

/// Waits until the slot between two queues is free, writes it, and lets the next queue go on.
fn through(e: &mut Emit, (src, dst, id): (Queue, Queue, u8), write: impl FnOnce(&mut Emit)) {
    e.wait(dst, src, id);
    write(e);
    e.set(src, dst, id);
    e.wait(src, dst, id);
}

fn free(e: &mut Emit, (src, dst, id): (Queue, Queue, u8)) {
    e.set(dst, src, id);
}

/// The flag of a slot of two.
fn slot_flag(slot: usize) -> u8 {
    flag::ROWS + (slot % SLOTS) as u8
}

/// Before all tiles: what stays in front of L1 and of L0A.
pub fn begin(e: &mut Emit, plan: &Plan, tables: &Tables, is_split: bool) {
    e.point(AT, tables.identity);
    to_l1(e, CopyForm::Linear, (0, behind(AT, 0)), (1, IDENTITY), (0, 0));
    e.after(Queue::Mte2, Queue::Mte1);
    load_operand(e, (Operand::A, 0), at(0), (STRIP, 1));
    if is_split {
        for (sub, reg) in (0..plan.cores.together()).zip(CORE_AT) {
            e.scalar(ScalarOp::Mul, AT, GROUP, ScalarOperand::Imm(plan.cores.together() as i64));
            e.add(AT, AT, sub as i64);
            e.index(reg, SCRATCH, AT, plan.core_bytes());
        }
    }
}

impl Side<'_> {
    /// Tiles that are multiplied at the same time.
    pub fn tiles(&self) -> std::ops::Range<usize> {
        0..self.plan.cores.together()
    }

    /// Rows of both planes in L0A.
    fn both(&self) -> usize {
        2 * self.set.placed.tile.padded()
    }

    /// Before the tiles of a set: zeros in L1.
    pub fn begin_cube(&self, e: &mut Emit) {
        let (l1, row) = (&self.set.placed.l1, 4 * MASK_ZEROS);
        e.after(Queue::Mte1, Queue::Mte2);
        e.point(AT, self.tables.mask);
        let bytes = l1.zeros_bytes(&self.set.placed.tile);
        for (first, rows, bytes) in [(0, bytes / row, row), (bytes / row * row, 1, bytes % row)] {
            if rows * bytes > 0 {
                to_l1(e, CopyForm::Linear, (l1.zeros + first, behind(AT, 0)), (rows, bytes), (0, bytes));
            }
        }
        e.after(Queue::Mte2, Queue::Mte1);
    }

    /// Brings the query codes of the tiles to L0A. On a coupled core they are in L1 already.
    pub fn load_codes(&self, e: &mut Emit) {
        let (l1, tile) = (&self.set.placed.l1, &self.set.placed.tile);
        let (pitch, both) = (self.pitch(), self.both());
        if self.is_split {
            // The tiles before are through with L1.
            e.after(Queue::Mte1, Queue::Mte2);
            e.push(Order::XWait { queue: Queue::Mte2, mode: CrossMode::Group, id: GO });
            for (sub, core) in self.tiles().zip(CORE_AT) {
                let (rows, bytes) = (2 * pitch / STRIP, STRIP * tile.queries());
                let from = behind(core, self.set.placed.scratch.codes);
                to_l1(e, CopyForm::Linear, (l1.codes(sub), from), (rows, bytes), (bytes, STRIP * tile.padded()));
            }
            e.after(Queue::Mte2, Queue::Mte1);
        } else {
            e.wait(Queue::Mte3, Queue::Mte1, flag::CODES);
        }
        // The tiles before are through with L0A and L0C.
        e.after(Queue::M, Queue::Mte1);
        e.after(Queue::Fix, Queue::M);
        for sub in self.tiles() {
            let to = IDENTITY + both * pitch * sub;
            load_operand(e, (Operand::A, to), at(l1.codes(sub)), (both, pitch / STRIP));
        }
    }

    /// A cube core's pass over the rows of `cache` of its tiles.
    pub fn cube_pass(&self, e: &mut Emit, cache: Reg, body: impl Fn(&mut Emit, Step)) {
        let registers = self.rows_from(e, cache);
        pass(e, &self.set.placed.tile, &registers, |_| (), body);
    }

    /// A cube core's first rows of `cache` for each of its tiles.
    fn rows_from(&self, e: &mut Emit, cache: Reg) -> Vec<(Reg, i32)> {
        let of = |(sub, reg)| {
            self.plan.tile(e, self.set, ScalarOperand::Imm(sub as i64));
            self.plan.kv_head(e, self.a);
            self.rows_of(e, cache, reg, sub)
        };
        self.tiles().zip(ROWS_AT).map(of).collect()
    }

    /// A coupled core's first row of `cache`.
    pub fn own_rows(&self, e: &mut Emit, cache: Reg) -> (Reg, i32) {
        self.rows_of(e, cache, ROWS_AT[0], 0)
    }

    /// Points `reg` at the first row of the KV head of `cache` that tile `sub` has; says how far it advances for each unit.
    fn rows_of(&self, e: &mut Emit, cache: Reg, reg: Reg, sub: usize) -> (Reg, i32) {
        let unit = POSITIONS * self.a.cache.row_bytes();
        e.index(reg, cache, HEADS, self.a.cache.head_bytes());
        if let Some((cut, _)) = &self.plan.cut {
            cut.first_unit(e, AT, &self.set.placed.tile, ScalarOperand::Imm(sub as i64));
            e.index(AT, reg, AT, unit);
            e.add(reg, AT, 0);
        }
        // A unit's rows.
        (reg, unit as i32)
    }

    /// Brings the rows of a unit of tile `sub` to a slot of L0B, as columns.
    fn rows_to_cube(&self, e: &mut Emit, sub: usize, unit: usize, slot: usize) {
        let (cache, l1) = (&self.a.cache, &self.set.placed.l1);
        let (slot, id) = (slot % SLOTS, slot_flag(slot));
        through(e, (Queue::Mte2, Queue::Mte1, id), |e| {
            let from = behind(ROWS_AT[sub], unit * POSITIONS * cache.row_bytes());
            let rows = (POSITIONS, cache.d);
            to_l1(e, CopyForm::Nz, (l1.rows(slot), from), rows, (cache.row_bytes(), POSITIONS * STRIP));
        });
        through(e, (Queue::Mte1, Queue::M, id), |e| {
            let strips = self.pitch() / STRIP;
            load_operand(e, (Operand::B, self.rows_in_l0b(slot)), at(l1.rows(slot)), (POSITIONS, strips));
        });
        free(e, (Queue::Mte2, Queue::Mte1, id));
    }

    fn rows_in_l0b(&self, slot: usize) -> usize {
        slot % SLOTS * POSITIONS * self.pitch()
    }

    fn turned_in_l0b(&self) -> usize {
        self.rows_in_l0b(0) + SLOTS * POSITIONS * self.pitch()
    }

    /// Sums of the scores of a step, both planes.
    pub fn scores(&self, e: &mut Emit, step: Step) {
        let (placed, both, pitch) = (&self.set.placed, self.both(), self.pitch());
        let slot_bytes = 4 * both * POSITIONS;
        if self.is_split {
            e.push(Order::XWait { queue: Queue::Fix, mode: CrossMode::Group, id: READ });
        } else {
            e.wait(Queue::V, Queue::Fix, flag::SUMS);
        }
        for (index, (sub, unit)) in
            self.tiles().flat_map(|sub| (0..step.units).map(move |unit| (sub, unit))).enumerate()
        {
            self.rows_to_cube(e, sub, unit, index);
            let (c, id) = (index % placed.l0c.slots, slot_flag(index % placed.l0c.slots));
            through(e, (Queue::M, Queue::Fix, id), |e| {
                let codes = IDENTITY + both * pitch * sub;
                let operands = [c * slot_bytes, codes, self.rows_in_l0b(index)];
                multiply(e, operands, [both, pitch, POSITIONS], MmadInit::Zero);
            });
            free(e, (Queue::Mte1, Queue::M, slot_flag(index)));
            for plane in 0..2 {
                let src = (c * slot_bytes + plane * both / 2 * 64, 64 * both);
                let to = plane * placed.tile.array() + 4 * unit * placed.tile.pairs();
                let (path, dst) = if self.is_split && !self.plan.cores.is_direct {
                    e.index(AT, CORE_AT[sub], RING, placed.scratch.ring_bytes);
                    (FixPath::Gm, behind(AT, placed.scratch.ring + to))
                } else {
                    (FixPath::UBS[sub], at(placed.ub.cube_sums + to))
                };
                let shape = [placed.tile.queries(), POSITIONS];
                out(e, (path, dst, 4 * POSITIONS), src, shape, (Quant::Keep, FixLayout::RowMajor));
            }
            free(e, (Queue::M, Queue::Fix, id));
        }
        if self.is_split {
            e.push(Order::XSet { queue: Queue::Fix, mode: CrossMode::Group, id: DONE });
            e.scalar(ScalarOp::Xor, RING, RING, ScalarOperand::Imm(1));
        } else {
            e.set(Queue::Fix, Queue::V, flag::SUMS);
        }
    }

    /// Sums of values of zero.
    pub fn clear_sums(&self, e: &mut Emit) {
        let (placed, both, pitch) = (&self.set.placed, self.both(), self.pitch());
        // Scores are through with L0A and with L0C.
        e.after(Queue::M, Queue::Mte1);
        e.after(Queue::Fix, Queue::M);
        if !self.is_split {
            // Weights are through with the place of turned values.
            e.after(Queue::V, Queue::Fix);
        }
        through(e, (Queue::Mte1, Queue::M, flag::WEIGHTS), |e| {
            load_operand(e, (Operand::A, IDENTITY), at(placed.l1.zeros), (both, 1));
            load_operand(e, (Operand::B, self.turned_in_l0b()), at(placed.l1.zeros), (pitch, 1));
        });
        for sub in self.tiles() {
            let operands = [sub * placed.l0c.sums, IDENTITY, self.turned_in_l0b()];
            multiply(e, operands, [both, STRIP, pitch], MmadInit::Zero);
        }
        free(e, (Queue::Mte1, Queue::M, flag::WEIGHTS));
    }

    /// A cube core's values times the codes of weights.
    pub fn values(&self, e: &mut Emit) {
        if !self.set.placed.turns_ahead {
            return self.cube_pass(e, V, |e, step| {
                self.turn_step(e, step);
                self.add_step(e, step);
            });
        }
        self.turn_ahead(e);
        self.add_turned(e);
    }

    /// How far turned values advance for each unit.
    fn turned_by(&self) -> (Reg, i32) {
        (TURNED, (POSITIONS * self.pitch()) as i32)
    }

    /// A cube core's values of all positions, turned.
    pub fn turn_ahead(&self, e: &mut Emit) {
        // The tiles before are through with turned values.
        e.after(Queue::Mte1, Queue::Fix);
        e.add(TURNED, Reg::ZERO, 0);
        let rows = self.rows_from(e, V);
        let registers: Vec<_> = rows.into_iter().chain([self.turned_by()]).collect();
        pass(e, &self.set.placed.tile, &registers, |_| (), |e, step| self.turn_step(e, step));
    }

    /// All turned values times the codes of weights.
    pub fn add_turned(&self, e: &mut Emit) {
        e.after(Queue::Fix, Queue::Mte1);
        e.add(TURNED, Reg::ZERO, 0);
        pass(e, &self.set.placed.tile, &[self.turned_by()], |_| (), |e, step| self.add_step(e, step));
    }

    /// Brings the values of a step to their place in L1, turned.
    pub fn turn_step(&self, e: &mut Emit, step: Step) {
        let last = if self.is_split { Queue::Mte1 } else { Queue::Mte3 };
        for (sub, id) in self.tiles().zip(flag::TURNED..) {
            if !self.set.placed.turns_ahead {
                e.wait(last, Queue::Fix, id);
            }
            for unit in 0..step.units {
                self.turn(e, sub, unit);
            }
            if !self.is_split {
                self.turned_to_l1(e, step.units);
            } else if !self.set.placed.turns_ahead {
                e.set(Queue::Fix, Queue::Mte1, id);
            }
        }
    }

    /// Adds the turned values of a step times the codes of weights to the sums.
    pub fn add_step(&self, e: &mut Emit, step: Step) {
        if self.is_split {
            e.push(Order::XWait { queue: Queue::Mte2, mode: CrossMode::Group, id: GO });
        }
        for sub in self.tiles() {
            self.add(e, sub, step);
        }
        if self.is_split {
            e.push(Order::XSet { queue: Queue::Mte2, mode: CrossMode::Group, id: TAKEN });
            e.scalar(ScalarOp::Xor, PLANES, PLANES, ScalarOperand::Imm(1));
        }
    }

    /// Where turned values of tile `sub` go in L1, `bytes` behind the first.
    fn turned(&self, sub: usize, bytes: usize) -> Addr {
        // Within L1.
        let offset = (self.set.placed.l1.turned(sub) + bytes) as i32;
        if self.set.placed.turns_ahead { Addr::behind(TURNED, offset) } else { Addr::at(offset) }
    }

    /// Brings the values of a unit to their place in L1, turned.
    fn turn(&self, e: &mut Emit, sub: usize, unit: usize) {
        let (placed, pitch) = (&self.set.placed, self.pitch());
        let slot = sub + unit;
        self.rows_to_cube(e, sub, unit, slot);
        let strips = pitch / STRIP;
        for first in (0..strips).step_by(placed.l0c.strips) {
            let some = first..strips.min(first + placed.l0c.strips);
            through(e, (Queue::M, Queue::Fix, flag::TURNED), |e| {
                for (place, strip) in some.clone().enumerate() {
                    let b = self.rows_in_l0b(slot) + STRIP * POSITIONS * strip;
                    let operands = [placed.l0c.turned + TURNED_STRIP * place, 0, b];
                    multiply(e, operands, [STRIP, STRIP, POSITIONS], MmadInit::Zero);
                }
            });
            for (place, strip) in some.enumerate() {
                let to = match self.is_split {
                    true => (FixPath::L1, self.turned(sub, STRIP * (2 * unit * pitch + STRIP * strip))),
                    false => (FixPath::Ub, at(placed.ub.turned + POSITIONS * (unit * pitch + STRIP * strip))),
                };
                let (stride, layout) = match self.is_split {
                    true => (STRIP * pitch, FixLayout::Nz),
                    false => (POSITIONS, FixLayout::RowMajor),
                };
                let from = (placed.l0c.turned + TURNED_STRIP * place, 64 * STRIP);
                out(e, (to.0, to.1, stride), from, [STRIP, POSITIONS], (Quant::S32ToS8, layout));
            }
            free(e, (Queue::M, Queue::Fix, flag::TURNED));
        }
        free(e, (Queue::Mte1, Queue::M, slot_flag(slot)));
    }

    /// Multiplies turned values with the planes of weights.
    fn add(&self, e: &mut Emit, sub: usize, step: Step) {
        let (placed, both, pitch) = (&self.set.placed, self.both(), self.pitch());
        let (l1, strips) = (&placed.l1, 2 * step.units);
        // Two tiles at most.
        let turned_flag = flag::TURNED + sub as u8;
        let last = if self.is_split { Queue::Mte2 } else { Queue::Mte3 };
        if self.is_split {
            let queries = placed.tile.queries();
            through(e, (Queue::Mte2, Queue::Mte1, flag::WEIGHTS), |e| {
                e.index(AT, CORE_AT[sub], PLANES, placed.scratch.planes_bytes);
                let from = behind(AT, placed.scratch.planes);
                let (rows, bytes) = (2 * strips, STRIP * queries);
                to_l1(
                    e,
                    CopyForm::Linear,
                    (l1.weights(sub), from),
                    (rows, bytes),
                    (bytes, STRIP * placed.tile.padded()),
                );
            });
        } else {
            e.wait(Queue::Mte3, Queue::Mte1, flag::WEIGHTS);
        }
        if self.is_split && !placed.turns_ahead {
            e.wait(Queue::Fix, Queue::Mte1, turned_flag);
        }
        through(e, (Queue::Mte1, Queue::M, flag::WEIGHTS), |e| {
            load_operand(e, (Operand::B, self.turned_in_l0b()), self.turned(sub, 0), (pitch, strips));
            load_operand(e, (Operand::A, IDENTITY), at(l1.weights(sub)), (both, strips));
        });
        let turned = if self.is_split { Queue::Fix } else { Queue::Mte3 };
        if !placed.turns_ahead {
            e.set(Queue::Mte1, turned, turned_flag);
        }
        e.set(Queue::Mte1, last, flag::WEIGHTS);
        // Few fractals of sums may still be written by the product before.
        e.bar(Some(Queue::M));
        let operands = [sub * placed.l0c.sums, IDENTITY, self.turned_in_l0b()];
        multiply(e, operands, [both, POSITIONS * step.units, pitch], MmadInit::Accumulate);
        free(e, (Queue::Mte1, Queue::M, flag::WEIGHTS));
    }

    /// Of a coupled core: turned values from UB to L1.
    fn turned_to_l1(&self, e: &mut Emit, units: usize) {
        let (placed, pitch) = (&self.set.placed, self.pitch());
        e.set(Queue::Fix, Queue::Mte3, flag::TURNED);
        e.wait(Queue::Fix, Queue::Mte3, flag::TURNED);
        e.wait(Queue::Mte1, Queue::Mte3, flag::TURNED);
        for unit in 0..units {
            let (dst, src) = (STRIP * 2 * unit * pitch, POSITIONS * unit * pitch);
            ub_to_l1(
                e,
                (placed.l1.turned(0) + dst, placed.ub.turned + src),
                (pitch, POSITIONS),
                (POSITIONS, STRIP * pitch),
            );
        }
        e.set(Queue::Mte3, Queue::Fix, flag::TURNED);
        e.set(Queue::Mte3, Queue::Mte1, flag::TURNED);
        e.wait(Queue::Mte3, Queue::Mte1, flag::TURNED);
    }

    /// The sums of values of all tiles, for the vector cores: where they are cores of their own, all at once.
    pub fn results(&self, e: &mut Emit) {
        let placed = &self.set.placed;
        e.after(Queue::M, Queue::Fix);
        if self.plan.cores.is_direct {
            e.push(Order::XWait { queue: Queue::Fix, mode: CrossMode::Group, id: READ });
        }
        for (sub, core) in self.tiles().zip(CORE_AT) {
            if self.plan.cores.is_direct {
                self.planes_out(e, sub, (FixPath::UBS[sub], at(placed.ub.cube_sums)));
            } else {
                self.planes_out(e, sub, (FixPath::Gm, behind(core, placed.scratch.result)));
            }
        }
        e.push(Order::XSet { queue: Queue::Fix, mode: CrossMode::Group, id: DONE });
    }

    /// The sums of both planes of tile `sub` by a path, one behind the other.
    pub fn planes_out(&self, e: &mut Emit, sub: usize, (path, to): (FixPath, Addr)) {
        let (queries, pitch) = (self.queries(), self.pitch());
        for plane in 0..2 {
            let to = Addr { offset: to.offset + (4 * plane * queries * pitch) as i32, ..to };
            self.plane_out(e, (path, to, 4 * pitch), (sub, plane), (0, pitch));
        }
    }

    /// Sums of a plane of tile `sub` out of L0C, `columns` elements of each query from `first` on.
    pub fn plane_out(
        &self,
        e: &mut Emit,
        to: (FixPath, Addr, usize),
        (sub, plane): (usize, usize),
        (first, columns): (usize, usize),
    ) {
        let (placed, both) = (&self.set.placed, self.both());
        let src = sub * placed.l0c.sums + first / 16 * 64 * both + plane * both / 2 * 64;
        let shape = [placed.tile.queries(), columns];
        out(e, to, (src, 64 * both), shape, (Quant::Keep, FixLayout::RowMajor));
    }
}

/// Rows from UB to fractals in L1.
pub fn ub_to_l1(
    e: &mut Emit,
    (dst, src): (usize, usize),
    (rows, row_bytes): (usize, usize),
    (from, to): (usize, usize),
) {
    // Rows of a tile and elements of a head: below 65536.
    e.push(Work::Copy(Copy {
        path: CopyPath::UbToL1,
        form: CopyForm::Nz,
        dst: at(dst),
        src: at(src),
        rows: rows as u16,
        row_bytes: row_bytes as u32,
        src_stride: from as u32,
        dst_stride: to as u32,
    }));
}

/// Signals that stand for free slots between the cores, as the vector cores take them: sent before all tiles, and
/// those of the ring of sums waited for behind them.
pub fn credits(e: &mut Emit, cores: &Cores, is_start: bool) {
    if is_start {
        [RING, PLANES].into_iter().for_each(|reg| e.add(reg, Reg::ZERO, 0));
        (0..SLOTS).for_each(|_| e.push(Order::XSet { queue: Queue::Mte2, mode: CrossMode::Group, id: TAKEN }));
    } else {
        let read = Order::XWait { queue: Queue::Fix, mode: CrossMode::Group, id: READ };
        (0..cores.slots_of_sums()).for_each(|_| e.push(read));
    }
}
