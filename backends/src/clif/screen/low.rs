//! What a row's low plane adds to its estimate: `Screened::refinement`, in portable code.

use cranelift_codegen::ir::types::{I8, I8X16, I16X8, I32, I32X4};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::screen::query::{LOW_UNIT, QueryLayout};
use tcc_ir::screen::{GROUP, LANES_BYTES, PIECE_BYTES, PIECE_GROUPS, ScreenLayout};

use super::super::func::FunctionCx;
use super::super::lanes::{Lanes, Shape};
use super::codes;

/// The refinement by the record at `record`; `query` is the address of the codes for low planes.
pub(super) fn refinement(f: &mut FunctionCx, layout: &ScreenLayout, query: Value, record: Value) -> Value {
    let parts = QueryLayout::new(layout);
    let [scales, offsets] =
        [parts.lane_scales(), parts.lane_offsets()].map(|offset| f.offset(query, offset - parts.lane_codes()));
    let shape = Shape::block(f);
    let start = Lanes::constant(f, shape, 0.0);
    let (zero, pieces) = (f.i64(0), f.size(layout.pieces()));
    let sums = f.for_carried(zero, pieces, 1, start.values(), |f, piece, sums| {
        let codes = f.index(query, piece, PIECE_GROUPS * GROUP);
        let piece_scales = f.index(record, piece, PIECE_BYTES);
        let bytes = f.offset(piece_scales, 2 * PIECE_GROUPS);
        let [scales, offsets] = [scales, offsets].map(|base| f.index(base, piece, 4 * PIECE_GROUPS));
        let offsets = Lanes::load_int(f, shape, offsets);
        let exact = piece_sums(f, shape, bytes, codes).shift_left(f, 2).int_add(f, &offsets).to_float(f);
        let scales = Lanes::load(f, shape, scales);
        let factors = Lanes::load_fixed_u16(f, shape, piece_scales).shift_left(f, 16).as_float(f).mul(f, &scales);
        exact.fma(f, &factors, &start.with_values(sums)).values().to_vec()
    });
    let sum = start.with_values(&sums).sum(f);
    let unit = f.f32(LOW_UNIT);
    f.ins().fmul(sum, unit)
}

/// Sums of low bits times codes, for the sixteen groups of a piece.
fn piece_sums(f: &mut FunctionCx, shape: Shape, bytes: Value, codes: Value) -> Lanes {
    let quad = |f: &mut FunctionCx, quad| quad_sums(f, bytes, codes, quad);
    codes::sixteen(f, shape, quad, |f, lane| lane_sum(f, bytes, codes, lane))
}

/// Those of groups 4 `quad` to 4 `quad` + 3.
fn quad_sums(f: &mut FunctionCx, bytes: Value, codes: Value, quad: usize) -> Value {
    let offset = |row: usize| i32::try_from(row * LANES_BYTES + 16 * quad).expect("a few hundred bytes");
    let none = f.i32(0);
    let none = f.ins().splat(I32X4, none);
    // Two sums for each group: groups 0 and 1, groups 2 and 3.
    let mut sums = [none, none];
    for row in 0..GROUP / 16 {
        let lanes = f.load_fixed(I8X16, bytes, offset(row));
        for plane in 0..4 {
            let bits = codes::field(f, lanes, 2 * plane, 2);
            let codes = f.load_fixed(I8X16, codes, offset(4 * row + plane));
            let narrow = [f.ins().uwiden_low(bits), f.ins().uwiden_high(bits)];
            let wide = [f.ins().swiden_low(codes), f.ins().swiden_high(codes)];
            for ((bits, codes), sum) in narrow.into_iter().zip(wide).zip(&mut sums) {
                debug_assert_eq!(f.type_of(bits), I16X8);
                let products = codes::pair_products(f, bits, codes);
                *sum = f.ins().iadd(*sum, products);
            }
        }
    }
    f.ins().iadd_pairwise(sums[0], sums[1])
}

/// That of group `lane`, byte by byte.
fn lane_sum(f: &mut FunctionCx, bytes: Value, codes: Value, lane: usize) -> Value {
    let offset = |row: usize| i32::try_from(row * LANES_BYTES + 4 * lane).expect("a few hundred bytes");
    codes::byte_by_byte(f, bytes, codes, |f, bytes, codes, mut sum| {
        for row in 0..GROUP / 16 {
            let byte = f.load(I8, bytes, offset(row));
            let byte = f.ins().uextend(I32, byte);
            for plane in 0..4 {
                let bits = f.ins().ushr_imm_u(byte, i64::try_from(2 * plane).expect("below 8"));
                let bits = f.ins().band_imm_u(bits, 3);
                let code = f.load(I8, codes, offset(4 * row + plane));
                let code = f.ins().sextend(I32, code);
                let product = f.ins().imul(bits, code);
                sum = f.ins().iadd(sum, product);
            }
        }
        sum
    })
}
