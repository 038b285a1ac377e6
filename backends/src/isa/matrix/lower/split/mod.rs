//! Ternary products on machines whose cube and vector units are cores of their own and meet in global memory (L2).
//!
//! A cube core and the vector cores beside it are a group. The vector cores unpack a tile's weights into global memory,
//! where they lie as L1 wants them (`vector.rs`), the cube core multiplies them with a block of activations that stays
//! in L1 (`cube.rs`), and the vector cores scale the sums that it leaves in global memory. Two signals of the group's
//! mode order this: GO, a piece of the tile may be read, and DONE, its sums may. Later blocks of token rows find the
//! weights unpacked.
//!
//! Groups share the panels of output rows in all blocks, so a panel may be one group's in some blocks and its neighbor's
//! in others: then both unpack it, each for itself. A group's whole panels make tiles, and those that are left one each.
//!
//! Activations may pass through L1 with the weights instead, run by run: then the sums of a tile are what stays, blocks are
//! as large as L0C allows, whatever k is, and both are read once for each of its tiles.
//!
//! Where the machine has a path from UB to L1, weights may go straight to slots in the cube core's L1, run by run, and
//! are unpacked for every block; FREE then says that a slot may be written again. [`Via`] is the way that weights take.
//! Where it has one from L0C to UB, too, sums go straight to the vector cores, if those have room; READ then says that
//! the next ones may come.
//! A few token rows have a form of their own (`stream`).
//!
//! Where sums go straight to UB, a product may be [`Up`]'s gate: then a tile has as many panels of either matrix, and what
//! leaves UB is gated.
//!
//! Products of the same activations that do not depend on each other are one list of panels, or of streamed tiles
//! ([`Part`]): groups share what all of them take, and no ring runs empty between two.

pub mod choice;
mod cube;
pub mod search;
pub mod stream;
mod vector;

use tcc_ir::encoding::w2nz::KR;
use tcc_ir::kernel::ScaleKind;

use super::emit::Emit;
use super::matmul::tile::Mode;
use super::model::memories;
use super::vector::ALIGN;
use super::vector::ternary::PANEL;
use super::vector::{Place, UbTooSmall};
use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::addr::{Queue, Reg};
use crate::isa::matrix::program::inst::{CrossMode, FixPath, Order, ScalarOp, ScalarOperand};
use crate::isa::matrix::program::{CoreKind, Stream};

/// The group's signals.
const GO: u8 = 0;
const DONE: u8 = 1;
const FREE: u8 = 2;
/// A tile's sums in UB are scaled and stored: the next ones may come.
const READ: u8 = 3;

/// Where a tile's sums lie in UB of a vector core if they come straight from L0C.
const SUMS_IN_UB: usize = 0;

/// Rows of a slice of sums at most.
const SLICE_ROWS: usize = 64;

/// Output rows of a panel.
const NR: usize = PANEL.nr;

/// Slots of every ring, but for weights in L1: as many as it has room for, up to so many.
const SLOTS: usize = 2;
const MOST_SLOTS: usize = 4;

/// Tiles that are unpacked ahead of the one whose sums are scaled: in global memory, and in L1, whose slots hold less than
/// a tile.
const AHEAD: usize = 2;
const AHEAD_IN_L1: usize = 1;

/// Signals that a counter holds, and panels of a tile at most: L0B has no room for more.
const SIGNALS: usize = 15;
const MOST_PANELS: usize = 4;

/// Where the vector cores leave unpacked weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// In global memory, which L2 holds.
    L2,
    /// In the cube core's L1.
    L1,
}

impl Via {
    pub const ALL: [Via; 2] = [Via::L2, Via::L1];

    /// True if the machine has such a path.
    fn is_on(self, machine: &Machine) -> bool {
        match self {
            Via::L2 => true,
            Via::L1 => machine.path.ub_l1.is_some(),
        }
    }
}

/// What is decided about a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Token rows whose activations stay in L1, or pass.
    pub block_m: usize,
    /// Panels whose sums grow together.
    pub panels: usize,
    pub via: Via,
    /// True if activations pass through L1 with the weights of each tile.
    pub pass: bool,
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
    /// What the product gates.
    pub up: Option<Up>,
    pub out: Place,
    /// Scratch: [`scratch_bytes`] and [`sums_bytes`].
    pub expanded: Place,
    pub sums: Place,
}

