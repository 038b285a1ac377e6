//! The three matrix products. Operands in order, optional ones where the attributes say so:
//!
//! * `ternary_linear q, act_scale, w, scale [, bias] [, residual]`: `i8[m, k], f32[m], trit[n, k]` → `f32[m, n]`.
//!   One scale per tensor or row: `y = (f32(acc) · act_scale) · scale` with the exact int32 `acc`. Groups along k:
//!   `r = +0; r = fma(f32(acc_g), scale_g, r)` in increasing g, then `y = r · act_scale`.
//! * `float_ternary_linear x, w, scale [, bias] [, residual]`: `f32[m, k], trit[n, k]`; per group
//!   `r = fma(dot(t, x), scale_g, r)` in increasing g.
//! * `dense_linear x, w [, bias] [, residual] { scale }`: `dot(x, w_row)` over the stored row widened to f32, times
//!   `scale` where that is not 1.
//!
//! Then `+ bias`, then `+ residual`, each rounded. A scale is `f32[1]`, `f32[n]` or `f32[n, k/g]` and multiplies.

use super::{Operands, TypeError};
use crate::numerics::dot;
use crate::tensor::Tensor;
use crate::ty::{DType, ValueType};

pub(super) fn infer_ternary(cx: &Operands, bias: bool, residual: bool) -> Result<Vec<ValueType>, TypeError> {
    let (m, k) = cx.matrix(0, DType::I8)?;
    cx.expect(1, DType::F32, &[m])?;
    let n = ternary_weight(cx, 2, k)?;
    tail(cx, 4, m, n, bias, residual)
}

pub(super) fn infer_float_ternary(cx: &Operands, bias: bool, residual: bool) -> Result<Vec<ValueType>, TypeError> {
    let (m, k) = cx.matrix(0, DType::F32)?;
    let n = ternary_weight(cx, 1, k)?;
    tail(cx, 3, m, n, bias, residual)
}

pub(super) fn infer_dense(cx: &Operands, bias: bool, residual: bool) -> Result<Vec<ValueType>, TypeError> {
    let (m, k) = cx.matrix(0, DType::F32)?;
    let (n, wk) = cx.float_matrix(1)?;
    if wk != k {
        return cx.fail(format!("reduction sizes differ: rows of {k} against weights of {wk}"));
    }
    tail(cx, 2, m, n, bias, residual)
}

/// Checks the trit matrix at operand `i` and its scale at `i + 1`; returns n.
fn ternary_weight(cx: &Operands, i: usize, k: usize) -> Result<usize, TypeError> {
    let (n, wk) = cx.matrix(i, DType::Trit)?;
    if wk != k {
        return cx.fail(format!("reduction sizes differ: rows of {k} against weights of {wk}"));
    }
    let scale = cx.get(i + 1)?;
    let fits = scale.dtype == DType::F32
        && match scale.shape[..] {
            [1] => true,
            [rows] => rows == n,
            [rows, groups] => rows == n && groups > 0 && k.is_multiple_of(groups),
            _ => false,
        };
    if fits { Ok(n) } else { cx.fail(format!("scale is {scale}, expected f32[1], f32[{n}] or f32[{n}, groups]")) }
}

/// Checks the optional operands from `next` on and returns the result type.
fn tail(
    cx: &Operands,
    next: usize,
    m: usize,
    n: usize,
    bias: bool,
    residual: bool,
) -> Result<Vec<ValueType>, TypeError> {
    cx.count(next + usize::from(bias) + usize::from(residual))?;
    if bias {
        cx.expect(next, DType::F32, &[n])?;
    }
    if residual {
        cx.expect(next + usize::from(bias), DType::F32, &[m, n])?;
    }
    Ok(vec![ValueType::f32(&[m, n])])
}

/// `+ bias`, then `+ residual`, on the finished product.
struct Tail<'t, 'a> {
    bias: Option<&'t Tensor<'a>>,
    residual: Option<&'t Tensor<'a>>,
}

