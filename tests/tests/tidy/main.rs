//! The rules of the house that a program can check: layers, names, sizes, words, documents. Each failure names the
//! line; the tables are in `rules.rs`.

mod docs;
mod op_table;
mod rules;
mod source;

use std::fs;

use rules::{
    BANNED, Banned, FAMILY_HOMES, FAMILY_NAMES, FILE_LINES, FUNCTION_LINES, ISA_EXCEPTIONS, ISA_NAMES, LAYERS,
    LONG_FILES, LONG_FUNCTIONS, MANIFESTS,
};
use source::{Source, Token, files, relative, root, sources};

/// Fails with every finding.
fn report(findings: Vec<String>) {
    assert!(findings.is_empty(), "{} findings\n{}", findings.len(), findings.join("\n"));
}

fn starts_with_any(path: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|p| path.starts_with(p))
}

/// Modules of our crates (`tcc_ir::graph`) that the file names, with the line.
fn crates_named(source: &Source) -> Vec<(String, usize)> {
    const OURS: [&str; 5] = ["tcc", "tcc_ir", "tcc_backends", "tcc_runtime", "tcc_tests"];
    let tokens: Vec<&Token> = source.tokens.iter().collect();
    let mut named = vec![];
    for window in tokens.windows(4) {
        if let [name, a, b, next] = window
            && OURS.contains(&name.text.as_str())
            && (a.text.as_str(), b.text.as_str()) == (":", ":")
        {
            named.push((format!("{}::{}", name.text, next.text), name.line));
        }
    }
    named
}

fn layer_findings(source: &Source) -> Vec<String> {
    let Some((_, allowed)) = LAYERS.iter().find(|(prefix, _)| source.path.starts_with(prefix)) else {
        return vec![format!("{}: no row of LAYERS covers it", source.path)];
    };
    let is_allowed = |name: &str| allowed.iter().any(|a| name == *a || name.split("::").next() == Some(a));
    let finding = |(name, line): (String, usize)| format!("{}:{line}: may not name {name}", source.path);
    crates_named(source).into_iter().filter(|(name, _)| !is_allowed(name)).map(finding).collect()
}

#[test]
fn arrows_between_layers() {
    report(sources().iter().flat_map(layer_findings).collect());
}

#[test]
fn manifests_name_only_the_layers_below() {
    let mut findings = vec![];
    for (manifest, allowed) in MANIFESTS {
        let text = fs::read_to_string(root().join(manifest)).expect("a manifest of the workspace");
        for (line, n) in text.lines().zip(1..) {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            let is_ours = name.starts_with("tcc-") || name == "tcc";
            if is_ours && !allowed.contains(&name) {
                findings.push(format!("{manifest}:{n}: may not depend on {name}"));
            }
        }
    }
    report(findings);
}

#[test]
fn pure_crates_forbid_unsafe() {
    for path in ["ir/src/lib.rs", "backends/src/lib.rs", "compiler/src/lib.rs"] {
        let text = fs::read_to_string(root().join(path)).expect("a crate of the workspace");
        assert!(text.contains("#![forbid(unsafe_code)]"), "{path} does not forbid unsafe code");
    }
}

/// Identifiers and literals outside tests that contain one of `names`.
fn mentions(source: &Source, names: &[&str]) -> Vec<String> {
    let contains = |t: &Token| {
        let text = t.text.to_lowercase();
        names.iter().any(|n| text.contains(n))
    };
    let code = source.code();
    code.iter().filter(|t| contains(t)).map(|t| format!("{}:{}: names {}", source.path, t.line, t.text)).collect()
}

#[test]
fn instruction_sets_are_named_in_their_folders() {
    let is_home = |path: &str| path.starts_with("backends/src/isa/") && path != "backends/src/isa/mod.rs";
    let outside: Vec<_> = sources().into_iter().filter(|s| !is_home(&s.path)).collect();
    let mut found: Vec<_> = outside.iter().flat_map(|s| mentions(s, ISA_NAMES)).collect();
    for (path, reason) in ISA_EXCEPTIONS {
        let before = found.len();
        found.retain(|finding| !finding.starts_with(path));
        if found.len() == before {
            found.push(format!("{path}: needs no exception ({reason})"));
        }
    }
    report(found);
}

