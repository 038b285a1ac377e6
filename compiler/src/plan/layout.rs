//! Chooses how each weight is stored, over all its users.

use std::collections::{BTreeMap, BTreeSet};

use tcc_ir::coded::CodedLayout;
use tcc_ir::encoding::Encoding;
use tcc_ir::graph::{Graph, NodeId};
use tcc_ir::kernel::ScaleKind;
use tcc_ir::ops::Op;
use tcc_ir::plan::{Plan, WeightLayout};
use tcc_ir::program::{Program, WeightId};
use tcc_ir::ty::ValueType;

use super::PlanError;
use crate::schedule::density::Densities;
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

/// Every matrix of trits that a graph reads, once for each reader, with what was counted of it.
pub fn ternary_weights(program: &Program, densities: &Densities) -> Vec<TernaryWeight> {
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
            weights.push(TernaryWeight {
                id,
                shape: Shape { n, k, group, density: densities.get(&id).copied() },
                is_int8,
            });
        }
    }
    weights
}

/// One layout per weight: decode, small batch and prefill read the same bytes, on all of `machines`.
pub(super) fn choose(
    program: &Program,
    machines: &[Machine],
    forced: Option<Encoding>,
    densities: &Densities,
) -> Result<Layouts, PlanError> {
    let mut layouts = Layouts::new();
    for graph in program.graphs() {
        for id in graph.order() {
            if let Op::Weight(weight) = graph.node(id).op {
                layouts.insert(weight, WeightLayout::Plain);
            }
        }
    }
    for graph in program.graphs() {
        for id in graph.order() {
            code_table(program, graph, id, &mut layouts)?;
        }
    }
    for weight in ternary_weights(program, densities) {
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
pub fn sharing(program: &Program, plan: &Plan, machine: &Machine, densities: &Densities) -> Result<Sharing, PlanError> {
    let (mut shared, mut alone, mut bytes) = (0.0, 0.0, 0);
    let mut seen = BTreeSet::new();
    for weight in ternary_weights(program, densities) {
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
        if best.encoding != encoding {
            bytes += best.encoding.matrix_bytes(weight.shape.n, weight.shape.k) as u64;
        }
    }
    let decode_cycles_ratio = if alone > 0.0 { shared / alone } else { 1.0 };
    Ok(Sharing { decode_cycles_ratio, bytes })
}

/// Gives the table that node `id` reads through codes their layout.
///
/// Errors: a table that something else reads otherwise.
fn code_table(program: &Program, graph: &Graph, id: NodeId, layouts: &mut Layouts) -> Result<(), PlanError> {
    let (Op::CodedEmbed { code, .. } | Op::CodedLinear { code }) = graph.node(id).op else { return Ok(()) };
    let Op::Weight(table) = graph.node(graph.operands(id)[1].node).op else { return Ok(()) };
    let shape = &program.weight(table).ty.shape;
    let layout = WeightLayout::Coded(CodedLayout { code, n: shape[0], k: shape[1] });
    let is_as_coded = |graph: &Graph| {
        graph.order().into_iter().all(|reader| match graph.node(reader).op {
            Op::CodedEmbed { code: other, .. } | Op::CodedLinear { code: other } if other == code => true,
            _ => graph.operands(reader).iter().all(|value| graph.node(value.node).op != Op::Weight(table)),
        })
    };
    if program.graphs().all(is_as_coded) {
        layouts.insert(table, layout);
        return Ok(());
    }
    let (label, what) = (program.weight(table).name.clone(), "a table that is read both as coded and otherwise".into());
    Err(PlanError::Unsupported { label, what })
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

#[cfg(test)]
mod tests {
    use tcc_ir::coded::RowCode;
    use tcc_ir::text::parse;

    use super::*;
    use crate::target::{TargetRequest, resolve};

    /// One table, embedded and multiplied as said.
    fn program(embed: &str, product: &str) -> Program {
        let text = format!(
            r#"facts {{ vocab = 40, hidden = 8, layers = 0, ctx = 8, kv = f16, bos = 1, eos = [2] }}
            weight "w": bf16[40, 8]
            graph decode {{
              %i: u32[1] = input "tokens"
              %w: bf16[40, 8] = weight "w"
              %x: f32[1, 8] = {embed}
              return %x
            }}
            head head {{
              %x: f32[1, 8] = input "hidden"
              %w: bf16[40, 8] = weight "w"
              %y: f32[1, 40] = {product}
              return %y
            }}"#
        );
        parse::program(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
    }

    /// A table has one copy: coded where all its readers want the same code, refused where they differ.
    #[test]
    fn a_table_is_stored_once() {
        let request = TargetRequest { target: Some("x86_64".into()), ..TargetRequest::default() };
        let machine = resolve(&request, Vec::new).expect("a known target").machine;
        let layout = |embed: &str, product: &str| {
            let layouts = choose(&program(embed, product), std::slice::from_ref(&machine), None, &Densities::new())
                .map_err(|e| e.to_string())?;
            Ok::<_, String>(*layouts.values().next().expect("one weight"))
        };
        let (exact, int4) = ("embed %i, %w", "coded_embed %i, %w { code = int4 }");
        let product = "coded_linear %x, %w { code = int4 }";
        let coded = CodedLayout { code: RowCode::Int4, n: 40, k: 8 };
        assert_eq!(layout(int4, product), Ok(WeightLayout::Coded(coded)));
        assert_eq!(layout(exact, "dense_linear %x, %w"), Ok(WeightLayout::Plain));
        let refused =
            "'w': the plan has no kernel for this form of the op: a table that is read both as coded and otherwise";
        assert_eq!(layout(exact, product), Err(refused.to_owned()));
        assert_eq!(layout(int4, "coded_linear %x, %w { code = int8 }"), Err(refused.to_owned()));
    }
}
