//! What this machine itself runs: rates, limits, and time by op.

use std::path::Path;

use serde_json::{Value, json};
use tcc_ir::plan::{Plan, StepList};

use super::{Measure, cell, percent, section};
use crate::error::Error;
use crate::run::first;
use crate::run::host::{HostError, HostModel};
use crate::run::limits::{Gauge, Limits};
use crate::run::ops::{self, GroupSum, Point};
use crate::run::rates::{PhaseTimes, Times};

/// Members of a row: processor time that went to others.
const STOLEN: [&str; 2] = ["decode_stolen_share", "prefill_stolen_share"];

/// Less of it than this changes nothing.
const WORTH_SAYING: f64 = 0.01;

/// One number of threads.
struct Row {
    threads: u32,
    limits: Limits,
    /// Without op hooks, and with them.
    whole: Times,
    by_op: Times,
}

/// Measures every number of `threads` and the first token, adds the rows to `value`, and returns them as text; files go
/// to `folder`.
pub(super) fn measure(measure: &Measure, threads: &[u32], folder: &Path, value: &mut Value) -> Result<String, Error> {
    let loaded = |result: Result<HostModel, HostError>| {
        result.map_err(|error| match error {
            HostError::OtherMachine => {
                Error::usage("this machine cannot run the code", "leave out --cpu and --features")
            }
            HostError::Failed(error) => *error,
        })
    };
    let back = measure.back;
    let host = loaded(HostModel::load(back, measure.weights))?.with_variant(measure.variant);
    let marked = loaded(HostModel::load_image(back, &back.image_with_op_hooks()?, measure.weights))?;
    let marked = marked.with_variant(measure.variant);
    let object = folder.join("model.o");
    back.write_object(&object, None)?;
    let first_token = first::measure(measure.variant, &object, measure.weights, threads[0], measure.work.runs)?;
    let mut rows = Vec::new();
    for &threads in threads {
        let (gauge, limits) = Gauge::new(&back.target, measure.variant.plan.needs, threads as usize)?;
        let whole = measure.work.times(&host, threads, Some(&gauge))?;
        let by_op = measure.work.op_times(&marked, threads, Some(&gauge))?;
        rows.push(Row { threads, limits, whole, by_op });
    }
    let first = &rows[0].whole;
    value["bytes_per_token"] = measure.work.bytes_per_token(&measure.variant.plan, first.rows).into();
    value["stored_bytes_per_token"] = measure.work.stored_bytes_per_token(&measure.variant.plan, first.rows).into();
    value["rows"] = rows.iter().map(|row| row.json(measure, first)).collect();
    value["first_token"] = json!({
        "threads": threads[0], "load_milliseconds": 1e3 * first_token.load,
        "first_token_milliseconds": 1e3 * first_token.first, "later_token_milliseconds": 1e3 * first_token.later,
        "beyond_later_milliseconds": 1e3 * first_token.beyond_later(), "page_faults": first_token.page_faults,
    });
    Ok(first_text(&value["first_token"]) + &text(&value["rows"]))
}

/// The line on loading and the first token.
fn first_text(value: &Value) -> String {
    let milliseconds = |key: &str| cell(value[format!("{key}_milliseconds")].as_f64(), 2);
    let faults = value["page_faults"].as_u64().map_or_else(String::new, |n| format!(", with {n} page faults"));
    format!(
        "loaded in {} ms; first token after {} ms{faults}; the same later takes {} ms\n",
        milliseconds("load"),
        milliseconds("first_token"),
        milliseconds("later_token"),
    )
}

