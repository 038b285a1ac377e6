//! The function builder on every machine: control flow, calls, symbols, stack use and labels.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_backends::clif::ClifContext;
use tcc_backends::clif::func::{FunctionCx, signature};
use tcc_backends::code::Function;
use tcc_backends::isa::{BACKENDS, Backend};
use tcc_tests::machines::{MACHINES, Machine, report_skipped};
use tcc_tests::memory::Memory;
use tcc_tests::runner::{Process, RunError, Runner};

/// Builds functions for every backend, starts them on each of its machines, and hands the process to `check`.
fn on_every_machine(build: fn(&ClifContext) -> Vec<Function>, check: fn(&mut Process, &[Function])) {
    let run = |backend: &dyn Backend, machine: &Machine| -> Result<(), RunError> {
        let features = machine.features(backend)?;
        let cx = ClifContext::new(backend, features).expect("the backend's settings are known");
        let functions = build(&cx);
        let runner = Runner::new(backend, features, functions.clone())?;
        let mut process = runner.start(machine.emulator_args)?;
        check(&mut process, &functions);
        Ok(())
    };
    for backend in BACKENDS {
        for machine in MACHINES.iter().filter(|m| m.target == backend.desc().name) {
            if let Err(error) = run(*backend, machine) {
                report_skipped(&format!("{} {}", machine.target, machine.name), &error);
            }
        }
    }
}

