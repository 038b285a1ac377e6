//! Activation rows with the values that arithmetic goes wrong at.

use tcc_ir::tensor::Tensor;
use tcc_tests::random::Rng;

/// Reduction lengths and widths: below, at and above one block of sixteen, and longer ragged ones.
pub const WIDTHS: [usize; 7] = [1, 15, 16, 17, 100, 256, 1080];

/// Token rows and how many of them are valid.
pub const ROWS: [(usize, usize); 3] = [(1, 1), (8, 8), (8, 3)];

/// A row of zeros, and one of negative zeros.
const ZEROS: [f32; 2] = [0.0, -0.0];

/// Ties of the quantizer: with absmax 127 the codes are the values themselves, rounded half to even.
const TIES: [f32; 8] = [127.0, 0.5, 1.5, 2.5, -0.5, -1.5, 126.5, -126.5];

/// `[m, k]` rows of different kinds: random, zeros, subnormals, ties, tiny and large ones, then random again.
pub fn special(m: usize, k: usize, rng: &mut Rng) -> Tensor<'static> {
    let mut data = Vec::with_capacity(m * k);
    for row in 0..m {
        for i in 0..k {
            let x = rng.f32();
            // One mantissa in 2^20 of the smallest normal: subnormal whatever the sign.
            let subnormal = x * f32::MIN_POSITIVE / 4.0;
            data.push(match row {
                1 => ZEROS[i % 2],
                2 => subnormal,
                3 => TIES[i % TIES.len()],
                4 => x * 5e-8,
                5 => x * 1e15,
                // Runs of very different sizes: sums that cancel.
                6 => x * [1.0, 1e6, 1e-6, -1e6][i % 4],
                _ => x,
            });
        }
    }
    Tensor::f32(&[m, k], data)
}
