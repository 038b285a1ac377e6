//! One core: its scalar unit, its queues, its flags, and the time each of them has reached.
//!
//! The scalar unit issues records in order. A record runs as soon as its queue is not blocked by a flag; until then it
//! and those behind it wait in the queue. Times are cycles.

use std::collections::{BTreeMap, VecDeque};

use crate::isa::matrix::program::addr::{Queue, Reg};
use crate::isa::matrix::program::inst::{Control, Count, CrossMode, FlagId, Inst, LOOP_LEVELS, ScalarOperand, Update};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::{Record, Stream, SymbolId};
use crate::isa::matrix::sim::access::Resolved;
use crate::isa::matrix::sim::check::clock::Clock;
use crate::isa::matrix::sim::memory::Local;
use crate::isa::matrix::sim::report::QueueReport;

/// A flag: source, destination, id.
pub(crate) type FlagKey = (Queue, Queue, u8);

/// A flag that is set: when, by which record, and what it carries for the checker.
#[derive(Clone, Debug)]
pub(crate) struct SetFlag {
    pub time: f64,
    pub record: u32,
    pub clock: Option<Clock>,
}

/// A record in a queue.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub record: u32,
    pub at: Resolved,
    /// When the scalar unit issued it.
    pub time: f64,
    /// What the scalar unit knew then.
    pub clock: Option<Clock>,
}

/// One queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueState {
    /// When the last operation ended.
    pub end: f64,
    /// Before this nothing starts: flags and barriers.
    pub gate: f64,
    /// Entries issued so far, and entries that ran.
    pub issued: u64,
    pub ran: u64,
    /// When the last entries started, by number modulo the queue's depth.
    pub starts: Vec<f64>,
    pub pending: VecDeque<Entry>,
    pub report: QueueReport,
}

/// A loop that is open.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OpenLoop {
    pub first: usize,
    pub iteration: u32,
    pub count: u32,
}

/// What the scalar unit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// Runs.
    No,
    /// A queue is full of entries that wait for flags.
    Full(Queue),
    /// A barrier of all queues, or a wait in the scalar queue itself.
    Scalar,
    /// The stream has ended.
    Halted,
}

pub(crate) struct Core<'a> {
    pub index: usize,
    pub stream: &'a Stream,
    pub regs: [i64; Reg::COUNT as usize],
    pub pc: usize,
    pub loops: [OpenLoop; LOOP_LEVELS as usize],
    pub depth: usize,
    /// The scalar unit's clock.
    pub time: f64,
    pub queues: Vec<QueueState>,
    pub flags: BTreeMap<FlagKey, SetFlag>,
    /// Signals taken so far.
    taken: BTreeMap<(CrossMode, u8), usize>,
    pub blocked: Blocked,
    pub local: Option<Local>,
}

impl<'a> Core<'a> {
    pub fn new(index: usize, within: usize, stream: &'a Stream, local: Option<Local>) -> Core<'a> {
        let mut regs = [0; Reg::COUNT as usize];
        for start in &stream.start {
            regs[usize::from(start.reg.index())] = start.values[within];
        }
        Core {
            index,
            stream,
            regs,
            pc: 0,
            loops: [OpenLoop::default(); LOOP_LEVELS as usize],
            depth: 0,
            time: 0.0,
            queues: vec![QueueState::default(); Queue::COUNT],
            flags: BTreeMap::new(),
            taken: BTreeMap::new(),
            blocked: Blocked::No,
            local,
        }
    }

    pub fn queue(&mut self, queue: Queue) -> &mut QueueState {
        &mut self.queues[queue.index()]
    }

    pub fn record(&self, record: u32) -> &'a Record {
        &self.stream.records[record as usize]
    }

    /// Signals of a mode and number that the core has taken.
    pub fn taken(&self, mode: CrossMode, id: u8) -> usize {
        self.taken.get(&(mode, id)).copied().unwrap_or(0)
    }

    /// Takes one more.
    pub fn take(&mut self, mode: CrossMode, id: u8) {
        *self.taken.entry((mode, id)).or_default() += 1;
    }

