//! Executed guest instructions by op: an executable under the emulator, with the plugin of `counter/` inside.
//!
//! Counts are a property of the code, the same on every machine that emulates it. They are no speed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::AddAssign;
use std::path::Path;
use std::process::Stdio;

use tcc_backends::clif::api::steps::op_symbol;
use tcc_backends::image::{self, Image, SymbolKind};
use tcc_ir::plan::{Plan, StepList};

use super::rates::Work;
use super::{emulate, rates};
use crate::driver::{Back, Variant};
use crate::error::Error;
use crate::exe::TEXT_ADDRESS;

/// The plugin as a shared library; empty where it could not be built.
const PLUGIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/counter.so"));

/// Executed instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    pub instructions: f64,
    /// Vector instructions of targets with register groups count once per register of their widest group.
    pub weighted: f64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.instructions += other.instructions;
        self.weighted += other.weighted;
    }
}

impl Count {
    fn per(self, n: u64) -> Count {
        let n = n.max(1) as f64;
        Count { instructions: self.instructions / n, weighted: self.weighted / n }
    }
}

/// What one token takes.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Ops of one decoded token, head included, in the plan's order.
    pub decode: Vec<Count>,
    /// The choice of one token from its logits, and all else between the head and the next token.
    pub sampling: Count,
    /// Ops of one prompt token: the mean over those that the largest body takes.
    pub prefill: Vec<Count>,
}

impl Counts {
    /// Everything that one decoded token executes.
    pub fn decode_total(&self) -> Count {
        let mut total = self.sampling;
        self.decode.iter().for_each(|count| total += *count);
        total
    }

    pub fn prefill_total(&self) -> Count {
        let mut total = Count::default();
        self.prefill.iter().for_each(|count| total += *count);
        total
    }
}

/// What the plugin says of one slot.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    entries: u64,
    count: Count,
}

/// Slot of what follows the head, up to the next op.
const SAMPLING: usize = 1;
/// First slot of an op.
const OPS: usize = 2;

/// Counts `work` (its prompt, then its tokens, once) of `variant` of `back` under the emulator; files go to `folder`.
pub fn count(back: &Back, variant: &Variant, weights: &Path, folder: &Path, work: &Work) -> Result<Counts, Error> {
    if PLUGIN.is_empty() {
        let message = "this build of tcc has no instruction counter";
        return Err(Error::usage(
            message,
            "build tcc on Linux with a working linker: cargo's warning says what failed",
        ));
    }
    let file = |name: &str| folder.join(name);
    let (exe, plugin, map, out) = (file("exe"), file("counter.so"), file("map"), file("counts"));
    back.write_executable(&exe, weights)?;
    std::fs::write(&plugin, PLUGIN).map_err(Error::io("written", &plugin))?;
    let ops = ops(&variant.plan);
    std::fs::write(&map, ranges(&back.executable()?, &ops, &variant.name)).map_err(Error::io("written", &map))?;
    let mut command = emulate::emulator(back, variant)?;
    let program = command.get_program().to_string_lossy().into_owned();
    let options = format!("{},map={},out={}", plugin.display(), map.display(), out.display());
    command.arg("-plugin").arg(options).arg(&exe).arg("-n").arg((work.n + 1).to_string());
    command.args(rates::prompt(work.prompt, back.plan().facts.vocab).iter().map(ToString::to_string));
    let output = command.stdin(Stdio::null()).output().map_err(Error::io("run", &program))?;
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if !output.status.success() {
        return Err(Error::Child { program, ended: output.status.to_string(), stderr });
    }
    let Some(slots) = std::fs::read_to_string(&out).ok().and_then(|text| parse(&text, OPS + ops.len())) else {
        return Err(Error::Child { program, ended: "no counts".into(), stderr });
    };
    Ok(counts(&variant.plan, &slots, work.prompt))
}

