//! `embed tokens, table { scale }`: `u32[m], float[vocab, h] → f32[m, h]`, the stored row widened to f32, times
//! `scale` where that is not 1. Ids are checked against `vocab` by the caller.

use super::{Operands, TypeError};
use crate::tensor::Tensor;
use crate::ty::{DType, ValueType};

pub(super) fn infer(cx: &Operands) -> Result<Vec<ValueType>, TypeError> {
    cx.count(2)?;
    let m = cx.vector(0, DType::U32)?;
    let (_, h) = cx.float_matrix(1)?;
    Ok(vec![ValueType::f32(&[m, h])])
}

pub(super) fn eval<'a>(operands: &[&Tensor<'a>], scale: f32) -> Tensor<'a> {
    let (ids, table) = (operands[0].as_u32(), operands[1]);
    let h = table.shape[1];
    let mut out = Vec::with_capacity(ids.len() * h);
    for &id in ids {
        let start = id as usize * h;
        out.extend(table.floats(start..start + h).iter().map(|v| if scale == 1.0 { *v } else { v * scale }));
    }
    Tensor::f32(&[ids.len(), h], out)
}
