//! `tcc inspect`: what is in a model, an object or a program's graphs.

use clap::Args;
use serde_json::{Value, json};
use tcc_backends::isa::matrix::program::codec::{self, DecodeError};
use tcc_backends::isa::matrix::program::text;
use tcc_ir::coded::{CodedLayout, RowCode};

use super::args::{MachineArgs, MatrixArgs, ModelArgs};
use super::{Cx, prepare, schedules};
use crate::error::Error;
use crate::inspect;
use crate::matrix::{self, object::ObjectFile};
use crate::model::{Model, TableRef};
use crate::report;
use crate::run::tokenizer::Tokenizer;

const EXAMPLES: &str = "\
Examples:
  tcc inspect model/
  tcc inspect model/ --schedules -t x86_64 --cpu zen4
  tcc inspect model/ --schedules -t ascend --machine kirin9030
  tcc inspect tcc-out/model/ascend/model.o --program decode
  tcc inspect tcc-out/model/aarch64-unknown-none-elf/model.o";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct InspectArgs {
    #[command(flatten)]
    model: ModelArgs,

    /// Print the token ids of this text, separated by commas
    #[arg(long, value_name = "TEXT")]
    encode: Option<String>,

    /// Print the optimized program in its text form
    #[arg(long)]
    ir: bool,

    /// Print how ternary weights can be packed, what each way costs, and which is chosen
    #[arg(long)]
    schedules: bool,

    /// Print this program of an object for a matrix unit as text
    #[arg(long, value_name = "NAME")]
    program: Option<String>,

    /// With --schedules: host, a short name (`tcc targets` lists them), or a full triple
    #[arg(short, long, value_name = "TARGET", help_heading = "Target")]
    target: Option<String>,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    matrix: MatrixArgs,
}

pub(super) fn run(cx: &Cx, args: InspectArgs) -> Result<(), Error> {
    let path = &args.model.model;
    if prepare::begins_with(path, &codec::MAGIC) {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let failed = |e: DecodeError| Error::Module { path: path.clone(), reason: e.to_string() };
        print!("{}", text::print(&codec::decode(&bytes).map_err(failed)?));
        return Ok(());
    }
    if prepare::is_elf(path) {
        let object = inspect::object(path)?;
        if object["architecture"] != "unknown" {
            show(cx, &object, &inspect::object_text(&object));
            return Ok(());
        }
        return matrix_object(cx, &args);
    }
    let model = prepare::open(cx, &args.model)?;
    if let Some(text) = &args.encode {
        let ids = Tokenizer::open(&model.text)?.encode(text)?;
        let list: Vec<_> = ids.iter().map(ToString::to_string).collect();
        println!("{}", list.join(","));
        return Ok(());
    }
    if args.ir {
        let front = prepare::front(&model, &args.model)?;
        print!("{}", tcc_ir::text::print::program(&front.program));
        return Ok(());
    }
    if args.schedules {
        let front = prepare::front(&model, &args.model)?;
        if matrix::is_target(args.target.as_deref()) {
            let machine = prepare::matrix_machine(&args.matrix)?;
            let options = prepare::matrix_options(&args.machine, &args.matrix)?;
            let tiles = matrix::build(&front, &machine, &options)?.tiles_with_cycles();
            show(cx, &json!({ "machine": machine.name, "tiles": tiles }), &tiles);
            return Ok(());
        }
        prepare::no_matrix_unit(&args.matrix)?;
        let target = prepare::target(args.target.as_deref(), &args.machine)?;
        let value = schedules::describe(&front, &target)?;
        show(cx, &value, &schedules::text(&value));
        return Ok(());
    }
    let head = prepare::build_options(&args.model).head;
    let mut value = describe(&model);
    value["lossy_head"] = json!(head.map(RowCode::name));
    show(cx, &value, &(model_text(&model) + &head_text(&model, head)));
    Ok(())
}

/// An object for a matrix unit, or one of its programs.
fn matrix_object(cx: &Cx, args: &InspectArgs) -> Result<(), Error> {
    let file = ObjectFile::open(&args.model.model)?;
    let object = file.read()?;
    if let Some(name) = &args.program {
        let body = object.model.programs().find(|body| body.program.name == *name);
        let known: Vec<&str> = object.model.programs().map(|body| body.program.name.as_str()).collect();
        let help = format!("the object has {}", known.join(", "));
        let body = body.ok_or_else(|| Error::usage(format!("there is no program '{name}'"), help))?;
        print!("{}", text::print(&body.program));
        return Ok(());
    }
    if args.schedules {
        print!("{}", object.tiles);
        return Ok(());
    }
    let value = matrix::inspect::object(&object)?;
    show(cx, &value, &matrix::inspect::object_text(&value));
    Ok(())
}

fn show(cx: &Cx, value: &Value, text: &str) {
    if cx.json { println!("{value}") } else { print!("{text}") }
}

fn describe(model: &Model) -> Value {
    let config = &model.config;
    let linears: Vec<_> = model
        .linears()
        .map(|l| {
            json!({ "name": l.spec.name, "n": l.spec.n, "k": l.spec.k, "storage": l.storage_name(),
                    "scale": l.scale_shape(), "activations": format!("{:?}", l.activations).to_lowercase() })
        })
        .collect();
    json!({
        "architecture": config.architecture, "layers": config.layers, "hidden": config.hidden,
        "vocab": config.vocab, "max_position": config.max_position,
        "files": model.files().map(|f| f.display().to_string()).collect::<Vec<_>>(),
        "linears": linears, "bos": model.generation.bos, "eos": model.generation.eos, "warnings": model.warnings,
    })
}

/// Says how the head would be stored where that is lossy.
fn head_text(model: &Model, head: Option<RowCode>) -> String {
    let Some(code) = head else { return String::new() };
    let (n, k) = (model.config.vocab, model.config.hidden);
    let bytes = CodedLayout { code, n, k }.bytes();
    let tied = match model.head {
        TableRef::Embedding => ", and of the embedding, which reads the same codes",
        TableRef::Head => "",
    };
    let shape = format!("[{n}, {k}]");
    format!(
        "  {:<44} {shape:<16} {:<10} of the head, lossy: {}{tied}\n",
        "table",
        code.name(),
        report::human(bytes as u64)
    )
}

fn model_text(model: &Model) -> String {
    let config = &model.config;
    let mut out = format!(
        "{}  {} layers, width {}, vocabulary {}, context {}\n",
        config.architecture, config.layers, config.hidden, config.vocab, config.max_position
    );
    for linear in model.linears() {
        let scale = linear.scale_shape().map_or_else(|| "-".into(), |shape| format!("{shape:?}"));
        let activations = format!("{:?}", linear.activations).to_lowercase();
        let shape = format!("[{}, {}]", linear.spec.n, linear.spec.k);
        out += &format!(
            "  {:<44} {shape:<16} {:<10} scale {scale:<12} {activations}\n",
            linear.spec.name,
            linear.storage_name()
        );
    }
    out
}
