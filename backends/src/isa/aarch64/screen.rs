//! The loops of a screened head (see [`ScreenLoops`]) with NEON, with and without the dot product extension.
//!
//! Four registers are sixteen lanes of 32 bits: rows of a panel, or groups of a record. Four bits or two of each of a
//! lane's four bytes meet four codes.
//!
//! `sdot` sums to 32 bits at once. Without it, products are summed to 16 bits, which a group cannot exceed: its 32
//! columns are eight products for each byte of a lane, each at most 15 · 128 in magnitude, and pairs of those are
//! added before they are widened: 30720.

use tcc_ir::coded::ROW_SCALES_BYTES;
use tcc_ir::screen::query::LOW_UNIT;
use tcc_ir::screen::{self, BLOCK, BLOCK_BYTES, GROUP, PANEL_ROWS, PIECE_BYTES, PIECE_GROUPS};
use tcc_ir::target::Features;

use super::abi::saving;
use super::desc::DOTPROD;
use super::floats::{reduce, repeat, splat};
use super::inst::{A64, V, X};
use super::micro::shift_plane;
use crate::isa::ScreenLoops;

/// Bytes of a row of lanes.
const LANES_BYTES: i64 = screen::LANES_BYTES as i64;

/// The estimates, or the refinement so far.
const LANES: [V; 4] = [V(0), V(1), V(2), V(3)];
/// Sums of a group: the first four, or pairs of 16 bits in all.
const SUMS: [V; 8] = [V(8), V(9), V(10), V(11), V(12), V(13), V(14), V(15)];
const BYTES: [V; 4] = [V(16), V(17), V(18), V(19)];
/// Codes that the bits at hand meet: four of each of two planes, or lanes of their own.
const CODES: [V; 4] = [V(20), V(21), V(22), V(23)];
const BITS: V = V(24);
const MASK: V = V(25);
/// Row scales, then factors.
const FACTORS: [V; 4] = [V(26), V(27), V(28), V(29)];
const SCALE: V = V(30);
const OFFSET: V = V(31);

/// The loops for cores with `features`, the baseline included.
pub(super) fn emit(features: Features) -> ScreenLoops {
    let sums = Sums { has_dotprod: features.contains(DOTPROD) };
    ScreenLoops {
        panels: saving("screen_panels", |a| panels(a, sums)),
        byte_panels: saving("screen_byte_panels", |a| byte_panels(a, sums)),
        rows: saving("screen_rows", |a| rows(a, sums)),
    }
}

/// How products of bits and codes are summed in each of sixteen lanes.
#[derive(Clone, Copy)]
struct Sums {
    has_dotprod: bool,
}

impl Sums {
    fn clear(self, a: &mut A64) {
        let used = if self.has_dotprod { &SUMS[..4] } else { &SUMS };
        used.iter().for_each(|sum| a.movi(*sum, 0));
    }

    /// Adds to the four lanes of register `register`.
    fn multiply(self, a: &mut A64, register: usize, bits: V, codes: V) {
        if self.has_dotprod {
            a.sdot(SUMS[register], bits, codes);
        } else {
            a.smlal(SUMS[2 * register], bits, codes);
            a.smlal2(SUMS[2 * register + 1], bits, codes);
        }
    }

    /// Leaves 32-bit sums in the first four registers.
    fn finish(self, a: &mut A64) {
        for register in (0..4).filter(|_| !self.has_dotprod) {
            let sum = SUMS[register];
            a.addp_h(sum, SUMS[2 * register], SUMS[2 * register + 1]);
            a.saddlp_h(sum, sum);
        }
    }
}

/// Widens the sixteen bf16 at `from` + `offset` to [`FACTORS`].
fn load_scales(a: &mut A64, from: X, offset: i64) {
    let [first, second, third, fourth] = FACTORS;
    a.ldp_q(third, fourth, from, offset);
    a.shll_s(first, third);
    a.shll2_s(second, third);
    a.shll_s(third, fourth);
    a.shll2_s(fourth, fourth);
}

/// Adds exact sums times factors to the lanes.
fn add_to_lanes(a: &mut A64) {
    for (lane, (sum, factor)) in LANES.into_iter().zip(SUMS.into_iter().zip(FACTORS)) {
        a.scvtf(sum, sum);
        a.fmla(lane, sum, factor);
    }
}

