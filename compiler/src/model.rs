//! A loaded model: configuration and typed, named tensors over mapped files. No file format shows here.

use std::collections::BTreeMap;
use std::path::Path;

use tcc_ir::tensor::Data;
use tcc_ir::ty::DType;

use crate::arch::Family;
use crate::arch::layout::{EMBEDDING, HEAD};
use crate::load::LinearSpec;
use crate::load::checkpoint::Checkpoint;
use crate::load::config::{Config, Generation};
use crate::load::error::LoadError;
use crate::load::storage::{self, Storage};
use crate::load::text::Text;

/// Type of the activations that a ternary linear multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// Each row quantized to eight bits, as BitNet models are trained.
    Int8,
    /// f32 rows, for families that quantize weights only.
    Float,
}

/// One linear of the model.
#[derive(Clone, Debug)]
pub struct Linear {
    pub spec: LinearSpec,
    /// How the activations are represented; always float for dense weights.
    pub activations: Activations,
    pub has_bias: bool,
    /// Epsilon of the norm in front of the linear, where it has one.
    pub norm_eps: Option<f32>,
    pub(crate) storage: Storage,
}

impl Linear {
    /// The storage kind's name, for reports.
    pub fn storage_name(&self) -> &'static str {
        self.storage.name()
    }

    /// Shape of the scale: `[1]`, `[n]` or `[n, groups]`. `None` for dense weights.
    pub fn scale_shape(&self) -> Option<Vec<usize>> {
        self.storage.scale_shape(self.spec.n, self.spec.k)
    }

    /// Element type of dense weights, `None` for ternary ones.
    pub fn dense_type(&self) -> Option<DType> {
        match self.storage {
            Storage::Dense(dtype) => Some(dtype),
            Storage::Packed { .. } | Storage::Unpacked { .. } | Storage::Master { .. } | Storage::FakeQuant(_) => None,
        }
    }
}

/// Which table the head multiplies by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableRef {
    /// The embedding: the two are tied.
    Embedding,
    /// A table of its own.
    Head,
}

/// A checked model; its tensors are read from the mapped files when they are asked for.
#[derive(Debug)]
pub struct Model {
    pub config: Config,
    pub family: Family,
    pub generation: Generation,
    pub text: Text,
    pub head: TableRef,
    /// Findings that do not stop the compiler, in sentences.
    pub warnings: Vec<String>,
    linears: BTreeMap<String, Linear>,
    checkpoint: Checkpoint,
}

impl Model {
    #[expect(clippy::too_many_arguments, reason = "the one caller has just made each part")]
    pub(crate) fn new(
        checkpoint: Checkpoint,
        config: Config,
        family: Family,
        generation: Generation,
        text: Text,
        linears: Vec<Linear>,
        head: TableRef,
        warnings: Vec<String>,
    ) -> Self {
        let linears = linears.into_iter().map(|l| (l.spec.name.clone(), l)).collect();
        Model { config, family, generation, text, head, warnings, linears, checkpoint }
    }

    /// The folder with `config.json`.
    pub fn folder(&self) -> &Path {
        &self.checkpoint.folder
    }

    /// The files that hold the tensors.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.checkpoint.files()
    }

    /// All linears, by name.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.linears.values()
    }

    /// The linear `name`. Panics if the layout has no such linear: loading has checked them all.
    pub fn linear(&self, name: &str) -> &Linear {
        &self.linears[name]
    }

    /// The trits of a ternary linear, `[n, k]` row-major.
    pub fn trits(&self, linear: &Linear) -> Result<Vec<i8>, LoadError> {
        storage::trits(&self.checkpoint, &linear.spec, linear.storage)
    }

    /// The multiplying scales of a ternary linear in the shape of [`Linear::scale_shape`].
    pub fn scales(&self, linear: &Linear) -> Result<Vec<f32>, LoadError> {
        storage::scales(&self.checkpoint, &linear.spec, linear.storage)
    }

    /// The vector `name` of `length` floats, widened to f32.
    pub fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>, LoadError> {
        Ok(self.checkpoint.floats(name, &[length])?.to_vec())
    }

    /// The float matrix `name` of shape `[n, k]` as it is stored.
    pub fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Data<'_>, LoadError> {
        Ok(self.checkpoint.floats(name, &shape)?.data())
    }

    /// Element type of a float matrix.
    pub fn matrix_type(&self, name: &str, shape: [usize; 2]) -> Result<DType, LoadError> {
        Ok(self.checkpoint.floats(name, &shape)?.dtype())
    }

    /// Name of the table that the head multiplies by.
    pub fn head_table(&self) -> &'static str {
        match self.head {
            TableRef::Embedding => EMBEDDING,
            TableRef::Head => HEAD,
        }
    }
}
