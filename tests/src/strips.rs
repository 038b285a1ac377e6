//! Activations in the strips that a matrix unit's cube reads.

use tcc_backends::isa::matrix::lower::matmul::tile::Mode;
use tcc_ir::encoding::w2nz::KR;

/// Codes `q: i8[m, k]` in the strips of `mode`; padding columns are zero codes, padding rows zero bytes.
pub fn strips(q: &[i8], (m, k): (usize, usize), mode: Mode) -> Vec<u8> {
    let (rows, padded) = ((m * mode.rows()).next_multiple_of(16), k.next_multiple_of(KR));
    let mut out = vec![0u8; padded / mode.strip() * rows * 32];
    for (token, c) in (0..m).flat_map(|token| (0..padded).map(move |c| (token, c))) {
        let a = if c < k { q[token * k + c] } else { 0 };
        match mode {
            // The byte as it is.
            Mode::I8 => out[(c / 32 * rows + token) * 32 + c % 32] = a as u8,
            Mode::I4 => {
                for (row, nibble) in [(2 * token, a >> 4), (2 * token + 1, (a & 15) - 8)] {
                    let byte = (c / 64 * rows + row) * 32 + c % 32;
                    out[byte] |= (nibble as u8 & 15) << (4 * (c % 64 / 32));
                }
            }
        }
    }
    out
}
