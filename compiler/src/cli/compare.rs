//! `tcc compare`: several targets side by side, and beside an earlier comparison.

mod matrix;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tcc_backends::isa::matrix::machine::Machine;
use tcc_runtime::abi::Status;

use super::args::{DEFAULT_MAX_THREADS, Ids, MachineArgs, ModelArgs, RateArgs, parse_ids};
use super::progress::Progress;
use super::table::Table;
use super::{Cx, prepare};
use crate::compare::{self, Baseline, Instructions, Outcome, Row};
use crate::driver::{self, Back, Front, Variant};
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
A matrix unit is simulated: its code are programs, its RAM is global memory beside the weights, and a decoded token
takes simulated cycles, nothing that was measured (`tcc bench -t ascend` has them by op). Tokens per second follow
only where its clock and memory rate are published, or given with --clock and --gm-rate.

Exit status 4: hashes differ between rows; a number is more than --tolerance above the baseline, or a hash another.

Examples:
  tcc compare model/ --targets x86_64,x86_64+avx512vnni,aarch64,aarch64+dotprod,riscv64
  tcc compare model/ --targets aarch64:baseline:dotprod:i8mm
  tcc compare model/ --targets riscv64+v --vlen 128,256 --format markdown
  tcc compare model/ --targets x86_64,ascend:kirin9030:ascend910b
  tcc compare model/ --targets aarch64+dotprod --no-speed --json > baseline.json
  tcc compare model/ --targets aarch64+dotprod --baseline baseline.json --tolerance 2";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct CompareArgs {
    #[command(flatten)]
    model: ModelArgs,

    /// Targets, each with the features it is given: host, a short name or a triple, then +feature; a row for each
    /// variant of one object behind a colon. `ascend:MACHINE` is a simulated matrix unit, a preset or a machine file
    #[arg(
        long,
        value_name = "TARGET[+FEATURE][:VARIANT]|ascend:MACHINE,…",
        value_delimiter = ',',
        required = true,
        help_heading = "Target"
    )]
    targets: Vec<String>,

    /// A row for each of these vector register bits, where a target leaves them open [default: any]
    #[arg(long, value_name = "BITS,…", value_delimiter = ',', help_heading = "Target")]
    vlen: Vec<u32>,

    /// Most tasks that may run at once
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_THREADS, help_heading = "Target")]
    threads: u32,

    #[command(flatten)]
    rates: RateArgs,

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
        "ids": ids, "clock": args.rates.clock, "gm_rate": args.rates.gm_rate, "costs": args.rates.costs,
    });
    let baseline = args.baseline.as_ref().map(|path| Baseline::read(path, &options)).transpose()?;
    let labels: Vec<&str> = targets.iter().flat_map(Asked::labels).collect();
    let absent = baseline.as_ref().map_or(vec![], |b| b.absent(labels.iter().copied()));
    if !absent.is_empty() && absent.len() == labels.len() {
        return Err(Error::usage("the baseline has none of the targets", "give targets as they are written there"));
    }
    let mut rows = Vec::new();
    let measure = Measure { cx, args: &args, front: &front, ids: &ids };
    for asked in &targets {
        match asked {
            Asked::Cpu(asked) => rows.extend(measure.rows(asked)?),
            Asked::Matrix { label, machine } => rows.push(measure.matrix_row(label, machine)?),
        }
    }
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

/// What was asked for.
enum Asked {
    Cpu(Box<Object>),
    /// A matrix unit, one row.
    Matrix {
        label: String,
        machine: Box<Machine>,
    },
}

impl Asked {
    /// Names of the rows.
    fn labels(&self) -> Vec<&str> {
        match self {
            Asked::Cpu(object) => object.rows.iter().map(|(label, _)| label.as_str()).collect(),
            Asked::Matrix { label, .. } => vec![label],
        }
    }
}

/// An object to compile.
struct Object {
    target: Target,
    /// Names of its rows, each with the variant that runs; none is the only one.
    rows: Vec<(String, Option<String>)>,
}

