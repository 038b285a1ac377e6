//! The five ways a linear's weights are stored, told apart and read as one thing: trits and a scale that multiplies.
//!
//! **Invariant:** nothing outside this folder knows which of the five a checkpoint used.

mod fakequant;
mod master;
mod packed;
mod unpacked;

use safetensors::Dtype;
use tcc_ir::ty::DType;

use self::fakequant::Granularity;
use super::checkpoint::{Checkpoint, Stored};
use super::config::Quantization;
use super::error::LoadError;
use super::floats::Floats;
use super::{DensePolicy, LinearSpec};

/// What the configuration says about a linear.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Convention<'a> {
    /// `quantization_config`, unless it leaves this linear out.
    pub quantization: Option<&'a Quantization>,
    /// Float weights are masters whatever the configuration says.
    pub masters: bool,
    pub dense: DensePolicy,
}

impl Convention<'_> {
    /// True if the model's own code rounds the activations of such a linear to int8.
    pub fn quantizes_activations(&self) -> bool {
        self.quantization.is_some() || self.masters
    }
}

/// How a linear's weights are stored, with what reading them needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Storage {
    Packed { scale: f32 },
    Unpacked { scale: f32 },
    Master { inv_scale: f32 },
    FakeQuant(Granularity),
    Dense(DType),
}

impl Storage {
    /// The kind's name for reports.
    pub fn name(self) -> &'static str {
        match self {
            Storage::Packed { .. } => "packed",
            Storage::Unpacked { .. } => "offline-unpacked",
            Storage::Master { .. } => "master",
            Storage::FakeQuant(_) => "fakequant",
            Storage::Dense(_) => "dense",
        }
    }

    /// Shape of the scale of `n` rows of `k`; `None` for dense weights.
    pub fn scale_shape(self, n: usize, k: usize) -> Option<Vec<usize>> {
        match self {
            Storage::Packed { .. } | Storage::Unpacked { .. } | Storage::Master { .. } => Some(vec![1]),
            Storage::FakeQuant(Granularity::Tensor(_)) => Some(vec![1]),
            Storage::FakeQuant(Granularity::Row) => Some(vec![n]),
            Storage::FakeQuant(Granularity::Group(g)) => Some(vec![n, k / g]),
            Storage::Dense(_) => None,
        }
    }
}

/// Finds out how `linear` is stored and checks every element of it.
pub(crate) fn classify(
    checkpoint: &Checkpoint,
    linear: &LinearSpec,
    convention: &Convention,
    warnings: &mut Vec<String>,
) -> Result<Storage, LoadError> {
    let weight = checkpoint.get(&linear.weight(), &format!("a matrix of {} by {}", linear.n, linear.k))?;
    let has_scale = checkpoint.contains(&linear.scale());
    if weight.dtype == Dtype::U8 {
        return packed(checkpoint, linear, &weight, convention, warnings);
    }
    let quantization = convention.quantization;
    let unpacked = quantization.is_some_and(|q| !q.online && !q.divides);
    if has_scale && !unpacked {
        return Err(weight.mistyped(format!("packed U8 weights, because '{}' is stored", linear.scale())));
    }
    if quantization.is_some_and(|q| !q.online) && Floats::new(weight.dtype, weight.bytes).is_none() {
        return Err(weight.mistyped(format!("U8 with four of the {} rows to a byte", linear.n)));
    }
    let floats = checkpoint.floats(&linear.weight(), &[linear.n, linear.k])?;
    if let Some((element, found)) = floats.first_non_finite() {
        return Err(weight.bad_value(element, found, "finite weights"));
    }
    if has_scale {
        return self::unpacked(checkpoint, linear, &weight, floats, warnings);
    }
    if convention.masters || quantization.is_some_and(|q| q.online) {
        return Ok(Storage::Master { inv_scale: master::inv_scale(floats, linear.k) });
    }
    if quantization.is_some() {
        return Err(scale_missing(linear, &weight));
    }
    match (fakequant::detect(floats, linear.k), convention.dense) {
        (Some(granularity), _) => Ok(Storage::FakeQuant(granularity)),
        (None, DensePolicy::Keep) => Ok(Storage::Dense(floats.dtype())),
        (None, DensePolicy::Refuse) => {
            Err(LoadError::NotTernary { file: weight.file.to_owned(), tensor: linear.weight(), found: weight.ty() })
        }
    }
}

