//! What `tcc compile` writes: objects without needs, reproducible bytes, headers and programs that work.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::harness::{example, json, ok, root, tcc};

pub const TARGETS: [&str; 3] = ["x86_64", "aarch64", "riscv64"];

pub fn compile(out: &Path, args: &[&str]) {
    let model = example();
    let mut all =
        vec!["compile", "-q", model.to_str().expect("UTF-8"), "-n", "model", "-o", out.to_str().expect("UTF-8")];
    all.extend(args);
    ok(&all);
}

pub fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program} is needed (tests/setup.sh): {e}"))
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn tool(target: &str, name: &str) -> String {
    if target == std::env::consts::ARCH { name.to_owned() } else { format!("{target}-linux-gnu-{name}") }
}

#[test]
fn objects_need_nothing() {
    for target in TARGETS {
        let folder = tempfile::tempdir().expect("a temporary folder");
        compile(folder.path(), &["-t", target]);
        let object = folder.path().join("model.o");
        let object = object.to_str().expect("UTF-8");
        let undefined = run(&tool(target, "nm"), &["-u", object]);
        assert!(undefined.status.success());
        assert_eq!(text(&undefined).trim(), "", "{target}: undefined symbols");
        let global = text(&run(&tool(target, "nm"), &["-g", "--defined-only", object]));
        assert!(global.lines().count() >= 12, "{target}: {global}");
        assert!(
            global.lines().all(|line| line.contains(" T model_") || line.contains(" R model_")),
            "{target}: {global}"
        );
        let sections = text(&run(&tool(target, "readelf"), &["-SW", object]));
        for section in ["tcc_weights", ".text.model", ".note.GNU-stack", ".note.tcc"] {
            assert!(sections.contains(section), "{target} lacks {section}:\n{sections}");
        }
        assert!(!sections.contains(".data") && !sections.contains(".bss"), "{target}:\n{sections}");
        let weights =
            sections.lines().find(|l| l.contains("tcc_weights") && !l.contains(".rel")).expect("a weights section");
        assert!(weights.trim_end().ends_with("16384"), "{target}: {weights}");
        let names = text(&run(&tool(target, "nm"), &[object]));
        assert!(names.contains("L05.ffn_down"), "{target}: op names are symbols");
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let (a, b) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    for target in TARGETS {
        let emit = ["-t", target, "--emit", "obj,header,report,exe,ir"];
        compile(a.path(), &[&emit[..], &["-j", "1"]].concat());
        compile(b.path(), &[&emit[..], &["-j", "2"]].concat());
        for file in ["model.o", "model.h", "model.report.json", "model", "model.tir"] {
            let read = |folder: &Path| std::fs::read(folder.join(file)).expect("a written file");
            assert!(read(a.path()) == read(b.path()), "{target}: {file} differs between -j1 and -j2");
        }
    }
}

#[test]
fn a_c_program_links_and_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    compile(folder.path(), &["-t", "host"]);
    let prompt = ["1", "7", "300"];
    for (source, n) in [("main.c", "8"), ("draft.c", "48")] {
        let generated = build_c(folder.path(), "cc", &["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"], source);
        let output = run(&generated, &prompt);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{source}: {said}");
        assert_eq!(text(&output), greedy_ids(n, &prompt), "{source}");
        // A text of this length repeats itself: speculation that guesses nothing would show nothing.
        assert!(source == "main.c" || !said.starts_with("0 of"), "{said}");
    }
}

#[test]
fn speculation_changes_no_text() {
    let model = root().join("examples/models/rust-docs-6m");
    let run = |more: &[&str]| {
        let args = ["run", model.to_str().expect("UTF-8"), "-p", "The `Vec` type", "-n", "120", "--threads", "1"];
        json(&[&args[..], more].concat())
    };
    for sampling in [&["--temperature", "0"], &["--temperature", "0.7"]] {
        let plain = run(sampling);
        assert_eq!(plain["guessed_tokens"], 0);
        for most in ["1", "7", "100"] {
            let drafted = run(&[&sampling[..], &["--speculate", most]].concat());
            assert_eq!(drafted["text"], plain["text"], "{sampling:?}, {most} guesses");
            assert!(drafted["right_guesses"].as_u64() > Some(0), "{drafted:#}");
        }
    }
}

/// The ids an emitted executable prints for a prompt: the reference for other programs around the same model.
fn greedy_ids(n: &str, prompt: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    compile(folder.path(), &["-t", "x86_64", "--emit", "exe"]);
    let mut args = vec!["-n", n];
    args.extend(prompt);
    text(&run(folder.path().join("model").to_str().expect("UTF-8"), &args))
}

fn build_c(out: &Path, compiler: &str, flags: &[&str], source: &str) -> String {
    let program = out.join("program");
    let source = root().join("examples/c").join(source);
    let paths: Vec<String> = [&source, &out.join("model.o")].map(|p: &PathBuf| p.display().to_string()).into();
    let include = format!("-I{}", out.display());
    let mut args: Vec<&str> = flags.to_vec();
    args.extend(["-O2", &include, &paths[0], &paths[1], "-o", program.to_str().expect("UTF-8")]);
    let output = run(compiler, &args);
    assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
    program.display().to_string()
}

