//! The code generator's settings for one target: what all functions of one image share.

use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use tcc_ir::target::Features;

use crate::code::EmitError;
use crate::isa::Backend;

/// A code generator configured for a backend and a set of CPU features.
pub struct ClifContext {
    pub(super) isa: OwnedTargetIsa,
    target: &'static str,
    has_vectors: bool,
}

/// Settings common to all targets. References to symbols are PC-relative because every name is declared colocated;
/// `is_pic` would send them through a global offset table instead.
const SETTINGS: &[(&str, &str)] = &[
    ("opt_level", "speed"),
    ("is_pic", "false"),
    ("enable_probestack", "false"),
    ("unwind_info", "false"),
    ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
];

impl ClifContext {
    /// Errors: a triple or flag of the backend that the code generator does not know.
    pub fn new(backend: &dyn Backend, features: Features) -> Result<Self, EmitError> {
        let target = backend.desc().name;
        let fail = |reason: String| EmitError::Codegen { function: format!("target {target}"), reason };
        let mut shared = settings::builder();
        for (name, value) in SETTINGS {
            shared.set(name, value).map_err(|e| fail(format!("setting '{name}': {e}")))?;
        }
        let mut builder = isa::lookup_by_name(backend.clif_triple()).map_err(|e| fail(e.to_string()))?;
        for flag in backend.clif_flags(features) {
            builder.enable(flag).map_err(|e| fail(format!("flag '{flag}': {e}")))?;
        }
        let isa = builder.finish(settings::Flags::new(shared)).map_err(|e| fail(e.to_string()))?;
        Ok(ClifContext { isa, target, has_vectors: backend.has_vectors(features) })
    }

    /// Short name of the target, for messages.
    pub fn target(&self) -> &'static str {
        self.target
    }

    /// True if 128-bit vectors may be used.
    pub fn has_vectors(&self) -> bool {
        self.has_vectors
    }
}
