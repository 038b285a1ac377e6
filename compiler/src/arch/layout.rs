//! Names and shapes of the tensors of a decoder, which all families share but for their norms.

use super::Family;
use crate::load::LinearSpec;
use crate::load::config::Config;

pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(crate) const HEAD: &str = "lm_head.weight";
pub(crate) const FINAL_NORM: &str = "model.norm.weight";

/// Tensors with this ending are buffers that old checkpoints carry; the compiler makes its own tables.
pub(crate) const UNUSED_SUFFIX: &str = ".rotary_emb.inv_freq";

/// Prefix of the tensors of layer `layer`.
pub(crate) fn layer_prefix(layer: usize) -> String {
    format!("model.layers.{layer}.")
}

/// The seven linears of every layer.
pub(crate) fn linears(config: &Config) -> Vec<LinearSpec> {
    let (hidden, inter) = (config.hidden, config.inter);
    let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let shapes = [
        ("self_attn.q_proj", q, hidden),
        ("self_attn.k_proj", kv, hidden),
        ("self_attn.v_proj", kv, hidden),
        ("self_attn.o_proj", hidden, q),
        ("mlp.gate_proj", inter, hidden),
        ("mlp.up_proj", inter, hidden),
        ("mlp.down_proj", hidden, inter),
    ];
    let layer = |layer| {
        let prefix = layer_prefix(layer);
        shapes.map(|(name, n, k)| LinearSpec { name: format!("{prefix}{name}"), n, k })
    };
    (0..config.layers).flat_map(layer).collect()
}

/// Every norm with its length.
pub(crate) fn norms(config: &Config, family: &Family) -> Vec<(String, usize)> {
    let mut shapes = vec![("input_layernorm", config.hidden), ("post_attention_layernorm", config.hidden)];
    if let Some(sub_norms) = family.sub_norms {
        shapes.extend([(sub_norms.attn, config.heads * config.head_dim), (sub_norms.ffn, config.inter)]);
    }
    if family.qk_norm {
        shapes.extend([("self_attn.q_norm", config.head_dim), ("self_attn.k_norm", config.head_dim)]);
    }
    let layer = |layer: usize| {
        let prefix = layer_prefix(layer);
        shapes.iter().map(move |(name, length)| (format!("{prefix}{name}.weight"), *length))
    };
    let last = (FINAL_NORM.to_owned(), config.hidden);
    (0..config.layers).flat_map(layer).chain([last]).collect()
}
