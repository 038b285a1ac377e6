//! One block of `i2`: the 32-bit word of row i holds the code of column `4 p + j` in bits `8 j + 2 p`.

use cranelift_codegen::ir::types::{I8, I32};
use cranelift_codegen::ir::{InstBuilder, Value};

use super::{constant, load_lanes, widen};
use crate::clif::func::FunctionCx;

/// See [`super::AddBlock`].
pub(super) fn add_block(f: &mut FunctionCx, w: Value, q: Value, sums: &[Value]) -> Vec<Value> {
    let mut sums = sums.to_vec();
    let words = load_lanes(f, w);
    let low_bits = constant(f, 3);
    for column in 0..16i32 {
        let (p, j) = (column / 4, column % 4);
        let code = f.load(I8, q, column);
        let q = f.ins().sextend(I32, code);
        let q = widen(f, q);
        for (word, sum) in words.iter().zip(&mut sums) {
            let shifted = f.ins().ushr_imm_u(*word, i64::from(8 * j + 2 * p));
            let code = f.ins().band(shifted, low_bits);
            let product = f.ins().imul(code, q);
            *sum = f.ins().iadd(*sum, product);
        }
    }
    sums
}
