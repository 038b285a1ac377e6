//! What runs beside a compiled model: its C interface in Rust types, safe sessions, text streaming; with feature
//! `std` also threads, mapped weights and loading of objects.
//!
//! **Invariant:** without features this crate is `no_std`, allocates nothing and depends on nothing.
//! **Invariant:** other crates of the compiler import [`abi`] alone; only what reads files and runs models imports
//! the rest.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![deny(unsafe_op_in_unsafe_fn)]

pub mod abi;
pub mod detok;
pub mod draft;
pub mod sample;
pub mod session;

#[cfg(feature = "std")]
pub mod arena;
#[cfg(feature = "std")]
pub mod bandwidth;
#[cfg(feature = "std")]
mod code;
#[cfg(feature = "std")]
mod gate;
#[cfg(feature = "std")]
pub mod host;
#[cfg(feature = "std")]
pub mod map;
#[cfg(feature = "std")]
pub mod micro_loop;
#[cfg(feature = "std")]
pub mod module;
#[cfg(feature = "std")]
pub mod op_clock;
#[cfg(feature = "std")]
pub mod pipe;
#[cfg(feature = "std")]
pub mod pool;
#[cfg(feature = "std")]
pub mod shuffled;
#[cfg(feature = "std")]
pub mod weights;
