//! The Ascend-style matrix unit: machine descriptions, our own program format, and a simulator that runs it.
//!
//! `docs/matrix.md` says what is modelled and what is not. Nothing here needs, reads or contains vendor software.

pub mod desc;
pub mod lower;
pub mod machine;
pub mod program;
pub mod sim;
pub mod source;
