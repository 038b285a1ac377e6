//! Cases of the KV cache and of attention over it.

use tcc_ir::attention::{AttentionStep, AttentionWeights};
use tcc_ir::attention_codes::MOST_ELEMENTS;
use tcc_ir::cache::{CacheLayout, CacheOrder};
use tcc_ir::kernel::KernelSpec;
use tcc_ir::numerics::f16_to_f32;
use tcc_ir::ops::Op;
use tcc_ir::ops::kv_write::CACHE_TYPES;
use tcc_ir::tensor::{Data, Tensor};
use tcc_ir::ty::{DType, ValueType};
use tcc_tests::random::Rng;

use super::case::{Call, Case, Operand, cache_bytes, input, output};
use super::rows::{ROWS, special};

/// Positions of the caches attention reads: not a whole number of blocks.
const CTX: usize = 45;

const ORDERS: [CacheOrder; 2] = [CacheOrder::Keys, CacheOrder::Values];

pub fn write() -> Vec<Case> {
    let mut rng = Rng::named("kv_write");
    let mut cases = Vec::new();
    for dtype in CACHE_TYPES {
        for (i, (m, valid)) in ROWS.into_iter().enumerate() {
            for (j, d) in [1, 16, 17, 64, 100, 128].into_iter().enumerate() {
                let heads = 3;
                let x = special(m, heads * d, &mut rng);
                cases.push(write_case(&x, [heads, 24, 11], valid, dtype, ORDERS[(i + j) % 2], &mut rng));
            }
        }
    }
    // Every rounding decision of f16: the midpoint between each value and the next, and its neighbors.
    let midpoints: Vec<f32> = (0..0x7bff_u16)
        .flat_map(|h| {
            let middle = (f16_to_f32(h) + f16_to_f32(h + 1)) / 2.0;
            [-1, 0, 1].map(|step| f32::from_bits(middle.to_bits().wrapping_add_signed(step)))
        })
        .enumerate()
        .map(|(i, x)| if i % 2 == 0 { x } else { -x })
        .chain([65504.0, 65519.0, 65520.0, 65536.0, -65520.0, 1e30, -1e30, f32::MIN_POSITIVE, 1e-40, -1e-40])
        .collect();
    for chunk in midpoints.chunks(16 * 128) {
        let mut rows = chunk.to_vec();
        rows.resize(16 * 128, 0.0);
        cases.push(write_case(&Tensor::f32(&[8, 256], rows), [2, 8, 0], 8, DType::F16, CacheOrder::Values, &mut rng));
    }
    cases
}

fn write_case(
    x: &Tensor<'static>,
    [heads, ctx, pos]: [usize; 3],
    valid: usize,
    dtype: DType,
    order: CacheOrder,
    rng: &mut Rng,
) -> Case {
    let (m, d) = (x.shape[0], x.shape[1] / heads);
    let cache = rng.tensor(&ValueType::new(dtype, &[heads, ctx, d]));
    let at = Tensor::u32(&[1], vec![pos as u32]);
    let count = Tensor::u32(&[1], vec![valid as u32]);
    let after = Op::KvWrite.eval(&[&cache, x, &at, &count]).remove(0);
    let spec = KernelSpec::KvWrite { m, cache: CacheLayout::of(&cache.ty()), order };
    let [before, after] = [&cache, &after].map(|cache| cache_bytes(cache, order));
    Case::new(spec, valid, vec![input(x), Operand::InOut(before, after)]).at(pos)
}

/// Attention of one token row in steps.
pub fn attention_steps() -> Vec<Case> {
    let mut rng = Rng::named("attention_steps");
    let mut cases = Vec::new();
    for (c, cache) in CACHE_TYPES.into_iter().enumerate() {
        for (i, (d, pos)) in [(7, 0), (16, 31), (64, 44), (100, 32), (128, 13), (200, 37)].into_iter().enumerate() {
            let heads = [(6, 2), (4, 4), (5, 1), (11, 1)][(i + c) % 4];
            cases.push(steps_case(heads, [CTX, d, pos], cache, [0.125, 3.0][i % 2], &mut rng));
        }
        cases.push(steps_case((8, 2), [700, 128, 691], cache, 0.01, &mut rng));
    }
    cases
}

