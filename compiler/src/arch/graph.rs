//! The naive graphs of a decoder: every op on its own, one quantization per linear. Passes share and fuse.

use std::collections::BTreeMap;

use tcc_ir::coded::RowCode;
use tcc_ir::graph::{Graph, ValueId};
use tcc_ir::ops::{Act, InputKind, Op, TypeError};
use tcc_ir::program::{StateDecl, StateId, WeightId};
use tcc_ir::ty::{DType, ValueType};

use super::weights::{Form, LinearWeights, ModelWeights};

/// What every graph of one model has in common.
pub(super) struct Decoder {
    pub hidden: usize,
    pub heads: usize,
    pub head_dim: usize,
    pub act: Act,
    pub eps: f32,
    pub embed_scale: f32,
    pub embedding: WeightId,
    /// Cosines and sines.
    pub rope: [WeightId; 2],
    pub layers: Vec<Layer>,
    pub final_norm: WeightId,
    pub head: WeightId,
    pub head_code: Option<RowCode>,
    pub states: Vec<StateDecl>,
}

/// Weights and states of one layer.
pub(super) struct Layer {
    pub attn_norm: WeightId,
    pub q: LinearWeights,
    pub k: LinearWeights,
    pub v: LinearWeights,
    /// Norms per head of queries and keys.
    pub qk_norm: Option<[WeightId; 2]>,
    pub k_cache: StateId,
    pub v_cache: StateId,
    pub attn_sub_norm: Option<WeightId>,
    pub o: LinearWeights,
    pub ffn_norm: WeightId,
    pub gate: LinearWeights,
    pub up: LinearWeights,
    pub ffn_sub_norm: Option<WeightId>,
    pub down: LinearWeights,
}

impl Decoder {
    /// The embedding reads the head's codes where it is the same table: one is stored.
    fn embed(&self) -> Op {
        let scale = self.embed_scale;
        match self.head_code {
            Some(code) if self.embedding == self.head => Op::CodedEmbed { scale, code },
            Some(_) | None => Op::Embed { scale },
        }
    }
}

/// The body for `m` token rows: `(tokens, pos, valid) → hidden [m, hidden]`.
pub(super) fn body(decoder: &Decoder, weights: &ModelWeights, m: usize) -> Result<Graph, TypeError> {
    let name = if m == 1 { "decode".to_owned() } else { format!("prefill{m}") };
    let mut cx = Builder::new(decoder, weights, Graph::new(name, m));
    let tokens = cx.input(InputKind::Tokens, &[m], "tokens");
    let pos = cx.input(InputKind::Pos, &[1], "pos");
    let valid = cx.input(InputKind::Valid, &[1], "valid");
    let table = cx.weight(decoder.embedding);
    let mut x = cx.graph.push(decoder.embed(), &[tokens, table], "embed")?;
    for (index, layer) in decoder.layers.iter().enumerate() {
        cx.prefix = format!("L{index:02}.");
        let branch = cx.attention(layer, x, pos, valid)?;
        x = cx.op(Op::Add, &[x, branch], "attn_add")?;
        let branch = cx.feed_forward(layer, x)?;
        x = cx.op(Op::Add, &[x, branch], "ffn_add")?;
    }
    cx.graph.outputs.push(x);
    Ok(cx.graph)
}

/// The head: `hidden [1, hidden] → logits [1, vocab]`.
pub(super) fn head(decoder: &Decoder, weights: &ModelWeights) -> Result<Graph, TypeError> {
    let mut cx = Builder::new(decoder, weights, Graph::new("head", 1));
    let ty = ValueType::f32(&[1, decoder.hidden]);
    let hidden = cx.graph.leaf(Op::Input(InputKind::Hidden), ty, "hidden");
    let x = cx.norm(decoder.final_norm, decoder.eps, hidden, "final_norm")?;
    let table = cx.weight(decoder.head);
    let product = match decoder.head_code {
        Some(code) => Op::CodedLinear { code },
        None => Op::DenseLinear { scale: 1.0, bias: false, residual: false },
    };
    let logits = cx.op(product, &[x, table], "head")?;
    cx.graph.outputs.push(logits);
    Ok(cx.graph)
}

/// A graph being built: one leaf for each weight, labels prefixed with the layer.
struct Builder<'b> {
    decoder: &'b Decoder,
    weights: &'b ModelWeights<'b>,
    graph: Graph,
    leaves: BTreeMap<WeightId, ValueId>,
    prefix: String,
}

impl<'b> Builder<'b> {
    fn new(decoder: &'b Decoder, weights: &'b ModelWeights<'b>, graph: Graph) -> Self {
        Builder { decoder, weights, graph, leaves: BTreeMap::new(), prefix: String::new() }
    }

    fn op(&mut self, op: Op, operands: &[ValueId], label: &str) -> Result<ValueId, TypeError> {
        self.graph.push(op, operands, format!("{}{label}", self.prefix))
    }

