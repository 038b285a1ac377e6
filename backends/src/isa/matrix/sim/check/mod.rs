//! The checker: races for every possible timing, and everything else that a program may get wrong.
//!
//! Each queue has a vector clock. `Set` carries its queue's clock, `Wait` joins it. An access conflicts with an earlier
//! one of another queue unless that one is known to have ended.

pub(crate) mod clock;
pub(crate) mod layout;
pub(crate) mod shadow;
pub mod violation;

use std::collections::{BTreeMap, BTreeSet};

use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::addr::{Queue, Space};
use crate::isa::matrix::program::inst::{Inst, MmadInit, UnitFlag, Work};
use crate::isa::matrix::program::{Program, Record, Stage, SymbolKind};
use crate::isa::matrix::sim::access::{Access, Resolved, l0a_is_nz, mmad_fractals};
use crate::isa::matrix::sim::check::clock::{Clock, Clocks, Thread};
use crate::isa::matrix::sim::check::shadow::{CELL, Event, Shadow, byte_mask};
use crate::isa::matrix::sim::check::violation::{Place, Rule, Violation};
use crate::isa::matrix::sim::memory::{Gm, Reach};

/// Findings kept of one run; further ones are counted.
const LIMIT: usize = 64;

/// State of the checker over a whole program.
pub(crate) struct Checker<'a> {
    program: &'a Program,
    machine: &'a Machine,
    stage: &'a Stage,
    pub clocks: Clocks,
    shadow: Shadow,
    /// Clocks that unit flags carry, by core and address in L0C: from products, and from `Fix`.
    unit: BTreeMap<(usize, i64, bool), Clock>,
    pub violations: Vec<Violation>,
    seen: BTreeSet<(Rule, usize, u32, u32)>,
    /// Writer and reader whose layouts were compared last: cores and records.
    compared: Option<[(usize, u32); 2]>,
    /// Whose memories cores reach.
    reach: Reach,
}

