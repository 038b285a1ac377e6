//! `tcc compare`: one hash on every level, limits by a baseline, a line for each row.

use std::path::Path;

use serde_json::Value;

use super::harness::{self, LEVELS, example, levels, ok, root, tcc};

/// The levels that other tests evaluate, as `--targets` and `--vlen` ask for them.
fn targets() -> String {
    let mut items: Vec<String> = LEVELS
        .iter()
        .map(|level| {
            let features = level.args.iter().skip_while(|a| **a != "--features").nth(1).copied().unwrap_or("");
            format!("{}{}", level.args[1], features.replace(',', ""))
        })
        .collect();
    items.dedup();
    items.join(",")
}

/// The register lengths of those levels.
fn vlens() -> String {
    let vlens = LEVELS.iter().filter_map(|level| level.args.iter().skip_while(|a| **a != "--vlen").nth(1).copied());
    vlens.collect::<Vec<_>>().join(",")
}

/// Words of a failing comparison, which must end with status 4.
fn differs(args: &[&str]) -> String {
    let output = tcc(args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "tcc {}: {stderr}", args.join(" "));
    stderr.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ")
}

fn write(path: &Path, value: &Value) {
    std::fs::write(path, value.to_string()).expect("a file");
}

#[test]
fn every_level_has_one_hash_and_only_this_machine_a_rate() {
    let model = example();
    let model = model.to_str().expect("UTF-8");
    let value = harness::json(&["compare", model, "--targets", &targets(), "--vlen", &vlens(), "--ids", "1,7,300"]);
    let rows = value["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), LEVELS.len(), "{value:#}");
    let expected = harness::hash(&example(), "1,7,300", &["--engine", "interpreter"]);
    let ran: Vec<&Value> = rows.iter().filter(|row| row["skipped"].is_null()).collect();
    assert_eq!(ran.len(), levels().len(), "{value:#}");
    for row in ran {
        assert_eq!(row["logits_sha256"], expected.as_str(), "{row:#}");
        let is_here = row["engine"] == "this machine";
        assert_eq!(row["decode_tokens_per_second"].is_number(), is_here, "{row:#}");
        assert_eq!(row["decode_instructions_per_token"].is_number(), !is_here, "{row:#}");
    }
    for row in rows {
        assert!(row["code_bytes"].as_u64() > Some(1000) && row["bytes_per_token"].as_u64() > Some(1000), "{row:#}");
    }
}

#[test]
fn a_baseline_that_is_exceeded_exits_with_4() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("baseline.json");
    let file = path.to_str().expect("UTF-8");
    let model = example();
    let model = model.to_str().expect("UTF-8");
    let args = ["compare", model, "--targets", "x86_64,riscv64", "--no-speed", "--ids", "5,6", "--baseline", file];
    let made = harness::json(&args[..7]);
    write(&path, &made);
    ok(&args);

    let mut doctored = made.clone();
    let code = made["rows"][1]["code_bytes"].as_u64().expect("a number");
    doctored["rows"][1]["code_bytes"] = (code - 1).into();
    write(&path, &doctored);
    let words = differs(&args);
    let expected = format!("riscv64: code is {code} bytes, allowed are {} (baseline {})", code - 1, code - 1);
    assert!(words.contains(&expected) && words.contains("TCC-E0602"), "{words}");
    ok(&[&args[..], &["--tolerance", "1"]].concat());

    doctored["rows"][0]["logits_sha256"] = "00".into();
    write(&path, &doctored);
    let output = tcc(&[&["--json"], &args[..]].concat());
    assert_eq!(output.status.code(), Some(4));
    let value: Value = serde_json::from_slice(&output.stdout).expect("one object, failed or not");
    assert_eq!(value["rows"], made["rows"]);
    let message = value["error"]["message"].as_str().expect("words");
    assert!(message.contains("x86_64: logits hash is") && message.contains("baseline is 00"), "{message}");
}

/// Matrix units stand beside CPUs: the same hash, cycles that a baseline holds, rates only where the clock is known.
#[test]
fn matrix_units_are_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("baseline.json");
    let file = path.to_str().expect("UTF-8");
    let model = example();
    let model = model.to_str().expect("UTF-8");
    let targets = "x86_64,ascend:kirin9030:ascend910b";
    let args = ["compare", model, "--targets", targets, "--no-speed", "--ids", "5,6", "--ctx", "64", "--prefill", "8"];
    let made = harness::json(&args);
    let rows = made["rows"].as_array().expect("rows");
    let names: Vec<&str> = rows.iter().filter_map(|row| row["target"].as_str()).collect();
    assert_eq!(names, ["x86_64", "ascend:kirin9030", "ascend:ascend910b"]);
    assert!(rows[0]["simulated_cycles_per_token"].is_null() && rows[0]["stack_entry_bytes"].is_u64());
    for row in &rows[1..] {
        assert_eq!(row["logits_sha256"], rows[0]["logits_sha256"], "{row:#}");
        assert!(row["engine"].as_str().is_some_and(|engine| engine.starts_with("simulator")), "{row:#}");
        for name in ["code_bytes", "weights_bytes", "arena_bytes", "bytes_per_token", "simulated_cycles_per_token"] {
            assert!(row[name].as_u64() > Some(1000), "{name}: {row:#}");
        }
        assert!(row["stack_entry_bytes"].is_null() && row["decode_tokens_per_second"].is_null(), "{row:#}");
    }
    assert!(rows[1]["simulated_tokens_per_second"].is_null() && rows[2]["simulated_tokens_per_second"].is_f64());
    write(&path, &made);
    let args = [&args[..], &["--baseline", file]].concat();
    ok(&args);

    let mut doctored = made.clone();
    let cycles = made["rows"][1]["simulated_cycles_per_token"].as_u64().expect("a number");
    doctored["rows"][1]["simulated_cycles_per_token"] = (cycles - 1).into();
    write(&path, &doctored);
    let words = differs(&args);
    let expected =
        format!("ascend:kirin9030: a decoded token takes {cycles} simulated cycles, allowed are {}", cycles - 1);
    assert!(words.contains(&expected) && words.contains("TCC-E0602"), "{words}");
    doctored = made.clone();
    doctored["rows"][2]["logits_sha256"] = "00".into();
    write(&path, &doctored);
    assert!(differs(&args).contains("ascend:ascend910b: logits hash is"));

    let text = ok(&[
        "compare",
        model,
        "--targets",
        "ascend:kirin9030",
        "--clock",
        "1e9",
        "--gm-rate",
        "3e10",
        "--format",
        "markdown",
        "--ids",
        "5",
        "--ctx",
        "64",
        "--prefill",
        "8",
    ]);
    assert!(text.contains("| simulated cycles per token |") && text.contains(" tok/s |"), "{text}");
}

