//! Timing of emitted functions: the best of many short runs, so that some are not interrupted.

use std::time::Instant;

use tcc::run::tune::clock_hertz;

use crate::runner::{Process, RunError};

/// Shortest time of one measurement, seconds, and how many are made.
const SECONDS: f64 = 0.002;
pub const TRIES: usize = 400;

/// Seconds of one call of `name`, which [`Process::load`] has prepared.
pub fn best_seconds(process: &mut Process, name: &str, args: &[u64]) -> Result<f64, RunError> {
    let mut times = 1;
    let mut best = f64::INFINITY;
    let mut tries = 0;
    while tries < TRIES {
        let begin = Instant::now();
        process.repeat(name, args, times)?;
        let seconds = begin.elapsed().as_secs_f64();
        if seconds < SECONDS {
            times *= 2;
        } else {
            best = best.min(seconds / times as f64);
            tries += 1;
        }
    }
    Ok(best)
}

/// Times that [`sweep_seconds`] makes every call.
const SWEEPS: usize = 20;

/// Seconds of one call of `name` with each of `calls` by turns, which is how calls read memory that no cache holds: the
/// tenth percentile, as the best would be of memory that was near by chance. A call's way to the process and back is
/// part of it, some microseconds.
pub fn sweep_seconds(process: &mut Process, name: &str, calls: &[[u64; 4]]) -> Result<f64, RunError> {
    let mut all = Vec::new();
    for args in std::iter::repeat_n(calls, SWEEPS).flatten() {
        let begin = Instant::now();
        process.repeat(name, args, 1)?;
        all.push(begin.elapsed().as_secs_f64());
    }
    all.sort_by(f64::total_cmp);
    Ok(all[all.len() / 10])
}

/// Clock of this core, GHz.
pub fn clock_gigahertz() -> f64 {
    clock_hertz() / 1e9
}
