//! Model to program: the graphs for 1, 8 and `prefill` token rows and the head, over shared weights and caches.

use std::collections::BTreeSet;

use thiserror::Error;

use tcc_ir::attention_codes::{MOST_ELEMENTS, MOST_POSITIONS};
use tcc_ir::coded::RowCode;
use tcc_ir::ops::TypeError;
use tcc_ir::ops::kv_write::CACHE_TYPES;
use tcc_ir::program::{ModelFacts, Program, StateDecl, StateId, WeightId};
use tcc_ir::ty::{DType, ValueType};
use tcc_ir::verify::{self, VerifyError};

use super::graph::{self, Decoder, Layer};
use super::weights::ModelWeights;
use super::{layout, rope};
use crate::load::error::LoadError;
use crate::model::{Model, TableRef};

/// Context of a model that allows more, unless the user asks for it: caches cost memory.
const DEFAULT_CTX: usize = 4096;

/// Token rows of the small batch, between decode and prefill.
const SMALL_BATCH: usize = 8;

/// Largest accepted number of token rows of a graph.
const MAX_PREFILL: usize = 4096;

/// Token rows of the largest graph unless the user says otherwise: what the widest kernels take at once.
pub const DEFAULT_PREFILL: usize = 64;

/// Choices of the user about the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildOptions {
    /// Positions of the caches; by default the model's own limit, but at most 4096.
    pub ctx: Option<usize>,
    /// Token rows of the largest graph; more than `ctx` counts as `ctx`.
    pub prefill: usize,
    /// Element type of the caches, one of [`CACHE_TYPES`].
    pub kv: DType,
    /// How the rows of the head, and of an embedding that is the same table, are stored where that may be lossy.
    pub head: Option<RowCode>,
}

impl Default for BuildOptions {
    fn default() -> Self {
        BuildOptions { ctx: None, prefill: DEFAULT_PREFILL, kv: DType::F16, head: None }
    }
}

/// Why no program could be built.
#[derive(Debug, Error)]
pub enum BuildError {
    #[error("a context of {found} positions was asked for, expected 1 to {max}, the model's max_position_embeddings")]
    Context { found: usize, max: usize },
    #[error("a prefill of {found} token rows was asked for, expected 1 to {MAX_PREFILL}")]
    Prefill { found: usize },
    #[error("a cache of {found} was asked for, expected f32, f16 or q8")]
    Cache { found: DType },
    #[error(
        "an int8 cache of {positions} positions of {elements} elements a head was asked for, expected at most \
         {MOST_POSITIONS} of at most {MOST_ELEMENTS}: sums of more codes could overflow"
    )]
    CodedCache { positions: usize, elements: usize },
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("the builder made an op that its operands do not fit: {0}")]
    Type(#[from] TypeError),
    #[error("the builder made a program that does not verify: {0}")]
    Verify(#[from] VerifyError),
}

impl BuildError {
    /// The code that `tcc explain` knows.
    pub fn code(&self) -> &'static str {
        match self {
            BuildError::Context { .. } => "TCC-E0231",
            BuildError::Prefill { .. } => "TCC-E0232",
            BuildError::Cache { .. } => "TCC-E0233",
            BuildError::CodedCache { .. } => "TCC-E0235",
            BuildError::Load(error) => error.code(),
            BuildError::Type(_) | BuildError::Verify(_) => "TCC-E0234",
        }
    }

    /// What the user can do about it, where there is a general answer.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            BuildError::Context { .. } => {
                Some("ask for a shorter context; positions past the limit were never trained")
            }
            BuildError::CodedCache { .. } => Some("keep the cache as f16 (--kv f16), or ask for a shorter context"),
            BuildError::Load(error) => error.help(),
            BuildError::Prefill { .. } | BuildError::Cache { .. } => None,
            BuildError::Type(_) | BuildError::Verify(_) => Some("this is a bug in tcc; please report it"),
        }
    }
}