/// A second matrix of the same shape and activations: the output is `relu²` of the product times the product with it. Scales
/// are per tensor, nothing is added.
#[derive(Clone, Copy, Debug)]
pub struct Up {
    pub w: Place,
    pub scales: Place,
}

/// Bytes of scratch for unpacked weights of an `[n, k]` matrix, however it is multiplied.
pub fn scratch_bytes(machine: &Machine, n: usize, k: usize) -> usize {
    // A panel that two groups unpack is there twice.
    let blocks = expanded_bytes(n, k) + machine.cube_cores() as usize * expanded_bytes(NR, k);
    blocks.max(stream::scratch_bytes(machine, k))
}

/// Bytes of the sums of `[m, n]`, however they come about.
pub fn sums_bytes(m: usize, n: usize) -> usize {
    if stream::MOST_M < m { 4 * m * n } else { stream::sums_bytes(m, n) }
}

/// Bytes of the unpacked weights of an `[n, k]` matrix.
const fn expanded_bytes(n: usize, k: usize) -> usize {
    n.next_multiple_of(NR) * k.next_multiple_of(KR)
}

/// One of the products that are worked on together.
#[derive(Clone, Copy, Debug)]
struct Part {
    p: Product,
    /// Panels and output rows of those before it.
    panels_before: usize,
    rows_before: usize,
}

impl Part {
    /// The products, each behind the ones before it.
    fn list(products: &[Product]) -> Vec<Part> {
        let mut parts: Vec<Part> = vec![];
        for p in products {
            let panels_before = parts.iter().map(Part::panels).sum();
            parts.push(Part { p: *p, panels_before, rows_before: all_rows(&parts) });
        }
        parts
    }

    fn panels(&self) -> usize {
        self.p.n.div_ceil(NR)
    }

    /// Output rows of the panel that is not whole; 0 if there is none.
    fn ragged_columns(&self) -> usize {
        self.p.n % NR
    }
}

/// Output rows of all products, the columns of their sums.
fn all_rows(parts: &[Part]) -> usize {
    parts.iter().map(|part| part.p.n).sum()
}

/// What both streams derive from products and their tile.
struct Plan {
    /// The first product: token rows, columns, activations and scratch are those of all.
    p: Product,
    parts: Vec<Part>,
    tile: Tile,
    /// Groups, and vector cores of each.
    groups: usize,
    per: usize,
    l1_bytes: usize,
    /// Sums of a tile go straight from L0C to UB of the vector cores, each one's token rows, which have one slot.
    is_direct: bool,
}

impl Plan {
    fn padded_k(&self) -> usize {
        self.p.k.next_multiple_of(KR)
    }

    /// Columns of the sums of a whole tile.
    fn columns(&self) -> usize {
        self.tile.panels * NR
    }

    /// Panels of weights for each of the output.
    fn matrices(&self) -> usize {
        1 + usize::from(self.p.up.is_some())
    }

    /// Panels of the output that a tile has.
    fn out_panels(&self) -> usize {
        self.tile.panels / self.matrices()
    }

    /// Token rows of a slice of sums.
    fn slice_rows(&self) -> usize {
        let each = self.tile.block_m.div_ceil(self.per);
        each.div_ceil(each.div_ceil(SLICE_ROWS)).next_multiple_of(8)
    }

    /// Of a block's `rows` token rows those whose sums a vector core scales, at most: whole slices.
    fn each(&self, rows: usize) -> usize {
        rows.div_ceil(self.per).next_multiple_of(self.slice_rows())
    }

    /// True if the cube core, which has so many slots of accumulators, can go on while tiles are unpacked whose sums the
    /// vector cores turn to later: single panels, a ragged one and those ahead of the next product or block.
    fn goes_on(&self, accumulators: usize) -> bool {
        let is_ragged = self.parts.iter().any(|part| part.ragged_columns() > 0);
        // Beside the slot of sums in UB.
        self.out_panels() - 1 + usize::from(is_ragged) + self.ahead() <= accumulators
    }

    /// True if a product may be gated as its sums are scaled: one of whole panels, in tiles of pairs.
    fn can_gate(&self) -> bool {
        let p = &self.p;
        let is_plain = p.scale == ScaleKind::PerTensor && p.bias.is_none() && p.residual.is_none();
        let is_whole = p.n.is_multiple_of(NR) && self.tile.panels.is_multiple_of(self.matrices());
        self.is_direct && is_plain && is_whole && self.parts.len() == 1
    }

