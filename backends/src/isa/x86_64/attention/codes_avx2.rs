//! Queries and weights as codes, with 256 bits: sixteen elements are two registers, the rest are masked.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::eax;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::xmm::*;
use iced_x86::code_asm::registers::ymm::*;
use iced_x86::code_asm::{
    AsmRegister64, AsmRegisterXmm, AsmRegisterYmm, CodeAssembler, dword_ptr, xmmword_ptr, ymmword_ptr,
};
use tcc_ir::attention_codes::{PLANE, PLANE_BITS, QUERY_MAX, QueryCodes, WEIGHT_MAX, WeightCodes};
use tcc_ir::numerics::{ABSMAX_FLOOR, LANES};

use super::codes::for_blocks;
use super::with_saved;
use crate::code::Function;
use crate::isa::x86_64::pieces::{int, largest, while_left};
use crate::isa::x86_64::rows::join_halves;

/// Bytes of a register, and its lanes.
const WIDTH: usize = 32;
pub(super) const REGISTER_LANES: usize = 8;

/// Codes of a block or what they are made from, and a plane of them, with the lower parts' names.
const CODES: [AsmRegisterYmm; 2] = [ymm0, ymm1];
const PLANE_OF: [AsmRegisterYmm; 2] = [ymm2, ymm3];
const PLANE_LOW: [AsmRegisterXmm; 2] = [xmm2, xmm3];
/// What is gathered, in the registers that [`join_halves`] wants.
const GATHERED: [AsmRegisterYmm; 2] = [ymm4, ymm5];
/// What elements are multiplied by, the bits of the low plane, and those of a magnitude.
const FACTOR: AsmRegisterYmm = ymm6;
const LOW_MASK: AsmRegisterYmm = ymm7;
const MAGNITUDE: AsmRegisterYmm = ymm8;
/// Lanes of the two registers of the last block.
pub(super) const TAIL: [AsmRegisterYmm; 2] = [ymm14, ymm15];

/// Where the planes of codes and the codes themselves go.
struct Places {
    high: AsmRegister64,
    low: AsmRegister64,
    codes: AsmRegister64,
}

/// `extern "C" fn(q, d, queries, codes)`. Lanes behind the last element are zeros, and so are their codes.
pub(super) fn query_codes() -> Function {
    let (q, d, queries, to) = (rdi, rsi, rdx, rcx);
    let (at, left, padded) = (r8, r9, r10);
    let places = Places { high: r12, low: r13, codes: r14 };
    with_saved("attention_query_codes", 0, |a| {
        load_constants(a, d)?;
        a.lea(padded, d + int(LANES - 1))?;
        a.and(padded, -int(LANES))?;
        while_left(a, queries, 1, |a| {
            clear_gathered(a)?;
            for_blocks(a, (at, q), (left, d), |a, is_tail| {
                load(a, at, is_tail)?;
                for (gathered, x) in GATHERED.into_iter().zip(CODES) {
                    a.vpand(x, x, MAGNITUDE)?;
                    a.vpmaxsd(gathered, gathered, x)?;
                }
                a.add(at, int(4 * LANES))
            })?;
            join_halves(a, CodeAssembler::vpmaxsd, CodeAssembler::vpmaxsd)?;
            a.vmovd(xmm0, eax)?;
            a.mov(eax, ABSMAX_FLOOR.to_bits())?;
            a.vmovd(xmm1, eax)?;
            a.vmaxss(xmm0, xmm0, xmm1)?;
            divide(a, f32::from(QUERY_MAX))?;
            a.vmovss(dword_ptr(to + int(QueryCodes::SCALE)), xmm2)?;

            a.lea(places.high, to + int(QueryCodes::HIGH))?;
            a.lea(places.low, places.high + padded)?;
            a.lea(places.codes, places.low + padded)?;
            clear_gathered(a)?;
            for_blocks(a, (at, q), (left, d), |a, is_tail| {
                code(a, at, is_tail)?;
                for (sum, code) in GATHERED.into_iter().zip(CODES) {
                    a.vpaddd(sum, sum, code)?;
                }
                store_planes(a, &places, [0; 3])?;
                let steps = [(at, 4), (places.high, 1), (places.low, 1), (places.codes, 2)];
                steps.into_iter().try_for_each(|(pointer, bytes)| a.add(pointer, int(LANES * bytes)))
            })?;
            join_halves(a, CodeAssembler::vpaddd, CodeAssembler::vpaddd)?;
            a.mov(dword_ptr(to + int(QueryCodes::SUM)), eax)?;
            a.lea(q, q + d * 4)?;
            // What follows the codes is the next query's.
            a.mov(to, places.codes)
        })
    })
}

