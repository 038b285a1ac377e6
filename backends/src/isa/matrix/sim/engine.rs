//! One stage: all cores side by side, the memory they share, and the signals between them.
//!
//! The core whose scalar unit is furthest behind runs next, for a while; so L2 sees the cores' accesses nearly in the
//! order of time.

use std::collections::BTreeMap;

use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::addr::{Queue, Space};
use crate::isa::matrix::program::inst::{FlagId, Inst, Order, ScalarLoad};
use crate::isa::matrix::program::{Program, Record, Stage};
use crate::isa::matrix::sim::access::{Resolved, accesses};
use crate::isa::matrix::sim::check::Checker;
use crate::isa::matrix::sim::check::clock::Thread;
use crate::isa::matrix::sim::check::violation::{Place, Rule, Violation};
use crate::isa::matrix::sim::core::{Blocked, Core, Entry, FlagKey, SetFlag, scalar_value};
use crate::isa::matrix::sim::cost::{Cost, cost};
use crate::isa::matrix::sim::cross::Signals;
use crate::isa::matrix::sim::l2::{GmTiming, L2};
use crate::isa::matrix::sim::memory::{Gm, Local, Reach};
use crate::isa::matrix::sim::report::{CoreReport, Event, Flow, Report, StageReport};
use crate::isa::matrix::sim::{Options, SimError, rules};

/// Cycles that one core may run ahead of the others.
const AHEAD: f64 = 1000.0;
/// Why a stage stops early.
pub(crate) enum Stop {
    /// The checker has noted it.
    Noted,
    Error(SimError),
}

pub(crate) struct Engine<'a, 'r> {
    pub(super) program: &'a Program,
    pub(super) machine: &'a Machine,
    pub(super) stage: &'a Stage,
    pub(super) options: Options,
    pub(super) gm: &'r mut Gm,
    pub(super) l2: &'r mut L2,
    pub(super) cores: Vec<Core<'a>>,
    /// The stream of each core, and whose memories they reach.
    pub(super) stream_of: Vec<usize>,
    pub(super) reach: Reach,
    /// By stream: costs of its records.
    pub(super) costs: Vec<Vec<Cost>>,
    pub(super) gm_timing: GmTiming,
    pub(super) reports: Vec<CoreReport>,
    pub(super) signals: Signals,
    /// When products and `Fix` with unit flags started, by core, address in L0C, and whether it is a `Fix`.
    pub(super) unit_times: BTreeMap<(usize, i64, bool), f64>,
    /// First start and last end of each op.
    pub(super) spans: Vec<(f64, f64)>,
    pub(super) events: Vec<Event>,
    pub(super) flows: Vec<Flow>,
    pub(super) memory: BTreeMap<(u16, Space), u64>,
    pub(super) stage_index: u16,
}

