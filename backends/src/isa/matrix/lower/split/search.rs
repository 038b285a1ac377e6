//! How a product runs on a split machine: the simulator times the candidates, and the first of equals wins.

use tcc_ir::kernel::ScaleKind;

use super::choice::Choice;
use super::stream::{self, Streamed};
use super::{Product, Tile, Up, Via, scratch_bytes, streams, sums_bytes};
use crate::isa::matrix::lower::emit::Emit;
use crate::isa::matrix::lower::matmul::tile::Mode;
use crate::isa::matrix::lower::model::memories;
use crate::isa::matrix::lower::vector::ternary::{self, Activations, PANEL, Ternary};
use crate::isa::matrix::lower::vector::{Place, ROWS, Tables};
use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::builder::ProgramBuilder;
use crate::isa::matrix::program::vec::CostClass;
use crate::isa::matrix::program::{CoreKind, Program, Stream, SymbolKind};
use crate::isa::matrix::sim::memory::Gm;
use crate::isa::matrix::sim::{self, Options};

/// Blocks of token rows at most.
const MOST_BLOCKS: usize = 32;

/// Tiles of a way and a number of panels at most, and the token rows that those behind the first two have at least.
const MOST_TILES: usize = 4;
const LEAST_ROWS: usize = 64;

/// Output rows of streamed tiles.
const STREAM_ROWS: [usize; 3] = [64, 32, 16];

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

/// What fits, with its program: at most [`MOST_TILES`] tiles for each way of weights and activations and each number of
/// panels, those of the fewest blocks of rows, and for a few token rows every streamed form.
fn candidates(shape: &Shape, machine: &Machine) -> Vec<(Choice, Program)> {
    let mut all = vec![];
    let fitting = |choice: Choice| Some((choice, alone(shape, choice, machine)?));
    if machine.cube_mode(Mode::I8.cube()).is_some() {
        let ways = Via::ALL.into_iter().flat_map(|via| [(via, false), (via, true)]);
        for ((via, pass), panels) in ways.flat_map(|way| [(way, 2), (way, 1)]) {
            all.extend(blocks(shape.m, (via, pass, panels), fitting));
        }
    }
    if shape.m <= stream::MOST_M {
        let ways = Via::ALL.into_iter().flat_map(|via| Mode::ALL.map(|mode| (via, mode)));
        let ways = ways.flat_map(|way| [(way, false), (way, true)]);
        let forms = ways.flat_map(|((via, mode), early)| STREAM_ROWS.map(|rows| Streamed { mode, rows, via, early }));
        all.extend(forms.map(Choice::Streamed).filter_map(fitting));
    }
    all
}

/// The tiles of a way and a number of panels that fit, of the fewest blocks of `m` rows.
fn blocks(
    m: usize,
    (via, pass, panels): (Via, bool, usize),
    fitting: impl Fn(Choice) -> Option<(Choice, Program)>,
) -> Vec<(Choice, Program)> {
    let block = |blocks: usize| m.div_ceil(blocks).next_multiple_of(16).min(m);
    let mut tiles: Vec<Tile> =
        (1..=MOST_BLOCKS).map(|blocks| Tile { block_m: block(blocks), panels, via, pass }).collect();
    tiles.dedup();
    let fitting = tiles.into_iter().filter_map(|tile| fitting(Choice::Blocks(tile)).map(|found| (tile, found)));
    // Every block is code of its own: small ones have to be few.
    let worth = fitting.enumerate().take_while(|(i, (tile, _))| *i < 2 || tile.block_m >= LEAST_ROWS);
    worth.take(MOST_TILES).map(|(_, (_, found))| found).collect()
}

