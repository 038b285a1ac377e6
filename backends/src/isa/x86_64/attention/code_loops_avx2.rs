//! Sums of products of codes with 256 bits, in pairs of 16-bit integers. AVX-VNNI multiplies and adds in one instruction,
//! AVX2 in two.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::eax;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::xmm::*;
use iced_x86::code_asm::registers::ymm::*;
use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister64, AsmRegisterYmm, CodeAssembler, dword_ptr, qword_ptr, xmmword_ptr, ymmword_ptr,
};
use tcc_ir::attention_codes::{PLANE, PLANE_BITS, QueryCodes, WeightCodes};
use tcc_ir::cache::{BLOCK, GROUP};

use super::code_scores::{GROUPS_LEFT, K, K_AT, K_BYTES, OUT, Q, Q_STRIDE, Q_STRIDE_3, QUERIES_LEFT, query_address};
use super::code_values::{
    BLOCKS, BLOCKS_LEFT, E, E_AT, LANES_LEFT, ROW, STRIDE_3, TOTALS, TOTALS_LANE, V_AT, V_LANE, weight_address,
};
use super::codes_avx2::{REGISTER_LANES, TAIL, tail_masks};
use super::{QUERIES, STRIDE, stack_argument, with_saved};
use crate::code::Function;
use crate::isa::x86_64::pieces::{int, while_left};

/// Sums of up to four queries, two for each; then keys or values; then what a query multiplies them by, and products.
const SUMS: [AsmRegisterYmm; 8] = [ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7];
const LOADED: [AsmRegisterYmm; 2] = [ymm8, ymm9];
const FACTOR: AsmRegisterYmm = ymm10;
const PRODUCTS: AsmRegisterYmm = ymm11;
/// The bits of the low part of a sum.
const LOW_MASK: AsmRegisterYmm = ymm12;

/// Sums of a query, by number.
fn sums(query: usize) -> [AsmRegisterYmm; 2] {
    [SUMS[2 * query], SUMS[2 * query + 1]]
}

/// Adds the products of [`LOADED`] and the four codes at `factor` to the sums of `query`: each lane has two of four.
fn add_products(
    a: &mut CodeAssembler,
    has_vnni: bool,
    query: usize,
    factor: AsmMemoryOperand,
) -> Result<(), IcedError> {
    a.vpbroadcastq(FACTOR, qword_ptr(factor))?;
    for (sum, loaded) in sums(query).into_iter().zip(LOADED) {
        if has_vnni {
            a.vex().vpdpwssd(sum, loaded, FACTOR)?;
        } else {
            a.vpmaddwd(PRODUCTS, loaded, FACTOR)?;
            a.vpaddd(sum, sum, PRODUCTS)?;
        }
    }
    a.zero_bytes()
}

/// Joins the lanes of `query`'s sums to eight in order, in the register that is returned.
fn join(a: &mut CodeAssembler, query: usize) -> Result<AsmRegisterYmm, IcedError> {
    let [sum, other] = sums(query);
    a.vphaddd(sum, sum, other)?;
    // Pairs of lanes 0, 4, 2 and 6 on.
    a.vpermq(sum, sum, 0b11_01_10_00)?;
    Ok(sum)
}

/// Positions of a tile of scores: two registers of 16-bit elements, four positions each.
const POSITIONS: usize = 8;

/// The current group of codes of the current queries, and bytes to a query's codes behind its planes.
const Q_AT: AsmRegister64 = rax;
const CODES_AT: AsmRegister64 = r12;
/// Blocks of keys left.
const LEFT: AsmRegister64 = rbx;

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
            add_products(a, has_vnni, query, query_address(Q_AT, query, 0))?;
        }
        a.add(K_AT, int(GROUP * BLOCK))?;
        a.add(Q_AT, int(2 * GROUP))
    })?;
    a.mov(Q_AT, OUT)?;
    for query in 0..queries {
        let sum = join(a, query)?;
        a.vcvtdq2ps(sum, sum)?;
        a.vbroadcastss(FACTOR, dword_ptr(query_address(Q, query, int(QueryCodes::SCALE))))?;
        a.vmulps(sum, sum, FACTOR)?;
        a.vmovups(ymmword_ptr(Q_AT), sum)?;
        a.add(Q_AT, STRIDE)?;
    }
    a.zero_bytes()
}

/// `extern "C" fn(codes, v, lanes, queries, sums, stride, blocks)`.
pub(super) fn values(has_vnni: bool) -> Function {
    let (first_value, queries, lanes) = (rsi, rcx, r10);
    with_saved("attention_code_values", 0, |a| {
        a.mov(BLOCKS, stack_argument(0))?;
        a.mov(lanes, ROW)?;
        tail_masks(a, lanes, REGISTER_LANES)?;
        a.mov(eax, i32::from(PLANE) - 1)?;
        a.vmovd(xmm12, eax)?;
        a.vpbroadcastd(LOW_MASK, xmm12)?;
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

/// Adds all positions to the sums of `queries` queries in eight lanes.
fn value_tile(a: &mut CodeAssembler, has_vnni: bool, queries: usize, is_tail: bool) -> Result<(), IcedError> {
    let mut top = a.create_label();
    let used = &SUMS[..2 * queries];
    used.iter().try_for_each(|sum| a.vpxor(*sum, *sum, *sum))?;
    a.mov(V_AT, V_LANE)?;
    a.mov(E_AT, E)?;
    a.mov(BLOCKS_LEFT, BLOCKS)?;
    a.set_label(&mut top)?;
    for group in 0..BLOCK / GROUP {
        load_values(a, is_tail)?;
        for query in 0..queries {
            let codes = weight_address(query, int(WeightCodes::CODES + 2 * GROUP * group));
            add_products(a, has_vnni, query, codes)?;
        }
        a.add(V_AT, ROW)?;
    }
    a.add(E_AT, int(WeightCodes::BYTES))?;
    a.dec(BLOCKS_LEFT)?;
    a.jne(top)?;
    a.mov(V_AT, TOTALS_LANE)?;
    for query in 0..queries {
        let sum = join(a, query)?;
        a.vpsrad(FACTOR, sum, PLANE_BITS)?;
        a.vpand(PRODUCTS, sum, LOW_MASK)?;
        for part in [FACTOR, PRODUCTS] {
            let [loaded, _] = LOADED;
            let place = ymmword_ptr(V_AT);
            if is_tail {
                a.vpmaskmovd(loaded, TAIL[0], place)?;
                a.vpaddd(loaded, loaded, part)?;
                a.vpmaskmovd(place, TAIL[0], loaded)?;
            } else {
                a.vpaddd(loaded, part, place)?;
                a.vmovdqu(place, loaded)?;
            }
            a.add(V_AT, ROW)?;
        }
    }
    a.zero_bytes()
}

/// Loads a group of positions of eight lanes, widened.
fn load_values(a: &mut CodeAssembler, is_tail: bool) -> Result<(), IcedError> {
    let [low, high] = LOADED;
    if !is_tail {
        a.vpmovsxbw(low, xmmword_ptr(V_AT))?;
        return a.vpmovsxbw(high, xmmword_ptr(V_AT + int(GROUP * REGISTER_LANES / 2)));
    }
    a.vpmaskmovd(low, TAIL[0], ymmword_ptr(V_AT))?;
    a.vextracti128(xmm9, low, 1)?;
    a.vpmovsxbw(low, xmm8)?;
    a.vpmovsxbw(high, xmm9)
}
