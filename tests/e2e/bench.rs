//! `tcc bench`: the members of its JSON, and instruction counts that mean what they say.

use serde_json::Value;

use super::harness::{self, example};

/// The JSON of a short measurement of the example with `args` behind it.
fn bench(args: &[&str]) -> Value {
    let model = example();
    let mut all = vec!["bench", model.to_str().expect("UTF-8"), "--prompt", "33", "-n", "2", "--runs", "1"];
    all.extend(args);
    harness::json(&all)
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no number '{key}' in {value:#}"))
}

fn sum(ops: &Value, key: &str) -> f64 {
    ops.as_array().expect("ops").iter().map(|op| number(op, key)).sum()
}

fn op<'v>(ops: &'v Value, name: &str) -> &'v Value {
    ops.as_array().expect("ops").iter().find(|op| op["op"] == name).unwrap_or_else(|| panic!("no '{name}' in {ops:#}"))
}

#[test]
fn this_machine_says_rates_limits_and_time_by_op() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("bench.html");
    let value = bench(&["--threads", "1,2", "--plot", page.to_str().expect("UTF-8")]);
    let page = std::fs::read_to_string(page).expect("a page");
    assert!(page.contains("<svg") && page.contains("tokens per second by threads") && page.contains("<pre>"), "{page}");
    let first = &value["first_token"];
    assert!(number(first, "load_milliseconds") > 0.0, "{first:#}");
    assert!(number(first, "first_token_milliseconds") > number(first, "load_milliseconds"), "{first:#}");
    let rows = value["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2);
    for row in rows {
        for key in ["decode_tokens_per_second", "prefill_tokens_per_second", "share_of_bandwidth", "decode_speedup"] {
            assert!(number(row, key) > 0.0, "{row:#}");
        }
        // A share is the rate's of the limit beside the work.
        let share = number(row, "decode_gb_per_second") / number(row, "read_bandwidth_beside_gb_per_second");
        assert!((number(row, "share_of_bandwidth") / share - 1.0).abs() < 1e-9, "{row:#}");
        for ops in [&row["decode_ops"], &row["prefill_ops"]] {
            // Groups and what lies between them are everything.
            assert!((sum(ops, "share_of_time") - 1.0).abs() < 1e-6, "{ops:#}");
            assert!(number(op(ops, "between ops"), "milliseconds_per_token") >= 0.0, "{ops:#}");
        }
        let bytes: f64 =
            ["q, k, v", "attention out", "gate, up", "down", "attention", "norms, quantize", "head", "other"]
                .iter()
                .map(|name| number(op(&row["decode_ops"], name), "bytes_per_token"))
                .sum();
        assert_eq!(bytes, number(&value, "bytes_per_token"));
        let stored = number(&value, "stored_bytes_per_token");
        assert!((0.5 * bytes..bytes).contains(&stored), "{stored} of {bytes}");
        assert_eq!(sum_of_products(&row["prefill_ops"]), TERNARY_PARAMETERS);
    }
}

/// Ternary weights of the example: 6 layers of q, o (256 x 256), k, v (256 x 128), gate, up, down (256 x 768).
const TERNARY_PARAMETERS: f64 = (6 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 768)) as f64;

fn sum_of_products(ops: &Value) -> f64 {
    let products = |op: &Value| op["int8_macs_per_token"].as_f64().unwrap_or(0.0);
    ops.as_array().expect("ops").iter().map(products).sum()
}

#[test]
fn other_machines_say_instructions_by_op() {
    let plain = bench(&["-t", "aarch64"]);
    let dotprod = bench(&["-t", "aarch64", "--features", "+dotprod"]);
    assert_eq!(dotprod["engine"], "qemu-aarch64");
    assert!(dotprod["rows"].is_null() && dotprod["counted"].as_str().expect("words").contains("not a speed"));
    for kind in ["decode", "prefill"] {
        let total = number(&dotprod, &format!("{kind}_instructions_per_token"));
        let ops = &dotprod[format!("{kind}_ops")];
        assert!((sum(ops, "instructions_per_token") / total - 1.0).abs() < 1e-9, "{ops:#}");
        assert_eq!(sum_of_products(ops), TERNARY_PARAMETERS);
        let per_256 =
            |value: &Value| number(op(&value[format!("{kind}_ops")], "gate, up"), "instructions_per_256_macs");
        // Sixteen products an instruction at best; loads, unpacking and epilogues come on top.
        assert!(per_256(&dotprod) > 16.0 && per_256(&dotprod) < 60.0, "{ops:#}");
        assert!(per_256(&dotprod) < 0.8 * per_256(&plain), "{kind}: {} {}", per_256(&dotprod), per_256(&plain));
    }
    // Nothing but the code decides.
    let again = bench(&["-t", "aarch64", "--features", "+dotprod"]);
    assert_eq!([&again["decode_ops"], &again["prefill_ops"]], [&dotprod["decode_ops"], &dotprod["prefill_ops"]]);
}

#[test]
fn register_groups_weigh_on_riscv_vectors_alone() {
    let vector = bench(&["-t", "riscv64", "--features", "+v", "--vlen", "256"]);
    let scalar = bench(&["-t", "riscv64"]);
    let both = |value: &Value, name: &str| {
        let op = op(&value["decode_ops"], name);
        (number(op, "instructions_per_token"), number(op, "weighted_instructions_per_token"))
    };
    let (plain, weighted) = both(&vector, "gate, up");
    assert!(weighted > 1.5 * plain && weighted < 8.0 * plain, "{plain} {weighted}");
    let (plain, weighted) = both(&scalar, "gate, up");
    assert_eq!(plain, weighted);
}
