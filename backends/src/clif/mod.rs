//! Portable code: a small typed builder over Cranelift, and every kernel written once for all instruction sets.
//!
//! [`ClifContext`] holds what all functions of one target share, [`func::FunctionCx`] builds one function.
//!
//! **Invariant:** no code-generator library call is ever emitted: a function that would need one is an error.

pub mod func;
pub mod isa;
mod link;
pub mod ternary_portable;

pub use isa::ClifContext;