impl Row {
    fn json(&self, measure: &Measure, first: &Times) -> Value {
        let (plan, Times { prefill, decode, rows }) = (&measure.variant.plan, &self.whole);
        let bytes = measure.work.bytes_per_token(plan, *rows) as f64;
        let prefill_macs =
            plan.bodies.last().map_or(0, |body| body.steps.iter().map(|s| ops::int8_macs(plan, s)).sum());
        let products = prefill.tokens_per_second() * prefill_macs as f64;
        let moved = decode.tokens_per_second() * bytes;
        let giga = |limit: Option<f64>| limit.map(|limit| limit / 1e9);
        let (best, by_op) = (self.limits, &self.by_op);
        json!({
            "threads": self.threads,
            "decode_tokens_per_second": decode.tokens_per_second(),
            "prefill_tokens_per_second": prefill.tokens_per_second(),
            "decode_speedup": first.decode.total / decode.total,
            "prefill_speedup": first.prefill.total / prefill.total,
            "read_bandwidth_gb_per_second": best.usual / 1e9,
            "read_bandwidth_huge_pages_gb_per_second": best.huge / 1e9,
            "read_bandwidth_beside_gb_per_second": giga(decode.limit),
            "read_bandwidth_beside_ops_gb_per_second": giga(by_op.decode.limit),
            "decode_gb_per_second": moved / 1e9,
            "share_of_bandwidth": decode.limit.map(|limit| moved / limit),
            "int8_peak_kernel": best.int8.map(|(_, kernel)| kernel),
            "int8_peak_gmac_per_second": giga(best.int8.map(|(rate, _)| rate)),
            "int8_peak_beside_gmac_per_second": giga(prefill.limit),
            "int8_peak_beside_ops_gmac_per_second": giga(by_op.prefill.limit),
            "prefill_gmac_per_second": products / 1e9,
            "share_of_int8_peak": prefill.limit.map(|limit| products / limit),
            STOLEN[0]: decode.stolen,
            STOLEN[1]: prefill.stolen,
            "head_rows_low_per_token": rows.low,
            "head_rows_exact_per_token": rows.exact,
            "decode_ops": self.decode_ops(plan, measure.work.decode_point(*rows)),
            "prefill_ops": self.prefill_ops(plan, measure.work.prefill_point()),
        })
    }

    fn decode_ops(&self, plan: &Plan, point: Point) -> Vec<Value> {
        let times = &self.by_op.decode;
        let groups = ops::sums(plan, &ops::decode_lists(plan), point, &ops::decode_values(plan, &times.ops));
        by_group(&groups, times, |group| {
            let rate = group.bytes as f64 / group.value;
            json!({ "bytes_per_token": group.bytes, "gb_per_second": rate / 1e9,
                    "share_of_bandwidth": times.limit.map(|limit| rate / limit) })
        })
    }

    fn prefill_ops(&self, plan: &Plan, point: Point) -> Vec<Value> {
        let times = &self.by_op.prefill;
        let lists: Vec<&StepList> = plan.bodies.last().into_iter().collect();
        let seconds: Vec<_> = lists.iter().flat_map(|body| ops::body_values(plan, body, &times.ops)).collect();
        let groups = ops::sums(plan, &lists, point, &seconds);
        by_group(&groups, times, |group| {
            let rate = (group.int8_macs > 0).then_some(group.int8_macs as f64 / group.value);
            let share = rate.zip(times.limit).map(|(rate, limit)| rate / limit);
            json!({ "int8_macs_per_token": group.int8_macs, "gmac_per_second": rate.map(|rate| rate / 1e9),
                    "share_of_int8_peak": share })
        })
    }
}

/// One object for each group with its time, and one for what happens between ops; `more` adds members to the former.
fn by_group(groups: &[GroupSum<f64>], times: &PhaseTimes, more: impl Fn(&GroupSum<f64>) -> Value) -> Vec<Value> {
    let object = |name: &str, ops: usize, seconds: f64| {
        json!({ "op": name, "ops": ops, "milliseconds_per_token": 1e3 * seconds,
                "share_of_time": seconds / times.total })
    };
    let mut rows: Vec<Value> = groups
        .iter()
        .map(|group| {
            let mut row = object(group.group.name(), group.ops, group.value);
            for (key, value) in more(group).as_object().into_iter().flatten() {
                row[key] = value.clone();
            }
            row
        })
        .collect();
    let inside: f64 = groups.iter().map(|group| group.value).sum();
    rows.push(object("between ops", 0, times.total - inside));
    rows
}

