//! What each pipe must at least do for a product: the least time that a tile can take, and which pipe says so.
//!
//! The tile search times the tiles with the least bounds first; nothing else rests on these numbers.

use super::share;
use super::tile::{Rings, Shape, Tile};
use crate::isa::matrix::lower::model::memories;
use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::vec::CostClass;

/// The limit of one pipe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    pub pipe: &'static str,
    pub cycles: f64,
}

/// The limits of all pipes, for the core with the most panels; infinite where the machine lacks the mode or a path.
pub fn bounds(shape: &Shape, tile: &Tile, machine: &Machine) -> Vec<Bound> {
    let cores = share(shape, machine.cube_cores() as usize);
    let panels = shape.panels().div_ceil(cores);
    let rows: Vec<usize> = (0..shape.m).step_by(tile.block_m).map(|first| tile.block_m.min(shape.m - first)).collect();
    let cuts = shape.padded_k().div_ceil(tile.block_k);
    // Sizes of a product are exact in f64.
    let each = |cycles: f64| cycles * panels as f64;
    let of_blocks = |cycles: &dyn Fn(usize) -> f64| each(rows.iter().map(|m| cycles(*m)).sum());
    let vector = of_blocks(&|m| unpack(shape, tile, machine) + finish(shape, tile, machine, m, cuts));
    vec![
        Bound { pipe: "M", cycles: of_blocks(&|m| cube(shape, tile, machine, m).unwrap_or(f64::INFINITY)) },
        Bound { pipe: "MTE1", cycles: of_blocks(&|m| loads(shape, tile, machine, m)) },
        Bound { pipe: "L0", cycles: of_blocks(&|m| slots(shape, tile, machine, m).unwrap_or(f64::INFINITY)) },
        Bound { pipe: "V", cycles: vector },
        Bound { pipe: "MTE3", cycles: of_blocks(&|m| moves(shape, machine, m, cuts).unwrap_or(f64::INFINITY)) },
        Bound { pipe: "DDR", cycles: memory(shape, machine, rows.len(), cuts) },
    ]
}

/// Rows of the cube that `m` tokens take, in each tile of accumulators.
fn tile_rows(shape: &Shape, tile: &Tile, m: usize) -> Vec<usize> {
    let tiles = (0..m).step_by(tile.tile_m).map(|first| tile.tile_m.min(m - first));
    tiles.map(|m| (m * shape.mode.rows()).next_multiple_of(16)).collect()
}

/// Products of a panel of outputs.
fn cube(shape: &Shape, tile: &Tile, machine: &Machine, m: usize) -> Option<f64> {
    let mode = machine.cube_mode(shape.mode.cube())?;
    let (k, n) = (shape.padded_k(), shape.panel.nr);
    let work = |rows: &usize| (rows / 16 * n.div_ceil(mode.mkn[2] as usize) * k) as f64 / f64::from(mode.k_per_cycle);
    let rows = tile_rows(shape, tile, m);
    let products = rows.len() * (k.div_ceil(tile.kc) + 2 * (tile.spans - 1));
    let busy = rows.iter().map(work).sum::<f64>() + products as f64 * mode.dt.back_to_back;
    Some(busy + leave(shape, tile, machine, &rows).unwrap_or(0.0))
}

/// What the cube waits for sums that leave L0C, where that holds those of one panel: it works on other spans meanwhile,
/// in the last step and in the next panel's first one.
fn leave(shape: &Shape, tile: &Tile, machine: &Machine, rows: &[usize]) -> Option<f64> {
    let rings = Rings::fit(shape, tile, &memories(machine))?;
    let (mode, path) = (machine.cube_mode(shape.mode.cube())?, machine.path.l0c_ub.as_ref()?);
    if rings.c > tile.accumulators() {
        return None;
    }
    let sums = rows.iter().sum::<usize>() * shape.panel.nr;
    let step = (sums / 256 * tile.kc) as f64 / f64::from(mode.k_per_cycle);
    let others = 2.0 * step * (tile.spans - 1) as f64 / tile.spans as f64;
    Some((path.dt.alone + (4 * sums) as f64 / path.rate.value - others).max(0.0))
}

/// Loads of a panel into L0A and L0B.
fn loads(shape: &Shape, tile: &Tile, machine: &Machine, m: usize) -> f64 {
    let (k, mode) = (shape.padded_k(), shape.mode);
    let (a, b) = (&machine.path.l1_l0a, &machine.path.l1_l0b);
    let weights = (shape.panel.nr * mode.row_bytes(k)) as f64 / b.rate.value;
    let loads = k.div_ceil(tile.kb) + 2 * (tile.spans - 1);
    let weights = weights + loads as f64 * b.dt.alone.min(b.dt.back_to_back);
    if tile.a_stays {
        return weights;
    }
    let rows = tile_rows(shape, tile, m);
    let activations = (rows.iter().sum::<usize>() * mode.row_bytes(k)) as f64 / a.rate.value;
    weights + activations + (rows.len() * k.div_ceil(tile.kc)) as f64 * a.dt.alone.min(a.dt.back_to_back)
}

