//! Byte layouts of packed ternary matrices (`docs/encodings.md`).
//!
//! A layout is a panel of `nr` output rows times blocks of `kr` columns; padding rows and columns hold weight 0.
//!
//! **Invariant:** `unpack(pack(w)) == w` for every encoding and ragged shape.
//! **Invariant:** the bytes depend on the plan, never on the host.

pub mod base3;
pub mod bitmap;
pub mod i2;
pub mod i2_lane;
pub mod w2nz;

use std::fmt;

/// How ternary weights become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encoding {
    /// Two bits per weight, `nr` rows interleaved in lanes of four columns (see [`i2`]).
    I2 { nr: usize },
    /// Two bits per weight, one row per byte lane (see [`i2_lane`]).
    I2Lane { nr: usize },
    /// Five weights per byte, `nr` rows interleaved in lanes of four columns (see [`base3`]).
    Base3 { nr: usize },
    /// A bit per weight and a sign for those that are not zero (see [`bitmap`]).
    Bitmap(bitmap::Panel),
    /// Two bits per weight in fractals (see [`w2nz`]).
    W2Nz(w2nz::Panel),
}

/// Every encoding with each panel height a menu may ask for; the conformance and round-trip tests iterate this.
pub const ENCODINGS: &[Encoding] = &[
    Encoding::I2 { nr: 4 },
    Encoding::I2 { nr: 8 },
    Encoding::I2 { nr: 16 },
    Encoding::I2Lane { nr: 64 },
    Encoding::Base3 { nr: 16 },
    Encoding::Bitmap(bitmap::Panel { nr: 16, bytes: 0 }),
    Encoding::W2Nz(w2nz::Panel { parts: 4, nr: 64, kp: 512 }),
    Encoding::W2Nz(w2nz::Panel { parts: 4, nr: 128, kp: 512 }),
    Encoding::W2Nz(w2nz::Panel { parts: 2, nr: 64, kp: 512 }),
    Encoding::W2Nz(w2nz::Panel { parts: 2, nr: 128, kp: 512 }),
];

