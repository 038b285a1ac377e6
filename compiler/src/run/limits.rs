//! What this machine can do at most, measured again and again beside the work that is held against it.

use tcc_ir::target::Features;
use tcc_runtime::bandwidth::{Pages, Reading};
use tcc_runtime::micro_loop::Pace;

use super::peak::Peak;
use crate::error::Error;
use crate::target::Target;

/// What a number of threads does together at most, the machine undisturbed: the best of a few short attempts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes per second read, with pages of the usual size and with huge ones.
    pub usual: f64,
    pub huge: f64,
    /// Ternary products per second next to the core, and the micro-kernel that multiplies so fast.
    pub int8: Option<(f64, &'static str)>,
}

/// Measures the limits of a number of threads as the machine is now, with whatever else it does: means over some
/// hundredths of a second.
pub struct Gauge<'t> {
    threads: usize,
    /// The kind of pages that was read faster.
    reading: Reading,
    peak: Option<Peak<'t>>,
}

impl<'t> Gauge<'t> {
    /// For `threads` threads, and code that needs no more than `features`; and the limits at their best.
    pub fn new(target: &'t Target, features: Features, threads: usize) -> Result<(Self, Limits), Error> {
        let reading = |pages| Reading::new(threads, pages).map_err(Error::io("measured", "memory"));
        // One after the other: each takes half a gigabyte.
        let usual = reading(Pages::Usual)?.best();
        let in_huge = reading(Pages::Huge)?;
        let huge = in_huge.best();
        let reading = if huge > usual {
            in_huge
        } else {
            drop(in_huge);
            reading(Pages::Usual)?
        };
        let gauge = Gauge { threads, reading, peak: Peak::find(target, features)? };
        let int8 = match gauge.peak {
            Some(peak) => Some((peak.macs_per_second(threads, Pace::Best)?, peak.kernel())),
            None => None,
        };
        Ok((gauge, Limits { usual, huge, int8 }))
    }

    /// Bytes per second read.
    pub fn reads(&self) -> f64 {
        self.reading.sustained()
    }

    /// Ternary products per second; `None` for targets without assembled micro-kernels.
    pub fn products(&self) -> Result<Option<f64>, Error> {
        self.peak.map(|peak| peak.macs_per_second(self.threads, Pace::Sustained)).transpose()
    }
}
