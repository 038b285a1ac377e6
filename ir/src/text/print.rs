//! Writes programs and graphs in the text form. Values are numbered from 0 in the order of [`Graph::order`].

use std::collections::BTreeMap;
use std::fmt::Write;

use super::lexer::{is_plain, quote};
use crate::graph::{Graph, NodeId, ValueId};
use crate::ops::Op;
use crate::ops::attr::Slot;
use crate::program::{ModelFacts, Program};

/// The whole program: facts, declarations, bodies, head.
pub fn program(program: &Program) -> String {
    let mut out = facts(&program.facts);
    out.push('\n');
    for weight in &program.weights {
        line(&mut out, format_args!("weight {}: {}", quote(&weight.name), weight.ty));
    }
    for state in &program.states {
        line(&mut out, format_args!("state {}: {}", quote(&state.name), state.ty));
    }
    for body in &program.bodies {
        out.push('\n');
        out.push_str(&graph(body, program));
    }
    out.push('\n');
    out.push_str(&block("head", &program.head, program));
    out
}

/// One graph, with the names that `program` declares.
pub fn graph(graph: &Graph, program: &Program) -> String {
    block("graph", graph, program)
}

fn facts(facts: &ModelFacts) -> String {
    let ModelFacts { vocab, hidden, layers, ctx, kv, bos, eos } = facts;
    let bos = bos.map_or(String::new(), |id| format!(", bos = {id}"));
    let eos: Vec<_> = eos.iter().map(u32::to_string).collect();
    let eos = eos.join(", ");
    format!(
        "facts {{ vocab = {vocab}, hidden = {hidden}, layers = {layers}, ctx = {ctx}, kv = {kv}{bos}, eos = [{eos}] }}\n"
    )
}

fn block(keyword: &str, graph: &Graph, program: &Program) -> String {
    let name = if is_plain(&graph.name) { graph.name.clone() } else { quote(&graph.name) };
    let m = if graph.m == 1 { String::new() } else { format!(" m = {}", graph.m) };
    let mut out = format!("{keyword} {name}{m} {{\n");
    let mut numbers: BTreeMap<ValueId, usize> = BTreeMap::new();
    for id in graph.order() {
        for result in 0..graph.node(id).types.len() {
            numbers.insert(ValueId { node: id, result }, numbers.len());
        }
        line(&mut out, format_args!("  {}", node(graph, id, program, &numbers)));
    }
    if !graph.outputs.is_empty() {
        line(&mut out, format_args!("  return {}", list(&graph.outputs, &numbers)));
    }
    out.push_str("}\n");
    out
}

fn node(graph: &Graph, id: NodeId, program: &Program, numbers: &BTreeMap<ValueId, usize>) -> String {
    let node = graph.node(id);
    let results: Vec<_> = node
        .types
        .iter()
        .enumerate()
        .map(|(result, ty)| format!("%{}: {ty}", numbers[&ValueId { node: id, result }]))
        .collect();
    let mut out = format!("{} = {}", results.join(", "), node.op.name());
    let operands = graph.operands(id);
    if !operands.is_empty() {
        out.push(' ');
        out.push_str(&list(&operands, numbers));
    }
    if let Some(name) = leaf_name(&node.op, program) {
        out.push(' ');
        out.push_str(&quote(name));
    }
    let attrs = attrs(node.op);
    if !attrs.is_empty() {
        write!(out, " {{ {} }}", attrs.join(", ")).expect("writing to a string succeeds");
    }
    if !node.label.is_empty() {
        out.push_str(" @");
        out.push_str(&quote(&node.label));
    }
    out
}

fn list(values: &[ValueId], numbers: &BTreeMap<ValueId, usize>) -> String {
    // A value on a cycle has no number; the verifier names the cycle.
    let name = |v| numbers.get(v).map_or("%cycle".into(), |n| format!("%{n}"));
    values.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// What a leaf names. A weight or state outside the program's tables is the verifier's to report.
pub fn leaf_name<'a>(op: &Op, program: &'a Program) -> Option<&'a str> {
    match op {
        Op::Input(kind) => Some(kind.name()),
        Op::Weight(id) => Some(program.weights.get(id.0 as usize).map_or("undeclared", |d| &d.name)),
        Op::State(id) => Some(program.states.get(id.0 as usize).map_or("undeclared", |d| &d.name)),
        Op::Embed { .. }
        | Op::CodedEmbed { .. }
        | Op::CodedLinear { .. }
        | Op::RmsNorm { .. }
        | Op::QuantizeAct
        | Op::TernaryLinear { .. }
        | Op::FloatTernaryLinear { .. }
        | Op::DenseLinear { .. }
        | Op::Rope
        | Op::KvWrite
        | Op::Attention { .. }
        | Op::Glu { .. }
        | Op::Add
        | Op::NormQuant { .. }
        | Op::GluQuant { .. }
        | Op::GluNormQuant { .. } => None,
    }
}

/// The attributes of `op` as written, those at their default left out.
pub fn attrs(mut op: Op) -> Vec<String> {
    let mut default = Op::from_name(op.name()).expect("OPS lists every op");
    let mut written = Vec::new();
    for (attr, default) in op.attrs().into_iter().zip(default.attrs()) {
        let is_default = match (&attr.slot, &default.slot) {
            (Slot::F32(a), Slot::F32(b)) => a.to_bits() == b.to_bits(),
            (a, b) => a == b,
        };
        if is_default && !attr.is_required {
            continue;
        }
        written.push(match attr.slot {
            Slot::F32(x) => format!("{} = {}", attr.name, float(*x)),
            Slot::Count(n) => format!("{} = {n}", attr.name),
            Slot::Act(act) => format!("{} = {}", attr.name, act.name()),
            Slot::Code(code) => format!("{} = {}", attr.name, code.name()),
            Slot::Flag(_) => attr.name.to_string(),
        });
    }
    written
}

/// The shortest decimal that reads back as `x`; its bits in hexadecimal where no decimal does.
fn float(x: f32) -> String {
    if x.is_finite() { format!("{x:?}") } else { format!("{:#010x}", x.to_bits()) }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a string succeeds");
}
