//! Chores: `cargo xtask synth FOLDER` writes a random checkpoint of BitNet b1.58 2B-4T's shape (1.2 GB) or of the widths of
//! an 8B model, `cargo xtask gguf FILE` one for other engines.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
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
    /// Write a random packed checkpoint of BitNet b1.58 2B-4T's shape (1.2 GB), or of another
    Synth {
        /// Folder of the checkpoint; made where there is none
        folder: PathBuf,
        /// Layers [default: as many as the shape has]
        layers: Option<usize>,
        /// Widths: those of BitNet b1.58 2B-4T, or of Llama 3 8B (2.8 GB)
        #[arg(long, value_enum, default_value_t)]
        shape: Widths,
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

/// Whose widths a checkpoint has.
#[derive(Clone, Copy, Default, ValueEnum)]
enum Widths {
    #[default]
    #[value(name = "2b-4t")]
    B2_4T,
    #[value(name = "8b")]
    B8,
}

impl Widths {
    fn shape(self) -> synth::Shape {
        match self {
            Widths::B2_4T => synth::Shape::B2_4T,
            Widths::B8 => synth::Shape::B8,
        }
    }
}

fn cosine(text: &str) -> Result<f64, String> {
    let cosine = text.parse().ok().filter(|c| 0.0 < *c && *c < 1.0);
    cosine.ok_or_else(|| "expected a number above 0 and below 1".to_owned())
}

fn main() -> ExitCode {
    let done = match Cli::parse().chore {
        Chore::Synth { folder, layers, shape, cosine } => {
            let shape = shape.shape();
            synth::write(&folder, &synth::Shape { layers: layers.unwrap_or(shape.layers), cosine, ..shape })
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
