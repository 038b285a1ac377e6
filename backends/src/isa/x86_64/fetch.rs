//! Asking for lines of memory before they are read. Asking never faults.
//!
//! By default lines go to the first-level cache. On Zen 4 that holds up what is read, and lines that go to the
//! second-level cache do not (`docs/performance.md`).

use iced_x86::IcedError;
use iced_x86::code_asm::{AsmMemoryOperand, CodeAssembler};
use tcc_ir::target::Features;

use super::desc::FETCHL2;

/// The nearest cache that asked lines go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetch {
    First,
    Second,
}

impl Fetch {
    /// What suits cores with `features`.
    pub fn of(features: Features) -> Fetch {
        if features.contains(FETCHL2) { Fetch::Second } else { Fetch::First }
    }

    /// Asks for the line at `at`.
    pub fn ask(self, a: &mut CodeAssembler, at: AsmMemoryOperand) -> Result<(), IcedError> {
        match self {
            Fetch::First => a.prefetcht0(at),
            Fetch::Second => a.prefetcht1(at),
        }
    }
}