fn packed(
    checkpoint: &Checkpoint,
    linear: &LinearSpec,
    weight: &Stored,
    convention: &Convention,
    warnings: &mut Vec<String>,
) -> Result<Storage, LoadError> {
    let (n, k) = (linear.n, linear.k);
    let Some(rows) = packed::packed_rows(n) else {
        return Err(weight.mistyped(format!("a number of rows that four divides, not {n}")));
    };
    if weight.shape != [rows, k] {
        return Err(weight.mistyped(format!("U8 {:?}: {n} rows, four to a byte", [rows, k])));
    }
    let Some(quantization) = convention.quantization else {
        return Err(weight.mistyped("float weights, because config.json has no quantization_config for them".into()));
    };
    if !checkpoint.contains(&linear.scale()) {
        return Err(scale_missing(linear, weight));
    }
    if let Some((row, column)) = packed::first_code_3(weight.bytes, n, k) {
        return Err(LoadError::Code { file: weight.file.to_owned(), tensor: linear.weight(), row, column });
    }
    let scale = stored_scale(checkpoint, linear)?;
    warn_if_inverted(linear, scale, quantization.divides, warnings);
    Ok(Storage::Packed { scale: if quantization.divides { 1.0 / scale } else { scale } })
}

fn unpacked(
    checkpoint: &Checkpoint,
    linear: &LinearSpec,
    weight: &Stored,
    floats: Floats,
    warnings: &mut Vec<String>,
) -> Result<Storage, LoadError> {
    if let Some((element, found)) = unpacked::first_other(floats, linear.k) {
        return Err(weight.bad_value(element, found, "-1, 0 or 1, because a scale is stored beside the weights"));
    }
    let scale = stored_scale(checkpoint, linear)?;
    warn_if_inverted(linear, scale, false, warnings);
    Ok(Storage::Unpacked { scale })
}

fn scale_missing(linear: &LinearSpec, weight: &Stored) -> LoadError {
    LoadError::ScaleMissing { file: weight.file.to_owned(), tensor: linear.weight(), scale: linear.scale() }
}

/// The one stored scale of `linear`, in the file's convention; its reciprocal is finite too.
fn stored_scale(checkpoint: &Checkpoint, linear: &LinearSpec) -> Result<f32, LoadError> {
    let name = linear.scale();
    let stored = checkpoint.get(&name, "a scale")?;
    let floats = Floats::new(stored.dtype, stored.bytes).filter(|f| f.len() == 1);
    let scale = floats.ok_or_else(|| stored.mistyped("one BF16, F16 or F32 number".into()))?.to_vec()[0];
    if scale.is_normal() && scale > 0.0 && (1.0 / scale).is_normal() {
        Ok(scale)
    } else {
        Err(stored.bad_value(0, scale, "a positive finite scale"))
    }
}

/// Trained weights have an absmean far below 1, so a scale on the wrong side of 1 suggests the other convention.
fn warn_if_inverted(linear: &LinearSpec, scale: f32, divides: bool, warnings: &mut Vec<String>) {
    let (verb, suspicious) = if divides { ("divides", scale < 1.0) } else { ("multiplies", scale > 1.0) };
    if suspicious {
        warnings.push(format!(
            "'{}' is {scale} and {verb}: weights of such size are unusual; check linear_class in config.json",
            linear.scale()
        ));
    }
}

/// The weights of `linear` as trits `[n, k]`, row-major. Panics for dense storage, which has none.
pub(crate) fn trits(checkpoint: &Checkpoint, linear: &LinearSpec, storage: Storage) -> Result<Vec<i8>, LoadError> {
    let (n, k) = (linear.n, linear.k);
    let floats = || checkpoint.floats(&linear.weight(), &[n, k]);
    Ok(match storage {
        Storage::Packed { .. } => packed::trits(checkpoint.get(&linear.weight(), "packed weights")?.bytes, n, k),
        Storage::Unpacked { .. } | Storage::FakeQuant(_) => fakequant::trits(floats()?, k),
        Storage::Master { inv_scale } => master::trits(floats()?, k, inv_scale),
        Storage::Dense(_) => panic!("'{}' is dense and has no trits", linear.name),
    })
}

/// The multiplying scales of `linear` in the shape of [`Storage::scale_shape`]. Panics for dense storage.
pub(crate) fn scales(checkpoint: &Checkpoint, linear: &LinearSpec, storage: Storage) -> Result<Vec<f32>, LoadError> {
    let (n, k) = (linear.n, linear.k);
    let floats = || checkpoint.floats(&linear.weight(), &[n, k]);
    Ok(match storage {
        Storage::Packed { scale } | Storage::Unpacked { scale } => vec![scale],
        Storage::Master { inv_scale } => vec![1.0 / inv_scale],
        Storage::FakeQuant(Granularity::Tensor(scale)) => vec![scale],
        Storage::FakeQuant(Granularity::Row) => fakequant::scales(floats()?, k),
        Storage::FakeQuant(Granularity::Group(g)) => fakequant::scales(floats()?, g),
        Storage::Dense(_) => panic!("'{}' is dense and has no scale", linear.name),
    })
}
