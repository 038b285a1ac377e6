//! Running kernels over their tasks on the threads of the caller's `parallel_for`.
//!
//! A loop covers the tasks of one step, or of several that may run at the same time, one step's after the other's. `run`
//! divides them in parts of neighbors, one for each thread. A thread claims runs of tasks from the front of its own part,
//! so that the weights it reads are one stream that fetching ahead follows; with nothing left there it claims from the
//! back of the others'. Each claim is a part of what is left, so that slow cores leave the most to fast ones, and the last
//! claims are single tasks. Threads never wait for each other, and any number of them, one included, completes a
//! loop. With one thread no atomic operation executes.

use std::ops::Range;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Signature, Value};
use tcc_ir::plan::{KernelId, Plan, Step, StepList};

use super::instance::{self, LOOP, PARALLEL_FOR, PARTS, THREADS, USER};
use super::{Api, bytes};
use crate::clif::func::{FunctionCx, signature};
use crate::code::{EmitError, Function};

/// Symbol of `(instance, loop, tasks)`: works off a loop.
const RUN: &str = "run";

/// Symbol of the function that threads of `parallel_for` enter.
const TASK: &str = "task";

/// Symbol of `(instance, loop, begin, end, scratch)`: some tasks of the loop of that index, by direct calls.
const DISPATCH: &str = "dispatch";

/// Steps that move fewer bytes run on the calling thread: waking others costs more than it gains.
const SERIAL_BYTES: u64 = 32 << 10;

/// The part of the tasks left that a claim takes, as shifts: a quarter of a thread's own, for others may be faster and
/// want of the rest; half of another's, for each claim from the back begins a new stream.
const OWN_SHIFT: i64 = 2;
const OTHERS_SHIFT: i64 = 1;

/// True if the step may be split over threads.
pub(super) fn is_parallel(plan: &Plan, step: &Step) -> bool {
    step.bytes >= SERIAL_BYTES && plan.kernel(step.kernel).tasks() > 1 && plan.arena.max_threads > 1
}

/// The steps of `list` in turns: those of one loop, or one that runs on the calling thread.
pub(super) fn turns<'a>(plan: &Plan, list: &'a StepList) -> impl Iterator<Item = &'a [Step]> {
    list.steps.chunk_by(|step, next| next.joined && is_parallel(plan, step) && is_parallel(plan, next))
}

/// The kernels of every loop, ascending, each once.
pub(super) fn loops(plan: &Plan) -> Vec<Vec<KernelId>> {
    let turns = plan.lists().flat_map(|list| turns(plan, list));
    let parallel = turns.filter(|turn| is_parallel(plan, &turn[0]));
    let mut loops: Vec<Vec<_>> = parallel.map(|turn| turn.iter().map(|step| step.kernel).collect()).collect();
    loops.sort();
    loops.dedup();
    loops
}

/// `(args, begin, end, scratch)`, as every kernel takes them.
pub(super) fn kernel_signature() -> Signature {
    signature(&[I64, I64, I64, I64], &[])
}

fn run_signature() -> Signature {
    signature(&[I64, I64, I64], &[])
}

fn dispatch_signature() -> Signature {
    signature(&[I64, I64, I64, I64, I64], &[])
}

/// Works off the steps of `turn`; the operands of its i-th step are in argument block i. `loops` are those of the plan.
pub(super) fn call_run(api: &Api<'_>, f: &mut FunctionCx, instance: Value, turn: &[Step], loops: &[Vec<KernelId>]) {
    let kernels: Vec<_> = turn.iter().map(|step| step.kernel).collect();
    let index = loops.binary_search(&kernels).expect("every turn of parallel steps is a loop");
    let tasks = kernels.iter().map(|kernel| api.plan.kernel(*kernel).tasks()).sum();
    let operands = [instance, f.size(index), f.size(tasks)];
    f.call(RUN, &run_signature(), &operands);
}

/// `run`, the task entry and the dispatcher; none if no step is ever split.
pub(super) fn functions(api: &Api<'_>) -> Result<Vec<Function>, EmitError> {
    let loops = loops(api.plan);
    if loops.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![run(api)?, task(api)?, dispatch(api, &loops)?])
}

fn run(api: &Api<'_>) -> Result<Function, EmitError> {
    api.cx.function(RUN, &run_signature(), |f| {
        let (instance, index, tasks) = (f.param(0), f.param(1), f.param(2));
        let threads = THREADS.load_wide(f, instance);
        let first = f.i64(0);
        let alone = f.ins().icmp_imm_s(IntCC::Equal, threads, 1);
        f.return_if(alone, |f| {
            let scratch = f.offset(instance, bytes(api.plan.arena.scratch_offset));
            f.call(DISPATCH, &dispatch_signature(), &[instance, index, first, tasks, scratch]);
            vec![]
        });
        let parts = f.min(threads, tasks);
        f.for_carried(first, parts, 1, &[first], |f, part, begin| {
            let next = f.offset(part, 1);
            let end = f.ins().imul(tasks, next);
            let end = f.ins().udiv(end, parts);
            let high = f.ins().ishl_imm_u(end, 32);
            let word = f.ins().bor(begin[0], high);
            let claims = instance::claims(f, instance, part);
            f.store(word, claims, 0);
            vec![end]
        });
        LOOP.store(f, index, instance);
        PARTS.store(f, parts, instance);
        let parts = f.ins().ireduce(I32, parts);
        let (hook, user) = (PARALLEL_FOR.load(f, instance), USER.load(f, instance));
        let entry = f.symbol_address(TASK);
        f.call_pointer(hook, &signature(&[I64, I32, I64, I64], &[]), &[user, parts, entry, instance]);
        f.return_(&[]);
    })
}

