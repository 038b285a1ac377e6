//! Seeded random numbers and tensors: the same on every host and in every run.

use tcc_ir::numerics::f32_to_f16_saturating;
use tcc_ir::program::{Program, WeightError, WeightId, WeightStore};
use tcc_ir::tensor::{Data, Tensor};
use tcc_ir::ty::{DType, ValueType};

/// SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators").
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// A generator for the thing called `name`.
    pub fn named(name: &str) -> Self {
        // FNV-1a spreads names over seeds.
        let hash = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
        Rng(name.bytes().fold(0xcbf2_9ce4_8422_2325, hash))
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`. Panics if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        // The remainder is below n.
        (self.next_u64() % n as u64) as usize
    }

    /// A multiple of 2^-22 in [-2, 2), exact in f32.
    pub fn f32(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1 << 22) as f32 - 2.0
    }

    /// A tensor of type `ty`; u32 elements are below 4.
    pub fn tensor(&mut self, ty: &ValueType) -> Tensor<'static> {
        let n = ty.elements();
        let data = match ty.dtype {
            DType::F32 => Data::F32((0..n).map(|_| self.f32()).collect()),
            DType::F16 => Data::F16((0..n).map(|_| f32_to_f16_saturating(self.f32())).collect()),
            DType::Bf16 => Data::Bf16((0..n).map(|_| (self.f32().to_bits() >> 16) as u16).collect()),
            DType::I8 => Data::I8((0..n).map(|_| self.next_u64() as i8).collect()),
            DType::I32 => Data::I32((0..n).map(|_| self.next_u64() as i32).collect()),
            DType::U32 => Data::U32((0..n).map(|_| self.below(4) as u32).collect()),
            DType::Q8 => {
                let runs: usize = ty.shape.split_last().map_or(0, |(_, outer)| outer.iter().product());
                let codes = (0..n).map(|_| self.next_u64() as i8).collect();
                Data::Q8(codes, (0..runs).map(|_| self.f32().abs() / 64.0).collect())
            }
            DType::Trit => Data::Trit((0..n).map(|_| self.below(3) as i8 - 1).collect()),
        };
        Tensor { shape: ty.shape.clone(), data }
    }
}

/// Supplies every weight a program declares with data that depend on its name and type alone.
pub struct RandomWeights {
    tensors: Vec<Tensor<'static>>,
}

impl RandomWeights {
    pub fn new(program: &Program) -> Self {
        RandomWeights { tensors: program.weights.iter().map(|w| Rng::named(&w.name).tensor(&w.ty)).collect() }
    }

    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }
}

impl WeightStore for RandomWeights {
    fn tensor(&self, id: WeightId) -> Result<Tensor<'_>, WeightError> {
        let missing = || WeightError { name: format!("#{}", id.0), reason: "not declared".into() };
        self.tensors.get(id.0 as usize).cloned().ok_or_else(missing)
    }
}