impl<'a, 'r> Engine<'a, 'r> {
    pub fn new(
        program: &'a Program,
        machine: &'a Machine,
        stage: &'a Stage,
        options: Options,
        gm: &'r mut Gm,
        l2: &'r mut L2,
    ) -> Result<Engine<'a, 'r>, SimError> {
        let (mut cores, mut costs, mut reports) = (vec![], vec![], vec![]);
        let mut stream_of = vec![];
        for (number, stream) in stage.streams.iter().enumerate() {
            for within in 0..usize::from(stream.cores) {
                let local = options.functional.then(|| Local::new(machine));
                stream_of.push(number);
                cores.push(Core::new(cores.len(), within, stream, local));
                let queues = vec![Default::default(); Queue::COUNT];
                let (cycles, records, hbm_bytes, l2_bytes, macs) = (0.0, 0, 0, 0, 0);
                reports.push(CoreReport { kind: stream.kind, cycles, records, queues, hbm_bytes, l2_bytes, macs });
            }
            let of_record = |(index, record): (usize, &Record)| {
                cost(&record.inst, machine).map_err(|what| {
                    let queue = record.inst.queue();
                    let op = program.ops.get(usize::from(record.op)).cloned().unwrap_or_default();
                    // Streams are far shorter than 2^32 records.
                    let at = Place { stage: stage.name.clone(), core: 0, record: index as u32, queue, op };
                    let (rule, detail) = (Rule::NotOnMachine, what.to_owned());
                    SimError::Fault(Box::new(Violation { rule, at, other: None, range: None, detail }))
                })
            };
            costs.push(stream.records.iter().enumerate().map(of_record).collect::<Result<_, _>>()?);
        }
        Ok(Engine {
            program,
            machine,
            stage,
            options,
            gm,
            l2,
            cores,
            stream_of,
            reach: Reach::new(stage, machine),
            costs,
            gm_timing: GmTiming::new(machine),
            reports,
            signals: Signals::new(stage, machine),
            unit_times: BTreeMap::new(),
            spans: vec![(f64::INFINITY, f64::NEG_INFINITY); program.ops.len()],
            events: vec![],
            flows: vec![],
            memory: BTreeMap::new(),
            stage_index: 0,
        })
    }

    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// Runs the stage to its end and adds it to `report`.
    pub fn run(
        &mut self,
        checker: &mut Option<Checker<'a>>,
        stage_index: u16,
        records: &mut u64,
        report: &mut Report,
    ) -> Result<(), SimError> {
        self.stage_index = stage_index;
        match self.run_cores(checker, records) {
            Ok(()) | Err(Stop::Noted) => {}
            Err(Stop::Error(error)) => return Err(error),
        }
        for (core, out) in self.cores.iter().zip(&mut self.reports) {
            out.cycles = core.end();
            out.queues = core.queues.iter().map(|q| q.report.clone()).collect();
        }
        let clock = self.machine.clock_ghz.map_or(0.0, |c| c.value);
        let launch = self.machine.gm.launch_us.value * clock * 1000.0;
        let cores = std::mem::take(&mut self.reports);
        // Operations are named by 16 bits.
        let ops = self.spans.iter().enumerate().filter(|(_, (start, end))| start <= end);
        let ops = ops.map(|(op, span)| (op as u16, *span)).collect();
        report.stages.push(StageReport { name: self.stage.name.clone(), cores, launch, ops });
        report.events.append(&mut self.events);
        report.flows.append(&mut self.flows);
        for (key, bytes) in std::mem::take(&mut self.memory) {
            let most = report.memory.entry(key).or_default();
            *most = bytes.max(*most);
        }
        Ok(())
    }

    fn run_cores(&mut self, checker: &mut Option<Checker<'a>>, records: &mut u64) -> Result<(), Stop> {
        loop {
            let mut runnable: Vec<(f64, usize)> =
                self.cores.iter().filter(|c| c.blocked == Blocked::No).map(|c| (c.time, c.index)).collect();
            runnable.sort_by(|a, b| a.0.total_cmp(&b.0));
            let Some(&(_, index)) = runnable.first() else {
                if self.unblock(checker)? {
                    continue;
                }
                return self.finish(checker);
            };
            let until = runnable.get(1).map_or(f64::INFINITY, |(time, _)| time + AHEAD);
            while self.cores[index].blocked == Blocked::No && self.cores[index].time <= until {
                self.step(index, checker)?;
                *records += 1;
                if self.options.max_records > 0 && *records > self.options.max_records {
                    return Err(Stop::Error(SimError::TooLong { limit: self.options.max_records }));
                }
            }
        }
    }

    /// Retries what waited; true if anything moved.
    fn unblock(&mut self, checker: &mut Option<Checker<'a>>) -> Result<bool, Stop> {
        let mut has_moved = false;
        for index in 0..self.cores.len() {
            for queue in Queue::ALL {
                has_moved |= self.drain(index, queue, checker)?;
            }
            let core = &mut self.cores[index];
            match core.blocked {
                Blocked::Full(queue) => {
                    let depth = u64::from(self.machine.queue_depth(queue));
                    let state = &core.queues[queue.index()];
                    if state.issued - state.ran < depth {
                        core.blocked = Blocked::No;
                        has_moved = true;
                    }
                }
                Blocked::Scalar => {
                    let before = core.pc;
                    core.blocked = Blocked::No;
                    self.step(index, checker)?;
                    has_moved |= self.cores[index].pc != before || self.cores[index].blocked == Blocked::No;
                }
                Blocked::No | Blocked::Halted => {}
            }
        }
        Ok(has_moved)
    }

