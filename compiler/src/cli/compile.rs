//! `tcc compile`: model to object and header, for one or several targets.

mod matrix;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tcc_backends::image::HashSlot;
use tcc_backends::isa::matrix::desc::NAME;
use tcc_ir::program::Program;

use super::args::{MatrixArgs, ModelArgs, TargetsArgs};
use super::progress::Progress;
use super::{Cx, prepare};
use crate::driver::{self, Back, Front};
use crate::error::Error;
use crate::header::{self, HeaderParts, WeightsMode};
use crate::model::Model;
use crate::{golden, listing, object, pieces, report, run};

const EXAMPLES: &str = "\
Examples:
  tcc compile model/ --target aarch64
  tcc compile model/model.safetensors -t x86_64 --cpu zen5 --emit obj,header,report
  tcc compile model/ -t aarch64 --variants baseline,dotprod,i8mm
  tcc compile model/ -t riscv64 --features +v -t aarch64 -o out/
  tcc compile model/ -t ascend --machine kirin9030 --emit obj,header,program
  tcc compile model/ -t riscv64 --emit exe && qemu-riscv64 tcc-out/NAME/riscv64-unknown-none-elf/NAME 1 2 3 -n 8";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct CompileArgs {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    targets: TargetsArgs,

    #[command(flatten)]
    matrix: MatrixArgs,

    /// C prefix of every symbol [default: the folder's name]
    #[arg(short, long)]
    name: Option<String>,

    /// Where the weights live
    #[arg(long, value_enum, default_value_t = Weights::Object)]
    weights: Weights,

    /// What to write
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Emit::Obj, Emit::Header])]
    emit: Vec<Emit>,

    /// Call the hooks op_begin and op_end around every op; ops that may run at the same time run within the last of them
    #[arg(long)]
    op_hooks: bool,

    /// Evaluate a few tokens now, so that the object can test itself
    #[arg(long, value_enum, default_value_t = Golden::Auto)]
    golden: Golden,

    /// Folder [default: tcc-out/NAME/TARGET]; several targets get a folder each below it
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Print the program after these passes (`build` is before the first)
    #[arg(long, value_name = "PASS,…", value_delimiter = ',', help_heading = "Passes")]
    print_ir_after: Vec<String>,

    /// Stop after this pass; writes nothing
    #[arg(long, value_name = "PASS", help_heading = "Passes")]
    stop_after: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Weights {
    /// In the object, in a section of their own
    Object,
    /// In NAME.weights beside the object
    File,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Emit {
    /// NAME.o
    Obj,
    /// NAME.h
    Header,
    /// NAME: a static Linux executable that reads token ids
    Exe,
    /// NAME.s: a listing of the code; for a matrix unit NAME.PROGRAM.s, the text of each program
    Asm,
    /// NAME.PROGRAM.dvp: each program of a matrix unit
    Program,
    /// NAME.mM_nN_kK.cpp: each ternary product of a matrix unit as text for the vendor's tile library; never run on
    /// hardware
    Source,
    /// NAME.tir: the program after all passes
    Ir,
    /// NAME.dot: its graphs for Graphviz
    Dot,
    /// NAME.report.json
    Report,
    /// NAME_pieces.h: the bytes of each token as C tables
    Pieces,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Golden {
    /// With this machine's compiled code where it can run it, else with the interpreter
    Auto,
    /// No self-test
    Off,
}

pub(super) fn run(cx: &Cx, args: CompileArgs) -> Result<(), Error> {
    for pass in &args.print_ir_after {
        if pass != "build" {
            crate::passes::find(pass)?;
        }
    }
    let model = prepare::open(cx, &args.model)?;
    let observe = |pass: &str, program: &Program| {
        if args.print_ir_after.iter().any(|p| p == pass) {
            print!("; after {pass}\n{}", tcc_ir::text::print::program(program));
        }
    };
    let options = prepare::build_options(&args.model);
    let front = driver::front(&model, &options, args.stop_after.as_deref(), observe)?;
    if args.stop_after.is_some() {
        return Ok(());
    }
    let name = prepare::model_name(args.name.as_deref(), &model)?;
    let requested = args.targets.requested();
    if !requested.iter().any(|target| crate::matrix::is_target(*target)) {
        prepare::no_matrix_unit(&args.matrix)?;
    } else if requested.iter().all(|target| crate::matrix::is_target(*target)) {
        prepare::no_cpu(&args.targets.machine)?;
    }
    let inside = args.weights == Weights::Object;
    let mut written = Vec::new();
    for target in &requested {
        if crate::matrix::is_target(*target) {
            let folder = folder(&args, &name, NAME, requested.len());
            written.push(Job { cx, args: &args, model: &model, front: &front, folder }.matrix(&name)?);
            continue;
        }
        let target = prepare::target(*target, &args.targets.machine)?;
        let plan_options = prepare::plan_options(&args.model, &args.targets.machine, args.targets.threads)?;
        let mut back = driver::back(&front, &target, &name, &plan_options, inside)?;
        if args.op_hooks {
            back.image = back.image_with_op_hooks()?;
        }
        let folder = folder(&args, &name, &target.triple, requested.len());
        written.push(Job { cx, args: &args, model: &model, front: &front, folder }.finish(back)?);
    }
    if cx.json {
        println!("{}", json!({ "objects": written }));
    }
    Ok(())
}

/// Where the files of one of `count` targets go.
fn folder(args: &CompileArgs, name: &str, target: &str, count: usize) -> PathBuf {
    match &args.out {
        Some(out) if count > 1 => out.join(target),
        Some(out) => out.clone(),
        None => Path::new("tcc-out").join(name).join(target),
    }
}

/// One target's files.
struct Job<'a> {
    cx: &'a Cx,
    args: &'a CompileArgs,
    model: &'a Model,
    front: &'a Front<'a>,
    folder: PathBuf,
}

impl Job<'_> {
    /// Makes weights, golden hash and every requested file; returns the report.
    fn finish(&self, mut back: Back) -> Result<Value, Error> {
        let args = self.args;
        let emits = |kind| args.emit.contains(&kind);
        if emits(Emit::Program) || emits(Emit::Source) {
            return Err(not_for(&back.target.triple, "programs are for matrix units"));
        }
        if args.weights == Weights::Object && (emits(Emit::Obj) || emits(Emit::Exe)) {
            object::check_embeddable(back.plan().weights_bytes)?;
        }
        prepare::create_folder(&self.folder)?;
        // A file of its own first: its hash goes into the code, and the golden run maps it.
        let scratch = tempfile::Builder::new().prefix(".tcc-").tempdir_in(&self.folder)?;
        let weights = scratch.path().join("weights");
        let bar = Progress::bytes(self.cx, "packing", back.plan().weights_bytes);
        back.write_weights(&self.front.store, &weights, |done| bar.set(done))?;
        drop(bar);
        let golden = self.golden(&mut back, &weights)?;
        let report = report::report(&back, self.model, golden);
        self.write(&back, &weights, golden, &report)?;
        if !self.cx.quiet {
            eprint!("{}", report::summary(&back, &self.folder));
        }
        Ok(report)
    }

    fn golden(&self, back: &mut Back, weights: &Path) -> Result<Option<[u8; 32]>, Error> {
        if self.args.golden == Golden::Off {
            return Ok(None);
        }
        let _bar = Progress::spinner(self.cx, "golden run");
        let tokens = golden::tokens(&self.front.program.facts);
        let logits = match run::host::HostModel::load(back, weights) {
            Ok(host) => host.logits(&tokens, 1)?,
            Err(run::host::HostError::OtherMachine) => golden::interpret(self.front, &tokens)?,
            Err(run::host::HostError::Failed(error)) => return Err(*error),
        };
        let hash = golden::hash(&logits);
        back.set_hash(HashSlot::Golden, hash);
        Ok(Some(hash))
    }

    fn write(&self, back: &Back, weights: &Path, golden: Option<[u8; 32]>, report: &Value) -> Result<(), Error> {
        let path = |suffix: &str| self.path(&back.name, suffix);
        let text = |suffix: &str, text: &str| self.text(&back.name, suffix, text);
        for emit in &self.args.emit {
            match emit {
                Emit::Obj => {
                    let inside = (self.args.weights == Weights::Object).then_some(weights);
                    back.write_object(&path(".o"), inside)?;
                }
                Emit::Header => text(".h", &self.header(back, golden))?,
                Emit::Exe => back.write_executable(&path(""), weights)?,
                Emit::Asm => text(".s", &listing::text(back))?,
                Emit::Program | Emit::Source => unreachable!("refused before anything is made"),
                Emit::Ir => self.ir(&back.name)?,
                Emit::Dot => self.dot(&back.name)?,
                Emit::Report => text(".report.json", &format!("{report:#}\n"))?,
                Emit::Pieces => text("_pieces.h", &pieces::header(&back.name, self.model)?)?,
            }
        }
        if self.args.weights == Weights::File && self.args.emit.contains(&Emit::Obj) {
            let to = path(".weights");
            std::fs::rename(weights, &to).map_err(Error::io("written", to))?;
        }
        Ok(())
    }

    /// NAME and a suffix, in the target's folder.
    fn path(&self, name: &str, suffix: &str) -> PathBuf {
        self.folder.join(format!("{name}{suffix}"))
    }

    fn text(&self, name: &str, suffix: &str, text: &str) -> Result<(), Error> {
        prepare::write_file(&self.path(name, suffix), text.as_bytes())
    }

    fn ir(&self, name: &str) -> Result<(), Error> {
        self.text(name, ".tir", &tcc_ir::text::print::program(&self.front.program))
    }

    fn dot(&self, name: &str) -> Result<(), Error> {
        let program = &self.front.program;
        let graphs: Vec<_> = program.graphs().map(|g| tcc_ir::dot::graph(g, program)).collect();
        self.text(name, ".dot", &graphs.join("\n"))
    }

    fn header(&self, back: &Back, golden: Option<[u8; 32]>) -> String {
        let desc = back.target.machine.desc;
        let variants: Vec<_> = back.variants.iter().map(|v| (v.name.clone(), v.plan.needs)).collect();
        header::text(&HeaderParts {
            name: &back.name,
            tcc_version: driver::VERSION,
            target: &back.target.triple,
            needs: back.needs(),
            variants: if back.variants.len() > 1 { &variants } else { &[] },
            features: desc.features,
            plan: back.plan(),
            image: &back.image,
            weights: match self.args.weights {
                Weights::Object => WeightsMode::Object,
                Weights::File => WeightsMode::File,
            },
            golden,
        })
    }
}

/// An argument that the target has no use for.
fn not_for(target: &str, why: &str) -> Error {
    Error::usage(format!("target '{target}': {why}"), "`tcc compile --help` says what --emit can write")
}
