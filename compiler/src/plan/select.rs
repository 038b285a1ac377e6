//! Selects the kernel of each op and the order of its operands (see `KernelSpec`).

use tcc_ir::attention::{AttentionStep, AttentionWeights};
use tcc_ir::cache::{CacheLayout, CacheOrder};
use tcc_ir::coded::CodedLayout;
use tcc_ir::graph::{Graph, NodeId, ValueId};
use tcc_ir::kernel::{GatedProduct, KernelSpec};
use tcc_ir::ops::Op;
use tcc_ir::plan::WeightLayout;
use tcc_ir::program::Program;
use tcc_ir::schedule::MatmulSchedule;
use tcc_ir::screen::kernel::ScreenKernel;
use tcc_ir::screen::query::QueryLayout;

use super::PlanError;
use super::gate::{Gate, Gates};
use super::layout::{Layouts, scale_kind};
use super::steps::{gcd, quant_layout};
use crate::schedule::{self, Machine};

/// What selection looks at.
pub(super) struct SelectCx<'a> {
    pub graph: &'a Graph,
    pub program: &'a Program,
    pub machine: &'a Machine,
    /// Most tasks that may run at once.
    pub max_threads: u32,
    pub layouts: &'a Layouts,
    /// The gates of the graph that are one kernel with their products.
    pub gates: &'a Gates,
}

/// A kernel, the values its operand words read (results follow in order), and the read operand, by index, that the
/// result may overwrite.
pub(super) struct Selected {
    pub spec: KernelSpec,
    pub operands: Vec<ValueId>,
    pub in_place: Option<usize>,
    /// What is run before it, if anything.
    pub before: Option<Before>,
}

/// Kernels that make a buffer one after the other; the kernel behind them reads it as its first operand.
pub(super) struct Before {
    /// Bytes of the buffer.
    pub bytes: u64,
    /// Each reads what the one before it left in the buffer, then the values of its operand words, and writes it.
    pub steps: Vec<BeforeStep>,
}

/// A kernel before another.
pub(super) struct BeforeStep {
    pub spec: KernelSpec,
    pub operands: Vec<ValueId>,
    /// What its label ends in.
    pub name: &'static str,
}

/// Output rows of one task of a product without panels of its own: enough work to share, small enough to balance.
const DENSE_TASK_ROWS: usize = 64;

/// Bytes of the keys of a context from which attention of one row is cut finer than KV heads: shorter ones are read in
/// less than it takes threads to meet twice more.
const STEPS_BYTES: usize = 512 << 10;

/// Tasks for each thread from which whole KV heads are fine enough: then threads that have done theirs wait for an
/// eighth of the time at most.
const TASKS_PER_THREAD: usize = 8;

