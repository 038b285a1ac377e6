//! `attention q, k, v, pos { heads, scale }`: causal softmax attention over a cache.
//!
//! `q: f32[m, heads·d]`, `k, v: f32|f16|q8[kv_heads, ctx, d]`, `pos: u32[1]` → `f32[m, heads·d]`. Row r sees positions
//! 0..=pos+r; query head h reads KV head h / (heads / kv_heads). `score_t = dot(q, k_t) · scale`; `mx = max`;
//! `e_t = exp(score_t - mx)`; `l = sum(e)` by absolute position; `acc = fma(e_t, v_t, acc)` in increasing t;
//! `out = acc / l`. Over q8 caches, whose row t is codes and a scale: `score_t = (dot(q, k_codes_t) · k_scale_t) · scale`
//! and `acc = fma(e_t · v_scale_t, v_codes_t, acc)`. Source: Vaswani et al. 2017, arXiv:1706.03762; grouped queries:
//! arXiv:2305.13245.

use std::borrow::Cow;

use super::kv_write::CACHE_TYPES;
use super::{Operands, TypeError};
use crate::numerics::{dot, exp, max, sum};
use crate::tensor::{Data, Tensor};
use crate::ty::{DType, ValueType};

pub(super) fn infer(cx: &Operands, heads: usize) -> Result<Vec<ValueType>, TypeError> {
    cx.count(4)?;
    let (m, k) = cx.matrix(0, DType::F32)?;
    let cache = cx.get(1)?;
    let &[kv_heads, ctx, d] = &cache.shape[..] else {
        return cx.fail(format!("the cache is {cache}, expected three extents"));
    };
    if !CACHE_TYPES.contains(&cache.dtype) {
        return cx.fail(format!("the cache is {cache}, expected f32, f16 or q8"));
    }
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
        let (token, head) = (i / heads, i % heads);
        // Rows past the context are not valid rows; their result is never read.
        let seen = (pos + token + 1).min(ctx);
        let first = head / (heads / kv_heads) * ctx;
        let score = |t| {
            let (key, key_scale) = row(k, first + t);
            scaled(dot(q, &key), key_scale) * scale
        };
        let scores: Vec<f32> = (0..seen).map(score).collect();
        let largest = scores.iter().copied().reduce(max).expect("a row sees itself");
        let e: Vec<f32> = scores.iter().map(|s| exp(s - largest)).collect();
        let l = sum(&e);
        for (t, e) in e.iter().enumerate() {
            let (value, value_scale) = row(v, first + t);
            let e = scaled(*e, value_scale);
            for (acc, v) in out.iter_mut().zip(value.iter()) {
                *acc = e.mul_add(*v, *acc);
            }
        }
        out.iter_mut().for_each(|acc| *acc /= l);
    }
    Tensor::f32(&q.shape, out)
}

/// Row `run` of a cache as floats, without its scale, and its scale where rows have one.
fn row<'t>(cache: &'t Tensor<'_>, run: usize) -> (Cow<'t, [f32]>, Option<f32>) {
    let d = cache.shape[2];
    let at = run * d..(run + 1) * d;
    match &cache.data {
        Data::Q8(codes, scales) => (codes[at].iter().map(|c| f32::from(*c)).collect(), Some(scales[run])),
        Data::F32(_) | Data::F16(_) => (cache.floats(at), None),
        other => unreachable!("type rules admit no cache of {other:?}"),
    }
}

/// `x · scale`, or `x` as it is.
fn scaled(x: f32, scale: Option<f32>) -> f32 {
    scale.map_or(x, |scale| x * scale)
}
