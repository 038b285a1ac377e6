//! Coded rows as bytes, panel by panel.

use super::row::{Row, nibble_codes};
use super::{BYTE_BLOCK_BYTES, CodedLayout, RowCode};
use crate::screen::{BLOCK, BLOCK_BYTES, GROUP, LANES_BYTES, PANEL_ROWS, pack};

/// Packs at most 16 rows (`rows: f32[_, k]`) to `panel`, of `panel_bytes`. Missing rows get codes and scales of zero.
pub fn panel(layout: &CodedLayout, rows: &[f32], panel: &mut [u8]) {
    panel.fill(0);
    for (i, row) in rows.chunks_exact(layout.k).enumerate() {
        match layout.code {
            RowCode::Int8 => byte_row(layout, &Row::new(RowCode::Int8, row), i, panel),
            RowCode::Int4 => nibble_row(row, i, panel),
        }
    }
}

fn byte_row(layout: &CodedLayout, row: &Row, i: usize, panel: &mut [u8]) {
    let (blocks, scales) = panel.split_at_mut(layout.row_scales_offset());
    for (lanes, codes) in blocks.chunks_exact_mut(LANES_BYTES).zip(row.codes.chunks(4)) {
        for (byte, code) in lanes[4 * i..].iter_mut().zip(codes) {
            *byte = code.cast_unsigned();
        }
    }
    scales[4 * i..][..4].copy_from_slice(&row.scales[0].to_le_bytes());
}

fn nibble_row(row: &[f32], i: usize, panel: &mut [u8]) {
    for (block, columns) in panel.chunks_exact_mut(BLOCK_BYTES).zip(row.chunks(BLOCK)) {
        for (half, weights) in columns.chunks(GROUP).enumerate() {
            let mut codes = [0; GROUP];
            let bits = nibble_codes(weights, &mut codes);
            pack::nibbles(block, half, i, bits, &codes);
        }
    }
}

/// A whole table, for tables that fit in memory.
pub fn table(layout: &CodedLayout, rows: &[f32]) -> Vec<u8> {
    let mut out = vec![0; layout.bytes()];
    let panels = out.chunks_exact_mut(layout.panel_bytes()).zip(rows.chunks(PANEL_ROWS * layout.k));
    panels.for_each(|(bytes, rows)| panel(layout, rows, bytes));
    out
}

const _: () = assert!(BYTE_BLOCK_BYTES == BLOCK / 4 * LANES_BYTES);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The code of `column` of row `i`, and its scale, read back from a panel.
    fn unpack(layout: &CodedLayout, panel: &[u8], i: usize, column: usize) -> (i8, f32) {
        match layout.code {
            RowCode::Int8 => {
                let byte = panel[column / 4 * LANES_BYTES + 4 * i + column % 4];
                let scale = &panel[layout.row_scales_offset() + 4 * i..][..4];
                (byte.cast_signed(), f32::from_le_bytes(scale.try_into().expect("four bytes")))
            }
            RowCode::Int4 => {
                let (block, half) = (&panel[column / BLOCK * BLOCK_BYTES..][..BLOCK_BYTES], column % BLOCK / GROUP);
                let at = 2 * (half * PANEL_ROWS + i);
                let (group, in_group) = (&block[2 * 2 * PANEL_ROWS + half * GROUP / 2 * PANEL_ROWS..], column % GROUP);
                let byte = group[in_group / 8 * LANES_BYTES + 4 * i + in_group % 4];
                let nibble = if in_group % 8 < 4 { byte & 15 } else { byte >> 4 };
                let scale = pack::scale(u16::from_le_bytes([block[at], block[at + 1]]));
                (2 * nibble.cast_signed() - 15, scale)
            }
        }
    }

    fn weights() -> impl Strategy<Value = Vec<f32>> {
        let weight = prop_oneof![6 => -0.1f32..0.1, 1 => Just(0.0f32), 1 => -40.0f32..40.0, 1 => -1e-35f32..1e-35];
        prop::collection::vec(weight, 1..40 * 70)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn panels_hold_the_codes_of_their_rows(k in 1usize..140, weights in weights()) {
            let n = (weights.len() / k).max(1);
            let mut weights = weights;
            weights.resize(n * k, 0.5);
            for code in RowCode::ALL {
                let layout = CodedLayout { code, n, k };
                let bytes = table(&layout, &weights);
                for (r, weights) in weights.chunks_exact(k).enumerate() {
                    let row = Row::new(code, weights);
                    let panel = &bytes[r / PANEL_ROWS * layout.panel_bytes()..][..layout.panel_bytes()];
                    for column in 0..k {
                        let (code, scale) = unpack(&layout, panel, r % PANEL_ROWS, column);
                        prop_assert_eq!(f32::from(code) * scale, row.weight(column));
                    }
                }
            }
        }

        /// Half a step is the most that rounding alone loses; clipping is chosen only where the group as a whole gains.
        #[test]
        fn codes_are_near_what_they_stand_for(weights in prop::collection::vec(-1.0f32..1.0, 32)) {
            let largest = crate::numerics::absmax(&weights);
            let squares = |code, step: f32| {
                let row = Row::new(code, &weights);
                let error: f32 = (0..32).map(|i| (row.weight(i) - weights[i]).powi(2)).sum();
                (error, 32.0 * (step / 2.0).powi(2) * 1.02)
            };
            for (error, limit) in [squares(RowCode::Int8, largest / 127.0), squares(RowCode::Int4, 2.0 * largest / 15.0)] {
                prop_assert!(error <= limit, "{} above {}", error, limit);
            }
        }
    }
}
