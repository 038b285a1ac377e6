//! Exact sums of nibbles times codes in portable code: with vectors of 128 bits, or one by one.

use cranelift_codegen::ir::types::{I8, I8X16, I16, I16X8, I32, I32X4, I64, I64X2};
use cranelift_codegen::ir::{Endianness, InstBuilder, MemFlagsData, Value};

use super::super::func::FunctionCx;

/// The nibbles of sixteen bytes, lower and upper, as bytes.
pub(super) fn split(f: &mut FunctionCx, bytes: Value) -> [Value; 2] {
    let fifteen = f.ins().iconst(I8, 15);
    let mask = f.ins().splat(I8X16, fifteen);
    let low = f.ins().band(bytes, mask);
    // Lanes of 16 bits: bits that come from the neighbor byte are masked away.
    let wide = cast(f, I16X8, bytes);
    let shifted = f.ins().ushr_imm_u(wide, 4);
    let shifted = cast(f, I8X16, shifted);
    [low, f.ins().band(shifted, mask)]
}

/// Eight unsigned bytes of `bytes`, the first or the last, as 16-bit integers.
pub(super) fn widened(f: &mut FunctionCx, bytes: Value, is_last: bool) -> Value {
    if is_last { f.ins().uwiden_high(bytes) } else { f.ins().uwiden_low(bytes) }
}

/// The four codes at `address` (16 bits each), twice.
pub(super) fn four_codes(f: &mut FunctionCx, address: Value, offset: i32) -> Value {
    let four = f.load(I64, address, offset);
    let twice = f.ins().splat(I64X2, four);
    cast(f, I16X8, twice)
}

/// Sums of two neighbor products each.
pub(super) fn pair_products(f: &mut FunctionCx, x: Value, y: Value) -> Value {
    let (x_low, y_low) = (f.ins().swiden_low(x), f.ins().swiden_low(y));
    let (x_high, y_high) = (f.ins().swiden_high(x), f.ins().swiden_high(y));
    let (low, high) = (f.ins().imul(x_low, y_low), f.ins().imul(x_high, y_high));
    f.ins().iadd_pairwise(low, high)
}

/// The sum of four lanes.
pub(super) fn sum_of_lanes(f: &mut FunctionCx, lanes: Value) -> Value {
    debug_assert_eq!(f.type_of(lanes), I32X4);
    let lanes: Vec<_> = (0..4u8).map(|lane| f.ins().extractlane(lanes, lane)).collect();
    let (a, b) = (f.ins().iadd(lanes[0], lanes[1]), f.ins().iadd(lanes[2], lanes[3]));
    f.ins().iadd(a, b)
}

/// The byte at `address + offset` times two codes of 16 bits: its lower nibble with that at `low`, its upper nibble
/// with that at `high`, added to `sum`.
pub(super) fn add_byte(
    f: &mut FunctionCx,
    sum: Value,
    byte: (Value, i32),
    low: (Value, i32),
    high: (Value, i32),
) -> Value {
    let byte = f.load(I8, byte.0, byte.1);
    let byte = f.ins().uextend(I32, byte);
    let (lower, upper) = (f.ins().band_imm_u(byte, 15), f.ins().ushr_imm_u(byte, 4));
    let [low, high] = [low, high].map(|(address, offset)| {
        let code = f.load(I16, address, offset);
        f.ins().sextend(I32, code)
    });
    let (lower, upper) = (f.ins().imul(lower, low), f.ins().imul(upper, high));
    let sum = f.ins().iadd(sum, lower);
    f.ins().iadd(sum, upper)
}

fn cast(f: &mut FunctionCx, ty: cranelift_codegen::ir::Type, value: Value) -> Value {
    f.ins().bitcast(ty, MemFlagsData::new().with_endianness(Endianness::Little), value)
}
