//! What an object for a matrix unit or a program holds, for `tcc inspect`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tcc_backends::isa::matrix::machine::Machine;
use tcc_backends::isa::matrix::program::Program;
use tcc_backends::isa::matrix::program::addr::Space;

use super::object::MatrixObject;
use super::{Body, MatrixModel, run};
use crate::error::Error;
use crate::report::human;

/// The local memories, each with its usable bytes on `machine`.
fn memories(machine: &Machine) -> [(Space, u32); 5] {
    let b = &machine.buffer;
    [(Space::L1, &b.l1), (Space::L0a, &b.l0a), (Space::L0b, &b.l0b), (Space::L0c, &b.l0c), (Space::Ub, &b.ub)]
        .map(|(space, buffer)| (space, buffer.usable()))
}

/// Everything about an object.
pub fn object(object: &MatrixObject<'_>) -> Result<Value, Error> {
    let model = &object.model;
    let programs = model.programs().zip(object.descriptor.entries()).map(|(body, entry)| {
        Ok(json!({
            "name": body.program.name, "section": entry.section, "m": body.m, "records": body.records(),
            "stages": body.program.stages.len(), "weights_bytes": body.weights_bytes, "memory": memory(model, body)?,
        }))
    });
    let programs = programs.collect::<Result<Vec<_>, Error>>()?;
    let capacity = memories(&model.machine).map(|(space, bytes)| (space.name(), bytes));
    Ok(json!({
        "descriptor": object.descriptor,
        "memories": capacity.into_iter().collect::<BTreeMap<_, _>>(),
        "global_memory": symbols(&model.head.program),
        "programs": programs,
        "tiles": object.tiles,
    }))
}

/// The symbols of a program.
pub fn symbols(program: &Program) -> Vec<Value> {
    let symbol = |s: &tcc_backends::isa::matrix::program::Symbol| json!({ "name": s.name, "kind": s.kind.name(), "address": s.address, "bytes": s.bytes });
    program.symbols.iter().map(symbol).collect()
}

/// Bytes of each local memory up to the last that an op touches; ops of all layers that are alike together.
fn memory(model: &MatrixModel, body: &Body) -> Result<Value, Error> {
    let reach = run::memory(model, body)?;
    let mut ops: BTreeMap<String, BTreeMap<&str, u64>> = BTreeMap::new();
    for ((op, space), bytes) in reach {
        let label = body.program.ops.get(usize::from(op)).map_or("", String::as_str);
        let most = ops.entry(kind_of(label).to_owned()).or_default().entry(space.name()).or_default();
        *most = bytes.max(*most);
    }
    Ok(json!(ops))
}

/// The label of a step without its layer (`L07.ffn_down` → `ffn_down`).
pub fn kind_of(label: &str) -> &str {
    match label.split_once('.') {
        Some((layer, rest)) if layer.starts_with('L') && layer[1..].bytes().all(|b| b.is_ascii_digit()) => rest,
        Some(_) | None => label,
    }
}

/// The same for people.
pub fn object_text(value: &Value) -> String {
    let d = &value["descriptor"];
    let word = |v: &Value| v.as_str().unwrap_or("").to_owned();
    let mut out = format!(
        "{} for matrix unit '{}', by tcc {}\n  vocabulary {}, width {}, context {}\n",
        word(&d["name"]),
        word(&d["machine"]),
        word(&d["tcc"]),
        d["vocab"],
        d["hidden"],
        d["ctx"],
    );
    out += &format!("  weights {}, sha256 {}\n", human(number(&d["weights_bytes"])), word(&d["weights_sha256"]));
    for symbol in value["global_memory"].as_array().into_iter().flatten() {
        let (name, kind) = (word(&symbol["name"]), word(&symbol["kind"]));
        out += &format!(
            "  memory {:>#12x} {:>12} bytes  {kind:<8} {name}\n",
            number(&symbol["address"]),
            number(&symbol["bytes"])
        );
    }
    for program in value["programs"].as_array().into_iter().flatten() {
        let (name, section) = (word(&program["name"]), word(&program["section"]));
        out += &format!("\nprogram {name} ({section}): m {}, {} records\n", program["m"], program["records"]);
        out += &memory_text(value, program);
    }
    out + "\ntiles\n" + value["tiles"].as_str().unwrap_or("")
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// A line for each kind of op: KiB of each memory, of those there are.
fn memory_text(value: &Value, program: &Value) -> String {
    let names: Vec<&String> = value["memories"].as_object().into_iter().flat_map(|m| m.keys()).collect();
    let kib = |bytes: u64| format!("{:.1}", bytes as f64 / 1024.0);
    let line = |label: &str, of: &Value| {
        let cells: Vec<String> = names.iter().map(|name| format!("{:>8}", kib(number(&of[name.as_str()])))).collect();
        format!("  {label:<20}{}\n", cells.join(""))
    };
    let heads: Vec<String> = names.iter().map(|name| format!("{name:>8}")).collect();
    let mut out = format!("  {:<20}{}\n", "KiB used by", heads.join(""));
    for (label, of) in program["memory"].as_object().into_iter().flatten() {
        out += &line(label, of);
    }
    out + &line("there are", &value["memories"])
}