#[test]
fn families_are_named_in_the_front_end() {
    let outside = sources().into_iter().filter(|s| !starts_with_any(&s.path, FAMILY_HOMES));
    report(outside.flat_map(|s| mentions(&s, FAMILY_NAMES)).collect());
}

fn banned_findings(source: &Source, banned: &Banned) -> Vec<String> {
    if !banned.under.is_empty() && !starts_with_any(&source.path, banned.under) {
        return vec![];
    }
    let hits = source.tokens.windows(banned.tokens.len()).filter(|window| {
        let is_equal = window.iter().zip(banned.tokens).all(|(t, want)| !t.is_literal && t.text == *want);
        is_equal && (banned.in_tests || !source.is_test(window[0].line))
    });
    let words = banned.tokens.concat();
    hits.map(|w| format!("{}:{}: {words}: {}", source.path, w[0].line, banned.why)).collect()
}

#[test]
fn words_that_are_not_used() {
    report(sources().iter().flat_map(|s| BANNED.iter().flat_map(|b| banned_findings(s, b))).collect());
}

#[test]
fn every_file_says_what_it_is() {
    let silent = sources().into_iter().filter(|s| !s.text.starts_with("//!"));
    report(silent.map(|s| format!("{}:1: does not begin with //!", s.path)).collect());
}

#[test]
fn files_and_functions_are_short() {
    let mut findings = vec![];
    for source in sources() {
        let lines = source.text.lines().count();
        let exception = LONG_FILES.iter().any(|(path, _)| *path == source.path);
        match (lines > FILE_LINES, exception) {
            (true, false) => findings.push(format!("{}: {lines} lines, at most {FILE_LINES}", source.path)),
            (false, true) => findings.push(format!("{}: {lines} lines need no exception", source.path)),
            (true, true) | (false, false) => {}
        }
        for function in &source.functions {
            let lines = function.lines.clone().count();
            let is_exception = |(path, name, _): &&(&str, &str, &str)| *path == source.path && *name == function.name;
            let exception = LONG_FUNCTIONS.iter().any(|row| is_exception(&row));
            let at = format!("{}:{}: fn {}", source.path, function.lines.start(), function.name);
            match (lines > FUNCTION_LINES, exception) {
                (true, false) => findings.push(format!("{at} has {lines} lines, at most {FUNCTION_LINES}")),
                (false, true) => findings.push(format!("{at} has {lines} lines and needs no exception")),
                (true, true) | (false, false) => {}
            }
        }
    }
    report(findings);
}

/// The project speaks of itself: no path of a machine it was written on.
#[test]
fn no_machine_paths() {
    let foreign = [["/", "work/"].concat(), ["..", "/shared"].concat(), ["/", "root/"].concat()];
    let mut findings = vec![];
    for path in files(&root(), &["rs", "md", "toml", "sh", "py", "tir", "c", "h", "ld", "yml"]) {
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for (line, n) in text.lines().zip(1..) {
            if foreign.iter().any(|f| line.contains(f.as_str())) {
                findings.push(format!("{}:{n}: {}", relative(&path), line.trim()));
            }
        }
    }
    report(findings);
}

/// The rules see what they forbid.
#[test]
fn the_rules_can_fail() {
    let bad = r#"
        //! A file.
        use tcc_backends::code::Function;
        /// Not code: tcc_runtime::pool, x86_64, .unwrap()
        fn long() { let m = HashMap::new(); m.get(1).unwrap(); x.exp(); todo!() }
        #[cfg(test)]
        mod tests { fn f() { a.unwrap(); "x86_64"; } }
        const ISA: &str = "x86_64";
    "#;
    let source = Source::new("ir/src/bad.rs", bad.into());
    assert_eq!(layer_findings(&source), ["ir/src/bad.rs:3: may not name tcc_backends::code"]);
    assert_eq!(mentions(&source, ISA_NAMES), ["ir/src/bad.rs:8: names \"x86_64\""]);
    let words: Vec<_> = BANNED.iter().flat_map(|b| banned_findings(&source, b)).collect();
    let at_line_5 = words.iter().filter(|w| w.starts_with("ir/src/bad.rs:5: ")).count();
    assert_eq!((words.len(), at_line_5), (4, 4), "{words:?}");
    assert_eq!(source.functions[0].lines, 5..=5);
}
