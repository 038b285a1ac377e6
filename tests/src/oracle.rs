//! Models with known answers: the files of a fixture, the interpreter's logits, and the gates between them.
//!
//! `expected.safetensors` beside a fixture's model holds what a correct loader and a correct compiler must give; the
//! published model code made it (`tests/fixtures/source/`).

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use tcc::arch::{self, BuildOptions};
use tcc::load::{self, DensePolicy, LoadOptions};
use tcc::model::Model;
use tcc_ir::interp::Interpreter;
use tcc_ir::program::{Program, WeightId, WeightStore};
use tcc_ir::ty::DType;

use crate::flip::{self, Case};

/// The folder of the committed fixture `name`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models").join(name)
}

/// Opens the model at `path`, dense linears kept.
pub fn open(path: &Path) -> Model {
    let options = LoadOptions { dense: DensePolicy::Keep, ..LoadOptions::default() };
    load::open(path, &options).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The error of opening the model at `path` with the default options.
pub fn open_error(path: &Path) -> load::error::LoadError {
    match load::open(path, &LoadOptions::default()) {
        Ok(_) => panic!("{} was loaded", path.display()),
        Err(error) => error,
    }
}

/// The known answers of a fixture.
pub struct Expected {
    bytes: Vec<u8>,
}

impl Expected {
    pub fn read(folder: &Path) -> Self {
        let file = folder.join("expected.safetensors");
        Expected { bytes: std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())) }
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).expect("the fixture is a safetensors file")
    }

    /// Names of all answers, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.tensors().names().into_iter().map(str::to_owned).collect();
        names.sort();
        names
    }

    pub fn f32(&self, name: &str) -> Vec<f32> {
        let tensors = self.tensors();
        let view = tensors.tensor(name).expect("the fixture holds this tensor");
        assert_eq!(view.dtype(), Dtype::F32);
        view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    pub fn i8(&self, name: &str) -> Vec<i8> {
        let tensors = self.tensors();
        let view = tensors.tensor(name).expect("the fixture holds this tensor");
        assert_eq!(view.dtype(), Dtype::I8);
        view.data().iter().map(|b| b.cast_signed()).collect()
    }

    /// An i64 tensor of token ids as rows of its last extent.
    pub fn tokens(&self, name: &str) -> Vec<Vec<u32>> {
        let tensors = self.tensors();
        let view = tensors.tensor(name).expect("the fixture holds this tensor");
        assert_eq!(view.dtype(), Dtype::I64);
        let id = |b: &[u8; 8]| u32::try_from(i64::from_le_bytes(*b)).expect("token ids fit");
        let ids: Vec<u32> = view.data().as_chunks::<8>().0.iter().map(id).collect();
        let row = *view.shape().last().expect("token ids have an extent");
        ids.chunks_exact(row).map(<[u32]>::to_vec).collect()
    }
}

/// Options with exact caches, as the gates need them.
pub fn exact(prefill: usize) -> BuildOptions {
    BuildOptions { kv: DType::F32, prefill, ..BuildOptions::default() }
}

/// The weight `name` of the program of `model`, widened to f32.
pub fn weight(model: &Model, options: &BuildOptions, name: &str) -> Vec<f32> {
    let (program, weights) = arch::build(model, options).unwrap_or_else(|e| panic!("{e}"));
    let id = program.weights.iter().position(|w| w.name == name).expect("the weight is declared");
    let tensor = weights.tensor(WeightId(u32::try_from(id).expect("few weights"))).expect("readable");
    tensor.floats(0..program.weights[id].ty.elements()).into_owned()
}

/// The interpreter's logits of each of `ids`, `[ids, vocab]`.
pub fn logits(program: &Program, weights: &dyn WeightStore, ids: &[u32]) -> Vec<f32> {
    let mut interpreter = Interpreter::new(program, weights);
    let hidden = interpreter.eval(ids).expect("the ids are inside vocabulary and context");
    let rows = hidden.chunks_exact(program.facts.hidden);
    rows.flat_map(|row| interpreter.logits(row).expect("the weights have been read before")).collect()
}

/// The interpreter's greedy continuation of `prompt` by `steps` tokens.
pub fn greedy(program: &Program, weights: &dyn WeightStore, prompt: &[u32], steps: usize) -> Vec<u32> {
    let mut interpreter = Interpreter::new(program, weights);
    let mut next = prompt.to_vec();
    let mut chosen = Vec::new();
    for _ in 0..steps {
        let hidden = interpreter.eval(&next).expect("the context holds the continuation");
        let last = &hidden[hidden.len() - program.facts.hidden..];
        let logits = interpreter.logits(last).expect("the weights have been read before");
        let best = (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
        next = vec![u32::try_from(best).expect("a vocabulary fits u32")];
        chosen.extend(&next);
    }
    chosen
}

/// How far two tensors are apart, in units of the second one's standard deviation.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    pub largest: f64,
    pub mean: f64,
    pub cosine: f64,
    pub std: f64,
}

