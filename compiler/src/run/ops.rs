//! The ops of a plan in the groups that people think in, and what each op moves and multiplies.

use std::ops::AddAssign;

use tcc_ir::attention::AttentionStep;
use tcc_ir::cache::CacheLayout;
use tcc_ir::kernel::{KernelSpec, TernaryProducts};
use tcc_ir::plan::{Arg, Plan, Step, StepList};
use tcc_ir::screen::ScreenLayout;
use tcc_ir::screen::kernel::ScreenKernel;

/// Ops that are reported together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Qkv,
    AttentionOut,
    GateUp,
    Down,
    /// Rotary embedding, cache, attention itself.
    Attention,
    /// Norms, quantizers and what is fused with them.
    Rows,
    Head,
    Other,
}

impl Group {
    /// Every group, in the order they are reported.
    pub const ALL: [Group; 8] = [
        Group::Qkv,
        Group::AttentionOut,
        Group::GateUp,
        Group::Down,
        Group::Attention,
        Group::Rows,
        Group::Head,
        Group::Other,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Group::Qkv => "q, k, v",
            Group::AttentionOut => "attention out",
            Group::GateUp => "gate, up",
            Group::Down => "down",
            Group::Attention => "attention",
            Group::Rows => "norms, quantize",
            Group::Head => "head",
            Group::Other => "other",
        }
    }

    /// The group of `step`: products by their label, everything else by its kernel.
    pub fn of(plan: &Plan, list: &StepList, step: &Step) -> Group {
        let label = step.label.split_once('.').map_or(step.label.as_str(), |(_, label)| label);
        match plan.kernel(step.kernel) {
            KernelSpec::TernaryGlu { .. } => Group::GateUp,
            KernelSpec::TernaryMatmul { .. }
            | KernelSpec::FloatTernaryMatmul { .. }
            | KernelSpec::DenseMatmul { .. } => match label {
                _ if std::ptr::eq(list, &plan.head) => Group::Head,
                "q" | "k" | "v" => Group::Qkv,
                "attn_out" => Group::AttentionOut,
                "ffn_gate" | "ffn_up" => Group::GateUp,
                "ffn_down" => Group::Down,
                _ => Group::Other,
            },
            KernelSpec::Rope { .. }
            | KernelSpec::KvWrite { .. }
            | KernelSpec::Attention { .. }
            | KernelSpec::AttentionStep { .. } => Group::Attention,
            KernelSpec::Norm { .. }
            | KernelSpec::NormQuant { .. }
            | KernelSpec::Quantize { .. }
            | KernelSpec::Glu { .. }
            | KernelSpec::GluQuant { .. }
            | KernelSpec::GluNormQuant { .. } => Group::Rows,
            KernelSpec::Screen { .. } | KernelSpec::CodedMatmul { .. } => Group::Head,
            KernelSpec::Embed { .. } | KernelSpec::CodedEmbed { .. } | KernelSpec::Add { .. } => Group::Other,
        }
    }
}

/// Rows of the head that one search reads beyond the planes of all rows, in the mean.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadRows {
    pub low: f64,
    pub exact: f64,
}

/// What the bytes of a step depend on besides the plan.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Position of the first row.
    pub position: usize,
    pub rows: HeadRows,
}

/// The lists that make one greedy token: the smallest body, then the search or the head.
pub fn decode_lists(plan: &Plan) -> Vec<&StepList> {
    let last = plan.search.as_ref().map_or(&plan.head, |search| &search.list);
    plan.bodies.first().into_iter().chain([last]).collect()
}

/// Of values for the ops of decode, head and search, as op hooks number them, those of [`decode_lists`].
pub fn decode_values<T: Copy>(plan: &Plan, all: &[T]) -> Vec<T> {
    let decode = plan.bodies.first().map_or(0, |body| body.steps.len());
    let skipped = if plan.search.is_some() { plan.head.steps.len() } else { 0 };
    all[..decode].iter().chain(&all[decode + skipped..]).copied().collect()
}

/// Of values for ops as op hooks number them, those of `body`: its ops are among those of decode, which may take more
/// steps for one.
pub fn body_values<T: Copy>(plan: &Plan, body: &StepList, all: &[T]) -> Vec<T> {
    let decode = plan.bodies.first().map_or(&[][..], |decode| &decode.steps);
    let value = |step: &Step| decode.iter().zip(all).find(|(other, _)| other.label == step.label);
    body.steps.iter().filter_map(|step| Some(*value(step)?.1)).collect()
}

