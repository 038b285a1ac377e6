//! Reports for people: the table by pipe, why queues stood still, and the line that says what binds.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::isa::matrix::machine::{Machine, OrganisationKind};
use crate::isa::matrix::program::CoreKind;
use crate::isa::matrix::program::addr::Queue;
use crate::isa::matrix::sim::report::{QueueReport, Report, StageReport};

/// Columns of the table and the queue of each, named as the vendor's profiler names them.
pub const COLUMNS: [(&str, Queue); 7] = [
    ("mac", Queue::M),
    ("scalar", Queue::S),
    ("mte1", Queue::Mte1),
    ("mte2", Queue::Mte2),
    ("fixpipe", Queue::Fix),
    ("vec", Queue::V),
    ("mte3", Queue::Mte3),
];

/// The kind of core that the table's means are over: those with the cube.
fn main_kind(machine: &Machine, stage: &StageReport) -> CoreKind {
    match machine.org.kind {
        OrganisationKind::Coupled => CoreKind::Coupled,
        OrganisationKind::Split if stage.cores.iter().any(|c| c.kind == CoreKind::Cube) => CoreKind::Cube,
        OrganisationKind::Split => CoreKind::Vector,
    }
}

/// One line per stage: task (launch and slowest core), mean over the cores, then busy time and share of the mean by
/// pipe. In µs where clock and memory rate are known, else in cycles.
pub fn table(report: &Report, machine: &Machine) -> String {
    let (unit, scale) = match machine.clock_ghz.filter(|_| machine.has_time()) {
        Some(clock) => ("us", clock.value * 1000.0),
        None => ("cycles", 1.0),
    };
    let mut out = format!("{:<24} {:>12} {:>12}", format!("stage ({unit})"), "task", "aicore");
    for (name, _) in COLUMNS {
        let _ = write!(out, " {name:>12} {:>6}", "%");
    }
    out.push('\n');
    for stage in &report.stages {
        let kind = main_kind(machine, stage);
        let mean = stage.mean(kind, |c| c.cycles);
        let _ = write!(out, "{:<24} {:>12.2} {:>12.2}", stage.name, stage.task_cycles() / scale, mean / scale);
        for (_, queue) in COLUMNS {
            let busy = stage.mean(kind, |c| c.queue(queue).busy);
            let _ = write!(out, " {:>12.2} {:>6.1}", busy / scale, busy / mean.max(1.0) * 100.0);
        }
        out.push('\n');
    }
    out
}

/// Why a queue stood still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stall {
    /// Waited for a flag that this queue sets.
    Flags(&'static str),
    /// The scalar unit stood because the queue was full.
    Full,
    /// Operations took longer because of the share of global memory.
    Memory,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stall::Flags(src) => write!(f, "flags of {src}"),
            Stall::Full => f.write_str("full queue"),
            Stall::Memory => f.write_str("shared memory"),
        }
    }
}

/// Cycles that the queues stood still in a stage, means over the cores, by queue and reason.
pub fn stage_stalls(stage: &StageReport, machine: &Machine) -> BTreeMap<(Queue, Stall), f64> {
    let kind = main_kind(machine, stage);
    let mut found = BTreeMap::new();
    for queue in Queue::ALL {
        let mean = |value: &dyn Fn(&QueueReport) -> f64| stage.mean(kind, |c| value(c.queue(queue)));
        let flags = Queue::ALL.map(Queue::name).into_iter().chain(["cores"]);
        for src in flags {
            let cycles = mean(&|q| q.wait.get(src).copied().unwrap_or(0.0));
            found.insert((queue, Stall::Flags(src)), cycles);
        }
        found.insert((queue, Stall::Full), mean(&|q| q.full));
        found.insert((queue, Stall::Memory), mean(&|q| q.gm_share));
    }
    found.retain(|_, cycles| *cycles > 0.0);
    found
}

/// Cycles that each pipe of [`COLUMNS`] has operations under way: sums over the stages of means over the cores.
pub fn busy(report: &Report, machine: &Machine) -> Vec<(&'static str, f64)> {
    let of = |queue: Queue| {
        let of_stage = |s: &StageReport| s.mean(main_kind(machine, s), |c| c.queue(queue).busy);
        report.stages.iter().map(of_stage).sum::<f64>()
    };
    COLUMNS.into_iter().map(|(name, queue)| (name, of(queue))).collect()
}

/// Bytes from and to DDR (HBM) against what it could have moved in the time, the busiest pipe, and the cube's share.
///
/// `weights_bytes` is what the run had to read; the roofline is that over the rate.
pub fn roofline(report: &Report, machine: &Machine, weights_bytes: u64) -> String {
    let cycles = report.cycles();
    let pipes = busy(report, machine);
    let (name, most) = pipes.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(("scalar", 0.0));
    let moved: u64 = report.stages.iter().flat_map(|s| &s.cores).map(|c| c.hbm_bytes).sum();
    let cube = pipes.iter().find(|(pipe, _)| *pipe == "mac").map_or(0.0, |(_, busy)| *busy);
    let [share, of_peak] = [most, cube].map(|busy| busy / cycles.max(1.0) * 100.0);
    let tail = format!("{cycles:.0} cycles, {moved} bytes moved, bound: {name} ({share:.0} %); cube {of_peak:.1} %");
    match machine.hbm_bytes_per_cycle() {
        Some(rate) => {
            // Sizes are exact in f64.
            let least = weights_bytes as f64 / rate;
            format!("{:.1} % of the memory roofline ({rate:.1} bytes/cycle); {tail}", least / cycles.max(1.0) * 100.0)
        }
        None => format!("memory rate unknown; {tail}"),
    }
}
