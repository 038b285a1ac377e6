//! The canonical form of a description, and its digest.

use sha2::{Digest, Sha256};

use crate::isa::matrix::machine::Machine;

impl Machine {
    /// The description as TOML in canonical order, without comments; reads back to the same machine.
    pub fn canonical(&self) -> String {
        toml::to_string(self).expect("every field of a machine has a TOML form")
    }

    /// SHA-256 of [`Machine::canonical`].
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.canonical().as_bytes()).into()
    }
}
