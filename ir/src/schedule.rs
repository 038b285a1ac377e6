//! Choices about one matrix product: which kernels, which tiles.

use std::fmt;

use thiserror::Error;

use crate::target::MicroKernel;

/// A tile at one memory: panels (or rows) of the outer axis processed while resident there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Level {
    /// Name of the memory, as in the target description.
    pub memory: &'static str,
    /// Output rows per tile; a multiple of the panel height for packed matrices.
    pub rows: usize,
}

/// The schedule of a ternary product: the outer axis is split in tiles of `levels[0].rows` output rows, each tile
/// runs all token rows with the widest kernel first.
#[derive(Clone, Debug, PartialEq)]
pub struct MatmulSchedule {
    /// Kernels by descending `mr`, all reading one encoding; the last has `mr` 1.
    pub micro: Vec<&'static MicroKernel>,
    /// Nearest memory first; each level's rows are a multiple of the one before.
    pub levels: Vec<Level>,
}

/// Why a schedule is refused.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("schedule for [{n}, {k}]: {what}")]
pub struct ScheduleError {
    pub n: usize,
    pub k: usize,
    pub what: String,
}

impl MatmulSchedule {
    /// Output rows of one task, the unit that threads claim.
    pub fn task_rows(&self) -> usize {
        self.levels[0].rows
    }

    /// Checks that tiles are whole panels, kernels cover every number of token rows, and accumulators cannot
    /// overflow for a product of `[n, k]`.
    pub fn verify(&self, n: usize, k: usize) -> Result<(), ScheduleError> {
        let fail = |what: String| Err(ScheduleError { n, k, what });
        let (Some(first), Some(last)) = (self.micro.first(), self.micro.last()) else {
            return fail("no kernel".into());
        };
        if last.mr != 1 {
            return fail(format!("the last kernel '{}' takes {} token rows, expected 1", last.name, last.mr));
        }
        for pair in self.micro.windows(2) {
            if pair[0].mr <= pair[1].mr {
                return fail(format!("'{}' does not take more token rows than '{}'", pair[0].name, pair[1].name));
            }
        }
        for row in &self.micro {
            if row.encoding != first.encoding {
                return fail(format!("'{}' reads {}, expected {}", row.name, row.encoding, first.encoding));
            }
            if k > row.max_k {
                return fail(format!("'{}' is exact up to k = {}", row.name, row.max_k));
            }
        }
        let mut unit = first.encoding.nr();
        for level in &self.levels {
            if level.rows == 0 || level.rows % unit != 0 {
                return fail(format!("a tile of {} rows in {} is not a multiple of {unit}", level.rows, level.memory));
            }
            unit = level.rows;
        }
        if self.levels.is_empty() { fail("no tile".into()) } else { Ok(()) }
    }
}

impl fmt::Display for MatmulSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.micro.iter().map(|k| k.name).collect();
        write!(f, "{} {}", self.micro.first().map_or("-".into(), |k| k.encoding.to_string()), names.join("+"))?;
        for level in &self.levels {
            write!(f, " {}:{}", level.memory, level.rows)?;
        }
        Ok(())
    }
}
