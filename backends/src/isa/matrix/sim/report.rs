//! What a run tells: cycles, busy times, stalls, traffic, findings, events.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::isa::matrix::program::CoreKind;
use crate::isa::matrix::program::addr::{Queue, Space};
use crate::isa::matrix::sim::check::violation::Violation;

/// One queue of one core. Times are cycles.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct QueueReport {
    /// Time with an operation under way.
    pub busy: f64,
    pub operations: u64,
    /// Time an otherwise free queue waited for flags, by the queue that sets them.
    pub wait: BTreeMap<&'static str, f64>,
    /// Time the scalar unit stood because this queue was full.
    pub full: f64,
    /// Time that operations took longer because of the share of global memory.
    pub gm_share: f64,
}

/// One core in one stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CoreReport {
    #[serde(skip)]
    pub kind: CoreKind,
    /// From the launch to the end of its last operation.
    pub cycles: f64,
    pub records: u64,
    /// By queue, in the order of [`Queue::ALL`].
    pub queues: Vec<QueueReport>,
    /// Bytes of global memory: from or to DDR (HBM), and between core and L2.
    pub hbm_bytes: u64,
    pub l2_bytes: u64,
    /// Multiply-accumulates of the cube, padding included.
    pub macs: u64,
}

impl CoreReport {
    pub fn queue(&self, queue: Queue) -> &QueueReport {
        &self.queues[queue.index()]
    }
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageReport {
    pub name: String,
    pub cores: Vec<CoreReport>,
    /// Cycles of the launch.
    pub launch: f64,
    /// First start and last end of each op, over all cores, by index into the program's ops.
    #[serde(skip)]
    pub ops: BTreeMap<u16, (f64, f64)>,
}

impl StageReport {
    /// Launch and slowest core.
    pub fn task_cycles(&self) -> f64 {
        self.launch + self.cores.iter().map(|c| c.cycles).fold(0.0, f64::max)
    }

    /// The mean of `value` over the cores of `kind`; 0 without any.
    pub fn mean(&self, kind: CoreKind, value: impl Fn(&CoreReport) -> f64) -> f64 {
        let of_kind: Vec<f64> = self.cores.iter().filter(|c| c.kind == kind).map(value).collect();
        // Counts of cores are exact in f64.
        if of_kind.is_empty() { 0.0 } else { of_kind.iter().sum::<f64>() / of_kind.len() as f64 }
    }
}

/// One operation in time, for traces.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    pub stage: u16,
    pub core: u16,
    pub queue: Queue,
    pub record: u32,
    /// Index into the program's ops.
    pub op: u16,
    pub start: f64,
    pub end: f64,
}

/// A flag that was waited for, for traces.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flow {
    pub stage: u16,
    pub core: u16,
    pub src: Queue,
    pub dst: Queue,
    pub id: u8,
    /// When everything before the set had ended, and when its queue went on.
    pub set: f64,
    pub wait: f64,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Report {
    pub stages: Vec<StageReport>,
    /// Empty unless asked for.
    pub violations: Vec<Violation>,
    /// Empty unless asked for.
    pub events: Vec<Event>,
    /// Empty unless asked for, like the events.
    pub flows: Vec<Flow>,
    /// Bytes of each local memory up to the last that an op touches, by index into the program's ops; empty unless
    /// asked for.
    pub memory: BTreeMap<(u16, Space), u64>,
}

impl Report {
    /// All stages, one after the other.
    pub fn cycles(&self) -> f64 {
        self.stages.iter().map(StageReport::task_cycles).sum()
    }
}
