//! The op table of `docs/ir.md` is made from the code; `UPDATE_EXPECT=1` rewrites it.

use std::fmt::Write;
use std::fs;

use tcc_ir::ops::Op;
use tcc_ir::ops::attr::{OPS, Slot};

use super::source::{files, relative, root};

const BEGIN: &str = "<!-- op table -->\n";
const END: &str = "<!-- end of op table -->";

/// The file of `op` and how its documentation writes it: `rms_norm x, w { eps }`, or what a fused op stands for.
fn documented(op: &Op) -> (String, String) {
    for path in files(&root().join("ir/src/ops"), &["rs"]) {
        let text = fs::read_to_string(&path).expect("a file of the repository");
        let docs: String = text.lines().filter_map(|l| l.trim().strip_prefix("//!")).collect();
        let mut spans = docs.split('`').skip(1).step_by(2);
        if let Some(span) = spans.find(|s| s.split(' ').next() == Some(op.name())) {
            return (relative(&path), span.to_owned());
        }
    }
    let path = "ir/src/ops/mod.rs";
    let text = fs::read_to_string(root().join(path)).expect("a file of the repository");
    let variant = format!("    {} {{", camel_case(op.name()));
    let docs = text.lines().zip(text.lines().skip(1)).find(|(_, next)| *next == variant);
    let (docs, _) = docs.unwrap_or_else(|| panic!("no file of ir/src/ops documents '{}'", op.name()));
    let fused = docs.trim().strip_prefix("/// Fused: `").and_then(|d| d.strip_suffix("`."));
    (path.into(), format!("= {}", fused.unwrap_or_else(|| panic!("'{}' is not said to be fused", op.name()))))
}

fn camel_case(name: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('_').map(capital).collect()
}

/// One attribute as the table shows it.
fn attribute(name: &str, slot: &Slot, is_required: bool) -> String {
    match slot {
        Slot::Flag(_) => format!("`{name}`"),
        Slot::F32(_) | Slot::Count(_) | Slot::Act(_) | Slot::Code(_) if is_required => format!("`{name}` required"),
        Slot::F32(x) => format!("`{name}` = {x:?}"),
        Slot::Count(n) => format!("`{name}` = {n}"),
        Slot::Act(act) => format!("`{name}` = {}", act.name()),
        Slot::Code(code) => format!("`{name}` = {}", code.name()),
    }
}

fn table() -> String {
    let mut table = String::from("| op | as documented | attributes | file |\n|---|---|---|---|\n");
    for mut op in OPS {
        let (path, signature) = documented(&op);
        let name = op.name();
        let attributes: Vec<_> = op.attrs().iter().map(|a| attribute(a.name, &a.slot, a.is_required)).collect();
        let attributes = attributes.join(", ");
        writeln!(table, "| `{name}` | `{signature}` | {attributes} | `{path}` |")
            .expect("writing to a string succeeds");
    }
    table
}

#[test]
fn op_table_is_current() {
    let path = root().join("docs/ir.md");
    let text = fs::read_to_string(&path).expect("the document of the representation");
    let (head, rest) = text.split_once(BEGIN).expect("the table begins with its mark");
    let (found, tail) = rest.split_once(END).expect("the table ends with its mark");
    let expected = table();
    if std::env::var_os("UPDATE_EXPECT").is_some_and(|v| v == "1") {
        fs::write(&path, format!("{head}{BEGIN}{expected}{END}{tail}")).expect("the document can be written");
    } else {
        assert_eq!(found, expected, "UPDATE_EXPECT=1 rewrites docs/ir.md");
    }
}
