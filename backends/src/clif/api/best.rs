//! The ranking of tokens: a logit's place as one integer, the first of a row, and the best token of a hidden row.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{InstBuilder, Signature, Value};

use super::head::call_head_row;
use super::instance::LOGITS_READY;
use super::search::{call_found_best, call_search};
use super::{Api, bytes, fail_unless_ok, return_ok, status_signature};
use crate::clif::func::{FunctionCx, signature};
use crate::code::{EmitError, Function};
use tcc_runtime::abi::Status;

/// Symbol of `(values, n) -> index`: the first of the ranking of `values: f32[n]`.
const BEST: &str = "best";

/// Symbol of `(instance, hidden, token) -> status`: stores the best token of the hidden row at `hidden` as a u32.
const BEST_TOKEN: &str = "best_token";

pub(super) fn functions(api: &Api<'_>) -> Result<Vec<Function>, EmitError> {
    Ok(vec![best(api)?, best_token(api)?])
}

fn best_token_signature() -> Signature {
    status_signature(&[I64, I64, I64])
}

/// Stores the best token of the hidden row at `hidden` where `token` points, and returns the status.
///
/// The arena's logits are overwritten, whoever's they were.
pub(super) fn call_best_token(f: &mut FunctionCx, instance: Value, hidden: Value, token: Value) -> Value {
    f.call(BEST_TOKEN, &best_token_signature(), &[instance, hidden, token])[0]
}

/// The first token of the ranking of a whole row of logits.
pub(super) fn best_of_vocab(api: &Api<'_>, f: &mut FunctionCx, logits: Value) -> Value {
    let vocab = f.size(api.plan.facts.vocab);
    call_best(f, logits, vocab)
}

/// Index of the first of the ranking of `values: f32[n]`.
pub(super) fn call_best(f: &mut FunctionCx, values: Value, n: Value) -> Value {
    f.call(BEST, &signature(&[I64, I64], &[I64]), &[values, n])[0]
}

pub(super) fn store_token(f: &mut FunctionCx, id: Value, token: Value) {
    let id = f.ins().ireduce(I32, id);
    f.store(id, token, 0);
}

fn best_token(api: &Api<'_>) -> Result<Function, EmitError> {
    api.cx.function(BEST_TOKEN, &best_token_signature(), |f| {
        let (instance, hidden, token) = (f.param(0), f.param(1), f.param(2));
        if api.plan.search.is_some() {
            let one = f.i64(1);
            let found = call_search(f, instance, hidden, one);
            f.return_if(found, |f| {
                let id = call_found_best(f, instance);
                store_token(f, id, token);
                vec![f.i32(Status::OK.0)]
            });
        }
        LOGITS_READY.set(f, 0, instance);
        let logits = f.offset(instance, bytes(api.plan.arena.logits_offset));
        let status = call_head_row(f, instance, hidden, logits);
        fail_unless_ok(f, status);
        let id = best_of_vocab(api, f, logits);
        store_token(f, id, token);
        return_ok(f);
    })
}

fn best(api: &Api<'_>) -> Result<Function, EmitError> {
    api.cx.function(BEST, &signature(&[I64, I64], &[I64]), |f| {
        let (values, n, zero) = (f.param(0), f.param(1), f.i64(0));
        let best = f.for_carried(zero, n, 1, &[zero], |f, i, best| {
            let rank = rank(f, values, i);
            vec![f.ins().umax(best[0], rank)]
        })[0];
        let index = index_of(f, best);
        f.return_(&[index]);
    })
}

/// Place of value `id` in the ranking: the value in an order of unsigned integers, then the complement of its index.
pub(super) fn rank(f: &mut FunctionCx, logits: Value, id: Value) -> Value {
    let at = f.index(logits, id, 4);
    let bits = f.load(I32, at, 0);
    // The two zeros are one number.
    let sign = f.i32(i32::MIN);
    let (is_minus_zero, zero) = (f.ins().icmp(IntCC::Equal, bits, sign), f.i32(0));
    let bits = f.ins().select(is_minus_zero, zero, bits);
    // Negative numbers turn over, so that larger is above; positive ones go above all of them.
    let negative = f.ins().sshr_imm_u(bits, 31);
    let turn = f.ins().bor(negative, sign);
    let key = f.ins().bxor(bits, turn);
    let key = f.ins().uextend(I64, key);
    let high = f.ins().ishl_imm_u(key, 32);
    let low = f.ins().bxor_imm_u(id, i64::from(u32::MAX));
    f.ins().bor(high, low)
}

/// The index of a rank.
pub(super) fn index_of(f: &mut FunctionCx, rank: Value) -> Value {
    let low = f.ins().ireduce(I32, rank);
    let id = f.ins().bnot(low);
    f.ins().uextend(I64, id)
}