    /// Output rows that a vector core unpacks of each panel.
    fn own(&self) -> usize {
        NR / self.per
    }

    /// Bytes of an unpacked panel.
    fn expanded_panel(&self) -> usize {
        expanded_bytes(NR, self.p.k)
    }

    /// Offset in L1 of the slots: a run's unpacked weights, and its activations behind them if those pass.
    fn slots_at(&self) -> usize {
        if self.tile.pass { 0 } else { self.padded_rows() * row_bytes(self.padded_k()) }
    }

    fn slot_bytes(&self) -> usize {
        let rows = if self.tile.pass { self.padded_rows() } else { 0 };
        self.weights_bytes() + rows * row_bytes(PANEL.kp)
    }

    /// Bytes of a run's weights.
    fn weights_bytes(&self) -> usize {
        self.columns() * row_bytes(PANEL.kp)
    }

    /// Token rows of a block as fractals hold them.
    fn padded_rows(&self) -> usize {
        self.tile.block_m.next_multiple_of(16)
    }

    /// At most as many as a tile has runs: so a block's activations are not loaded before the last tile's are read.
    fn slots(&self) -> usize {
        let room = self.l1_bytes.saturating_sub(self.slots_at()) / self.slot_bytes();
        room.min(MOST_SLOTS).min(self.runs().len())
    }

    /// Tiles that are unpacked ahead of the one whose sums are scaled.
    fn ahead(&self) -> usize {
        match self.tile.via {
            Via::L2 => AHEAD,
            Via::L1 => AHEAD_IN_L1,
        }
    }

    /// Runs of columns along k: first and count.
    fn runs(&self) -> Vec<(usize, usize)> {
        PANEL.along_k(self.p.k).collect()
    }

    /// The runs in the pieces that GO is about: one each if they go to slots in L1, else as few as signals allow. At most
    /// the tiles ahead, one more, the single panels and the ragged one are open, and the tiles ahead of the next block, for
    /// which one signal each is enough, or of the next product.
    fn pieces(&self) -> Vec<Vec<(usize, usize)>> {
        let open = AHEAD + self.tile.panels;
        let most = if self.parts.len() > 1 { SIGNALS / (open + AHEAD) } else { (SIGNALS - AHEAD) / open };
        let runs = self.runs();
        let size = match self.tile.via {
            Via::L2 => runs.len().div_ceil(most),
            Via::L1 => 1,
        };
        runs.chunks(size).map(<[_]>::to_vec).collect()
    }

    /// Blocks of token rows: first and count.
    fn blocks(&self) -> Vec<(usize, usize)> {
        let (m, block) = (self.p.m, self.tile.block_m);
        (0..m).step_by(block).map(|first| (first, block.min(m - first))).collect()
    }

    fn panels(&self) -> usize {
        self.parts.iter().map(Part::panels).sum()
    }

    /// What groups share: the panels of all blocks.
    fn shared(&self) -> usize {
        self.panels() * self.blocks().len()
    }

    /// Of what groups share, where a group's part begins.
    fn first(&self, group: usize) -> usize {
        self.shared() * group / self.groups
    }
}

/// The two streams of products of the same activations, none of which touches what another writes, or `None` if the tile
/// does not fit the machine, or cores would share blocks of 32 bytes. Scratch is for the output rows of all.
pub fn streams(
    machine: &Machine,
    products: &[Product],
    tile: Tile,
    op: u16,
) -> Result<Option<[Stream; 2]>, UbTooSmall> {
    let Some(p) = products.first() else { return Ok(None) };
    let per = machine.org.vector_per_cube.map_or(0, |per| per.value as usize);
    // Forced sizes may be any; the cube takes 4080 rows, and blocks begin at fractals.
    let is_sane = tile.block_m <= 4080 && (tile.block_m >= p.m || tile.block_m.is_multiple_of(16));
    let is_sane = is_sane && tile.panels <= MOST_PANELS;
    if !is_sane {
        return Ok(None);
    }
    let has_group = per > 0 && NR.is_multiple_of(ALIGN * per) && machine.has_cross_core(CrossMode::Group);
    let is_whole = products.iter().all(|p| p.n.is_multiple_of(ALIGN));
    if !has_group || !is_whole || !tile.via.is_on(machine) {
        return Ok(None);
    }
    let (parts, l1_bytes) = (Part::list(products), memories(machine).l1);
    let mut plan = Plan { p: *p, parts, tile, groups: 0, per, l1_bytes, is_direct: false };
    plan.groups = plan.shared().min(machine.cube_cores() as usize);
    let Some(steps) = cube::Steps::of(machine, &plan) else { return Ok(None) };
    let has_way = tile.via == Via::L1 && machine.path.l0c_ub.is_some() && per <= FixPath::UBS.len();
    plan.is_direct = has_way && plan.goes_on(steps.accumulators);
    plan.is_direct = plan.is_direct && vector::place(machine, &plan).is_ok();
    if products.iter().any(|p| p.up.is_some()) && !plan.can_gate() {
        return Ok(None);
    }
    let (mut cube, mut vector) = (Emit::default(), Emit::default());
    (cube.op, vector.op) = (op, op);
    let cube_start = cube::emit(&mut cube, machine, &plan, steps);
    let vector_start = vector::emit(&mut vector, machine, &plan)?;
    Ok(Some([
        cube.stream(CoreKind::Cube, plan.groups, cube_start),
        vector.stream(CoreKind::Vector, plan.groups * per, vector_start),
    ]))
}

