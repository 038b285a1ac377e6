//! `CodedEmbed` and `CodedMatmul`: rows of a coded table, and products of a screen's query with all of them
//! (`tcc_ir::coded`), assembled where the backend has loops for panels.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, I8, I8X16, I32, I32X4, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::coded::{BYTE_BLOCK_BYTES, CodedLayout, RowCode};
use tcc_ir::screen::kernel::TASK_ROWS;
use tcc_ir::screen::query::QueryLayout;
use tcc_ir::screen::{BLOCK, BLOCK_BYTES, GROUP, LANES_BYTES, PANEL_ROWS};
use tcc_ir::ty::DType;

use super::func::{FunctionCx, signature};
use super::isa::ClifContext;
use super::kernel::Kernel;
use super::lanes::{Lanes, Shape};
use super::math::load_float;
use super::screen::{codes, high};

/// `CodedEmbed`, column by column: a row of a panel is strewn over it, and tokens are few.
pub(super) fn build_embed(f: &mut FunctionCx, kernel: &Kernel, table: &CodedLayout, scale: f32) {
    let [tokens, panels, out] = [0, 1, 2].map(|i| kernel.operand(f, i));
    kernel.for_rows(f, |f, row| {
        let token = f.index(tokens, row, 4);
        let token = f.load_unsigned(I32, token, 0);
        let panel = f.ins().ushr_imm_u(token, i64::from(PANEL_ROWS.ilog2()));
        let lane = f.ins().band_imm_u(token, int(PANEL_ROWS - 1));
        let panel = f.index(panels, panel, table.panel_bytes());
        let to = f.index(out, row, 4 * table.k);
        let (begin, end) = (f.i64(0), f.size(table.k));
        f.for_range(begin, end, 1, |f, column| {
            let mut weight = match table.code {
                RowCode::Int8 => byte_weight(f, table, panel, lane, column),
                RowCode::Int4 => nibble_weight(f, panel, lane, column),
            };
            if scale != 1.0 {
                let scale = f.f32(scale);
                weight = f.ins().fmul(weight, scale);
            }
            let to = f.index(to, column, 4);
            f.store(weight, to, 0);
        });
    });
}

/// What column `column` of a row with eight bits stands for.
fn byte_weight(f: &mut FunctionCx, table: &CodedLayout, panel: Value, lane: Value, column: Value) -> Value {
    let in_lane = f.ins().band_imm_u(column, 3);
    let four = f.ins().isub(column, in_lane);
    let at = f.index(panel, four, LANES_BYTES / 4);
    let at = f.index(at, lane, 4);
    let at = f.ins().iadd(at, in_lane);
    let code = f.load(I8, at, 0);
    let code = f.ins().sextend(I32, code);
    let scale = f.offset(panel, table.row_scales_offset());
    let scale = load_float(f, Shape::ONE, DType::F32, scale, lane).values()[0];
    let code = f.ins().fcvt_from_sint(F32, code);
    f.ins().fmul(code, scale)
}

/// The same with four bits.
fn nibble_weight(f: &mut FunctionCx, panel: Value, lane: Value, column: Value) -> Value {
    let part = |f: &mut FunctionCx, unit: usize, count: usize| {
        let units = f.ins().ushr_imm_u(column, i64::from(unit.ilog2()));
        f.ins().band_imm_u(units, int(count - 1))
    };
    let block = f.ins().ushr_imm_u(column, i64::from(BLOCK.ilog2()));
    let block = f.index(panel, block, BLOCK_BYTES);
    let (half, line) = (part(f, GROUP, BLOCK / GROUP), part(f, 8, BLOCK / 8));
    let (is_upper, in_lane) = (part(f, 4, 2), part(f, 1, 4));
    let scale = f.index(block, half, 2 * PANEL_ROWS);
    let scale = load_float(f, Shape::ONE, DType::Bf16, scale, lane).values()[0];
    let at = f.offset(block, 2 * 2 * PANEL_ROWS);
    let at = f.index(at, line, 4 * PANEL_ROWS);
    let at = f.index(at, lane, 4);
    let at = f.ins().iadd(at, in_lane);
    let byte = f.load_unsigned(I8, at, 0);
    let shift = f.ins().ishl_imm_u(is_upper, 2);
    let nibble = f.ins().ushr(byte, shift);
    let nibble = f.ins().band_imm_u(nibble, 15);
    let doubled = f.ins().ishl_imm_u(nibble, 1);
    let code = f.ins().iadd_imm_s(doubled, -15);
    let code = f.ins().ireduce(I32, code);
    let code = f.ins().fcvt_from_sint(F32, code);
    f.ins().fmul(code, scale)
}

