//! The weights of a program: their declarations, and where in the model each one's data comes from.

use tcc_ir::program::{WeightDecl, WeightError, WeightId, WeightStore};
use tcc_ir::tensor::{Data, Tensor};
use tcc_ir::ty::{DType, ValueType};

use super::rope::Tables;
use crate::load::error::LoadError;
use crate::model::{Activations, Model};

/// Where a weight's data comes from.
#[derive(Debug)]
enum Source {
    /// A float matrix as it is stored.
    Matrix,
    /// A float vector widened to f32, times a folded factor.
    Vector { factor: f32 },
    /// The codes of a linear.
    Trits { linear: String },
    /// The scales of a linear, times a folded factor.
    Scale { linear: String, factor: f32 },
    /// A table that the compiler made.
    Table(Vec<f32>),
}

/// Reads a program's weights from its model, one at a time; nothing is kept but the rotary tables.
#[derive(Debug)]
pub struct ModelWeights<'m> {
    model: &'m Model,
    weights: Vec<(WeightDecl, Source)>,
}

/// The weights of one linear.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinearWeights {
    pub weight: WeightId,
    pub form: Form,
    pub bias: Option<WeightId>,
    /// Norm in front of the linear, with its epsilon.
    pub norm: Option<(WeightId, f32)>,
}

/// Which product a linear is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// Trits and int8 activations.
    Int8 { scale: WeightId },
    /// Trits and float activations.
    Float { scale: WeightId },
    /// Stored floats, times a folded factor.
    Dense { factor: f32 },
}

impl<'m> ModelWeights<'m> {
    pub(super) fn new(model: &'m Model) -> Self {
        ModelWeights { model, weights: Vec::new() }
    }

    /// The declarations, in the order of their ids.
    pub(super) fn declarations(&self) -> Vec<WeightDecl> {
        self.weights.iter().map(|(decl, _)| decl.clone()).collect()
    }

    /// The declared type of `id`.
    pub(super) fn declaration(&self, id: WeightId) -> &WeightDecl {
        &self.weights[id.0 as usize].0
    }

    fn declare(&mut self, name: String, ty: ValueType, source: Source) -> WeightId {
        // Bounded by the number of tensors of a checkpoint: layers are at most 4096.
        let id = WeightId(self.weights.len() as u32);
        self.weights.push((WeightDecl { name, ty }, source));
        id
    }

    /// Declares the float vector `name`, to be multiplied by `factor`.
    pub(super) fn vector(&mut self, name: String, length: usize, factor: f32) -> WeightId {
        self.declare(name, ValueType::f32(&[length]), Source::Vector { factor })
    }

    /// Declares the float matrix `name` as it is stored.
    pub(super) fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<WeightId, LoadError> {
        let ty = ValueType::new(self.model.matrix_type(name, shape)?, &shape);
        Ok(self.declare(name.to_owned(), ty, Source::Matrix))
    }

    /// Declares the rotary tables, each `[ctx, half]`.
    pub(super) fn rope(&mut self, tables: Tables, ctx: usize, half: usize) -> [WeightId; 2] {
        let ty = ValueType::f32(&[ctx, half]);
        [
            self.declare("rope.cos".into(), ty.clone(), Source::Table(tables.cos)),
            self.declare("rope.sin".into(), ty, Source::Table(tables.sin)),
        ]
    }

    /// Declares what the linear `name` reads; `factor` multiplies its result.
    pub(super) fn linear(&mut self, name: &str, factor: f32) -> Result<LinearWeights, LoadError> {
        let linear = self.model.linear(name);
        let spec = &linear.spec;
        let shape = [spec.n, spec.k];
        let (weight, form) = match linear.scale_shape() {
            None => (self.matrix(&spec.weight(), shape)?, Form::Dense { factor }),
            Some(scale_shape) => {
                let trits = Source::Trits { linear: name.to_owned() };
                let weight = self.declare(spec.weight(), ValueType::new(DType::Trit, &shape), trits);
                let source = Source::Scale { linear: name.to_owned(), factor };
                let scale = self.declare(spec.scale(), ValueType::f32(&scale_shape), source);
                let form = match linear.activations {
                    Activations::Int8 => Form::Int8 { scale },
                    Activations::Float => Form::Float { scale },
                };
                (weight, form)
            }
        };
        let bias = linear.has_bias.then(|| self.vector(spec.bias(), spec.n, factor));
        let norm = linear.norm_eps.map(|eps| (self.vector(spec.norm(), spec.k, 1.0), eps));
        Ok(LinearWeights { weight, form, bias, norm })
    }

    fn data<'a>(&'a self, decl: &WeightDecl, source: &'a Source) -> Result<Data<'a>, LoadError> {
        let model = self.model;
        Ok(match source {
            Source::Matrix => model.matrix(&decl.name, [decl.ty.shape[0], decl.ty.shape[1]])?,
            Source::Vector { factor } => times(model.vector(&decl.name, decl.ty.elements())?, *factor),
            Source::Trits { linear } => Data::Trit(model.trits(model.linear(linear))?.into()),
            Source::Scale { linear, factor } => times(model.scales(model.linear(linear))?, *factor),
            Source::Table(values) => Data::F32(values.into()),
        })
    }
}

fn times<'a>(values: Vec<f32>, factor: f32) -> Data<'a> {
    Data::F32(values.into_iter().map(|v| if factor == 1.0 { v } else { v * factor }).collect())
}

impl WeightStore for ModelWeights<'_> {
    fn tensor(&self, id: WeightId) -> Result<Tensor<'_>, WeightError> {
        let (decl, source) = &self.weights[id.0 as usize];
        match self.data(decl, source) {
            Ok(data) => Ok(Tensor { shape: decl.ty.shape.clone(), data }),
            Err(error) => Err(WeightError { name: decl.name.clone(), reason: error.to_string() }),
        }
    }
}
