//! Ternary products on the cube (`docs/matrix.md`): tiles, and the streams that follow from them.

pub mod bound;
pub mod candidates;
mod coupled;
mod epilogue;
mod layout;
mod multiply;
pub mod search;
pub mod tile;

use tcc_ir::kernel::ScaleKind;

use self::coupled::{Gen, Panels};
use self::tile::{Memories, Rings, Shape, Tile};
use crate::isa::matrix::lower::emit::Emit;
use crate::isa::matrix::program::addr::{Addr, Reg};
use crate::isa::matrix::program::inst::{ScalarOp, ScalarOperand};
use crate::isa::matrix::program::{StartValues, SymbolId};

/// What a product reads besides activations, weights and scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operands {
    pub bias: bool,
}

/// Flags between two queues: the first of each ring, which takes as many as it has slots.
mod flag {
    use super::{Addr, Reg};

    // MTE2 and V.
    pub const PACKED: u8 = 0;
    pub const RESIDUAL: u8 = 3;
    pub const TABLES: u8 = 5;
    // V and MTE3; flags of slices that may be stored follow those of the unpacked parts.
    pub const UNPACKED: u8 = 0;
    // MTE3 and MTE1.
    pub const B: u8 = 0;
    // MTE2 and MTE1.
    pub const A: u8 = 0;
    // MTE1 and M.
    pub const L0A: u8 = 0;
    pub const L0B: u8 = 2;
    // M and FIX.
    pub const C: u8 = 0;
    // V and MTE3, MTE3 and MTE1, MTE3 and MTE2: before the first products, and before sums are read again.
    pub const START: u8 = 5;
    // FIX and V; MTE3 and FIX.
    pub const SLICE: u8 = 0;

    /// Flag of slot `slot` of the ring that begins at `base`.
    pub fn slot(base: u8, slot: usize) -> u8 {
        // Rings have at most six slots.
        base + slot as u8
    }

    /// A fixed address in a local memory.
    pub fn at(offset: usize) -> Addr {
        // Local memories are far below 2^26 bytes.
        Addr::at(offset as i32)
    }

    /// `offset` bytes behind a register; offsets within one block of an array are below 2^26.
    pub fn behind(reg: Reg, offset: usize) -> Addr {
        Addr::behind(reg, offset as i32)
    }
}

/// The registers of a product. Those of the first group are set before it runs.
pub mod regs {
    use crate::isa::matrix::lower::cores::reg;
    use crate::isa::matrix::program::addr::Reg;

    /// Activation strips, act_scale, output, and the optional operands.
    pub const Q: Reg = reg(1);
    pub const ACT: Reg = reg(2);
    pub const OUT: Reg = reg(3);
    pub const SCALE: Reg = reg(4);
    pub const BIAS: Reg = reg(5);
    pub const RESIDUAL: Reg = reg(6);
    /// Sums of cuts along k, `s32[m, n]`.
    pub const SUMS: Reg = reg(7);
    /// First row panel of the core, and bytes in front of its first column.
    pub const FIRST_W: Reg = reg(8);
    pub const FIRST_COLUMN: Reg = reg(9);
    /// Panels of the core that are neither first nor last.
    pub const MIDDLE: Reg = reg(10);
    /// Bytes of row panels in front of the core's.
    pub const SHARE_W: Reg = reg(26);
    /// Bits of the scale of a tensor.
    pub const SCALE_BITS: Reg = reg(11);

    /// Row panels of this and the next body, column bytes.
    pub const W: Reg = reg(12);
    pub const NEXT_W: Reg = reg(13);
    pub const COLUMN: Reg = reg(14);
    /// Offset and first flag of the accumulators; 0 at first.
    pub const C: Reg = reg(15);
    pub const C_FLAG: Reg = reg(16);
    pub const PREVIOUS_W: Reg = reg(17);
    pub const PREVIOUS_COLUMN: Reg = reg(18);
    pub const PREVIOUS_C: Reg = reg(19);
    pub const PREVIOUS_C_FLAG: Reg = reg(20);
    pub const PREVIOUS_OUT: Reg = reg(21);
    pub const PREVIOUS_SUMS: Reg = reg(22);
    pub const PREVIOUS_RESIDUAL: Reg = reg(23);
    pub const PREVIOUS_SCALE: Reg = reg(24);
    pub const PREVIOUS_BIAS: Reg = reg(25);
}

/// Where operands lie: a symbol, and bytes behind it.
pub type Place = (SymbolId, i64);

/// A product with all that was decided about it.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    pub shape: Shape,
    pub tile: Tile,
    pub scale: ScaleKind,
    pub bias: Option<Place>,
    pub residual: Option<Place>,
    /// Activation strips, act_scale, packed weights, scales, output `f32[m, n]`.
    pub q: Place,
    pub act: Place,
    pub w: Place,
    pub scales: Place,
    pub out: Place,
    /// Scratch `s32[m, n]`, where k is cut.
    pub sums: Option<Place>,
}

