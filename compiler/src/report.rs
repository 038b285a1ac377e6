//! What a build is, in numbers: JSON for machines, a few lines for people.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tcc_ir::coded::RowCode;
use tcc_ir::kernel::{KernelSpec, TernaryProducts};
use tcc_ir::plan::{Plan, WeightLayout};
use tcc_ir::schedule::MatmulSchedule;

use crate::driver::{Back, VERSION, Variant};
use crate::golden;
use crate::model::Model;
use crate::plan::layout::Sharing;

/// Version of the report's layout.
const SCHEMA: u32 = 1;

/// The report of one build.
pub fn report(back: &Back, model: &Model, golden_hash: Option<[u8; 32]>) -> Value {
    let plan = back.plan();
    let desc = back.target.machine.desc;
    json!({
        "schema": SCHEMA,
        "tcc": VERSION,
        "model": { "name": back.name, "architecture": model.config.architecture, "layers": plan.facts.layers,
                   "hidden": plan.facts.hidden, "vocab": plan.facts.vocab, "ctx": plan.facts.ctx,
                   "kv": plan.facts.kv.to_string(), "lossy_head": plan.lossy_head().map(RowCode::name) },
        "target": back.target.triple,
        "cpu_features": desc.feature_names(back.needs()),
        "variants": back.variants.iter().map(|v| variant(back, v)).collect::<Vec<_>>(),
        "vlen": plan.vlen,
        "sizes": { "code_bytes": back.image.text.len(), "weights_bytes": plan.weights_bytes },
        "ram": ram(plan),
        "stack": { "entry_bytes": back.image.stack_bytes, "task_bytes": back.image.task_stack_bytes },
        "encodings": encodings(plan),
        "kernels": schedules(plan),
        "graphs": plan.lists().map(|list| json!({
            "name": list.name, "m": list.m,
            "ops": list.steps.iter().map(|step| json!({
                "name": step.label, "kernel": plan.kernel(step.kernel).family(), "bytes": step.bytes,
            })).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "golden_sha256": golden_hash.map(|hash| golden::hex(&hash)),
        "bit_exact": true,
        "warnings": model.warnings,
    })
}

/// One variant: its name, the code it adds to those before it, and its kernels.
fn variant(back: &Back, variant: &Variant) -> Value {
    json!({
        "name": variant.name,
        "cpu_features": variant.features(&back.target),
        "code_bytes": back.own_code_bytes(variant),
        "decode_cycles_of_shared_weights": variant.sharing.decode_cycles_ratio,
        "bytes_of_weights_of_its_own": variant.sharing.bytes,
        "kernels": schedules(&variant.plan),
    })
}

/// The arena by part.
pub fn ram(plan: &Plan) -> Value {
    let arena = &plan.arena;
    json!({
        "arena_bytes": arena.total_bytes(),
        "kv_bytes": arena.kv_bytes,
        "activations_bytes": arena.act_bytes,
        "logits_bytes": arena.logits_bytes,
        "scratch_bytes": arena.scratch_bytes(),
        "state_bytes": arena.state_bytes,
        "max_threads": arena.max_threads,
    })
}

/// Bytes of the weights by layout.
fn encodings(plan: &Plan) -> Value {
    let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
    for slot in &plan.weights {
        let name = match slot.layout {
            WeightLayout::Plain => "plain".to_owned(),
            WeightLayout::Packed(encoding) => encoding.to_string(),
            WeightLayout::Coded(table) => table.code.name().to_owned(),
            WeightLayout::Screen(_) => "screen".to_owned(),
        };
        *bytes.entry(name).or_default() += slot.bytes;
    }
    json!(bytes)
}

fn schedules(plan: &Plan) -> Vec<Value> {
    plan.kernels.iter().flat_map(schedules_of).collect()
}

fn schedules_of(kernel: &KernelSpec) -> Vec<Value> {
    let (KernelSpec::TernaryMatmul { m, .. } | KernelSpec::TernaryGlu { m, .. }) = kernel else { return vec![] };
    let Some(TernaryProducts { n, k, schedules }) = kernel.ternary_products() else { return vec![] };
    let line = |schedule: &MatmulSchedule| json!({ "m": m, "n": n, "k": k, "schedule": schedule.to_string() });
    schedules.into_iter().map(line).collect()
}

/// Says that a build's head is lossy.
pub fn lossy_head_line(code: RowCode) -> String {
    format!("   lossy head: {}; logits and tokens are not those of the model's own\n", code.name())
}

/// Sizes as people read them.
pub fn human(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// What a variant adds to the object, and what it pays for weights that all share.
fn variant_line(back: &Back, variant: &Variant) -> String {
    let mut line = format!("{}: {} of code", variant.name, human(back.own_code_bytes(variant)));
    let Sharing { decode_cycles_ratio, bytes } = variant.sharing;
    if bytes > 0 {
        let percent = 100.0 * (decode_cycles_ratio - 1.0);
        line += &format!(
            "; shared weights cost its ternary products an estimated {percent:.0} %, a copy of its own would be {}",
            human(bytes)
        );
    }
    line + "\n"
}

/// The lines `tcc compile` says at the end.
pub fn summary(back: &Back, folder: &Path) -> String {
    let (plan, image) = (back.plan(), &back.image);
    let arena = &plan.arena;
    let work = arena.total_bytes() - arena.kv_bytes;
    let head = plan.lossy_head().map_or_else(String::new, lossy_head_line);
    let variants: String = match &back.variants[..] {
        [_] => String::new(),
        several => several.iter().map(|v| format!(" variant {}", variant_line(back, v))).collect(),
    };
    format!(
        "   {}  {} for {} ({})\n weights {}   code {}   RAM {} (KV {}, work {})   stack {} + {} per task\n{head}{variants}",
        folder.join(&back.name).display(),
        back.name,
        back.target.triple,
        back.target.machine.desc.feature_names(back.needs()),
        human(plan.weights_bytes),
        human(image.text.len() as u64),
        human(arena.total_bytes()),
        human(arena.kv_bytes),
        human(work),
        human(image.stack_bytes),
        human(image.task_stack_bytes),
    )
}
