//! The ternary micro-kernel that every CPU of every instruction set can run: four output rows, one token row.

use cranelift_codegen::ir::types::{I8, I32, I32X4, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::encoding::{Encoding, i2};
use tcc_ir::target::{Features, MicroKernel, micro_args};

use super::func::{FunctionCx, signature};
use super::isa::ClifContext;
use super::micro::micro_symbol;
use crate::code::{EmitError, Function};

/// Output rows of a panel.
const NR: usize = 4;

/// The last row of every menu: needs nothing beyond the baseline.
///
/// A step adds at most 2 · 128 to an accumulator that starts at most 128 · k from zero: exact far beyond `max_k`.
pub const PORTABLE: MicroKernel = MicroKernel {
    name: "portable",
    needs: Features::NONE,
    vlen: 0,
    encoding: Encoding::I2 { nr: NR },
    mr: 1,
    max_k: 1 << 22,
    scratch_bytes: 0,
    macs_per_cycle: 1.0,
};

/// The function of [`PORTABLE`], named by [`micro_symbol`].
pub(super) fn emit(cx: &ClifContext) -> Result<Function, EmitError> {
    cx.function(&micro_symbol(&PORTABLE), &signature(&[I64], &[]), |f| {
        let args = f.param(0);
        let word = |f: &mut FunctionCx, offset: i32| f.load(I64, args, offset);
        let (acc, w, stride) = (word(f, micro_args::ACC), word(f, micro_args::W), word(f, micro_args::W_PANEL_STRIDE));
        let (panels, q) = (word(f, micro_args::PANELS), word(f, micro_args::Q));
        let blocks = word(f, micro_args::K_BLOCKS);
        let zero = f.i64(0);
        f.for_range(zero, panels, 1, |f, panel| {
            let offset = f.ins().imul(panel, stride);
            let w = f.ins().iadd(w, offset);
            let acc = f.index(acc, panel, 4 * NR);
            let before = load_acc(f, acc);
            let after = f.for_carried(zero, blocks, 1, &before, |f, block, sums| {
                let w = f.index(w, block, i2::KR);
                let q = f.index(q, block, i2::KR);
                add_block(f, w, q, sums)
            });
            for (i, sum) in after.iter().enumerate() {
                f.store(*sum, acc, 4 * i32::try_from(i).expect("four rows"));
            }
        });
        f.return_(&[]);
    })
}

/// The accumulators of a panel: one `i32x4`, or four `i32` without vectors.
fn load_acc(f: &mut FunctionCx, acc: Value) -> Vec<Value> {
    if f.has_vectors() { vec![f.load(I32X4, acc, 0)] } else { (0..4).map(|i| f.load(I32, acc, 4 * i)).collect() }
}

/// `value` in every lane of an accumulator.
fn widen(f: &mut FunctionCx, value: Value) -> Value {
    if f.has_vectors() { f.ins().splat(I32X4, value) } else { value }
}

/// `sums` plus one block: the 32-bit word of row i holds the code of column `4 p + j` in bits `8 j + 2 p`.
fn add_block(f: &mut FunctionCx, w: Value, q: Value, sums: &[Value]) -> Vec<Value> {
    let mut sums = sums.to_vec();
    let words = load_acc(f, w);
    let three = f.i32(3);
    let low_bits = widen(f, three);
    for column in 0..16i32 {
        let (p, j) = (column / 4, column % 4);
        let code = f.load(I8, q, column);
        let q = f.ins().sextend(I32, code);
        let q = widen(f, q);
        for (word, sum) in words.iter().zip(&mut sums) {
            let shifted = f.ins().ushr_imm_u(*word, i64::from(8 * j + 2 * p));
            let code = f.ins().band(shifted, low_bits);
            let product = f.ins().imul(code, q);
            *sum = f.ins().iadd(*sum, product);
        }
    }
    sums
}