/// Symbols of the ops of every list, in the plan's order.
fn ops(plan: &Plan) -> Vec<String> {
    plan.lists().flat_map(|list| list.steps.iter().map(|step| op_symbol(plan, list, step))).collect()
}

/// The plugin's map: call sites of ops in the code of `variant`; what stands behind the last op of a list ends it.
fn ranges(image: &Image, ops: &[String], variant: &str) -> String {
    let slots: BTreeMap<&str, usize> = ops.iter().enumerate().map(|(i, op)| (op.as_str(), OPS + i)).collect();
    let mut text = String::new();
    for symbol in image.symbols.iter().filter(|symbol| symbol.kind == SymbolKind::Label) {
        let name = image::in_variant(&symbol.name, variant);
        // Only head and search are followed by sampling; a body by one of them or the next body.
        let is_last = ["head", "search"].iter().any(|list| name.starts_with(list));
        let behind = if is_last { SAMPLING } else { 0 };
        let slot = slots.get(name).copied().unwrap_or(behind);
        let begin = TEXT_ADDRESS + symbol.offset;
        writeln!(text, "{begin:x} {:x} {slot}", begin + symbol.bytes).expect("writing to a string cannot fail");
    }
    text
}

/// The plugin's lines `ENTRIES INSTRUCTIONS WEIGHTED`; slots that the map does not reach are not there.
fn parse(text: &str, slots: usize) -> Option<Vec<Slot>> {
    let line = |line: &str| {
        let numbers: Vec<u64> = line.split(' ').map(|word| word.parse().ok()).collect::<Option<_>>()?;
        let [entries, instructions, weighted] = numbers[..] else { return None };
        // Counts are far below 2^53.
        Some(Slot { entries, count: Count { instructions: instructions as f64, weighted: weighted as f64 } })
    };
    let slots_read: Vec<Slot> = text.lines().map(line).collect::<Option<_>>()?;
    (slots_read.len() == slots).then_some(slots_read)
}

/// Splits the slots by list and divides by the tokens each list has seen.
fn counts(plan: &Plan, slots: &[Slot], prompt: usize) -> Counts {
    let mut rest = &slots[OPS..];
    let mut next = |list: &StepList| {
        let (here, behind) = rest.split_at(list.steps.len());
        rest = behind;
        here.to_vec()
    };
    let bodies: Vec<Vec<Slot>> = plan.bodies.iter().map(&mut next).collect();
    let head = next(&plan.head);
    let head = plan.search.as_ref().map_or(head, |search| next(&search.list));
    let runs = |list: &[Slot]| list.first().map_or(0, |op| op.entries);
    let per = |list: &[Slot], n: u64| list.iter().map(|op| op.count.per(n)).collect::<Vec<_>>();
    let mut decode = bodies.first().map_or(vec![], |decode| per(decode, runs(decode)));
    decode.extend(per(&head, runs(&head)));
    let last = bodies.last().map_or(&[][..], |body| body);
    let prefill = per(last, largest_body_tokens(plan, prompt) as u64);
    Counts { decode, sampling: slots[SAMPLING].count.per(runs(&head)), prefill }
}

/// Tokens of the prompt that the largest body takes: all but a rest that fits a smaller one.
fn largest_body_tokens(plan: &Plan, prompt: usize) -> usize {
    let rest = prompt % plan.prefill();
    let smaller = &plan.bodies[..plan.bodies.len().saturating_sub(1)];
    if smaller.iter().any(|body| body.m >= rest) { prompt - rest } else { prompt }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_slots() {
        let slots = parse("0 5 6\n1 20 30\n", 2).expect("good lines");
        assert_eq!((slots[1].entries, slots[1].count), (1, Count { instructions: 20.0, weighted: 30.0 }));
        assert_eq!(slots[1].count.per(10), Count { instructions: 2.0, weighted: 3.0 });
        assert!(parse("0 5 6\n", 2).is_none() && parse("0 5\n1 2 3\n", 2).is_none());
    }
}
