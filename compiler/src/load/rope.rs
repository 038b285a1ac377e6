//! Rotary embedding settings, read from either spelling of the configuration.

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
const FACTORS: std::ops::RangeInclusive<f64> = 1e-3..=1e6;

impl Rope {
    /// Reads `rope_parameters`, or `rope_theta` with `rope_scaling`.
    ///
    /// `half` is half the head size, `positions` the bounds of a context length.
    pub(crate) fn read(
        config: &Keys,
        half: usize,
        positions: std::ops::RangeInclusive<usize>,
    ) -> Result<Self, LoadError> {
        let new = config.object("rope_parameters")?;
        let old = config.object("rope_scaling")?;
        let theta_range = 1.0..=1e12;
        let theta = match &new {
            Some(keys) => keys.number("rope_theta", theta_range.clone())?,
            None => None,
        };
        let theta = match theta {
            Some(theta) => theta,
            None => config.number("rope_theta", theta_range)?.unwrap_or(DEFAULT_THETA),
        };
        config.number("partial_rotary_factor", 1.0..=1.0)?;
        let Some(keys) = new.or(old) else { return Ok(Rope { theta, kind: RopeKind::Default }) };
        keys.number("partial_rotary_factor", 1.0..=1.0)?;
        let (key, kind) = match (keys.string("rope_type")?, keys.string("type")?) {
            (Some(kind), _) => ("rope_type", kind),
            (None, Some(kind)) => ("type", kind),
            (None, None) => ("rope_type", "default"),
        };
        let original = || match keys.count("original_max_position_embeddings", positions.clone())? {
            Some(original) => Ok(original),
            None => config.required("original_max_position_embeddings", positions.clone()),
        };
        let kind = match kind {
            "default" => RopeKind::Default,
            "linear" => RopeKind::Linear { factor: keys.required_number("factor", FACTORS)? },
            "llama3" => RopeKind::Llama3 {
                factor: keys.required_number("factor", FACTORS)?,
                low: keys.required_number("low_freq_factor", FACTORS)?,
                high: keys.required_number("high_freq_factor", FACTORS)?,
                original: original()?,
            },
            "longrope" => RopeKind::LongRope {
                short: keys.numbers("short_factor", half, FACTORS)?,
                long: keys.numbers("long_factor", half, FACTORS)?,
                original: original()?,
                gain: keys.number("attention_factor", FACTORS)?,
            },
            other => return Err(keys.unknown(key, other, &KINDS)),
        };
        if let RopeKind::Llama3 { low, high, .. } = kind
            && low >= high
        {
            return Err(keys.wrong(
                "low_freq_factor",
                &low.into(),
                &format!("a number below high_freq_factor, {high}"),
            ));
        }
        Ok(Rope { theta, kind })
    }
}
