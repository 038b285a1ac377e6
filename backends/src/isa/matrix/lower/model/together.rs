//! Products of split machines: which of them cube and vector cores work on together, and the scratch that it takes.

use tcc_ir::kernel::KernelSpec;
use tcc_ir::ops::Act;
use tcc_ir::plan::{Plan, Step};

use super::{Cx, LowerError, packed, split_product};
use crate::isa::matrix::lower::split::choice::Choice;
use crate::isa::matrix::lower::split::{self, Up, search};
use crate::isa::matrix::lower::vector::Place;
use crate::isa::matrix::lower::vector::ternary::PANEL;
use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::{Stream, SymbolId};

/// Bytes of unpacked weights and of sums of the products of `plan`: all those that may be worked on together.
pub(super) fn scratch_bytes(plan: &Plan, machine: &Machine) -> Option<[usize; 2]> {
    let lists = plan.bodies.iter().chain([&plan.head]);
    let groups = lists.flat_map(|list| list.steps.chunk_by(|_, next| next.joined));
    let bytes = groups.filter_map(|steps| {
        let shapes = steps.iter().filter_map(|step| Some(packed(plan.kernel(step.kernel))?.shape));
        // Each has whole panels of its own.
        let sizes = shapes.map(|s| [s.m, s.n.next_multiple_of(PANEL.nr), s.k]);
        let [m, n, k] = sizes.reduce(|a, b| [a[0].max(b[0]), a[1] + b[1], a[2].max(b[2])])?;
        Some([split::scratch_bytes(machine, n, k), split::sums_bytes(m, n)])
    });
    bytes.reduce(|a, b| [a[0].max(b[0]), a[1].max(b[1])])
}

impl Cx<'_> {
    /// How many of `steps` are worked on together: the first one, and where it is a product in blocks of token rows, or a
    /// streamed one, as many of the same activations and the same kind that are joined to it as are faster together.
    pub(super) fn together(&self, steps: &[Step]) -> usize {
        let kind = |step: &Step| {
            let (shape, choice) = self.choice(step)?;
            let is_streamed = match choice {
                Choice::Blocks(_) => false,
                Choice::Streamed(_) => true,
                Choice::Vector => return None,
            };
            Some((is_streamed, shape.m, shape.k, step.args[..2].to_vec()))
        };
        let Some(first) = steps.first().and_then(kind) else { return 1 };
        let count = 1 + steps[1..].iter().take_while(|step| step.joined && kind(step).as_ref() == Some(&first)).count();
        let shapes: Vec<search::Shape> = steps[..count].iter().filter_map(|step| Some(self.choice(step)?.0)).collect();
        (2..=count).rev().find(|count| (self.choose.together)(&shapes[..*count]).is_some()).unwrap_or(1)
    }

    /// What is decided about the first of `steps` if it gates the second as it is scaled: products of one shape and of the same
    /// activations, which the third step gates with relu² and quantizes.
    pub(super) fn gated(&self, steps: &[Step]) -> Option<Choice> {
        let [gate, up, act, ..] = steps else { return None };
        let (shape, of_up) = (self.choice(gate)?.0, self.choice(up)?.0);
        let [KernelSpec::GluQuant { act: kind, .. } | KernelSpec::GluNormQuant { act: kind, .. }] =
            [self.plan.kernel(act.kernel)]
        else {
            return None;
        };
        let is_theirs =
            gate.args[..2] == up.args[..2] && act.args[0] == *gate.args.last()? && act.args[1] == *up.args.last()?;
        let is_gate = up.joined && shape == of_up && *kind == Act::Relu2 && is_theirs;
        if is_gate { (self.choose.gated)(&shape) } else { None }
    }

    /// The streams of a product that gates another.
    pub(super) fn gate(&self, steps: &[Step], choice: Choice, op: u16) -> Result<[Stream; 2], LowerError> {
        let forced = || LowerError::Forced { label: steps[0].label.clone(), choice: choice.to_string() };
        let shapes = steps.iter().map(|step| Some(self.choice(step)?.0));
        let products = shapes.zip(steps).map(|(shape, step)| Some(self.product(step, &shape?, self.map.expanded?)));
        let products: Option<Vec<split::Product>> = products.collect();
        let (Some([gate, up]), Choice::Blocks(tile)) = (products.as_deref(), choice) else { return Err(forced()) };
        let product = split::Product { up: Some(Up { w: up.w, scales: up.scales }), ..*gate };
        let streams = split::streams(self.machine, &[product], tile, op);
        let streams = streams.map_err(|source| LowerError::Ub { label: steps[0].label.clone(), source })?;
        streams.ok_or_else(forced)
    }

    /// The product that a step is on cube and vector cores, and what is decided about it.
    fn choice(&self, step: &Step) -> Option<(search::Shape, Choice)> {
        let shape = split_product(self.plan.kernel(step.kernel), self.machine)?;
        Some((shape, (self.choose.split)(&shape)?))
    }

    /// The streams of products that cube and vector cores of a split machine share.
    pub(super) fn split(&self, steps: &[Step], op: u16) -> Result<Option<[Stream; 2]>, LowerError> {
        let label = || steps[0].label.clone();
        let is_product = |step: &Step| split_product(self.plan.kernel(step.kernel), self.machine).is_some();
        let Some(expanded) = self.map.expanded.filter(|_| steps.iter().all(is_product)) else { return Ok(None) };
        let choices: Option<Vec<_>> = steps.iter().map(|step| self.choice(step)).collect();
        let choices = choices.ok_or_else(|| LowerError::NoTile { label: label() })?;
        let products = steps.iter().zip(&choices).map(|(step, (shape, _))| self.product(step, shape, expanded));
        let products: Vec<split::Product> = products.collect();
        let shapes: Vec<search::Shape> = choices.iter().map(|(shape, _)| *shape).collect();
        let together = if steps.len() > 1 { (self.choose.together)(&shapes) } else { None };
        let Some(choice) = together.or_else(|| Some(choices.first()?.1)) else { return Ok(None) };
        let streams = match choice {
            Choice::Blocks(tile) => split::streams(self.machine, &products, tile, op),
            Choice::Streamed(tile) => split::stream::streams(self.machine, &products, tile, op),
            Choice::Vector => return Ok(None),
        };
        let streams = streams.map_err(|source| LowerError::Ub { label: label(), source })?;
        // What does not fit was forced.
        streams.map(Some).ok_or_else(|| LowerError::Forced { label: label(), choice: choice.to_string() })
    }

    fn product(&self, step: &Step, shape: &search::Shape, expanded: SymbolId) -> split::Product {
        let search::Shape { m, n, k, scale, bias, residual } = *shape;
        let args: Vec<Place> = step.args.iter().map(|a| self.place(*a)).collect();
        split::Product {
            m,
            n,
            k,
            scale,
            q: args[0],
            act: args[1],
            w: args[2],
            scales: args[3],
            bias: bias.then(|| args[4]),
            residual: residual.then(|| args[4 + usize::from(bias)]),
            up: None,
            out: args[args.len() - 1],
            expanded: (expanded, 0),
            sums: (self.map.sums, 0),
        }
    }
}
