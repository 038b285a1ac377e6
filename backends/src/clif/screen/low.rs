//! What a row's low plane adds to its estimate: `Screened::refinement`.

use cranelift_codegen::ir::types::{F32, I8X16, I16X8, I32, I32X4};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::screen::query::QueryLayout;
use tcc_ir::screen::{GROUP, ScreenLayout};

use super::super::func::FunctionCx;
use super::super::lanes::{Lanes, Shape};
use super::super::rows::fold;
use super::nibbles;

/// The refinement by the record at `record`; `scratch` holds the sums of all groups and their factors.
pub(super) fn refinement(
    f: &mut FunctionCx,
    layout: &ScreenLayout,
    query: Value,
    record: Value,
    scratch: Value,
) -> Value {
    let factors = f.offset(scratch, 4 * layout.groups());
    let parts = QueryLayout::new(layout);
    let [scales, offsets, codes] =
        [parts.scales(), parts.offsets(), parts.wide_codes()].map(|offset| f.offset(query, offset));
    let row_scales = f.offset(record, layout.record_scales_offset());
    let (zero, groups) = (f.i64(0), f.size(layout.groups()));
    f.for_range(zero, groups, 1, |f, group| {
        let bytes = f.index(record, group, GROUP / 2);
        let codes = f.index(codes, group, 2 * GROUP);
        let sum = if f.has_vectors() { vector_sum(f, bytes, codes) } else { scalar_sum(f, bytes, codes) };
        let at = |f: &mut FunctionCx, base: Value| f.index(base, group, 4);
        let (offset, scale) = (at(f, offsets), at(f, scales));
        let (offset, scale) = (f.load(I32, offset, 0), f.load(F32, scale, 0));
        let doubled = f.ins().ishl_imm_u(sum, 1);
        let exact = f.ins().iadd(doubled, offset);
        let exact = f.ins().fcvt_from_sint(F32, exact);
        let row_scale = f.index(row_scales, group, 2);
        let row_scale = Lanes::load_fixed_u16(f, Shape::ONE, row_scale).shift_left(f, 16).as_float(f);
        let factor = f.ins().fmul(row_scale.values()[0], scale);
        let (to_sum, to_factor) = (at(f, scratch), at(f, factors));
        f.store(exact, to_sum, 0);
        f.store(factor, to_factor, 0);
    });
    let block = Shape::block(f);
    let none = Lanes::constant(f, block, 0.0);
    let sums = fold(f, layout.groups(), vec![none], |f, shape, i, sums| {
        let (sum, factor) = (f.index(scratch, i, 4), f.index(factors, i, 4));
        let factor = Lanes::load(f, shape, factor);
        vec![Lanes::load(f, shape, sum).fma(f, &factor, &sums[0])]
    });
    let sum = sums[0].sum(f);
    let sixteenth = f.f32(0.0625);
    f.ins().fmul(sum, sixteenth)
}

/// Sum of a group's nibbles times codes.
fn vector_sum(f: &mut FunctionCx, bytes: Value, codes: Value) -> Value {
    let none = f.i32(0);
    let mut sums = f.ins().splat(I32X4, none);
    let bytes = f.load(I8X16, bytes, 0);
    for (part, nibbles) in nibbles::split(f, bytes).into_iter().enumerate() {
        for (half, is_last) in [false, true].into_iter().enumerate() {
            let nibbles = nibbles::widened(f, nibbles, is_last);
            let codes = f.load(I16X8, codes, i32::try_from(2 * (16 * part + 8 * half)).expect("a few bytes"));
            let products = nibbles::pair_products(f, nibbles, codes);
            sums = f.ins().iadd(sums, products);
        }
    }
    nibbles::sum_of_lanes(f, sums)
}

fn scalar_sum(f: &mut FunctionCx, bytes: Value, codes: Value) -> Value {
    let (zero, count, none) = (f.i64(0), f.size(GROUP / 2), f.i32(0));
    f.for_carried(zero, count, 1, &[none], |f, i, sum| {
        let (byte, code) = (f.ins().iadd(bytes, i), f.index(codes, i, 2));
        let upper = i32::try_from(2 * GROUP / 2).expect("a few bytes");
        vec![nibbles::add_byte(f, sum[0], (byte, 0), (code, 0), (code, upper))]
    })[0]
}
