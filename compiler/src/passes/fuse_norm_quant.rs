//! `quantize_act(rms_norm(x, w))` becomes one op when nobody else reads the norm; the f32 row disappears.

use tcc_ir::graph::Graph;
use tcc_ir::ops::{Op, TypeError};

use super::{first, sole_reader, supersede};

pub(super) const ABOUT: &str = "fuses a norm whose only reader is a quantizer with it";

pub(super) fn run(graph: &mut Graph) -> Result<(), TypeError> {
    for norm in graph.order() {
        let Some(Op::RmsNorm { eps }) = graph.op(norm) else { continue };
        let Some((quantizer, _)) = sole_reader(graph, first(norm)) else { continue };
        let operands = graph.operands(norm);
        // A norm per head spans less than the row that is quantized.
        let whole_row = graph.ty(operands[0]).shape[1] == graph.ty(operands[1]).shape[0];
        if graph.node(quantizer).op != Op::QuantizeAct || !whole_row {
            continue;
        }
        let label = graph.node(norm).label.clone();
        let fused = graph.add(Op::NormQuant { eps }, &operands, label)?;
        supersede(graph, quantizer, fused);
        graph.remove(norm);
    }
    Ok(())
}
