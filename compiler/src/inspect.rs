//! Looks into an object: sections, symbols and the note.

use std::path::Path;

use object::{Object, ObjectSection, ObjectSymbol};
use serde_json::{Value, json};
use tcc_backends::image;
use tcc_runtime::map::MappedFile;

use crate::error::Error;

/// What the ELF file at `path` holds.
pub fn object(path: &Path) -> Result<Value, Error> {
    let failed = |reason: String| Error::Module { path: path.to_owned(), reason };
    let file = MappedFile::open(path).map_err(Error::io("read", path))?;
    let bytes = file.bytes(0..file.len()).map_err(Error::io("read", path))?;
    let elf = object::File::parse(bytes).map_err(|e| failed(e.to_string()))?;
    let sections: Vec<_> = elf
        .sections()
        .map(|s| json!({ "name": s.name().unwrap_or(""), "bytes": s.size(), "align": s.align() }))
        .collect();
    let symbol =
        |s: &object::Symbol| json!({ "name": s.name().unwrap_or(""), "offset": s.address(), "bytes": s.size() });
    let api: Vec<_> = elf.symbols().filter(|s| s.is_global() && !s.is_undefined()).map(|s| symbol(&s)).collect();
    let undefined = elf.symbols().filter(|s| s.is_undefined() && s.name().is_ok_and(|n| !n.is_empty())).count();
    let note = note(&elf);
    Ok(json!({
        "architecture": format!("{:?}", elf.architecture()).to_lowercase(),
        "sections": sections,
        "api": api,
        "local_symbols": elf.symbols().filter(|s| s.is_local()).count(),
        "undefined_symbols": undefined,
        "note": note,
        "variants": variants(&elf, note.as_deref().unwrap_or("")),
    }))
}

/// The variants that the note names, each with the bytes of code it has beyond those before it and what all share.
fn variants(elf: &object::File, note: &str) -> Vec<Value> {
    let listed = note.lines().find_map(|line| line.strip_prefix("variants=")).unwrap_or("");
    let variant = |entry: &str| {
        let (name, features) = entry.split_once(':')?;
        let mut ranges: Vec<(u64, u64)> = elf
            .symbols()
            .filter(|s| s.name().is_ok_and(|symbol| image::in_variant(symbol, name) != symbol))
            .map(|s| (s.address(), s.address() + s.size()))
            .collect();
        // Call sites of ops lie within functions: no byte counts twice.
        ranges.sort_unstable();
        let (mut bytes, mut reached) = (0, 0);
        for (begin, end) in ranges {
            bytes += end.saturating_sub(begin.max(reached));
            reached = reached.max(end);
        }
        Some(json!({ "name": name, "cpu_features": features, "code_bytes": bytes }))
    };
    listed.split(' ').filter_map(variant).collect()
}

/// The text of the object's own note section.
fn note(elf: &object::File) -> Option<String> {
    let data = elf.section_by_name(".note.tcc")?.data().ok()?;
    let text: String =
        data.iter().map(|b| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '\n' }).collect();
    Some(text.lines().filter(|line| line.contains('=')).collect::<Vec<_>>().join("\n"))
}

/// The same for people.
pub fn object_text(object: &Value) -> String {
    let mut out = format!("{} object\n", object["architecture"].as_str().unwrap_or("unknown"));
    for line in object["note"].as_str().unwrap_or("").lines() {
        out += &format!("  {line}\n");
    }
    for variant in object["variants"].as_array().into_iter().flatten() {
        let text = |key: &str| variant[key].as_str().unwrap_or("").to_owned();
        let (name, features) = (text("name"), text("cpu_features"));
        out += &format!("  variant {name:<24} {:>12} bytes of code  {features}\n", variant["code_bytes"]);
    }
    for section in object["sections"].as_array().into_iter().flatten() {
        out += &format!("  section {:<24} {:>12} bytes\n", section["name"].as_str().unwrap_or(""), section["bytes"]);
    }
    for symbol in object["api"].as_array().into_iter().flatten() {
        out += &format!("  symbol  {:<24} {:>12} bytes\n", symbol["name"].as_str().unwrap_or(""), symbol["bytes"]);
    }
    out += &format!("  {} local symbols, {} undefined\n", object["local_symbols"], object["undefined_symbols"]);
    out
}
