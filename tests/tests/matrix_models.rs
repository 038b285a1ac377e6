//! Whole models on simulated matrix units: the logits of every CPU, and nothing for the checker to find.

use std::path::Path;

use tcc::arch::BuildOptions;
use tcc::driver::{self, Front};
use tcc::load::{self, LoadOptions};
use tcc::{golden, matrix};
use tcc_backends::isa::matrix::machine::preset::preset;
use tcc_ir::encoding::ENCODINGS;

/// Runs `tokens` of the example model on `machine` with weights in `encoding`.
fn check(front: &Front, machine: &str, encoding: &str, tokens: &[u32]) {
    let machine = preset(machine).expect("a preset").expect("it parses");
    let encoding = ENCODINGS.iter().copied().find(|e| e.to_string() == encoding).expect("an encoding");
    let model = matrix::build(front, &machine, Some(encoding)).expect("it lowers");
    let (logits, _) = matrix::run(&model, front, tokens, true).expect("it runs, and the checker finds nothing");
    let want = golden::interpret(front, tokens).expect("the interpreter runs");
    assert_eq!(golden::hex(&golden::hash(&logits)), golden::hex(&golden::hash(&want)), "{}, {encoding}", machine.name);
}

#[test]
fn the_example_model_gives_the_same_bits() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/rust-docs-6m");
    let model = load::open(&path, &LoadOptions::default()).expect("the example model");
    let options = BuildOptions { ctx: Some(64), prefill: 8, ..BuildOptions::default() };
    let front = driver::front(&model, &options, None, |_, _| {}).expect("it builds");
    check(&front, "kirin9030", "w2nz8-x64-k512", &[1, 7, 300]);
    check(&front, "lite-generic", "w2nz4-x64-k512", &[1, 7, 300, 5, 9, 2, 3, 4, 11]);
}
