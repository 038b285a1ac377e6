//! Simulated time of a model on a matrix unit: cycles by pipe and op, why pipes stood, what binds. Nothing here is
//! measured.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tcc_backends::isa::matrix::machine::Machine;
use tcc_backends::isa::matrix::machine::tagged::Tag;
use tcc_backends::isa::matrix::sim::report::Report;
use tcc_backends::isa::matrix::sim::show::{self, Stall};
use tcc_backends::isa::matrix::sim::timeline::{self, Part};

use super::inspect::kind_of;
use super::{Body, MatrixModel, run};
use crate::error::Error;

/// Some tokens through bodies and head, simulated.
pub struct Phase<'a> {
    pub name: &'static str,
    pub tokens: usize,
    /// Position of the first token.
    pub pos: usize,
    machine: &'a Machine,
    runs: Vec<(&'a Body, Report)>,
}

/// One token behind `prompt` others, and `prompt` tokens from the start; each with the head once. With `trace`, runs keep
/// every operation and flag.
pub fn phases(model: &MatrixModel, prompt: usize, trace: bool) -> Result<[Phase<'_>; 2], Error> {
    Ok([Phase::new(model, "decode", prompt, 1, trace)?, Phase::new(model, "prefill", 0, prompt, trace)?])
}

/// One token at position `pos`, with the head.
pub fn decode(model: &MatrixModel, pos: usize) -> Result<Phase<'_>, Error> {
    Phase::new(model, "decode", pos, 1, false)
}

impl<'a> Phase<'a> {
    fn new(
        model: &'a MatrixModel,
        name: &'static str,
        pos: usize,
        tokens: usize,
        trace: bool,
    ) -> Result<Phase<'a>, Error> {
        let (mut at, mut runs) = (pos, vec![]);
        for body in run::bodies(model, tokens) {
            runs.push((body, run::timed(model, body, at, trace)?));
            at += body.m;
        }
        runs.push((&model.head, run::timed(model, &model.head, 0, trace)?));
        Ok(Phase { name, tokens, pos, machine: &model.machine, runs })
    }

    pub fn cycles(&self) -> f64 {
        self.runs.iter().map(|(_, report)| report.cycles()).sum()
    }

    /// Tokens per second, where clock and memory rate are published or given.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let clock = self.machine.clock_ghz.filter(|_| self.machine.has_time())?;
        // Counts of tokens are exact in f64.
        Some(self.tokens as f64 * clock.value * 1e9 / self.cycles())
    }

    /// All runs as one.
    fn report(&self) -> Report {
        let stages = self.runs.iter().flat_map(|(_, report)| report.stages.clone()).collect();
        Report { stages, ..Report::default() }
    }

    /// Bytes of weights that the runs read at least.
    fn weights_bytes(&self) -> u64 {
        self.runs.iter().map(|(body, _)| body.weights_bytes).sum()
    }

    /// Everything about the phase.
    pub fn describe(&self) -> Value {
        let (report, cycles) = (self.report(), self.cycles());
        let share = |part: f64| part / cycles.max(1.0);
        let pipes = show::busy(&report, self.machine)
            .into_iter()
            .map(|(pipe, busy)| json!({ "pipe": pipe, "busy_cycles": busy, "share": share(busy) }));
        let ops = self.ops().into_iter().map(|(op, spent)| json!({ "op": op, "cycles": spent, "share": share(spent) }));
        let moved: u64 = report.stages.iter().flat_map(|s| &s.cores).map(|c| c.hbm_bytes).sum();
        let macs: u64 = report.stages.iter().flat_map(|s| &s.cores).map(|c| c.macs).sum();
        let launch_cycles: f64 = report.stages.iter().map(|stage| stage.launch).sum();
        let bodies: Vec<&str> = self.runs.iter().map(|(body, _)| body.program.name.as_str()).collect();
        json!({
            "tokens": self.tokens, "pos": self.pos, "programs": bodies, "cycles": cycles,
            "cycles_per_token": cycles / self.tokens as f64,
            "stages": report.stages.len(), "launch_cycles": launch_cycles,
            "weights_bytes": self.weights_bytes(), "moved_bytes": moved, "cube_macs": macs,
            "roofline": show::roofline(&report, self.machine, self.weights_bytes()), "tokens_per_second": self.tokens_per_second(),
            "pipes": pipes.collect::<Vec<_>>(), "stalls": self.stalls(&report), "ops": ops.collect::<Vec<_>>(),
        })
    }

    /// Cycles by kind of op, the longest first; `between ops` is what remains: launches, cores that meet, barriers.
    fn ops(&self) -> Vec<(String, f64)> {
        let mut sums: BTreeMap<String, f64> = BTreeMap::new();
        for (body, report) in &self.runs {
            for (op, cycles) in timeline::ops(&body.program, report) {
                *sums.entry(kind_of(&op).to_owned()).or_default() += cycles;
            }
        }
        let mut all: Vec<(String, f64)> = sums.into_iter().collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        let rest = self.cycles() - all.iter().map(|(_, cycles)| cycles).sum::<f64>();
        all.push(("between ops".into(), rest));
        all
    }

    fn stalls(&self, report: &Report) -> Vec<Value> {
        let mut sums: BTreeMap<_, f64> = BTreeMap::new();
        for stage in &report.stages {
            for (key, cycles) in show::stage_stalls(stage, self.machine) {
                *sums.entry(key).or_default() += cycles;
            }
        }
        let mut all: Vec<((_, Stall), f64)> = sums.into_iter().collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        let line = |((queue, why), cycles): ((tcc_backends::isa::matrix::program::addr::Queue, Stall), f64)| json!({ "queue": queue.name(), "reason": why.to_string(), "cycles": cycles });
        all.into_iter().map(line).collect()
    }
}