fn function(cx: &ClifContext, name: &str, params: usize, body: impl FnOnce(&mut FunctionCx)) -> Function {
    let function = cx.function(name, &signature(&vec![I64; params], &[I64]), body);
    function.unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Steps until `n` reaches 1, halving even numbers and tripling odd ones plus one; 0 for n = 0.
fn collatz(f: &mut FunctionCx) {
    let (n, zero) = (f.param(0), f.i64(0));
    let is_zero = f.ins().icmp_imm_s(IntCC::Equal, n, 0);
    f.return_if(is_zero, |f| vec![f.i64(0)]);
    let last = f.while_carried(
        &[n, zero],
        |f, values| f.ins().icmp_imm_s(IntCC::NotEqual, values[0], 1),
        |f, values| {
            let (n, steps) = (values[0], values[1]);
            let is_odd = f.ins().band_imm_s(n, 1);
            let next = f.if_else(
                is_odd,
                |f| {
                    let tripled = f.scaled(n, 3);
                    vec![f.offset(tripled, 1)]
                },
                |f| vec![f.ins().ushr_imm_u(n, 1)],
            );
            vec![next[0], f.offset(steps, 1)]
        },
    );
    f.return_(&[last[1]]);
}

/// The sum of `n` words at an address, counting only those that are not 7.
fn sum_but_sevens(f: &mut FunctionCx) {
    let (words, n, zero) = (f.param(0), f.param(1), f.i64(0));
    let total = f.stack(8);
    f.store(zero, total, 0);
    f.for_range(zero, n, 1, |f, i| {
        let at = f.index(words, i, 8);
        let word = f.load(I64, at, 0);
        let counts = f.ins().icmp_imm_s(IntCC::NotEqual, word, 7);
        f.if_then(counts, |f| {
            let before = f.load(I64, total, 0);
            let after = f.ins().iadd(before, word);
            f.store(after, total, 0);
        });
    });
    let total = f.load(I64, total, 0);
    f.return_(&[total]);
}

#[test]
fn control_flow() {
    let build =
        |cx: &ClifContext| vec![function(cx, "collatz", 1, collatz), function(cx, "sum_but_sevens", 2, sum_but_sevens)];
    on_every_machine(build, |process, _| {
        let mut memory = Memory::new();
        let words = memory.place_words(&[5, 7, 11, 7, u64::MAX]);
        for (n, steps) in [(0, 0), (1, 0), (2, 1), (6, 8), (27, 111)] {
            assert_eq!(process.call("collatz", &[n], &mut memory).expect("runs"), steps, "collatz of {n}");
        }
        for (n, sum) in [(0, 0), (1, 5), (4, 16), (5, 15)] {
            assert_eq!(process.call("sum_but_sevens", &[words, n], &mut memory).expect("runs"), sum);
        }
    });
}

/// `a - b` of 32-bit values, which the convention sign-extends, as 64 bits.
fn difference(f: &mut FunctionCx) {
    let (a, b) = (f.param(0), f.param(1));
    let value = f.ins().isub(a, b);
    f.return_(&[value]);
}

/// Calls `difference` by name and through its address on a word of the data block.
fn caller(f: &mut FunctionCx) {
    let narrow = signature(&[I32, I32], &[I32]);
    let data = f.symbol_address("data");
    let (x, y) = (f.load(I32, data, 0), f.load(I32, data, 4));
    let first = f.call("difference", &narrow, &[x, y])[0];
    let pointer = f.symbol_address("difference");
    let second = f.call_pointer(pointer, &narrow, &[first, x])[0];
    let wide = f.ins().sextend(I64, second);
    f.return_(&[wide]);
}

#[test]
fn calls_and_symbols() {
    let build = |cx: &ClifContext| {
        let narrow = signature(&[I32, I32], &[I32]);
        let callee = cx.function("difference", &narrow, difference).expect("plain code");
        let caller = function(cx, "caller", 0, caller);
        assert_eq!(caller.calls, ["difference"], "the data block is not called");
        let bytes = [3, -4_i32].iter().flat_map(|v| v.to_le_bytes()).collect();
        let data = Function { name: "data".into(), bytes, align: 8, ..Function::default() };
        vec![callee, caller, data]
    };
    on_every_machine(build, |process, _| {
        let result = process.call("caller", &[], &mut Memory::new()).expect("runs");
        assert_eq!(result.cast_signed(), (3 - -4) - 3);
    });
}

/// Recurses `param(1)` times with more arguments than registers; each activation stores the address of its own
/// stack and keeps a dozen values alive over the call.
fn recurse(f: &mut FunctionCx) {
    let (out, depth) = (f.param(0), f.param(1));
    let own = f.stack(40);
    f.store(own, out, 0);
    let is_last = f.ins().icmp_imm_s(IntCC::Equal, depth, 0);
    f.return_if(is_last, |f| vec![f.i64(0)]);
    let kept: Vec<Value> = (0..12).map(|i| f.load(I64, out, 8 * i)).collect();
    let (next, rest) = (f.offset(out, 8), f.ins().iadd_imm_s(depth, -1));
    let mut args = vec![next, rest];
    args.resize(12, rest);
    let mut total = f.call("recurse", &signature(&[I64; 12], &[I64]), &args)[0];
    for value in kept {
        total = f.ins().iadd(total, value);
    }
    f.return_(&[total]);
}

/// Activations follow each other at exactly the stated distance: the stack bound rests on it.
#[test]
fn frame_bytes_are_the_real_ones() {
    const DEPTH: usize = 4;
    let build = |cx: &ClifContext| {
        let enter = function(cx, "enter", 1, |f| {
            let (out, depth) = (f.param(0), f.i64(DEPTH as i64));
            let mut args = vec![out, depth];
            args.resize(12, depth);
            let total = f.call("recurse", &signature(&[I64; 12], &[I64]), &args)[0];
            f.return_(&[total]);
        });
        vec![function(cx, "recurse", 12, recurse), enter]
    };
    on_every_machine(build, |process, functions| {
        let mut memory = Memory::new();
        let out = memory.alloc(8 * 32, 64);
        process.call("enter", &[out], &mut memory).expect("runs");
        let words = memory.read(out, 8 * (DEPTH + 1)).chunks_exact(8);
        let addresses: Vec<_> = words.map(|w| u64::from_le_bytes(w.try_into().expect("eight bytes"))).collect();
        for pair in addresses.windows(2) {
            assert_eq!(pair[0] - pair[1], u64::from(functions[0].frame_bytes));
        }
    });
}

#[test]
fn labels_follow_the_code() {
    for backend in BACKENDS {
        let cx = ClifContext::new(*backend, backend.desc().baseline).expect("the backend's settings are known");
        let code = function(&cx, "labelled", 1, |f| {
            let (p, one) = (f.param(0), f.i64(1));
            f.mark("first");
            f.store(one, p, 0);
            f.mark("second");
            f.call("other", &signature(&[], &[]), &[]);
            f.mark("empty");
            f.return_(&[one]);
        });
        let names: Vec<_> = code.marks.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names[..2], ["first", "second"], "{}", backend.desc().name);
        assert!(code.marks.is_sorted() && code.marks[1].0 < code.bytes.len() as u32, "{:?}", code.marks);
    }
}
