//! Tables of the rotary embedding.
//!
//! As the published model code does, frequencies and angles are f32: `p = f32(theta^(2i/d))`, `1/p`, scaled by the
//! kind, and `angle = f32(pos · inv_freq)`. Cosine and sine of that f32 angle are computed in f64 and rounded once.
//! Angles in f64 would drift from the trained model by 2.8e-4 at 4096 positions.
//! Source: Su et al. 2021, arXiv:2104.09864; the scalings: Llama 3.1's and LongRoPE's (arXiv:2402.13753) model code.

use std::f32::consts::TAU;

use crate::load::config::Config;
use crate::load::rope::{Rope, RopeKind};

/// Cosines and sines, each `[ctx, d/2]` row-major.
pub(super) struct Tables {
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
}

/// The tables of `config` for positions below `ctx`.
pub(super) fn tables(config: &Config, ctx: usize) -> Tables {
    let inv_freq = inv_freq(&config.rope, config.head_dim, config.max_position);
    let gain = gain(&config.rope.kind, config.max_position);
    let mut tables = Tables { cos: Vec::new(), sin: Vec::new() };
    for pos in 0..ctx {
        for frequency in &inv_freq {
            // Positions are below 2^27; above 2^24 the f32 position rounds as it does in the model's own code.
            let angle = f64::from(pos as f32 * frequency);
            tables.cos.push(libm::cos(angle) as f32 * gain);
            tables.sin.push(libm::sin(angle) as f32 * gain);
        }
    }
    tables
}

/// Radians per position of each rotated pair, `[d/2]`.
fn inv_freq(rope: &Rope, head_dim: usize, max_position: usize) -> Vec<f32> {
    let base = |i: usize| {
        let exponent = (2 * i) as f32 / head_dim as f32;
        // The power of the f32 base, correctly rounded to f32 but for rare ties of the f64 result.
        let p = libm::pow(f64::from(rope.theta as f32), f64::from(exponent)) as f32;
        1.0 / p
    };
    let scaled = |i: usize| match &rope.kind {
        RopeKind::Default => base(i),
        RopeKind::Linear { factor } => base(i) / *factor as f32,
        RopeKind::Llama3 { factor, low, high, original } => {
            llama3(base(i), *factor as f32, *low as f32, *high as f32, *original as f32)
        }
        // The cache is as long as the configuration says, so its length decides, not the text's.
        RopeKind::LongRope { short, long, original, .. } => {
            base(i) / (if max_position > *original { long[i] } else { short[i] }) as f32
        }
    };
    (0..head_dim / 2).map(scaled).collect()
}

/// Long wavelengths are stretched by `factor`, short ones kept, those between interpolated.
fn llama3(inv_freq: f32, factor: f32, low: f32, high: f32, original: f32) -> f32 {
    let wavelength = TAU / inv_freq;
    if wavelength > original / low {
        inv_freq / factor
    } else if wavelength < original / high {
        inv_freq
    } else {
        let smooth = (original / wavelength - low) / (high - low);
        (1.0 - smooth) * inv_freq / factor + smooth * inv_freq
    }
}

/// Factor on cosines and sines.
fn gain(kind: &RopeKind, max_position: usize) -> f32 {
    match kind {
        RopeKind::Default | RopeKind::Linear { .. } | RopeKind::Llama3 { .. } => 1.0,
        RopeKind::LongRope { gain: Some(gain), .. } => *gain as f32,
        RopeKind::LongRope { original, gain: None, .. } => {
            let stretch = max_position as f64 / *original as f64;
            if stretch > 1.0 { libm::sqrt(1.0 + libm::log(stretch) / libm::log(*original as f64)) as f32 } else { 1.0 }
        }
    }
}
