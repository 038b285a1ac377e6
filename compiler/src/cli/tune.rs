//! `tcc tune`: measures this machine and writes a profile for `--profile`.

use std::path::PathBuf;

use clap::Args;
use tcc_ir::target::TargetDesc;

use super::args::MachineArgs;
use super::progress::Progress;
use super::table::Table;
use super::{Cx, prepare};
use crate::error::Error;
use crate::profile::Profile;
use crate::run::tune;

const EXAMPLES: &str = "\
Measured are the assembled kernels that this machine runs, the rows of a task at which they are fastest, the sizes and
bandwidths of its caches, and the share of memory's bandwidth that each thread has. The profile replaces the estimates
of the target's description; the logits stay the same. It is refused where the code may use CPU features that the
measured machine lacks, and for `-t host` on another processor.

Examples:
  tcc tune -o this-machine.json
  tcc inspect model/ --schedules --profile this-machine.json";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct TuneArgs {
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Threads that models will run on: they share the bandwidth of memory
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: u32,
}

pub(super) fn run(cx: &Cx, args: TuneArgs) -> Result<(), Error> {
    if !(1..=256).contains(&args.threads) {
        return Err(Error::usage(format!("{} threads were asked for", args.threads), "give 1 to 256"));
    }
    let target = prepare::own_target(None, &MachineArgs::default())?;
    let bar = Progress::spinner(cx, "measuring");
    let profile = tune::measure(&target, args.threads as usize, |what| bar.message(format!("measuring {what}")))?;
    drop(bar);
    if let Some(path) = &args.out {
        prepare::write_file(path, profile.text().as_bytes())?;
    }
    if args.out.is_none() || cx.json {
        print!("{}", profile.text());
    } else if !cx.quiet {
        print!("{}", text(&profile, target.machine.desc));
    }
    Ok(())
}

/// What was measured beside what the target's description says.
fn text(profile: &Profile, desc: &TargetDesc) -> String {
    let cell = |value: Option<String>| value.unwrap_or_else(|| "–".into());
    let mut rows = Vec::new();
    for memory in desc.memories {
        let measured = profile.bytes.get(memory.name);
        if let Some(bytes) = measured {
            rows.push(vec![format!("{} bytes", memory.name), memory.bytes.to_string(), bytes.to_string()]);
        }
        let measured = profile.bytes_per_cycle.get(memory.name).map(|rate| format!("{rate:.1}"));
        rows.push(vec![
            format!("{} bytes per cycle", memory.name),
            format!("{:.1}", memory.bytes_per_cycle),
            cell(measured),
        ]);
    }
    for row in desc.menu {
        let measured = profile.macs_per_cycle.get(row.name).map(|rate| format!("{rate:.1}"));
        rows.push(vec![format!("{} MAC per cycle", row.name), format!("{:.1}", row.macs_per_cycle), cell(measured)]);
    }
    for (encoding, task) in &profile.task_rows {
        rows.push(vec![format!("{encoding} rows of a task"), cell(None), task.to_string()]);
    }
    let table = Table { header: vec!["", "described", "measured"], rows };
    format!("{} ({})\n{}", profile.cpu, profile.features, table.aligned())
}