impl<'a> Checker<'a> {
    pub fn new(program: &'a Program, machine: &'a Machine, stage: &'a Stage) -> Checker<'a> {
        Checker {
            program,
            machine,
            stage,
            clocks: Clocks::new(0),
            shadow: Shadow::new(machine, 0),
            unit: BTreeMap::new(),
            violations: vec![],
            seen: BTreeSet::new(),
            compared: None,
            reach: Reach::new(stage, machine),
        }
    }

    pub fn begin_stage(&mut self, stage: &'a Stage, cores: usize) {
        self.stage = stage;
        self.clocks = Clocks::new(cores);
        self.shadow.reset(self.machine, cores);
        self.unit.clear();
        self.compared = None;
        self.reach = Reach::new(stage, self.machine);
    }

    /// Everything of a stage has ended: products whose unit flag nobody took are left.
    pub fn end_stage(&mut self) {
        let left: Vec<_> = self.unit.keys().filter(|(_, _, is_fix)| !is_fix).copied().collect();
        for (core, address, _) in left {
            let detail = format!("nothing took the tile at L0C[{address}] with the unit flag 'last'");
            self.report(Rule::UnitFlag, (Thread::new(core, Queue::M), 0), None, None, detail);
        }
    }

    /// The stream and the index within it of a core of the stage.
    fn record(&self, core: usize, record: u32) -> Option<&Record> {
        let mut core = core;
        for stream in &self.stage.streams {
            if core < usize::from(stream.cores) {
                return stream.records.get(record as usize);
            }
            core -= usize::from(stream.cores);
        }
        None
    }

    fn place(&self, core: usize, record: u32, queue: Queue) -> Place {
        let op = self.record(core, record).and_then(|r| self.program.ops.get(usize::from(r.op)));
        // Few cores.
        Place { stage: self.stage.name.clone(), core: core as u16, record, queue, op: op.cloned().unwrap_or_default() }
    }

    /// Adds a finding, once per pair of records.
    pub fn report(
        &mut self,
        rule: Rule,
        (thread, record): (Thread, u32),
        other: Option<Event>,
        range: Option<(Space, u64, u64)>,
        detail: String,
    ) {
        let core = thread.core();
        let key = (rule, core, record, other.map_or(u32::MAX, |o| o.record));
        if self.violations.len() >= LIMIT || !self.seen.insert(key) {
            return;
        }
        let at = self.place(core, record, thread.queue());
        let other = other.map(|o| self.place(o.thread.core(), o.record, o.thread.queue()));
        self.violations.push(Violation { rule, at, other, range, detail });
    }

    /// An instruction of `thread` with its accesses, all in bounds.
    pub fn access(
        &mut self,
        (thread, record): (Thread, u32),
        inst: &Inst,
        at: &Resolved,
        accesses: &[Access],
        gm: &Gm,
    ) {
        self.unit_before(thread, record, inst, at);
        let event = Event { thread, number: self.clocks.tick(thread), record };
        for access in accesses {
            let is_ordered_pair = needs_barrier(inst, access, self.machine);
            let owner = match inst {
                Inst::Work(work) => self.reach.owner(thread.core(), access.space, work),
                Inst::Order(_) | Inst::Control(_) | Inst::ScalarLoad(_) => None,
            };
            // Operations on the memories of cores that do not run are refused.
            let of = (owner.unwrap_or(thread.core()), access);
            access.each_run(|first, last| self.run(event, of, (first, last), is_ordered_pair, gm));
        }
        self.unit_after(thread, inst, at);
    }

    /// One run of an access, to the memory of core `owner`.
    fn run(
        &mut self,
        event: Event,
        (owner, access): (usize, &Access),
        (first, last): (u64, u64),
        barrier: bool,
        gm: &Gm,
    ) {
        let mut is_defined = false;
        if access.space == Space::Gm {
            let Some(at) = gm.locate(first, last - first + 1) else { return };
            let kind = gm.kind(at);
            if !kind.is_writable() {
                if access.is_write {
                    let name = self.program.symbol(gm.symbol(at)).name.clone();
                    let detail = format!("symbol '{name}' of kind '{}' is read only", kind.name());
                    let range = Some((Space::Gm, first, last));
                    self.report(Rule::OutOfBounds, (event.thread, event.record), None, range, detail);
                }
                return;
            }
            is_defined = kind == SymbolKind::State;
        }
        for cell in first / CELL..=last / CELL {
            let mask = byte_mask(cell * CELL, first, last);
            self.cell(event, (owner, access), cell * CELL, mask, (barrier, is_defined));
        }
    }

    fn cell(
        &mut self,
        event: Event,
        (owner, access): (usize, &Access),
        at: u64,
        mask: u32,
        (barrier, is_defined): (bool, bool),
    ) {
        let thread = event.thread;
        let Some(cell) = self.shadow.cell(owner, access.space, at) else { return };
        let mut found: Option<(Rule, Option<Event>)> = None;
        let writer = cell.write.filter(|_| !access.is_write && holds_operands(access.space));
        if let Some(write) = cell.write {
            if write.thread != thread && !self.clocks.is_before(write.thread, write.number, thread) {
                let rule = if access.is_write { Rule::WriteAfterWrite } else { Rule::ReadAfterWrite };
                found = Some((rule, Some(write)));
            } else if barrier && write.thread == thread && write.number < event.number {
                let is_missing = !access.is_write && !self.clocks.has_ended(thread, write.number);
                found = is_missing.then_some((Rule::MissingBarrier, Some(write)));
            }
        }
        if access.is_write {
            let unordered = |r: &&Event| r.thread != thread && !self.clocks.is_before(r.thread, r.number, thread);
            if let Some(read) = cell.reads.iter().find(unordered) {
                found = found.or(Some((Rule::WriteAfterRead, Some(*read))));
            }
            cell.reads.clear();
            cell.write = Some(event);
            cell.initialized |= mask;
        } else {
            if !is_defined && cell.initialized & mask != mask {
                found = found.or(Some((Rule::Uninitialized, None)));
            }
            match cell.reads.iter_mut().find(|r| r.thread == thread) {
                Some(read) => *read = event,
                None => cell.reads.push(event),
            }
        }
        if let Some((rule, other)) = found {
            let detail = other.map(|o| missing(rule, o.thread.queue(), thread.queue())).unwrap_or_default();
            let range = Some((access.space, at, at + CELL - 1));
            self.report(rule, (thread, event.record), other, range, detail);
        }
        if let Some(write) = writer {
            self.layout(event, write, (access.space, at));
        }
    }

    /// Compares the layout that `write` left at a cell with the one that `read` takes it for.
    fn layout(&mut self, read: Event, write: Event, (space, at): (Space, u64)) {
        let pair = Some([write, read].map(|event| (event.thread.core(), event.record)));
        if self.compared == pair {
            return;
        }
        self.compared = pair;
        let inst = |event: Event| self.record(event.thread.core(), event.record).map(|r| r.inst);
        let (Some(writer), Some(reader)) = (inst(write), inst(read)) else { return };
        if let Some(detail) = layout::mismatch(&writer, &reader, l0a_is_nz(self.machine)) {
            let range = Some((space, at, at + CELL - 1));
            self.report(Rule::Layout, (read.thread, read.record), Some(write), range, detail);
        }
    }

    /// A unit flag orders a product and the `Fix` that takes its tile, both ways, without another flag.
    fn unit_before(&mut self, thread: Thread, record: u32, inst: &Inst, at: &Resolved) {
        let Some(unit) = Unit::of(inst, at) else { return };
        let from_other = (thread.core(), unit.address, !unit.is_fix);
        let detail = match (unit.is_fix, unit.flag, self.unit.get(&from_other).cloned()) {
            (true, UnitFlag::Last, Some(clock)) => {
                self.clocks.join(thread, &clock);
                self.unit.remove(&from_other);
                return;
            }
            (false, UnitFlag::Keep | UnitFlag::Last, clock) => {
                if let Some(clock) = clock {
                    self.clocks.join(thread, &clock);
                }
                return;
            }
            (false, UnitFlag::Off, _) | (true, UnitFlag::Off, None) => return,
            (true, UnitFlag::Off, Some(_)) => "the product raised a unit flag that this fix does not take",
            (true, UnitFlag::Last, None) => "no product with the unit flag 'last' made this tile",
            (true, UnitFlag::Keep, _) => "a fix takes the unit flag 'last'",
        };
        self.report(Rule::UnitFlag, (thread, record), None, None, detail.to_owned());
    }

    fn unit_after(&mut self, thread: Thread, inst: &Inst, at: &Resolved) {
        if let Some(unit) = Unit::of(inst, at)
            && unit.flag == UnitFlag::Last
        {
            self.unit.insert((thread.core(), unit.address, unit.is_fix), self.clocks.snapshot(thread));
        }
    }
}

/// Memories whose bytes stand in an order of fractals.
fn holds_operands(space: Space) -> bool {
    match space {
        Space::L1 | Space::L0a | Space::L0b | Space::L0c => true,
        Space::Gm | Space::Ub | Space::Bt | Space::Fb => false,
    }
}

/// The unit flag of an instruction and the tile in L0C that it is about.
struct Unit {
    address: i64,
    flag: UnitFlag,
    is_fix: bool,
}

impl Unit {
    fn of(inst: &Inst, at: &Resolved) -> Option<Unit> {
        match inst {
            Inst::Work(Work::Mmad(mmad)) => Some(Unit { address: at.dst, flag: mmad.unit_flag, is_fix: false }),
            Inst::Work(Work::Fix(fix)) => Some(Unit { address: at.src0, flag: fix.unit_flag, is_fix: true }),
            Inst::Work(Work::Copy(_) | Work::LoadL0(_) | Work::LoadTable(_) | Work::Vec(_))
            | Inst::Order(_)
            | Inst::Control(_)
            | Inst::ScalarLoad(_) => None,
        }
    }
}

/// True if a read of what the same queue wrote needs a barrier between.
fn needs_barrier(inst: &Inst, access: &Access, machine: &Machine) -> bool {
    match inst {
        Inst::Work(Work::Vec(_)) => !access.is_write && machine.quirk.bar_v_on_raw,
        Inst::Work(Work::Mmad(mmad)) => {
            let (m1, n1, _) = mmad_fractals(mmad);
            mmad.init == MmadInit::Accumulate && m1 * n1 < machine.quirk.bar_m_below
        }
        Inst::Work(Work::Copy(_) | Work::LoadL0(_) | Work::LoadTable(_) | Work::Fix(_))
        | Inst::Order(_)
        | Inst::Control(_)
        | Inst::ScalarLoad(_) => false,
    }
}

/// The edge that would order the pair.
fn missing(rule: Rule, first: Queue, second: Queue) -> String {
    match rule {
        Rule::MissingBarrier => format!("missing: bar {}", first.name()),
        Rule::ReadAfterWrite
        | Rule::WriteAfterRead
        | Rule::WriteAfterWrite
        | Rule::Uninitialized
        | Rule::OutOfBounds
        | Rule::Misaligned
        | Rule::FlagSetTwice
        | Rule::WaitNeverSet
        | Rule::FlagLeftSet
        | Rule::Deadlock
        | Rule::NotOnMachine
        | Rule::OperandRange
        | Rule::UnitFlag
        | Rule::CrossCoreCounter
        | Rule::Layout => format!("missing: set and wait {}>{}", first.name(), second.name()),
    }
}
