//! Sums of products of codes with 256 bits: of queries and keys in pairs of 16-bit integers, of weights and values in
//! fours of bytes. AVX-VNNI does either in one instruction; AVX2 has one for products and one or two for sums.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::eax;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::xmm::*;
use iced_x86::code_asm::registers::ymm::*;
use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister64, AsmRegisterYmm, CodeAssembler, dword_ptr, qword_ptr, xmmword_ptr, ymmword_ptr,
};
use tcc_ir::attention_codes::{QueryCodes, WeightCodes};
use tcc_ir::cache::{BLOCK, GROUP};

use super::codes_avx2::{REGISTER_LANES, TAIL, tail_masks};
use super::{QUERIES, STRIDE, stack_argument, with_saved};
use crate::code::Function;
use crate::isa::x86_64::pieces::{int, while_left};

/// Sums of up to four queries, two for each; then keys or values; then what a query multiplies them by, and products.
const SUMS: [AsmRegisterYmm; 8] = [ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7];
const LOADED: [AsmRegisterYmm; 2] = [ymm8, ymm9];
const FACTOR: AsmRegisterYmm = ymm10;
const PRODUCTS: AsmRegisterYmm = ymm11;
/// Sixteen times 1.
const ONES: AsmRegisterYmm = ymm12;

/// Sums of a query, by number.
fn sums(query: usize) -> [AsmRegisterYmm; 2] {
    [SUMS[2 * query], SUMS[2 * query + 1]]
}

/// Positions of a tile of scores: two registers of 16-bit elements, four positions each.
const POSITIONS: usize = 8;

/// Codes of the current queries, and their current group.
const Q: AsmRegister64 = rdi;
const Q_AT: AsmRegister64 = rax;
/// Bytes from one query to the next, three times that, and to a query's codes behind its planes.
const Q_STRIDE: AsmRegister64 = r10;
const Q_STRIDE_3: AsmRegister64 = r11;
const CODES_AT: AsmRegister64 = r12;
/// Keys of the current positions, the current group of them, and bytes of a block.
const K: AsmRegister64 = rsi;
const K_AT: AsmRegister64 = r14;
const K_BYTES: AsmRegister64 = rdx;
/// Scores of the current positions for the current queries.
const OUT: AsmRegister64 = r13;
const LEFT: AsmRegister64 = rbx;
const QUERIES_LEFT: AsmRegister64 = rbp;
const GROUPS_LEFT: AsmRegister64 = r15;

/// `extern "C" fn(codes, k, d, queries, out, stride, blocks)`.
pub(super) fn scores(has_vnni: bool) -> Function {
    let (d, queries, first_out) = (rdx, rcx, r8);
    with_saved("attention_code_scores", 0, |a| {
        a.mov(LEFT, stack_argument(0))?;
        a.lea(CODES_AT, d + int(BLOCK - 1))?;
        a.and(CODES_AT, -int(BLOCK))?;
        a.lea(Q_STRIDE, CODES_AT * 4 + int(QueryCodes::HIGH))?;
        a.lea(CODES_AT, CODES_AT * 2 + int(QueryCodes::HIGH))?;
        a.lea(Q_STRIDE_3, Q_STRIDE + Q_STRIDE * 2)?;
        a.add(K_BYTES, int(GROUP - 1))?;
        a.and(K_BYTES, -int(GROUP))?;
        a.shl(K_BYTES, BLOCK.trailing_zeros())?;
        while_left(a, LEFT, 1, |a| {
            for first in (0..BLOCK).step_by(POSITIONS) {
                a.lea(OUT, first_out + int(4 * first))?;
                a.mov(QUERIES_LEFT, queries)?;
                for queries in QUERIES {
                    while_left(a, QUERIES_LEFT, queries, |a| {
                        score_tile(a, has_vnni, queries, first)?;
                        a.lea(Q, Q + Q_STRIDE * queries)?;
                        a.lea(OUT, OUT + STRIDE * queries)
                    })?;
                }
                a.mov(Q_AT, queries)?;
                a.imul_2(Q_AT, Q_STRIDE)?;
                a.sub(Q, Q_AT)?;
            }
            a.add(first_out, int(4 * BLOCK))?;
            a.add(K, K_BYTES)
        })
    })
}

