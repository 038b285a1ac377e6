//! The aarch64 backend.

/// The aarch64 instruction set.
pub struct Aarch64;
