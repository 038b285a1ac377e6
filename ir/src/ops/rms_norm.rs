//! `rms_norm x, w { eps }`: `f32[m, g·d], f32[d] → f32[m, g·d]`; each run of `d` elements is one row of the norm
//! (`g > 1` is the norm per attention head).
//!
//! `ss = dot(x, x)`; `r = 1 / sqrt(ss / f32(d) + eps)`; `y = w · (x · r)`.
//! Source: Zhang & Sennrich 2019, arXiv:1910.07467.

use super::{Operands, TypeError};
use crate::numerics::dot;
use crate::tensor::Tensor;
use crate::ty::{DType, ValueType};

pub(super) fn infer(cx: &Operands) -> Result<Vec<ValueType>, TypeError> {
    cx.count(2)?;
    let (m, k) = cx.matrix(0, DType::F32)?;
    let d = cx.vector(1, DType::F32)?;
    if d == 0 || k % d != 0 {
        return cx.fail(format!("{k} columns are not a multiple of the {d} norm weights"));
    }
    Ok(vec![ValueType::f32(&[m, k])])
}

pub(super) fn eval<'a>(operands: &[&Tensor<'a>], eps: f32) -> Tensor<'a> {
    let (x, w) = (operands[0].as_f32(), operands[1].as_f32());
    let d = w.len();
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(d) {
        let ss = dot(row, row);
        let r = 1.0 / (ss / d as f32 + eps).sqrt();
        out.extend(row.iter().zip(w).map(|(x, w)| w * (x * r)));
    }
    Tensor::f32(&operands[0].shape, out)
}
