//! `Norm` and `NormQuant`: root-mean-square norm of each run of d elements.

use cranelift_codegen::ir::types::{F32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::kernel::QuantLayout;

use super::func::{FunctionCx, signature};
use super::kernel::Kernel;
use super::lanes::{Lanes, Shape};
use super::quantize::{Quantizer, quantize_row};
use super::rows::{fold, for_elements};
use crate::isa::RowPart;

pub(super) fn build(f: &mut FunctionCx, kernel: &Kernel, k: usize, d: usize, eps: f32) {
    let [x, w, out] = [0, 1, 2].map(|i| kernel.operand(f, i));
    kernel.for_rows(f, |f, row| {
        let (x, out) = (f.index(x, row, 4 * k), f.index(out, row, 4 * k));
        let (first, runs) = (f.i64(0), f.size(k / d));
        f.for_range(first, runs, 1, |f, run| {
            let (x, out) = (f.index(x, run, 4 * d), f.index(out, run, 4 * d));
            norm_run(f, d, eps, x, w, out);
        });
    });
}

pub(super) fn build_quant(f: &mut FunctionCx, kernel: &Kernel, eps: f32, layout: QuantLayout) {
    let [x, w] = [0, 1].map(|i| kernel.operand(f, i));
    let to = Quantizer::new(f, kernel, 2, layout);
    kernel.for_rows(f, |f, row| {
        let x = f.index(x, row, 4 * layout.k);
        norm_run(f, layout.k, eps, x, w, kernel.scratch);
        quantize_row(f, &to, kernel.scratch, row);
    });
}

/// `dot(x, x)` of `d` elements.
fn squares(f: &mut FunctionCx, d: usize, x: Value) -> Value {
    if f.has_row_loop(RowPart::Squares) {
        let n = f.size(d);
        return f.call(RowPart::Squares.symbol(), &signature(&[I64, I64], &[F32]), &[x, n])[0];
    }
    let zero = Shape::block(f);
    let zero = Lanes::constant(f, zero, 0.0);
    let squares = fold(f, d, vec![zero], |f, shape, i, partials| {
        let x = f.index(x, i, 4);
        let x = Lanes::load(f, shape, x);
        vec![x.fma(f, &x, &partials[0])]
    });
    squares[0].sum(f)
}

/// Writes `w · (x · r)` with `r = 1 / sqrt(dot(x, x) / d + eps)` to `out`, which may be `x`.
pub(super) fn norm_run(f: &mut FunctionCx, d: usize, eps: f32, x: Value, w: Value, out: Value) {
    let sum = squares(f, d, x);
    // Widths are far below 2^24, so the conversion is exact.
    let (count, eps, one) = (f.f32(d as f32), f.f32(eps), f.f32(1.0));
    let mean = f.ins().fdiv(sum, count);
    let shifted = f.ins().fadd(mean, eps);
    let root = f.ins().sqrt(shifted);
    let r = f.ins().fdiv(one, root);
    if f.has_row_loop(RowPart::Scale) {
        let n = f.size(d);
        f.call(RowPart::Scale.symbol(), &signature(&[I64, I64, I64, I64, F32], &[]), &[x, w, n, out, r]);
        return;
    }
    for_elements(f, d, |f, shape, i| {
        let [x, w, out] = [x, w, out].map(|base| f.index(base, i, 4));
        let (x, w) = (Lanes::load(f, shape, x), Lanes::load(f, shape, w));
        let r = Lanes::splat(f, shape, r);
        let normed = x.mul(f, &r);
        w.mul(f, &normed).store(f, out);
    });
}
