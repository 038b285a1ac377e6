//! From a program to a plan: layouts of weights and activations, kernels, ordered steps, a fixed arena.

pub mod arena;
pub mod check;
mod gate;
mod join;
pub mod layout;
mod search;
mod select;
mod steps;
mod weights;

use tcc_ir::cache::CacheLayout;
use tcc_ir::encoding::Encoding;
use tcc_ir::graph::Graph;
use tcc_ir::kernel::{DENSE_ROWS, KernelSpec, TernaryProducts};
use tcc_ir::plan::{ArenaPlan, HeadRows, Plan, StateSlot};
use tcc_ir::program::{Program, StateId};
use tcc_ir::schedule::MatmulSchedule;
use tcc_ir::target::Features;
use thiserror::Error;

use self::gate::Gates;
use crate::schedule::density::Densities;
use crate::schedule::{ChooseError, Machine};

/// Token rows of a head that computes several.
pub const HEAD_ROWS: usize = DENSE_ROWS;

/// Requests that shape a plan.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    /// Most tasks that may run at once.
    pub max_threads: u32,
    /// Whether steps that do not depend on each other may be joined.
    pub joins: bool,
    /// Encoding for every ternary product with int8 activations, instead of the cost model's choice.
    pub encoding: Option<Encoding>,
    /// How the best tokens are found.
    pub head: HeadChoice,
    /// Most token rows that the head takes at once, where its kernels can.
    pub head_rows: usize,
    /// Bytes of the instance block at the arena's start; its layout belongs to the code generator.
    pub state_bytes: u64,
}

/// How sampling treats an exact head; the tokens are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeadChoice {
    /// Screened where the head is large.
    #[default]
    Auto,
    /// A screen is stored beside the head and read first.
    Screened,
    /// Every logit is computed.
    Exact,
}

