//! `tcc eval`: logits of given tokens by any engine on any target, and their hash.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use tcc_backends::isa::matrix::desc::NAME;

use super::args::{DEFAULT_MAX_THREADS, Ids, MachineArgs, MatrixArgs, ModelArgs, VariantArgs, parse_ids};
use super::progress::Progress;
use super::{Cx, prepare};
use crate::driver::{self, Front};
use crate::error::Error;
use crate::matrix::object::ObjectFile;
use crate::output::{self, Mode};
use crate::run::emulate;
use crate::run::host::{HostError, HostModel};
use crate::target::Target;
use crate::{golden, matrix};

const EXAMPLES: &str = "\
The hash is SHA-256 of the logits as f32 little-endian bytes, [tokens, vocabulary]. It is the same on every target,
CPU level, thread count, vector length and chunk size; it depends on the model, the tokens and --kv.

Examples:
  tcc eval model/ --ids 1,2,3
  tcc eval model/ --ids 1,2,3 --engine interpreter
  tcc eval model/ --ids 1,2,3 -t riscv64 --features +v --vlen 256 --threads 3
  tcc eval model/ --ids 1,2,3 -t ascend --machine kirin9030 --prefill 8
  tcc compile model/ -t ascend --machine kirin9030 -o out/ -n model && tcc eval out/model.o --ids 1,2,3";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,

    /// Token ids
    #[arg(long, value_name = "ID,…", value_parser = parse_ids)]
    ids: Ids,

    /// host, a short name (x86_64, aarch64, riscv64), a full triple, or ascend (simulated)
    #[arg(short, long, value_name = "TARGET", help_heading = "Target")]
    target: Option<String>,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    variant: VariantArgs,

    #[command(flatten)]
    matrix: MatrixArgs,

    /// Who computes
    #[arg(long, value_enum, default_value_t = Engine::Compiled)]
    engine: Engine,

    /// Threads; in emulated executables the tasks run reversed and shuffled on one
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: u32,

    /// Write the logits, f32 [tokens, vocabulary], as tensor `logits`
    #[arg(long, value_name = "FILE.safetensors")]
    logits: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// Machine code
    Compiled,
    /// The reference interpreter
    Interpreter,
}

/// Logits, `[tokens, vocab]`, and who computed them.
struct Evaluated {
    logits: Vec<f32>,
    vocab: usize,
    engine: String,
}

pub(super) fn run(cx: &Cx, args: EvalArgs) -> Result<(), Error> {
    let done = match prepare::is_elf(&args.model.model) {
        true => object(cx, &args)?,
        false => model(cx, &args)?,
    };
    let Evaluated { logits, vocab, engine } = done;
    let tokens = args.ids.0.len();
    let hash = golden::hex(&golden::hash(&logits));
    if let Some(path) = &args.logits {
        write_logits(path, &logits, tokens)?;
    }
    if cx.json {
        let argmax: Vec<usize> = logits.chunks_exact(vocab).map(argmax).collect();
        println!("{}", json!({ "sha256": hash, "tokens": tokens, "vocab": vocab, "engine": engine, "argmax": argmax }));
    } else {
        println!("{hash}  {tokens} tokens x {vocab} logits, {engine}");
    }
    Ok(())
}

/// A model, by the engine that was asked for.
fn model(cx: &Cx, args: &EvalArgs) -> Result<Evaluated, Error> {
    let model = prepare::open(cx, &args.model)?;
    let front = prepare::front(&model, &args.model)?;
    let ids = &args.ids.0;
    let facts = &front.program.facts;
    prepare::check_ids((facts.vocab, facts.ctx), ids)?;
    let (logits, engine) = match args.engine {
        Engine::Interpreter => (golden::interpret(&front, ids)?, "interpreter".to_owned()),
        Engine::Compiled if matrix::is_target(args.target.as_deref()) => simulated(cx, args, &front)?,
        Engine::Compiled => {
            prepare::no_matrix_unit(&args.matrix)?;
            let target = prepare::own_target(args.target.as_deref(), &args.machine)?;
            let logits = compiled(cx, args, &front, &target)?;
            (logits, format!("{} ({})", target.triple, target.machine.desc.feature_names(target.machine.features)))
        }
    };
    Ok(Evaluated { logits, vocab: facts.vocab, engine })
}

