//! Loops of attention with 256 bits: a block of sixteen positions is two registers, and so are sixteen lanes of
//! values. Registers walk as with 512 bits; all half-finished sums of scores wait on the stack.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::eax;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::xmm::*;
use iced_x86::code_asm::registers::ymm::*;
use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegisterXmm, AsmRegisterYmm, CodeAssembler, byte_ptr, dword_ptr, word_ptr, xmmword_ptr,
    ymmword_ptr,
};
use tcc_ir::cache::{BLOCK, element_bytes};
use tcc_ir::numerics::LANES;
use tcc_ir::ty::DType;

use super::scores::{K_AT, LEVELS, OUT, Q_AT, Tile, for_steps, partial_at, query_address, with_tiles};
use super::values::{
    D, E, E_AT, LANES_LEFT, POSITIONS, POSITIONS_LEFT, ROW, STRIDE_3, SUMS, SUMS_LANE, V_AT, V_LANE, factor_address,
    for_sums,
};
use super::widen::PREFETCH_BYTES;
use super::{LINE_BYTES, QUERIES, STRIDE, stack_argument, with_saved};
use crate::code::Function;
use crate::isa::x86_64::function;
use crate::isa::x86_64::pieces::{int, while_left};

/// Lanes of a register.
const WIDTH: usize = 8;

/// Registers of sixteen lanes.
const HALVES: usize = LANES / WIDTH;

/// Sums of up to four queries; then keys or values; then factors, by turns.
const SUM: [AsmRegisterYmm; 8] = [ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7];
const LOADED: [AsmRegisterYmm; HALVES] = [ymm8, ymm9];
const FACTOR: [AsmRegisterYmm; 2] = [ymm10, ymm11];
/// The same for single lanes.
const SUM_LANE: [AsmRegisterXmm; 4] = [xmm0, xmm1, xmm2, xmm3];
const LOADED_LANE: AsmRegisterXmm = xmm8;

/// `extern "C" fn(from, to, n)`.
pub(super) fn widen() -> Function {
    let (from, to, n, element_bytes) = (rdi, rsi, rdx, element_bytes(DType::F16));
    function("attention_widen", 8, |a| {
        for registers in [&SUM[..], &SUM[..1]] {
            let elements = registers.len() * WIDTH;
            while_left(a, n, elements, |a| {
                for line in (0..elements * element_bytes).step_by(LINE_BYTES) {
                    a.prefetcht0(byte_ptr(from + PREFETCH_BYTES + int(line)))?;
                }
                for (i, register) in registers.iter().enumerate() {
                    a.vcvtph2ps(*register, xmmword_ptr(from + int(i * WIDTH * element_bytes)))?;
                    a.vmovups(ymmword_ptr(to + int(i * WIDTH * 4)), *register)?;
                }
                a.add(from, int(elements * element_bytes))?;
                a.add(to, int(elements * 4))
            })?;
        }
        while_left(a, n, 1, |a| {
            a.movzx(eax, word_ptr(from))?;
            a.vmovd(xmm0, eax)?;
            a.vcvtph2ps(xmm0, xmm0)?;
            a.vmovss(dword_ptr(to), xmm0)?;
            a.add(from, int(element_bytes))?;
            a.add(to, 4)
        })?;
        a.vzeroupper()?;
        a.ret()
    })
}

/// Bytes of one element of all keys of a block.
const KEY_BYTES: usize = 4 * BLOCK;

/// Stack for the half-finished sums of a tile, a register group for each level.
const STACK_BYTES: usize = LEVELS * SUM.len() * 4 * WIDTH;

/// `extern "C" fn(q, k, d, queries, out, stride, blocks)`.
pub(super) fn scores() -> Function {
    with_tiles(KEY_BYTES, STACK_BYTES, &[1], score_tile)
}

/// The dot products of a tile's queries with the keys of a block. As with 512 bits, partials come in bit-reversed
/// order: level n of the sums waits on the stack for its other half.
fn score_tile(a: &mut CodeAssembler, tile: Tile) -> Result<(), IcedError> {
    let sums = &SUM[..HALVES * tile.queries];
    let half_address = |level: usize, i: usize| ymmword_ptr(rsp + int(((level - 1) * SUM.len() + i) * 4 * WIDTH));
    for index in 0..LANES {
        score_partial(a, partial_at(index), tile)?;
        let complete = index.trailing_ones() as usize;
        for level in 1..=complete {
            for (i, sum) in sums.iter().enumerate() {
                a.vaddps(*sum, *sum, half_address(level, i))?;
            }
        }
        for (i, sum) in sums.iter().enumerate().filter(|_| index + 1 < LANES) {
            a.vmovups(half_address(complete + 1, i), *sum)?;
        }
    }
    a.mov(Q_AT, OUT)?;
    for of_query in sums.chunks_exact(HALVES) {
        for (half, sum) in of_query.iter().enumerate() {
            a.vmovups(ymmword_ptr(Q_AT + int(4 * WIDTH * half)), *sum)?;
        }
        a.add(Q_AT, STRIDE)?;
    }
    a.zero_bytes()
}

