//! The compiler: files to model to program to plan to object.
#![forbid(unsafe_code)]

pub mod arch;
pub mod blob;
pub mod cache;
pub mod cli;
pub mod compare;
pub mod driver;
pub mod emit;
pub mod error;
pub mod exe;
pub mod explain;
pub mod golden;
pub mod header;
pub mod inspect;
pub mod listing;
pub mod load;
pub mod matrix;
pub mod model;
pub mod object;
pub mod output;
pub mod passes;
pub mod pieces;
pub mod plan;
pub mod profile;
pub mod report;
pub mod run;
pub mod schedule;
pub mod target;
