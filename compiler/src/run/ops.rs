//! The ops of a plan in the groups that people think in, and what each op moves and multiplies.

use std::ops::AddAssign;

use tcc_ir::kernel::KernelSpec;
use tcc_ir::plan::{Plan, Step, StepList};

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
            KernelSpec::Rope { .. } | KernelSpec::KvWrite { .. } | KernelSpec::Attention { .. } => Group::Attention,
            KernelSpec::Norm { .. }
            | KernelSpec::NormQuant { .. }
            | KernelSpec::Quantize { .. }
            | KernelSpec::Glu { .. }
            | KernelSpec::GluQuant { .. }
            | KernelSpec::GluNormQuant { .. } => Group::Rows,
            KernelSpec::Embed { .. } | KernelSpec::Add { .. } => Group::Other,
        }
    }
}

/// Bytes that `step` reads and writes when its first row is at `position`.
///
/// Attention reads its caches up to the position; the plan states their whole size.
pub fn bytes(plan: &Plan, step: &Step, position: usize) -> u64 {
    match plan.kernel(step.kernel) {
        KernelSpec::Attention { heads, kv_heads, d, cache, .. } => {
            let element = cache.size_bytes().unwrap_or(4);
            (2 * kv_heads * d * element * (position + 1) + 8 * heads * d) as u64
        }
        _ => step.bytes,
    }
}

/// Products of ternary weights with int8 activations that `step` adds up for one token row.
pub fn int8_macs(plan: &Plan, step: &Step) -> u64 {
    match plan.kernel(step.kernel) {
        KernelSpec::TernaryMatmul { n, layout, .. } => (n * layout.k) as u64,
        KernelSpec::FloatTernaryMatmul { .. }
        | KernelSpec::DenseMatmul { .. }
        | KernelSpec::Attention { .. }
        | KernelSpec::Embed { .. }
        | KernelSpec::Norm { .. }
        | KernelSpec::NormQuant { .. }
        | KernelSpec::Quantize { .. }
        | KernelSpec::Glu { .. }
        | KernelSpec::GluQuant { .. }
        | KernelSpec::GluNormQuant { .. }
        | KernelSpec::Rope { .. }
        | KernelSpec::KvWrite { .. }
        | KernelSpec::Add { .. } => 0,
    }
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
/// took; `position` is where bytes are counted.
pub fn sums<T: Copy + Default + AddAssign>(
    plan: &Plan,
    lists: &[&StepList],
    position: usize,
    measured: &[T],
) -> Vec<GroupSum<T>> {
    let steps = lists.iter().flat_map(|list| list.steps.iter().map(move |step| (*list, step)));
    let sum = |group: Group| {
        let mut sum = GroupSum { group, ops: 0, bytes: 0, int8_macs: 0, value: T::default() };
        for ((list, step), value) in steps.clone().zip(measured) {
            if Group::of(plan, list, step) == group {
                sum.ops += 1;
                sum.bytes += bytes(plan, step, position);
                sum.int8_macs += int8_macs(plan, step);
                sum.value += *value;
            }
        }
        sum
    };
    Group::ALL.into_iter().map(sum).filter(|sum| sum.ops > 0).collect()
}
