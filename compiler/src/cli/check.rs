//! `tcc check`: everything `compile` would find out, without writing anything.

use clap::Args;
use serde_json::json;

use super::args::{ModelArgs, TargetsArgs};
use super::{Cx, prepare};
use crate::driver;
use crate::error::Error;
use crate::report;

#[derive(Args)]
pub struct CheckArgs {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    targets: TargetsArgs,

    /// Fail with exit status 5 where the arena is larger than this many bytes
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    ram: Option<u64>,

    /// Fail with exit status 5 where an entry may use more stack than this many bytes
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    stack: Option<u64>,
}

pub(super) fn run(cx: &Cx, args: CheckArgs) -> Result<(), Error> {
    let model = prepare::open(cx, &args.model)?;
    let front = prepare::front(&model, &args.model)?;
    let requested = args.targets.requested();
    let mut reports = Vec::new();
    for name in requested {
        let target = prepare::target(name, &args.targets.machine)?;
        let options = prepare::plan_options(&args.model, &args.targets.machine, args.targets.threads)?;
        let back = driver::back(&front, &target, "check", &options, true)?;
        if !cx.json {
            print!("{}", text(&back));
        }
        reports.push(report::report(&back, &model, None));
        limit("the arena", back.plan().arena.total_bytes(), args.ram)?;
        limit("the stack of an entry", back.image.stack_bytes, args.stack)?;
    }
    if cx.json {
        println!("{}", json!({ "targets": reports }));
    }
    Ok(())
}

fn limit(what: &str, found: u64, limit: Option<u64>) -> Result<(), Error> {
    match limit {
        Some(limit) if found > limit => {
            Err(Error::Limit { what: what.into(), found: format!("{found} bytes"), limit: format!("{limit} bytes") })
        }
        Some(_) | None => Ok(()),
    }
}

fn text(back: &driver::Back) -> String {
    let (plan, arena) = (back.plan(), &back.plan().arena);
    let mut out = format!("{} ({})\n", back.target.triple, back.target.machine.desc.feature_names(plan.needs));
    let lines = [
        ("weights", plan.weights_bytes),
        ("code", back.image.text.len() as u64),
        ("RAM", arena.total_bytes()),
        ("  KV cache", arena.kv_bytes),
        ("  activations", arena.act_bytes),
        ("  logits", arena.logits_bytes),
        ("  scratch", arena.scratch_bytes()),
        ("  state", arena.state_bytes),
        ("stack per entry", back.image.stack_bytes),
        ("stack per task", back.image.task_stack_bytes),
    ];
    out += &plan.lossy_head().map_or_else(String::new, report::lossy_head_line);
    for (name, bytes) in lines {
        out += &format!("  {name:<16} {bytes:>12}  {}\n", report::human(bytes));
    }
    out
}
