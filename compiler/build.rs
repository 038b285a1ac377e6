//! Builds `counter/`, the emulator's plugin that counts instructions, into a shared library that `tcc` carries along:
//! so that it is there wherever `tcc` is, with no second command and no second file.
//!
//! Where it cannot be built `tcc` carries an empty file, and says so when counts are asked for.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=../counter/src");
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name| env::var_os(name).unwrap_or_default();
    let library = PathBuf::from(variable("OUT_DIR")).join("counter.so");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["../counter/src/lib.rs", "--crate-name=tcc_counter", "--crate-type=cdylib", "--edition=2024"]);
    rustc.args(["-Copt-level=3", "-Cpanic=abort", "-Cstrip=symbols", "--target"]).arg(variable("TARGET"));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = OsString::from("-Clinker=");
        option.push(linker);
        rustc.arg(option);
    }
    let built = rustc.arg("-o").arg(&library).status().is_ok_and(|status| status.success());
    if !built {
        println!("cargo::warning=the instruction counter was not built: `tcc` will not count instructions");
        fs::write(&library, []).expect("cargo's output folder is writable");
    }
}
