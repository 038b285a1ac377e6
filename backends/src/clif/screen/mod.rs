//! The kernels of a screened head (`tcc_ir::screen`): the query, then the three levels of the search.

pub(super) mod codes;
pub(super) mod high;
mod levels;
mod low;
mod query;

use cranelift_codegen::ir::Value;
use cranelift_codegen::ir::types::F32;
use tcc_ir::screen::kernel::{ScreenKernel, TASK_ROWS};
use tcc_ir::screen::query::QueryLayout;
use tcc_ir::screen::{BOUNDS, PANEL_ROWS, ScreenLayout};

use super::func::FunctionCx;
use super::isa::ClifContext;
use super::kernel::Kernel;
use super::lanes::{Lanes, Shape};

pub(super) fn build(f: &mut FunctionCx, cx: &ClifContext, kernel: &Kernel, layout: &ScreenLayout, step: ScreenKernel) {
    match step {
        ScreenKernel::Query => query::build(f, kernel, layout),
        ScreenKernel::High => high::build(f, kernel, layout, cx.screen().map(|code| code.panels.name.as_str())),
        ScreenKernel::Low => {
            levels::build_low(f, kernel, layout, cx.screen().map(|code| code.rows.name.as_str()));
        }
        ScreenKernel::Exact { weight } => {
            let dot = cx.dense_dot(weight).map(|code| code.name.as_str());
            levels::build_exact(f, kernel, layout, weight, dot);
        }
    }
}

/// Panels of `task`.
fn task_panels(f: &mut FunctionCx, task: Value, layout: &ScreenLayout) -> (Value, Value) {
    super::epilogue::task_range(f, task, TASK_ROWS / PANEL_ROWS, layout.panels())
}

/// Which of a row's planes an error bound is about: its place among the stored bounds.
#[derive(Clone, Copy)]
enum Planes {
    High = 0,
    Both = 1,
}

/// Place of the norm among the stored bounds.
const NORM: usize = 2;

/// What bounds of intervals are made from, the same for all rows of a query.
#[derive(Clone, Copy)]
struct Bounder {
    /// Address of the bounds of the first panel.
    bounds: Value,
    norm: Value,
    slack: Value,
    underflow: f32,
}

impl Bounder {
    fn new(f: &mut FunctionCx, layout: &ScreenLayout, query: Value, screen: Value) -> Bounder {
        let bounds = f.offset(screen, layout.bounds_offset());
        let norm = f.load(F32, query, QueryLayout::NORM);
        let slack = f.load(F32, query, QueryLayout::SLACK);
        Bounder { bounds, norm, slack, underflow: layout.underflow() }
    }

    /// `search::bound` of lanes of panel `panel` from `lane` on.
    fn bound(&self, f: &mut FunctionCx, shape: Shape, panel: Value, lane: Value, planes: Planes) -> Lanes {
        let base = f.index(self.bounds, panel, BOUNDS * PANEL_ROWS * 4);
        let base = f.index(base, lane, 4);
        let stored = |f: &mut FunctionCx, i: usize| {
            let at = f.offset(base, i * PANEL_ROWS * 4);
            Lanes::load_fixed(f, shape, at)
        };
        let (error, norm) = (stored(f, planes as usize), stored(f, NORM));
        let (row_norm, slack) = (Lanes::splat(f, shape, self.norm), Lanes::splat(f, shape, self.slack));
        let underflow = Lanes::constant(f, shape, self.underflow);
        let rest = norm.fma(f, &slack, &underflow);
        error.fma(f, &row_norm, &rest)
    }
}

/// The upper end of an interval from its lower one.
fn upper(f: &mut FunctionCx, low: &Lanes, bound: &Lanes) -> Lanes {
    let two = Lanes::constant(f, bound.shape(), 2.0);
    let width = bound.mul(f, &two);
    low.add(f, &width)
}
