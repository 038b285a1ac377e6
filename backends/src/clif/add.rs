//! `Add`: the sum of two rows; the result may overwrite either.

use super::func::FunctionCx;
use super::kernel::Kernel;
use super::lanes::Lanes;
use super::rows::for_elements;

pub(super) fn build(f: &mut FunctionCx, kernel: &Kernel, k: usize) {
    let operands = [0, 1, 2].map(|i| kernel.operand(f, i));
    kernel.for_rows(f, |f, row| {
        let [x, y, out] = operands.map(|base| f.index(base, row, 4 * k));
        for_elements(f, k, |f, shape, i| {
            let [x, y, out] = [x, y, out].map(|base| f.index(base, i, 4));
            let (x, y) = (Lanes::load(f, shape, x), Lanes::load(f, shape, y));
            x.add(f, &y).store(f, out);
        });
    });
}
