//! Panels of `bitmap`: for each weight that is not zero, an activation is added to its row or taken from it.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::encoding::bitmap::{KR, LONG, WORD_BYTES};
use tcc_ir::target::{MicroKernel, micro_args};

use crate::clif::func::{FunctionCx, signature};
use crate::clif::isa::ClifContext;
use crate::clif::micro::micro_symbol;
use crate::code::{EmitError, Function};

/// The function of the portable row that reads bitmaps.
pub(super) fn kernel(cx: &ClifContext, row: &MicroKernel) -> Result<Function, EmitError> {
    let nr = row.encoding.nr();
    cx.function(&micro_symbol(row), &signature(&[I64], &[]), |f| {
        let args = f.param(0);
        let word = |f: &mut FunctionCx, offset: i32| f.load(I64, args, offset);
        let (acc, w, stride) = (word(f, micro_args::ACC), word(f, micro_args::W), word(f, micro_args::W_PANEL_STRIDE));
        let (panels, q) = (word(f, micro_args::PANELS), word(f, micro_args::Q));
        let blocks = word(f, micro_args::K_BLOCKS);
        let all = sum(f, q, blocks);
        let zero = f.i64(0);
        f.for_range(zero, panels, 1, |f, panel| {
            let offset = f.ins().imul(panel, stride);
            let presence = f.ins().iadd(w, offset);
            let signs = f.index(presence, blocks, nr * KR / 8);
            let acc = f.index(acc, panel, 4 * nr);
            let rows = f.size(nr);
            f.for_range(zero, rows, 1, |f, row| {
                let at = f.index(acc, row, 4);
                add(f, at, all);
            });
            f.for_carried(zero, blocks, 1, &[zero], |f, block, end| {
                let (presence, q) = (f.index(presence, block, nr * KR / 8), f.index(q, block, KR));
                let words = f.size(nr / 2);
                f.for_carried(zero, words, 1, end, |f, i, end| {
                    let presence = f.index(presence, i, WORD_BYTES);
                    let acc = f.index(acc, i, 2 * 4);
                    vec![add_word(f, presence, signs, end[0], q, acc)]
                })
            });
        });
        f.return_(&[]);
    })
}

/// The sum of the activations: what codes, which are weights plus 1, have beyond weights.
fn sum(f: &mut FunctionCx, q: Value, blocks: Value) -> Value {
    let (zero, none, columns) = (f.i64(0), f.i32(0), f.scaled(blocks, KR));
    f.for_carried(zero, columns, 1, &[none], |f, column, sum| {
        let at = f.ins().iadd(q, column);
        let q = f.load_i8(at, 0);
        vec![f.ins().iadd(sum[0], q)]
    })[0]
}

/// Adds the weights of the word at `presence`, two rows by 32 columns, times activations at `q` to the accumulators at
/// `acc`; the signs of those before end at bit `end`. Returns where these end.
fn add_word(f: &mut FunctionCx, presence: Value, signs: Value, end: Value, q: Value, acc: Value) -> Value {
    let word = f.load(I64, presence, 0);
    let count = f.ins().popcnt(word);
    let is_long = f.ins().icmp_imm_u(IntCC::UnsignedGreaterThan, count, i64::from(LONG));
    let whole = f.offset(end, 7);
    let whole = f.ins().band_imm_s(whole, -8);
    let begin = f.ins().select(is_long, whole, end);
    let end = f.ins().iadd(begin, count);
    f.for_carried(begin, end, 1, &[word], |f, at, word| {
        let bit = f.ins().ctz(word[0]);
        let sign = sign(f, signs, at);
        let at = column(f, bit);
        let at = f.ins().iadd(q, at);
        let q = f.load_i8(at, 0);
        let signed = f.ins().bxor(q, sign);
        let signed = f.ins().isub(signed, sign);
        let row = f.ins().ushr_imm_u(bit, 5);
        let at = f.index(acc, row, 4);
        add(f, at, signed);
        let below = f.ins().iadd_imm_s(word[0], -1);
        vec![f.ins().band(word[0], below)]
    });
    end
}

/// 0 where bit `at` of the signs is 1, else -1.
fn sign(f: &mut FunctionCx, signs: Value, at: Value) -> Value {
    let byte = f.ins().ushr_imm_u(at, 3);
    let byte = f.ins().iadd(signs, byte);
    let byte = f.load_unsigned(I8, byte, 0);
    let shift = f.ins().band_imm_u(at, 7);
    let bit = f.ins().ushr(byte, shift);
    let bit = f.ins().band_imm_u(bit, 1);
    let bit = f.ins().ireduce(I32, bit);
    f.ins().iadd_imm_s(bit, -1)
}

/// The column within its block of bit `2 p + h` of byte j (of four): 16 h + 4 p + j.
fn column(f: &mut FunctionCx, bit: Value) -> Value {
    let part = |f: &mut FunctionCx, shift: i64, mask: i64, to: i64| {
        let part = f.ins().ushr_imm_u(bit, shift);
        let part = f.ins().band_imm_u(part, mask);
        f.ins().ishl_imm_u(part, to)
    };
    let (half, plane, j) = (part(f, 0, 1, 4), part(f, 1, 3, 2), part(f, 3, 3, 0));
    let column = f.ins().bor(half, plane);
    f.ins().bor(column, j)
}

/// Adds `value` to the accumulator at `at`.
fn add(f: &mut FunctionCx, at: Value, value: Value) {
    let before = f.load(I32, at, 0);
    let after = f.ins().iadd(before, value);
    f.store(after, at, 0);
}
