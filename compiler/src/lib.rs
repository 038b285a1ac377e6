//! The compiler: files to model to program to plan to object.
#![forbid(unsafe_code)]

pub mod arch;
pub mod blob;
pub mod exe;
pub mod explain;
pub mod header;
pub mod load;
pub mod model;
pub mod object;
pub mod output;
pub mod passes;
pub mod plan;
pub mod schedule;
pub mod target;