/// `extern "C" fn(w, seen, end) -> f32`.
pub(super) fn weight_codes() -> Function {
    let (w, seen, end) = (rdi, rsi, rdx);
    let (at, left) = (r8, r9);
    with_saved("attention_weight_codes", 0, |a| {
        load_constants(a, seen)?;
        clear_gathered(a)?;
        for_blocks(a, (at, w), (left, seen), |a, is_tail| {
            load(a, at, is_tail)?;
            for (gathered, x) in GATHERED.into_iter().zip(CODES) {
                a.vmaxps(gathered, x, gathered)?;
            }
            a.add(at, int(4 * LANES))
        })?;
        a.vmaxps(ymm0, GATHERED[0], GATHERED[1])?;
        largest(a, (ymm0, xmm0), xmm1)?;
        divide(a, f32::from(WEIGHT_MAX))?;
        // The scale stays there.
        a.vmovaps(xmm4, xmm2)?;
        for_blocks(a, (at, w), (left, seen), |a, is_tail| {
            code(a, at, is_tail)?;
            let places = Places { high: at, low: at, codes: at };
            store_planes(a, &places, [WeightCodes::HIGH, WeightCodes::LOW, WeightCodes::CODES])?;
            a.add(at, int(WeightCodes::BYTES))
        })?;
        // `at` is behind the last block; so many positions are left that have no weight.
        a.mov(left, at)?;
        a.sub(left, w)?;
        a.shr(left, 2)?;
        a.add(end, int(LANES - 1))?;
        a.sub(end, left)?;
        let mut done = a.create_label();
        a.jbe(done)?;
        a.vpxor(ymm0, ymm0, ymm0)?;
        while_left(a, end, LANES, |a| {
            a.vmovdqu(ymmword_ptr(at), ymm0)?;
            a.vmovdqu(ymmword_ptr(at + int(WIDTH)), ymm0)?;
            a.add(at, int(WeightCodes::BYTES))
        })?;
        a.set_label(&mut done)?;
        a.vmovaps(xmm0, xmm4)
    })
}

/// Loads the block at `at` to [`CODES`].
fn load(a: &mut CodeAssembler, at: AsmRegister64, is_tail: bool) -> Result<(), IcedError> {
    for (i, (to, mask)) in CODES.into_iter().zip(TAIL).enumerate() {
        let from = ymmword_ptr(at + int(i * WIDTH));
        if is_tail { a.vmaskmovps(to, mask, from)? } else { a.vmovups(to, from)? }
    }
    a.zero_bytes()
}

/// Leaves the codes of the block at `at` in [`CODES`].
fn code(a: &mut CodeAssembler, at: AsmRegister64, is_tail: bool) -> Result<(), IcedError> {
    load(a, at, is_tail)?;
    for x in CODES {
        a.vmulps(x, x, FACTOR)?;
        a.vcvtps2dq(x, x)?;
    }
    a.zero_bytes()
}

fn clear_gathered(a: &mut CodeAssembler) -> Result<(), IcedError> {
    GATHERED.iter().try_for_each(|register| a.vpxor(*register, *register, *register))
}

/// Constants, and the masks of what is left of `n` elements; changes rax.
fn load_constants(a: &mut CodeAssembler, n: AsmRegister64) -> Result<(), IcedError> {
    tail_masks(a, n, LANES)?;
    for (to, low, value) in [(LOW_MASK, xmm7, i32::from(PLANE) - 1), (MAGNITUDE, xmm8, i32::MAX)] {
        a.mov(eax, value)?;
        a.vmovd(low, eax)?;
        a.vpbroadcastd(to, low)?;
    }
    a.zero_bytes()
}

/// Sets the lanes of [`TAIL`] below `n` modulo `lanes`, a power of two; changes rax and the first three registers.
pub(super) fn tail_masks(a: &mut CodeAssembler, n: AsmRegister64, lanes: usize) -> Result<(), IcedError> {
    let (count, lane, step) = (ymm0, ymm1, ymm2);
    a.mov(rax, n)?;
    a.and(eax, int(lanes - 1))?;
    a.vmovd(xmm0, eax)?;
    a.vpbroadcastd(count, xmm0)?;
    a.mov(rax, 0x0706_0504_0302_0100_i64)?;
    a.vmovq(xmm1, rax)?;
    a.vpmovzxbd(lane, xmm1)?;
    a.mov(eax, int(REGISTER_LANES))?;
    a.vmovd(xmm2, eax)?;
    a.vpbroadcastd(step, xmm2)?;
    for mask in TAIL {
        a.vpcmpgtd(mask, count, lane)?;
        a.vpaddd(lane, lane, step)?;
    }
    a.zero_bytes()
}

/// The largest in xmm0 over `limit` to xmm2, and `limit` over it to [`FACTOR`].
fn divide(a: &mut CodeAssembler, limit: f32) -> Result<(), IcedError> {
    a.mov(eax, limit.to_bits())?;
    a.vmovd(xmm1, eax)?;
    a.vdivss(xmm2, xmm0, xmm1)?;
    a.vdivss(xmm1, xmm1, xmm0)?;
    a.vbroadcastss(FACTOR, xmm1)
}

/// Stores [`CODES`] as two planes and as they are, so many bytes behind each place. Each half of a packed register holds
/// four of both it is made of: a permutation puts them in order.
fn store_planes(a: &mut CodeAssembler, places: &Places, [high, low, codes]: [usize; 3]) -> Result<(), IcedError> {
    const IN_ORDER: u32 = 0b11_01_10_00;
    for (place, is_high) in [(places.high + int(high), true), (places.low + int(low), false)] {
        for (plane, code) in PLANE_OF.into_iter().zip(CODES) {
            if is_high { a.vpsrad(plane, code, PLANE_BITS)? } else { a.vpand(plane, code, LOW_MASK)? }
        }
        a.vpackssdw(PLANE_OF[0], PLANE_OF[0], PLANE_OF[1])?;
        a.vpermq(PLANE_OF[0], PLANE_OF[0], IN_ORDER)?;
        a.vextracti128(PLANE_LOW[1], PLANE_OF[0], 1)?;
        a.vpacksswb(PLANE_LOW[0], PLANE_LOW[0], PLANE_LOW[1])?;
        a.vmovdqu(xmmword_ptr(place), PLANE_LOW[0])?;
    }
    a.vpackssdw(PLANE_OF[0], CODES[0], CODES[1])?;
    a.vpermq(PLANE_OF[0], PLANE_OF[0], IN_ORDER)?;
    a.vmovdqu(ymmword_ptr(places.codes + int(codes)), PLANE_OF[0])
}
