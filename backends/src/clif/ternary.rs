//! `TernaryMatmul` and `TernaryGlu`: the driver around the micro-kernels, from tiles of output rows down to finished outputs.
//!
//! A task is one tile. All token rows pass over it, in groups as tall as the micro-kernels of the schedule, so its
//! weights are read from memory once. Weights are stored as codes w + 1, so accumulators start at minus the sum of
//! the row's activations (`docs/numerics.md`). Micro-kernels that finish do that, and the epilogue, themselves.

use cranelift_codegen::ir::types::{F32, I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::encoding::Encoding;
use tcc_ir::kernel::{QuantLayout, ScaleKind};
use tcc_ir::numerics::LANES;
use tcc_ir::ops::Act;
use tcc_ir::schedule::MatmulSchedule;
use tcc_ir::target::{MicroKernel, micro_args};

use super::epilogue::{Epilogue, Operands, Scales, Stride, task_range};
use super::func::{FunctionCx, signature};
use super::glu::glu_run;
use super::kernel::Kernel;
use super::lanes::{Lanes, Shape};
use super::micro::micro_symbol;

#[derive(PartialEq)]
pub(super) struct Product<'a> {
    pub n: usize,
    pub layout: QuantLayout,
    pub scale: ScaleKind,
    pub schedule: &'a MatmulSchedule,
}

/// What keeps this code from computing such a product, if anything.
pub(super) fn problem(layout: QuantLayout, scale: ScaleKind, schedule: &MatmulSchedule) -> Option<String> {
    let encoding = schedule.micro[0].encoding;
    let expected = match encoding {
        Encoding::Bitmap(_) => "one group".to_owned(),
        Encoding::I2 { .. } | Encoding::I2Lane { .. } | Encoding::Base3 { .. } | Encoding::W2Nz(_) => {
            format!("a multiple of {}", encoding.kr())
        }
    };
    match scale {
        ScaleKind::PerTensor | ScaleKind::PerRow => None,
        ScaleKind::PerGroup { group } if !encoding.has_groups(group, layout.k) => {
            Some(format!("groups of {group} columns in '{encoding}', expected {expected}"))
        }
        ScaleKind::PerGroup { group } if !group.is_multiple_of(layout.sum_group) => {
            Some(format!("groups of {group} columns, expected a multiple of the sums' {}", layout.sum_group))
        }
        ScaleKind::PerGroup { .. } => None,
    }
}

/// Everything that stays the same over all tasks.
struct Driver<'a> {
    product: &'a Product<'a>,
    q: Value,
    act_scale: Value,
    w: Value,
    scales: Scales,
    epilogue: Epilogue,
    /// The argument block; accumulators, group results and the micro-kernel's own scratch follow.
    scratch: Value,
}

/// One tile: `panels` panels for output rows `begin..end`.
#[derive(Clone, Copy)]
struct Tile {
    begin: Value,
    end: Value,
    panels: Value,
}

/// Token rows `row..row + kernel.mr` of one tile.
struct RowGroup<'a> {
    kernel: &'a MicroKernel,
    row: Value,
    tile: Tile,
}

pub(super) fn build(f: &mut FunctionCx, kernel: &Kernel, product: &Product, has: Operands) {
    let [q, act_scale, w, scale] = [0, 1, 2, 3].map(|i| kernel.operand(f, i));
    let scales = Scales { kind: product.scale, k: product.layout.k, base: scale };
    let epilogue = Epilogue::new(f, kernel, 4, product.n, has);
    let driver = Driver { product, q, act_scale, w, scales, epilogue, scratch: kernel.scratch };
    let valid = kernel.valid(f);
    f.for_range(kernel.begin, kernel.end, 1, |f, task| {
        let range = task_range(f, task, product.schedule.task_rows(), product.n);
        driver.task(f, range, valid);
    });
}

