//! What the main program asks of Linux: memory, output, the end.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_runtime::abi::{STATUSES, Status};

use super::{Exe, SYSCALL};
use crate::clif::api::tables::{string_at, strings};
use crate::clif::func::{FunctionCx, signature};
use crate::code::{EmitError, Function};
use crate::isa::Syscalls;

pub(super) const STDOUT: i64 = 1;
const STDERR: i64 = 2;

/// Protection and kind of anonymous private memory, the same on every Linux target.
const PROT_READ_WRITE: i64 = 3;
const MAP_PRIVATE_ANONYMOUS: i64 = 0x22;

/// Symbol of `(bytes) -> address`: zeroed memory; ends the program where there is none.
const MAP: &str = "exe_map";
/// Symbol of `(fd, address, bytes)`: writes all of it; ends the program where that fails.
const WRITE: &str = "exe_write";
/// Symbol of `(number)`: prints it in decimal.
const PRINT_NUMBER: &str = "exe_print_number";
/// Symbol of `(status)`: names it on standard error unless it is OK, and ends the program with it.
const EXIT: &str = "exe_exit";
/// Table of the names of the status codes, a line each.
const STATUS_NAMES: &str = "exe_status_names";

/// Most decimal digits of a 64-bit number, rounded up to whole words.
const DIGITS: u32 = 24;

pub(super) fn functions(exe: &Exe<'_>, numbers: Syscalls) -> Result<Vec<Function>, EmitError> {
    let names: Vec<_> = STATUSES.iter().map(|s| format!("{}\n", s.name)).collect();
    Ok(vec![
        map_function(exe, numbers)?,
        write_function(exe, numbers)?,
        print_number_function(exe)?,
        exit_function(exe, numbers)?,
        strings(STATUS_NAMES, names.iter().map(String::as_str)),
    ])
}

/// Not 0 if `value` is `constant`.
pub(super) fn equals(f: &mut FunctionCx, value: Value, constant: i64) -> Value {
    f.ins().icmp_imm_s(IntCC::Equal, value, constant)
}

/// Address of `bytes` new zeroed bytes.
pub(super) fn map(f: &mut FunctionCx, bytes: Value) -> Value {
    f.call(MAP, &signature(&[I64], &[I64]), &[bytes])[0]
}

pub(super) fn write(f: &mut FunctionCx, fd: i64, address: Value, bytes: Value) {
    let fd = f.i64(fd);
    f.call(WRITE, &signature(&[I64, I64, I64], &[]), &[fd, address, bytes]);
}

/// Prints a few constant bytes.
pub(super) fn print(f: &mut FunctionCx, text: &[u8]) {
    let buffer = f.stack(u32::try_from(text.len()).expect("a few bytes"));
    for (i, byte) in (0..).zip(text) {
        let byte = f.ins().iconst(I8, i64::from(*byte));
        f.store(byte, buffer, i);
    }
    let bytes = f.size(text.len());
    write(f, STDOUT, buffer, bytes);
}

/// Writes the zero-terminated text at `address`.
pub(super) fn print_text(f: &mut FunctionCx, fd: i64, address: Value) {
    let end = f.while_carried(&[address], |f, at| f.load(I8, at[0], 0), |f, at| vec![f.offset(at[0], 1)]);
    let bytes = f.ins().isub(end[0], address);
    write(f, fd, address, bytes);
}

pub(super) fn print_number(f: &mut FunctionCx, number: Value) {
    f.call(PRINT_NUMBER, &signature(&[I64], &[]), &[number]);
}

/// Ends the program; what follows is not reached.
pub(super) fn exit(f: &mut FunctionCx, status: Value) {
    f.call(EXIT, &signature(&[I32], &[]), &[status]);
}

/// A system call with the first arguments given, the others 0.
fn call(f: &mut FunctionCx, number: i64, args: &[Value]) -> Value {
    let (number, zero) = (f.i64(number), f.i64(0));
    let mut words = vec![number];
    words.extend_from_slice(args);
    words.resize(7, zero);
    f.call(SYSCALL, &signature(&[I64; 7], &[I64]), &words)[0]
}

fn map_function(exe: &Exe<'_>, numbers: Syscalls) -> Result<Function, EmitError> {
    exe.cx.function(MAP, &signature(&[I64], &[I64]), |f| {
        let bytes = f.param(0);
        let (hint, protection, kind, no_file) =
            (f.i64(0), f.i64(PROT_READ_WRITE), f.i64(MAP_PRIVATE_ANONYMOUS), f.i64(-1));
        let address = call(f, numbers.mmap, &[hint, bytes, protection, kind, no_file]);
        let failed = f.ins().icmp_imm_s(IntCC::SignedLessThan, address, 0);
        f.if_then(failed, |f| {
            let code = f.i32(Status::ARENA_SIZE.0);
            exit(f, code);
        });
        f.return_(&[address]);
    })
}

fn write_function(exe: &Exe<'_>, numbers: Syscalls) -> Result<Function, EmitError> {
    exe.cx.function(WRITE, &signature(&[I64, I64, I64], &[]), |f| {
        let (fd, address, bytes) = (f.param(0), f.param(1), f.param(2));
        f.while_carried(
            &[address, bytes],
            |_, left| left[1],
            |f, left| {
                let written = call(f, numbers.write, &[fd, left[0], left[1]]);
                let failed = f.ins().icmp_imm_s(IntCC::SignedLessThanOrEqual, written, 0);
                f.if_then(failed, |f| {
                    // Nobody reads the output: there is nothing left to say.
                    let code = f.i64(i64::from(Status::ARG.0));
                    call(f, numbers.exit_group, &[code]);
                });
                vec![f.ins().iadd(left[0], written), f.ins().isub(left[1], written)]
            },
        );
        f.return_(&[]);
    })
}

fn print_number_function(exe: &Exe<'_>) -> Result<Function, EmitError> {
    exe.cx.function(PRINT_NUMBER, &signature(&[I64], &[]), |f| {
        let buffer = f.stack(DIGITS);
        let end = f.offset(buffer, DIGITS as usize);
        // From the last digit to the first, at least one.
        let number = f.param(0);
        let first = push_digit(f, end, number);
        let digits = f.while_carried(&first, |_, left| left[1], |f, left| push_digit(f, left[0], left[1]).to_vec());
        let bytes = f.ins().isub(end, digits[0]);
        write(f, STDOUT, digits[0], bytes);
        f.return_(&[]);
    })
}

/// Stores the last digit of `number` in front of `end`; where it is, and the number without it.
fn push_digit(f: &mut FunctionCx, end: Value, number: Value) -> [Value; 2] {
    let ten = f.i64(10);
    let rest = f.ins().udiv(number, ten);
    let digit = f.ins().urem(number, ten);
    let digit = f.ins().ireduce(I8, digit);
    let digit = f.ins().iadd_imm_s(digit, i64::from(b'0'));
    let at = f.ins().iadd_imm_s(end, -1);
    f.store(digit, at, 0);
    [at, rest]
}

fn exit_function(exe: &Exe<'_>, numbers: Syscalls) -> Result<Function, EmitError> {
    exe.cx.function(EXIT, &signature(&[I32], &[]), |f| {
        let status = f.param(0);
        let code = f.ins().uextend(I64, status);
        f.if_then(status, |f| {
            let name = string_at(f, STATUS_NAMES, code);
            print_text(f, STDERR, name);
        });
        call(f, numbers.exit_group, &[code]);
        f.return_(&[]);
    })
}
