//! The loops of attention with RVV (see [`AttentionPart`]), the same bits at any vector length.
//!
//! Lanes are positions of scores or elements of values; no step goes across lanes but in the two reductions of
//! softmax. Half-finished sums never leave the registers. Elements of f16 caches are widened by integer steps, which
//! need nothing beyond V.

mod scores;
mod softmax;
mod values;

use tcc_ir::ty::DType;

use super::abi::function;
use super::floats::{Halves, element_bytes, load_widened};
use super::inst::{
    A0, A1, A2, FT0, Lmul, Sew, T1, T2, T3, V, ZERO, add, beq, bne, mv, patch_branch, put, ret, slli, sub, vse32,
    vsetvli,
};
use crate::asm::Asm;
use crate::code::Function;
use crate::isa::AttentionPart;

/// The function of `part`.
pub(super) fn emit(part: AttentionPart) -> Function {
    let mut asm = Asm::new();
    let frame_bytes = match part {
        AttentionPart::Widen(from) => widen(&mut asm, from),
        AttentionPart::Scores => scores::emit(&mut asm),
        AttentionPart::Softmax => softmax::emit(&mut asm),
        AttentionPart::Values => values::emit(&mut asm),
    };
    function(&part.symbol(), asm, frame_bytes)
}

/// `extern "C" fn(from, to, n)`.
fn widen(asm: &mut Asm, cache: DType) -> u32 {
    let (from, to, left) = (A0, A1, A2);
    let (count, bytes) = (T2, T3);
    let halves = Halves { kept: T1, rebias: FT0 };
    halves.load(asm);
    let done = asm.label();
    asm.branch(beq(left, ZERO), done, patch_branch);
    let again = asm.bound();
    asm.word(vsetvli(count, left, Sew::E32, Lmul::M8));
    load_widened(asm, cache, V::new(8), V::new(0), from, halves);
    asm.word(vse32(V::new(8), to));
    if element_bytes(cache) == 1 {
        asm.word(mv(bytes, count));
    } else {
        asm.word(slli(bytes, count, element_bytes(cache).trailing_zeros()));
    }
    put(asm, &[add(from, from, bytes), slli(bytes, count, 2), add(to, to, bytes), sub(left, left, count)]);
    asm.branch(bne(left, ZERO), again, patch_branch);
    asm.bind(done);
    asm.word(ret());
    0
}