#[test]
fn a_program_without_libc_passes_its_self_test_on_both_foreign_targets() {
    for (target, features, cpu) in [
        ("aarch64", None, "cortex-a53"),
        ("aarch64", Some("+dotprod"), "cortex-a76"),
        ("riscv64", None, "rv64,v=false"),
        ("riscv64", Some("+v"), "rv64,v=true,vlen=256,vext_spec=v1.0"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut args = vec!["-t", target];
        args.extend(features.iter().flat_map(|f| ["--features", *f]));
        compile(folder.path(), &args);
        let flags = ["-ffreestanding", "-nostdlib", "-static", "-fno-stack-protector", "-Wall", "-Wextra", "-Werror"];
        let program = build_c(folder.path(), &tool(target, "gcc"), &flags, "nostdlib.c");
        let output = run(&format!("qemu-{target}"), &["-cpu", cpu, &program]);
        assert_eq!((output.status.code(), text(&output).as_str()), (Some(0), "success\n"), "{target} {cpu}");
    }
}

#[test]
fn a_core_without_the_features_is_told_not_trapped() {
    for (target, features, vlen, small) in [
        ("aarch64", "+dotprod", "0", "cortex-a53"),
        ("aarch64", "+dotprod,+i8mm", "0", "cortex-a76"),
        ("riscv64", "+v", "0", "rv64,v=false"),
        ("riscv64", "+v", "256", "rv64,v=true,vlen=128,vext_spec=v1.0"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        compile(folder.path(), &["-t", target, "--features", features, "--vlen", vlen, "--emit", "exe"]);
        let exe = folder.path().join("model");
        let output = run(&format!("qemu-{target}"), &["-cpu", small, exe.to_str().expect("UTF-8"), "1", "2"]);
        assert_eq!(output.status.code(), Some(3), "{target} {features} on {small}: {:?}", output.status);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(words.contains("TCC_E_CPU"), "{words}");
    }
}

#[test]
fn weights_may_live_in_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    compile(folder.path(), &["-t", "host", "--weights", "file"]);
    let object = json(&["inspect", folder.path().join("model.o").to_str().expect("UTF-8")]);
    let sections = object["sections"].as_array().expect("a list");
    assert!(sections.iter().all(|s| s["name"] != "tcc_weights"));
    assert!(folder.path().join("model.weights").metadata().expect("a weights file").len() > 1 << 20);
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("readable").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn inspection_of_an_object_and_a_report_agree() {
    let folder = tempfile::tempdir().expect("a folder");
    compile(folder.path(), &["-t", "aarch64", "--emit", "obj,report,asm,dot,ir,pieces"]);
    let object = json(&["inspect", folder.path().join("model.o").to_str().expect("UTF-8")]);
    assert_eq!(object["undefined_symbols"], 0);
    let report = std::fs::read_to_string(folder.path().join("model.report.json")).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let weights = object["sections"].as_array().expect("a list").iter().find(|s| s["name"] == "tcc_weights");
    assert_eq!(weights.expect("a section")["bytes"], report["sizes"]["weights_bytes"]);
    let ram = &report["ram"];
    let parts = ["kv_bytes", "activations_bytes", "logits_bytes", "scratch_bytes", "state_bytes"];
    let sum: u64 = parts.iter().map(|p| ram[p].as_u64().expect("a number")).sum();
    assert_eq!(ram["arena_bytes"], sum);
    for file in ["model.s", "model.dot", "model.tir", "model_pieces.h"] {
        assert!(folder.path().join(file).metadata().expect("written").len() > 1000, "{file}");
    }
}

#[test]
fn a_stopped_compilation_writes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let model = example();
    let output = tcc(&[
        "compile",
        model.to_str().expect("UTF-8"),
        "-o",
        out.to_str().expect("UTF-8"),
        "--stop-after",
        "share",
        "--print-ir-after",
        "build,share",
    ]);
    assert!(output.status.success());
    assert!(!out.exists());
    let printed = text(&output);
    assert!(printed.contains("; after build") && printed.contains("; after share"), "both dumps");
    assert!(!printed.contains("norm_quant"), "nothing after the stop");
}

/// The search of a screened head chooses what the full head does, on every instruction set.
#[test]
fn screened_heads_choose_the_same_tokens() {
    let mut runs = vec![
        ("aarch64", "", "cortex-a53"),
        ("aarch64", "+dotprod", "cortex-a76"),
        ("riscv64", "", "rv64,v=false"),
        ("riscv64", "+v", "rv64,v=true,vlen=256,vext_spec=v1.0"),
    ];
    if std::env::consts::ARCH == "x86_64" {
        runs.push(("x86_64", "", ""));
    }
    for (target, features, cpu) in runs {
        let texts = ["exact", "screened"].map(|head| {
            let folder = tempfile::tempdir().expect("a folder");
            let features: Vec<&str> = ["--features", features].into_iter().filter(|_| !features.is_empty()).collect();
            compile(folder.path(), &[&["-t", target, "--emit", "exe", "--head", head][..], &features].concat());
            let exe = folder.path().join("model").display().to_string();
            let words = ["17", "3", "250", "-n", "24"];
            let output = match cpu {
                "" => run(&exe, &words),
                _ => run(&format!("qemu-{target}"), &[&["-cpu", cpu, &exe][..], &words].concat()),
            };
            assert_eq!(output.status.code(), Some(0), "{target} {cpu}: {}", text(&output));
            text(&output)
        });
        assert_eq!(texts[0], texts[1], "{target} {cpu}");
        assert!(texts[0].split_whitespace().count() >= 24, "{}", texts[0]);
    }
}
