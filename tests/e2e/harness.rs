//! Running `tcc`, and the table of machines whose bits must agree.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A target with a set of features, as command-line arguments.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    pub name: &'static str,
    pub args: &'static [&'static str],
    /// Feature of this machine without which the level is skipped.
    pub host: Option<&'static str>,
}

const fn level(name: &'static str, args: &'static [&'static str]) -> Level {
    Level { name, args, host: None }
}

const fn host_level(name: &'static str, args: &'static [&'static str], host: &'static str) -> Level {
    Level { name, args, host: Some(host) }
}

/// Every CPU level whose logits must be the same.
pub const LEVELS: &[Level] = &[
    level("x86_64", &["-t", "x86_64"]),
    host_level("x86_64 avxvnni", &["-t", "x86_64", "--features", "+avxvnni"], "avxvnni"),
    host_level("x86_64 avx512", &["-t", "x86_64", "--features", "+avx512"], "avx512"),
    host_level("x86_64 avx512vnni", &["-t", "x86_64", "--features", "+avx512vnni"], "avx512vnni"),
    host_level("x86_64 avx512vbmi", &["-t", "x86_64", "--features", "+avx512vnni,+avx512vbmi"], "avx512vbmi"),
    host_level("x86_64 amxint8", &["-t", "x86_64", "--features", "+amxint8"], "amxint8"),
    level("x86_64 fetchl2", &["-t", "x86_64", "--features", "+fetchl2"]),
    level("aarch64", &["-t", "aarch64"]),
    level("aarch64 dotprod", &["-t", "aarch64", "--features", "+dotprod"]),
    level("aarch64 i8mm", &["-t", "aarch64", "--features", "+dotprod,+i8mm"]),
    level("aarch64 sve", &["-t", "aarch64", "--features", "+sve"]),
    level("aarch64 sve i8mm", &["-t", "aarch64", "--features", "+sve,+i8mm"]),
    level("riscv64", &["-t", "riscv64"]),
    level("riscv64 v, vlen 128", &["-t", "riscv64", "--features", "+v", "--vlen", "128"]),
    level("riscv64 v, vlen 256", &["-t", "riscv64", "--features", "+v", "--vlen", "256"]),
    level("riscv64 v, vlen 512", &["-t", "riscv64", "--features", "+v", "--vlen", "512"]),
    level("riscv64 v, vlen 1024", &["-t", "riscv64", "--features", "+v", "--vlen", "1024"]),
];

/// Levels this machine can run, itself or by emulator; the others are listed as skipped.
pub fn levels() -> Vec<Level> {
    let here = tcc_runtime::host::features();
    let (run, skipped): (Vec<Level>, Vec<Level>) =
        LEVELS.iter().copied().partition(|l| l.host.is_none_or(|f| here.contains(&f)));
    for level in &skipped {
        eprintln!("skipped: {}: this machine lacks {}", level.name, level.host.unwrap_or("nothing"));
    }
    run
}

/// True where the slow suites run in full length.
pub fn full() -> bool {
    std::env::var("TCC_TEST_FULL").is_ok_and(|v| v == "1")
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace").to_owned()
}

/// The trained example model.
pub fn example() -> PathBuf {
    root().join("examples/models/rust-docs-6m")
}

/// Models of the fixtures' folder, by name.
pub fn fixtures() -> Vec<PathBuf> {
    let folder = root().join("tests/fixtures/models");
    let mut models: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("committed fixtures")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.join("config.json").is_file())
        .collect();
    models.sort();
    models
}

/// Runs `tcc` with `args`.
pub fn tcc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tcc")).args(args).output().expect("the binary starts")
}

/// Runs `tcc` and returns its standard output; fails the test with its words otherwise.
pub fn ok(args: &[&str]) -> String {
    let output = tcc(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tcc {}: {}\n{stderr}", args.join(" "), output.status);
    String::from_utf8(output.stdout).expect("tcc writes UTF-8")
}

/// Runs `tcc --json` and returns the object it prints.
pub fn json(args: &[&str]) -> Value {
    let mut all = vec!["--json"];
    all.extend(args);
    serde_json::from_str(&ok(&all)).expect("one JSON object")
}

/// The hash that `tcc eval` prints for `model` and `ids` with further arguments.
pub fn hash(model: &Path, ids: &str, args: &[&str]) -> String {
    let model = model.to_str().expect("a UTF-8 path");
    let mut all = vec!["eval", model, "--ids", ids];
    all.extend(args);
    json(&all)["sha256"].as_str().expect("a hash").to_owned()
}

/// Runs `jobs` on two threads and returns the results in order.
pub fn parallel<T: Sync, R: Send>(jobs: Vec<T>, run: impl Fn(&T) -> R + Send + Sync) -> Vec<R> {
    use rayon::prelude::*;
    jobs.par_iter().map(run).collect()
}
