//! `sample`: one token by the sampler's settings, as `tcc_ir::sampling` defines it.
//!
//! Nothing is sorted. A token's place in the ranking is a 64-bit number, larger is better, unique per token; what
//! `top_k` and `top_p` keep is everything from some rank up, and that rank is found digit by digit from counts.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, I32, I64};
use cranelift_codegen::ir::{InstBuilder, Signature, Value};
use tcc_ir::sampling::{Q16_ONE, WEIGHT_ONE};
use tcc_runtime::abi::Status;
use tcc_runtime::abi::offsets::sampler;

use super::best::{best_of_vocab, call_best, call_best_token, index_of, rank, store_token};
use super::head::need_logits;
use super::instance::{KEPT, LOGITS_READY, WORK, WORK_BYTES, offset};
use super::search::{call_compact, call_search, max_compact};
use super::{Api, bytes, check_instance, fail_if, fail_if_null, is_zero, return_ok, status_signature};
use crate::clif::func::{FunctionCx, signature};
use crate::clif::lanes::{Lanes, Shape};
use crate::clif::math;
use crate::code::{EmitError, Function};

/// Symbol of `(instance, token) -> status`.
const GREEDY: &str = "sample_greedy";
/// Symbol of `(logit, best, t) -> weight`.
const WEIGHT: &str = "sample_weight";
/// Symbol of `(logits, n, from, best, t) -> weight`: sum over the tokens of rank `from` and better.
const TOTAL: &str = "sample_total";
/// Symbol of `(logits, n, from, needed, by_weight, best, t, counts) -> rank`: the rank at which the tokens of rank `from`
/// and better, best first, reach `needed`: in number, or in weight if `by_weight` is not 0.
const CUT: &str = "sample_cut";
/// Symbol of `(logits, n, from, u, best, t) -> id`: the kept token that `u` falls on, by increasing id.
const PICK: &str = "sample_pick";

/// Values of one digit of a rank, and of the count that `WORK` holds for each.
const DIGITS: usize = 256;
const _: () = assert!(8 * DIGITS <= WORK_BYTES);

pub(super) fn parts(api: &Api<'_>) -> Result<Vec<Function>, EmitError> {
    Ok(vec![greedy(api)?, weight(api)?, total(api)?, cut(api)?, pick(api)?])
}

/// Logits by increasing id.
#[derive(Clone, Copy)]
struct Row {
    logits: Value,
    n: Value,
    /// Address of their tokens, u32 each; 0 where they are 0, 1, and so on.
    ids: Value,
}

impl Row {
    fn of(values: &[Value]) -> Row {
        Row { logits: values[0], n: values[1], ids: values[2] }
    }
}

/// Best logit and temperature: what weights depend on.
#[derive(Clone, Copy)]
struct Scale {
    best: Value,
    t: Value,
}

fn greedy_signature() -> Signature {
    status_signature(&[I64, I64])
}

fn weight_signature() -> Signature {
    signature(&[F32, F32, F32], &[I64])
}

fn total_signature() -> Signature {
    signature(&[I64, I64, I64, F32, F32], &[I64])
}

fn cut_signature() -> Signature {
    signature(&[I64, I64, I64, I64, I64, F32, F32, I64], &[I64])
}

fn pick_signature() -> Signature {
    signature(&[I64, I64, I64, I64, F32, F32], &[I64])
}

/// `(instance, sampler, token) -> status`.
pub(super) fn sample(api: &Api<'_>) -> Result<Function, EmitError> {
    api.entry(api.cx, "sample", &status_signature(&[I64, I64, I64]), |f| {
        let (instance, settings, token) = (f.param(0), f.param(1), f.param(2));
        check_instance(f, instance);
        fail_if_null(f, &[settings, token]);
        let size = f.load_unsigned(I32, settings, offset(sampler::STRUCT_SIZE));
        let short = f.ins().icmp_imm_u(IntCC::UnsignedLessThan, size, i64::from(offset(sampler::SIZE)));
        fail_if(f, short, Status::ABI);
        let greedy = check_settings(f, settings);
        f.return_if(greedy, |f| f.call(GREEDY, &greedy_signature(), &[instance, token]));
        let row = candidates(api, f, instance, settings);
        let first = call_best(f, row.logits, row.n);
        let at = f.index(row.logits, first, 4);
        let best = f.load(F32, at, 0);
        let temperature = f.load_unsigned(I32, settings, offset(sampler::TEMPERATURE_Q16));
        let temperature = f.ins().fcvt_from_sint(F32, temperature);
        let unit = f.f32(1.0 / 65536.0);
        let t = f.ins().fmul(temperature, unit);
        let index = draw(f, settings, instance, row, Scale { best, t });
        let id = f.if_else(
            row.ids,
            |f| {
                let at = f.index(row.ids, index, 4);
                vec![f.load_unsigned(I32, at, 0)]
            },
            |_| vec![index],
        )[0];
        store_token(f, id, token);
        return_ok(f);
    })
}

