//! Sums of the codes of values, with products of bytes of 512 bits: one register is sixteen lanes times four positions,
//! four queries share it, with two planes of weights each: where it comes from memory, products take about as long.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::{AsmMemoryOperand, AsmRegister64, AsmRegisterZmm, CodeAssembler, dword_ptr, zmmword_ptr};
use tcc_ir::attention_codes::WeightCodes;
use tcc_ir::cache::{BLOCK, GROUP};
use tcc_ir::numerics::LANES;

use super::{Elements, QUERIES, REGISTERS, STRIDE, stack_argument, with_saved};
use crate::code::Function;
use crate::isa::x86_64::pieces::{int, tail_mask, while_left};

/// Registers of sixteen lanes processed together, most first.
const LANE_BLOCKS: [usize; 2] = [2, 1];
/// The offsets of the planes of a block of weights.
const PLANES: [usize; 2] = [WeightCodes::HIGH, WeightCodes::LOW];

/// Sums; then values, and four weights in every lane.
const SUMS: &[AsmRegisterZmm] = &REGISTERS;
const VALUES: usize = QUERIES[0] * PLANES.len() * LANE_BLOCKS[0];
const WEIGHTS: usize = VALUES + LANE_BLOCKS[0];

/// Bytes of a row of sums of one plane, and of a group of positions.
pub(super) const ROW: AsmRegister64 = rdx;
/// Three times [`STRIDE`].
pub(super) const STRIDE_3: AsmRegister64 = r11;
/// Weights of the current queries, and the current block's.
pub(super) const E: AsmRegister64 = rdi;
pub(super) const E_AT: AsmRegister64 = rax;
/// Sums of the current queries, and their current lanes.
pub(super) const TOTALS: AsmRegister64 = r8;
pub(super) const TOTALS_LANE: AsmRegister64 = r13;
/// Values of the first group of positions in the current lanes, and of the current one.
pub(super) const V_LANE: AsmRegister64 = r12;
pub(super) const V_AT: AsmRegister64 = r14;
pub(super) const BLOCKS: AsmRegister64 = rbx;
pub(super) const BLOCKS_LEFT: AsmRegister64 = r15;
pub(super) const LANES_LEFT: AsmRegister64 = rbp;

/// `extern "C" fn(codes, v, lanes, queries, sums, stride, blocks)`.
pub(super) fn values(elements: Elements) -> Function {
    let (first_value, queries, d) = (rsi, rcx, r10);
    with_saved("attention_code_values", 0, |a| {
        a.mov(BLOCKS, stack_argument(0))?;
        tail_mask(a, ROW)?;
        a.mov(d, ROW)?;
        a.shl(ROW, 2)?;
        a.lea(STRIDE_3, STRIDE + STRIDE * 2)?;
        for count in QUERIES {
            while_left(a, queries, count, |a| {
                let mut done = a.create_label();
                a.mov(V_LANE, first_value)?;
                a.mov(TOTALS_LANE, TOTALS)?;
                a.mov(LANES_LEFT, d)?;
                for blocks in LANE_BLOCKS {
                    while_left(a, LANES_LEFT, blocks * LANES, |a| {
                        value_tile(a, elements, Tile { queries: count, blocks, is_tail: false })?;
                        a.add(V_LANE, int(blocks * LANES * GROUP))?;
                        a.add(TOTALS_LANE, int(blocks * LANES * 4))
                    })?;
                }
                a.test(LANES_LEFT, LANES_LEFT)?;
                a.je(done)?;
                value_tile(a, elements, Tile { queries: count, blocks: 1, is_tail: true })?;
                a.set_label(&mut done)?;
                a.lea(E, E + STRIDE * count)?;
                a.lea(TOTALS, TOTALS + ROW * count)?;
                a.lea(TOTALS, TOTALS + ROW * count)
            })?;
        }
        a.zero_bytes()
    })
}

/// Sums kept side by side: of some queries and their planes, in some registers of lanes or in what is left of one.
#[derive(Clone, Copy)]
struct Tile {
    queries: usize,
    blocks: usize,
    is_tail: bool,
}

impl Tile {
    /// Sums of a plane of a query.
    fn sums(self, query: usize, plane: usize) -> &'static [AsmRegisterZmm] {
        &SUMS[(PLANES.len() * query + plane) * self.blocks..][..self.blocks]
    }

    fn zeroed(self, register: AsmRegisterZmm) -> AsmRegisterZmm {
        if self.is_tail { register.k1().z() } else { register }
    }

    fn masked(self, place: AsmMemoryOperand) -> AsmMemoryOperand {
        if self.is_tail { place.k1() } else { place }
    }
}

/// Adds all positions to the sums of a tile.
fn value_tile(a: &mut CodeAssembler, elements: Elements, tile: Tile) -> Result<(), IcedError> {
    let mut top = a.create_label();
    for_sums(a, tile, |a, place, sum| a.vmovdqu32(tile.zeroed(sum), place))?;
    a.mov(V_AT, V_LANE)?;
    a.mov(E_AT, E)?;
    a.mov(BLOCKS_LEFT, BLOCKS)?;
    a.set_label(&mut top)?;
    for group in 0..BLOCK / GROUP {
        add_group(a, elements, tile, group)?;
        a.add(V_AT, ROW)?;
    }
    a.add(E_AT, int(WeightCodes::BYTES))?;
    a.dec(BLOCKS_LEFT)?;
    a.jne(top)?;
    for_sums(a, tile, |a, place, sum| a.vmovdqu32(tile.masked(place), sum))
}

/// Adds the products of group `group` of a block of positions.
fn add_group(a: &mut CodeAssembler, elements: Elements, tile: Tile, group: usize) -> Result<(), IcedError> {
    let values = &REGISTERS[VALUES..][..tile.blocks];
    for (block, value) in values.iter().enumerate() {
        let at = V_AT + int(block * LANES * GROUP);
        a.vmovdqu32(tile.zeroed(*value), zmmword_ptr(at))?;
        elements.ask_line(a, at)?;
    }
    for query in 0..tile.queries {
        for (plane, offset) in PLANES.into_iter().enumerate() {
            let weight = REGISTERS[WEIGHTS + PLANES.len() * query + plane];
            a.vpbroadcastd(weight, dword_ptr(weight_address(query, int(offset + GROUP * group))))?;
            for (sum, value) in tile.sums(query, plane).iter().zip(values) {
                a.vpdpbusd(*sum, weight, *value)?;
            }
        }
    }
    a.zero_bytes()
}

pub(super) fn weight_address(query: usize, at: i32) -> AsmMemoryOperand {
    match query {
        0 => E_AT + at,
        1 => E_AT + STRIDE + at,
        2 => E_AT + STRIDE * 2 + at,
        _ => E_AT + STRIDE_3 + at,
    }
}

/// Runs `body` with the place and the register of each sum of a tile.
fn for_sums(
    a: &mut CodeAssembler,
    tile: Tile,
    body: impl Fn(&mut CodeAssembler, AsmMemoryOperand, AsmRegisterZmm) -> Result<(), IcedError>,
) -> Result<(), IcedError> {
    a.mov(V_AT, TOTALS_LANE)?;
    for query in 0..tile.queries {
        for plane in 0..PLANES.len() {
            for (block, sum) in tile.sums(query, plane).iter().enumerate() {
                body(a, zmmword_ptr(V_AT + int(block * LANES * 4)), *sum)?;
            }
            a.add(V_AT, ROW)?;
        }
    }
    a.zero_bytes()
}