/// Bytes that `step` reads and writes at `point`.
///
/// Attention reads its caches up to the position, and the last levels of a search some rows: the plan states the whole
/// size of the former and nothing of the latter.
pub fn bytes(plan: &Plan, step: &Step, point: Point) -> u64 {
    let Point { rows, .. } = point;
    // Far below 2^53.
    let of = |rows: f64, bytes: usize| (rows * bytes as f64).round() as u64;
    match plan.kernel(step.kernel) {
        KernelSpec::Screen { layout, step: ScreenKernel::Low } => step.bytes + of(rows.low, layout.record_bytes()),
        KernelSpec::Screen { layout, step: ScreenKernel::Exact { weight } } => {
            step.bytes + of(rows.exact, layout.k * weight.size_bytes().unwrap_or(4))
        }
        KernelSpec::Attention { heads, cache, .. } => cache_bytes(plan, step, point) + 8 * (heads * cache.d) as u64,
        // The weights between the steps stay near, as they do within one.
        KernelSpec::AttentionStep { step: AttentionStep::Softmax { .. }, .. } => 0,
        KernelSpec::AttentionStep { heads, cache, step: AttentionStep::Scores | AttentionStep::Values } => {
            cache_bytes(plan, step, point) + 4 * (heads * cache.d) as u64
        }
        _ => step.bytes,
    }
}

/// Bytes of its caches that `step` reads at `point`.
fn cache_bytes(plan: &Plan, step: &Step, point: Point) -> u64 {
    let one = |cache: &CacheLayout| cache.read_bytes(point.position + 1) as u64;
    match plan.kernel(step.kernel) {
        KernelSpec::Attention { cache, .. } => 2 * one(cache),
        KernelSpec::AttentionStep { cache, step: AttentionStep::Scores | AttentionStep::Values, .. } => one(cache),
        _ => 0,
    }
}

/// Of [`bytes`], those of weights and caches, which come from memory where no cache of the machine holds them from one
/// token to the next. The rest are activations.
pub fn stored_bytes(plan: &Plan, step: &Step, point: Point) -> u64 {
    let of_args = || {
        let slots = step.args.iter().filter_map(|arg| match arg {
            Arg::Weight { offset_bytes } => plan.weights.iter().find(|slot| slot.offset_bytes == *offset_bytes),
            Arg::Arena { .. } | Arg::Tokens | Arg::Hidden | Arg::Logits => None,
        });
        slots.map(|slot| slot.bytes).sum()
    };
    match plan.kernel(step.kernel) {
        KernelSpec::Screen { step: ScreenKernel::Query, .. } => 0,
        KernelSpec::Screen { layout, .. } => bytes(plan, step, point) - lows_bytes(layout),
        KernelSpec::Attention { .. } | KernelSpec::AttentionStep { .. } => cache_bytes(plan, step, point),
        // Of tables only some rows are read.
        KernelSpec::Embed { .. } | KernelSpec::CodedEmbed { .. } | KernelSpec::Rope { .. } => 0,
        _ => of_args(),
    }
}

/// The ends of intervals among what a level of a search reads and writes.
fn lows_bytes(layout: &ScreenLayout) -> u64 {
    4 * layout.n as u64
}

/// Products of ternary weights with int8 activations that `step` adds up for one token row.
pub fn int8_macs(plan: &Plan, step: &Step) -> u64 {
    let products = plan.kernel(step.kernel).ternary_products();
    products.map_or(0, |TernaryProducts { n, k, schedules }| (n * k * schedules.len()) as u64)
}

/// Sums over the ops of one group.
#[derive(Clone, Copy, Debug)]
pub struct GroupSum<T> {
    pub group: Group,
    pub ops: usize,
    /// Read and written.
    pub bytes: u64,
    /// See [`int8_macs`].
    pub int8_macs: u64,
    /// What was measured.
    pub value: T,
}

/// The groups that the ops of `lists`, one list after the other, belong to, in order. `measured` says what each op
/// took; `point` is where bytes are counted.
pub fn sums<T: Copy + Default + AddAssign>(
    plan: &Plan,
    lists: &[&StepList],
    point: Point,
    measured: &[T],
) -> Vec<GroupSum<T>> {
    let steps = lists.iter().flat_map(|list| list.steps.iter().map(move |step| (*list, step)));
    let sum = |group: Group| {
        let mut sum = GroupSum { group, ops: 0, bytes: 0, int8_macs: 0, value: T::default() };
        for ((list, step), value) in steps.clone().zip(measured) {
            if Group::of(plan, list, step) == group {
                sum.ops += 1;
                sum.bytes += bytes(plan, step, point);
                sum.int8_macs += int8_macs(plan, step);
                sum.value += *value;
            }
        }
        sum
    };
    Group::ALL.into_iter().map(sum).filter(|sum| sum.ops > 0).collect()
}