/// The dot products of `queries` queries with the keys of [`POSITIONS`] positions from `first` on. Each lane of a sum has
/// two of the four elements of a group.
fn score_tile(a: &mut CodeAssembler, has_vnni: bool, queries: usize, first: usize) -> Result<(), IcedError> {
    let used = &SUMS[..2 * queries];
    used.iter().try_for_each(|sum| a.vpxor(*sum, *sum, *sum))?;
    a.lea(Q_AT, Q + CODES_AT)?;
    a.lea(K_AT, K + int(GROUP * first))?;
    a.mov(GROUPS_LEFT, K_BYTES)?;
    a.shr(GROUPS_LEFT, (GROUP * BLOCK).trailing_zeros())?;
    while_left(a, GROUPS_LEFT, 1, |a| {
        for (i, keys) in LOADED.into_iter().enumerate() {
            a.vpmovsxbw(keys, xmmword_ptr(K_AT + int(i * GROUP * POSITIONS / 2)))?;
        }
        for query in 0..queries {
            a.vpbroadcastq(FACTOR, qword_ptr(query_address(Q_AT, query, 0)))?;
            for (sum, keys) in sums(query).into_iter().zip(LOADED) {
                if has_vnni {
                    a.vex().vpdpwssd(sum, keys, FACTOR)?;
                } else {
                    a.vpmaddwd(PRODUCTS, keys, FACTOR)?;
                    a.vpaddd(sum, sum, PRODUCTS)?;
                }
            }
        }
        a.add(K_AT, int(GROUP * BLOCK))?;
        a.add(Q_AT, int(2 * GROUP))
    })?;
    a.mov(Q_AT, OUT)?;
    for query in 0..queries {
        let [sum, other] = sums(query);
        a.vphaddd(sum, sum, other)?;
        // Pairs of positions 0, 4, 2 and 6 on.
        a.vpermq(sum, sum, 0b11_01_10_00)?;
        a.vcvtdq2ps(sum, sum)?;
        a.vbroadcastss(FACTOR, dword_ptr(query_address(Q, query, int(QueryCodes::SCALE))))?;
        a.vmulps(sum, sum, FACTOR)?;
        a.vmovups(ymmword_ptr(Q_AT), sum)?;
        a.add(Q_AT, STRIDE)?;
    }
    a.zero_bytes()
}

fn query_address(base: AsmRegister64, query: usize, at: i32) -> AsmMemoryOperand {
    match query {
        0 => base + at,
        1 => base + Q_STRIDE + at,
        2 => base + Q_STRIDE * 2 + at,
        _ => base + Q_STRIDE_3 + at,
    }
}

/// Bytes of a row of sums of one plane, and of a group of positions.
const ROW: AsmRegister64 = rdx;
/// Three times [`STRIDE`].
const STRIDE_3: AsmRegister64 = r11;
/// Weights of the current queries, and the current block's.
const E: AsmRegister64 = rdi;
const E_AT: AsmRegister64 = rax;
/// Sums of the current queries, and their current lanes.
const TOTALS: AsmRegister64 = r8;
const TOTALS_LANE: AsmRegister64 = r13;
/// Values of the first group of positions in the current lanes, and of the current one.
const V_LANE: AsmRegister64 = r12;
const V_AT: AsmRegister64 = r14;
const BLOCKS_LEFT: AsmRegister64 = r15;
const LANES_LEFT: AsmRegister64 = rbp;

