//! `attention q, k, v, pos { heads, scale }`: causal softmax attention over a cache.
//!
//! `q: f32[m, heads·d]`, `k, v: f32|f16[kv_heads, ctx, d]`, `pos: u32[1]` → `f32[m, heads·d]`. Row r sees positions
//! 0..=pos+r; query head h reads KV head h / (heads / kv_heads). `score_t = dot(q, k_t) · scale`; `mx = max`;
//! `e_t = exp(score_t - mx)`; `l = sum(e)` by absolute position; `acc = fma(e_t, v_t, acc)` in increasing t;
//! `out = acc / l`. Source: Vaswani et al. 2017, arXiv:1706.03762; grouped queries: arXiv:2305.13245.

use super::{Operands, TypeError};
use crate::numerics::{dot, exp, max, sum};
use crate::tensor::Tensor;
use crate::ty::{DType, ValueType};

pub(super) fn infer(cx: &Operands, heads: usize) -> Result<Vec<ValueType>, TypeError> {
    cx.count(4)?;
    let (m, k) = cx.matrix(0, DType::F32)?;
    let cache = cx.get(1)?;
    let &[kv_heads, ctx, d] = &cache.shape[..] else {
        return cx.fail(format!("the cache is {cache}, expected three extents"));
    };
    cx.expect(2, cache.dtype, &[kv_heads, ctx, d])?;
    cx.expect(3, DType::U32, &[1])?;
    if k != heads * d || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return cx.fail(format!("rows of {k} do not fill {heads} heads of {d} over {kv_heads} KV heads"));
    }
    Ok(vec![ValueType::f32(&[m, k])])
}

pub(super) fn eval<'a>(operands: &[&Tensor<'a>], heads: usize, scale: f32) -> Tensor<'a> {
    let (q, k, v) = (operands[0], operands[1], operands[2]);
    let pos = operands[3].as_u32()[0] as usize;
    let (kv_heads, ctx, d) = (k.shape[0], k.shape[1], k.shape[2]);
    let mut out = vec![0.0; q.as_f32().len()];
    for (i, (q, out)) in q.as_f32().chunks_exact(d).zip(out.chunks_exact_mut(d)).enumerate() {
        let (row, head) = (i / heads, i % heads);
        // Rows past the context are not valid rows; their result is never read.
        let seen = (pos + row + 1).min(ctx);
        let base = head / (heads / kv_heads) * ctx * d;
        let at = |t: usize| base + t * d..base + (t + 1) * d;
        let scores: Vec<f32> = (0..seen).map(|t| dot(q, &k.floats(at(t))) * scale).collect();
        let largest = scores.iter().copied().reduce(max).expect("a row sees itself");
        let e: Vec<f32> = scores.iter().map(|s| exp(s - largest)).collect();
        let l = sum(&e);
        for (t, e) in e.iter().enumerate() {
            for (acc, v) in out.iter_mut().zip(v.floats(at(t)).iter()) {
                *acc = e.mul_add(*v, *acc);
            }
        }
        out.iter_mut().for_each(|acc| *acc /= l);
    }
    Tensor::f32(&q.shape, out)
}
