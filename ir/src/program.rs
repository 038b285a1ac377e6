//! A model as static graphs over shared weights and state.

use crate::graph::Graph;
use crate::tensor::Tensor;
use crate::ty::{DType, ValueType};

/// Index into [`Program::weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub u32);

/// Index into [`Program::states`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateId(pub u32);

/// A constant of the model. Its data is supplied by a [`WeightStore`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightDecl {
    pub name: String,
    pub ty: ValueType,
}

/// A buffer that lives from call to call: one KV cache, `[kv_heads, ctx, head_dim]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDecl {
    pub name: String,
    pub ty: ValueType,
}

/// Facts about the model that the object's interface states.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFacts {
    pub vocab: usize,
    pub hidden: usize,
    pub layers: usize,
    pub ctx: usize,
    pub kv: DType,
    /// Begin-of-sequence token, where the model has one.
    pub bos: Option<u32>,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
}

/// One graph per number of token rows, over the same weights and states.
///
/// **Invariant:** no model family and no file format shows here.
#[derive(Clone, Debug)]
pub struct Program {
    pub facts: ModelFacts,
    pub weights: Vec<WeightDecl>,
    pub states: Vec<StateDecl>,
    /// `(tokens, pos, valid) → hidden f32[m, hidden]`, ascending in m; the first is decode (m = 1).
    pub bodies: Vec<Graph>,
    /// `hidden f32[1, hidden] → logits f32[1, vocab]`.
    pub head: Graph,
}

impl Program {
    pub fn weight(&self, id: WeightId) -> &WeightDecl {
        &self.weights[id.0 as usize]
    }

    pub fn state(&self, id: StateId) -> &StateDecl {
        &self.states[id.0 as usize]
    }

    /// Every graph: the bodies, then the head.
    pub fn graphs(&self) -> impl Iterator<Item = &Graph> {
        self.bodies.iter().chain(std::iter::once(&self.head))
    }

    /// Every graph, mutably.
    pub fn graphs_mut(&mut self) -> impl Iterator<Item = &mut Graph> {
        self.bodies.iter_mut().chain(std::iter::once(&mut self.head))
    }

    /// The largest number of token rows of a body.
    pub fn prefill(&self) -> usize {
        self.bodies.last().map_or(1, |g| g.m)
    }
}

/// Supplies the data of weights, tensor by tensor, so that no model needs to fit in memory.
pub trait WeightStore: Sync {
    /// The tensor declared as `id`; its type equals the declaration's.
    fn tensor(&self, id: WeightId) -> Result<Tensor<'_>, WeightError>;
}

/// A weight could not be read.
#[derive(Debug, thiserror::Error)]
#[error("weight '{name}': {reason}")]
pub struct WeightError {
    pub name: String,
    pub reason: String,
}
