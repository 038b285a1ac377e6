//! The matrix unit: a model's programs for one machine, and their simulated run.

use tcc_backends::isa::matrix::desc::DESC;
use tcc_backends::isa::matrix::lower::matmul::search;
use tcc_backends::isa::matrix::lower::matmul::tile::Shape;
use tcc_backends::isa::matrix::lower::model::{self, TOKENS_OFFSET};
use tcc_backends::isa::matrix::machine::Machine;
use tcc_backends::isa::matrix::program::Program;
use tcc_backends::isa::matrix::sim::memory::Gm;
use tcc_backends::isa::matrix::sim::report::Report;
use tcc_backends::isa::matrix::sim::{self, Options, SimError};
use tcc_ir::encoding::Encoding;
use tcc_ir::plan::Plan;
use tcc_ir::target::Features;

use crate::blob;
use crate::driver::Front;
use crate::error::Error;
use crate::plan::{self, HeadChoice, PlanOptions};
use crate::schedule;

/// A model compiled for one machine: one program per graph, over the same global memory.
pub struct MatrixModel {
    pub machine: Machine,
    pub plan: Plan,
    /// Programs of the bodies, by token rows, and of the head.
    pub bodies: Vec<(usize, Program)>,
    pub head: Program,
}

/// Plans and lowers `front` for `machine`; `encoding` forces the weights' layout, and with it the cube's mode.
pub fn build(front: &Front, machine: &Machine, encoding: Option<Encoding>) -> Result<MatrixModel, Error> {
    let options = PlanOptions { max_threads: 1, encoding, head: HeadChoice::Exact, state_bytes: 64 };
    let target = schedule::Machine { desc: &DESC, features: Features::NONE, vlen: 0 };
    let plan = plan::build(&front.program, &target, &options)?;
    let tiles = std::cell::RefCell::new(Vec::<(Shape, _)>::new());
    let choose = |shape: &Shape| {
        if let Some((_, tile)) = tiles.borrow().iter().find(|(known, _)| known == shape) {
            return *tile;
        }
        let tile = search::choose(shape, machine);
        tiles.borrow_mut().push((*shape, tile));
        tile
    };
    let lower = |list| model::lower(&plan, list, machine, &choose);
    let bodies = plan.bodies.iter().map(|list| Ok((list.m, lower(list)?)));
    let bodies = bodies.collect::<Result<_, model::LowerError>>()?;
    let head = lower(&plan.head)?;
    Ok(MatrixModel { machine: machine.clone(), plan, bodies, head })
}

/// Logits of every position, `[tokens, vocab]`, and what each run of a program said; with `check`, findings are errors.
pub fn run(model: &MatrixModel, front: &Front, tokens: &[u32], check: bool) -> Result<(Vec<f32>, Vec<Report>), Error> {
    let options = Options { functional: true, check, ..Options::default() };
    let facts = &model.plan.facts;
    let mut gm = Gm::new(&model.head);
    let find = |name: &str| model.head.find_symbol(name).expect("every program declares the map");
    let (input, hidden, logits) = (find("input"), find("hidden"), find("logits"));
    let mut weights = Vec::new();
    blob::write(&model.plan, &front.store, &mut weights, |_| {})?;
    gm.bytes_mut(find("weights")).copy_from_slice(&weights);
    let (mut all, mut reports) = (Vec::with_capacity(tokens.len() * facts.vocab), vec![]);
    let mut pos = 0;
    while pos < tokens.len() {
        let left = tokens.len() - pos;
        // A body takes exactly its number of rows; the smallest takes one.
        let (m, body) = model.bodies.iter().rev().find(|(m, _)| *m <= left).expect("decode takes one row");
        let bytes = gm.bytes_mut(input);
        bytes[..4].copy_from_slice(&(pos as u32).to_le_bytes());
        for (i, token) in tokens[pos..pos + m].iter().enumerate() {
            bytes[TOKENS_OFFSET + 4 * i..][..4].copy_from_slice(&token.to_le_bytes());
        }
        reports.push(checked(sim::run(body, &model.machine, &mut gm, options)?)?);
        let rows: Vec<u8> = gm.bytes(hidden)[..4 * m * facts.hidden].to_vec();
        for row in rows.chunks_exact(4 * facts.hidden) {
            gm.bytes_mut(hidden)[..row.len()].copy_from_slice(row);
            reports.push(checked(sim::run(&model.head, &model.machine, &mut gm, options)?)?);
            let bytes = &gm.bytes(logits)[..4 * facts.vocab];
            all.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        }
        pos += m;
    }
    Ok((all, reports))
}

/// The report, if the checker found nothing.
fn checked(report: Report) -> Result<Report, Error> {
    match report.violations.first() {
        None => Ok(report),
        Some(first) => Err(Error::Simulator(SimError::Fault(Box::new(first.clone())))),
    }
}
