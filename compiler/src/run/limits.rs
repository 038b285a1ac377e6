//! What this machine can do at most, measured again and again beside the work that is held against it.

use tcc_ir::target::Features;
use tcc_runtime::bandwidth::{Pages, Reading};
use tcc_runtime::micro_loop::Pace;

use super::peak::Peak;
use crate::error::Error;
use crate::target::Target;

/// What a number of threads does together at most.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Bytes per second read, with pages of the usual size and with huge ones.
    pub usual: f64,
    pub huge: f64,
    /// Ternary products per second next to the core.
    pub int8: Option<f64>,
}

impl Limits {
    /// The larger bandwidth, bytes per second.
    pub fn read(self) -> f64 {
        self.usual.max(self.huge)
    }

    /// `self` and `factor` times `other`.
    pub fn plus(self, factor: f64, other: Limits) -> Limits {
        let int8 = other.int8.map(|int8| self.int8.unwrap_or(0.0) + factor * int8);
        Limits { usual: self.usual + factor * other.usual, huge: self.huge + factor * other.huge, int8 }
    }
}

/// Measures the limits of a number of threads.
pub struct Gauge<'t> {
    threads: usize,
    usual: Reading,
    huge: Reading,
    peak: Option<Peak<'t>>,
}

impl<'t> Gauge<'t> {
    /// For `threads` threads, and code that needs no more than `features`.
    pub fn new(target: &'t Target, features: Features, threads: usize) -> Result<Self, Error> {
        let reading = |pages| Reading::new(threads, pages).map_err(Error::io("measured", "memory"));
        let peak = Peak::find(target, features)?;
        Ok(Gauge { threads, usual: reading(Pages::Usual)?, huge: reading(Pages::Huge)?, peak })
    }

    /// The micro-kernel that multiplies fastest.
    pub fn kernel(&self) -> Option<&'static str> {
        self.peak.map(|peak| peak.kernel())
    }

    /// The best of a few short attempts: the machine undisturbed.
    pub fn best(&self) -> Result<Limits, Error> {
        Ok(Limits { usual: self.usual.best(), huge: self.huge.best(), int8: self.int8(Pace::Best)? })
    }

    /// Means over some hundredths of a second: the machine as it is now, with whatever else it does.
    pub fn now(&self) -> Result<Limits, Error> {
        Ok(Limits { usual: self.usual.pass(), huge: self.huge.pass(), int8: self.int8(Pace::Sustained)? })
    }

    fn int8(&self, pace: Pace) -> Result<Option<f64>, Error> {
        self.peak.map(|peak| peak.macs_per_second(self.threads, pace)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_weighted_by_time() {
        let at = |usual: f64, int8| Limits { usual, huge: 2.0 * usual, int8 };
        // Three seconds at one rate, one second at another.
        let sum = Limits::default().plus(3.0, at(10.0, Some(100.0))).plus(1.0, at(2.0, Some(20.0)));
        let mean = Limits::default().plus(0.25, sum);
        assert_eq!((mean.usual, mean.huge, mean.int8), (8.0, 16.0, Some(80.0)));
        assert_eq!(mean.read(), 16.0);
        assert_eq!(Limits::default().plus(1.0, at(1.0, None)).int8, None);
    }
}
