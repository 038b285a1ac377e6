//! Assigns arena offsets to activation buffers from their lifetimes; buffers updated in place share one.
//!
//! `check.rs` judges the result without knowing how it was made.

use tcc_ir::plan::BUFFER_ALIGN;

use super::join;
use super::steps::{BufferId, UnboundList};

/// Alignment of every buffer, bytes.
pub const ALIGN: u64 = BUFFER_ALIGN as u64;

pub(super) fn align(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGN)
}

/// Groups of steps that run at the same time during which a buffer holds a value somebody still reads.
#[derive(Clone, Copy, Debug)]
struct Lifetime {
    first: usize,
    last: usize,
}

impl Lifetime {
    fn meets(self, other: Lifetime) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Offset of each buffer (by [`BufferId`]) from the start of the planned activations.
///
/// Largest buffers first, each at the lowest offset where no buffer alive at the same time lies.
pub(super) fn assign(list: &UnboundList) -> Vec<u64> {
    let lifetimes = lifetimes(list);
    let mut by_size: Vec<usize> = (0..list.buffers.len()).collect();
    by_size.sort_by_key(|b| (std::cmp::Reverse(list.buffers[*b]), *b));
    let mut offsets = vec![0; list.buffers.len()];
    let mut placed: Vec<usize> = Vec::new();
    for buffer in by_size {
        let Some(lifetime) = lifetimes[buffer] else { continue };
        let mut taken: Vec<(u64, u64)> = placed
            .iter()
            .filter(|p| lifetimes[**p].is_some_and(|l| l.meets(lifetime)))
            .map(|p| (offsets[*p], offsets[*p] + align(list.buffers[*p])))
            .collect();
        taken.sort_unstable();
        let mut at = 0;
        for (begin, end) in taken {
            if at + align(list.buffers[buffer]) <= begin {
                break;
            }
            at = at.max(end);
        }
        offsets[buffer] = at;
        placed.push(buffer);
    }
    offsets
}

/// Bytes the assignment needs.
pub(super) fn total_bytes(list: &UnboundList, offsets: &[u64]) -> u64 {
    list.buffers.iter().zip(offsets).map(|(bytes, at)| at + align(*bytes)).max().unwrap_or(0)
}

fn lifetimes(list: &UnboundList) -> Vec<Option<Lifetime>> {
    let mut lifetimes: Vec<Option<Lifetime>> = vec![None; list.buffers.len()];
    for (at, group) in join::groups(list).enumerate() {
        for BufferId(buffer) in group.iter().flat_map(|step| step.buffers()) {
            let lifetime = lifetimes[buffer].get_or_insert(Lifetime { first: at, last: at });
            lifetime.last = at;
        }
    }
    lifetimes
}
