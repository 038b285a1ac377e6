//! The assembled dot product of dense weights: `extern "C" fn(x, w, k, rows, out, later)` (see [`Backend::dense_dot`]).
//!
//! One 512-bit register is the sixteen partials of `numerics::dot`; the last k mod 16 elements are masked, which leaves
//! the other partials alone. Weights are one stream of consecutive rows, so that the processor's prefetcher follows
//! them, and are asked for beyond the page that it stops at: rows read side by side reach fewer bytes per second
//! (measured on Zen 5 with bf16 rows of 2560 from memory in pages of 4 KiB: one row 40 GB/s, without prefetches 36,
//! two or four side by side 34).
//!
//! [`Backend::dense_dot`]: crate::isa::Backend::dense_dot

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::xmm::*;
use iced_x86::code_asm::registers::ymm::*;
use iced_x86::code_asm::registers::zmm::*;
use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister64, AsmRegisterXmm, AsmRegisterYmm, AsmRegisterZmm, CodeAssembler, byte_ptr,
    dword_ptr, ymmword_ptr, zmmword_ptr,
};
use tcc_ir::numerics::LANES;
use tcc_ir::ty::DType;

use super::fetch::Fetch;
use super::function;
use super::pieces::{int, reduce, tail_mask, while_left};
use crate::code::Function;

/// First of the token rows left.
const X_ROW: AsmRegister64 = rdi;
/// The weight row.
const W_ROW: AsmRegister64 = rsi;
const K: AsmRegister64 = rdx;
/// Token rows left.
const ROWS: AsmRegister64 = rcx;
const OUT: AsmRegister64 = r8;
/// The later row; then its distance from the weight row.
const LATER: AsmRegister64 = r9;
/// Bytes from one token row to the next.
const X_STRIDE: AsmRegister64 = r12;
/// Three times that.
const X_STRIDE_3: AsmRegister64 = r10;
/// Activations and weights of the current block.
const X: AsmRegister64 = rax;
const W: AsmRegister64 = r11;
/// Columns left, those of the masked tail included.
const LEFT: AsmRegister64 = rbx;

/// The partials of up to four token rows; the widened weights; what is left of a sum.
const PARTIALS: [AsmRegisterZmm; 4] = [zmm0, zmm1, zmm2, zmm3];
const PARTIALS_LOW: [(AsmRegisterYmm, AsmRegisterXmm); 4] = [(ymm0, xmm0), (ymm1, xmm1), (ymm2, xmm2), (ymm3, xmm3)];
const WEIGHTS: AsmRegisterZmm = zmm4;

/// Token rows computed together, most first: each widened weight serves all of them.
const GROUPS: [usize; 3] = [4, 2, 1];

/// Blocks per iteration of the inner loop, most first.
pub(super) const UNROLL: [usize; 2] = [4, 1];

pub(super) const LINE_BYTES: usize = 64;

/// The function named `name` for weights of type `weight`, which asks for later ones as `fetch` says.
pub(super) fn emit(name: &str, weight: DType, fetch: Fetch) -> Function {
    let frame_bytes = 8 + 2 * 8;
    function(name, frame_bytes, |a| {
        a.push(LEFT)?;
        a.push(X_STRIDE)?;
        a.sub(LATER, W_ROW)?;
        tail_mask(a, K)?;
        a.lea(X_STRIDE, K * 4)?;
        a.lea(X_STRIDE_3, X_STRIDE + X_STRIDE * 2)?;
        for rows in GROUPS {
            row_loop(a, weight, rows, fetch)?;
        }
        a.vzeroupper()?;
        a.pop(X_STRIDE)?;
        a.pop(LEFT)?;
        a.ret()
    })
}

/// Runs while at least `rows` token rows are left.
fn row_loop(a: &mut CodeAssembler, weight: DType, rows: usize, fetch: Fetch) -> Result<(), IcedError> {
    while_left(a, ROWS, rows, |a| {
        let mut reduce = a.create_label();
        a.mov(X, X_ROW)?;
        a.mov(W, W_ROW)?;
        a.mov(LEFT, K)?;
        for partials in &PARTIALS[..rows] {
            a.vpxord(*partials, *partials, *partials)?;
        }
        for unroll in UNROLL {
            block_loop(a, weight, rows, unroll, fetch)?;
        }
        a.test(LEFT, LEFT)?;
        a.je(reduce)?;
        load_weights(a, weight, WEIGHTS.k1().z(), 0)?;
        for (row, partials) in PARTIALS[..rows].iter().enumerate() {
            a.vfmadd231ps(partials.k1(), WEIGHTS, zmmword_ptr(x_address(row, 0)))?;
        }
        a.set_label(&mut reduce)?;
        for row in 0..rows {
            store_sum(a, row)?;
        }
        a.add(OUT, int(4 * rows))?;
        (0..rows).try_for_each(|_| a.add(X_ROW, X_STRIDE))
    })
}

/// Runs while at least `unroll` whole blocks are left.
fn block_loop(a: &mut CodeAssembler, weight: DType, rows: usize, unroll: usize, fetch: Fetch) -> Result<(), IcedError> {
    let (columns, bytes) = (unroll * LANES, unroll * LANES * size_bytes(weight));
    while_left(a, LEFT, columns, |a| {
        for line in (0..bytes).step_by(LINE_BYTES) {
            fetch.ask(a, byte_ptr(W + LATER + int(line)))?;
        }
        for block in 0..unroll {
            load_weights(a, weight, WEIGHTS, int(block * LANES * size_bytes(weight)))?;
            for (row, partials) in PARTIALS[..rows].iter().enumerate() {
                a.vfmadd231ps(*partials, WEIGHTS, zmmword_ptr(x_address(row, int(block * LANES * 4))))?;
            }
        }
        a.add(X, int(4 * columns))?;
        a.add(W, int(bytes))
    })
}

/// Widens sixteen weights, `at` bytes from the current block, to f32 in `to`, which may be masked.
fn load_weights(a: &mut CodeAssembler, weight: DType, to: AsmRegisterZmm, at: i32) -> Result<(), IcedError> {
    match weight {
        DType::F32 => a.vmovups(to, zmmword_ptr(W + at)),
        DType::F16 => a.vcvtph2ps(to, ymmword_ptr(W + at)),
        DType::Bf16 => {
            a.vpmovzxwd(to, ymmword_ptr(W + at))?;
            a.vpslld(WEIGHTS, WEIGHTS, 16)
        }
        DType::I8 | DType::I32 | DType::U32 | DType::Q8 | DType::Trit => {
            unreachable!("asked for floats only, found {weight}")
        }
    }
}

/// Adds the partials of token row `row` as `numerics::reduce` does, and stores the sum.
fn store_sum(a: &mut CodeAssembler, row: usize) -> Result<(), IcedError> {
    let (all, (eight, four)) = (PARTIALS[row], PARTIALS_LOW[row]);
    reduce(a, (all, eight, four), (ymm4, xmm4))?;
    a.vmovss(dword_ptr(OUT + int(4 * row)), four)
}

/// Address `at` bytes from the current block of token row `row` of those processed together.
fn x_address(row: usize, at: i32) -> AsmMemoryOperand {
    match row {
        0 => X + at,
        1 => X + X_STRIDE + at,
        2 => X + X_STRIDE * 2 + at,
        _ => X + X_STRIDE_3 + at,
    }
}

pub(super) fn size_bytes(weight: DType) -> usize {
    weight.size_bytes().expect("floats have a size")
}
