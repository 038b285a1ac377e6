//! Every layout of checkpoint on every preset of a matrix unit: the interpreter's logits, and nothing for the checker to
//! find. By default each layout meets some of the presets, with `TCC_TEST_FULL=1` all of them.

use tcc::arch::BuildOptions;
use tcc::driver::{self, Front};
use tcc::golden;
use tcc::load::{self, DensePolicy, LoadOptions};
use tcc::matrix::{self, MatrixOptions};
use tcc::model::{Activations, Model};
use tcc_backends::isa::matrix::machine::Machine;
use tcc_backends::isa::matrix::machine::preset::{PRESETS, preset};
use tcc_backends::isa::matrix::program::CoreKind;
use tcc_ir::ty::DType;
use tcc_tests::oracle::fixture;

/// Token ids of a prompt that takes the graph of eight rows and that of one.
const TOKENS: [u32; 9] = [1, 7, 200, 5, 9, 2, 3, 4, 11];

/// Presets that a layout meets by default, out of seven.
const SOME: usize = 2;

/// Fixtures whose ternary weights meet float activations, with the scales that they have.
const FLOAT_FAMILIES: [&str; 6] = [
    "llama-fakequant-g32",
    "llama-fakequant-row-fp16",
    "llama-fakequant-tensor",
    "minicpm-g64-longrope",
    "minicpm-row-tied",
    "qwen3-fakequant-g128",
];

/// Fixtures with odd heads, shared KV heads, and neither.
const CACHES: [&str; 3] = ["old-bitnet-hd100-k1080", "bitnet-gqa-outliers", "llama-packed-mqa-hd64"];

fn presets() -> Vec<Machine> {
    PRESETS.iter().map(|(name, _)| preset(name).expect("a preset").expect("it parses")).collect()
}

fn open(name: &str, activations: Option<Activations>) -> Model {
    let options = LoadOptions { dense: DensePolicy::Keep, activations };
    load::open(&fixture(name), &options).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn front(model: &Model, kv: DType) -> Front<'_> {
    front_of(model, 8, kv)
}

fn front_of(model: &Model, prefill: usize, kv: DType) -> Front<'_> {
    let options = BuildOptions { ctx: Some(72), prefill, kv, ..BuildOptions::default() };
    driver::front(model, &options, None, |_, _| {}).expect("it builds")
}

/// Runs `front` on the presets that case `index` meets.
fn check(index: usize, name: &str, front: &Front<'_>) {
    let want = golden::interpret(front, &TOKENS).expect("the interpreter runs");
    let machines = presets();
    let count = if std::env::var("TCC_TEST_FULL").is_ok_and(|v| v == "1") { machines.len() } else { SOME };
    for i in 0..count {
        let machine = &machines[(SOME * index + i) % machines.len()];
        let what = format!("{name} on {}", machine.name);
        let compiled =
            matrix::build(front, machine, &MatrixOptions::default()).unwrap_or_else(|e| panic!("{what}: {e}"));
        let weights = compiled.weights(front).expect("weights");
        let run = matrix::run::logits(&compiled.model, &weights, &TOKENS, true);
        let (logits, _) = run.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(golden::hex(&golden::hash(&logits)), golden::hex(&golden::hash(&want)), "{what}");
    }
}

/// Every fixture as its own code runs it.
#[test]
fn layouts_give_the_interpreters_logits() {
    let folder = std::fs::read_dir(fixture("")).expect("the folder of fixtures");
    let mut names: Vec<String> =
        folder.map(|e| e.expect("readable").file_name().into_string().expect("a plain name")).collect();
    names.sort();
    assert!(FLOAT_FAMILIES.iter().all(|name| names.iter().any(|n| n == name)));
    for (index, name) in names.iter().enumerate() {
        check(index, name, &front(&open(name, None), DType::F16));
    }
}

/// Families with float activations, quantized: scales per group of codes.
#[test]
fn quantized_float_families_give_the_interpreters_logits() {
    for (index, name) in FLOAT_FAMILIES.iter().enumerate() {
        check(index, name, &front(&open(name, Some(Activations::Int8)), DType::F16));
    }
}

#[test]
fn caches_give_the_interpreters_logits() {
    for (index, name) in CACHES.iter().enumerate() {
        for (kind, kv) in [DType::F32, DType::Q8].into_iter().enumerate() {
            check(2 * index + kind, &format!("{name} with a cache of {kv}"), &front(&open(name, None), kv));
        }
    }
}

/// A longer prompt takes split machines to their cubes.
#[test]
fn prompts_on_cubes_of_split_machines_give_the_interpreters_logits() {
    let model = open("llama-packed-bias-linearrope", None);
    let front = front_of(&model, 32, DType::F16);
    let tokens: Vec<u32> = (0..33).map(|i| i * 37 % 300).collect();
    let want = golden::interpret(&front, &tokens).expect("the interpreter runs");
    for machine in presets().iter().filter(|machine| machine.vector_cores() > 0) {
        let compiled = matrix::build(&front, machine, &MatrixOptions::default()).expect("it lowers");
        let streams = compiled.model.programs().flat_map(|body| &body.program.stages).flat_map(|stage| &stage.streams);
        assert!(streams.map(|stream| stream.kind).any(|kind| kind == CoreKind::Cube), "{}", machine.name);
        let weights = compiled.weights(&front).expect("weights");
        let (logits, _) = matrix::run::logits(&compiled.model, &weights, &tokens, true).expect("it runs");
        assert_eq!(golden::hex(&golden::hash(&logits)), golden::hex(&golden::hash(&want)), "{}", machine.name);
    }
}
