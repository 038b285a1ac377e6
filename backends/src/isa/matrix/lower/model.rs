//! Whole models: a plan's steps become one program per graph, over one map of global memory.
//!
//! The steps follow each other in one stage, on a machine with one core behind barriers; several share each step and meet
//! in between (`stage.rs`), or if the machine has no signal among all of them, each step is a stage. On a split machine
//! products run on cube and vector cores, all else on vector cores.

use tcc_ir::cache::GROUP;
use tcc_ir::encoding::Encoding;
use tcc_ir::encoding::w2nz::Panel;
use tcc_ir::kernel::{KernelSpec, ScaleKind};
use tcc_ir::plan::{Arg, Plan, Step, StepList};
use tcc_ir::target::Features;
use thiserror::Error;

mod together;

use super::attention::{self, Attention};
use super::cores::CoreTable;
use super::emit::Emit;
use super::matmul::tile::{Memories, Mode, Shape, Tile};
use super::matmul::{self, DoesNotFit, Product};
use super::split;
use super::split::choice::Choice;
use super::stage::{self, Step as StageStep};
use super::vector::cache;
use super::vector::dense::{self, Dense};
use super::vector::quantize::{self, Before};
use super::vector::ternary::{self, Activations, Ternary};
use super::vector::{Place, ROWS, Tables, UbTooSmall};
use super::vector::{rope, rows};
use crate::isa::matrix::desc;
use crate::isa::matrix::machine::{Machine, OrganisationKind};
use crate::isa::matrix::program::addr::Queue;
use crate::isa::matrix::program::builder::ProgramBuilder;
use crate::isa::matrix::program::ty::CubeType;
use crate::isa::matrix::program::verify::ProgramError;
use crate::isa::matrix::program::{CoreKind, Program, StartValues, Stream, SymbolId, SymbolKind};

/// Why a model has no program for a machine.
#[derive(Debug, Error)]
pub enum LowerError {
    #[error("'{label}': {what}")]
    Unsupported { label: String, what: String },
    #[error("'{label}': {source}")]
    Ub { label: String, source: UbTooSmall },
    #[error("'{label}': {source}")]
    Tile { label: String, source: DoesNotFit },
    #[error("'{label}': no tile fits the local memories")]
    NoTile { label: String },
    #[error("'{label}': the forced choice '{choice}' does not fit this product on this machine")]
    Forced { label: String, choice: String },
    #[error(
        "machine '{machine}' does not round {op} in f32 once (vector.rounds_once.{op}), which the bits of a model rest on"
    )]
    Rounding { machine: String, op: &'static str },
    #[error("'{program}': a value that differs between cores is not 0 to 2^32 - 1")]
    CoreValue { program: String },
    #[error("the model's weights have panels of one and of two weights to the byte; --encoding forces one for all")]
    Modes,
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// Symbols of every program of a model, at the same addresses in each.
#[derive(Clone, Copy, Debug)]
pub struct Map {
    /// `u32`: the position, then zeros up to 64 bytes, then the tokens.
    pub input: SymbolId,
    pub weights: SymbolId,
    pub kv: SymbolId,
    pub activations: SymbolId,
    pub hidden: SymbolId,
    pub logits: SymbolId,
    sums: SymbolId,
    /// Unpacked weights, on split machines.
    expanded: Option<SymbolId>,
    tables: Tables,
    /// Values of cores that meet, the last symbol.
    cores: Option<SymbolId>,
}

/// Symbols of every program that the host reads and writes.
pub const INPUT: &str = "input";
pub const WEIGHTS: &str = "weights";
pub const HIDDEN: &str = "hidden";
pub const LOGITS: &str = "logits";

/// Bytes of the input symbol in front of the tokens.
pub const TOKENS_OFFSET: usize = 64;

/// Decides about products, on machines of either kind; `None` where nothing fits.
pub struct Choose<'a> {
    pub coupled: &'a dyn Fn(&Shape) -> Option<Tile>,
    pub split: &'a dyn Fn(&split::search::Shape) -> Option<Choice>,
    /// The choice of products that are worked on together; `None` where each is worked on by itself.
    pub together: &'a dyn Fn(&[split::search::Shape]) -> Option<Choice>,
    /// That of a product that gates one of the same shape; `None` where the gate belongs to the step behind.
    pub gated: &'a dyn Fn(&split::search::Shape) -> Option<Choice>,
}

