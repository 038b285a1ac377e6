//! `add x, y`: `f32[m, k], f32[m, k] → f32[m, k]`, `x + y` (the residual).

use super::{Operands, TypeError};
use crate::tensor::Tensor;
use crate::ty::{DType, ValueType};

pub(super) fn infer(cx: &Operands) -> Result<Vec<ValueType>, TypeError> {
    cx.count(2)?;
    let (m, k) = cx.matrix(0, DType::F32)?;
    cx.expect(1, DType::F32, &[m, k])?;
    Ok(vec![ValueType::f32(&[m, k])])
}

pub(super) fn eval<'a>(operands: &[&Tensor<'a>]) -> Tensor<'a> {
    let (x, y) = (operands[0].as_f32(), operands[1].as_f32());
    Tensor::f32(&operands[0].shape, x.iter().zip(y).map(|(a, b)| a + b).collect())
}
