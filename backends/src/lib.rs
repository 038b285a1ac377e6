//! Code generation: kernels and step functions for each ISA, from plans. No files, no host.
//!
//! **Invariant:** no ISA is named outside its folder in `isa/`, but for its line in [`isa::BACKENDS`].
#![forbid(unsafe_code)]

pub mod asm;
pub mod clif;
pub mod code;
pub mod emit;
pub mod image;
pub mod isa;
pub mod stack;
