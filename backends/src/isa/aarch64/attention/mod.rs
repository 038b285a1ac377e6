//! The loops of attention with NEON (see [`AttentionPart`]).
//!
//! Four registers are sixteen positions of scores, or sixteen lanes of values; no step goes across lanes but in the
//! two reductions of softmax. Half-finished sums never leave the registers.

mod scores;
mod softmax;
mod values;

use tcc_ir::ty::DType;

use super::abi::function;
use super::floats::{load_block, load_one, repeat};
use super::inst::{A64, SAVED_BYTES, V, X};
use crate::code::Function;
use crate::isa::AttentionPart;

/// Bytes of four registers: sixteen floats.
const BLOCK_BYTES: i64 = 64;

/// The function of `part`.
pub(super) fn emit(part: AttentionPart) -> Function {
    let mut a = A64::default();
    a.bti_c();
    let body: fn(&mut A64) = match part {
        AttentionPart::Widen(from) => {
            widen(&mut a, from);
            a.ret();
            return function(&part.symbol(), a, 0);
        }
        AttentionPart::Scores => scores::emit,
        AttentionPart::Softmax => softmax::emit,
        AttentionPart::Values => values::emit,
    };
    a.save_vectors();
    body(&mut a);
    a.restore_vectors_and_ret();
    function(&part.symbol(), a, SAVED_BYTES as u32)
}

/// `extern "C" fn(from, to, n)`.
fn widen(a: &mut A64, cache: DType) {
    let [from, to, n, blocks] = [X(0), X(1), X(2), X(3)];
    let block = registers(0);
    a.lsr(blocks, n, 4);
    repeat(a, blocks, |a| {
        load_block(a, cache, block, from);
        a.stp_q_post(block[0], block[1], to, 32);
        a.stp_q_post(block[2], block[3], to, 32);
    });
    a.and_15(n, n);
    repeat(a, n, |a| {
        load_one(a, cache, block[0], from);
        a.str_s_post(block[0], to, 4);
    });
}

/// Four registers from `first` on.
fn registers(first: usize) -> [V; 4] {
    std::array::from_fn(|i| V((first + i) as u8))
}
