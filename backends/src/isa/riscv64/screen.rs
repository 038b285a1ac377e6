//! The loops of a screened head (see [`ScreenLoops`]) with RVV, the same bits at any vector length.
//!
//! Sixteen lanes of four bytes are rows of a panel, or groups of a record. Four bits or two of each byte meet a code;
//! products are summed to 16 bits, which a group cannot exceed: its 32 columns are eight products for each byte of a
//! lane, each at most 15 · 128 in magnitude, and pairs of those are added before they are widened: 30720.

use tcc_ir::coded::ROW_SCALES_BYTES;
use tcc_ir::screen::query::LOW_UNIT;
use tcc_ir::screen::{BLOCK, BLOCK_BYTES, GROUP, LANES_BYTES, PANEL_ROWS, PIECE_BYTES, PIECE_GROUPS};

use super::abi::function;
use super::floats::{by_vector_length, int, load_float, reduce, repeat, set_sixteen};
use super::inst::{
    A0, A1, A2, A3, A4, A5, A6, A7, FT0, FT1, Lmul, Sew, T0, T1, T2, T3, T4, T5, T6, V, X, ZERO, add, addi, flw,
    fmul_s, fsw, lb, li, lw, mul, mv, put, ret, slli, vadd_vv, vadd_vx, vand_vi, vfcvt_f_x_v, vfmacc_vf, vfmacc_vv,
    vfmul_vf, vfmul_vv, vle8, vle16, vle32, vlseg4e8, vmv_v_i, vmv_v_x, vnsrl_wi, vse32, vsetivli, vsetvli, vsll_vi,
    vsra_vi, vsrl_vi, vwadd_wv, vwmacc_vv, vwmacc_vx, vwmul_vx, vzext_vf2,
};
use crate::asm::Asm;
use crate::isa::ScreenLoops;

/// Registers, sixteen lanes of 32 bits being a group of `lmul`.
#[derive(Clone, Copy)]
struct Groups {
    lmul: Lmul,
    /// Holds [`LANES_BYTES`].
    bytes: X,
    /// Holds half of that.
    pairs: X,
}

impl Groups {
    /// Sums of 16 bits, one for each byte of a row of lanes: two groups.
    fn sums(self) -> V {
        self.lmul.group(0)
    }

    fn bits(self) -> V {
        self.lmul.group(2)
    }

    fn bytes(self) -> V {
        self.lmul.group(3)
    }

    /// Codes that the bits of two planes meet.
    fn codes(self, plane: usize) -> V {
        self.lmul.group(4 + plane)
    }

    fn exact(self) -> V {
        self.lmul.group(6)
    }

    /// The estimates, or the refinement so far.
    fn lanes(self) -> V {
        self.lmul.group(7)
    }

    /// Registers of a row of lanes as bytes.
    fn set_bytes(self, asm: &mut Asm) {
        asm.word(vsetvli(ZERO, self.bytes, Sew::E8, self.lmul));
    }

    fn clear_sums(self, asm: &mut Asm) {
        put(asm, &[vsetvli(ZERO, self.bytes, Sew::E16, Lmul::of(2 * self.lmul.registers())), vmv_v_i(self.sums(), 0)]);
    }

    /// Adds the four sums of each lane; 32-bit lanes are left in use.
    fn add_sums(self, asm: &mut Asm) {
        let [low, high] = [self.bits(), self.bytes()];
        asm.word(vsetvli(ZERO, self.pairs, Sew::E16, self.lmul));
        put(asm, &[vnsrl_wi(low, self.sums(), 0), vnsrl_wi(high, self.sums(), 16), vadd_vv(low, low, high)]);
        set_sixteen(asm, self.lmul);
        put(asm, &[vsra_vi(high, low, 16), vsll_vi(low, low, 16), vsra_vi(low, low, 16)]);
        asm.word(vadd_vv(self.exact(), low, high));
    }

    /// Sixteen bf16 at `from` as f32, in the registers of the bits.
    fn load_scales(self, asm: &mut Asm, from: X) {
        put(asm, &[vle16(self.bytes(), from), vzext_vf2(self.bits(), self.bytes())]);
        asm.word(vsll_vi(self.bits(), self.bits(), 16));
    }

    /// Adds exact sums times factors, which are in the registers of the bits.
    fn add_to_lanes(self, asm: &mut Asm) {
        put(asm, &[vfcvt_f_x_v(self.exact(), self.exact()), vfmacc_vv(self.lanes(), self.exact(), self.bits())]);
    }
}

/// The loops for cores with V.
pub(super) fn emit() -> ScreenLoops {
    let [mut panels, mut byte_panels, mut rows] = [Asm::new(), Asm::new(), Asm::new()];
    by_vector_length(&mut panels, self::panels);
    self::byte_panels(&mut byte_panels);
    by_vector_length(&mut rows, self::rows);
    ScreenLoops {
        panels: function("screen_panels", panels, 0),
        byte_panels: function("screen_byte_panels", byte_panels, 0),
        rows: function("screen_rows", rows, 0),
    }
}

