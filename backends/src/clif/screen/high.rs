//! `ScreenKernel::High`: estimates of all rows by their high planes, and the lower ends of their intervals.

use cranelift_codegen::ir::types::{F32, I8, I8X16, I32, I32X4, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::screen::query::QueryLayout;
use tcc_ir::screen::{BLOCK_BYTES, GROUP, LANES_BYTES, PANEL_ROWS, ScreenLayout};

use super::super::func::{FunctionCx, signature};
use super::super::kernel::Kernel;
use super::super::lanes::{Lanes, Shape};
use super::{Bounder, Planes, codes, task_panels};

pub(super) fn build(f: &mut FunctionCx, kernel: &Kernel, layout: &ScreenLayout, assembled: Option<&str>) {
    let [query, screen, lows, maxima] = [0, 1, 2, 3].map(|i| kernel.operand(f, i));
    let bounder = Bounder::new(f, layout, query, screen);
    f.for_range(kernel.begin, kernel.end, 1, |f, task| {
        let (first, end) = task_panels(f, task, layout);
        match assembled {
            Some(symbol) => {
                let (planes, out) = (f.index(screen, first, layout.panel_bytes()), f.index(lows, first, LANES_BYTES));
                let codes = f.offset(query, QueryLayout::CODES);
                let (blocks, panels) = (f.size(layout.blocks()), f.ins().isub(end, first));
                f.call(symbol, &signature(&[I64; 5], &[]), &[planes, codes, blocks, panels, out]);
            }
            None => f.for_range(first, end, 1, |f, panel| {
                let planes = f.index(screen, panel, layout.panel_bytes());
                let out = f.index(lows, panel, LANES_BYTES);
                portable(f, layout, planes, query, out);
            }),
        }
        f.for_range(first, end, 1, |f, panel| {
            let low = f.index(lows, panel, LANES_BYTES);
            let zero = f.i64(0);
            let block = Shape::block(f);
            let bound = bounder.bound(f, block, panel, zero, Planes::High);
            Lanes::load(f, block, low).sub(f, &bound).store(f, low);
            drop_padding(f, layout, panel, low);
            let largest = Lanes::load(f, block, low).largest(f);
            let at = f.index(maxima, panel, 4);
            f.store(largest, at, 0);
        });
    });
}

/// Rows past n are out from the beginning.
fn drop_padding(f: &mut FunctionCx, layout: &ScreenLayout, panel: Value, low: Value) {
    let rows = layout.n % PANEL_ROWS;
    if rows == 0 {
        return;
    }
    let last = f.i64(i64::try_from(layout.panels() - 1).expect("panels of one head"));
    let is_last = f.ins().icmp(cranelift_codegen::ir::condcodes::IntCC::Equal, panel, last);
    f.if_then(is_last, |f| {
        let out = f.f32(f32::NEG_INFINITY);
        for row in rows..PANEL_ROWS {
            f.store(out, low, i32::try_from(4 * row).expect("a few rows"));
        }
    });
}

/// `Screened::estimate` of the sixteen rows of the panel at `planes`.
pub(in super::super) fn portable(f: &mut FunctionCx, layout: &ScreenLayout, planes: Value, query: Value, out: Value) {
    let parts = QueryLayout::new(layout);
    let [scales, offsets, codes] =
        [parts.scales(), parts.offsets(), QueryLayout::CODES].map(|offset| f.offset(query, offset));
    let shape = Shape::block(f);
    let start = Lanes::constant(f, shape, 0.0);
    let (zero, groups) = (f.i64(0), f.size(layout.groups()));
    let sums = f.for_carried(zero, groups, 1, start.values(), |f, group, sums| {
        let half = f.ins().band_imm_u(group, 1);
        let block = f.ins().ushr_imm_u(group, 1);
        let block = f.index(planes, block, BLOCK_BYTES);
        let row_scales = f.index(block, half, 2 * PANEL_ROWS);
        let bytes = f.index(block, half, GROUP / 2 * PANEL_ROWS);
        let bytes = f.offset(bytes, 2 * 2 * PANEL_ROWS);
        let codes = f.index(codes, group, GROUP);
        let [scale, offset] = [(scales, F32), (offsets, I32)].map(|(base, ty)| {
            let at = f.index(base, group, 4);
            f.load(ty, at, 0)
        });
        let exact = group_sums(f, shape, bytes, codes);
        let (doubled, offset) = (exact.shift_left(f, 1), Lanes::splat(f, shape, offset));
        let exact = doubled.int_add(f, &offset).to_float(f);
        let scale = Lanes::splat(f, shape, scale);
        let scale = Lanes::load_fixed_u16(f, shape, row_scales).shift_left(f, 16).as_float(f).mul(f, &scale);
        let sums = start.with_values(sums);
        exact.fma(f, &scale, &sums).values().to_vec()
    });
    start.with_values(&sums).store(f, out);
}

/// Sums of nibbles times codes over one group, for sixteen rows.
fn group_sums(f: &mut FunctionCx, shape: Shape, bytes: Value, codes: Value) -> Lanes {
    let quad = |f: &mut FunctionCx, quad| quad_sums(f, bytes, codes, quad);
    codes::sixteen(f, shape, quad, |f, row| row_sum(f, bytes, codes, row))
}

/// That of row `row`, byte by byte.
fn row_sum(f: &mut FunctionCx, bytes: Value, codes: Value, row: usize) -> Value {
    let offset = |at: usize| i32::try_from(at).expect("a few hundred bytes");
    codes::byte_by_byte(f, bytes, codes, |f, bytes, codes, mut sum| {
        for eight in 0..GROUP / 8 {
            let byte = f.load(I8, bytes, offset(eight * LANES_BYTES + 4 * row));
            let byte = f.ins().uextend(I32, byte);
            let nibbles = [f.ins().band_imm_u(byte, 15), f.ins().ushr_imm_u(byte, 4)];
            for (part, nibble) in nibbles.into_iter().enumerate() {
                let code = f.load(I8, codes, offset(8 * eight + 4 * part));
                let code = f.ins().sextend(I32, code);
                let product = f.ins().imul(nibble, code);
                sum = f.ins().iadd(sum, product);
            }
        }
        sum
    })
}

/// Those of rows 4 `quad` to 4 `quad` + 3.
fn quad_sums(f: &mut FunctionCx, bytes: Value, codes: Value, quad: usize) -> Value {
    let offset = |at: usize| i32::try_from(at).expect("a few hundred bytes");
    let none = f.i32(0);
    let none = f.ins().splat(I32X4, none);
    // Two sums for each row: rows 0 and 1, rows 2 and 3.
    let mut sums = [none, none];
    for eight in 0..GROUP / 8 {
        let lanes = f.load_fixed(I8X16, bytes, offset(eight * LANES_BYTES + 16 * quad));
        for part in 0..2 {
            let nibbles = codes::field(f, lanes, 4 * part, 4);
            let codes = codes::four_codes(f, codes, offset(8 * eight + 4 * part));
            let nibbles = [f.ins().uwiden_low(nibbles), f.ins().uwiden_high(nibbles)];
            for (nibbles, sum) in nibbles.into_iter().zip(&mut sums) {
                let products = codes::pair_products(f, nibbles, codes);
                *sum = f.ins().iadd(*sum, products);
            }
        }
    }
    f.ins().iadd_pairwise(sums[0], sums[1])
}