/// A gate and its two products. The outputs of a task of the second one wait at `up`, `f32[m, task rows]`, which lies
/// behind what products use of the scratch.
pub(super) fn build_glu(f: &mut FunctionCx, kernel: &Kernel, products: &[Product; 2], up: Value, act: Act) {
    let [q, act_scale, out] = [0, 1, 6].map(|i| kernel.operand(f, i));
    let weights = [[2, 3], [4, 5]].map(|of| of.map(|i| kernel.operand(f, i)));
    let (task_rows, n) = (products[0].schedule.task_rows(), products[0].n);
    let valid = kernel.valid(f);
    f.for_range(kernel.begin, kernel.end, 1, |f, task| {
        let (begin, end) = task_range(f, task, task_rows, n);
        // Where output 0 would be.
        let before = f.scaled(begin, 4);
        let up = f.ins().isub(up, before);
        let epilogues = [Epilogue::plain(Stride::Fixed(n), out), Epilogue::plain(Stride::Fixed(task_rows), up)];
        let task = |f: &mut FunctionCx, product: &Product, [w, scale]: [Value; 2], epilogue: &Epilogue| {
            let scales = Scales { kind: product.scale, k: product.layout.k, base: scale };
            let driver = Driver { product, q, act_scale, w, scales, epilogue: *epilogue, scratch: kernel.scratch };
            driver.task(f, (begin, end), valid);
        };
        if products[0] == products[1] {
            // One code for both.
            let (first, count) = (f.i64(0), f.i64(2));
            f.for_range(first, count, 1, |f, second| {
                let [w, scale] = [0, 1].map(|i| f.ins().select(second, weights[1][i], weights[0][i]));
                let strides = [task_rows, n].map(|stride| f.size(stride));
                let stride = f.ins().select(second, strides[0], strides[1]);
                let out = f.ins().select(second, up, out);
                task(f, &products[0], [w, scale], &Epilogue::plain(Stride::Value(stride), out));
            });
        } else {
            for ((product, weights), epilogue) in products.iter().zip(weights).zip(&epilogues) {
                task(f, product, weights, epilogue);
            }
        }
        let (first, count) = (f.i64(0), f.ins().isub(end, begin));
        f.for_range(first, valid, 1, |f, row| {
            let [g, u] = epilogues.map(|epilogue| epilogue.addresses(f, row, begin)[0]);
            glu_run(f, count, act, [g, u, g]);
        });
    });
}