/// Why no plan could be made.
#[derive(Debug, Error)]
pub enum PlanError {
    #[error("weight '{weight}': {source}")]
    Schedule { weight: String, source: ChooseError },
    #[error("'{label}': the plan has no kernel for this form of the op: {what}")]
    Unsupported { label: String, what: String },
    #[error("the arena plan is wrong: {0}")]
    Check(#[from] check::CheckError),
}

/// Makes the plan of `program` for `machine` and has it checked. No zeros are counted.
pub fn build(program: &Program, machine: &Machine, options: &PlanOptions) -> Result<Plan, PlanError> {
    Ok(build_all(program, &[*machine], options, &Densities::new())?.remove(0))
}

/// A plan for each of `machines`, which are of one target, over the same weights and one arena that holds what any of
/// them needs; `densities` are those of the weights whose zeros were counted.
pub fn build_all(
    program: &Program,
    machines: &[Machine],
    options: &PlanOptions,
    densities: &Densities,
) -> Result<Vec<Plan>, PlanError> {
    let layouts = layout::choose(program, machines, options.encoding, densities)?;
    let plans = machines.iter().map(|machine| build_over(program, machine, options, &layouts));
    let mut plans: Vec<Plan> = plans.collect::<Result<_, _>>()?;
    let arena = plans.iter().skip(1).fold(plans[0].arena.clone(), |arena, plan| arena.or(&plan.arena));
    for plan in &mut plans {
        plan.arena = arena.clone();
    }
    Ok(plans)
}

/// Cycles of all ternary products of one token row in every step list, at the rate of the widest kernel of each.
pub fn product_cycles(plan: &Plan) -> f64 {
    let steps = plan.lists().flat_map(|list| &list.steps);
    let cycles = |spec: &KernelSpec| {
        let TernaryProducts { n, k, schedules } = spec.ternary_products()?;
        let rate = |schedule: &MatmulSchedule| schedule.micro.first().map_or(1.0, |row| row.macs_per_cycle);
        Some(schedules.into_iter().map(|schedule| (n * k) as f64 / f64::from(rate(schedule))).sum::<f64>())
    };
    steps.filter_map(|step| cycles(plan.kernel(step.kernel))).sum()
}

/// The plan for one machine where weights have `layouts`.
fn build_over(
    program: &Program,
    machine: &Machine,
    options: &PlanOptions,
    layouts: &layout::Layouts,
) -> Result<Plan, PlanError> {
    let mut weights = weights::place(program, layouts);
    let mut kernels = Vec::new();
    let mut lists = Vec::new();
    for graph in program.graphs() {
        let gates = if machine.desc.has_gated_products { Gates::find(graph, &graph.order()) } else { Gates::default() };
        let max_threads = options.max_threads;
        let cx = select::SelectCx { graph, program, machine, max_threads, layouts, gates: &gates };
        let mut list = steps::lower(&cx, &mut kernels)?;
        if options.joins {
            join::steps(&mut list);
        }
        lists.push(list);
    }
    let head = lists.last_mut().expect("graphs() ends with the head");
    let most = head.widen(&mut kernels, options.head_rows.min(program.prefill()));
    let search = search::lower(program, head, options.head, &mut kernels)?;
    weights.extend(search.iter().map(|search| search::slot(search, &weights)).collect::<Vec<_>>());
    let planned = lists.iter().chain(search.iter().map(|search| &search.list));
    let arena = arena_plan(program, options, &kernels, planned);
    let states = place_states(program, arena.kv_offset);
    let head_rows = head_rows(program, &arena, most, lists.last().expect("as above"), search.is_some())?;
    let mut bound = Vec::new();
    for (graph, list) in program.graphs().zip(&lists) {
        let offsets = arena::assign(list);
        check::list(list, &offsets, arena.act_bytes - shared_bytes(program)).map_err(PlanError::Check)?;
        bound.push(steps::bind(graph, list, &offsets, activations_base(program, &arena), &states, &weights));
    }
    let head = bound.pop().expect("graphs() ends with the head");
    let search = search.map(|search| -> Result<_, PlanError> {
        let offsets = arena::assign(&search.list);
        check::list(&search.list, &offsets, arena.act_bytes - shared_bytes(program))?;
        Ok(search::bind(program, &search, &offsets, activations_base(program, &arena), &states, &weights))
    });
    let search = search.transpose()?;
    let (needs, vlen) = requirements(machine, &kernels);
    let weights_bytes = weights::total_bytes(program, &weights);
    let facts = program.facts.clone();
    Ok(Plan {
        facts,
        needs,
        vlen,
        kernels,
        bodies: bound,
        head,
        head_rows,
        search,
        weights,
        weights_bytes,
        states,
        arena,
    })
}

/// Where logits of some of the `most` rows of the head, lowered to `head`, find room behind its own activations.
fn head_rows(
    program: &Program,
    arena: &ArenaPlan,
    most: usize,
    head: &steps::UnboundList,
    has_search: bool,
) -> Result<HeadRows, PlanError> {
    let (base, offsets) = (activations_base(program, arena), arena::assign(head));
    let row_bytes = 4 * program.facts.vocab as u64;
    let behind = arena::total_bytes(head, &offsets);
    let limit = arena.act_bytes - shared_bytes(program);
    let room = usize::try_from((limit - behind) / row_bytes).unwrap_or(most);
    let kept = if has_search { 0 } else { most.min(room) };
    check::kept(head, &offsets, behind..behind + kept as u64 * row_bytes, limit)?;
    Ok(HeadRows { most, kept, kept_offset: base + behind })
}

/// CPU features and vector length that the chosen kernels need.
fn requirements(machine: &Machine, kernels: &[KernelSpec]) -> (Features, u32) {
    let schedules = kernels.iter().filter_map(KernelSpec::ternary_products).flat_map(|products| products.schedules);
    let rows = schedules.flat_map(|schedule| &schedule.micro);
    // Portable code uses every enabled feature it can, so the object needs them all.
    rows.fold((machine.features, 0), |(needs, vlen), row| (needs.with(row.needs), vlen.max(row.vlen)))
}

/// Bytes of the token, hidden and kept-hidden buffers, which live outside any graph's liveness.
fn shared_bytes(program: &Program) -> u64 {
    let prefill = program.prefill() as u64;
    let hidden = 4 * program.facts.hidden as u64;
    arena::align(4 * prefill) + arena::align(hidden * prefill) + arena::align(hidden)
}

/// First byte of the planned activations, behind the shared buffers.
fn activations_base(program: &Program, arena: &ArenaPlan) -> u64 {
    arena.act_offset + shared_bytes(program)
}

fn arena_plan<'a>(
    program: &Program,
    options: &PlanOptions,
    kernels: &[KernelSpec],
    lists: impl Iterator<Item = &'a steps::UnboundList>,
) -> ArenaPlan {
    let logits_bytes = arena::align(4 * program.facts.vocab as u64);
    let kv_bytes = program.states.iter().map(|s| arena::align(CacheLayout::of(&s.ty).bytes() as u64)).sum();
    let planned = lists.map(|l| arena::total_bytes(l, &arena::assign(l))).max().unwrap_or(0);
    let scratch = kernels.iter().map(|k| k.scratch_bytes() as u64).max().unwrap_or(0);
    let state_bytes = arena::align(options.state_bytes);
    let logits_offset = state_bytes;
    let kv_offset = logits_offset + logits_bytes;
    let act_offset = kv_offset + kv_bytes;
    let act_bytes = shared_bytes(program) + planned;
    let tokens_offset = act_offset;
    let hidden_offset = tokens_offset + arena::align(4 * program.prefill() as u64);
    let kept_hidden_offset = hidden_offset + arena::align(4 * (program.facts.hidden * program.prefill()) as u64);
    ArenaPlan {
        state_bytes,
        logits_offset,
        logits_bytes,
        kv_offset,
        kv_bytes,
        act_offset,
        act_bytes,
        tokens_offset,
        hidden_offset,
        kept_hidden_offset,
        scratch_offset: act_offset + act_bytes,
        scratch_bytes_per_thread: arena::align(scratch),
        max_threads: options.max_threads,
    }
}

fn place_states(program: &Program, kv_offset: u64) -> Vec<StateSlot> {
    let mut offset_bytes = kv_offset;
    let mut slots = Vec::with_capacity(program.states.len());
    for (i, state) in program.states.iter().enumerate() {
        let bytes = CacheLayout::of(&state.ty).bytes() as u64;
        let id = StateId(u32::try_from(i).expect("fewer than 2^32 states"));
        slots.push(StateSlot { id, offset_bytes, bytes });
        offset_bytes += arena::align(bytes);
    }
    slots
}

/// Name of the graph's layer prefix (`L07` of `L07.ffn_down`), empty outside layers.
fn layer_of(label: &str) -> &str {
    label.split_once('.').map_or("", |(layer, _)| layer)
}

/// The graph's output value; bodies and heads have one.
fn output(graph: &Graph) -> tcc_ir::graph::ValueId {
    graph.outputs[0]
}
