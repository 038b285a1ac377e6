//! Rust files as flat token lists with line numbers: comments are gone, documentation attributes too.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// One token; a group contributes its two delimiters around its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    pub line: usize,
    pub is_literal: bool,
}

/// One function and the lines it spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub lines: RangeInclusive<usize>,
}

/// One Rust file of the repository.
pub struct Source {
    /// Path from the root of the repository, with forward slashes.
    pub path: String,
    pub text: String,
    pub tokens: Vec<Token>,
    pub functions: Vec<Function>,
    /// Lines of items under `#[cfg(test)]`.
    test_lines: Vec<RangeInclusive<usize>>,
}

impl Source {
    /// Reads `text`; panics if it is not Rust.
    pub fn new(path: &str, text: String) -> Source {
        let stream: TokenStream = text.parse().unwrap_or_else(|e| panic!("{path}: {e}"));
        let mut source =
            Source { path: path.into(), text, tokens: vec![], functions: vec![], test_lines: test_files(path) };
        source.walk(stream);
        source
    }

    /// True if `line` belongs to tests, which may panic.
    pub fn is_test(&self, line: usize) -> bool {
        self.test_lines.iter().any(|r| r.contains(&line))
    }

    /// Tokens outside tests.
    pub fn code(&self) -> Vec<&Token> {
        self.tokens.iter().filter(|t| !self.is_test(t.line)).collect()
    }

    fn walk(&mut self, stream: TokenStream) {
        let trees: Vec<TokenTree> = stream.into_iter().collect();
        let mut i = 0;
        while i < trees.len() {
            if let Some(name) = attribute(&trees[i..]) {
                if name == "cfg (test)" {
                    self.test_lines.push(line(&trees[i])..=end_of_item(&trees[i..]));
                }
                if name.starts_with("doc") {
                    i += 2;
                    continue;
                }
            }
            self.function(&trees[i..]);
            self.push(&trees[i]);
            i += 1;
        }
    }

    fn function(&mut self, trees: &[TokenTree]) {
        if let [TokenTree::Ident(keyword), TokenTree::Ident(name), ..] = trees
            && keyword == "fn"
        {
            let lines = line(&trees[0])..=end_of_item(trees);
            self.functions.push(Function { name: name.to_string(), lines });
        }
    }

    fn push(&mut self, tree: &TokenTree) {
        let token = |text: &str, line| Token { text: text.into(), line, is_literal: false };
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                self.tokens.push(token(open, group.span_open().start().line));
                self.walk(group.stream());
                self.tokens.push(token(close, group.span_close().start().line));
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => self.tokens.push(token(&tree.to_string(), line(tree))),
            TokenTree::Literal(literal) => {
                self.tokens.push(Token { text: literal.to_string(), line: line(tree), is_literal: true });
            }
        }
    }
}

/// Files that hold nothing but tests: those of `tests/` folders, and `tests.rs` or `*_tests.rs` beside the code.
fn test_files(path: &str) -> Vec<RangeInclusive<usize>> {
    let in_folder = path.starts_with("tests/") || path.contains("/tests/") || path.contains("/benches/");
    let beside = path.ends_with("/tests.rs") || path.ends_with("_tests.rs");
    if in_folder || beside { vec![0..=usize::MAX] } else { vec![] }
}

fn line(tree: &TokenTree) -> usize {
    tree.span().start().line
}

/// The content of `#[...]` or `#![...]` if the trees begin with one.
fn attribute(trees: &[TokenTree]) -> Option<String> {
    let (TokenTree::Punct(hash), rest) = trees.split_first()? else { return None };
    let group = match rest {
        [TokenTree::Group(group), ..] => group,
        [TokenTree::Punct(bang), TokenTree::Group(group), ..] if bang.as_char() == '!' => group,
        _ => return None,
    };
    let is_attribute = hash.as_char() == '#' && group.delimiter() == Delimiter::Bracket;
    is_attribute.then(|| group.stream().to_string())
}

/// Last line of the item that the trees begin with: its body's closing brace, or its semicolon.
fn end_of_item(trees: &[TokenTree]) -> usize {
    for tree in trees {
        match tree {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                return group.span_close().start().line;
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => return line(tree),
            TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Ident(_) | TokenTree::Literal(_) => {}
        }
    }
    trees.last().map_or(0, line)
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the repository").to_owned()
}

/// Every file under `folder` with one of `extensions`, sorted; build outputs and hidden folders left out.
pub fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|e| e.expect("an entry").path())
        .collect();
    entries.sort();
    let mut found = vec![];
    for path in entries {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                found.extend(files(&path, extensions));
            }
        } else if path.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e)) {
            found.push(path);
        }
    }
    found
}

/// Path from the root, with forward slashes.
pub fn relative(path: &Path) -> String {
    let path = path.strip_prefix(root()).expect("files lie under the root");
    path.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// Every Rust file of the repository.
pub fn sources() -> Vec<Source> {
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Source::new(&relative(&path), text)
    };
    files(&root(), &["rs"]).into_iter().map(read).collect()
}
