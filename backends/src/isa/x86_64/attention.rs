//! The assembled inner loops of attention (see [`AttentionLoops`]): scores of positions, and weighted sums of values.
//!
//! One 512-bit register is the sixteen partials of a score's `numerics::dot`, or sixteen value lanes that stay there
//! over all positions. The last d mod 16 elements of a row are masked.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::eax;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::xmm::*;
use iced_x86::code_asm::registers::ymm::*;
use iced_x86::code_asm::registers::zmm::*;
use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister64, AsmRegisterXmm, AsmRegisterYmm, AsmRegisterZmm, CodeAssembler, dword_ptr,
    xmmword_ptr, ymmword_ptr, zmmword_ptr,
};
use tcc_ir::numerics::LANES;
use tcc_ir::ty::DType;

use super::dense::{int, size_bytes, tail_mask};
use super::function;
use crate::code::Function;
use crate::isa::AttentionLoops;

/// The query, or the exponentials.
const FIRST: AsmRegister64 = rdi;
/// The first of the rows of the cache left, or of the lanes left.
const ROW: AsmRegister64 = rsi;
/// Elements of a row; of values those left.
const D: AsmRegister64 = rdx;
/// Positions: of scores those left.
const SEEN: AsmRegister64 = rcx;
const OUT: AsmRegister64 = r8;
/// Bytes from one position to the next.
const STRIDE: AsmRegister64 = r9;
/// Three times that.
const STRIDE_3: AsmRegister64 = r10;
/// Current element of the query, or current exponential.
const AT: AsmRegister64 = rax;
/// Current element of the cache.
const CACHE_AT: AsmRegister64 = r11;
/// Elements of the row, or positions, left in an inner loop.
const LEFT: AsmRegister64 = rbx;

/// The partials of up to four positions, or up to 128 value lanes.
const SUMS: [AsmRegisterZmm; 8] = [zmm0, zmm1, zmm2, zmm3, zmm4, zmm5, zmm6, zmm7];
const SUMS_LOW: [(AsmRegisterYmm, AsmRegisterXmm); 4] = [(ymm0, xmm0), (ymm1, xmm1), (ymm2, xmm2), (ymm3, xmm3)];
/// Sixteen elements of the query, or the exponential in every lane.
const FACTOR: AsmRegisterZmm = zmm8;
/// Sixteen widened elements of the cache.
const ELEMENTS: AsmRegisterZmm = zmm9;
/// The scale, and the largest scores so far, in four lanes.
const SCALE: AsmRegisterXmm = xmm10;
const LARGEST: AsmRegisterXmm = xmm11;

/// Positions whose scores are computed side by side, most first: their chains of sums hide each other's latency.
const POSITIONS: [usize; 2] = [4, 1];

/// Blocks per iteration of the loop over a key, most first.
const UNROLL: [usize; 2] = [4, 1];

/// Blocks of value lanes kept over all positions, most first.
const VALUE_BLOCKS: [usize; 4] = [8, 4, 2, 1];

const FRAME_BYTES: u32 = 8 + 8;

/// Both functions for caches of type `cache`.
pub(super) fn emit(cache: DType) -> AttentionLoops {
    AttentionLoops { scores: scores(cache), values: values(cache) }
}

fn scores(cache: DType) -> Function {
    function("attention_scores", FRAME_BYTES, |a| {
        a.push(LEFT)?;
        tail_mask(a, D)?;
        a.vbroadcastss(SCALE, xmm0)?;
        a.mov(eax, f32::NEG_INFINITY.to_bits())?;
        a.vmovd(LARGEST, eax)?;
        a.vbroadcastss(LARGEST, LARGEST)?;
        a.lea(STRIDE, D * size_bytes(cache))?;
        a.lea(STRIDE_3, STRIDE + STRIDE * 2)?;
        for positions in POSITIONS {
            position_loop(a, cache, positions)?;
        }
        a.vmovhlps(xmm0, LARGEST, LARGEST)?;
        a.vmaxps(LARGEST, LARGEST, xmm0)?;
        a.vmovshdup(xmm0, LARGEST)?;
        a.vmaxss(xmm0, LARGEST, xmm0)?;
        a.vzeroupper()?;
        a.pop(LEFT)?;
        a.ret()
    })
}

