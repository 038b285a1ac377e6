//! How fast compiled code runs on this machine, and what it moves through memory meanwhile.

use std::time::Instant;

use tcc_ir::plan::Plan;
use tcc_runtime::abi::{Sampler, Status};
use tcc_runtime::arena::Arena;
use tcc_runtime::op_clock::OpClock;
use tcc_runtime::pool::Pool;
use tcc_runtime::session::{HookSet, Session};

use super::host::HostModel;
use super::ops::{self, HeadRows, Point};
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
    /// What the searches for those tokens have read.
    pub rows: HeadRows,
}

impl Work {
    /// Halfway through the generated tokens: where what a decoded token moves is counted.
    pub fn decode_point(&self, rows: HeadRows) -> Point {
        Point { position: self.prompt + self.n / 2, rows }
    }

    /// Halfway through the prompt.
    pub fn prefill_point(&self) -> Point {
        Point { position: self.prompt / 2, rows: HeadRows::default() }
    }

    /// Bytes that one decoded token moves, head included, where a search reads `rows`.
    pub fn bytes_per_token(&self, plan: &Plan, rows: HeadRows) -> u64 {
        let steps = ops::decode_lists(plan).into_iter().flat_map(|list| &list.steps);
        steps.map(|step| ops::bytes(plan, step, self.decode_point(rows))).sum()
    }

    /// Of [`Work::bytes_per_token`], those of weights and caches.
    pub fn stored_bytes_per_token(&self, plan: &Plan, rows: HeadRows) -> u64 {
        let steps = ops::decode_lists(plan).into_iter().flat_map(|list| &list.steps);
        steps.map(|step| ops::stored_bytes(plan, step, self.decode_point(rows))).sum()
    }

    /// Rates of `host` on `threads` threads.
    pub fn rates(&self, host: &HostModel, threads: u32) -> Result<Rates, Error> {
        let runs: Vec<Seconds> = (0..self.runs).map(|_| self.once(host, threads)).collect::<Result<_, _>>()?;
        Ok(Rates {
            prefill: self.prompt as f64 / median(runs.iter().map(|r| r.prefill)),
            decode: self.n as f64 / median(runs.iter().map(|r| r.decode)),
            rows: runs[0].rows,
        })
    }

    fn once(&self, host: &HostModel, threads: u32) -> Result<Seconds, Error> {
        let pool = Pool::new(threads).map_err(Error::io("started", "a thread"))?;
        let mut seconds = Seconds::default();
        let rows = self.perform(host, &host.hooks(pool.hooks()), |phase, time| match phase {
            Phase::Prefill => seconds.prefill = time,
            Phase::Decode => seconds.decode = time,
        })?;
        Ok(Seconds { rows, ..seconds })
    }

    /// Seconds of each op per token on `threads` threads, in the run whose time is the median; `host` calls the op hooks.
    pub fn op_times(&self, host: &HostModel, threads: u32) -> Result<OpTimes, Error> {
        let pool = Pool::new(threads).map_err(Error::io("started", "a thread"))?;
        let clock = OpClock::new(host.module().model().info().op_count, host.hooks(pool.hooks()));
        let mut runs = Vec::new();
        for _ in 0..self.runs {
            let mut times = OpTimes::default();
            self.perform(host, &clock.hooks(), |phase, total| {
                let per_token = |n: usize| {
                    let ops = clock.take().iter().map(|time| time.as_secs_f64() / n as f64).collect();
                    PhaseTimes { ops, total: total / n as f64 }
                };
                match phase {
                    Phase::Prefill => times.prefill = per_token(self.prompt),
                    Phase::Decode => times.decode = per_token(self.n),
                }
            })?;
            runs.push(times);
        }
        // One whole run: medians of its parts would not add up to the median of the whole.
        let middle = |of: fn(&OpTimes) -> &PhaseTimes| {
            runs.sort_by(|a, b| of(a).total.total_cmp(&of(b).total));
            of(&runs[runs.len() / 2]).clone()
        };
        let [prefill, decode] = [(|run| &run.prefill) as fn(&OpTimes) -> &PhaseTimes, |run| &run.decode].map(middle);
        Ok(OpTimes { prefill, decode })
    }

    /// Does the work once in a session of its own, says after each phase how many seconds it took, and returns what
    /// the searches for tokens have read.
    fn perform(
        &self,
        host: &HostModel,
        hooks: &HookSet<'_>,
        mut ended: impl FnMut(Phase, f64),
    ) -> Result<HeadRows, Error> {
        let failed = |status: Status| Error::Status { status };
        let model = host.module().model();
        let info = model.info();
        let mut arena = Arena::new(info.arena_bytes).map_err(Error::io("reserved", "memory for the arena"))?;
        let mut session = Session::new(model, arena.bytes_mut(), Some(hooks)).map_err(failed)?;
        let prompt = prompt(self.prompt, info.vocab as usize);
        // Touches weights and arena, so that no phase pays for page faults.
        session.eval(&prompt[..1]).map_err(failed)?;
        session.logits().map_err(failed)?;
        session.reset();
        // What was measured so far is overwritten by the real end of the phase.
        ended(Phase::Prefill, 0.0);
        let begin = Instant::now();
        session.eval(&prompt).map_err(failed)?;
        ended(Phase::Prefill, begin.elapsed().as_secs_f64());
        let mut sampler = Sampler::GREEDY;
        let begin = Instant::now();
        for _ in 0..self.n {
            let token = session.sample(&mut sampler).map_err(failed)?;
            session.eval(&[token]).map_err(failed)?;
        }
        ended(Phase::Decode, begin.elapsed().as_secs_f64());
        let stats = session.head_stats().map_err(failed)?;
        let mean = |rows: u64| rows as f64 / stats.searches.max(1) as f64;
        Ok(HeadRows { low: mean(stats.rows_low), exact: mean(stats.rows_exact) })
    }
}

/// The two kinds of work.
#[derive(Clone, Copy)]
enum Phase {
    Prefill,
    Decode,
}

/// Seconds per token of one kind of work.
#[derive(Clone, Debug, Default)]
pub struct PhaseTimes {
    /// Of each op, by the numbers that op hooks give: those of decode, of the head, and of the search.
    pub ops: Vec<f64>,
    /// Of everything, what happens between ops included.
    pub total: f64,
}

/// Where the time goes.
#[derive(Clone, Debug, Default)]
pub struct OpTimes {
    pub prefill: PhaseTimes,
    /// Head included.
    pub decode: PhaseTimes,
}

/// `n` tokens of a vocabulary: any do, time does not depend on them.
pub fn prompt(n: usize, vocab: usize) -> Vec<u32> {
    // Below the vocabulary, which is below 2^32.
    (0..n).map(|i| (i * 7919 % vocab) as u32).collect()
}

/// Durations of one run.
#[derive(Clone, Copy, Default)]
struct Seconds {
    prefill: f64,
    decode: f64,
    rows: HeadRows,
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
