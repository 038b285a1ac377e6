//! Counting: blocks of straight-line code as the emulator translates them, and what their executions add up to.

use crate::map::Map;
use crate::vector::{Kind, VectorType};

/// What one slot has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Times that another slot's code went before.
    pub entries: u64,
    pub instructions: u64,
    /// Instructions, each vector instruction once per register of its widest group.
    pub weighted: u64,
}

/// Straight-line code that runs from its first instruction to its last.
#[derive(Debug)]
struct Block {
    /// The slot it belongs to, if it lies in a range.
    slot: Option<usize>,
    instructions: u64,
    /// Instructions whose weight the vector type at entry decides: those before the first that sets it.
    open: Vec<Kind>,
    /// Weight of the others.
    closed: u64,
    /// Vector type at the end, if the block sets it.
    leaves: Option<VectorType>,
    /// Weight of `open` for the type it was last entered with.
    known: (VectorType, u64),
}

/// Every block and every slot.
#[derive(Debug)]
pub struct Counter {
    map: Map,
    slots: Vec<Slot>,
    blocks: Vec<Block>,
    current: usize,
    ty: VectorType,
}

impl Counter {
    pub fn new(map: Map) -> Counter {
        let slots = vec![Slot::default(); map.slots()];
        Counter { map, slots, blocks: Vec::new(), current: 0, ty: VectorType::default() }
    }

    /// A new block; returns its number. It belongs to the slot of its last instruction, which lies at `last`: the
    /// call. `kinds` holds one entry per instruction.
    pub fn add(&mut self, last: u64, kinds: &[Kind]) -> usize {
        let split = kinds.iter().position(|kind| matches!(kind, Kind::Set(_))).unwrap_or(kinds.len());
        let mut ty = VectorType::default();
        let mut leaves = None;
        let mut closed = 0;
        for kind in &kinds[split..] {
            if let Kind::Set(now) = kind {
                (ty, leaves) = (*now, Some(*now));
            }
            closed += kind.weight(ty);
        }
        let open: Vec<Kind> = kinds[..split].to_vec();
        let known = (ty, weight(&open, ty));
        let slot = self.map.slot(last);
        self.blocks.push(Block { slot, instructions: kinds.len() as u64, open, closed, leaves, known });
        self.blocks.len() - 1
    }

    /// Counts one execution of block `number`.
    pub fn execute(&mut self, number: usize) {
        let block = &mut self.blocks[number];
        if let Some(slot) = block.slot.filter(|slot| *slot != self.current) {
            self.current = slot;
            self.slots[slot].entries += 1;
        }
        if block.known.0 != self.ty {
            block.known = (self.ty, weight(&block.open, self.ty));
        }
        let slot = &mut self.slots[self.current];
        slot.instructions += block.instructions;
        slot.weighted += block.known.1 + block.closed;
        self.ty = block.leaves.unwrap_or(self.ty);
    }

    /// One line `ENTRIES INSTRUCTIONS WEIGHTED` for each slot.
    pub fn lines(&self) -> String {
        let line = |slot: &Slot| format!("{} {} {}\n", slot.entries, slot.instructions, slot.weighted);
        self.slots.iter().map(line).collect()
    }
}

fn weight(kinds: &[Kind], ty: VectorType) -> u64 {
    kinds.iter().map(|kind| kind.weight(ty)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_call_site_calls_counts_for_it() {
        let mut counter = Counter::new(Map::parse("10 20 1\n20 30 2\n").expect("a map"));
        let start = counter.add(0x8, &[Kind::Scalar; 2]);
        // Ends in the second range: its call is the second one's.
        let (first, second) = (counter.add(0x1c, &[Kind::Scalar; 3]), counter.add(0x2c, &[Kind::Scalar; 4]));
        let kernel = counter.add(0x100, &[Kind::Scalar; 10]);
        for block in [start, first, kernel, kernel, second, kernel, first] {
            counter.execute(block);
        }
        assert_eq!(counter.lines(), "0 2 2\n2 26 26\n1 14 14\n");
    }

    #[test]
    fn vector_types_reach_into_the_next_block() {
        let mut counter = Counter::new(Map::default());
        let m4 = VectorType { sew: 3, lmul: 2 };
        let sets = counter.add(0, &[Kind::Group { wider: 0 }, Kind::Set(m4), Kind::Group { wider: 1 }]);
        let keeps = counter.add(0, &[Kind::Group { wider: 0 }, Kind::Scalar]);
        // At the start a group is one register: 1, then 1 + 8, then 4 + 1, then 4 + 1 + 8.
        [sets, keeps, sets].into_iter().for_each(|block| counter.execute(block));
        assert_eq!(counter.lines(), "0 8 28\n");
    }
}
