//! Registers, addresses, memories and queues.

use std::fmt;

/// One of 32 scalar registers of 64 bits; `r0` is always 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reg(u8);

impl Reg {
    pub const COUNT: u8 = 32;
    /// Reads as 0; writes are refused.
    pub const ZERO: Reg = Reg(0);

    /// Register `index`, below [`Reg::COUNT`].
    pub const fn new(index: u8) -> Option<Reg> {
        if index < Reg::COUNT { Some(Reg(index)) } else { None }
    }

    pub const fn index(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// A byte address: a register plus a signed offset of 27 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr {
    pub reg: Reg,
    /// In [`Addr::MIN`]..=[`Addr::MAX`] bytes.
    pub offset: i32,
}

impl Addr {
    pub const MIN: i32 = -(1 << 26);
    pub const MAX: i32 = (1 << 26) - 1;

    /// The fixed address `offset`.
    pub const fn at(offset: i32) -> Addr {
        Addr { reg: Reg::ZERO, offset }
    }

    /// `offset` bytes behind the address in `reg`.
    pub const fn behind(reg: Reg, offset: i32) -> Addr {
        Addr { reg, offset }
    }
}

/// A memory that instructions address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Global memory.
    Gm,
    L1,
    L0a,
    L0b,
    L0c,
    /// Unified buffer of the vector unit.
    Ub,
    /// Bias table.
    Bt,
    /// Scale table of the fixed-point pipe.
    Fb,
}

impl Space {
    pub const ALL: [Space; 8] =
        [Space::Gm, Space::L1, Space::L0a, Space::L0b, Space::L0c, Space::Ub, Space::Bt, Space::Fb];

    pub fn name(self) -> &'static str {
        match self {
            Space::Gm => "GM",
            Space::L1 => "L1",
            Space::L0a => "L0A",
            Space::L0b => "L0B",
            Space::L0c => "L0C",
            Space::Ub => "UB",
            Space::Bt => "BT",
            Space::Fb => "FB",
        }
    }
}

/// An in-order queue of work, one per pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Queue {
    /// Scalar unit: fetches all records and hands them to the other queues.
    S,
    /// Vector unit.
    V,
    /// Cube.
    M,
    Mte1,
    Mte2,
    Mte3,
    /// Fixed-point pipe out of L0C.
    Fix,
}

impl Queue {
    pub const COUNT: usize = 7;
    pub const ALL: [Queue; Queue::COUNT] =
        [Queue::S, Queue::V, Queue::M, Queue::Mte1, Queue::Mte2, Queue::Mte3, Queue::Fix];

    pub fn name(self) -> &'static str {
        match self {
            Queue::S => "S",
            Queue::V => "V",
            Queue::M => "M",
            Queue::Mte1 => "MTE1",
            Queue::Mte2 => "MTE2",
            Queue::Mte3 => "MTE3",
            Queue::Fix => "FIX",
        }
    }

    /// Position in [`Queue::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}
