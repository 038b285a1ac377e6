//! The feed-forward gate, its sub-norm and the quantizer behind it become one op.

use tcc_ir::graph::Graph;
use tcc_ir::ops::{Op, TypeError};

use super::{first, sole_reader, supersede};

pub(super) const ABOUT: &str = "fuses the gated activation with the sub-norm and quantizer that follow it";

pub(super) fn run(graph: &mut Graph) -> Result<(), TypeError> {
    for glu in graph.order() {
        let Some(Op::Glu { act }) = graph.op(glu) else { continue };
        let Some((reader, operand)) = sole_reader(graph, first(glu)) else { continue };
        let mut operands = graph.operands(glu);
        let op = match graph.node(reader).op {
            Op::QuantizeAct => Op::GluQuant { act },
            Op::NormQuant { eps } if operand == 0 => {
                operands.push(graph.operands(reader)[1]);
                Op::GluNormQuant { act, eps }
            }
            _ => continue,
        };
        let label = graph.node(glu).label.clone();
        let fused = graph.add(op, &operands, label)?;
        supersede(graph, reader, fused);
        graph.remove(glu);
    }
    Ok(())
}
