//! Softmax: scores become factors in place.

use tcc_ir::numerics::{EXP_MIN, EXP_POLY, LANES, LN2_HIGH, LN2_LOW, LOG2_E, ROUND_MAGIC};

use super::super::floats::{self, by_vector_length, int, load_float, reduce, repeat, set_sixteen};
use super::super::inst::{
    A0, A1, A2, A3, A4, A5, A6, A7, F, FA0, FA1, FA2, FA3, FA4, FA5, FT0, FT1, FT2, FT3, FT4, FT5, FT6, FT7, Lmul, Sew,
    T1, T2, V, X, ZERO, add, addi, andi, beq, mv, patch_branch, put, ret, slli, srli, sub, vadd_vv, vfadd_vf, vfadd_vv,
    vfmacc_vf, vfmacc_vv, vfmul_vf, vfmul_vv, vfmv_f_s, vfmv_s_f, vfmv_v_f, vfnmsac_vf, vfredmax_vs, vfsub_vf, vle32,
    vmerge_vim, vmflt_vf, vmv_v_i, vse32, vsetvli, vsll_vi,
};
use crate::asm::Asm;

const E: X = A0;
const SEEN: X = A1;
const K_SCALES: X = A2;
const V_SCALES: X = A3;
/// Positions of whole blocks.
const PADDED: X = A4;
const AT: X = A5;
const LEFT: X = A6;
const SCALES: X = A7;
const BYTES: X = T2;

const SCALE: F = FA0;
/// Minus infinity, then the largest score.
const LARGEST: F = FA1;
const MAGIC: F = FA2;
const LOG2: F = FA3;
const HIGH: F = FA4;
const LOW: F = FA5;
const ONE: F = FT6;
const SMALLEST: F = FT7;
/// Horner coefficients.
const POLY: [F; 6] = [FT0, FT1, FT2, FT3, FT4, FT5];

/// Groups of four registers; the first is the mask of what is too small.
const LMUL: Lmul = Lmul::M4;
const MASK: usize = 0;
const SCORE: usize = 1;
const EXPONENT: usize = 2;
const P: usize = 3;
const NEXT: usize = 4;

fn v(index: usize) -> V {
    LMUL.group(index)
}

/// `extern "C" fn(e, seen, k_scales, v_scales, scale) -> f32`; returns its stack in bytes.
pub(super) fn emit(asm: &mut Asm) -> u32 {
    let constants =
        [(MAGIC, ROUND_MAGIC), (LOG2, LOG2_E), (HIGH, LN2_HIGH), (LOW, LN2_LOW), (ONE, 1.0), (SMALLEST, EXP_MIN)];
    for (register, value) in constants.into_iter().chain(POLY.into_iter().zip(EXP_POLY)) {
        load_float(asm, register, value, T1);
    }
    load_float(asm, LARGEST, f32::NEG_INFINITY, T1);
    put(asm, &[addi(PADDED, SEEN, int(LANES - 1)), andi(PADDED, PADDED, -int(LANES))]);
    multiply_by(asm, K_SCALES);
    scale(asm);
    fill_last_block(asm);
    strips(asm, PADDED, None, |asm| {
        asm.word(vle32(v(SCORE), AT));
        exponential(asm);
        asm.word(vse32(v(SCORE), AT));
    });
    // The sum is left in the return register before the value scales come in.
    let summed = asm.label();
    by_vector_length(asm, |asm, lmul| {
        sum(asm, lmul);
        asm.branch(beq(ZERO, ZERO), summed, patch_branch);
    });
    asm.bind(summed);
    multiply_by(asm, V_SCALES);
    asm.word(ret());
    0
}

/// Runs `body` for the next scores, as many as four registers hold, until `count` are done; `scales` moves along.
fn strips(asm: &mut Asm, count: X, scales: Option<X>, body: impl FnOnce(&mut Asm)) {
    put(asm, &[mv(AT, E), mv(LEFT, count)]);
    let streams: Vec<_> = [AT].into_iter().chain(scales).map(|at| (at, 4)).collect();
    floats::strips(asm, LEFT, (vsetvli, LMUL), &streams, body);
}

