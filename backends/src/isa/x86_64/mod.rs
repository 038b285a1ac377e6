//! The x86_64 backend.

/// The x86_64 instruction set.
pub struct X86_64;