/// `extern "C" fn(planes, codes, blocks, panels, out)`.
fn panels(asm: &mut Asm, lmul: Lmul) {
    let [w, codes, blocks, panels, out, q, scales, offsets] = [A0, A1, A2, A3, A4, A5, A6, A7];
    let (left, nibbles) = (T0, T1);
    let groups = Groups { lmul, bytes: T2, pairs: T3 };
    put(asm, &[li(groups.bytes, int(LANES_BYTES)), li(groups.pairs, int(LANES_BYTES / 2))]);
    repeat(asm, panels, |asm| {
        put(asm, &[mv(q, codes), mv(left, blocks), slli(scales, blocks, BLOCK.trailing_zeros())]);
        put(
            asm,
            &[
                add(scales, scales, codes),
                slli(offsets, blocks, (4 * BLOCK / GROUP).trailing_zeros()),
                add(offsets, offsets, scales),
            ],
        );
        set_sixteen(asm, lmul);
        asm.word(vmv_v_i(groups.lanes(), 0));
        repeat(asm, left, |asm| {
            asm.word(addi(nibbles, w, int(2 * 2 * PANEL_ROWS)));
            for half in 0..2 {
                group_sums(asm, groups, nibbles, q);
                groups.add_sums(asm);
                put(asm, &[lw(T4, 4 * half, offsets), flw(FT0, 4 * half, scales)]);
                // What four bits stand for is twice them, and an offset.
                put(asm, &[vsll_vi(groups.exact(), groups.exact(), 1), vadd_vx(groups.exact(), groups.exact(), T4)]);
                groups.load_scales(asm, w);
                asm.word(vfmul_vf(groups.bits(), groups.bits(), FT0));
                groups.add_to_lanes(asm);
                put(asm, &[addi(w, w, int(2 * PANEL_ROWS)), addi(q, q, int(GROUP))]);
            }
            put(asm, &[addi(w, w, int(BLOCK_BYTES - 2 * 2 * PANEL_ROWS)), addi(scales, scales, 8)]);
            asm.word(addi(offsets, offsets, 8));
        });
        put(asm, &[vse32(groups.lanes(), out), addi(out, out, int(4 * PANEL_ROWS))]);
    });
    asm.word(ret());
}

/// Sums of nibbles times codes over one group; moves `nibbles` past it.
fn group_sums(asm: &mut Asm, groups: Groups, nibbles: X, q: X) {
    groups.clear_sums(asm);
    for eight in 0..GROUP / 8 {
        put(asm, &[lw(T4, int(8 * eight), q), lw(T5, int(8 * eight + 4), q)]);
        set_sixteen(asm, groups.lmul);
        put(asm, &[vmv_v_x(groups.codes(0), T4), vmv_v_x(groups.codes(1), T5)]);
        groups.set_bytes(asm);
        put(asm, &[vle8(groups.bytes(), nibbles), addi(nibbles, nibbles, int(LANES_BYTES))]);
        put(asm, &[vand_vi(groups.bits(), groups.bytes(), 15), vsrl_vi(groups.bytes(), groups.bytes(), 4)]);
        put(asm, &[vwmacc_vv(groups.sums(), groups.bits(), groups.codes(0))]);
        put(asm, &[vwmacc_vv(groups.sums(), groups.bytes(), groups.codes(1))]);
    }
}

/// Sixteen lanes of bytes, of 16 bits and of 32 in panels of bytes, at any vector length.
const BYTE_LANES: [Lmul; 3] = [Lmul::M1, Lmul::M2, Lmul::M4];

/// `extern "C" fn(planes, codes, blocks, panels, out)`, of panels of bytes. Lanes are rows in every width: segments of
/// four bytes are a row's columns, which meet scalars.
fn byte_panels(asm: &mut Asm) {
    let [w, codes, blocks, panels, out, q, scales, left] = [A0, A1, A2, A3, A4, A5, A6, A7];
    let lmul = BYTE_LANES[2];
    let [exact, lanes, factors] = [0, 1, 4].map(|i| lmul.group(i));
    repeat(asm, panels, |asm| {
        put(asm, &[mv(q, codes), slli(scales, blocks, BLOCK.trailing_zeros()), add(scales, scales, codes)]);
        put(asm, &[slli(left, blocks, (BLOCK / GROUP).trailing_zeros())]);
        set_sixteen(asm, lmul);
        asm.word(vmv_v_i(lanes, 0));
        repeat(asm, left, |asm| {
            asm.word(vmv_v_i(exact, 0));
            byte_group_sums(asm, exact, w, q);
            set_sixteen(asm, lmul);
            put(asm, &[flw(FT0, 0, scales), addi(scales, scales, 4), addi(q, q, int(GROUP))]);
            put(asm, &[vfcvt_f_x_v(exact, exact), vfmacc_vf(lanes, FT0, exact)]);
        });
        put(asm, &[vle32(factors, w), addi(w, w, int(ROW_SCALES_BYTES)), vfmul_vv(lanes, lanes, factors)]);
        put(asm, &[vse32(lanes, out), addi(out, out, int(4 * PANEL_ROWS))]);
    });
    asm.word(ret());
}