/// The best token of the last one's hidden row; its logits are used where they are there.
fn greedy(api: &Api<'_>) -> Result<Function, EmitError> {
    api.cx.function(GREEDY, &greedy_signature(), |f| {
        let (instance, token) = (f.param(0), f.param(1));
        let kept = KEPT.load(f, instance);
        let nothing = is_zero(f, kept);
        fail_if(f, nothing, Status::ARG);
        let ready = LOGITS_READY.load(f, instance);
        f.return_if(ready, |f| {
            let logits = f.offset(instance, bytes(api.plan.arena.logits_offset));
            let id = best_of_vocab(api, f, logits);
            store_token(f, id, token);
            vec![f.i32(Status::OK.0)]
        });
        let hidden = f.offset(instance, bytes(api.plan.arena.kept_hidden_offset));
        let status = call_best_token(f, instance, hidden, token);
        f.return_(&[status]);
    })
}

/// The logits that may be drawn from: all of them, or those that a search for `top_k` tokens leaves. Leaves the
/// function if there are none.
fn candidates(api: &Api<'_>, f: &mut FunctionCx, instance: Value, settings: Value) -> Row {
    let Some(search) = &api.plan.search else {
        need_logits(f, instance);
        let values = every_logit(api, f, instance);
        return Row::of(&values);
    };
    let kept = KEPT.load(f, instance);
    let nothing = is_zero(f, kept);
    fail_if(f, nothing, Status::ARG);
    let top_k = f.load_unsigned(I32, settings, offset(sampler::TOP_K));
    let last = f.ins().iadd_imm_s(top_k, -1);
    let most = i64::try_from(search.max_count()).expect("a few hundred");
    let few = f.ins().icmp_imm_u(IntCC::UnsignedLessThan, last, most);
    let ready = LOGITS_READY.load(f, instance);
    let not_ready = is_zero(f, ready);
    let searches = f.ins().band(few, not_ready);
    let found = f.if_else(
        searches,
        |f| {
            let hidden = f.offset(instance, bytes(api.plan.arena.kept_hidden_offset));
            vec![call_search(f, instance, hidden, top_k)]
        },
        |f| vec![f.i64(0)],
    )[0];
    let values = f.if_else(
        found,
        |f| {
            let fits = f.ins().icmp_imm_u(IntCC::UnsignedLessThanOrEqual, found, max_compact(search));
            f.if_else(
                fits,
                |f| {
                    let ids = call_compact(f, search, instance);
                    vec![f.offset(instance, bytes(api.plan.arena.logits_offset)), found, ids]
                },
                |f| every_logit(api, f, instance),
            )
        },
        |f| {
            need_logits(f, instance);
            every_logit(api, f, instance)
        },
    );
    Row::of(&values)
}

/// The values of a [`Row`] of the whole vocabulary.
fn every_logit(api: &Api<'_>, f: &mut FunctionCx, instance: Value) -> Vec<Value> {
    vec![f.offset(instance, bytes(api.plan.arena.logits_offset)), f.size(api.plan.facts.vocab), f.i64(0)]
}

/// Leaves the function with `ARG` for settings without meaning; else not 0 where the choice is greedy.
fn check_settings(f: &mut FunctionCx, settings: Value) -> Value {
    let top_p = f.load_unsigned(I32, settings, offset(sampler::TOP_P_Q16));
    let above = f.ins().icmp_imm_u(IntCC::UnsignedGreaterThan, top_p, i64::from(Q16_ONE));
    fail_if(f, above, Status::ARG);
    let top_k = f.load(I32, settings, offset(sampler::TOP_K));
    let temperature = f.load(I32, settings, offset(sampler::TEMPERATURE_Q16));
    let one = f.ins().icmp_imm_u(IntCC::Equal, top_k, 1);
    let cold = is_zero(f, temperature);
    let greedy = f.ins().bor(one, cold);
    let [s0, s1] = load_state(f, settings);
    let any = f.ins().bor(s0, s1);
    let dead = is_zero(f, any);
    let unusable = f.ins().band_not(dead, greedy);
    fail_if(f, unusable, Status::ARG);
    greedy
}

pub(super) fn load_state(f: &mut FunctionCx, settings: Value) -> [Value; 2] {
    [0, 8].map(|word| f.load(I64, settings, offset(sampler::RNG) + word))
}

pub(super) fn store_state(f: &mut FunctionCx, settings: Value, state: [Value; 2]) {
    for (word, at) in state.into_iter().zip([0, 8]) {
        f.store(word, settings, offset(sampler::RNG) + at);
    }
}