impl Encoding {
    /// The layout's name without the height of its panels.
    pub fn family(self) -> &'static str {
        match self {
            Encoding::I2 { .. } => "i2",
            Encoding::I2Lane { .. } => "i2-lane",
            Encoding::W2Nz(_) => "w2nz",
            Encoding::Base3 { .. } => "base3",
            Encoding::Bitmap(_) => "bitmap",
        }
    }

    /// The encoding as menus and command lines name it: without what depends on the weights.
    pub fn kind(self) -> Encoding {
        match self {
            Encoding::Bitmap(panel) => Encoding::Bitmap(bitmap::Panel { bytes: 0, ..panel }),
            Encoding::I2 { .. } | Encoding::I2Lane { .. } | Encoding::Base3 { .. } | Encoding::W2Nz(_) => self,
        }
    }

    /// The encoding for a matrix of `density`, which counts only where sizes depend on the weights.
    pub fn fitted(self, density: &bitmap::Density) -> Encoding {
        match self {
            Encoding::Bitmap(panel) => Encoding::Bitmap(bitmap::Panel { bytes: density.panel_bytes, ..panel }),
            Encoding::I2 { .. } | Encoding::I2Lane { .. } | Encoding::Base3 { .. } | Encoding::W2Nz(_) => self,
        }
    }

    /// The encoding for the matrix `w: [_, k]`, whose sizes are those of this matrix.
    pub fn fitted_to(self, w: &[i8], k: usize) -> Encoding {
        match self {
            Encoding::Bitmap(panel) => self.fitted(&bitmap::Density::of(w, k, panel.nr)),
            Encoding::I2 { .. } | Encoding::I2Lane { .. } | Encoding::Base3 { .. } | Encoding::W2Nz(_) => self,
        }
    }

    /// Output rows of one panel.
    pub fn nr(self) -> usize {
        match self {
            Encoding::I2 { nr } | Encoding::I2Lane { nr } | Encoding::Base3 { nr } => nr,
            Encoding::Bitmap(panel) => panel.nr,
            Encoding::W2Nz(panel) => panel.nr,
        }
    }

    /// Columns of one block; k is padded to a multiple of it.
    pub fn kr(self) -> usize {
        match self {
            Encoding::I2 { .. } => i2::KR,
            Encoding::I2Lane { .. } => i2_lane::KR,
            Encoding::Base3 { .. } => base3::KR,
            Encoding::Bitmap(_) => bitmap::KR,
            Encoding::W2Nz(_) => w2nz::KR,
        }
    }

    /// True if products read this layout with a scale per group of `group` of the `k` columns: groups end where blocks
    /// end, or one group is the row. Only the latter where nothing says where the signs of a later block begin.
    pub fn has_groups(self, group: usize, k: usize) -> bool {
        match self {
            Encoding::I2 { .. } | Encoding::I2Lane { .. } | Encoding::Base3 { .. } => {
                group == k || group.is_multiple_of(self.kr())
            }
            Encoding::Bitmap(_) => group == k,
            Encoding::W2Nz(panel) => panel.has_groups(group, k),
        }
    }

    /// Bytes of one panel of one block; of its presence bits in a bitmap.
    pub fn block_bytes(self) -> usize {
        match self {
            Encoding::I2 { nr } => nr * i2::KR / 4,
            Encoding::I2Lane { nr } => nr * i2_lane::KR / 4,
            Encoding::Base3 { nr } => nr * base3::KR / base3::PLANES,
            Encoding::Bitmap(panel) => panel.nr * bitmap::KR / 8,
            Encoding::W2Nz(panel) => panel.nr * w2nz::KR / 4,
        }
    }

    /// Bytes before the first panel.
    pub fn header_bytes(self) -> usize {
        match self {
            Encoding::Bitmap(_) => bitmap::HEADER_BYTES,
            Encoding::I2 { .. } | Encoding::I2Lane { .. } | Encoding::Base3 { .. } | Encoding::W2Nz(_) => 0,
        }
    }

    /// Bytes of one panel over the whole (padded) reduction, and of what some encodings store behind it.
    pub fn panel_bytes(self, k: usize) -> usize {
        let blocks_bytes = k.div_ceil(self.kr()) * self.block_bytes();
        match self {
            Encoding::I2 { .. } | Encoding::I2Lane { .. } | Encoding::Base3 { .. } => blocks_bytes,
            Encoding::Bitmap(panel) => panel.bytes,
            Encoding::W2Nz(panel) => blocks_bytes + panel.sums_bytes(),
        }
    }

    /// Bytes of an `[n, k]` matrix.
    pub fn matrix_bytes(self, n: usize, k: usize) -> usize {
        self.header_bytes() + n.div_ceil(self.nr()) * self.panel_bytes(k)
    }

    /// Bytes behind the last panel that kernels may read where panels are damaged.
    pub fn beyond_bytes(self, k: usize) -> usize {
        match self {
            Encoding::Bitmap(panel) => bitmap::most_bytes(k, panel.nr).saturating_sub(panel.bytes),
            Encoding::I2 { .. } | Encoding::I2Lane { .. } | Encoding::Base3 { .. } | Encoding::W2Nz(_) => 0,
        }
    }

    /// Packs row-major trits `w: [n, k]`. Panics if the length is not `n * k`.
    pub fn pack(self, w: &[i8], n: usize, k: usize) -> Vec<u8> {
        assert_eq!(w.len(), n * k, "a matrix of [{n}, {k}]");
        let mut out = Vec::with_capacity(self.matrix_bytes(n, k));
        self.pack_header(&mut out);
        self.pack_panels(w, k, &mut out);
        out
    }

    /// Packs whole panels of the matrix `w: [_, k]`, or its last ones, and appends their bytes.
    pub fn pack_panels(self, w: &[i8], k: usize, out: &mut Vec<u8>) {
        w.chunks(self.nr() * k).for_each(|rows| self.pack_panel(rows, k, out));
    }

    /// Appends what stands before the first panel.
    pub fn pack_header(self, out: &mut Vec<u8>) {
        match self {
            Encoding::Bitmap(panel) => bitmap::header(panel, out),
            Encoding::I2 { .. } | Encoding::I2Lane { .. } | Encoding::Base3 { .. } | Encoding::W2Nz(_) => {}
        }
    }

    /// Packs one panel of at most `nr` rows (`rows: [_, k]`) and appends its bytes; missing rows are zeros.
    pub fn pack_panel(self, rows: &[i8], k: usize, out: &mut Vec<u8>) {
        match self {
            Encoding::I2 { nr } => i2::pack_panel(rows, k, nr, out),
            Encoding::I2Lane { nr } => i2_lane::pack_panel(rows, k, nr, out),
            Encoding::Base3 { nr } => base3::pack_panel(rows, k, nr, out),
            Encoding::Bitmap(panel) => bitmap::pack_panel(rows, k, panel, out),
            Encoding::W2Nz(panel) => w2nz::pack_panel(rows, k, panel, out),
        }
    }

    /// The row-major trits `[n, k]` of packed bytes. Panics if the length is not [`Encoding::matrix_bytes`].
    pub fn unpack(self, bytes: &[u8], n: usize, k: usize) -> Vec<i8> {
        assert_eq!(bytes.len(), self.matrix_bytes(n, k), "a packed matrix of [{n}, {k}]");
        let panels = bytes[self.header_bytes()..].chunks(self.panel_bytes(k).max(1));
        let mut out: Vec<i8> = panels.flat_map(|panel| self.unpack_panel(panel, k)).collect();
        out.resize(n * k, 0);
        out
    }

    /// The weights of one panel, `[nr, k]`.
    fn unpack_panel(self, panel: &[u8], k: usize) -> Vec<i8> {
        let each = |at: &dyn Fn(usize, usize) -> i8| (0..self.nr() * k).map(|w| at(w / k, w % k)).collect();
        match self {
            Encoding::I2 { nr } => each(&|i, column| i2::at(panel, nr, i, column)),
            Encoding::I2Lane { nr } => each(&|i, column| i2_lane::at(panel, nr, i, column)),
            Encoding::Base3 { nr } => each(&|i, column| base3::at(panel, nr, i, column)),
            Encoding::Bitmap(shape) => bitmap::unpack_panel(panel, k, shape.nr),
            Encoding::W2Nz(shape) => each(&|i, column| w2nz::at(panel, k, shape, i, column)),
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Encoding::I2 { nr } => write!(f, "i2x{nr}"),
            Encoding::I2Lane { nr } => write!(f, "i2-lane-x{nr}"),
            Encoding::Base3 { nr } => write!(f, "base3x{nr}"),
            Encoding::Bitmap(panel) => write!(f, "bitmapx{}", panel.nr),
            Encoding::W2Nz(w2nz::Panel { parts, nr, kp }) => write!(f, "w2nz{}-x{nr}-k{kp}", 2 * parts),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The check matrix of `docs/encodings.md`: w[r, c] = ((r + c + c div 7) mod 3) - 1, 4 rows of 256.
    fn check_matrix() -> Vec<i8> {
        (0..4 * 256).map(|i| ((i / 256 + i % 256 + i % 256 / 7) % 3) as i8 - 1).collect()
    }

    /// CRC-32 as in zlib, bit by bit.
    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        })
    }

    #[test]
    fn bytes_are_the_documented_ones() {
        for (encoding, bytes, crc) in [
            (Encoding::I2 { nr: 4 }, 256, 0x8d80_86c5),
            (Encoding::I2 { nr: 8 }, 512, 0x0f2d_c872),
            (Encoding::I2 { nr: 16 }, 1024, 0xdc7e_aa90),
            (Encoding::I2Lane { nr: 16 }, 1024, 0x3996_d5b2),
            (Encoding::Base3 { nr: 16 }, 832, 0x6d26_02f2),
            (Encoding::Bitmap(bitmap::Panel { nr: 16, bytes: 0 }), 704, 0xc82c_2668),
        ] {
            let packed = encoding.fitted_to(&check_matrix(), 256).pack(&check_matrix(), 4, 256);
            assert_eq!((packed.len(), crc32(&packed)), (bytes, crc), "{encoding}");
        }
    }

    proptest! {
        #[test]
        fn unpacking_undoes_packing(n in 1usize..70, k in 1usize..90, seed in any::<u64>()) {
            let w: Vec<i8> = (0..(n * k) as u64).map(|i| ((i ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as i8 % 2).collect();
            for encoding in ENCODINGS.iter().map(|encoding| encoding.fitted_to(&w, k)) {
                let packed = encoding.pack(&w, n, k);
                prop_assert_eq!(packed.len(), encoding.matrix_bytes(n, k));
                prop_assert_eq!(&encoding.unpack(&packed, n, k), &w);
            }
        }
    }
}
