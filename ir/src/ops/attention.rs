//! `attention q, k, v, pos { heads, scale }`: causal softmax attention over a cache.
//!
//! `q: f32[m, heads·d]`, `k, v: f32|f16|q8[kv_heads, ctx, d]`, `pos: u32[1]` → `f32[m, heads·d]`. Row r sees positions
//! 0..=pos+r; query head h reads KV head h / (heads / kv_heads). `score_t = dot(q, k_t) · scale`; `mx = max`;
//! `e_t = exp(score_t - mx)`; `l = sum(e)` by absolute position; `acc = fma(e_t, v_t, acc)` in increasing t;
//! `out = acc / l`.
//!
//! Over q8 caches, whose row t is codes and a scale, queries and weights become codes too ([`attention_codes`]), and
//! sums are integers: `score_t = ((f32(Σ q_codes · k_codes_t) · q_scale) · k_scale_t) · scale`; `w_t = e_t · v_scale_t`;
//! `out = total(Σ w_codes_t · v_codes_t) · (w_scale / l)`.
//!
//! Source: Vaswani et al. 2017, arXiv:1706.03762; grouped queries: arXiv:2305.13245.

use std::borrow::Cow;

use super::kv_write::CACHE_TYPES;
use super::{Operands, TypeError};
use crate::attention_codes::{self, MOST_ELEMENTS, MOST_POSITIONS};
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
    if cache.dtype == DType::Q8 && (d > MOST_ELEMENTS || ctx > MOST_POSITIONS) {
        let limits = format!("at most {MOST_POSITIONS} positions of at most {MOST_ELEMENTS} elements");
        return cx.fail(format!("the cache is {cache}, expected {limits}: sums of more codes could overflow"));
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
        match (coded_rows(k, first, seen), coded_rows(v, first, seen)) {
            (Some(k), Some(v)) => over_codes(q, k, v, scale, out),
            _ => over_floats(q, [k, v].map(|cache| cache.floats(first * d..(first + seen) * d)), scale, out),
        }
    }
    Tensor::f32(&q.shape, out)
}

/// Attention of one query over rows of keys and values.
fn over_floats(q: &[f32], [k, v]: [Cow<'_, [f32]>; 2], scale: f32, out: &mut [f32]) {
    let scores: Vec<f32> = k.chunks_exact(q.len()).map(|key| dot(q, key) * scale).collect();
    let (e, l) = exponentials(&scores);
    for (e, value) in e.iter().zip(v.chunks_exact(q.len())) {
        for (acc, v) in out.iter_mut().zip(value) {
            *acc = e.mul_add(*v, *acc);
        }
    }
    out.iter_mut().for_each(|acc| *acc /= l);
}

/// The same over rows of codes with a scale each.
fn over_codes(q: &[f32], k: CodedRows, v: CodedRows, scale: f32, out: &mut [f32]) {
    let (codes, q_scale) = attention_codes::query(q);
    let score = |(key, k_scale): (&[i8], &f32)| attention_codes::dot(&codes, key) as f32 * q_scale * k_scale * scale;
    let scores: Vec<f32> = k.rows(q.len()).map(score).collect();
    let (e, l) = exponentials(&scores);
    let w: Vec<f32> = e.iter().zip(v.scales).map(|(e, v_scale)| e * v_scale).collect();
    let (w, w_scale) = attention_codes::weights(&w);
    let mut sums = vec![0; out.len()];
    for (w, (value, _)) in w.iter().zip(v.rows(q.len())) {
        for (sum, v) in sums.iter_mut().zip(value) {
            *sum += i64::from(*w) * i64::from(*v);
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = attention_codes::total(sum) * (w_scale / l);
    }
}

/// The exponentials of what each score is above the largest, and their sum.
fn exponentials(scores: &[f32]) -> (Vec<f32>, f32) {
    let largest = scores.iter().copied().reduce(max).expect("a row sees itself");
    let e: Vec<f32> = scores.iter().map(|s| exp(s - largest)).collect();
    let l = sum(&e);
    (e, l)
}

/// Rows of codes, a scale for each.
struct CodedRows<'t> {
    codes: &'t [i8],
    scales: &'t [f32],
}

impl CodedRows<'_> {
    /// Each row of `d` codes, and its scale.
    fn rows(&self, d: usize) -> impl Iterator<Item = (&[i8], &f32)> {
        self.codes.chunks_exact(d).zip(self.scales)
    }
}

/// `count` rows of a q8 cache from row `first` on; `None` of another cache.
fn coded_rows<'t>(cache: &'t Tensor<'_>, first: usize, count: usize) -> Option<CodedRows<'t>> {
    let d = cache.shape[2];
    match &cache.data {
        Data::Q8(codes, scales) => {
            Some(CodedRows { codes: &codes[first * d..(first + count) * d], scales: &scales[first..first + count] })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes of queries and weights add little to what the cache's own codes lose, of which a step is 0.02 here: eight
    /// bits for either would be off by more.
    #[test]
    fn codes_are_close_to_floats() {
        let (d, positions) = (64, 300);
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        for scale in [0.05, 0.5] {
            let q: Vec<f32> = (0..d).map(|_| random()).collect();
            let codes: [Vec<i8>; 2] = [(); 2].map(|()| (0..d * positions).map(|_| (random() * 127.0) as i8).collect());
            let scales: [Vec<f32>; 2] = [(); 2].map(|()| (0..positions).map(|_| 0.02 + 0.01 * random()).collect());
            let [k, v] = [0, 1].map(|i| CodedRows { codes: &codes[i], scales: &scales[i] });
            let mut found = vec![0.0; d];
            over_codes(&q, k, v, scale, &mut found);
            let wide = [0, 1].map(|i| {
                let element = |(at, code): (usize, &i8)| f32::from(*code) * scales[i][at / d];
                Cow::from(codes[i].iter().enumerate().map(element).collect::<Vec<f32>>())
            });
            let mut expected = vec![0.0; d];
            over_floats(&q, wide, scale, &mut expected);
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 0.001, "{found} {expected} at scale {scale}");
            }
        }
    }
}
