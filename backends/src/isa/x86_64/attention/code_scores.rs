//! Dot products of the codes of queries and keys, with products of bytes of 512 bits: one register is sixteen
//! positions times four elements, four queries share it.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::eax;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister64, AsmRegisterZmm, CodeAssembler, dword_bcst, dword_ptr, zmmword_ptr,
};
use tcc_ir::attention_codes::{PLANE_BITS, QueryCodes};
use tcc_ir::cache::{BLOCK, GROUP};

use super::{Elements, QUERIES, REGISTERS, STRIDE, stack_argument, with_saved};
use crate::code::Function;
use crate::isa::x86_64::pieces::{int, while_left};

/// Blocks of keys processed together, most first.
const BLOCKS: [usize; 2] = [2, 1];
/// Groups of elements per iteration, most first.
const UNROLL: [usize; 2] = [4, 1];
/// Bytes of a group of elements of all keys of a block.
const GROUP_BYTES: usize = GROUP * BLOCK;

/// Sums of high planes, then of low ones; then keys, four codes of a query in every lane, and the sign bits of bytes.
const SUMS: &[AsmRegisterZmm] = &REGISTERS;
const KEYS: usize = 2 * QUERIES[0] * BLOCKS[0];
const FACTORS: usize = KEYS + BLOCKS[0];
const SIGNS: AsmRegisterZmm = REGISTERS[31];

/// Codes of the current queries, their scales and sums; the current group of their high and of their low planes.
pub(super) const Q: AsmRegister64 = rdi;
const HIGH_AT: AsmRegister64 = rax;
const LOW_AT: AsmRegister64 = r12;
/// Bytes from one query to the next, and three times that.
pub(super) const Q_STRIDE: AsmRegister64 = r10;
pub(super) const Q_STRIDE_3: AsmRegister64 = r11;
/// The current block of keys, and the current group within it.
pub(super) const K: AsmRegister64 = rsi;
pub(super) const K_AT: AsmRegister64 = r14;
/// Bytes of a block of keys.
pub(super) const K_BYTES: AsmRegister64 = rdx;
/// Scores of the current block for the current queries.
pub(super) const OUT: AsmRegister64 = r13;
const BLOCKS_LEFT: AsmRegister64 = rbx;
pub(super) const QUERIES_LEFT: AsmRegister64 = rbp;
pub(super) const GROUPS_LEFT: AsmRegister64 = r15;

/// `extern "C" fn(codes, k, d, queries, out, stride, blocks)`.
pub(super) fn scores(keys: Elements) -> Function {
    let (d, queries, first_out) = (rdx, rcx, r8);
    with_saved("attention_code_scores", 0, |a| {
        a.mov(BLOCKS_LEFT, stack_argument(0))?;
        // Codes of four bytes for each of the padded elements.
        a.lea(Q_STRIDE, d + int(BLOCK - 1))?;
        a.and(Q_STRIDE, -int(BLOCK))?;
        a.lea(Q_STRIDE, Q_STRIDE * 4 + int(QueryCodes::HIGH))?;
        a.lea(Q_STRIDE_3, Q_STRIDE + Q_STRIDE * 2)?;
        a.add(K_BYTES, int(GROUP - 1))?;
        a.and(K_BYTES, -int(GROUP))?;
        a.shl(K_BYTES, BLOCK.trailing_zeros())?;
        a.mov(eax, 0x8080_8080_u32)?;
        a.vpbroadcastd(SIGNS, eax)?;
        for blocks in BLOCKS {
            while_left(a, BLOCKS_LEFT, blocks, |a| {
                a.mov(OUT, first_out)?;
                a.mov(QUERIES_LEFT, queries)?;
                for queries in QUERIES {
                    while_left(a, QUERIES_LEFT, queries, |a| {
                        score_tile(a, keys, Tile { queries, blocks })?;
                        a.lea(Q, Q + Q_STRIDE * queries)?;
                        a.lea(OUT, OUT + STRIDE * queries)
                    })?;
                }
                a.mov(HIGH_AT, queries)?;
                a.imul_2(HIGH_AT, Q_STRIDE)?;
                a.sub(Q, HIGH_AT)?;
                a.add(first_out, int(4 * BLOCK * blocks))?;
                a.lea(K, K + K_BYTES * blocks)
            })?;
        }
        a.zero_bytes()
    })
}

/// Sums kept side by side.
#[derive(Clone, Copy)]
struct Tile {
    queries: usize,
    blocks: usize,
}