    /// Nothing moves: all streams have ended, or they never will.
    fn finish(&mut self, checker: &mut Option<Checker<'a>>) -> Result<(), Stop> {
        let stuck =
            self.cores.iter().any(|c| c.blocked != Blocked::Halted || c.queues.iter().any(|q| !q.pending.is_empty()));
        if stuck {
            let waits = self.waits();
            let Some((thread, record, rule, detail)) = waits.into_iter().next() else { return Ok(()) };
            return Err(self.stop(checker, (thread, record), (rule, None, detail)));
        }
        if let Some(checker) = checker {
            for core in &self.cores {
                for ((src, dst, id), flag) in &core.flags {
                    let thread = Thread::new(core.index, *src);
                    let detail = format!("flag {}>{} {id}", src.name(), dst.name());
                    checker.report(Rule::FlagLeftSet, (thread, flag.record), None, None, detail);
                }
            }
            for (signaller, mode, id) in self.signals_left() {
                let stream = &self.cores[signaller].stream.records;
                let is_set = |r: &Record| matches!(r.inst, Inst::Order(Order::XSet { mode: m, id: i, .. }) if (m, i) == (mode, id));
                let record = stream.iter().rposition(is_set).unwrap_or(0);
                let thread = Thread::new(signaller, stream[record].inst.queue());
                let detail = format!("signal {id} of mode {}", mode.number());
                // Streams are far shorter than 2^32 records.
                checker.report(Rule::FlagLeftSet, (thread, record as u32), None, None, detail);
            }
            checker.end_stage();
        }
        Ok(())
    }

    /// The waits that hold everything up, the one that nothing can set first.
    fn waits(&self) -> Vec<(Thread, u32, Rule, String)> {
        let mut found = vec![];
        for core in &self.cores {
            let mut heads: Vec<(Queue, u32, i64)> = vec![];
            for queue in Queue::ALL {
                let front = core.queues[queue.index()].pending.front();
                heads.extend(front.map(|e| (queue, e.record, e.at.extra)));
            }
            if core.blocked == Blocked::Scalar {
                // Streams are far shorter than 2^32 records.
                heads.push((Queue::S, core.pc as u32, 0));
            }
            let cycle: Vec<String> = heads.iter().map(|(q, r, id)| describe(*q, &core.record(*r).inst, *id)).collect();
            for (queue, record, _) in &heads {
                let waiting = core.record(*record).inst;
                let can_come = if let Inst::Order(Order::Wait { src, .. }) = waiting {
                    let rest = core.queues[src.index()].pending.iter().map(|e| e.record as usize);
                    let first = if core.blocked == Blocked::Halted { core.stream.records.len() } else { core.pc };
                    let sets = |index: usize| {
                        matches!(core.stream.records[index].inst,
                            Inst::Order(Order::Set { src: s, dst: d, .. }) if s == src && d == *queue)
                    };
                    rest.chain(first..core.stream.records.len()).any(sets)
                } else {
                    !matches!(waiting, Inst::Order(Order::XWait { .. })) || self.cores.len() > 1
                };
                let rule = if can_come { Rule::Deadlock } else { Rule::WaitNeverSet };
                found.push((Thread::new(core.index, *queue), *record, rule, cycle.join("; ")));
            }
        }
        found.sort_by_key(|(_, _, rule, _)| *rule);
        found
    }

