//! The main program of `--emit exe`: evaluates token ids from its arguments with the model beside it.
//!
//! ```text
//! NAME [-n N] [--logits] [--threads N] [--self-test] ID...
//! ```
//!
//! Prints N (by default 1) greedy ids, or with `--logits` the f32 little-endian logits of every given position;
//! `--self-test` prints `ok` and the CPU features of the code that ran. A status that is not OK goes to standard error by
//! name and becomes the exit code.
//! `--threads N` runs the tasks of every step one after the other, backwards and from another one each time.

mod options;
mod system;

use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::plan::Plan;
use tcc_ir::target::Features;
use tcc_runtime::abi::Status;
use tcc_runtime::abi::offsets::{hooks, sampler};

use super::ClifContext;
use super::api::tables::strings;
use super::func::{FunctionCx, signature};
use crate::code::{EmitError, Function};
use crate::emit::EmitOptions;
use crate::isa::Backend;

/// Symbol of the entry point.
pub const START: &str = "_start";
/// Symbol of `(sp)`, called with the initial stack pointer; does not return.
const MAIN: &str = "exe_main";
/// Symbol of the system call `(number, six arguments) -> result`.
const SYSCALL: &str = "exe_syscall";
/// Symbol of `(hwcap, hwcap2) -> features`.
const HWCAP: &str = "exe_hwcap";
/// Symbol of the `parallel_for` hook.
const PARALLEL_FOR: &str = "exe_parallel_for";

/// Words of the auxiliary vector that name CPU features.
const AT_HWCAP: i64 = 16;
const AT_HWCAP2: i64 = 26;

/// What the main program is made from.
struct Exe<'a> {
    cx: &'a ClifContext,
    plan: &'a Plan,
    /// C prefix of the model.
    name: &'a str,
}

/// The functions of the main program, to go behind those of the object.
pub(crate) fn functions(
    backend: &dyn Backend,
    plan: &Plan,
    options: &EmitOptions<'_>,
) -> Result<Vec<Function>, EmitError> {
    // What runs before `init` must run on every core.
    let cx = ClifContext::new(backend, Features::NONE)?;
    let exe = Exe { cx: &cx, plan, name: options.name };
    let mut functions = vec![
        Function { name: START.into(), ..backend.start() },
        Function { name: SYSCALL.into(), ..backend.syscall() },
        Function { name: HWCAP.into(), ..backend.hwcap() },
        main(&exe)?,
        parallel_for(&exe)?,
        strings(options::NAMES, options::OPTIONS),
    ];
    functions.extend(options::functions(&exe)?);
    functions.extend(system::functions(&exe, backend.syscalls())?);
    Ok(functions)
}

/// Values that every part of the main program needs.
struct Process {
    argc: Value,
    argv: Value,
    arena: Value,
    hooks: Value,
    /// What the options say, one word each.
    words: Value,
    /// Token ids of the arguments.
    tokens: Value,
}

fn main(exe: &Exe<'_>) -> Result<Function, EmitError> {
    exe.cx.function(MAIN, &signature(&[I64], &[]), |f| {
        let process = process(exe, f);
        let n = options::call_parse(f, &process);
        let settings = options::read(f, &process);
        f.store(settings.threads, process.hooks, field(hooks::THREADS));
        f.if_then(settings.self_test, |f| self_test(exe, f, &process));
        let instance = init(exe, f, &process);
        f.if_then(settings.logits, |f| write_logits(exe, f, &process, instance, n));
        generate(exe, f, &process, instance, n, settings.generate);
        let ok = f.i32(Status::OK.0);
        system::exit(f, ok);
        f.return_(&[]);
    })
}

/// An offset within a struct as the builder takes it.
fn field(offset: usize) -> i32 {
    i32::try_from(offset).expect("structs are small")
}

/// Reads the initial stack and makes arena, hooks and room for the tokens.
fn process(exe: &Exe<'_>, f: &mut FunctionCx) -> Process {
    let sp = f.param(0);
    let argc = f.load(I64, sp, 0);
    let argv = f.offset(sp, 8);
    let features = features(f, argv, argc);
    let arena_bytes = usize::try_from(exe.plan.arena.total_bytes()).expect("an arena fits the address space");
    let size = f.size(arena_bytes + options::BYTES);
    let size = f.index(size, argc, 4);
    let arena = system::map(f, size);
    let hooks = hooks_block(f, features);
    let words = f.offset(arena, arena_bytes);
    let tokens = f.offset(words, options::BYTES);
    Process { argc, argv, arena, hooks, words, tokens }
}

/// The core's features from the auxiliary vector, which lies behind arguments and environment.
fn features(f: &mut FunctionCx, argv: Value, argc: Value) -> Value {
    let environment = f.index(argv, argc, 8);
    let environment = f.offset(environment, 8);
    let end = f.while_carried(&[environment], |f, at| f.load(I64, at[0], 0), |f, at| vec![f.offset(at[0], 8)])[0];
    let vector = f.offset(end, 8);
    let zero = f.i64(0);
    let found = f.while_carried(
        &[vector, zero, zero],
        |f, carried| f.load(I64, carried[0], 0),
        |f, carried| {
            let (key, value) = (f.load(I64, carried[0], 0), f.load(I64, carried[0], 8));
            let mut next = vec![f.offset(carried[0], 16)];
            for (wanted, before) in [AT_HWCAP, AT_HWCAP2].into_iter().zip(&carried[1..]) {
                let is_it = system::equals(f, key, wanted);
                next.push(f.ins().select(is_it, value, *before));
            }
            next
        },
    );
    f.call(HWCAP, &signature(&[I64, I64], &[I64]), &found[1..])[0]
}

