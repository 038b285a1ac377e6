//! Reports for people and tools: the table by pipe, the line that says what binds, and a trace of events.

use std::fmt::Write as _;

use crate::isa::matrix::machine::{Machine, OrganisationKind};
use crate::isa::matrix::program::addr::Queue;
use crate::isa::matrix::program::{CoreKind, Program};
use crate::isa::matrix::sim::report::{QueueReport, Report, StageReport};

/// Columns of the table and the queue of each, named as the vendor's profiler names them.
const COLUMNS: [(&str, Queue); 7] = [
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

/// Why queues stood still, by stage: flags waited for, full queues, the shared memory. In cycles, means over the cores.
pub fn stalls(report: &Report, machine: &Machine) -> String {
    let mut out = String::new();
    for stage in &report.stages {
        let kind = main_kind(machine, stage);
        for queue in Queue::ALL {
            let mean = |value: fn(&QueueReport) -> f64| stage.mean(kind, |c| value(c.queue(queue)));
            let flags = Queue::ALL.map(Queue::name).into_iter().chain(["cores"]);
            let mut parts: Vec<String> = flags
                .map(|src| (src, stage.mean(kind, |c| c.queue(queue).wait.get(src).copied().unwrap_or(0.0))))
                .filter(|(_, cycles)| *cycles > 0.0)
                .map(|(src, cycles)| format!("flags of {src} {cycles:.0}"))
                .collect();
            let (full, share) = (mean(|q| q.full), mean(|q| q.gm_share));
            parts.extend((full > 0.0).then(|| format!("full queue {full:.0}")));
            parts.extend((share > 0.0).then(|| format!("shared memory {share:.0}")));
            if !parts.is_empty() {
                let _ = writeln!(out, "{} {}: {}", stage.name, queue.name(), parts.join(", "));
            }
        }
    }
    out
}

/// Bytes from and to DDR (HBM) against what it could have moved in the time, the busiest pipe, and the cube's share.
///
/// `weights_bytes` is what the run had to read; the roofline is that over the rate.
pub fn roofline(report: &Report, machine: &Machine, weights_bytes: u64) -> String {
    let cycles = report.cycles();
    let cores = || report.stages.iter().flat_map(|s| &s.cores);
    let busy = |queue: Queue| {
        let of_stage = |s: &StageReport| s.mean(main_kind(machine, s), |c| c.queue(queue).busy);
        report.stages.iter().map(of_stage).sum::<f64>()
    };
    let bound = COLUMNS.into_iter().max_by(|a, b| busy(a.1).total_cmp(&busy(b.1)));
    let (name, queue) = bound.unwrap_or(COLUMNS[0]);
    let moved: u64 = cores().map(|c| c.hbm_bytes).sum();
    let of_peak = busy(Queue::M) / cycles.max(1.0) * 100.0;
    let share = busy(queue) / cycles.max(1.0) * 100.0;
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

/// Events as Chrome (Perfetto) trace JSON: one process per core, one thread per queue, names of ops. A microsecond of
/// the viewer is a cycle.
pub fn trace_json(program: &Program, report: &Report) -> String {
    let starts: Vec<f64> = report
        .stages
        .iter()
        .scan(0.0, |at, stage| {
            let start = *at + stage.launch;
            *at += stage.task_cycles();
            Some(start)
        })
        .collect();
    let mut lines = vec![];
    let cores = report.stages.iter().map(|s| s.cores.len()).max().unwrap_or(0);
    for core in 0..cores {
        lines.push(format!(r#"{{"ph":"M","pid":{core},"name":"process_name","args":{{"name":"core {core}"}}}}"#));
        for queue in Queue::ALL {
            let (tid, name) = (queue.index(), queue.name());
            lines.push(format!(
                r#"{{"ph":"M","pid":{core},"tid":{tid},"name":"thread_name","args":{{"name":"{name}"}}}}"#
            ));
        }
    }
    for event in &report.events {
        let op = program.ops.get(usize::from(event.op)).map_or("", String::as_str);
        let (name, start) = (json_text(op), starts.get(usize::from(event.stage)).copied().unwrap_or(0.0));
        lines.push(format!(
            r#"{{"ph":"X","pid":{},"tid":{},"name":{name},"ts":{:.1},"dur":{:.1},"args":{{"record":{}}}}}"#,
            event.core,
            event.queue.index(),
            start + event.start,
            event.end - event.start,
            event.record
        ));
    }
    format!("{{\"traceEvents\":[\n{}\n]}}\n", lines.join(",\n"))
}

/// `text` as a JSON string.
fn json_text(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
