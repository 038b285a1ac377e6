//! Products of a few token rows: weights pass from the vector cores to the cube core of a group through a ring of slots
//! in global memory, which L2 holds, and are never there whole.
//!
//! A tile is some output rows of a panel with all of k. Each vector core unpacks its rows of every tile: to 64 w in a
//! byte (`i8`), or to 4 w in a nibble (`i4hl`) where the cube has that mode: half the bytes through L2, which bind. Both
//! come from the same packed weights, for the top two bits of a nibble hold a code as those of a byte do. Activations of
//! `i4hl` are split by all vector cores together: `a = 16 hi + lo + 8`, and a row of -8 gives E, which is
//! -8 · (4 Σ w), so that `4 Σ a w = 16 H + L - E`.
//!
//! Signals of the group's mode: [`ACTIVATIONS`] (the group's token rows are split; [`ALL_SPLIT`] joins the groups), GO (a
//! tile may be read), FREE (its slot may be written again), DONE (sums may be read). Slots that are written for the first
//! time are not waited for, the last ones are not freed. DONE comes at the end, or twice: first for all tiles but the last
//! of each vector core, whose sums are then scaled while the cube core has the last ones before it.
//!
//! On machines with a path from UB to L1 the ring may be in the cube core's L1: a slot holds a chunk of a tile, GO and
//! FREE are about slots, which the cube core frees all before it begins.
//!
//! Several products are one list of tiles, one product's behind the other's. The cube core does not see where one ends: the
//! ring and its signals go on, and sums lie side by side. The vector cores unpack from the one's weights or the other's, and
//! scale columns with their product's operands (`vector/scale.rs`).

mod cube;
mod vector;

use tcc_ir::encoding::w2nz::KR;

use super::{NR, Part, Product, Via, all_rows};
use crate::isa::matrix::lower::emit::Emit;
use crate::isa::matrix::lower::matmul::tile::Mode;
use crate::isa::matrix::lower::model::memories;
use crate::isa::matrix::lower::vector::ALIGN;
use crate::isa::matrix::lower::vector::ternary::PANEL;
use crate::isa::matrix::lower::vector::{Place, UbTooSmall};
use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::inst::{CrossMode, FRACTAL, FRACTAL_BYTES};
use crate::isa::matrix::program::{CoreKind, Stream};

/// Signal: the activations of `i4hl` may be read.
const ACTIVATIONS: u8 = 3;
/// Signal among all cube cores: the token rows of the group's vector cores are split.
const ALL_SPLIT: u8 = 4;

/// Output rows of a group's ring: the more slots, the less its cores wait for each other's bursts.
const RING_ROWS: usize = 128;

/// Most slots of a ring in L1, which signals count, and most runs of columns in one.
const L1_SLOTS: usize = 8;
const L1_RUNS: usize = 8;

/// Bytes of a slot of packed or unpacked weights in UB at most.
const SLOT_BYTES: usize = 24 << 10;

/// Most token rows: a fractal's.
pub const MOST_M: usize = FRACTAL as usize;

/// What is decided about a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streamed {
    pub mode: Mode,
    /// Output rows of a tile, a divisor of a panel's.
    pub rows: usize,
    pub via: Via,
    /// True if all sums but those of the last tiles are scaled while the cube core has these before it.
    pub early: bool,
}

impl Streamed {
    /// The tile for products of `n` output rows each: half as many rows, and half of those, until all have whole tiles.
    pub fn dividing(self, n: &[usize]) -> Streamed {
        let is_whole = |rows: usize| n.iter().all(|n| n.is_multiple_of(rows));
        let halves = std::iter::successors(Some(self.rows), |rows| Some(rows / 2).filter(|half| *half > 0));
        Streamed { rows: halves.into_iter().find(|rows| is_whole(*rows)).unwrap_or(1), ..self }
    }
}

/// Runs of columns along k that are unpacked together.
struct Chunk {
    /// First column, columns of a run, and runs.
    first: usize,
    columns: usize,
    runs: usize,
}

impl Chunk {
    /// Strips of a part of a run.
    fn strips(&self) -> usize {
        self.columns / KR
    }

    /// Packed bytes of `rows` rows.
    fn bytes(&self, rows: usize) -> usize {
        self.runs * self.strips() * rows * 32
    }
}

/// Scratch of any streamed product of `k` columns: rings, and split activations.
pub fn scratch_bytes(machine: &Machine, k: usize) -> usize {
    let strips = k.next_multiple_of(KR) / PANEL.strip();
    strips * 32 * (machine.cube_cores() as usize * RING_ROWS + MOST_M)
}

/// Bytes of the sums of `[m, n]` in either mode.
pub const fn sums_bytes(m: usize, n: usize) -> usize {
    4 * cube_rows(Mode::I4, m) * n
}

/// Rows of the cube that `m` token rows take.
const fn cube_rows(mode: Mode, m: usize) -> usize {
    match mode {
        Mode::I8 => m,
        Mode::I4 => 2 * m + 1,
    }
}

/// What both streams derive from products and their tile.
struct Plan {
    /// The first product: token rows, columns, activations and scratch are those of all.
    p: Product,
    parts: Vec<Part>,
    tile: Streamed,
    groups: usize,
    /// Vector cores of a group.
    per: usize,
    l1_bytes: usize,
}

impl Plan {
    fn cube_rows(&self) -> usize {
        cube_rows(self.tile.mode, self.p.m)
    }

    /// Strips of 32 bytes along k, in the cube's mode.
    fn strips(&self) -> usize {
        self.p.k.next_multiple_of(KR) / self.tile.mode.strip()
    }

    /// Rows of a tile that a vector core unpacks.
    fn own(&self) -> usize {
        self.tile.rows / self.per
    }

