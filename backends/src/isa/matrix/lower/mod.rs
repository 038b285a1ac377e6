//! From kernels of a plan to streams of the matrix unit.

pub mod attention;
pub mod cores;
pub mod emit;
pub mod matmul;
pub mod model;
pub mod split;
pub mod stage;
pub mod vector;
