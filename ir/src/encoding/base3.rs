//! `base3`: five weights in a byte, 1.6 bits each; lanes are output rows, as in `i2`.
//!
//! Order: row panel, then block of 20 columns, then byte `4 i + j` with `i < nr`, `j < 4`. That byte holds, for
//! p = 0..4, the code (w + 1) of row `i`, column `20 c + 4 p + j`, so plane p of a vector meets one broadcast of the
//! four activations `q[20c + 4p ..]`.
//!
//! Planes 0 to 3 are one number, `v = Σ code_p 3^p`, of 0..=80. Turning every sign turns v to 80 - v, so a byte stores
//! the smaller of the two, `u` of 0..=40, and whether it was turned: a table of 128 entries is enough. Plane 4 is in
//! the low six bits alone: a table of 64 entries is enough.
//!
//! ```text
//! byte:   bit 7             bit 6        bits 5..0
//!         v is 80 - u       u mod 2      21 · code_4 + u div 2
//! ```

/// Columns of one block.
pub const KR: usize = 20;

/// Planes of a block, and so weights of a byte.
pub const PLANES: usize = 5;

/// Bit of a byte that says that planes 0 to 3 were turned.
pub const TURNED: u8 = 0x80;

/// Values of `u div 2`: plane 4 counts in multiples of it.
pub const TOP_STEP: u8 = 21;

/// The largest v; turned, v is this minus u.
pub const LARGEST: u8 = 80;

/// Code 1, weight 0, in five planes: the byte of padding.
const PADDING: u8 = byte([1; PLANES]);

/// The byte of five codes of 0..=2, plane 0 first.
pub const fn byte(codes: [u8; PLANES]) -> u8 {
    let v = codes[0] + 3 * codes[1] + 9 * codes[2] + 27 * codes[3];
    let (u, turned) = if v <= LARGEST / 2 { (v, 0) } else { (LARGEST - v, TURNED) };
    turned | (u % 2) << 6 | (TOP_STEP * codes[4] + u / 2)
}

/// The codes of a byte; those of a byte that [`byte`] never gives mean nothing.
pub const fn codes(byte: u8) -> [u8; PLANES] {
    let low = byte & 63;
    let u = low % TOP_STEP * 2 + (byte >> 6 & 1);
    let v = if byte & TURNED == 0 { u } else { LARGEST.saturating_sub(u) };
    [v % 3, v / 3 % 3, v / 9 % 3, v / 27 % 3, low / TOP_STEP]
}

pub(super) fn pack_panel(rows: &[i8], k: usize, nr: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + k.div_ceil(KR) * nr * 4, PADDING);
    let panel = &mut out[start..];
    for (i, row) in rows.chunks_exact(k).enumerate() {
        for (block, columns) in row.chunks(KR).enumerate() {
            let mut padded = [0i8; KR];
            padded[..columns.len()].copy_from_slice(columns);
            let word: [u8; 4] = std::array::from_fn(|j| byte(std::array::from_fn(|p| (padded[4 * p + j] + 1) as u8)));
            panel[(block * nr + i) * 4..][..4].copy_from_slice(&word);
        }
    }
}

pub(super) fn at(panel: &[u8], nr: usize, i: usize, column: usize) -> i8 {
    let (block, p, j) = (column / KR, column % KR / 4, column % 4);
    codes(panel[(block * nr + i) * 4 + j])[p].cast_signed() - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_distinct_and_turning_signs_turns_one_bit() {
        let mut seen = [false; 256];
        for n in 0..243u8 {
            let all = [n % 3, n / 3 % 3, n / 9 % 3, n / 27 % 3, n / 81];
            let packed = byte(all);
            assert_eq!(codes(packed), all);
            assert!(!std::mem::replace(&mut seen[usize::from(packed)], true), "{all:?} shares its byte");
            let turned = byte([2 - all[0], 2 - all[1], 2 - all[2], 2 - all[3], all[4]]);
            let is_all_zeros = all[..4] == [1; 4];
            assert_eq!(packed ^ turned, if is_all_zeros { 0 } else { TURNED }, "{all:?}");
        }
        assert_eq!(codes(PADDING), [1; PLANES]);
    }
}
