//! Values at run time of the interpreter: a shape and its elements, owned or borrowed.

use std::borrow::Cow;

use crate::ty::{DType, ValueType};

/// Elements of a tensor in row-major order. Halves are kept as their stored bits.
#[derive(Clone, Debug, PartialEq)]
pub enum Data<'a> {
    F32(Cow<'a, [f32]>),
    F16(Cow<'a, [u16]>),
    Bf16(Cow<'a, [u16]>),
    I8(Cow<'a, [i8]>),
    I32(Cow<'a, [i32]>),
    U32(Cow<'a, [u32]>),
    /// Codes, and a scale per run along the last axis.
    Q8(Cow<'a, [i8]>, Cow<'a, [f32]>),
    Trit(Cow<'a, [i8]>),
}

/// A shape with its elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<'a> {
    pub shape: Vec<usize>,
    pub data: Data<'a>,
}

impl<'a> Tensor<'a> {
    pub fn f32(shape: &[usize], data: Vec<f32>) -> Self {
        Tensor { shape: shape.to_vec(), data: Data::F32(data.into()) }
    }

    pub fn i8(shape: &[usize], data: Vec<i8>) -> Self {
        Tensor { shape: shape.to_vec(), data: Data::I8(data.into()) }
    }

    pub fn u32(shape: &[usize], data: Vec<u32>) -> Self {
        Tensor { shape: shape.to_vec(), data: Data::U32(data.into()) }
    }

    pub fn trit(shape: &[usize], data: Vec<i8>) -> Self {
        Tensor { shape: shape.to_vec(), data: Data::Trit(data.into()) }
    }

    /// A tensor of zeros of type `ty`.
    pub fn zeros(ty: &ValueType) -> Self {
        let n = ty.elements();
        let data = match ty.dtype {
            DType::F32 => Data::F32(vec![0.0; n].into()),
            DType::F16 => Data::F16(vec![0; n].into()),
            DType::Bf16 => Data::Bf16(vec![0; n].into()),
            DType::I8 => Data::I8(vec![0; n].into()),
            DType::I32 => Data::I32(vec![0; n].into()),
            DType::U32 => Data::U32(vec![0; n].into()),
            DType::Q8 => {
                let runs: usize = ty.shape.split_last().map_or(0, |(_, outer)| outer.iter().product());
                Data::Q8(vec![0; n].into(), vec![0.0; runs].into())
            }
            DType::Trit => Data::Trit(vec![0; n].into()),
        };
        Tensor { shape: ty.shape.clone(), data }
    }

    pub fn dtype(&self) -> DType {
        match self.data {
            Data::F32(_) => DType::F32,
            Data::F16(_) => DType::F16,
            Data::Bf16(_) => DType::Bf16,
            Data::I8(_) => DType::I8,
            Data::I32(_) => DType::I32,
            Data::U32(_) => DType::U32,
            Data::Q8(..) => DType::Q8,
            Data::Trit(_) => DType::Trit,
        }
    }

    pub fn ty(&self) -> ValueType {
        ValueType { dtype: self.dtype(), shape: self.shape.clone() }
    }

    /// The elements as f32. Panics on another type: the verifier has checked it.
    pub fn as_f32(&self) -> &[f32] {
        match &self.data {
            Data::F32(x) => x,
            other => panic!("expected f32 data, found {other:?}"),
        }
    }

    /// The elements as i8 (activation codes or trits).
    pub fn as_i8(&self) -> &[i8] {
        match &self.data {
            Data::I8(x) | Data::Trit(x) => x,
            other => panic!("expected i8 data, found {other:?}"),
        }
    }

    /// The elements as u32.
    pub fn as_u32(&self) -> &[u32] {
        match &self.data {
            Data::U32(x) => x,
            other => panic!("expected u32 data, found {other:?}"),
        }
    }

    /// Element `i` of a float tensor of any width, widened exactly to f32.
    pub fn float_at(&self, i: usize) -> f32 {
        match &self.data {
            Data::F32(x) => x[i],
            Data::F16(x) => crate::numerics::f16_to_f32(x[i]),
            Data::Bf16(x) => crate::numerics::bf16_to_f32(x[i]),
            other => panic!("expected float data, found {other:?}"),
        }
    }

    /// Elements `range` of a float tensor, widened exactly to f32.
    pub fn floats(&self, range: std::ops::Range<usize>) -> Cow<'_, [f32]> {
        match &self.data {
            Data::F32(x) => Cow::Borrowed(&x[range]),
            _ => range.map(|i| self.float_at(i)).collect(),
        }
    }
}
