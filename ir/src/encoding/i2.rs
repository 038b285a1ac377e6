//! `i2`: two bits per weight, lanes are output rows, no horizontal sums.
//!
//! Order: row panel, then block of 16 columns, then byte `4 i + j` with `i < nr`, `j < 4`. That byte holds, for
//! p = 0..3, the code (w + 1) of row `i`, column `16 c + 4 p + j` in bits 2p and 2p+1, so plane p of a vector meets
//! one broadcast of the four activations `q[16c + 4p ..]`.

/// Columns of one block.
pub const KR: usize = 16;

/// Code 1, weight 0, in four planes: the byte of padding.
const PADDING: u8 = 0b01_01_01_01;

pub(super) fn pack_panel(rows: &[i8], k: usize, nr: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + k.div_ceil(KR) * nr * 4, PADDING);
    let panel = &mut out[start..];
    for (i, row) in rows.chunks_exact(k).enumerate() {
        for (block, columns) in row.chunks(KR).enumerate() {
            let mut padded = [0i8; KR];
            padded[..columns.len()].copy_from_slice(columns);
            // Plane p of all four bytes at once: columns 4p..4p+4 as one word of codes.
            let plane = |p: usize| u32::from_le_bytes(std::array::from_fn(|j| (padded[4 * p + j] + 1) as u8));
            let word = plane(0) | plane(1) << 2 | plane(2) << 4 | plane(3) << 6;
            panel[(block * nr + i) * 4..][..4].copy_from_slice(&word.to_le_bytes());
        }
    }
}

pub(super) fn at(panel: &[u8], nr: usize, i: usize, column: usize) -> i8 {
    let (block, p, j) = (column / KR, column % KR / 4, column % 4);
    let byte = panel[(block * nr + i) * 4 + j];
    ((byte >> (2 * p)) & 3) as i8 - 1
}
