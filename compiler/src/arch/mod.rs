//! Model families: one file each says what a family adds to the decoder that all of them share.
//!
//! A family is chosen by `architectures[0]` alone: `model_type` is shared by families that compute different things.

mod bitnet;
mod bitnet_old;
pub mod build;
mod graph;
pub(crate) mod layout;
mod llama;
mod minicpm;
mod qwen3;
mod rope;
mod weights;

pub use self::build::{BuildError, BuildOptions, build};
pub use self::weights::ModelWeights;

use tcc_ir::ops::Act;

use crate::load::config::Config;
use crate::load::error::LoadError;

/// What distinguishes a family's decoder; the base is Llama's.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Gate of the feed-forward block where the configuration names none.
    pub act: Act,
    /// Norms in front of the attention's and the feed-forward block's last linear, as named inside a layer.
    pub sub_norms: Option<SubNorms>,
    /// Queries and keys are normalized per head.
    pub qk_norm: bool,
    /// Float weights are masters, to be rounded to ternary, without the configuration saying so.
    pub masters: bool,
    pub scalars: Scalars,
}

/// Names of a layer's inner norms, without `.weight`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubNorms {
    pub attn: &'static str,
    pub ffn: &'static str,
}

/// Constant factors of the residual stream; all of them fold into neighbouring scales.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scalars {
    /// On embedded rows.
    pub embed: f32,
    /// On what each branch adds to the residual stream.
    pub branch: f32,
    /// On the rows that the head reads.
    pub head: f32,
}

impl Family {
    /// Llama's decoder, which the others vary.
    fn llama() -> Self {
        Family {
            act: Act::Silu,
            sub_norms: None,
            qk_norm: false,
            masters: false,
            scalars: Scalars { embed: 1.0, branch: 1.0, head: 1.0 },
        }
    }
}

/// A class name of `architectures` and how its configuration gives the family.
struct Architecture {
    name: &'static str,
    family: fn(&Config) -> Result<Family, LoadError>,
}

/// The supported architectures. Note the two spellings of BitNet: they are different models.
const ARCHITECTURES: [Architecture; 5] = [
    Architecture { name: "BitNetForCausalLM", family: bitnet::family },
    Architecture { name: "BitnetForCausalLM", family: bitnet_old::family },
    Architecture { name: "LlamaForCausalLM", family: llama::family },
    Architecture { name: "MiniCPMForCausalLM", family: minicpm::family },
    Architecture { name: "Qwen3ForCausalLM", family: qwen3::family },
];

/// The family that `config` names.
pub(crate) fn family(config: &Config) -> Result<Family, LoadError> {
    match ARCHITECTURES.iter().find(|a| a.name == config.architecture) {
        Some(architecture) => (architecture.family)(config),
        None => {
            let known: Vec<_> = ARCHITECTURES.iter().map(|a| a.name).collect();
            Err(config.keys.unknown("architectures", &config.architecture, &known))
        }
    }
}