/// Runs of the phases, for the timeline.
fn parts<'a>(phases: &'a [Phase<'a>]) -> Vec<Part<'a>> {
    let of = |phase: &'a Phase<'a>| {
        phase.runs.iter().map(|(body, report)| Part { line: phase.name, program: &body.program, report })
    };
    phases.iter().flat_map(of).collect()
}

/// Chrome (Perfetto) trace JSON of the phases.
pub fn trace(phases: &[Phase<'_>]) -> String {
    timeline::trace_json(&parts(phases))
}

/// A page with the timeline of the phases.
pub fn page(title: &str, phases: &[Phase<'_>]) -> String {
    timeline::html(title, &parts(phases))
}

/// A machine: its name, what is known about its time, and every number with its source.
pub fn machine(machine: &Machine) -> Value {
    let mut values = Map::new();
    let canonical = serde_json::to_value(machine).expect("every field of a machine has a JSON form");
    tagged("", &canonical, &mut values);
    let count = |tag: Tag| (tag.word().to_owned(), values.values().filter(|v| v["tag"] == tag.word()).count());
    let tags: BTreeMap<String, usize> = Tag::ALL.map(count).into_iter().filter(|(_, n)| *n > 0).collect();
    json!({
        "name": machine.name, "sha256": crate::golden::hex(&machine.digest()), "cost_table": machine.vector.costs,
        "clock_ghz": machine.clock_ghz.map(|c| c.value), "memory_bytes_per_cycle": machine.hbm_bytes_per_cycle(),
        "time_is_known": machine.has_time(), "tags": tags, "values": values,
    })
}

/// Adds the numbers below `value` with their tags, by path: lists that end with a tag, and tables with one of their own.
fn tagged(path: &str, value: &Value, out: &mut Map<String, Value>) {
    let tag = |v: &Value| serde_json::from_value::<Tag>(v.clone()).ok();
    let entry = |value: &Value, tag: Tag| json!({ "value": value, "tag": tag.word() });
    match value {
        Value::Array(items) => match items.split_last().map(|(last, rest)| (tag(last), rest)) {
            Some((Some(tag), [one])) => drop(out.insert(path.to_owned(), entry(one, tag))),
            Some((Some(tag), many)) => drop(out.insert(path.to_owned(), entry(&json!(many), tag))),
            Some((None, _)) => {
                items.iter().enumerate().for_each(|(i, item)| tagged(&format!("{path}.{i}"), item, out));
            }
            None => {}
        },
        Value::Object(fields) => {
            let own = fields.get("tag").and_then(tag);
            for (key, field) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match own {
                    Some(own) if key != "tag" && !field.is_boolean() && key != "dt" => {
                        out.insert(path, entry(field, own));
                    }
                    Some(_) | None => tagged(&path, field, out),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use tcc_backends::isa::matrix::machine::preset::preset;

    use super::*;

    #[test]
    fn every_number_with_a_source_is_listed() {
        let described = machine(&preset("kirin9030").expect("a preset").expect("it parses"));
        let values = &described["values"];
        assert_eq!(values["buffer.l0a.size"], json!({ "value": 32768, "tag": "config" }));
        assert_eq!(values["path.gm_l1.dt"], json!({ "value": [80.0, 0.0], "tag": "assumed" }));
        assert_eq!(values["cube.s8.k_per_cycle"], json!({ "value": 32, "tag": "config" }));
        assert_eq!(values["cube.s8.dt"], json!({ "value": [62.0, 10.0], "tag": "assumed" }));
        assert_eq!((&described["clock_ghz"], &described["time_is_known"]), (&Value::Null, &json!(false)));
        let canonical = preset("kirin9030").expect("a preset").expect("it parses").canonical();
        let tags = ["doc", "doc-measured", "cfg", "der", "asm"];
        let in_text: usize = tags.map(|tag| canonical.matches(&format!("\"{tag}\"")).count()).into_iter().sum();
        // A mode of the cube has one tag for two numbers.
        let modes = canonical.matches("[cube.").count();
        assert_eq!(values.as_object().expect("an object").len(), in_text + modes);
    }
}
