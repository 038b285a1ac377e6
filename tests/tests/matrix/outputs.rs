//! What a run prints: the table by pipe, stalls, the roofline line, the trace.

use tcc_backends::isa::matrix::machine::preset::preset;
use tcc_backends::isa::matrix::program::Record;
use tcc_backends::isa::matrix::program::addr::Queue;
use tcc_backends::isa::matrix::program::codec::decode;
use tcc_backends::isa::matrix::program::inst::{Inst, Order};
use tcc_backends::isa::matrix::sim::memory::Gm;
use tcc_backends::isa::matrix::sim::show::Stall;
use tcc_backends::isa::matrix::sim::timeline::{Part, html, ops, trace_json};
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
    let stalls = show::stage_stalls(&report.stages[0], &machine);
    assert!(stalls[&(Queue::M, Stall::Flags("MTE1"))] > 0.0, "{stalls:?}");
    let roofline = show::roofline(&report, &machine, 16384);
    assert!(
        roofline.contains("% of the memory roofline (32.0 bytes/cycle)") && roofline.contains("bound: "),
        "{roofline}"
    );
    let part = Part { line: "once", program: &program, report: &report };
    let trace: serde_json::Value = serde_json::from_str(&trace_json(&[part, part])).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    let of = |ph: &str, tid: usize| -> Vec<f64> {
        let events = events.iter().filter(|e| e["ph"] == ph && e["tid"] == tid);
        events.map(|e| e["ts"].as_f64().expect("a time")).collect()
    };
    // Two tiles of rows, four steps of k; the second run follows the first.
    let products = of("X", Queue::M.index());
    assert_eq!(products.len(), 2 * 8);
    assert!((products[8] - products[0] - report.cycles()).abs() < 0.2);
    // An arrow for each wait, from a set before it.
    let (sets, waits) = (events.iter().filter(|e| e["ph"] == "s"), events.iter().filter(|e| e["ph"] == "f"));
    let arrows: Vec<_> = sets.zip(waits).collect();
    let is_wait = |r: &&Record| matches!(r.inst, Inst::Order(Order::Wait { .. }));
    let records = &program.stages[0].streams[0].records;
    assert!(arrows.len() >= 2 * records.iter().filter(is_wait).count());
    for (set, wait) in arrows {
        assert_eq!((&set["id"], &set["name"]), (&wait["id"], &wait["name"]));
        assert!(set["ts"].as_f64() < wait["ts"].as_f64());
    }
    let page = html("a <title>", &[part]);
    assert!(page.contains("a &lt;title&gt;") && page.contains("\"name\":\"once\",\"cores\":1,\"ops\":[\"gemm\"]"));
    assert!(!page.contains("http") && !page.contains("@DATA@"));
    assert_eq!(ops(&program, &report).into_keys().collect::<Vec<_>>(), ["gemm"]);
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
