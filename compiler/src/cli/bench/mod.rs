//! `tcc bench`: rates on this machine beside its limits, and by op; for other machines, executed instructions by op.

mod count;
mod host;
mod matrix;
mod plot;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};
use tcc_ir::coded::RowCode;

use super::args::{DEFAULT_MAX_THREADS, MachineArgs, MatrixArgs, ModelArgs, VariantArgs};
use super::progress::Progress;
use super::table::Table;
use super::{Cx, memory, prepare};
use crate::driver::{self, Back, Variant};
use crate::error::Error;
use crate::report;
use crate::run::ops::HeadRows;
use crate::run::rates::Work;

/// Version of the JSON's layout.
const SCHEMA: u32 = 2;

const EXAMPLES: &str = "\
Limits are measured in the same run: read bandwidth with pages of the usual size and with huge ones, and the products
per second of the fastest micro-kernel on data next to the core; at their best before the work, and as means between
pieces of a quarter of a second of it. Shares are of those means, which whatever else the machine does lowers as it
lowers the rates, and of the larger bandwidth; they are above 100 % where caches hold the weights. Bytes per token are
those the plan says each step reads and writes, activations that never leave a cache among them. Times by op come from
a build that calls the hooks op_begin and op_end; the rates above them from one that does not.

For another instruction set (-t) the code runs under qemu-user with an instruction counter that tcc brings along, and
the executed guest instructions of one token are reported by op. They are no speed. `weighted` counts a RISC-V vector
instruction once per register of its widest group.

For a matrix unit (-t ascend) the simulator says cycles of decode behind --prompt tokens and of the prompt, by pipe and
by op. They are simulated, not measured; tokens per second follow only where clock and memory rate are published or given.

Examples:
  tcc bench model/ --threads 1,2 --plot model.html
  tcc bench model/ -t aarch64 --features +dotprod
  tcc bench model/ -t riscv64 --features +v --vlen 256 --json
  tcc bench model/ -t ascend --machine ascend310b --trace trace.json --html timeline.html
  cargo xtask synth synth-2b && tcc bench synth-2b --json";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,

    /// host, a short name (`tcc targets` lists them), or a full triple [default: host]
    #[arg(short, long, value_name = "TARGET", help_heading = "Target")]
    target: Option<String>,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    variant: VariantArgs,

    #[command(flatten)]
    matrix: MatrixArgs,

    /// Write every operation and flag of the simulated runs, for chrome://tracing or ui.perfetto.dev
    #[arg(long, value_name = "FILE.json", help_heading = "Matrix unit")]
    trace: Option<PathBuf>,

    /// Write a page with the timeline of the simulated runs
    #[arg(long, value_name = "FILE.html", help_heading = "Matrix unit")]
    html: Option<PathBuf>,

    /// Numbers of threads to measure; instructions are counted on one
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1])]
    threads: Vec<u32>,

    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 64)]
    prompt: usize,

    /// Tokens to generate
    #[arg(short, long, value_name = "N", default_value_t = 32)]
    n: usize,

    /// Draw shares of the roofline by op and rates by threads, or instructions by op: .svg, or a page .html
    #[arg(long, value_name = "FILE.svg|html")]
    plot: Option<PathBuf>,

    /// Runs of which the median counts
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
}

