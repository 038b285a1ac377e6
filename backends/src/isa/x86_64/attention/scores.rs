//! Dot products of queries and keys: one register is sixteen positions, four queries share it.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::{AsmMemoryOperand, AsmRegister64, AsmRegisterZmm, CodeAssembler, dword_ptr, zmmword_ptr};
use tcc_ir::cache::BLOCK;
use tcc_ir::numerics::LANES;

use super::widen::load_widened;
use super::{Elements, QUERIES, REGISTERS, STRIDE, stack_argument, with_saved};
use crate::code::Function;
use crate::isa::x86_64::pieces::{int, while_left};

/// Steps of a dot product per iteration, most first.
const UNROLL: [usize; 2] = [4, 1];

/// Blocks of keys processed together, most first.
const SCORE_BLOCKS: [usize; 2] = [2, 1];
/// Additions that lead from sixteen partials to a sum, one after the other.
pub(super) const LEVELS: usize = LANES.trailing_zeros() as usize;
/// Registers of sums; keys and factors lie behind them.
const SCORE_REGISTERS: usize = 24;
/// Stack for the half-finished sums of the last two levels of the largest tile.
const HALVES_BYTES: usize = 2 * QUERIES[0] * SCORE_BLOCKS[0] * 4 * LANES;

/// Queries of the current group, and the current step within them.
const Q: AsmRegister64 = rdi;
pub(super) const Q_AT: AsmRegister64 = rax;
/// Bytes from one query to the next, and three times that.
const Q_STRIDE: AsmRegister64 = r10;
const Q_STRIDE_3: AsmRegister64 = r11;
/// The current block of keys, and the current step within it.
const K: AsmRegister64 = rsi;
pub(super) const K_AT: AsmRegister64 = r14;
/// Follows what is asked for ahead of the current block, line by line: partials read keys all over it, but the
/// processor's own prefetcher follows what comes in order.
const K_ASK: AsmRegister64 = r12;
/// Bytes of a block of keys.
const K_BYTES: AsmRegister64 = rdx;
/// Scores of the current block for the current queries.
pub(super) const OUT: AsmRegister64 = r13;
const BLOCKS_LEFT: AsmRegister64 = rbx;
const QUERIES_LEFT: AsmRegister64 = rbp;
/// Steps left of a partial.
const STEPS_LEFT: AsmRegister64 = r15;

/// `extern "C" fn(q, k, d, queries, out, stride, blocks)`.
pub(super) fn scores(keys: Elements) -> Function {
    with_tiles(key_bytes(keys), HALVES_BYTES, &SCORE_BLOCKS, |a, tile| score_tile(a, keys, tile))
}

/// The function of scores that computes each tile by `body`: tiles have up to the first of `block_counts` blocks, of
/// `key_bytes` bytes for one element of all keys of a block, and `stack_bytes` at the stack pointer.
pub(super) fn with_tiles(
    key_bytes: usize,
    stack_bytes: usize,
    block_counts: &[usize],
    body: impl Fn(&mut CodeAssembler, Tile) -> Result<(), IcedError>,
) -> Function {
    let (d, queries, first_out) = (rdx, rcx, r8);
    with_saved("attention_scores", stack_bytes, |a| {
        a.mov(BLOCKS_LEFT, stack_argument(stack_bytes))?;
        a.lea(Q_STRIDE, d * 4)?;
        a.lea(Q_STRIDE_3, Q_STRIDE + Q_STRIDE * 2)?;
        a.shl(K_BYTES, key_bytes.trailing_zeros())?;
        for &blocks in block_counts {
            while_left(a, BLOCKS_LEFT, blocks, |a| {
                a.mov(OUT, first_out)?;
                a.mov(QUERIES_LEFT, queries)?;
                for queries in QUERIES {
                    while_left(a, QUERIES_LEFT, queries, |a| {
                        body(a, Tile { queries, blocks })?;
                        a.lea(Q, Q + Q_STRIDE * queries)?;
                        a.lea(OUT, OUT + STRIDE * queries)
                    })?;
                }
                a.mov(Q_AT, queries)?;
                a.imul_2(Q_AT, Q_STRIDE)?;
                a.sub(Q, Q_AT)?;
                a.add(first_out, int(4 * BLOCK * blocks))?;
                a.lea(K, K + K_BYTES * blocks)
            })?;
        }
        a.zero_bytes()
    })
}

