//! Chores: `cargo xtask synth FOLDER` writes a random checkpoint of BitNet b1.58 2B-4T's shape (1.2 GB).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tcc_tests::synth;

/// Chores around the repository.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Write a random packed checkpoint of BitNet b1.58 2B-4T's shape (1.2 GB)
    Synth {
        /// Folder of the checkpoint; made where there is none
        folder: PathBuf,
        /// Layers
        #[arg(default_value_t = synth::Shape::B2_4T.layers)]
        layers: usize,
        /// About the cosine of the last hidden row with the row of the best logit, above 0 and below 1 (0.3 is the example
        /// model's): what a screened head reads where one logit stands out [default: left to chance]
        #[arg(long, value_name = "C", value_parser = cosine)]
        cosine: Option<f64>,
    },
}

fn cosine(text: &str) -> Result<f64, String> {
    let cosine = text.parse().ok().filter(|c| 0.0 < *c && *c < 1.0);
    cosine.ok_or_else(|| "expected a number above 0 and below 1".to_owned())
}

fn main() -> ExitCode {
    let Chore::Synth { folder, layers, cosine } = Cli::parse().chore;
    match synth::write(&folder, &synth::Shape { layers, cosine, ..synth::Shape::B2_4T }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
