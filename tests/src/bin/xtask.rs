//! Chores: `cargo xtask synth FOLDER` writes a random checkpoint of BitNet b1.58 2B-4T's shape (1.2 GB).

use std::path::PathBuf;
use std::process::ExitCode;

use tcc_tests::synth;

const USAGE: &str = "usage: cargo xtask synth FOLDER [LAYERS]   a random packed checkpoint of 2B-4T's shape";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["synth", folder] => synth::write(&PathBuf::from(folder), &synth::Shape::B2_4T),
        ["synth", folder, layers] => match layers.parse() {
            Ok(layers) => synth::write(&PathBuf::from(folder), &synth::Shape { layers, ..synth::Shape::B2_4T }),
            Err(_) => return usage(),
        },
        _ => return usage(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
