//! `w2nz`: two bits per weight for machines whose matrix unit reads weights in fractals and whose vector unit unpacks
//! them with 16-bit shifts and masks.
//!
//! A panel is `nr` output rows times `kp` columns (the last one of a row panel holds what is left, in whole blocks of
//! [`KR`]). Unpacked, a panel stands in fractal order: strips of 32 bytes per row, strip after strip, the rows of one
//! strip following each other. With one weight to the byte (`parts` = 4) strip s holds column 32 s + b in byte b; with
//! two (`parts` = 2) column 64 s + b in the low and 64 s + 32 + b in the high nibble of byte b.
//!
//! Packed, the unpacked panel is cut into `parts` equal parts. Byte b holds byte b of part j in bits 7 - 2j and 6 - 2j
//! (and 3 - 2j, 2 - 2j for low nibbles), as a two's complement of two bits: `(x << 2j) & 0xc0c0` (or `0xcccc`) is
//! part j, whole and in order, its elements 64 w (or 4 w). A power of two disturbs no rounding, so nothing is subtracted.
//!
//! With two weights to the byte, activations are split in nibbles of which the low ones stand for 8 more than they hold;
//! behind the panels of a row panel follow the rows' 32 Σ w, as i32, which make up for it.

/// Columns that a row panel's length is padded to: whole strips in every part.
pub const KR: usize = 128;

/// How a panel's unpacked bytes look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Panel {
    /// Parts that a packed byte holds a piece of: 4 with a code to the byte, 2 with a code to the nibble.
    pub parts: usize,
    /// Output rows.
    pub nr: usize,
    /// Columns, a multiple of [`KR`].
    pub kp: usize,
}

impl Panel {
    /// Scales per group are read where the vector unit multiplies: from panels of 64 rows with one weight to the byte,
    /// in groups of whole sets of partial sums.
    pub fn has_groups(self, group: usize, k: usize) -> bool {
        self.parts == 4 && self.nr == 64 && (group == k || group.is_multiple_of(16))
    }

    /// Columns of one strip: what 32 unpacked bytes of a row hold.
    pub fn strip(self) -> usize {
        128 / self.parts
    }

    /// Bytes of the sums behind the panels of a row panel.
    pub fn sums_bytes(self) -> usize {
        if self.parts == 2 { 4 * self.nr } else { 0 }
    }

    /// Bytes of the panels of a row panel, without the sums.
    pub fn codes_bytes(self, k: usize) -> usize {
        k.next_multiple_of(KR) * self.nr / 4
    }

    /// The panels along k: first column and number of columns, padding included.
    pub fn along_k(self, k: usize) -> impl Iterator<Item = (usize, usize)> {
        let padded = k.next_multiple_of(KR);
        (0..padded).step_by(self.kp).map(move |first| (first, self.kp.min(padded - first)))
    }

    /// Byte of row 0, column `c` in a panel of `columns` columns, and the lower of its two bits there. Row i is 32 i
    /// bytes further.
    fn place(self, columns: usize, c: usize) -> (usize, usize) {
        let strips_per_part = columns / self.strip() / self.parts;
        let (strip, within) = (c / self.strip(), c % self.strip());
        let (part, strip) = (strip / strips_per_part, strip % strips_per_part);
        let is_low = self.parts == 2 && within < 32;
        (strip * self.nr * 32 + within % 32, if is_low { 2 } else { 6 } - 2 * part)
    }
}

pub(super) fn pack_panel(rows: &[i8], k: usize, shape: Panel, out: &mut Vec<u8>) {
    for (first, columns) in shape.along_k(k) {
        let start = out.len();
        out.resize(start + columns * shape.nr / 4, 0);
        let panel = &mut out[start..];
        let places: Vec<_> = (0..columns).map(|c| shape.place(columns, c)).collect();
        for (i, row) in rows.chunks_exact(k).enumerate() {
            let row = &row[first.min(k)..(first + columns).min(k)];
            for ((byte, bit), w) in places.iter().zip(row) {
                panel[byte + i * 32] |= (*w as u8 & 3) << bit;
            }
        }
    }
    let sums = rows.chunks_exact(k).map(|row| row.iter().map(|w| 32 * i32::from(*w)).sum());
    let sums: Vec<i32> = sums.collect();
    let sums = (0..shape.sums_bytes() / 4).map(|i| sums.get(i).copied().unwrap_or(0));
    sums.for_each(|sum| out.extend_from_slice(&sum.to_le_bytes()));
}

pub(super) fn at(row_panel: &[u8], k: usize, shape: Panel, i: usize, column: usize) -> i8 {
    let found = shape.along_k(k).find(|(first, columns)| column < first + columns);
    let (first, columns) = found.expect("a column of the matrix");
    let (byte, bit) = shape.place(columns, column - first);
    // The sign is the upper of the two bits.
    ((row_panel[first * shape.nr / 4 + byte + i * 32] << (6 - bit)) as i8) >> 6
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shift and mask give each part whole, in fractal order: what the vector unit does.
    #[test]
    fn parts_are_what_shift_and_mask_give() {
        let (nr, k) = (16, 300);
        let w = |row: usize, c: usize| if c < k { ((row * 7 + c * 5 + c / 9) % 3) as i8 - 1 } else { 0 };
        let rows: Vec<i8> = (0..nr * k).map(|i| w(i / k, i % k)).collect();
        for (parts, mask) in [(4, 0xc0), (2, 0xcc)] {
            let shape = Panel { parts, nr, kp: 256 };
            let mut packed = Vec::new();
            pack_panel(&rows, k, shape, &mut packed);
            let mut at = 0;
            for (first, columns) in shape.along_k(k) {
                let panel = &packed[at..at + columns * nr / 4];
                at += panel.len();
                let unpacked = (0..parts).flat_map(|j| panel.iter().map(move |b| b << (2 * j) & mask));
                for (b, byte) in unpacked.enumerate() {
                    let (row, c) = (b / 32 % nr, first + b / 32 / nr * shape.strip() + b % 32);
                    let found =
                        if parts == 4 { vec![byte as i8 / 64] } else { vec![(byte << 4) as i8 / 64, byte as i8 >> 6] };
                    for (nibble, found) in found.into_iter().enumerate() {
                        assert_eq!(found, w(row, c + 32 * nibble), "parts {parts}, row {row}, column {c}");
                    }
                }
            }
            assert_eq!(at, shape.codes_bytes(k));
            let sum = |row| (0..k).map(|c| 32 * i32::from(w(row, c))).sum::<i32>();
            let sums: Vec<u8> = (0..shape.sums_bytes() / 4).flat_map(|row| sum(row).to_le_bytes()).collect();
            assert_eq!(packed[at..], sums);
        }
    }
}
