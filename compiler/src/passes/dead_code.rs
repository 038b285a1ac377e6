//! Removes what no output and no state depends on.

use tcc_ir::graph::{Graph, ValueId};
use tcc_ir::ops::{Op, TypeError};

pub(super) const ABOUT: &str = "removes ops whose results nobody reads";

pub(super) fn run(graph: &mut Graph) -> Result<(), TypeError> {
    let mut order = graph.order();
    // Readers first, so that removing one frees its operands in the same sweep.
    order.reverse();
    for id in order {
        let results = graph.node(id).types.len();
        let read = (0..results).map(|result| ValueId { node: id, result });
        let dead = read.clone().all(|v| graph.readers(v).is_empty() && !graph.is_output(v));
        // Writing a cache is an effect on the state.
        if dead && graph.node(id).op != Op::KvWrite {
            graph.remove(id);
        }
    }
    Ok(())
}
