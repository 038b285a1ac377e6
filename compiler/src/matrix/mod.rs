//! The matrix unit: a model's programs for one machine, the object that holds them, and their simulated run.

pub mod bench;
mod decide;
pub mod descriptor;
pub mod header;
pub mod inspect;
pub mod object;
pub mod run;
pub mod source;
pub mod tiles;

use tcc_backends::isa::matrix::desc::{DESC, NAME, S4};
use tcc_backends::isa::matrix::lower::matmul::tile::Mode;
use tcc_backends::isa::matrix::lower::model::{self, Choose};
use tcc_backends::isa::matrix::machine::{Machine, OrganisationKind};
use tcc_backends::isa::matrix::program::Program;
use tcc_ir::encoding::Encoding;
use tcc_ir::kernel::KernelSpec;
use tcc_ir::plan::{Arg, Plan, StepList};
use tcc_ir::target::Features;

use self::decide::Decider;
use self::tiles::{Choice, Decision, Forced, Product};
use crate::blob;
use crate::driver::Front;
use crate::error::Error;
use crate::plan::{self, HeadChoice, PlanOptions};
use crate::schedule;

/// True if `target`, as given on the command line, is the matrix unit.
pub fn is_target(target: Option<&str>) -> bool {
    target == Some(NAME)
}

/// What a user may decide.
#[derive(Clone, Debug, Default)]
pub struct MatrixOptions {
    /// Layout of the weights, and with it the cube's mode for few token rows.
    pub encoding: Option<Encoding>,
    /// Tiles of products; the search decides about the others.
    pub tiles: Vec<Forced>,
}

/// One graph's program.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    /// Token rows.
    pub m: usize,
    /// Bytes of weights that a run reads at least.
    pub weights_bytes: u64,
    pub program: Program,
}

impl Body {
    /// Records of all streams.
    pub fn records(&self) -> usize {
        self.program.stages.iter().flat_map(|stage| &stage.streams).map(|stream| stream.records.len()).sum()
    }
}

/// Programs of a model over one map of global memory: all that a machine needs beside the weights.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixModel {
    pub machine: Machine,
    pub hidden: usize,
    pub vocab: usize,
    pub ctx: usize,
    /// Ascending in token rows; the first takes one.
    pub bodies: Vec<Body>,
    pub head: Body,
}

impl MatrixModel {
    /// The programs, the head last.
    pub fn programs(&self) -> impl Iterator<Item = &Body> {
        self.bodies.iter().chain([&self.head])
    }
}

/// A model compiled for one machine, and what it was made from.
pub struct Compiled {
    pub plan: Plan,
    pub model: MatrixModel,
    /// The tile of each product, in the order of first use.
    pub choices: Vec<Choice>,
}

/// Plans and lowers `front` for `machine`.
///
/// Errors: a machine or model that the lowering does not know; a forced tile of a product that the model does not have.
pub fn build(front: &Front, machine: &Machine, options: &MatrixOptions) -> Result<Compiled, Error> {
    let (encoding, head) = (options.encoding, HeadChoice::Exact);
    // A split machine's cores work on such products together.
    let joins = machine.org.kind == OrganisationKind::Split;
    let plan_options = PlanOptions { max_threads: 1, joins, encoding, head, head_rows: 1, state_bytes: 64 };
    let plan_for = |features: Features| {
        plan::build(&front.program, &schedule::Machine { desc: &DESC, features, vlen: 0 }, &plan_options)
    };
    let features = model::features(machine);
    let mut plan = plan_for(features)?;
    if model::modes(&plan, &plan.head).is_err() && options.encoding.is_none() {
        // Scales per group need one weight to the byte, and activations are laid out in one way for all products.
        plan = plan_for(features.without(S4))?;
    }
    let decider = Decider::new(machine, &options.tiles);
    let lists: Vec<&StepList> = plan.bodies.iter().chain([&plan.head]).collect();
    let modes = lists.iter().map(|list| decider.mode(&plan, list)).collect::<Result<Vec<Mode>, _>>()?;
    let mut choices = vec![];
    for (list, mode) in lists.iter().zip(&modes) {
        tiles::add_products(&mut choices, &plan, list, machine, *mode);
    }
    tiles::check_forced(&options.tiles, &choices)?;
    let choose = Choose {
        coupled: &|shape| {
            if let Decision::Coupled(tile) = decider.decide(Product::Coupled(*shape))? { Some(tile) } else { None }
        },
        split: &|shape| decider.split(shape),
        together: &|shapes| decider.together(shapes),
        gated: &|shape| decider.gated(shape),
    };
    let with_modes: Vec<(&StepList, Mode)> = lists.iter().copied().zip(modes).collect();
    let programs = model::lower(&plan, &with_modes, machine, &choose)?;
    let body =
        |(list, program): (&&StepList, Program)| Body { m: list.m, weights_bytes: weights_read(&plan, list), program };
    let mut bodies: Vec<Body> = lists.iter().zip(programs).map(body).collect();
    let head = bodies.pop().expect("the head is the last list");
    for choice in &mut choices {
        choice.decision = decider.decide(choice.product);
    }
    let facts = &plan.facts;
    let (hidden, vocab, ctx) = (facts.hidden, facts.vocab, facts.ctx);
    let model = MatrixModel { machine: machine.clone(), hidden, vocab, ctx, bodies, head };
    Ok(Compiled { plan, model, choices })
}

/// Bytes of the weights that the steps of `list` name; of a table of embeddings a run reads a few rows only.
fn weights_read(plan: &Plan, list: &StepList) -> u64 {
    let steps = list.steps.iter().filter(|step| !matches!(plan.kernel(step.kernel), KernelSpec::Embed { .. }));
    let mut offsets: Vec<u64> = steps
        .flat_map(|step| &step.args)
        .filter_map(|arg| if let Arg::Weight { offset_bytes } = arg { Some(*offset_bytes) } else { None })
        .collect();
    offsets.sort_unstable();
    offsets.dedup();
    let slots = plan.weights.iter().filter(|slot| offsets.binary_search(&slot.offset_bytes).is_ok());
    slots.map(|slot| slot.bytes).sum()
}

impl Compiled {
    /// The text of the tiles, with the cycles of each product alone.
    pub fn tiles_with_cycles(&self) -> String {
        let machine = &self.model.machine;
        let mut out = format!("; {}: cycles of each product alone, simulated\n", machine.name);
        for choice in &self.choices {
            let cycles = choice.cycles(machine).map_or_else(String::new, |cycles| format!("; {cycles:.0} cycles\n"));
            out += &(cycles + &tiles::text(std::slice::from_ref(choice)));
        }
        out
    }

    /// The weights blob, whole in memory: for simulated runs.
    pub fn weights(&self, front: &Front) -> Result<Vec<u8>, Error> {
        let mut weights = Vec::new();
        blob::write(&self.plan, &front.store, &mut weights, |_| {})?;
        Ok(weights)
    }

    /// States the SHA-256 of the weights in every program.
    pub fn set_weights_hash(&mut self, hash: [u8; 32]) {
        for body in self.model.bodies.iter_mut().chain([&mut self.model.head]) {
            body.program.symbols.iter_mut().filter(|s| s.name == model::WEIGHTS).for_each(|s| s.hash = hash);
        }
    }
}
