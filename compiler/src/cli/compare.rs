//! `tcc compare`: several targets side by side, and beside an earlier comparison.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tcc_runtime::abi::Status;

use super::args::{DEFAULT_MAX_THREADS, Ids, MachineArgs, ModelArgs, parse_ids};
use super::progress::Progress;
use super::table::Table;
use super::{Cx, prepare};
use crate::compare::{self, Baseline, Outcome, Row};
use crate::driver::{self, Back, Front};
use crate::error::Error;
use crate::golden;
use crate::report::human;
use crate::run::count::count;
use crate::run::emulate;
use crate::run::host::{HostError, HostModel};
use crate::run::ops::HeadRows;
use crate::run::rates::Work;
use crate::target::Target;

/// Version of the JSON's layout.
const SCHEMA: u32 = 1;

const EXAMPLES: &str = "\
Sizes, RAM, stack and bytes per token are counted by the compiler and the same on every machine, as is the hash of
the logits. Bytes per token are those a decoded token reads and writes. The rate is measured here, on one thread, and
only for code that this machine runs itself: emulated code has no speed. Rates are never compared with a baseline.
For emulated code the executed instructions of a decoded token are counted instead (`tcc bench -t` has them by op).

Exit status 4: hashes differ between rows; a number is more than --tolerance above the baseline, or a hash another.

Examples:
  tcc compare model/ --targets x86_64,x86_64+avx512vnni,aarch64,aarch64+dotprod,riscv64
  tcc compare model/ --targets riscv64+v --vlen 128,256 --format markdown
  tcc compare model/ --targets aarch64+dotprod --no-speed --json > baseline.json
  tcc compare model/ --targets aarch64+dotprod --baseline baseline.json --tolerance 2";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct CompareArgs {
    #[command(flatten)]
    model: ModelArgs,

    /// Targets, each with the features it is given: host, a short name or a triple, then +feature
    #[arg(long, value_name = "TARGET[+FEATURE],…", value_delimiter = ',', required = true, help_heading = "Target")]
    targets: Vec<String>,

    /// A row for each of these vector register bits, where a target leaves them open [default: any]
    #[arg(long, value_name = "BITS,…", value_delimiter = ',', help_heading = "Target")]
    vlen: Vec<u32>,

    /// Most tasks that may run at once
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_THREADS, help_heading = "Target")]
    threads: u32,

    /// Token ids whose logits are hashed [default: one more than --prefill, spread over the vocabulary]
    #[arg(long, value_name = "ID,…", value_parser = parse_ids)]
    ids: Option<Ids>,

    /// Measure no rates: what remains is the same on every machine
    #[arg(long)]
    no_speed: bool,

    /// How to print the rows; --json goes before it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// Fail with exit status 4 where a row is worse than in this earlier --json output
    #[arg(long, value_name = "FILE", help_heading = "Limits")]
    baseline: Option<PathBuf>,

    /// How much larger than the baseline a number may be, percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, help_heading = "Limits")]
    tolerance: f64,

    /// Fail with exit status 4, too, where a row cannot run here or is not in the baseline
    #[arg(long, help_heading = "Limits")]
    require_all: bool,
}

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns
    Table,
    /// A markdown table
    Markdown,
}