/// What streams may use of the local memories and queues.
pub fn memories(machine: &Machine) -> Memories {
    let b = &machine.buffer;
    let [l1, l0a, l0b, l0c, ub] = [&b.l1, &b.l0a, &b.l0b, &b.l0c, &b.ub].map(|b| b.usable() as usize);
    let entries = machine.queue_depth(Queue::Mte1).min(machine.queue_depth(Queue::M)) as usize;
    Memories { l1, l0a, l0b, l0c, ub, entries }
}

/// What the rows of the menu that `machine` can run need (`desc.rs`).
pub fn features(machine: &Machine) -> Features {
    let is_coupled = machine.org.kind == OrganisationKind::Coupled;
    let has_cube = is_coupled && machine.path.ub_l1.is_some() && machine.path.l0c_ub.is_some();
    let mut features = Features::NONE;
    for (has, feature) in [(has_cube, desc::CUBE), (machine.cube_mode(CubeType::S4).is_some(), desc::S4)] {
        if has {
            features = features.with(feature);
        }
    }
    features
}

/// The programs of step lists of `plan`, each with the mode of its products on the cube.
pub fn lower(
    plan: &Plan,
    lists: &[(&StepList, Mode)],
    machine: &Machine,
    choose: &Choose,
) -> Result<Vec<Program>, LowerError> {
    if let Some(op) = machine.vector.rounds_once.first_failing() {
        return Err(LowerError::Rounding { machine: machine.name.clone(), op });
    }
    // Symbols are the same in every program, so all share one table.
    let mut table = CoreTable::default();
    let builders: Vec<(ProgramBuilder, Option<SymbolId>)> = lists
        .iter()
        .map(|(list, mode)| lower_list(plan, (list, *mode), machine, choose, &mut table))
        .collect::<Result<_, _>>()?;
    let finish = |(mut builder, cores): (ProgramBuilder, Option<SymbolId>)| {
        if let Some(cores) = cores {
            builder.set_constant(cores, table.bytes());
        }
        builder.finish().map_err(LowerError::from)
    };
    builders.into_iter().map(finish).collect()
}

/// The program of one list but for the bytes of `table`, and the symbol that they belong to.
fn lower_list(
    plan: &Plan,
    (list, mode): (&StepList, Mode),
    machine: &Machine,
    choose: &Choose,
    table: &mut CoreTable,
) -> Result<(ProgramBuilder, Option<SymbolId>), LowerError> {
    let mut builder = ProgramBuilder::new(&list.name, machine);
    let map = symbols(&mut builder, plan, machine);
    let cx = Cx { plan, machine, memories: memories(machine), map, mode, choose };
    let mut streams = Streams::new(machine);
    let mut rest = &list.steps[..];
    while let [step, ..] = rest {
        if let (Some(choice), [_, _, act, behind @ ..]) = (cx.gated(rest), rest) {
            let label = label_of(&rest[..2], "*");
            streams.e.op = builder.op(&label);
            streams.push(&label, cx.gate(&rest[..2], choice, streams.e.op)?.into());
            streams.e.op = builder.op(&act.label);
            let shared = cx.vector(&mut streams.e, act, true).map_err(|source| source.of(act))?;
            streams.end_step(&act.label, shared);
            rest = behind;
            continue;
        }
        let (steps, behind) = rest.split_at(cx.together(rest));
        rest = behind;
        let label = label_of(steps, "+");
        streams.e.op = builder.op(&label);
        if let Some(both) = cx.split(steps, streams.e.op)? {
            streams.push(&label, both.into());
            continue;
        }
        match cx.attention(&mut streams.e, step)? {
            Some(attention::Shared::Groups(both)) => streams.push(&step.label, both.into()),
            Some(attention::Shared::Steps(steps)) => steps.into_iter().for_each(|s| streams.push(&step.label, s)),
            Some(attention::Shared::Cores((cores, start))) => streams.end_step(&step.label, Shared { cores, start }),
            None => {
                let shared = cx.step(&mut streams.e, step)?;
                streams.end_step(&step.label, shared);
            }
        }
    }
    streams.finish(&mut builder, &list.name, map.cores.map(|symbol| (table, symbol)))?;
    Ok((builder, map.cores))
}

/// The label of steps that are worked on together: `L07.q+k+v`, or of a product that gates another: `L07.ffn_gate*ffn_up`.
fn label_of(steps: &[Step], between: &str) -> String {
    let kind = |(index, step): (usize, &Step)| match step.label.split_once('.') {
        Some((_, kind)) if index > 0 => kind.to_owned(),
        Some(_) | None => step.label.clone(),
    };
    steps.iter().enumerate().map(kind).collect::<Vec<String>>().join(between)
}

