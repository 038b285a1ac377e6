//! What another machine would execute: instructions by op, counted under the emulator.

use std::path::Path;

use serde_json::{Value, json};
use tcc_ir::plan::StepList;

use super::{Measure, cell, section};
use crate::error::Error;
use crate::run::count::{Count, count};
use crate::run::emulate;
use crate::run::ops::{self, GroupSum, HeadRows};

/// Counts one run, adds the ops to `value`, and returns them as text.
pub(super) fn measure(measure: &Measure, folder: &Path, value: &mut Value) -> Result<String, Error> {
    let (back, variant, work) = (measure.back, measure.variant, &measure.work);
    let counts = count(back, variant, measure.weights, folder, work)?;
    let plan = &variant.plan;
    let decode = ops::decode_lists(plan);
    let prefill: Vec<&StepList> = plan.bodies.last().into_iter().collect();
    let sums = ops::sums(plan, &decode, work.decode_point(HeadRows::default()), &counts.decode);
    let decode_op = |sum: &GroupSum<Count>| {
        let mut row = group(sum);
        row["bytes_per_token"] = sum.bytes.into();
        row
    };
    let mut decode: Vec<Value> = sums.iter().map(decode_op).collect();
    decode.push(object("sampling", 0, counts.sampling));
    let prefill: Vec<Value> =
        ops::sums(plan, &prefill, work.prefill_point(), &counts.prefill).iter().map(group).collect();
    value["engine"] = emulate::program(&back.target).into();
    value["counted"] = "executed guest instructions per token; not a speed".into();
    value["decode_instructions_per_token"] = counts.decode_total().instructions.into();
    value["decode_weighted_instructions_per_token"] = counts.decode_total().weighted.into();
    value["prefill_instructions_per_token"] = counts.prefill_total().instructions.into();
    value["prefill_weighted_instructions_per_token"] = counts.prefill_total().weighted.into();
    value["decode_ops"] = decode.into();
    value["prefill_ops"] = prefill.into();
    Ok(text(value))
}

fn object(name: &str, ops: usize, count: Count) -> Value {
    json!({
        "op": name, "ops": ops, "instructions_per_token": count.instructions,
        "weighted_instructions_per_token": count.weighted,
    })
}

fn group(sum: &GroupSum<Count>) -> Value {
    let mut row = object(sum.group.name(), sum.ops, sum.value);
    row["int8_macs_per_token"] = sum.int8_macs.into();
    let per_256 = |count: f64| (sum.int8_macs > 0).then_some(256.0 * count / sum.int8_macs as f64);
    row["instructions_per_256_macs"] = per_256(sum.value.instructions).into();
    row["weighted_instructions_per_256_macs"] = per_256(sum.value.weighted).into();
    row
}

fn text(value: &Value) -> String {
    let engine = value["engine"].as_str().unwrap_or("");
    let mut out = format!("executed guest instructions, counted under {engine}: no measure of speed\n");
    for (kind, title) in [("decode", "decode, per token"), ("prefill", "prefill, per token")] {
        let [plain, weighted] =
            ["", "weighted_"].map(|which| value[format!("{kind}_{which}instructions_per_token")].as_f64());
        // Without register groups the weighted columns repeat the others.
        let has_groups = plain != weighted;
        let mut header = vec!["op", "ops", "M int8 MAC", "M instructions", "per 256 MAC"];
        header.extend(["M weighted", "per 256 MAC"].iter().filter(|_| has_groups));
        let ops = value[format!("{kind}_ops")].as_array().into_iter().flatten();
        let mut rows: Vec<Vec<String>> = ops.map(|op| cells(op, has_groups)).collect();
        let mut total = vec!["total".to_owned(), String::new(), String::new(), mega(plain), String::new()];
        total.extend([mega(weighted), String::new()].into_iter().filter(|_| has_groups));
        rows.push(total);
        out += &section(title, &header, rows);
    }
    out
}

fn cells(op: &Value, has_groups: bool) -> Vec<String> {
    let mut cells = vec![op["op"].as_str().unwrap_or("").to_owned(), op["ops"].to_string()];
    cells.push(mega(op["int8_macs_per_token"].as_f64()));
    cells.push(mega(op["instructions_per_token"].as_f64()));
    cells.push(cell(op["instructions_per_256_macs"].as_f64(), 1));
    if has_groups {
        cells.push(mega(op["weighted_instructions_per_token"].as_f64()));
        cells.push(cell(op["weighted_instructions_per_256_macs"].as_f64(), 1));
    }
    cells
}

fn mega(count: Option<f64>) -> String {
    cell(count.map(|count| count / 1e6), 3)
}
