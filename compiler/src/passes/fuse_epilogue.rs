//! A residual addition moves into the epilogue of the product that feeds it.

use tcc_ir::graph::{Graph, NodeId, ValueId};
use tcc_ir::ops::{Op, TypeError};

use super::{first, sole_reader, supersede};

pub(super) const ABOUT: &str = "moves a residual addition into the epilogue of the matrix product before it";

pub(super) fn run(graph: &mut Graph) -> Result<(), TypeError> {
    for linear in graph.order() {
        let Some(op) = graph.op(linear).and_then(with_residual) else { continue };
        let Some((add, operand)) = sole_reader(graph, first(linear)) else { continue };
        if graph.node(add).op != Op::Add {
            continue;
        }
        fuse(graph, linear, op, add, graph.operands(add)[1 - operand])?;
    }
    Ok(())
}

/// The same product with a residual operand, if it has none yet.
fn with_residual(op: Op) -> Option<Op> {
    match op {
        Op::TernaryLinear { bias, residual: false } => Some(Op::TernaryLinear { bias, residual: true }),
        Op::FloatTernaryLinear { bias, residual: false } => Some(Op::FloatTernaryLinear { bias, residual: true }),
        Op::DenseLinear { scale, bias, residual: false } => Some(Op::DenseLinear { scale, bias, residual: true }),
        _ => None,
    }
}

fn fuse(graph: &mut Graph, linear: NodeId, op: Op, add: NodeId, residual: ValueId) -> Result<(), TypeError> {
    let mut operands = graph.operands(linear);
    operands.push(residual);
    let label = graph.node(linear).label.clone();
    let fused = graph.add(op, &operands, label)?;
    supersede(graph, add, fused);
    graph.remove(linear);
    Ok(())
}
