//! The bare-metal examples: built by their own script, booted on the emulated boards.

use std::process::Command;

use super::harness::root;

fn script(name: &str, isa: &str, out: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg(root().join("examples/firmware").join(name)).args([isa, out]);
    command.env("TCC", env!("CARGO_BIN_EXE_tcc"));
    command
}

fn boots(isa: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("UTF-8");
    let built = script("build.sh", isa, out).output().expect("sh runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    // A firmware that hangs must not hang the tests.
    let mut run = Command::new("timeout");
    let script = script("run.sh", isa, out);
    run.arg("240").arg(script.get_program()).args(script.get_args());
    let output = run.output().expect("timeout runs");
    let said = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.contains(&"self-test: ok"), "{isa}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(lines.last(), Some(&"done"), "{isa}: {said}");
    assert!(said.contains("The Vec type"), "{isa}: {said}");
}

#[test]
fn aarch64_boots() {
    boots("aarch64");
}

#[test]
fn riscv64_boots() {
    boots("riscv64");
}