/// Runs while at least `positions` positions are left.
fn position_loop(a: &mut CodeAssembler, cache: DType, positions: usize) -> Result<(), IcedError> {
    let [mut top, mut done, mut reduce] = std::array::from_fn(|_| a.create_label());
    a.set_label(&mut top)?;
    a.cmp(SEEN, int(positions))?;
    a.jb(done)?;
    a.mov(AT, FIRST)?;
    a.mov(CACHE_AT, ROW)?;
    a.mov(LEFT, D)?;
    clear(a, positions)?;
    for unroll in UNROLL {
        key_loop(a, cache, positions, unroll)?;
    }
    a.test(LEFT, LEFT)?;
    a.je(reduce)?;
    a.vmovups(FACTOR.k1().z(), zmmword_ptr(AT))?;
    for (i, sum) in SUMS[..positions].iter().enumerate() {
        load(a, cache, ELEMENTS.k1().z(), key_address(i, 0))?;
        a.vfmadd231ps(sum.k1(), FACTOR, ELEMENTS)?;
    }
    a.set_label(&mut reduce)?;
    store_scores(a, positions)?;
    a.add(OUT, int(4 * positions))?;
    a.lea(ROW, ROW + STRIDE * positions)?;
    a.sub(SEEN, int(positions))?;
    a.jmp(top)?;
    a.set_label(&mut done)?;
    a.zero_bytes()
}

/// Runs while at least `unroll` whole blocks of the keys are left.
fn key_loop(a: &mut CodeAssembler, cache: DType, positions: usize, unroll: usize) -> Result<(), IcedError> {
    let [mut top, mut done] = [a.create_label(), a.create_label()];
    let columns = unroll * LANES;
    a.cmp(LEFT, int(columns))?;
    a.jb(done)?;
    a.set_label(&mut top)?;
    for block in 0..unroll {
        a.vmovups(FACTOR, zmmword_ptr(AT + int(block * LANES * 4)))?;
        for (i, sum) in SUMS[..positions].iter().enumerate() {
            load(a, cache, ELEMENTS, key_address(i, int(block * LANES * size_bytes(cache))))?;
            a.vfmadd231ps(*sum, FACTOR, ELEMENTS)?;
        }
    }
    a.add(AT, int(4 * columns))?;
    a.add(CACHE_AT, int(columns * size_bytes(cache)))?;
    a.sub(LEFT, int(columns))?;
    a.cmp(LEFT, int(columns))?;
    a.jae(top)?;
    a.set_label(&mut done)?;
    a.zero_bytes()
}

/// Adds the partials of each position as `numerics::reduce` does, scales the sums, stores them, and keeps the largest.
fn store_scores(a: &mut CodeAssembler, positions: usize) -> Result<(), IcedError> {
    for (all, (eight, four)) in SUMS.into_iter().zip(SUMS_LOW).take(positions) {
        a.vextractf32x8(ymm9, all, 1)?;
        a.vaddps(eight, eight, ymm9)?;
        a.vextractf128(xmm9, eight, 1)?;
        a.vaddps(four, four, xmm9)?;
    }
    if positions == 1 {
        a.vmovhlps(xmm9, xmm0, xmm0)?;
        a.vaddps(xmm0, xmm0, xmm9)?;
        a.vmovshdup(xmm9, xmm0)?;
        a.vaddss(xmm0, xmm0, xmm9)?;
        a.vmulss(xmm0, xmm0, SCALE)?;
        a.vbroadcastss(xmm0, xmm0)?;
        a.vmaxps(LARGEST, xmm0, LARGEST)?;
        return a.vmovss(dword_ptr(OUT), xmm0);
    }
    add_halves(a, [xmm0, xmm1], xmm0)?;
    add_halves(a, [xmm2, xmm3], xmm2)?;
    a.vshufps(xmm9, xmm0, xmm2, 0b11_01_11_01)?;
    a.vshufps(xmm0, xmm0, xmm2, 0b10_00_10_00)?;
    a.vaddps(xmm0, xmm0, xmm9)?;
    a.vmulps(xmm0, xmm0, SCALE)?;
    a.vmaxps(LARGEST, xmm0, LARGEST)?;
    a.vmovups(xmmword_ptr(OUT), xmm0)
}

