//! `quantize_act x`: largest-magnitude quantization of each row to eight bits.
//!
//! `x: f32[m, k]` → `q: i8[m, k]`, `scale: f32[m]`, with `x ≈ q · scale`. With `a = max(absmax(row), 1e-5)`:
//! `q = clamp(rne(x · (127 / a)), -128, 127)`, `scale = a / 127`. A row of zeros gives `q = 0`.
//!
//! Source: Ma et al. 2024, arXiv:2402.17764, section 2; the floor 1e-5 is the published model code's.

use super::{Operands, TypeError};
use crate::numerics::{ABSMAX_FLOOR, absmax, max, rne};
use crate::tensor::Tensor;
use crate::ty::{DType, ValueType};

pub(super) fn infer(cx: &Operands) -> Result<Vec<ValueType>, TypeError> {
    cx.count(1)?;
    results(cx, vec![cx.get(0)?.clone()])
}

/// Result types for rows of type `rows[0]`; shared by the fused ops that end in a quantizer.
pub(super) fn results(cx: &Operands, rows: Vec<ValueType>) -> Result<Vec<ValueType>, TypeError> {
    let (m, k) = Operands { op: cx.op, types: &rows }.matrix(0, DType::F32)?;
    Ok(vec![ValueType::new(DType::I8, &[m, k]), ValueType::f32(&[m])])
}

pub(super) fn eval<'a>(x: &Tensor<'a>) -> Vec<Tensor<'a>> {
    let (m, k) = (x.shape[0], x.shape[1]);
    let mut codes = Vec::with_capacity(m * k);
    let mut scales = Vec::with_capacity(m);
    for row in x.as_f32().chunks_exact(k) {
        scales.push(quantize(row, |code| codes.push(code)));
    }
    vec![Tensor::i8(&[m, k], codes), Tensor::f32(&[m], scales)]
}

/// Hands out the code of each element of `row` and returns their scale.
pub(super) fn quantize(row: &[f32], code: impl FnMut(i8)) -> f32 {
    let a = max(absmax(row), ABSMAX_FLOOR);
    let inv_scale = 127.0 / a;
    // The clamp makes the cast exact.
    row.iter().map(|v| rne(v * inv_scale).clamp(-128.0, 127.0) as i8).for_each(code);
    a / 127.0
}
