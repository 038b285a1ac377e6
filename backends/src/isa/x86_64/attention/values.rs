//! Sums of values: one register is sixteen lanes of a query's sum, four queries share each register of values.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::{AsmMemoryOperand, AsmRegister64, AsmRegisterZmm, CodeAssembler, dword_ptr, zmmword_ptr};
use tcc_ir::numerics::LANES;

use super::widen::load_widened;
use super::{Elements, QUERIES, REGISTERS, STRIDE, stack_argument, with_saved};
use crate::code::Function;
use crate::isa::x86_64::pieces::{int, tail_mask, while_left};

/// Blocks of sixteen value lanes processed together, most first.
const VALUE_BLOCKS: [usize; 2] = [4, 1];

pub(super) const D: AsmRegister64 = rdx;

/// Factors of the current queries, and the current position's.
pub(super) const E: AsmRegister64 = rdi;
pub(super) const E_AT: AsmRegister64 = rax;
/// Three times [`STRIDE`].
pub(super) const STRIDE_3: AsmRegister64 = r11;
/// Sums of the current queries, and their current lanes.
pub(super) const SUMS: AsmRegister64 = r8;
pub(super) const SUMS_LANE: AsmRegister64 = r13;
/// Values of the first position in the current lanes, and of the current one.
pub(super) const V_LANE: AsmRegister64 = r12;
pub(super) const V_AT: AsmRegister64 = r14;
/// Bytes of a row of sums.
pub(super) const ROW: AsmRegister64 = r10;
pub(super) const POSITIONS: AsmRegister64 = rbx;
pub(super) const POSITIONS_LEFT: AsmRegister64 = r15;
pub(super) const LANES_LEFT: AsmRegister64 = rbp;

/// `extern "C" fn(e, v, d, queries, sums, stride, positions)`.
pub(super) fn values(elements: Elements) -> Function {
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
                        value_tile(a, elements, ValueTile { queries: count, blocks, is_tail: false })?;
                        a.add(V_LANE, int(blocks * LANES * elements.bytes()))?;
                        a.add(SUMS_LANE, int(blocks * LANES * 4))
                    })?;
                }
                a.test(LANES_LEFT, LANES_LEFT)?;
                a.je(done)?;
                value_tile(a, elements, ValueTile { queries: count, blocks: 1, is_tail: true })?;
                a.set_label(&mut done)?;
                a.lea(E, E + STRIDE * count)?;
                a.lea(SUMS, SUMS + ROW * count)
            })?;
        }
        a.zero_bytes()
    })
}

/// Sums kept side by side: of some queries, in some blocks of lanes or in what is left of one.
#[derive(Clone, Copy)]
struct ValueTile {
    queries: usize,
    blocks: usize,
    is_tail: bool,
}

/// Adds all positions to the sums of a tile.
fn value_tile(a: &mut CodeAssembler, elements: Elements, tile: ValueTile) -> Result<(), IcedError> {
    let ValueTile { queries, blocks, is_tail } = tile;
    let [sums, values, factors] = [0, 16, 20].map(|first| &REGISTERS[first..]);
    let masked = |register: AsmRegisterZmm| if is_tail { register.k1() } else { register };
    let zeroed = |register: AsmRegisterZmm| if is_tail { register.k1().z() } else { register };
    let block_bytes = LANES * elements.bytes();
    let mut top = a.create_label();
    for_sums(a, queries, |a, query| {
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
    elements.ask_ahead(a, V_AT, blocks * block_bytes)?;
    for (block, value) in values[..blocks].iter().enumerate() {
        load_widened(a, elements.dtype, zeroed(*value), V_AT + int(block * block_bytes))?;
    }
    for query in 0..queries {
        a.vbroadcastss(factors[query], dword_ptr(factor_address(query)))?;
        for (block, value) in values[..blocks].iter().enumerate() {
            a.vfmadd231ps(masked(sums[query * blocks + block]), factors[query], *value)?;
        }
    }
    a.lea(V_AT, V_AT + D * elements.bytes())?;
    a.add(E_AT, 4)?;
    a.dec(POSITIONS_LEFT)?;
    a.jne(top)?;
    for_sums(a, queries, |a, query| {
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
pub(super) fn for_sums(
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

pub(super) fn factor_address(query: usize) -> AsmMemoryOperand {
    match query {
        0 => E_AT + 0,
        1 => E_AT + STRIDE + 0,
        2 => E_AT + STRIDE * 2 + 0,
        _ => E_AT + STRIDE_3 + 0,
    }
}