pub(super) fn build_matmul(f: &mut FunctionCx, cx: &ClifContext, kernel: &Kernel, table: &CodedLayout) {
    let [query, w, out] = [0, 1, 2].map(|i| kernel.operand(f, i));
    let product = Product { table, query, w, assembled: symbol(cx, table.code) };
    let ragged = table.n % PANEL_ROWS;
    let buffer = (ragged > 0).then(|| f.stack(4 * PANEL_ROWS as u32));
    f.for_range(kernel.begin, kernel.end, 1, |f, task| {
        let (first, end) = super::epilogue::task_range(f, task, TASK_ROWS / PANEL_ROWS, table.panels());
        let whole = f.size(table.n / PANEL_ROWS);
        let whole_end = f.min(end, whole);
        let at = f.index(out, first, 4 * PANEL_ROWS);
        product.panels(f, first, whole_end, at);
        let Some(buffer) = buffer else { return };
        let is_last = f.ins().icmp(IntCC::UnsignedGreaterThan, end, whole);
        f.if_then(is_last, |f| {
            let last_end = f.offset(whole, 1);
            product.panels(f, whole, last_end, buffer);
            let at = f.index(out, whole, 4 * PANEL_ROWS);
            for row in 0..ragged {
                let logit = f.load(F32, buffer, offset(4 * row));
                f.store(logit, at, offset(4 * row));
            }
        });
    });
}

/// Symbol of the assembled loop for panels of `code`, if there is one.
fn symbol(cx: &ClifContext, code: RowCode) -> Option<String> {
    cx.screen().map(|loops| match code {
        RowCode::Int8 => loops.byte_panels.name.clone(),
        RowCode::Int4 => loops.panels.name.clone(),
    })
}

/// A product of a query with a table.
struct Product<'a> {
    table: &'a CodedLayout,
    query: Value,
    w: Value,
    assembled: Option<String>,
}

impl Product<'_> {
    /// Logits of the rows of panels `first..end` to `out`: `Row::logit`.
    fn panels(&self, f: &mut FunctionCx, first: Value, end: Value, out: Value) {
        let place = |f: &mut FunctionCx, panel: Value| {
            let i = f.ins().isub(panel, first);
            f.index(out, i, 4 * PANEL_ROWS)
        };
        match &self.assembled {
            Some(symbol) => {
                let w = f.index(self.w, first, self.table.panel_bytes());
                let codes = f.offset(self.query, QueryLayout::CODES);
                let (blocks, panels) = (f.size(self.table.blocks()), f.ins().isub(end, first));
                f.call(symbol, &signature(&[I64; 5], &[]), &[w, codes, blocks, panels, out]);
            }
            None => f.for_range(first, end, 1, |f, panel| {
                let w = f.index(self.w, panel, self.table.panel_bytes());
                let out = place(f, panel);
                match self.table.code {
                    RowCode::Int8 => byte_panel(f, self.table, w, self.query, out),
                    RowCode::Int4 => high::portable(f, &self.table.query(), w, self.query, out),
                }
            }),
        }
        // A hidden row that is not finite has such a norm, whatever became of its codes.
        let (norm, zero) = (f.load(F32, self.query, QueryLayout::NORM), f.f32(0.0));
        let nothing = f.ins().fmul(zero, norm);
        f.for_range(first, end, 1, |f, panel| {
            let (at, block) = (place(f, panel), Shape::block(f));
            let nothing = Lanes::splat(f, block, nothing);
            Lanes::load(f, block, at).add(f, &nothing).store(f, at);
        });
    }
}