pub(super) fn run(cx: &Cx, args: CompareArgs) -> Result<(), Error> {
    if !args.tolerance.is_finite() || args.tolerance < 0.0 {
        let message = format!("a tolerance of {} percent was asked for", args.tolerance);
        return Err(Error::usage(message, "give 0 or more"));
    }
    let targets = targets(&args)?;
    let model = prepare::open(cx, &args.model)?;
    let front = prepare::front(&model, &args.model)?;
    let facts = &front.program.facts;
    let ids = match &args.ids {
        Some(ids) => ids.0.clone(),
        None => golden::prompt(facts, front.program.prefill() + 1),
    };
    prepare::check_ids((front.program.facts.vocab, front.program.facts.ctx), &ids)?;
    let options = json!({
        "ctx": facts.ctx, "prefill": front.program.prefill(), "kv": facts.kv.to_string(), "threads": args.threads,
        "ids": ids,
    });
    let baseline = args.baseline.as_ref().map(|path| Baseline::read(path, &options)).transpose()?;
    let absent = baseline.as_ref().map_or(vec![], |b| b.absent(targets.iter().map(|(label, _)| label.as_str())));
    if !absent.is_empty() && absent.len() == targets.len() {
        return Err(Error::usage("the baseline has none of the targets", "give targets as they are written there"));
    }
    let rows = targets
        .iter()
        .map(|(label, target)| Measure { cx, args: &args, front: &front, ids: &ids }.row(label, target))
        .collect::<Result<Vec<Row>, Error>>()?;
    let mut failures = compare::different_hashes(&rows);
    failures.extend(baseline.iter().flat_map(|b| b.exceeded(&rows, args.tolerance)));
    if args.require_all {
        failures.extend(compare::skipped(&rows));
        failures.extend(absent);
    } else if !cx.quiet {
        absent.iter().for_each(|row| eprintln!("warning: {row}"));
    }
    finish(cx, &args, &options, &rows, failures)
}

/// Prints the rows, and fails if there is a reason to.
fn finish(cx: &Cx, args: &CompareArgs, options: &Value, rows: &[Row], failures: Vec<String>) -> Result<(), Error> {
    let result = json!({
        "schema": SCHEMA, "tcc": driver::VERSION, "options": options,
        "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
    });
    if !cx.json {
        let table = table(rows, !args.no_speed);
        match args.format {
            Format::Table => print!("{}", table.aligned()),
            Format::Markdown => print!("{}", table.markdown()),
        }
    } else if failures.is_empty() {
        println!("{result:#}");
    }
    // With JSON, the error carries the rows: standard output gets one object.
    if failures.is_empty() { Ok(()) } else { Err(Error::Comparison { failures, result }) }
}

/// The machines asked for, each with the name of its row.
fn targets(args: &CompareArgs) -> Result<Vec<(String, Target)>, Error> {
    if let Some(bits) = args.vlen.iter().find(|bits| !bits.is_power_of_two() || !(128..=65536).contains(*bits)) {
        let message = format!("vector registers of {bits} bits were asked for");
        return Err(Error::usage(message, "give powers of two from 128 to 65536"));
    }
    let mut targets = Vec::new();
    for item in args.targets.iter().map(|item| item.trim()) {
        let (name, features) = match item.split_once('+') {
            None => (item, None),
            Some((name, features)) => (name, Some(format!("+{}", features.replace('+', ",+")))),
        };
        let resolve =
            |vlen| prepare::target(Some(name), &MachineArgs { features: features.clone(), vlen, ..Default::default() });
        let any = resolve(0)?;
        if args.vlen.is_empty() || !any.has_open_vlen() {
            targets.push((item.to_owned(), any));
        } else {
            for &vlen in &args.vlen {
                targets.push((format!("{item} vlen={vlen}"), resolve(vlen)?));
            }
        }
    }
    Ok(targets)
}

/// What every row is made from.
struct Measure<'a> {
    cx: &'a Cx,
    args: &'a CompareArgs,
    front: &'a Front<'a>,
    ids: &'a [u32],
}

