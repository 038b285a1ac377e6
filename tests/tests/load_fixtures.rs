//! Committed checkpoints with known answers: codes, scales, logits and greedy tokens of every layout.

use std::path::Path;

use tcc::arch;
use tcc_tests::oracle;

/// Every committed fixture with the storage kind and scale granularity that the loader must find in it.
const FIXTURES: [(&str, &str, Scale); 20] = [
    ("bitnet-gqa-outliers", "packed", Scale::Tensor),
    ("bitnet-master-tied", "master", Scale::Tensor),
    ("bitnet-offline-unpacked", "offline-unpacked", Scale::Tensor),
    ("bitnet-packed-sharded", "packed", Scale::Tensor),
    ("bitnet-packed-tied", "packed", Scale::Tensor),
    ("llama-dense", "dense", Scale::None),
    ("llama-fakequant-g32", "fakequant", Scale::Groups(32)),
    ("llama-fakequant-row-fp16", "fakequant", Scale::Row),
    ("llama-fakequant-tensor", "fakequant", Scale::Tensor),
    ("llama-packed-bias-linearrope", "packed", Scale::Tensor),
    ("llama-packed-dupkey", "packed", Scale::Tensor),
    ("llama-packed-llama3rope", "packed", Scale::Tensor),
    ("llama-packed-mqa-hd64", "packed", Scale::Tensor),
    ("llama-packed-rmsinlinear", "packed", Scale::Tensor),
    ("minicpm-dense", "dense", Scale::None),
    ("minicpm-g64-longrope", "fakequant", Scale::Groups(64)),
    ("minicpm-row-tied", "fakequant", Scale::Row),
    ("old-bitnet-hd100-k1080", "master", Scale::Tensor),
    ("qwen3-dense-longrope", "dense", Scale::None),
    ("qwen3-fakequant-g128", "fakequant", Scale::Groups(128)),
];

/// Granularity of the scales of a linear.
enum Scale {
    None,
    Tensor,
    Row,
    Groups(usize),
}

#[test]
fn every_fixture_gives_its_codes_scales_logits_and_tokens() {
    for (name, _, _) in FIXTURES {
        let difference = oracle::check(&oracle::fixture(name)).unwrap_or_else(|what| panic!("{name}: {what}"));
        println!("{name:30} largest {:.1e} std, mean {:.1e}", difference.largest, difference.mean);
    }
}

#[test]
fn the_table_lists_every_fixture() {
    let folders = std::fs::read_dir(oracle::fixture("")).expect("the fixtures are there");
    let mut names: Vec<_> = folders.map(|f| f.expect("readable").file_name().into_string().expect("ASCII")).collect();
    names.sort();
    assert_eq!(names, FIXTURES.map(|(name, _, _)| name));
}

#[test]
fn every_fixture_is_recognized_as_what_it_is() {
    for (name, kind, scale) in FIXTURES {
        let model = oracle::open(&oracle::fixture(name));
        for linear in model.linears() {
            let (n, k) = (linear.spec.n, linear.spec.k);
            let shape = match scale {
                Scale::None => None,
                Scale::Tensor => Some(vec![1]),
                Scale::Row => Some(vec![n]),
                // A group as wide as the matrix is a row.
                Scale::Groups(g) if g == k => Some(vec![n]),
                Scale::Groups(g) => Some(vec![n, k / g]),
            };
            assert_eq!((linear.storage_name(), linear.scale_shape()), (kind, shape), "{name}: {}", linear.spec.name);
        }
    }
}

/// The logits do not depend on how the prompt is cut into chunks, nor on which graph evaluates a chunk.
#[test]
fn chunks_do_not_show() {
    for (name, _, _) in FIXTURES {
        let folder = oracle::fixture(name);
        let model = oracle::open(&folder);
        let ids = &oracle::Expected::read(&folder).tokens("input_ids")[0];
        let logits = [1, 4, 8, 32].map(|prefill| {
            let (program, weights) = arch::build(&model, &oracle::exact(prefill)).expect("fixtures build");
            oracle::logits(&program, &weights, ids)
        });
        assert!(logits.iter().all(|l| *l == logits[0]), "{name}");
    }
}

/// Models made outside the repository: `TCC_ORACLE_DIR` names a folder of them, each with its answers.
#[test]
fn every_model_of_the_oracle_folder_passes() {
    let Some(folder) = std::env::var_os("TCC_ORACLE_DIR") else {
        println!("skipped: TCC_ORACLE_DIR is not set");
        return;
    };
    let mut models: Vec<_> =
        std::fs::read_dir(folder).expect("readable").map(|m| m.expect("readable").path()).collect();
    models.sort();
    let mut failed = Vec::new();
    for model in models {
        match oracle::check(&model) {
            Ok(d) => println!("{:60} largest {:.1e} mean {:.1e}", model.display(), d.largest, d.mean),
            Err(what) => failed.push(format!("{}: {what}", model.display())),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// The trained example model, and chunks of it.
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

/// The example's full-precision twin is refused unless its dense linears are to be kept.
#[test]
fn the_dense_twin_is_refused_or_kept() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/rust-docs-6m-dense");
    assert_eq!(oracle::open_error(&folder).code(), "TCC-E0217");
    let model = oracle::open(&folder);
    assert!(model.linears().all(|l| l.storage_name() == "dense"));
    let (program, weights) = arch::build(&model, &oracle::exact(8)).expect("the twin builds");
    assert!(oracle::logits(&program, &weights, &[100, 101, 102]).iter().all(|v| v.is_finite()));
}
