//! The reference interpreter: each op's scalar meaning, one node after the other.

use std::collections::BTreeMap;

use crate::graph::{Graph, NodeId};
use crate::ops::{InputKind, Op, kv_write};
use crate::program::{Program, WeightError, WeightStore};
use crate::tensor::Tensor;

/// One model instance: program, weights, KV caches and position.
pub struct Interpreter<'a> {
    program: &'a Program,
    weights: &'a dyn WeightStore,
    states: Vec<Tensor<'a>>,
    pos: u32,
}

/// Why tokens could not be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum InterpError {
    #[error(transparent)]
    Weight(#[from] WeightError),
    #[error("token {token} is outside the vocabulary of {vocab}")]
    Token { token: u32, vocab: usize },
    #[error("position {pos} is past the context of {ctx}")]
    Context { pos: usize, ctx: usize },
}

impl<'a> Interpreter<'a> {
    pub fn new(program: &'a Program, weights: &'a dyn WeightStore) -> Self {
        let states = program.states.iter().map(|s| Tensor::zeros(&s.ty)).collect();
        Interpreter { program, weights, states, pos: 0 }
    }

    /// Position of the next token.
    pub fn pos(&self) -> u32 {
        self.pos
    }

    /// Evaluates `tokens` and returns the hidden row of each, `[tokens, hidden]`.
    ///
    /// Uses the largest body graph that the remaining tokens fill, as the compiled `eval` does; chunking never shows.
    pub fn eval(&mut self, tokens: &[u32]) -> Result<Vec<f32>, InterpError> {
        let facts = &self.program.facts;
        if let Some(&token) = tokens.iter().find(|t| **t as usize >= facts.vocab) {
            return Err(InterpError::Token { token, vocab: facts.vocab });
        }
        let end = self.pos as usize + tokens.len();
        if end > facts.ctx {
            return Err(InterpError::Context { pos: end, ctx: facts.ctx });
        }
        let mut hidden = Vec::with_capacity(tokens.len() * facts.hidden);
        for chunk in tokens.chunks(self.program.prefill()) {
            let graph = self.program.bodies.iter().find(|g| g.m >= chunk.len()).expect("prefill is the largest");
            let mut rows = chunk.to_vec();
            rows.resize(graph.m, 0);
            let inputs = Inputs {
                tokens: Some(Tensor::u32(&[graph.m], rows)),
                // A chunk is at most `prefill` tokens.
                valid: chunk.len() as u32,
                pos: self.pos,
                hidden: None,
            };
            let outputs = run(graph, self.weights, &mut self.states, &inputs)?;
            hidden.extend_from_slice(&outputs[0].as_f32()[..chunk.len() * facts.hidden]);
            self.pos += chunk.len() as u32;
        }
        Ok(hidden)
    }

    /// Logits of one hidden row.
    pub fn logits(&mut self, hidden: &[f32]) -> Result<Vec<f32>, InterpError> {
        let inputs =
            Inputs { tokens: None, valid: 1, pos: 0, hidden: Some(Tensor::f32(&[1, hidden.len()], hidden.to_vec())) };
        let outputs = run(&self.program.head, self.weights, &mut self.states, &inputs)?;
        Ok(outputs[0].as_f32().to_vec())
    }
}

/// Run-time inputs of one graph.
pub struct Inputs<'a> {
    pub tokens: Option<Tensor<'a>>,
    pub hidden: Option<Tensor<'a>>,
    pub pos: u32,
    pub valid: u32,
}

/// Runs one graph and returns its outputs. Values are dropped after their last reader.
pub fn run<'a>(
    graph: &Graph,
    weights: &'a dyn WeightStore,
    states: &mut [Tensor<'a>],
    inputs: &Inputs<'a>,
) -> Result<Vec<Tensor<'a>>, WeightError> {
    let order = graph.order();
    let mut last_reader: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    for &node in &order {
        for operand in graph.operands(node) {
            last_reader.insert(operand.node, node);
        }
    }
    let mut values: BTreeMap<NodeId, Vec<Tensor<'a>>> = BTreeMap::new();
    for &node in &order {
        let operands = graph.operands(node);
        let results = match graph.node(node).op {
            Op::Input(kind) => vec![input(kind, inputs)],
            Op::Weight(id) => vec![weights.tensor(id)?],
            // A state is moved through its one writer; attention reads the written value.
            Op::State(id) => vec![std::mem::replace(&mut states[id.0 as usize], Tensor::u32(&[0], vec![]))],
            Op::KvWrite => {
                let mut cache = values.get_mut(&operands[0].node).expect("operands come first").swap_remove(0);
                let rows = &values[&operands[1].node][operands[1].result];
                kv_write::write(&mut cache, rows, inputs.pos, inputs.valid);
                vec![cache]
            }
            op => {
                let read: Vec<_> = operands.iter().map(|v| &values[&v.node][v.result]).collect();
                op.eval(&read)
            }
        };
        values.insert(node, results);
        for operand in operands {
            let done = last_reader.get(&operand.node) == Some(&node);
            if done && !graph.outputs.iter().any(|o| o.node == operand.node) {
                restore_state(graph, operand.node, &mut values, states);
            }
        }
    }
    let outputs = graph.outputs.iter().map(|v| values[&v.node][v.result].clone()).collect();
    for &node in &order {
        restore_state(graph, node, &mut values, states);
    }
    Ok(outputs)
}

/// Drops a finished value; a finished cache goes back to its state slot.
fn restore_state<'a>(
    graph: &Graph,
    node: NodeId,
    values: &mut BTreeMap<NodeId, Vec<Tensor<'a>>>,
    states: &mut [Tensor<'a>],
) {
    let Some(mut results) = values.remove(&node) else { return };
    if graph.node(node).op == Op::KvWrite {
        let source = graph.operands(node)[0].node;
        if let Op::State(id) = graph.node(source).op {
            states[id.0 as usize] = results.swap_remove(0);
        }
    }
}

fn input<'a>(kind: InputKind, inputs: &Inputs<'a>) -> Tensor<'a> {
    match kind {
        InputKind::Tokens => inputs.tokens.clone().expect("a body graph is given tokens"),
        InputKind::Hidden => inputs.hidden.clone().expect("a head graph is given a hidden row"),
        InputKind::Pos => Tensor::u32(&[1], vec![inputs.pos]),
        InputKind::Valid => Tensor::u32(&[1], vec![inputs.valid]),
    }
}
