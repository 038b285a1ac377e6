//! The command line: arguments in, text and JSON out. Results go to standard output, words for people to standard
//! error.

mod args;
mod bench;
mod cache;
mod check;
mod compare;
mod compile;
mod eval;
mod explain;
mod inspect;
mod memory;
mod prepare;
mod progress;
mod render;
mod run;
mod schedules;
mod table;
mod targets;
mod tune;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tcc_runtime::pipe;

use crate::error::Error;

const EXAMPLES: &str = "\
Examples:
  tcc run examples/models/rust-docs-6m -p \"The `Vec` type\"
  tcc compile model/ --target aarch64 --features +dotprod -o out/
  tcc eval model/ --ids 1,2,3 -t riscv64
  tcc check model/ -t aarch64 --ctx 2048

Exit status: 0 done, 1 our bug, 2 usage, 3 input unsupported or malformed, 4 a comparison failed,
5 a limit does not hold, 6 verification failed. `tcc explain CODE` tells more about an error.";

/// Ahead-of-time compiler for ternary (1.58-bit) language models.
#[derive(Parser)]
#[command(name = "tcc", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Write one JSON object to standard output instead of text
    #[arg(long, global = true)]
    json: bool,

    /// Say nothing but results and errors
    #[arg(short, long, global = true)]
    quiet: bool,

    /// Threads of the compiler [default: all]; the output does not depend on it
    #[arg(short, long, global = true, value_name = "N")]
    jobs: Option<usize>,
}

#[derive(Subcommand)]
enum Command {
    /// Compile a model to an object file and its C header
    Compile(compile::CompileArgs),
    /// Compile for this machine and generate text
    Run(run::RunArgs),
    /// Tokens per second on this machine, beside the bandwidth that limits them
    Bench(bench::BenchArgs),
    /// Logits of given tokens, and their hash
    Eval(eval::EvalArgs),
    /// Sizes and RAM by part, and what is unsupported; writes nothing
    Check(check::CheckArgs),
    /// Targets side by side: sizes, RAM, stack, hashes, rates; against a baseline for CI
    Compare(compare::CompareArgs),
    /// Look into a model or an object
    Inspect(inspect::InspectArgs),
    /// Measure this machine and write a profile for --profile
    Tune(tune::TuneArgs),
    /// List targets, CPUs, features and kernels
    Targets,
    /// Explain an error code or a pass
    Explain(explain::ExplainArgs),
    /// Show or clear the cache of `tcc run`
    Cache(cache::CacheArgs),
}

/// What every command is given besides its arguments.
pub struct Cx {
    pub json: bool,
    pub quiet: bool,
}

/// Parses the arguments, runs the command, renders its error, and returns the exit status.
pub fn main() -> ExitCode {
    pipe::end_quietly_when_closed();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are not errors; clap exits with 2 for the rest, as documented.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            return if error.print().is_ok() { ExitCode::from(code) } else { ExitCode::from(1) };
        }
    };
    let cx = Cx { json: cli.json, quiet: cli.quiet || cli.json };
    if let Some(jobs) = cli.jobs {
        // Fails only if a pool exists already, and nothing has run before this line.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(jobs).build_global();
    }
    match dispatch(&cx, cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            render::error(&cx, &error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn dispatch(cx: &Cx, command: Command) -> Result<(), Error> {
    match command {
        Command::Compile(args) => compile::run(cx, args),
        Command::Run(args) => run::run(cx, args),
        Command::Bench(args) => bench::run(cx, args),
        Command::Eval(args) => eval::run(cx, args),
        Command::Check(args) => check::run(cx, args),
        Command::Compare(args) => compare::run(cx, args),
        Command::Inspect(args) => inspect::run(cx, args),
        Command::Tune(args) => tune::run(cx, args),
        Command::Targets => targets::run(cx),
        Command::Explain(args) => explain::run(cx, args),
        Command::Cache(args) => cache::run(cx, args),
    }
}