/// Bytes of one element of all keys of a block.
fn key_bytes(keys: Elements) -> usize {
    BLOCK * keys.bytes()
}

/// Sums kept side by side: those of one query lie together.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub queries: usize,
    pub blocks: usize,
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
fn score_tile(a: &mut CodeAssembler, keys: Elements, tile: Tile) -> Result<(), IcedError> {
    let sums = tile.group(0);
    a.mov(K_ASK, K)?;
    for index in 0..LANES {
        score_partial(a, keys, partial_at(index), tile)?;
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

/// The partial that is computed `index`-th.
pub(super) fn partial_at(index: usize) -> usize {
    index.reverse_bits() >> (usize::BITS - LANES.trailing_zeros())
}

/// One partial of the dot products of a tile.
fn score_partial(a: &mut CodeAssembler, elements: Elements, partial: usize, tile: Tile) -> Result<(), IcedError> {
    let key_bytes = key_bytes(elements);
    let sums = tile.group(0);
    let [keys, factors] = [SCORE_REGISTERS, SCORE_REGISTERS + 2].map(|first| &REGISTERS[first..]);
    for sum in sums {
        a.vpxord(*sum, *sum, *sum)?;
    }
    for_steps(a, key_bytes, partial, |a, unroll| {
        if elements.ahead.is_some() {
            let bytes = unroll * tile.blocks * key_bytes;
            elements.ask_ahead(a, K_ASK, bytes)?;
            a.add(K_ASK, int(bytes))?;
        }
        for step in 0..unroll {
            let at = step * LANES * key_bytes;
            for (block, keys) in keys[..tile.blocks].iter().enumerate() {
                load_widened(a, elements.dtype, *keys, key_address(block, int(at)))?;
            }
            for (query, of_query) in sums.chunks_exact(tile.blocks).enumerate() {
                a.vbroadcastss(factors[query], dword_ptr(query_address(query, int(step * LANES * 4))))?;
                for (sum, keys) in of_query.iter().zip(keys) {
                    a.vfmadd231ps(*sum, *keys, factors[query])?;
                }
            }
        }
        a.zero_bytes()
    })
}

/// Runs `body`, which does as many steps of `partial` as it is told, until all are done.
pub(super) fn for_steps(
    a: &mut CodeAssembler,
    key_bytes: usize,
    partial: usize,
    body: impl Fn(&mut CodeAssembler, usize) -> Result<(), IcedError>,
) -> Result<(), IcedError> {
    a.lea(STEPS_LEFT, K_BYTES + int((LANES - 1 - partial) * key_bytes))?;
    a.shr(STEPS_LEFT, (LANES * key_bytes).trailing_zeros())?;
    a.lea(K_AT, K + int(partial * key_bytes))?;
    a.lea(Q_AT, Q + int(partial * 4))?;
    for unroll in UNROLL {
        while_left(a, STEPS_LEFT, unroll, |a| {
            body(a, unroll)?;
            a.add(K_AT, int(unroll * LANES * key_bytes))?;
            a.add(Q_AT, int(unroll * LANES * 4))
        })?;
    }
    a.zero_bytes()
}

fn key_address(block: usize, at: i32) -> AsmMemoryOperand {
    if block == 0 { K_AT + at } else { K_AT + K_BYTES + at }
}

pub(super) fn query_address(query: usize, at: i32) -> AsmMemoryOperand {
    match query {
        0 => Q_AT + at,
        1 => Q_AT + Q_STRIDE + at,
        2 => Q_AT + Q_STRIDE * 2 + at,
        _ => Q_AT + Q_STRIDE_3 + at,
    }
}
