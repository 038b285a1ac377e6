//! Unpacked weights: floats `[n, k]` that are the codes -1, 0 and 1 themselves, with a scale beside them.

use rayon::prelude::*;

use crate::load::floats::Floats;

/// The first element that is none of -1, 0 and 1, with its value.
pub(super) fn first_other(weights: Floats, k: usize) -> Option<(usize, f32)> {
    (0..weights.len() / k).into_par_iter().find_map_first(|row| {
        let mut values = vec![0.0; k];
        weights.widen(row * k, &mut values);
        let at = values.iter().position(|v| ![-1.0, 0.0, 1.0].contains(v))?;
        Some((row * k + at, values[at]))
    })
}
