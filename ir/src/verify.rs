//! The graph verifier: run after the builder and after every pass.

use thiserror::Error;

use crate::graph::{Graph, NodeId};
use crate::ops::{InputKind, Op, TypeError};
use crate::program::Program;
use crate::ty::{DType, ValueType};

/// What is wrong with a graph.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum VerifyError {
    #[error("graph '{graph}': '{label}': {source}")]
    Type { graph: String, label: String, source: TypeError },
    #[error("graph '{graph}': '{label}' has result types that its operands do not give")]
    ResultTypes { graph: String, label: String },
    #[error("graph '{graph}': '{label}' is declared as {found}, the program says {expected}")]
    Declaration { graph: String, label: String, found: ValueType, expected: String },
    #[error("graph '{graph}' has a cycle through '{label}'")]
    Cycle { graph: String, label: String },
    #[error("graph '{graph}': state '{label}' has {writers} writers and {readers} other readers, expected 1 and 0")]
    State { graph: String, label: String, writers: usize, readers: usize },
    #[error("graph '{graph}' returns {found}, expected {expected}")]
    Output { graph: String, found: String, expected: String },
}

/// Checks every graph of `program` against its declarations.
pub fn program(program: &Program) -> Result<(), VerifyError> {
    let facts = &program.facts;
    for graph in &program.bodies {
        self::graph(graph, program)?;
        output(graph, &ValueType::f32(&[graph.m, facts.hidden]))?;
    }
    graph(&program.head, program)?;
    output(&program.head, &ValueType::f32(&[1, facts.vocab]))
}

/// Checks one graph: acyclic, typed, declared leaves, linear states.
pub fn graph(graph: &Graph, program: &Program) -> Result<(), VerifyError> {
    structure(graph)?;
    graph.order().into_iter().try_for_each(|id| leaf(graph, id, program))
}

/// The part of [`graph`] that needs no declarations.
pub fn structure(graph: &Graph) -> Result<(), VerifyError> {
    let order = graph.order();
    if order.len() < graph.len() {
        let label = graph.first_outside(&order).map_or_else(String::new, |id| graph.node(id).label.clone());
        return Err(VerifyError::Cycle { graph: graph.name.clone(), label });
    }
    for id in order {
        types(graph, id)?;
        state(graph, id)?;
    }
    Ok(())
}

fn types(graph: &Graph, id: NodeId) -> Result<(), VerifyError> {
    let node = graph.node(id);
    if node.op.is_leaf() {
        return Ok(());
    }
    let operands: Vec<_> = graph.operands(id).iter().map(|v| graph.ty(*v).clone()).collect();
    let (graph, label) = (graph.name.clone(), node.label.clone());
    match node.op.infer(&operands) {
        Ok(types) if types == node.types => Ok(()),
        Ok(_) => Err(VerifyError::ResultTypes { graph, label }),
        Err(source) => Err(VerifyError::Type { graph, label, source }),
    }
}

/// A state is read by exactly one node, its writer, so that it can be updated in place.
fn state(graph: &Graph, id: NodeId) -> Result<(), VerifyError> {
    let node = graph.node(id);
    if !matches!(node.op, Op::State(_)) {
        return Ok(());
    }
    let readers = graph.readers(crate::graph::ValueId { node: id, result: 0 });
    let writers = readers.iter().filter(|(n, operand)| graph.node(*n).op == Op::KvWrite && *operand == 0).count();
    if writers == 1 && readers.len() == 1 {
        return Ok(());
    }
    let (graph, label) = (graph.name.clone(), node.label.clone());
    Err(VerifyError::State { graph, label, writers, readers: readers.len() - writers })
}

fn leaf(graph: &Graph, id: NodeId, program: &Program) -> Result<(), VerifyError> {
    let node = graph.node(id);
    let expected = match node.op {
        Op::Weight(w) => program.weights.get(w.0 as usize).map(|d| d.ty.clone()),
        Op::State(s) => program.states.get(s.0 as usize).map(|d| d.ty.clone()),
        Op::Input(InputKind::Tokens) => Some(ValueType::new(DType::U32, &[graph.m])),
        Op::Input(InputKind::Pos | InputKind::Valid) => Some(ValueType::new(DType::U32, &[1])),
        Op::Input(InputKind::Hidden) => Some(ValueType::f32(&[graph.m, program.facts.hidden])),
        _ => return Ok(()),
    };
    if expected.as_ref() == Some(&node.types[0]) {
        return Ok(());
    }
    Err(VerifyError::Declaration {
        graph: graph.name.clone(),
        label: node.label.clone(),
        found: node.types[0].clone(),
        expected: expected.map_or("nothing".into(), |t| t.to_string()),
    })
}

fn output(graph: &Graph, expected: &ValueType) -> Result<(), VerifyError> {
    let found: Vec<_> = graph.outputs.iter().map(|v| graph.ty(*v).to_string()).collect();
    if found == [expected.to_string()] {
        return Ok(());
    }
    Err(VerifyError::Output { graph: graph.name.clone(), found: found.join(", "), expected: expected.to_string() })
}
