//! Chooses how each ternary weight is packed, over all its users.

use std::collections::{BTreeMap, BTreeSet};

use tcc_ir::encoding::Encoding;
use tcc_ir::kernel::ScaleKind;
use tcc_ir::ops::Op;
use tcc_ir::plan::{Plan, WeightLayout};
use tcc_ir::program::{Program, WeightId};
use tcc_ir::ty::ValueType;

use super::PlanError;
use crate::schedule::{self, Machine, Shape};

/// Layout of every weight that a graph reads.
pub(super) type Layouts = BTreeMap<WeightId, WeightLayout>;

/// A matrix of trits and how it is used.
pub struct TernaryWeight {
    pub id: WeightId,
    pub shape: Shape,
    /// True if its activations are int8: only then is there a choice.
    pub is_int8: bool,
}

/// Every matrix of trits that a graph reads, once for each reader.
pub fn ternary_weights(program: &Program) -> Vec<TernaryWeight> {
    let mut weights = Vec::new();
    for graph in program.graphs() {
        for id in graph.order() {
            let operands = graph.operands(id);
            let read = match graph.node(id).op {
                Op::TernaryLinear { .. } => Some((operands[2], operands[3], true)),
                Op::FloatTernaryLinear { .. } => Some((operands[1], operands[2], false)),
                _ => None,
            };
            let Some((weight, scale, is_int8)) = read else { continue };
            let Op::Weight(id) = graph.node(weight.node).op else { continue };
            let (n, k) = (program.weight(id).ty.shape[0], program.weight(id).ty.shape[1]);
            let group = match scale_kind(graph.ty(scale), k) {
                ScaleKind::PerGroup { group } => Some(group),
                ScaleKind::PerTensor | ScaleKind::PerRow => None,
            };
            weights.push(TernaryWeight { id, shape: Shape { n, k, group }, is_int8 });
        }
    }
    weights
}

/// One layout per weight: decode, small batch and prefill read the same bytes, on all of `machines`.
pub(super) fn choose(program: &Program, machines: &[Machine], forced: Option<Encoding>) -> Result<Layouts, PlanError> {
    let mut layouts = Layouts::new();
    for graph in program.graphs() {
        for id in graph.order() {
            if let Op::Weight(weight) = graph.node(id).op {
                layouts.insert(weight, WeightLayout::Plain);
            }
        }
    }
    for weight in ternary_weights(program) {
        let encoding = if weight.is_int8 {
            schedule::choose_encoding(machines, weight.shape, forced)
                .map_err(|source| PlanError::Schedule { weight: program.weight(weight.id).name.clone(), source })?
        } else {
            machines[0].desc.float_encoding
        };
        layouts.insert(weight.id, WeightLayout::Packed(encoding));
    }
    Ok(layouts)
}

/// What one copy of the weights costs a machine beside a copy of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sharing {
    /// Estimated cycles of the ternary products of a decoded token over those with the encodings the machine would
    /// choose alone; 1 where these are the same.
    pub decode_cycles_ratio: f64,
    /// Bytes that a second copy of the weights with other encodings would add.
    pub bytes: u64,
}

/// What the layouts of `plan` cost `machine`, which the plan is for.
pub fn sharing(program: &Program, plan: &Plan, machine: &Machine) -> Result<Sharing, PlanError> {
    let (mut shared, mut alone, mut bytes) = (0.0, 0.0, 0);
    let mut seen = BTreeSet::new();
    for weight in ternary_weights(program) {
        let slot = plan.weights.iter().find(|slot| slot.id == weight.id);
        let Some(WeightLayout::Packed(encoding)) = slot.map(|slot| slot.layout) else { continue };
        if !weight.is_int8 || !seen.insert(weight.id) {
            continue;
        }
        let failed = |source| PlanError::Schedule { weight: program.weight(weight.id).name.clone(), source };
        let candidates = schedule::candidates(machine, weight.shape, None).map_err(failed)?;
        let Some(best) = schedule::cheapest(&candidates) else { continue };
        let own = best.cost.cycles();
        alone += own;
        shared += schedule::cheapest_reader(&candidates, encoding).unwrap_or(own);
        if best.row.encoding != encoding {
            bytes += best.row.encoding.matrix_bytes(weight.shape.n, weight.shape.k) as u64;
        }
    }
    let decode_cycles_ratio = if alone > 0.0 { shared / alone } else { 1.0 };
    Ok(Sharing { decode_cycles_ratio, bytes })
}

/// Granularity of a scale of type `scale` for a reduction of length `k`. One group per row is a scale per row only
/// in meaning, not in rounding, so it stays a group.
pub(super) fn scale_kind(scale: &ValueType, k: usize) -> ScaleKind {
    match scale.shape[..] {
        [1] => ScaleKind::PerTensor,
        [_, groups] => ScaleKind::PerGroup { group: k / groups },
        _ => ScaleKind::PerRow,
    }
}
