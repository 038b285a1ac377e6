//! The matrix unit: published timings, exact bytes, and a checker that fires.

mod checker;
mod codec;
mod dropped;
mod functional;
mod meeting;
mod outputs;
mod planted;
mod published;
mod source;
