//! Simulated time of a matrix unit: cycles, and rates only where clock and memory are known.

use std::path::Path;

use serde_json::{Value, json};

use super::{BenchArgs, SCHEMA, cell, percent, section};
use crate::cli::progress::Progress;
use crate::cli::{Cx, prepare};
use crate::driver;
use crate::error::Error;
use crate::matrix::bench::{self, Phase};
use crate::matrix::object::ObjectFile;
use crate::matrix::{self, MatrixModel};

/// Stalls that the text lists of each phase.
const MOST_STALLS: usize = 8;

/// Simulates a model, from its files or from an object.
pub(super) fn run(cx: &Cx, args: &BenchArgs) -> Result<(), Error> {
    let path = &args.model.model;
    if prepare::is_elf(path) {
        prepare::nothing_to_decide(&args.machine, &args.matrix)?;
        let file = ObjectFile::open(path)?;
        return simulate(cx, args, &file.read()?.model);
    }
    let machine = prepare::matrix_machine(&args.matrix)?;
    let options = prepare::matrix_options(&args.machine, &args.matrix)?;
    let bar = Progress::spinner(cx, format!("compiling for {}", machine.name));
    let model = prepare::open(cx, &args.model)?;
    let front = prepare::front(&model, &args.model)?;
    let compiled = matrix::build(&front, &machine, &options)?;
    drop(bar);
    simulate(cx, args, &compiled.model)
}

fn simulate(cx: &Cx, args: &BenchArgs, model: &MatrixModel) -> Result<(), Error> {
    if args.prompt >= model.ctx {
        let message = format!("{} tokens and one more do not fit the context of {}", args.prompt, model.ctx);
        return Err(Error::usage(message, "give a smaller --prompt, or a larger --ctx"));
    }
    let bar = Progress::spinner(cx, "simulating");
    let phases = bench::phases(model, args.prompt, args.trace.is_some() || args.html.is_some())?;
    drop(bar);
    let machine = bench::machine(&model.machine);
    let title =
        format!("{}, simulated: decode at position {}, prefill of {}", model.machine.name, args.prompt, args.prompt);
    write(args.trace.as_deref(), || bench::trace(&phases))?;
    write(args.html.as_deref(), || bench::page(&title, &phases))?;
    let mut value = json!({
        "schema": SCHEMA, "tcc": driver::VERSION, "target": "matrix unit", "simulated": true, "prompt": args.prompt,
        "machine": machine,
    });
    for phase in &phases {
        value[phase.name] = phase.describe();
    }
    if cx.json {
        println!("{value}");
    } else {
        print!("{}", text(&value, &phases));
    }
    Ok(())
}

/// Writes what `make` gives to `path`, if there is one.
fn write(path: Option<&Path>, make: impl FnOnce() -> String) -> Result<(), Error> {
    let Some(path) = path else { return Ok(()) };
    prepare::write_file(path, make().as_bytes())
}

fn text(value: &Value, phases: &[Phase<'_>]) -> String {
    let machine = &value["machine"];
    let tags: Vec<String> =
        machine["tags"].as_object().into_iter().flatten().map(|(tag, count)| format!("{count} {tag}")).collect();
    let mut out = format!(
        "{}: simulated cycles, nothing is measured; vector costs '{}'\nnumbers of the machine: {}\n",
        machine["name"].as_str().unwrap_or(""),
        machine["cost_table"].as_str().unwrap_or(""),
        tags.join(", "),
    );
    if machine["time_is_known"] != true {
        out += "no rates: clock or memory rate is not published; --clock and --gm-rate give them\n";
    }
    for phase in phases {
        out += &phase_text(phase, &value[phase.name]);
    }
    out
}

fn phase_text(phase: &Phase<'_>, value: &Value) -> String {
    let list = |key: &str| value[key].as_array().cloned().unwrap_or_default();
    let word = |v: &Value| v.as_str().unwrap_or("").to_owned();
    let roofline = word(&value["roofline"]);
    let mut out = format!("\n{}: {} token(s) from position {}\n  {roofline}\n", phase.name, phase.tokens, phase.pos);
    out += &format!("  {:.0} cycles per token", phase.cycles() / phase.tokens as f64);
    out += &phase.tokens_per_second().map_or_else(String::new, |rate| format!(", {rate:.1} tokens/s simulated"));
    out.push('\n');
    out += &format!(
        "  {} stage(s), launched in {:.0} cycles\n",
        value["stages"],
        value["launch_cycles"].as_f64().unwrap_or(0.0)
    );
    let row = |v: &Value, name: &str, cycles: &str| {
        vec![word(&v[name]), cell(v[cycles].as_f64(), 0), percent(v["share"].as_f64())]
    };
    let pipes = list("pipes").iter().map(|v| row(v, "pipe", "busy_cycles")).collect();
    out += &section("busy", &["pipe", "cycles", "share"], pipes);
    let ops = list("ops").iter().map(|v| row(v, "op", "cycles")).collect();
    out += &section("ops", &["op", "cycles", "share"], ops);
    let stall = |v: &Value| vec![word(&v["queue"]), cell(v["cycles"].as_f64(), 0), word(&v["reason"])];
    let stalls = list("stalls").iter().take(MOST_STALLS).map(stall).collect();
    out + &section("waits", &["queue", "cycles", "reason"], stalls)
}
