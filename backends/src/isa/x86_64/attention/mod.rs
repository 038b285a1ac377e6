//! The assembled loops of attention with 512 bits (see [`AttentionPart`]).
//!
//! One register is sixteen positions of scores, or sixteen lanes of values; no step goes across lanes but in the two
//! reductions of softmax. Four queries share each register of the cache.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::eax;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::k2;
use iced_x86::code_asm::registers::xmm::*;
use iced_x86::code_asm::registers::ymm::*;
use iced_x86::code_asm::registers::zmm::*;
use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister64, AsmRegisterZmm, CodeAssembler, byte_ptr, dword_ptr, qword_ptr, xmmword_ptr,
    ymmword_ptr, zmmword_ptr,
};
use tcc_ir::cache::BLOCK;
use tcc_ir::numerics::{EXP_MIN, EXP_POLY, LANES, LN2_HIGH, LN2_LOW, LOG2_E, ROUND_MAGIC};
use tcc_ir::ty::DType;

use super::dense::{int, tail_mask};
use super::function;
use crate::code::Function;
use crate::isa::AttentionPart;

/// Callee-saved registers that scores and values use.
const SAVED: [AsmRegister64; 6] = [rbx, rbp, r12, r13, r14, r15];

/// Queries processed together, most first.
const QUERIES: [usize; 3] = [4, 2, 1];

/// Blocks of sixteen value lanes processed together, most first.
const VALUE_BLOCKS: [usize; 2] = [4, 1];

/// Steps of a dot product per iteration, most first.
const UNROLL: [usize; 2] = [4, 1];

/// How far ahead of what is widened the cache is fetched, bytes: the chunk after the next.
const PREFETCH_BYTES: i32 = 8192;

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

const REGISTERS: [AsmRegisterZmm; 32] = [
    zmm0, zmm1, zmm2, zmm3, zmm4, zmm5, zmm6, zmm7, zmm8, zmm9, zmm10, zmm11, zmm12, zmm13, zmm14, zmm15, zmm16, zmm17,
    zmm18, zmm19, zmm20, zmm21, zmm22, zmm23, zmm24, zmm25, zmm26, zmm27, zmm28, zmm29, zmm30, zmm31,
];

/// The function of `part`.
pub(super) fn emit(part: AttentionPart) -> Function {
    match part {
        AttentionPart::Widen(from) => widen(from),
        AttentionPart::Scores => scores(),
        AttentionPart::Softmax => softmax(),
        AttentionPart::Values => values(),
    }
}

