//! The loops of attention with NEON (see [`AttentionPart`]).
//!
//! Four registers are sixteen positions of scores, or sixteen lanes of values; no step goes across lanes but in the
//! two reductions of softmax. Half-finished sums never leave the registers.

mod code_scores;
mod code_values;
mod codes;
mod scores;
mod softmax;
mod values;

use tcc_ir::target::Features;
use tcc_ir::ty::DType;

use super::abi::{leaf, saving};
use super::desc::DOTPROD;
use super::floats::{load_block, load_one, repeat};
use super::inst::{A64, V, X};
use crate::code::Function;
use crate::isa::AttentionPart;

/// Bytes of four registers: sixteen floats.
const BLOCK_BYTES: i64 = 64;

/// The function of `part` for cores with `features`, the baseline included.
pub(super) fn emit(part: AttentionPart, features: Features) -> Function {
    let has_dotprod = features.contains(DOTPROD);
    match part {
        AttentionPart::Widen => leaf(part.symbol(), widen),
        AttentionPart::Scores => saving(part.symbol(), scores::emit),
        AttentionPart::Softmax => saving(part.symbol(), softmax::emit),
        AttentionPart::Values => saving(part.symbol(), values::emit),
        AttentionPart::QueryCodes => leaf(part.symbol(), codes::queries),
        AttentionPart::CodeScores if has_dotprod => saving(part.symbol(), code_scores::emit_dotprod),
        AttentionPart::CodeScores => saving(part.symbol(), code_scores::emit),
        AttentionPart::WeightCodes => leaf(part.symbol(), codes::weights),
        AttentionPart::CodeValues if has_dotprod => saving(part.symbol(), code_values::emit_dotprod),
        AttentionPart::CodeValues => saving(part.symbol(), code_values::emit),
    }
}

/// `extern "C" fn(from, to, n)`.
fn widen(a: &mut A64) {
    let [from, to, n, blocks] = [X(0), X(1), X(2), X(3)];
    let block = registers(0);
    a.lsr(blocks, n, 4);
    repeat(a, blocks, |a| {
        load_block(a, DType::F16, block, from);
        a.stp_q_post(block[0], block[1], to, 32);
        a.stp_q_post(block[2], block[3], to, 32);
    });
    a.and_15(n, n);
    repeat(a, n, |a| {
        load_one(a, DType::F16, block[0], from);
        a.str_s_post(block[0], to, 4);
    });
}

/// Four registers from `first` on.
fn registers(first: usize) -> [V; 4] {
    std::array::from_fn(|i| V((first + i) as u8))
}
