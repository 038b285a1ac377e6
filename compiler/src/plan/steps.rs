//! Lowers a graph to ordered kernel calls over numbered buffers, then binds buffers to addresses.

use std::collections::BTreeMap;

use tcc_ir::attention::AttentionStep;
use tcc_ir::cache::CacheLayout;
use tcc_ir::graph::{Graph, NodeId, ValueId};
use tcc_ir::kernel::{KernelSpec, QuantLayout};
use tcc_ir::ops::{InputKind, Op};
use tcc_ir::plan::{Arg, KernelId, StateSlot, Step, StepList, WeightLayout, WeightSlot};
use tcc_ir::program::{StateId, WeightId};
use tcc_ir::ty::DType;

use super::layout::Layouts;
use super::select::{self, Before, SelectCx, Selected};
use super::{PlanError, layer_of, output};
use crate::schedule::Machine;

/// A planned activation buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BufferId(pub usize);

/// One value in a buffer: a buffer updated in place holds several versions, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub buffer: BufferId,
    pub version: usize,
}

/// An operand whose place is outside the planned activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixed {
    Weight(WeightId),
    /// The screen of a dense weight.
    Screen(WeightId),
    State(StateId),
    Tokens,
    Hidden,
    Logits,
}

impl Fixed {
    /// Whether steps write there.
    pub fn is_written(self) -> bool {
        match self {
            Fixed::State(_) | Fixed::Hidden | Fixed::Logits => true,
            Fixed::Weight(_) | Fixed::Screen(_) | Fixed::Tokens => false,
        }
    }
}

/// What one operand word of a step means before addresses are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    Read(Version),
    Write(Version),
    Fixed(Fixed),
}

/// A kernel call over buffers.
#[derive(Clone, Debug)]
pub struct UnboundStep {
    kernel: KernelId,
    pub operands: Vec<Operand>,
    pub label: String,
    bytes: u64,
    /// As in [`Step::joined`].
    pub joined: bool,
}

/// The steps of one graph over buffers.
pub struct UnboundList {
    pub name: String,
    pub m: usize,
    pub steps: Vec<UnboundStep>,
    /// Bytes of each buffer.
    pub buffers: Vec<u64>,
}

impl UnboundList {
    /// Gives every step of a list of one token row kernels and buffers for up to `rows`, if all of them can; returns
    /// how many rows the list takes. What they read and write is still said of one.
    pub(super) fn widen(&mut self, kernels: &mut Vec<KernelSpec>, rows: usize) -> usize {
        let spec = |step: &UnboundStep| kernels[step.kernel.0 as usize].with_rows(rows);
        let Some(wide) = self.steps.iter().map(spec).collect::<Option<Vec<_>>>() else { return 1 };
        for (step, spec) in self.steps.iter_mut().zip(wide) {
            step.kernel = intern(kernels, spec);
        }
        self.buffers.iter_mut().for_each(|bytes| *bytes *= rows as u64);
        rows
    }
}

impl UnboundStep {
    /// Buffers the step touches.
    pub fn buffers(&self) -> impl Iterator<Item = BufferId> {
        self.operands.iter().filter_map(|o| match o {
            Operand::Read(v) | Operand::Write(v) => Some(v.buffer),
            Operand::Fixed(_) => None,
        })
    }

    /// Whether the step and `other` may run at the same time: neither touches what the other writes.
    pub fn is_independent_of(&self, other: &UnboundStep) -> bool {
        let meets = |a: &Operand, b: &Operand| match (a, b) {
            (Operand::Write(written), Operand::Read(v) | Operand::Write(v)) => written.buffer == v.buffer,
            (Operand::Fixed(a), Operand::Fixed(b)) => a == b && a.is_written(),
            (Operand::Read(_), _) | (Operand::Write(_), Operand::Fixed(_)) | (Operand::Fixed(_), _) => false,
        };
        let touches = |a: &UnboundStep, b: &UnboundStep| {
            a.operands.iter().any(|mine| b.operands.iter().any(|theirs| meets(mine, theirs)))
        };
        !touches(self, other) && !touches(other, self)
    }