/// `tcc_task`: `(instance, index)`; `index` names the part to begin with, and the scratch.
fn task(api: &Api<'_>) -> Result<Function, EmitError> {
    let code = api.cx.function(TASK, &signature(&[I64, I32], &[]), |f| {
        let (instance, index) = (f.param(0), f.param(1));
        let index = f.ins().uextend(I64, index);
        let arena = &api.plan.arena;
        let scratch = f.offset(instance, bytes(arena.scratch_offset));
        let scratch = f.index(scratch, index, bytes(arena.scratch_bytes_per_thread));
        let (looped, parts) = (LOOP.load_wide(f, instance), PARTS.load_wide(f, instance));
        let first = f.i64(0);
        f.for_range(first, parts, 1, |f, others| {
            let part = f.ins().iadd(index, others);
            let wrapped = f.ins().isub(part, parts);
            let is_past = f.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, part, parts);
            let part = f.ins().select(is_past, wrapped, part);
            let claims = instance::claims(f, instance, part);
            let is_other = f.ins().icmp_imm_s(IntCC::NotEqual, others, 0);
            claim_all(f, claims, is_other, |f, begin, end| {
                f.call(DISPATCH, &dispatch_signature(), &[instance, looped, begin, end, scratch]);
            });
        });
        f.return_(&[]);
    })?;
    Ok(Function { is_task: true, ..code })
}

/// Claims tasks of the part at `claims` until none is left, from its back if `is_other` is not 0, and has `body` do
/// those from its first operand up to its second.
fn claim_all(f: &mut FunctionCx, claims: Value, is_other: Value, body: impl FnOnce(&mut FunctionCx, Value, Value)) {
    let flags = MemFlagsData::trusted();
    let found = f.ins().atomic_load(I64, flags, claims);
    let ends = |f: &mut FunctionCx, word: Value| {
        let low = f.ins().ireduce(I32, word);
        [f.ins().uextend(I64, low), f.ins().ushr_imm_u(word, 32)]
    };
    f.while_carried(
        &[found],
        |f, found| {
            let [begin, end] = ends(f, found[0]);
            f.ins().icmp(IntCC::UnsignedLessThan, begin, end)
        },
        |f, found| {
            let [begin, end] = ends(f, found[0]);
            let left = f.ins().isub(end, begin);
            let [own, others] = [OWN_SHIFT, OTHERS_SHIFT].map(|shift| f.ins().ushr_imm_u(left, shift));
            let (part, one) = (f.ins().select(is_other, others, own), f.i64(1));
            let count = f.ins().umax(part, one);
            let (front, back) = (f.ins().iadd(begin, count), f.ins().isub(end, count));
            let from = f.ins().select(is_other, back, begin);
            let high = f.ins().ishl_imm_u(count, 32);
            let (without_front, without_back) = (f.ins().iadd(found[0], count), f.ins().isub(found[0], high));
            let rest = f.ins().select(is_other, without_back, without_front);
            let before = f.ins().atomic_cas(flags, claims, found[0], rest);
            let is_ours = f.ins().icmp(IntCC::Equal, before, found[0]);
            f.if_then(is_ours, |f| {
                let to = f.ins().select(is_other, end, front);
                body(f, from, to);
            });
            vec![f.ins().atomic_load(I64, flags, claims)]
        },
    );
}

fn dispatch(api: &Api<'_>, loops: &[Vec<KernelId>]) -> Result<Function, EmitError> {
    api.cx.function(DISPATCH, &dispatch_signature(), |f| {
        let [instance, wanted, begin, end, scratch] = [0, 1, 2, 3, 4].map(|i| f.param(i));
        for (index, kernels) in loops.iter().enumerate() {
            let found = f.ins().icmp_imm_s(IntCC::Equal, wanted, i64::try_from(index).expect("a few loops"));
            f.return_if(found, |f| {
                let mut first = 0;
                for (block, kernel) in kernels.iter().enumerate() {
                    let past = first + api.plan.kernel(*kernel).tasks();
                    let args = instance::arg(block, 0).address(f, instance);
                    let call = |f: &mut FunctionCx, from: Value, to: Value| {
                        f.call(&api.kernels[kernel.0 as usize], &kernel_signature(), &[args, from, to, scratch]);
                    };
                    match kernels.len() {
                        1 => call(f, begin, end),
                        _ => call_within(f, [begin, end], first..past, call),
                    }
                    first = past;
                }
                vec![]
            });
        }
        f.return_(&[]);
    })
}

/// Calls with those of the tasks `[begin, end)` of a loop that are among `tasks`, counted from the first of these.
fn call_within(
    f: &mut FunctionCx,
    [begin, end]: [Value; 2],
    tasks: Range<usize>,
    call: impl FnOnce(&mut FunctionCx, Value, Value),
) {
    let (first, past) = (f.size(tasks.start), f.size(tasks.end));
    let from = f.ins().umax(begin, first);
    let to = f.ins().umin(end, past);
    let is_some = f.ins().icmp(IntCC::UnsignedLessThan, from, to);
    f.if_then(is_some, |f| {
        let (from, to) = (f.ins().isub(from, first), f.ins().isub(to, first));
        call(f, from, to);
    });
}
