//! Exact sums of the bits of a plane times codes, with vectors of 128 bits.

use cranelift_codegen::ir::types::{I8, I8X16, I16X8, I32, I32X4};
use cranelift_codegen::ir::{Endianness, InstBuilder, MemFlagsData, Type, Value};

use tcc_ir::numerics::LANES;

use super::super::func::FunctionCx;
use super::super::lanes::{Lanes, Shape};

/// Sums of sixteen lanes: `quad` makes those of lanes 4 i to 4 i + 3 where there are vectors, `lane` that of lane i
/// elsewhere.
pub(in super::super) fn sixteen(
    f: &mut FunctionCx,
    shape: Shape,
    quad: impl Fn(&mut FunctionCx, usize) -> Value,
    lane: impl Fn(&mut FunctionCx, usize) -> Value,
) -> Lanes {
    let sums: Vec<Value> = if f.has_vectors() {
        (0..LANES / 4).map(|i| quad(f, i)).collect()
    } else {
        (0..LANES).map(|i| lane(f, i)).collect()
    };
    Lanes::int_constant(f, shape, 0).with_values(&sums)
}

/// The sum of one lane byte by byte: `add` adds the products of byte `bytes` and code `codes` of each row of lanes.
pub(in super::super) fn byte_by_byte(
    f: &mut FunctionCx,
    bytes: Value,
    codes: Value,
    add: impl Fn(&mut FunctionCx, Value, Value, Value) -> Value,
) -> Value {
    let (zero, count, none) = (f.i64(0), f.size(4), f.i32(0));
    f.for_carried(zero, count, 1, &[none], |f, j, sum| {
        let (bytes, codes) = (f.ins().iadd(bytes, j), f.ins().iadd(codes, j));
        vec![add(f, bytes, codes, sum[0])]
    })[0]
}

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
