//! Chores: `cargo xtask synth FOLDER` writes a random checkpoint of BitNet b1.58 2B-4T's shape (1.2 GB).

use std::path::PathBuf;
use std::process::ExitCode;

use tcc_tests::synth;

const USAGE: &str =
    "usage: cargo xtask synth FOLDER [LAYERS] [--cosine C]   a random packed checkpoint of 2B-4T's shape
  --cosine C   the last hidden row has about this cosine with the row of the best logit, 0 < C < 1 (0.3 is the
               example model's): what a screened head reads where one logit stands out";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((folder, shape)) = synth_args(&args.iter().map(String::as_str).collect::<Vec<_>>()) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match synth::write(&folder, &shape) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Where to write and what; `None` for what [`USAGE`] does not allow.
fn synth_args(args: &[&str]) -> Option<(PathBuf, synth::Shape)> {
    let mut shape = synth::Shape::B2_4T;
    let rest = match args {
        [rest @ .., "--cosine", cosine] => {
            shape.cosine = Some(cosine.parse().ok().filter(|c| 0.0 < *c && *c < 1.0)?);
            rest
        }
        rest => rest,
    };
    match rest {
        ["synth", folder] => Some((folder.into(), shape)),
        ["synth", folder, layers] => Some((folder.into(), synth::Shape { layers: layers.parse().ok()?, ..shape })),
        _ => None,
    }
}
