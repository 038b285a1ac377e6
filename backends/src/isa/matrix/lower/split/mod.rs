//! Ternary products on machines whose cube and vector units are cores of their own and meet in global memory (L2).
//!
//! A cube core and the vector cores beside it are a group; groups share the tiles of output rows. The vector cores unpack
//! a tile's weights into global memory, where they lie as L1 wants them (`vector.rs`), the cube core multiplies them with
//! a block of activations that stays in L1 (`cube.rs`), and the vector cores scale the sums that it leaves in global
//! memory. Two signals of the group's mode order this: GO, the tile may be read, and DONE, its sums may. Later blocks of
//! token rows find the weights unpacked. A few token rows have a form of their own (`stream`).

pub mod choice;
mod cube;
pub mod search;
pub mod stream;
mod vector;

use tcc_ir::encoding::w2nz::KR;
use tcc_ir::kernel::ScaleKind;

use super::emit::Emit;
use super::matmul::tile::Mode;
use super::vector::ALIGN;
use super::vector::ternary::PANEL;
use super::vector::{Place, UbTooSmall};
use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::addr::Queue;
use crate::isa::matrix::program::inst::{CrossMode, Order};
use crate::isa::matrix::program::{CoreKind, Stream};

/// The group's signals.
const GO: u8 = 0;
const DONE: u8 = 1;

/// Output rows of a panel.
const NR: usize = PANEL.nr;

/// What is decided about a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Token rows whose activations stay in L1.
    pub block_m: usize,
    /// Panels whose sums grow together.
    pub panels: usize,
}

/// A product; scales are per tensor or per row.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub scale: ScaleKind,
    /// Activation strips, act_scale, packed weights, scales, output.
    pub q: Place,
    pub act: Place,
    pub w: Place,
    pub scales: Place,
    pub bias: Option<Place>,
    pub residual: Option<Place>,
    pub out: Place,
    /// Scratch: [`scratch_bytes`] and [`sums_bytes`].
    pub expanded: Place,
    pub sums: Place,
}

/// Bytes of scratch for unpacked weights of an `[n, k]` matrix, however it is multiplied.
pub fn scratch_bytes(machine: &Machine, n: usize, k: usize) -> usize {
    expanded_bytes(n, k).max(stream::scratch_bytes(machine, k))
}

/// Bytes of the sums of `[m, n]`, however they come about.
pub fn sums_bytes(m: usize, n: usize) -> usize {
    if stream::MOST_M < m { 4 * m * n } else { stream::sums_bytes(m, n) }
}

/// Bytes of the unpacked weights of an `[n, k]` matrix.
const fn expanded_bytes(n: usize, k: usize) -> usize {
    n.next_multiple_of(NR) * k.next_multiple_of(KR)
}

/// What both streams derive from a product and its tile.
struct Plan {
    p: Product,
    tile: Tile,
    /// Groups, and vector cores of each.
    groups: usize,
    per: usize,
}

impl Plan {
    fn padded_k(&self) -> usize {
        self.p.k.next_multiple_of(KR)
    }

    /// Output rows of a whole tile.
    fn columns(&self) -> usize {
        self.tile.panels * NR
    }

    /// Output rows of the tile that is not whole; 0 if there is none.
    fn ragged_columns(&self) -> usize {
        self.p.n % self.columns()
    }

    /// Bytes of an unpacked panel.
    fn expanded_panel(&self) -> usize {
        expanded_bytes(NR, self.p.k)
    }

    /// Runs of columns along k: first and count.
    fn runs(&self) -> Vec<(usize, usize)> {
        PANEL.along_k(self.p.k).collect()
    }

    /// Blocks of token rows: first and count.
    fn blocks(&self) -> Vec<(usize, usize)> {
        let (m, block) = (self.p.m, self.tile.block_m);
        (0..m).step_by(block).map(|first| (first, block.min(m - first))).collect()
    }

    /// First tile of each group, whole tiles, and whether the ragged one follows.
    fn share(&self, group: usize) -> (usize, usize, bool) {
        let (whole, tiles) = (self.p.n / self.columns(), self.p.n.div_ceil(self.columns()));
        let first = |group: usize| tiles * group / self.groups;
        (first(group), first(group + 1).min(whole) - first(group), first(group + 1) > whole)
    }
}

/// The two streams of a product, or `None` if the tile does not fit the machine, or cores would share blocks of 32 bytes.
pub fn streams(machine: &Machine, p: &Product, tile: Tile, op: u16) -> Result<Option<[Stream; 2]>, UbTooSmall> {
    let per = machine.org.vector_per_cube.map_or(0, |per| per.value as usize);
    // Forced sizes may be any; the cube takes 4080 rows, and blocks begin at fractals.
    let is_sane = tile.block_m <= 4080 && (tile.block_m >= p.m || tile.block_m.is_multiple_of(16)) && tile.panels <= 16;
    if !is_sane {
        return Ok(None);
    }
    let tiles = p.n.div_ceil(tile.panels * NR);
    let groups = tiles.min(machine.cube_cores() as usize);
    let has_group = per > 0 && PANEL.parts.is_multiple_of(per) && machine.has_cross_core(CrossMode::Group);
    if !has_group || !p.n.is_multiple_of(ALIGN) {
        return Ok(None);
    }
    let plan = Plan { p: *p, tile, groups, per };
    let (mut cube, mut vector) = (Emit::default(), Emit::default());
    (cube.op, vector.op) = (op, op);
    let Some(cube_start) = cube::emit(&mut cube, machine, &plan) else { return Ok(None) };
    let vector_start = vector::emit(&mut vector, machine, &plan)?;
    Ok(Some([
        cube.stream(CoreKind::Cube, groups, cube_start),
        vector.stream(CoreKind::Vector, groups * per, vector_start),
    ]))
}

impl Emit {
    fn signal(&mut self, queue: Queue, id: u8) {
        self.push(Order::XSet { queue, mode: CrossMode::Group, id });
    }

    fn await_signal(&mut self, queue: Queue, id: u8) {
        self.push(Order::XWait { queue, mode: CrossMode::Group, id });
    }
}

/// Bytes of one row of activations or unpacked weights.
const fn row_bytes(columns: usize) -> usize {
    Mode::I8.row_bytes(columns)
}