/// Hooks on the stack: `parallel_for` with a counter of its calls, and the core's features.
fn hooks_block(f: &mut FunctionCx, features: Value) -> Value {
    let block = f.stack(u32::try_from(hooks::SIZE + 8).expect("a small struct"));
    let zero = f.i64(0);
    for word in 0..=hooks::SIZE / 8 {
        f.store(zero, block, field(8 * word));
    }
    let size = f.i32(field(hooks::SIZE));
    f.store(size, block, field(hooks::STRUCT_SIZE));
    let counter = f.offset(block, hooks::SIZE);
    f.store(counter, block, field(hooks::USER));
    let parallel_for = f.symbol_address(PARALLEL_FOR);
    f.store(parallel_for, block, field(hooks::PARALLEL_FOR));
    f.store(features, block, field(hooks::CPU_FEATURES));
    block
}

impl Exe<'_> {
    /// Calls a function of the C interface; ends the program unless it says OK.
    fn call(&self, f: &mut FunctionCx, suffix: &str, args: &[Value]) {
        let params: Vec<_> = args.iter().map(|a| f.type_of(*a)).collect();
        let status = f.call(&format!("{}_{suffix}", self.name), &signature(&params, &[I32]), args)[0];
        f.if_then(status, |f| system::exit(f, status));
    }

    fn arena_bytes(&self, f: &mut FunctionCx) -> Value {
        f.size(usize::try_from(self.plan.arena.total_bytes()).expect("an arena fits the address space"))
    }
}

fn self_test(exe: &Exe<'_>, f: &mut FunctionCx, process: &Process) {
    let (bytes, none) = (exe.arena_bytes(f), f.i64(0));
    exe.call(f, "self_test", &[process.arena, bytes, none, process.hooks]);
    let ran = f.call(&format!("{}_variant", exe.name), &signature(&[I64], &[I64]), &[process.arena])[0];
    system::print(f, b"ok ");
    system::print_text(f, system::STDOUT, ran);
    system::print(f, b"\n");
    let ok = f.i32(Status::OK.0);
    system::exit(f, ok);
}

fn init(exe: &Exe<'_>, f: &mut FunctionCx, process: &Process) -> Value {
    let (bytes, none, out) = (exe.arena_bytes(f), f.i64(0), f.stack(8));
    exe.call(f, "init", &[process.arena, bytes, none, process.hooks, out]);
    f.load(I64, out, 0)
}

/// Writes the logits of all `n` tokens and ends the program.
fn write_logits(exe: &Exe<'_>, f: &mut FunctionCx, process: &Process, instance: Value, n: Value) {
    // One row more, so that no tokens are an error of `eval_all`, not of mapping nothing.
    let row = 4 * exe.plan.facts.vocab;
    let bytes = f.scaled(n, row);
    let size = f.offset(bytes, row);
    let out = system::map(f, size);
    exe.call(f, "eval_all", &[instance, process.tokens, n, out]);
    system::write(f, system::STDOUT, out, bytes);
    let ok = f.i32(Status::OK.0);
    system::exit(f, ok);
}

/// Evaluates the `n` tokens, then prints `count` greedy ones.
fn generate(exe: &Exe<'_>, f: &mut FunctionCx, process: &Process, instance: Value, n: Value, count: Value) {
    exe.call(f, "eval", &[instance, process.tokens, n]);
    let sampler = f.stack(u32::try_from(sampler::SIZE).expect("a small struct"));
    let zero = f.i64(0);
    for word in 0..sampler::SIZE / 8 {
        f.store(zero, sampler, field(8 * word));
    }
    let (size, greedy) = (f.i32(field(sampler::SIZE)), f.i32(1));
    f.store(size, sampler, field(sampler::STRUCT_SIZE));
    f.store(greedy, sampler, field(sampler::TOP_K));
    let token = f.stack(8);
    f.for_range(zero, count, 1, |f, i| {
        f.if_then(i, |f| {
            let one = f.i64(1);
            exe.call(f, "eval", &[instance, token, one]);
            system::print(f, b" ");
        });
        exe.call(f, "sample", &[instance, sampler, token]);
        let id = f.load_unsigned(I32, token, 0);
        system::print_number(f, id);
    });
    system::print(f, b"\n");
}

/// `parallel_for`: `(counter, n, task, arg)`; runs tasks backwards, each call from another one.
fn parallel_for(exe: &Exe<'_>) -> Result<Function, EmitError> {
    exe.cx.function(PARALLEL_FOR, &signature(&[I64, I32, I64, I64], &[]), |f| {
        let (counter, n, task, arg) = (f.param(0), f.param(1), f.param(2), f.param(3));
        let n = f.ins().uextend(I64, n);
        let calls = f.load(I64, counter, 0);
        let next = f.offset(calls, 1);
        f.store(next, counter, 0);
        let zero = f.i64(0);
        f.for_range(zero, n, 1, |f, i| {
            // calls - i, kept above zero by a multiple of n.
            let back = f.ins().isub(calls, i);
            let positive = f.ins().iadd(back, n);
            let index = f.ins().urem(positive, n);
            let index = f.ins().ireduce(I32, index);
            f.call_pointer(task, &signature(&[I64, I32], &[]), &[arg, index]);
        });
        f.return_(&[]);
    })
}
