//! Rows of `tcc compare`: what one target needs and answers, and what makes a comparison fail.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::error::Error;

/// The numbers of a row that are the same on every machine: name in JSON, and as people say it.
pub const NUMBERS: [(&str, &str); 6] = [
    ("code_bytes", "code"),
    ("weights_bytes", "weights"),
    ("arena_bytes", "RAM"),
    ("stack_entry_bytes", "stack of an entry"),
    ("stack_task_bytes", "stack of a task"),
    ("bytes_per_token", "traffic per token"),
];

/// Member of a row's JSON: executed instructions of one decoded token, the same on every machine that emulates it.
const INSTRUCTIONS: &str = "decode_instructions_per_token";

/// Member beside it: the same, a RISC-V vector instruction counted once per register of its widest group.
const WEIGHTED: &str = "decode_weighted_instructions_per_token";

/// Member of a matrix unit's row: simulated cycles of one decoded token, head included.
const CYCLES: &str = "simulated_cycles_per_token";

/// One target at one feature level, or one matrix unit.
#[derive(Clone, Debug)]
pub struct Row {
    /// As it was asked for; rows are matched by it.
    pub target: String,
    pub triple: String,
    pub cpu_features: String,
    /// Bytes, in the order of [`NUMBERS`]; a matrix unit has no stack.
    pub numbers: [Option<u64>; NUMBERS.len()],
    pub outcome: Outcome,
}

/// Executed instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instructions {
    pub plain: u64,
    /// Vector instructions of targets with register groups count once per register of their widest group.
    pub weighted: u64,
}

/// Simulated time of one decoded token on a matrix unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Simulated {
    /// Cycles.
    pub cycles: u64,
    /// Where clock and memory rate are published or given.
    pub tokens_per_second: Option<f64>,
}

/// What running the code gave.
#[derive(Clone, Debug)]
pub enum Outcome {
    Ran {
        /// Who ran it: this machine, an emulator, or a simulator.
        engine: String,
        /// Hash of the logits, hexadecimal.
        sha256: String,
        /// Decoded tokens per second on one thread; emulated code has no speed.
        decode: Option<f64>,
        /// Executed instructions of one decoded token, where code is emulated and can be counted.
        instructions: Option<Instructions>,
        /// Time of a simulated matrix unit.
        simulated: Option<Simulated>,
    },
    /// This machine cannot run it.
    Skipped { reason: String },
}

impl Row {
    pub fn sha256(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Ran { sha256, .. } => Some(sha256),
            Outcome::Skipped { .. } => None,
        }
    }

    fn instructions(&self) -> Option<Instructions> {
        match &self.outcome {
            Outcome::Ran { instructions, .. } => *instructions,
            Outcome::Skipped { .. } => None,
        }
    }

    /// Simulated cycles of a decoded token.
    pub fn cycles(&self) -> Option<u64> {
        match &self.outcome {
            Outcome::Ran { simulated, .. } => simulated.map(|simulated| simulated.cycles),
            Outcome::Skipped { .. } => None,
        }
    }

    pub fn json(&self) -> Value {
        let mut row = json!({ "target": self.target, "triple": self.triple, "cpu_features": self.cpu_features });
        for ((name, _), bytes) in NUMBERS.iter().zip(self.numbers) {
            row[*name] = bytes.into();
        }
        row["logits_sha256"] = self.sha256().into();
        match &self.outcome {
            Outcome::Ran { engine, decode, instructions, simulated, .. } => {
                row["engine"] = engine.as_str().into();
                if let Some(decode) = decode {
                    row["decode_tokens_per_second"] = (*decode).into();
                }
                if let Some(instructions) = instructions {
                    row[INSTRUCTIONS] = instructions.plain.into();
                    row[WEIGHTED] = instructions.weighted.into();
                }
                if let Some(Simulated { cycles, tokens_per_second }) = simulated {
                    row[CYCLES] = (*cycles).into();
                    row["simulated_tokens_per_second"] = (*tokens_per_second).into();
                }
            }
            Outcome::Skipped { reason } => row["skipped"] = reason.as_str().into(),
        }
        row
    }
}

