//! The search for the best tokens of one hidden row: the plan's steps, and between them the bound that decides which
//! rows go on (`tcc_ir::screen`).
//!
//! Afterwards the arena's logits hold exact ones where a token may be among the best, and -∞ elsewhere.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, I32, I64};
use cranelift_codegen::ir::{InstBuilder, Signature, Value};
use tcc_ir::plan::{Search, StepList};
use tcc_ir::screen::PANEL_ROWS;
use tcc_ir::screen::query::{LIMIT, QueryLayout};
use tcc_runtime::abi::Status;

use super::best::call_best;
use super::head::set_common_args;
use super::instance::{
    HEAD_IN, HEAD_OUT, LOGITS_READY, NONFINITE, SEARCH_ROWS_EXACT, SEARCH_ROWS_LOW, SEARCHES, WEIGHTS,
};
use super::sample::kth_best;
use super::steps::{self, Role};
use super::{Api, bytes, fail_unless_ok, status_signature};
use crate::clif::func::{FunctionCx, signature};
use crate::code::{EmitError, Function};

/// Symbol of `(instance, hidden, count) -> (status, found)`: puts the `count` best logits of the row at `hidden`, and
/// maybe others, in the arena. `found` is their number, 0 where every logit must be computed instead.
const SEARCH: &str = "search";

/// Symbol of `(instance) -> token`: the best token after a search.
const FOUND_BEST: &str = "search_best";

/// Symbol of `(instance)`: moves the logits that a search has computed to the front, and their tokens to the memory of
/// the panels' largest.
const COMPACT: &str = "search_compact";

/// Symbols of the functions that run the steps up to each level.
const STAGES: [&str; Search::LEVELS] = ["search_m1_query", "search_m1_high", "search_m1_low", "search_m1_exact"];

/// The functions of the plan's search; none without one.
pub(super) fn functions(api: &Api<'_>) -> Result<Vec<Function>, EmitError> {
    let Some(search) = &api.plan.search else { return Ok(Vec::new()) };
    let mut functions = vec![run(api, search)?, found_best(api, search)?, compact(api, search)?];
    // Everything before the first level goes with it.
    let first = search.list.steps.len() - Search::LEVELS;
    for (level, symbol) in STAGES.into_iter().enumerate() {
        let begin = if level == 0 { 0 } else { first + level };
        let stage = StepList { steps: search.list.steps[begin..=first + level].to_vec(), ..search.list.clone() };
        functions.push(steps::list(api, symbol, &stage, Role::Head)?);
    }
    Ok(functions)
}

fn search_signature() -> Signature {
    signature(&[I64, I64, I64], &[I32, I64])
}

/// Searches for the `count` best tokens of the row at `hidden`; leaves the function if that fails. Returns how many
/// logits were computed, 0 where all must be.
pub(super) fn call_search(f: &mut FunctionCx, instance: Value, hidden: Value, count: Value) -> Value {
    let results = f.call(SEARCH, &search_signature(), &[instance, hidden, count]);
    fail_unless_ok(f, results[0]);
    results[1]
}

/// The best token after a search.
pub(super) fn call_found_best(f: &mut FunctionCx, instance: Value) -> Value {
    f.call(FOUND_BEST, &signature(&[I64], &[I64]), &[instance])[0]
}

fn run(api: &Api<'_>, search: &Search) -> Result<Function, EmitError> {
    api.cx.function(SEARCH, &search_signature(), |f| {
        let (instance, hidden, count) = (f.param(0), f.param(1), f.param(2));
        let logits = f.offset(instance, bytes(api.plan.arena.logits_offset));
        LOGITS_READY.set(f, 0, instance);
        HEAD_IN.store(f, hidden, instance);
        HEAD_OUT.store(f, logits, instance);
        let (pos, valid) = (f.i64(0), f.i64(1));
        set_common_args(api, f, instance, pos, valid);
        stage(f, instance, STAGES[0]);
        let query = f.offset(instance, bytes(search.query_offset));
        let bounded = is_bounded(f, search, instance, query);
        let last = f.ins().iadd_imm_s(count, -1);
        let most = i64::try_from(search.max_count()).expect("a few hundred");
        let few = f.ins().icmp_imm_u(IntCC::UnsignedLessThan, last, most);
        let usable = f.ins().band(bounded, few);
        let unusable = f.ins().icmp_imm_s(IntCC::Equal, usable, 0);
        f.return_if(unusable, |f| vec![f.i32(Status::OK.0), f.i64(0)]);
        stage(f, instance, STAGES[1]);
        for symbol in &STAGES[2..] {
            let threshold = threshold(f, search, instance, count);
            f.store(threshold, query, QueryLayout::THRESHOLD);
            stage(f, instance, symbol);
        }
        let flag = NONFINITE.load(f, instance);
        f.return_if(flag, |f| vec![f.i32(Status::NONFINITE.0), f.i64(0)]);
        let found = add_counts(f, search, instance);
        let ok = f.i32(Status::OK.0);
        f.return_(&[ok, found]);
    })
}

/// Runs the steps of one stage; leaves the function if that fails.
fn stage(f: &mut FunctionCx, instance: Value, symbol: &str) {
    let status = f.call(symbol, &status_signature(&[I64]), &[instance])[0];
    f.return_if(status, |f| vec![status, f.i64(0)]);
}

