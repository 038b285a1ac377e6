//! Exact sums of the bits of a plane times codes, with vectors of 128 bits.

use cranelift_codegen::ir::types::{I8, I8X16, I16X8, I32, I32X4};
use cranelift_codegen::ir::{Endianness, InstBuilder, MemFlagsData, Type, Value};

use super::super::func::FunctionCx;

/// Bits `from` to `from + count` of each of sixteen bytes.
pub(super) fn field(f: &mut FunctionCx, bytes: Value, from: usize, count: usize) -> Value {
    let mask = f.ins().iconst(I8, (1 << count) - 1);
    let mask = f.ins().splat(I8X16, mask);
    // Lanes of 16 bits: bits that come from the neighbor byte are masked away.
    let wide = cast(f, I16X8, bytes);
    let shifted = f.ins().ushr_imm_u(wide, i64::try_from(from).expect("below 8"));
    let shifted = cast(f, I8X16, shifted);
    f.ins().band(shifted, mask)
}

/// The four codes at `address + offset`, as 16-bit integers, twice.
pub(in super::super) fn four_codes(f: &mut FunctionCx, address: Value, offset: i32) -> Value {
    let four = f.load(I32, address, offset);
    let many = f.ins().splat(I32X4, four);
    let many = cast(f, I8X16, many);
    f.ins().swiden_low(many)
}

/// Sums of two neighbor products each, of eight 16-bit integers.
pub(in super::super) fn pair_products(f: &mut FunctionCx, x: Value, y: Value) -> Value {
    let (x_low, y_low) = (f.ins().swiden_low(x), f.ins().swiden_low(y));
    let (x_high, y_high) = (f.ins().swiden_high(x), f.ins().swiden_high(y));
    let (low, high) = (f.ins().imul(x_low, y_low), f.ins().imul(x_high, y_high));
    f.ins().iadd_pairwise(low, high)
}

fn cast(f: &mut FunctionCx, ty: Type, value: Value) -> Value {
    f.ins().bitcast(ty, MemFlagsData::new().with_endianness(Endianness::Little), value)
}
