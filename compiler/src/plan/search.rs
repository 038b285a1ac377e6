//! Plans the search for the best tokens: the head's steps up to its product, then those of a screen.

use tcc_ir::graph::{Graph, NodeId};
use tcc_ir::kernel::KernelSpec;
use tcc_ir::ops::Op;
use tcc_ir::plan::{Search, StateSlot, WeightLayout, WeightSlot};
use tcc_ir::program::{Program, WeightId};
use tcc_ir::screen::kernel::ScreenKernel;
use tcc_ir::screen::query::QueryLayout;
use tcc_ir::screen::{MAX_K, ScreenLayout};
use tcc_ir::ty::DType;

use super::steps::{self, BufferId, Fixed, Operand, UnboundList, UnboundStep, Version};
use super::{HeadChoice, PlanError, arena};

/// Bytes of a stored head from which a screen is made unless the user decides: about what a last-level cache holds of
/// it from one token to the next. A screen stores 7.1 bits per weight more.
const AUTO_BYTES: usize = 32 << 20;

/// A search over buffers, before addresses are known.
pub(super) struct UnboundSearch {
    pub layout: ScreenLayout,
    pub weight: WeightId,
    pub list: UnboundList,
}

/// Buffers of a search, behind those of the head.
const QUERY: usize = 0;
const MAXIMA: usize = 1;
const COUNTS: usize = 2;

/// The product of a head that a screen can stand before: the node's own weight, stored as floats, and nothing added.
fn product(graph: &Graph, program: &Program) -> Option<(NodeId, WeightId, ScreenLayout, DType)> {
    let node = graph.outputs[0].node;
    let Op::DenseLinear { scale: 1.0, bias: false, residual: false } = graph.node(node).op else { return None };
    let Op::Weight(weight) = graph.node(graph.operands(node)[1].node).op else { return None };
    let ty = &program.weight(weight).ty;
    let layout = ScreenLayout { n: ty.shape[0], k: ty.shape[1] };
    (layout.k <= MAX_K).then_some((node, weight, layout, ty.dtype))
}

/// The search of `program`, whose head was lowered to `head`; `None` where it has none. New kernels are appended.
pub(super) fn lower(
    program: &Program,
    head: &UnboundList,
    choice: HeadChoice,
    kernels: &mut Vec<KernelSpec>,
) -> Result<Option<UnboundSearch>, PlanError> {
    if choice == HeadChoice::Exact {
        return Ok(None);
    }
    let Some((node, weight, layout, dtype)) = product(&program.head, program) else {
        let what = "a screen needs a head of stored floats and nothing added".into();
        let label = program.head.node(program.head.outputs[0].node).label.clone();
        return if choice == HeadChoice::Screened { Err(PlanError::Unsupported { label, what }) } else { Ok(None) };
    };
    let row_bytes = layout.k * dtype.size_bytes().expect("floats have a size");
    if choice == HeadChoice::Auto && layout.n * row_bytes < AUTO_BYTES {
        return Ok(None);
    }
    let label = &program.head.node(node).label;
    let (product, before) = head.steps.split_last().expect("a head has a product");
    assert_eq!(product.label, *label, "the product is the head's last step");
    let mut list = UnboundList { name: "search".into(), m: 1, steps: before.to_vec(), buffers: head.buffers.clone() };
    // Labels name call sites, and the head has steps of these names.
    list.steps.iter_mut().for_each(|step| step.label = format!("search_{}", step.label));
    let first = list.buffers.len();
    let panels = 4 * layout.panels() as u64;
    list.buffers.extend([QueryLayout::new(&layout).bytes() as u64, panels, panels]);
    let version = |buffer: usize, version| Version { buffer: BufferId(first + buffer), version };
    let (read, write) = (|b| Operand::Read(version(b, 0)), |b, v| Operand::Write(version(b, v)));
    let (screen, logits) = (Operand::Fixed(Fixed::Screen(weight)), Operand::Fixed(Fixed::Logits));
    let (x, rows) = (product.operands[0], Operand::Fixed(Fixed::Weight(weight)));
    let scanned = layout.n as u64 * 4 * 4;
    let levels: [(ScreenKernel, Vec<Operand>, u64); Search::LEVELS] = [
        (ScreenKernel::Query, vec![x, write(QUERY, 0)], 4 * layout.k as u64),
        (
            ScreenKernel::High,
            vec![read(QUERY), screen, logits, write(MAXIMA, 0)],
            layout.records_offset() as u64 + scanned,
        ),
        (ScreenKernel::Low, vec![read(QUERY), screen, logits, write(MAXIMA, 1), write(COUNTS, 0)], scanned),
        (
            ScreenKernel::Exact { weight: dtype },
            vec![x, rows, read(QUERY), screen, logits, write(MAXIMA, 2), write(COUNTS, 1)],
            scanned,
        ),
    ];
    for (step, operands, bytes) in levels {
        let kernel = steps::intern(kernels, KernelSpec::Screen { layout, step });
        list.steps.push(UnboundStep::new(kernel, operands, step.family().to_owned(), bytes));
    }
    Ok(Some(UnboundSearch { layout, weight, list }))
}

/// The slot of a screen behind `slots`.
pub(super) fn slot(search: &UnboundSearch, slots: &[WeightSlot]) -> WeightSlot {
    let offset_bytes = slots.last().map_or(0, |last| arena::align(last.offset_bytes + last.bytes));
    let bytes = search.layout.bytes() as u64;
    WeightSlot { id: search.weight, layout: WeightLayout::Screen(search.layout), offset_bytes, bytes }
}

/// Replaces buffers by addresses; `base` is where planned activations begin, `offsets` are the buffers' from there.
pub(super) fn bind(
    program: &Program,
    search: &UnboundSearch,
    offsets: &[u64],
    base: u64,
    states: &[StateSlot],
    weights: &[WeightSlot],
) -> Search {
    let list = steps::bind(&program.head, &search.list, offsets, base, states, weights);
    let first = offsets.len() - 3;
    let place = |buffer: usize| base + offsets[first + buffer];
    let screen = weights.last().expect("the screen's slot is the last");
    Search {
        layout: search.layout,
        list: tcc_ir::plan::StepList { name: search.list.name.clone(), ..list },
        screen_offset: screen.offset_bytes,
        query_offset: place(QUERY),
        maxima_offset: place(MAXIMA),
        counts_offset: place(COUNTS),
    }
}
