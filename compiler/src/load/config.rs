//! `config.json` and `generation_config.json` as typed, checked numbers.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::Value;
use tcc_ir::ops::Act;

use super::checkpoint::read_json;
use super::error::LoadError;
use super::keys::Keys;
use super::rope::Rope;

// Bounds far above every published model. They keep products of two sizes inside a u64, and int8 dot products of
// the longest rows inside an i32: 2^22 · 127 < 2^31.
const WIDTHS: RangeInclusive<usize> = 1..=1 << 22;
const HEADS: RangeInclusive<usize> = 1..=1 << 14;
const LAYERS: RangeInclusive<usize> = 1..=1 << 12;
const VOCABULARIES: RangeInclusive<usize> = 1..=1 << 24;
const POSITIONS: RangeInclusive<usize> = 1..=1 << 27;
const EPSILONS: RangeInclusive<f64> = 1e-12..=1.0;

/// The configuration, independent of its spelling. Sizes are elements, counts are numbers of things.
#[derive(Clone, Debug)]
pub struct Config {
    /// `architectures[0]`.
    pub architecture: String,
    pub hidden: usize,
    pub inter: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocab: usize,
    pub max_position: usize,
    pub eps: f32,
    /// Gate of the feed-forward block, where the configuration names one.
    pub act: Option<Act>,
    /// `tie_word_embeddings`; absent, the presence of a head decides.
    pub tied: Option<bool>,
    pub rope: Rope,
    pub quantization: Option<Quantization>,
    /// All keys, for what only one family has.
    pub keys: Keys,
}

/// `quantization_config`: how packed weights are meant.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantization {
    /// `linear_class` is `bitlinear`: the stored scale divides.
    pub divides: bool,
    /// `quantization_mode` is `online`: the weights are float masters.
    pub online: bool,
    /// Epsilon of the norm in front of each linear, where there is one.
    pub norm_eps: Option<f32>,
    /// Linears that stay float: full names, prefixes or suffixes of them.
    pub skipped: Vec<String>,
}

impl Quantization {
    /// True if `linear` (a full name) is excluded from quantization.
    pub fn skips(&self, linear: &str) -> bool {
        let dotted = format!(".{linear}.");
        self.skipped.iter().any(|skipped| !skipped.is_empty() && dotted.contains(&format!(".{skipped}.")))
    }
}

/// `generation_config.json` and the tokens that both files name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generation {
    pub bos: Option<u32>,
    /// Union of both files' `eos_token_id`, ascending.
    pub eos: Vec<u32>,
    pub do_sample: Option<bool>,
    pub temperature: Option<f64>,
    pub top_k: Option<usize>,
    pub top_p: Option<f64>,
}

/// Reads `folder`/config.json; repeated keys are named in `warnings`.
pub(crate) fn read(folder: &Path, warnings: &mut Vec<String>) -> Result<Config, LoadError> {
    let file = folder.join("config.json");
    let keys = read_keys(&file, warnings)?;
    let architecture = match keys.get("architectures") {
        Some(Value::Array(items)) => items.first().and_then(Value::as_str).map(str::to_owned),
        _ => None,
    };
    let architecture =
        architecture.ok_or_else(|| keys.absent_key("architectures", "a list with the model's class name"))?;
    let hidden = keys.required("hidden_size", WIDTHS)?;
    let (heads, kv_heads, head_dim) = attention_sizes(&keys, hidden)?;
    if keys.bool("use_sliding_window")? == Some(true) {
        return Err(keys.wrong("use_sliding_window", &true.into(), "false: attention sees the whole context"));
    }
    // The bound makes the narrowing a rounding, never an overflow.
    let eps = keys.required_number("rms_norm_eps", EPSILONS)? as f32;
    Ok(Config {
        architecture,
        hidden,
        inter: keys.required("intermediate_size", WIDTHS)?,
        layers: keys.required("num_hidden_layers", LAYERS)?,
        heads,
        kv_heads,
        head_dim,
        vocab: keys.required("vocab_size", VOCABULARIES)?,
        max_position: keys.required("max_position_embeddings", POSITIONS)?,
        eps,
        act: act(&keys)?,
        tied: keys.bool("tie_word_embeddings")?,
        rope: Rope::read(&keys, head_dim / 2, *POSITIONS.end())?,
        quantization: quantization(&keys)?,
        keys,
    })
}

