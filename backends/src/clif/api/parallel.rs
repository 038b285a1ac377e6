//! Running one kernel over its tasks, on one thread or on those of the caller's `parallel_for`.
//!
//! `run` issues at most `THREADS` tasks; each claims tiles from a counter in the arena until none is left, so tasks
//! never wait for each other and any number of real threads, one included, completes the step. With one thread no
//! atomic operation executes.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{AtomicRmwOp, InstBuilder, MemFlagsData, Signature, Value};
use tcc_ir::plan::{KernelId, Plan, Step};

use super::instance::{self, KERNEL, LARGE, LARGE_CLAIMS, NEXT, PARALLEL_FOR, SMALL, THREADS, TILES, USER};
use super::{Api, bytes};
use crate::clif::func::{FunctionCx, signature};
use crate::code::{EmitError, Function};

/// Symbol of `(instance, kernel, tiles)`: runs a kernel on the instance's argument block.
pub(super) const RUN: &str = "run";

/// Symbol of the function that threads of `parallel_for` enter.
const TASK: &str = "task";

/// Symbol of `(kernel, args, begin, end, scratch)`: the kernel of that index by a direct call.
const DISPATCH: &str = "dispatch";

/// Steps that move fewer bytes run on the calling thread: waking others costs more than it gains.
const SERIAL_BYTES: u64 = 32 << 10;

/// Large claims for each thread, which take three quarters of a step: few, so that most of the weights are read in
/// long runs.
const LARGE_PER_THREAD: i64 = 4;

/// Small claims that are as much as a large one: they take the rest of a step, so that threads end it together
/// whatever the speed of their cores.
const SMALL_PER_LARGE: i64 = 16;

/// True if the step may be split over threads.
pub(super) fn is_parallel(plan: &Plan, step: &Step) -> bool {
    step.bytes >= SERIAL_BYTES && plan.kernel(step.kernel).tasks() > 1 && plan.arena.max_threads > 1
}

/// `(args, begin, end, scratch)`, as every kernel takes them.
pub(super) fn kernel_signature() -> Signature {
    signature(&[I64, I64, I64, I64], &[])
}

pub(super) fn run_signature() -> Signature {
    signature(&[I64, I64, I64], &[])
}

fn dispatch_signature() -> Signature {
    signature(&[I64, I64, I64, I64, I64], &[])
}

/// Kernels that some step runs in parallel, ascending.
fn parallel_kernels(plan: &Plan) -> Vec<KernelId> {
    let steps = plan.lists().flat_map(|list| &list.steps);
    let mut kernels: Vec<_> = steps.filter(|step| is_parallel(plan, step)).map(|step| step.kernel).collect();
    kernels.sort();
    kernels.dedup();
    kernels
}

/// `run`, the task entry and the dispatcher; none if no step is ever split.
pub(super) fn functions(api: &Api<'_>) -> Result<Vec<Function>, EmitError> {
    let kernels = parallel_kernels(api.plan);
    if kernels.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![run(api)?, task(api)?, dispatch(api, &kernels)?])
}

fn run(api: &Api<'_>) -> Result<Function, EmitError> {
    api.cx.function(RUN, &run_signature(), |f| {
        let (instance, kernel, tiles) = (f.param(0), f.param(1), f.param(2));
        let threads = THREADS.load_wide(f, instance);
        let alone = f.ins().icmp_imm_s(IntCC::Equal, threads, 1);
        f.return_if(alone, |f| {
            let block = instance::arg(0).address(f, instance);
            let begin = f.i64(0);
            let scratch = f.offset(instance, bytes(api.plan.arena.scratch_offset));
            f.call(DISPATCH, &dispatch_signature(), &[kernel, block, begin, tiles, scratch]);
            vec![]
        });
        set_claims(f, instance, threads, tiles);
        KERNEL.store(f, kernel, instance);
        NEXT.set(f, 0, instance);
        let tasks = f.min(threads, tiles);
        let tasks = f.ins().ireduce(I32, tasks);
        let (hook, user) = (PARALLEL_FOR.load(f, instance), USER.load(f, instance));
        let entry = f.symbol_address(TASK);
        f.call_pointer(hook, &signature(&[I64, I32, I64, I64], &[]), &[user, tasks, entry, instance]);
        f.return_(&[]);
    })
}

