//! Softmax: scores become factors in place.

use tcc_ir::numerics::LANES;

use super::super::exp::{ARGUMENT, LMUL, NEXT, P, exp, load_constants, v};
use super::super::floats::{self, by_vector_length, int, load_float, reduce, repeat, set_sixteen};
use super::super::inst::{
    A0, A1, A2, A3, A4, A5, A6, A7, F, FA0, FA1, Lmul, Sew, T1, T2, X, ZERO, add, addi, andi, beq, mv, patch_branch,
    put, ret, slli, srli, sub, vfadd_vv, vfmul_vf, vfmul_vv, vfmv_f_s, vfmv_s_f, vfmv_v_f, vfredmax_vs, vfsub_vf,
    vle32, vmv_v_i, vse32, vsetvli,
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
/// `extern "C" fn(e, seen, k_scales, v_scales, scale) -> f32`; returns its stack in bytes.
pub(super) fn emit(asm: &mut Asm) -> u32 {
    load_constants(asm, T1);
    load_float(asm, LARGEST, f32::NEG_INFINITY, T1);
    put(asm, &[addi(PADDED, SEEN, int(LANES - 1)), andi(PADDED, PADDED, -int(LANES))]);
    multiply_by(asm, K_SCALES);
    scale(asm);
    fill_last_block(asm);
    strips(asm, PADDED, None, |asm| {
        // Not above 0.
        put(asm, &[vle32(v(ARGUMENT), AT), vfsub_vf(v(ARGUMENT), v(ARGUMENT), LARGEST)]);
        exp(asm);
        asm.word(vse32(v(ARGUMENT), AT));
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
        put(asm, &[vle32(v(ARGUMENT), AT), vle32(v(NEXT), SCALES), vfmul_vv(v(ARGUMENT), v(ARGUMENT), v(NEXT))]);
        asm.word(vse32(v(ARGUMENT), AT));
    });
    asm.bind(none);
}

/// Multiplies by the scale; leaves the largest in the first lane of group [`P`].
fn scale(asm: &mut Asm) {
    put(asm, &[vsetvli(ZERO, SEEN, Sew::E32, LMUL), vfmv_s_f(v(P), LARGEST)]);
    strips(asm, SEEN, None, |asm| {
        put(asm, &[vle32(v(ARGUMENT), AT), vfmul_vf(v(ARGUMENT), v(ARGUMENT), SCALE)]);
        put(asm, &[vse32(v(ARGUMENT), AT), vfredmax_vs(v(P), v(ARGUMENT), v(P))]);
    });
}

/// Writes minus infinity behind the last position: its exponential is +0. Then the largest score is known.
fn fill_last_block(asm: &mut Asm) {
    put(asm, &[slli(BYTES, SEEN, 2), add(AT, E, BYTES), sub(LEFT, PADDED, SEEN)]);
    put(asm, &[vsetvli(ZERO, LEFT, Sew::E32, LMUL), vfmv_v_f(v(NEXT), LARGEST), vse32(v(NEXT), AT)]);
    asm.word(vfmv_f_s(LARGEST, v(P)));
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