/// Draws one of the kept tokens and advances the generator.
fn draw(f: &mut FunctionCx, settings: Value, instance: Value, row: Row, s: Scale) -> Value {
    let Row { logits, n, .. } = row;
    let counts = WORK.address(f, instance);
    let top_k = f.load_unsigned(I32, settings, offset(sampler::TOP_K));
    let top_p = f.load_unsigned(I32, settings, offset(sampler::TOP_P_Q16));
    // 0 wraps to the largest number: all are kept, as with any k that is no smaller than the vocabulary.
    let (last, end) = (f.ins().iadd_imm_s(top_k, -1), f.ins().iadd_imm_s(n, -1));
    let cuts = f.ins().icmp(IntCC::UnsignedLessThan, last, end);
    let from = f.if_else(
        cuts,
        |f| {
            let zero = f.i64(0);
            f.call(CUT, &cut_signature(), &[logits, n, zero, top_k, zero, s.best, s.t, counts])
        },
        |f| vec![f.i64(0)],
    )[0];
    let total = f.call(TOTAL, &total_signature(), &[logits, n, from, s.best, s.t])[0];
    let cuts = f.ins().icmp_imm_u(IntCC::NotEqual, top_p, i64::from(Q16_ONE));
    let [from, total] = f.if_else(
        cuts,
        |f| {
            let share = f.ins().imul(total, top_p);
            let share = f.ins().iadd_imm_s(share, i64::from(Q16_ONE) - 1);
            let share = f.ins().ushr_imm_u(share, i64::from(Q16_ONE.trailing_zeros()));
            let one = f.i64(1);
            let needed = f.ins().umax(share, one);
            let from = f.call(CUT, &cut_signature(), &[logits, n, from, needed, one, s.best, s.t, counts])[0];
            let total = f.call(TOTAL, &total_signature(), &[logits, n, from, s.best, s.t])[0];
            vec![from, total]
        },
        |_| vec![from, total],
    )[..] else {
        unreachable!("two values each way")
    };
    let random = next_random(f, settings);
    let u = f.ins().umulhi(random, total);
    f.call(PICK, &pick_signature(), &[logits, n, from, u, s.best, s.t])[0]
}

/// Index of the `k`-th of the ranking of `values: f32[n]`, `k` from 1 to n.
pub(super) fn kth_best(f: &mut FunctionCx, instance: Value, values: Value, n: Value, k: Value) -> Value {
    let counts = WORK.address(f, instance);
    let (zero, none) = (f.i64(0), f.f32(0.0));
    let rank = f.call(CUT, &cut_signature(), &[values, n, zero, k, zero, none, none, counts])[0];
    index_of(f, rank)
}

/// One step of xoroshiro128++; the advanced state goes back to the caller's struct.
fn next_random(f: &mut FunctionCx, settings: Value) -> Value {
    let [s0, s1] = load_state(f, settings);
    let sum = f.ins().iadd(s0, s1);
    let turned = f.ins().rotl_imm_u(sum, 17);
    let output = f.ins().iadd(turned, s0);
    let s1 = f.ins().bxor(s1, s0);
    let (turned, shifted) = (f.ins().rotl_imm_u(s0, 49), f.ins().ishl_imm_u(s1, 21));
    let first = f.ins().bxor(turned, s1);
    let first = f.ins().bxor(first, shifted);
    let second = f.ins().rotl_imm_u(s1, 28);
    store_state(f, settings, [first, second]);
    output
}

/// Weight of token `id`.
fn weight_of(f: &mut FunctionCx, logits: Value, id: Value, s: Scale) -> Value {
    let at = f.index(logits, id, 4);
    let logit = f.load(F32, at, 0);
    f.call(WEIGHT, &weight_signature(), &[logit, s.best, s.t])[0]
}

fn weight(api: &Api<'_>) -> Result<Function, EmitError> {
    api.cx.function(WEIGHT, &weight_signature(), |f| {
        let (logit, best, t) = (f.param(0), f.param(1), f.param(2));
        let difference = f.ins().fsub(logit, best);
        let scaled = f.ins().fdiv(difference, t);
        let shape = Shape::of(f, 1);
        let scaled = Lanes::splat(f, shape, scaled);
        let e = math::exp(f, &scaled).extract(f, 0);
        // WEIGHT_ONE is a power of two.
        let one = f.f32(WEIGHT_ONE as f32);
        let weight = f.ins().fmul(e, one);
        let weight = f.ins().fcvt_to_sint_sat(I64, weight);
        f.return_(&[weight]);
    })
}