impl Emit {
    fn signal(&mut self, queue: Queue, id: u8) {
        self.push(Order::XSet { queue, mode: CrossMode::Group, id });
    }

    /// What lies in a group's share, which the first two registers bound, of a product in block `block`: its first panel,
    /// whole tiles, whole panels behind them, and 1 if the ragged one follows.
    ///
    /// Shares go through all blocks one after the other if each unpacks its own weights, and through all products of each. Else they go from panel to
    /// panel, and through the blocks of a panel from the last to the first: so a group's last panel is the one that may
    /// come in with a later block.
    fn share_of(
        &mut self,
        plan: &Plan,
        (block, part): (usize, &Part),
        bounds: [Reg; 2],
        [first, whole, single, ragged]: [Reg; 4],
    ) {
        let imm = |value: usize| ScalarOperand::Imm(value as i64);
        let panels = part.panels();
        for (reg, bound) in [(first, bounds[0]), (whole, bounds[1])] {
            match plan.tile.via {
                Via::L1 => {
                    self.add(reg, bound, -((plan.panels() * block + part.panels_before) as i64));
                    self.within(reg, panels);
                }
                Via::L2 => {
                    self.add(reg, bound, block as i64);
                    self.panels_of(plan, part, reg);
                }
            }
        }
        let is_ragged = part.ragged_columns() > 0;
        // Whole panels are counted from where the share of the block ends.
        self.add(ragged, whole, i64::from(is_ragged) - panels as i64);
        self.scalar(ScalarOp::Max, ragged, ragged, imm(0));
        self.scalar(ScalarOp::Sub, whole, whole, ScalarOperand::Reg(first));
        self.scalar(ScalarOp::Min, ragged, ragged, ScalarOperand::Reg(whole));
        self.scalar(ScalarOp::Sub, whole, whole, ScalarOperand::Reg(ragged));
        self.scalar(ScalarOp::Rem, single, whole, imm(plan.out_panels()));
        self.scalar(ScalarOp::Div, whole, whole, imm(plan.out_panels()));
    }

    /// A number of panels in all blocks becomes one of the product's panels.
    fn panels_of(&mut self, plan: &Plan, part: &Part, reg: Reg) {
        self.scalar(ScalarOp::Div, reg, reg, ScalarOperand::Imm(plan.blocks().len() as i64));
        self.add(reg, reg, -(part.panels_before as i64));
        self.within(reg, part.panels());
    }

    /// At least 0, and at most `most`.
    fn within(&mut self, reg: Reg, most: usize) {
        self.scalar(ScalarOp::Max, reg, reg, ScalarOperand::Imm(0));
        self.scalar(ScalarOp::Min, reg, reg, ScalarOperand::Imm(most as i64));
    }

    /// `reg = (reg + 1) % count`.
    fn next(&mut self, reg: Reg, count: usize) {
        self.add(reg, reg, 1);
        self.scalar(ScalarOp::Rem, reg, reg, ScalarOperand::Imm(count as i64));
    }

    fn await_signal(&mut self, queue: Queue, id: u8) {
        self.push(Order::XWait { queue, mode: CrossMode::Group, id });
    }
}

/// Bytes of one row of activations or unpacked weights.
const fn row_bytes(columns: usize) -> usize {
    Mode::I8.row_bytes(columns)
}