    fn input(&mut self, kind: InputKind, shape: &[usize], label: &str) -> ValueId {
        self.graph.leaf(Op::Input(kind), ValueType::new(DType::U32, shape), label)
    }

    fn weight(&mut self, id: WeightId) -> ValueId {
        let (graph, decl) = (&mut self.graph, self.weights.declaration(id));
        *self.leaves.entry(id).or_insert_with(|| graph.leaf(Op::Weight(id), decl.ty.clone(), &decl.name))
    }

    fn state(&mut self, id: StateId) -> ValueId {
        let decl = &self.decoder.states[id.0 as usize];
        self.graph.leaf(Op::State(id), decl.ty.clone(), &decl.name)
    }

    fn norm(&mut self, weight: WeightId, eps: f32, x: ValueId, label: &str) -> Result<ValueId, TypeError> {
        let w = self.weight(weight);
        self.op(Op::RmsNorm { eps }, &[x, w], label)
    }

    /// A norm that only some families have.
    fn optional_norm(&mut self, weight: Option<WeightId>, x: ValueId, label: &str) -> Result<ValueId, TypeError> {
        weight.map_or(Ok(x), |weight| self.norm(weight, self.decoder.eps, x, label))
    }

    /// `linear x`, with its own norm and quantization where it has them.
    fn linear(&mut self, linear: &LinearWeights, x: ValueId, label: &str) -> Result<ValueId, TypeError> {
        let x = match linear.norm {
            Some((weight, eps)) => self.norm(weight, eps, x, &format!("{label}.norm"))?,
            None => x,
        };
        let weight = self.weight(linear.weight);
        let (bias, residual) = (linear.bias.is_some(), false);
        let (op, mut operands) = match linear.form {
            Form::Int8 { scale } => {
                let label = format!("{}{label}.quant", self.prefix);
                let node = self.graph.add(Op::QuantizeAct, &[x], label)?;
                let [codes, act_scale] = [0, 1].map(|result| ValueId { node, result });
                (Op::TernaryLinear { bias, residual }, vec![codes, act_scale, weight, self.weight(scale)])
            }
            Form::Float { scale } => (Op::FloatTernaryLinear { bias, residual }, vec![x, weight, self.weight(scale)]),
            Form::Dense { factor } => (Op::DenseLinear { scale: factor, bias, residual }, vec![x, weight]),
        };
        if let Some(bias) = linear.bias {
            operands.push(self.weight(bias));
        }
        self.op(op, &operands, label)
    }

    fn rope(&mut self, x: ValueId, pos: ValueId, label: &str) -> Result<ValueId, TypeError> {
        let [cos, sin] = self.decoder.rope.map(|table| self.weight(table));
        self.op(Op::Rope, &[x, cos, sin, pos], label)
    }

    /// The attention branch of `layer` on the residual stream `x`.
    fn attention(&mut self, layer: &Layer, x: ValueId, pos: ValueId, valid: ValueId) -> Result<ValueId, TypeError> {
        let h = self.norm(layer.attn_norm, self.decoder.eps, x, "attn_norm")?;
        let mut q = self.linear(&layer.q, h, "q")?;
        let mut k = self.linear(&layer.k, h, "k")?;
        let v = self.linear(&layer.v, h, "v")?;
        if let Some([q_norm, k_norm]) = layer.qk_norm {
            q = self.norm(q_norm, self.decoder.eps, q, "q_norm")?;
            k = self.norm(k_norm, self.decoder.eps, k, "k_norm")?;
        }
        let q = self.rope(q, pos, "q_rope")?;
        let k = self.rope(k, pos, "k_rope")?;
        let (k_cache, v_cache) = (self.state(layer.k_cache), self.state(layer.v_cache));
        let k_cache = self.op(Op::KvWrite, &[k_cache, k, pos, valid], "k_write")?;
        let v_cache = self.op(Op::KvWrite, &[v_cache, v, pos, valid], "v_write")?;
        let scale = 1.0 / libm::sqrt(self.decoder.head_dim as f64);
        // One rounding, of the quotient.
        let attention = Op::Attention { heads: self.decoder.heads, scale: scale as f32 };
        let a = self.op(attention, &[q, k_cache, v_cache, pos], "attention")?;
        let a = self.optional_norm(layer.attn_sub_norm, a, "attn_sub_norm")?;
        self.linear(&layer.o, a, "attn_out")
    }

    /// The feed-forward branch of `layer` on the residual stream `x`.
    fn feed_forward(&mut self, layer: &Layer, x: ValueId) -> Result<ValueId, TypeError> {
        let h = self.norm(layer.ffn_norm, self.decoder.eps, x, "ffn_norm")?;
        let gate = self.linear(&layer.gate, h, "ffn_gate")?;
        let up = self.linear(&layer.up, h, "ffn_up")?;
        let h = self.op(Op::Glu { act: self.decoder.act }, &[gate, up], "ffn_act")?;
        let h = self.optional_norm(layer.ffn_sub_norm, h, "ffn_sub_norm")?;
        self.linear(&layer.down, h, "ffn_down")
    }
}
