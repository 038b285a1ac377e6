//! The matrix unit: published timings, exact bytes, and a checker that fires.

mod checker;
mod codec;
mod functional;
mod outputs;
mod published;
