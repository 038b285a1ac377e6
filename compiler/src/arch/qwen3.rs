//! Qwen3 (Bonsai): Llama with a norm on each head of queries and keys. Source: arXiv:2505.09388.

use super::Family;
use crate::load::config::Config;
use crate::load::error::LoadError;

pub(super) fn family(_: &Config) -> Result<Family, LoadError> {
    Ok(Family { qk_norm: true, ..Family::llama() })
}
