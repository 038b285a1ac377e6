//! Packed weights: U8 `[n/4, k]`, four ternary codes to a byte along the output axis, strided.
//!
//! With `R = n/4` and code = w + 1: row r, column c is in byte `[r mod R, c]`, bits `2·(r div R)` and up. Code 3 does
//! not occur. Source: `integrations/bitnet.py` of the transformers library.

use rayon::prelude::*;

/// Rows of codes in one byte.
const ROWS_PER_BYTE: usize = 4;

/// Bytes scanned by one task; a multiple of a word.
const TASK_BYTES: usize = 1 << 20;

/// Row count of the packed form of `n` rows, `None` if it does not divide.
pub(super) fn packed_rows(n: usize) -> Option<usize> {
    n.is_multiple_of(ROWS_PER_BYTE).then_some(n / ROWS_PER_BYTE)
}

/// The row and column of the first code 3 of `bytes`, a packed `[n, k]`.
pub(super) fn first_code_3(bytes: &[u8], n: usize, k: usize) -> Option<(usize, usize)> {
    let task = bytes.par_chunks(TASK_BYTES).position_first(has_code_3)?;
    let start = task * TASK_BYTES;
    let (at, byte) = bytes[start..].iter().enumerate().find(|(_, b)| code_3_bits(**b) != 0)?;
    let plane = code_3_bits(*byte).trailing_zeros() as usize / 2;
    let at = start + at;
    Some((plane * (n / ROWS_PER_BYTE) + at / k, at % k))
}

/// Low bit of every pair whose bits are both set.
fn code_3_bits(byte: u8) -> u8 {
    byte & (byte >> 1) & 0x55
}

fn has_code_3(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let found = words.iter().fold(0u64, |found, word| {
        let word = u64::from_ne_bytes(*word);
        found | (word & (word >> 1))
    });
    // Shifting the word moves a bit of the next byte only into bit 7, which the mask leaves out.
    found & 0x5555_5555_5555_5555 != 0 || rest.iter().any(|b| code_3_bits(*b) != 0)
}

/// The codes of `bytes` as trits `[n, k]`.
pub(super) fn trits(bytes: &[u8], n: usize, k: usize) -> Vec<i8> {
    let rows = n / ROWS_PER_BYTE;
    let mut out = vec![0i8; n * k];
    out.par_chunks_mut(k).enumerate().for_each(|(r, out)| {
        let shift = 2 * (r / rows);
        for (t, byte) in out.iter_mut().zip(&bytes[r % rows * k..][..k]) {
            // Two bits minus one fit an i8.
            *t = ((byte >> shift) & 3) as i8 - 1;
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_example_unpacks() {
        assert_eq!(trits(&[0x98, 0x49], 8, 1), [-1, 0, 1, 1, 0, -1, 1, 0]);
    }

    #[test]
    fn code_3_is_found_at_every_position() {
        let (n, k) = (32, 9);
        for at in 0..n / 4 * k {
            for plane in 0..4 {
                let mut bytes = vec![0b10_01_10_00; n / 4 * k];
                bytes[at] |= 3 << (2 * plane);
                assert_eq!(first_code_3(&bytes, n, k), Some((plane * 8 + at / k, at % k)));
            }
        }
        assert_eq!(first_code_3(&[0b10_01_10_01; 72], n, k), None);
    }
}