impl Measure<'_> {
    fn row(&self, label: &str, target: &Target) -> Result<Row, Error> {
        let bar = Progress::spinner(self.cx, format!("compiling for {label}"));
        let options = prepare::plan_options(&MachineArgs::default(), self.args.threads)?;
        let mut back = driver::back(self.front, target, "model", &options, false)?;
        let folder = tempfile::tempdir()?;
        let weights = folder.path().join("weights");
        back.write_weights(&self.front.store, &weights, |_| {})?;
        bar.message(format!("running {label}"));
        let outcome = self.outcome(&back, &weights, folder.path())?;
        let (plan, image) = (&back.plan, &back.image);
        Ok(Row {
            target: label.to_owned(),
            triple: target.triple.clone(),
            cpu_features: target.machine.desc.feature_names(plan.needs),
            numbers: [
                image.text.len() as u64,
                plan.weights_bytes,
                plan.arena.total_bytes(),
                image.stack_bytes,
                image.task_stack_bytes,
                self.work().bytes_per_token(plan, HeadRows::default()),
            ],
            outcome,
        })
    }

    /// Half the context for the prompt and half for what follows, if there is less of it than this work needs.
    fn work(&self) -> Work {
        let half = self.front.program.facts.ctx / 2;
        Work { prompt: half.min(64), n: half.min(32), runs: 3 }
    }

    fn outcome(&self, back: &Back, weights: &Path, folder: &Path) -> Result<Outcome, Error> {
        let hash = |logits: &[f32]| golden::hex(&golden::hash(logits));
        let host = match HostModel::load(back, weights) {
            Ok(host) => host,
            Err(HostError::Failed(error)) => return Err(*error),
            Err(HostError::OtherMachine) if back.target.is_host_isa => {
                let reason = format!("this machine lacks {}", prepare::missing_here(&back.target)?);
                return Ok(Outcome::Skipped { reason });
            }
            Err(HostError::OtherMachine) => {
                return match emulate::logits(back, weights, folder, self.ids, 1) {
                    Ok(logits) => Ok(Outcome::Ran {
                        engine: emulate::program(&back.target),
                        sha256: hash(&logits),
                        decode: None,
                        instructions: self.instructions(back, weights, folder),
                    }),
                    Err(error @ Error::NoEmulator { .. }) => Ok(Outcome::Skipped { reason: error.to_string() }),
                    Err(error) => Err(error),
                };
            }
        };
        let logits = match host.logits(self.ids, 1) {
            Ok(logits) => logits,
            // Features do not tell everything: the code may be for another vector length.
            Err(error @ Error::Status { status: Status::CPU }) => {
                return Ok(Outcome::Skipped { reason: error.to_string() });
            }
            Err(error) => return Err(error),
        };
        let work = self.work();
        let decode = match self.args.no_speed || work.prompt == 0 {
            true => None,
            false => Some(work.rates(&host, 1)?.decode),
        };
        Ok(Outcome::Ran { engine: "this machine".into(), sha256: hash(&logits), decode, instructions: None })
    }

    /// Executed instructions of a decoded token behind a short prompt; none, and a warning, where they cannot be counted.
    fn instructions(&self, back: &Back, weights: &Path, folder: &Path) -> Option<u64> {
        let half = self.front.program.facts.ctx / 2;
        let work = Work { prompt: half.min(8), n: half.min(2), runs: 1 };
        if work.n == 0 {
            return None;
        }
        match count(back, weights, folder, &work) {
            // Means of counts, far below 2^53.
            Ok(counts) => Some(counts.decode_total().instructions.round() as u64),
            Err(error) => {
                if !self.cx.quiet {
                    eprintln!("warning: no instructions were counted: {error}");
                }
                None
            }
        }
    }
}

fn table(rows: &[Row], with_speed: bool) -> Table {
    let mut header = vec![
        "target",
        "engine",
        "code",
        "weights",
        "RAM",
        "stack: entry",
        "stack: task",
        "bytes per token",
        "decode tok/s, 1 thread",
        "emulated instructions per token",
        "logits",
    ];
    let speed = header.len() - 3;
    let mut cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
    if !with_speed {
        header.remove(speed);
        cells.iter_mut().for_each(|row| drop(row.remove(speed)));
    }
    Table { header, rows: cells }
}

fn cells(row: &Row) -> Vec<String> {
    let none = || "–".to_owned();
    let (engine, speed, instructions, logits) = match &row.outcome {
        Outcome::Ran { engine, sha256, decode, instructions } => {
            let speed = decode.map_or_else(none, |rate| format!("{rate:.1}"));
            let instructions = instructions.map_or_else(none, |count| format!("{:.2} M", count as f64 / 1e6));
            (engine.clone(), speed, instructions, sha256[..12].to_owned())
        }
        Outcome::Skipped { reason } => (none(), none(), none(), format!("skipped: {reason}")),
    };
    let mut cells = vec![row.target.clone(), engine];
    cells.extend(row.numbers.map(human));
    cells.extend([speed, instructions, logits]);
    cells
}
