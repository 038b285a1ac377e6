//! `rope x, cos, sin, pos`: `f32[m, heads·d], f32[ctx, d/2], f32[ctx, d/2], u32[1] → f32[m, heads·d]`.
//!
//! Rotate-half pairs (i, i + d/2) of each head, row r at position pos + r:
//! `y1 = x1·c - x2·s`, `y2 = x2·c + x1·s`, each product rounded on its own. Rows past the table are left as zeros;
//! the caller keeps valid rows inside it. Source: Su et al. 2021, arXiv:2104.09864.

use super::{Operands, TypeError};
use crate::tensor::Tensor;
use crate::ty::{DType, ValueType};

pub(super) fn infer(cx: &Operands) -> Result<Vec<ValueType>, TypeError> {
    cx.count(4)?;
    let (m, k) = cx.matrix(0, DType::F32)?;
    let (ctx, half) = cx.matrix(1, DType::F32)?;
    cx.expect(2, DType::F32, &[ctx, half])?;
    cx.expect(3, DType::U32, &[1])?;
    if half == 0 || k % (2 * half) != 0 {
        return cx.fail(format!("{k} columns are not a whole number of heads of {}", 2 * half));
    }
    Ok(vec![ValueType::f32(&[m, k])])
}

pub(super) fn eval<'a>(operands: &[&Tensor<'a>]) -> Tensor<'a> {
    let (x, cos, sin) = (operands[0], operands[1].as_f32(), operands[2].as_f32());
    let pos = operands[3].as_u32()[0] as usize;
    let (k, ctx, half) = (x.shape[1], operands[1].shape[0], operands[1].shape[1]);
    let mut out = vec![0.0; x.as_f32().len()];
    for (row, (x, y)) in x.as_f32().chunks_exact(k).zip(out.chunks_exact_mut(k)).enumerate() {
        if pos + row >= ctx {
            break;
        }
        let table = (pos + row) * half..(pos + row + 1) * half;
        let (cos, sin) = (&cos[table.clone()], &sin[table]);
        for (x, y) in x.chunks_exact(2 * half).zip(y.chunks_exact_mut(2 * half)) {
            for i in 0..half {
                let (x1, x2) = (x[i], x[i + half]);
                y[i] = x1 * cos[i] - x2 * sin[i];
                y[i + half] = x2 * cos[i] + x1 * sin[i];
            }
        }
    }
    Tensor::f32(&x.shape, out)
}