/// `extern "C" fn(planes, codes, blocks, panels, out)`.
fn panels(a: &mut A64, sums: Sums) {
    let [w, codes, blocks, panels, out] = std::array::from_fn(|i| X(i as u8));
    let [q, scales, offsets, left] = [X(5), X(6), X(7), X(8)];
    a.movi(MASK, 0x0f);
    repeat(a, panels, |a| {
        a.mov(q, codes);
        a.add_lsl(scales, codes, blocks, BLOCK.trailing_zeros().into());
        a.add_lsl(offsets, scales, blocks, i64::from((4 * BLOCK / GROUP).trailing_zeros()));
        LANES.iter().for_each(|lane| a.movi(*lane, 0));
        a.mov(left, blocks);
        repeat(a, left, |a| {
            for half in 0..2 {
                group_sums(a, sums, w, q, half);
                a.ld1r_s(SCALE, scales);
                a.ld1r_s(OFFSET, offsets);
                load_scales(a, w, 2 * PANEL_ROWS as i64 * half);
                for (sum, factor) in SUMS.into_iter().zip(FACTORS) {
                    // What four bits stand for is twice them, and an offset.
                    a.add_s(sum, sum, sum);
                    a.add_s(sum, sum, OFFSET);
                    a.fmul(factor, factor, SCALE);
                }
                add_to_lanes(a);
            }
            a.add_imm(w, w, BLOCK_BYTES as i64);
        });
        let [first, second, third, fourth] = LANES;
        a.stp_q_post(first, second, out, 32);
        a.stp_q_post(third, fourth, out, 32);
    });
}

/// Sums of nibbles times codes over group `half` of the block at `w`; moves `q` past its codes.
fn group_sums(a: &mut A64, sums: Sums, w: X, q: X, half: i64) {
    let nibbles = 2 * 2 * PANEL_ROWS as i64 + half * (GROUP / 2 * PANEL_ROWS) as i64;
    let [low, high] = [CODES[0], CODES[1]];
    sums.clear(a);
    for eight in 0..GROUP as i64 / 8 {
        a.ld1r_s(low, q);
        a.ld1r_s(high, q);
        load_lanes(a, BYTES, w, nibbles + eight * LANES_BYTES);
        for (register, bytes) in BYTES.into_iter().enumerate() {
            a.and_v(BITS, bytes, MASK);
            a.ushr_b(bytes, bytes, 4);
            sums.multiply(a, register, BITS, low);
            sums.multiply(a, register, bytes, high);
        }
    }
    sums.finish(a);
}

/// A row of lanes.
fn load_lanes(a: &mut A64, to: [V; 4], from: X, offset: i64) {
    let [first, second, third, fourth] = to;
    a.ldp_q(first, second, from, offset);
    a.ldp_q(third, fourth, from, offset + LANES_BYTES / 2);
}

/// `extern "C" fn(planes, codes, blocks, panels, out)`, of panels of bytes.
fn byte_panels(a: &mut A64, sums: Sums) {
    let [w, codes, blocks, panels, out] = std::array::from_fn(|i| X(i as u8));
    let [q, scales, left] = [X(5), X(6), X(7)];
    repeat(a, panels, |a| {
        a.mov(q, codes);
        a.add_lsl(scales, codes, blocks, BLOCK.trailing_zeros().into());
        LANES.iter().for_each(|lane| a.movi(*lane, 0));
        a.add(left, blocks, blocks);
        repeat(a, left, |a| {
            byte_group_sums(a, sums, w, q);
            a.add_imm(w, w, (GROUP * PANEL_ROWS) as i64);
            a.ld1r_s(SCALE, scales);
            for (lane, sum) in LANES.into_iter().zip(SUMS) {
                a.scvtf(sum, sum);
                a.fmla(lane, sum, SCALE);
            }
        });
        load_lanes(a, FACTORS, w, 0);
        a.add_imm(w, w, ROW_SCALES_BYTES as i64);
        for (lane, factor) in LANES.into_iter().zip(FACTORS) {
            a.fmul(lane, lane, factor);
        }
        let [first, second, third, fourth] = LANES;
        a.stp_q_post(first, second, out, 32);
        a.stp_q_post(third, fourth, out, 32);
    });
}

