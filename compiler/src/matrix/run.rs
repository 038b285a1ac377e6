//! A model on a simulated matrix unit: bytes and findings, or cycles alone.

use std::collections::BTreeMap;

use tcc_backends::isa::matrix::lower::model::{HIDDEN, INPUT, LOGITS, TOKENS_OFFSET, WEIGHTS};
use tcc_backends::isa::matrix::program::addr::Space;
use tcc_backends::isa::matrix::program::{Program, SymbolId};
use tcc_backends::isa::matrix::sim::memory::Gm;
use tcc_backends::isa::matrix::sim::report::Report;
use tcc_backends::isa::matrix::sim::{self, Options, SimError};

use super::{Body, MatrixModel};
use crate::error::Error;

/// The symbol called `name` of a program of a model.
pub fn symbol(program: &Program, name: &str) -> SymbolId {
    program.find_symbol(name).expect("every program of a model declares the map")
}

/// Logits of every position, `[tokens, vocab]`, and what each run of a program said; with `check`, findings are errors.
///
/// `tokens` are inside the vocabulary and fit the context; `weights` has the bytes that the programs say.
pub fn logits(
    model: &MatrixModel,
    weights: &[u8],
    tokens: &[u32],
    check: bool,
) -> Result<(Vec<f32>, Vec<Report>), Error> {
    let options = Options { functional: true, check, ..Options::default() };
    let head = &model.head.program;
    let mut gm = Gm::new(head);
    let [input, hidden, logits] = [INPUT, HIDDEN, LOGITS].map(|name| symbol(head, name));
    gm.bytes_mut(symbol(head, WEIGHTS)).copy_from_slice(weights);
    let (mut all, mut reports) = (Vec::with_capacity(tokens.len() * model.vocab), vec![]);
    let mut pos = 0;
    for body in bodies(model, tokens.len()) {
        set_input(gm.bytes_mut(input), pos, &tokens[pos..pos + body.m]);
        reports.push(checked(sim::run(&body.program, &model.machine, &mut gm, options)?)?);
        let rows: Vec<u8> = gm.bytes(hidden)[..4 * body.m * model.hidden].to_vec();
        for row in rows.chunks_exact(4 * model.hidden) {
            gm.bytes_mut(hidden)[..row.len()].copy_from_slice(row);
            reports.push(checked(sim::run(head, &model.machine, &mut gm, options)?)?);
            let bytes = &gm.bytes(logits)[..4 * model.vocab];
            all.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        }
        pos += body.m;
    }
    Ok((all, reports))
}

/// The bodies that evaluate `count` tokens: a body takes exactly its number of rows, the smallest takes one.
pub fn bodies(model: &MatrixModel, count: usize) -> impl Iterator<Item = &Body> {
    let mut left = count;
    std::iter::from_fn(move || {
        let body = model.bodies.iter().rev().find(|body| body.m <= left && left > 0)?;
        left -= body.m;
        Some(body)
    })
}

/// Cycles of `body` at position `pos`, with no bytes moved; with `trace`, every operation and flag.
pub fn timed(model: &MatrixModel, body: &Body, pos: usize, trace: bool) -> Result<Report, Error> {
    let mut gm = Gm::for_timing(&body.program);
    set_input(gm.bytes_mut(symbol(&body.program, INPUT)), pos, &vec![0; body.m]);
    Ok(sim::run(&body.program, &model.machine, &mut gm, Options { trace, ..Options::default() })?)
}

/// Bytes of each local memory up to the last that each op of `body` touches, at position 0.
pub fn memory(model: &MatrixModel, body: &Body) -> Result<BTreeMap<(u16, Space), u64>, Error> {
    let mut gm = Gm::for_timing(&body.program);
    set_input(gm.bytes_mut(symbol(&body.program, INPUT)), 0, &vec![0; body.m]);
    let options = Options { memory: true, ..Options::default() };
    Ok(sim::run(&body.program, &model.machine, &mut gm, options)?.memory)
}

/// Position and tokens, as programs read them.
fn set_input(bytes: &mut [u8], pos: usize, tokens: &[u32]) {
    // Positions are below the context, which fits u32.
    bytes[..4].copy_from_slice(&(pos as u32).to_le_bytes());
    for (slot, token) in bytes[TOKENS_OFFSET..].chunks_exact_mut(4).zip(tokens) {
        slot.copy_from_slice(&token.to_le_bytes());
    }
}

/// The report, if the checker found nothing.
fn checked(report: Report) -> Result<Report, Error> {
    match report.violations.first() {
        None => Ok(report),
        Some(first) => Err(Error::Simulator(SimError::Fault(Box::new(first.clone())))),
    }
}