/// True if cores of `machine` meet between steps.
fn meets(machine: &Machine) -> bool {
    machine.vector_units() > 1 && stage::can_meet(machine)
}

/// Cores that share a step, and the registers that differ between them.
struct Shared {
    cores: usize,
    start: Vec<StartValues>,
}

/// Streams of a program being written.
struct Streams {
    e: Emit,
    kind: CoreKind,
    /// Cores with a vector unit.
    cores: usize,
    /// Where there are several.
    steps: Vec<StageStep>,
}

impl Streams {
    fn new(machine: &Machine) -> Streams {
        let kind = match machine.org.kind {
            OrganisationKind::Coupled => CoreKind::Coupled,
            OrganisationKind::Split => CoreKind::Vector,
        };
        Streams { e: Emit::default(), kind, cores: machine.vector_units(), steps: vec![] }
    }

    fn push(&mut self, label: &str, streams: Vec<Stream>) {
        self.steps.push(StageStep { label: label.to_owned(), op: self.e.op, streams });
    }

    fn end_step(&mut self, label: &str, shared: Shared) {
        if self.cores == 1 {
            self.e.bar(None);
            return;
        }
        let e = std::mem::take(&mut self.e);
        self.e.op = e.op;
        self.push(label, vec![e.stream(self.kind, shared.cores, shared.start)]);
    }

    /// The stages: one with the values of its cores at the symbol of `table`, or one for each step.
    fn finish(
        self,
        builder: &mut ProgramBuilder,
        name: &str,
        table: Option<(&mut CoreTable, SymbolId)>,
    ) -> Result<(), LowerError> {
        if self.cores == 1 {
            builder.stage(name, vec![self.e.stream(self.kind, 1, vec![])]);
        } else if let Some((table, symbol)) = table {
            let joined = stage::join(&self.steps, table, symbol);
            builder.stage(name, joined.map_err(|_| LowerError::CoreValue { program: name.to_owned() })?);
        } else {
            self.steps.into_iter().for_each(|step| builder.stage(&step.label, step.streams));
        }
        Ok(())
    }
}

/// Declares the symbols, the same in every program of a plan.
fn symbols(builder: &mut ProgramBuilder, plan: &Plan, machine: &Machine) -> Map {
    let arena = &plan.arena;
    let input = (TOKENS_OFFSET + 4 * plan.prefill()) as u64;
    let hidden = (4 * plan.facts.hidden * plan.prefill()) as u64;
    // Attention reads whole blocks of positions.
    let behind = (4 * ROWS * plan.kernels.iter().map(head_dim).max().unwrap_or(0)) as u64;
    let is_split = machine.org.kind == OrganisationKind::Split;
    let products = is_split.then(|| together::scratch_bytes(plan, machine)).flatten();
    let sums = plan.kernels.iter().map(|spec| scratch_bytes(spec, machine)).chain(products.map(|[_, sums]| sums));
    let sums = sums.max().unwrap_or(0) as u64;
    let expanded = products.map(|[expanded, _]| expanded);
    let map = Map {
        input: builder.symbol(INPUT, SymbolKind::Input, input, "u32"),
        weights: builder.symbol(WEIGHTS, SymbolKind::Weights, plan.weights_bytes, "blob"),
        kv: builder.symbol("kv", SymbolKind::State, arena.kv_bytes + behind, "kv"),
        activations: builder.symbol("activations", SymbolKind::Scratch, arena.act_bytes, "arena"),
        hidden: builder.symbol(HIDDEN, SymbolKind::State, hidden, "f32"),
        logits: builder.symbol(LOGITS, SymbolKind::Output, arena.logits_bytes, "f32"),
        sums: builder.symbol("sums", SymbolKind::Scratch, sums.max(4), "s32"),
        expanded: expanded.map(|bytes| builder.symbol("expanded", SymbolKind::Scratch, bytes as u64, "s8")),
        tables: Tables::new(|name, bytes, ty| builder.constant(name, bytes, ty)),
        cores: None,
    };
    Map { cores: meets(machine).then(|| builder.constant("cores", vec![], "u32")), ..map }
}

/// Elements of a head, those that fill a group included.
fn head_dim(spec: &KernelSpec) -> usize {
    if let KernelSpec::Attention { cache, .. } = spec { cache.d.next_multiple_of(GROUP) } else { 0 }
}

