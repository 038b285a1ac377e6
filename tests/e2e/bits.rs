//! One model and prompt, one hash: whatever the target, the CPU level, the threads, the chunks.

use std::path::PathBuf;

use super::harness::{self, Level, example, fixtures, full, hash, levels, parallel};

/// Seventeen tokens: one chunk of 32, three of 8 with a ragged one, seventeen of 1.
const IDS: &str = "1,7,300,42,5,6,7,8,9,10,11,12,13,14,15,16,17";

/// One evaluation that must give the expected hash.
struct Job {
    model: PathBuf,
    args: Vec<String>,
    expected: String,
}

fn check(jobs: Vec<Job>) {
    let count = jobs.len();
    let wrong: Vec<String> = parallel(jobs, |job| {
        let args: Vec<&str> = job.args.iter().map(String::as_str).collect();
        let found = hash(&job.model, IDS, &args);
        (found != job.expected)
            .then(|| format!("{} {}: {found}, expected {}", job.model.display(), job.args.join(" "), job.expected))
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(wrong.is_empty(), "{} of {count} hashes differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn args(level: &Level, more: &[&str]) -> Vec<String> {
    level.args.iter().chain(more).map(|a| (*a).to_owned()).collect()
}

/// The example model on every level, with every number of threads and chunk size, for every KV type. Its f32 caches
/// are the smallest for which decoding takes attention in steps.
#[test]
fn example_model_has_one_hash_per_cache_type() {
    let mut jobs = Vec::new();
    for kv in ["f16", "f32", "int8"] {
        let expected = hash(&example(), IDS, &["--engine", "interpreter", "--kv", kv]);
        let whole = ["1", "8", "32"];
        let threads = ["1", "3"];
        for level in levels() {
            for (i, (threads, prefill)) in threads.iter().flat_map(|t| whole.map(|p| (*t, p))).enumerate() {
                // The sample keeps a different pair for each level, so that all pairs occur.
                if !full() && i != level.name.len() % 6 {
                    continue;
                }
                let args = args(&level, &["--kv", kv, "--threads", threads, "--prefill", prefill]);
                jobs.push(Job { model: example(), args, expected: expected.clone() });
            }
        }
    }
    check(jobs);
}

/// Lossy heads on every level, each with a hash of its own; the sample keeps one of the two for each level.
#[test]
fn lossy_heads_have_one_hash_each() {
    let exact = hash(&example(), IDS, &["--engine", "interpreter"]);
    let mut jobs = Vec::new();
    for (i, head) in ["int8", "int4"].into_iter().enumerate() {
        let expected = hash(&example(), IDS, &["--engine", "interpreter", "--head", head]);
        assert_ne!(expected, exact, "{head} is lossy");
        for (_, level) in levels().iter().enumerate().filter(|(at, _)| full() || at % 2 == i) {
            let args = args(level, &["--head", head, "--threads", "3", "--prefill", "8"]);
            jobs.push(Job { model: example(), args, expected: expected.clone() });
        }
    }
    check(jobs);
}

/// Every layout of the fixtures on every level.
#[test]
fn every_layout_has_one_hash() {
    let mut jobs = Vec::new();
    for model in fixtures() {
        let dense = ["--dense", "keep"];
        let interpreter = ["--engine", "interpreter", "--dense", "keep"];
        let expected = hash(&model, IDS, &interpreter);
        let all = levels();
        for (i, level) in all.iter().enumerate() {
            if !full() && i % 3 != model.as_os_str().len() % 3 {
                continue;
            }
            let args = args(level, &[dense[0], dense[1], "--threads", "3", "--prefill", "8"]);
            jobs.push(Job { model: model.clone(), args, expected: expected.clone() });
        }
    }
    check(jobs);
}

/// Weight-only families with int8 activations: groups along k meet offset codes and group sums.
#[test]
fn int8_activations_on_request_have_one_hash() {
    let mut jobs = Vec::new();
    let weight_only = |model: &PathBuf| {
        let name = model.file_name().expect("a folder").to_string_lossy();
        (name.contains("fakequant") || name.contains("minicpm")) && !name.contains("dense")
    };
    for model in fixtures().into_iter().filter(weight_only) {
        let int8 = ["--activations", "int8"];
        let expected = hash(&model, IDS, &["--engine", "interpreter", int8[0], int8[1]]);
        for level in levels() {
            jobs.push(Job { model: model.clone(), args: args(&level, &int8), expected: expected.clone() });
        }
    }
    assert!(!jobs.is_empty(), "no weight-only fixture");
    check(jobs);
}

/// Kernels in a menu may be forced by their encoding; the bits stay.
#[test]
fn encodings_do_not_show() {
    let expected = hash(&example(), IDS, &["--engine", "interpreter"]);
    let targets = harness::json(&["targets"]);
    let mut jobs = Vec::new();
    for level in levels() {
        let target = targets["targets"].as_array().expect("a list").iter().find(|t| t["name"] == level.args[1]);
        let kernels = target.expect("a listed target")["kernels"].as_array().expect("a list").clone();
        let mut encodings: Vec<String> = kernels
            .iter()
            .filter(|k| k["m"] == 1)
            .map(|k| k["encoding"].as_str().expect("a name").to_owned())
            .collect();
        encodings.sort();
        encodings.dedup();
        for encoding in encodings {
            let args = args(&level, &["--encoding", &encoding]);
            let model = example();
            let mut check = vec!["check", model.to_str().expect("UTF-8")];
            check.extend(args.iter().map(String::as_str));
            // A level without a kernel for the encoding says so.
            if harness::tcc(&check).status.success() {
                jobs.push(Job { model, args, expected: expected.clone() });
            }
        }
    }
    check(jobs);
}

/// Simulated matrix units with their own layouts of weights; the sample keeps two machines.
#[test]
fn matrix_units_do_not_show() {
    let expected = hash(&example(), IDS, &["--engine", "interpreter"]);
    let machines = ["kirin9030", "lite-generic", "kirinx90", "ascend310b", "ascend310p"];
    let kept = if full() { machines.len() } else { 2 };
    let job = |machine: &&str| {
        let args = ["-t", "ascend", "--machine", machine, "--prefill", "8"].map(str::to_owned).to_vec();
        Job { model: example(), args, expected: expected.clone() }
    };
    check(machines[..kept].iter().map(job).collect());
}

#[test]
fn sme_gives_the_logits_or_none() {
    let model = example();
    let args = ["--json", "eval", model.to_str().expect("UTF-8"), "--ids", IDS, "-t", "aarch64", "--features", "+sme"];
    let output = harness::tcc(&args);
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        // The emulator is too old to multiply with SME and must not try.
        assert!(output.status.code() == Some(3) && words.contains("pauth-qarma5"), "{words}");
        eprintln!("skipped: aarch64 sme: {words}");
        return;
    }
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value["sha256"], hash(&model, IDS, &["--engine", "interpreter"]).as_str(), "{value:#}");
}
