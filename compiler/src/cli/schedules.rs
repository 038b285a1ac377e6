//! `tcc inspect --schedules`: for each shape of ternary weights, every way to pack it, what that costs, and the choice.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tcc_ir::encoding::Encoding;

use super::table::Table;
use crate::driver::Front;
use crate::error::Error;
use crate::plan::PlanError;
use crate::plan::layout::ternary_weights;
use crate::schedule::density::{self, Densities};
use crate::schedule::{self, Candidate, ChooseError, Machine, Shape};
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

/// The weights of one shape.
struct Weights<'a> {
    names: BTreeSet<&'a str>,
    /// The shape of each, with its zeros where they were counted.
    each: Vec<Shape>,
}

/// Weights with int8 activations by shape, zeros left out.
fn by_shape<'a>(front: &'a Front, densities: &Densities) -> BTreeMap<Shape, Weights<'a>> {
    let mut shapes = BTreeMap::new();
    for weight in ternary_weights(&front.program, densities).into_iter().filter(|weight| weight.is_int8) {
        let name = front.program.weight(weight.id).name.as_str();
        let none = || Weights { names: BTreeSet::new(), each: Vec::new() };
        let weights: &mut Weights = shapes.entry(Shape { density: None, ..weight.shape }).or_insert_with(none);
        // One weight has several readers.
        if weights.names.insert(name) {
            weights.each.push(weight.shape);
        }
    }
    shapes
}

/// The candidates on `machine`, one of `machines` that read the same weights.
fn describe_machine(front: &Front, target: &Target, machine: &Machine, machines: &[Machine]) -> Result<Value, Error> {
    let densities = match density::bitmap_rows(machine) {
        Some(nr) => density::of_all(&front.program, &front.store, nr)?,
        None => Densities::new(),
    };
    let shapes = by_shape(front, &densities).into_iter().map(|(shape, weights)| {
        let name = weights.names.first().copied().unwrap_or("");
        describe_shape(shape, &weights, machine, machines)
            .map_err(|source| Error::from(PlanError::Schedule { weight: name.into(), source }))
    });
    let shapes: Vec<Value> = shapes.collect::<Result<_, _>>()?;
    let features = machine.desc.feature_names(machine.features);
    Ok(json!({ "target": target.triple, "cpu_features": features, "shapes": shapes }))
}

/// What the weights of one shape may be packed as; sizes are those of all together, divided by their number.
fn describe_shape(
    shape: Shape,
    weights: &Weights,
    machine: &Machine,
    machines: &[Machine],
) -> Result<Value, ChooseError> {
    let zeros: Vec<f64> = weights.each.iter().filter_map(|shape| Some(shape.density?.zero_share())).collect();
    let count = weights.each.len();
    let lists = weights.each.iter().map(|shape| schedule::candidates(machine, *shape, None));
    let lists: Vec<Vec<Candidate>> = lists.collect::<Result<_, _>>()?;
    let mut chosen: BTreeMap<Encoding, usize> = BTreeMap::new();
    for shape in &weights.each {
        *chosen.entry(schedule::choose_encoding(machines, *shape, None)?.kind()).or_default() += 1;
    }
    let first = lists.first().map_or(&[][..], Vec::as_slice);
    let describe = |(i, c): (usize, &Candidate)| {
        let mean = |of: &dyn Fn(&Candidate) -> f64| lists.iter().map(|list| of(&list[i])).sum::<f64>() / count as f64;
        let kind = c.encoding.kind();
        let readers = first.iter().filter(|other| other.encoding.kind() == kind);
        let is_fastest = readers.max_by(|a, b| b.cost.cycles().total_cmp(&a.cost.cycles()));
        let is_fastest = is_fastest.is_some_and(|best| best.row.name == c.row.name);
        json!({
            "encoding": kind.to_string(), "kernel": c.row.name,
            "bytes": mean(&|c| c.encoding.matrix_bytes(shape.n, shape.k) as f64).round(),
            "arithmetic_cycles": mean(&|c| c.cost.arithmetic_cycles).round(),
            "traffic_cycles": mean(&|c| c.cost.traffic_cycles).round(),
            "chosen": if is_fastest { chosen.get(&kind).copied().unwrap_or(0) } else { 0 },
        })
    };
    Ok(json!({
        "n": shape.n, "k": shape.k, "group": shape.group, "weights": count,
        "zeros": (!zeros.is_empty()).then(|| json!({
            "least": zeros.iter().copied().fold(1.0, f64::min), "most": zeros.iter().copied().fold(0.0, f64::max),
            "mean": zeros.iter().sum::<f64>() / zeros.len() as f64,
        })),
        "candidates": first.iter().enumerate().map(describe).collect::<Vec<_>>(),
    }))
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
        let zeros = zeros_text(&shape["zeros"]);
        out += &format!("\n{} weights of [{}, {}]{group}{zeros}\n", shape["weights"], shape["n"], shape["k"]);
        let cycles = |v: &Value| format!("{:.0}", v.as_f64().unwrap_or(0.0));
        let line = |row: &Value| {
            let chosen = match row["chosen"].as_u64() {
                None | Some(0) => String::new(),
                all if all == shape["weights"].as_u64() => "chosen".into(),
                Some(some) => format!("chosen for {some}"),
            };
            let (arithmetic, traffic) = (cycles(&row["arithmetic_cycles"]), cycles(&row["traffic_cycles"]));
            let (kernel, encoding) = (string(&row["kernel"]), string(&row["encoding"]));
            vec![kernel, encoding, cycles(&row["bytes"]), arithmetic, traffic, chosen]
        };
        let header = vec!["kernel", "encoding", "bytes", "arithmetic", "traffic", ""];
        let rows = shape["candidates"].as_array().into_iter().flatten().map(line).collect();
        out += &Table { header, rows }.aligned();
    }
    out
}

/// The shares of zeros of the weights of one shape, where they were counted.
fn zeros_text(zeros: &Value) -> String {
    let [least, mean, most] = ["least", "mean", "most"].map(|key| zeros[key].as_f64());
    match (least, mean, most) {
        (Some(least), Some(mean), Some(most)) => {
            format!(", zeros {:.1} % ({:.1} to {:.1})", 100.0 * mean, 100.0 * least, 100.0 * most)
        }
        _ => String::new(),
    }
}