    pub fn new(kernel: KernelId, operands: Vec<Operand>, label: String, bytes: u64) -> Self {
        UnboundStep { kernel, operands, label, bytes, joined: false }
    }

    #[cfg(test)]
    pub fn for_test(label: String, operands: Vec<Operand>) -> Self {
        UnboundStep::new(KernelId(0), operands, label, 0)
    }
}

/// Where a graph value lies.
#[derive(Clone, Copy, Debug)]
enum Place {
    Buffer(Version),
    Fixed(Fixed),
}

struct Lowering<'a> {
    graph: &'a Graph,
    machine: &'a Machine,
    layouts: &'a Layouts,
    order: Vec<NodeId>,
    places: BTreeMap<ValueId, Place>,
    list: UnboundList,
}

/// Lowers the graph of `cx`; kernels not yet in `kernels` are appended.
pub(super) fn lower(cx: &SelectCx, kernels: &mut Vec<KernelSpec>) -> Result<UnboundList, PlanError> {
    let SelectCx { graph, machine, layouts, .. } = *cx;
    let list = UnboundList { name: graph.name.clone(), m: graph.m, steps: Vec::new(), buffers: Vec::new() };
    let mut lowering = Lowering { graph, machine, layouts, order: graph.order(), places: BTreeMap::new(), list };
    for id in lowering.order.clone() {
        if let Some(fixed) = leaf_place(graph.node(id).op) {
            lowering.places.insert(ValueId { node: id, result: 0 }, Place::Fixed(fixed));
        }
    }
    for (at, id) in lowering.order.clone().into_iter().enumerate() {
        if graph.node(id).op.is_leaf() || cx.gates.is_merged(id) {
            continue;
        }
        let selected = select::kernel(cx, id)?;
        let before = selected.before.as_ref().map(|before| lowering.steps_before(id, before, kernels));
        let kernel = intern(kernels, selected.spec.clone());
        let label = cx.gates.at(id).map_or_else(|| graph.node(id).label.clone(), |gate| gate.label(graph));
        lowering.step(at, id, kernel, &selected, (label, before))?;
    }
    Ok(lowering.list)
}

fn leaf_place(op: Op) -> Option<Fixed> {
    match op {
        Op::Weight(id) => Some(Fixed::Weight(id)),
        Op::State(id) => Some(Fixed::State(id)),
        Op::Input(InputKind::Tokens) => Some(Fixed::Tokens),
        Op::Input(InputKind::Hidden) => Some(Fixed::Hidden),
        // Position and row count are words of every argument block, not operands.
        _ => None,
    }
}

pub(super) fn intern(kernels: &mut Vec<KernelSpec>, spec: KernelSpec) -> KernelId {
    let at = kernels.iter().position(|k| *k == spec).unwrap_or_else(|| {
        kernels.push(spec);
        kernels.len() - 1
    });
    KernelId(u32::try_from(at).expect("fewer than 2^32 kernels"))
}

