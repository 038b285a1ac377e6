//! Whole-program tests: the `tcc` binary on committed models, on every target, by its own command line.

mod bench;
mod bits;
mod compare;
mod files;
mod firmware;
mod harness;
mod linking;
mod matrix;
mod usage;
mod variants;
