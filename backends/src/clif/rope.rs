//! `Rope`: rotation of the pairs (i, i + d/2) of each head; the result may overwrite the input.
//!
//! Tasks are heads, not token rows: a thread then has columns, as in the products before and in attention behind, and
//! finds in its own caches what it left there.

use cranelift_codegen::ir::{InstBuilder, Value};

use super::func::FunctionCx;
use super::kernel::Kernel;
use super::lanes::Lanes;
use super::rows::for_elements;

pub(super) fn build(f: &mut FunctionCx, kernel: &Kernel, heads: usize, d: usize) {
    let [x, cos, sin, out] = [0, 1, 2, 3].map(|i| kernel.operand(f, i));
    let (pos, valid) = (kernel.pos(f), kernel.valid(f));
    f.for_range(kernel.begin, kernel.end, 1, |f, head| {
        let heads_at = [x, out].map(|base| f.index(base, head, 4 * d));
        let first = f.i64(0);
        f.for_range(first, valid, 1, |f, row| {
            let at = f.ins().iadd(pos, row);
            let table = [cos, sin].map(|base| f.index(base, at, 4 * (d / 2)));
            let [x, out] = heads_at.map(|base| f.index(base, row, 4 * heads * d));
            rotate_head(f, d / 2, x, table, out);
        });
    });
}

fn rotate_head(f: &mut FunctionCx, half: usize, x: Value, table: [Value; 2], out: Value) {
    for_elements(f, half, |f, shape, i| {
        let [x, cos, sin, out] = [x, table[0], table[1], out].map(|base| f.index(base, i, 4));
        let (x_high, out_high) = (f.offset(x, 4 * half), f.offset(out, 4 * half));
        let [x1, x2, c, s] = [x, x_high, cos, sin].map(|address| Lanes::load(f, shape, address));
        let (x1c, x2s) = (x1.mul(f, &c), x2.mul(f, &s));
        let (x2c, x1s) = (x2.mul(f, &c), x1.mul(f, &s));
        x1c.sub(f, &x2s).store(f, out);
        x2c.add(f, &x1s).store(f, out_high);
    });
}
