//! Who wrote and who read each 32 byte cell of memory last.
//!
//! A cell is the grain of conflicts: two queues that touch one cell without order conflict even if their bytes differ.
//! Initialization is kept by byte.

use std::collections::BTreeMap;

use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::addr::Space;
use crate::isa::matrix::sim::check::clock::Thread;
use crate::isa::matrix::sim::memory::capacity;

/// Bytes of a cell.
pub(crate) const CELL: u64 = 32;

/// An operation: its queue, its number there, its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub thread: Thread,
    pub number: u32,
    pub record: u32,
}

/// One cell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    pub write: Option<Event>,
    /// The last read of each thread since the last write.
    pub reads: Vec<Event>,
    /// One bit per byte that has a value.
    pub initialized: u32,
}

/// The cells of all memories.
#[derive(Clone, Debug)]
pub(crate) struct Shadow {
    /// Bytes of each memory of a core.
    capacity: BTreeMap<Space, u64>,
    /// By core and memory, from when it is first touched.
    local: Vec<BTreeMap<Space, Vec<Cell>>>,
    gm: BTreeMap<u64, Cell>,
}

impl Shadow {
    pub fn new(machine: &Machine, cores: usize) -> Shadow {
        let mut shadow = Shadow { capacity: BTreeMap::new(), local: vec![], gm: BTreeMap::new() };
        shadow.reset(machine, cores);
        shadow
    }

    /// A new stage: buffers are undefined, and everything in global memory is ordered.
    pub fn reset(&mut self, machine: &Machine, cores: usize) {
        self.capacity = Space::ALL.map(|space| (space, capacity(machine, space))).into();
        self.local = vec![BTreeMap::new(); cores];
        for cell in self.gm.values_mut() {
            *cell = Cell { initialized: cell.initialized, ..Cell::default() };
        }
    }

    /// The cell that holds byte `at`.
    pub fn cell(&mut self, core: usize, space: Space, at: u64) -> Option<&mut Cell> {
        let index = at / CELL;
        match space {
            Space::Gm => Some(self.gm.entry(index).or_default()),
            Space::L1 | Space::L0a | Space::L0b | Space::L0c | Space::Ub | Space::Bt | Space::Fb => {
                // Buffers are at most 64 MiB.
                let cells = self.capacity[&space].div_ceil(CELL) as usize;
                let local = self.local[core].entry(space).or_insert_with(|| vec![Cell::default(); cells]);
                local.get_mut(usize::try_from(index).ok()?)
            }
        }
    }
}

/// Bits of the bytes `first..=last` within the cell that begins at `cell`.
pub(crate) fn byte_mask(cell: u64, first: u64, last: u64) -> u32 {
    let low = first.max(cell) - cell;
    let high = last.min(cell + CELL - 1) - cell;
    // Both are below 32.
    (u32::MAX << low) & (u32::MAX >> (31 - high))
}