/// An object for a matrix unit, alone: its machine, programs and weights.
fn object(cx: &Cx, args: &EvalArgs) -> Result<Evaluated, Error> {
    let path = &args.model.model;
    if args.engine == Engine::Interpreter || args.target.as_deref().is_some_and(|target| target != NAME) {
        let help = format!("leave out --engine and -t, or give -t {NAME}");
        return Err(Error::usage("of objects, those for a matrix unit are evaluated, by its simulator", help));
    }
    prepare::nothing_to_decide(&args.machine, &args.matrix)?;
    let bar = Progress::spinner(cx, "simulating");
    let file = ObjectFile::open(path)?;
    let object = file.read()?;
    prepare::check_ids((object.model.vocab, object.model.ctx), &args.ids.0)?;
    let (logits, _) = matrix::run::logits(&object.model, object.weights, &args.ids.0, true)?;
    drop(bar);
    Ok(Evaluated { logits, vocab: object.model.vocab, engine: simulator(&object.model.machine.name) })
}

fn simulator(machine: &str) -> String {
    format!("{NAME} (simulated {machine})")
}

fn compiled(cx: &Cx, args: &EvalArgs, front: &Front, target: &Target) -> Result<Vec<f32>, Error> {
    let bar = Progress::spinner(cx, format!("compiling for {}", target.triple));
    let threads = args.threads.max(DEFAULT_MAX_THREADS);
    let options = prepare::plan_options(&args.model, &args.machine, threads)?;
    let mut back = driver::back(front, target, "model", &options, false)?;
    let folder = tempfile::tempdir()?;
    let weights = folder.path().join("weights");
    back.write_weights(&front.store, &weights, |_| {})?;
    bar.message("running");
    let variant = prepare::variant(&back, args.variant.variant.as_deref())?;
    match HostModel::load(&back, &weights) {
        Ok(host) => host.with_variant(variant).logits(&args.ids.0, args.threads),
        Err(HostError::OtherMachine) => {
            emulate::logits(&back, variant, &weights, folder.path(), &args.ids.0, args.threads)
        }
        Err(HostError::Failed(error)) => Err(*error),
    }
}

/// Logits by the simulator of a matrix unit, and who that was.
fn simulated(cx: &Cx, args: &EvalArgs, front: &Front) -> Result<(Vec<f32>, String), Error> {
    let bar = Progress::spinner(cx, "compiling for the matrix unit");
    let machine = prepare::matrix_machine(&args.matrix)?;
    let compiled = matrix::build(front, &machine, &prepare::matrix_options(&args.machine, &args.matrix)?)?;
    bar.message("simulating");
    let (logits, _) = matrix::run::logits(&compiled.model, &compiled.weights(front)?, &args.ids.0, true)?;
    Ok((logits, simulator(&machine.name)))
}

/// Index of the largest logit, the lowest of equals.
fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, v) in row.iter().enumerate() {
        if *v > row[best] {
            best = i;
        }
    }
    best
}

fn write_logits(path: &Path, logits: &[f32], tokens: usize) -> Result<(), Error> {
    let bytes: Cow<[u8]> = logits.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into();
    let view = TensorView::new(Dtype::F32, vec![tokens, logits.len() / tokens.max(1)], &bytes)
        .expect("four bytes for each element");
    let file = safetensors::serialize([("logits", view)], None).expect("one valid tensor serializes");
    output::write_whole(path, Mode::Data, |out| out.write_all(&file)).map_err(Error::io("written", path))
}
