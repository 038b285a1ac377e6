//! Several token rows with `sdot`: each plane is shifted down once and meets all rows.
//!
//! Sixteen accumulators, `mr` rows by 16 / `mr` panels, take one `sdot` per plane each, so none waits for itself.

use super::super::inst::{A64, V, X};
use super::{ACC, BLOCK_BYTES, BLOCKS, Q, Q_STRIDE, W, W_STRIDE, for_panels, repeat, shift_plane};

const COUNT: X = X(0);
const W_POINTERS: [X; 4] = [X(14), X(15), X(16), X(17)];

/// A tile of `mr` token rows by `panels` panels; registers below 16 hold packed weights, codes, rows, the mask.
#[derive(Clone, Copy)]
struct Tile {
    mr: usize,
    panels: usize,
}

impl Tile {
    fn packed(self, panel: usize) -> V {
        V(panel as u8)
    }

    fn codes(self, panel: usize) -> V {
        V((self.widest() + panel) as u8)
    }

    fn row(self, token: usize) -> V {
        V((8 + token) as u8)
    }

    fn mask(self) -> V {
        V(if self.widest() == 4 { 12 } else { 7 })
    }

    fn acc(self, panel: usize, token: usize) -> V {
        V((16 + panel * self.mr + token) as u8)
    }

    /// Panels of the widest tile.
    fn widest(self) -> usize {
        16 / self.mr
    }

    fn w_pointer(self, panel: usize) -> X {
        if self.mr == 8 { W_POINTERS[2 + panel] } else { W_POINTERS[panel] }
    }

    fn q_pointer(self, token: usize) -> X {
        X((8 + token) as u8)
    }
}

/// `mr` is 4 or 8.
pub(super) fn emit(a: &mut A64, mr: usize) {
    let widest = 16 / mr;
    a.movi(Tile { mr, panels: widest }.mask(), 3);
    for_panels(a, widest, |a, panels| group(a, Tile { mr, panels }));
}

fn group(a: &mut A64, tile: Tile) {
    let Tile { mr, panels } = tile;
    for panel in 0..panels {
        a.mov(tile.w_pointer(panel), W);
        a.add(W, W, W_STRIDE);
    }
    a.mov(tile.q_pointer(0), Q);
    for token in 1..mr {
        a.add(tile.q_pointer(token), tile.q_pointer(token - 1), Q_STRIDE);
    }
    let accumulators = (0..panels).flat_map(|panel| (0..mr).map(move |token| (panel, token)));
    for (i, (panel, token)) in accumulators.clone().enumerate() {
        a.ldr_q(tile.acc(panel, token), ACC, 16 * i as i64);
    }
    a.mov(COUNT, BLOCKS);
    repeat(a, COUNT, |a| block(a, tile));
    for (i, (panel, token)) in accumulators.enumerate() {
        a.str_q(tile.acc(panel, token), ACC, 16 * i as i64);
    }
    a.add_imm(ACC, ACC, 16 * (panels * mr) as i64);
}

fn block(a: &mut A64, tile: Tile) {
    for panel in 0..tile.panels {
        a.ldr_q_post(tile.packed(panel), tile.w_pointer(panel), BLOCK_BYTES);
    }
    for token in 0..tile.mr {
        a.ldr_q_post(tile.row(token), tile.q_pointer(token), BLOCK_BYTES);
    }
    for plane in 0..4 {
        for panel in 0..tile.panels {
            shift_plane(a, tile.codes(panel), tile.packed(panel), plane, tile.mask());
        }
        for panel in 0..tile.panels {
            for token in 0..tile.mr {
                a.sdot_lane(tile.acc(panel, token), tile.codes(panel), tile.row(token), plane);
            }
        }
    }
}
