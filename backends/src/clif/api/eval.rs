//! `eval` and `eval_all`: tokens in chunks through the bodies, position and hidden row committed last.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{InstBuilder, Signature, Value};
use tcc_runtime::abi::Status;

use super::head::{call_head_rows, fail_if_flagged, set_common_args};
use super::instance::{KEPT, LOGITS_READY, POS};
use super::steps::body_symbol;
use super::{
    Api, bytes, check_instance, copy, fail_if, fail_if_null, fail_unless_ok, return_ok, status, status_signature,
};
use crate::clif::func::FunctionCx;
use crate::code::{EmitError, Function};

/// Symbol of `(instance, tokens, n, out) -> status`; `out` null = no logits.
const EVALUATE: &str = "evaluate";

/// Symbol of `(instance, tokens, n, pos) -> status`: at most `prefill` tokens through the smallest body that holds
/// them; leaves their hidden rows and commits nothing.
const CHUNK: &str = "chunk";

fn four_words() -> Signature {
    status_signature(&[I64, I64, I64, I64])
}

/// Runs one chunk and returns its status.
pub(super) fn call_chunk(f: &mut FunctionCx, instance: Value, tokens: Value, n: Value, pos: Value) -> Value {
    f.call(CHUNK, &four_words(), &[instance, tokens, n, pos])[0]
}

/// `(instance, tokens, n) -> status`.
pub(super) fn eval(api: &Api<'_>) -> Result<Function, EmitError> {
    api.entry(api.cx, "eval", &status_signature(&[I64, I64, I64]), |f| {
        let (instance, tokens, n) = (f.param(0), f.param(1), f.param(2));
        let none = f.i64(0);
        let status = f.call(EVALUATE, &four_words(), &[instance, tokens, n, none]);
        f.return_(&status);
    })
}

/// `(instance, tokens, n, out) -> status`: also the logits of every token, `out: f32[n, vocab]`.
pub(super) fn eval_all(api: &Api<'_>) -> Result<Function, EmitError> {
    api.entry(api.cx, "eval_all", &four_words(), |f| {
        let words: Vec<_> = (0..4).map(|i| f.param(i)).collect();
        fail_if_null(f, &words[3..]);
        let status = f.call(EVALUATE, &four_words(), &words);
        f.return_(&status);
    })
}

pub(super) fn evaluate(api: &Api<'_>) -> Result<Function, EmitError> {
    api.cx.function(EVALUATE, &four_words(), |f| {
        let (instance, tokens, n, out) = (f.param(0), f.param(1), f.param(2), f.param(3));
        check_instance(f, instance);
        fail_if_null(f, &[tokens, n]);
        let pos = check_tokens(api, f, instance, tokens, n);
        let (begin, prefill) = (f.i64(0), f.size(api.plan.prefill()));
        let last_valid = f.for_carried(begin, n, api.plan.prefill(), &[begin], |f, done, _| {
            let left = f.ins().isub(n, done);
            let valid = f.min(left, prefill);
            let (from, at) = (f.index(tokens, done, 4), f.ins().iadd(pos, done));
            let status = call_chunk(f, instance, from, valid, at);
            fail_unless_ok(f, status);
            f.if_then(out, |f| {
                let rows = f.index(out, done, api.logits_bytes());
                logits_of_rows(api, f, instance, valid, rows);
            });
            vec![valid]
        })[0];
        commit(api, f, instance, last_valid, n);
        return_ok(f);
    })
}

/// Leaves the function unless `n` more tokens fit the context and are in the vocabulary; returns the position.
pub(super) fn check_tokens(api: &Api<'_>, f: &mut FunctionCx, instance: Value, tokens: Value, n: Value) -> Value {
    let pos = POS.load_wide(f, instance);
    let ctx = f.size(api.plan.facts.ctx);
    let room = f.ins().isub(ctx, pos);
    let full = f.ins().icmp(IntCC::UnsignedGreaterThan, n, room);
    fail_if(f, full, Status::CTX_FULL);
    let unknown = any_unknown_token(f, tokens, n, api.plan.facts.vocab);
    fail_if(f, unknown, Status::TOKEN);
    pos
}

/// Not 0 if one of the `n` tokens is outside the vocabulary.
fn any_unknown_token(f: &mut FunctionCx, tokens: Value, n: Value, vocab: usize) -> Value {
    let (begin, none) = (f.i64(0), f.i32(0));
    f.for_carried(begin, n, 1, &[none], |f, i, bad| {
        let at = f.index(tokens, i, 4);
        let token = f.load_unsigned(I32, at, 0);
        let vocab = f.size(vocab);
        let outside = f.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, token, vocab);
        let outside = f.ins().uextend(I32, outside);
        vec![f.ins().bor(bad[0], outside)]
    })[0]
}

/// The logits of the chunk's `valid` rows into `out: f32[valid, vocab]`; leaves the function at the first error.
fn logits_of_rows(api: &Api<'_>, f: &mut FunctionCx, instance: Value, valid: Value, out: Value) {
    let hidden = f.offset(instance, bytes(api.plan.arena.hidden_offset));
    let begin = f.i64(0);
    f.for_range(begin, valid, api.plan.head_rows.most, |f, row| {
        let from = f.index(hidden, row, api.hidden_bytes());
        let to = f.index(out, row, api.logits_bytes());
        let (left, most) = (f.ins().isub(valid, row), f.size(api.plan.head_rows.most));
        let rows = f.min(left, most);
        let status = call_head_rows(f, instance, from, to, rows);
        fail_unless_ok(f, status);
    });
}

/// Keeps the last row of a chunk of `valid` tokens and advances the position by `n`.
fn commit(api: &Api<'_>, f: &mut FunctionCx, instance: Value, valid: Value, n: Value) {
    let arena = &api.plan.arena;
    let rows = f.offset(instance, bytes(arena.hidden_offset));
    let end = f.index(rows, valid, api.hidden_bytes());
    let bytes_of_row = f.size(api.hidden_bytes());
    let last = f.ins().isub(end, bytes_of_row);
    let kept = f.offset(instance, bytes(arena.kept_hidden_offset));
    copy(f, I32, kept, last, api.plan.facts.hidden);
    let pos = POS.load_wide(f, instance);
    let pos = f.ins().iadd(pos, n);
    POS.store(f, pos, instance);
    KEPT.set(f, 1, instance);
    LOGITS_READY.set(f, 0, instance);
}

pub(super) fn chunk(api: &Api<'_>) -> Result<Function, EmitError> {
    api.cx.function(CHUNK, &four_words(), |f| {
        let (instance, tokens, n, pos) = (f.param(0), f.param(1), f.param(2), f.param(3));
        let ids = f.offset(instance, bytes(api.plan.arena.tokens_offset));
        let begin = f.i64(0);
        f.for_range(begin, n, 1, |f, i| {
            let (from, to) = (f.index(tokens, i, 4), f.index(ids, i, 4));
            let token = f.load(I32, from, 0);
            f.store(token, to, 0);
        });
        set_common_args(api, f, instance, pos, n);
        for body in &api.plan.bodies {
            let m = f.size(body.m);
            let fits = f.ins().icmp(IntCC::UnsignedLessThanOrEqual, n, m);
            f.return_if(fits, |f| {
                let status = f.call(&body_symbol(body.m), &status_signature(&[I64]), &[instance])[0];
                fail_unless_ok(f, status);
                fail_if_flagged(f, instance);
                vec![f.i32(Status::OK.0)]
            });
        }
        // No caller passes more than the largest body holds.
        let code = status(f, Status::ARG);
        f.return_(&[code]);
    })
}