fn steps_case(heads: (usize, usize), [ctx, d, pos]: [usize; 3], cache: DType, scale: f32, rng: &mut Rng) -> Case {
    let whole = attention_case(1, 1, heads, [ctx, d, pos], cache, scale, rng);
    let cache = CacheLayout { heads: heads.1, ctx, d, dtype: cache };
    let weights = Operand::Unchecked(AttentionWeights::new(heads.0, &cache).bytes);
    let steps = [
        (AttentionStep::Scores, vec![0, 1, 4]),
        (AttentionStep::Softmax { scale }, vec![4, 1, 2, 4]),
        (AttentionStep::Values, vec![4, 2, 3]),
    ];
    let spec = |step| KernelSpec::AttentionStep { heads: heads.0, cache, step };
    let calls = steps.into_iter().map(|(step, operands)| Call { spec: spec(step), operands }).collect();
    Case {
        calls,
        operands: [whole.operands, vec![weights]].concat(),
        what: format!("{} in steps", whole.what),
        ..whole
    }
}

pub fn attention() -> Vec<Case> {
    let mut rng = Rng::named("attention");
    let mut cases = Vec::new();
    for (c, cache) in CACHE_TYPES.into_iter().enumerate() {
        for (i, d) in [7, 16, 20, 32, 64, 100, 128, 248, 256].into_iter().enumerate() {
            for (j, pos) in [0, 1, 13, 14, 15, 37].into_iter().enumerate().filter(|(j, _)| (i + j + c) % 3 != 0) {
                let (m, valid) = ROWS[(i + j) % ROWS.len()];
                let heads = [(6, 2), (4, 4), (5, 1), (11, 1)][(i + 2 * j) % 4];
                // Scores from close together to far beyond the range of the exponential.
                let scale = [0.125, 0.01, 3.0][j % 3];
                cases.push(attention_case(m, valid, heads, [CTX, d, pos], cache, scale, &mut rng));
            }
        }
        // Many and few queries over several chunks of positions.
        cases.push(attention_case(8, 8, (2, 1), [700, 64, 691], cache, 0.125, &mut rng));
        cases.push(attention_case(1, 1, (8, 2), [700, 100, 691], cache, 0.125, &mut rng));
        // Blocks that are no whole number of those that loops take together.
        cases.push(attention_case(1, 1, (11, 1), [110, 28, 100], cache, 0.125, &mut rng));
        cases.push(attention_case(2, 2, (7, 1), [110, 200, 75], cache, 0.125, &mut rng));
    }
    // The largest sums of codes: of a query's elements and the longest head's, and of positions that weigh the same.
    for (code, x) in [(-128, 1.0), (-128, -1.0), (127, -1.0)] {
        let heads = 4;
        let extreme = |[ctx, d]: [usize; 2]| {
            let data = Data::Q8(vec![code; ctx * d].into(), vec![0.01; ctx].into());
            Tensor { shape: vec![1, ctx, d], data }
        };
        let of = |m: usize, ctx: usize, d: usize| {
            let q = Tensor::f32(&[m, heads * d], vec![x; m * heads * d]);
            case_of(&q, [&extreme([ctx, d]), &extreme([ctx, d])], heads, m, ctx - m, 0.5)
        };
        cases.extend([of(1, 40, MOST_ELEMENTS), of(2, 1100, 20)]);
    }
    cases
}

fn attention_case(
    m: usize,
    valid: usize,
    (heads, kv_heads): (usize, usize),
    [ctx, d, pos]: [usize; 3],
    cache: DType,
    scale: f32,
    rng: &mut Rng,
) -> Case {
    let shape = ValueType::new(cache, &[kv_heads, ctx, d]);
    let (k, v) = (rng.tensor(&shape), rng.tensor(&shape));
    let q = rng.tensor(&ValueType::f32(&[m, heads * d]));
    case_of(&q, [&k, &v], heads, valid, pos, scale)
}

/// Attention of `q` over keys and values.
fn case_of(q: &Tensor, [k, v]: [&Tensor; 2], heads: usize, valid: usize, pos: usize, scale: f32) -> Case {
    let at = Tensor::u32(&[1], vec![pos as u32]);
    let result = Op::Attention { heads, scale }.eval(&[q, k, v, &at]).remove(0);
    let spec = KernelSpec::Attention { m: q.shape[0], heads, cache: CacheLayout::of(&k.ty()), scale };
    let [keys, values] = [(k, CacheOrder::Keys), (v, CacheOrder::Values)]
        .map(|(cache, order)| Operand::Input(cache_bytes(cache, order)));
    Case::new(spec, valid, vec![input(q), keys, values, output(&result, valid)]).at(pos)
}