impl Tile {
    /// Sums of the high (0) or the low (1) plane of a query, a register for each block.
    fn sums(self, plane: usize, query: usize) -> &'static [AsmRegisterZmm] {
        &SUMS[(plane * self.queries + query) * self.blocks..][..self.blocks]
    }
}

/// The dot products of a tile's queries with the sixteen keys of each of its blocks.
///
/// Bytes are multiplied without sign by bytes with one: keys are raised by 128, which adds 128 times the sum of a
/// query's codes. Sums may wrap on the way.
fn score_tile(a: &mut CodeAssembler, keys: Elements, tile: Tile) -> Result<(), IcedError> {
    let used = &SUMS[..2 * tile.queries * tile.blocks];
    used.iter().try_for_each(|sum| a.vpxord(*sum, *sum, *sum))?;
    a.lea(HIGH_AT, Q + int(QueryCodes::HIGH))?;
    // Planes are a quarter of what follows the first one's begin.
    a.lea(LOW_AT, Q_STRIDE - int(QueryCodes::HIGH))?;
    a.shr(LOW_AT, 2)?;
    a.add(LOW_AT, HIGH_AT)?;
    a.mov(K_AT, K)?;
    a.mov(GROUPS_LEFT, K_BYTES)?;
    a.shr(GROUPS_LEFT, GROUP_BYTES.trailing_zeros())?;
    for unroll in UNROLL {
        while_left(a, GROUPS_LEFT, unroll, |a| {
            (0..unroll).try_for_each(|group| add_group(a, keys, tile, group))?;
            a.add(K_AT, int(unroll * GROUP_BYTES))?;
            a.add(HIGH_AT, int(unroll * GROUP))?;
            a.add(LOW_AT, int(unroll * GROUP))
        })?;
    }
    store_scores(a, tile)
}

/// Adds the products of a group of elements.
fn add_group(a: &mut CodeAssembler, keys: Elements, tile: Tile, group: usize) -> Result<(), IcedError> {
    let of_blocks = &REGISTERS[KEYS..][..tile.blocks];
    for (block, key) in of_blocks.iter().enumerate() {
        let at = if block == 0 { K_AT + 0 } else { K_AT + K_BYTES };
        let at = at + int(group * GROUP_BYTES);
        a.vpxord(*key, SIGNS, zmmword_ptr(at))?;
        keys.ask_line(a, at)?;
    }
    for (plane, plane_at) in [HIGH_AT, LOW_AT].into_iter().enumerate() {
        for query in 0..tile.queries {
            let factor = REGISTERS[FACTORS + plane * tile.queries + query];
            a.vpbroadcastd(factor, dword_ptr(query_address(plane_at, query, int(group * GROUP))))?;
            for (sum, key) in tile.sums(plane, query).iter().zip(of_blocks) {
                a.vpdpbusd(*sum, *key, factor)?;
            }
        }
    }
    a.zero_bytes()
}

/// Joins the planes, scales the sums and stores them.
fn store_scores(a: &mut CodeAssembler, tile: Tile) -> Result<(), IcedError> {
    let raised = REGISTERS[FACTORS];
    a.mov(HIGH_AT, OUT)?;
    for query in 0..tile.queries {
        a.vpbroadcastd(raised, dword_ptr(query_address(Q, query, int(QueryCodes::SUM))))?;
        a.vpslld(raised, raised, u8::BITS - 1)?;
        for (block, (high, low)) in tile.sums(0, query).iter().zip(tile.sums(1, query)).enumerate() {
            a.vpslld(*high, *high, PLANE_BITS)?;
            a.vpaddd(*high, *high, *low)?;
            a.vpsubd(*high, *high, raised)?;
            a.vcvtdq2ps(*high, *high)?;
            a.vmulps(*high, *high, dword_bcst(query_address(Q, query, int(QueryCodes::SCALE))))?;
            a.vmovups(zmmword_ptr(HIGH_AT + int(4 * BLOCK * block)), *high)?;
        }
        a.add(HIGH_AT, STRIDE)?;
    }
    a.zero_bytes()
}

pub(super) fn query_address(base: AsmRegister64, query: usize, at: i32) -> AsmMemoryOperand {
    match query {
        0 => base + at,
        1 => base + Q_STRIDE + at,
        2 => base + Q_STRIDE * 2 + at,
        _ => base + Q_STRIDE_3 + at,
    }
}
