//! What executables and `init` learn about the core they run on.

use tcc_backends::isa::backend;
use tcc_tests::machines::{MACHINES, report_skipped};
use tcc_tests::memory::Memory;
use tcc_tests::runner::{RunError, Runner};

#[test]
fn aarch64_cores_tell_their_features() {
    let backend = backend("aarch64").expect("a backend of this name");
    for machine in MACHINES.iter().filter(|machine| machine.target == "aarch64") {
        let ask = || -> Result<(), RunError> {
            let runner = Runner::new(backend, backend.desc().baseline, vec![backend.probe()])?;
            let mut process = runner.start(machine.emulator_args)?;
            let probed = process.call("probe", &[0], &mut Memory::new())?;
            assert_eq!(probed, machine.features(backend)?.0, "{}", machine.name);
            let hinted = process.call("probe", &[5], &mut Memory::new())?;
            assert_eq!(hinted, 5, "a hint counts more than the core");
            Ok(())
        };
        ask().unwrap_or_else(|e| report_skipped(machine.name, &e));
    }
}

#[test]
fn aarch64_auxiliary_vector_becomes_features() {
    let backend = backend("aarch64").expect("a backend of this name");
    let named = |names: &[&str]| {
        let bits = backend.desc().features.iter().filter(|f| names.contains(&f.name)).map(|f| f.bit.0);
        bits.fold(0, |set, bit| set | bit)
    };
    // Bits of AT_HWCAP and AT_HWCAP2 from Linux, arch/arm64/include/uapi/asm/hwcap.h.
    let (asimd, atomics, asimddp, sve) = (1 << 1, 1 << 8, 1 << 20, 1 << 22);
    let (sve2, i8mm, sme) = (1 << 1, 1 << 13, 1 << 23);
    let cases: [(u64, u64, &[&str]); 6] = [
        (asimd, 0, &["neon"]),
        (asimd | atomics, 0, &["neon", "lse"]),
        (asimd | asimddp, i8mm, &["neon", "dotprod", "i8mm"]),
        (asimd | sve, sve2, &["neon", "sve", "sve2"]),
        (asimd | asimddp, i8mm | sme, &["neon", "dotprod", "i8mm", "sme"]),
        (!(asimd | atomics | asimddp | sve), !(sve2 | i8mm | sme), &[]),
    ];
    let run = || -> Result<(), RunError> {
        let runner = Runner::new(backend, backend.desc().baseline, vec![backend.hwcap()])?;
        let mut process = runner.start(&[])?;
        for (hwcap, hwcap2, names) in cases {
            let features = process.call("hwcap", &[hwcap, hwcap2], &mut Memory::new())?;
            assert_eq!(features, named(names), "{hwcap:#x} {hwcap2:#x}");
        }
        Ok(())
    };
    run().unwrap_or_else(|e| report_skipped("hwcap", &e));
}
