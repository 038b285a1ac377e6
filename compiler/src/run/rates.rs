//! How fast compiled code runs on this machine, and what it moves through memory meanwhile.

use std::time::{Duration, Instant};

use tcc_ir::plan::Plan;
use tcc_runtime::abi::{Sampler, Status};
use tcc_runtime::op_clock::OpClock;
use tcc_runtime::pool::Pool;
use tcc_runtime::session::{HookSet, Session};

use super::host::HostModel;
use super::limits::Gauge;
use super::ops::{self, HeadRows, Point};
use super::stolen::Stolen;
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
    /// What bounds it, as a mean over the time of the work: ternary products per second of a prompt, bytes read per second
    /// of decode. `None` where nothing measures it.
    pub limit: Option<f64>,
    /// The share of processor time that the host of a virtual machine gave to others meanwhile; `None` where nobody says.
    pub stolen: Option<f64>,
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
        let mut arena = host.arena(self.prompt + self.n)?;
        let mut session = Session::new(model, arena.bytes_mut(), Some(hooks)).map_err(failed)?;
        let prompt = prompt(self.prompt, info.vocab as usize);
        // What measuring limits reads leaves the caches cold. What is done before the time runs warms them, and touches
        // weights and arena, so that no phase pays for page faults.
        let mut watch = Watch::start(|| gauge.map_or(Ok(None), Gauge::products))?;
        session.eval(&prompt[..1]).map_err(failed)?;
        session.logits().map_err(failed)?;
        session.reset();
        spent();
        // A prompt is worked off in such pieces anyway.
        for piece in prompt.chunks(info.prefill.max(1) as usize) {
            watch.piece(|| session.eval(piece).map_err(failed))?;
        }
        let prefill = watch.end(self.prompt, spent())?;
        let mut sampler = Sampler::GREEDY;
        let mut watch = Watch::start(|| Ok(gauge.map(Gauge::reads)))?;
        session.sample(&mut sampler).map_err(failed)?;
        session.rewind(self.prompt as u32 - 1).map_err(failed)?;
        session.eval(&prompt[self.prompt - 1..]).map_err(failed)?;
        spent();
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

/// Times pieces of work, and measures what bounds it between them.
struct Watch<F> {
    /// Rate of the bound as it is now.
    limit: F,
    /// The rate when it was last measured, and seconds of work since.
    before: Option<f64>,
    since: f64,
    seconds: f64,
    /// What the bound would have allowed in these seconds.
    possible: Option<f64>,
    stolen: Stolen,
}

impl<F: Fn() -> Result<Option<f64>, Error>> Watch<F> {
    fn start(limit: F) -> Result<Self, Error> {
        let before = limit()?;
        let possible = before.map(|_| 0.0);
        Ok(Watch { limit, before, since: 0.0, seconds: 0.0, possible, stolen: Stolen::now() })
    }

    fn piece(&mut self, work: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let begin = Instant::now();
        work()?;
        self.worked(begin.elapsed().as_secs_f64())
    }

    fn worked(&mut self, seconds: f64) -> Result<(), Error> {
        self.since += seconds;
        if self.since < PIECE_SECONDS { Ok(()) } else { self.measure() }
    }

    /// Counts the work since the last measurement at the mean of the rates before and after it.
    fn measure(&mut self) -> Result<(), Error> {
        let after = (self.limit)()?;
        let mean = self.before.zip(after).map(|(before, after)| 0.5 * (before + after));
        self.possible = self.possible.zip(mean).map(|(possible, mean)| possible + mean * self.since);
        self.before = after;
        self.seconds += std::mem::take(&mut self.since);
        Ok(())
    }

    /// Times of a token, of `tokens` that were worked off; `ops` are the seconds of each op.
    fn end(mut self, tokens: usize, ops: Vec<f64>) -> Result<PhaseTimes, Error> {
        if self.since > 0.0 {
            self.measure()?;
        }
        let per_token = |seconds: f64| seconds / tokens as f64;
        Ok(PhaseTimes {
            total: per_token(self.seconds),
            ops: ops.into_iter().map(per_token).collect(),
            limit: self.possible.map(|possible| possible / self.seconds),
            stolen: self.stolen.share_since(),
        })
    }
}

/// `n` tokens of a vocabulary: any do, time does not depend on them.
pub fn prompt(n: usize, vocab: usize) -> Vec<u32> {
    // Below the vocabulary, which is below 2^32.
    (0..n).map(|i| (i * 7919 % vocab) as u32).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn limits_are_weighted_by_the_time_between_them() {
        let limits = RefCell::new(vec![40.0, 20.0, 10.0]);
        let mut watch = Watch::start(|| Ok(limits.borrow_mut().pop())).expect("measured");
        // Too little work to measure after; then enough.
        watch.worked(0.1).expect("measured");
        assert_eq!(limits.borrow().len(), 2);
        watch.worked(0.2).expect("measured");
        assert_eq!(limits.borrow().len(), 1);
        watch.worked(0.1).expect("measured");
        let times = watch.end(2, vec![0.1]).expect("measured");
        assert!((times.total - 0.2).abs() < 1e-12 && times.ops == [0.05]);
        // 0.3 s at 15, 0.1 s at 30.
        assert!((times.limit.expect("a limit") - 18.75).abs() < 1e-9);
        assert!(limits.borrow().is_empty());
    }

    #[test]
    fn work_that_ends_with_a_measurement_measures_no_more() {
        let limits = RefCell::new(vec![20.0, 10.0]);
        let mut watch = Watch::start(|| Ok(limits.borrow_mut().pop())).expect("measured");
        watch.worked(1.0).expect("measured");
        assert_eq!(watch.end(1, Vec::new()).expect("measured").limit, Some(15.0));
        let watch = Watch::start(|| Ok(None)).expect("nothing to measure");
        assert_eq!(watch.end(1, Vec::new()).expect("nothing to measure").limit, None);
    }
}