/// Bytes of global memory where sums of products wait on coupled cores, and scores of attention.
fn scratch_bytes(spec: &KernelSpec, machine: &Machine) -> usize {
    match spec {
        KernelSpec::TernaryMatmul { m, n, .. } => 4 * m * n,
        KernelSpec::Attention { m, heads, cache, scale } => {
            let shape = Attention { m: *m, heads: *heads, cache: *cache, scale: *scale };
            attention::scratch_bytes(machine, &shape)
        }
        _ => 0,
    }
}

/// The product of a kernel on the cube of `machine`, in `mode`, if it is one.
pub fn product(spec: &KernelSpec, machine: &Machine, mode: Mode) -> Option<Shape> {
    let Packed { shape, panel, residual, .. } = packed(spec)?;
    let is_on_cube =
        shape.activations == Activations::Codes && !is_grouped(shape.scale) && features(machine).contains(desc::CUBE);
    is_on_cube.then_some(Shape { m: shape.m, n: shape.n, k: shape.k, panel, mode, residual })
}

/// The product of a kernel on cube and vector cores of `machine`, or the latter alone, if it is one and they are cores of
/// their own.
pub fn split_product(spec: &KernelSpec, machine: &Machine) -> Option<split::search::Shape> {
    let Packed { shape, panel, bias, residual, .. } = packed(spec)?;
    let Ternary { m, n, k, scale, activations } = shape;
    let is_split = machine.org.kind == OrganisationKind::Split && panel == ternary::PANEL;
    let is_product = activations == Activations::Codes && !is_grouped(scale);
    (is_split && is_product).then_some(split::search::Shape { m, n, k, scale, bias, residual })
}

fn is_grouped(scale: ScaleKind) -> bool {
    match scale {
        ScaleKind::PerGroup { .. } => true,
        ScaleKind::PerTensor | ScaleKind::PerRow => false,
    }
}

/// A ternary product, how its weights lie, and which operand they are.
struct Packed {
    shape: Ternary,
    panel: Panel,
    bias: bool,
    residual: bool,
    w: usize,
}

fn packed(spec: &KernelSpec) -> Option<Packed> {
    if let KernelSpec::TernaryMatmul { m, n, layout, scale, bias, residual, schedule } = spec {
        let Encoding::W2Nz(panel) = schedule.micro.first()?.encoding else { return None };
        let shape = Ternary { m: *m, n: *n, k: layout.k, scale: *scale, activations: Activations::Codes };
        return Some(Packed { shape, panel, bias: *bias, residual: *residual, w: 2 });
    }
    if let KernelSpec::FloatTernaryMatmul { m, n, k, encoding, scale, bias, residual, .. } = spec {
        let Encoding::W2Nz(panel) = *encoding else { return None };
        let shape = Ternary { m: *m, n: *n, k: *k, scale: *scale, activations: Activations::Floats };
        return Some(Packed { shape, panel, bias: *bias, residual: *residual, w: 1 });
    }
    None
}

/// Token rows from which on weights packed for nibbles may be unpacked to bytes: below, the cube waits for weights.
const MANY_ROWS: usize = 32;

/// The modes that the products of `list` may have: one for all of them, which activations are laid out for.
///
/// Errors: the plan's weights are packed for two.
pub fn modes(plan: &Plan, list: &StepList) -> Result<Vec<Mode>, LowerError> {
    let products = plan.kernels.iter().filter_map(packed);
    let int8 = products.filter(|product| product.shape.activations == Activations::Codes);
    let mut layouts = int8.map(|product| Mode::of(product.panel));
    let first = layouts.next().unwrap_or(Mode::I8);
    if !layouts.all(|mode| mode == first) {
        return Err(LowerError::Modes);
    }
    let both = first == Mode::I4 && list.m >= MANY_ROWS;
    Ok(if both { Mode::ALL.to_vec() } else { vec![first] })
}

/// What the lowering of steps looks at.
struct Cx<'a> {
    plan: &'a Plan,
    machine: &'a Machine,
    memories: Memories,
    map: Map,
    mode: Mode,
    choose: &'a Choose<'a>,
}

