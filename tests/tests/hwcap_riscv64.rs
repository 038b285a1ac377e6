//! What a riscv64 executable finds out about its core: every set of optional features, each on an emulated core.

use tcc_backends::isa::backend;
use tcc_ir::target::Features;
use tcc_tests::machines::report_skipped;
use tcc_tests::memory::Memory;
use tcc_tests::runner::{RunError, Runner};

/// `AT_HWCAP` of a core with M, A, F, D and C, by the letter's place in the alphabet.
const HWCAP_GC: u64 = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 8 | 1 << 12;
const HWCAP_V: u64 = 1 << 21;

/// Features that `hwcap` reports, twice in one process, on a core that has `features`.
fn reported(features: Features, v: bool) -> Result<[u64; 2], RunError> {
    let backend = backend("riscv64").expect("riscv64 is in the table");
    let cpu = backend.emulated_cpu(features, 0).expect("the emulated core is known");
    let runner = Runner::new(backend, backend.desc().baseline, vec![backend.hwcap()])?;
    let mut process = runner.start(&["-cpu", &cpu])?;
    let word = if v { HWCAP_GC | HWCAP_V } else { HWCAP_GC };
    let mut call = || process.call("hwcap", &[word, 0], &mut Memory::new());
    Ok([call()?, call()?])
}

#[test]
fn every_set_of_features_is_found() {
    let desc = backend("riscv64").expect("riscv64 is in the table").desc();
    let bit = |name| desc.features.iter().find(|f| f.name == name).expect("a feature of the table").bit;
    for set in 0..8 {
        let names = ["v", "zba", "zbb"].into_iter().enumerate().filter(|(i, _)| set >> i & 1 == 1);
        let features = names.fold(desc.baseline, |all, (_, name)| all.with(bit(name)));
        match reported(features, features.contains(bit("v"))) {
            Ok(found) => assert_eq!(found, [features.0; 2], "{}", desc.feature_names(features)),
            Err(error) => report_skipped("features of a riscv64 core", &error),
        }
    }
}
