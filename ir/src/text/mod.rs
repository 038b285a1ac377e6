//! The text form of programs and graphs (`docs/ir.md`): what dumps show and test cases are written in.
//!
//! **Invariant:** `parse ∘ print` is the identity on programs whose weight and state names are distinct, up to the
//! numbering of nodes; every attribute keeps its bits. Checked over random graphs by `ir/tests/text.rs`.

pub mod lexer;
pub mod parse;
mod parse_graph;
pub mod print;
