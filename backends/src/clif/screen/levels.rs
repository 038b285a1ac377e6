//! `ScreenKernel::Low` and `ScreenKernel::Exact`: the rows that may still be among the best get narrower intervals,
//! then their logits; all others are out.
//!
//! A task lists the rows that go on, has all of them computed at once, so that their records and weights stream, and
//! then turns what was found into new lower ends.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::screen::kernel::LevelScratch;
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

/// The rows of a task that go on, counted from the task's first row, and where what is found for each row belongs.
struct Rows {
    first: Value,
    list: Value,
    count: Value,
    found: Value,
}

pub(super) fn build_low(f: &mut FunctionCx, kernel: &Kernel, layout: &ScreenLayout, assembled: Option<&str>) {
    let [query, screen, lows, maxima, counts] = [0, 1, 2, 3, 4].map(|i| kernel.operand(f, i));
    let bounder = Bounder::new(f, layout, query, screen);
    let threshold = f.load(F32, query, QueryLayout::THRESHOLD);
    let level = Level { layout, bounder, planes: Planes::High, threshold, lows, maxima };
    let records = f.offset(screen, layout.records_offset());
    let codes = f.offset(query, QueryLayout::new(layout).lane_codes());
    let refine = |f: &mut FunctionCx, rows: &Rows| {
        let records = f.index(records, rows.first, layout.record_bytes());
        match assembled {
            Some(symbol) => {
                let pieces = f.size(layout.pieces());
                let args = [records, codes, pieces, rows.list, rows.count, rows.found];
                f.call(symbol, &signature(&[I64; 6], &[]), &args);
            }
            None => rows.each(f, |f, [row, _]| {
                let record = f.index(records, row, layout.record_bytes());
                low::refinement(f, layout, codes, record)
            }),
        }
    };
    let narrow = |f: &mut FunctionCx, panel: Value, low: &Lanes, found: &Lanes| {
        let zero = f.i64(0);
        let before = bounder.bound(f, low.shape(), panel, zero, Planes::High);
        let after = bounder.bound(f, low.shape(), panel, zero, Planes::Both);
        low.add(f, &before).add(f, found).sub(f, &after)
    };
    let count = |f: &mut FunctionCx, panel: Value, count: Value| {
        let at = f.index(counts, panel, 4);
        f.store(count, at, 0);
    };
    level.run(f, kernel, count, refine, narrow);
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
    let (sum, nonfinite) = (f.stack(4), kernel.nonfinite(f));
    let row_bytes = layout.k * weight.size_bytes().expect("type rules admit floats");
    let logits = |f: &mut FunctionCx, rows: &Rows| {
        let w = f.index(w, rows.first, row_bytes);
        rows.each(f, |f, rows| {
            let [w, later] = rows.map(|row| f.index(w, row, row_bytes));
            let logit = match assembled {
                Some(symbol) => {
                    let (k, one) = (f.size(layout.k), f.i64(1));
                    dense::call_dot(f, symbol, &[x, w, k, one, sum, later]);
                    f.load(F32, sum, 0)
                }
                None => dense::dot(f, layout.k, weight, x, w),
            };
            flag_unless_finite(f, logit, nonfinite);
            logit
        });
    };
    let count = |f: &mut FunctionCx, panel: Value, count: Value| {
        let at = f.index(counts, panel, 4);
        let before = f.load(I32, at, 0);
        let high = f.ins().ishl_imm_u(count, 8);
        let both = f.ins().bor(before, high);
        f.store(both, at, 0);
    };
    level.run(f, kernel, count, logits, |_, _, _, found| found.clone());
}

/// A screen that is the head's own bounds every logit; one beside other weights does not.
fn flag_unless_finite(f: &mut FunctionCx, logit: Value, nonfinite: Value) {
    let (size, infinite) = (f.ins().fabs(logit), f.f32(f32::INFINITY));
    let finite = f.ins().fcmp(FloatCC::LessThan, size, infinite);
    let bad = f.ins().icmp_imm_s(IntCC::Equal, finite, 0);
    f.if_then(bad, |f| {
        let one = f.i32(1);
        f.store(one, nonfinite, 0);
    });
}

impl Rows {
    /// Stores what `found` gives for each row; it is also told the row after it, of the last one that one itself.
    fn each(&self, f: &mut FunctionCx, found: impl FnOnce(&mut FunctionCx, [Value; 2]) -> Value) {
        let zero = f.i64(0);
        let last = f.ins().iadd_imm_s(self.count, -1);
        f.for_range(zero, self.count, 1, |f, i| {
            let after = f.offset(i, 1);
            let after = f.min(after, last);
            let [row, later] = [i, after].map(|i| {
                let at = f.index(self.list, i, 4);
                f.load_unsigned(I32, at, 0)
            });
            let value = found(f, [row, later]);
            let at = f.index(self.found, row, 4);
            f.store(value, at, 0);
        });
    }
}

