//! What a run prints: the table by pipe, stalls, the roofline line, the trace.

use tcc_backends::isa::matrix::machine::preset::preset;
use tcc_backends::isa::matrix::program::codec::decode;
use tcc_backends::isa::matrix::sim::memory::Gm;
use tcc_backends::isa::matrix::sim::{Options, run, show};
use tcc_tests::parsers::matrix_seed;

#[test]
fn reports_say_what_ran() {
    let machine = preset("lite-generic").expect("a preset").expect("it parses");
    let program = decode(&matrix_seed()).expect("a program");
    let mut gm = Gm::for_timing(&program);
    let report = run(&program, &machine, &mut gm, Options { trace: true, ..Options::default() }).expect("it runs");
    let table = show::table(&report, &machine);
    // Its clock is assumed: no microseconds.
    assert!(table.starts_with("stage (cycles)"), "{table}");
    assert!(show::stalls(&report, &machine).contains("gemm M: flags of MTE1 "));
    let roofline = show::roofline(&report, &machine, 16384);
    assert!(
        roofline.contains("% of the memory roofline (32.0 bytes/cycle)") && roofline.contains("bound: "),
        "{roofline}"
    );
    let trace: serde_json::Value = serde_json::from_str(&show::trace_json(&program, &report)).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    let products = events.iter().filter(|e| e["ph"] == "X" && e["tid"] == 2).count();
    // Two tiles of rows, four steps of k.
    assert_eq!(products, 8);
}

#[test]
fn known_clocks_give_microseconds() {
    let machine = preset("ascend910b").expect("a preset").expect("it parses");
    assert!(machine.has_time());
    let phone = preset("kirin9030").expect("a preset").expect("it parses");
    assert!(!phone.has_time());
    let given = phone.with_user_rates(Some(1.0), Some(32.0)).expect("valid rates");
    assert!(given.has_time() && given.with_user_rates(Some(-1.0), None).is_err());
}
