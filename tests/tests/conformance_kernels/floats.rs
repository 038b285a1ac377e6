//! Cases of the ops on float rows: embed, norm, gated activation, rotation, sum.

use tcc_ir::kernel::KernelSpec;
use tcc_ir::ops::{Act, Op};
use tcc_ir::tensor::{Data, Tensor};
use tcc_ir::ty::{DType, ValueType};
use tcc_tests::random::Rng;

use super::case::{Case, Operand, in_place, input, output};
use super::rows::{ROWS, WIDTHS, special};

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

/// Every finite value of a 16-bit float type, non-finite ones replaced by 0, as a table of rows of `h`.
fn every_half(dtype: DType, h: usize) -> Tensor<'static> {
    let exponent = if dtype == DType::F16 { 0x7c00 } else { 0x7f80 };
    let bits: Vec<u16> = (0..=u16::MAX).map(|b| if b & exponent == exponent { 0 } else { b }).collect();
    let data = if dtype == DType::F16 { Data::F16(bits.into()) } else { Data::Bf16(bits.into()) };
    Tensor { shape: vec![65536 / h, h], data }
}

pub fn embed() -> Vec<Case> {
    let mut rng = Rng::named("embed");
    let mut cases = Vec::new();
    for table in FLOATS {
        for h in WIDTHS {
            let tensor = rng.tensor(&ValueType::new(table, &[9, h]));
            // Ids of rows that are not valid are far outside the table.
            let wild = [8, 0, 5, 5, 2, 1 << 30, u32::MAX, 9];
            cases.push(embed_case(&tensor, &wild, 5, 1.0));
            cases.push(embed_case(&tensor, &[7], 1, 12.0));
        }
    }
    for table in [DType::F16, DType::Bf16] {
        let tokens: Vec<u32> = (0..64).collect();
        cases.push(embed_case(&every_half(table, 1024), &tokens, tokens.len(), 1.0));
    }
    cases
}

fn embed_case(table: &Tensor<'static>, tokens: &[u32], valid: usize, scale: f32) -> Case {
    let (m, h) = (tokens.len(), table.shape[1]);
    let known: Vec<u32> = tokens.iter().enumerate().map(|(i, t)| if i < valid { *t } else { 0 }).collect();
    let result = Op::Embed { scale }.eval(&[&Tensor::u32(&[m], known), table]);
    let spec = KernelSpec::Embed { m, h, table: table.dtype(), scale };
    let tokens = Tensor::u32(&[m], tokens.to_vec());
    Case::new(spec, valid, vec![input(&tokens), input(table), output(&result[0], valid)])
}

pub fn norm() -> Vec<Case> {
    let mut rng = Rng::named("norm");
    let mut cases = Vec::new();
    for (m, valid) in ROWS {
        // One run per row, and one per attention head.
        let runs = WIDTHS.map(|k| (k, k)).into_iter().chain([(300, 100), (128, 64), (51, 17)]);
        for (k, d) in runs {
            let (x, w) = (special(m, k, &mut rng), rng.tensor(&ValueType::f32(&[d])));
            let eps = 1e-5;
            let result = Op::RmsNorm { eps }.eval(&[&x, &w]).remove(0);
            let spec = KernelSpec::Norm { m, k, d, eps };
            cases.push(Case::new(spec.clone(), valid, vec![input(&x), input(&w), output(&result, valid)]));
            let own = vec![in_place(&x, &result, valid), input(&w), Operand::Same(0)];
            cases.push(Case::new(spec, valid, own));
        }
    }
    cases
}

/// Gate rows: special values, and a sweep over the whole range of the exponential and beyond.
pub fn gates(m: usize, k: usize, rng: &mut Rng) -> Tensor<'static> {
    let mut data = special(m, k, rng).as_f32().to_vec();
    for row in data.chunks_exact_mut(k).skip(6) {
        for (i, g) in row.iter_mut().enumerate() {
            *g = -110.0 + 220.0 * i as f32 / k as f32 + rng.f32();
        }
    }
    Tensor::f32(&[m, k], data)
}

pub fn glu() -> Vec<Case> {
    let mut rng = Rng::named("glu");
    let mut cases = Vec::new();
    for act in [Act::Relu2, Act::Silu] {
        for (m, valid) in ROWS {
            for k in WIDTHS {
                let (g, u) = (gates(m, k, &mut rng), rng.tensor(&ValueType::f32(&[m, k])));
                let result = Op::Glu { act }.eval(&[&g, &u]).remove(0);
                let spec = KernelSpec::Glu { m, k, act };
                cases.push(Case::new(spec.clone(), valid, vec![input(&g), input(&u), output(&result, valid)]));
                let own = vec![in_place(&g, &result, valid), input(&u), Operand::Same(0)];
                cases.push(Case::new(spec, valid, own));
            }
        }
    }
    cases
}

pub fn rope() -> Vec<Case> {
    let mut rng = Rng::named("rope");
    let mut cases = Vec::new();
    for (m, valid) in ROWS {
        for d in [2, 32, 64, 80, 100, 128] {
            let (heads, ctx, pos) = (3, 24, 11);
            let x = special(m, heads * d, &mut rng);
            let table = ValueType::f32(&[ctx, d / 2]);
            let (cos, sin) = (rng.tensor(&table), rng.tensor(&table));
            let at = Tensor::u32(&[1], vec![pos]);
            let result = Op::Rope.eval(&[&x, &cos, &sin, &at]).remove(0);
            let spec = KernelSpec::Rope { m, heads, d };
            let operands = vec![input(&x), input(&cos), input(&sin), output(&result, valid)];
            cases.push(Case::new(spec.clone(), valid, operands).at(pos as usize));
            let own = vec![in_place(&x, &result, valid), input(&cos), input(&sin), Operand::Same(0)];
            cases.push(Case::new(spec, valid, own).at(pos as usize));
        }
    }
    cases
}

pub fn add() -> Vec<Case> {
    let mut rng = Rng::named("add");
    let mut cases = Vec::new();
    for (m, valid) in ROWS {
        for k in WIDTHS {
            let (x, y) = (special(m, k, &mut rng), special(m, k, &mut rng));
            let result = Op::Add.eval(&[&x, &y]).remove(0);
            let spec = KernelSpec::Add { m, k };
            cases.push(Case::new(spec.clone(), valid, vec![input(&x), input(&y), output(&result, valid)]));
            let first = vec![in_place(&x, &result, valid), input(&y), Operand::Same(0)];
            cases.push(Case::new(spec.clone(), valid, first));
            let second = vec![input(&x), in_place(&y, &result, valid), Operand::Same(1)];
            cases.push(Case::new(spec, valid, second));
        }
    }
    cases
}
