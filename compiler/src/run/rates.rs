//! How fast compiled code runs on this machine, and what it moves through memory meanwhile.

use std::time::{Duration, Instant};

use tcc_ir::plan::Plan;
use tcc_runtime::abi::{Sampler, Status};
use tcc_runtime::arena::Arena;
use tcc_runtime::op_clock::OpClock;
use tcc_runtime::pool::Pool;
use tcc_runtime::session::{HookSet, Session};

use super::host::HostModel;
use super::limits::{Gauge, Limits};
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

/// Seconds per token of one kind of work, and the limits of the machine meanwhile.
#[derive(Clone, Debug, Default)]
pub struct PhaseTimes {
    /// Of everything, what happens between ops included.
    pub total: f64,
    /// Of each op, by the numbers that op hooks give, those of decode, of the head, and of the search; empty without
    /// op hooks.
    pub ops: Vec<f64>,
    /// Means over the time of the work; zeros where nothing measures them.
    pub limits: Limits,
}

impl PhaseTimes {
    pub fn tokens_per_second(&self) -> f64 {
        1.0 / self.total
    }
}

/// Where the time goes.
#[derive(Clone, Debug, Default)]
pub struct Times {
    pub prefill: PhaseTimes,
    /// Head included.
    pub decode: PhaseTimes,
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

    /// Times of `host` on `threads` threads, each phase in the run whose time is the median; `gauge` measures limits
    /// between pieces of the work.
    pub fn times(&self, host: &HostModel, threads: u32, gauge: Option<&Gauge<'_>>) -> Result<Times, Error> {
        let pool = Pool::new(threads).map_err(Error::io("started", "a thread"))?;
        self.median(|| self.perform(host, &host.hooks(pool.hooks()), gauge, Vec::new))
    }

    /// The same with the seconds of each op; `host` calls the op hooks.
    pub fn op_times(&self, host: &HostModel, threads: u32, gauge: Option<&Gauge<'_>>) -> Result<Times, Error> {
        let pool = Pool::new(threads).map_err(Error::io("started", "a thread"))?;
        let clock = OpClock::new(host.module().model().info().op_count, host.hooks(pool.hooks()));
        let spent = || clock.take().iter().map(Duration::as_secs_f64).collect();
        self.median(|| self.perform(host, &clock.hooks(), gauge, spent))
    }

    fn median(&self, run: impl Fn() -> Result<Times, Error>) -> Result<Times, Error> {
        let mut runs = (0..self.runs).map(|_| run()).collect::<Result<Vec<_>, _>>()?;
        // One whole run: medians of its parts would not add up to the median of the whole.
        let middle = |of: fn(&Times) -> &PhaseTimes| {
            runs.sort_by(|a, b| of(a).total.total_cmp(&of(b).total));
            of(&runs[runs.len() / 2]).clone()
        };
        let [prefill, decode] = [(|run| &run.prefill) as fn(&Times) -> &PhaseTimes, |run| &run.decode].map(middle);
        Ok(Times { prefill, decode, rows: runs[0].rows })
    }

    /// Does the work once in a session of its own. `spent` says the seconds of each op since it was last asked.
    fn perform(
        &self,
        host: &HostModel,
        hooks: &HookSet<'_>,
        gauge: Option<&Gauge<'_>>,
        spent: impl Fn() -> Vec<f64>,
    ) -> Result<Times, Error> {
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
        spent();
        let mut watch = Watch::start(gauge)?;
        // A prompt is worked off in such pieces anyway.
        for piece in prompt.chunks(info.prefill.max(1) as usize) {
            watch.piece(|| session.eval(piece).map_err(failed))?;
        }
        let prefill = watch.end(self.prompt, spent())?;
        let mut sampler = Sampler::GREEDY;
        let mut watch = Watch::start(gauge)?;
        for _ in 0..self.n {
            watch.piece(|| {
                let token = session.sample(&mut sampler).map_err(failed)?;
                session.eval(&[token]).map_err(failed)
            })?;
        }
        let decode = watch.end(self.n, spent())?;
        let stats = session.head_stats().map_err(failed)?;
        let mean = |rows: u64| rows as f64 / stats.searches.max(1) as f64;
        Ok(Times { prefill, decode, rows: HeadRows { low: mean(stats.rows_low), exact: mean(stats.rows_exact) } })
    }
}

/// Work between two measurements of the limits, seconds: neighbors of a virtual machine come and go in less than that,
/// but measuring takes half as long.
const PIECE_SECONDS: f64 = 0.25;

/// Times pieces of work, and the limits of the machine between them.
struct Watch<'g> {
    gauge: Option<&'g Gauge<'g>>,
    /// Limits when they were last measured, and seconds of work since.
    before: Limits,
    since: f64,
    seconds: f64,
    /// What the limits would have allowed in these seconds.
    possible: Limits,
}

impl<'g> Watch<'g> {
    fn start(gauge: Option<&'g Gauge<'g>>) -> Result<Self, Error> {
        let mut watch =
            Watch { gauge, before: Limits::default(), since: 0.0, seconds: 0.0, possible: Limits::default() };
        watch.before = watch.limits()?;
        Ok(watch)
    }

    fn limits(&self) -> Result<Limits, Error> {
        self.gauge.map_or(Ok(Limits::default()), Gauge::now)
    }

    fn piece(&mut self, work: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let begin = Instant::now();
        work()?;
        self.since += begin.elapsed().as_secs_f64();
        if self.since < PIECE_SECONDS { Ok(()) } else { self.measure() }
    }

    /// Counts the work since the last measurement at the mean of the limits before and after it.
    fn measure(&mut self) -> Result<(), Error> {
        let after = self.limits()?;
        self.possible = self.possible.plus(0.5 * self.since, self.before).plus(0.5 * self.since, after);
        self.before = after;
        self.seconds += std::mem::take(&mut self.since);
        Ok(())
    }

    /// Times of a token, of `tokens` that were worked off; `ops` are the seconds of each op.
    fn end(mut self, tokens: usize, ops: Vec<f64>) -> Result<PhaseTimes, Error> {
        self.measure()?;
        let per_token = |seconds: f64| seconds / tokens as f64;
        Ok(PhaseTimes {
            total: per_token(self.seconds),
            ops: ops.into_iter().map(per_token).collect(),
            limits: Limits::default().plus(1.0 / self.seconds, self.possible),
        })
    }
}

/// `n` tokens of a vocabulary: any do, time does not depend on them.
pub fn prompt(n: usize, vocab: usize) -> Vec<u32> {
    // Below the vocabulary, which is below 2^32.
    (0..n).map(|i| (i * 7919 % vocab) as u32).collect()
}
