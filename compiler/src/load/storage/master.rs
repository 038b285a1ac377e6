//! Master weights: floats that the model's own code rounds to ternary when it runs.
//!
//! In f32: `inv_scale = 1 / max(mean|W|, 1e-5)`, `T = clamp(round_half_even(W · inv_scale), -1, 1)`,
//! `scale = 1 / inv_scale`, one mean over the whole tensor. The mean is summed in f64 and rounded once.
//! Source: Ma et al. 2024, arXiv:2402.17764, section 2, and `WeightQuant` of the transformers library.

use rayon::prelude::*;

use crate::load::floats::Floats;

/// Smallest mean magnitude, the floor of the published model code.
const ABSMEAN_FLOOR: f32 = 1e-5;

/// `1 / absmean` of `weights`. Rows are summed on their own and then in order, so threads cannot show.
pub(super) fn inv_scale(weights: Floats, k: usize) -> f32 {
    let row_sum = |row: usize| -> f64 {
        let mut values = vec![0.0; k];
        weights.widen(row * k, &mut values);
        values.iter().map(|v| f64::from(v.abs())).sum()
    };
    let sums: Vec<f64> = (0..weights.len() / k).into_par_iter().map(row_sum).collect();
    // Element counts are far below 2^53, and the mean of f32 values fits an f32.
    let absmean = (sums.iter().sum::<f64>() / weights.len() as f64) as f32;
    1.0 / absmean.max(ABSMEAN_FLOOR)
}

/// The codes of `weights` as trits.
pub(super) fn trits(weights: Floats, k: usize, inv_scale: f32) -> Vec<i8> {
    let mut out = vec![0i8; weights.len()];
    out.par_chunks_mut(k).enumerate().for_each(|(row, out)| {
        let mut values = vec![0.0; k];
        weights.widen(row * k, &mut values);
        for (t, v) in out.iter_mut().zip(values) {
            // The clamp makes the cast exact.
            *t = (v * inv_scale).round_ties_even().clamp(-1.0, 1.0) as i8;
        }
    });
    out
}
