//! Causal attention over a cache: on the vector unit alone (`vector/`), or, over int8 caches, with both products on the cube
//! (`cube/`).

mod cube;
mod vector;

use tcc_ir::cache::CacheLayout;

use self::cube::Plan;
pub use self::vector::MOST_ELEMENTS;
use super::emit::Emit;
use super::vector::{Place, Sharing, Tables, UbTooSmall};
use crate::isa::matrix::machine::{Machine, OrganisationKind};
use crate::isa::matrix::program::Stream;

/// Query heads of a tile at most.
const MOST_HEADS: usize = 64;

/// `q, k cache, v cache, out, pos`, and scratch of [`scratch_bytes`].
pub type Operands = [Place; 6];

/// Shape of the op.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    pub m: usize,
    pub heads: usize,
    pub cache: CacheLayout,
    pub scale: f32,
}

impl Attention {
    /// Query heads that are done together: they share a KV head.
    fn heads_together(&self) -> usize {
        let group = self.heads / self.cache.heads;
        (1..=group.min(MOST_HEADS)).rev().find(|n| group.is_multiple_of(*n)).unwrap_or(1)
    }

    /// Parts of the query heads.
    fn parts(&self) -> usize {
        self.heads / self.heads_together()
    }
}

/// How cores share the op.
pub enum Shared {
    /// Its records follow those of the stream.
    Cores(Sharing),
    /// Cube cores and vector cores have a stream each.
    Groups([Stream; 2]),
    /// Steps between which cores meet, each with a stream for each kind of its cores.
    Steps(Vec<Vec<Stream>>),
}

/// Bytes of global memory that scores, and what passes between cores, wait in.
pub fn scratch_bytes(machine: &Machine, a: &Attention) -> usize {
    match Plan::of(a, machine) {
        Some(plan) => plan.scratch_bytes(),
        None => vector::scores_bytes(a, ub_bytes(machine), machine.vector_units()),
    }
}

/// Writes the op, behind the records of `e`, or streams of its own.
pub fn attention(
    e: &mut Emit,
    machine: &Machine,
    a: &Attention,
    operands: Operands,
    tables: &Tables,
) -> Result<Shared, UbTooSmall> {
    let Some(plan) = Plan::of(a, machine) else {
        let of = (ub_bytes(machine), machine.vector_units());
        return vector::attention(e, a, operands, tables, of).map(Shared::Cores);
    };
    if plan.cut.is_some() {
        return Ok(Shared::Steps(cube::pieces(e.op, a, &plan, operands, tables)));
    }
    Ok(match machine.org.kind {
        OrganisationKind::Coupled => Shared::Cores(cube::coupled(e, a, &plan, operands, tables)),
        OrganisationKind::Split => Shared::Groups(cube::streams(e.op, a, &plan, operands, tables)),
    })
}

fn ub_bytes(machine: &Machine) -> usize {
    machine.buffer.ub.usable() as usize
}