impl Lowering<'_> {
    fn step(
        &mut self,
        at: usize,
        id: NodeId,
        kernel: KernelId,
        selected: &Selected,
        (label, before): (String, Option<Version>),
    ) -> Result<(), PlanError> {
        let reads = &selected.operands;
        let mut operands: Vec<_> = before.into_iter().map(Operand::Read).collect();
        operands.extend(reads.iter().map(|value| self.read(*value)));
        let node = self.graph.node(id);
        if node.op == Op::KvWrite {
            // The cache before and after is one buffer.
            let cache = self.graph.operands(id)[0];
            self.places.insert(ValueId { node: id, result: 0 }, self.places[&cache]);
        } else {
            for result in 0..node.types.len() {
                let value = ValueId { node: id, result };
                let place = self.place_result(at, value, reads, selected.in_place);
                self.places.insert(value, place);
                operands.push(match place {
                    Place::Buffer(version) => Operand::Write(version),
                    Place::Fixed(fixed) => Operand::Fixed(fixed),
                });
            }
        }
        let made_bytes = before.map_or(0, |made| self.list.buffers[made.buffer.0]);
        let bytes = self.traffic_bytes(id, reads) + made_bytes;
        self.list.steps.push(UnboundStep::new(kernel, operands, label, bytes));
        Ok(())
    }

    /// The steps of node `id` that make a buffer for its kernel.
    fn steps_before(&mut self, id: NodeId, before: &Before, kernels: &mut Vec<KernelSpec>) -> Version {
        let buffer = BufferId(self.list.buffers.len());
        self.list.buffers.push(before.bytes);
        for (version, step) in before.steps.iter().enumerate() {
            let left = version.checked_sub(1).map(|version| Operand::Read(Version { buffer, version }));
            let mut operands: Vec<_> = left.into_iter().collect();
            operands.extend(step.operands.iter().map(|value| self.read(*value)));
            operands.push(Operand::Write(Version { buffer, version }));
            let label = format!("{}_{}", self.graph.node(id).label, step.name);
            let read_bytes = match step.spec {
                KernelSpec::AttentionStep { cache, step: AttentionStep::Softmax { .. }, .. } => {
                    2 * (cache.bytes() - cache.scales_offset_bytes()) as u64
                }
                _ => step.operands.iter().map(|value| self.value_bytes(*value)).sum(),
            };
            let kernel = intern(kernels, step.spec.clone());
            self.list.steps.push(UnboundStep::new(kernel, operands, label, read_bytes + before.bytes));
        }
        Version { buffer, version: before.steps.len() - 1 }
    }

    /// The operand word of a value that is read.
    fn read(&self, value: ValueId) -> Operand {
        match self.places[&value] {
            Place::Buffer(version) => Operand::Read(version),
            Place::Fixed(fixed) => Operand::Fixed(fixed),
        }
    }

    /// The graph's output has its own place; a result that may overwrite a dying operand takes its buffer; others
    /// get a new one.
    fn place_result(&mut self, at: usize, value: ValueId, reads: &[ValueId], in_place: Option<usize>) -> Place {
        if value == output(self.graph) {
            let logits = self.graph.outputs.len() == 1 && self.reads_hidden();
            return Place::Fixed(if logits { Fixed::Logits } else { Fixed::Hidden });
        }
        let reused = in_place.map(|i| reads[i]).filter(|operand| self.dies(at, *operand));
        if let Some(Place::Buffer(old)) = reused.map(|operand| self.places[&operand]) {
            return Place::Buffer(Version { version: old.version + 1, ..old });
        }
        self.list.buffers.push(self.value_bytes(value));
        Place::Buffer(Version { buffer: BufferId(self.list.buffers.len() - 1), version: 0 })
    }

    /// True for a head: its input is a hidden row.
    fn reads_hidden(&self) -> bool {
        self.order.iter().any(|id| self.graph.node(*id).op == Op::Input(InputKind::Hidden))
    }

    /// True if the step at `at` is the last to read `value`.
    fn dies(&self, at: usize, value: ValueId) -> bool {
        let later = &self.order[at + 1..];
        !self.graph.is_output(value) && self.graph.readers(value).iter().all(|(reader, _)| !later.contains(reader))
    }

    /// Bytes a step reads and writes; of tables and caches that it only picks rows from, those rows.
    fn traffic_bytes(&self, id: NodeId, reads: &[ValueId]) -> u64 {
        let node = self.graph.node(id);
        let result = |i| self.value_bytes(ValueId { node: id, result: i });
        match node.op {
            Op::Embed { .. } | Op::CodedEmbed { .. } => 2 * result(0),
            Op::Rope => 3 * result(0),
            Op::KvWrite => 2 * self.value_bytes(reads[0]),
            _ => {
                let read: u64 = reads.iter().map(|value| self.value_bytes(*value)).sum();
                read + (0..node.types.len()).map(result).sum::<u64>()
            }
        }
    }

    /// Bytes of a matrix of trits in its encoding.
    fn packed_bytes(&self, value: ValueId) -> usize {
        let Op::Weight(id) = self.graph.node(value.node).op else { unreachable!("trits are weights") };
        let Some(WeightLayout::Packed(encoding)) = self.layouts.get(&id) else { unreachable!("trits are packed") };
        let shape = &self.graph.ty(value).shape;
        encoding.matrix_bytes(shape[0], shape[1])
    }

    /// Bytes of a value as kernels lay it out.
    fn value_bytes(&self, value: ValueId) -> u64 {
        let (ty, op) = (self.graph.ty(value), self.graph.node(value.node).op);
        if let (Op::Weight(id), DType::F32 | DType::F16 | DType::Bf16) = (op, ty.dtype)
            && let Some(WeightLayout::Coded(table)) = self.layouts.get(&id)
        {
            return table.bytes() as u64;
        }
        let bytes = match (ty.dtype, op.is_leaf()) {
            (DType::I8, false) => self.machine.desc.activations.bytes(&quant_layout(self.graph, value), ty.shape[0]),
            (DType::Trit, _) => self.packed_bytes(value),
            (DType::Q8, _) => CacheLayout::of(ty).bytes(),
            _ => ty.size_bytes().expect("trits and q8 are above"),
        };
        bytes as u64
    }
}

