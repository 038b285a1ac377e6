//! Queries and weights become codes of fourteen bits, laid out by [`QueryCodes`] and [`WeightCodes`].

use tcc_ir::attention_codes::{PLANE, PLANE_BITS, QUERY_MAX, QueryCodes, WEIGHT_MAX, WeightCodes};
use tcc_ir::numerics::{ABSMAX_FLOOR, LANES};

use super::super::floats::{int, load_bits, load_float, repeat, strips};
use super::super::inst::{
    A0, A1, A2, A3, A4, A5, A6, A7, F, FA0, FT0, FT1, Lmul, Sew, T1, T2, T3, T4, T5, T6, V, X, ZERO, add, addi, andi,
    fdiv_s, fsw, li, mv, put, ret, slli, srli, sub, sw, vadd_vv, vand_vx, vfcvt_x_f_v, vfmul_vf, vfmv_f_s, vfredmax_vs,
    vle32, vmax_vv, vmv_v_i, vmv_v_x, vmv_x_s, vnsrl_wi, vredmax_vs, vredsum_vs, vse8, vse16, vse32, vsetivli, vsetvli,
    vsetvli_tu, vsra_vi,
};
use crate::asm::Asm;

/// Groups of eight registers: elements, their high codes, and what is gathered of all of them. In the fourth, codes and
/// bytes are narrowed.
const LMUL: Lmul = Lmul::M8;

fn elements() -> V {
    LMUL.group(0)
}

fn high() -> V {
    LMUL.group(1)
}

fn gathered() -> V {
    LMUL.group(2)
}

/// Codes of 16 bits, and of a plane.
fn narrow() -> V {
    V::new(24)
}

fn bytes() -> V {
    V::new(28)
}

const LIMIT: F = FT0;
const INV_SCALE: F = FT1;
/// Where the codes of the elements at hand go: high plane, low plane, whole.
type Streams = [X; 3];

/// `extern "C" fn(q, d, queries, codes)`; returns its stack in bytes.
pub(super) fn queries(asm: &mut Asm) -> u32 {
    let [q, d, queries, base, padded] = [A0, A1, A2, A3, A4];
    let (at, left, low_mask) = (A5, A6, A7);
    let to = [T2, T3, T4];
    let (magnitude, floor) = (T5, T6);
    load_float(asm, LIMIT, f32::from(QUERY_MAX), T1);
    load_bits(asm, magnitude, i32::MAX.cast_unsigned());
    load_bits(asm, floor, ABSMAX_FLOOR.to_bits());
    asm.word(li(low_mask, int(usize::from(PLANE) - 1)));
    put(asm, &[addi(padded, d, int(LANES - 1)), andi(padded, padded, -int(LANES))]);
    repeat(asm, queries, |asm| {
        put(asm, &[vsetvli(T1, ZERO, Sew::E32, LMUL), vmv_v_x(gathered(), floor), mv(at, q), mv(left, d)]);
        strips(asm, left, (vsetvli_tu, LMUL), &[(at, 4)], |asm| {
            put(asm, &[vle32(elements(), at), vand_vx(elements(), elements(), magnitude)]);
            asm.word(vmax_vv(gathered(), gathered(), elements()));
        });
        put(asm, &[vsetvli(T1, ZERO, Sew::E32, LMUL), vredmax_vs(elements(), gathered(), gathered())]);
        put(asm, &[vfmv_f_s(FA0, elements()), fdiv_s(INV_SCALE, LIMIT, FA0), fdiv_s(FA0, FA0, LIMIT)]);
        put(asm, &[fsw(FA0, int(QueryCodes::SCALE), base), vmv_v_i(gathered(), 0)]);
        put(asm, &[addi(to[0], base, int(QueryCodes::HIGH)), add(to[1], to[0], padded), add(to[2], to[1], padded)]);
        asm.word(mv(left, d));
        strips(asm, left, (vsetvli_tu, LMUL), &[(to[0], 1), (to[1], 1), (q, 4), (to[2], 2)], |asm| {
            asm.word(vle32(elements(), q));
            round(asm);
            asm.word(vadd_vv(gathered(), gathered(), elements()));
            store_planes(asm, to, low_mask);
        });
        // The padding.
        put(asm, &[sub(left, padded, d), vsetvli(ZERO, left, Sew::E16, Lmul::M2), vmv_v_i(elements(), 0)]);
        put(asm, &[vse16(elements(), to[2]), vsetvli(ZERO, left, Sew::E8, Lmul::M1)]);
        put(asm, &[vse8(elements(), to[0]), vse8(elements(), to[1])]);
        put(asm, &[vsetvli(T1, ZERO, Sew::E32, LMUL), vmv_v_i(elements(), 0)]);
        put(asm, &[vredsum_vs(elements(), gathered(), elements()), vmv_x_s(T1, elements())]);
        asm.word(sw(T1, int(QueryCodes::SUM), base));
        // Codes are the last of a query.
        put(asm, &[slli(T1, padded, 2), addi(base, base, int(QueryCodes::HIGH)), add(base, base, T1)]);
    });
    asm.word(ret());
    0
}

