//! What the SVE kernels share, and `sdot` for one token row.
//!
//! A vector of any length holds whole 128-bit segments, one block each: `sdot` by element and `trn` stay within
//! segments, so every segment keeps sums of its own four output rows and the segments are added at the end. A
//! predicate from `whilelo` ends the reduction, inactive bytes load as zero: no vector length is assumed.
//!
//! Planes are masked in place as in [`dotprod`](super::dotprod).

use super::super::inst::{A64, P, V, X};
use super::{ACC, BLOCKS, Q, W, W_STRIDE, for_panels, repeat};

/// Panels that run side by side.
const PANELS_WIDE: usize = 4;

const MASKS: [V; 3] = [V(28), V(29), V(30)];
/// Activations; an element operand is one of z0..z7.
const ACTIVATIONS: V = V(0);
/// Bytes of one block.
const SEGMENT_BYTES: i64 = 16;

const INDEX: X = X(0);
const END: X = X(8);
const ACTIVE: P = P(0);

/// Where the weights of a panel begin.
fn w_pointer(panel: usize) -> X {
    X(10 + panel as u8)
}

/// Accumulator of a panel for plane 0 (and 3), 1 or 2.
fn acc(panel: usize, plane: usize) -> V {
    V(16 + (3 * panel + plane) as u8)
}

fn packed(panel: usize) -> V {
    V(2 + panel as u8)
}

pub(super) fn emit(a: &mut A64) {
    for (plane, mask) in MASKS.into_iter().enumerate() {
        a.mov_z_imm(mask, 3 << (2 * plane));
    }
    a.mov_imm(END, 0);
    a.add_lsl(END, END, BLOCKS, 4);
    for_panels(a, PANELS_WIDE, group);
}

fn group(a: &mut A64, panels: usize) {
    for panel in 0..panels {
        a.mov(w_pointer(panel), W);
        a.add(W, W, W_STRIDE);
        for plane in 0..3 {
            a.mov_z_imm(acc(panel, plane), 0);
        }
    }
    while_active(a, ACTIVE, INDEX, END, |a| {
        a.ld1b(ACTIVATIONS, ACTIVE, Q, INDEX);
        for panel in 0..panels {
            a.ld1b(packed(panel), ACTIVE, w_pointer(panel), INDEX);
        }
        a.incb(INDEX);
        for first in (0..panels).step_by(2) {
            multiply_pair(a, first..(first + 2).min(panels));
        }
    });
    for panel in 0..panels {
        for plane in 1..3 {
            a.asr_z_s(acc(panel, plane), acc(panel, plane), 2 * plane as i64);
            a.add_z_s(acc(panel, 0), acc(panel, 0), acc(panel, plane));
        }
    }
    let totals: Vec<V> = (0..panels).map(|panel| acc(panel, 0)).collect();
    add_segments(a, &totals, INDEX);
    for (panel, total) in totals.into_iter().enumerate() {
        a.ldr_q(ACTIVATIONS, ACC, 16 * panel as i64);
        a.add_s(total, total, ACTIVATIONS);
        a.str_q(total, ACC, 16 * panel as i64);
    }
    a.add_imm(ACC, ACC, 16 * panels as i64);
}

/// Adds the loaded blocks of one or two panels: sums into one register stand apart.
fn multiply_pair(a: &mut A64, panels: std::ops::Range<usize>) {
    let plane_of = |panel: usize, plane: usize| match plane {
        3 => packed(panel),
        _ => V(8 + (3 * (panel % 2) + plane) as u8),
    };
    for panel in panels.clone() {
        for (plane, mask) in MASKS.into_iter().enumerate() {
            a.and_z(plane_of(panel, plane), packed(panel), mask);
        }
        a.lsr_z_b(packed(panel), packed(panel), 6);
    }
    for plane in 0..4 {
        for panel in panels.clone() {
            a.sdot_z_lane(acc(panel, plane % 3), plane_of(panel, plane), ACTIVATIONS, plane as i64);
        }
    }
}

/// `for index in 0..end` by whole vectors, the last one partly active; `body` moves `index` on.
pub(super) fn while_active(a: &mut A64, active: P, index: X, end: X, body: impl FnOnce(&mut A64)) {
    let done = a.asm.label();
    a.mov_imm(index, 0);
    a.cbz(end, done);
    a.whilelo_b(active, index, end);
    let again = a.asm.bound();
    body(a);
    a.whilelo_b(active, index, end);
    a.b_mi(again);
    a.asm.bind(done);
}

/// Leaves in the low segment of each register the sum of its segments. Uses z0..z7.
pub(super) fn add_segments(a: &mut A64, registers: &[V], count: X) {
    for batch in registers.chunks(8) {
        let turning = |i: usize| V(i as u8);
        for (i, register) in batch.iter().enumerate() {
            a.orr_z(turning(i), *register, *register);
        }
        a.rdvl(count, 1);
        a.sub_imm(count, count, SEGMENT_BYTES);
        a.lsr(count, count, 4);
        repeat(a, count, |a| {
            for (i, register) in batch.iter().enumerate() {
                a.ext_z(turning(i), turning(i), SEGMENT_BYTES);
                a.add_z_s(*register, *register, turning(i));
            }
        });
    }
}

/// The codes of one plane, shifted down.
pub(super) fn shift_plane_z(a: &mut A64, codes: V, packed: V, plane: i64, mask: V) {
    match plane {
        0 => a.and_z(codes, packed, mask),
        3 => a.lsr_z_b(codes, packed, 6),
        _ => {
            a.lsr_z_b(codes, packed, 2 * plane);
            a.and_z(codes, codes, mask);
        }
    }
}
