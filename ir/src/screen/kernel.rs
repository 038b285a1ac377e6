//! The kernels of a screen as plans name them: the operands of each, and its tasks.

use super::query::QueryLayout;
use super::{PANEL_ROWS, ScreenLayout};
use crate::ty::DType;

/// Rows of one task: whole panels, enough work to share.
pub const TASK_ROWS: usize = 16 * PANEL_ROWS;

/// One step of a search. `lows` are the lower ends of intervals, `f32[n]` up to whole panels, -∞ where a row is out;
/// `maxima: f32[panels]` are the largest of each panel; `counts: u32[panels]` are the rows of each panel whose low
/// bits were read, plus 256 times those whose weights were read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScreenKernel {
    /// x, query. One task.
    Query,
    /// query, screen, lows, maxima. Tasks: `TASK_ROWS` rows, here and below.
    High,
    /// query, screen, lows, maxima, counts.
    Low,
    /// x, w `weight[n, k]`, query, screen, lows, maxima, counts; lows become logits.
    Exact { weight: DType },
}

impl ScreenKernel {
    pub fn operands(self) -> usize {
        match self {
            ScreenKernel::Query => 2,
            ScreenKernel::High => 4,
            ScreenKernel::Low => 5,
            ScreenKernel::Exact { .. } => 7,
        }
    }

    pub fn tasks(self, layout: &ScreenLayout) -> usize {
        match self {
            ScreenKernel::Query => 1,
            ScreenKernel::High | ScreenKernel::Low | ScreenKernel::Exact { .. } => layout.n.div_ceil(TASK_ROWS),
        }
    }

    /// Private scratch of one task, bytes: see [`LevelScratch`].
    pub fn scratch_bytes(self) -> usize {
        match self {
            ScreenKernel::Query | ScreenKernel::High => 0,
            ScreenKernel::Low | ScreenKernel::Exact { .. } => LevelScratch::BYTES,
        }
    }

    pub fn family(self) -> &'static str {
        match self {
            ScreenKernel::Query => "screen_query",
            ScreenKernel::High => "screen_high",
            ScreenKernel::Low => "screen_low",
            ScreenKernel::Exact { .. } => "screen_exact",
        }
    }
}

/// What a task of a level keeps: the rows that go on (u32, counted from the task's first), then what the level found
/// for each row of the task (f32).
pub struct LevelScratch;

impl LevelScratch {
    pub const FOUND_OFFSET: usize = 4 * TASK_ROWS;
    pub const BYTES: usize = 2 * Self::FOUND_OFFSET;
}

/// Bytes of the buffer of a search: the query, then `maxima`, then `counts`, each aligned to 64.
#[derive(Clone, Copy, Debug)]
pub struct SearchBuffers {
    pub maxima_offset: usize,
    pub counts_offset: usize,
    pub bytes: usize,
}

impl SearchBuffers {
    pub fn new(layout: &ScreenLayout) -> SearchBuffers {
        let align = |bytes: usize| bytes.next_multiple_of(64);
        let maxima_offset = align(QueryLayout::new(layout).bytes());
        let counts_offset = maxima_offset + align(4 * layout.panels());
        SearchBuffers { maxima_offset, counts_offset, bytes: counts_offset + align(4 * layout.panels()) }
    }
}