fn total(api: &Api<'_>) -> Result<Function, EmitError> {
    api.cx.function(TOTAL, &total_signature(), |f| {
        let (logits, end, from, begin) = (f.param(0), f.param(1), f.param(2), f.i64(0));
        let scale = Scale { best: f.param(3), t: f.param(4) };
        let total = f.for_carried(begin, end, 1, &[begin], |f, id, sum| {
            let rank = rank(f, logits, id);
            let kept = f.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, rank, from);
            f.if_else(
                kept,
                |f| {
                    let weight = weight_of(f, logits, id, scale);
                    vec![f.ins().iadd(sum[0], weight)]
                },
                |_| vec![sum[0]],
            )
        });
        f.return_(&total);
    })
}

fn cut(api: &Api<'_>) -> Result<Function, EmitError> {
    api.cx.function(CUT, &cut_signature(), |f| {
        let (from, needed, counts) = (f.param(2), f.param(3), f.param(7));
        let (first, digits) = (f.i64(0), f.i64(8));
        let found = f.for_carried(first, digits, 1, &[first, needed], |f, i, carried| {
            let (prefix, needed) = (carried[0], carried[1]);
            let low = f.ins().imul_imm_s(i, -8);
            let shift = f.ins().iadd_imm_s(low, 56);
            count_digit(f, from, prefix, shift);
            let (last, eight) = (f.size(DIGITS - 1), f.i64(8));
            let [digit, rest] = walk_down(f, counts, last, needed);
            let prefix = f.ins().ishl(prefix, eight);
            vec![f.ins().bor(prefix, digit), rest]
        });
        f.return_(&found[..1]);
    })
}

/// Counts, per value of the digit at `shift`, the tokens of rank `from` and better whose higher digits are `prefix`.
fn count_digit(f: &mut FunctionCx, from: Value, prefix: Value, shift: Value) {
    let (logits, n, by_weight, counts) = (f.param(0), f.param(1), f.param(4), f.param(7));
    let scale = Scale { best: f.param(5), t: f.param(6) };
    let (begin, digits) = (f.i64(0), f.size(DIGITS));
    f.for_range(begin, digits, 1, |f, digit| {
        let at = f.index(counts, digit, 8);
        f.store(begin, at, 0);
    });
    f.for_range(begin, n, 1, |f, id| {
        let rank = rank(f, logits, id);
        let here = f.ins().ushr(rank, shift);
        let above = f.ins().ushr_imm_u(here, 8);
        let same = f.ins().icmp(IntCC::Equal, above, prefix);
        let kept = f.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, rank, from);
        let counted = f.ins().band(same, kept);
        f.if_then(counted, |f| {
            let amount = f.if_else(by_weight, |f| vec![weight_of(f, logits, id, scale)], |f| vec![f.i64(1)])[0];
            let digit = f.ins().band_imm_u(here, 0xff);
            let at = f.index(counts, digit, 8);
            let count = f.load(I64, at, 0);
            let count = f.ins().iadd(count, amount);
            f.store(count, at, 0);
        });
    });
}

/// From digit `last` down, the first at which the counts so far reach `needed`, and what it alone must still give.
fn walk_down(f: &mut FunctionCx, counts: Value, last: Value, needed: Value) -> [Value; 2] {
    let found = f.while_carried(
        &[last, needed],
        |f, carried| {
            let at = f.index(counts, carried[0], 8);
            let count = f.load(I64, at, 0);
            let short = f.ins().icmp(IntCC::UnsignedLessThan, count, carried[1]);
            let more = f.ins().icmp_imm_u(IntCC::NotEqual, carried[0], 0);
            f.ins().band(short, more)
        },
        |f, carried| {
            let at = f.index(counts, carried[0], 8);
            let count = f.load(I64, at, 0);
            vec![f.ins().iadd_imm_s(carried[0], -1), f.ins().isub(carried[1], count)]
        },
    );
    [found[0], found[1]]
}

fn pick(api: &Api<'_>) -> Result<Function, EmitError> {
    api.cx.function(PICK, &pick_signature(), |f| {
        let (logits, end, from, u, begin) = (f.param(0), f.param(1), f.param(2), f.param(3), f.i64(0));
        let scale = Scale { best: f.param(4), t: f.param(5) };
        f.for_carried(begin, end, 1, &[u], |f, id, left| {
            let rank = rank(f, logits, id);
            let kept = f.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, rank, from);
            f.if_else(
                kept,
                |f| {
                    let weight = weight_of(f, logits, id, scale);
                    let here = f.ins().icmp(IntCC::UnsignedLessThan, left[0], weight);
                    f.return_if(here, |_| vec![id]);
                    vec![f.ins().isub(left[0], weight)]
                },
                |_| vec![left[0]],
            )
        });
        // Not reached: `u` is below the sum of the weights.
        f.return_(&[begin]);
    })
}
