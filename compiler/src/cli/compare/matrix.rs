//! Rows of simulated matrix units.

use tcc_backends::isa::matrix::desc::NAME;
use tcc_backends::isa::matrix::machine::Machine;
use tcc_backends::isa::matrix::program::codec;

use super::{Asked, Measure};
use crate::cli::args::RateArgs;
use crate::cli::prepare;
use crate::cli::progress::Progress;
use crate::compare::{Outcome, Row, Simulated};
use crate::error::Error;
use crate::matrix::{self, MatrixOptions, bench};
use crate::run::ops::HeadRows;
use crate::{golden, matrix::run};

/// The matrix units of one target of the list, a row each.
pub(super) fn asked(machines: &[String], rates: &RateArgs) -> Result<Vec<Asked>, Error> {
    if machines.is_empty() {
        let help = format!("give {NAME}:MACHINE, {}", prepare::machines());
        return Err(Error::usage("which matrix unit is meant is not said", help));
    }
    let asked = |name: &String| {
        let machine = Box::new(prepare::machine(name, rates)?);
        Ok(Asked::Matrix { label: format!("{NAME}:{name}"), machine })
    };
    machines.iter().map(asked).collect()
}

impl Measure<'_> {
    /// The row of a matrix unit. Everything in it is the same on every machine.
    pub(super) fn matrix_row(&self, label: &str, machine: &Machine) -> Result<Row, Error> {
        let bar = Progress::spinner(self.cx, format!("compiling for {}", machine.name));
        let compiled = matrix::build(self.front, machine, &MatrixOptions::default())?;
        let (plan, model) = (&compiled.plan, &compiled.model);
        bar.message(format!("simulating {}", machine.name));
        let (logits, _) = run::logits(model, &compiled.weights(self.front)?, self.ids, true)?;
        let point = self.work().decode_point(HeadRows::default());
        let decode = bench::decode(model, point.position)?;
        let outcome = Outcome::Ran {
            engine: format!("simulator, {} vector costs", machine.vector.costs),
            sha256: golden::hex(&golden::hash(&logits)),
            decode: None,
            instructions: None,
            // Far below 2^53.
            simulated: Some(Simulated {
                cycles: decode.cycles().round() as u64,
                tokens_per_second: decode.tokens_per_second(),
            }),
        };
        let programs: usize = model.programs().map(|body| codec::encode(&body.program).len()).sum();
        let numbers = [
            Some(programs as u64),
            Some(plan.weights_bytes),
            Some(model.head.program.gm_bytes() - plan.weights_bytes),
            None,
            None,
            Some(self.work().bytes_per_token(plan, HeadRows::default())),
        ];
        let (triple, cpu_features) = (NAME.to_owned(), String::new());
        Ok(Row { target: label.to_owned(), triple, cpu_features, numbers, outcome })
    }
}
