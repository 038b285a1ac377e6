//! `glu g, u { act }`: `f32[m, k], f32[m, k] → f32[m, k]`, the gated activation of the feed-forward block.
//!
//! relu²: `t = max(g, 0)`, `(t · t) · u`; SiLU: `(g / (1 + exp(-g))) · u`.

use super::{Act, Operands, TypeError};
use crate::numerics::{exp, max};
use crate::tensor::Tensor;
use crate::ty::{DType, ValueType};

pub(super) fn infer(cx: &Operands) -> Result<Vec<ValueType>, TypeError> {
    cx.count(2)?;
    let (m, k) = cx.matrix(0, DType::F32)?;
    cx.expect(1, DType::F32, &[m, k])?;
    Ok(vec![ValueType::f32(&[m, k])])
}

pub(super) fn eval<'a>(operands: &[&Tensor<'a>], act: Act) -> Tensor<'a> {
    let (g, u) = (operands[0].as_f32(), operands[1].as_f32());
    let gate = |g: f32| match act {
        Act::Relu2 => {
            let t = max(g, 0.0);
            t * t
        }
        Act::Silu => g / (1.0 + exp(-g)),
    };
    Tensor::f32(&operands[0].shape, g.iter().zip(u).map(|(g, u)| gate(*g) * u).collect())
}
