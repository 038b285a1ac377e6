//! The tile of a product: each candidate is timed by the simulator on some of its panels, and the fastest wins. One
//! model of time, no second formula; the first of equals wins, so the choice is the same on every host.

use tcc_ir::kernel::ScaleKind;

use super::bound::bounds;
use super::candidates::{candidates, groups, rings};
use super::tile::{Shape, Tile};
use super::{Product, emit, share};
use crate::isa::matrix::lower::emit::Emit;
use crate::isa::matrix::lower::model::{LowerError, memories};
use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::builder::ProgramBuilder;
use crate::isa::matrix::program::{CoreKind, Program, SymbolKind};
use crate::isa::matrix::sim::memory::Gm;
use crate::isa::matrix::sim::{self, Options};

/// Panels of outputs per core that a candidate is timed on: enough to be past the start.
const PANELS: usize = 8;

/// Sizes that are timed, and the best of them whose rings are varied.
const MOST: usize = 64;
const BEST: usize = 6;

/// A program of one product alone, with symbols of its own; what searches and benchmarks run.
pub fn alone(shape: &Shape, tile: Tile, machine: &Machine) -> Result<Program, LowerError> {
    let label = "product";
    let mut builder = ProgramBuilder::new(label, machine);
    let (m, n) = (shape.m, shape.n);
    let mode = shape.mode;
    let row_panel = shape.panel.codes_bytes(shape.k) + shape.panel.sums_bytes();
    let strips = shape.padded_k() / mode.strip() * shape.strip_rows() * 32;
    let mut symbol = |name: &str, kind, bytes: usize| (builder.symbol(name, kind, bytes as u64, name), 0);
    let product = Product {
        shape: *shape,
        tile,
        scale: ScaleKind::PerTensor,
        bias: None,
        q: symbol("q", SymbolKind::Input, strips),
        act: symbol("act_scale", SymbolKind::Input, 4 * m),
        w: symbol("weights", SymbolKind::Weights, shape.panels() * row_panel),
        scales: symbol("scale", SymbolKind::Input, 64),
        residual: shape.residual.then(|| symbol("residual", SymbolKind::Input, 4 * m * n)),
        out: symbol("out", SymbolKind::Output, 4 * m * n),
        sums: Some(symbol("sums", SymbolKind::Scratch, 4 * m * n)),
    };
    let mut e = Emit::default();
    e.op = builder.op(label);
    let cores = machine.cube_cores() as usize;
    let start = emit(&mut e, &product, &memories(machine), machine.quirk.bar_m_below as usize, cores)
        .map_err(|source| LowerError::Tile { label: label.into(), source })?;
    builder.stage(label, vec![e.stream(CoreKind::Coupled, share(shape, cores), start)]);
    Ok(builder.finish()?)
}

/// Cycles of a product alone, of the slowest core; `None` where the machine cannot run it.
pub fn cycles(shape: &Shape, tile: Tile, machine: &Machine) -> Option<f64> {
    let program = alone(shape, tile, machine).ok()?;
    let mut gm = Gm::for_timing(&program);
    let report = sim::run(&program, machine, &mut gm, Options::default()).ok()?;
    let cores = report.stages.iter().flat_map(|stage| &stage.cores);
    Some(cores.map(|core| core.cycles).fold(0.0, f64::max))
}

/// The fastest tile for a product.
pub fn choose(shape: &Shape, machine: &Machine) -> Option<Tile> {
    machine.cube_mode(shape.mode.cube())?;
    let cores = share(shape, machine.cube_cores() as usize);
    let few = Shape { n: shape.n.min(PANELS * cores * shape.panel.nr), ..*shape };
    let memories = memories(machine);
    let time = |tiles: Vec<Tile>| {
        let mut timed: Vec<(f64, Tile)> =
            tiles.into_iter().filter_map(|tile| Some((cycles(&few, tile, machine)?, tile))).collect();
        timed.sort_by(|a, b| a.0.total_cmp(&b.0));
        timed
    };
    let least = |tile: &Tile| bounds(&few, tile, machine).iter().map(|bound| bound.cycles).fold(0.0, f64::max);
    let mut sizes = candidates(shape, &memories);
    sizes.sort_by(|a, b| least(a).total_cmp(&least(b)));
    let sizes = time(sizes.into_iter().take(MOST).collect());
    let rings = sizes.iter().take(BEST).flat_map(|(_, tile)| rings(shape, &memories, tile));
    let (_, best) = *time(rings.collect()).first()?;
    time(groups(shape, &memories, &best)).first().map(|(_, tile)| *tile)
}