/// Splits `tiles` tiles in claims for `threads` threads: all of one tile where there are few.
fn set_claims(f: &mut FunctionCx, instance: Value, threads: Value, tiles: Value) {
    let claims = f.ins().imul_imm_s(threads, LARGE_PER_THREAD);
    let three_quarters = f.ins().imul_imm_s(tiles, 3);
    let three_quarters = f.ins().ushr_imm_u(three_quarters, 2);
    let large = f.ins().udiv(three_quarters, claims);
    let (zero, one, part) = (f.i64(0), f.i64(1), f.i64(SMALL_PER_LARGE));
    let is_short = f.ins().icmp_imm_s(IntCC::Equal, large, 0);
    let claims = f.ins().select(is_short, zero, claims);
    let small = f.ins().udiv(large, part);
    let small = f.ins().umax(small, one);
    TILES.store(f, tiles, instance);
    LARGE_CLAIMS.store(f, claims, instance);
    LARGE.store(f, large, instance);
    SMALL.store(f, small, instance);
}

/// `tcc_task`: `(instance, index)`, `index` names the scratch.
fn task(api: &Api<'_>) -> Result<Function, EmitError> {
    let code = api.cx.function(TASK, &signature(&[I64, I32], &[]), |f| {
        let (instance, index) = (f.param(0), f.param(1));
        let index = f.ins().uextend(I64, index);
        let arena = &api.plan.arena;
        let scratch = f.offset(instance, bytes(arena.scratch_offset));
        let scratch = f.index(scratch, index, bytes(arena.scratch_bytes_per_thread));
        let (kernel, tiles) = (KERNEL.load_wide(f, instance), TILES.load_wide(f, instance));
        let block = instance::arg(0).address(f, instance);
        let first = claim(f, instance);
        f.while_carried(
            &first,
            |f, claimed| f.ins().icmp(IntCC::UnsignedLessThan, claimed[0], tiles),
            |f, claimed| {
                let end = f.min(claimed[1], tiles);
                f.call(DISPATCH, &dispatch_signature(), &[kernel, block, claimed[0], end, scratch]);
                claim(f, instance).to_vec()
            },
        );
        f.return_(&[]);
    })?;
    Ok(Function { is_task: true, ..code })
}

/// The tiles `[begin, end)` of the next claim; past the last tile if none is left.
fn claim(f: &mut FunctionCx, instance: Value) -> [Value; 2] {
    let (next, one) = (NEXT.address(f, instance), f.i32(1));
    let claim = f.ins().atomic_rmw(I32, MemFlagsData::trusted(), AtomicRmwOp::Add, next, one);
    let claim = f.ins().uextend(I64, claim);
    let [large_claims, large, small] = [LARGE_CLAIMS, LARGE, SMALL].map(|field| field.load_wide(f, instance));
    let is_large = f.ins().icmp(IntCC::UnsignedLessThan, claim, large_claims);
    let large_before = f.min(claim, large_claims);
    let small_before = f.ins().isub(claim, large_before);
    let (of_large, of_small) = (f.ins().imul(large_before, large), f.ins().imul(small_before, small));
    let begin = f.ins().iadd(of_large, of_small);
    let count = f.ins().select(is_large, large, small);
    [begin, f.ins().iadd(begin, count)]
}

fn dispatch(api: &Api<'_>, kernels: &[KernelId]) -> Result<Function, EmitError> {
    api.cx.function(DISPATCH, &dispatch_signature(), |f| {
        let wanted = f.param(0);
        let operands: Vec<_> = (1..5).map(|i| f.param(i)).collect();
        for kernel in kernels {
            let found = f.ins().icmp_imm_s(IntCC::Equal, wanted, i64::from(kernel.0));
            f.return_if(found, |f| {
                f.call(&api.kernels[kernel.0 as usize], &kernel_signature(), &operands);
                vec![]
            });
        }
        f.return_(&[]);
    })
}
