//! Rotary embedding settings, read from either spelling of the configuration.

use std::ops::RangeInclusive;

use super::error::LoadError;
use super::keys::Keys;

/// Base and frequency scaling of the rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    pub theta: f64,
    pub kind: RopeKind,
}

/// How the base frequencies become those of the model.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeKind {
    Default,
    /// All frequencies over `factor`.
    Linear {
        factor: f64,
    },
    /// Low frequencies over `factor`, high ones unchanged, a ramp between.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: usize,
    },
    /// One factor per frequency, chosen by whether the longest position exceeds `original`, and a gain.
    LongRope {
        short: Vec<f64>,
        long: Vec<f64>,
        original: usize,
        gain: Option<f64>,
    },
}

const KINDS: [&str; 4] = ["default", "linear", "llama3", "longrope"];
const DEFAULT_THETA: f64 = 10000.0;
const THETAS: RangeInclusive<f64> = 1.0..=1e12;
const FACTORS: RangeInclusive<f64> = 1e-3..=1e6;

impl Rope {
    /// Reads `rope_parameters`, or `rope_theta` with `rope_scaling`.
    ///
    /// `half` is half the head size, `longest` the largest acceptable context.
    pub(crate) fn read(config: &Keys, half: usize, longest: usize) -> Result<Self, LoadError> {
        let new = config.object("rope_parameters")?;
        let old = config.object("rope_scaling")?;
        let theta = match &new {
            Some(keys) => keys.number("rope_theta", THETAS)?,
            None => None,
        };
        let theta = theta.or(config.number("rope_theta", THETAS)?).unwrap_or(DEFAULT_THETA);
        config.number("partial_rotary_factor", 1.0..=1.0)?;
        let names_kind = |keys: &Keys| keys.get("rope_type").or(keys.get("type")).is_some();
        let scaling = new.filter(names_kind).or(old);
        let kind = match &scaling {
            Some(keys) => RopeKind::read(keys, config, half, longest)?,
            None => RopeKind::Default,
        };
        Ok(Rope { theta, kind })
    }
}

impl RopeKind {
    /// Reads the kind and its numbers from `keys`; `config` may hold the original context instead.
    fn read(keys: &Keys, config: &Keys, half: usize, longest: usize) -> Result<Self, LoadError> {
        keys.number("partial_rotary_factor", 1.0..=1.0)?;
        let (key, kind) = match (keys.string("rope_type")?, keys.string("type")?) {
            (Some(kind), _) => ("rope_type", kind),
            (None, Some(kind)) => ("type", kind),
            (None, None) => ("rope_type", "default"),
        };
        // Its logarithm divides the gain of longrope, so one position is too few.
        let original = || match keys.count("original_max_position_embeddings", 2..=longest)? {
            Some(original) => Ok(original),
            None => config.required("original_max_position_embeddings", 2..=longest),
        };
        match kind {
            "default" => Ok(RopeKind::Default),
            "linear" => Ok(RopeKind::Linear { factor: keys.required_number("factor", FACTORS)? }),
            "llama3" => {
                let high = keys.required_number("high_freq_factor", FACTORS)?;
                let low = keys.required_number("low_freq_factor", FACTORS)?;
                if low >= high {
                    let expected = format!("a number below high_freq_factor, {high}");
                    return Err(keys.wrong("low_freq_factor", &low.into(), &expected));
                }
                let factor = keys.required_number("factor", FACTORS)?;
                Ok(RopeKind::Llama3 { factor, low, high, original: original()? })
            }
            "longrope" => Ok(RopeKind::LongRope {
                short: keys.numbers("short_factor", half, FACTORS)?,
                long: keys.numbers("long_factor", half, FACTORS)?,
                original: original()?,
                gain: keys.number("attention_factor", FACTORS)?,
            }),
            other => Err(keys.unknown(key, other, &KINDS)),
        }
    }
}
