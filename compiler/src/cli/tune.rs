//! `tcc tune`: measures this machine and writes a profile for `--profile`.

use std::path::PathBuf;

use clap::Args;

use super::args::MachineArgs;
use super::progress::Progress;
use super::{Cx, prepare};
use crate::error::Error;
use crate::output::{self, Mode};
use crate::run::tune;

const EXAMPLES: &str = "\
The profile replaces the estimates of the target's description; the logits stay the same.

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
    let target = prepare::target(None, &MachineArgs::default())?;
    let bar = Progress::spinner(cx, "measuring");
    let profile = tune::measure(&target, args.threads as usize)?;
    drop(bar);
    match args.out {
        None => print!("{}", profile.text()),
        Some(path) => output::write_whole(&path, Mode::Data, |out| out.write_all(profile.text().as_bytes()))
            .map_err(Error::io("written", path))?,
    }
    Ok(())
}
