//! `i2-lane`: two bits per weight, one byte lane per output row: for machines that multiply a vector of weights by
//! a scalar activation.
//!
//! Order: row panel, then block of 4 columns, then byte i = row; column `4 c + p` in bits 2p and 2p+1. Kernels
//! strip-mine `vl <= nr`, so one layout serves every vector length.

/// Columns of one block.
pub const KR: usize = 4;

/// Code 1, weight 0, in four columns: the byte of padding.
const PADDING: u8 = 0b01_01_01_01;

pub(super) fn pack_panel(rows: &[i8], k: usize, nr: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + k.div_ceil(KR) * nr, PADDING);
    let panel = &mut out[start..];
    for (i, row) in rows.chunks_exact(k).enumerate() {
        for (block, columns) in row.chunks(KR).enumerate() {
            let mut byte = PADDING;
            for (p, w) in columns.iter().enumerate() {
                byte = byte & !(3 << (2 * p)) | ((w + 1) as u8) << (2 * p);
            }
            panel[block * nr + i] = byte;
        }
    }
}

pub(super) fn at(panel: &[u8], nr: usize, i: usize, column: usize) -> i8 {
    let byte = panel[column / KR * nr + i];
    ((byte >> (2 * (column % KR))) & 3) as i8 - 1
}
