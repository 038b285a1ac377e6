//! Files to types: opens a checkpoint, checks all of it, and hands back a [`Model`] that knows no file format.
//!
//! Everything that can be wrong with the files is found here, before anything is written: headers, configuration,
//! tensor names and shapes, codes, scales, and whether the weights are ternary at all. Data is mapped, read by all
//! cores once for these checks, and read again tensor by tensor when it is needed.

pub mod config;
pub mod error;
pub mod keys;
pub mod rope;

pub(crate) mod checkpoint;
pub(crate) mod floats;
mod header;
mod json;
pub(crate) mod storage;
pub mod text;

use std::collections::BTreeSet;
use std::path::Path;

use rayon::prelude::*;

use self::checkpoint::Checkpoint;
use self::config::Config;
use self::error::LoadError;
use self::storage::{Convention, Storage};
use crate::arch::{self, Family};
use crate::model::{Activations, Linear, Model, TableRef};

/// What to do with linears that are not ternary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DensePolicy {
    /// Such a checkpoint is an error.
    #[default]
    Refuse,
    /// Compile them as they are stored.
    Keep,
}

/// Choices of the user about loading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    pub dense: DensePolicy,
    /// Activations of ternary linears; by default what the model's own code does.
    pub activations: Option<Activations>,
}

/// Name and shape of a linear, `[n, k]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearSpec {
    /// The full name without `.weight`.
    pub name: String,
    pub n: usize,
    pub k: usize,
}

impl LinearSpec {
    pub fn weight(&self) -> String {
        format!("{}.weight", self.name)
    }

    pub fn scale(&self) -> String {
        format!("{}.weight_scale", self.name)
    }

    pub fn bias(&self) -> String {
        format!("{}.bias", self.name)
    }

    pub fn norm(&self) -> String {
        format!("{}.rms_norm.weight", self.name)
    }
}

/// Opens the model at `path`: a folder, a shard index, or one `.safetensors` file with `config.json` beside it.
pub fn open(path: &Path, options: &LoadOptions) -> Result<Model, LoadError> {
    let checkpoint = Checkpoint::open(path)?;
    let mut warnings = Vec::new();
    let config = config::read(&checkpoint.folder, &mut warnings)?;
    let generation = config::read_generation(&checkpoint.folder, &config, &mut warnings)?;
    let text = text::read(&checkpoint.folder, &mut warnings)?;
    let family = arch::family(&config)?;
    let specs = arch::layout::linears(&config);
    // All of them first, so that the error is the first one by order and not by time.
    let linears: Vec<_> =
        specs.into_par_iter().map(|spec| linear(&checkpoint, spec, &config, &family, options)).collect();
    let linears = linears.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (linears, found): (Vec<Linear>, Vec<Vec<String>>) = linears.into_iter().unzip();
    warnings.extend(found.into_iter().flatten());
    vectors(&checkpoint, &arch::layout::norms(&config, &family))?;
    let head = tables(&checkpoint, &config)?;
    leftovers(&checkpoint, &linears, &config, &family)?;
    Ok(Model::new(checkpoint, config, family, generation, text, linears, head, warnings))
}

/// Classifies and checks one linear with its optional bias and norm.
fn linear(
    checkpoint: &Checkpoint,
    spec: LinearSpec,
    config: &Config,
    family: &Family,
    options: &LoadOptions,
) -> Result<(Linear, Vec<String>), LoadError> {
    let mut warnings = Vec::new();
    let quantization = config.quantization.as_ref().filter(|q| !q.skips(&spec.name));
    let convention = Convention { quantization, masters: family.masters, dense: options.dense };
    let storage = storage::classify(checkpoint, &spec, &convention, &mut warnings)?;
    let usual = if convention.quantizes_activations() { Activations::Int8 } else { Activations::Float };
    let activations = match storage {
        Storage::Dense(_) => Activations::Float,
        Storage::Packed { .. } | Storage::Unpacked { .. } | Storage::Master { .. } | Storage::FakeQuant(_) => {
            options.activations.unwrap_or(usual)
        }
    };
    let has_bias = checkpoint.contains(&spec.bias());
    let norm_eps = quantization.and_then(|q| q.norm_eps);
    let mut optional = Vec::new();
    if has_bias {
        optional.push((spec.bias(), spec.n));
    }
    if norm_eps.is_some() {
        optional.push((spec.norm(), spec.k));
    }
    vectors(checkpoint, &optional)?;
    Ok((Linear { spec, activations, has_bias, norm_eps, storage }, warnings))
}

/// Checks that each named vector is stored as floats of its length, all finite.
fn vectors(checkpoint: &Checkpoint, named: &[(String, usize)]) -> Result<(), LoadError> {
    named.iter().try_for_each(|(name, length)| finite(checkpoint, name, &[*length]))
}

fn finite(checkpoint: &Checkpoint, name: &str, shape: &[usize]) -> Result<(), LoadError> {
    match checkpoint.floats(name, shape)?.first_non_finite() {
        Some((element, found)) => Err(checkpoint.get(name, "floats")?.bad_value(element, found, "finite numbers")),
        None => Ok(()),
    }
}

/// Checks embedding and head and decides whether they are one table.
///
/// Where the configuration does not say, a stored head is a table of its own. A head that is stored although the
/// configuration ties it must equal the embedding.
fn tables(checkpoint: &Checkpoint, config: &Config) -> Result<TableRef, LoadError> {
    let shape = [config.vocab, config.hidden];
    finite(checkpoint, arch::layout::EMBEDDING, &shape)?;
    let stored = checkpoint.contains(arch::layout::HEAD);
    if !stored && config.tied != Some(false) {
        return Ok(TableRef::Embedding);
    }
    finite(checkpoint, arch::layout::HEAD, &shape)?;
    if config.tied != Some(true) {
        return Ok(TableRef::Head);
    }
    let table = checkpoint.floats(arch::layout::EMBEDDING, &shape)?;
    match checkpoint.floats(arch::layout::HEAD, &shape)?.first_difference(table) {
        None => Ok(TableRef::Embedding),
        Some(element) => Err(LoadError::TiedHead {
            file: checkpoint.file_of(arch::layout::HEAD),
            tensor: arch::layout::HEAD.into(),
            table: arch::layout::EMBEDDING.into(),
            element,
        }),
    }
}

/// Every stored tensor must be used, or be known to carry nothing: ignoring one would compute another model.
fn leftovers(checkpoint: &Checkpoint, linears: &[Linear], config: &Config, family: &Family) -> Result<(), LoadError> {
    let mut used: BTreeSet<String> = arch::layout::norms(config, family).into_iter().map(|(name, _)| name).collect();
    used.extend([arch::layout::EMBEDDING.to_owned(), arch::layout::HEAD.to_owned()]);
    for linear in linears {
        used.extend([linear.spec.weight(), linear.spec.bias()]);
        if matches!(linear.storage, Storage::Packed { .. } | Storage::Unpacked { .. }) {
            used.insert(linear.spec.scale());
        }
        if linear.norm_eps.is_some() {
            used.insert(linear.spec.norm());
        }
    }
    let leftover =
        checkpoint.names().find(|name| !used.contains(*name) && !name.ends_with(arch::layout::UNUSED_SUFFIX));
    match leftover {
        None => Ok(()),
        Some(name) => Err(LoadError::Leftover {
            file: checkpoint.file_of(name),
            tensor: name.to_owned(),
            expected: format!("only tensors of {} with {} layers", config.architecture, config.layers),
        }),
    }
}
