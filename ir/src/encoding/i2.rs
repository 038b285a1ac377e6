//! `i2`: two bits per weight, lanes are output rows, no horizontal sums.
//!
//! Order: row panel, then block of 16 columns, then byte `4 i + j` with `i < nr`, `j < 4`. That byte holds, for
//! p = 0..3, the code (w + 1) of row `i`, column `16 c + 4 p + j` in bits 2p and 2p+1, so plane p of a vector meets
//! one broadcast of the four activations `q[16c + 4p ..]`.

/// Columns of one block.
pub const KR: usize = 16;

pub(super) fn pack_panel(rows: &[i8], k: usize, nr: usize, out: &mut Vec<u8>) {
    let height = rows.len() / k;
    for block in 0..k.div_ceil(KR) {
        for i in 0..nr {
            for j in 0..4 {
                let mut byte = 0u8;
                for p in 0..4 {
                    let column = block * KR + 4 * p + j;
                    let w = if i < height && column < k { rows[i * k + column] } else { 0 };
                    byte |= ((w + 1) as u8) << (2 * p);
                }
                out.push(byte);
            }
        }
    }
}

pub(super) fn at(panel: &[u8], nr: usize, i: usize, column: usize) -> i8 {
    let (block, p, j) = (column / KR, column % KR / 4, column % 4);
    let byte = panel[(block * nr + i) * 4 + j];
    ((byte >> (2 * p)) & 3) as i8 - 1
}