    fn chunks(&self) -> Vec<Chunk> {
        let fitting = SLOT_BYTES / (PANEL.kp / KR * self.own() * 32);
        let most = match self.tile.via {
            Via::L2 => fitting,
            Via::L1 => fitting.min(L1_RUNS),
        };
        let mut chunks: Vec<Chunk> = vec![];
        for (first, columns) in PANEL.along_k(self.p.k) {
            match chunks.last_mut().filter(|last| last.columns == columns && last.runs < most) {
                Some(last) => last.runs += 1,
                None => chunks.push(Chunk { first, columns, runs: 1 }),
            }
        }
        chunks
    }

    /// First strip and strips of a chunk, in the cube's mode.
    fn strips_of(&self, chunk: &Chunk) -> (usize, usize) {
        let strip = self.tile.mode.strip();
        (chunk.first / strip, chunk.runs * chunk.columns / strip)
    }

    /// Bytes of a slot in L1.
    fn l1_slot_bytes(&self) -> usize {
        let strips = self.chunks().iter().map(|chunk| self.strips_of(chunk).1).max();
        strips.unwrap_or(0) * self.tile.rows * 32
    }

    /// Bytes of the activations in L1, which take whole fractals.
    fn activations_l1_bytes(&self) -> usize {
        self.strips() * FRACTAL_BYTES as usize
    }

    /// Slots in L1 behind the activations.
    fn l1_slots(&self) -> usize {
        (self.l1_bytes.saturating_sub(self.activations_l1_bytes()) / self.l1_slot_bytes()).min(L1_SLOTS)
    }

    /// Slots of a group's ring in global memory.
    fn slots(&self) -> usize {
        RING_ROWS / self.tile.rows
    }

    /// Last tiles of a group, one for each vector core, whose sums are scaled by themselves.
    fn late(&self) -> usize {
        if self.tile.early { self.per } else { 0 }
    }

    /// Tiles of a group whose slots are not waited for, and not freed: the ring's first and last; in L1, where slots hold
    /// chunks, all.
    fn kept(&self, group: usize) -> usize {
        match self.tile.via {
            Via::L2 => self.count(group).min(self.slots()),
            Via::L1 => self.count(group),
        }
    }

    /// Bytes of a tile in global memory: `[strip][row][32]`.
    fn tile_bytes(&self) -> usize {
        self.strips() * self.tile.rows * 32
    }

    /// Tiles of all products.
    fn tiles(&self) -> usize {
        all_rows(&self.parts) / self.tile.rows
    }

    fn tiles_of(&self, part: &Part) -> usize {
        part.p.n / self.tile.rows
    }

    /// First tile of a group.
    fn first(&self, group: usize) -> usize {
        self.tiles() * group / self.groups
    }

    fn count(&self, group: usize) -> usize {
        self.first(group + 1) - self.first(group)
    }

    /// First tile and tiles that a vector core of a group scales, but for the late one.
    fn share(&self, group: usize, core: usize) -> (usize, usize) {
        let early = self.count(group) - self.late();
        let first = |core: usize| self.first(group) + early * core / self.per;
        (first(core), first(core + 1) - first(core))
    }

    /// Tiles that every vector core scales, but for the late one; some scale one more.
    fn common_tiles(&self) -> usize {
        let shares = (0..self.groups * self.per).map(|core| self.share(core / self.per, core % self.per).1);
        shares.min().unwrap_or(0)
    }

    /// Where the split activations begin, behind the rings: `[strip][cube row][32]`.
    fn activations(&self) -> Place {
        let rings = self.groups * self.slots() * self.tile_bytes();
        // Within one array.
        (self.p.expanded.0, self.p.expanded.1 + rings as i64)
    }
}

/// The two streams of products of the same activations, none of which touches what another writes, or `None` if they do
/// not fit the machine, a last tile is not whole, or one gates another. Scratch is for the output rows of all.
pub fn streams(
    machine: &Machine,
    products: &[Product],
    tile: Streamed,
    op: u16,
) -> Result<Option<[Stream; 2]>, UbTooSmall> {
    let Some(p) = products.first() else { return Ok(None) };
    let per = machine.org.vector_per_cube.map_or(0, |per| per.value as usize);
    let has_group = per > 0 && tile.rows.is_multiple_of(ALIGN * per) && machine.has_cross_core(CrossMode::Group);
    let has_signals = tile.mode == Mode::I8 || machine.has_cross_core(CrossMode::All);
    let has_mode = machine.cube_mode(tile.mode.cube()).is_some() && has_signals;
    let fits = cube_rows(tile.mode, p.m) <= MOST_M && NR.is_multiple_of(tile.rows);
    let is_whole = products.iter().all(|p| p.n.is_multiple_of(tile.rows) && p.up.is_none());
    if !has_group || !has_mode || !fits || !tile.via.is_on(machine) || !is_whole {
        return Ok(None);
    }
    let mut plan = Plan { p: *p, parts: Part::list(products), tile, groups: 0, per, l1_bytes: memories(machine).l1 };
    let groups = plan.tiles().min(machine.cube_cores() as usize);
    plan.groups = groups;
    // Late tiles are among those whose slots are not freed, and there are others.
    if tile.early && (0..groups).any(|group| plan.count(group) <= per || plan.kept(group) < per) {
        return Ok(None);
    }
    let (mut cube, mut vector) = (Emit::default(), Emit::default());
    (cube.op, vector.op) = (op, op);
    let Some(cube_start) = cube::emit(&mut cube, machine, &plan) else { return Ok(None) };
    let vector_start = vector::emit(&mut vector, machine, &plan)?;
    Ok(Some([
        cube.stream(CoreKind::Cube, groups, cube_start),
        vector.stream(CoreKind::Vector, groups * per, vector_start),
    ]))
}
