//! Llama and what is stored like it: Llama3-8B-1.58, Falcon3-1.58bit, Falcon-E (packed), TriLM (fake-quantized).

use super::Family;
use crate::load::config::Config;
use crate::load::error::LoadError;

pub(super) fn family(_: &Config) -> Result<Family, LoadError> {
    Ok(Family::llama())
}
