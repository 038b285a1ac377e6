//! Documents say what is: every path and every type of ours they mention exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::report;
use super::rules::FOREIGN_NAMES;
use super::source::{files, relative, root, sources};

/// Paths of the documents, from the root.
fn documents() -> Vec<String> {
    let top = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(String::from);
    let docs = files(&root().join("docs"), &["md"]).into_iter().map(|p| relative(&p));
    top.into_iter().filter(|p| root().join(p).exists()).chain(docs).collect()
}

/// Text between single backticks and targets of links, with their lines; fenced blocks are left out.
fn spans(text: &str) -> Vec<(String, usize)> {
    let mut spans = vec![];
    let mut is_fenced = false;
    for (line, n) in text.lines().zip(1..) {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if !is_fenced {
            spans.extend(line.split('`').skip(1).step_by(2).map(|s| (s.to_owned(), n)));
            let links = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
            let local = links.filter(|target| !target.is_empty() && !target.contains(':'));
            spans.extend(local.map(|target| (format!("{target}?link"), n)));
        }
    }
    spans
}

/// The path a span means, if it means one.
fn path_of(span: &str) -> Option<&str> {
    if let Some(link) = span.strip_suffix("?link") {
        return Some(link);
    }
    const FOLDERS: [&str; 8] = ["ir/", "backends/", "compiler/", "runtime/", "tests/", "examples/", "docs/", ".ci/"];
    let is_plain = span.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
    let is_file = [".rs", ".md", ".toml", ".tir", ".sh"].iter().any(|e| span.ends_with(e));
    (is_plain && (is_file || FOLDERS.iter().any(|f| span.starts_with(f)))).then_some(span)
}

/// Identifiers of a span that is a type of ours or a path through one.
fn type_of(span: &str) -> Vec<&str> {
    let parts: Vec<&str> = span.split("::").collect();
    let is_name = |s: &&str| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let is_type = |s: &str| {
        s.starts_with(|c: char| c.is_ascii_uppercase())
            && s.contains(|c: char| c.is_ascii_lowercase())
            && !s.contains('_')
    };
    if parts.iter().all(is_name) && parts.iter().any(|s| is_type(s)) { parts } else { vec![] }
}

/// True if `path` exists from the root, beside the document, or in a source folder that the document is about.
fn exists(path: &str, document: &str) -> bool {
    let folder = Path::new(document).parent().unwrap_or(Path::new(""));
    root().join(path).exists() || root().join(folder).join(path).exists()
}

#[test]
fn documents_mention_what_exists() {
    let tokens = sources().into_iter().flat_map(|s| s.tokens);
    let names: BTreeSet<String> = tokens.map(|t| t.text.trim_matches('"').to_owned()).collect();
    let mut findings = vec![];
    for document in documents() {
        let text = fs::read_to_string(root().join(&document)).expect("a document");
        for (span, n) in spans(&text) {
            if let Some(path) = path_of(&span) {
                if !exists(path, &document) {
                    findings.push(format!("{document}:{n}: no such file: {path}"));
                }
                continue;
            }
            for name in type_of(&span) {
                if !names.contains(name) && !FOREIGN_NAMES.contains(&name) {
                    findings.push(format!("{document}:{n}: no such name in the code: {name} in {span}"));
                }
            }
        }
    }
    report(findings);
}

#[test]
fn documents_are_read_as_meant() {
    let text =
        "See `ir/src/ty.rs` and [the map](docs/ir.md#ops).\n```\n`no/such.rs`\n```\n`Graph::order` of `[n, k/g]`";
    let spans = spans(text);
    let paths: Vec<_> = spans.iter().filter_map(|(s, n)| Some((path_of(s)?, *n))).collect();
    assert_eq!(paths, [("ir/src/ty.rs", 1), ("docs/ir.md", 1)]);
    let types: Vec<_> = spans.iter().flat_map(|(s, _)| type_of(s)).collect();
    assert_eq!(types, ["Graph", "order"]);
}