impl<'t, 'a> Tail<'t, 'a> {
    fn new(operands: &[&'t Tensor<'a>], next: usize, bias: bool, residual: bool) -> Self {
        Tail { bias: bias.then(|| operands[next]), residual: residual.then(|| operands[next + usize::from(bias)]) }
    }

    fn apply(&self, mut y: f32, n: usize, row: usize, column: usize) -> f32 {
        if let Some(bias) = self.bias {
            y += bias.as_f32()[column];
        }
        if let Some(residual) = self.residual {
            y += residual.as_f32()[row * n + column];
        }
        y
    }
}

fn product<'a>(m: usize, n: usize, tail: &Tail, mut y: impl FnMut(usize, usize) -> f32) -> Tensor<'a> {
    let mut out = Vec::with_capacity(m * n);
    for row in 0..m {
        for column in 0..n {
            out.push(tail.apply(y(row, column), n, row, column));
        }
    }
    Tensor::f32(&[m, n], out)
}

/// Scale of output `column`, group `group`, and the number of groups.
fn scale_at(scale: &Tensor, column: usize, group: usize) -> f32 {
    match scale.shape[..] {
        [1] => scale.as_f32()[0],
        [_] => scale.as_f32()[column],
        [_, groups] => scale.as_f32()[column * groups + group],
        _ => unreachable!("type rule admits one or two extents"),
    }
}

/// Exact int32 dot product of codes and trits.
fn int_dot(q: &[i8], t: &[i8]) -> i32 {
    q.iter().zip(t).map(|(q, t)| i32::from(*q) * i32::from(*t)).sum()
}

pub(super) fn eval_ternary<'a>(operands: &[&Tensor<'a>], bias: bool, residual: bool) -> Tensor<'a> {
    let (q, act, w, scale) = (operands[0], operands[1].as_f32(), operands[2], operands[3]);
    let (m, k, n) = (q.shape[0], q.shape[1], w.shape[0]);
    let (q, w) = (q.as_i8(), w.as_i8());
    let tail = Tail::new(operands, 4, bias, residual);
    product(m, n, &tail, |row, column| {
        let (q, w) = (&q[row * k..][..k], &w[column * k..][..k]);
        match scale.shape[..] {
            [_, groups] => {
                let g = k / groups;
                let mut r = 0.0f32;
                for (group, (q, w)) in q.chunks_exact(g).zip(w.chunks_exact(g)).enumerate() {
                    r = (int_dot(q, w) as f32).mul_add(scale_at(scale, column, group), r);
                }
                r * act[row]
            }
            _ => (int_dot(q, w) as f32 * act[row]) * scale_at(scale, column, 0),
        }
    })
}

pub(super) fn eval_float_ternary<'a>(operands: &[&Tensor<'a>], bias: bool, residual: bool) -> Tensor<'a> {
    let (x, w, scale) = (operands[0], operands[1], operands[2]);
    let (m, k, n) = (x.shape[0], x.shape[1], w.shape[0]);
    let groups = if scale.shape.len() == 2 { scale.shape[1] } else { 1 };
    let tail = Tail::new(operands, 3, bias, residual);
    let trits: Vec<f32> = w.as_i8().iter().map(|t| f32::from(*t)).collect();
    product(m, n, &tail, |row, column| {
        let (x, w) = (&x.as_f32()[row * k..][..k], &trits[column * k..][..k]);
        let g = k / groups;
        let mut r = 0.0f32;
        for (group, (x, w)) in x.chunks_exact(g).zip(w.chunks_exact(g)).enumerate() {
            r = dot(w, x).mul_add(scale_at(scale, column, group), r);
        }
        r
    })
}

pub(super) fn eval_dense<'a>(operands: &[&Tensor<'a>], scale: f32, bias: bool, residual: bool) -> Tensor<'a> {
    let (x, w) = (operands[0], operands[1]);
    let (m, k, n) = (x.shape[0], x.shape[1], w.shape[0]);
    let tail = Tail::new(operands, 2, bias, residual);
    product(m, n, &tail, |row, column| {
        let y = dot(&x.as_f32()[row * k..][..k], &w.floats(column * k..(column + 1) * k));
        if scale == 1.0 { y } else { y * scale }
    })
}
