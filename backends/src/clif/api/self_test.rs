//! `self_test`: evaluates the golden tokens and compares the SHA-256 of their logits with the build's.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_runtime::abi::Status;

use super::eval::call_chunk;
use super::head::call_head_row;
use super::instance::{WORK, WORK_BYTES, offset};
use super::sha256::{self, CONTEXT_BYTES};
use super::{Api, bytes, data, fail_if, fail_unless_ok, return_ok, status, status_signature};
use crate::clif::func::{FunctionCx, signature};
use crate::code::{EmitError, Function};
use crate::image::{HASHES, HashSlot};

/// Symbol of `(instance) -> status`: `HASH` unless the golden tokens' logits are those of the build. Part of a variant.
pub(super) const GOLDEN_RUN: &str = "golden_run";

/// The golden tokens, u32 each.
const GOLDEN_TOKENS: &str = "golden_tokens";

const _: () = assert!(CONTEXT_BYTES <= WORK_BYTES);

/// `(arena, bytes, weights, hooks) -> status`.
///
/// A build without golden tokens cannot confirm itself and says `HASH`.
pub(super) fn self_test(api: &Api<'_>) -> Result<Function, EmitError> {
    api.entry(api.baseline, "self_test", &status_signature(&[I64, I64, I64, I64]), |f| {
        let words: Vec<_> = (0..4).map(|i| f.param(i)).collect();
        let out = f.stack(8);
        let init = format!("{}_init", api.options.name);
        let args = [&words[..], &[out]].concat();
        let made = f.call(&init, &status_signature(&[I64, I64, I64, I64, I64]), &args)[0];
        fail_unless_ok(f, made);
        if api.options.golden_tokens.is_empty() {
            let code = status(f, Status::HASH);
            f.return_(&[code]);
            return;
        }
        let instance = f.load(I64, out, 0);
        let status = f.call(GOLDEN_RUN, &status_signature(&[I64]), &[instance]);
        f.return_(&status);
    })
}

pub(super) fn golden_run(api: &Api<'_>) -> Result<Function, EmitError> {
    api.cx.function(GOLDEN_RUN, &status_signature(&[I64]), |f| {
        let instance = f.param(0);
        let context = WORK.address(f, instance);
        f.call(sha256::INIT, &signature(&[I64], &[]), &[context]);
        hash_golden_logits(api, f, instance, context);
        f.call(sha256::FINISH, &signature(&[I64], &[]), &[context]);
        compare(f, context);
        return_ok(f);
    })
}

/// Takes the logits of every golden token into the hash, chunk by chunk; leaves the function at the first error.
fn hash_golden_logits(api: &Api<'_>, f: &mut FunctionCx, instance: Value, context: Value) {
    let tokens = f.symbol_address(GOLDEN_TOKENS);
    let (begin, n, prefill) = (f.i64(0), f.size(api.options.golden_tokens.len()), f.size(api.plan.prefill()));
    let hidden = f.offset(instance, bytes(api.plan.arena.hidden_offset));
    let logits = f.offset(instance, bytes(api.plan.arena.logits_offset));
    let vocab = f.size(api.plan.facts.vocab);
    f.for_range(begin, n, api.plan.prefill(), |f, done| {
        let left = f.ins().isub(n, done);
        let valid = f.min(left, prefill);
        let from = f.index(tokens, done, 4);
        let status = call_chunk(f, instance, from, valid, done);
        fail_unless_ok(f, status);
        f.for_range(begin, valid, 1, |f, row| {
            let from = f.index(hidden, row, api.hidden_bytes());
            let status = call_head_row(f, instance, from, logits);
            fail_unless_ok(f, status);
            f.call(sha256::WORDS, &signature(&[I64, I64, I64], &[]), &[context, logits, vocab]);
        });
    });
}

/// Leaves the function with `HASH` unless the hash at `found` is the golden one.
fn compare(f: &mut FunctionCx, found: Value) {
    let hashes = f.symbol_address(HASHES);
    for word in 0..HashSlot::BYTES / 8 {
        let at = offset(8 * word);
        let golden = offset(HashSlot::Golden.offset_bytes() + 8 * word);
        let (found, expected) = (f.load(I64, found, at), f.load(I64, hashes, golden));
        let differs = f.ins().icmp(IntCC::NotEqual, found, expected);
        fail_if(f, differs, Status::HASH);
    }
}

pub(super) fn data_blocks(api: &Api<'_>) -> Vec<Function> {
    match api.options.golden_tokens {
        [] => Vec::new(),
        tokens => vec![data(GOLDEN_TOKENS, tokens.iter().flat_map(|t| t.to_le_bytes()).collect())],
    }
}
