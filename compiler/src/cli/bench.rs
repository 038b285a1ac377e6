//! `tcc bench`: decode and prefill rates on this machine, beside the read bandwidth measured in the same run.

use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};
use tcc_runtime::bandwidth::{Pages, read_bandwidth};

use super::args::{DEFAULT_MAX_THREADS, MachineArgs, ModelArgs};
use super::progress::Progress;
use super::{Cx, memory, prepare};
use crate::driver::{self, Back};
use crate::error::Error;
use crate::run::host::HostModel;
use crate::run::rates::Work;

const EXAMPLES: &str = "\
Bytes per token are those the plan says each step reads and writes; the share is theirs of the
larger bandwidth measured now, with pages of the usual size or with huge ones.

Examples:
  tcc bench model/ --threads 1,2
  cargo xtask synth synth-2b && tcc bench synth-2b --json";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    machine: MachineArgs,

    /// Numbers of threads to measure
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1])]
    threads: Vec<u32>,

    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 64)]
    prompt: usize,

    /// Tokens to generate
    #[arg(short, long, value_name = "N", default_value_t = 32)]
    n: usize,

    /// Runs of which the median counts
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
}

pub(super) fn run(cx: &Cx, args: BenchArgs) -> Result<(), Error> {
    if args.runs == 0 || args.n == 0 || args.prompt == 0 || args.threads.contains(&0) {
        return Err(Error::usage("nothing to measure", "give at least 1 for --runs, --threads, --prompt and -n"));
    }
    let target = prepare::target(None, &args.machine)?;
    let bar = Progress::spinner(cx, "compiling");
    let most = args.threads.iter().copied().max().unwrap_or(1).max(DEFAULT_MAX_THREADS);
    let options = prepare::plan_options(&args.machine, most)?;
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
    let (back, compile) = (back?, begin.elapsed().as_secs_f64());
    let host = match HostModel::load(&back, &weights) {
        Ok(host) => host,
        Err(_) => return Err(Error::usage("this machine cannot run the code", "leave out --cpu and --features")),
    };
    bar.message("measuring");
    let work = Work { prompt: args.prompt, n: args.n, runs: args.runs };
    let bytes = work.bytes_per_token(&back.plan);
    let mut rows = Vec::new();
    for &threads in &args.threads {
        let read = |pages| read_bandwidth(threads as usize, pages).map_err(Error::io("measured", "memory"));
        let (usual, huge) = (read(Pages::Usual)?, read(Pages::Huge)?);
        let rates = work.rates(&host, threads)?;
        rows.push(json!({
            "threads": threads, "decode_tokens_per_second": rates.decode,
            "prefill_tokens_per_second": rates.prefill,
            "read_bandwidth_gb_per_second": usual / 1e9,
            "read_bandwidth_huge_pages_gb_per_second": huge / 1e9,
            "decode_gb_per_second": rates.decode * bytes as f64 / 1e9,
            "share_of_bandwidth": rates.decode * bytes as f64 / usual.max(huge),
        }));
    }
    drop(bar);
    let features = target.machine.desc.feature_names(target.machine.features);
    let value = json!({
        "target": target.triple, "cpu_features": features, "bytes_per_token": bytes,
        "compile_seconds": compile, "compile_peak_anonymous_bytes": peak_bytes, "prompt": args.prompt, "generated": args.n, "rows": rows,
    });
    if cx.json {
        println!("{value}")
    } else {
        print!("{}", text(&value))
    }
    Ok(())
}

fn text(value: &Value) -> String {
    let number = |v: &Value, digits: usize| format!("{:.digits$}", v.as_f64().unwrap_or(0.0));
    let mut out = format!(
        "{} ({})\n  compiled in {} s with {} MB of anonymous memory; {} MB moved per token\n",
        value["target"].as_str().unwrap_or(""),
        value["cpu_features"].as_str().unwrap_or(""),
        number(&value["compile_seconds"], 2),
        value["compile_peak_anonymous_bytes"].as_u64().unwrap_or(0) / 1_000_000,
        value["bytes_per_token"].as_u64().unwrap_or(0) / 1_000_000,
    );
    out += "  threads  decode tok/s  prefill tok/s  decode GB/s  read GB/s  huge pages  share\n";
    for row in value["rows"].as_array().into_iter().flatten() {
        let share = row["share_of_bandwidth"].as_f64().unwrap_or(0.0) * 100.0;
        out += &format!(
            "  {:>7}  {:>12}  {:>13}  {:>11}  {:>9}  {:>10}  {share:>4.0} %\n",
            row["threads"],
            number(&row["decode_tokens_per_second"], 1),
            number(&row["prefill_tokens_per_second"], 1),
            number(&row["decode_gb_per_second"], 1),
            number(&row["read_bandwidth_gb_per_second"], 1),
            number(&row["read_bandwidth_huge_pages_gb_per_second"], 1),
        );
    }
    out
}
