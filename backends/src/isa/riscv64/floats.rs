//! What the float loops with RVV share: elements of every float type widened to f32, sums in sixteen partials, loops.
//!
//! Where order matters sixteen lanes of 32 bits are used at any vector length: they are a group of four registers of
//! 128 bits, two of 256, one from 512 bits on.

use tcc_ir::numerics::LANES;
use tcc_ir::ty::DType;

use super::inst::{
    F, Lmul, Sew, T0, T1, V, X, ZERO, add, addi, beq, bge, blt, bne, csrr_vlenb, fmv_w_x, li, lui, patch_branch, put,
    slli, sub, vand_vx, vfadd_vv, vfmul_vf, vfmv_f_s, vle16, vle32, vsetivli, vsext_vf2, vslidedown_vi, vsll_vi,
    vzext_vf2,
};
use crate::asm::Asm;

/// Groups that hold sixteen lanes, with the least bytes of a register they are for, longest first; the last is for all
/// that are left.
const SIXTEEN: [(Lmul, Option<i32>); 3] = [(Lmul::M1, Some(64)), (Lmul::M2, Some(32)), (Lmul::M4, None)];

/// Exponent and mantissa of an f16 under its sign, where an f32 has them.
const F16_KEPT: u32 = 0x8fff_e000;
/// What such an f32 is too small by: the difference of the biases.
const F16_REBIAS: f32 = f32::from_bits((127 + 112) << 23);

/// Registers that widening an f16 needs.
#[derive(Clone, Copy)]
pub(super) struct Halves {
    pub kept: X,
    pub rebias: F,
}

impl Halves {
    /// What [`load_widened`] needs for elements of type `dtype`; changes t0.
    pub fn load(self, asm: &mut Asm, dtype: DType) {
        if dtype == DType::F16 {
            load_bits(asm, self.kept, F16_KEPT);
            load_float(asm, self.rebias, F16_REBIAS, T0);
        }
    }
}

/// The low 32 bits of `rd`.
pub(super) fn load_bits(asm: &mut Asm, rd: X, bits: u32) {
    // The immediate of `addi` is signed, so the upper half is rounded to the nearest page.
    let low = (bits << 20).cast_signed() >> 20;
    put(asm, &[lui(rd, bits.wrapping_sub(low.cast_unsigned()) >> 12), addi(rd, rd, low)]);
}

/// `value` in `rd`; changes `scratch`.
pub(super) fn load_float(asm: &mut Asm, rd: F, value: f32, scratch: X) {
    load_bits(asm, scratch, value.to_bits());
    asm.word(fmv_w_x(rd, scratch));
}

/// Loads elements of type `dtype` at `from`, widened exactly to f32, by way of `narrow`. The element width in use is
/// 32 bits.
pub(super) fn load_widened(asm: &mut Asm, dtype: DType, to: V, narrow: V, from: X, halves: Halves) {
    match dtype {
        DType::F32 => asm.word(vle32(to, from)),
        DType::Bf16 => put(asm, &[vle16(narrow, from), vzext_vf2(to, narrow), vsll_vi(to, to, 16)]),
        // Exact also for subnormals, which the product normalizes.
        DType::F16 => {
            put(asm, &[vle16(narrow, from), vsext_vf2(to, narrow), vsll_vi(to, to, 13)]);
            put(asm, &[vand_vx(to, to, halves.kept), vfmul_vf(to, to, halves.rebias)]);
        }
        DType::I8 | DType::I32 | DType::U32 | DType::Q8 | DType::Trit => {
            unreachable!("asked for floats only, found {dtype}")
        }
    }
}

/// Bytes of an element of [`load_widened`].
pub(super) fn element_bytes(dtype: DType) -> usize {
    dtype.size_bytes().unwrap_or(1)
}