/// Layout of the quantized rows `value`, from all its readers: sums for the finest groups any of them subtracts.
pub(super) fn quant_layout(graph: &Graph, value: ValueId) -> QuantLayout {
    let k = graph.ty(value).shape[1];
    let groups = graph.readers(value).into_iter().filter_map(|(reader, _)| {
        let operands = graph.operands(reader);
        match graph.ty(*operands.get(3)?).shape[..] {
            [_, groups] => Some(k / groups),
            _ => None,
        }
    });
    QuantLayout { k, sum_group: groups.fold(k, gcd) }
}

pub(super) fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Address of a weight, or of its screen.
fn weight_arg(weights: &[WeightSlot], id: WeightId, is_screen: bool) -> Arg {
    let fits = |slot: &&WeightSlot| slot.id == id && matches!(slot.layout, WeightLayout::Screen(_)) == is_screen;
    let slot = weights.iter().find(fits).expect("every weight read has a slot");
    Arg::Weight { offset_bytes: slot.offset_bytes }
}

/// Replaces buffers by arena addresses and weights and states by theirs.
pub(super) fn bind(
    graph: &Graph,
    list: &UnboundList,
    offsets: &[u64],
    base: u64,
    states: &[StateSlot],
    weights: &[WeightSlot],
) -> StepList {
    let mut layer = "";
    let mut steps = Vec::with_capacity(list.steps.len());
    for step in &list.steps {
        let arg = |operand: &Operand| match operand {
            Operand::Read(v) | Operand::Write(v) => Arg::Arena { offset_bytes: base + offsets[v.buffer.0] },
            Operand::Fixed(Fixed::Weight(id)) => weight_arg(weights, *id, false),
            Operand::Fixed(Fixed::Screen(id)) => weight_arg(weights, *id, true),
            Operand::Fixed(Fixed::State(id)) => Arg::Arena { offset_bytes: states[id.0 as usize].offset_bytes },
            Operand::Fixed(Fixed::Tokens) => Arg::Tokens,
            Operand::Fixed(Fixed::Hidden) => Arg::Hidden,
            Operand::Fixed(Fixed::Logits) => Arg::Logits,
        };
        let layer_start = !layer_of(&step.label).is_empty() && layer_of(&step.label) != layer;
        layer = layer_of(&step.label);
        steps.push(Step {
            kernel: step.kernel,
            args: step.operands.iter().map(arg).collect(),
            label: step.label.clone(),
            layer_start,
            joined: step.joined,
            bytes: step.bytes,
        });
    }
    StepList { name: graph.name.clone(), m: list.m, steps }
}