/// Steps of a panel through two slots of L0A: a slot is loaded when the product before the last one is through with it,
/// and the next product starts from rest if the last one ends meanwhile.
fn slots(shape: &Shape, tile: &Tile, machine: &Machine, m: usize) -> Option<f64> {
    if tile.a_stays {
        return Some(0.0);
    }
    let (mode, flags) = (machine.cube_mode(shape.mode.cube())?, 2.0 * machine.flag.hop.value);
    let rows = tile_rows(shape, tile, m);
    // Weights of one step are loaded by the same flag where each step has its own.
    let has_weights = tile.kb == tile.kc && rows.len() == 1;
    let (a, b) = (&machine.path.l1_l0a, &machine.path.l1_l0b);
    let bytes = shape.mode.row_bytes(tile.kc);
    let step = |rows: &usize| {
        let weights = (shape.panel.nr * bytes) as f64 / b.rate.value + b.dt.alone.min(b.dt.back_to_back);
        let load = (rows * bytes) as f64 / a.rate.value + a.dt.alone.min(a.dt.back_to_back);
        let work = (rows / 16 * (shape.panel.nr / 16) * tile.kc) as f64 / f64::from(mode.k_per_cycle);
        (load + if has_weights { weights } else { 0.0 } + flags + mode.dt.alone + work) / 2.0
    };
    // All but the first two steps.
    let steps = (shape.padded_k() / tile.kc).saturating_sub(2) as f64;
    Some(rows.iter().map(step).sum::<f64>() * steps)
}

/// Shifts and masks of a panel.
fn unpack(shape: &Shape, tile: &Tile, machine: &Machine) -> f64 {
    let parts = shape.mode.parts() as f64;
    let repeats = (shape.panel.nr * shape.padded_k() / 4) as f64 / 256.0;
    let groups = shape.padded_k().div_ceil(shape.panel.kp).div_ceil(tile.group) as f64;
    let work = (parts - 1.0) * machine.vector_slope(CostClass::Shift) + parts * machine.vector_slope(CostClass::Logic);
    repeats * work + groups * (2.0 * parts - 1.0) * machine.vector.head.back_to_back
}

/// Arithmetic on the sums of a panel.
fn finish(shape: &Shape, tile: &Tile, machine: &Machine, m: usize, cuts: usize) -> f64 {
    use CostClass::{Add, Cast, Scalar, Shift};
    let (rows, nr) = (shape.mode.rows(), shape.panel.nr);
    let mut classes = vec![Cast, Add, Scalar];
    if rows == 2 {
        classes.extend([Shift, Add, Add]);
    }
    classes.extend(std::iter::repeat_n(Add, cuts - 1 + usize::from(shape.residual)));
    let work: f64 = classes.iter().map(|class| machine.vector_slope(*class)).sum();
    let columns = if rows == 1 { 1 } else { nr.div_ceil(64) };
    let slices = tile_rows(shape, tile, m).iter().map(|r| r.div_ceil(tile.slice)).sum::<usize>() * columns;
    (m * nr) as f64 / 64.0 * work + (slices * classes.len()) as f64 * machine.vector.head.back_to_back
}

/// Unpacked weights to L1 and results to global memory.
fn moves(shape: &Shape, machine: &Machine, m: usize, cuts: usize) -> Option<f64> {
    let unpacked = (shape.panel.nr * shape.mode.row_bytes(shape.padded_k())) as f64;
    let out = (4 * m * shape.panel.nr * cuts) as f64;
    Some(unpacked / machine.path.ub_l1.as_ref()?.rate.value + out / machine.path.ub_gm.rate.value)
}

/// All bytes of the product through DDR (or HBM), once; 0 where its rate is not known.
fn memory(shape: &Shape, machine: &Machine, blocks: usize, cuts: usize) -> f64 {
    let Some(rate) = machine.hbm_bytes_per_cycle() else { return 0.0 };
    let (m, n, k) = (shape.m, shape.n, shape.padded_k());
    let weights = (shape.panels() * shape.panel.codes_bytes(shape.k)) as f64;
    // What L2 holds comes from DDR once.
    let l2_bytes = machine.gm.l2_bytes.value as f64;
    let passes = if weights <= l2_bytes { 1 } else { blocks };
    let sums = (4 * m * n) as f64;
    let sum_passes = if sums <= l2_bytes { 1 } else { 2 * cuts - 1 };
    (weights * passes as f64 + sums * sum_passes as f64 + (shape.strip_rows() * shape.mode.row_bytes(k)) as f64) / rate
}
