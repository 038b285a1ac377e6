//! Graphviz export of one graph: ops as boxes, leaves as ellipses, fused ops filled, types on edges.
//!
//! Deterministic: nodes are numbered in the order of [`Graph::order`], like the values of the text form.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::graph::{Graph, NodeId};
use crate::ops::Op;
use crate::program::Program;
use crate::text::print::{attrs, leaf_name};

/// The graph in the DOT language, with the names that `program` declares. Nodes on a cycle are left out.
pub fn graph(graph: &Graph, program: &Program) -> String {
    let order = graph.order();
    let numbers: BTreeMap<NodeId, usize> = order.iter().enumerate().map(|(i, id)| (*id, i)).collect();
    let mut out = format!("digraph {} {{\n  node [fontname=\"monospace\"];\n", quote(&[&graph.name]));
    for (id, n) in order.iter().zip(0..) {
        let node = graph.node(*id);
        let name = leaf_name(&node.op, program).unwrap_or_default();
        let head = format!("{} {name}", node.op.name());
        let label = quote(&[head.trim_end(), &attrs(node.op).join(", "), &node.label]);
        line(&mut out, format_args!("  n{n} [label={label}, {}];", style(&node.op)));
        for (operand, value) in graph.operands(*id).into_iter().enumerate() {
            let ty = quote(&[&graph.ty(value).to_string()]);
            let from = numbers[&value.node];
            line(&mut out, format_args!("  n{from} -> n{n} [label={ty}, headlabel=\"{operand}\"];"));
        }
    }
    for (i, value) in graph.outputs.iter().enumerate() {
        let ty = quote(&[&graph.ty(*value).to_string()]);
        line(&mut out, format_args!("  out{i} [label=\"return {i}\", shape=plaintext];"));
        if let Some(from) = numbers.get(&value.node) {
            line(&mut out, format_args!("  n{from} -> out{i} [label={ty}];"));
        }
    }
    out.push_str("}\n");
    out
}

fn style(op: &Op) -> &'static str {
    match op {
        Op::Input(_) | Op::State(_) => "shape=ellipse",
        Op::Weight(_) => "shape=ellipse, color=gray50, fontcolor=gray30",
        Op::NormQuant { .. } | Op::GluQuant { .. } | Op::GluNormQuant { .. } => {
            "shape=box, style=filled, fillcolor=lightgoldenrod"
        }
        Op::TernaryLinear { .. } | Op::FloatTernaryLinear { .. } | Op::DenseLinear { .. } | Op::CodedLinear { .. } => {
            "shape=box, style=filled, fillcolor=lightblue"
        }
        Op::Embed { .. }
        | Op::CodedEmbed { .. }
        | Op::RmsNorm { .. }
        | Op::QuantizeAct
        | Op::Rope
        | Op::KvWrite
        | Op::Attention { .. }
        | Op::Glu { .. }
        | Op::Add => "shape=box",
    }
}

/// A DOT string of the lines that are not empty.
fn quote(lines: &[&str]) -> String {
    let escape = |text: &&str| {
        let visible = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        visible.collect::<String>().replace('\\', "\\\\").replace('"', "\\\"")
    };
    let lines: Vec<_> = lines.iter().filter(|text| !text.is_empty()).map(escape).collect();
    format!("\"{}\"", lines.join("\\n"))
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a string succeeds");
}