pub(super) fn run(cx: &Cx, args: BenchArgs) -> Result<(), Error> {
    if args.runs == 0 || args.n == 0 || args.prompt == 0 || args.threads.contains(&0) {
        return Err(Error::usage("nothing to measure", "give at least 1 for --runs, --threads, --prompt and -n"));
    }
    if crate::matrix::is_target(args.target.as_deref()) {
        if args.plot.is_some() || args.variant.variant.is_some() {
            let help = "leave them out; --html and --trace show what is simulated";
            return Err(Error::usage("--plot and --variant are for CPUs, and the target is a matrix unit", help));
        }
        return matrix::run(cx, &args);
    }
    if args.trace.is_some() || args.html.is_some() {
        return Err(Error::usage("--trace and --html show a simulated matrix unit", "give -t ascend, or --plot"));
    }
    args.plot.as_deref().map_or(Ok(()), plot::check)?;
    prepare::no_matrix_unit(&args.matrix)?;
    let target = prepare::own_target(args.target.as_deref(), &args.machine)?;
    if target.is_host_isa && !target.runs_here {
        let message = format!("this machine lacks {}", prepare::missing_here(&target, target.machine.features)?);
        return Err(Error::usage(message, "leave out --cpu and --features"));
    }
    let bar = Progress::spinner(cx, "compiling");
    let most = args.threads.iter().copied().max().unwrap_or(1).max(DEFAULT_MAX_THREADS);
    let options = prepare::plan_options(&args.model, &args.machine, most)?;
    let folder = tempfile::tempdir()?;
    let weights = folder.path().join("weights");
    let begin = Instant::now();
    let (back, peak_bytes) = memory::peak(|| -> Result<Back, Error> {
        let model = prepare::open(cx, &args.model)?;
        let front = prepare::front(&model, &args.model)?;
        let mut back = driver::back(&front, &target, "model", &options, false)?;
        back.write_weights(&front.store, &weights, |_| {})?;
        Ok(back)
    });
    let (back, compile_seconds) = (back?, begin.elapsed().as_secs_f64());
    let work = Work { prompt: args.prompt, n: args.n, runs: args.runs };
    let ctx = back.plan().facts.ctx;
    if args.prompt + args.n > ctx {
        let message = format!("{} tokens do not fit the context of {ctx}", args.prompt + args.n);
        return Err(Error::usage(message, "give a smaller --prompt or -n, or a larger --ctx"));
    }
    let variant = prepare::variant(&back, args.variant.variant.as_deref())?;
    let mut value = json!({
        "schema": SCHEMA, "tcc": driver::VERSION, "target": target.triple,
        "cpu_features": variant.features(&target), "vlen": target.machine.vlen,
        "bytes_per_token": work.bytes_per_token(&variant.plan, HeadRows::default()),
        "stored_bytes_per_token": work.stored_bytes_per_token(&variant.plan, HeadRows::default()),
        "compile_seconds": compile_seconds,
        "compile_peak_anonymous_bytes": peak_bytes, "lossy_head": variant.plan.lossy_head().map(RowCode::name),
        "prompt": args.prompt, "generated": args.n,
    });
    bar.message("measuring");
    let measure = Measure { back: &back, variant, weights: &weights, work };
    let text = match target.is_host_isa {
        true => host::measure(&measure, &args.threads, folder.path(), &mut value)?,
        false => count::measure(&measure, folder.path(), &mut value)?,
    };
    drop(bar);
    let head = variant.plan.lossy_head().map_or_else(String::new, report::lossy_head_line);
    let text = heading(&value) + &head + &text;
    if let Some(path) = &args.plot {
        plot::write(path, &value, &text)?;
    }
    if cx.json {
        println!("{value}");
    } else {
        print!("{text}");
    }
    Ok(())
}

/// What both kinds of measurement are made from.
struct Measure<'a> {
    back: &'a Back,
    variant: &'a Variant,
    weights: &'a Path,
    work: Work,
}

fn heading(value: &Value) -> String {
    let mega = |key: &str| value[key].as_u64().unwrap_or(0) as f64 / 1e6;
    let vlen = match value["vlen"].as_u64() {
        None | Some(0) => String::new(),
        Some(bits) => format!(", vector registers of {bits} bits"),
    };
    format!(
        "{} ({}{vlen})\ncompiled in {:.2} s with {:.0} MB of anonymous memory\n{:.1} MB moved per token, {:.1} of them weights and \
         caches, the rest activations\n",
        value["target"].as_str().unwrap_or(""),
        value["cpu_features"].as_str().unwrap_or(""),
        value["compile_seconds"].as_f64().unwrap_or(0.0),
        mega("compile_peak_anonymous_bytes"),
        mega("bytes_per_token"),
        mega("stored_bytes_per_token"),
    )
}

/// A table with a line above it.
fn section(title: &str, header: &[&'static str], rows: Vec<Vec<String>>) -> String {
    format!("\n{title}\n{}", Table { header: header.to_vec(), rows }.aligned())
}

/// `value` with `digits` decimals; a dash for what has no value.
fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

/// `part` of `whole` as a percentage.
fn percent(part: Option<f64>) -> String {
    part.map_or_else(|| "–".to_owned(), |part| format!("{:.0} %", 100.0 * part))
}
