//! From an object on disk to its first token on this machine.

use std::path::Path;
use std::time::Instant;

use tcc_runtime::abi::{Sampler, Status};
use tcc_runtime::pool::Pool;
use tcc_runtime::session::Session;

use super::host::HostModel;
use crate::driver::Variant;
use crate::error::Error;

/// Times of one start. Weights are in the system's page cache, not yet in this process.
#[derive(Clone, Copy, Debug)]
pub struct FirstToken {
    /// Seconds until the instance is there: code and weights mapped, `init` done.
    pub load: f64,
    /// Seconds until the token after a prompt of one is known, loading and page faults included.
    pub first: f64,
    /// Seconds that the same work takes in the same instance afterwards.
    pub later: f64,
    /// Page faults until the first token, where the system counts them.
    pub page_faults: Option<u64>,
}

impl FirstToken {
    /// Seconds of the first token beyond those of a later one: loading and page faults.
    pub fn beyond_later(&self) -> f64 {
        (self.first - self.later).max(0.0)
    }
}

/// Starts `runs` instances, at least one, of `variant` in the object without weights at `object` one after the other, on
/// `threads` threads, and returns the start of the median time.
pub fn measure(
    variant: &Variant,
    object: &Path,
    weights: &Path,
    threads: u32,
    runs: usize,
) -> Result<FirstToken, Error> {
    let pool = Pool::new(threads).map_err(Error::io("started", "a thread"))?;
    let mut starts: Vec<FirstToken> =
        (0..runs).map(|_| once(variant, object, weights, &pool)).collect::<Result<_, _>>()?;
    starts.sort_by(|a, b| a.first.total_cmp(&b.first));
    Ok(starts[starts.len() / 2])
}

fn once(variant: &Variant, object: &Path, weights: &Path, pool: &Pool) -> Result<FirstToken, Error> {
    let failed = |status: Status| Error::Status { status };
    let faults_before = page_faults();
    let begin = Instant::now();
    let host = HostModel::open(object, weights)?.with_variant(variant);
    let model = host.module().model();
    let mut arena = host.arena(2)?;
    let hooks = host.hooks(pool.hooks());
    let mut session = Session::new(model, arena.bytes_mut(), Some(&hooks)).map_err(failed)?;
    let load = begin.elapsed().as_secs_f64();
    let mut token = || -> Result<(), Status> {
        session.eval(&[0])?;
        session.sample(&mut Sampler::GREEDY.clone()).map(drop)
    };
    token().map_err(failed)?;
    let first = begin.elapsed().as_secs_f64();
    let page_faults = page_faults().zip(faults_before).map(|(after, before)| after - before);
    let begin = Instant::now();
    token().map_err(failed)?;
    Ok(FirstToken { load, first, later: begin.elapsed().as_secs_f64(), page_faults })
}

/// Page faults of this process so far, small and large, as Linux counts them.
fn page_faults() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Fields are counted behind the name, which ends in the last parenthesis: state, then eight others, then those.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |i: usize| fields.get(i)?.parse::<u64>().ok();
    Some(field(7)? + field(9)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_pages_is_counted() {
        let Some(before) = page_faults() else { return };
        // Large enough that the allocator asks the system; the compiler must not see that nobody reads it.
        std::hint::black_box(vec![1u8; 16 << 20]);
        assert!(page_faults() > Some(before), "{before} before, {:?} after", page_faults());
    }
}
