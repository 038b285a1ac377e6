//! The steps of a graph as straight-line calls of its kernels.
//!
//! Each step stores its operands' addresses into one of the instance's argument blocks, then runs its kernel: directly where
//! the step is small, else through `run`, which may split it over threads.

use cranelift_codegen::ir::Value;
use cranelift_codegen::ir::types::{I32, I64};
use tcc_ir::kernel::args;
use tcc_ir::plan::{Arg, KernelId, Plan, Step, StepList};
use tcc_runtime::abi::Status;

use super::instance::{self, Field, HEAD_IN, HEAD_OUT, OP_BEGIN, OP_END, SHOULD_STOP, USER, WEIGHTS};
use super::parallel;
use super::{Api, bytes, fail_if, is_zero, return_ok, status_signature, tables};
use crate::clif::func::{FunctionCx, signature};
use crate::code::{EmitError, Function};

/// Symbol of the function that runs the head: `(instance) -> status`.
pub(super) const HEAD: &str = "head_m1";

/// Symbol of the function that asks the caller whether to stop: `(instance) -> i32`, not 0 = stop.
const STOP_ASKED: &str = "stop_asked";

/// Symbol of the function that runs the body of `m` token rows: `(instance) -> status`.
pub(super) fn body_symbol(m: usize) -> String {
    format!("body_m{m}")
}

/// The functions of every body and of the head.
pub(super) fn lists(api: &Api<'_>) -> Result<Vec<Function>, EmitError> {
    let mut functions = Vec::new();
    for body in &api.plan.bodies {
        functions.push(list(api, &body_symbol(body.m), body, Role::Body)?);
    }
    functions.push(list(api, HEAD, &api.plan.head, Role::Head)?);
    Ok(functions)
}

/// Symbol of the call site of an op: its label in decode and head, with the number of rows behind it in chunks.
pub fn op_symbol(plan: &Plan, list: &StepList, step: &Step) -> String {
    let is_plain = list.m == plan.bodies.first().map_or(1, |decode| decode.m);
    if is_plain { step.label.clone() } else { format!("{}.m{}", step.label, list.m) }
}

/// What a list's hidden row is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Body,
    Head,
}

/// The function `name` that runs the steps of `list`: `(instance) -> status`.
pub(super) fn list(api: &Api<'_>, name: &str, list: &StepList, role: Role) -> Result<Function, EmitError> {
    api.cx.function(name, &status_signature(&[I64]), |f| {
        let instance = f.param(0);
        let weights = WEIGHTS.load(f, instance);
        let loops = parallel::loops(api.plan);
        for turn in parallel::turns(api.plan, list) {
            for (block, step) in turn.iter().enumerate() {
                f.mark(&op_symbol(api.plan, list, step));
                if step.layer_start {
                    let stop = f.call(STOP_ASKED, &signature(&[I64], &[I32]), &[instance])[0];
                    fail_if(f, stop, Status::STOPPED);
                }
                call_op_hook(api, f, instance, OP_BEGIN, step);
                for (i, operand) in step.args.iter().enumerate() {
                    let address = address(api, f, instance, weights, *operand, role);
                    instance::arg(block, args::FIRST + i).store(f, address, instance);
                }
                if block + 1 == turn.len() {
                    call_kernels(api, f, instance, turn, &loops);
                }
                call_op_hook(api, f, instance, OP_END, step);
            }
        }
        f.mark(&format!("{name}.end"));
        return_ok(f);
    })
}

/// Tells the caller's `hook`, if it is there, which op begins or has ended; no code without the option.
fn call_op_hook(api: &Api<'_>, f: &mut FunctionCx, instance: Value, hook: Field, step: &Step) {
    if !api.options.op_hooks {
        return;
    }
    let op = tables::op_index(api.plan, &step.label);
    let address = hook.load(f, instance);
    f.if_then(address, |f| {
        let (user, op) = (USER.load(f, instance), f.i32(op));
        f.call_pointer(address, &signature(&[I64, I32], &[]), &[user, op]);
    });
}

/// Address that an operand word holds.
fn address(api: &Api<'_>, f: &mut FunctionCx, instance: Value, weights: Value, arg: Arg, role: Role) -> Value {
    let arena = &api.plan.arena;
    match (arg, role) {
        (Arg::Weight { offset_bytes }, _) => f.offset(weights, bytes(offset_bytes)),
        (Arg::Arena { offset_bytes }, _) => f.offset(instance, bytes(offset_bytes)),
        (Arg::Tokens, _) => f.offset(instance, bytes(arena.tokens_offset)),
        (Arg::Hidden, Role::Body) => f.offset(instance, bytes(arena.hidden_offset)),
        (Arg::Hidden, Role::Head) => HEAD_IN.load(f, instance),
        (Arg::Logits, _) => HEAD_OUT.load(f, instance),
    }
}

/// Runs the steps of `turn`, whose operands are stored in the argument blocks.
fn call_kernels(api: &Api<'_>, f: &mut FunctionCx, instance: Value, turn: &[Step], loops: &[Vec<KernelId>]) {
    let step = &turn[0];
    if parallel::is_parallel(api.plan, step) {
        return parallel::call_run(api, f, instance, turn, loops);
    }
    let (args, begin) = (instance::arg(0, 0).address(f, instance), f.i64(0));
    let tasks = f.size(api.plan.kernel(step.kernel).tasks());
    let scratch = f.offset(instance, bytes(api.plan.arena.scratch_offset));
    let symbol = &api.kernels[step.kernel.0 as usize];
    f.call(symbol, &parallel::kernel_signature(), &[args, begin, tasks, scratch]);
}

/// `(instance) -> i32`: what `should_stop` says; 0 without that hook.
pub(super) fn stop_asked(api: &Api<'_>) -> Result<Function, EmitError> {
    api.cx.function(STOP_ASKED, &signature(&[I64], &[I32]), |f| {
        let instance = f.param(0);
        let hook = SHOULD_STOP.load(f, instance);
        let absent = is_zero(f, hook);
        f.return_if(absent, |f| vec![f.i32(0)]);
        let user = USER.load(f, instance);
        let stop = f.call_pointer(hook, &signature(&[I64], &[I32]), &[user]);
        f.return_(&stop);
    })
}