fn text(rows: &Value) -> String {
    let rows: Vec<&Value> = rows.as_array().into_iter().flatten().collect();
    let number = |row: &Value, key: &str, digits| cell(row[key].as_f64(), digits);
    let share = |row: &Value, key: &str| percent(row[key].as_f64());
    let limits = rows.iter().map(|row| {
        let mut cells = vec![row["threads"].to_string()];
        cells.push(number(row, "read_bandwidth_gb_per_second", 1));
        cells.push(number(row, "read_bandwidth_huge_pages_gb_per_second", 1));
        cells.push(number(row, "read_bandwidth_beside_gb_per_second", 1));
        cells.push(number(row, "int8_peak_gmac_per_second", 0));
        cells.push(number(row, "int8_peak_beside_gmac_per_second", 0));
        cells.push(row["int8_peak_kernel"].as_str().unwrap_or("–").to_owned());
        cells
    });
    let header =
        ["threads", "read GB/s", "huge pages", "beside decode", "int8 GMAC/s", "beside prefill", "with kernel"];
    let title = "limits of this machine: the best, and means beside the work";
    let mut out = section(title, &header, limits.collect());
    let rates = rows.iter().map(|row| {
        let mut cells = vec![row["threads"].to_string()];
        cells.push(number(row, "decode_tokens_per_second", 1));
        cells.push(number(row, "decode_speedup", 2));
        cells.push(number(row, "decode_gb_per_second", 1));
        cells.push(share(row, "share_of_bandwidth"));
        cells.push(number(row, "prefill_tokens_per_second", 1));
        cells.push(number(row, "prefill_speedup", 2));
        cells.push(number(row, "prefill_gmac_per_second", 0));
        cells.push(share(row, "share_of_int8_peak"));
        cells
    });
    let header =
        ["threads", "decode tok/s", "x", "GB/s", "of bandwidth", "prefill tok/s", "x", "GMAC/s", "of int8 peak"];
    out += &section("rates", &header, rates.collect());
    for row in rows.iter().filter(|row| STOLEN.iter().any(|key| row[key].as_f64() >= Some(WORTH_SAYING))) {
        let [decode, prefill] = STOLEN.map(|key| share(row, key));
        out += &format!(
            "threads {}: this machine's host gave {decode} of the processor time of decode to others, {prefill} of prefill\n",
            row["threads"],
        );
    }
    // Rows do not depend on the number of threads.
    if let Some(row) = rows.first().filter(|row| row["head_rows_exact_per_token"].as_f64() > Some(0.0)) {
        let [low, exact] = ["low", "exact"].map(|level| number(row, &format!("head_rows_{level}_per_token"), 1));
        out += &format!("head rows read for a token: all high bits, low bits of {low}, weights of {exact}\n");
    }
    for row in rows {
        let threads = &row["threads"];
        let ops = |key: &str, columns: [&str; 3]| {
            let cells = |op: &Value| {
                let mut cells = vec![op["op"].as_str().unwrap_or("").to_owned(), op["ops"].to_string()];
                cells.push(number(op, "milliseconds_per_token", 3));
                cells.push(share(op, "share_of_time"));
                cells.push(cell(op[columns[0]].as_f64().map(|count| count / 1e6), 2));
                cells.push(number(op, columns[1], 1));
                cells.push(share(op, columns[2]));
                cells
            };
            row[key].as_array().into_iter().flatten().map(cells).collect()
        };
        let header = ["decode", "ops", "ms per token", "of time", "MB", "GB/s", "of bandwidth"];
        let columns = ["bytes_per_token", "gb_per_second", "share_of_bandwidth"];
        out += &section(&format!("by op, threads: {threads}"), &header, ops("decode_ops", columns));
        let header = ["prefill", "ops", "ms per token", "of time", "M int8 MAC", "GMAC/s", "of int8 peak"];
        let columns = ["int8_macs_per_token", "gmac_per_second", "share_of_int8_peak"];
        out += &section(&format!("by op, threads: {threads}"), &header, ops("prefill_ops", columns));
    }
    out
}
