//! Steps that several cores share become one stage: cores meet between steps, by a signal among all of them, so that the
//! host launches once.
//!
//! A step begins when every core has ended the one before: each drains its queues, signals, and lets what it loads and
//! stores next wait for the others' signals; meanwhile its scalar unit goes on. Cores that have no part in a step skip it.
//! Where one step and the next are the first core's alone, nobody meets. On split machines the vector cores meet; a cube
//! core begins a product when its vector cores, which have met, say so, and its product's own signals end before theirs do.
//! Products of the same activations may be one step (`model/together.rs`).
//!
//! What differs between cores is the core's number, [`NUMBER`]; a step's own values come from a table (`cores.rs`).

use super::cores::{CoreTable, NUMBER, OutOfRange, SCRATCH};
use super::emit::Emit;
use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::addr::{Queue, Reg};
use crate::isa::matrix::program::inst::{Control, Count, CrossMode, Inst, Order, ScalarOp, ScalarOperand};
use crate::isa::matrix::program::{CoreKind, Record, StartValues, Stream, SymbolId};

/// Signal of a group: its vector cores have begun a product.
pub const BEGIN: u8 = 5;
/// Signal among all cores that meet.
pub const MEET: u8 = 6;

/// 1 on cores that have a part in the step at hand, 0 on others.
const HAS_PART: Reg = SCRATCH;

/// A step: one stream, or one of the cube cores and one of the vector cores, each with the registers that differ between
/// cores when it begins alone.
pub struct Step {
    pub label: String,
    /// Op of its records.
    pub op: u16,
    pub streams: Vec<Stream>,
}

impl Step {
    /// The stream of cores that have a vector unit.
    fn vector(&self) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.kind != CoreKind::Cube)
    }

    fn cube(&self) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.kind == CoreKind::Cube)
    }

    /// True if the first core alone has a part in it.
    fn is_alone(&self) -> bool {
        self.streams.iter().all(|stream| stream.cores == 1 && stream.kind != CoreKind::Cube)
    }
}

/// True if cores of `machine` can meet within a stage.
pub fn can_meet(machine: &Machine) -> bool {
    machine.has_cross_core(CrossMode::All)
}

/// The streams of one stage that runs `steps`, whose table of values will be at `symbol`.
pub fn join(steps: &[Step], table: &mut CoreTable, symbol: SymbolId) -> Result<Vec<Stream>, OutOfRange> {
    let most = |of: fn(&Step) -> Option<&Stream>| steps.iter().filter_map(of).map(|s| usize::from(s.cores)).max();
    let mut streams = vec![];
    if let Some(cores) = most(Step::cube) {
        let mut side = Side { e: Emit::default(), cores, table, symbol };
        for (index, step) in steps.iter().filter(|step| step.cube().is_some()).enumerate() {
            side.product(step, index == 0)?;
        }
        streams.push(side.stream(CoreKind::Cube));
    }
    if let Some((cores, kind)) = most(Step::vector).zip(steps.iter().find_map(|s| s.vector().map(|s| s.kind))) {
        let mut side = Side { e: Emit::default(), cores, table, symbol };
        let mut before = None;
        for step in steps {
            side.step(step, before)?;
            before = Some(step);
        }
        streams.push(side.stream(kind));
    }
    Ok(streams)
}

/// The stream of one kind of cores.
struct Side<'a> {
    e: Emit,
    cores: usize,
    table: &'a mut CoreTable,
    symbol: SymbolId,
}

impl Side<'_> {
    /// A step on cores with a vector unit, behind the one before.
    fn step(&mut self, step: &Step, before: Option<&Step>) -> Result<(), OutOfRange> {
        let Some(stream) = step.vector() else { return Ok(()) };
        self.begin(step, stream)?;
        if let Some(before) = before {
            self.e.bar(None);
            if !(before.is_alone() && step.is_alone()) {
                self.e.meet();
            }
        }
        let is_product = step.cube().is_some();
        self.part(stream, |e| {
            if is_product {
                e.push(Order::XSet { queue: Queue::Mte3, mode: CrossMode::Group, id: BEGIN });
            }
        });
        Ok(())
    }

    /// A product on the cube cores, behind another one but for the first.
    fn product(&mut self, step: &Step, is_first: bool) -> Result<(), OutOfRange> {
        let Some(stream) = step.cube() else { return Ok(()) };
        self.begin(step, stream)?;
        if !is_first {
            self.e.bar(None);
        }
        self.part(stream, |e| e.push(Order::XWait { queue: Queue::Mte2, mode: CrossMode::Group, id: BEGIN }));
        // Signals among all cores need those of the others, too.
        let to_all: Vec<Record> = stream.records.iter().filter(|record| is_to_all(record)).copied().collect();
        if usize::from(stream.cores) < self.cores && !to_all.is_empty() {
            self.e.scalar(ScalarOp::Xor, HAS_PART, HAS_PART, ScalarOperand::Imm(1));
            self.e.begin(Count::Reg(HAS_PART));
            self.e.records.extend(to_all);
            self.e.end(&[]);
        }
        Ok(())
    }

    /// Registers of a step, while queues still work on the one before.
    fn begin(&mut self, step: &Step, stream: &Stream) -> Result<(), OutOfRange> {
        self.e.op = step.op;
        self.table.load(&mut self.e, self.symbol, &stream.start, self.cores)?;
        if usize::from(stream.cores) < self.cores {
            let e = &mut self.e;
            e.scalar(ScalarOp::Div, HAS_PART, NUMBER, ScalarOperand::Imm(i64::from(stream.cores)));
            e.scalar(ScalarOp::Min, HAS_PART, HAS_PART, ScalarOperand::Imm(1));
            e.scalar(ScalarOp::Xor, HAS_PART, HAS_PART, ScalarOperand::Imm(1));
        }
        Ok(())
    }

    /// The records of a step behind `first`, on cores that have a part in it.
    fn part(&mut self, stream: &Stream, first: impl Fn(&mut Emit)) {
        let is_shared = usize::from(stream.cores) < self.cores;
        if is_shared {
            self.e.begin(Count::Reg(HAS_PART));
        }
        first(&mut self.e);
        self.e.append(&stream.records);
        if is_shared {
            self.e.end(&[]);
        }
    }

    fn stream(self, kind: CoreKind) -> Stream {
        // At most the machine's cores.
        let numbers = StartValues { reg: NUMBER, values: (0..self.cores as i64).collect() };
        self.e.stream(kind, self.cores, vec![numbers])
    }
}

fn is_to_all(record: &Record) -> bool {
    matches!(
        record.inst,
        Inst::Order(Order::XSet { mode: CrossMode::All, .. } | Order::XWait { mode: CrossMode::All, .. })
    )
}

impl Emit {
    /// Lets nothing be loaded or stored before all cores, whose queues are empty, have come here.
    fn meet(&mut self) {
        self.push(Order::XSet { queue: Queue::Mte2, mode: CrossMode::All, id: MEET });
        self.push(Order::XWait { queue: Queue::Mte2, mode: CrossMode::All, id: MEET });
        self.after(Queue::Mte2, Queue::Mte3);
    }

    /// The records of a stream, within the loops that are open.
    fn append(&mut self, records: &[Record]) {
        for record in records.iter().filter(|record| record.inst != Inst::Control(Control::Halt)) {
            self.records.push(Record { inst: record.inst.within(self.depth()), ..*record });
        }
    }
}
