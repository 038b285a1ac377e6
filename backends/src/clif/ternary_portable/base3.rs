//! One block of `base3`: byte j of the 32-bit word of row i holds the codes of columns j, 4 + j, 8 + j, 12 + j, 16 + j.
//! There is no table: quotients are multiplications by rounded reciprocals, exact over the few values they meet.

use cranelift_codegen::ir::types::{I8, I32};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::encoding::base3::{LARGEST, PLANES, TOP_STEP};

use super::{constant, load_lanes, widen};
use crate::clif::func::FunctionCx;

/// x div [`TOP_STEP`] is x · `factor` / 2^`shift` for x of 0..=62.
const BY_TOP_STEP: (i32, i64) = (49, 10);

/// x div 3, 9 and 27 are x · `factor` / 2^`shift` for x of 0..=[`LARGEST`].
const BY_POWERS: [(i32, i64); 3] = [(171, 9), (57, 9), (19, 9)];

/// See [`super::AddBlock`].
pub(super) fn add_block(f: &mut FunctionCx, w: Value, q: Value, sums: &[Value]) -> Vec<Value> {
    let mut sums = sums.to_vec();
    let words = load_lanes(f, w);
    for j in 0..4i32 {
        let activations = [0, 1, 2, 3, 4].map(|p| {
            let code = f.load(I8, q, 4 * p + j);
            let q = f.ins().sextend(I32, code);
            widen(f, q)
        });
        for (word, sum) in words.iter().zip(&mut sums) {
            let byte = f.ins().ushr_imm_u(*word, i64::from(8 * j));
            for (code, q) in codes(f, byte).into_iter().zip(activations) {
                let product = f.ins().imul(code, q);
                *sum = f.ins().iadd(*sum, product);
            }
        }
    }
    sums
}

/// The five codes of the low byte of every lane (`base3::codes`).
fn codes(f: &mut FunctionCx, byte: Value) -> [Value; PLANES] {
    let (low_bits, one, zero) = (constant(f, 63), constant(f, 1), constant(f, 0));
    let low = f.ins().band(byte, low_bits);
    let top = quotient(f, low, BY_TOP_STEP);
    let half = minus_multiple(f, low, top, i32::from(TOP_STEP));
    let odd = f.ins().ushr_imm_u(byte, 6);
    let odd = f.ins().band(odd, one);
    let u = f.ins().iadd(half, half);
    let u = f.ins().iadd(u, odd);
    // v is u, or LARGEST - u = !u + LARGEST + 1.
    let turned = f.ins().ushr_imm_u(byte, 7);
    let turned = f.ins().band(turned, one);
    let turned = f.ins().isub(zero, turned);
    let (flipped, above) = (f.ins().bxor(u, turned), constant(f, i32::from(LARGEST) + 1));
    let above = f.ins().band(above, turned);
    let v = f.ins().iadd(flipped, above);
    let [v3, v9, v27] = BY_POWERS.map(|by| quotient(f, v, by));
    [minus_multiple(f, v, v3, 3), minus_multiple(f, v3, v9, 3), minus_multiple(f, v9, v27, 3), v27, top]
}

fn quotient(f: &mut FunctionCx, x: Value, (factor, shift): (i32, i64)) -> Value {
    let factor = constant(f, factor);
    let product = f.ins().imul(x, factor);
    f.ins().ushr_imm_u(product, shift)
}

/// `x - quotient · divisor`.
fn minus_multiple(f: &mut FunctionCx, x: Value, quotient: Value, divisor: i32) -> Value {
    let divisor = constant(f, divisor);
    let multiple = f.ins().imul(quotient, divisor);
    f.ins().isub(x, multiple)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reciprocals_are_exact() {
        let exact = |largest: i32, divisor: i32, (factor, shift): (i32, i64)| {
            (0..=largest).all(|x| (x * factor) >> shift == x / divisor)
        };
        assert!(exact(62, i32::from(TOP_STEP), BY_TOP_STEP));
        for (divisor, by) in [3, 9, 27].into_iter().zip(BY_POWERS) {
            assert!(exact(i32::from(LARGEST), divisor, by), "{divisor}");
        }
    }
}
