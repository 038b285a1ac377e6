//! How fast compiled code runs on this machine, and what it moves through memory meanwhile.

use std::time::Instant;

use tcc_ir::kernel::KernelSpec;
use tcc_ir::plan::{Plan, Step, StepList};
use tcc_runtime::abi::{Sampler, Status};
use tcc_runtime::arena::Arena;
use tcc_runtime::pool::Pool;
use tcc_runtime::session::Session;

use super::host::HostModel;
use crate::error::Error;

/// What is measured: a prompt of `prompt` tokens, then `n` tokens one by one; the median of `runs` counts. Each is
/// at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    pub prompt: usize,
    pub n: usize,
    pub runs: usize,
}

/// Tokens per second.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    pub prefill: f64,
    pub decode: f64,
}

impl Work {
    /// Bytes that one decoded token moves halfway through the generated ones, head included.
    pub fn bytes_per_token(&self, plan: &Plan) -> u64 {
        let position = self.prompt + self.n / 2;
        let bytes = |list: &StepList| list.steps.iter().map(|step| step_bytes(plan, step, position)).sum::<u64>();
        plan.bodies.first().map_or(0, bytes) + bytes(&plan.head)
    }

    /// Rates of `host` on `threads` threads.
    pub fn rates(&self, host: &HostModel, threads: u32) -> Result<Rates, Error> {
        let runs: Vec<Seconds> = (0..self.runs).map(|_| self.once(host, threads)).collect::<Result<_, _>>()?;
        Ok(Rates {
            prefill: self.prompt as f64 / median(runs.iter().map(|r| r.prefill)),
            decode: self.n as f64 / median(runs.iter().map(|r| r.decode)),
        })
    }

    fn once(&self, host: &HostModel, threads: u32) -> Result<Seconds, Error> {
        let failed = |status: Status| Error::Status { status };
        let model = host.module().model();
        let info = model.info();
        let mut arena = Arena::new(info.arena_bytes).map_err(Error::io("reserved", "memory for the arena"))?;
        let pool = Pool::new(threads).map_err(Error::io("started", "a thread"))?;
        let hooks = pool.hooks();
        let mut session = Session::new(model, arena.bytes_mut(), Some(&hooks)).map_err(failed)?;
        // Any tokens do: time does not depend on them.
        let vocab = u64::from(info.vocab);
        let prompt: Vec<u32> = (0..self.prompt as u64).map(|i| (i * 7919 % vocab) as u32).collect();
        session.eval(&prompt[..1]).map_err(failed)?;
        session.logits().map_err(failed)?;
        session.reset();
        let begin = Instant::now();
        session.eval(&prompt).map_err(failed)?;
        let prefill = begin.elapsed().as_secs_f64();
        let mut sampler = Sampler::GREEDY;
        let begin = Instant::now();
        for _ in 0..self.n {
            let token = session.sample(&mut sampler).map_err(failed)?;
            session.eval(&[token]).map_err(failed)?;
        }
        Ok(Seconds { prefill, decode: begin.elapsed().as_secs_f64() })
    }
}

/// Durations of one run.
struct Seconds {
    prefill: f64,
    decode: f64,
}

/// Attention reads its caches up to the position; the plan states their whole size.
fn step_bytes(plan: &Plan, step: &Step, position: usize) -> u64 {
    match plan.kernel(step.kernel) {
        KernelSpec::Attention { heads, kv_heads, d, cache, .. } => {
            let element = cache.size_bytes().unwrap_or(4);
            (2 * kv_heads * d * element * (position + 1) + 8 * heads * d) as u64
        }
        _ => step.bytes,
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
