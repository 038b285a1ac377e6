//! Attention on simulated matrix units: the interpreter's logits where prompts are long enough for every step of a tile,
//! and cycles near what its multiply-adds take.

use tcc::arch::BuildOptions;
use tcc::driver;
use tcc::golden;
use tcc::load::{self, LoadOptions};
use tcc::matrix::{self, MatrixOptions};
use tcc::model::Model;
use tcc_backends::isa::matrix::lower::attention::Attention;
use tcc_backends::isa::matrix::machine::Machine;
use tcc_backends::isa::matrix::machine::preset::preset;
use tcc_backends::isa::matrix::sim::memory::Gm;
use tcc_backends::isa::matrix::sim::{self, Options};
use tcc_ir::cache::CacheLayout;
use tcc_ir::ty::DType;
use tcc_tests::attention;
use tcc_tests::oracle::fixture;

/// Heads of 100 elements that share nothing, four that share a KV head, two of 64 elements that do.
const MODELS: [&str; 3] = ["old-bitnet-hd100-k1080", "bitnet-gqa-outliers", "llama-packed-mqa-hd64"];

/// A tile and a shorter one, then a single row far behind.
const ROWS: usize = 150;

/// Positions of a cache that is cut.
const CTX: usize = 2048;

#[test]
fn long_prompts_give_the_interpreters_logits() {
    let tokens: Vec<u32> = (0..=ROWS as u32).map(|i| i * 37 % 300).collect();
    let machines = ["kirinx90", "ascend310p", "ascend910b"];
    for (name, machine) in MODELS.into_iter().zip(machines) {
        let model = load::open(&fixture(name), &LoadOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        for kv in [DType::F32, DType::F16, DType::Q8] {
            let options = BuildOptions { ctx: Some(ROWS + 3), prefill: ROWS, kv, ..BuildOptions::default() };
            gives_the_interpreters_logits((name, &model), machine, &options, &tokens);
        }
    }
}

/// Positions of a few tokens' caches are cut into pieces, all but one empty: a step of the model is several of its stage.
#[test]
fn few_tokens_in_long_caches_give_the_interpreters_logits() {
    let tokens: Vec<u32> = (0..70u32).map(|i| i * 37 % 300).collect();
    // The first one's heads are ragged, and several.
    for (name, machine) in [(1, "ascend310p"), (1, "ascend910b"), (2, "ascend950pr")] {
        let name = MODELS[name];
        let mut model = load::open(&fixture(name), &LoadOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        model.config.max_position = CTX;
        let options = BuildOptions { ctx: Some(CTX), prefill: 34, kv: DType::Q8, ..BuildOptions::default() };
        gives_the_interpreters_logits((name, &model), machine, &options, &tokens);
    }
}

fn gives_the_interpreters_logits((name, model): (&str, &Model), machine: &str, options: &BuildOptions, tokens: &[u32]) {
    let what = format!("{name} on {machine}, a cache of {}", options.kv);
    let front = driver::front(model, options, None, |_, _| {}).expect("it builds");
    let want = golden::interpret(&front, tokens).expect("the interpreter runs");
    let compiled = matrix::build(&front, &machine_called(machine), &MatrixOptions::default());
    let compiled = compiled.unwrap_or_else(|e| panic!("{what}: {e}"));
    let weights = compiled.weights(&front).expect("weights");
    let run = matrix::run::logits(&compiled.model, &weights, tokens, true);
    let (logits, _) = run.unwrap_or_else(|e| panic!("{what}: {e}"));
    let [got, want] = [&logits, &want].map(|logits| golden::hex(&golden::hash(logits)));
    assert_eq!(got, want, "{what}");
}

fn machine_called(name: &str) -> Machine {
    preset(name).expect("a preset").expect("it parses")
}

/// Cycles of the slowest core, with a warm L2, for `m` token rows behind `pos` others, of the heads of BitNet 2B-4T.
fn cycles(machine: &Machine, m: usize, pos: u32, dtype: DType) -> f64 {
    let cache = CacheLayout { heads: 5, ctx: pos as usize + m, d: 128, dtype };
    let of = attention::program(machine, &Attention { m, heads: 20, cache, scale: 0.1 }).expect("it fits");
    let mut gm = Gm::for_timing(&of.program);
    gm.bytes_mut(of.pos.0)[..4].copy_from_slice(&pos.to_le_bytes());
    let options = Options { warm: true, ..Options::default() };
    let report = sim::run(&of.program, machine, &mut gm, options).expect("it runs");
    report.stages[0].cores.iter().map(|core| core.cycles).fold(0.0, f64::max)
}

/// Multiply-adds of scores and values, 64 in a repeat, at what a repeat costs on `machine`.
fn floor(machine: &Machine, m: usize, pos: u32, slope: f64) -> f64 {
    let pairs: usize = (0..m).map(|row| pos as usize + row + 1).sum();
    (20 * pairs * 2 * 128) as f64 / 64.0 * slope / machine.vector_units() as f64
}

/// How far from the floor attention may be, by machine, vector costs, rows and position.
const GATES: [(&str, &str, usize, u32, DType, f64); 30] = [
    ("kirinx90", "measured", 512, 0, DType::F16, 1.45),
    ("kirinx90", "documented", 512, 0, DType::F16, 1.7),
    ("lite-generic", "measured", 512, 0, DType::F16, 1.45),
    ("lite-generic", "documented", 512, 0, DType::F32, 1.72),
    ("ascend310b", "measured", 512, 0, DType::F16, 1.42),
    ("ascend310p", "measured", 512, 0, DType::F16, 1.55),
    ("kirinx90", "measured", 8, 512, DType::F16, 1.8),
    ("kirinx90", "measured", 1, 512, DType::F16, 2.6),
    ("lite-generic", "measured", 1, 4000, DType::F16, 2.2),
    ("kirinx90", "measured", 512, 0, DType::Q8, 0.21),
    ("kirinx90", "documented", 512, 0, DType::Q8, 0.32),
    ("kirinx90", "measured", 8, 512, DType::Q8, 0.25),
    ("kirinx90", "measured", 1, 512, DType::Q8, 1.1),
    ("kirin9030", "measured", 512, 0, DType::Q8, 0.26),
    ("lite-generic", "measured", 1, 4000, DType::Q8, 0.78),
    ("lite-generic", "measured", 512, 0, DType::Q8, 0.24),
    ("lite-generic", "measured", 512, 3584, DType::Q8, 0.16),
    ("ascend310b", "measured", 512, 0, DType::Q8, 0.23),
    ("ascend310p", "measured", 512, 0, DType::Q8, 0.19),
    ("ascend910b", "measured", 512, 0, DType::Q8, 0.28),
    ("ascend910b", "documented", 512, 0, DType::Q8, 0.47),
    ("ascend310p", "measured", 1, 4000, DType::Q8, 0.68),
    ("ascend910b", "measured", 1, 512, DType::Q8, 5.5),
    ("ascend910b", "measured", 1, 4000, DType::Q8, 1.3),
    ("ascend950pr", "measured", 512, 0, DType::F16, 2.8),
    ("ascend950pr", "measured", 512, 0, DType::Q8, 0.23),
    ("ascend950pr", "documented", 512, 0, DType::Q8, 0.36),
    ("ascend950pr", "measured", 512, 3584, DType::Q8, 0.18),
    ("ascend950pr", "measured", 1, 512, DType::Q8, 6.5),
    ("ascend950pr", "measured", 1, 4000, DType::Q8, 1.6),
];

#[test]
fn cycles_are_near_those_of_the_multiply_adds() {
    for (name, costs, m, pos, dtype, gate) in GATES {
        let mut machine = machine_called(name);
        machine.vector.costs = costs.into();
        let slope = if costs == "measured" { 2.0 } else { 1.0 };
        let (cycles, floor) = (cycles(&machine, m, pos, dtype), floor(&machine, m, pos, slope));
        println!("{name} {costs}, {m} rows at {pos}, {dtype}: {cycles:.0} cycles, {:.2} of the floor", cycles / floor);
        assert!(cycles <= gate * floor, "{name} {costs}, {m} rows at {pos}: {cycles:.0} cycles, floor {floor:.0}");
    }
}
