//! Wrong input: exit statuses, messages that name what and where, nothing half-written.

use serde_json::Value;

use super::harness::{self, example, ok, tcc};

fn fails(args: &[&str], status: i32, words: &[&str]) {
    let output = tcc(args);
    let stderr = String::from_utf8_lossy(&output.stderr).replace('\n', " ");
    let flat: String = stderr.split_whitespace().filter(|w| *w != "│").collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(status), "tcc {}: {stderr}", args.join(" "));
    for word in words {
        assert!(flat.contains(word), "tcc {} does not say '{word}': {flat}", args.join(" "));
    }
}

#[test]
fn usage_errors_exit_with_2() {
    let model = example();
    let model = model.to_str().expect("UTF-8");
    fails(&["compile", model, "-t", "z80"], 2, &["'z80'", "x86_64"]);
    fails(&["check", model, "-t", "ascend"], 2, &["'ascend' is a matrix unit", "tcc compile"]);
    fails(&["compile", model, "-t", "ascend"], 2, &["--machine", "kirin9030"]);
    fails(
        &["compile", model, "-t", "ascend", "--machine", "kirin9030", "--gm-rate", "3e10"],
        2,
        &["clock", "--clock HZ"],
    );
    fails(&["compile", model, "-t", "ascend", "--machine", "kirin9030", "--emit", "exe"], 2, &["no executable"]);
    fails(&["eval", model, "--ids", "1", "-t", "ascend"], 2, &["--machine", "kirin9030"]);
    fails(&["eval", model, "--ids", "1", "-t", "ascend", "--machine", "z80"], 2, &["'z80'", "kirin9030"]);
    fails(&["compare", model, "--targets", "ascend"], 2, &["ascend:MACHINE", "kirin9030"]);
    fails(&["compare", model, "--targets", "ascend:z80"], 2, &["'z80'", "kirin9030"]);
    fails(&["compare", model, "--targets", "x86_64", "--clock", "1e9"], 2, &["--clock", "ascend:MACHINE"]);
    let phone = ["-t", "ascend", "--machine", "kirin9030"];
    for cpu in
        [["--cpu", "zen4"], ["--features", "+avx2"], ["--variants", "zen4"], ["--vlen", "128"], ["--profile", "x"]]
    {
        for command in [&["compile", model][..], &["eval", model, "--ids", "1"], &["bench", model]] {
            fails(&[command, &phone, &cpu].concat(), 2, &["--profile are for CPUs", "leave them out"]);
        }
        let inspect = [&["inspect", model, "--schedules"], &phone[..], &cpu].concat();
        fails(&inspect, 2, &["--profile are for CPUs"]);
    }
    fails(&["compile", model, "-t", "aarch64", "--features", "+magic"], 2, &["'magic'", "dotprod"]);
    fails(&["compile", model, "-t", "aarch64", "--cpu", "z80"], 2, &["'z80'", "cortex-a53"]);
    fails(&["compile", model, "-t", "aarch64-apple-darwin"], 2, &["ELF"]);
    fails(&["compile", model, "-n", "9lives"], 2, &["'9lives'"]);
    fails(&["compile", model, "--stop-after", "nothing"], 2, &["'nothing'", "fuse-norm-quant"]);
    fails(&["compile", model, "--ctx", "100000"], 2, &["100000", "1024"]);
    fails(&["compile", model, "--encoding", "morse"], 2, &["'morse'", "i2"]);
    fails(&["eval", model, "--ids", "1,x"], 2, &["'x'"]);
    fails(&["eval", model, "--ids", "4096"], 2, &["4096"]);
    fails(&["explain", "TCC-E9999"], 2, &["TCC-E9999"]);
    fails(&["frobnicate"], 2, &["frobnicate"]);
}

#[test]
fn unreadable_models_exit_with_3_and_write_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let out = out.to_str().expect("UTF-8");
    fails(&["compile", "/nonexistent/model", "-o", out], 3, &["/nonexistent/model"]);
    let model = example();
    let model = model.to_str().expect("UTF-8");
    let split =
        ["eval", model, "--ids", "1", "-t", "ascend", "--machine", "ascend950pr", "--encoding", "w2nz4-x64-k512"];
    fails(&split, 3, &["usable: w2nz8-x64-k512"]);
    let dense = example().with_file_name("rust-docs-6m-dense");
    fails(&["compile", dense.to_str().expect("UTF-8"), "-o", out], 3, &["q_proj.weight", "--dense keep"]);
    assert!(!std::path::Path::new(out).exists());
}

