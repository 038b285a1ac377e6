//! What the tests of `tests/tests/` share: the text-case harness and seeded random data.

pub mod case;
pub mod directive;
pub mod oracle;
pub mod random;
