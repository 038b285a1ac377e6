//! `ScreenKernel::Low` and `ScreenKernel::Exact`: the rows that may still be among the best get narrower intervals,
//! then their logits; all others are out.

use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::types::{F32, I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::screen::query::QueryLayout;
use tcc_ir::screen::{PANEL_ROWS, ScreenLayout};
use tcc_ir::ty::DType;

use super::super::dense;
use super::super::func::{FunctionCx, signature};
use super::super::kernel::Kernel;
use super::super::lanes::{Lanes, Shape};
use super::{Bounder, Planes, low, task_panels, upper};

/// What a level reads and writes.
struct Level<'a> {
    layout: &'a ScreenLayout,
    bounder: Bounder,
    /// Which planes the intervals so far come from.
    planes: Planes,
    threshold: Value,
    lows: Value,
    maxima: Value,
}

/// One row that stays: its number, panel and lane, the lower end of its interval and the bound that made it.
struct Row {
    row: Value,
    panel: Value,
    lane: Value,
    low: Value,
    bound: Value,
}

pub(super) fn build_low(f: &mut FunctionCx, kernel: &Kernel, layout: &ScreenLayout, assembled: Option<&str>) {
    let [query, screen, lows, maxima, counts] = [0, 1, 2, 3, 4].map(|i| kernel.operand(f, i));
    let bounder = Bounder::new(f, layout, query, screen);
    let threshold = f.load(F32, query, QueryLayout::THRESHOLD);
    let level = Level { layout, bounder, planes: Planes::High, threshold, lows, maxima };
    let records = f.offset(screen, layout.records_offset());
    let codes = f.offset(query, QueryLayout::new(layout).lane_codes());
    let refine = |f: &mut FunctionCx, row: &Row| {
        let record = f.index(records, row.row, layout.record_bytes());
        let more = match assembled {
            Some(symbol) => {
                let pieces = f.size(layout.pieces());
                f.call(symbol, &signature(&[I64, I64, I64], &[F32]), &[record, codes, pieces])[0]
            }
            None => low::refinement(f, layout, codes, record),
        };
        let middle = f.ins().fadd(row.low, row.bound);
        let estimate = f.ins().fadd(middle, more);
        let bound = bounder.bound(f, Shape::ONE, row.panel, row.lane, Planes::Both).values()[0];
        f.ins().fsub(estimate, bound)
    };
    let count = |f: &mut FunctionCx, panel: Value, count: Value| {
        let at = f.index(counts, panel, 4);
        f.store(count, at, 0);
    };
    level.run(f, kernel, refine, count);
}

pub(super) fn build_exact(
    f: &mut FunctionCx,
    kernel: &Kernel,
    layout: &ScreenLayout,
    weight: DType,
    assembled: Option<&str>,
) {
    let [x, w, query, screen, lows, maxima, counts] = [0, 1, 2, 3, 4, 5, 6].map(|i| kernel.operand(f, i));
    let bounder = Bounder::new(f, layout, query, screen);
    let threshold = f.load(F32, query, QueryLayout::THRESHOLD);
    let level = Level { layout, bounder, planes: Planes::Both, threshold, lows, maxima };
    let sum = f.stack(4);
    let logit = |f: &mut FunctionCx, row: &Row| {
        let w = f.index(w, row.row, layout.k * weight.size_bytes().expect("type rules admit floats"));
        match assembled {
            Some(symbol) => {
                let (k, one) = (f.size(layout.k), f.i64(1));
                f.call(symbol, &signature(&[I64; 5], &[]), &[x, w, k, one, sum]);
                f.load(F32, sum, 0)
            }
            None => dense::dot(f, layout.k, weight, x, w),
        }
    };
    let count = |f: &mut FunctionCx, panel: Value, count: Value| {
        let at = f.index(counts, panel, 4);
        let before = f.load(I32, at, 0);
        let high = f.ins().ishl_imm_u(count, 8);
        let both = f.ins().bor(before, high);
        f.store(both, at, 0);
    };
    level.run(f, kernel, logit, count);
}

impl Level<'_> {
    /// Replaces the lower end of each row that stays by what `next` gives, drops the others, and gives `count` the
    /// number of rows of each panel that stayed.
    fn run(
        &self,
        f: &mut FunctionCx,
        kernel: &Kernel,
        next: impl Fn(&mut FunctionCx, &Row) -> Value,
        count: impl Fn(&mut FunctionCx, Value, Value),
    ) {
        f.for_range(kernel.begin, kernel.end, 1, |f, task| {
            let (first, end) = task_panels(f, task, self.layout);
            f.for_range(first, end, 1, |f, panel| {
                let (zero, none) = (f.i64(0), f.i32(0));
                let out = f.f32(f32::NEG_INFINITY);
                let shape = Shape::block(f);
                let lows = f.index(self.lows, panel, 4 * PANEL_ROWS);
                let low = Lanes::load(f, shape, lows);
                let bound = self.bounder.bound(f, shape, panel, zero, self.planes);
                let highest = upper(f, &low, &bound).largest(f);
                let stays = f.ins().fcmp(FloatCC::GreaterThanOrEqual, highest, self.threshold);
                let found = f.if_else(
                    stays,
                    |f| self.rows(f, panel, lows, &next),
                    |f| {
                        Lanes::splat(f, shape, out).store(f, lows);
                        vec![out, none]
                    },
                );
                let at = f.index(self.maxima, panel, 4);
                f.store(found[0], at, 0);
                count(f, panel, found[1]);
            });
        });
    }

    /// The rows of one panel, one by one: the largest new lower end, and how many stayed.
    fn rows(
        &self,
        f: &mut FunctionCx,
        panel: Value,
        lows: Value,
        next: impl Fn(&mut FunctionCx, &Row) -> Value,
    ) -> Vec<Value> {
        let (zero, rows, none) = (f.i64(0), f.size(PANEL_ROWS), f.i32(0));
        let out = f.f32(f32::NEG_INFINITY);
        f.for_carried(zero, rows, 1, &[out, none], |f, lane, carried| {
            let at = f.index(lows, lane, 4);
            let low = f.load(F32, at, 0);
            let bound = self.bounder.bound(f, Shape::ONE, panel, lane, self.planes);
            let lower = Lanes::splat(f, Shape::ONE, low);
            let high = upper(f, &lower, &bound).values()[0];
            let may_win = f.ins().fcmp(FloatCC::GreaterThanOrEqual, high, self.threshold);
            let is_in = f.ins().fcmp(FloatCC::GreaterThan, low, out);
            let stays = f.ins().band(may_win, is_in);
            let bound = bound.values()[0];
            let new = f.if_else(
                stays,
                |f| {
                    let first = f.scaled(panel, PANEL_ROWS);
                    let row = f.ins().iadd(first, lane);
                    vec![next(f, &Row { row, panel, lane, low, bound })]
                },
                |_| vec![out],
            )[0];
            f.store(new, at, 0);
            let larger = f.ins().fcmp(FloatCC::GreaterThan, new, carried[0]);
            let largest = f.ins().select(larger, new, carried[0]);
            let one = f.ins().uextend(I32, stays);
            vec![largest, f.ins().iadd(carried[1], one)]
        })
    }
}