/// The kernel of node `id`.
pub(super) fn kernel(cx: &SelectCx, id: NodeId) -> Result<Selected, PlanError> {
    let graph = cx.graph;
    if let Some(gate) = cx.gates.at(id) {
        return gated(cx, gate);
    }
    let operands = graph.operands(id);
    let shape = |v: ValueId| &graph.ty(v).shape[..];
    let result = |i| quant_layout(graph, ValueId { node: id, result: i });
    let m = graph.m;
    let plain =
        |spec, count: usize| Selected { spec, operands: operands[..count].to_vec(), in_place: None, before: None };
    Ok(match graph.node(id).op {
        Op::Input(_) | Op::Weight(_) | Op::State(_) => unreachable!("leaves have no kernel"),
        Op::Embed { scale } => {
            let table = graph.ty(operands[1]);
            plain(KernelSpec::Embed { m, h: table.shape[1], table: table.dtype, scale }, 2)
        }
        Op::CodedEmbed { scale, .. } => plain(KernelSpec::CodedEmbed { m, table: coded(cx, operands[1])?, scale }, 2),
        Op::RmsNorm { eps } => {
            let (k, d) = (shape(operands[0])[1], shape(operands[1])[0]);
            Selected { in_place: Some(0), ..plain(KernelSpec::Norm { m, k, d, eps }, 2) }
        }
        Op::NormQuant { eps } => plain(KernelSpec::NormQuant { m, eps, layout: result(0) }, 2),
        Op::QuantizeAct => plain(KernelSpec::Quantize { m, layout: result(0) }, 1),
        Op::Glu { act } => {
            let k = shape(operands[0])[1];
            Selected { in_place: Some(0), ..plain(KernelSpec::Glu { m, k, act }, 2) }
        }
        Op::GluQuant { act } => match cx.gates.of(id) {
            Some(gate) => after_gate(gate, KernelSpec::Quantize { m, layout: result(0) }, &[]),
            None => plain(KernelSpec::GluQuant { m, act, layout: result(0) }, 2),
        },
        Op::GluNormQuant { act, eps } => match cx.gates.of(id) {
            Some(gate) => after_gate(gate, KernelSpec::NormQuant { m, eps, layout: result(0) }, &operands[2..]),
            None => plain(KernelSpec::GluNormQuant { m, act, eps, layout: result(0) }, 3),
        },
        Op::TernaryLinear { bias, residual } => ternary(cx, id, bias, residual)?,
        Op::FloatTernaryLinear { bias, residual } => float_ternary(cx, id, bias, residual)?,
        Op::DenseLinear { scale, bias, residual } => {
            let w = graph.ty(operands[1]);
            let (n, k, task_rows) = (w.shape[0], w.shape[1], DENSE_TASK_ROWS);
            let spec = KernelSpec::DenseMatmul { m, n, k, weight: w.dtype, scale, bias, residual, task_rows };
            with_residual(spec, operands, residual)
        }
        Op::CodedLinear { .. } => {
            let table = coded(cx, operands[1])?;
            if m != 1 {
                let label = graph.node(id).label.clone();
                return Err(PlanError::Unsupported { label, what: format!("{m} token rows with a coded table") });
            }
            let spec = KernelSpec::Screen { layout: table.query(), step: ScreenKernel::Query };
            let bytes = QueryLayout::new(&table.query()).bytes() as u64;
            let steps = vec![BeforeStep { spec, operands: vec![operands[0]], name: "query" }];
            let (spec, operands) = (KernelSpec::CodedMatmul { table }, vec![operands[1]]);
            Selected { spec, operands, in_place: None, before: Some(Before { bytes, steps }) }
        }
        Op::Rope => {
            let d = 2 * shape(operands[1])[1];
            let heads = shape(operands[0])[1] / d;
            Selected { in_place: Some(0), ..plain(KernelSpec::Rope { m, heads, d }, 3) }
        }
        Op::KvWrite => {
            let cache = CacheLayout::of(graph.ty(operands[0]));
            let spec = KernelSpec::KvWrite { m, cache, order: cache_order(graph, id)? };
            Selected { spec, operands: vec![operands[1], operands[0]], in_place: None, before: None }
        }
        Op::Attention { heads, scale } => {
            let cache = CacheLayout::of(graph.ty(operands[1]));
            let spec = KernelSpec::Attention { m, heads, cache, scale };
            let is_fine = spec.tasks() >= TASKS_PER_THREAD * cx.max_threads as usize;
            let pays = cx.max_threads > 1 && cache.heads * cache.head_bytes() >= STEPS_BYTES;
            if m == 1 && pays && !is_fine { attention_steps(heads, cache, scale, &operands) } else { plain(spec, 3) }
        }
        Op::Add => {
            let k = shape(operands[0])[1];
            Selected { in_place: Some(0), ..plain(KernelSpec::Add { m, k }, 2) }
        }
    })
}

/// Attention of one token row, whose operands are `operands`, in steps.
fn attention_steps(heads: usize, cache: CacheLayout, scale: f32, operands: &[ValueId]) -> Selected {
    let [q, k, v] = [operands[0], operands[1], operands[2]];
    let spec = |step| KernelSpec::AttentionStep { heads, cache, step };
    let bytes = AttentionWeights::new(heads, &cache).bytes as u64;
    let steps = vec![
        BeforeStep { spec: spec(AttentionStep::Scores), operands: vec![q, k], name: "scores" },
        BeforeStep { spec: spec(AttentionStep::Softmax { scale }), operands: vec![k, v], name: "softmax" },
    ];
    let before = Some(Before { bytes, steps });
    Selected { spec: spec(AttentionStep::Values), operands: vec![v], in_place: None, before }
}

/// The layout of the coded table `weight`.
fn coded(cx: &SelectCx, weight: ValueId) -> Result<CodedLayout, PlanError> {
    let node = cx.graph.node(weight.node);
    let layout = match node.op {
        Op::Weight(id) => cx.layouts.get(&id),
        _ => None,
    };
    match layout {
        Some(WeightLayout::Coded(table)) => Ok(*table),
        Some(WeightLayout::Plain | WeightLayout::Packed(_) | WeightLayout::Screen(_)) | None => {
            let what = "a coded table that is not a weight of its own".into();
            Err(PlanError::Unsupported { label: node.label.clone(), what })
        }
    }
}

/// The order in which the readers of the cache written by node `id` want its elements.
fn cache_order(graph: &Graph, id: NodeId) -> Result<CacheOrder, PlanError> {
    let readers = graph.readers(ValueId { node: id, result: 0 });
    let mut operands = readers.iter().map(|(reader, operand)| (graph.node(*reader).op, *operand));
    let is_attention = |op| matches!(op, Op::Attention { .. });
    if operands.clone().all(|(op, operand)| is_attention(op) && operand == 1) {
        return Ok(CacheOrder::Keys);
    }
    if operands.all(|(op, operand)| is_attention(op) && operand == 2) {
        return Ok(CacheOrder::Values);
    }
    let label = graph.node(id).label.clone();
    Err(PlanError::Unsupported { label, what: "a cache that is not only keys, or only values, of attention".into() })
}