impl Driver<'_> {
    /// Outputs `begin..end` of `valid` token rows.
    fn task(&self, f: &mut FunctionCx, (begin, end): (Value, Value), valid: Value) {
        let rows = f.ins().isub(end, begin);
        let nr = f.size(self.nr());
        let rounded_up = f.offset(rows, self.nr() - 1);
        let tile = Tile { begin, end, panels: f.ins().udiv(rounded_up, nr) };
        let mut row = f.i64(0);
        for kernel in &self.product.schedule.micro {
            let last = f.ins().iadd_imm_s(valid, 1 - i64::try_from(kernel.mr).expect("a few rows"));
            row = f.for_carried(row, last, kernel.mr, &[row], |f, row, _| {
                self.row_group(f, &RowGroup { kernel, row, tile });
                vec![f.offset(row, kernel.mr)]
            })[0];
        }
    }

    fn nr(&self) -> usize {
        self.product.schedule.micro[0].encoding.nr()
    }

    fn groups(&self) -> usize {
        Scales::groups(self.product.scale, self.product.layout.k)
    }

    /// Bytes of the accumulators, and of the group results: a whole task for the tallest micro-kernel.
    fn acc_bytes(&self) -> usize {
        let schedule = self.product.schedule;
        let mr = schedule.micro.iter().map(|k| k.mr).max().expect("a schedule has a kernel");
        4 * schedule.task_rows().next_multiple_of(64) * mr
    }

    fn acc(&self, f: &mut FunctionCx) -> Value {
        f.offset(self.scratch, usize::try_from(micro_args::BYTES).expect("a few words"))
    }

    fn group_results(&self, f: &mut FunctionCx) -> Value {
        let acc = self.acc(f);
        f.offset(acc, self.acc_bytes())
    }

    /// Whether `kernel` writes the outputs itself: whole panels of them, from one sum of activations for each row.
    fn is_finished_by(&self, kernel: &MicroKernel) -> bool {
        let Product { n, layout, scale, .. } = self.product;
        let one_scale = match scale {
            ScaleKind::PerTensor | ScaleKind::PerRow => true,
            ScaleKind::PerGroup { .. } => false,
        };
        kernel.finishes && one_scale && layout.sums() == 1 && n.is_multiple_of(self.nr()) && !self.epilogue.has_bias()
    }

    /// All outputs of a tile for one group of token rows.
    fn row_group(&self, f: &mut FunctionCx, rows: &RowGroup) {
        if self.is_finished_by(rows.kernel) {
            return self.finished_group(f, rows);
        }
        match self.product.scale {
            ScaleKind::PerTensor | ScaleKind::PerRow => {
                let group = f.i64(0);
                self.accumulate(f, rows, group);
                let acc = self.acc(f);
                self.for_outputs(f, rows, |f, out| {
                    let at = f.ins().iadd(acc, out.offset);
                    let sum = Lanes::load_int(f, out.shape, at).to_float(f);
                    let (act_scale, scale) =
                        (self.act_scale(f, &out), self.scales.load(f, out.shape, out.column, group));
                    let y = sum.mul(f, &act_scale).mul(f, &scale);
                    self.epilogue.store(f, y, out.row, out.column);
                });
            }
            ScaleKind::PerGroup { .. } => {
                self.sum_groups(f, rows);
                let results = self.group_results(f);
                self.for_outputs(f, rows, |f, out| {
                    let at = f.ins().iadd(results, out.offset);
                    let act_scale = self.act_scale(f, &out);
                    let y = Lanes::load(f, out.shape, at).mul(f, &act_scale);
                    self.epilogue.store(f, y, out.row, out.column);
                });
            }
        }
    }

    /// The same by a micro-kernel that writes the outputs.
    fn finished_group(&self, f: &mut FunctionCx, rows: &RowGroup) {
        let (layout, column) = (self.product.layout, rows.tile.begin);
        let q = f.index(self.q, rows.row, layout.stride_bytes());
        let [out, residual] = self.epilogue.addresses(f, rows.row, column);
        let (scale, scale_stride) = match self.product.scale {
            ScaleKind::PerTensor | ScaleKind::PerGroup { .. } => (self.scales.base, 0),
            ScaleKind::PerRow => (f.index(self.scales.base, column, 4), 4 * self.nr()),
        };
        let words = [
            (micro_args::OUT, out),
            (micro_args::OUT_STRIDE, self.epilogue.row_bytes(f)),
            (micro_args::RESIDUAL, residual),
            (micro_args::SUMS, f.offset(q, layout.sums_offset_bytes())),
            (micro_args::ACT_SCALE, f.index(self.act_scale, rows.row, 4)),
            (micro_args::SCALE, scale),
            (micro_args::SCALE_STRIDE, f.size(scale_stride)),
        ];
        for (offset, word) in words {
            f.store(word, self.scratch, offset);
        }
        let group = f.i64(0);
        self.call_micro(f, rows, group, q);
    }

    /// `r = +0; r = fma(f32(acc_g), s_g, r)` for each output, in increasing g.
    fn sum_groups(&self, f: &mut FunctionCx, rows: &RowGroup) {
        let (acc, results) = (self.acc(f), self.group_results(f));
        self.for_outputs(f, rows, |f, out| {
            let at = f.ins().iadd(results, out.offset);
            Lanes::constant(f, out.shape, 0.0).store(f, at);
        });
        let (first, end) = (f.i64(0), f.size(self.groups()));
        f.for_range(first, end, 1, |f, group| {
            self.accumulate(f, rows, group);
            self.for_outputs(f, rows, |f, out| {
                let [sum, result] = [acc, results].map(|base| f.ins().iadd(base, out.offset));
                let sum = Lanes::load_int(f, out.shape, sum).to_float(f);
                let scale = self.scales.load(f, out.shape, out.column, group);
                let before = Lanes::load(f, out.shape, result);
                sum.fma(f, &scale, &before).store(f, result);
            });
        });
    }

    fn act_scale(&self, f: &mut FunctionCx, out: &Output) -> Lanes {
        let at = f.index(self.act_scale, out.row, 4);
        let scale = f.load(F32, at, 0);
        Lanes::splat(f, out.shape, scale)
    }

    /// Leaves the exact Σ w · q over the columns of `group` in the accumulators.
    fn accumulate(&self, f: &mut FunctionCx, rows: &RowGroup, group: Value) {
        let layout = self.product.layout;
        let first = f.index(self.q, rows.row, layout.stride_bytes());
        let acc = self.acc(f);
        for_row(f, rows, |f, j| {
            let q = f.index(first, j, layout.stride_bytes());
            let start = self.minus_sum(f, q, group);
            let zero = f.i64(0);
            f.for_range(zero, rows.tile.panels, 1, |f, panel| {
                let at = f.index(acc, panel, 4 * self.nr() * rows.kernel.mr);
                let at = f.index(at, j, 4 * self.nr());
                fill(f, at, self.nr(), start);
            });
        });
        if rows.kernel.finishes {
            let none = f.i64(0);
            f.store(none, self.scratch, micro_args::OUT);
        }
        self.call_micro(f, rows, group, first);
    }

    /// Minus the sum of the activations of `group` in the row at `q`.
    fn minus_sum(&self, f: &mut FunctionCx, q: Value, group: Value) -> Value {
        let layout = self.product.layout;
        let per_group = layout.sums() / self.groups();
        let sums = f.offset(q, layout.sums_offset_bytes());
        let sums = f.index(sums, group, 4 * per_group);
        let (first, end, zero) = (f.i64(0), f.size(per_group), f.i32(0));
        f.for_carried(first, end, 1, &[zero], |f, i, total| {
            let at = f.index(sums, i, 4);
            let sum = f.load(I32, at, 0);
            vec![f.ins().isub(total[0], sum)]
        })[0]
    }

    fn call_micro(&self, f: &mut FunctionCx, rows: &RowGroup, group: Value, q: Value) {
        let (layout, kernel) = (self.product.layout, rows.kernel);
        let encoding = kernel.encoding;
        let columns = layout.k / self.groups();
        let blocks = columns.div_ceil(encoding.kr());
        let nr = f.size(self.nr());
        let panel = f.ins().udiv(rows.tile.begin, nr);
        let (w, panel_bytes) = self.panel(f, panel, encoding);
        let results = self.group_results(f);
        let words = [
            (micro_args::ACC, self.acc(f)),
            (micro_args::W, f.index(w, group, blocks * encoding.block_bytes())),
            (micro_args::W_PANEL_STRIDE, panel_bytes),
            (micro_args::PANELS, rows.tile.panels),
            (micro_args::Q, f.index(q, group, columns)),
            (micro_args::Q_STRIDE, f.size(layout.stride_bytes())),
            (micro_args::K_BLOCKS, f.size(blocks)),
            (micro_args::SCRATCH, f.offset(results, self.acc_bytes())),
        ];
        for (offset, word) in words {
            f.store(word, self.scratch, offset);
        }
        f.call(&micro_symbol(kernel), &signature(&[I64], &[]), &[self.scratch]);
    }

    /// The address of `panel` and the bytes to the next one, which the matrix states itself where its weights decide.
    fn panel(&self, f: &mut FunctionCx, panel: Value, encoding: Encoding) -> (Value, Value) {
        match encoding {
            Encoding::Bitmap(_) => {
                let bytes = f.load(I64, self.w, 0);
                let (first, before) = (f.offset(self.w, encoding.header_bytes()), f.ins().imul(panel, bytes));
                (f.ins().iadd(first, before), bytes)
            }
            Encoding::I2 { .. } | Encoding::I2Lane { .. } | Encoding::Base3 { .. } | Encoding::W2Nz(_) => {
                let bytes = encoding.panel_bytes(self.product.layout.k);
                (f.index(self.w, panel, bytes), f.size(bytes))
            }
        }
    }

    /// Runs `body` for all outputs of a tile and a group of token rows: whole panels in lanes, the ragged end of the
    /// last panel one by one, so that nothing past `n` is touched.
    fn for_outputs(&self, f: &mut FunctionCx, rows: &RowGroup, body: impl Fn(&mut FunctionCx, Output)) {
        let (nr, mr, tile) = (self.nr(), rows.kernel.mr, rows.tile);
        let count = f.ins().isub(tile.end, tile.begin);
        let panel_rows = f.size(nr);
        let (first, whole) = (f.i64(0), f.ins().udiv(count, panel_rows));
        let shape = Shape::of(f, nr.min(LANES));
        let position = |f: &mut FunctionCx, panel: Value, j: Value| {
            let at = f.scaled(panel, 4 * nr * mr);
            (f.index(at, j, 4 * nr), f.ins().iadd(rows.row, j))
        };
        f.for_range(first, whole, 1, |f, panel| {
            let column = f.scaled(panel, nr);
            let column = f.ins().iadd(tile.begin, column);
            for_row(f, rows, |f, j| {
                let (offset, row) = position(f, panel, j);
                for i in (0..nr).step_by(shape.lanes()) {
                    let (offset, column) = (f.offset(offset, 4 * i), f.offset(column, i));
                    body(f, Output { shape, offset, row, column });
                }
            });
        });
        let done = f.scaled(whole, nr);
        let rest = f.ins().isub(count, done);
        f.for_range(first, rest, 1, |f, i| {
            let column = f.ins().iadd(tile.begin, done);
            let column = f.ins().iadd(column, i);
            for_row(f, rows, |f, j| {
                let (offset, row) = position(f, whole, j);
                let offset = f.index(offset, i, 4);
                body(f, Output { shape: Shape::ONE, offset, row, column });
            });
        });
    }
}

/// Runs `body` with the number of each token row of a group; once, without a loop, where there is one.
fn for_row(f: &mut FunctionCx, rows: &RowGroup, body: impl FnOnce(&mut FunctionCx, Value)) {
    let first = f.i64(0);
    match rows.kernel.mr {
        1 => body(f, first),
        mr => {
            let end = f.size(mr);
            f.for_range(first, end, 1, body);
        }
    }
}

/// Some outputs: where their accumulators lie, and which they are.
struct Output {
    shape: Shape,
    /// Bytes from the first accumulator.
    offset: Value,
    row: Value,
    column: Value,
}

/// Stores `value` `count` times at `address`.
fn fill(f: &mut FunctionCx, address: Value, count: usize, value: Value) {
    let shape = Shape::of(f, count.min(LANES));
    let lanes = Lanes::splat(f, shape, value);
    for i in (0..count).step_by(shape.lanes()) {
        let at = f.offset(address, 4 * i);
        lanes.store(f, at);
    }
}
