//! Queries and weights as codes, with 512 bits: sixteen elements at a time, the rest masked.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::eax;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::xmm::*;
use iced_x86::code_asm::registers::ymm::*;
use iced_x86::code_asm::registers::zmm::*;
use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister64, AsmRegisterZmm, CodeAssembler, dword_ptr, xmmword_ptr, ymmword_ptr, zmmword_ptr,
};
use tcc_ir::attention_codes::{PLANE, PLANE_BITS, QUERY_MAX, QueryCodes, WEIGHT_MAX, WeightCodes};
use tcc_ir::numerics::{ABSMAX_FLOOR, LANES};

use crate::code::Function;
use crate::isa::x86_64::function;
use crate::isa::x86_64::pieces::{int, largest, tail_mask, while_left};
use crate::isa::x86_64::rows::join_halves;

/// The bits of a low plane in every lane.
const LOW_MASK: AsmRegisterZmm = zmm16;
/// What a block is multiplied by.
const FACTOR: AsmRegisterZmm = zmm17;
/// Bits of a magnitude.
const MAGNITUDE: AsmRegisterZmm = zmm18;
/// Of a block: what is loaded, its codes, and a plane of them.
const LOADED: AsmRegisterZmm = zmm0;
const CODE: AsmRegisterZmm = zmm1;
const PLANE_OF: AsmRegisterZmm = zmm2;
/// Gathered from all blocks; the lower parts' names are those that [`join_halves`] and [`largest`] want.
const GATHERED: AsmRegisterZmm = zmm4;

/// The three places of the codes of a block.
struct Places {
    high: AsmMemoryOperand,
    low: AsmMemoryOperand,
    codes: AsmMemoryOperand,
}

/// `extern "C" fn(q, d, queries, codes)`. Lanes behind the last element are zeros, and so are their codes.
pub(super) fn query_codes() -> Function {
    let (q, d, queries, to) = (rdi, rsi, rdx, rcx);
    let (padded, at, left, high, low, codes) = (r8, r9, r10, rax, r11, rsi);
    function("attention_query_codes", 16, |a| {
        a.push(rbx)?;
        let d_kept = rbx;
        tail_mask(a, d)?;
        a.mov(d_kept, d)?;
        load_constants(a)?;
        a.lea(padded, d + int(LANES - 1))?;
        a.and(padded, -int(LANES))?;
        while_left(a, queries, 1, |a| {
            a.vpxord(GATHERED, GATHERED, GATHERED)?;
            for_blocks(a, (at, q), (left, d_kept), |a, is_tail| {
                a.vpandd(zeroed(LOADED, is_tail), MAGNITUDE, zmmword_ptr(at))?;
                a.vpmaxsd(GATHERED, GATHERED, LOADED)?;
                a.add(at, int(4 * LANES))
            })?;
            a.vextracti32x8(ymm5, GATHERED, 1)?;
            join_halves(a, CodeAssembler::vpmaxsd, CodeAssembler::vpmaxsd)?;
            a.vmovd(xmm0, eax)?;
            a.mov(eax, ABSMAX_FLOOR.to_bits())?;
            a.vmovd(xmm1, eax)?;
            a.vmaxss(xmm0, xmm0, xmm1)?;
            divide(a, f32::from(QUERY_MAX))?;
            a.vmovss(dword_ptr(to + int(QueryCodes::SCALE)), xmm2)?;

            a.lea(high, to + int(QueryCodes::HIGH))?;
            a.lea(low, high + padded)?;
            a.lea(codes, low + padded)?;
            a.vpxord(GATHERED, GATHERED, GATHERED)?;
            for_blocks(a, (at, q), (left, d_kept), |a, is_tail| {
                a.vmulps(zeroed(LOADED, is_tail), FACTOR, zmmword_ptr(at))?;
                a.vcvtps2dq(CODE, LOADED)?;
                a.vpaddd(GATHERED, GATHERED, CODE)?;
                let places = Places { high: high + 0, low: low + 0, codes: codes + 0 };
                store_planes(a, &places)?;
                a.add(at, int(4 * LANES))?;
                a.add(high, int(LANES))?;
                a.add(low, int(LANES))?;
                a.add(codes, int(2 * LANES))
            })?;
            a.vextracti32x8(ymm5, GATHERED, 1)?;
            join_halves(a, CodeAssembler::vpaddd, CodeAssembler::vpaddd)?;
            a.mov(dword_ptr(to + int(QueryCodes::SUM)), eax)?;
            a.lea(q, q + d_kept * 4)?;
            // What follows the codes is the next query's.
            a.mov(to, codes)
        })?;
        a.pop(rbx)?;
        a.vzeroupper()?;
        a.ret()
    })
}