/// Rows whose logits differ from those of the first row that ran.
pub fn different_hashes(rows: &[Row]) -> Vec<String> {
    let mut hashes = rows.iter().filter_map(|row| Some((&row.target, row.sha256()?)));
    let Some((first, expected)) = hashes.next() else { return Vec::new() };
    hashes
        .filter(|(_, found)| *found != expected)
        .map(|(target, found)| format!("{target}: logits hash is {found}, that of {first} is {expected}"))
        .collect()
}

/// Rows that did not run.
pub fn skipped(rows: &[Row]) -> Vec<String> {
    let skipped = rows.iter().filter_map(|row| match &row.outcome {
        Outcome::Ran { .. } => None,
        Outcome::Skipped { reason } => Some(format!("{}: skipped: {reason}", row.target)),
    });
    skipped.collect()
}

/// An earlier comparison.
#[derive(Debug)]
pub struct Baseline {
    rows: BTreeMap<String, Past>,
}

/// What the baseline says of a target.
#[derive(Debug)]
struct Past {
    numbers: [Option<u64>; NUMBERS.len()],
    sha256: Option<String>,
    instructions: Option<u64>,
    weighted: Option<u64>,
    cycles: Option<u64>,
}

impl Baseline {
    /// Reads the JSON of an earlier comparison, which must have been made with the same `options`.
    pub fn read(path: &Path, options: &Value) -> Result<Baseline, Error> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        let rows = value["rows"].as_array().and_then(|rows| rows.iter().map(Past::parse).collect());
        let Some(rows) = rows else {
            let message = format!("'{}' is not the output of a comparison", path.display());
            return Err(Error::usage(message, "write it with `tcc compare --json`"));
        };
        for (name, now) in options.as_object().into_iter().flatten() {
            let then = &value["options"][name];
            if then != now {
                let message = format!("the baseline '{}' has {name} = {then}, this run {now}", path.display());
                return Err(Error::usage(message, "give the options that the baseline was made with"));
            }
        }
        Ok(Baseline { rows })
    }

    /// Numbers of `rows` that are more than `tolerance` percent larger than here, and hashes that are others.
    pub fn exceeded(&self, rows: &[Row], tolerance: f64) -> Vec<String> {
        rows.iter()
            .filter_map(|row| Some((row, self.rows.get(&row.target)?)))
            .flat_map(|(row, past)| past.findings(row, tolerance))
            .collect()
    }

    /// Targets that are not here.
    pub fn absent<'a>(&self, targets: impl Iterator<Item = &'a str>) -> Vec<String> {
        targets.filter(|t| !self.rows.contains_key(*t)).map(|t| format!("{t}: not in the baseline")).collect()
    }
}

impl Past {
    fn parse(row: &Value) -> Option<(String, Past)> {
        let mut numbers = [None; NUMBERS.len()];
        for (number, (name, _)) in numbers.iter_mut().zip(NUMBERS) {
            let value = row.get(name)?;
            *number = value.as_u64();
            if number.is_none() && !value.is_null() {
                return None;
            }
        }
        let sha256 = row["logits_sha256"].as_str().map(str::to_owned);
        let [instructions, weighted, cycles] = [INSTRUCTIONS, WEIGHTED, CYCLES].map(|name| row[name].as_u64());
        Some((row["target"].as_str()?.to_owned(), Past { numbers, sha256, instructions, weighted, cycles }))
    }