/// Not 0 if all estimates, bounds and logits are finite, whichever tokens they are of. The comparison is false for NaN.
fn is_bounded(f: &mut FunctionCx, search: &Search, instance: Value, query: Value) -> Value {
    let weights = WEIGHTS.load(f, instance);
    let limit = f.offset(weights, bytes(search.screen_offset) + search.layout.limit_offset());
    let limit = f.load(F32, limit, 0);
    let norm = f.load(F32, query, QueryLayout::NORM);
    let product = f.ins().fmul(limit, norm);
    let largest = f.f32(LIMIT);
    f.ins().fcmp(FloatCC::LessThan, product, largest)
}

/// The `count`-th largest of the panels' largest.
fn threshold(f: &mut FunctionCx, search: &Search, instance: Value, count: Value) -> Value {
    let maxima = f.offset(instance, bytes(search.maxima_offset));
    let panels = f.size(search.layout.panels());
    let one = f.ins().icmp_imm_u(IntCC::Equal, count, 1);
    let index =
        f.if_else(one, |f| vec![call_best(f, maxima, panels)], |f| vec![kth_best(f, instance, maxima, panels, count)])
            [0];
    let at = f.index(maxima, index, 4);
    f.load(F32, at, 0)
}

/// Adds the rows read to the instance's counters; returns the number of logits that were computed.
fn add_counts(f: &mut FunctionCx, search: &Search, instance: Value) -> Value {
    let counts = f.offset(instance, bytes(search.counts_offset));
    let (zero, panels) = (f.i64(0), f.size(search.layout.panels()));
    let rows = f.for_carried(zero, panels, 1, &[zero, zero], |f, panel, sums| {
        let at = f.index(counts, panel, 4);
        let both = f.load_unsigned(I32, at, 0);
        let (low, exact) = (f.ins().band_imm_u(both, 0xff), f.ins().ushr_imm_u(both, 8));
        vec![f.ins().iadd(sums[0], low), f.ins().iadd(sums[1], exact)]
    });
    let one = f.i64(1);
    for (counter, more) in [(SEARCHES, one), (SEARCH_ROWS_LOW, rows[0]), (SEARCH_ROWS_EXACT, rows[1])] {
        let before = counter.load(f, instance);
        let after = f.ins().iadd(before, more);
        counter.store(f, after, instance);
    }
    rows[1]
}

/// The first panel whose largest is the largest has the first of the largest logits.
fn found_best(api: &Api<'_>, search: &Search) -> Result<Function, EmitError> {
    api.cx.function(FOUND_BEST, &signature(&[I64], &[I64]), |f| {
        let instance = f.param(0);
        let maxima = f.offset(instance, bytes(search.maxima_offset));
        let panels = f.size(search.layout.panels());
        let panel = call_best(f, maxima, panels);
        let logits = f.offset(instance, bytes(api.plan.arena.logits_offset));
        let (first, rows) = (f.index(logits, panel, 4 * PANEL_ROWS), f.size(PANEL_ROWS));
        let lane = call_best(f, first, rows);
        let before = f.scaled(panel, PANEL_ROWS);
        let token = f.ins().iadd(before, lane);
        f.return_(&[token]);
    })
}

/// Most logits that [`call_compact`] has room for.
pub(super) fn max_compact(search: &Search) -> i64 {
    i64::try_from(search.layout.panels()).expect("panels of one head")
}

/// Moves the logits that a search has computed, at most [`max_compact`], to the front of the arena's; returns the
/// address of their tokens, u32 each. Both are in the order of ids.
pub(super) fn call_compact(f: &mut FunctionCx, search: &Search, instance: Value) -> Value {
    f.call(COMPACT, &signature(&[I64], &[]), &[instance]);
    f.offset(instance, bytes(search.maxima_offset))
}

fn compact(api: &Api<'_>, search: &Search) -> Result<Function, EmitError> {
    api.cx.function(COMPACT, &signature(&[I64], &[]), |f| {
        let instance = f.param(0);
        let logits = f.offset(instance, bytes(api.plan.arena.logits_offset));
        let [ids, counts] = [search.maxima_offset, search.counts_offset].map(|at| f.offset(instance, bytes(at)));
        let (zero, panels) = (f.i64(0), f.size(search.layout.panels()));
        f.for_carried(zero, panels, 1, &[zero], |f, panel, moved| {
            let at = f.index(counts, panel, 4);
            let both = f.load(I32, at, 0);
            let exact = f.ins().ushr_imm_u(both, 8);
            let first = f.scaled(panel, PANEL_ROWS);
            let rows = f.size(PANEL_ROWS);
            let end = f.ins().select(exact, rows, zero);
            let end = f.ins().iadd(first, end);
            f.for_carried(first, end, 1, moved, |f, id, moved| {
                let at = f.index(logits, id, 4);
                let logit = f.load(F32, at, 0);
                let out = f.f32(f32::NEG_INFINITY);
                let is_in = f.ins().fcmp(FloatCC::GreaterThan, logit, out);
                f.if_then(is_in, |f| {
                    let (to, to_id) = (f.index(logits, moved[0], 4), f.index(ids, moved[0], 4));
                    f.store(logit, to, 0);
                    let id = f.ins().ireduce(I32, id);
                    f.store(id, to_id, 0);
                });
                let one = f.ins().uextend(I64, is_in);
                vec![f.ins().iadd(moved[0], one)]
            })
        });
        f.return_(&[]);
    })
}