/// A function that saves [`SAVED`] and has `stack_bytes` of its own at the stack pointer.
fn with_saved(
    name: &str,
    stack_bytes: usize,
    fill: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Function {
    let frame_bytes = u32::try_from(8 + 8 * SAVED.len() + stack_bytes).expect("a few registers");
    function(name, frame_bytes, |a| {
        SAVED.iter().try_for_each(|register| a.push(*register))?;
        if stack_bytes > 0 {
            a.sub(rsp, int(stack_bytes))?;
        }
        fill(a)?;
        a.vzeroupper()?;
        if stack_bytes > 0 {
            a.add(rsp, int(stack_bytes))?;
        }
        SAVED.iter().rev().try_for_each(|register| a.pop(*register))?;
        a.ret()
    })
}

/// Address of the seventh argument in a function of [`with_saved`].
fn stack_argument(stack_bytes: usize) -> AsmMemoryOperand {
    qword_ptr(rsp + int(8 + 8 * SAVED.len() + stack_bytes))
}

/// Runs `body` while `left` is at least `count`.
fn while_left(
    a: &mut CodeAssembler,
    left: AsmRegister64,
    count: usize,
    body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Result<(), IcedError> {
    let [mut top, mut done] = [a.create_label(), a.create_label()];
    a.cmp(left, int(count))?;
    a.jb(done)?;
    a.set_label(&mut top)?;
    body(a)?;
    a.sub(left, int(count))?;
    a.cmp(left, int(count))?;
    a.jae(top)?;
    a.set_label(&mut done)?;
    a.zero_bytes()
}

/// `extern "C" fn(from, to, n)`.
fn widen(cache: DType) -> Function {
    let (from, to, n, element_bytes) = (rdi, rsi, rdx, if cache == DType::F16 { 2 } else { 1 });
    function("attention_widen", 8, |a| {
        let mut done = a.create_label();
        tail_mask(a, n)?;
        for blocks in [8, 1] {
            while_left(a, n, blocks * LANES, |a| {
                for line in (0..blocks * LANES * element_bytes).step_by(LINE_BYTES) {
                    a.prefetcht0(byte_ptr(from + PREFETCH_BYTES + int(line)))?;
                }
                for (block, register) in REGISTERS[..blocks].iter().enumerate() {
                    load_widened(a, cache, *register, from + int(block * LANES * element_bytes))?;
                    a.vmovups(zmmword_ptr(to + int(block * LANES * 4)), *register)?;
                }
                a.add(from, int(blocks * LANES * element_bytes))?;
                a.add(to, int(blocks * LANES * 4))
            })?;
        }
        a.test(n, n)?;
        a.je(done)?;
        load_widened(a, cache, zmm0.k1().z(), from + 0)?;
        a.vmovups(zmmword_ptr(to).k1(), zmm0)?;
        a.set_label(&mut done)?;
        a.vzeroupper()?;
        a.ret()
    })
}

/// Sixteen elements of a cache as f32 in `to`, which may be masked.
fn load_widened(
    a: &mut CodeAssembler,
    cache: DType,
    to: AsmRegisterZmm,
    from: AsmMemoryOperand,
) -> Result<(), IcedError> {
    match cache {
        DType::F16 => a.vcvtph2ps(to, ymmword_ptr(from)),
        DType::Q8 => {
            a.vpmovsxbd(to, xmmword_ptr(from))?;
            a.vcvtdq2ps(to, to)
        }
        DType::F32 | DType::Bf16 | DType::I8 | DType::I32 | DType::U32 | DType::Trit => {
            unreachable!("no cache of {cache} is widened")
        }
    }
}

// Scores.

/// Blocks of keys processed together, most first.
const SCORE_BLOCKS: [usize; 2] = [2, 1];
/// Bytes of one element of all keys of a block.
const KEY_BYTES: usize = 4 * BLOCK;
/// Additions that lead from sixteen partials to a sum, one after the other.
const LEVELS: usize = LANES.trailing_zeros() as usize;
/// Registers of sums; keys and factors lie behind them.
const SCORE_REGISTERS: usize = 24;
/// Stack for the half-finished sums of the last two levels of the largest tile.
const HALVES_BYTES: usize = 2 * QUERIES[0] * SCORE_BLOCKS[0] * 4 * LANES;

/// Queries of the current group, and the current step within them.
const Q: AsmRegister64 = r12;
const Q_AT: AsmRegister64 = rax;
/// Bytes from one query to the next, and three times that.
const Q_STRIDE: AsmRegister64 = r10;
const Q_STRIDE_3: AsmRegister64 = r11;
/// The current block of keys, and the current step within it.
const K: AsmRegister64 = rsi;
const K_AT: AsmRegister64 = r14;
/// Bytes of a block of keys.
const K_BYTES: AsmRegister64 = rdx;
/// Scores of the current block for the current queries.
const OUT: AsmRegister64 = r13;
/// Bytes from the scores or factors of one query to the next.
const STRIDE: AsmRegister64 = r9;
const BLOCKS_LEFT: AsmRegister64 = rbx;
const QUERIES_LEFT: AsmRegister64 = rbp;
/// Steps left of a partial.
const STEPS_LEFT: AsmRegister64 = r15;

/// `extern "C" fn(q, k, d, queries, out, stride, blocks)`.
fn scores() -> Function {
    let (first_query, d, queries, first_out) = (rdi, rdx, rcx, r8);
    with_saved("attention_scores", HALVES_BYTES, |a| {
        a.mov(BLOCKS_LEFT, stack_argument(HALVES_BYTES))?;
        a.lea(Q_STRIDE, d * 4)?;
        a.lea(Q_STRIDE_3, Q_STRIDE + Q_STRIDE * 2)?;
        a.shl(K_BYTES, KEY_BYTES.trailing_zeros())?;
        for blocks in SCORE_BLOCKS {
            while_left(a, BLOCKS_LEFT, blocks, |a| {
                a.mov(Q, first_query)?;
                a.mov(OUT, first_out)?;
                a.mov(QUERIES_LEFT, queries)?;
                for queries in QUERIES {
                    while_left(a, QUERIES_LEFT, queries, |a| {
                        score_tile(a, Tile { queries, blocks })?;
                        a.lea(Q, Q + Q_STRIDE * queries)?;
                        a.lea(OUT, OUT + STRIDE * queries)
                    })?;
                }
                a.add(first_out, int(4 * BLOCK * blocks))?;
                a.lea(K, K + K_BYTES * blocks)
            })?;
        }
        a.zero_bytes()
    })
}

/// Sums kept side by side: those of one query lie together.
#[derive(Clone, Copy)]
struct Tile {
    queries: usize,
    blocks: usize,
}

impl Tile {
    fn sums(self) -> usize {
        self.queries * self.blocks
    }

    fn group(self, level: usize) -> &'static [AsmRegisterZmm] {
        &REGISTERS[level * self.sums()..][..self.sums()]
    }

    /// Levels of sums that registers hold, beside the current ones.
    fn register_levels(self) -> usize {
        (SCORE_REGISTERS / self.sums() - 1).min(LEVELS)
    }
}

/// Address of half-finished sum `i` of a level that registers do not hold.
fn half_address(tile: Tile, level: usize, i: usize) -> AsmMemoryOperand {
    zmmword_ptr(rsp + int(((level - tile.register_levels() - 1) * tile.sums() + i) * 4 * LANES))
}

/// The dot products of a tile's queries with the sixteen keys of each of its blocks.
///
/// Partials are computed in bit-reversed order, so that `numerics::reduce` adds neighbors: level n of the sums waits
/// for its other half in register group n, or on the stack; the current one is group 0.
fn score_tile(a: &mut CodeAssembler, tile: Tile) -> Result<(), IcedError> {
    let sums = tile.group(0);
    for index in 0..LANES {
        let partial = index.reverse_bits() >> (usize::BITS - LANES.trailing_zeros());
        score_partial(a, partial, tile)?;
        let complete = index.trailing_ones() as usize;
        for level in 1..=complete {
            for (i, sum) in sums.iter().enumerate() {
                match level <= tile.register_levels() {
                    true => a.vaddps(*sum, *sum, tile.group(level)[i])?,
                    false => a.vaddps(*sum, *sum, half_address(tile, level, i))?,
                }
            }
        }
        let level = complete + 1;
        for (i, sum) in sums.iter().enumerate().filter(|_| index + 1 < LANES) {
            match level <= tile.register_levels() {
                true => a.vmovaps(tile.group(level)[i], *sum)?,
                false => a.vmovups(half_address(tile, level, i), *sum)?,
            }
        }
    }
    a.mov(Q_AT, OUT)?;
    for of_query in sums.chunks_exact(tile.blocks) {
        for (block, sum) in of_query.iter().enumerate() {
            a.vmovups(zmmword_ptr(Q_AT + int(4 * BLOCK * block)), *sum)?;
        }
        a.add(Q_AT, STRIDE)?;
    }
    a.zero_bytes()
}

/// One partial of the dot products of a tile.
fn score_partial(a: &mut CodeAssembler, partial: usize, tile: Tile) -> Result<(), IcedError> {
    let sums = tile.group(0);
    let [keys, factors] = [SCORE_REGISTERS, SCORE_REGISTERS + 2].map(|first| &REGISTERS[first..]);
    for sum in sums {
        a.vpxord(*sum, *sum, *sum)?;
    }
    a.lea(STEPS_LEFT, K_BYTES + int((LANES - 1 - partial) * KEY_BYTES))?;
    a.shr(STEPS_LEFT, (LANES * KEY_BYTES).trailing_zeros())?;
    a.lea(K_AT, K + int(partial * KEY_BYTES))?;
    a.lea(Q_AT, Q + int(partial * 4))?;
    for unroll in UNROLL {
        while_left(a, STEPS_LEFT, unroll, |a| {
            for step in 0..unroll {
                for (block, keys) in keys[..tile.blocks].iter().enumerate() {
                    a.vmovups(*keys, zmmword_ptr(key_address(block, int(step * LANES * KEY_BYTES))))?;
                }
                for (query, of_query) in sums.chunks_exact(tile.blocks).enumerate() {
                    a.vbroadcastss(factors[query], dword_ptr(query_address(query, int(step * LANES * 4))))?;
                    for (sum, keys) in of_query.iter().zip(keys) {
                        a.vfmadd231ps(*sum, *keys, factors[query])?;
                    }
                }
            }
            a.add(K_AT, int(unroll * LANES * KEY_BYTES))?;
            a.add(Q_AT, int(unroll * LANES * 4))
        })?;
    }
    a.zero_bytes()
}

fn key_address(block: usize, at: i32) -> AsmMemoryOperand {
    if block == 0 { K_AT + at } else { K_AT + K_BYTES + at }
}

fn query_address(query: usize, at: i32) -> AsmMemoryOperand {
    match query {
        0 => Q_AT + at,
        1 => Q_AT + Q_STRIDE + at,
        2 => Q_AT + Q_STRIDE * 2 + at,
        _ => Q_AT + Q_STRIDE_3 + at,
    }
}

// Values.

const D: AsmRegister64 = rdx;

/// Factors of the current queries, and the current position's.
const E: AsmRegister64 = rdi;
const E_AT: AsmRegister64 = rax;
/// Three times [`STRIDE`].
const STRIDE_3: AsmRegister64 = r11;
/// Sums of the current queries, and their current lanes.
const SUMS: AsmRegister64 = r8;
const SUMS_LANE: AsmRegister64 = r13;
/// Values of the first position in the current lanes, and of the current one.
const V_LANE: AsmRegister64 = r12;
const V_AT: AsmRegister64 = r14;
/// Bytes of a row of values or sums.
const ROW: AsmRegister64 = r10;
const POSITIONS: AsmRegister64 = rbx;
const POSITIONS_LEFT: AsmRegister64 = r15;
const LANES_LEFT: AsmRegister64 = rbp;

/// `extern "C" fn(e, v, d, queries, sums, stride, positions)`.
fn values() -> Function {
    let (first_value, queries) = (rsi, rcx);
    with_saved("attention_values", 0, |a| {
        a.mov(POSITIONS, stack_argument(0))?;
        tail_mask(a, D)?;
        a.lea(ROW, D * 4)?;
        a.lea(STRIDE_3, STRIDE + STRIDE * 2)?;
        for count in QUERIES {
            while_left(a, queries, count, |a| {
                let mut done = a.create_label();
                a.mov(V_LANE, first_value)?;
                a.mov(SUMS_LANE, SUMS)?;
                a.mov(LANES_LEFT, D)?;
                for blocks in VALUE_BLOCKS {
                    while_left(a, LANES_LEFT, blocks * LANES, |a| {
                        value_tile(a, count, blocks, false)?;
                        a.add(V_LANE, int(blocks * LANES * 4))?;
                        a.add(SUMS_LANE, int(blocks * LANES * 4))
                    })?;
                }
                a.test(LANES_LEFT, LANES_LEFT)?;
                a.je(done)?;
                value_tile(a, count, 1, true)?;
                a.set_label(&mut done)?;
                a.lea(E, E + STRIDE * count)?;
                a.lea(SUMS, SUMS + ROW * count)
            })?;
        }
        a.zero_bytes()
    })
}

/// Adds all positions to the sums of `count` queries in `blocks` blocks of lanes, or in what is left of one.
fn value_tile(a: &mut CodeAssembler, count: usize, blocks: usize, is_tail: bool) -> Result<(), IcedError> {
    let [sums, values, factors] = [0, 16, 20].map(|first| &REGISTERS[first..]);
    let masked = |register: AsmRegisterZmm| if is_tail { register.k1() } else { register };
    let zeroed = |register: AsmRegisterZmm| if is_tail { register.k1().z() } else { register };
    let mut top = a.create_label();
    for_sums(a, count, |a, query| {
        for block in 0..blocks {
            let from = zmmword_ptr(V_AT + int(block * LANES * 4));
            a.vmovups(zeroed(sums[query * blocks + block]), from)?;
        }
        a.zero_bytes()
    })?;
    a.mov(V_AT, V_LANE)?;
    a.mov(E_AT, E)?;
    a.mov(POSITIONS_LEFT, POSITIONS)?;
    a.set_label(&mut top)?;
    for (block, value) in values[..blocks].iter().enumerate() {
        a.vmovups(zeroed(*value), zmmword_ptr(V_AT + int(block * LANES * 4)))?;
    }
    for query in 0..count {
        a.vbroadcastss(factors[query], dword_ptr(factor_address(query)))?;
        for (block, value) in values[..blocks].iter().enumerate() {
            a.vfmadd231ps(masked(sums[query * blocks + block]), factors[query], *value)?;
        }
    }
    a.add(V_AT, ROW)?;
    a.add(E_AT, 4)?;
    a.dec(POSITIONS_LEFT)?;
    a.jne(top)?;
    for_sums(a, count, |a, query| {
        for block in 0..blocks {
            let to = zmmword_ptr(V_AT + int(block * LANES * 4));
            a.vmovups(to_masked(to, is_tail), sums[query * blocks + block])?;
        }
        a.zero_bytes()
    })
}

fn to_masked(to: AsmMemoryOperand, is_tail: bool) -> AsmMemoryOperand {
    if is_tail { to.k1() } else { to }
}

/// Runs `body` for each of `count` queries with its current sums at [`V_AT`].
fn for_sums(
    a: &mut CodeAssembler,
    count: usize,
    body: impl Fn(&mut CodeAssembler, usize) -> Result<(), IcedError>,
) -> Result<(), IcedError> {
    a.mov(V_AT, SUMS_LANE)?;
    for query in 0..count {
        body(a, query)?;
        a.add(V_AT, ROW)?;
    }
    a.zero_bytes()
}

fn factor_address(query: usize) -> AsmMemoryOperand {
    match query {
        0 => E_AT + 0,
        1 => E_AT + STRIDE + 0,
        2 => E_AT + STRIDE * 2 + 0,
        _ => E_AT + STRIDE_3 + 0,
    }
}

// Softmax.

/// The scale, then the constants of the exponential.
const SCALE: AsmRegisterZmm = zmm16;
const LARGEST: AsmRegisterZmm = zmm17;
const TOTAL: AsmRegisterZmm = zmm18;
const LOWEST: AsmRegisterZmm = zmm19;
/// Of these, `r = fma(n, -LN2, x)` is one subtraction, rounded once.
const CONSTANTS: [(AsmRegisterZmm, f32); 7] = [
    (zmm20, EXP_MIN),
    (zmm21, LOG2_E),
    (zmm22, ROUND_MAGIC),
    (zmm23, LN2_HIGH),
    (zmm24, LN2_LOW),
    (zmm25, 1.0),
    (LOWEST, f32::NEG_INFINITY),
];
const POLY: [AsmRegisterZmm; 6] = [zmm26, zmm27, zmm28, zmm29, zmm30, zmm31];

/// `extern "C" fn(e, seen, k_scales, v_scales, scale) -> f32`.
fn softmax() -> Function {
    let (e, seen, k_scales, v_scales) = (rdi, rsi, rdx, rcx);
    let (at, left) = (rax, r8);
    function("attention_softmax", 8, |a| {
        tail_mask(a, seen)?;
        a.vbroadcastss(SCALE, xmm0)?;
        for (register, value) in CONSTANTS.into_iter().chain(POLY.into_iter().zip(EXP_POLY)) {
            a.mov(eax, value.to_bits())?;
            a.vpbroadcastd(register, eax)?;
        }
        a.vmovaps(LARGEST, LOWEST)?;
        choose(a, k_scales, |a, scales| {
            a.mov(left, seen)?;
            a.xor(at, at)?;
            while_left(a, left, LANES, |a| scale_block(a, e + at, scales.map(|s| s + at), false))?;
            a.test(left, left)?;
            let mut done = a.create_label();
            a.je(done)?;
            scale_block(a, e + at, scales.map(|s| s + at), true)?;
            a.set_label(&mut done)?;
            a.zero_bytes()
        })?;
        largest_lane(a)?;
        a.vpxord(TOTAL, TOTAL, TOTAL)?;
        choose(a, v_scales, |a, scales| {
            a.lea(left, seen + int(LANES - 1))?;
            a.xor(at, at)?;
            while_left(a, left, LANES, |a| exponential_block(a, e + at, scales.map(|s| s + at)))
        })?;
        reduce_total(a)?;
        a.vzeroupper()?;
        a.ret()
    })
}

/// Emits `body` for scales at `scales`, and for none where that is null.
fn choose(
    a: &mut CodeAssembler,
    scales: AsmRegister64,
    body: impl Fn(&mut CodeAssembler, Option<AsmRegister64>) -> Result<(), IcedError>,
) -> Result<(), IcedError> {
    let [mut none, mut done] = [a.create_label(), a.create_label()];
    a.test(scales, scales)?;
    a.je(none)?;
    body(a, Some(scales))?;
    a.jmp(done)?;
    a.set_label(&mut none)?;
    body(a, None)?;
    a.set_label(&mut done)?;
    a.zero_bytes()
}

/// Scales sixteen dot products, or what is left of a block, whose other lanes become minus infinity.
fn scale_block(
    a: &mut CodeAssembler,
    e: AsmMemoryOperand,
    scales: Option<AsmMemoryOperand>,
    is_tail: bool,
) -> Result<(), IcedError> {
    a.vmovups(zmm0, zmmword_ptr(e))?;
    if let Some(scales) = scales {
        a.vmulps(zmm0, zmm0, zmmword_ptr(scales))?;
    }
    a.vmulps(zmm0, zmm0, SCALE)?;
    if is_tail {
        a.vblendmps(zmm0.k1(), LOWEST, zmm0)?;
    }
    a.vmovups(zmmword_ptr(e), zmm0)?;
    a.vmaxps(LARGEST, zmm0, LARGEST)?;
    a.add(rax, int(4 * LANES))
}

/// The largest lane of [`LARGEST`] in all of them.
fn largest_lane(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.vextractf32x8(ymm0, LARGEST, 1)?;
    a.vmaxps(zmm0, zmm0, LARGEST)?;
    a.vextractf128(xmm1, ymm0, 1)?;
    a.vmaxps(xmm0, xmm0, xmm1)?;
    a.vmovhlps(xmm1, xmm0, xmm0)?;
    a.vmaxps(xmm0, xmm0, xmm1)?;
    a.vmovshdup(xmm1, xmm0)?;
    a.vmaxss(xmm0, xmm0, xmm1)?;
    a.vbroadcastss(LARGEST, xmm0)
}

/// `numerics::exp` of sixteen scores less the largest, which are not above 0, so that its upper bound never acts.
fn exponential_block(
    a: &mut CodeAssembler,
    e: AsmMemoryOperand,
    scales: Option<AsmMemoryOperand>,
) -> Result<(), IcedError> {
    let [smallest, log2_e, magic, ln2_high, ln2_low, one] = std::array::from_fn(|i| CONSTANTS[i].0);
    let (x, biased, n, r, p) = (zmm0, zmm1, zmm2, zmm3, zmm4);
    a.vmovups(x, zmmword_ptr(e))?;
    a.vsubps(x, x, LARGEST)?;
    a.vmulps(biased, x, log2_e)?;
    a.vaddps(biased, biased, magic)?;
    a.vsubps(n, biased, magic)?;
    a.vmovaps(r, x)?;
    a.vfnmadd231ps(r, n, ln2_high)?;
    a.vfnmadd231ps(r, n, ln2_low)?;
    a.vmovaps(p, POLY[0])?;
    for coefficient in &POLY[1..] {
        a.vfmadd213ps(p, r, *coefficient)?;
    }
    a.vmulps(n, r, r)?;
    a.vfmadd213ps(p, n, r)?;
    a.vaddps(p, p, one)?;
    // The magic number's low nine bits are 0, so shifting the biased sum by 23 leaves n in the exponent field.
    a.vpslld(biased, biased, 23)?;
    a.vpaddd(p, p, biased)?;
    // Not less than: predicate 5.
    a.vcmpps(k2, x, smallest, 5)?;
    a.vmovaps(p.k2().z(), p)?;
    a.vaddps(TOTAL, TOTAL, p)?;
    if let Some(scales) = scales {
        a.vmulps(p, p, zmmword_ptr(scales))?;
    }
    a.vmovups(zmmword_ptr(e), p)?;
    a.add(rax, int(4 * LANES))
}

/// `numerics::reduce` of [`TOTAL`] to xmm0.
fn reduce_total(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.vextractf32x8(ymm0, TOTAL, 1)?;
    a.vaddps(zmm0, zmm0, TOTAL)?;
    a.vextractf128(xmm1, ymm0, 1)?;
    a.vaddps(xmm0, xmm0, xmm1)?;
    a.vmovhlps(xmm1, xmm0, xmm0)?;
    a.vaddps(xmm0, xmm0, xmm1)?;
    a.vmovshdup(xmm1, xmm0)?;
    a.vaddss(xmm0, xmm0, xmm1)
}
