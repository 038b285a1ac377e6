//! The riscv64 backend.

/// The riscv64 instruction set.
pub struct Riscv64;
