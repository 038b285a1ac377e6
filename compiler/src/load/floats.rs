//! Stored floats of any width, read as f32.

use std::borrow::Cow;

use rayon::prelude::*;
use safetensors::Dtype;
use tcc_ir::numerics::{bf16_to_f32, f16_to_f32};
use tcc_ir::tensor::Data;
use tcc_ir::ty::DType;

/// Elements scanned by one task.
const TASK_ELEMENTS: usize = 1 << 20;

/// Little-endian floats as a file holds them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Floats<'a> {
    F32(&'a [u8]),
    F16(&'a [u8]),
    Bf16(&'a [u8]),
}

impl<'a> Floats<'a> {
    /// `bytes` as floats, `None` if `dtype` is not one of the three.
    pub fn new(dtype: Dtype, bytes: &'a [u8]) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Floats::F32(bytes)),
            Dtype::F16 => Some(Floats::F16(bytes)),
            Dtype::BF16 => Some(Floats::Bf16(bytes)),
            // The enum of the format may grow; what is not listed here is no float we read.
            _ => None,
        }
    }

    pub fn dtype(&self) -> DType {
        match self {
            Floats::F32(_) => DType::F32,
            Floats::F16(_) => DType::F16,
            Floats::Bf16(_) => DType::Bf16,
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Floats::F32(b) => b.len() / 4,
            Floats::F16(b) | Floats::Bf16(b) => b.len() / 2,
        }
    }

    /// Elements `start..start + out.len()`, widened exactly.
    pub fn widen(&self, start: usize, out: &mut [f32]) {
        let halves = |b: &[u8], out: &mut [f32], wide: fn(u16) -> f32| {
            for (v, h) in out.iter_mut().zip(b[2 * start..].as_chunks::<2>().0) {
                *v = wide(u16::from_le_bytes(*h));
            }
        };
        match self {
            Floats::F32(b) => {
                for (v, w) in out.iter_mut().zip(b[4 * start..].as_chunks::<4>().0) {
                    *v = f32::from_le_bytes(*w);
                }
            }
            Floats::F16(b) => halves(b, out, f16_to_f32),
            Floats::Bf16(b) => halves(b, out, bf16_to_f32),
        }
    }

    /// All elements, widened exactly.
    pub fn to_vec(self) -> Vec<f32> {
        let mut out = vec![0.0; self.len()];
        self.widen(0, &mut out);
        out
    }

    /// The first element that is infinite or not a number.
    pub fn first_non_finite(&self) -> Option<(usize, f32)> {
        let tasks = self.len().div_ceil(TASK_ELEMENTS);
        (0..tasks).into_par_iter().find_map_first(|task| {
            let start = task * TASK_ELEMENTS;
            let mut row = vec![0.0; TASK_ELEMENTS.min(self.len() - start)];
            self.widen(start, &mut row);
            row.iter().position(|v| !v.is_finite()).map(|i| (start + i, row[i]))
        })
    }

    /// The first element at which the values differ; both have the same length.
    pub fn first_difference(self, other: Floats) -> Option<usize> {
        let tasks = self.len().div_ceil(TASK_ELEMENTS);
        (0..tasks).into_par_iter().find_map_first(|task| {
            let start = task * TASK_ELEMENTS;
            let mut a = vec![0.0; TASK_ELEMENTS.min(self.len() - start)];
            let mut b = a.clone();
            self.widen(start, &mut a);
            other.widen(start, &mut b);
            a.iter().zip(&b).position(|(a, b)| a != b).map(|i| start + i)
        })
    }

    /// The elements as they are stored, borrowed where alignment and byte order allow.
    pub fn data(self) -> Data<'a> {
        match self {
            Floats::F32(b) => Data::F32(cast(b, f32::from_le_bytes)),
            Floats::F16(b) => Data::F16(cast(b, u16::from_le_bytes)),
            Floats::Bf16(b) => Data::Bf16(cast(b, u16::from_le_bytes)),
        }
    }
}

/// `bytes` as values of `N` little-endian bytes each.
fn cast<T: bytemuck::Pod, const N: usize>(bytes: &[u8], read: fn([u8; N]) -> T) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(values) if cfg!(target_endian = "little") => Cow::Borrowed(values),
        _ => bytes.as_chunks::<N>().0.iter().map(|b| read(*b)).collect(),
    }
}