/// Sums of bytes times codes over the group at `w`; moves `q` past its codes. Without `sdot` two products, of 127 · 128 at
/// most, are added in 16 bits.
fn byte_group_sums(a: &mut A64, sums: Sums, w: X, q: X) {
    let ([low, high], [left, right]) = ([CODES[0], CODES[1]], [BITS, MASK]);
    sums.clear(a);
    for eight in 0..GROUP as i64 / 8 {
        a.ld1r_s(low, q);
        a.ld1r_s(high, q);
        load_lanes(a, BYTES, w, 2 * eight * LANES_BYTES);
        load_lanes(a, FACTORS, w, (2 * eight + 1) * LANES_BYTES);
        for (register, (first, second)) in BYTES.into_iter().zip(FACTORS).enumerate() {
            if sums.has_dotprod {
                a.sdot(SUMS[register], first, low);
                a.sdot(SUMS[register], second, high);
            } else {
                a.smull(left, first, low);
                a.smull2(right, first, low);
                a.smlal(left, second, high);
                a.smlal2(right, second, high);
                a.sadalp_h(SUMS[2 * register], left);
                a.sadalp_h(SUMS[2 * register + 1], right);
            }
        }
    }
    for register in (0..4).filter(|_| !sums.has_dotprod) {
        a.addp_s(SUMS[register], SUMS[2 * register], SUMS[2 * register + 1]);
    }
}

/// `extern "C" fn(records, lane_codes, pieces, rows, count, out)`.
fn rows(a: &mut A64, sums: Sums) {
    let [records, all_codes, pieces, list, count, out] = std::array::from_fn(|i| X(i as u8));
    let [row, record, codes, scales, offsets, left, bytes] = std::array::from_fn(|i| X(6 + i as u8));
    let scratch = X(13);
    a.movi(MASK, 3);
    a.mov_imm(bytes, PIECE_BYTES as i64);
    a.mov_imm(scratch, 0);
    a.madd(bytes, pieces, bytes, scratch);
    repeat(a, count, |a| {
        a.ldr_w_post(row, list, 4);
        a.madd(record, row, bytes, records);
        a.mov(codes, all_codes);
        a.add_lsl(scales, codes, pieces, (PIECE_GROUPS * GROUP).trailing_zeros().into());
        a.add_lsl(offsets, scales, pieces, (4 * PIECE_GROUPS).trailing_zeros().into());
        LANES.iter().for_each(|lane| a.movi(*lane, 0));
        a.mov(left, pieces);
        repeat(a, left, |a| {
            piece_sums(a, sums, record, codes);
            load_scales(a, record, 0);
            a.add_imm(record, record, PIECE_BYTES as i64);
            for pair in [[0, 1], [2, 3]] {
                a.ldp_q_post(SCALE, BITS, scales, 32);
                a.ldp_q_post(OFFSET, CODES[0], offsets, 32);
                for (i, (scale, offset)) in pair.into_iter().zip([(SCALE, OFFSET), (BITS, CODES[0])]) {
                    // What two bits stand for is four times them, and an offset.
                    a.shl_s(SUMS[i], SUMS[i], 2);
                    a.add_s(SUMS[i], SUMS[i], offset);
                    a.fmul(FACTORS[i], FACTORS[i], scale);
                }
            }
            add_to_lanes(a);
        });
        reduce(a, LANES);
        splat(a, SCALE, LOW_UNIT, scratch);
        a.fmul(LANES[0], LANES[0], SCALE);
        a.add_lsl(row, out, row, 2);
        a.str_s(LANES[0], row, 0);
    });
}

/// Sums of low bits times codes over the piece at `record`; moves `codes` past its codes.
fn piece_sums(a: &mut A64, sums: Sums, record: X, codes: X) {
    let [first, second, third, fourth] = CODES;
    sums.clear(a);
    for row in 0..GROUP as i64 / 16 {
        load_lanes(a, BYTES, record, 2 * PIECE_GROUPS as i64 + row * LANES_BYTES);
        for plane in 0..4 {
            a.ldp_q_post(first, second, codes, 32);
            a.ldp_q_post(third, fourth, codes, 32);
            for (register, bytes) in BYTES.into_iter().enumerate() {
                shift_plane(a, BITS, bytes, plane, MASK);
                sums.multiply(a, register, BITS, CODES[register]);
            }
        }
    }
    sums.finish(a);
}
