//! Four token rows without a dot product: two panels are unpacked once and meet all rows by `smlal`.
//!
//! **Invariant:** int16 never overflows, for any int8. A lane gets four products of at most 2·128 = 256 per block: 32
//! blocks make -32768. The positive side is smaller.

use super::super::inst::{A64, V, X};
use super::{ACC, BLOCK_BYTES, BLOCKS, Q, Q_STRIDE, W, W_STRIDE, for_panels, repeat, shift_plane};

/// Token rows.
const MR: usize = 4;
/// Panels that run side by side.
const PANELS_WIDE: usize = 2;
/// Blocks between widenings.
const CHUNK_BLOCKS: i64 = 32;

const MASK: V = V(8);
const LEFT: X = X(14);
const COUNT: X = X(15);
const LIMIT: X = X(16);

fn codes(panel: usize, plane: i64) -> V {
    V(4 * panel as u8 + plane as u8)
}

/// Sums of a token row: output rows 0 and 1, 2 and 3.
fn sums(panel: usize, token: usize) -> [V; 2] {
    let first = (16 + 2 * (panel * MR + token)) as u8;
    [V(first), V(first + 1)]
}

fn q_pointer(token: usize) -> X {
    X((8 + token) as u8)
}

fn w_pointer(panel: usize) -> X {
    X((12 + panel) as u8)
}

pub(super) fn emit(a: &mut A64) {
    a.movi(MASK, 3);
    a.mov_imm(LIMIT, CHUNK_BLOCKS);
    for_panels(a, PANELS_WIDE, group);
}

fn group(a: &mut A64, panels: usize) {
    for panel in 0..panels {
        a.mov(w_pointer(panel), W);
        a.add(W, W, W_STRIDE);
    }
    a.mov(q_pointer(0), Q);
    for token in 1..MR {
        a.add(q_pointer(token), q_pointer(token - 1), Q_STRIDE);
    }
    let done = a.asm.label();
    a.mov(LEFT, BLOCKS);
    a.cbz(LEFT, done);
    let chunk = a.asm.bound();
    a.cmp(LEFT, LIMIT);
    a.csel_lo(COUNT, LEFT, LIMIT);
    a.sub(LEFT, LEFT, COUNT);
    for i in 0..2 * MR * panels {
        a.movi(V((16 + i) as u8), 0);
    }
    repeat(a, COUNT, |a| block(a, panels));
    widen(a, panels);
    a.cbnz(LEFT, chunk);
    a.asm.bind(done);
    a.add_imm(ACC, ACC, 16 * (panels * MR) as i64);
}

fn block(a: &mut A64, panels: usize) {
    for panel in 0..panels {
        // The top plane is unpacked last, over the packed bytes.
        let packed = codes(panel, 3);
        a.ldr_q_post(packed, w_pointer(panel), BLOCK_BYTES);
        for plane in 0..4 {
            shift_plane(a, codes(panel, plane), packed, plane, MASK);
        }
    }
    for plane in 0..4 {
        for token in 0..MR {
            let q = V((9 + token) as u8);
            a.ld1r_s(q, q_pointer(token));
            for panel in 0..panels {
                let [low, high] = sums(panel, token);
                a.smlal(low, codes(panel, plane), q);
                a.smlal2(high, codes(panel, plane), q);
            }
        }
    }
}

/// Adds the int16 sums to the int32 accumulators in memory.
fn widen(a: &mut A64, panels: usize) {
    let mut offset = 0;
    for panel in 0..panels {
        for token in 0..MR {
            let [low, high] = sums(panel, token);
            a.saddlp_h(low, low);
            a.saddlp_h(high, high);
            a.addp_s(low, low, high);
            a.ldr_q(high, ACC, offset);
            a.add_s(high, high, low);
            a.str_q(high, ACC, offset);
            offset += 16;
        }
    }
}
