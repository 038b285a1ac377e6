//! The CPU probe of x86-64 against what the standard library sees on this host.
#![cfg(target_arch = "x86_64")]

use std::arch::is_x86_feature_detected as detected;

use tcc_backends::isa::backend;
use tcc_tests::memory::Memory;
use tcc_tests::runner::Runner;

#[test]
fn probe_sees_what_the_standard_library_sees() {
    let backend = backend("x86_64").expect("a backend of the host");
    let desc = backend.desc();
    let runner = Runner::new(backend, desc.baseline, vec![backend.probe(), backend.hwcap()]).expect("links");
    let mut process = runner.start(&[]).expect("runs natively");
    let mut call = |function, args: &[u64]| process.call(function, args, &mut Memory::new()).expect("returns");
    let found = call("probe", &[0]);
    let expected = [
        ("avx2", detected!("avx2")),
        ("fma", detected!("fma")),
        ("bmi", detected!("bmi1") && detected!("bmi2") && detected!("lzcnt")),
        ("f16c", detected!("f16c")),
        ("avxvnni", detected!("avxvnni")),
        (
            "avx512",
            detected!("avx512f")
                && detected!("avx512cd")
                && detected!("avx512bw")
                && detected!("avx512dq")
                && detected!("avx512vl"),
        ),
        ("avx512vnni", detected!("avx512vnni")),
        ("avx512vbmi", detected!("avx512vbmi")),
        // The system has to be asked, which code for any machine does not.
        ("amxint8", false),
        // No core is asked what is faster on it.
        ("fetchl2", false),
    ];
    assert_eq!(expected.len(), desc.features.len(), "every feature is compared");
    for (feature, (name, has)) in desc.features.iter().zip(expected) {
        assert_eq!((feature.name, found & feature.bit.0 != 0), (name, has));
    }
    let granted = if tcc_runtime::host::features().contains(&"amxint8") { desc.granted.0 } else { 0 };
    assert_eq!(call("hwcap", &[0, 0]), found | granted);
    assert_eq!(call("probe", &[5]), 5, "a hint replaces the probe");
}
