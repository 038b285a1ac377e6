//! `tcc inspect`: what is in a model, an object or a program's graphs.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::args::{MachineArgs, ModelArgs};
use super::{Cx, prepare, schedules};
use crate::error::Error;
use crate::inspect;
use crate::model::Model;
use crate::run::tokenizer::Tokenizer;

const EXAMPLES: &str = "\
Examples:
  tcc inspect model/
  tcc inspect model/ --schedules -t x86_64 --cpu zen4
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

    /// With --schedules: host, a short name (`tcc targets` lists them), or a full triple
    #[arg(short, long, value_name = "TARGET", help_heading = "Target")]
    target: Option<String>,

    #[command(flatten)]
    machine: MachineArgs,
}

pub(super) fn run(cx: &Cx, args: InspectArgs) -> Result<(), Error> {
    if is_elf(&args.model.model) {
        let object = inspect::object(&args.model.model)?;
        show(cx, &object, &inspect::object_text(&object));
        return Ok(());
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
        let target = prepare::target(args.target.as_deref(), &args.machine)?;
        let value = schedules::describe(&front, &target)?;
        show(cx, &value, &schedules::text(&value));
        return Ok(());
    }
    let value = describe(&model);
    show(cx, &value, &text(&model));
    Ok(())
}

fn show(cx: &Cx, value: &Value, text: &str) {
    if cx.json { println!("{value}") } else { print!("{text}") }
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut f| f.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
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

fn text(model: &Model) -> String {
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
