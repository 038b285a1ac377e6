//! One token row with `sdot`: mask-only planes.
//!
//! A plane masked in place is 4^p times too large, so planes 0, 1 and 2 have accumulators of their own, and two
//! shifts at the end are exact. `sdot` reads bytes as signed, where code 2 in the top plane would be -128: that plane
//! is shifted down and joins plane 0. Eight vector instructions serve 64 weights; four panels share each load of
//! activations, and twelve accumulators hide the latency of `sdot`.

use super::super::inst::{A64, V, X};
use super::{ACC, BLOCK_BYTES, BLOCKS, Q, W, W_STRIDE, for_panels, repeat};

/// Panels that run side by side.
const PANELS_WIDE: usize = 4;

const MASKS: [V; 3] = [V(28), V(29), V(30)];
const Q_POINTER: X = X(8);
const COUNT: X = X(9);

/// Where the weights of a panel are read.
fn w_pointer(panel: usize) -> X {
    X(10 + panel as u8)
}

/// Accumulator of a panel for plane 0 (and 3), 1 or 2.
fn acc(panel: usize, plane: usize) -> V {
    V(16 + (3 * panel + plane) as u8)
}

/// The packed weights of a panel: two blocks.
fn packed(panel: usize, block: usize) -> V {
    V(2 + (2 * panel + block) as u8)
}

pub(super) fn emit(a: &mut A64) {
    for (plane, mask) in MASKS.into_iter().enumerate() {
        a.movi(mask, 3 << (2 * plane));
    }
    for_panels(a, PANELS_WIDE, group);
}

fn group(a: &mut A64, panels: usize) {
    for panel in 0..panels {
        a.mov(w_pointer(panel), W);
        a.add(W, W, W_STRIDE);
        a.ldr_q(acc(panel, 0), ACC, 16 * panel as i64);
        a.movi(acc(panel, 1), 0);
        a.movi(acc(panel, 2), 0);
    }
    a.mov(Q_POINTER, Q);
    a.lsr(COUNT, BLOCKS, 1);
    repeat(a, COUNT, |a| {
        a.ldp_q_post(V(0), V(1), Q_POINTER, 2 * BLOCK_BYTES);
        for panel in 0..panels {
            a.ldp_q_post(packed(panel, 0), packed(panel, 1), w_pointer(panel), 2 * BLOCK_BYTES);
        }
        multiply(a, panels, 2);
    });
    a.and_1(COUNT, BLOCKS);
    repeat(a, COUNT, |a| {
        a.ldr_q_post(V(0), Q_POINTER, BLOCK_BYTES);
        for panel in 0..panels {
            a.ldr_q_post(packed(panel, 0), w_pointer(panel), BLOCK_BYTES);
        }
        multiply(a, panels, 1);
    });
    for panel in 0..panels {
        a.ssra_s(acc(panel, 0), acc(panel, 1), 2);
        a.ssra_s(acc(panel, 0), acc(panel, 2), 4);
        a.str_q(acc(panel, 0), ACC, 16 * panel as i64);
    }
    a.add_imm(ACC, ACC, 16 * panels as i64);
}

/// Adds the loaded blocks of all panels, two panels at a time so that sums into one register stand apart.
fn multiply(a: &mut A64, panels: usize, blocks: usize) {
    for block in 0..blocks {
        for first in (0..panels).step_by(2) {
            multiply_pair(a, first..(first + 2).min(panels), block);
        }
    }
}

fn multiply_pair(a: &mut A64, panels: std::ops::Range<usize>, block: usize) {
    let q = V(block as u8);
    let plane_of = |panel: usize, plane: usize| match plane {
        3 => packed(panel, block),
        _ => V(10 + (3 * (panel % 2) + plane) as u8),
    };
    for panel in panels.clone() {
        for (plane, mask) in MASKS.into_iter().enumerate() {
            a.and_v(plane_of(panel, plane), packed(panel, block), mask);
        }
        a.ushr_b(packed(panel, block), packed(panel, block), 6);
    }
    for plane in 0..4 {
        for panel in panels.clone() {
            a.sdot_lane(acc(panel, plane % 3), plane_of(panel, plane), q, plane as i64);
        }
    }
}