/// Reads `folder`/generation_config.json, if there is one, and joins its tokens with those of `config`.
pub(crate) fn read_generation(
    folder: &Path,
    config: &Config,
    warnings: &mut Vec<String>,
) -> Result<Generation, LoadError> {
    let file = folder.join("generation_config.json");
    let keys = if file.is_file() { read_keys(&file, warnings)? } else { Keys::absent(&file) };
    let union = |key: &str| -> Result<Vec<u32>, LoadError> {
        let ids = [config.keys.tokens(key, config.vocab)?, keys.tokens(key, config.vocab)?];
        Ok(ids.concat())
    };
    Ok(Generation {
        bos: union("bos_token_id")?.first().copied(),
        eos: union("eos_token_id")?.into_iter().collect::<BTreeSet<_>>().into_iter().collect(),
        do_sample: keys.bool("do_sample")?,
        temperature: keys.number("temperature", 0.0..=1e3)?,
        top_k: keys.count("top_k", 0..=*VOCABULARIES.end())?,
        top_p: keys.number("top_p", 0.0..=1.0)?,
    })
}

fn read_keys(file: &Path, warnings: &mut Vec<String>) -> Result<Keys, LoadError> {
    let document = read_json(file)?;
    for key in document.duplicates {
        warnings.push(format!("'{}': key '{key}' occurs more than once; the last one counts", file.display()));
    }
    Keys::new(file, document.value)
}

/// Heads, KV heads and the size of a head.
fn attention_sizes(keys: &Keys, hidden: usize) -> Result<(usize, usize, usize), LoadError> {
    let heads = keys.required("num_attention_heads", HEADS)?;
    let kv_heads = keys.count("num_key_value_heads", HEADS)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        return Err(keys.wrong("num_key_value_heads", &kv_heads.into(), &format!("a divisor of {heads} heads")));
    }
    let head_dim = match keys.count("head_dim", WIDTHS)? {
        Some(head_dim) => head_dim,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            let expected = format!("a divisor of hidden_size {hidden}, as there is no head_dim");
            return Err(keys.wrong("num_attention_heads", &heads.into(), &expected));
        }
    };
    if !head_dim.is_multiple_of(2) {
        return Err(keys.wrong("head_dim", &head_dim.into(), "an even number: positions rotate pairs"));
    }
    if heads * head_dim > *WIDTHS.end() {
        let expected = format!("at most {} elements in all heads together", WIDTHS.end());
        return Err(keys.wrong("head_dim", &head_dim.into(), &expected));
    }
    Ok((heads, kv_heads, head_dim))
}

fn act(keys: &Keys) -> Result<Option<Act>, LoadError> {
    match keys.string("hidden_act")? {
        None => Ok(None),
        Some("relu2") => Ok(Some(Act::Relu2)),
        Some("silu") => Ok(Some(Act::Silu)),
        Some(other) => Err(keys.unknown("hidden_act", other, &["relu2", "silu"])),
    }
}

fn quantization(keys: &Keys) -> Result<Option<Quantization>, LoadError> {
    let Some(q) = keys.object("quantization_config")? else { return Ok(None) };
    match q.string("quant_method")? {
        Some("bitnet") => {}
        other => return Err(q.unknown("quant_method", other.unwrap_or("missing"), &["bitnet"])),
    }
    let divides = match q.string("linear_class")? {
        None | Some("bitlinear") => true,
        Some("autobitlinear") => false,
        Some(other) => return Err(q.unknown("linear_class", other, &["bitlinear", "autobitlinear"])),
    };
    let online = match q.string("quantization_mode")? {
        None | Some("offline") => false,
        Some("online") => true,
        Some(other) => return Err(q.unknown("quantization_mode", other, &["offline", "online"])),
    };
    let norm_eps = match q.bool("use_rms_norm")? {
        Some(true) => Some(q.number("rms_norm_eps", EPSILONS)?.unwrap_or(1e-6) as f32),
        Some(false) | None => None,
    };
    let skipped = match q.get("modules_to_not_convert") {
        None => Vec::new(),
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(other) => return Err(q.wrong("modules_to_not_convert", other, "a list of names or null")),
    };
    Ok(Some(Quantization { divides, online, norm_eps, skipped }))
}
