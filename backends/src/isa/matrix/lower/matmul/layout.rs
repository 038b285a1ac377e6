//! Where the rings of a product lie in the local memories.

use super::tile::{Rings, Shape, Tile};

/// Offsets, bytes.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    // UB.
    packed: usize,
    /// Of a group.
    packed_bytes: usize,
    unpacked: usize,
    /// Of a group.
    part_bytes: usize,
    unit_bytes: usize,
    slices: usize,
    slice_bytes: usize,
    residual: usize,
    residual_bytes: usize,
    act: usize,
    act_bytes: usize,
    /// Blocks that a token's act_scale fills.
    pub act_blocks: usize,
    /// act_scale as loaded, one f32 per token row.
    pub act_raw: usize,
    /// Scales of a panel's columns.
    pub column_scale: usize,
    pub column_bias: usize,
    /// 32 Σ w of a panel's columns.
    pub column_sums: usize,
    /// 512 bytes.
    pub zeros: usize,
    // L1.
    a: usize,
    /// Columns of a segment of activations.
    pub segment: usize,
    segment_bytes: usize,
    // L0A, L0B, L0C.
    a_step: usize,
    b_step: usize,
    c_tile: usize,
}

impl Layout {
    pub fn new(shape: &Shape, tile: &Tile, rings: &Rings) -> Layout {
        let (mode, nr) = (shape.mode, shape.panel.nr);
        let kp = shape.panel.kp.min(shape.padded_k());
        let (packed_bytes, part_bytes) = (nr * kp / 4, nr * mode.row_bytes(shape.part(kp)));
        let columns = tile.columns(shape);
        let slice_bytes = rings.slice_rows * columns * 4;
        let residual_bytes = rings.residual_tokens * columns * 4;
        let rows = tile.block_m.next_multiple_of(8);
        let mut next = 0;
        let mut take = |bytes: usize| {
            next += bytes;
            next - bytes
        };
        let packed = take(rings.packed * tile.group * packed_bytes);
        let unpacked = take(rings.unpacked * tile.group * part_bytes);
        let slices = take(rings.slices * slice_bytes);
        let residual = take(rings.residual * residual_bytes);
        let act_blocks = Rings::act_blocks(shape, tile);
        let act = take(2 * 32 * act_blocks * rows);
        let act_raw = take(4 * rows);
        let [column_scale, column_bias, column_sums] = [take(4 * nr), take(4 * nr), take(4 * nr)];
        let zeros = take(512);
        let cube_rows = |m: usize| (m * mode.rows()).next_multiple_of(16);
        let segment = Rings::segment(shape, tile, rings.segments);
        Layout {
            packed,
            packed_bytes: tile.group * packed_bytes,
            unpacked,
            part_bytes: tile.group * part_bytes,
            unit_bytes: part_bytes * tile.parts_per_unit(shape),
            slices,
            slice_bytes,
            residual,
            residual_bytes,
            act,
            act_bytes: 32 * act_blocks * rows,
            act_blocks,
            act_raw,
            column_scale,
            column_bias,
            column_sums,
            zeros,
            a: rings.b * part_bytes * tile.parts_per_unit(shape),
            segment,
            segment_bytes: cube_rows(tile.block_m) * mode.row_bytes(segment),
            a_step: cube_rows(tile.tile_m) * mode.row_bytes(tile.kc),
            b_step: nr * mode.row_bytes(tile.kb),
            c_tile: cube_rows(tile.tile_m) * columns * 4,
        }
    }

    pub fn packed(&self, slot: usize) -> usize {
        self.packed + slot * self.packed_bytes
    }

    pub fn unpacked(&self, slot: usize) -> usize {
        self.unpacked + slot * self.part_bytes
    }

    pub fn slice(&self, slot: usize) -> usize {
        self.slices + slot * self.slice_bytes
    }

    pub fn residual(&self, slot: usize) -> usize {
        self.residual + slot * self.residual_bytes
    }

    /// A block of 32 bytes per token row.
    pub fn act(&self, slot: usize) -> usize {
        self.act + slot * self.act_bytes
    }

    pub fn b(&self, slot: usize) -> usize {
        slot * self.unit_bytes
    }

    pub fn a(&self, slot: usize) -> usize {
        self.a + slot * self.segment_bytes
    }

    pub fn a_step(&self, slot: usize) -> usize {
        slot * self.a_step
    }

    pub fn b_step(&self, slot: usize) -> usize {
        slot * self.b_step
    }

    /// Bytes of one accumulator.
    pub fn c_tile(&self) -> usize {
        self.c_tile
    }
}
