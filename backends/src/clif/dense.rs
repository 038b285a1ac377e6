//! `DenseMatmul`: dot products with rows of f32, f16 or bf16 weights.
//!
//! Weights are read strictly in order: one row's four vectors of sums hide enough latency, and two rows read side by
//! side run at half the memory bandwidth. Token rows share the weight row that the nearest cache holds.

use cranelift_codegen::ir::Value;
use tcc_ir::ty::DType;

use super::epilogue::{Epilogue, Operands, for_row_groups, task_range};
use super::func::FunctionCx;
use super::kernel::Kernel;
use super::lanes::{Lanes, Shape};
use super::math::load_float;
use super::rows::fold;

/// Token rows computed together: each widened weight serves all of them.
const ROWS_AT_ONCE: usize = 2;

pub(super) struct Product {
    pub n: usize,
    pub k: usize,
    pub weight: DType,
    pub scale: f32,
    pub task_rows: usize,
}

pub(super) fn build(f: &mut FunctionCx, kernel: &Kernel, product: &Product, has: Operands) {
    let (x, w) = (kernel.operand(f, 0), kernel.operand(f, 1));
    let epilogue = Epilogue::new(f, kernel, 2, product.n, has);
    let valid = kernel.valid(f);
    f.for_range(kernel.begin, kernel.end, 1, |f, task| {
        let (first, end) = task_range(f, task, product.task_rows, product.n);
        let row_bytes = product.k * product.weight.size_bytes().expect("type rules admit floats");
        f.for_range(first, end, 1, |f, column| {
            let w = f.index(w, column, row_bytes);
            let row = f.i64(0);
            for_row_groups(f, row, valid, ROWS_AT_ONCE, |f, row, count| {
                let dots = dots(f, product, x, w, row, count);
                for (i, dot) in dots.into_iter().enumerate() {
                    let row = f.offset(row, i);
                    let y = scaled(f, product.scale, dot);
                    epilogue.store(f, y, row, column);
                }
            });
        });
    });
}

/// `dot(x, w)` of `count` token rows from `row` on with the weight row at `w`.
fn dots(f: &mut FunctionCx, product: &Product, x: Value, w: Value, row: Value, count: usize) -> Vec<Value> {
    let first = f.index(x, row, 4 * product.k);
    let rows: Vec<_> = (0..count).map(|i| f.offset(first, 4 * i * product.k)).collect();
    let block = Shape::block(f);
    let zero = Lanes::constant(f, block, 0.0);
    let sums = fold(f, product.k, vec![zero; count], |f, shape, i, partials| {
        let w = load_float(f, shape, product.weight, w, i);
        let add = |(x, partial): (&Value, &Lanes)| {
            let x = f.index(*x, i, 4);
            Lanes::load_fixed(f, shape, x).fma(f, &w, partial)
        };
        rows.iter().zip(partials).map(add).collect()
    });
    sums.iter().map(|sum| sum.sum(f)).collect()
}

fn scaled(f: &mut FunctionCx, scale: f32, dot: Value) -> Lanes {
    let y = Lanes::splat(f, Shape::ONE, dot);
    if scale == 1.0 {
        return y;
    }
    let scale = Lanes::constant(f, Shape::ONE, scale);
    y.mul(f, &scale)
}
