//! The ternary micro-kernels that every CPU of every instruction set can run: one token row, one menu row for each
//! encoding of [`PORTABLE_ROWS`]. All but that of bitmaps take four output rows at a time.

mod base3;
mod bitmap;
mod i2;

use cranelift_codegen::ir::types::{I32, I32X4, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::encoding::Encoding;
use tcc_ir::encoding::bitmap::Panel;
use tcc_ir::target::{Features, MicroKernel, micro_args};

use super::func::{FunctionCx, signature};
use super::isa::ClifContext;
use super::micro::micro_symbol;
use crate::code::{EmitError, Function};

/// Output rows computed together.
const LANES: usize = 4;

/// What all rows have in common.
///
/// A step adds at most 2 · 128 to an accumulator that starts at most 128 · k from zero: exact far beyond `max_k`.
const ROW: MicroKernel = MicroKernel {
    name: "portable",
    needs: Features::NONE,
    vlen: 0,
    encoding: Encoding::I2 { nr: LANES },
    mr: 1,
    max_k: 1 << 22,
    scratch_bytes: 0,
    finishes: false,
    macs_per_cycle: 1.0,
};

/// The last row of every menu: needs nothing beyond the baseline.
pub const PORTABLE: MicroKernel = ROW;

/// The row of every menu that reads 1.6 bits per weight; four multiplications per byte make it slow.
pub const PORTABLE_BASE3: MicroKernel =
    MicroKernel { name: "portable-base3", encoding: Encoding::Base3 { nr: 16 }, macs_per_cycle: 0.5, ..ROW };

/// The row of every menu that reads 2 - z bits per weight, one weight after the other.
pub const PORTABLE_BITMAP: MicroKernel = MicroKernel {
    name: "portable-bitmap",
    encoding: Encoding::Bitmap(Panel { nr: 16, bytes: 0 }),
    macs_per_cycle: 0.2,
    ..ROW
};

/// Every portable row; menus hold them with rates of their own.
pub const PORTABLE_ROWS: [&MicroKernel; 3] = [&PORTABLE, &PORTABLE_BASE3, &PORTABLE_BITMAP];

/// The function of the portable row `row`, named by [`micro_symbol`]; `None` for other rows.
pub(super) fn emit(cx: &ClifContext, row: &MicroKernel) -> Option<Result<Function, EmitError>> {
    let portable = PORTABLE_ROWS.into_iter().find(|portable| portable.name == row.name)?;
    let add_block = match portable.encoding {
        Encoding::I2 { .. } => i2::add_block,
        Encoding::Base3 { .. } => base3::add_block,
        Encoding::Bitmap(_) => return Some(bitmap::kernel(cx, portable)),
        Encoding::I2Lane { .. } | Encoding::W2Nz(_) => return None,
    };
    Some(kernel(cx, portable, add_block))
}

/// Adds the products of one block of four rows, whose words begin at `w`, and its activations at `q`.
type AddBlock = fn(f: &mut FunctionCx, w: Value, q: Value, sums: &[Value]) -> Vec<Value>;

/// The loops over panels, over four rows of a panel at a time, and over blocks.
fn kernel(cx: &ClifContext, row: &MicroKernel, add_block: AddBlock) -> Result<Function, EmitError> {
    let (nr, kr, block_bytes) = (row.encoding.nr(), row.encoding.kr(), row.encoding.block_bytes());
    cx.function(&micro_symbol(row), &signature(&[I64], &[]), |f| {
        let args = f.param(0);
        let word = |f: &mut FunctionCx, offset: i32| f.load(I64, args, offset);
        let (acc, w, stride) = (word(f, micro_args::ACC), word(f, micro_args::W), word(f, micro_args::W_PANEL_STRIDE));
        let (panels, q) = (word(f, micro_args::PANELS), word(f, micro_args::Q));
        let blocks = word(f, micro_args::K_BLOCKS);
        let (zero, groups) = (f.i64(0), f.size(nr / LANES));
        f.for_range(zero, panels, 1, |f, panel| {
            let offset = f.ins().imul(panel, stride);
            let w = f.ins().iadd(w, offset);
            let acc = f.index(acc, panel, 4 * nr);
            f.for_range(zero, groups, 1, |f, group| {
                let (w, acc) = (f.index(w, group, 4 * LANES), f.index(acc, group, 4 * LANES));
                let before = load_lanes(f, acc);
                let after = f.for_carried(zero, blocks, 1, &before, |f, block, sums| {
                    let w = f.index(w, block, block_bytes);
                    let q = f.index(q, block, kr);
                    add_block(f, w, q, sums)
                });
                for (i, sum) in after.iter().enumerate() {
                    f.store(*sum, acc, 4 * i32::try_from(i).expect("four rows"));
                }
            });
        });
        f.return_(&[]);
    })
}

/// The words or accumulators of four rows: one `i32x4`, or four `i32` without vectors.
fn load_lanes(f: &mut FunctionCx, at: Value) -> Vec<Value> {
    if f.has_vectors() { vec![f.load(I32X4, at, 0)] } else { (0..4).map(|i| f.load(I32, at, 4 * i)).collect() }
}

/// `value` in every lane of what [`load_lanes`] gives.
fn widen(f: &mut FunctionCx, value: Value) -> Value {
    if f.has_vectors() { f.ins().splat(I32X4, value) } else { value }
}

/// A constant in every lane of what [`load_lanes`] gives.
fn constant(f: &mut FunctionCx, value: i32) -> Value {
    let value = f.i32(value);
    widen(f, value)
}