    /// Notes a fault: with a checker the stage ends there, without one the run.
    pub(super) fn stop(
        &self,
        checker: &mut Option<Checker<'a>>,
        (thread, record): (Thread, u32),
        broken: rules::Broken,
    ) -> Stop {
        let (rule, range, detail) = broken;
        if let Some(checker) = checker {
            checker.report(rule, (thread, record), None, range, detail);
            return Stop::Noted;
        }
        let core = &self.cores[thread.core()];
        let op = self.program.ops.get(usize::from(core.record(record).op)).cloned().unwrap_or_default();
        // Few cores.
        let (stage, index) = (self.stage.name.clone(), core.index as u16);
        let at = Place { stage, core: index, record, queue: thread.queue(), op };
        Stop::Error(SimError::Fault(Box::new(Violation { rule, at, other: None, range, detail })))
    }

    /// The scalar unit of a core takes its next record.
    fn step(&mut self, index: usize, checker: &mut Option<Checker<'a>>) -> Result<(), Stop> {
        let issue = self.machine.scalar.issue.value;
        let core = &mut self.cores[index];
        // Streams are far shorter than 2^32 records.
        let record = core.pc as u32;
        let inst = &core.record(record).inst;
        self.reports[index].records += 1;
        match inst {
            Inst::Control(control) => {
                core.time += issue;
                let state = core.queue(Queue::S);
                state.report.busy += issue;
                let program = self.program;
                core.scalar(control, |symbol| program.symbol(symbol).address);
                return Ok(());
            }
            Inst::ScalarLoad(load) => return self.scalar_load(index, record, load, checker),
            Inst::Order(Order::Bar { queue: None }) => return self.barrier(index, checker),
            Inst::Order(Order::Wait { dst: Queue::S, src, id }) => {
                return self.scalar_wait(index, record, (*src, *id), checker);
            }
            Inst::Work(_) | Inst::Order(_) => {}
        }
        let queue = inst.queue();
        let depth = u64::from(self.machine.queue_depth(queue));
        let state = &core.queues[queue.index()];
        if queue != Queue::S && state.issued - state.ran >= depth {
            core.blocked = Blocked::Full(queue);
            return Ok(());
        }
        let mut at = Resolved::of(inst, &core.regs);
        if let Inst::Order(Order::Set { id, .. } | Order::Wait { id, .. }) = inst {
            at.extra = core.flag_id(*id);
            if !(0..i64::from(self.machine.flag.ids.value)).contains(&at.extra) {
                let detail = format!("flag id {}: the machine has 0..{}", at.extra, self.machine.flag.ids.value);
                return Err(self.stop(
                    checker,
                    (Thread::new(index, queue), record),
                    (Rule::OperandRange, None, detail),
                ));
            }
        }
        let core = &mut self.cores[index];
        let before = core.time;
        if queue != Queue::S && core.queues[queue.index()].issued >= depth {
            // At most 4096 entries.
            let slot = (core.queues[queue.index()].issued % depth) as usize;
            let free = core.queues[queue.index()].starts[slot];
            core.time = core.time.max(free);
        }
        let waited = core.time - before;
        core.time += issue;
        core.queue(Queue::S).report.busy += issue;
        core.pc += 1;
        let clock = checker.as_ref().map(|c| c.clocks.snapshot(Thread::new(index, Queue::S)));
        let time = core.time;
        let state = core.queue(queue);
        state.report.full += waited;
        state.issued += 1;
        state.pending.push_back(Entry { record, at, time, clock });
        self.drain(index, queue, checker)?;
        Ok(())
    }

    fn scalar_load(
        &mut self,
        index: usize,
        record: u32,
        load: &ScalarLoad,
        checker: &mut Option<Checker<'a>>,
    ) -> Result<(), Stop> {
        let ScalarLoad { reg, space, ty, .. } = load;
        let inst = &Inst::ScalarLoad(*load);
        let at = Resolved::of(inst, &self.cores[index].regs);
        let touched = accesses(inst, &at, self.machine);
        let thread = Thread::new(index, Queue::S);
        if let Err(broken) = rules::check(inst, &at, &touched, self.machine, self.gm) {
            return Err(self.stop(checker, (thread, record), broken));
        }
        if let Some(checker) = checker {
            checker.access((thread, record), inst, &at, &touched, self.gm);
        }
        let core = &mut self.cores[index];
        let len = ty.bits() as usize / 8;
        // Bounds are checked; a run for timing alone has no bytes and reads 0.
        let start = at.src0 as u64;
        let bytes = match space.space() {
            Space::Gm => self.gm.read(start, len),
            Space::L1 | Space::L0a | Space::L0b | Space::L0c | Space::Ub | Space::Bt | Space::Fb => {
                core.local.as_ref().and_then(|l| l.ub.get(start as usize..start as usize + len))
            }
        };
        core.regs[usize::from(reg.index())] = bytes.map_or(0, |b| scalar_value(b, *ty));
        let took = self.machine.scalar.issue.value + self.machine.scalar.load.value;
        core.time += took;
        core.queue(Queue::S).report.busy += took;
        core.pc += 1;
        Ok(())
    }