/// Adds bytes times codes over one group to `exact`; moves `w` past it. Two products, of 127 · 128 at most, are added in
/// 16 bits.
fn byte_group_sums(asm: &mut Asm, exact: V, w: X, q: X) {
    let sums = |j: usize| BYTE_LANES[1].group(8 + j);
    let [first, second] = [24, 28];
    for eight in (0..GROUP).step_by(8) {
        asm.word(vsetivli(ZERO, PANEL_ROWS as u32, Sew::E8, BYTE_LANES[0]));
        for four in [first, second] {
            put(asm, &[vlseg4e8(V::new(four), w), addi(w, w, int(LANES_BYTES))]);
        }
        for j in 0..4 {
            let [one, other] = [[T0, T1], [T2, T3], [T4, T5], [T6, T0]][j];
            put(asm, &[lb(one, int(eight + j), q), lb(other, int(eight + 4 + j), q)]);
            put(asm, &[vwmul_vx(sums(j), V::new(first + j), one), vwmacc_vx(sums(j), other, V::new(second + j))]);
        }
        asm.word(vsetivli(ZERO, PANEL_ROWS as u32, Sew::E16, BYTE_LANES[1]));
        (0..4).for_each(|j| asm.word(vwadd_wv(exact, exact, sums(j))));
    }
}

/// `extern "C" fn(records, lane_codes, pieces, rows, count, out)`.
fn rows(asm: &mut Asm, lmul: Lmul) {
    let [records, all_codes, pieces, list, count, out, record, codes] = [A0, A1, A2, A3, A4, A5, A6, A7];
    let (left, scales, offsets, row) = (T0, T1, T4, T5);
    let groups = Groups { lmul, bytes: T2, pairs: T3 };
    put(asm, &[li(groups.bytes, int(LANES_BYTES)), li(groups.pairs, int(LANES_BYTES / 2))]);
    load_float(asm, FT1, LOW_UNIT, T4);
    repeat(asm, count, |asm| {
        put(asm, &[lw(row, 0, list), addi(list, list, 4), li(record, int(PIECE_BYTES)), mul(record, record, pieces)]);
        put(asm, &[mul(record, record, row), add(record, record, records)]);
        put(asm, &[mv(codes, all_codes), mv(left, pieces)]);
        put(asm, &[slli(scales, pieces, (PIECE_GROUPS * GROUP).trailing_zeros()), add(scales, scales, codes)]);
        put(asm, &[slli(offsets, pieces, (4 * PIECE_GROUPS).trailing_zeros()), add(offsets, offsets, scales)]);
        set_sixteen(asm, lmul);
        asm.word(vmv_v_i(groups.lanes(), 0));
        repeat(asm, left, |asm| {
            piece_sums(asm, groups, record, codes);
            groups.add_sums(asm);
            // What two bits stand for is four times them, and an offset.
            put(asm, &[vsll_vi(groups.exact(), groups.exact(), 2), vle32(groups.codes(0), offsets)]);
            asm.word(vadd_vv(groups.exact(), groups.exact(), groups.codes(0)));
            groups.load_scales(asm, record);
            put(asm, &[vle32(groups.codes(0), scales), vfmul_vv(groups.bits(), groups.bits(), groups.codes(0))]);
            groups.add_to_lanes(asm);
            for at in [scales, offsets] {
                asm.word(addi(at, at, int(4 * PIECE_GROUPS)));
            }
            asm.word(addi(record, record, int(PIECE_BYTES)));
        });
        reduce(asm, groups.lanes(), groups.bits(), FT0);
        put(asm, &[fmul_s(FT0, FT0, FT1), slli(row, row, 2), add(row, row, out), fsw(FT0, 0, row)]);
    });
    asm.word(ret());
}

/// Sums of low bits times codes over the piece at `record`; moves `codes` past its codes.
fn piece_sums(asm: &mut Asm, groups: Groups, record: X, codes: X) {
    let (bits, bytes) = (groups.bits(), groups.bytes());
    groups.clear_sums(asm);
    groups.set_bytes(asm);
    for row in 0..GROUP / 16 {
        put(asm, &[addi(T6, record, int(2 * PIECE_GROUPS + row * LANES_BYTES)), vle8(bytes, T6)]);
        for plane in 0..4 {
            put(asm, &[vle8(groups.codes(0), codes), addi(codes, codes, int(LANES_BYTES))]);
            match plane {
                0 => asm.word(vand_vi(bits, bytes, 3)),
                3 => asm.word(vsrl_vi(bits, bytes, 6)),
                _ => put(asm, &[vsrl_vi(bits, bytes, 2 * plane), vand_vi(bits, bits, 3)]),
            }
            asm.word(vwmacc_vv(groups.sums(), bits, groups.codes(0)));
        }
    }
}