/// Why a product has no stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tile '{tile}' does not fit the local memories")]
pub struct DoesNotFit {
    pub tile: Tile,
}

/// Writes the stream of a product that `cores` cores share; returns the registers that differ between them.
pub fn emit(
    e: &mut Emit,
    product: &Product,
    memories: &Memories,
    bar_m_below: usize,
    cores: usize,
) -> Result<Vec<StartValues>, DoesNotFit> {
    let (shape, tile) = (product.shape, product.tile);
    let rings = Rings::fit(&shape, &tile, memories).ok_or(DoesNotFit { tile })?;
    let place = |e: &mut Emit, reg, place: Place| e.address(reg, Some(place.0), place.1);
    for (reg, to) in
        [(regs::Q, product.q), (regs::ACT, product.act), (regs::OUT, product.out), (regs::SCALE, product.scales)]
    {
        place(e, reg, to);
    }
    for (reg, to) in [(regs::BIAS, product.bias), (regs::RESIDUAL, product.residual), (regs::SUMS, product.sums)] {
        if let Some(to) = to {
            place(e, reg, to);
        }
    }
    if product.scale == ScaleKind::PerTensor {
        e.scalar_load(regs::SCALE_BITS, flag::behind(regs::SCALE, 0));
    }
    [regs::C, regs::C_FLAG].into_iter().for_each(|reg| e.add(reg, Reg::ZERO, 0));
    place(e, regs::FIRST_W, product.w);
    let operands = Operands { bias: product.bias.is_some() };
    let (panels, starts) = split(&shape, cores);
    if starts.is_empty() {
        e.add(regs::FIRST_COLUMN, Reg::ZERO, 0);
    } else {
        e.scalar(ScalarOp::Add, regs::FIRST_W, regs::FIRST_W, ScalarOperand::Reg(regs::SHARE_W));
    }
    Gen::new(e, (shape, tile, rings), (product.scale, operands), bar_m_below).run(panels);
    Ok(starts)
}

/// Shares the panels of outputs among cores: how many each has, and the registers that say so.
fn split(shape: &Shape, cores: usize) -> (Panels, Vec<StartValues>) {
    let (panels, nr) = (shape.panels(), shape.panel.nr);
    let cores = share(shape, cores);
    if cores == 1 {
        return (Panels::Fixed(panels), vec![]);
    }
    let first = |core: usize| panels * core / cores;
    let bytes = shape.panel.codes_bytes(shape.k) + shape.panel.sums_bytes();
    let values = |f: &dyn Fn(usize) -> usize| (0..cores).map(|core| f(core) as i64).collect();
    let starts = vec![
        StartValues { reg: regs::FIRST_COLUMN, values: values(&|core| first(core) * nr * 4) },
        StartValues { reg: regs::SHARE_W, values: values(&|core| first(core) * bytes) },
        StartValues { reg: regs::MIDDLE, values: values(&|core| (first(core + 1) - first(core)).saturating_sub(2)) },
    ];
    let kind = if panels == cores { Panels::Fixed(1) } else { Panels::Varying };
    (kind, starts)
}

/// Cores that a product can be shared among: one panel each, or at least two each, and no ragged one.
pub fn share(shape: &Shape, cores: usize) -> usize {
    let panels = shape.panels();
    if cores == 1 || !shape.n.is_multiple_of(shape.panel.nr) {
        1
    } else if panels <= cores {
        panels
    } else {
        cores.min(panels / 2)
    }
}

/// One block of activations against all panels.
#[derive(Clone, Copy, Debug)]
struct Block {
    first_m: usize,
    m: usize,
    first_k: usize,
    columns: usize,
    /// Which table of act_scale it uses.
    parity: usize,
    /// Sums of an earlier cut of k are added.
    adds: bool,
    /// The sums are final: scales follow.
    ends: bool,
}

/// The blocks of a product: token rows outside, cuts of k inside.
fn blocks(shape: &Shape, tile: &Tile) -> Vec<Block> {
    let k = shape.padded_k();
    let mut blocks = vec![];
    for (index, first_m) in (0..shape.m).step_by(tile.block_m).enumerate() {
        for first_k in (0..k).step_by(tile.block_k) {
            let columns = tile.block_k.min(k - first_k);
            let m = tile.block_m.min(shape.m - first_m);
            let (adds, ends) = (first_k > 0, first_k + columns == k);
            blocks.push(Block { first_m, m, first_k, columns, parity: index % 2, adds, ends });
        }
    }
    blocks
}