impl Cx<'_> {
    fn place(&self, arg: Arg) -> Place {
        let arena = &self.plan.arena;
        // Offsets are below 2^63.
        match arg {
            Arg::Weight { offset_bytes } => (self.map.weights, offset_bytes as i64),
            Arg::Arena { offset_bytes } if offset_bytes < arena.act_offset => {
                (self.map.kv, (offset_bytes - arena.kv_offset) as i64)
            }
            Arg::Arena { offset_bytes } => (self.map.activations, (offset_bytes - arena.act_offset) as i64),
            Arg::Tokens => (self.map.input, TOKENS_OFFSET as i64),
            Arg::Hidden => (self.map.hidden, 0),
            Arg::Logits => (self.map.logits, 0),
        }
    }

    fn step(&self, e: &mut Emit, step: &Step) -> Result<Shared, LowerError> {
        let spec = self.plan.kernel(step.kernel);
        if let (KernelSpec::TernaryMatmul { .. }, Some(shape)) = (spec, product(spec, self.machine, self.mode)) {
            return self.cube(e, step, shape);
        }
        self.vector(e, step, false).map_err(|source| source.of(step))
    }

    /// Attention, if the step is one.
    fn attention(&self, e: &mut Emit, step: &Step) -> Result<Option<attention::Shared>, LowerError> {
        let KernelSpec::Attention { m, heads, cache, scale } = self.plan.kernel(step.kernel) else { return Ok(None) };
        let label = || step.label.clone();
        let (d, padded, most) = (cache.d, cache::pitch(cache), attention::MOST_ELEMENTS);
        if padded > most {
            let what = format!("heads of {d} elements, {padded} in whole blocks of {}, more than {most}", cache.dtype);
            return Err(LowerError::Unsupported { label: label(), what });
        }
        let a = Attention { m: *m, heads: *heads, cache: *cache, scale: *scale };
        let args: Vec<Place> = step.args.iter().map(|a| self.place(*a)).collect();
        let operands = [args[0], args[1], args[2], args[3], (self.map.input, 0), (self.map.sums, 0)];
        let shared = attention::attention(e, self.machine, &a, operands, &self.map.tables);
        shared.map(Some).map_err(|source| LowerError::Ub { label: label(), source })
    }

    fn cube(&self, e: &mut Emit, step: &Step, shape: Shape) -> Result<Shared, LowerError> {
        let label = || step.label.clone();
        let KernelSpec::TernaryMatmul { scale, bias, residual, .. } = self.plan.kernel(step.kernel) else {
            unreachable!("products of the cube have int8 activations")
        };
        let args: Vec<Place> = step.args.iter().map(|a| self.place(*a)).collect();
        let tile = (self.choose.coupled)(&shape).ok_or_else(|| LowerError::NoTile { label: label() })?;
        let product = Product {
            shape,
            tile,
            scale: *scale,
            q: args[0],
            act: args[1],
            w: args[2],
            scales: args[3],
            bias: bias.then(|| args[4]),
            residual: residual.then(|| args[4 + usize::from(*bias)]),
            out: args[args.len() - 1],
            sums: Some((self.map.sums, 0)),
        };
        let bar_m_below = self.machine.quirk.bar_m_below as usize;
        let cores = self.machine.cube_cores() as usize;
        let start = matmul::emit(e, &product, &self.memories, bar_m_below, cores)
            .map_err(|source| LowerError::Tile { label: label(), source })?;
        Ok(Shared { cores: matmul::share(&shape, cores), start })
    }

    /// A ternary product on the vector unit.
    fn ternary(&self, e: &mut Emit, step: &Step) -> Result<Shared, VectorError> {
        let product = packed(self.plan.kernel(step.kernel)).filter(|product| product.panel == ternary::PANEL);
        let Some(Packed { shape, bias, residual, w, .. }) = product else {
            let encoding = Encoding::W2Nz(ternary::PANEL);
            let what = format!("the vector unit multiplies weights in '{encoding}': --encoding {encoding}");
            return Err(VectorError::Unsupported(what));
        };
        if shape.activations == Activations::Codes && shape.k > ternary::MAX_K {
            let what = format!("{} columns, at most {} are exact in f32", shape.k, ternary::MAX_K);
            return Err(VectorError::Unsupported(what));
        }
        let args: Vec<Place> = step.args.iter().map(|a| self.place(*a)).collect();
        let operands = ternary::Operands {
            x: args[0],
            act: (shape.activations == Activations::Codes).then(|| args[1]),
            w: args[w],
            scales: args[w + 1],
            bias: bias.then(|| args[w + 2]),
            residual: residual.then(|| args[w + 2 + usize::from(bias)]),
            out: args[args.len() - 1],
        };
        let cores = self.machine.vector_units();
        let start = ternary::ternary(e, self.memories.ub, &shape, &operands, &self.map.tables, cores)
            .map_err(VectorError::Ub)?;
        Ok(Shared { cores: shape.share(cores), start })
    }

    /// A step on the vector unit; if it is gated already, its first operand is what the gate left.
    fn vector(&self, e: &mut Emit, step: &Step, is_gated: bool) -> Result<Shared, VectorError> {
        let args: Vec<Place> = step.args.iter().map(|a| self.place(*a)).collect();
        let (ub, tables, mode) = (self.memories.ub, &self.map.tables, self.mode);
        let pos = (self.map.input, 0);
        let cores = self.machine.vector_units();
        let quantized = |e: &mut Emit, (m, k): (usize, usize), before: Before, places: [Place; 3]| {
            quantize::quantize(e, ub, (m, k, mode), before, places, (tables, cores))
        };
        let shared = match self.plan.kernel(step.kernel) {
            KernelSpec::Embed { m, h, table, scale } => {
                rows::embed(e, ub, (*m, *h, *table, *scale), [args[0], args[1], args[2]], cores)
            }
            KernelSpec::Norm { m, k, d, eps } => {
                rows::norm(e, ub, (m * k / d, *d, *eps), [args[0], args[1], args[2]], (tables, cores))
            }
            KernelSpec::NormQuant { m, eps, layout } => {
                let before = Before::Norm { eps: *eps, w: args[1] };
                quantized(e, (*m, layout.k), before, [args[0], args[2], args[3]])
            }
            KernelSpec::Quantize { m, layout } => {
                quantized(e, (*m, layout.k), Before::Nothing, [args[0], args[1], args[2]])
            }
            KernelSpec::Glu { m, k, act } => rows::pairs(e, ub, Some(*act), m * k, [args[0], args[1], args[2]], cores),
            KernelSpec::Add { m, k } => rows::pairs(e, ub, None, m * k, [args[0], args[1], args[2]], cores),
            KernelSpec::GluQuant { m, act, layout } => {
                let before = if is_gated { Before::Nothing } else { Before::Glu { act: *act, u: args[1] } };
                quantized(e, (*m, layout.k), before, [args[0], args[2], args[3]])
            }
            KernelSpec::GluNormQuant { m, act, eps, layout } => {
                let (act, u, eps, w) = (*act, args[1], *eps, args[2]);
                let before = if is_gated { Before::Norm { eps, w } } else { Before::GluNorm { act, u, eps, w } };
                quantized(e, (*m, layout.k), before, [args[0], args[3], args[4]])
            }
            KernelSpec::Rope { m, heads, d } => {
                rope::rope(e, ub, (*m, *heads, *d), [args[0], args[1], args[2], args[3], pos], cores)
            }
            KernelSpec::KvWrite { m, cache, order } => {
                cache::kv_write(e, ub, *m, (*cache, *order), [args[0], args[1], pos], (tables, cores))
            }
            KernelSpec::DenseMatmul { m, n, k, weight, scale, bias, residual, .. } => {
                let shape = Dense { m: *m, n: *n, k: *k, weight: *weight, scale: *scale };
                let operands = dense::Operands {
                    x: args[0],
                    w: args[1],
                    bias: bias.then(|| args[2]),
                    residual: residual.then(|| args[2 + usize::from(*bias)]),
                    out: args[args.len() - 1],
                };
                dense::dense(e, ub, shape, operands, tables, cores)
            }
            KernelSpec::TernaryMatmul { .. } | KernelSpec::FloatTernaryMatmul { .. } => return self.ternary(e, step),
            KernelSpec::TernaryGlu { .. } => {
                return Err(VectorError::Unsupported("products with the gate between them".into()));
            }
            KernelSpec::CodedEmbed { .. } | KernelSpec::CodedMatmul { .. } => {
                return Err(VectorError::Unsupported("a lossy head".into()));
            }
            KernelSpec::Attention { .. } => unreachable!("attention has a form of its own"),
            KernelSpec::AttentionStep { .. } => {
                return Err(VectorError::Unsupported("attention in steps that threads share".into()));
            }
            KernelSpec::Screen { .. } => return Err(VectorError::Unsupported("a screened head".into())),
        };
        let (cores, start) = shared.map_err(VectorError::Ub)?;
        Ok(Shared { cores, start })
    }
}

enum VectorError {
    Ub(UbTooSmall),
    Unsupported(String),
}

impl VectorError {
    fn of(self, step: &Step) -> LowerError {
        let label = step.label.clone();
        match self {
            VectorError::Ub(source) => LowerError::Ub { label, source },
            VectorError::Unsupported(what) => LowerError::Unsupported { label, what },
        }
    }
}
