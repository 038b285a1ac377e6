//! The arguments of the main program.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_runtime::abi::Status;

use super::{Exe, Process, system};
use crate::clif::api::tables::string_at;
use crate::clif::func::{FunctionCx, signature};
use crate::code::{EmitError, Function};

/// Options in the order of their fields; the first two take a number.
pub(super) const OPTIONS: [&str; 4] = ["-n", "--threads", "--logits", "--self-test"];
const WITH_NUMBER: usize = 2;

/// Symbol of the table of [`OPTIONS`].
pub(super) const NAMES: &str = "exe_options";
/// Symbol of `(argc, argv, words) -> n`: fills in the option words and, behind them, the tokens.
const PARSE: &str = "exe_parse";
/// Symbol of `(text) -> number`: -1 for null and whatever is not a decimal number below 2^32.
const NUMBER: &str = "exe_number";
/// Symbol of `(text, other) -> i64`: 1 if they are equal.
const EQUAL: &str = "exe_equal";

/// Bytes of one word per option; the tokens lie behind them.
pub(super) const BYTES: usize = 8 * OPTIONS.len();

/// What the options say.
pub(super) struct Settings {
    /// Tokens to generate.
    pub generate: Value,
    pub threads: Value,
    pub logits: Value,
    pub self_test: Value,
}

pub(super) fn functions(exe: &Exe<'_>) -> Result<Vec<Function>, EmitError> {
    Ok(vec![parse(exe)?, number(exe)?, equal(exe)?])
}

/// Parses all arguments into option words and tokens; returns the number of tokens.
pub(super) fn call_parse(f: &mut FunctionCx, process: &Process) -> Value {
    f.call(PARSE, &signature(&[I64, I64, I64], &[I64]), &[process.argc, process.argv, process.words])[0]
}

/// The option words as values.
pub(super) fn read(f: &mut FunctionCx, process: &Process) -> Settings {
    let mut word = |i: i32| f.load(I64, process.words, 8 * i);
    let (generate, threads, logits, self_test) = (word(0), word(1), word(2), word(3));
    Settings { generate, threads: f.ins().ireduce(I32, threads), logits, self_test }
}

fn parse(exe: &Exe<'_>) -> Result<Function, EmitError> {
    exe.cx.function(PARSE, &signature(&[I64, I64, I64], &[I64]), |f| {
        let (argc, argv, words) = (f.param(0), f.param(1), f.param(2));
        let tokens = f.offset(words, BYTES);
        let (one, zero) = (f.i64(1), f.i64(0));
        f.store(one, words, 0);
        let end = f.while_carried(
            &[one, zero],
            |f, carried| f.ins().icmp(IntCC::SignedLessThan, carried[0], argc),
            |f, carried| {
                let at = f.index(argv, carried[0], 8);
                let text = f.load(I64, at, 0);
                let option = find_option(f, text);
                let is_option = f.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, option, 0);
                f.if_else(
                    is_option,
                    |f| {
                        let read = set_option(f, words, option, at);
                        vec![f.ins().iadd(carried[0], read), carried[1]]
                    },
                    |f| {
                        let token = need_number(f, text);
                        let token = f.ins().ireduce(I32, token);
                        let to = f.index(tokens, carried[1], 4);
                        f.store(token, to, 0);
                        vec![f.offset(carried[0], 1), f.offset(carried[1], 1)]
                    },
                )
            },
        );
        f.return_(&end[1..]);
    })
}

/// Index of the option that `text` is, -1 for none.
fn find_option(f: &mut FunctionCx, text: Value) -> Value {
    let mut found = f.i64(-1);
    for i in 0..OPTIONS.len() {
        let index = f.size(i);
        let name = string_at(f, NAMES, index);
        let same = f.call(EQUAL, &signature(&[I64, I64], &[I64]), &[text, name])[0];
        found = f.ins().select(same, index, found);
    }
    found
}

/// Stores the value of an option whose argument is at `at`; returns the number of arguments read.
fn set_option(f: &mut FunctionCx, words: Value, option: Value, at: Value) -> Value {
    let limit = i64::try_from(WITH_NUMBER).expect("a few options");
    let with_number = f.ins().icmp_imm_s(IntCC::SignedLessThan, option, limit);
    let [value, read] = f.if_else(
        with_number,
        |f| {
            let text = f.load(I64, at, 8);
            vec![need_number(f, text), f.i64(2)]
        },
        |f| vec![f.i64(1), f.i64(1)],
    )[..] else {
        unreachable!("two values each way")
    };
    let to = f.index(words, option, 8);
    f.store(value, to, 0);
    read
}

/// The number that `text` is; ends the program if it is none.
fn need_number(f: &mut FunctionCx, text: Value) -> Value {
    let number = f.call(NUMBER, &signature(&[I64], &[I64]), &[text])[0];
    let bad = f.ins().icmp_imm_s(IntCC::SignedLessThan, number, 0);
    f.if_then(bad, |f| {
        let code = f.i32(Status::ARG.0);
        system::exit(f, code);
    });
    number
}

fn number(exe: &Exe<'_>) -> Result<Function, EmitError> {
    exe.cx.function(NUMBER, &signature(&[I64], &[I64]), |f| {
        let text = f.param(0);
        let missing = f.ins().icmp_imm_s(IntCC::Equal, text, 0);
        f.return_if(missing, |f| vec![f.i64(-1)]);
        let first = f.load_unsigned(I8, text, 0);
        let empty = f.ins().icmp_imm_s(IntCC::Equal, first, 0);
        f.return_if(empty, |f| vec![f.i64(-1)]);
        let zero = f.i64(0);
        let end = f.while_carried(
            &[text, zero],
            |f, carried| f.load(I8, carried[0], 0),
            |f, carried| {
                let byte = f.load_unsigned(I8, carried[0], 0);
                let digit = f.ins().iadd_imm_s(byte, -i64::from(b'0'));
                let other = f.ins().icmp_imm_u(IntCC::UnsignedGreaterThan, digit, 9);
                f.return_if(other, |f| vec![f.i64(-1)]);
                let tens = f.ins().imul_imm_s(carried[1], 10);
                let value = f.ins().iadd(tens, digit);
                let large = f.ins().icmp_imm_u(IntCC::UnsignedGreaterThan, value, i64::from(u32::MAX));
                f.return_if(large, |f| vec![f.i64(-1)]);
                vec![f.offset(carried[0], 1), value]
            },
        );
        f.return_(&end[1..]);
    })
}

fn equal(exe: &Exe<'_>) -> Result<Function, EmitError> {
    exe.cx.function(EQUAL, &signature(&[I64, I64], &[I64]), |f| {
        let (a, b) = (f.param(0), f.param(1));
        let end = f.while_carried(
            &[a, b],
            |f, at| f.load(I8, at[1], 0),
            |f, at| {
                let (x, y) = (f.load(I8, at[0], 0), f.load(I8, at[1], 0));
                let differ = f.ins().icmp(IntCC::NotEqual, x, y);
                f.return_if(differ, |f| vec![f.i64(0)]);
                vec![f.offset(at[0], 1), f.offset(at[1], 1)]
            },
        );
        let rest = f.load(I8, end[0], 0);
        let both_end = f.ins().icmp_imm_s(IntCC::Equal, rest, 0);
        let both_end = f.ins().uextend(I64, both_end);
        f.return_(&[both_end]);
    })
}
