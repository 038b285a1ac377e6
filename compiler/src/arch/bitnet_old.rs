//! The first BitNet b1.58 reproductions (1bitLLM large, 3B): inner norms, a SiLU gate, master weights without a
//! quantization configuration. Source: arXiv:2402.17764 and the published model code.

use super::{Family, SubNorms};
use crate::load::config::Config;
use crate::load::error::LoadError;

pub(super) fn family(_: &Config) -> Result<Family, LoadError> {
    let sub_norms = SubNorms { attn: "self_attn.inner_attn_ln", ffn: "mlp.ffn_layernorm" };
    Ok(Family { sub_norms: Some(sub_norms), masters: true, ..Family::llama() })
}
