//! Decides about a model's products: forced tiles and choices as they are, the others by the simulator's time.

use std::cell::RefCell;

use tcc_backends::isa::matrix::lower::matmul::search;
use tcc_backends::isa::matrix::lower::matmul::tile::Mode;
use tcc_backends::isa::matrix::lower::model::{self, LowerError};
use tcc_backends::isa::matrix::lower::split;
use tcc_backends::isa::matrix::lower::split::choice::Choice as SplitChoice;
use tcc_backends::isa::matrix::lower::split::search::Shape;
use tcc_backends::isa::matrix::machine::Machine;
use tcc_ir::plan::{Plan, StepList};

use super::tiles::{self, Choice, Decision, Forced, Product};

/// Decisions about products, each made once.
pub struct Decider<'a> {
    machine: &'a Machine,
    forced: &'a [Forced],
    found: RefCell<Vec<(Product, Option<Decision>)>>,
    /// About products of the same activations.
    together: RefCell<Vec<(Vec<Shape>, Option<SplitChoice>)>>,
    /// About products that gate others.
    gated: RefCell<Vec<(Shape, Option<SplitChoice>)>>,
}

impl<'a> Decider<'a> {
    pub fn new(machine: &'a Machine, forced: &'a [Forced]) -> Decider<'a> {
        let (found, together, gated) = (RefCell::default(), RefCell::default(), RefCell::default());
        Decider { machine, forced, found, together, gated }
    }

    /// What is decided about `product`; `None` where nothing fits.
    pub fn decide(&self, product: Product) -> Option<Decision> {
        let known = |found: &[(Product, Option<Decision>)]| found.iter().find(|(p, _)| *p == product).map(|(_, d)| *d);
        if let Some(known) = known(&self.found.borrow()) {
            return known;
        }
        let forced = self.forced.iter().find(|forced| forced.product == product).map(|forced| forced.decision);
        let decision = forced.or_else(|| match product {
            Product::Coupled(shape) => search::choose(&shape, self.machine).map(Decision::Coupled),
            Product::Split(shape) => Some(Decision::Split(split::search::choose(&shape, self.machine))),
        });
        self.found.borrow_mut().push((product, decision));
        decision
    }

    /// The choice of a product on a split machine.
    pub fn split(&self, shape: &Shape) -> Option<SplitChoice> {
        if let Decision::Split(choice) = self.decide(Product::Split(*shape))? { Some(choice) } else { None }
    }

    /// The choice of products that are worked on together; `None` where each is worked on by itself.
    pub fn together(&self, shapes: &[Shape]) -> Option<SplitChoice> {
        let known = self.together.borrow().iter().find(|(known, _)| known == shapes).map(|(_, choice)| *choice);
        known.unwrap_or_else(|| {
            let choices: Option<Vec<_>> = shapes.iter().map(|shape| Some((*shape, self.split(shape)?))).collect();
            let choice = choices.and_then(|choices| split::search::choose_together(&choices, self.machine));
            self.together.borrow_mut().push((shapes.to_vec(), choice));
            choice
        })
    }

    /// The choice of a product that gates one of the same shape; `None` where the gate belongs to the step behind.
    pub fn gated(&self, shape: &Shape) -> Option<SplitChoice> {
        let known = self.gated.borrow().iter().find(|(known, _)| known == shape).map(|(_, choice)| *choice);
        known.unwrap_or_else(|| {
            let choice = self.split(shape).and_then(|choice| {
                let apart = self.together(&[*shape; 2]);
                split::search::choose_gated((shape, choice), apart, self.machine)
            });
            self.gated.borrow_mut().push((*shape, choice));
            choice
        })
    }

    /// The mode of the products of `list`: one that a product of it is forced in, and of several the one whose products
    /// take the least time.
    ///
    /// Errors: the plan's weights are packed for two modes.
    pub fn mode(&self, plan: &Plan, list: &StepList) -> Result<Mode, LowerError> {
        let modes = model::modes(plan, list)?;
        let products = |mode: Mode| {
            let mut choices = vec![];
            tiles::add_products(&mut choices, plan, list, self.machine, mode);
            choices
        };
        let is_forced = |mode: &Mode| {
            let of_mode = products(*mode);
            self.forced.iter().any(|forced| of_mode.iter().any(|choice| choice.product == forced.product))
        };
        let forced: Vec<Mode> = modes.iter().copied().filter(is_forced).collect();
        let modes = if forced.is_empty() { modes } else { forced };
        if let [one] = modes[..] {
            return Ok(one);
        }
        let cycles = |mode: Mode| products(mode).iter().map(|choice| self.cycles(choice)).sum::<f64>();
        let timed: Vec<(f64, Mode)> = modes.into_iter().map(|mode| (cycles(mode), mode)).collect();
        let best = timed.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
        Ok(best.expect("a list of products has a mode").1)
    }

    /// Cycles of the steps that are a product.
    fn cycles(&self, choice: &Choice) -> f64 {
        let decided = Choice { decision: self.decide(choice.product), ..choice.clone() };
        decided.cycles(self.machine).unwrap_or(f64::INFINITY) * choice.steps.len() as f64
    }
}
