//! `FloatTernaryMatmul`: dot products of float activations with ternary rows read from their panels.
//!
//! A row's part of one block of sixteen columns is one 32-bit word; byte j holds columns `4 p + j` in bits 2p and
//! 2p+1, so plane p of the four bytes is lanes 4p.. of the block.

use cranelift_codegen::ir::types::{F32, I32};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::encoding::{Encoding, i2};
use tcc_ir::kernel::ScaleKind;

use super::epilogue::{Epilogue, Operands, Scales, for_row_groups, task_range};
use super::func::FunctionCx;
use super::kernel::Kernel;
use super::lanes::{Lanes, Shape};
use super::rows::fold;

/// Output rows computed together, so that their sums hide each other's latency.
const ROWS_AT_ONCE: usize = 2;

pub(super) struct Product {
    pub n: usize,
    pub k: usize,
    pub encoding: Encoding,
    pub scale: ScaleKind,
    pub task_rows: usize,
}

/// Encoding of the weights that plans give this product.
pub const ENCODING: Encoding = Encoding::I2 { nr: 4 };

/// What keeps this code from computing such a product, if anything.
pub(super) fn problem(k: usize, encoding: Encoding, scale: ScaleKind) -> Option<String> {
    match (encoding, scale) {
        (Encoding::I2Lane { .. } | Encoding::Base3 { .. } | Encoding::Bitmap(_) | Encoding::W2Nz(_), _) => {
            Some(format!("encoding '{encoding}', expected 'i2'"))
        }
        (Encoding::I2 { .. }, ScaleKind::PerGroup { group }) if group != k && !group.is_multiple_of(i2::KR) => {
            Some(format!("groups of {group} columns, expected a multiple of {}", i2::KR))
        }
        (Encoding::I2 { .. }, _) => None,
    }
}

/// Addresses of the operands.
#[derive(Clone, Copy)]
struct Inputs {
    x: Value,
    w: Value,
    scales: Scales,
}

pub(super) fn build(f: &mut FunctionCx, kernel: &Kernel, product: &Product, has: Operands) {
    let [x, w, scale] = [0, 1, 2].map(|i| kernel.operand(f, i));
    let scales = Scales { kind: product.scale, k: product.k, base: scale };
    let epilogue = Epilogue::new(f, kernel, 3, product.n, has);
    let valid = kernel.valid(f);
    f.for_range(kernel.begin, kernel.end, 1, |f, task| {
        let (first, end) = task_range(f, task, product.task_rows, product.n);
        let row = f.i64(0);
        f.for_range(row, valid, 1, |f, row| {
            let inputs = Inputs { x: f.index(x, row, 4 * product.k), w, scales };
            for_row_groups(f, first, end, ROWS_AT_ONCE, |f, column, count| {
                outputs(f, product, &epilogue, inputs, row, column, count);
            });
        });
    });
}

/// `count` outputs from `column` on of token row `row`.
fn outputs(
    f: &mut FunctionCx,
    product: &Product,
    epilogue: &Epilogue,
    inputs: Inputs,
    row: Value,
    column: Value,
    count: usize,
) {
    let columns: Vec<_> = (0..count).map(|i| f.offset(column, i)).collect();
    let rows: Vec<_> = columns.iter().map(|column| row_words(f, product, inputs.w, *column)).collect();
    let groups = Scales::groups(product.scale, product.k);
    let group_columns = product.k / groups;
    let (first, end, zero) = (f.i64(0), f.size(groups), f.f32(0.0));
    let results = f.for_carried(first, end, 1, &vec![zero; count], |f, group, sums| {
        let x = f.index(inputs.x, group, 4 * group_columns);
        let blocks = group_columns / i2::KR * product.encoding.block_bytes();
        let words: Vec<_> = rows.iter().map(|w| f.index(*w, group, blocks)).collect();
        let dots = group_dots(f, group_columns, product.encoding, x, &words);
        let terms = dots.iter().zip(&columns).zip(sums);
        terms
            .map(|((dot, column), sum)| {
                let scale = inputs.scales.load(f, Shape::ONE, *column, group).values()[0];
                f.ins().fma(*dot, scale, *sum)
            })
            .collect()
    });
    for (result, column) in results.iter().zip(&columns) {
        let y = Lanes::splat(f, Shape::ONE, *result);
        epilogue.store(f, y, row, *column);
    }
}

/// Address of the first word of output row `column` in its panel.
fn row_words(f: &mut FunctionCx, product: &Product, w: Value, column: Value) -> Value {
    let nr = f.size(product.encoding.nr());
    let (panel, i) = (f.ins().udiv(column, nr), f.ins().urem(column, nr));
    let panel = f.index(w, panel, product.encoding.panel_bytes(product.k));
    f.index(panel, i, 4)
}

/// `dot(t, x)` over `k` columns for the rows whose words begin at `words`.
fn group_dots(f: &mut FunctionCx, k: usize, encoding: Encoding, x: Value, words: &[Value]) -> Vec<Value> {
    let block = Shape::block(f);
    let zero = Lanes::constant(f, block, 0.0);
    let whole = k / i2::KR * i2::KR;
    // The trits behind the last whole block come from one word per row, unpacked once.
    let tail: Vec<Lanes> =
        if whole < k { words.iter().map(|w| trits(f, encoding, *w, whole)).collect() } else { vec![] };
    let dots = fold(f, whole, vec![zero; words.len()], |f, shape, i, partials| {
        let x = f.index(x, i, 4);
        let x = Lanes::load_fixed(f, shape, x);
        words
            .iter()
            .zip(partials)
            .map(|(w, partial)| {
                let at = f.ins().ushr_imm_u(i, i64::from(i2::KR.trailing_zeros()));
                let at = f.index(*w, at, encoding.block_bytes());
                trits(f, encoding, at, 0).fma(f, &x, partial)
            })
            .collect()
    });
    let mut dots = dots;
    for lane in 0..k - whole {
        let x = f.load(F32, x, i32::try_from(4 * (whole + lane)).expect("a row"));
        for (dot, t) in dots.iter_mut().zip(&tail) {
            let (t, partial) = (t.extract(f, lane), dot.extract(f, lane));
            let sum = f.ins().fma(t, x, partial);
            dot.insert(f, lane, sum);
        }
    }
    dots.iter().map(|dot| dot.sum(f)).collect()
}

/// The sixteen weights, as floats, of the row whose words begin at `words`, from column `column` (a constant) on.
fn trits(f: &mut FunctionCx, encoding: Encoding, words: Value, column: usize) -> Lanes {
    let at = f.offset(words, column / i2::KR * encoding.block_bytes());
    let word = f.load_fixed(I32, at, 0);
    let four = Shape::of(f, 4);
    // Byte j moves to the top of lane j and down again.
    let word = Lanes::splat(f, four, word);
    let lifts = Lanes::int_constants(f, four, [1 << 24, 1 << 16, 1 << 8, 1]);
    let bytes = word.int_mul(f, &lifts).shift_right(f, 24);
    let (low_bits, one) = (Lanes::int_constant(f, four, 3), Lanes::int_constant(f, four, 1));
    let planes = [0, 2, 4, 6].map(|shift| {
        let codes = bytes.shift_right(f, shift).and(f, &low_bits);
        codes.int_sub(f, &one).to_float(f)
    });
    Lanes::concat(&planes)
}
