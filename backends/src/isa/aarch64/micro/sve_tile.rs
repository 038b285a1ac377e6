//! Eight token rows with SVE `sdot`, for cores that have SVE without 8-bit matrix products.
//!
//! The same tile as [`dotprod_tile`](super::dotprod_tile), over vectors of any length: see [`sve`](super::sve).

use super::super::inst::{A64, P, V, X};
use super::sve::{add_segments, shift_plane_z, while_active};
use super::{ACC, BLOCKS, Q, Q_STRIDE, W, W_STRIDE, for_panels};

/// Token rows; z0..z7 hold their activations, as an element operand must.
const MR: usize = 8;
const PANELS_WIDE: usize = 2;

const MASK: V = V(12);
const INDEX: X = X(0);
const END: X = X(17);
const ACTIVE: P = P(0);

fn row(token: usize) -> V {
    V(token as u8)
}

fn packed(panel: usize) -> V {
    V((8 + panel) as u8)
}

fn codes(panel: usize) -> V {
    V((10 + panel) as u8)
}

fn acc(panel: usize, token: usize) -> V {
    V((16 + panel * MR + token) as u8)
}

/// The first row is `Q` itself.
fn q_pointer(token: usize) -> X {
    if token == 0 { Q } else { X((8 + token) as u8) }
}

/// The second panel of a group needs a pointer of its own.
fn w_pointer(panel: usize) -> X {
    X(if panel == 0 { 8 } else { 16 })
}

pub(super) fn emit(a: &mut A64) {
    a.mov_z_imm(MASK, 3);
    a.mov_imm(END, 0);
    a.add_lsl(END, END, BLOCKS, 4);
    for_panels(a, PANELS_WIDE, group);
}

fn group(a: &mut A64, panels: usize) {
    for panel in 0..panels {
        a.mov(w_pointer(panel), W);
        a.add(W, W, W_STRIDE);
    }
    for token in 1..MR {
        a.add(q_pointer(token), q_pointer(token - 1), Q_STRIDE);
    }
    let sums: Vec<V> = (0..panels).flat_map(|panel| (0..MR).map(move |token| acc(panel, token))).collect();
    for sum in &sums {
        a.mov_z_imm(*sum, 0);
    }
    while_active(a, ACTIVE, INDEX, END, |a| step(a, panels));
    add_segments(a, &sums, INDEX);
    for (i, sum) in sums.iter().enumerate() {
        a.ldr_q(row(0), ACC, 16 * i as i64);
        a.add_s(*sum, *sum, row(0));
        a.str_q(*sum, ACC, 16 * i as i64);
    }
    a.add_imm(ACC, ACC, 16 * sums.len() as i64);
}

fn step(a: &mut A64, panels: usize) {
    for panel in 0..panels {
        a.ld1b(packed(panel), ACTIVE, w_pointer(panel), INDEX);
    }
    for token in 0..MR {
        a.ld1b(row(token), ACTIVE, q_pointer(token), INDEX);
    }
    a.incb(INDEX);
    for plane in 0..4 {
        for panel in 0..panels {
            shift_plane_z(a, codes(panel), packed(panel), plane, MASK);
        }
        for panel in 0..panels {
            for token in 0..MR {
                a.sdot_z_lane(acc(panel, token), codes(panel), row(token), plane);
            }
        }
    }
}
