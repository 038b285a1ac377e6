//! The assembled dot product of dense weights with 256 bits (see [`super::dense`]): two registers are the sixteen
//! partials of `numerics::dot`. The last k mod 16 elements are added one by one to partials on the stack.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::xmm::*;
use iced_x86::code_asm::registers::ymm::*;
use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister64, AsmRegisterXmm, AsmRegisterYmm, CodeAssembler, byte_ptr, dword_ptr, word_ptr,
    xmmword_ptr, ymmword_ptr,
};
use tcc_ir::numerics::LANES;
use tcc_ir::ty::DType;

use super::dense::{LINE_BYTES, UNROLL, size_bytes};
use super::fetch::Fetch;
use super::function;
use super::pieces::{int, reduce_halves, while_left};
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
/// Activations and weights of the current block, and columns left.
const X: AsmRegister64 = r10;
const W: AsmRegister64 = r11;
const LEFT: AsmRegister64 = rbx;
/// The partial on the stack that the current element belongs to.
const PARTIAL: AsmRegister64 = rax;

/// Token rows computed together, most first: each widened weight serves all of them.
const GROUPS: [usize; 2] = [2, 1];

/// Partials of each token row, with the lower part of each half.
const PARTIALS: [[(AsmRegisterYmm, AsmRegisterXmm); 2]; 2] =
    [[(ymm0, xmm0), (ymm1, xmm1)], [(ymm2, xmm2), (ymm3, xmm3)]];
const WEIGHTS: [AsmRegisterYmm; 2] = [ymm4, ymm5];
/// A weight, an activation and a partial of the tail.
const TAIL: [AsmRegisterXmm; 3] = [xmm4, xmm5, xmm6];

/// Bytes of a register, and of the partials of a token row.
const WIDTH: usize = 32;
const PARTIALS_BYTES: usize = 4 * LANES;
const STACK_BYTES: usize = GROUPS[0] * PARTIALS_BYTES;

/// The function for weights of type `weight`, which asks for later ones as `fetch` says.
pub(super) fn emit(weight: DType, fetch: Fetch) -> Function {
    let frame_bytes = u32::try_from(8 + 2 * 8 + STACK_BYTES).expect("a few registers");
    function("dense_dot", frame_bytes, |a| {
        a.push(LEFT)?;
        a.push(X_STRIDE)?;
        a.sub(LATER, W_ROW)?;
        a.sub(rsp, int(STACK_BYTES))?;
        a.lea(X_STRIDE, K * 4)?;
        for rows in GROUPS {
            while_left(a, ROWS, rows, |a| row_group(a, weight, rows, fetch))?;
        }
        a.vzeroupper()?;
        a.add(rsp, int(STACK_BYTES))?;
        a.pop(X_STRIDE)?;
        a.pop(LEFT)?;
        a.ret()
    })
}

/// Dot products of the next `rows` token rows; moves [`X_ROW`] and [`OUT`] past them.
fn row_group(a: &mut CodeAssembler, weight: DType, rows: usize, fetch: Fetch) -> Result<(), IcedError> {
    a.mov(X, X_ROW)?;
    a.mov(W, W_ROW)?;
    a.mov(LEFT, K)?;
    for (half, _) in PARTIALS[..rows].as_flattened() {
        a.vxorps(*half, *half, *half)?;
    }
    for unroll in UNROLL {
        while_left(a, LEFT, unroll * LANES, |a| blocks(a, weight, rows, unroll, fetch))?;
    }
    let mut whole = a.create_label();
    a.test(LEFT, LEFT)?;
    a.je(whole)?;
    tail(a, weight, rows)?;
    a.set_label(&mut whole)?;
    for (row, [low, high]) in PARTIALS[..rows].iter().enumerate() {
        reduce_halves(a, *low, *high)?;
        a.vmovss(dword_ptr(OUT + int(4 * row)), low.1)?;
        a.add(X_ROW, X_STRIDE)?;
    }
    a.add(OUT, int(4 * rows))
}

