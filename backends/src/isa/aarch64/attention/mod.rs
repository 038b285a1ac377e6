//! The loops of attention with NEON (see [`AttentionPart`]).
//!
//! Four registers are sixteen positions of scores, or sixteen lanes of values; no step goes across lanes but in the
//! two reductions of softmax. Half-finished sums never leave the registers.

mod scores;
mod softmax;
mod values;

use tcc_ir::ty::DType;

use super::abi::{function, saving};
use super::floats::{load_block, load_one, repeat};
use super::inst::{A64, V, X};
use crate::code::Function;
use crate::isa::AttentionPart;

/// Bytes of four registers: sixteen floats.
const BLOCK_BYTES: i64 = 64;

/// The function of `part`; `None` where portable code does it.
pub(super) fn emit(part: AttentionPart) -> Option<Function> {
    Some(match part {
        AttentionPart::Widen => widen(part.symbol()),
        AttentionPart::Scores => saving(part.symbol(), scores::emit),
        AttentionPart::Softmax => saving(part.symbol(), softmax::emit),
        AttentionPart::Values => saving(part.symbol(), values::emit),
        AttentionPart::QueryCodes
        | AttentionPart::CodeScores
        | AttentionPart::WeightCodes
        | AttentionPart::CodeValues => return None,
    })
}

/// `extern "C" fn(from, to, n)`.
fn widen(name: &str) -> Function {
    let mut a = A64::default();
    a.bti_c();
    let [from, to, n, blocks] = [X(0), X(1), X(2), X(3)];
    let block = registers(0);
    a.lsr(blocks, n, 4);
    repeat(&mut a, blocks, |a| {
        load_block(a, DType::F16, block, from);
        a.stp_q_post(block[0], block[1], to, 32);
        a.stp_q_post(block[2], block[3], to, 32);
    });
    a.and_15(n, n);
    repeat(&mut a, n, |a| {
        load_one(a, DType::F16, block[0], from);
        a.str_s_post(block[0], to, 4);
    });
    a.ret();
    function(name, a, 0)
}

/// Four registers from `first` on.
fn registers(first: usize) -> [V; 4] {
    std::array::from_fn(|i| V((first + i) as u8))
}