/// Logits of the sixteen rows of the panel at `w`, of eight bits.
fn byte_panel(f: &mut FunctionCx, table: &CodedLayout, w: Value, query: Value, out: Value) {
    let parts = QueryLayout::new(&table.query());
    let [scales, codes] = [parts.scales(), QueryLayout::CODES].map(|offset| f.offset(query, offset));
    let shape = Shape::block(f);
    let start = Lanes::constant(f, shape, 0.0);
    let (zero, groups) = (f.i64(0), f.size(table.query().groups()));
    let sums = f.for_carried(zero, groups, 1, start.values(), |f, group, sums| {
        let bytes = f.index(w, group, BYTE_BLOCK_BYTES * GROUP / BLOCK);
        let codes = f.index(codes, group, GROUP);
        let at = f.index(scales, group, 4);
        let scale = f.load(F32, at, 0);
        let exact = group_sums(f, shape, bytes, codes).to_float(f);
        let scale = Lanes::splat(f, shape, scale);
        exact.fma(f, &scale, &start.with_values(sums)).values().to_vec()
    });
    let row_scales = f.offset(w, table.row_scales_offset());
    let row_scales = Lanes::load_fixed(f, shape, row_scales);
    start.with_values(&sums).mul(f, &row_scales).store(f, out);
}

/// Sums of bytes times codes over one group, for sixteen rows.
fn group_sums(f: &mut FunctionCx, shape: Shape, bytes: Value, codes: Value) -> Lanes {
    let quad = |f: &mut FunctionCx, quad| quad_sums(f, bytes, codes, quad);
    codes::sixteen(f, shape, quad, |f, row| row_sum(f, bytes, codes, row))
}

/// Those of rows 4 `quad` to 4 `quad` + 3.
fn quad_sums(f: &mut FunctionCx, bytes: Value, codes: Value, quad: usize) -> Value {
    let none = f.i32(0);
    let none = f.ins().splat(I32X4, none);
    // Two sums for each row: rows 0 and 1, rows 2 and 3.
    let mut sums = [none, none];
    for four in 0..GROUP / 4 {
        let lanes = f.load_fixed(I8X16, bytes, offset(four * LANES_BYTES + 16 * quad));
        let codes = codes::four_codes(f, codes, offset(4 * four));
        let lanes = [f.ins().swiden_low(lanes), f.ins().swiden_high(lanes)];
        for (lanes, sum) in lanes.into_iter().zip(&mut sums) {
            let products = codes::pair_products(f, lanes, codes);
            *sum = f.ins().iadd(*sum, products);
        }
    }
    f.ins().iadd_pairwise(sums[0], sums[1])
}

/// That of row `row`, byte by byte.
fn row_sum(f: &mut FunctionCx, bytes: Value, codes: Value, row: usize) -> Value {
    codes::byte_by_byte(f, bytes, codes, |f, bytes, codes, mut sum| {
        for four in 0..GROUP / 4 {
            let factors = [(bytes, four * LANES_BYTES + 4 * row), (codes, 4 * four)].map(|(base, at)| {
                let byte = f.load(I8, base, offset(at));
                f.ins().sextend(I32, byte)
            });
            let product = f.ins().imul(factors[0], factors[1]);
            sum = f.ins().iadd(sum, product);
        }
        sum
    })
}

fn offset(at: usize) -> i32 {
    i32::try_from(at).expect("a few hundred bytes")
}

fn int(value: usize) -> i64 {
    i64::try_from(value).expect("a few bits")
}