/// A product whose residual, if any, is its last operand and may be overwritten by the result.
fn with_residual(spec: KernelSpec, operands: Vec<ValueId>, residual: bool) -> Selected {
    let in_place = residual.then(|| operands.len() - 1);
    Selected { spec, operands, in_place, before: None }
}

/// The kernel of a gate and its products.
fn gated(cx: &SelectCx, gate: Gate) -> Result<Selected, PlanError> {
    let [g, u] = gate.products.map(|product| cx.graph.operands(product));
    let layout = quant_layout(cx.graph, g[0]);
    let n = cx.graph.ty(g[2]).shape[0];
    let product = |operands: &[ValueId]| -> Result<GatedProduct, PlanError> {
        let scale = scale_kind(cx.graph.ty(operands[3]), layout.k);
        Ok(GatedProduct { scale, schedule: ternary_schedule(cx, operands[2], layout.k)? })
    };
    let mut products = [product(&g)?, product(&u)?];
    let [first, second] = products.each_ref().map(|product| &product.schedule);
    let [a, b] = [first, second].map(|schedule| schedule.micro[0].encoding.nr());
    // Whole panels of both.
    let unit = a / gcd(a, b) * b;
    let rows = first.task_rows().max(second.task_rows()).next_multiple_of(unit);
    for product in &mut products {
        product.schedule.levels[0].rows = rows;
    }
    let spec = KernelSpec::TernaryGlu { m: cx.graph.m, n, layout, act: gate.act, products };
    let operands = [&g[..4], &u[2..4]].concat();
    Ok(Selected { spec, operands, in_place: None, before: None })
}

/// What follows a gate whose rows a product left; `others` are its operands behind them.
fn after_gate(gate: Gate, spec: KernelSpec, others: &[ValueId]) -> Selected {
    let rows = ValueId { node: gate.last, result: 0 };
    Selected { spec, operands: [&[rows], others].concat(), in_place: None, before: None }
}

/// The schedule of the product with the trit matrix `weight` of `k` columns.
fn ternary_schedule(cx: &SelectCx, weight: ValueId, k: usize) -> Result<MatmulSchedule, PlanError> {
    let n = cx.graph.ty(weight).shape[0];
    schedule::choose(cx.machine, cx.graph.m, n, k, encoding(cx, weight)?)
        .map_err(|source| PlanError::Schedule { weight: cx.graph.node(weight.node).label.clone(), source })
}

fn ternary(cx: &SelectCx, id: NodeId, bias: bool, residual: bool) -> Result<Selected, PlanError> {
    let operands = cx.graph.operands(id);
    let layout = quant_layout(cx.graph, operands[0]);
    let (n, k, m) = (cx.graph.ty(operands[2]).shape[0], layout.k, cx.graph.m);
    let scale = scale_kind(cx.graph.ty(operands[3]), k);
    let schedule = ternary_schedule(cx, operands[2], k)?;
    let spec = KernelSpec::TernaryMatmul { m, n, layout, scale, bias, residual, schedule };
    Ok(with_residual(spec, operands, residual))
}

fn float_ternary(cx: &SelectCx, id: NodeId, bias: bool, residual: bool) -> Result<Selected, PlanError> {
    let operands = cx.graph.operands(id);
    let w = cx.graph.ty(operands[1]);
    let (n, k, m) = (w.shape[0], w.shape[1], cx.graph.m);
    let encoding = encoding(cx, operands[1])?;
    let scale = scale_kind(cx.graph.ty(operands[2]), k);
    let task_rows = DENSE_TASK_ROWS.next_multiple_of(encoding.nr());
    let spec = KernelSpec::FloatTernaryMatmul { m, n, k, encoding, scale, bias, residual, task_rows };
    Ok(with_residual(spec, operands, residual))
}

/// The encoding chosen for the trit matrix `weight`.
fn encoding(cx: &SelectCx, weight: ValueId) -> Result<tcc_ir::encoding::Encoding, PlanError> {
    let Op::Weight(id) = cx.graph.node(weight.node).op else {
        let label = cx.graph.node(weight.node).label.clone();
        return Err(PlanError::Unsupported { label, what: "a ternary matrix that is not a weight".into() });
    };
    match cx.layouts.get(&id) {
        Some(WeightLayout::Packed(encoding)) => Ok(*encoding),
        Some(WeightLayout::Plain | WeightLayout::Coded(_) | WeightLayout::Screen(_)) | None => {
            let label = cx.program.weight(id).name.clone();
            Err(PlanError::Unsupported { label, what: "a ternary matrix without a packed layout".into() })
        }
    }
}