impl Object {
    fn new(label: String, target: Target, variants: &[String]) -> Object {
        let rows = match variants {
            [] => vec![(label, None)],
            _ => variants.iter().map(|v| (format!("{label} {v}"), Some(v.clone()))).collect(),
        };
        Object { target, rows }
    }
}

/// The objects and matrix units asked for.
fn targets(args: &CompareArgs) -> Result<Vec<Asked>, Error> {
    if let Some(bits) = args.vlen.iter().find(|bits| !bits.is_power_of_two() || !(128..=65536).contains(*bits)) {
        let message = format!("vector registers of {bits} bits were asked for");
        return Err(Error::usage(message, "give powers of two from 128 to 65536"));
    }
    let mut targets = Vec::new();
    for item in args.targets.iter().map(|item| item.trim()) {
        let mut parts = item.split(':');
        let machine = parts.next().unwrap_or("");
        let variants: Vec<String> = parts.map(str::to_owned).collect();
        if crate::matrix::is_target(Some(machine)) {
            targets.extend(matrix::asked(&variants, &args.rates)?);
            continue;
        }
        let (name, features) = match machine.split_once('+') {
            None => (machine, None),
            Some((name, features)) => (name, Some(format!("+{}", features.replace('+', ",+")))),
        };
        let resolve = |vlen| {
            let (features, variants) = (features.clone(), variants.clone());
            prepare::target(Some(name), &MachineArgs { features, variants, vlen, ..Default::default() })
        };
        let any = resolve(0)?;
        if args.vlen.is_empty() || !any.has_open_vlen() {
            targets.push(Asked::Cpu(Box::new(Object::new(item.to_owned(), any, &variants))));
        } else {
            for &vlen in &args.vlen {
                let label = format!("{item} vlen={vlen}");
                targets.push(Asked::Cpu(Box::new(Object::new(label, resolve(vlen)?, &variants))));
            }
        }
    }
    if args.rates.is_given() && targets.iter().all(|asked| matches!(asked, Asked::Cpu(_))) {
        let message = "--clock, --gm-rate and --costs are for a matrix unit, and no target is one";
        return Err(Error::usage(message, "give ascend:MACHINE among the targets, or leave them out"));
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
    fn rows(&self, asked: &Object) -> Result<Vec<Row>, Error> {
        let bar = Progress::spinner(self.cx, format!("compiling for {}", asked.rows[0].0));
        let options = prepare::plan_options(&self.args.model, &MachineArgs::default(), self.args.threads)?;
        let mut back = driver::back(self.front, &asked.target, "model", &options, false)?;
        let folder = tempfile::tempdir()?;
        let weights = folder.path().join("weights");
        back.write_weights(&self.front.store, &weights, |_| {})?;
        let mut rows = Vec::new();
        for (label, variant) in &asked.rows {
            bar.message(format!("running {label}"));
            let variant = variant.as_ref().map_or(Ok(&back.variants[0]), |name| back.variant(name))?;
            let outcome = self.outcome(&back, variant, &weights, folder.path())?;
            rows.push(self.row(label, &back, variant, outcome));
        }
        Ok(rows)
    }

    fn row(&self, label: &str, back: &Back, variant: &Variant, outcome: Outcome) -> Row {
        let (plan, image) = (&variant.plan, &back.image);
        Row {
            target: label.to_owned(),
            triple: back.target.triple.clone(),
            cpu_features: variant.features(&back.target),
            numbers: [
                image.text.len() as u64,
                plan.weights_bytes,
                plan.arena.total_bytes(),
                image.stack_bytes,
                image.task_stack_bytes,
                self.work().bytes_per_token(plan, HeadRows::default()),
            ]
            .map(Some),
            outcome,
        }
    }

    /// Half the context for the prompt and half for what follows, if there is less of it than this work needs.
    fn work(&self) -> Work {
        let half = self.front.program.facts.ctx / 2;
        Work { prompt: half.min(64), n: half.min(32), runs: 3 }
    }

    fn outcome(&self, back: &Back, variant: &Variant, weights: &Path, folder: &Path) -> Result<Outcome, Error> {
        let hash = |logits: &[f32]| golden::hex(&golden::hash(logits));
        if back.target.is_host_isa {
            let missing = prepare::missing_here(&back.target, variant.plan.needs)?;
            if !missing.is_empty() {
                return Ok(Outcome::Skipped { reason: format!("this machine lacks {missing}") });
            }
        }
        let host = match HostModel::load(back, weights) {
            Ok(host) => host.with_variant(variant),
            Err(HostError::Failed(error)) => return Err(*error),
            Err(HostError::OtherMachine) => {
                return match emulate::logits(back, variant, weights, folder, self.ids, 1) {
                    Ok(logits) => Ok(Outcome::Ran {
                        engine: emulate::program(&back.target),
                        sha256: hash(&logits),
                        decode: None,
                        instructions: self.instructions(back, variant, weights, folder),
                        simulated: None,
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
            false => Some(work.times(&host, 1, None)?.decode.tokens_per_second()),
        };
        let engine = "this machine".into();
        Ok(Outcome::Ran { engine, sha256: hash(&logits), decode, instructions: None, simulated: None })
    }

    /// Executed instructions of a decoded token behind a short prompt; none, and a warning, where they cannot be counted.
    fn instructions(&self, back: &Back, variant: &Variant, weights: &Path, folder: &Path) -> Option<Instructions> {
        let half = self.front.program.facts.ctx / 2;
        let work = Work { prompt: half.min(8), n: half.min(2), runs: 1 };
        if work.n == 0 {
            return None;
        }
        match count(back, variant, weights, folder, &work) {
            // Means of counts, far below 2^53.
            Ok(counts) => {
                let total = counts.decode_total();
                Some(Instructions { plain: total.instructions.round() as u64, weighted: total.weighted.round() as u64 })
            }
            Err(error) => {
                if !self.cx.quiet {
                    eprintln!("warning: no instructions were counted: {error}");
                }
                None
            }
        }
    }
}

/// Columns that not every comparison has.
const DECODE: &str = "decode tok/s, 1 thread";
const CYCLES: &str = "simulated cycles per token";

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
        DECODE,
        "emulated instructions per token",
        CYCLES,
        "logits",
    ];
    let mut cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let mut hide = |name: &str| {
        if let Some(column) = header.iter().position(|known| *known == name) {
            header.remove(column);
            cells.iter_mut().for_each(|row| drop(row.remove(column)));
        }
    };
    if !with_speed {
        hide(DECODE);
    }
    // A column that would be empty says nothing.
    if rows.iter().all(|row| row.cycles().is_none()) {
        hide(CYCLES);
    }
    Table { header, rows: cells }
}

fn cells(row: &Row) -> Vec<String> {
    let none = || "–".to_owned();
    let (engine, speed, instructions, cycles, logits) = match &row.outcome {
        Outcome::Ran { engine, sha256, decode, instructions, simulated } => {
            let speed = decode.map_or_else(none, |rate| format!("{rate:.1}"));
            let mega = |count: u64| format!("{:.2} M", count as f64 / 1e6);
            let instructions = instructions.map_or_else(none, |count| match count.weighted == count.plain {
                true => mega(count.plain),
                false => format!("{}, weighted {}", mega(count.plain), mega(count.weighted)),
            });
            let cycles = simulated.map_or_else(none, |simulated| {
                let rate = simulated.tokens_per_second.map(|rate| format!(", {rate:.1} tok/s"));
                mega(simulated.cycles) + &rate.unwrap_or_default()
            });
            (engine.clone(), speed, instructions, cycles, sha256[..12].to_owned())
        }
        Outcome::Skipped { reason } => (none(), none(), none(), none(), format!("skipped: {reason}")),
    };
    let mut cells = vec![row.target.clone(), engine];
    cells.extend(row.numbers.map(|bytes| bytes.map_or_else(none, human)));
    cells.extend([speed, instructions, cycles, logits]);
    cells
}
