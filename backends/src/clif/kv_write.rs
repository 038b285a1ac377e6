//! `KvWrite`: valid rows of keys or values go to their positions in the cache.

use cranelift_codegen::ir::types::{I8, I16, I64};
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use tcc_ir::cache::{BLOCK, CacheLayout, CacheOrder, PART, element_bytes};
use tcc_ir::ty::DType;

use super::func::{FunctionCx, signature};
use super::kernel::Kernel;
use super::lanes::Lanes;
use super::math::to_f16_bits;
use super::quantize::{Scales, absmax_or_flag, quantize_run, scales_of};
use super::rows::for_elements;
use crate::isa::RowPart;

/// Pieces of a row that are copied one after the other, most first.
const SCATTERED: [usize; 2] = [8, 1];

pub(super) fn build(f: &mut FunctionCx, kernel: &Kernel, cache: &CacheLayout, order: CacheOrder) {
    let (x, base) = (kernel.operand(f, 0), kernel.operand(f, 1));
    let (pos, valid, nonfinite) = (kernel.pos(f), kernel.valid(f), kernel.nonfinite(f));
    f.for_range(kernel.begin, kernel.end, 1, |f, head| {
        let elements = f.index(base, head, cache.head_bytes());
        let scales = f.offset(base, cache.scales_offset_bytes());
        let scales = f.index(scales, head, 4 * cache.positions());
        let from = f.index(x, head, 4 * cache.d);
        let first = f.i64(0);
        f.for_range(first, valid, 1, |f, row| {
            let from = f.index(from, row, 4 * cache.heads * cache.d);
            let t = f.ins().iadd(pos, row);
            let scale = f.index(scales, t, 4);
            let row = Row { from, scale, nonfinite };
            if order == CacheOrder::Values && cache.group() == 1 {
                let parts: Vec<_> = (0..cache.parts()).map(|part| part_run(f, cache, elements, t, part)).collect();
                write_row(f, cache, &row, &parts);
                return;
            }
            write_row(f, cache, &row, &[Run { first: 0, count: cache.d, to: kernel.scratch }]);
            match order {
                CacheOrder::Keys => scatter_key(f, cache, kernel.scratch, elements, t),
                CacheOrder::Values => scatter_values(f, cache, kernel.scratch, elements, t),
            }
        });
    });
}

/// Addresses that belong to one row of one head.
struct Row {
    from: Value,
    /// Where the scale goes, if the cache has scales.
    scale: Value,
    nonfinite: Value,
}

/// Elements of a row that are stored side by side, and the address of the first.
struct Run {
    first: usize,
    count: usize,
    to: Value,
}

/// What part `part` of the values at `elements` holds of position `t`.
fn part_run(f: &mut FunctionCx, cache: &CacheLayout, elements: Value, t: Value, part: usize) -> Run {
    let first = part * PART;
    let count = PART.min(cache.d - first);
    let to = f.offset(elements, part * cache.part_bytes());
    Run { first, count, to: f.index(to, t, count * cache.element_bytes()) }
}

/// Writes the elements of a row in the type of the cache to `runs`.
fn write_row(f: &mut FunctionCx, cache: &CacheLayout, row: &Row, runs: &[Run]) {
    if cache.has_scales() {
        let absmax = absmax_or_flag(f, cache.d, row.from, row.nonfinite);
        let Scales { scale, inv_scale } = scales_of(f, absmax);
        f.store(scale, row.scale, 0);
        for run in runs {
            let from = f.offset(row.from, 4 * run.first);
            quantize_run(f, run.count, inv_scale, from, run.to);
        }
        return;
    }
    for run in runs {
        let from = f.offset(row.from, 4 * run.first);
        store_run(f, cache.dtype, run, from);
    }
}

/// Stores the f32 elements at `from` as elements of a cache of type `dtype` without scales.
fn store_run(f: &mut FunctionCx, dtype: DType, run: &Run, from: Value) {
    if dtype == DType::F16 && f.has_row_loop(RowPart::Narrow) {
        let n = f.size(run.count);
        f.call(RowPart::Narrow.symbol(), &signature(&[I64; 3], &[]), &[from, n, run.to]);
        return;
    }
    for_elements(f, run.count, |f, shape, i| {
        let from = f.index(from, i, 4);
        let x = Lanes::load(f, shape, from);
        let to = f.index(run.to, i, element_bytes(dtype));
        match dtype {
            DType::F32 => x.store(f, to),
            DType::F16 => to_f16_bits(f, &x).store_u16(f, to),
            DType::Bf16 | DType::I8 | DType::I32 | DType::U32 | DType::Q8 | DType::Trit => {
                unreachable!("without scales type rules admit f32 and f16 caches, found {dtype}")
            }
        }
    });
}

/// Copies the row at `from` to position `t` of the keys at `elements`: groups of elements, each in its own block.
fn scatter_key(f: &mut FunctionCx, cache: &CacheLayout, from: Value, elements: Value, t: Value) {
    let block = i64::try_from(BLOCK).expect("sixteen");
    let lane = f.ins().band_imm_s(t, block - 1);
    let first = f.ins().isub(t, lane);
    let group_bytes = cache.group() * cache.element_bytes();
    let to = f.index(elements, first, cache.row_bytes());
    let to = f.index(to, lane, group_bytes);
    let groups = cache.d / cache.group();
    scatter(f, group_bytes, groups, [from, to], BLOCK * group_bytes);
    let rest = cache.d % cache.group();
    if rest > 0 {
        let [from, to] = [(from, group_bytes), (to, BLOCK * group_bytes)].map(|(at, step)| f.offset(at, groups * step));
        scatter(f, cache.element_bytes(), rest, [from, to], cache.element_bytes());
    }
}

/// Copies the row at `from` to position `t` of the values at `elements`: each element to its place in a group of
/// positions.
fn scatter_values(f: &mut FunctionCx, cache: &CacheLayout, from: Value, elements: Value, t: Value) {
    let (bytes, group) = (cache.element_bytes(), cache.group());
    let place = f.ins().band_imm_s(t, i64::try_from(group).expect("a few positions") - 1);
    let first = f.ins().isub(t, place);
    for part in 0..cache.parts() {
        let run = part_run(f, cache, elements, first, part);
        let to = f.index(run.to, place, bytes);
        let from = f.offset(from, run.first * bytes);
        scatter(f, bytes, run.count, [from, to], group * bytes);
    }
}

/// Copies `count` pieces of `bytes` bytes that follow each other to places `stride` bytes apart.
fn scatter(f: &mut FunctionCx, bytes: usize, count: usize, [from, to]: [Value; 2], stride: usize) {
    let ty = integer(bytes);
    let mut first = 0;
    for step in SCATTERED {
        let end = count / step * step;
        let range = [first, end].map(|at| f.size(at));
        f.for_range(range[0], range[1], step, |f, i| {
            let (from, to) = (f.index(from, i, bytes), f.index(to, i, stride));
            for j in 0..step {
                let offset = |stride: usize| i32::try_from(j * stride).expect("a few elements");
                let element = f.load(ty, from, offset(bytes));
                f.store(element, to, offset(stride));
            }
        });
        first = end;
    }
}

/// The integer type of `bytes` bytes.
fn integer(bytes: usize) -> Type {
    match bytes {
        1 => I8,
        2 => I16,
        _ => types::I32,
    }
}