/// Symbols of products of the same activations, or of one alone; names of the second end in 1, of the third in 2.
fn products(builder: &mut ProgramBuilder, shapes: &[Shape], machine: &Machine) -> Vec<Product> {
    let mut symbol = |name: &str, kind, bytes: usize| -> Place { (builder.symbol(name, kind, bytes as u64, name), 0) };
    let (m, k) = (shapes[0].m, shapes[0].k);
    let q = symbol("q", SymbolKind::Input, k.next_multiple_of(128) * m.next_multiple_of(16));
    let act = symbol("act_scale", SymbolKind::Input, 4 * m);
    let mut all = vec![];
    for (index, Shape { n, scale, bias, residual, .. }) in shapes.iter().copied().enumerate() {
        let mut own = |name: &str, kind, bytes: usize| match index {
            0 => symbol(name, kind, bytes),
            _ => symbol(&format!("{name}{index}"), kind, bytes),
        };
        let w = own("weights", SymbolKind::Weights, n.div_ceil(PANEL.nr) * PANEL.codes_bytes(k));
        let scales = own("scale", SymbolKind::Input, 4 * n.max(16));
        let bias = bias.then(|| own("bias", SymbolKind::Input, 4 * n));
        let residual = residual.then(|| own("residual", SymbolKind::Input, 4 * m * n));
        let out = own("out", SymbolKind::Output, 4 * m * n);
        // Scratch comes behind them.
        all.push(Product { m, n, k, scale, q, act, w, scales, bias, residual, up: None, out, expanded: q, sums: q });
    }
    let rows = shapes.iter().map(|shape| shape.n.next_multiple_of(PANEL.nr)).sum();
    let expanded = symbol("expanded", SymbolKind::Scratch, scratch_bytes(machine, rows, k));
    let sums = symbol("sums", SymbolKind::Scratch, sums_bytes(m, rows));
    all.into_iter().map(|p| Product { expanded, sums, ..p }).collect()
}

/// A program of one product alone; `None` if it does not fit.
pub fn alone(shape: &Shape, choice: Choice, machine: &Machine) -> Option<Program> {
    together(&[*shape], choice, machine)
}

/// A program of products of the same activations, worked on together; `None` if they do not fit.
fn together(shapes: &[Shape], choice: Choice, machine: &Machine) -> Option<Program> {
    let mut builder = ProgramBuilder::new("product", machine);
    let products = products(&mut builder, shapes, machine);
    let op = builder.op("product");
    let streams = match choice {
        Choice::Blocks(tile) => Vec::from(streams(machine, &products, tile, op).ok()??),
        Choice::Streamed(tile) => Vec::from(stream::streams(machine, &products, tile, op).ok()??),
        Choice::Vector => {
            let tables = Tables::new(|name, bytes, ty| builder.constant(name, bytes, ty));
            let both = shapes.iter().zip(&products);
            both.map(|(shape, p)| on_vector(shape, p, &tables, op, machine)).collect::<Option<_>>()?
        }
    };
    builder.stage("product", streams);
    builder.finish().ok()
}

/// A program of a product that gates one of the same shape; `None` if it does not fit.
pub fn gated(shape: &Shape, choice: Choice, machine: &Machine) -> Option<Program> {
    let Choice::Blocks(tile) = choice else { return None };
    let mut builder = ProgramBuilder::new("product", machine);
    let [gate, up] = products(&mut builder, &[*shape; 2], machine).try_into().ok()?;
    let op = builder.op("product");
    let product = Product { up: Some(Up { w: up.w, scales: up.scales }), ..gate };
    builder.stage("product", Vec::from(streams(machine, &[product], tile, op).ok()??));
    builder.finish().ok()
}

/// The stream of the vector cores alone.
fn on_vector(shape: &Shape, p: &Product, tables: &Tables, op: u16, machine: &Machine) -> Option<Stream> {
    let mut e = Emit::default();
    e.op = op;
    let t = Ternary { m: shape.m, n: shape.n, k: shape.k, scale: shape.scale, activations: Activations::Codes };
    let (bias, residual) = (p.bias, p.residual);
    let o = ternary::Operands { x: p.q, act: Some(p.act), w: p.w, scales: p.scales, bias, residual, out: p.out };
    let cores = machine.vector_cores() as usize;
    let start = ternary::ternary(&mut e, memories(machine).ub, &t, &o, tables, cores).ok()?;
    Some(e.stream(CoreKind::Vector, t.share(cores), start))
}

