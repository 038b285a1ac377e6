//! `eval_draft`: guessed tokens evaluated together, and kept as far as sampling would have chosen them.
//!
//! Rows of the batch become the kept hidden row one after the other, as if their tokens had been evaluated alone, and
//! `sample` is asked after each. Nothing of the guess reaches a result: state, sampler and token are those of `eval`
//! and `sample` in turns. A head that reads every weight for every row computes the logits of the first rows in one pass;
//! if it fails, be it at a row that nobody asks for, they are computed one by one as they are needed. A screen is asked
//! row by row: a pass costs as much as searches of most of the rows, and guesses are wrong more often than that.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_runtime::abi::Status;
use tcc_runtime::abi::offsets::sampler;

use super::eval::{call_chunk, check_tokens};
use super::head::call_head_rows;
use super::instance::{KEPT, LOGITS_READY, POS, offset};
use super::sample::{load_state, store_state};
use super::{Api, bytes, check_instance, copy, fail_if, fail_if_null, fail_unless_ok, return_ok, status_signature};
use crate::clif::func::FunctionCx;
use crate::code::{EmitError, Function};

/// What is put back where a row's token cannot be chosen.
struct Before {
    kept: Value,
    generator: [Value; 2],
}

/// Rows of the batch whose logits are there, from the first on.
struct Ready {
    rows: Value,
}

/// `(instance, tokens, n, sampler, kept, next) -> status`.
pub(super) fn eval_draft(api: &Api<'_>) -> Result<Function, EmitError> {
    api.entry(api.cx, "eval_draft", &status_signature(&[I64; 6]), |f| {
        let [instance, tokens, n, settings, kept, next] = [0, 1, 2, 3, 4, 5].map(|i| f.param(i));
        check_instance(f, instance);
        fail_if_null(f, &[tokens, n, settings, kept, next]);
        let prefill = f.size(api.plan.prefill());
        let long = f.ins().icmp(IntCC::UnsignedGreaterThan, n, prefill);
        fail_if(f, long, Status::ARG);
        let size = f.load_unsigned(I32, settings, offset(sampler::STRUCT_SIZE));
        let short = f.ins().icmp_imm_u(IntCC::UnsignedLessThan, size, i64::from(offset(sampler::SIZE)));
        fail_if(f, short, Status::ABI);
        let pos = check_tokens(api, f, instance, tokens, n);
        let before = Before { kept: KEPT.load(f, instance), generator: load_state(f, settings) };
        let status = call_chunk(f, instance, tokens, n, pos);
        fail_unless_ok(f, status);

        let rows = f.offset(instance, bytes(api.plan.arena.hidden_offset));
        let last_row = f.offset(instance, bytes(api.plan.arena.kept_hidden_offset));
        let ready = logits_of_first(api, f, instance, rows, n);
        swap(api, f, rows, last_row);
        KEPT.set(f, 1, instance);
        let first = f.i64(0);
        ready.offer(api, f, instance, first);
        choose(api, f, instance, settings, next, &before);
        let last = f.while_carried(
            &[first],
            |f, row| was_guessed(f, row[0], tokens, n, next),
            |f, row| {
                let row = f.offset(row[0], 1);
                let from = f.index(rows, row, api.hidden_bytes());
                copy(f, F32, last_row, from, api.plan.facts.hidden);
                ready.offer(api, f, instance, row);
                choose(api, f, instance, settings, next, &before);
                vec![row]
            },
        )[0];
        let count = f.offset(last, 1);
        let pos = f.ins().iadd(pos, count);
        POS.store(f, pos, instance);
        f.store(count, kept, 0);
        return_ok(f);
    })
}

/// The logits of the first of `n` rows at `hidden` in one pass, where the plan keeps some and it works.
fn logits_of_first(api: &Api<'_>, f: &mut FunctionCx, instance: Value, hidden: Value, n: Value) -> Ready {
    let head = api.plan.head_rows;
    let none = f.i64(0);
    if head.kept < 2 {
        return Ready { rows: none };
    }
    let few = f.ins().icmp_imm_u(IntCC::UnsignedLessThan, n, 2);
    let pass = |f: &mut FunctionCx| {
        let kept = f.size(head.kept);
        let rows = f.min(n, kept);
        let out = f.offset(instance, bytes(head.kept_offset));
        let failed = call_head_rows(f, instance, hidden, out, rows);
        vec![f.ins().select(failed, none, rows)]
    };
    Ready { rows: f.if_else(few, |_| vec![none], pass)[0] }
}

impl Ready {
    /// Makes the arena's logits those of row `row` if they are there, else those of none.
    fn offer(&self, api: &Api<'_>, f: &mut FunctionCx, instance: Value, row: Value) {
        LOGITS_READY.set(f, 0, instance);
        let is_there = f.ins().icmp(IntCC::UnsignedLessThan, row, self.rows);
        f.if_then(is_there, |f| {
            let kept = f.offset(instance, bytes(api.plan.head_rows.kept_offset));
            let from = f.index(kept, row, api.logits_bytes());
            let to = f.offset(instance, bytes(api.plan.arena.logits_offset));
            copy(f, F32, to, from, api.plan.facts.vocab);
            LOGITS_READY.set(f, 1, instance);
        });
    }
}

/// Not 0 if the token after `row` is there and is the one that was chosen.
fn was_guessed(f: &mut FunctionCx, row: Value, tokens: Value, n: Value, next: Value) -> Value {
    let last = f.ins().iadd_imm_s(n, -1);
    let more = f.ins().icmp(IntCC::UnsignedLessThan, row, last);
    let after = f.offset(row, 1);
    // The last row has no token after it; its own is read and not used.
    let readable = f.min(after, last);
    let at = f.index(tokens, readable, 4);
    let (guess, chosen) = (f.load(I32, at, 0), f.load(I32, next, 0));
    let same = f.ins().icmp(IntCC::Equal, guess, chosen);
    f.ins().band(more, same)
}

/// Chooses the token after the kept row; if that fails, puts everything back and leaves the function.
fn choose(api: &Api<'_>, f: &mut FunctionCx, instance: Value, settings: Value, next: Value, before: &Before) {
    let name = format!("{}_sample", api.options.name);
    let status = f.call(&name, &status_signature(&[I64; 3]), &[instance, settings, next])[0];
    f.return_if(status, |f| {
        let rows = f.offset(instance, bytes(api.plan.arena.hidden_offset));
        let last_row = f.offset(instance, bytes(api.plan.arena.kept_hidden_offset));
        copy(f, F32, last_row, rows, api.plan.facts.hidden);
        KEPT.store(f, before.kept, instance);
        LOGITS_READY.set(f, 0, instance);
        store_state(f, settings, before.generator);
        vec![status]
    });
}

/// Exchanges two hidden rows.
fn swap(api: &Api<'_>, f: &mut FunctionCx, a: Value, b: Value) {
    let (begin, end) = (f.i64(0), f.size(api.plan.facts.hidden));
    f.for_range(begin, end, 1, |f, i| {
        let (a, b) = (f.index(a, i, 4), f.index(b, i, 4));
        let (x, y) = (f.load(F32, a, 0), f.load(F32, b, 0));
        f.store(y, a, 0);
        f.store(x, b, 0);
    });
}