    fn barrier(&mut self, index: usize, checker: &mut Option<Checker<'a>>) -> Result<(), Stop> {
        let core = &mut self.cores[index];
        if core.queues.iter().any(|q| !q.pending.is_empty()) {
            core.blocked = Blocked::Scalar;
            return Ok(());
        }
        let end = core.end();
        core.time = end + self.machine.scalar.issue.value;
        for state in &mut core.queues {
            state.gate = end;
        }
        core.pc += 1;
        if let Some(checker) = checker {
            checker.clocks.barrier_of(Queue::ALL.map(|q| Thread::new(index, q)));
        }
        Ok(())
    }

    fn scalar_wait(
        &mut self,
        index: usize,
        _record: u32,
        (src, id): (Queue, FlagId),
        checker: &mut Option<Checker<'a>>,
    ) -> Result<(), Stop> {
        let core = &mut self.cores[index];
        // Ids out of range have no flag and never come.
        let key = (src, Queue::S, u8::try_from(core.flag_id(id)).unwrap_or(u8::MAX));
        let Some(flag) = core.flags.remove(&key) else {
            core.blocked = Blocked::Scalar;
            return Ok(());
        };
        let grant = core.time.max(flag.time + self.machine.flag.hop.value);
        let waited = grant - core.time;
        core.time = grant + self.machine.scalar.issue.value;
        *core.queue(Queue::S).report.wait.entry(src.name()).or_default() += waited;
        core.pc += 1;
        if let (Some(checker), Some(clock)) = (checker, flag.clock) {
            checker.clocks.join(Thread::new(index, Queue::S), &clock);
        }
        Ok(())
    }

    /// Runs what `queue` can run, and what that lets other queues run; true if anything ran.
    fn drain(&mut self, index: usize, queue: Queue, checker: &mut Option<Checker<'a>>) -> Result<bool, Stop> {
        let mut ready = vec![queue];
        let mut has_moved = false;
        // By queue: whom it lets run before it sets a flag again, and how far that one was.
        let mut postponed = [None; Queue::COUNT];
        while let Some(queue) = ready.pop() {
            while let Some(entry) = self.cores[index].queue(queue).pending.front().cloned() {
                let inst = &self.cores[index].record(entry.record).inst;
                // A queue that waits for the flag may take it before it is set again.
                if let Inst::Order(Order::Set { src, dst, .. }) = inst
                    && self.cores[index].flags.contains_key(&flag_key(*src, *dst, &entry))
                {
                    let at = Some((*dst, self.cores[index].queue(*dst).ran));
                    if postponed[queue.index()] != at {
                        postponed[queue.index()] = at;
                        ready.extend([queue, *dst]);
                        break;
                    }
                }
                if let (Some(checker), Some(clock)) = (&mut *checker, &entry.clock) {
                    checker.clocks.join(Thread::new(index, queue), clock);
                }
                let Some(start) = self.enter(index, queue, &entry, inst, checker)? else { break };
                has_moved = true;
                if let Inst::Order(Order::Set { dst, .. }) = inst {
                    ready.push(*dst);
                }
                let depth = self.machine.queue_depth(queue);
                let state = self.cores[index].queue(queue);
                state.pending.pop_front();
                if queue != Queue::S {
                    state.starts.resize(depth as usize, 0.0);
                    // At most 4096 entries.
                    let slot = (state.ran % u64::from(depth)) as usize;
                    state.starts[slot] = start;
                }
                state.ran += 1;
            }
        }
        Ok(has_moved)
    }

