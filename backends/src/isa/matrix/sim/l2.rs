//! Global memory's shared parts: the rates of DDR (or HBM) and of L2, and which lines L2 holds.
//!
//! A line is held if fewer misses than L2 has lines happened since it was last touched: an approximation of least
//! recently used that needs one number per line.

use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::sim::access::Access;

/// Bytes of a line.
const LINE: u64 = 512;

/// Cycles of a window of [`Pool`].
const WINDOW: f64 = 1024.0;

/// A rate that all cores share, as bytes taken from windows of time: whatever order transfers are asked in, no window
/// gives more than its bytes, and what one core leaves another may take.
#[derive(Clone, Debug)]
struct Pool {
    /// Bytes per cycle.
    rate: f64,
    taken: Vec<f64>,
}

impl Pool {
    /// When `bytes` that are asked for at `start` have come.
    fn take(&mut self, start: f64, bytes: f64) -> f64 {
        let capacity = self.rate * WINDOW;
        // Times are far below 2^53 cycles.
        let mut window = (start / WINDOW) as usize;
        let mut left = bytes;
        loop {
            if window >= self.taken.len() {
                self.taken.resize(window + 1, 0.0);
            }
            let part = left.min(capacity - self.taken[window]).max(0.0);
            self.taken[window] += part;
            left -= part;
            if left <= 0.0 {
                let level = (window as f64 + self.taken[window] / capacity) * WINDOW;
                let is_first = window == (start / WINDOW) as usize;
                let alone = start + bytes / self.rate;
                return if is_first { alone } else { alone.max(level) };
            }
            window += 1;
        }
    }
}

/// Global memory as all cores share it during one stage.
#[derive(Clone, Debug)]
pub(crate) struct GmTiming {
    hbm: Option<Pool>,
    l2: Option<Pool>,
    lines: u64,
}

/// The content of L2.
#[derive(Clone, Debug, Default)]
pub(crate) struct L2 {
    /// Misses before the last touch, plus 1; 0 = never touched.
    touched: Vec<u64>,
    misses: u64,
}

/// Bytes that came from behind L2, and from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub hbm_bytes: u64,
    pub l2_bytes: u64,
}

impl GmTiming {
    pub fn new(machine: &Machine) -> GmTiming {
        let pool = |rate: Option<f64>| rate.map(|rate| Pool { rate, taken: vec![] });
        let lines = machine.gm.l2_bytes.value / LINE;
        let l2 = pool(machine.l2_bytes_per_cycle()).filter(|_| lines > 0);
        GmTiming { hbm: pool(machine.hbm_bytes_per_cycle()), l2, lines }
    }

    /// When the traffic of a transfer that starts at `start` has passed, the core's own path aside.
    pub fn end(&mut self, start: f64, traffic: Traffic) -> f64 {
        // Sizes of one transfer: exact in f64.
        let (hbm, all) = (traffic.hbm_bytes as f64, (traffic.hbm_bytes + traffic.l2_bytes) as f64);
        let take = |pool: &mut Option<Pool>, bytes: f64| pool.as_mut().map_or(start, |p| p.take(start, bytes));
        take(&mut self.hbm, hbm).max(take(&mut self.l2, all))
    }

    /// Where the bytes of `access` come from; they are in L2 afterwards.
    pub fn touch(&self, l2: &mut L2, access: &Access) -> Traffic {
        let mut traffic = Traffic::default();
        access.each_run(|first, last| {
            let bytes = last - first + 1;
            if self.lines == 0 {
                traffic.hbm_bytes += bytes;
                return;
            }
            for line in first / LINE..=last / LINE {
                let part = (last + 1).min((line + 1) * LINE) - first.max(line * LINE);
                if l2.is_hit(line, self.lines) {
                    traffic.l2_bytes += part;
                } else {
                    traffic.hbm_bytes += part;
                }
            }
        });
        traffic
    }
}

impl L2 {
    fn is_hit(&mut self, line: u64, capacity: u64) -> bool {
        // Lines lie within the symbols, which fit the host.
        let index = line as usize;
        if index >= self.touched.len() {
            self.touched.resize(index + 1, 0);
        }
        let last = self.touched[index];
        let is_hit = last > 0 && self.misses - (last - 1) < capacity;
        self.misses += u64::from(!is_hit);
        self.touched[index] = self.misses + 1;
        is_hit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_gives_its_rate_whatever_the_order() {
        let mut pool = Pool { rate: 10.0, taken: vec![] };
        assert_eq!(pool.take(5000.0, 100.0), 5010.0);
        assert_eq!(pool.take(0.0, 100.0), 10.0);
        let last = (0..10).map(|_| pool.take(0.0, 10_240.0)).fold(0.0, f64::max);
        assert!((last - 10.0 * 1024.0).abs() < 100.0, "{last}");
    }

    #[test]
    fn a_line_stays_until_as_many_others_came_as_fit() {
        let mut l2 = L2::default();
        assert!(!l2.is_hit(0, 4));
        assert!((1..4).all(|line| !l2.is_hit(line, 4)));
        assert!(l2.is_hit(0, 4));
        assert!((4..8).all(|line| !l2.is_hit(line, 4)));
        assert!(!l2.is_hit(0, 4));
    }
}
