//! MiniCPM4, BitCPM4, BitCPM-CANN: Llama with three scalars.
//!
//! `x = scale_emb · embed`, each branch adds `scale_depth / sqrt(layers)` times its result, and the head reads
//! `x / (hidden / dim_model_base)`. Source: arXiv:2404.06395, section 3, and `modeling_minicpm.py`.

use super::{Family, Scalars};
use crate::load::config::Config;
use crate::load::error::LoadError;

pub(super) fn family(config: &Config) -> Result<Family, LoadError> {
    let keys = &config.keys;
    if let Some(experts) = keys.get("num_experts").filter(|n| n.as_u64() != Some(0)) {
        return Err(keys.wrong("num_experts", experts, "0 or no such key: mixtures of experts are not supported"));
    }
    let embed = keys.required_number("scale_emb", 1e-3..=1e4)?;
    let depth = keys.required_number("scale_depth", 1e-3..=1e4)?;
    let base = keys.required_number("dim_model_base", 1.0..=1e7)?;
    // Each scalar is rounded to f32 once, here: from now on it is part of the model.
    let scalars = Scalars {
        embed: embed as f32,
        branch: (depth / (config.layers as f64).sqrt()) as f32,
        head: (base / config.hidden as f64) as f32,
    };
    Ok(Family { scalars, ..Family::llama() })
}
