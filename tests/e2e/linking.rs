//! Objects inside C programs: every kind of link without a dynamic relocation, and stacks within the header's bounds.

use std::path::Path;

use super::files::{TARGETS, compile, run, text, tool};
use super::harness::root;

/// Links `source` with the model in `folder`; the path of the program.
fn link(folder: &Path, target: &str, flags: &[&str], source: &Path) -> String {
    let program = folder.join("linked").display().to_string();
    let (include, object) = (format!("-I{}", folder.display()), folder.join("model.o").display().to_string());
    let mut args = vec!["-O1", "-Wall", "-Wextra", "-Werror", "-Wl,--fatal-warnings", &include, "-o", &program];
    let source = source.display().to_string();
    args.extend(flags);
    args.extend([source.as_str(), object.as_str()]);
    let output = run(&tool(target, "gcc"), &args);
    assert!(output.status.success(), "{target} {flags:?}: {}", String::from_utf8_lossy(&output.stderr));
    program
}

#[test]
fn every_kind_of_link_leaves_the_object_as_it_is() {
    for target in TARGETS {
        let folder = tempfile::tempdir().expect("a folder");
        compile(folder.path(), &["-t", target]);
        for flags in [&["-pie", "-fPIE"][..], &["-static"], &["-shared", "-fPIC"], &["-no-pie", "-Wl,--gc-sections"]] {
            let program = link(folder.path(), target, flags, &root().join("examples/c/main.c"));
            let facts = text(&run(&tool(target, "readelf"), &["-dlW", &program]));
            assert!(!facts.contains("TEXTREL"), "{target} {flags:?}:\n{facts}");
            let stack = facts.lines().find(|l| l.contains("GNU_STACK")).expect("a stack segment");
            assert!(stack.contains("RW ") && !stack.contains("RWE"), "{target} {flags:?}: {stack}");
        }
    }
}

/// Callers may leave the last words of their frames unwritten, so painted stacks are read to within this many bytes.
const PAINT_ERROR: usize = 16;

#[test]
fn painted_stacks_stay_within_their_bounds() {
    for target in TARGETS {
        let folder = tempfile::tempdir().expect("a folder");
        // Two variants, so that the functions which choose between them are measured, too.
        let variants = match target {
            "x86_64" => "baseline,avx512",
            "aarch64" => "baseline,dotprod",
            _ => "baseline,zba+zbb",
        };
        compile(folder.path(), &["-t", target, "--ctx", "128", "--variants", variants]);
        let program = link(folder.path(), target, &["-static"], &root().join("tests/c/stack.c"));
        let output = match target == std::env::consts::ARCH {
            true => run(&program, &[]),
            false => run(&format!("qemu-{target}"), &[&program]),
        };
        assert!(output.status.success(), "{target}: {}", text(&output));
        let numbers: Vec<usize> = text(&output).split_whitespace().map(|n| n.parse().expect("a number")).collect();
        for pair in numbers.chunks_exact(2) {
            let (used, bound) = (pair[0], pair[1]);
            assert!(used <= bound + PAINT_ERROR, "{target}: {used} bytes used, {bound} stated");
            // The bound is the frames of the deepest path, and that path runs.
            assert!(2 * used >= bound, "{target}: {used} bytes used, {bound} stated");
        }
        assert_eq!(numbers.len(), 4, "{target}");
    }
}
