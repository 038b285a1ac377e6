//! `tcc run`: compiles for this machine, keeps the result, and generates text.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use tcc_runtime::abi::{ABI_MAJOR, ABI_MINOR, Sampler};
use tcc_runtime::pool::Pool;
use tcc_runtime::session::Session;

use super::args::{DEFAULT_MAX_THREADS, MachineArgs, ModelArgs};
use super::progress::Progress;
use super::{Cx, cache, prepare};
use crate::driver::{self, VERSION};
use crate::error::Error;
use crate::model::Model;
use crate::run::chat;
use crate::run::generate::{Settings, Stats, generate};
use crate::run::host::HostModel;
use crate::run::tokenizer::Tokenizer;

const EXAMPLES: &str = "\
Examples:
  tcc run examples/models/rust-docs-6m -p \"The `Vec` type\"
  tcc run model/ --chat -p \"What is a ternary model?\" --temperature 0.7 --seed 1 --threads 2";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    machine: MachineArgs,

    /// Text to continue
    #[arg(short, long)]
    prompt: String,

    /// Most tokens to generate
    #[arg(short, long, value_name = "N", default_value_t = 128)]
    n: usize,

    /// Treat the prompt as a user's message, by the model's chat template
    #[arg(long)]
    chat: bool,

    /// Randomness; 0 always takes the most likely token
    #[arg(long, value_name = "T", default_value_t = 0.0, help_heading = "Sampling")]
    temperature: f32,

    /// Keep the K most likely tokens, 0 = all
    #[arg(long, value_name = "K", default_value_t = 40, help_heading = "Sampling")]
    top_k: u32,

    /// Keep the most likely tokens that hold this share of the probability
    #[arg(long, value_name = "P", default_value_t = 0.95, help_heading = "Sampling")]
    top_p: f32,

    /// Equal seeds give equal texts
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Sampling")]
    seed: u64,

    /// Guess up to N tokens from what the text repeats and evaluate them together; the text stays the same, 0 = off
    #[arg(long, value_name = "N", default_value_t = 0)]
    speculate: usize,

    /// Threads [default: the machine's, at most 8]
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
}

pub(super) fn run(cx: &Cx, args: RunArgs) -> Result<(), Error> {
    let model = prepare::open(cx, &args.model)?;
    let tokenizer = Tokenizer::open(&model.text)?;
    let prompt = match args.chat {
        true => tokenizer.encode_plain(&chat::prompt(&model.text, &args.prompt)?)?,
        false => tokenizer.encode(&args.prompt)?,
    };
    if prompt.is_empty() {
        return Err(Error::usage("the prompt has no tokens", "give some text with -p"));
    }
    let entry = compiled(cx, &args, &model)?;
    let host = HostModel::open(&entry.join("model.o"), &entry.join("model.weights"))?;
    let info = host.module().model().info();
    let mut arena = host.arena(prompt.len().saturating_add(args.n))?;
    let machine = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let threads = args.threads.unwrap_or(machine).min(info.max_threads);
    let pool = Pool::new(threads).map_err(Error::io("started", "a thread"))?;
    let hooks = host.hooks(pool.hooks());
    let mut session = Session::new(host.module().model(), arena.bytes_mut(), Some(&hooks))
        .map_err(|status| Error::Status { status })?;
    let stop = &model.generation.eos;
    let mut text = Vec::new();
    let mut stdout = std::io::stdout().lock();
    if !cx.json && !args.chat {
        write!(stdout, "{}", args.prompt).map_err(Error::io("written", "standard output"))?;
    }
    let out: &mut dyn Write = if cx.json { &mut text } else { &mut stdout };
    let settings = Settings { sampler: sampler(&args), limit: args.n, stop, speculate: args.speculate };
    let stats = generate(&mut session, &tokenizer, &prompt, settings, out)?;
    finish(cx, &mut stdout, &text, &stats, threads)
}

fn sampler(args: &RunArgs) -> Sampler {
    match args.temperature {
        t if t > 0.0 => Sampler::seeded(args.seed, t).with_top_k(args.top_k).with_top_p(args.top_p),
        _ => Sampler::GREEDY,
    }
}

fn finish(cx: &Cx, stdout: &mut dyn Write, text: &[u8], stats: &Stats, threads: u32) -> Result<(), Error> {
    let written = if cx.json {
        let value = json!({
            "text": String::from_utf8_lossy(text), "threads": threads,
            "prompt_tokens": stats.prompt_tokens, "generated_tokens": stats.generated_tokens,
            "prefill_tokens_per_second": stats.prefill_rate(), "decode_tokens_per_second": stats.decode_rate(),
            "guessed_tokens": stats.guessed_tokens, "right_guesses": stats.right_tokens,
        });
        writeln!(stdout, "{value}")
    } else {
        writeln!(stdout)
    };
    written.map_err(Error::io("written", "standard output"))?;
    if !cx.quiet {
        let guesses = match stats.guessed_tokens {
            0 => String::new(),
            guessed => format!(", {} of {guessed} guesses right", stats.right_tokens),
        };
        eprintln!(
            "{} prompt tokens at {:.1}/s, {} generated at {:.1}/s, {threads} threads{guesses}",
            stats.prompt_tokens,
            stats.prefill_rate(),
            stats.generated_tokens,
            stats.decode_rate()
        );
    }
    Ok(())
}

/// The cache's entry for this model, machine and arguments: `model.o` and `model.weights`.
fn compiled(cx: &Cx, args: &RunArgs, model: &Model) -> Result<PathBuf, Error> {
    let target = prepare::own_target(None, &args.machine)?;
    let cache = cache::open()?;
    let config = model.folder().join("config.json");
    let choices =
        format!(
            "{VERSION} {ABI_MAJOR}.{ABI_MINOR} {} {:x} {:?} {:?} {:?} {:?}",
            target.triple, target.machine.features.0, args.model.ctx, args.model.prefill, args.model.kv, args.machine
        ) + &format!(" {:?} {:?} {:?} {:?}", args.model.dense, args.model.activations, args.model.head, target.profile);
    let files = model.files().chain(std::iter::once(config.as_path()));
    let key = cache.key(files, &choices)?;
    cache.entry(&key, |folder: &Path| {
        if !cx.quiet && std::io::stderr().is_terminal() {
            eprintln!("   compiling for this machine ({})", target.machine.desc.feature_names(target.machine.features));
        }
        let front = prepare::front(model, &args.model)?;
        let options = prepare::plan_options(&args.model, &args.machine, DEFAULT_MAX_THREADS)?;
        let mut back = driver::back(&front, &target, "model", &options, false)?;
        let bar = Progress::bytes(cx, "packing", back.plan().weights_bytes);
        back.write_weights(&front.store, &folder.join("model.weights"), |done| bar.set(done))?;
        back.write_object(&folder.join("model.o"), None)
    })
}