#[test]
fn required_rows_must_be_in_the_baseline() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("baseline.json");
    let file = path.to_str().expect("UTF-8");
    let model = example();
    let model = model.to_str().expect("UTF-8");
    write(&path, &harness::json(&["compare", model, "--targets", "x86_64", "--no-speed", "--ids", "5"]));
    let both = ["compare", model, "--targets", "x86_64,riscv64", "--no-speed", "--ids", "5", "--baseline", file];
    ok(&both);
    let words = differs(&[&both[..], &["--require-all"]].concat());
    assert!(words.contains("riscv64: not in the baseline"), "{words}");
    let other = tcc(&["compare", model, "--targets", "x86_64", "--ids", "6", "--baseline", file]);
    assert_eq!(other.status.code(), Some(2), "a baseline of other tokens compares nothing");
}

#[test]
fn markdown_has_a_line_for_each_row() {
    let model = example();
    let model = model.to_str().expect("UTF-8");
    let args =
        ["compare", model, "--targets", "aarch64,riscv64+v", "--vlen", "128,256", "--format", "markdown", "--ids", "5"];
    let text = ok(&args);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2 + 3, "{text}");
    let columns = lines[0].matches('|').count();
    assert!(lines.iter().all(|line| line.matches('|').count() == columns), "{text}");
    for (line, target) in lines[2..].iter().zip(["aarch64", "riscv64+v vlen=128", "riscv64+v vlen=256"]) {
        assert!(line.starts_with(&format!("| {target} |")) && line.contains("qemu-"), "{text}");
    }
}

/// The example's baseline has the targets that its workflow compares, and their hash is today's.
#[test]
fn the_example_for_ci_works() {
    let folder = root().join("examples/ci");
    let workflow = std::fs::read_to_string(folder.join("tcc-compare.yml")).expect("a file");
    let line = workflow.lines().find(|line| line.contains("--targets")).expect("the command's line");
    let mut words = line.split_whitespace().skip_while(|word| *word != "--targets");
    let (targets, vlen) = (words.nth(1).expect("a list"), words.nth(1).expect("a list"));
    let baseline = folder.join("baseline.json");
    let model = example();
    let (model, baseline) = (model.to_str().expect("UTF-8"), baseline.to_str().expect("UTF-8"));
    // Sizes may move between two writings of the baseline; the bits may not.
    let args = ["compare", model, "--targets", targets, "--vlen", vlen, "--no-speed", "--require-all"];
    ok(&[&args[..], &["--baseline", baseline, "--tolerance", "25"]].concat());
}