/// What `tune` writes is read again; what it would not write is refused.
#[test]
fn profiles_are_written_and_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("machine.json");
    let profile = path.to_str().expect("UTF-8");
    let model = example();
    let model = model.to_str().expect("UTF-8");
    ok(&["tune", "-q", "-o", profile]);
    ok(&["inspect", model, "--schedules", "--profile", profile]);
    ok(&["check", model, "--profile", profile]);
    let foreign = if cfg!(target_arch = "riscv64") { "aarch64" } else { "riscv64" };
    fails(&["check", model, "-t", foreign, "--profile", profile], 3, &["machine.json", foreign, "tcc tune"]);
    let text = std::fs::read_to_string(&path).expect("it was written");
    std::fs::write(&path, text.replace("\"cpu\"", "\"gpu\"")).expect("a writable folder");
    fails(&["check", model, "--profile", profile], 3, &["machine.json", "gpu", "cpu"]);
    let mut value: serde_json::Value = serde_json::from_str(&text).expect("a profile is JSON");
    let tasks = value["task_rows"].as_object().expect("a map");
    assert!(!tasks.is_empty() && tasks.values().all(|rows| rows.as_u64() >= Some(64)), "{text}");
    let name = value["cpu"].as_str().expect("a name").to_owned();
    value["cpu"] = "another processor".into();
    std::fs::write(&path, value.to_string()).expect("a writable folder");
    fails(&["check", model, "--profile", profile], 3, &["another processor", name.split(' ').next().expect("a word")]);
    value["features"] = "".into();
    std::fs::write(&path, value.to_string()).expect("a writable folder");
    let here = value["target"].as_str().expect("a name").to_owned();
    fails(&["check", model, "-t", &here, "--profile", profile], 3, &["machine.json", "measured without"]);
    fails(&["check", model, "--profile", "/nonexistent/profile"], 3, &["/nonexistent/profile"]);
}

#[test]
fn limits_exit_with_5() {
    let model = example();
    let model = model.to_str().expect("UTF-8");
    fails(&["check", model, "-t", "riscv64", "--ram", "1000"], 5, &["arena", "1000"]);
    ok(&["check", model, "-t", "riscv64", "--ram", "100000000", "--stack", "65536"]);
}

#[test]
fn errors_are_objects_on_request() {
    let output = tcc(&["--json", "compile", "/nonexistent/model"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(value["error"]["exit"], 3);
    assert!(value["error"]["code"].as_str().expect("a code").starts_with("TCC-E"));
}

#[test]
fn every_topic_is_explained() {
    let list = ok(&["explain"]);
    let topics: Vec<&str> = list.lines().filter_map(|l| l.split_whitespace().next()).collect();
    assert!(topics.contains(&"TCC-E0217") && topics.contains(&"fuse-norm-quant"), "{list}");
    for topic in topics {
        assert!(ok(&["explain", topic]).len() > 40, "{topic}");
    }
}

/// Every code that an error can carry has an explanation.
#[test]
fn every_code_in_the_source_is_explained() {
    let source = std::fs::read_to_string(harness::root().join("compiler/src/error.rs")).expect("the source");
    let codes: Vec<&str> = source.split('"').filter(|word| word.starts_with("TCC-E")).collect();
    assert!(codes.len() > 15, "{codes:?}");
    for code in codes {
        assert!(tcc::explain::explain(code).is_some(), "{code} is not explained");
    }
}

#[test]
fn targets_are_listed() {
    let list = ok(&["targets"]);
    for name in ["x86_64", "aarch64", "riscv64", "cortex-a53", "portable"] {
        assert!(list.contains(name), "{list}");
    }
    let granted: Vec<_> = list.lines().filter(|line| line.trim_start().starts_with("granted")).collect();
    assert!(matches!(granted[..], [line] if line.contains("amxint8")), "{list}");
    let tuning: Vec<_> = list.lines().filter(|line| line.trim_start().starts_with("tuning")).collect();
    assert!(matches!(tuning[..], [line] if line.contains("fetchl2")), "{list}");
    let json: Value = serde_json::from_str(&ok(&["targets", "--json"])).expect("JSON");
    let targets = json["targets"].as_array().expect("a list");
    for (kind, expected) in [("granted", ["amxint8", "", ""]), ("tuning", ["fetchl2", "", ""])] {
        assert_eq!(targets.iter().map(|target| target[kind].as_str().expect("names")).collect::<Vec<_>>(), expected);
    }
}

/// A reader that has seen enough is no error.
#[test]
fn a_closed_pipe_ends_quietly() {
    let tcc = env!("CARGO_BIN_EXE_tcc");
    let model = example();
    let script = format!("'{tcc}' inspect '{}' --ir | head -n 1", model.display());
    let output = std::process::Command::new("sh").args(["-c", &script]).output().expect("sh runs");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(!output.stdout.is_empty());
}