/// Cycles of the slowest core, within a model ([`Options::warm`]) or by itself.
pub fn cycles(program: &Program, machine: &Machine, warm: bool) -> Option<f64> {
    let mut gm = Gm::for_timing(program);
    let report = sim::run(program, machine, &mut gm, Options { warm, ..Options::default() }).ok()?;
    let cores = report.stages.iter().flat_map(|stage| &stage.cores);
    Some(cores.map(|core| core.cycles).fold(0.0, f64::max))
}

/// The fastest choice within a model; the vector cores alone where no other fits.
pub fn choose(shape: &Shape, machine: &Machine) -> Choice {
    // The vector cores take one token row after the other.
    let row =
        alone(&Shape { m: 1, ..*shape }, Choice::Vector, machine).and_then(|program| cycles(&program, machine, true));
    // Token rows of one graph: exact.
    let mut best = (row.unwrap_or(f64::INFINITY) * shape.m as f64, Choice::Vector);
    for (choice, program) in candidates(shape, machine) {
        let Some(cycles) = cycles(&program, machine, true) else { continue };
        if cycles < best.0 {
            best = (cycles, choice);
        }
    }
    best.1
}

/// The choice of products of the same activations that are faster together than one after the other with the choice that
/// each has: the fastest one of theirs; where they are streamed, with rows that all have whole tiles of.
pub fn choose_together(all: &[(Shape, Choice)], machine: &Machine) -> Option<Choice> {
    let shapes: Vec<Shape> = all.iter().map(|(shape, _)| *shape).collect();
    let rows: Vec<usize> = shapes.iter().map(|shape| shape.n).collect();
    let mut apart = 0.0;
    let mut choices: Vec<Choice> = vec![];
    for (shape, choice) in all {
        let of_all = match choice {
            Choice::Streamed(tile) => Choice::Streamed(tile.dividing(&rows)),
            Choice::Blocks(_) => *choice,
            Choice::Vector => return None,
        };
        if !choices.contains(&of_all) {
            choices.push(of_all);
        }
        apart += cycles(&alone(shape, *choice, machine)?, machine, true)?;
    }
    let timed = choices.into_iter().filter_map(|choice| {
        let program = together(&shapes, choice, machine)?;
        Some((cycles(&program, machine, true)?, choice))
    });
    let best = timed.min_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 < apart).then_some(best.1)
}

/// The fastest choice of a product that gates one of the same shape; `None` if two products and their gate are faster, which
/// have the choice `apart` together, or `choice` each.
pub fn choose_gated((shape, choice): (&Shape, Choice), apart: Option<Choice>, machine: &Machine) -> Option<Choice> {
    if !matches!(choice, Choice::Blocks(_)) || !Via::L1.is_on(machine) {
        return None;
    }
    let cycles = |program: &Program| cycles(program, machine, true);
    let apart = match apart {
        Some(choice) => cycles(&together(&[*shape; 2], choice, machine)?)?,
        None => 2.0 * cycles(&alone(shape, choice, machine)?)?,
    };
    let ways = [(false, 2), (true, 2), (false, 4), (true, 4)];
    let fitting = |choice: Choice| Some((choice, gated(shape, choice, machine)?));
    let programs = ways.into_iter().flat_map(|(pass, panels)| blocks(shape.m, (Via::L1, pass, panels), fitting));
    let timed = programs.filter_map(|(choice, program)| Some((cycles(&program)?, choice)));
    let best = timed.min_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 < apart + gate_cycles(shape, machine)).then_some(best.1)
}

/// Cycles of a gate's three instructions for all elements on all vector cores: about what the step behind is spared.
fn gate_cycles(shape: &Shape, machine: &Machine) -> f64 {
    // The larger of the gate and zero, its square, the product.
    let classes = [CostClass::Scalar, CostClass::Add, CostClass::Add];
    let repeats = (shape.m * shape.n).div_ceil(ROWS) as f64;
    repeats * classes.iter().map(|class| machine.vector_slope(*class)).sum::<f64>() / machine.vector_units() as f64
}
