//! One token row without a dot product: `smlal` to int16, widened every 256 columns.
//!
//! The four activations of a plane are repeated along a register (`ld1r`), so lanes are (row, column mod 4). Planes 1
//! and 3 are used at four times their height, in an accumulator `high`, which saves two shifts in 64 weights.
//!
//! **Invariant:** int16 never overflows, for any int8. `high` gets two products of at most 4·2·128 = 1024 per block:
//! 16 blocks make -32768. Shifted down by two it joins `low`, which holds as many products of at most 256: -16384
//! together, and the pairwise sum of two such lanes is at least -32768. The positive side is smaller.

use super::super::inst::{A64, V, X};
use super::{ACC, BLOCK_BYTES, BLOCKS, Q, W, W_STRIDE, for_panels, repeat};

/// Panels that run side by side.
const PANELS_WIDE: usize = 4;
/// Steps of two blocks between widenings.
const CHUNK_STEPS: i64 = 8;

const MASK_LOW: V = V(4);
const MASK_HIGH: V = V(5);
const SHIFTED: V = V(7);
const PLANE_0: V = V(12);
const PLANE_2: V = V(13);
/// Where the first of a step's two blocks lands; the second waits in [`second_block`].
const FIRST_BLOCK: V = V(6);

const Q_POINTER: X = X(8);
const STEPS: X = X(9);
const COUNT: X = X(14);
const LIMIT: X = X(15);

/// Where the weights of a panel are read.
fn w_pointer(panel: usize) -> X {
    X(10 + panel as u8)
}

/// Accumulators of one panel: rows 0 and 1, rows 2 and 3.
#[derive(Clone, Copy)]
struct Sums {
    low: [V; 2],
    high: [V; 2],
}

fn sums(panel: usize) -> Sums {
    let first = 16 + 4 * panel as u8;
    Sums { low: [V(first), V(first + 1)], high: [V(first + 2), V(first + 3)] }
}

fn second_block(panel: usize) -> V {
    V(8 + panel as u8)
}

pub(super) fn emit(a: &mut A64) {
    a.movi(MASK_LOW, 0b0011);
    a.movi(MASK_HIGH, 0b1100);
    a.mov_imm(LIMIT, CHUNK_STEPS);
    for_panels(a, PANELS_WIDE, group);
}

fn group(a: &mut A64, panels: usize) {
    for panel in 0..panels {
        a.mov(w_pointer(panel), W);
        a.add(W, W, W_STRIDE);
    }
    a.mov(Q_POINTER, Q);
    a.lsr(STEPS, BLOCKS, 1);
    let (steps_done, done) = (a.asm.label(), a.asm.label());
    a.cbz(STEPS, steps_done);
    let chunk = a.asm.bound();
    a.cmp(STEPS, LIMIT);
    a.csel_lo(COUNT, STEPS, LIMIT);
    a.sub(STEPS, STEPS, COUNT);
    clear(a, panels);
    repeat(a, COUNT, |a| two_blocks(a, panels));
    widen(a, panels);
    a.cbnz(STEPS, chunk);
    a.asm.bind(steps_done);
    a.and_1(COUNT, BLOCKS);
    a.cbz(COUNT, done);
    clear(a, panels);
    one_block(a, panels);
    widen(a, panels);
    a.asm.bind(done);
    a.add_imm(ACC, ACC, 16 * panels as i64);
}

fn clear(a: &mut A64, panels: usize) {
    for panel in 0..panels {
        let Sums { low, high } = sums(panel);
        for register in [low[0], low[1], high[0], high[1]] {
            a.movi(register, 0);
        }
    }
}

fn two_blocks(a: &mut A64, panels: usize) {
    load_activations(a);
    for panel in 0..panels {
        a.ldp_q_post(FIRST_BLOCK, second_block(panel), w_pointer(panel), 2 * BLOCK_BYTES);
        multiply(a, sums(panel), FIRST_BLOCK);
    }
    load_activations(a);
    for panel in 0..panels {
        multiply(a, sums(panel), second_block(panel));
    }
}

fn one_block(a: &mut A64, panels: usize) {
    load_activations(a);
    for panel in 0..panels {
        a.ldr_q_post(FIRST_BLOCK, w_pointer(panel), BLOCK_BYTES);
        multiply(a, sums(panel), FIRST_BLOCK);
    }
}

/// The sixteen activations of a block, those of plane p repeated in v`p`.
fn load_activations(a: &mut A64) {
    for plane in 0..4 {
        a.ld1r_s(V(plane), Q_POINTER);
    }
}

/// Adds one block of one panel.
fn multiply(a: &mut A64, Sums { low, high }: Sums, packed: V) {
    a.ushr_b(SHIFTED, packed, 4);
    a.and_v(PLANE_0, packed, MASK_LOW);
    a.and_v(packed, packed, MASK_HIGH);
    a.and_v(PLANE_2, SHIFTED, MASK_LOW);
    a.and_v(SHIFTED, SHIFTED, MASK_HIGH);
    let planes = [(PLANE_0, low), (packed, high), (PLANE_2, low), (SHIFTED, high)];
    for (plane, (codes, to)) in planes.into_iter().enumerate() {
        a.smlal(to[0], codes, V(plane as u8));
        a.smlal2(to[1], codes, V(plane as u8));
    }
}

/// Adds the int16 sums to the int32 accumulators in memory.
fn widen(a: &mut A64, panels: usize) {
    for panel in 0..panels {
        let Sums { low, high } = sums(panel);
        let total = high[0];
        a.ssra_h(low[0], high[0], 2);
        a.ssra_h(low[1], high[1], 2);
        a.addp_h(low[0], low[0], low[1]);
        a.ldr_q(total, ACC, 16 * panel as i64);
        a.sadalp_h(total, low[0]);
        a.str_q(total, ACC, 16 * panel as i64);
    }
}