/// Emits `body` for each group of [`SIXTEEN`] and runs that of this core. Each of them leaves the function.
pub(super) fn by_vector_length(asm: &mut Asm, body: impl Fn(&mut Asm, Lmul)) {
    by_register_bytes(asm, &SIXTEEN, body);
}

/// The same for each of `choices` with the least bytes of a register it is for, most first; the last is for all that are
/// left. Changes t0 and t1.
pub(super) fn by_register_bytes<T: Copy>(asm: &mut Asm, choices: &[(T, Option<i32>)], body: impl Fn(&mut Asm, T)) {
    asm.word(csrr_vlenb(T0));
    for (choice, least) in choices {
        let shorter = asm.label();
        if let Some(least) = least {
            asm.word(li(T1, *least));
            asm.branch(blt(T0, T1), shorter, patch_branch);
        }
        body(asm, *choice);
        asm.bind(shorter);
    }
}

/// Sixteen lanes of 32 bits in groups of `lmul` registers.
pub(super) fn set_sixteen(asm: &mut Asm, lmul: Lmul) {
    asm.word(vsetivli(ZERO, LANES as u32, Sew::E32, lmul));
}

/// Adds the sixteen partials in `partials` as `numerics::reduce` does; changes them and `scratch`.
pub(super) fn reduce(asm: &mut Asm, partials: V, scratch: V, to: F) {
    for half in [8, 4, 2, 1] {
        put(asm, &[vslidedown_vi(scratch, partials, half), vfadd_vv(partials, partials, scratch)]);
    }
    asm.word(vfmv_f_s(to, partials));
}

/// Runs `body`, which keeps `left`, while at least `count` of `left` are left.
pub(super) fn while_left(asm: &mut Asm, left: X, count: usize, body: impl FnOnce(&mut Asm)) {
    let done = asm.label();
    asm.word(addi(left, left, -int(count)));
    asm.branch(blt(left, ZERO), done, patch_branch);
    let again = asm.bound();
    body(asm);
    asm.word(addi(left, left, -int(count)));
    asm.branch(bge(left, ZERO), again, patch_branch);
    asm.bind(done);
    asm.word(addi(left, left, int(count)));
}

/// `for _ in 0..count`, with `count` left at 0; skipped if it is 0.
pub(super) fn repeat(asm: &mut Asm, count: X, body: impl FnOnce(&mut Asm)) {
    let done = asm.label();
    asm.branch(beq(count, ZERO), done, patch_branch);
    let again = asm.bound();
    body(asm);
    asm.word(addi(count, count, -1));
    asm.branch(bne(count, ZERO), again, patch_branch);
    asm.bind(done);
}

/// `vsetvli`, or `vsetvli_tu` where elements behind the last are to stay.
type SetLength = fn(X, X, Sew, Lmul) -> u32;

/// Runs `body` for the next of `left` elements of 32 bits, as many as groups of `lmul` registers hold, until none is
/// left. `streams` are pointers with the bytes of an element, which move on.
/// Changes t0 and t1, which `body` keeps.
pub(super) fn strips(
    asm: &mut Asm,
    left: X,
    (set, lmul): (SetLength, Lmul),
    streams: &[(X, usize)],
    body: impl FnOnce(&mut Asm),
) {
    let (count, bytes) = (T0, T1);
    let done = asm.label();
    asm.branch(beq(left, ZERO), done, patch_branch);
    let again = asm.bound();
    asm.word(set(count, left, Sew::E32, lmul));
    body(asm);
    asm.word(sub(left, left, count));
    let mut scaled = None;
    for (at, size) in streams {
        let step = if *size == 1 { count } else { bytes };
        if *size > 1 && scaled.replace(*size) != Some(*size) {
            asm.word(slli(bytes, count, size.trailing_zeros()));
        }
        asm.word(add(*at, *at, step));
    }
    asm.branch(bne(left, ZERO), again, patch_branch);
    asm.bind(done);
}

pub(super) fn int(value: usize) -> i32 {
    i32::try_from(value).expect("a small constant")
}
