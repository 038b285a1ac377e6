//! The loops of attention with RVV (see [`AttentionPart`]), the same bits at any vector length.
//!
//! Lanes are positions of scores or elements of values; no step goes across lanes but in the two reductions of
//! softmax. Half-finished sums never leave the registers. Elements of f16 caches are widened by integer steps, which
//! need nothing beyond V.

mod code_scores;
mod code_values;
mod codes;
mod scores;
mod softmax;
mod values;

use tcc_ir::ty::DType;

use super::abi::function;
use super::floats::{Halves, element_bytes, load_widened, strips};
use super::inst::{A0, A1, A2, FT0, Lmul, T2, V, ret, vse32, vsetvli};
use crate::asm::Asm;
use crate::code::Function;
use crate::isa::AttentionPart;

/// The function of `part`.
pub(super) fn emit(part: AttentionPart) -> Function {
    let mut asm = Asm::new();
    let frame_bytes = match part {
        AttentionPart::Widen => widen(&mut asm),
        AttentionPart::Scores => scores::emit(&mut asm),
        AttentionPart::Softmax => softmax::emit(&mut asm),
        AttentionPart::Values => values::emit(&mut asm),
        AttentionPart::QueryCodes => codes::queries(&mut asm),
        AttentionPart::CodeScores => code_scores::emit(&mut asm),
        AttentionPart::WeightCodes => codes::weights(&mut asm),
        AttentionPart::CodeValues => code_values::emit(&mut asm),
    };
    function(part.symbol(), asm, frame_bytes)
}

/// `extern "C" fn(from, to, n)`.
fn widen(asm: &mut Asm) -> u32 {
    let (from, to, left) = (A0, A1, A2);
    let halves = Halves { kept: T2, rebias: FT0 };
    halves.load(asm, DType::F16);
    strips(asm, left, (vsetvli, Lmul::M8), &[(from, element_bytes(DType::F16)), (to, 4)], |asm| {
        load_widened(asm, DType::F16, V::new(8), V::new(0), from, halves);
        asm.word(vse32(V::new(8), to));
    });
    asm.word(ret());
    0
}
