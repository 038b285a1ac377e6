//! BitNet b1.58 2B-4T: inner norms and a squared-ReLU gate. Source: arXiv:2504.12285 and the published model code.

use tcc_ir::ops::Act;

use super::{Family, SubNorms};
use crate::load::config::Config;
use crate::load::error::LoadError;

pub(super) fn family(_: &Config) -> Result<Family, LoadError> {
    let sub_norms = SubNorms { attn: "self_attn.attn_sub_norm", ffn: "mlp.ffn_sub_norm" };
    Ok(Family { act: Act::Relu2, sub_norms: Some(sub_norms), ..Family::llama() })
}
