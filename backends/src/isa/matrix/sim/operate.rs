//! Operations of the engine: an instruction's checks, bytes, traffic and time.

use crate::isa::matrix::program::addr::{Queue, Space};
use crate::isa::matrix::program::inst::{Inst, UnitFlag, Work};
use crate::isa::matrix::sim::access::{Access, accesses, mmad_fractals};
use crate::isa::matrix::sim::check::Checker;
use crate::isa::matrix::sim::check::clock::Thread;
use crate::isa::matrix::sim::check::violation::Rule;
use crate::isa::matrix::sim::core::Entry;
use crate::isa::matrix::sim::engine::{Engine, Stop};
use crate::isa::matrix::sim::l2::Traffic;
use crate::isa::matrix::sim::report::Event;
use crate::isa::matrix::sim::{exec, rules};

impl<'a> Engine<'a, '_> {
    /// Runs an operation of a queue; when it started.
    pub(super) fn operate(
        &mut self,
        index: usize,
        queue: Queue,
        entry: &Entry,
        work: &Work,
        checker: &mut Option<Checker<'a>>,
    ) -> Result<f64, Stop> {
        let is_full = self.options.functional || self.options.memory || checker.is_some();
        let inst = &Inst::Work(*work);
        let touched = match is_full || touches_gm(work) {
            true => accesses(inst, &entry.at, self.machine),
            false => vec![],
        };
        let thread = Thread::new(index, queue);
        if let Err(broken) = rules::check(inst, &entry.at, &touched, self.machine, self.gm) {
            return Err(self.stop(checker, (thread, entry.record), broken));
        }
        if let Some(checker) = checker {
            checker.access((thread, entry.record), inst, &entry.at, &touched, self.gm);
        }
        if self.options.memory {
            self.note_memory(index, entry, &touched);
        }
        let written = written(work);
        let Some(owner) = self.reach.owner(index, written, work) else {
            let detail = format!("{}: no such core runs beside this one", written.name());
            return Err(self.stop(checker, (thread, entry.record), (Rule::NotOnMachine, None, detail)));
        };
        self.swap(index, owner, written);
        let has_run = self.cores[index]
            .local
            .as_mut()
            .is_none_or(|local| exec::run(work, &entry.at, self.machine, local, self.gm).is_some());
        self.swap(index, owner, written);
        if !has_run {
            let detail = "a gather left its buffer, or global memory has no bytes here".to_owned();
            return Err(self.stop(checker, (thread, entry.record), (Rule::OutOfBounds, None, detail)));
        }
        Ok(self.time(index, queue, entry, work, &touched))
    }

    /// Lends a core the memory of its owner, or gives it back.
    fn swap(&mut self, index: usize, owner: usize, space: Space) {
        let (low, high) = (index.min(owner), index.max(owner));
        let (before, after) = self.cores.split_at_mut(high);
        let (Some(low), Some(high)) = (before.get_mut(low), after.first_mut()) else { return };
        if let (Some(ours), Some(theirs)) = (&mut low.local, &mut high.local) {
            match space {
                Space::L1 => std::mem::swap(&mut ours.l1, &mut theirs.l1),
                Space::Ub => std::mem::swap(&mut ours.ub, &mut theirs.ub),
                Space::Gm | Space::L0a | Space::L0b | Space::L0c | Space::Bt | Space::Fb => {}
            }
        }
    }

    /// Keeps how far accesses, which are in bounds, reach into local memories.
    fn note_memory(&mut self, index: usize, entry: &Entry, touched: &[Access]) {
        let op = self.cores[index].record(entry.record).op;
        for access in touched.iter().filter(|a| a.space != Space::Gm) {
            let most = self.memory.entry((op, access.space)).or_default();
            *most = (access.start as u64 + access.span()).max(*most);
        }
    }

    /// Advances the queue's clock by one operation; when it started.
    fn time(&mut self, index: usize, queue: Queue, entry: &Entry, work: &Work, touched: &[Access]) -> f64 {
        let stream = self.stream_of[index];
        let cost = self.costs[stream][entry.record as usize];
        let mut traffic = Traffic::default();
        for access in touched.iter().filter(|a| a.space == Space::Gm) {
            let part = self.gm_timing.touch(self.l2, access);
            traffic =
                Traffic { hbm_bytes: traffic.hbm_bytes + part.hbm_bytes, l2_bytes: traffic.l2_bytes + part.l2_bytes };
        }
        let report = &mut self.reports[index];
        report.hbm_bytes += traffic.hbm_bytes;
        report.l2_bytes += traffic.l2_bytes;
        if let Work::Mmad(mmad) = work {
            let (m1, n1, k1) = mmad_fractals(mmad);
            report.macs += u64::from(m1 * n1 * 256) * u64::from(k1 * mmad.ty.k0());
        }
        let unit = self.unit_ready(index, entry, work);
        let core = &mut self.cores[index];
        let cube_end = core.queues[Queue::M.index()].end;
        let state = core.queue(queue);
        let ready = state.gate.max(entry.time).max(unit);
        let start = ready.max(state.end);
        let alone = match queue {
            // Loads are slower while the cube works.
            Queue::Mte1 if cube_end > start => start + cost.latency.back_to_back,
            Queue::Mte1 => start + cost.latency.alone,
            Queue::S | Queue::V | Queue::M | Queue::Mte2 | Queue::Mte3 | Queue::Fix => {
                (ready + cost.latency.alone).max(state.end + cost.latency.back_to_back)
            }
        } + cost.work;
        let end = match traffic == Traffic::default() {
            true => alone,
            false => alone.max(self.gm_timing.end(start, traffic)),
        };
        state.end = end;
        state.report.busy += end - start;
        state.report.operations += 1;
        state.report.gm_share += end - alone;
        self.unit_done(index, entry, work, start);
        let op = self.cores[index].record(entry.record).op;
        if let Some(span) = self.spans.get_mut(usize::from(op)) {
            *span = (span.0.min(start), span.1.max(end));
        }
        if self.options.trace {
            // Few cores.
            let (stage, core) = (self.stage_index, index as u16);
            self.events.push(Event { stage, core, queue, record: entry.record, op, start, end });
        }
        start
    }

    /// When unit flags let an operation start: a `Fix` follows the product that ends its tile fractal by fractal, and
    /// the next product into the tile follows the `Fix`.
    fn unit_ready(&self, index: usize, entry: &Entry, work: &Work) -> f64 {
        let times = &self.unit_times;
        let at = |address: i64, is_fix: bool| times.get(&(index, address, is_fix)).copied().unwrap_or(0.0);
        if let Work::Mmad(mmad) = work
            && mmad.unit_flag != UnitFlag::Off
        {
            return at(entry.at.dst, true);
        }
        if let Work::Fix(fix) = work
            && fix.unit_flag != UnitFlag::Off
        {
            return at(entry.at.src0, false);
        }
        0.0
    }

    fn unit_done(&mut self, index: usize, entry: &Entry, work: &Work, start: f64) {
        if let Work::Mmad(mmad) = work
            && mmad.unit_flag == UnitFlag::Last
        {
            self.unit_times.insert((index, entry.at.dst, false), start);
        }
        if let Work::Fix(fix) = work
            && fix.unit_flag == UnitFlag::Last
        {
            self.unit_times.insert((index, entry.at.src0, true), start);
        }
    }
}

/// The memory that an operation writes to.
fn written(work: &Work) -> Space {
    match work {
        Work::Copy(copy) => copy.path.dst(),
        Work::LoadL0(load) => load.side.dst(),
        Work::LoadTable(load) => load.table.dst(),
        Work::Mmad(_) => Space::L0c,
        Work::Fix(fix) => fix.path.dst(),
        Work::Vec(_) => Space::Ub,
    }
}

fn touches_gm(work: &Work) -> bool {
    match work {
        Work::Copy(copy) => copy.path.src() == Space::Gm || copy.path.dst() == Space::Gm,
        Work::Fix(fix) => fix.path.dst() == Space::Gm,
        Work::LoadL0(_) | Work::LoadTable(_) | Work::Mmad(_) | Work::Vec(_) => false,
    }
}
