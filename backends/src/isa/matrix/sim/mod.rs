//! The simulator: exact bytes, time in cycles, and a checker, in one engine. `docs/matrix.md` says what is modelled.

mod access;
pub mod check;
mod core;
mod cost;
mod cross;
mod engine;
mod exec;
mod l2;
pub mod memory;
mod operate;
pub mod report;
mod rules;
pub mod show;
pub mod timeline;

use thiserror::Error;

use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::Program;
use crate::isa::matrix::program::verify::{self, ProgramError};
use crate::isa::matrix::sim::check::Checker;
use crate::isa::matrix::sim::check::violation::Violation;
use crate::isa::matrix::sim::l2::L2;
use crate::isa::matrix::sim::memory::Gm;
use crate::isa::matrix::sim::report::Report;

/// What a run does beside counting cycles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Moves and computes bytes; without it global memory needs inputs and constants only.
    pub functional: bool,
    pub check: bool,
    /// Keeps every operation's start and end, and every flag's.
    pub trace: bool,
    /// Keeps how far each op reaches into each local memory.
    pub memory: bool,
    /// L2 holds every symbol but weights when the run begins: as within a model, whose other steps touched them.
    pub warm: bool,
    /// Records that may run, over all cores; 0 is no limit.
    pub max_records: u64,
}

/// A run that cannot go on.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SimError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("the program was made for machine '{program}' with another description than '{machine}'")]
    Machine { program: String, machine: String },
    /// The machine cannot do what a record says.
    #[error("{0}")]
    Fault(Box<Violation>),
    #[error("more than {limit} records ran; the limit guards against endless programs")]
    TooLong { limit: u64 },
}

/// Runs `program` on `machine` with `gm` as global memory.
pub fn run(program: &Program, machine: &Machine, gm: &mut Gm, options: Options) -> Result<Report, SimError> {
    verify::program(program)?;
    if program.machine_digest != machine.digest() {
        let (program, machine) = (program.machine.clone(), machine.name.clone());
        return Err(SimError::Machine { program, machine });
    }
    let mut report = Report::default();
    let mut l2 = L2::default();
    if options.warm {
        l2.warm(program, machine);
    }
    let mut records = 0;
    let mut checker = match (options.check, program.stages.first()) {
        (true, Some(stage)) => Some(Checker::new(program, machine, stage)),
        (false, _) | (true, None) => None,
    };
    for (index, stage) in program.stages.iter().enumerate() {
        let mut engine = engine::Engine::new(program, machine, stage, options, gm, &mut l2)?;
        if let Some(checker) = &mut checker {
            checker.begin_stage(stage, engine.cores());
        }
        // Programs are verified to have fewer than 65536 stages.
        engine.run(&mut checker, index as u16, &mut records, &mut report)?;
    }
    report.violations = checker.map(|c| c.violations).unwrap_or_default();
    Ok(report)
}