/// Adds the upper two lanes of each operand to the lower two: `to` holds both results side by side.
fn add_halves(a: &mut CodeAssembler, from: [AsmRegisterXmm; 2], to: AsmRegisterXmm) -> Result<(), IcedError> {
    a.vunpckhpd(xmm9, from[0], from[1])?;
    a.vunpcklpd(to, from[0], from[1])?;
    a.vaddps(to, to, xmm9)
}

fn values(cache: DType) -> Function {
    function("attention_values", FRAME_BYTES, |a| {
        let mut done = a.create_label();
        a.push(LEFT)?;
        tail_mask(a, D)?;
        a.lea(STRIDE, D * size_bytes(cache))?;
        for blocks in VALUE_BLOCKS {
            lane_loop(a, cache, blocks)?;
        }
        a.test(D, D)?;
        a.je(done)?;
        clear(a, 1)?;
        sum_positions(a, |a| {
            load(a, cache, ELEMENTS.k1().z(), CACHE_AT + 0)?;
            a.vfmadd231ps(SUMS[0].k1(), FACTOR, ELEMENTS)
        })?;
        a.vmovups(zmmword_ptr(OUT).k1(), SUMS[0])?;
        a.set_label(&mut done)?;
        a.vzeroupper()?;
        a.pop(LEFT)?;
        a.ret()
    })
}

/// Runs while at least `blocks` whole blocks of lanes are left.
fn lane_loop(a: &mut CodeAssembler, cache: DType, blocks: usize) -> Result<(), IcedError> {
    let [mut top, mut done] = [a.create_label(), a.create_label()];
    let lanes = blocks * LANES;
    a.set_label(&mut top)?;
    a.cmp(D, int(lanes))?;
    a.jb(done)?;
    clear(a, blocks)?;
    sum_positions(a, |a| {
        for (block, sum) in SUMS[..blocks].iter().enumerate() {
            load(a, cache, ELEMENTS, CACHE_AT + int(block * LANES * size_bytes(cache)))?;
            a.vfmadd231ps(*sum, FACTOR, ELEMENTS)?;
        }
        Ok(())
    })?;
    for (block, sum) in SUMS[..blocks].iter().enumerate() {
        a.vmovups(zmmword_ptr(OUT + int(block * LANES * 4)), *sum)?;
    }
    a.add(OUT, int(4 * lanes))?;
    a.add(ROW, int(lanes * size_bytes(cache)))?;
    a.sub(D, int(lanes))?;
    a.jmp(top)?;
    a.set_label(&mut done)?;
    a.zero_bytes()
}

/// Runs `add` for every position, with its exponential in every lane of the factor.
fn sum_positions(
    a: &mut CodeAssembler,
    add: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Result<(), IcedError> {
    let mut top = a.create_label();
    a.mov(AT, FIRST)?;
    a.mov(CACHE_AT, ROW)?;
    a.mov(LEFT, SEEN)?;
    a.set_label(&mut top)?;
    a.vbroadcastss(FACTOR, dword_ptr(AT))?;
    add(a)?;
    a.add(AT, 4)?;
    a.add(CACHE_AT, STRIDE)?;
    a.dec(LEFT)?;
    a.jne(top)
}

fn clear(a: &mut CodeAssembler, count: usize) -> Result<(), IcedError> {
    for sum in &SUMS[..count] {
        a.vpxord(*sum, *sum, *sum)?;
    }
    Ok(())
}

/// Widens sixteen elements of the cache at `from` to f32 in `to`, which may be masked.
fn load(a: &mut CodeAssembler, cache: DType, to: AsmRegisterZmm, from: AsmMemoryOperand) -> Result<(), IcedError> {
    match cache {
        DType::F32 => a.vmovups(to, zmmword_ptr(from)),
        DType::F16 => a.vcvtph2ps(to, ymmword_ptr(from)),
        DType::Bf16 | DType::I8 | DType::I32 | DType::U32 | DType::Trit => {
            unreachable!("type rules admit f32 and f16 caches, found {cache}")
        }
    }
}

/// Address `at` bytes from the current block of key `i` of those processed together.
fn key_address(i: usize, at: i32) -> AsmMemoryOperand {
    match i {
        0 => CACHE_AT + at,
        1 => CACHE_AT + STRIDE + at,
        2 => CACHE_AT + STRIDE * 2 + at,
        _ => CACHE_AT + STRIDE_3 + at,
    }
}
