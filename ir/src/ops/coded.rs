//! The ops that read a float table through its codes ([`crate::coded`]): lossy, and so never chosen unless asked for.
//!
//! * `coded_embed tokens, table { scale, code }`: `u32[m], float[vocab, h]` → `f32[m, h]`, what the codes of the row stand
//!   for, times `scale` where that is not 1.
//! * `coded_linear x, w { code }`: `f32[m, k], float[n, k]` → `f32[m, n]`. Each row of x is quantized to int8 in groups of
//!   32 columns (`screen::query`); sums of a group are exact, and `r = fma(f32(sum), scales, r)` in increasing groups. With
//!   eight bits the row's scale multiplies at the end; last, 0 times the norm of the row of x is added, so that what is not
//!   finite shows.

use crate::coded::RowCode;
use crate::coded::row::Row;
use crate::screen::ScreenLayout;
use crate::screen::query::query;
use crate::tensor::Tensor;

pub(super) fn eval_embed<'a>(operands: &[&Tensor<'a>], scale: f32, code: RowCode) -> Tensor<'a> {
    let (ids, table) = (operands[0].as_u32(), operands[1]);
    let h = table.shape[1];
    let mut out = Vec::with_capacity(ids.len() * h);
    for &id in ids {
        let start = id as usize * h;
        let row = Row::new(code, &table.floats(start..start + h));
        out.extend((0..h).map(|i| row.weight(i)).map(|v| if scale == 1.0 { v } else { v * scale }));
    }
    Tensor::f32(&[ids.len(), h], out)
}

pub(super) fn eval_linear<'a>(operands: &[&Tensor<'a>], code: RowCode) -> Tensor<'a> {
    let (x, w) = (operands[0], operands[1]);
    let (m, k, n) = (x.shape[0], x.shape[1], w.shape[0]);
    let queries: Vec<_> = x.as_f32().chunks_exact(k).map(|x| query(&ScreenLayout { n, k }, x)).collect();
    let mut out = vec![0.0; m * n];
    for column in 0..n {
        let row = Row::new(code, &w.floats(column * k..(column + 1) * k));
        for (i, query) in queries.iter().enumerate() {
            out[i * n + column] = row.logit(query);
        }
    }
    Tensor::f32(&[m, n], out)
}
