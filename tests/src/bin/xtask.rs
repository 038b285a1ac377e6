//! Chores: `cargo xtask synth FOLDER` writes a random checkpoint of BitNet b1.58 2B-4T's shape (1.2 GB),
//! `cargo xtask gguf FILE` one for other engines.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tcc_tests::{gguf, synth};

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
    /// Write a random checkpoint of the same shape as an f16 GGUF file, for the quantizers of other engines (4.8 GB)
    Gguf {
        /// The file
        file: PathBuf,
    },
}

fn cosine(text: &str) -> Result<f64, String> {
    let cosine = text.parse().ok().filter(|c| 0.0 < *c && *c < 1.0);
    cosine.ok_or_else(|| "expected a number above 0 and below 1".to_owned())
}

fn main() -> ExitCode {
    let done = match Cli::parse().chore {
        Chore::Synth { folder, layers, cosine } => {
            synth::write(&folder, &synth::Shape { layers, cosine, ..synth::Shape::B2_4T })
        }
        Chore::Gguf { file } => gguf::write(&file, &synth::Shape::B2_4T),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