/// `extern "C" fn(w, seen, end) -> f32`; returns its stack in bytes.
pub(super) fn weights(asm: &mut Asm) -> u32 {
    let [w, seen, end, padded] = [A0, A1, A2, A3];
    let (at, left, low_mask) = (A4, A5, A6);
    let planes = [w, T2, T3];
    load_float(asm, LIMIT, f32::from(WEIGHT_MAX), T1);
    asm.word(li(low_mask, int(usize::from(PLANE) - 1)));
    for (to, n) in [(padded, seen), (end, end)] {
        put(asm, &[addi(to, n, int(LANES - 1)), andi(to, to, -int(LANES))]);
    }
    put(asm, &[slli(at, seen, 2), add(at, w, at), sub(left, padded, seen), sub(end, end, padded)]);
    put(asm, &[vsetvli(ZERO, left, Sew::E32, Lmul::M4), vmv_v_i(elements(), 0), vse32(elements(), at)]);
    put(asm, &[vsetivli(ZERO, 1, Sew::E32, LMUL), vmv_v_i(gathered(), 0), mv(at, w), mv(left, padded)]);
    strips(asm, left, (vsetvli, LMUL), &[(at, 4)], |asm| {
        put(asm, &[vle32(elements(), at), vfredmax_vs(gathered(), elements(), gathered())]);
    });
    put(asm, &[vfmv_f_s(FA0, gathered()), fdiv_s(INV_SCALE, LIMIT, FA0), fdiv_s(FA0, FA0, LIMIT)]);
    asm.word(srli(left, padded, LANES.trailing_zeros()));
    repeat(asm, left, |asm| {
        put(asm, &[vsetivli(ZERO, LANES as u32, Sew::E32, LMUL), vle32(elements(), w)]);
        round(asm);
        put(asm, &[addi(planes[1], w, int(WeightCodes::LOW)), addi(planes[2], w, int(WeightCodes::CODES))]);
        store_planes(asm, planes, low_mask);
        asm.word(addi(w, w, int(WeightCodes::BYTES)));
    });
    // Codes of zero are zeros.
    strips(asm, end, (vsetvli, LMUL), &[(w, 4)], |asm| put(asm, &[vmv_v_i(elements(), 0), vse32(elements(), w)]));
    asm.word(ret());
    0
}

/// Elements become codes of 32 bits.
fn round(asm: &mut Asm) {
    put(asm, &[vfmul_vf(elements(), elements(), INV_SCALE), vfcvt_x_f_v(elements(), elements())]);
}

/// Narrower elements in as many registers fewer: the length in use stays.
fn set_same(sew: Sew, lmul: Lmul) -> u32 {
    vsetvli(ZERO, ZERO, sew, lmul)
}

/// Stores codes of 32 bits as two planes and as they are.
fn store_planes(asm: &mut Asm, to: Streams, low_mask: X) {
    put(asm, &[vsra_vi(high(), elements(), PLANE_BITS), set_same(Sew::E16, Lmul::M4)]);
    put(asm, &[vnsrl_wi(narrow(), elements(), 0), vse16(narrow(), to[2]), vnsrl_wi(elements(), high(), 0)]);
    put(asm, &[vand_vx(narrow(), narrow(), low_mask), set_same(Sew::E8, Lmul::M2)]);
    put(asm, &[vnsrl_wi(bytes(), elements(), 0), vse8(bytes(), to[0])]);
    put(asm, &[vnsrl_wi(bytes(), narrow(), 0), vse8(bytes(), to[1])]);
}