/// Multiplies by the scales of the positions, unless they are null.
fn multiply_by(asm: &mut Asm, scales: X) {
    let none = asm.label();
    asm.branch(beq(scales, ZERO), none, patch_branch);
    asm.word(mv(SCALES, scales));
    strips(asm, PADDED, Some(SCALES), |asm| {
        put(asm, &[vle32(v(SCORE), AT), vle32(v(NEXT), SCALES), vfmul_vv(v(SCORE), v(SCORE), v(NEXT))]);
        asm.word(vse32(v(SCORE), AT));
    });
    asm.bind(none);
}

/// Multiplies by the scale; leaves the largest in the first lane of group [`P`].
fn scale(asm: &mut Asm) {
    put(asm, &[vsetvli(ZERO, SEEN, Sew::E32, LMUL), vfmv_s_f(v(P), LARGEST)]);
    strips(asm, SEEN, None, |asm| {
        put(asm, &[vle32(v(SCORE), AT), vfmul_vf(v(SCORE), v(SCORE), SCALE)]);
        put(asm, &[vse32(v(SCORE), AT), vfredmax_vs(v(P), v(SCORE), v(P))]);
    });
}

/// Writes minus infinity behind the last position: its exponential is +0. Then the largest score is known.
fn fill_last_block(asm: &mut Asm) {
    put(asm, &[slli(BYTES, SEEN, 2), add(AT, E, BYTES), sub(LEFT, PADDED, SEEN)]);
    put(asm, &[vsetvli(ZERO, LEFT, Sew::E32, LMUL), vfmv_v_f(v(NEXT), LARGEST), vse32(v(NEXT), AT)]);
    asm.word(vfmv_f_s(LARGEST, v(P)));
}

/// `numerics::exp` of scores less the largest, which are not above 0, so that its upper bound never acts.
fn exponential(asm: &mut Asm) {
    let [x, e, n, next] = [SCORE, EXPONENT, P, NEXT].map(v);
    put(asm, &[vfsub_vf(x, x, LARGEST), vmflt_vf(v(MASK), x, SMALLEST), vfmul_vf(e, x, LOG2), vfadd_vf(e, e, MAGIC)]);
    put(asm, &[vfsub_vf(n, e, MAGIC), vfnmsac_vf(x, HIGH, n), vfnmsac_vf(x, LOW, n)]);
    // The magic number's low nine bits are 0, so shifting the biased sum by 23 leaves n in the exponent field.
    asm.word(vsll_vi(e, e, 23));
    let (mut p, mut to) = (n, next);
    put(asm, &[vfmv_v_f(p, POLY[1]), vfmacc_vf(p, POLY[0], x)]);
    for coefficient in &POLY[2..] {
        put(asm, &[vfmv_v_f(to, *coefficient), vfmacc_vv(to, p, x)]);
        (p, to) = (to, p);
    }
    put(asm, &[vfmul_vv(to, x, x), vfmacc_vv(x, p, to), vfadd_vf(x, x, ONE), vadd_vv(x, x, e), vmerge_vim(x, x, 0)]);
}

/// `numerics::sum` of the exponentials to the return register.
fn sum(asm: &mut Asm, lmul: Lmul) {
    let [total, scores] = [0, 1].map(|index| lmul.group(index));
    set_sixteen(asm, lmul);
    put(asm, &[vmv_v_i(total, 0), mv(AT, E), srli(LEFT, PADDED, LANES.trailing_zeros())]);
    repeat(asm, LEFT, |asm| {
        put(asm, &[vle32(scores, AT), addi(AT, AT, int(4 * LANES)), vfadd_vv(total, total, scores)]);
    });
    reduce(asm, total, scores, FA0);
}