/// Compares `found` with `expected`.
pub fn difference(found: &[f32], expected: &[f32]) -> Difference {
    assert_eq!(found.len(), expected.len());
    let n = expected.len() as f64;
    let average = expected.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let std = (expected.iter().map(|v| (f64::from(*v) - average).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    let pairs = || found.iter().zip(expected).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let (dot, aa, bb) = pairs().fold((0.0, 0.0, 0.0), |(d, x, y), (a, b)| (d + a * b, x + a * a, y + b * b));
    Difference {
        largest: pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / std,
        mean: pairs().map(|(a, b)| (a - b).abs()).sum::<f64>() / n / std,
        cosine: dot / (aa * bb).sqrt(),
        std,
    }
}

/// What the script that made a fixture measured about it.
pub struct Meta {
    meta: serde_json::Value,
}

impl Meta {
    pub fn read(folder: &Path) -> Self {
        let text = std::fs::read(folder.join("meta.json")).expect("a fixture has meta.json");
        Meta { meta: serde_json::from_slice(&text).expect("meta.json is valid") }
    }

    fn argument(&self, name: &str) -> &serde_json::Value {
        &self.meta["args"][name]
    }

    /// True if the reference quantizes activations.
    fn is_int8(&self) -> bool {
        matches!(self.argument("storage").as_str(), Some("packed" | "master" | "offline-unpacked"))
    }

    fn has_outliers(&self) -> bool {
        self.argument("outliers").as_f64().is_some_and(|f| f != 0.0)
    }

    /// True if the published code and the independent reference agree, so that no code sits on a rounding tie.
    pub fn is_quiet(&self) -> bool {
        assert!(self.meta.get("hf_error").is_none(), "the published code did not run: {}", self.meta["hf_error"]);
        let close = |key: &str| self.meta[key]["max_rel_std"].as_f64().is_some_and(|e| e <= CLOSE);
        close("ref32_vs_ref64") && close("hf32_vs_ref32")
    }

    /// Checks logits: within 1e-5 without quantized activations or on a quiet fixture, else the wider gate.
    fn accepts(&self, d: &Difference) -> bool {
        let largest = if self.has_outliers() { 0.35 } else { 0.15 };
        let wide = d.mean <= 0.01 && d.largest <= largest && d.cosine >= 0.9995;
        d.largest <= CLOSE || (self.is_int8() && !self.is_quiet() && wide)
    }

    /// Standard deviations of the logits by which the best token must lead to be compared.
    pub fn clear_margin(&self) -> f64 {
        if self.has_outliers() { 0.7 } else { 0.3 }
    }
}

/// Largest error of two correct implementations without a rounding flip, in standard deviations.
const CLOSE: f64 = 1e-5;

/// Checks every answer of the fixture in `folder`; `Err` says which one is wrong. Returns the logits' difference.
pub fn check(folder: &Path) -> Result<Difference, String> {
    let (expected, meta, model) = (Expected::read(folder), Meta::read(folder), open(folder));
    for name in expected.names() {
        if let Some(linear) = name.strip_prefix("ternary.") {
            check_linear(&model, linear, &expected)?;
        }
    }
    let (program, weights) = arch::build(&model, &exact(32)).map_err(|e| e.to_string())?;
    let prompts = expected.tokens("input_ids");
    let found: Vec<f32> = prompts.iter().flat_map(|ids| logits(&program, &weights, ids)).collect();
    let want = expected.f32("logits");
    let difference = difference(&found, &want);
    if !meta.accepts(&difference) {
        let rows = want.len() / prompts.len();
        for (ids, expected) in prompts.iter().zip(want.chunks_exact(rows)) {
            let case = Case { program: &program, weights: &weights, ids, expected };
            let flips = flip::explain(&case, CLOSE).ok_or_else(|| format!("logits: {difference:?}"))?;
            flips.iter().for_each(|flip| println!("{}: {flip}", folder.display()));
        }
    }
    let margins = expected.f32("greedy_margin");
    let clear = margins.iter().take_while(|m| f64::from(**m) > meta.clear_margin() * difference.std).count();
    let found = greedy(&program, &weights, &prompts[0], clear);
    if found == expected.tokens("greedy")[0][..clear] { Ok(difference) } else { Err(format!("greedy: {found:?}")) }
}

/// Checks the codes and scales that the loader recovers for `linear`.
fn check_linear(model: &Model, linear: &str, expected: &Expected) -> Result<(), String> {
    let linear = model.linear(linear);
    let (name, n) = (&linear.spec.name, linear.spec.n);
    let trits = model.trits(linear).map_err(|e| e.to_string())?;
    if trits != expected.i8(&format!("ternary.{name}")) {
        return Err(format!("{name}: codes differ"));
    }
    let found = model.scales(linear).map_err(|e| e.to_string())?;
    let want = expected.f32(&format!("mult.{name}"));
    // One scale may stand for a row of equal ones, or for all of them: compare at the finest shape.
    let finest = found.len().max(want.len()).max(n);
    let ulps = match linear.storage_name() {
        "offline-unpacked" | "fakequant" => 0,
        // Division and the sum of a mean may round differently.
        _ => 2,
    };
    let at = |scales: &[f32], i: usize| scales[i * scales.len() / finest];
    match (0..finest).find(|i| at(&found, *i).to_bits().abs_diff(at(&want, *i).to_bits()) > ulps) {
        None => Ok(()),
        Some(i) => Err(format!("{name}: scale {i} is {}, expected {}", at(&found, i), at(&want, i))),
    }
}