/// `extern "C" fn(w, seen, end) -> f32`.
pub(super) fn weight_codes() -> Function {
    let (w, seen, end) = (rdi, rsi, rdx);
    let (at, left) = (r9, r10);
    function("attention_weight_codes", 8, |a| {
        tail_mask(a, seen)?;
        load_constants(a)?;
        a.vpxord(GATHERED, GATHERED, GATHERED)?;
        for_blocks(a, (at, w), (left, seen), |a, is_tail| {
            a.vmovups(zeroed(LOADED, is_tail), zmmword_ptr(at))?;
            a.vmaxps(GATHERED, LOADED, GATHERED)?;
            a.add(at, int(4 * LANES))
        })?;
        a.vextractf32x8(ymm0, GATHERED, 1)?;
        a.vmaxps(ymm0, ymm4, ymm0)?;
        largest(a, (ymm0, xmm0), xmm1)?;
        divide(a, f32::from(WEIGHT_MAX))?;
        a.vmovaps(xmm3, xmm2)?;
        for_blocks(a, (at, w), (left, seen), |a, is_tail| {
            a.vmulps(zeroed(LOADED, is_tail), FACTOR, zmmword_ptr(at))?;
            a.vcvtps2dq(CODE, LOADED)?;
            let [high, low, codes] = [WeightCodes::HIGH, WeightCodes::LOW, WeightCodes::CODES].map(|o| at + int(o));
            store_planes(a, &Places { high, low, codes })?;
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
        a.vpxord(LOADED, LOADED, LOADED)?;
        while_left(a, end, LANES, |a| {
            a.vmovdqu32(zmmword_ptr(at), LOADED)?;
            a.add(at, int(WeightCodes::BYTES))
        })?;
        a.set_label(&mut done)?;
        a.vmovaps(xmm0, xmm3)?;
        a.vzeroupper()?;
        a.ret()
    })
}

/// Runs `body` for each block of `n` elements, the last of which may be masked by the tail of `n`; `at` begins at `from`.
pub(super) fn for_blocks(
    a: &mut CodeAssembler,
    (at, from): (AsmRegister64, AsmRegister64),
    (left, n): (AsmRegister64, AsmRegister64),
    body: impl Fn(&mut CodeAssembler, bool) -> Result<(), IcedError>,
) -> Result<(), IcedError> {
    let mut done = a.create_label();
    a.mov(at, from)?;
    a.mov(left, n)?;
    while_left(a, left, LANES, |a| body(a, false))?;
    a.test(left, left)?;
    a.je(done)?;
    body(a, true)?;
    a.set_label(&mut done)?;
    a.zero_bytes()
}

fn zeroed(register: AsmRegisterZmm, is_tail: bool) -> AsmRegisterZmm {
    if is_tail { register.k1().z() } else { register }
}

fn load_constants(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(eax, i32::from(PLANE) - 1)?;
    a.vpbroadcastd(LOW_MASK, eax)?;
    a.mov(eax, i32::MAX)?;
    a.vpbroadcastd(MAGNITUDE, eax)
}

/// The largest in xmm0 over `limit` to xmm2, and `limit` over it to [`FACTOR`].
fn divide(a: &mut CodeAssembler, limit: f32) -> Result<(), IcedError> {
    a.mov(eax, limit.to_bits())?;
    a.vmovd(xmm1, eax)?;
    a.vdivss(xmm2, xmm0, xmm1)?;
    a.vdivss(xmm1, xmm1, xmm0)?;
    a.vbroadcastss(FACTOR, xmm1)
}

/// Stores [`CODE`] as two planes and as it is.
fn store_planes(a: &mut CodeAssembler, places: &Places) -> Result<(), IcedError> {
    a.vpsrad(PLANE_OF, CODE, PLANE_BITS)?;
    a.vpmovdb(xmmword_ptr(places.high), PLANE_OF)?;
    a.vpandd(PLANE_OF, CODE, LOW_MASK)?;
    a.vpmovdb(xmmword_ptr(places.low), PLANE_OF)?;
    a.vpmovdw(ymmword_ptr(places.codes), CODE)
}
