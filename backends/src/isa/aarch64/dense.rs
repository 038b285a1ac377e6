//! The dot product of dense weights with NEON: `extern "C" fn(x, w, k, rows, out, later)` (see [`Backend::dense_dot`]);
//! the last is not used.
//!
//! Four registers are the sixteen partials of `numerics::dot`. The last k mod 16 elements are padded by factors whose
//! product is -0, which leaves a partial as it is, whatever it is.
//!
//! [`Backend::dense_dot`]: crate::isa::Backend::dense_dot

use tcc_ir::ty::DType;

use super::abi::function;
use super::floats::{load_block, reduce, repeat, splat, while_left};
use super::inst::{A64, V, X};
use crate::code::Function;

/// First of the token rows left, the weight row, columns, token rows left, and where sums go.
const X_ROW: X = X(0);
const W_ROW: X = X(1);
const K: X = X(2);
const ROWS: X = X(3);
const OUT: X = X(4);
/// Bytes of a token row.
const X_STRIDE: X = X(5);
const W: X = X(6);
const COUNT: X = X(7);
/// Columns of the last block.
const TAIL: X = X(8);
const SCRATCH: X = X(9);

/// Activations of the token rows computed together.
const X_AT: [X; 2] = [X(10), X(11)];
const WEIGHTS: [V; 4] = [V(16), V(17), V(18), V(19)];
const ACTIVATIONS: [V; 4] = [V(20), V(21), V(22), V(23)];
const ELEMENT: V = V(24);
const FILL: V = V(25);

/// Bytes of stack for one block.
const BLOCK_BYTES: i64 = 64;

/// Token rows computed together, most first: each widened weight serves all of them.
const GROUPS: [usize; 2] = [2, 1];

fn partials(row: usize) -> [V; 4] {
    std::array::from_fn(|i| V((4 * row + i) as u8))
}

/// The function for weights of type `weight`.
pub(super) fn emit(weight: DType) -> Function {
    let mut a = A64::default();
    a.bti_c();
    a.sub_sp(BLOCK_BYTES);
    a.mov_imm(X_STRIDE, 0);
    a.add_lsl(X_STRIDE, X_STRIDE, K, 2);
    a.and_15(TAIL, K);
    for rows in GROUPS {
        while_left(&mut a, ROWS, rows as i64, |a| row_group(a, weight, rows));
    }
    a.add_sp(BLOCK_BYTES);
    a.ret();
    function("dense_dot", a, BLOCK_BYTES as u32)
}

/// Dot products of the next `rows` token rows; moves `X_ROW` and `OUT` past them.
fn row_group(a: &mut A64, weight: DType, rows: usize) {
    a.mov(W, W_ROW);
    for (row, at) in X_AT[..rows].iter().enumerate() {
        a.mov(*at, X_ROW);
        a.add(X_ROW, X_ROW, X_STRIDE);
        partials(row).iter().for_each(|partial| a.movi(*partial, 0));
    }
    a.lsr(COUNT, K, 5);
    repeat(a, COUNT, |a| {
        block(a, weight, rows);
        block(a, weight, rows);
    });
    a.lsr(COUNT, K, 4);
    a.and_1(COUNT, COUNT);
    repeat(a, COUNT, |a| block(a, weight, rows));
    let whole = a.asm.label();
    a.cbz(TAIL, whole);
    tail(a, weight, rows);
    a.asm.bind(whole);
    for row in 0..rows {
        reduce(a, partials(row));
        a.str_s_post(partials(row)[0], OUT, 4);
    }
}

fn block(a: &mut A64, weight: DType, rows: usize) {
    load_block(a, weight, WEIGHTS, W);
    for (row, at) in X_AT[..rows].iter().enumerate() {
        load_block(a, DType::F32, ACTIVATIONS, *at);
        multiply(a, row);
    }
}

fn multiply(a: &mut A64, row: usize) {
    for (partial, (x, w)) in partials(row).into_iter().zip(ACTIVATIONS.into_iter().zip(WEIGHTS)) {
        a.fmla(partial, x, w);
    }
}

/// The columns of the last block: weights are padded with +0, activations with -0.
fn tail(a: &mut A64, weight: DType, rows: usize) {
    a.movi(FILL, 0);
    load_tail(a, weight, WEIGHTS, W);
    splat(a, FILL, -0.0, SCRATCH);
    for (row, at) in X_AT[..rows].iter().enumerate() {
        load_tail(a, DType::F32, ACTIVATIONS, *at);
        multiply(a, row);
    }
}

/// Loads the `TAIL` elements at `from` by way of the stack, and [`FILL`] behind them.
fn load_tail(a: &mut A64, dtype: DType, to: [V; 4], from: X) {
    a.mov_from_sp(SCRATCH);
    a.stp_q(FILL, FILL, SCRATCH, 0);
    a.stp_q(FILL, FILL, SCRATCH, 32);
    a.mov(COUNT, TAIL);
    repeat(a, COUNT, |a| match dtype.size_bytes() {
        Some(4) => {
            a.ldr_s_post(ELEMENT, from, 4);
            a.str_s_post(ELEMENT, SCRATCH, 4);
        }
        _ => {
            a.ldr_h_post(ELEMENT, from, 2);
            a.str_h_post(ELEMENT, SCRATCH, 2);
        }
    });
    a.mov_from_sp(SCRATCH);
    load_block(a, dtype, to, SCRATCH);
}
