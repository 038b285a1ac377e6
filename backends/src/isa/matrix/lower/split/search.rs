//! The tile of a product on a split machine, or none where the vector cores alone are faster: the simulator times the
//! candidates, and the first of equals wins.

use tcc_ir::kernel::ScaleKind;

use super::{Product, Tile, expanded_bytes, streams};
use crate::isa::matrix::lower::emit::Emit;
use crate::isa::matrix::lower::matmul::tile::Mode;
use crate::isa::matrix::lower::model::memories;
use crate::isa::matrix::lower::vector::ternary::{self, Activations, PANEL, Ternary};
use crate::isa::matrix::lower::vector::{Place, Tables};
use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::builder::ProgramBuilder;
use crate::isa::matrix::program::{CoreKind, Program, Stream, SymbolKind};
use crate::isa::matrix::sim::memory::Gm;
use crate::isa::matrix::sim::{self, Options};

/// Blocks of token rows at most.
const MOST_BLOCKS: usize = 32;

/// A product to be timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub scale: ScaleKind,
    pub bias: bool,
    pub residual: bool,
}

/// Tiles that fit, with their programs; at most two for each number of panels: the fewest blocks of rows, and one more.
fn candidates(shape: &Shape, machine: &Machine) -> Vec<(Tile, Program)> {
    let mut tiles = vec![];
    for panels in [2, 1] {
        let block = |blocks: usize| shape.m.div_ceil(blocks).next_multiple_of(16).min(shape.m);
        let mut all: Vec<Tile> = (1..=MOST_BLOCKS).map(|blocks| Tile { block_m: block(blocks), panels }).collect();
        all.dedup();
        tiles.extend(all.into_iter().filter_map(|tile| Some((tile, alone(shape, tile, machine)?))).take(2));
    }
    tiles
}

/// Symbols of a product alone.
fn product(builder: &mut ProgramBuilder, shape: &Shape) -> Product {
    let (m, n, k) = (shape.m, shape.n, shape.k);
    let strips = k.next_multiple_of(128) * m.next_multiple_of(16);
    let packed = n.div_ceil(PANEL.nr) * PANEL.codes_bytes(k);
    let mut symbol = |name: &str, kind, bytes: usize| -> Place { (builder.symbol(name, kind, bytes as u64, name), 0) };
    Product {
        m,
        n,
        k,
        scale: shape.scale,
        q: symbol("q", SymbolKind::Input, strips),
        act: symbol("act_scale", SymbolKind::Input, 4 * m),
        w: symbol("weights", SymbolKind::Weights, packed),
        scales: symbol("scale", SymbolKind::Input, 4 * n.max(16)),
        bias: shape.bias.then(|| symbol("bias", SymbolKind::Input, 4 * n)),
        residual: shape.residual.then(|| symbol("residual", SymbolKind::Input, 4 * m * n)),
        out: symbol("out", SymbolKind::Output, 4 * m * n),
        expanded: symbol("expanded", SymbolKind::Scratch, expanded_bytes(n, k)),
        sums: symbol("sums", SymbolKind::Scratch, 4 * m * n),
    }
}

/// A program of one product alone on cube and vector cores; `None` if the tile does not fit.
pub fn alone(shape: &Shape, tile: Tile, machine: &Machine) -> Option<Program> {
    let mut builder = ProgramBuilder::new("product", machine);
    let p = product(&mut builder, shape);
    let op = builder.op("product");
    let streams = streams(machine, &p, tile, op).ok()??;
    builder.stage("product", streams.into());
    builder.finish().ok()
}

/// The same on the vector cores alone.
pub fn on_vector(shape: &Shape, machine: &Machine) -> Option<Program> {
    let mut builder = ProgramBuilder::new("product", machine);
    let p = product(&mut builder, shape);
    let tables = Tables::new(|name, bytes, ty| builder.constant(name, bytes, ty));
    let mut e = Emit::default();
    e.op = builder.op("product");
    let t = Ternary { m: shape.m, n: shape.n, k: shape.k, scale: shape.scale, activations: Activations::Codes };
    let (bias, residual) = (p.bias, p.residual);
    let o = ternary::Operands { x: p.q, act: Some(p.act), w: p.w, scales: p.scales, bias, residual, out: p.out };
    let cores = machine.vector_cores() as usize;
    let start = ternary::ternary(&mut e, memories(machine).ub, &t, &o, &tables, cores).ok()?;
    e.halt();
    // At most the machine's cores.
    let cores = t.share(cores) as u16;
    builder.stage("product", vec![Stream { kind: CoreKind::Vector, cores, start, records: e.records }]);
    builder.finish().ok()
}

/// Cycles of the slowest core.
pub fn cycles(program: &Program, machine: &Machine) -> Option<f64> {
    let mut gm = Gm::for_timing(program);
    let report = sim::run(program, machine, &mut gm, Options::default()).ok()?;
    let cores = report.stages.iter().flat_map(|stage| &stage.cores);
    Some(cores.map(|core| core.cycles).fold(0.0, f64::max))
}

/// The fastest tile; `None` where the vector cores alone are faster, or no tile fits.
pub fn choose(shape: &Shape, machine: &Machine) -> Option<Tile> {
    machine.cube_mode(Mode::I8.cube())?;
    // The vector cores take one token row after the other.
    let row = on_vector(&Shape { m: 1, ..*shape }, machine).and_then(|program| cycles(&program, machine));
    // Token rows of one graph: exact.
    let mut best = (row.unwrap_or(f64::INFINITY) * shape.m as f64, None);
    for (tile, program) in candidates(shape, machine) {
        let Some(cycles) = cycles(&program, machine) else { continue };
        if cycles < best.0 {
            best = (cycles, Some(tile));
        }
    }
    best.1
}
