//! Weights files that are not what they were: an error where it can be told, and nothing outside them is read.

use std::path::{Path, PathBuf};

use tcc::arch::BuildOptions;
use tcc::driver::{self, Back};
use tcc::load::{self, LoadOptions};
use tcc::plan::{HEAD_ROWS, HeadChoice, PlanOptions};
use tcc::target::{self, TargetRequest};
use tcc_ir::encoding::bitmap::most_bytes;
use tcc_ir::encoding::{ENCODINGS, Encoding};
use tcc_ir::plan::{WeightLayout, WeightSlot};
use tcc_ir::program::Program;
use tcc_runtime::abi::{Sampler, Status};
use tcc_runtime::arena::Arena;
use tcc_runtime::host;
use tcc_runtime::module::Module;
use tcc_runtime::session::Session;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/models/rust-docs-6m");

/// The example model for this machine as an object and a weights file, and the sound bytes of the latter.
struct Example {
    program: Program,
    back: Back,
    /// Holds both files until the end.
    _folder: tempfile::TempDir,
    weights: PathBuf,
    object: PathBuf,
    sound: Vec<u8>,
}

/// None where this machine cannot run its own target.
fn example(encoding: Option<Encoding>, head: HeadChoice) -> Option<Example> {
    let model = load::open(Path::new(MODEL), &LoadOptions::default()).expect("the example model loads");
    let options = BuildOptions { ctx: Some(24), prefill: 8, ..BuildOptions::default() };
    let front = driver::front(&model, &options, None, |_, _| {}).expect("the example model builds");
    let target = target::resolve(&TargetRequest::default(), host::features).expect("the host is a target");
    if !target.runs_here {
        eprintln!("skipped: this machine lacks its own target's baseline");
        return None;
    }
    let plan = PlanOptions {
        max_threads: 1,
        joins: false,
        encoding,
        head,
        head_rows: HEAD_ROWS,
        state_bytes: tcc::emit::state_bytes(1),
    };
    let mut back = driver::back(&front, &target, "example", &plan, false).expect("code for the host");
    let folder = tempfile::tempdir().expect("a folder");
    let (weights, object) = (folder.path().join("weights"), folder.path().join("example.o"));
    back.write_weights(&front.store, &weights, |_| {}).expect("writable");
    back.write_object(&object, None).expect("writable");
    let sound = std::fs::read(&weights).expect("readable");
    Some(Example { program: front.program, back, _folder: folder, weights, object, sound })
}

impl Example {
    /// Writes the sound weights with some of them changed.
    fn damage(&self, change: impl FnOnce(&mut [u8])) {
        let mut damaged = self.sound.clone();
        change(&mut damaged);
        std::fs::write(&self.weights, damaged).expect("writable");
    }

    /// What `work` says of a session over the weights as they are.
    fn with_session<T>(&self, work: impl FnOnce(&mut Session) -> Result<T, Status>) -> Result<T, Status> {
        let module = Module::open(&self.object, Some(&self.weights)).expect("loads");
        let mut arena = Arena::new(module.model().info().arena_bytes).expect("memory");
        work(&mut Session::new(module.model(), arena.bytes_mut(), None)?)
    }
}

/// Kernels find the panels of a bitmap by the size in front of them: `init` takes no other size, and no presence bits
/// lead out of the weights.
#[test]
fn weights_with_other_panel_sizes_are_refused() {
    let encoding = ENCODINGS.iter().copied().find(|encoding| matches!(encoding, Encoding::Bitmap(_)));
    let Some(example) = example(encoding, HeadChoice::Exact) else { return };
    assert_eq!(example.with_session(|_| Ok(())), Ok(()));
    let plan = example.back.plan();
    let mut bitmaps = 0;
    for slot in &plan.weights {
        let WeightLayout::Packed(Encoding::Bitmap(panel)) = slot.layout else { continue };
        let k = example.program.weight(slot.id).ty.shape[1];
        let last_panel = slot.offset_bytes + slot.bytes - panel.bytes as u64;
        assert!(last_panel + most_bytes(k, panel.nr) as u64 <= plan.weights_bytes);
        example.damage(|weights| weights[start(slot) + bitmaps % 8] ^= 64);
        assert_eq!(example.with_session(|_| Ok(())), Err(Status::WEIGHTS), "{slot:?}");
        bitmaps += 1;
    }
    assert!(bitmaps > 8, "every linear is a bitmap");
}

/// A sound screen beside damaged rows of the head promises finite logits that are not there.
#[test]
fn a_search_that_meets_a_logit_that_is_not_finite_says_so() {
    let Some(example) = example(None, HeadChoice::Screened) else { return };
    let plan = example.back.plan();
    let search = plan.search.as_ref().expect("a screened head");
    let head = plan
        .weights
        .iter()
        .find(|slot| {
            let shape = &example.program.weight(slot.id).ty.shape;
            slot.layout == WeightLayout::Plain && **shape == [plan.facts.vocab, search.layout.k]
        })
        .expect("the head");
    // Its rows are also the embedding, which must stay finite for this token.
    let kept = 3;
    let row_bytes = search.layout.k * 2;
    let samplers = [Sampler::GREEDY, Sampler { temperature_q16: 1 << 16, top_k: 40, rng: [1, 2], ..Sampler::GREEDY }];
    for sampler in samplers {
        let sample = || {
            example.with_session(|session| {
                session.eval(&[kept])?;
                session.sample(&mut sampler.clone())
            })
        };
        example.damage(|_| {});
        assert!(sample().is_ok_and(|token| token != kept), "the damage must reach the best token");
        // A quiet NaN of either sign in every other row.
        for nan in [[0xff, 0x7f], [0xff, 0xff]] {
            example.damage(|weights| {
                let rows = &mut weights[start(head)..][..plan.facts.vocab * row_bytes];
                for (token, row) in rows.chunks_exact_mut(row_bytes).enumerate() {
                    if token != kept as usize {
                        row[..2].copy_from_slice(&nan);
                    }
                }
            });
            assert_eq!(sample(), Err(Status::NONFINITE), "{nan:x?}");
        }
    }
}

fn start(slot: &WeightSlot) -> usize {
    usize::try_from(slot.offset_bytes).expect("small")
}