    /// When everything issued so far has ended.
    pub fn end(&self) -> f64 {
        self.queues.iter().map(|q| q.end.max(q.gate)).fold(self.time, f64::max)
    }

    /// The id that a flag has now; the checker refuses those out of range.
    pub fn flag_id(&self, id: FlagId) -> i64 {
        match id {
            FlagId::Fixed(id) => i64::from(id),
            FlagId::Iteration { base, level, modulo } => {
                let iteration = self.loops[usize::from(level)].iteration;
                i64::from(base) + i64::from(iteration % u32::from(modulo))
            }
            FlagId::Reg { base, reg } => self.regs[usize::from(reg.index())].wrapping_add(i64::from(base)),
        }
    }

    /// Runs an instruction of the scalar unit that touches registers only, and moves on.
    pub fn scalar(&mut self, control: &Control, symbol_address: impl Fn(SymbolId) -> u64) {
        match control {
            Control::AddrReg { reg, symbol, offset } => {
                // Addresses are below 2^41.
                let base = symbol.map_or(0, |s| symbol_address(s) as i64);
                self.regs[usize::from(reg.index())] = base.wrapping_add(*offset);
            }
            Control::Scalar { op, reg, a, b } => {
                let b = match b {
                    ScalarOperand::Reg(b) => self.regs[usize::from(b.index())],
                    ScalarOperand::Imm(b) => *b,
                };
                self.regs[usize::from(reg.index())] = op.eval(self.regs[usize::from(a.index())], b);
            }
            Control::Loop { count, .. } => return self.begin_loop(*count),
            Control::End { updates, .. } => return self.end_loop(updates),
            Control::Halt => {
                self.blocked = Blocked::Halted;
                return;
            }
        }
        self.pc += 1;
    }

    fn begin_loop(&mut self, count: Count) {
        let count = match count {
            Count::Fixed(count) => count,
            Count::Reg(reg) => {
                let value = self.regs[usize::from(reg.index())];
                // Clamped to the type's range.
                value.clamp(0, i64::from(u32::MAX)) as u32
            }
        };
        if count > 0 {
            self.loops[self.depth] = OpenLoop { first: self.pc + 1, iteration: 0, count };
            self.depth += 1;
            self.pc += 1;
            return;
        }
        // Loops nest: the matching end is the first at this depth.
        let mut depth = 0;
        for (index, record) in self.stream.records.iter().enumerate().skip(self.pc) {
            match record.inst {
                Inst::Control(Control::Loop { .. }) => depth += 1,
                Inst::Control(Control::End { .. }) => depth -= 1,
                Inst::Work(_)
                | Inst::Order(_)
                | Inst::Control(Control::AddrReg { .. } | Control::Scalar { .. } | Control::Halt)
                | Inst::ScalarLoad(_) => {}
            }
            if depth == 0 {
                self.pc = index + 1;
                return;
            }
        }
    }

    fn end_loop(&mut self, updates: &[Option<Update>]) {
        for update in updates.iter().flatten() {
            match update {
                Update::Add(reg, step) => {
                    let value = &mut self.regs[usize::from(reg.index())];
                    *value = value.wrapping_add(i64::from(*step));
                }
                Update::Xor(reg, step) => self.regs[usize::from(reg.index())] ^= i64::from(*step),
            }
        }
        let open = &mut self.loops[self.depth - 1];
        open.iteration += 1;
        if open.iteration < open.count {
            self.pc = open.first;
        } else {
            self.depth -= 1;
            self.pc += 1;
        }
    }
}

/// The value of a scalar load.
pub(crate) fn scalar_value(bytes: &[u8], ty: ElemType) -> i64 {
    let bits = bytes.iter().rev().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
    match ty {
        // The low bytes are the value, sign-extended.
        ElemType::S8 => i64::from(bits as u8 as i8),
        ElemType::S16 => i64::from(bits as u16 as i16),
        ElemType::S32 => i64::from(bits as i32),
        ElemType::S4
        | ElemType::U8
        | ElemType::U16
        | ElemType::U32
        | ElemType::F16
        | ElemType::Bf16
        | ElemType::F32 => i64::from(bits),
    }
}
