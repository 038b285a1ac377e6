//! Portable code: a small typed builder over Cranelift, and every kernel written once for all instruction sets.
//!
//! [`ClifContext`] holds what all functions of one target share, [`func::FunctionCx`] builds one function.
//!
//! **Invariant:** no code-generator library call is ever emitted: a function that would need one is an error.

pub mod api;
pub(crate) mod exe;
pub mod func;
mod isa;
pub mod kernel;
mod lanes;
mod link;
mod math;
pub mod micro;
mod rows;
pub mod ternary_portable;

mod add;
mod attention;
mod attention_codes;
mod attention_parts;
mod attention_steps;
mod coded;
mod dense;
mod embed;
mod epilogue;
pub mod float_ternary;
mod glu;
mod kv_write;
mod norm;
mod quantize;
mod rope;
mod screen;
mod ternary;

pub use isa::ClifContext;
