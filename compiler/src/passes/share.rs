//! Merges nodes that compute the same: one quantized row serves q, k and v; another gate and up.

use tcc_ir::graph::{Graph, NodeId};
use tcc_ir::ops::{Op, TypeError};

use super::supersede;

pub(super) const ABOUT: &str = "merges ops with equal operands, so q/k/v and gate/up share one quantized row";

pub(super) fn run(graph: &mut Graph) -> Result<(), TypeError> {
    let mut kept: Vec<NodeId> = Vec::new();
    for id in graph.order() {
        let twin = kept.iter().copied().find(|k| same(graph, *k, id));
        match twin {
            Some(twin) => supersede(graph, id, twin),
            None => kept.push(id),
        }
    }
    Ok(())
}

/// True if both nodes have the same op, types and operands. A state's writer is never merged.
fn same(graph: &Graph, a: NodeId, b: NodeId) -> bool {
    let (x, y) = (graph.node(a), graph.node(b));
    x.op == y.op && x.op != Op::KvWrite && x.types == y.types && graph.operands(a) == graph.operands(b)
}