    /// Runs one entry; when it left the queue, or `None` if a flag holds it.
    fn enter(
        &mut self,
        index: usize,
        queue: Queue,
        entry: &Entry,
        inst: &Inst,
        checker: &mut Option<Checker<'a>>,
    ) -> Result<Option<f64>, Stop> {
        let thread = Thread::new(index, queue);
        let hop = self.machine.flag.hop.value;
        let core = &mut self.cores[index];
        let state = core.queue(queue);
        let free = state.gate.max(entry.time);
        match inst {
            Inst::Order(Order::Set { src, dst, .. }) => {
                let key = flag_key(*src, *dst, entry);
                let time = state.end.max(free);
                let clock = checker.as_ref().map(|c| c.clocks.snapshot(thread));
                let old = core.flags.insert(key, SetFlag { time, record: entry.record, clock });
                if let (Some(checker), Some(old)) = (checker, old) {
                    let detail = format!("flag {}>{} {}, set by record {}", src.name(), dst.name(), key.2, old.record);
                    checker.report(Rule::FlagSetTwice, (thread, entry.record), None, None, detail);
                }
                Ok(Some(free))
            }
            Inst::Order(Order::Wait { src, dst, .. }) => {
                let key = flag_key(*src, *dst, entry);
                let Some(flag) = core.flags.remove(&key) else { return Ok(None) };
                let grant = free.max(flag.time + hop);
                let state = core.queue(queue);
                let idle = grant - free.max(state.end);
                if idle > 0.0 {
                    *state.report.wait.entry(src.name()).or_default() += idle;
                }
                state.gate = grant;
                if self.options.trace {
                    // Few cores.
                    let (stage, core) = (self.stage_index, index as u16);
                    let (src, dst, id) = key;
                    self.flows.push(Flow { stage, core, src, dst, id, set: flag.time, wait: grant });
                }
                if let (Some(checker), Some(clock)) = (checker, flag.clock) {
                    checker.clocks.join(thread, &clock);
                }
                Ok(Some(grant))
            }
            Inst::Order(Order::Bar { .. }) => {
                state.gate = free.max(state.end);
                let gate = state.gate;
                if let Some(checker) = checker {
                    checker.clocks.barrier(thread);
                }
                Ok(Some(gate))
            }
            Inst::Order(Order::XSet { mode, id, .. }) => {
                let time = state.end.max(free);
                let clock = checker.as_ref().map(|c| c.clocks.snapshot(thread));
                self.cross_set(index, (*mode, *id), (time, clock), (thread, entry.record), checker)?;
                Ok(Some(free))
            }
            Inst::Order(Order::XWait { mode, id, .. }) => {
                Ok(self.cross_wait(index, queue, (*mode, *id), free, checker))
            }
            Inst::Work(work) => self.operate(index, queue, entry, work, checker).map(Some),
            Inst::Control(_) | Inst::ScalarLoad(_) => Ok(Some(free)),
        }
    }
}

/// The flag of an entry, whose id is checked at issue.
fn flag_key(src: Queue, dst: Queue, entry: &Entry) -> FlagKey {
    (src, dst, entry.at.extra as u8)
}

fn describe(queue: Queue, inst: &Inst, id: i64) -> String {
    match inst {
        Inst::Order(Order::Wait { src, dst, .. }) => {
            format!("{} waits for flag {}>{} {id}", queue.name(), src.name(), dst.name())
        }
        Inst::Order(Order::XWait { mode, id, .. }) => {
            format!("{} waits for signal {id} of mode {}", queue.name(), mode.number())
        }
        Inst::Order(Order::Bar { .. }) => "a barrier of all queues waits".to_owned(),
        Inst::Work(_)
        | Inst::Order(Order::Set { .. } | Order::XSet { .. })
        | Inst::Control(_)
        | Inst::ScalarLoad(_) => {
            format!("{} stands", queue.name())
        }
    }
}
