//! Cases of coded tables: rows picked from them, and products with a query.

use tcc_ir::coded::{CodedLayout, RowCode, pack};
use tcc_ir::kernel::KernelSpec;
use tcc_ir::ops::Op;
use tcc_ir::screen::query::query;
use tcc_ir::tensor::Tensor;
use tcc_ir::ty::{DType, ValueType};
use tcc_tests::random::Rng;

use super::case::{Case, Operand, output};
use super::screen::query_bytes;

/// Ragged in every axis; more than one task; a single column; a wide reduction.
const SHAPES: [(usize, usize); 8] = [(1, 1), (16, 64), (17, 32), (40, 33), (31, 100), (270, 96), (530, 65), (18, 2560)];

pub fn coded() -> Vec<Case> {
    let mut rng = Rng::named("coded");
    let mut cases = Vec::new();
    for ((n, k), weight) in SHAPES.into_iter().zip([DType::F32, DType::F16, DType::Bf16].into_iter().cycle()) {
        let weights = rng.tensor(&ValueType::new(weight, &[n, k]));
        for code in RowCode::ALL {
            cases.push(product(code, &weights, (0..k).map(|_| rng.f32()).collect()));
            // Runs of small and of large values, and of zeros.
            let runs = |i: usize| [1e-35, 0.0, 1.0, 1e3][i / 32 % 4];
            cases.push(product(code, &weights, (0..k).map(|i| runs(i) * rng.f32()).collect()));
            let tokens: Vec<u32> = (0..5).map(|_| rng.below(n) as u32).collect();
            cases.push(embed(code, &weights, &tokens, 1.0));
            cases.push(embed(code, &weights, &tokens[..1], 12.0));
        }
    }
    for code in RowCode::ALL {
        // Every product has the same sign and the largest magnitude.
        for sign in [1.0, -1.0] {
            let weights = Tensor::f32(&[20, 1024], vec![1.0; 20 * 1024]);
            cases.push(product(code, &weights, vec![sign; 1024]));
        }
    }
    cases
}

fn bytes(table: &CodedLayout, weights: &Tensor) -> Vec<u8> {
    pack::table(table, &weights.floats(0..table.n * table.k))
}

fn product(code: RowCode, weights: &Tensor<'static>, x: Vec<f32>) -> Case {
    let table = CodedLayout { code, n: weights.shape[0], k: weights.shape[1] };
    let query = query_bytes(&table.query(), &query(&table.query(), &x), 0.0);
    let x = Tensor::f32(&[1, table.k], x);
    let result = Op::CodedLinear { code }.eval(&[&x, weights]);
    let operands = vec![Operand::Input(query), Operand::Input(bytes(&table, weights)), output(&result[0], 1)];
    Case::new(KernelSpec::CodedMatmul { table }, 1, operands)
}

fn embed(code: RowCode, weights: &Tensor<'static>, tokens: &[u32], scale: f32) -> Case {
    let table = CodedLayout { code, n: weights.shape[0], k: weights.shape[1] };
    let ids = Tensor::u32(&[tokens.len()], tokens.to_vec());
    let result = Op::CodedEmbed { scale, code }.eval(&[&ids, weights]);
    let tokens_bytes = tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
    let operands =
        vec![Operand::Input(tokens_bytes), Operand::Input(bytes(&table, weights)), output(&result[0], tokens.len())];
    Case::new(KernelSpec::CodedEmbed { m: tokens.len(), table, scale }, tokens.len(), operands)
}
