//! `ScreenKernel::Query`: `screen::query::query`, column by column; once for each search.

use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::types::{F32, F64, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::screen::query::{HIGH_OFFSET, LOW_OFFSET, NORM_SLACK, QueryLayout, SMALLEST};
use tcc_ir::screen::{GROUP, PIECE_GROUPS, ScreenLayout};

use super::super::func::FunctionCx;
use super::super::kernel::Kernel;
use super::super::lanes::{Lanes, Shape};
use super::super::math::rounded;
use tcc_ir::numerics::ROUND_MAGIC;

/// Addresses of the parts of the query of one group.
struct Group {
    x: Value,
    codes: Value,
    scale: Value,
    offset: Value,
    /// The same for the low plane; the codes of four columns are a row of lanes apart.
    lane_codes: Value,
    lane_scale: Value,
    lane_offset: Value,
}

impl Group {
    fn new(f: &mut FunctionCx, parts: &QueryLayout, x: Value, query: Value, group: Value) -> Group {
        let at = |f: &mut FunctionCx, offset: usize, bytes: usize| {
            let part = f.offset(query, offset);
            f.index(part, group, bytes)
        };
        // Groups of a piece are four bytes apart, pieces as many as their codes.
        let last = i64::try_from(PIECE_GROUPS - 1).expect("sixteen");
        let lane = f.ins().band_imm_u(group, last);
        let first = f.ins().isub(group, lane);
        let piece = f.offset(query, parts.lane_codes());
        let piece = f.index(piece, first, GROUP);
        Group {
            x: f.index(x, group, 4 * GROUP),
            codes: at(f, QueryLayout::CODES, GROUP),
            scale: at(f, parts.scales(), 4),
            offset: at(f, parts.offsets(), 4),
            lane_codes: f.index(piece, lane, 4),
            lane_scale: at(f, parts.lane_scales(), 4),
            lane_offset: at(f, parts.lane_offsets(), 4),
        }
    }
}

pub(super) fn build(f: &mut FunctionCx, kernel: &Kernel, layout: &ScreenLayout) {
    let (x, query) = (kernel.operand(f, 0), kernel.operand(f, 1));
    let parts = QueryLayout::new(layout);
    clear(f, query, &parts);
    let (first, whole, end) = (f.i64(0), f.size(layout.k / GROUP), f.size(layout.k.div_ceil(GROUP)));
    let zero = f.ins().f64const(0.0);
    let group = |f: &mut FunctionCx, g: Value, columns: usize, sums: &[Value]| {
        let group = Group::new(f, &parts, x, query, g);
        quantize(f, &group, columns, sums)
    };
    let sums = f.for_carried(first, whole, 1, &[zero, zero], |f, g, sums| group(f, g, GROUP, sums));
    let sums = f.for_carried(whole, end, 1, &sums, |f, g, sums| group(f, g, layout.k % GROUP, sums));
    let (norm, error) = (f.ins().sqrt(sums[0]), f.ins().sqrt(sums[1]));
    let rounding = f.ins().f64const(layout.rounding());
    let rounding = f.ins().fmul(rounding, norm);
    let slack = f.ins().fadd(error, rounding);
    for (value, offset) in [(norm, QueryLayout::NORM), (slack, QueryLayout::SLACK)] {
        let more = f.ins().f64const(NORM_SLACK);
        let value = f.ins().fmul(value, more);
        let value = f.ins().fdemote(F32, value);
        let smallest = f.f32(f32::MIN_POSITIVE);
        let value = f.ins().fadd(value, smallest);
        f.store(value, query, offset);
    }
}

/// Zeros the whole query: codes, scales and offsets of columns past k stay so.
fn clear(f: &mut FunctionCx, query: Value, parts: &QueryLayout) {
    let (begin, words, zero) = (f.i64(0), f.size(parts.bytes() / 8), f.i64(0));
    f.for_range(begin, words, 1, |f, word| {
        let at = f.index(query, word, 8);
        f.store(zero, at, 0);
    });
}

/// Quantizes the first `columns` columns of a group and adds its squares, and those of its errors, to `sums`.
fn quantize(f: &mut FunctionCx, group: &Group, columns: usize, sums: &[Value]) -> Vec<Value> {
    let (begin, end) = (f.i64(0), f.size(columns));
    let zero = f.f32(0.0);
    let largest = f.for_carried(begin, end, 1, &[zero], |f, i, largest| {
        let x = load(f, group.x, i);
        let magnitude = f.ins().fabs(x);
        let larger = f.ins().fcmp(FloatCC::GreaterThan, magnitude, largest[0]);
        vec![f.ins().select(larger, magnitude, largest[0])]
    })[0];
    let (smallest, limit) = (f.f32(SMALLEST), f.f32(127.0));
    let is_used = f.ins().fcmp(FloatCC::GreaterThanOrEqual, largest, smallest);
    let (scale, inv_scale) = (f.ins().fdiv(largest, limit), f.ins().fdiv(limit, largest));
    let (scale, inv_scale) = (f.ins().select(is_used, scale, zero), f.ins().select(is_used, inv_scale, zero));
    f.store(scale, group.scale, 0);
    f.store(scale, group.lane_scale, 0);
    let wide_scale = f.ins().fpromote(F64, scale);
    let none = f.i32(0);
    let sums = f.for_carried(begin, end, 1, &[sums[0], sums[1], none], |f, i, sums| {
        let x = load(f, group.x, i);
        let scaled = f.ins().fmul(x, inv_scale);
        let scaled = Lanes::splat(f, Shape::ONE, scaled);
        let bias = Lanes::int_constant(f, Shape::ONE, ROUND_MAGIC.to_bits().cast_signed());
        let code = rounded(f, &scaled).bits(f).int_sub(f, &bias).values()[0];
        let at = f.ins().iadd(group.codes, i);
        f.store_low8(code, at, 0);
        // Column 4 a + b lies in the a-th row of lanes.
        let column = f.ins().band_imm_u(i, 3);
        let four = f.ins().isub(i, column);
        let at = f.index(group.lane_codes, four, PIECE_GROUPS);
        let at = f.ins().iadd(at, column);
        f.store_low8(code, at, 0);
        let (x, real) = (f.ins().fpromote(F64, x), f.ins().fcvt_from_sint(F64, code));
        let real = f.ins().fmul(wide_scale, real);
        let rest = f.ins().fsub(real, x);
        let (square, error) = (f.ins().fmul(x, x), f.ins().fmul(rest, rest));
        vec![f.ins().fadd(sums[0], square), f.ins().fadd(sums[1], error), f.ins().iadd(sums[2], code)]
    });
    for (factor, to) in [(HIGH_OFFSET, group.offset), (LOW_OFFSET, group.lane_offset)] {
        let offset = f.ins().imul_imm_s(sums[2], i64::from(factor));
        f.store(offset, to, 0);
    }
    sums[..2].to_vec()
}

fn load(f: &mut FunctionCx, x: Value, i: Value) -> Value {
    debug_assert_eq!(f.type_of(i), I64);
    let at = f.index(x, i, 4);
    f.load(F32, at, 0)
}
