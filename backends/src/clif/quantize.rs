//! `Quantize`, and the end of every fused op that quantizes: codes, padding, sums and the scale of one row.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, I32, I64};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value};
use tcc_ir::kernel::QuantLayout;
use tcc_ir::numerics::{ABSMAX_FLOOR, ROUND_MAGIC};

use super::func::{FunctionCx, signature};
use super::kernel::Kernel;
use super::lanes::{Lanes, Shape};
use super::math::rounded;
use super::rows::fold;
use crate::isa::RowPart;

/// Where quantized rows go.
pub(super) struct Quantizer {
    layout: QuantLayout,
    codes: Value,
    scales: Value,
    nonfinite: Value,
}

impl Quantizer {
    /// Codes are operand `first`, scales the one after it.
    pub(super) fn new(f: &mut FunctionCx, kernel: &Kernel, first: usize, layout: QuantLayout) -> Quantizer {
        let (codes, scales) = (kernel.operand(f, first), kernel.operand(f, first + 1));
        Quantizer { layout, codes, scales, nonfinite: kernel.nonfinite(f) }
    }
}

pub(super) fn build(f: &mut FunctionCx, kernel: &Kernel, layout: QuantLayout) {
    let x = kernel.operand(f, 0);
    let to = Quantizer::new(f, kernel, 1, layout);
    kernel.for_rows(f, |f, row| {
        let x = f.index(x, row, 4 * layout.k);
        quantize_row(f, &to, x, row);
    });
}

/// Quantizes the f32 row at `x` as token row `row`.
pub(super) fn quantize_row(f: &mut FunctionCx, to: &Quantizer, x: Value, row: Value) {
    let layout = to.layout;
    let absmax = absmax_or_flag(f, layout.k, x, to.nonfinite);
    let Scales { scale, inv_scale } = scales_of(f, absmax);
    let scale_address = f.index(to.scales, row, 4);
    f.store(scale, scale_address, 0);

    let codes = f.index(to.codes, row, layout.stride_bytes());
    let sums = f.offset(codes, layout.sums_offset_bytes());
    let (first, groups) = (f.i64(0), f.size(layout.sums()));
    f.for_range(first, groups, 1, |f, group| {
        let x = f.index(x, group, 4 * layout.sum_group);
        let codes = f.index(codes, group, layout.sum_group);
        let sum = quantize_run(f, layout.sum_group, inv_scale, x, codes);
        let at = f.index(sums, group, 4);
        f.store(sum, at, 0);
    });
    zero_bytes(f, codes, layout.k, layout.sums_offset_bytes());
    zero_bytes(f, codes, layout.sums_offset_bytes() + 4 * layout.sums(), layout.stride_bytes());
}

/// A row's scale and its reciprocal.
pub(super) struct Scales {
    pub scale: Value,
    pub inv_scale: Value,
}

/// The scales of a row whose [`absmax_or_flag`] is `absmax`.
pub(super) fn scales_of(f: &mut FunctionCx, absmax: Value) -> Scales {
    let limit = f.f32(127.0);
    Scales { scale: f.ins().fdiv(absmax, limit), inv_scale: f.ins().fdiv(limit, absmax) }
}

/// `max(absmax(x), ABSMAX_FLOOR)`; sets the flag if an element is infinite or not a number.
///
/// Magnitudes are compared as integers, which orders them like floats and keeps infinities and NaNs on top.
pub(super) fn absmax_or_flag(f: &mut FunctionCx, k: usize, x: Value, nonfinite: Value) -> Value {
    let bits = largest_magnitude(f, k, x);
    let infinity = f.i32(f32::INFINITY.to_bits().cast_signed());
    let is_bad = f.ins().icmp(IntCC::SignedGreaterThanOrEqual, bits, infinity);
    f.if_then(is_bad, |f| {
        let one = f.i32(1);
        f.store(one, nonfinite, 0);
    });
    let floor = f.i32(ABSMAX_FLOOR.to_bits().cast_signed());
    let bits = f.ins().smax(bits, floor);
    f.ins().bitcast(F32, MemFlagsData::new(), bits)
}

/// The largest bits but for their sign of `k` elements.
fn largest_magnitude(f: &mut FunctionCx, k: usize, x: Value) -> Value {
    if f.has_row_loop(RowPart::Absmax) {
        let n = f.size(k);
        return f.call(RowPart::Absmax.symbol(), &signature(&[I64, I64], &[I32]), &[x, n])[0];
    }
    let block = Shape::block(f);
    let zero = Lanes::int_constant(f, block, 0);
    let largest = fold(f, k, vec![zero], |f, shape, i, partials| {
        let x = f.index(x, i, 4);
        vec![magnitude(f, shape, x).int_max(f, &partials[0])]
    });
    largest[0].int_largest(f)
}

/// Writes the codes of `k` elements and returns their sum.
///
/// |x · inv_scale| exceeds 127 by less than one unit in the last place, so rounding alone clamps.
pub(super) fn quantize_run(f: &mut FunctionCx, k: usize, inv_scale: Value, x: Value, codes: Value) -> Value {
    if f.has_row_loop(RowPart::Codes) {
        let n = f.size(k);
        let signature = signature(&[I64, I64, I64, F32], &[I32]);
        return f.call(RowPart::Codes.symbol(), &signature, &[x, n, codes, inv_scale])[0];
    }
    let block = Shape::block(f);
    let zero = Lanes::int_constant(f, block, 0);
    let sums = fold(f, k, vec![zero], |f, shape, i, partials| {
        let x = f.index(x, i, 4);
        let q = code(f, shape, x, inv_scale);
        let to = f.index(codes, i, 1);
        q.store_i8(f, to);
        vec![partials[0].int_add(f, &q)]
    });
    sums[0].int_sum(f)
}

/// The bits but for their sign of the elements at `x`.
pub(super) fn magnitude(f: &mut FunctionCx, shape: Shape, x: Value) -> Lanes {
    let kept = Lanes::int_constant(f, shape, i32::MAX);
    Lanes::load_int(f, shape, x).and(f, &kept)
}

/// `rne(x · inv_scale)` of the elements at `x`, as integers.
pub(super) fn code(f: &mut FunctionCx, shape: Shape, x: Value, inv_scale: Value) -> Lanes {
    let inv_scale = Lanes::splat(f, shape, inv_scale);
    let scaled = Lanes::load(f, shape, x).mul(f, &inv_scale);
    let bias = Lanes::int_constant(f, shape, ROUND_MAGIC.to_bits().cast_signed());
    rounded(f, &scaled).bits(f).int_sub(f, &bias)
}

/// Zeros bytes `from..to` behind the 64-byte aligned `base`.
fn zero_bytes(f: &mut FunctionCx, base: Value, from: usize, to: usize) {
    let offset = |at: usize| i32::try_from(at).expect("a row of codes is far below 2 GiB");
    let aligned = from.next_multiple_of(8).min(to);
    let (word, byte) = (f.i64(0), f.i32(0));
    for at in from..aligned {
        f.store_low8(byte, base, offset(at));
    }
    for at in (aligned..to).step_by(8) {
        f.store(word, base, offset(at));
    }
}
