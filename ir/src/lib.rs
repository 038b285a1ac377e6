//! The vocabulary of tcc and its meaning.
//!
//! Types, ops, graphs and programs say *what* a model computes; encodings, targets, schedules, kernels and plans
//! say *how* it will be computed. Nothing here touches files, threads or the host.
//!
//! **Invariant:** every op's meaning is the scalar code in [`ops`]; the interpreter and every test of a kernel or
//! a pass use that alone.
#![forbid(unsafe_code)]

pub mod attention;
pub mod attention_codes;
pub mod cache;
pub mod coded;
pub mod dot;
pub mod encoding;
pub mod graph;
pub mod interp;
pub mod kernel;
pub mod numerics;
pub mod ops;
pub mod plan;
pub mod program;
pub mod sampling;
pub mod schedule;
pub mod screen;
pub mod target;
pub mod tensor;
pub mod text;
pub mod ty;
pub mod verify;