/// Builds the program of `model` and the store that supplies its weights.
pub fn build<'m>(model: &'m Model, options: &BuildOptions) -> Result<(Program, ModelWeights<'m>), BuildError> {
    let config = &model.config;
    let ctx = options.ctx.unwrap_or(config.max_position.min(DEFAULT_CTX));
    if ctx == 0 || ctx > config.max_position {
        return Err(BuildError::Context { found: ctx, max: config.max_position });
    }
    if !(1..=MAX_PREFILL).contains(&options.prefill) {
        return Err(BuildError::Prefill { found: options.prefill });
    }
    if !CACHE_TYPES.contains(&options.kv) {
        return Err(BuildError::Cache { found: options.kv });
    }
    if options.kv == DType::Q8 && (ctx > MOST_POSITIONS || config.head_dim > MOST_ELEMENTS) {
        return Err(BuildError::CodedCache { positions: ctx, elements: config.head_dim });
    }
    let mut weights = ModelWeights::new(model);
    let decoder = Decoder { head_code: options.head, ..decoder(model, &mut weights, ctx, options.kv)? };
    let prefill = options.prefill.min(ctx);
    let rows = BTreeSet::from([1, SMALL_BATCH.min(prefill), prefill]);
    let bodies = rows.into_iter().map(|m| graph::body(&decoder, &weights, m)).collect::<Result<_, _>>()?;
    let head = graph::head(&decoder, &weights)?;
    let facts = ModelFacts {
        vocab: config.vocab,
        hidden: config.hidden,
        layers: config.layers,
        ctx,
        kv: options.kv,
        bos: model.generation.bos,
        eos: model.generation.eos.clone(),
    };
    let program = Program { facts, weights: weights.declarations(), states: decoder.states, bodies, head };
    verify::program(&program)?;
    Ok((program, weights))
}

/// Declares everything that the graphs of `model` read.
fn decoder(model: &Model, weights: &mut ModelWeights, ctx: usize, kv: DType) -> Result<Decoder, LoadError> {
    let (config, family) = (&model.config, &model.family);
    let table = [config.vocab, config.hidden];
    let embedding = weights.matrix(layout::EMBEDDING, table)?;
    let rope = weights.rope(rope::tables(config, ctx), ctx, config.head_dim / 2);
    let mut states = Vec::new();
    let cache = ValueType::new(kv, &[config.kv_heads, ctx, config.head_dim]);
    let layers = (0..config.layers).map(|index| layer(model, weights, index, &cache, &mut states));
    let layers = layers.collect::<Result<_, _>>()?;
    let final_norm = weights.vector(layout::FINAL_NORM.into(), config.hidden, family.scalars.head);
    let head = match model.head {
        TableRef::Embedding => embedding,
        TableRef::Head => weights.matrix(layout::HEAD, table)?,
    };
    Ok(Decoder {
        hidden: config.hidden,
        heads: config.heads,
        head_dim: config.head_dim,
        act: config.act.unwrap_or(family.act),
        eps: config.eps,
        embed_scale: family.scalars.embed,
        embedding,
        rope,
        layers,
        final_norm,
        head,
        head_code: None,
        states,
    })
}

fn layer(
    model: &Model,
    weights: &mut ModelWeights,
    index: usize,
    cache: &ValueType,
    states: &mut Vec<StateDecl>,
) -> Result<Layer, LoadError> {
    let (config, family) = (&model.config, &model.family);
    let prefix = layout::layer_prefix(index);
    let norm = |weights: &mut ModelWeights, name: &str, length: usize| -> WeightId {
        weights.vector(format!("{prefix}{name}.weight"), length, 1.0)
    };
    let linear =
        |weights: &mut ModelWeights, name: &str, factor: f32| weights.linear(&format!("{prefix}{name}"), factor);
    let mut state = |name: &str| {
        // Two for each layer, of which there are at most 4096.
        let id = StateId(states.len() as u32);
        states.push(StateDecl { name: format!("L{index:02}.{name}"), ty: cache.clone() });
        id
    };
    let attention = config.heads * config.head_dim;
    let branch = family.scalars.branch;
    Ok(Layer {
        attn_norm: norm(weights, "input_layernorm", config.hidden),
        q: linear(weights, "self_attn.q_proj", 1.0)?,
        k: linear(weights, "self_attn.k_proj", 1.0)?,
        v: linear(weights, "self_attn.v_proj", 1.0)?,
        qk_norm: family
            .qk_norm
            .then(|| ["self_attn.q_norm", "self_attn.k_norm"].map(|name| norm(weights, name, config.head_dim))),
        k_cache: state("k_cache"),
        v_cache: state("v_cache"),
        attn_sub_norm: family.sub_norms.map(|names| norm(weights, names.attn, attention)),
        o: linear(weights, "self_attn.o_proj", branch)?,
        ffn_norm: norm(weights, "post_attention_layernorm", config.hidden),
        gate: linear(weights, "mlp.gate_proj", 1.0)?,
        up: linear(weights, "mlp.up_proj", 1.0)?,
        ffn_sub_norm: family.sub_norms.map(|names| norm(weights, names.ffn, config.inter)),
        down: linear(weights, "mlp.down_proj", branch)?,
    })
}
