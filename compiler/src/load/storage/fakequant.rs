//! Fake-quantized weights: floats that already are scale · {-1, 0, 1}, one scale per tensor, row or group.
//!
//! The group is detected: the first of whole tensor, row, 256, 128, 64, 32 and 16 columns in which every non-zero
//! magnitude equals its group's largest, bit for bit. Such weights are never rounded again: their signs are the
//! codes and the magnitude is the scale (0 for a group of zeros).

use rayon::prelude::*;

use crate::load::floats::Floats;

/// Group sizes along k that are looked for, after whole tensor and row.
const GROUPS: [usize; 5] = [256, 128, 64, 32, 16];

/// Over what one scale holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Granularity {
    /// The whole tensor; its scale.
    Tensor(f32),
    /// One row of k columns.
    Row,
    /// This many columns of one row.
    Group(usize),
}

/// The granularity of `weights`, `[n, k]`, or `None` if they are not ternary.
pub(super) fn detect(weights: Floats, k: usize) -> Option<Granularity> {
    let sizes: Vec<usize> =
        std::iter::once(k).chain(GROUPS.into_iter().filter(|g| *g < k && k.is_multiple_of(*g))).collect();
    let rows = (0..weights.len() / k).into_par_iter().map(|row| {
        let mut values = vec![0.0; k];
        weights.widen(row * k, &mut values);
        values.iter_mut().for_each(|v| *v = v.abs());
        // A size that fits makes every smaller one fit, as each divides the one before.
        let level = sizes.iter().position(|g| values.chunks_exact(*g).all(|group| magnitude(group).is_some()))?;
        Some(Row { level, magnitude: magnitude(&values) })
    });
    let whole = rows.try_reduce(Row::zeros, |a, b| Some(a.join(b)))?;
    Some(match (whole.level, whole.magnitude) {
        (0, Some(magnitude)) => Granularity::Tensor(magnitude),
        (0, None) => Granularity::Row,
        (level, _) => Granularity::Group(sizes[level]),
    })
}

/// What is known about one row, or several together.
#[derive(Clone, Copy)]
struct Row {
    /// Index of the largest size that fits.
    level: usize,
    /// The one non-zero magnitude (0 where there are only zeros), `None` if there are several.
    magnitude: Option<f32>,
}

impl Row {
    fn zeros() -> Self {
        Row { level: 0, magnitude: Some(0.0) }
    }

    fn join(self, other: Row) -> Row {
        let magnitude = match (self.magnitude, other.magnitude) {
            (Some(a), Some(b)) if a == b || b == 0.0 => Some(a),
            (Some(0.0), Some(b)) => Some(b),
            (Some(_), Some(_)) | (None, _) | (_, None) => None,
        };
        Row { level: self.level.max(other.level), magnitude }
    }
}

/// The one non-zero value among `magnitudes`, 0 if there is none, `None` if there are several.
fn magnitude(magnitudes: &[f32]) -> Option<f32> {
    let mut nonzero = magnitudes.iter().filter(|v| **v != 0.0);
    let first = nonzero.next().copied().unwrap_or(0.0);
    nonzero.all(|v| *v == first).then_some(first)
}

/// The codes of `weights` as trits.
pub(super) fn trits(weights: Floats, k: usize) -> Vec<i8> {
    let mut out = vec![0i8; weights.len()];
    out.par_chunks_mut(k).enumerate().for_each(|(row, out)| {
        let mut values = vec![0.0; k];
        weights.widen(row * k, &mut values);
        for (t, v) in out.iter_mut().zip(values) {
            *t = i8::from(v > 0.0) - i8::from(v < 0.0);
        }
    });
    out
}

/// The scales of `weights` for groups of `group` columns, in row-major order.
pub(super) fn scales(weights: Floats, group: usize) -> Vec<f32> {
    let scale = |at: usize| {
        let mut values = vec![0.0; group];
        weights.widen(at * group, &mut values);
        tcc_ir::numerics::absmax(&values)
    };
    (0..weights.len() / group).into_par_iter().map(scale).collect()
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::*;

    const K: usize = 512;

    /// Three rows whose scale changes every `group` columns (`None`: never), with zeros of both signs.
    fn weights(group: Option<usize>) -> Vec<u8> {
        let value = |i: usize| {
            let scale = group.map_or(1.5, |g| 1.0 + (i / g) as f32);
            scale * [-1.0, 0.0, 1.0, -0.0, 1.0][i % 5]
        };
        (0..3 * K).flat_map(|i| value(i).to_le_bytes()).collect()
    }

    fn detected(bytes: &[u8], k: usize) -> Option<Granularity> {
        detect(Floats::new(Dtype::F32, bytes).expect("f32 is a float"), k)
    }

    #[test]
    fn every_granularity_is_detected() {
        assert_eq!(detected(&weights(None), K), Some(Granularity::Tensor(1.5)));
        assert_eq!(detected(&weights(Some(K)), K), Some(Granularity::Row));
        for group in GROUPS {
            assert_eq!(detected(&weights(Some(group)), K), Some(Granularity::Group(group)));
        }
        assert_eq!(detected(&weights(Some(8)), K), None);
    }

    #[test]
    fn a_group_that_does_not_divide_k_is_no_group() {
        assert_eq!(detected(&weights(Some(16))[..4 * 24], 24), None);
        assert_eq!(detected(&weights(Some(24))[..4 * 48], 24), Some(Granularity::Row));
    }

    #[test]
    fn zeros_are_ternary_and_one_ulp_is_not() {
        assert_eq!(detected(&vec![0; 4 * K], K), Some(Granularity::Tensor(0.0)));
        let mut bytes = weights(None);
        bytes[4 * 7] ^= 1;
        assert_eq!(detected(&bytes, K), None);
    }

    #[test]
    fn codes_are_signs_and_scales_magnitudes() {
        let mut bytes = weights(Some(32));
        bytes[4 * 32..4 * 64].fill(0);
        let floats = Floats::new(Dtype::F32, &bytes).expect("f32 is a float");
        assert_eq!(trits(floats, K)[..5], [-1, 0, 1, 0, 1]);
        assert_eq!(scales(floats, 32)[..3], [1.0, 0.0, 3.0]);
    }
}
