//! `Glu`, `GluQuant`, `GluNormQuant`: the gated activation, alone or with what follows it; products that end in it call
//! [`glu_run`].

use cranelift_codegen::ir::Value;
use cranelift_codegen::ir::types::I64;
use tcc_ir::kernel::QuantLayout;
use tcc_ir::ops::Act;

use super::func::{FunctionCx, signature};
use super::kernel::Kernel;
use super::lanes::Lanes;
use super::math::exp;
use super::norm::norm_run;
use super::quantize::{Quantizer, quantize_row};
use super::rows::for_count;
use crate::isa::RowPart;

pub(super) fn build(f: &mut FunctionCx, kernel: &Kernel, k: usize, act: Act) {
    let operands = [0, 1, 2].map(|i| kernel.operand(f, i));
    kernel.for_rows(f, |f, row| {
        let [g, u, out] = operands.map(|base| f.index(base, row, 4 * k));
        glu_row(f, k, act, g, u, out);
    });
}

pub(super) fn build_quant(f: &mut FunctionCx, kernel: &Kernel, act: Act, layout: QuantLayout) {
    let operands = [0, 1].map(|i| kernel.operand(f, i));
    let to = Quantizer::new(f, kernel, 2, layout);
    kernel.for_rows(f, |f, row| {
        let [g, u] = operands.map(|base| f.index(base, row, 4 * layout.k));
        glu_row(f, layout.k, act, g, u, kernel.scratch);
        quantize_row(f, &to, kernel.scratch, row);
    });
}

pub(super) fn build_norm_quant(f: &mut FunctionCx, kernel: &Kernel, act: Act, eps: f32, layout: QuantLayout) {
    let operands = [0, 1].map(|i| kernel.operand(f, i));
    let w = kernel.operand(f, 2);
    let to = Quantizer::new(f, kernel, 3, layout);
    kernel.for_rows(f, |f, row| {
        let [g, u] = operands.map(|base| f.index(base, row, 4 * layout.k));
        glu_row(f, layout.k, act, g, u, kernel.scratch);
        norm_run(f, layout.k, eps, kernel.scratch, w, kernel.scratch);
        quantize_row(f, &to, kernel.scratch, row);
    });
}

fn glu_row(f: &mut FunctionCx, k: usize, act: Act, g: Value, u: Value, out: Value) {
    let n = f.size(k);
    glu_run(f, n, act, [g, u, out]);
}

/// Writes the gate of `n` elements g, times u, to `out`, which may be either.
pub(super) fn glu_run(f: &mut FunctionCx, n: Value, act: Act, [g, u, out]: [Value; 3]) {
    let part = RowPart::Gate(act);
    if f.has_row_loop(part) {
        f.call(part.symbol(), &signature(&[I64; 4], &[]), &[g, u, n, out]);
        return;
    }
    for_count(f, n, |f, shape, i| {
        let [g, u, out] = [g, u, out].map(|base| f.index(base, i, 4));
        let (g, u) = (Lanes::load(f, shape, g), Lanes::load(f, shape, u));
        let gated = gate(f, act, &g);
        gated.mul(f, &u).store(f, out);
    });
}

fn gate(f: &mut FunctionCx, act: Act, g: &Lanes) -> Lanes {
    match act {
        Act::Relu2 => {
            let zero = Lanes::constant(f, g.shape(), 0.0);
            let t = g.max(f, &zero);
            t.mul(f, &t)
        }
        Act::Silu => {
            let negated = g.neg(f);
            let e = exp(f, &negated);
            let one = Lanes::constant(f, g.shape(), 1.0);
            let below = one.add(f, &e);
            g.div(f, &below)
        }
    }
}
