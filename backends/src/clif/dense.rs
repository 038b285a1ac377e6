//! `DenseMatmul`: dot products with rows of f32, f16 or bf16 weights, assembled where the backend has them.
//!
//! Weights are read strictly in order: one row's partial sums hide enough latency, and two rows read side by side
//! reach less of the memory's bandwidth. Token rows share the weight row that the nearest cache holds.

use cranelift_codegen::ir::types::{F32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::kernel::DENSE_ROWS;
use tcc_ir::ty::DType;

use super::epilogue::{Epilogue, Operands, for_row_groups, task_range};
use super::func::{FunctionCx, signature};
use super::kernel::Kernel;
use super::lanes::{Lanes, Shape};
use super::math::load_float;
use super::rows::fold;

/// Token rows computed together by portable code: each widened weight serves all of them.
const ROWS_AT_ONCE: usize = 2;

pub(super) struct Product<'a> {
    pub n: usize,
    pub k: usize,
    pub weight: DType,
    pub scale: f32,
    pub task_rows: usize,
    /// Of the assembled dot product for this type of weight, if there is one: its symbol, and how many bytes ahead of a row
    /// it is told to ask ([`Backend::dense_ahead_bytes`](crate::isa::Backend::dense_ahead_bytes)).
    pub dot: Option<(&'a str, usize)>,
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
            let finish = |f: &mut FunctionCx, row: Value, dot: Value| {
                let y = scaled(f, product.scale, dot);
                epilogue.store(f, y, row, column);
            };
            let operands = Rows { x, w, valid };
            match product.dot {
                Some(dot) => assembled(f, product, dot, &operands, finish),
                None => portable(f, product, &operands, finish),
            }
        });
    });
}

/// One weight row and the token rows that meet it.
struct Rows {
    x: Value,
    w: Value,
    valid: Value,
}

/// Gives `finish` each token row and its dot product, computed by the function `symbol`, which asks so many bytes ahead.
fn assembled(
    f: &mut FunctionCx,
    product: &Product,
    (symbol, ahead_bytes): (&str, usize),
    rows: &Rows,
    finish: impl Fn(&mut FunctionCx, Value, Value),
) {
    let (zero, k, most) = (f.i64(0), f.size(product.k), f.size(DENSE_ROWS));
    let sums = f.stack(u32::try_from(4 * DENSE_ROWS).expect("a few rows"));
    f.for_range(zero, rows.valid, DENSE_ROWS, |f, first| {
        let x = f.index(rows.x, first, 4 * product.k);
        let left = f.ins().isub(rows.valid, first);
        let count = f.min(left, most);
        let later = f.offset(rows.w, ahead_bytes);
        call_dot(f, symbol, &[x, rows.w, k, count, sums, later]);
        f.for_range(zero, count, 1, |f, i| {
            let at = f.index(sums, i, 4);
            let dot = f.load(F32, at, 0);
            let row = f.ins().iadd(first, i);
            finish(f, row, dot);
        });
    });
}

/// Calls the assembled dot product `symbol` ([`crate::isa::Backend::dense_dot`]).
pub(super) fn call_dot(f: &mut FunctionCx, symbol: &str, args: &[Value; 6]) {
    f.call(symbol, &signature(&[I64; 6], &[]), args);
}

/// Gives `finish` each token row and its dot product.
fn portable(f: &mut FunctionCx, product: &Product, rows: &Rows, finish: impl Fn(&mut FunctionCx, Value, Value)) {
    let zero = f.i64(0);
    for_row_groups(f, zero, rows.valid, ROWS_AT_ONCE, |f, row, count| {
        let dots = dots(f, product, rows.x, rows.w, row, count);
        for (i, dot) in dots.into_iter().enumerate() {
            let row = f.offset(row, i);
            finish(f, row, dot);
        }
    });
}

/// `dot(x, w)` of one token row and one weight row of `k` columns.
pub(super) fn dot(f: &mut FunctionCx, k: usize, weight: DType, x: Value, w: Value) -> Value {
    let product = Product { n: 1, k, weight, scale: 1.0, task_rows: 1, dot: None };
    let zero = f.i64(0);
    dots(f, &product, x, w, zero, 1)[0]
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