impl Level<'_> {
    /// Drops the rows that cannot win and gives `count` the number of rows of each panel that stay; `compute` stores
    /// what it finds for those, and `narrow` makes new lower ends of the old ones and of that, which is -∞ where a row
    /// is out.
    fn run(
        &self,
        f: &mut FunctionCx,
        kernel: &Kernel,
        count: impl Fn(&mut FunctionCx, Value, Value),
        compute: impl Fn(&mut FunctionCx, &Rows),
        narrow: impl Fn(&mut FunctionCx, Value, &Lanes, &Lanes) -> Lanes,
    ) {
        let (list, found) = (kernel.scratch, f.offset(kernel.scratch, LevelScratch::FOUND_OFFSET));
        f.for_range(kernel.begin, kernel.end, 1, |f, task| {
            let (begin, end) = task_panels(f, task, self.layout);
            let first = f.scaled(begin, PANEL_ROWS);
            let none = f.i64(0);
            let rows = f.for_carried(begin, end, 1, &[none], |f, panel, rows| {
                let after = self.list_rows(f, panel, first, list, rows[0]);
                let stayed = f.ins().isub(after, rows[0]);
                let stayed = f.ins().ireduce(I32, stayed);
                count(f, panel, stayed);
                vec![after]
            })[0];
            let place = |f: &mut FunctionCx, panel: Value| {
                let row = f.scaled(panel, PANEL_ROWS);
                let row = f.ins().isub(row, first);
                f.index(found, row, 4)
            };
            f.for_range(begin, end, 1, |f, panel| {
                let at = place(f, panel);
                Lanes::constant(f, Shape::block(f), f32::NEG_INFINITY).store(f, at);
            });
            compute(f, &Rows { first, list, count: rows, found });
            f.for_range(begin, end, 1, |f, panel| {
                let (at, lows) = (place(f, panel), f.index(self.lows, panel, 4 * PANEL_ROWS));
                let shape = Shape::block(f);
                let (low, found) = (Lanes::load(f, shape, lows), Lanes::load(f, shape, at));
                let new = narrow(f, panel, &low, &found);
                new.store(f, lows);
                let largest = new.largest(f);
                let at = f.index(self.maxima, panel, 4);
                f.store(largest, at, 0);
            });
        });
    }

    /// Drops the rows of one panel that cannot win and appends the others, counted from row `first`, to the `rows` at
    /// `list`; returns how many there are now.
    fn list_rows(&self, f: &mut FunctionCx, panel: Value, first: Value, list: Value, rows: Value) -> Value {
        let (zero, shape) = (f.i64(0), Shape::block(f));
        let lows = f.index(self.lows, panel, 4 * PANEL_ROWS);
        let low = Lanes::load(f, shape, lows);
        let bound = self.bounder.bound(f, shape, panel, zero, self.planes);
        let high = upper(f, &low, &bound);
        let threshold = Lanes::splat(f, shape, self.threshold);
        let out = Lanes::constant(f, shape, f32::NEG_INFINITY);
        let left = threshold.if_greater(f, &high, &out, &low);
        left.store(f, lows);
        let (largest, none) = (left.largest(f), f.f32(f32::NEG_INFINITY));
        let any = f.ins().fcmp(FloatCC::GreaterThan, largest, none);
        let append = |f: &mut FunctionCx| {
            let row = f.scaled(panel, PANEL_ROWS);
            let (row, lanes) = (f.ins().isub(row, first), f.size(PANEL_ROWS));
            f.for_carried(zero, lanes, 1, &[rows], |f, lane, rows| {
                // Every row is stored; one that is out is overwritten by the next.
                let row = f.ins().iadd(row, lane);
                let row = f.ins().ireduce(I32, row);
                let at = f.index(list, rows[0], 4);
                f.store(row, at, 0);
                let at = f.index(lows, lane, 4);
                let low = f.load(F32, at, 0);
                let stays = f.ins().fcmp(FloatCC::GreaterThan, low, none);
                let one = f.ins().uextend(I64, stays);
                vec![f.ins().iadd(rows[0], one)]
            })
        };
        f.if_else(any, append, |_| vec![rows])[0]
    }
}
