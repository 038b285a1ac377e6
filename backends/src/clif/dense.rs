//! `DenseMatmul`: dot products with rows of f32, f16 or bf16 weights, several output rows at once.

use cranelift_codegen::ir::Value;
use tcc_ir::ty::DType;

use super::epilogue::{Epilogue, Operands, for_row_groups, task_range};
use super::func::FunctionCx;
use super::kernel::Kernel;
use super::lanes::{Lanes, Shape};
use super::math::load_float;
use super::rows::fold;

/// Output rows computed together, so that their sums hide each other's latency.
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
        let row = f.i64(0);
        f.for_range(row, valid, 1, |f, row| {
            let x = f.index(x, row, 4 * product.k);
            for_row_groups(f, first, end, ROWS_AT_ONCE, |f, column, count| {
                outputs(f, product, &epilogue, [x, w], row, column, count);
            });
        });
    });
}

/// `count` outputs from `column` on of token row `row`, whose activations are at `x`.
fn outputs(
    f: &mut FunctionCx,
    product: &Product,
    epilogue: &Epilogue,
    [x, w]: [Value; 2],
    row: Value,
    column: Value,
    count: usize,
) {
    let row_bytes = product.k * product.weight.size_bytes().expect("type rules admit floats");
    let first = f.index(w, column, row_bytes);
    let rows: Vec<_> = (0..count).map(|i| f.offset(first, i * row_bytes)).collect();
    let block = Shape::block(f);
    let zero = Lanes::constant(f, block, 0.0);
    let dots = fold(f, product.k, vec![zero; count], |f, shape, i, partials| {
        let x = f.index(x, i, 4);
        let x = Lanes::load(f, shape, x);
        let one = |f: &mut FunctionCx, (w, partial): (&Value, &Lanes)| {
            let w = load_float(f, shape, product.weight, *w, i);
            x.fma(f, &w, partial)
        };
        rows.iter().zip(partials).map(|pair| one(f, pair)).collect()
    });
    for (i, dot) in dots.iter().enumerate() {
        let dot = dot.sum(f);
        let mut y = Lanes::splat(f, Shape::ONE, dot);
        if product.scale != 1.0 {
            let scale = Lanes::constant(f, Shape::ONE, product.scale);
            y = y.mul(f, &scale);
        }
        let column = f.offset(column, i);
        epilogue.store(f, y, row, column);
    }
}