/// `extern "C" fn(codes, v, lanes, queries, sums, stride, blocks)`.
pub(super) fn values(has_vnni: bool) -> Function {
    let (first_value, queries, lanes, blocks) = (rsi, rcx, r10, rbx);
    with_saved("attention_code_values", 0, |a| {
        a.mov(blocks, stack_argument(0))?;
        a.mov(lanes, ROW)?;
        tail_masks(a, lanes, REGISTER_LANES)?;
        a.mov(eax, 0x0001_0001)?;
        a.vmovd(xmm12, eax)?;
        a.vpbroadcastd(ONES, xmm12)?;
        a.shl(ROW, 2)?;
        a.lea(STRIDE_3, STRIDE + STRIDE * 2)?;
        for count in QUERIES {
            while_left(a, queries, count, |a| {
                let mut done = a.create_label();
                a.mov(V_LANE, first_value)?;
                a.mov(TOTALS_LANE, TOTALS)?;
                a.mov(LANES_LEFT, lanes)?;
                while_left(a, LANES_LEFT, REGISTER_LANES, |a| {
                    value_tile(a, has_vnni, count, false)?;
                    a.add(V_LANE, int(REGISTER_LANES * GROUP))?;
                    a.add(TOTALS_LANE, int(REGISTER_LANES * 4))
                })?;
                a.test(LANES_LEFT, LANES_LEFT)?;
                a.je(done)?;
                value_tile(a, has_vnni, count, true)?;
                a.set_label(&mut done)?;
                a.lea(E, E + STRIDE * count)?;
                a.lea(TOTALS, TOTALS + ROW * count)?;
                a.lea(TOTALS, TOTALS + ROW * count)
            })?;
        }
        a.zero_bytes()
    })
}

/// The offsets of the planes of a block of weights.
const PLANES: [usize; 2] = [WeightCodes::HIGH, WeightCodes::LOW];

/// Adds all positions to the sums of `queries` queries in a register of lanes.
fn value_tile(a: &mut CodeAssembler, has_vnni: bool, queries: usize, is_tail: bool) -> Result<(), IcedError> {
    let mut top = a.create_label();
    let [values, _] = LOADED;
    let load = |a: &mut CodeAssembler, to: AsmRegisterYmm, from: AsmMemoryOperand| match is_tail {
        true => a.vpmaskmovd(to, TAIL[0], from),
        false => a.vmovdqu(to, from),
    };
    for_sums(a, queries, |a, sum| load(a, sum, ymmword_ptr(V_AT)))?;
    a.mov(V_AT, V_LANE)?;
    a.mov(E_AT, E)?;
    a.mov(BLOCKS_LEFT, rbx)?;
    a.set_label(&mut top)?;
    for group in 0..BLOCK / GROUP {
        load(a, values, ymmword_ptr(V_AT))?;
        for query in 0..queries {
            for (sum, plane) in sums(query).into_iter().zip(PLANES) {
                a.vpbroadcastd(FACTOR, dword_ptr(weight_address(query, int(plane + GROUP * group))))?;
                if has_vnni {
                    a.vex().vpdpbusd(sum, FACTOR, values)?;
                } else {
                    // 2 · 127 · 128 is less than 2¹⁵.
                    a.vpmaddubsw(PRODUCTS, FACTOR, values)?;
                    a.vpmaddwd(PRODUCTS, PRODUCTS, ONES)?;
                    a.vpaddd(sum, sum, PRODUCTS)?;
                }
            }
        }
        a.add(V_AT, ROW)?;
    }
    a.add(E_AT, int(WeightCodes::BYTES))?;
    a.dec(BLOCKS_LEFT)?;
    a.jne(top)?;
    for_sums(a, queries, |a, sum| match is_tail {
        true => a.vpmaskmovd(ymmword_ptr(V_AT), TAIL[0], sum),
        false => a.vmovdqu(ymmword_ptr(V_AT), sum),
    })
}

fn weight_address(query: usize, at: i32) -> AsmMemoryOperand {
    match query {
        0 => E_AT + at,
        1 => E_AT + STRIDE + at,
        2 => E_AT + STRIDE * 2 + at,
        _ => E_AT + STRIDE_3 + at,
    }
}

/// Runs `body` for each sum of `queries` queries, whose place is [`V_AT`].
fn for_sums(
    a: &mut CodeAssembler,
    queries: usize,
    body: impl Fn(&mut CodeAssembler, AsmRegisterYmm) -> Result<(), IcedError>,
) -> Result<(), IcedError> {
    a.mov(V_AT, TOTALS_LANE)?;
    for sum in &SUMS[..2 * queries] {
        body(a, *sum)?;
        a.add(V_AT, ROW)?;
    }
    a.zero_bytes()
}
