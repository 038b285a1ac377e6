//! The loops over rows of floats with RVV (see [`RowPart`]): as many elements at a time as eight registers hold. Only
//! sums of squares, whose order matters, take sixteen.

use tcc_ir::numerics::{EXP_MAX, LANES};

use super::abi::function;
use super::exp::{self, ARGUMENT, FIRST_OTHER, ONE, load_constants};
use super::floats::{by_vector_length, int, load_bits, load_float, reduce, repeat, set_sixteen, strips};
use super::inst::{
    A0, A1, A2, A3, FA0, FA1, FT0, Lmul, Sew, T1, T2, V, ZERO, addi, andi, beq, fmv_w_x, patch_branch, put, ret, srli,
    vadd_vv, vand_vx, vfadd_vf, vfcvt_x_f_v, vfdiv_vv, vfmacc_vv, vfmax_vf, vfmul_vf, vfmul_vv, vle32, vmax_vv,
    vmv_v_i, vmv_x_s, vnsrl_wi, vredmax_vs, vredsum_vs, vse8, vse32, vsetvli, vsetvli_tu,
};
use crate::asm::Asm;
use crate::code::Function;
use crate::isa::{RowBodies, RowPart};

/// Groups of eight registers: two operands, and what is gathered from all elements.
const LMUL: Lmul = Lmul::M8;

fn left() -> V {
    LMUL.group(0)
}

fn right() -> V {
    LMUL.group(1)
}

fn gathered() -> V {
    LMUL.group(2)
}

/// The function of `part`.
///
/// Narrowing to halves is an extension of its own (Zvfhmin).
pub(super) fn emit(part: RowPart) -> Option<Function> {
    let bodies: RowBodies<fn(&mut Asm)> = RowBodies { squares, scale, absmax, codes, relu2, silu, narrow: None };
    let mut asm = Asm::new();
    bodies.of(part)?(&mut asm);
    Some(function(part.symbol(), asm, 0))
}

/// `extern "C" fn(x, n) -> f32`.
fn squares(asm: &mut Asm) {
    let (x, n, count) = (A0, A1, T1);
    by_vector_length(asm, |asm, lmul| {
        let [partials, elements] = [0, 1].map(|index| lmul.group(index));
        let block = |asm: &mut Asm| {
            put(asm, &[vle32(elements, x), addi(x, x, int(4 * LANES)), vfmacc_vv(partials, elements, elements)]);
        };
        set_sixteen(asm, lmul);
        put(asm, &[vmv_v_i(partials, 0), srli(count, n, 5)]);
        repeat(asm, count, |asm| {
            block(asm);
            block(asm);
        });
        put(asm, &[srli(count, n, 4), andi(count, count, 1)]);
        repeat(asm, count, block);
        let whole = asm.label();
        asm.word(andi(n, n, int(LANES - 1)));
        asm.branch(beq(n, ZERO), whole, patch_branch);
        asm.word(vsetvli_tu(ZERO, n, Sew::E32, lmul));
        block(asm);
        set_sixteen(asm, lmul);
        asm.bind(whole);
        reduce(asm, partials, elements, FA0);
        asm.word(ret());
    });
}

/// `extern "C" fn(x, w, n, out, r)`.
fn scale(asm: &mut Asm) {
    let [x, w, n, out] = [A0, A1, A2, A3];
    strips(asm, n, (vsetvli, LMUL), &[(x, 4), (w, 4), (out, 4)], |asm| {
        put(asm, &[vle32(left(), x), vle32(right(), w), vfmul_vf(left(), left(), FA0)]);
        put(asm, &[vfmul_vv(left(), left(), right()), vse32(left(), out)]);
    });
    asm.word(ret());
}

/// Clears what is gathered.
fn clear_gathered(asm: &mut Asm) {
    put(asm, &[vsetvli(T1, ZERO, Sew::E32, LMUL), vmv_v_i(gathered(), 0)]);
}

/// Returns what was gathered, joined with 0 by `op`.
fn return_gathered(asm: &mut Asm, op: fn(V, V, V) -> u32) {
    put(asm, &[vsetvli(T1, ZERO, Sew::E32, LMUL), vmv_v_i(left(), 0), op(left(), gathered(), left())]);
    put(asm, &[vmv_x_s(A0, left()), ret()]);
}

/// `extern "C" fn(x, n) -> i32`.
fn absmax(asm: &mut Asm) {
    let (x, n, magnitude) = (A0, A1, T2);
    load_bits(asm, magnitude, i32::MAX.cast_unsigned());
    clear_gathered(asm);
    strips(asm, n, (vsetvli_tu, LMUL), &[(x, 4)], |asm| {
        put(asm, &[vle32(left(), x), vand_vx(left(), left(), magnitude)]);
        asm.word(vmax_vv(gathered(), gathered(), left()));
    });
    return_gathered(asm, vredmax_vs);
}

/// `extern "C" fn(x, n, codes, inv_scale) -> i32`.
fn codes(asm: &mut Asm) {
    let [x, n, codes] = [A0, A1, A2];
    let narrow = right();
    clear_gathered(asm);
    strips(asm, n, (vsetvli_tu, LMUL), &[(x, 4), (codes, 1)], |asm| {
        put(asm, &[vle32(left(), x), vfmul_vf(left(), left(), FA0), vfcvt_x_f_v(left(), left())]);
        asm.word(vadd_vv(gathered(), gathered(), left()));
        put(asm, &[set_same(Sew::E16, Lmul::M4), vnsrl_wi(narrow, left(), 0)]);
        put(asm, &[set_same(Sew::E8, Lmul::M2), vnsrl_wi(left(), narrow, 0), vse8(left(), codes)]);
    });
    return_gathered(asm, vredsum_vs);
}

/// Narrower elements in as many registers fewer: the length in use stays.
fn set_same(sew: Sew, lmul: Lmul) -> u32 {
    vsetvli(ZERO, ZERO, sew, lmul)
}

/// `extern "C" fn(g, u, n, out)`.
fn relu2(asm: &mut Asm) {
    let [g, u, n, out] = [A0, A1, A2, A3];
    asm.word(fmv_w_x(FT0, ZERO));
    strips(asm, n, (vsetvli, LMUL), &[(g, 4), (u, 4), (out, 4)], |asm| {
        put(asm, &[vle32(left(), g), vle32(right(), u), vfmax_vf(left(), left(), FT0)]);
        put(asm, &[vfmul_vv(left(), left(), left()), vfmul_vv(left(), left(), right()), vse32(left(), out)]);
    });
    asm.word(ret());
}

/// `extern "C" fn(g, u, n, out)`: fewer elements at a time, because exponentials need registers.
fn silu(asm: &mut Asm) {
    let [g, u, n, out] = [A0, A1, A2, A3];
    let [x, gate, up] = [ARGUMENT, FIRST_OTHER, FIRST_OTHER + 1].map(exp::v);
    let (least, minus_one) = (FA0, FA1);
    load_constants(asm, T1);
    load_float(asm, least, -EXP_MAX, T1);
    load_float(asm, minus_one, -1.0, T1);
    strips(asm, n, (vsetvli, exp::LMUL), &[(g, 4), (u, 4), (out, 4)], |asm| {
        put(asm, &[vle32(gate, g), vfmax_vf(x, gate, least), vfmul_vf(x, x, minus_one)]);
        exp::exp(asm);
        put(asm, &[vfadd_vf(x, x, ONE), vfdiv_vv(gate, gate, x), vle32(up, u), vfmul_vv(gate, gate, up)]);
        asm.word(vse32(gate, out));
    });
    asm.word(ret());
}
