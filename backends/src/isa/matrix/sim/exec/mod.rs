//! What instructions do to bytes.

mod cube;
mod fix;
mod moves;
mod vector;

use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::inst::Work;
use crate::isa::matrix::sim::access::{Resolved, l0a_is_nz};
use crate::isa::matrix::sim::memory::{Gm, Local};

/// Runs one instruction of a queue; its accesses are known to be in bounds.
///
/// `None` where global memory has no bytes, or where a gather leaves its buffer.
pub(crate) fn run(work: &Work, at: &Resolved, machine: &Machine, local: &mut Local, gm: &mut Gm) -> Option<()> {
    match work {
        Work::Copy(copy) => moves::copy(copy, at, local, gm),
        Work::LoadL0(load) => moves::load_l0(load, at, local, l0a_is_nz(machine)),
        Work::LoadTable(load) => moves::load_table(load, at, local),
        Work::Mmad(mmad) => cube::mmad(mmad, at, local, l0a_is_nz(machine)),
        Work::Fix(fix) => fix::fix(fix, at, local, gm),
        Work::Vec(vector) => vector::run(vector, at, &mut local.ub),
    }
}

/// The `len` bytes at `at`.
fn slice(memory: &[u8], at: usize, len: usize) -> Option<&[u8]> {
    memory.get(at..at.checked_add(len)?)
}

fn slice_mut(memory: &mut [u8], at: usize, len: usize) -> Option<&mut [u8]> {
    memory.get_mut(at..at.checked_add(len)?)
}
