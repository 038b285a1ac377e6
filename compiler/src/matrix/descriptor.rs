//! What an object for a matrix unit says about itself: section `tcc_descriptor`, one JSON object.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Body, MatrixModel};
use crate::driver::VERSION;
use crate::golden;

/// First field of the descriptor.
pub const FORMAT: &str = "tcc-matrix";
/// Version of the descriptor and of the sections' meaning.
pub const FORMAT_VERSION: u32 = 1;

/// Numbers of a model, and the sections of its programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Descriptor {
    /// [`FORMAT`].
    pub format: String,
    /// [`FORMAT_VERSION`].
    pub version: u32,
    pub name: String,
    /// Version of the compiler.
    pub tcc: String,
    pub hidden: usize,
    pub vocab: usize,
    pub ctx: usize,
    /// Name of the machine description in its own section, and its SHA-256.
    pub machine: String,
    pub machine_sha256: Digest,
    pub weights_bytes: u64,
    pub weights_sha256: Digest,
    /// Ascending in token rows.
    pub bodies: Vec<Entry>,
    pub head: Entry,
    pub golden: Option<Golden>,
}

/// One program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub section: String,
    /// Token rows.
    pub m: usize,
    /// Bytes of weights that a run reads at least.
    pub weights_bytes: u64,
}

/// Tokens whose logits are known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    pub tokens: Vec<u32>,
    /// SHA-256 of their logits, f32 little-endian.
    pub sha256: Digest,
}

/// A SHA-256, as hexadecimal digits in JSON.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&golden::hex(&self.0))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&golden::hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(d)?;
        let error = || serde::de::Error::custom("a SHA-256 has 64 hexadecimal digits");
        if text.len() != 64 || !text.is_ascii() {
            return Err(error());
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| error())?;
        }
        Ok(Digest(bytes))
    }
}

/// The section of a program.
pub fn program_section(body: &Body) -> String {
    format!("tcc_program_{}", body.program.name)
}

impl Descriptor {
    /// The descriptor of `model` under `name`, whose weights have `weights_bytes` bytes and this SHA-256.
    pub fn new(
        name: &str,
        model: &MatrixModel,
        (weights_bytes, weights_sha256): (u64, [u8; 32]),
        golden: Option<Golden>,
    ) -> Descriptor {
        let entry =
            |body: &Body| Entry { section: program_section(body), m: body.m, weights_bytes: body.weights_bytes };
        Descriptor {
            format: FORMAT.into(),
            version: FORMAT_VERSION,
            name: name.into(),
            tcc: VERSION.into(),
            hidden: model.hidden,
            vocab: model.vocab,
            ctx: model.ctx,
            machine: model.machine.name.clone(),
            machine_sha256: Digest(model.machine.digest()),
            weights_bytes,
            weights_sha256: Digest(weights_sha256),
            bodies: model.bodies.iter().map(entry).collect(),
            head: entry(&model.head),
            golden,
        }
    }

    /// The programs' entries, the head's last.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.bodies.iter().chain([&self.head])
    }
}
