//! What the float loops of NEON share: elements of every float type widened to f32, loops over what is left.

use tcc_ir::ty::DType;

use super::inst::{A64, V, X};

/// Elements of four registers.
pub(super) const LANES: i64 = 16;

/// Loads sixteen elements of type `dtype` at `from`, widened exactly to f32, and moves `from` past them.
pub(super) fn load_block(a: &mut A64, dtype: DType, to: [V; 4], from: X) {
    let [first, second, third, fourth] = to;
    match dtype {
        DType::F32 => {
            a.ldp_q_post(first, second, from, 32);
            a.ldp_q_post(third, fourth, from, 32);
        }
        DType::F16 => {
            a.ldp_q_post(third, fourth, from, 32);
            a.fcvtl(first, third);
            a.fcvtl2(second, third);
            a.fcvtl(third, fourth);
            a.fcvtl2(fourth, fourth);
        }
        DType::Bf16 => {
            a.ldp_q_post(third, fourth, from, 32);
            a.shll_s(first, third);
            a.shll2_s(second, third);
            a.shll_s(third, fourth);
            a.shll2_s(fourth, fourth);
        }
        DType::I8 | DType::I32 | DType::U32 | DType::Q8 | DType::Trit => {
            unreachable!("asked for floats only, found {dtype}")
        }
    }
}

/// Loads one element of type `dtype` at `from`, widened, to the first lane of `to`, and moves `from` past it.
pub(super) fn load_one(a: &mut A64, dtype: DType, to: V, from: X) {
    match dtype {
        DType::F32 => a.ldr_s_post(to, from, 4),
        DType::F16 => {
            a.ldr_h_post(to, from, 2);
            a.fcvtl(to, to);
        }
        DType::Bf16 => {
            a.ldr_h_post(to, from, 2);
            a.shll_s(to, to);
        }
        DType::I8 | DType::I32 | DType::U32 | DType::Q8 | DType::Trit => {
            unreachable!("asked for floats only, found {dtype}")
        }
    }
}

/// Puts `value` into every lane; changes `scratch`.
pub(super) fn splat(a: &mut A64, to: V, value: f32, scratch: X) {
    let bits = value.to_bits();
    a.mov_imm(scratch, (bits & 0xffff).into());
    a.movk_16(scratch, (bits >> 16).into());
    a.dup_w(to, scratch);
}

/// Adds the sixteen partials as `numerics::reduce` does, to the first lane of the first register.
pub(super) fn reduce(a: &mut A64, partials: [V; 4]) {
    let [first, second, third, fourth] = partials;
    a.fadd(first, first, third);
    a.fadd(second, second, fourth);
    a.fadd(first, first, second);
    a.ext(second, first, first, 8);
    a.fadd(first, first, second);
    a.faddp(first, first);
}

/// Runs `body` while at least `count` of `left` are left.
pub(super) fn while_left(a: &mut A64, left: X, count: i64, body: impl FnOnce(&mut A64)) {
    let done = a.asm.label();
    a.cmp_imm(left, count);
    a.b_lo(done);
    let again = a.asm.bound();
    body(a);
    a.sub_imm(left, left, count);
    a.cmp_imm(left, count);
    a.b_hs(again);
    a.asm.bind(done);
}

/// `for _ in 0..count`, with `count` left at 0; skipped if it is 0.
pub(super) fn repeat(a: &mut A64, count: X, body: impl FnOnce(&mut A64)) {
    let done = a.asm.label();
    a.cbz(count, done);
    let again = a.asm.bound();
    body(a);
    a.subs_imm(count, count, 1);
    a.b_ne(again);
    a.asm.bind(done);
}