    fn findings(&self, row: &Row, tolerance: f64) -> Vec<String> {
        let mut findings = Vec::new();
        for ((found, past), (_, name)) in row.numbers.into_iter().zip(self.numbers).zip(NUMBERS) {
            let Some((found, past)) = found.zip(past) else { continue };
            let allowed = allowed(past, tolerance);
            if found > allowed {
                findings
                    .push(format!("{}: {name} is {found} bytes, allowed are {allowed} (baseline {past})", row.target));
            }
        }
        let now = row.instructions();
        let grouped = now.filter(|now| now.weighted != now.plain);
        for (found, past, what) in [
            (now.map(|now| now.plain), self.instructions, ["executes", "instructions"]),
            // Without register groups the two are one number.
            (grouped.map(|now| now.weighted), self.weighted, ["executes", "instructions, weighted by register groups"]),
            (row.cycles(), self.cycles, ["takes", "simulated cycles"]),
        ] {
            let Some((found, past)) = found.zip(past) else { continue };
            let allowed = allowed(past, tolerance);
            if found > allowed {
                let [does, of] = what;
                let what = format!("a decoded token {does} {found} {of}");
                findings.push(format!("{}: {what}, allowed are {allowed} (baseline {past})", row.target));
            }
        }
        if let (Some(found), Some(past)) = (row.sha256(), &self.sha256)
            && found != past
        {
            findings.push(format!("{}: logits hash is {found}, that of the baseline is {past}", row.target));
        }
        findings
    }
}

/// `past` and `tolerance` percent of it, rounded down.
fn allowed(past: u64, tolerance: f64) -> u64 {
    // Sizes are far below 2^53, and the tolerance is not negative: both casts keep the integer part.
    past + (past as f64 * tolerance / 100.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(target: &str, code: u64, sha256: &str) -> Row {
        let outcome = Outcome::Ran {
            engine: "this machine".into(),
            sha256: sha256.into(),
            decode: None,
            instructions: Some(Instructions { plain: code, weighted: 2 * code }),
            simulated: Some(Simulated { cycles: 3 * code, tokens_per_second: None }),
        };
        let numbers = [Some(code), Some(2), Some(3), None, Some(5), Some(6)];
        Row { target: target.into(), triple: "t".into(), cpu_features: String::new(), numbers, outcome }
    }

    #[test]
    fn tolerance_is_a_percentage_rounded_down() {
        assert_eq!([allowed(1000, 0.0), allowed(1000, 2.5), allowed(39, 2.5), allowed(40, 2.5)], [1000, 1025, 39, 41]);
    }

    #[test]
    fn hashes_differ_from_the_first_that_ran() {
        let mut rows = vec![row("a", 1, "x"), row("b", 1, "y"), row("c", 1, "y")];
        assert_eq!(different_hashes(&rows).len(), 2);
        rows[0].outcome = Outcome::Skipped { reason: "no emulator".into() };
        assert_eq!(different_hashes(&rows), Vec::<String>::new());
        assert_eq!(skipped(&rows), ["a: skipped: no emulator"]);
    }

    #[test]
    fn a_baseline_is_exceeded_by_size_and_by_hash() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("baseline.json");
        let options = json!({ "ctx": 64 });
        let text = json!({ "options": options, "rows": [row("a", 1000, "x").json()] }).to_string();
        std::fs::write(&path, text).expect("a file");
        let baseline = Baseline::read(&path, &options).expect("what was written");
        let rows = [row("a", 1021, "z"), row("b", 9999, "z")];
        let findings = baseline.exceeded(&rows, 2.0);
        assert_eq!(findings[0], "a: code is 1021 bytes, allowed are 1020 (baseline 1000)");
        assert_eq!(findings[1], "a: a decoded token executes 1021 instructions, allowed are 1020 (baseline 1000)");
        let weighted = "2042 instructions, weighted by register groups, allowed are 2040 (baseline 2000)";
        assert_eq!(findings[2], format!("a: a decoded token executes {weighted}"));
        assert_eq!(findings[3], "a: a decoded token takes 3063 simulated cycles, allowed are 3060 (baseline 3000)");
        assert_eq!(findings[4], "a: logits hash is z, that of the baseline is x");
        assert_eq!(findings.len(), 5);
        assert_eq!(baseline.exceeded(&rows, 2.1).len(), 1);
        assert_eq!(baseline.absent(["a", "b"].into_iter()), ["b: not in the baseline"]);
        let other = Baseline::read(&path, &json!({ "ctx": 128 })).expect_err("another context");
        assert!(other.to_string().contains("ctx = 64"), "{other}");
    }
}
