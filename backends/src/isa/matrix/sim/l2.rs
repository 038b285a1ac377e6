//! Global memory's shared parts: the rates of DDR (or HBM) and of L2, and which lines L2 holds.
//!
//! A line is held if fewer misses than L2 has lines happened since it was last touched: an approximation of least
//! recently used that needs one number per line. What is read comes with its whole line. What is written needs nothing
//! of the line, and goes behind L2 once.

use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::{Program, SymbolKind};
use crate::isa::matrix::sim::access::Access;

/// Bytes of a line.
const LINE: u64 = 512;

/// Bytes of a sector, of which each has a bit in [`Line::held`].
const SECTOR: u64 = LINE / 16;

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
    lines: Vec<Line>,
    misses: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// Misses before the last touch, plus 1; 0 = never touched.
    touched: u64,
    /// Sectors, from the low bit.
    held: u16,
}

/// Bytes that pass between L2 and what is behind it, and between cores and L2; without L2 all are the former.
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
        let (hbm, asked) = (traffic.hbm_bytes as f64, traffic.l2_bytes as f64);
        let take = |pool: &mut Option<Pool>, bytes: f64| pool.as_mut().map_or(start, |p| p.take(start, bytes));
        take(&mut self.hbm, hbm).max(take(&mut self.l2, asked))
    }

    /// What `access` moves; its lines are in L2 afterwards.
    pub fn touch(&self, l2: &mut L2, access: &Access) -> Traffic {
        let mut traffic = Traffic::default();
        access.each_run(|first, last| {
            let bytes = last - first + 1;
            if self.lines == 0 {
                traffic.hbm_bytes += bytes;
                return;
            }
            traffic.l2_bytes += bytes;
            for line in first / LINE..=last / LINE {
                let sector = |at: u64| at % LINE / SECTOR;
                let (low, high) = (sector(first.max(line * LINE)), sector(last.min(line * LINE + LINE - 1)));
                let part = u16::MAX << low & u16::MAX >> (15 - high);
                traffic.hbm_bytes += l2.bring(line, part, access.is_write, self.lines);
            }
        });
        traffic
    }
}

impl L2 {
    /// Holds what of the symbols beside weights fits, in the order of addresses.
    pub fn warm(&mut self, program: &Program, machine: &Machine) {
        for symbol in program.symbols.iter().filter(|symbol| symbol.kind != SymbolKind::Weights) {
            for line in symbol.address / LINE..(symbol.address + symbol.bytes).div_ceil(LINE) {
                self.bring(line, u16::MAX, true, machine.gm.l2_bytes.value / LINE);
            }
        }
    }

    /// Bytes that pass behind L2 when a part of a line is read or written; it is held afterwards.
    fn bring(&mut self, line: u64, part: u16, is_write: bool, capacity: u64) -> u64 {
        // Lines lie within the symbols, which fit the host.
        let index = line as usize;
        if index >= self.lines.len() {
            self.lines.resize(index + 1, Line::default());
        }
        let line = &mut self.lines[index];
        if line.touched == 0 || self.misses - (line.touched - 1) >= capacity {
            self.misses += 1;
            line.held = 0;
        }
        line.touched = self.misses + 1;
        let is_whole = !is_write && part & !line.held != 0;
        let new = if is_whole { !line.held } else { part & !line.held };
        line.held |= new;
        u64::from(new.count_ones()) * SECTOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::matrix::machine::preset::preset;
    use crate::isa::matrix::program::addr::Space;

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
        let mut is_hit = |line| l2.bring(line, 1, false, 4) == 0;
        assert!(!is_hit(0));
        assert!((1..4).all(|line| !is_hit(line)));
        assert!(is_hit(0));
        assert!((4..8).all(|line| !is_hit(line)));
        assert!(!is_hit(0));
    }

    /// Four rows of 256 bytes every 512, from `start` on.
    fn halves(start: i64, is_write: bool) -> Access {
        let (bytes, inner_count, inner) = (256, 4, 512);
        Access { space: Space::Gm, is_write, start, bytes, last: bytes, inner_count, inner, outer_count: 1, outer: 0 }
    }

    #[test]
    fn a_read_brings_whole_lines_once_and_a_write_moves_its_bytes() {
        let mut machine = preset("ascend910b").expect("a preset").expect("it parses");
        let gm = GmTiming::new(&machine);
        // What is done to both halves of four lines, and bytes behind L2.
        let [read, write] = [false, true];
        let cases = [
            ([read, read], [2048, 0]),
            ([write, write], [1024, 1024]),
            ([read, write], [2048, 0]),
            ([write, read], [1024; 2]),
        ];
        for (is_write, hbm) in cases {
            let mut l2 = L2::default();
            for (half, start) in [0, 256].into_iter().enumerate() {
                let traffic = gm.touch(&mut l2, &halves(start, is_write[half]));
                assert_eq!(traffic, Traffic { hbm_bytes: hbm[half], l2_bytes: 1024 }, "{is_write:?} {half}");
            }
        }
        // One byte on either side of a line's end.
        let ends = Access { bytes: 2, last: 2, inner_count: 1, ..halves(511, read) };
        assert_eq!(gm.touch(&mut L2::default(), &ends), Traffic { hbm_bytes: 1024, l2_bytes: 2 });
        machine.gm.l2_bytes.value = 0;
        let alone = GmTiming::new(&machine).touch(&mut L2::default(), &halves(0, read));
        assert_eq!(alone, Traffic { hbm_bytes: 1024, l2_bytes: 0 });
    }
}
