//! The head: logits of hidden rows, and `logits` with its cache.

use cranelift_codegen::ir::InstBuilder;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{Signature, Value};
use tcc_ir::kernel::args;
use tcc_runtime::abi::Status;
use tcc_runtime::abi::offsets::head_stats as stats;

use super::instance::{
    self, FULL_HEADS, HEAD_IN, HEAD_OUT, KEPT, LOGITS_READY, NONFINITE, SEARCH_ROWS_EXACT, SEARCH_ROWS_LOW, SEARCHES,
    offset,
};
use super::steps::HEAD;
use super::{Api, bytes, check_instance, fail_if, fail_if_null, fail_unless_ok, is_zero, return_ok, status_signature};
use crate::clif::func::FunctionCx;
use crate::code::{EmitError, Function};

/// Symbol of `(instance, hidden, out, rows) -> status`: the logits of some hidden rows, checked.
const HEAD_ROWS: &str = "head_rows";

/// Symbol of `(instance) -> status`: makes the arena's logits those of the last token.
const FRESH_LOGITS: &str = "fresh_logits";

/// Exponent bits of an f32: all set in infinities and NaN.
const EXPONENT_BITS: i64 = 0x7f80_0000;

fn head_rows_signature() -> Signature {
    status_signature(&[I64; 4])
}

/// Runs the head on the row at `hidden` into `out: f32[vocab]` and returns its status.
pub(super) fn call_head_row(f: &mut FunctionCx, instance: Value, hidden: Value, out: Value) -> Value {
    let one = f.i64(1);
    call_head_rows(f, instance, hidden, out, one)
}

/// Runs the head on `rows` rows at `hidden`, at most those of the plan, into `out: f32[rows, vocab]` and returns its
/// status.
pub(super) fn call_head_rows(f: &mut FunctionCx, instance: Value, hidden: Value, out: Value, rows: Value) -> Value {
    f.call(HEAD_ROWS, &head_rows_signature(), &[instance, hidden, out, rows])[0]
}

/// Makes the arena's logits those of the last token; leaves the function if that fails.
pub(super) fn need_logits(f: &mut FunctionCx, instance: Value) {
    let status = f.call(FRESH_LOGITS, &status_signature(&[I64]), &[instance])[0];
    fail_unless_ok(f, status);
}

/// Sets the argument words that do not depend on the step.
pub(super) fn set_common_args(api: &Api<'_>, f: &mut FunctionCx, instance: Value, pos: Value, valid: Value) {
    let nonfinite = NONFINITE.address(f, instance);
    for block in 0..instance::blocks(api.plan.arena.max_threads) {
        for (word, value) in [(args::POS, pos), (args::VALID, valid), (args::NONFINITE, nonfinite)] {
            instance::arg(block, word).store(f, value, instance);
        }
    }
    NONFINITE.set(f, 0, instance);
}

/// Leaves the function with `NONFINITE` if a kernel raised the flag.
pub(super) fn fail_if_flagged(f: &mut FunctionCx, instance: Value) {
    let flag = NONFINITE.load(f, instance);
    fail_if(f, flag, Status::NONFINITE);
}

pub(super) fn head_rows(api: &Api<'_>) -> Result<Function, EmitError> {
    api.cx.function(HEAD_ROWS, &head_rows_signature(), |f| {
        let [instance, hidden, out, rows] = [0, 1, 2, 3].map(|i| f.param(i));
        let before = FULL_HEADS.load(f, instance);
        let after = f.ins().iadd(before, rows);
        FULL_HEADS.store(f, after, instance);
        HEAD_IN.store(f, hidden, instance);
        HEAD_OUT.store(f, out, instance);
        let pos = f.i64(0);
        set_common_args(api, f, instance, pos, rows);
        let status = f.call(HEAD, &status_signature(&[I64]), &[instance])[0];
        fail_unless_ok(f, status);
        fail_if_flagged(f, instance);
        let logits = f.scaled(rows, api.plan.facts.vocab);
        let bad = any_nonfinite(f, out, logits);
        fail_if(f, bad, Status::NONFINITE);
        return_ok(f);
    })
}

/// Not 0 if one of the `n` floats at `floats` is infinite or NaN.
fn any_nonfinite(f: &mut FunctionCx, floats: Value, n: Value) -> Value {
    let (begin, none) = (f.i64(0), f.i32(0));
    f.for_carried(begin, n, 1, &[none], |f, i, bad| {
        let at = f.index(floats, i, 4);
        let bits = f.load(I32, at, 0);
        let exponent = f.ins().band_imm_u(bits, EXPONENT_BITS);
        let all_set = f.ins().icmp_imm_u(IntCC::Equal, exponent, EXPONENT_BITS);
        let all_set = f.ins().uextend(I32, all_set);
        vec![f.ins().bor(bad[0], all_set)]
    })[0]
}

pub(super) fn fresh_logits(api: &Api<'_>) -> Result<Function, EmitError> {
    api.cx.function(FRESH_LOGITS, &status_signature(&[I64]), |f| {
        let instance = f.param(0);
        let kept = KEPT.load(f, instance);
        let nothing = is_zero(f, kept);
        fail_if(f, nothing, Status::ARG);
        let ready = LOGITS_READY.load(f, instance);
        f.return_if(ready, |f| vec![f.i32(Status::OK.0)]);
        let hidden = f.offset(instance, bytes(api.plan.arena.kept_hidden_offset));
        let out = f.offset(instance, bytes(api.plan.arena.logits_offset));
        let status = call_head_row(f, instance, hidden, out);
        fail_unless_ok(f, status);
        LOGITS_READY.set(f, 1, instance);
        return_ok(f);
    })
}

/// `(instance, out) -> status`: points `*out` at the logits of the last token.
pub(super) fn logits(api: &Api<'_>) -> Result<Function, EmitError> {
    api.entry(api.cx, "logits", &status_signature(&[I64, I64]), |f| {
        let (instance, out) = (f.param(0), f.param(1));
        check_instance(f, instance);
        fail_if_null(f, &[out]);
        need_logits(f, instance);
        let logits = f.offset(instance, bytes(api.plan.arena.logits_offset));
        f.store(logits, out, 0);
        return_ok(f);
    })
}

/// `(instance, out) -> status`: fills in the caller's `tcc_head_stats`.
pub(super) fn head_stats(api: &Api<'_>) -> Result<Function, EmitError> {
    api.entry(api.baseline, "head_stats", &status_signature(&[I64, I64]), |f| {
        let (instance, out) = (f.param(0), f.param(1));
        check_instance(f, instance);
        fail_if_null(f, &[out]);
        let size = f.load_unsigned(I32, out, offset(stats::STRUCT_SIZE));
        let short = f.ins().icmp_imm_u(IntCC::UnsignedLessThan, size, i64::from(offset(stats::SIZE)));
        fail_if(f, short, Status::ABI);
        let counters = [
            (SEARCHES, stats::SEARCHES),
            (SEARCH_ROWS_LOW, stats::ROWS_LOW),
            (SEARCH_ROWS_EXACT, stats::ROWS_EXACT),
            (FULL_HEADS, stats::FULL),
        ];
        for (counter, to) in counters {
            let value = counter.load(f, instance);
            f.store(value, out, offset(to));
        }
        return_ok(f);
    })
}
