//! `Embed`: one row of the table per token, widened to f32.

use cranelift_codegen::ir::Value;
use cranelift_codegen::ir::types::I32;
use tcc_ir::ty::DType;

use super::func::FunctionCx;
use super::kernel::Kernel;
use super::lanes::Lanes;
use super::math::load_float;
use super::rows::for_elements;

pub(super) fn build(f: &mut FunctionCx, kernel: &Kernel, h: usize, table: DType, scale: f32) {
    let [tokens, rows, out] = [0, 1, 2].map(|i| kernel.operand(f, i));
    let row_bytes = h * table.size_bytes().expect("type rules admit floats");
    kernel.for_rows(f, |f, row| {
        let token = f.index(tokens, row, 4);
        let token = f.load_unsigned(I32, token, 0);
        let from = f.index(rows, token, row_bytes);
        let to = f.index(out, row, 4 * h);
        copy_row(f, h, table, scale, from, to);
    });
}

fn copy_row(f: &mut FunctionCx, h: usize, table: DType, scale: f32, from: Value, to: Value) {
    for_elements(f, h, |f, shape, i| {
        let mut x = load_float(f, shape, table, from, i);
        if scale != 1.0 {
            let scale = Lanes::constant(f, shape, scale);
            x = x.mul(f, &scale);
        }
        let to = f.index(to, i, 4);
        x.store(f, to);
    });
}
