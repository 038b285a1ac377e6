//! `tcc inspect --schedules`: for each shape of ternary weights, every way to pack it, what that costs, and the choice.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::table::Table;
use crate::driver::Front;
use crate::error::Error;
use crate::plan::PlanError;
use crate::plan::layout::ternary_weights;
use crate::schedule::{self, Candidate, Machine, Shape};
use crate::target::Target;

/// The candidates for each shape of weights with int8 activations, in cycles of a one-row product of one weight; for each
/// variant where the target has several.
pub(super) fn describe(front: &Front, target: &Target) -> Result<Value, Error> {
    let (names, machines): (Vec<String>, Vec<Machine>) = target.machines().into_iter().unzip();
    let one = |machine| describe_machine(front, target, machine, &machines);
    if let [machine] = &machines[..] {
        return one(machine);
    }
    let mut variants = Vec::new();
    for (name, machine) in names.iter().zip(&machines) {
        let mut described = one(machine)?;
        described["variant"] = name.as_str().into();
        variants.push(described);
    }
    Ok(json!({ "target": target.triple, "variants": variants }))
}

/// The candidates on `machine`, one of `machines` that read the same weights.
fn describe_machine(front: &Front, target: &Target, machine: &Machine, machines: &[Machine]) -> Result<Value, Error> {
    let weights = ternary_weights(&front.program);
    // One weight has several readers.
    let mut names: BTreeMap<Shape, Vec<&str>> = BTreeMap::new();
    for weight in weights.iter().filter(|weight| weight.is_int8) {
        let (names, name) = (names.entry(weight.shape).or_default(), front.program.weight(weight.id).name.as_str());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut shapes = Vec::new();
    for (shape, names) in names {
        let failed = |source| PlanError::Schedule { weight: names[0].into(), source };
        let candidates = schedule::candidates(machine, shape, None).map_err(failed)?;
        let encoding = schedule::choose_encoding(machines, shape, None).map_err(failed)?;
        let readers: Vec<Candidate> = candidates.iter().copied().filter(|c| c.row.encoding == encoding).collect();
        let chosen = schedule::cheapest(&readers).map(|best| best.row.name);
        let describe = |c: &Candidate| {
            json!({
                "encoding": c.row.encoding.to_string(), "kernel": c.row.name,
                "bytes": c.row.encoding.matrix_bytes(shape.n, shape.k),
                "arithmetic_cycles": c.cost.arithmetic_cycles.round(), "traffic_cycles": c.cost.traffic_cycles.round(),
                "chosen": chosen == Some(c.row.name),
            })
        };
        shapes.push(json!({
            "n": shape.n, "k": shape.k, "group": shape.group, "weights": names.len(),
            "candidates": candidates.iter().map(describe).collect::<Vec<_>>(),
        }));
    }
    let features = machine.desc.feature_names(machine.features);
    Ok(json!({ "target": target.triple, "cpu_features": features, "shapes": shapes }))
}

/// The same for people.
pub(super) fn text(value: &Value) -> String {
    if let Some(variants) = value["variants"].as_array() {
        return variants.iter().map(text).collect::<Vec<_>>().join("\n");
    }
    let string = |v: &Value| v.as_str().unwrap_or("").to_owned();
    let mut out = format!("{} ({})\n", string(&value["target"]), string(&value["cpu_features"]));
    out += "cycles of one token row; the larger of the two counts\n";
    for shape in value["shapes"].as_array().into_iter().flatten() {
        let group = shape["group"].as_u64().map_or_else(String::new, |g| format!(", groups of {g}"));
        out += &format!("\n{} weights of [{}, {}]{group}\n", shape["weights"], shape["n"], shape["k"]);
        let cycles = |v: &Value| format!("{:.0}", v.as_f64().unwrap_or(0.0));
        let line = |row: &Value| {
            let chosen = if row["chosen"] == true { "chosen" } else { "" };
            let (arithmetic, traffic) = (cycles(&row["arithmetic_cycles"]), cycles(&row["traffic_cycles"]));
            let (kernel, encoding) = (string(&row["kernel"]), string(&row["encoding"]));
            vec![kernel, encoding, row["bytes"].to_string(), arithmetic, traffic, chosen.into()]
        };
        let header = vec!["kernel", "encoding", "bytes", "arithmetic", "traffic", ""];
        let rows = shape["candidates"].as_array().into_iter().flatten().map(line).collect();
        out += &Table { header, rows }.aligned();
    }
    out
}