/// `unroll` whole blocks of all token rows.
fn blocks(a: &mut CodeAssembler, weight: DType, rows: usize, unroll: usize, fetch: Fetch) -> Result<(), IcedError> {
    let block_bytes = LANES * size_bytes(weight);
    for line in (0..unroll * block_bytes).step_by(LINE_BYTES) {
        fetch.ask(a, byte_ptr(W + LATER + int(line)))?;
    }
    for block in 0..unroll {
        for (half, weights) in WEIGHTS.into_iter().enumerate() {
            load_weights(a, weight, weights, W + int(block * block_bytes + half * block_bytes / 2))?;
        }
        for (row, partials) in PARTIALS[..rows].iter().enumerate() {
            for (half, ((partials, _), weights)) in partials.iter().zip(WEIGHTS).enumerate() {
                let x = x_address(row, block * 4 * LANES + half * WIDTH);
                a.vfmadd231ps(*partials, weights, ymmword_ptr(x))?;
            }
        }
    }
    a.add(X, int(unroll * 4 * LANES))?;
    a.add(W, int(unroll * block_bytes))
}

/// The columns behind the last block.
fn tail(a: &mut CodeAssembler, weight: DType, rows: usize) -> Result<(), IcedError> {
    let place = |index: usize| ymmword_ptr(rsp + int(WIDTH * index));
    let halves = PARTIALS[..rows].as_flattened();
    for (i, (half, _)) in halves.iter().enumerate() {
        a.vmovups(place(i), *half)?;
    }
    a.mov(PARTIAL, rsp)?;
    while_left(a, LEFT, 1, |a| {
        let [w, x, sum] = TAIL;
        load_weight(a, weight, w)?;
        for row in 0..rows {
            let partial = dword_ptr(PARTIAL + int(row * PARTIALS_BYTES));
            a.vmovss(sum, partial)?;
            a.vmovss(x, dword_ptr(x_address(row, 0)))?;
            a.vfmadd231ss(sum, w, x)?;
            a.vmovss(partial, sum)?;
        }
        a.add(X, 4)?;
        a.add(W, int(size_bytes(weight)))?;
        a.add(PARTIAL, 4)
    })?;
    for (i, (half, _)) in halves.iter().enumerate() {
        a.vmovups(*half, place(i))?;
    }
    a.zero_bytes()
}

/// Widens eight weights at `from` to f32.
fn load_weights(
    a: &mut CodeAssembler,
    weight: DType,
    to: AsmRegisterYmm,
    from: AsmMemoryOperand,
) -> Result<(), IcedError> {
    match weight {
        DType::F32 => a.vmovups(to, ymmword_ptr(from)),
        DType::F16 => a.vcvtph2ps(to, xmmword_ptr(from)),
        DType::Bf16 => {
            a.vpmovzxwd(to, xmmword_ptr(from))?;
            a.vpslld(to, to, 16)
        }
        DType::I8 | DType::I32 | DType::U32 | DType::Q8 | DType::Trit => {
            unreachable!("asked for floats only, found {weight}")
        }
    }
}

/// Widens the weight at [`W`] to f32.
fn load_weight(a: &mut CodeAssembler, weight: DType, to: AsmRegisterXmm) -> Result<(), IcedError> {
    match weight {
        DType::F32 => a.vmovss(to, dword_ptr(W)),
        DType::F16 => {
            a.vpxor(to, to, to)?;
            a.vpinsrw(to, to, word_ptr(W), 0)?;
            a.vcvtph2ps(to, to)
        }
        // Its bits are the upper half of an f32's.
        DType::Bf16 => {
            a.vpxor(to, to, to)?;
            a.vpinsrw(to, to, word_ptr(W), 1)
        }
        DType::I8 | DType::I32 | DType::U32 | DType::Q8 | DType::Trit => {
            unreachable!("asked for floats only, found {weight}")
        }
    }
}

/// Address `at` bytes from the current block of token row `row` of those processed together.
fn x_address(row: usize, at: usize) -> AsmMemoryOperand {
    match row {
        0 => X + int(at),
        _ => X + X_STRIDE + int(at),
    }
}
