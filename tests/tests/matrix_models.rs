//! Whole models on simulated matrix units: the logits of every CPU, and nothing for the checker to find.

use std::path::Path;

use tcc::arch::BuildOptions;
use tcc::driver::{self, Front};
use tcc::load::{self, LoadOptions};
use tcc::matrix::{Compiled, MatrixOptions};
use tcc::{golden, matrix};
use tcc_backends::isa::matrix::machine::preset::preset;
use tcc_ir::encoding::ENCODINGS;
use tcc_ir::plan::{WeightLayout, WeightSlot};

/// The example model on `machine` with weights in `encoding`, and its weights.
fn compile(front: &Front, machine: &str, encoding: &str) -> (Compiled, Vec<u8>) {
    let machine = preset(machine).expect("a preset").expect("it parses");
    let encoding = ENCODINGS.iter().copied().find(|e| e.to_string() == encoding);
    assert!(encoding.is_some());
    let compiled = matrix::build(front, &machine, &MatrixOptions { encoding, tiles: vec![] }).expect("it lowers");
    let weights = compiled.weights(front).expect("weights");
    (compiled, weights)
}

/// The hash of the logits of `tokens`; with `check`, the checker is on.
fn hash((compiled, weights): &(Compiled, Vec<u8>), tokens: &[u32], check: bool) -> String {
    let run = matrix::run::logits(&compiled.model, weights, tokens, check);
    golden::hex(&golden::hash(&run.expect("it runs, and the checker finds nothing").0))
}

#[test]
fn the_example_model_gives_the_same_bits() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/rust-docs-6m");
    let model = load::open(&path, &LoadOptions::default()).expect("the example model");
    let options = BuildOptions { ctx: Some(64), prefill: 8, ..BuildOptions::default() };
    let front = driver::front(&model, &options, None, |_, _| {}).expect("it builds");
    let want =
        |tokens: &[u32]| golden::hex(&golden::hash(&golden::interpret(&front, tokens).expect("the interpreter runs")));
    let phone = compile(&front, "kirin9030", "w2nz8-x64-k512");
    let tokens = [1, 7, 300];
    assert_eq!(hash(&phone, &tokens, true), want(&tokens));
    let lite = compile(&front, "lite-generic", "w2nz4-x64-k512");
    let many = [1, 7, 300, 5, 9, 2, 3, 4, 11];
    assert_eq!(hash(&lite, &many, true), want(&many));
    one_bit_changes_the_hash(phone, &tokens);
    one_bit_changes_the_hash(lite, &tokens);
}

/// A flipped bit of any ternary matrix gives another hash. Activations of zero hide columns (relu squared leaves many) and
/// closed gates hide rows, so bits of different rows and columns are tried until one shows.
fn one_bit_changes_the_hash(mut compiled: (Compiled, Vec<u8>), tokens: &[u32]) {
    let right = hash(&compiled, tokens, false);
    let is_ternary = |slot: &&WeightSlot| matches!(slot.layout, WeightLayout::Packed(_));
    let slots: Vec<WeightSlot> = compiled.0.plan.weights.iter().filter(is_ternary).cloned().collect();
    let step = if full() { 1 } else { slots.len() / 3 };
    for slot in slots.iter().step_by(step) {
        let shows = (1..=MOST_FLIPS).any(|i| {
            let at = (slot.offset_bytes + i * STRIDE_BYTES % slot.bytes) as usize;
            compiled.1[at] ^= 1 << (i % 8);
            let changed = hash(&compiled, tokens, false) != right;
            compiled.1[at] ^= 1 << (i % 8);
            changed
        });
        assert!(shows, "no bit of {slot:?} changes the hash");
    }
    assert_eq!(hash(&compiled, tokens, false), right);
}

/// Odd, and far from the sizes of rows, panels and blocks.
const STRIDE_BYTES: u64 = 9973;

/// Of one matrix.
const MOST_FLIPS: u64 = 16;

fn full() -> bool {
    std::env::var("TCC_TEST_FULL").is_ok_and(|v| v == "1")
}
