//! Finds the feed-forward gates whose two products become one kernel with them: a tile of either product is combined
//! while it is near, so the rows of one product alone are never stored.
//!
//! Programs are the same for every target, so this belongs to the plan: targets whose kernels end otherwise keep the ops
//! as they are ([`TargetDesc::has_gated_products`]).
//!
//! [`TargetDesc::has_gated_products`]: tcc_ir::target::TargetDesc::has_gated_products

use std::collections::{BTreeMap, BTreeSet};

use tcc_ir::graph::{Graph, NodeId, ValueId};
use tcc_ir::ops::{Act, Op};

/// Two products and the gate that joins them; their kernel runs where the second one stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gate {
    pub act: Act,
    /// The product that is gated, and the other.
    pub products: [NodeId; 2],
    /// The product that comes last. Its result is the gated rows.
    pub last: NodeId,
}

impl Gate {
    /// What its step is called: the names of both products.
    pub fn label(&self, graph: &Graph) -> String {
        let [first, second] = self.products.map(|product| graph.node(product).label.as_str());
        let second = second.rsplit('.').next().unwrap_or(second);
        format!("{first}+{second}")
    }
}

/// The gates of a graph.
#[derive(Default)]
pub(super) struct Gates {
    gates: BTreeMap<NodeId, Gate>,
    /// Products that come first: they have no step of their own.
    merged: BTreeSet<NodeId>,
}

impl Gates {
    /// Every gate of `graph`, whose nodes are in `order`, that reads two ternary products of the same rows which nobody
    /// else reads, and is followed by a quantizer.
    pub fn find(graph: &Graph, order: &[NodeId]) -> Gates {
        let mut found = Gates::default();
        for id in order {
            let act = match graph.node(*id).op {
                Op::GluQuant { act } | Op::GluNormQuant { act, .. } => act,
                _ => continue,
            };
            let operands = graph.operands(*id);
            let products = [operands[0], operands[1]];
            let rows = |product: ValueId| graph.operands(product.node)[..2].to_vec();
            let fits = products.iter().all(|product| is_plain(graph, *product)) && products[0] != products[1];
            if !fits || rows(products[0]) != rows(products[1]) {
                continue;
            }
            let products = products.map(|product| product.node);
            let place = |product: &NodeId| order.iter().position(|other| other == product);
            let [first, last] =
                if place(&products[0]) < place(&products[1]) { products } else { [products[1], products[0]] };
            found.gates.insert(*id, Gate { act, products, last });
            found.merged.insert(first);
        }
        found
    }

    /// Whether node `id` is computed along with a later one.
    pub fn is_merged(&self, id: NodeId) -> bool {
        self.merged.contains(&id)
    }

    /// The gate that runs where product `id` stands.
    pub fn at(&self, id: NodeId) -> Option<Gate> {
        self.gates.values().copied().find(|gate| gate.last == id)
    }

    /// The gate of node `id`, which has no more to do than what follows it.
    pub fn of(&self, id: NodeId) -> Option<Gate> {
        self.gates.get(&id).copied()
    }
}

/// Whether `value` is a ternary product, nothing added, with one reader.
fn is_plain(graph: &Graph, value: ValueId) -> bool {
    let is_product = graph.node(value.node).op == Op::TernaryLinear { bias: false, residual: false };
    is_product && graph.readers(value).len() == 1 && !graph.is_output(value)
}

#[cfg(test)]
mod tests {
    use tcc_ir::text::parse;

    use super::*;

    /// The gates of a graph whose block of rows is followed by `lines`.
    fn gates(lines: &str) -> (Graph, Gates) {
        let text = format!(
            "graph body m = 2 {{
              %x: f32[2, 16] = input \"hidden\"
              %q: i8[2, 16], %s: f32[2] = quantize_act %x
              %w: trit[32, 16] = weight \"w\"
              %v: trit[32, 16] = weight \"v\"
              %b: f32[32] = weight \"b\"
              %one: f32[1] = weight \"one\"
              {lines}
            }}"
        );
        let source = parse::source(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let graph = source.program.graphs().find(|graph| graph.name == "body").expect("the graph above").clone();
        let gates = Gates::find(&graph, &graph.order());
        (graph, gates)
    }

    const GATE: &str = "%g: f32[2, 32] = ternary_linear %q, %s, %w, %one @\"L07.gate\"\n";
    const UP: &str = "%u: f32[2, 32] = ternary_linear %q, %s, %v, %one @\"L07.up\"\n";

    #[test]
    fn a_gate_runs_where_its_last_product_stands() {
        let end = "%c: i8[2, 32], %t: f32[2] = glu_quant %g, %u { act = silu }\nreturn %c";
        for (lines, last) in [([GATE, UP], 1), ([UP, GATE], 0)] {
            let (graph, gates) = gates(&format!("{}{}{end}", lines[0], lines[1]));
            let (id, gate) = gates.gates.iter().next().expect("a gate");
            assert_eq!((gate.act, gate.last, gates.gates.len()), (Act::Silu, gate.products[last], 1));
            assert!(gates.is_merged(gate.products[1 - last]) && !gates.is_merged(gate.last));
            assert_eq!((gates.of(*id), gates.at(gate.last), gates.at(*id)), (Some(*gate), Some(*gate), None));
            assert_eq!(gate.label(&graph), "L07.gate+up");
        }
    }

    #[test]
    fn products_that_others_need_keep_their_steps() {
        let quant = "%c: i8[2, 32], %t: f32[2] = glu_quant %g, %u { act = relu2 }\n";
        let biased = "%u: f32[2, 32] = ternary_linear %q, %s, %v, %one, %b { bias }\n";
        let other = "%p: i8[2, 16], %r: f32[2] = quantize_act %x\n%u: f32[2, 32] = ternary_linear %p, %r, %v, %one\n";
        let alone = "%c: f32[2, 32] = glu %g, %u { act = relu2 }\n";
        let square = "%c: i8[2, 32], %t: f32[2] = glu_quant %g, %g { act = relu2 }\n";
        for lines in [
            [GATE, UP, quant, "return %c, %u"],
            [GATE, biased, quant, "return %c"],
            [GATE, other, quant, "return %c"],
            [GATE, UP, alone, "return %c"],
            [GATE, square, "", "return %c"],
        ] {
            assert!(gates(&lines.concat()).1.gates.is_empty(), "{lines:?}");
        }
    }
}
