//! What the tests of `tests/tests/` share: the text-case harness, seeded random data, and a runner of generated
//! machine code of any ISA, on the host or under an emulator.

pub mod attention;
pub mod case;
pub mod cube_gemm;
pub mod directive;
mod exe;
pub mod flip;
pub mod gguf;
pub mod machines;
pub mod memory;
pub mod oracle;
pub mod parsers;
pub mod patch;
pub mod products;
pub mod random;
pub mod runner;
pub mod strips;
pub mod synth;
pub mod timing;
pub mod toy;
