//! `i2-lane`: two bits per weight, one byte lane per output row: for machines that multiply a vector of weights by
//! a scalar activation.
//!
//! Order: row panel, then block of 4 columns, then byte i = row; column `4 c + p` in bits 2p and 2p+1. Kernels
//! strip-mine `vl <= nr`, so one layout serves every vector length.

/// Columns of one block.
pub const KR: usize = 4;

pub(super) fn pack_panel(rows: &[i8], k: usize, nr: usize, out: &mut Vec<u8>) {
    let height = rows.len() / k;
    for block in 0..k.div_ceil(KR) {
        for i in 0..nr {
            let mut byte = 0u8;
            for p in 0..KR {
                let column = block * KR + p;
                let w = if i < height && column < k { rows[i * k + column] } else { 0 };
                byte |= ((w + 1) as u8) << (2 * p);
            }
            out.push(byte);
        }
    }
}

pub(super) fn at(panel: &[u8], nr: usize, i: usize, column: usize) -> i8 {
    let byte = panel[column / KR * nr + i];
    ((byte >> (2 * (column % KR))) & 3) as i8 - 1
}
