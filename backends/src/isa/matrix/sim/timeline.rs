//! Runs in time: cycles by op, a trace for Chrome and Perfetto, and a page that draws itself. The latter two need runs
//! that kept their events.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::isa::matrix::program::Program;
use crate::isa::matrix::program::addr::Queue;
use crate::isa::matrix::sim::report::{Flow, Report};

/// One run of a program, in a line of runs that follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// What the line of runs is (`decode`); parts with the same name share a time axis.
    pub line: &'a str,
    pub program: &'a Program,
    pub report: &'a Report,
}

/// Cycles from the first start to the last end of each op, by name; stages one after the other. Cores that have no part in
/// an op may begin the next one: its cycles count from the end of the op before.
pub fn ops(program: &Program, report: &Report) -> BTreeMap<String, f64> {
    let mut cycles = BTreeMap::new();
    for stage in &report.stages {
        let mut spans: Vec<(&u16, &(f64, f64))> = stage.ops.iter().collect();
        spans.sort_by(|a, b| a.1.1.total_cmp(&b.1.1));
        let mut before = 0.0;
        for (op, (start, end)) in spans {
            let name = program.ops.get(usize::from(*op)).cloned().unwrap_or_default();
            *cycles.entry(name).or_default() += end - start.max(before);
            before = *end;
        }
    }
    cycles
}

/// The start of each stage of each part, in cycles from the start of its line.
fn starts(parts: &[Part<'_>]) -> Vec<Vec<f64>> {
    let mut ends: BTreeMap<&str, f64> = BTreeMap::new();
    let of_part = |part: &Part<'_>, at: &mut f64| {
        let stages = part.report.stages.iter();
        stages
            .map(|stage| {
                let start = *at + stage.launch;
                *at += stage.task_cycles();
                start
            })
            .collect()
    };
    parts.iter().map(|part| of_part(part, ends.entry(part.line).or_default())).collect()
}

/// The lines of runs, in order of first appearance, and the cores of each.
fn lines<'a>(parts: &[Part<'a>]) -> Vec<(&'a str, usize)> {
    let mut lines: Vec<(&str, usize)> = vec![];
    for part in parts {
        let cores = part.report.stages.iter().map(|s| s.cores.len()).max().unwrap_or(0);
        match lines.iter_mut().find(|(name, _)| *name == part.line) {
            Some((_, most)) => *most = cores.max(*most),
            None => lines.push((part.line, cores)),
        }
    }
    lines
}

/// Number of the process of `core` in a line: cores of earlier lines come first.
fn process(lines: &[(&str, usize)], line: &str, core: u16) -> usize {
    let before = lines.iter().take_while(|(name, _)| *name != line).map(|(_, cores)| cores);
    before.sum::<usize>() + usize::from(core)
}

/// Chrome (Perfetto) trace JSON: one process per line and core, one thread per queue, names of ops, arrows from the set
/// of a flag to its wait. A microsecond of the viewer is a cycle.
pub fn trace_json(parts: &[Part<'_>]) -> String {
    let lines = lines(parts);
    let mut out = vec![];
    for (line, cores) in &lines {
        for core in 0..*cores {
            // Few cores.
            let pid = process(&lines, line, core as u16);
            let name = json_text(&format!("{line}, core {core}"));
            out.push(format!(r#"{{"ph":"M","pid":{pid},"name":"process_name","args":{{"name":{name}}}}}"#));
            for queue in Queue::ALL {
                let (tid, name) = (queue.index(), queue.name());
                out.push(format!(
                    r#"{{"ph":"M","pid":{pid},"tid":{tid},"name":"thread_name","args":{{"name":"{name}"}}}}"#
                ));
            }
        }
    }
    let mut arrows = 0;
    for (part, starts) in parts.iter().zip(starts(parts)) {
        let start = |stage: u16| starts.get(usize::from(stage)).copied().unwrap_or(0.0);
        for event in &part.report.events {
            let op = part.program.ops.get(usize::from(event.op)).map_or("", String::as_str);
            out.push(format!(
                r#"{{"ph":"X","pid":{},"tid":{},"name":{},"ts":{:.1},"dur":{:.1},"args":{{"record":{}}}}}"#,
                process(&lines, part.line, event.core),
                event.queue.index(),
                json_text(op),
                start(event.stage) + event.start,
                event.end - event.start,
                event.record
            ));
        }
        for Flow { stage, core, src, dst, id, set, wait } in part.report.flows.iter().copied() {
            let (pid, at) = (process(&lines, part.line, core), start(stage));
            let name = format!("{}>{} {id}", src.name(), dst.name());
            // An arrow leaves the operation that the set follows, and enters the next one behind the wait.
            for (ph, tid, ts) in [("s", src.index(), at + (set - 0.1).max(0.0)), ("f", dst.index(), at + wait)] {
                out.push(format!(
                    r#"{{"ph":"{ph}","cat":"flag","id":{arrows},"pid":{pid},"tid":{tid},"name":"{name}","ts":{ts:.1}}}"#
                ));
            }
            arrows += 1;
        }
    }
    format!("{{\"traceEvents\":[\n{}\n]}}\n", out.join(",\n"))
}

/// A page without references to anything outside it: a timeline of every line, core and queue, to be zoomed and moved.
pub fn html(title: &str, parts: &[Part<'_>]) -> String {
    let all = starts(parts);
    let mut data = vec![];
    for (line, cores) in lines(parts) {
        let mut ops: Vec<&str> = vec![];
        let mut events = vec![];
        for (part, starts) in parts.iter().zip(&all).filter(|(part, _)| part.line == line) {
            for event in &part.report.events {
                let name = part.program.ops.get(usize::from(event.op)).map_or("", String::as_str);
                let op = ops.iter().rposition(|known| *known == name).unwrap_or_else(|| {
                    ops.push(name);
                    ops.len() - 1
                });
                let at = starts.get(usize::from(event.stage)).copied().unwrap_or(0.0);
                let track = usize::from(event.core) * Queue::COUNT + event.queue.index();
                let (start, end) = (at + event.start, at + event.end);
                events.push(format!("[{track},{op},{start:.1},{end:.1},{}]", event.record));
            }
        }
        let ops: Vec<String> = ops.into_iter().map(json_text).collect();
        let name = json_text(line);
        let (ops, events) = (ops.join(","), events.join(","));
        data.push(format!("{{\"name\":{name},\"cores\":{cores},\"ops\":[{ops}],\"events\":[{events}]}}"));
    }
    let queues: Vec<String> = Queue::ALL.iter().map(|q| json_text(q.name())).collect();
    let data = format!("{{\"queues\":[{}],\"lines\":[{}]}}", queues.join(","), data.join(","));
    // Inside a script, only `</` ends anything.
    include_str!("timeline.html").replace("@TITLE@", &html_text(title)).replace("@DATA@", &data.replace("</", "<\\/"))
}

fn html_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
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
