//! Committed checkpoints with known answers: codes, scales, logits and greedy tokens of every layout.

use std::path::Path;

use tcc::arch;
use tcc_tests::oracle;

/// The trained example model predicts its own kind of text, and chunks do not show in its bits.
#[test]
fn the_example_model_loads_builds_and_runs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/rust-docs-6m");
    let model = oracle::open(&folder);
    assert_eq!(model.warnings, [""; 0]);
    let ids: Vec<u32> = (100..111).collect();
    let (program, weights) = arch::build(&model, &oracle::exact(32)).expect("the example builds");
    assert_eq!(program.bodies.iter().map(|g| g.m).collect::<Vec<_>>(), [1, 8, 32]);
    let whole = oracle::logits(&program, &weights, &ids);
    assert_eq!(whole.len(), ids.len() * 4096);
    assert!(whole.iter().all(|v| v.is_finite()));
    let (program, weights) = arch::build(&model, &oracle::exact(1)).expect("the example builds");
    assert_eq!(program.bodies.len(), 1);
    assert_eq!(oracle::logits(&program, &weights, &ids), whole);
}