/// One partial of the dot products of a tile.
fn score_partial(a: &mut CodeAssembler, partial: usize, tile: Tile) -> Result<(), IcedError> {
    let sums = &SUM[..HALVES * tile.queries];
    for sum in sums {
        a.vxorps(*sum, *sum, *sum)?;
    }
    for_steps(a, KEY_BYTES, partial, |a, unroll| {
        for step in 0..unroll {
            for (half, keys) in LOADED.into_iter().enumerate() {
                a.vmovups(keys, ymmword_ptr(K_AT + int(step * LANES * KEY_BYTES + half * 4 * WIDTH)))?;
            }
            for (query, of_query) in sums.chunks_exact(HALVES).enumerate() {
                multiply_add(a, query, query_address(query, int(step * LANES * 4)), of_query, &LOADED)?;
            }
        }
        a.zero_bytes()
    })
}

/// Adds the products of query `query`'s factor and `loaded` to `sums`.
fn multiply_add(
    a: &mut CodeAssembler,
    query: usize,
    factor: AsmMemoryOperand,
    sums: &[AsmRegisterYmm],
    loaded: &[AsmRegisterYmm],
) -> Result<(), IcedError> {
    let register = FACTOR[query % FACTOR.len()];
    a.vbroadcastss(register, dword_ptr(factor))?;
    sums.iter().zip(loaded).try_for_each(|(sum, loaded)| a.vfmadd231ps(*sum, *loaded, register))
}

/// Value lanes processed together.
#[derive(Clone, Copy)]
enum Lanes {
    /// This many registers.
    Registers(usize),
    One,
}

impl Lanes {
    /// Most first.
    const ALL: [Lanes; 3] = [Lanes::Registers(HALVES), Lanes::Registers(1), Lanes::One];

    fn count(self) -> usize {
        match self {
            Lanes::Registers(count) => count * WIDTH,
            Lanes::One => 1,
        }
    }
}

/// `extern "C" fn(e, v, d, queries, sums, stride, positions)`.
pub(super) fn values() -> Function {
    let (first_value, queries) = (rsi, rcx);
    with_saved("attention_values", 0, |a| {
        a.mov(POSITIONS, stack_argument(0))?;
        a.lea(ROW, D * 4)?;
        a.lea(STRIDE_3, STRIDE + STRIDE * 2)?;
        for count in QUERIES {
            while_left(a, queries, count, |a| {
                a.mov(V_LANE, first_value)?;
                a.mov(SUMS_LANE, SUMS)?;
                a.mov(LANES_LEFT, D)?;
                for lanes in Lanes::ALL {
                    while_left(a, LANES_LEFT, lanes.count(), |a| {
                        value_tile(a, count, lanes)?;
                        a.add(V_LANE, int(lanes.count() * 4))?;
                        a.add(SUMS_LANE, int(lanes.count() * 4))
                    })?;
                }
                a.lea(E, E + STRIDE * count)?;
                a.lea(SUMS, SUMS + ROW * count)
            })?;
        }
        a.zero_bytes()
    })
}

/// Adds all positions to some lanes of the sums of `queries` queries.
fn value_tile(a: &mut CodeAssembler, queries: usize, lanes: Lanes) -> Result<(), IcedError> {
    let mut top = a.create_label();
    for_sums(a, queries, |a, query| move_sums(a, query, lanes, Move::Load))?;
    a.mov(V_AT, V_LANE)?;
    a.mov(E_AT, E)?;
    a.mov(POSITIONS_LEFT, POSITIONS)?;
    a.set_label(&mut top)?;
    match lanes {
        Lanes::Registers(count) => {
            for (i, values) in LOADED[..count].iter().enumerate() {
                a.vmovups(*values, ymmword_ptr(V_AT + int(i * 4 * WIDTH)))?;
            }
            for (query, sums) in SUM.chunks_exact(HALVES).take(queries).enumerate() {
                multiply_add(a, query, factor_address(query), &sums[..count], &LOADED[..count])?;
            }
        }
        Lanes::One => {
            a.vmovss(LOADED_LANE, dword_ptr(V_AT))?;
            for (query, sum) in SUM_LANE[..queries].iter().enumerate() {
                a.vfmadd231ss(*sum, LOADED_LANE, dword_ptr(factor_address(query)))?;
            }
        }
    }
    a.add(V_AT, ROW)?;
    a.add(E_AT, 4)?;
    a.dec(POSITIONS_LEFT)?;
    a.jne(top)?;
    for_sums(a, queries, |a, query| move_sums(a, query, lanes, Move::Store))
}

#[derive(Clone, Copy)]
enum Move {
    Load,
    Store,
}

/// Moves the sums of `query` between registers and memory at [`V_AT`].
fn move_sums(a: &mut CodeAssembler, query: usize, lanes: Lanes, direction: Move) -> Result<(), IcedError> {
    match lanes {
        Lanes::Registers(count) => {
            for (i, sum) in SUM[HALVES * query..][..count].iter().enumerate() {
                let place = ymmword_ptr(V_AT + int(i * 4 * WIDTH));
                match direction {
                    Move::Load => a.vmovups(*sum, place)?,
                    Move::Store => a.vmovups(place, *sum)?,
                }
            }
            a.zero_bytes()
        }
        Lanes::One => match direction {
            Move::Load => a.vmovss(SUM_LANE[query], dword_ptr(V_AT)),
            Move::Store => a.vmovss(dword_ptr(V_AT), SUM_LANE[query]),
        },
    }
}
