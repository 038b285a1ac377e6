//! What the checker finds.

use std::fmt;

use crate::isa::matrix::program::addr::{Queue, Space};

/// The rule that a program breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    ReadAfterWrite,
    WriteAfterRead,
    WriteAfterWrite,
    Uninitialized,
    OutOfBounds,
    Misaligned,
    FlagSetTwice,
    WaitNeverSet,
    FlagLeftSet,
    Deadlock,
    MissingBarrier,
    NotOnMachine,
    OperandRange,
    UnitFlag,
    CrossCoreCounter,
    Layout,
}

impl Rule {
    pub const ALL: [Rule; 16] = [
        Rule::ReadAfterWrite,
        Rule::WriteAfterRead,
        Rule::WriteAfterWrite,
        Rule::Uninitialized,
        Rule::OutOfBounds,
        Rule::Misaligned,
        Rule::FlagSetTwice,
        Rule::WaitNeverSet,
        Rule::FlagLeftSet,
        Rule::Deadlock,
        Rule::MissingBarrier,
        Rule::NotOnMachine,
        Rule::OperandRange,
        Rule::UnitFlag,
        Rule::CrossCoreCounter,
        Rule::Layout,
    ];

    /// `D01` to `D16`.
    pub fn code(self) -> String {
        format!("D{:02}", self as usize + 1)
    }

    pub fn what(self) -> &'static str {
        match self {
            Rule::ReadAfterWrite => "read races with an earlier write",
            Rule::WriteAfterRead => "write races with an earlier read",
            Rule::WriteAfterWrite => "write races with an earlier write",
            Rule::Uninitialized => "read of bytes that nothing wrote",
            Rule::OutOfBounds => "access outside of a buffer or symbol",
            Rule::Misaligned => "misaligned address",
            Rule::FlagSetTwice => "flag set while it is set",
            Rule::WaitNeverSet => "wait for a flag that nothing sets",
            Rule::FlagLeftSet => "flag left set at the end",
            Rule::Deadlock => "queues wait for each other",
            Rule::MissingBarrier => "dependent operations of one queue without a barrier",
            Rule::NotOnMachine => "not on this machine",
            Rule::OperandRange => "operand out of range",
            Rule::UnitFlag => "unit flags do not match",
            Rule::CrossCoreCounter => "cross-core counter above 15",
            Rule::Layout => "wrong layout for the operand",
        }
    }
}

/// A record in a program, as a reader finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub stage: String,
    pub core: u16,
    pub record: u32,
    pub queue: Queue,
    /// Name of the op that the record works for.
    pub op: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { stage, core, record, queue, op } = self;
        write!(f, "{stage}, core {core}, record {record} ({}, op '{op}')", queue.name())
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    /// The record that the finding is about.
    pub at: Place,
    /// The record it conflicts with.
    pub other: Option<Place>,
    /// Memory and first and last byte.
    pub range: Option<(Space, u64, u64)>,
    /// What is missing, or what was found.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.rule.code(), self.rule.what(), self.at)?;
        if let Some((space, first, last)) = self.range {
            write!(f, ", {}[{first}..={last}]", space.name())?;
        }
        if let Some(other) = &self.other {
            write!(f, "; against {other}")?;
        }
        if self.detail.is_empty() { Ok(()) } else { write!(f, "; {}", self.detail) }
    }
}
