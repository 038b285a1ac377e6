//! The tiles worth trying for a product: few, and the same everywhere.

use super::tile::{Memories, Shape, Tile};

/// Token rows of a block of activations.
const BLOCKS: [usize; 11] = [16, 32, 48, 64, 80, 96, 128, 160, 176, 192, 256];

/// Columns of a step, for weights and for activations.
const STEPS: [usize; 4] = [64, 128, 256, 512];

/// Token rows whose sums are few beside everything else.
const FEW: usize = 16;

/// Tiles that fit: large blocks, long steps and k whole first. A block whose activations fit with fewer cuts of k is not
/// cut further, which would move sums: but for a few rows, where it leaves L1 room for weights.
pub fn candidates(shape: &Shape, memories: &Memories) -> Vec<Tile> {
    let k = shape.padded_k();
    let kp = shape.panel.kp.min(k);
    let mut tiles = vec![];
    let blocks = BLOCKS.into_iter().rev().filter(|b| *b < shape.m.next_multiple_of(16));
    let blocks: Vec<usize> = std::iter::once(shape.m).filter(|m| *m <= 256).chain(blocks).collect();
    for cut in 1..=4 {
        let block_k = k.div_ceil(cut).next_multiple_of(kp).min(k);
        for &block_m in &blocks {
            for tiles_m in [1, 2] {
                let tile_m = block_m / tiles_m;
                let is_same = |tile: &Tile| (tile.block_m, tile.tile_m) == (block_m, tile_m);
                let is_cut_enough = shape.m > FEW && tiles.iter().any(is_same);
                if is_cut_enough || tiles_m > 1 && !(block_m.is_multiple_of(tiles_m) && tile_m.is_multiple_of(16)) {
                    continue;
                }
                steps(
                    shape,
                    memories,
                    Tile {
                        block_m,
                        tile_m,
                        block_k,
                        kb: 0,
                        kc: 0,
                        group: 1,
                        units: 3,
                        slice: 32,
                        a_stays: false,
                        spans: 1,
                    },
                    &mut tiles,
                );
            }
        }
    }
    tiles.dedup();
    tiles
}

/// Adds the steps that fit `tile`, longest first.
fn steps(shape: &Shape, memories: &Memories, tile: Tile, tiles: &mut Vec<Tile>) {
    for kb in STEPS.into_iter().rev() {
        if !shape.has_step(kb) || kb < shape.mode.strip() {
            continue;
        }
        for kc in STEPS.into_iter().rev().filter(|kc| *kc <= kb && *kc >= shape.mode.strip()) {
            for (a_stays, spans) in [(true, 1), (false, 1), (false, 2)] {
                let tile = Tile { kb, kc, a_stays, spans, ..tile };
                // Of two spans, all sums should leave at once, and weights for as long lie in L1. Small slices leave UB room
                // for a residual's; few units in L1 cost more than they.
                let rings: &[_] = match spans {
                    2 => &[(5, 64), (4, 64), (3, 64)],
                    _ => &[(3, 32), (3, 16), (2, 32), (2, 16)],
                };
                let mut rings = rings.iter().map(|(units, slice)| Tile { units: *units, slice: *slice, ..tile });
                tiles.extend(rings.find(|tile| tile.fits(shape, memories)));
            }
        }
    }
}

/// The same tile with other rings: how far the cube may be behind, and how much is finished at a time.
pub fn rings(shape: &Shape, memories: &Memories, tile: &Tile) -> Vec<Tile> {
    let rows = (tile.tile_m * shape.mode.rows()).next_multiple_of(16);
    let slices = [128, 64, 32, 16].into_iter().filter(|slice| *slice <= rows);
    let tiles = slices.flat_map(|slice| (2..=5).map(move |units| Tile { units, slice, ..*tile }));
    tiles.filter(|tile| tile.fits(shape, memories)).collect()
}

/// The same tile with other numbers of panels that are unpacked together.
pub fn groups(shape: &Shape, memories: &Memories, tile: &Tile) -> Vec<Tile> {
    let panels = tile.block_k.div_ceil(shape.panel.kp);
    let groups = (1..=panels.min(5)).flat_map(|group| (2..=5).map(move |units| Tile { group, units, ..*tile }));
    groups.filter(|tile| tile.fits(shape, memories)).collect()
}
