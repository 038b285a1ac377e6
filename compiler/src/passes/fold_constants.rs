//! Evaluates ops whose operands are all weights, once, at compile time.

use tcc_ir::graph::{NodeId, ValueId};
use tcc_ir::ops::Op;
use tcc_ir::program::{Program, WeightDecl, WeightError, WeightId, WeightStore};
use tcc_ir::tensor::Tensor;

use super::{PassCx, PassError, supersede};

pub(super) const ABOUT: &str = "evaluates ops that read only weights";

/// Folding may not grow the weights by large tensors: results stay below this many elements.
const LIMIT_ELEMENTS: usize = 1 << 20;

pub(super) fn run(program: &mut Program, cx: &mut PassCx) -> Result<(), PassError> {
    let mut graphs: Vec<_> = program.graphs_mut().map(std::mem::take).collect();
    for graph in &mut graphs {
        for id in graph.order() {
            if let Some(operands) = constant_operands(graph, id) {
                let value = evaluate(graph.node(id).op, &operands, &program.weights, cx)?;
                let name = format!("folded.{}", graph.node(id).label);
                let weight = WeightId(u32::try_from(program.weights.len()).expect("fewer than 2^32 weights"));
                let leaf = graph.leaf(Op::Weight(weight), value.ty(), name.clone());
                program.weights.push(WeightDecl { name, ty: value.ty() });
                cx.folded.push(value);
                supersede(graph, id, leaf.node);
            }
        }
    }
    for (slot, graph) in program.graphs_mut().zip(graphs) {
        *slot = graph;
    }
    Ok(())
}

/// The weights `id` reads, if it has one small result and reads nothing else.
fn constant_operands(graph: &tcc_ir::graph::Graph, id: NodeId) -> Option<Vec<WeightId>> {
    let node = graph.node(id);
    if node.op.is_leaf()
        || node.types.len() != 1
        || graph.ty(ValueId { node: id, result: 0 }).elements() > LIMIT_ELEMENTS
    {
        return None;
    }
    graph
        .operands(id)
        .iter()
        .map(|v| match graph.node(v.node).op {
            Op::Weight(weight) => Some(weight),
            _ => None,
        })
        .collect()
}

fn evaluate(
    op: Op,
    operands: &[WeightId],
    weights: &[WeightDecl],
    cx: &PassCx,
) -> Result<Tensor<'static>, WeightError> {
    let base = weights.len() - cx.folded.len();
    let tensors: Vec<Tensor<'_>> = operands
        .iter()
        .map(|id| match (id.0 as usize).checked_sub(base) {
            Some(folded) => Ok(cx.folded[folded].clone()),
            None => cx.store.tensor(*id),
        })
        .collect::<Result<_, _>>()?;
    let value = op.eval(&tensors.iter().collect::<Vec<_>>()).swap_remove(0);
    Ok(Tensor::f32(&value.shape, value.as_f32().to_vec()))
}

/// A weight store with the folded constants behind the model's own weights.
pub struct FoldedStore<'a> {
    pub base: Box<dyn WeightStore + 'a>,
    /// Number of weights `base` supplies.
    pub base_len: usize,
    pub folded: Vec<Tensor<'static>>,
}

impl WeightStore for FoldedStore<'_> {
    fn tensor(&self, id: WeightId) -> Result<Tensor<'_>, WeightError> {
        match (id.0 as usize).checked_sub(self.base_len) {
            Some(folded) => Ok(self.folded[folded].clone()),
            None => self.base.tensor(id),
        }
    }
}
