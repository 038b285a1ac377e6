//! The assembled loops over rows of floats with 512 bits (see [`RowPart`]): sixteen elements at a time, the rest
//! masked.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::eax;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::xmm::*;
use iced_x86::code_asm::registers::ymm::*;
use iced_x86::code_asm::registers::zmm::*;
use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister64, AsmRegisterXmm, AsmRegisterYmm, AsmRegisterZmm, CodeAssembler, xmmword_ptr,
    ymmword_ptr, zmmword_ptr,
};
use tcc_ir::numerics::{EXP_MAX, F16_MAX, LANES};

use super::exp::{ARGUMENT, ONE, RESULT, exp, load_constants, splat};
use super::function;
use super::pieces::{int, reduce, tail_mask, while_left};
use crate::code::Function;
use crate::isa::{RowBodies, RowPart};

/// Blocks of an iteration, most first.
const UNROLL: [usize; 2] = [4, 1];

/// How conversions to halves round, whatever the mode of other instructions is.
pub(super) const ROUND_TO_EVEN: u32 = 0;

/// What a block is loaded to, block by block of an iteration.
const BLOCK: [AsmRegisterZmm; 4] = [zmm0, zmm1, zmm2, zmm3];
/// A factor or limit of all elements, and what is gathered from them.
const FACTOR: AsmRegisterZmm = zmm16;
const GATHERED: AsmRegisterZmm = zmm4;

/// Emits what a function does between its entry and its return.
pub(super) type Body = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// The function of `part`.
pub(super) fn emit(part: RowPart) -> Option<Function> {
    let narrow: Body = narrow;
    let bodies: RowBodies<Body> = RowBodies { squares, scale, absmax, codes, relu2, silu, narrow: Some(narrow) };
    Some(leaf(part.symbol(), bodies.of(part)?))
}

/// A function of `body` that uses no stack.
pub(super) fn leaf(name: &str, body: Body) -> Function {
    function(name, 8, |a| {
        body(a)?;
        a.vzeroupper()?;
        a.ret()
    })
}

/// A pointer that moves along with the row, and bytes of its elements.
type Stream = (AsmRegister64, usize);

/// One block of sixteen elements, or what is left of one: block registers and the bytes from the pointers.
#[derive(Clone, Copy)]
struct Block {
    index: usize,
    is_tail: bool,
}

impl Block {
    /// The block's register, for what is loaded: lanes that do not exist are zeros.
    fn register(self) -> AsmRegisterZmm {
        self.zeroed(BLOCK[self.index])
    }

    /// `register` for what is loaded or computed, the same way.
    fn zeroed(self, register: AsmRegisterZmm) -> AsmRegisterZmm {
        if self.is_tail { register.k1().z() } else { register }
    }

    /// The elements of f32 at `pointer`.
    fn floats(self, pointer: AsmRegister64) -> AsmMemoryOperand {
        zmmword_ptr(pointer + int(self.index * LANES * 4))
    }

    /// A place to store at.
    fn masked(self, place: AsmMemoryOperand) -> AsmMemoryOperand {
        if self.is_tail { place.k1() } else { place }
    }
}

/// Runs `body` for each block of `n` elements; `streams` move on. Changes rax and r11.
fn for_blocks(
    a: &mut CodeAssembler,
    n: AsmRegister64,
    streams: &[Stream],
    body: impl Fn(&mut CodeAssembler, Block) -> Result<(), IcedError>,
) -> Result<(), IcedError> {
    let mut done = a.create_label();
    tail_mask(a, n)?;
    for unroll in UNROLL {
        while_left(a, n, unroll * LANES, |a| {
            for index in 0..unroll {
                body(a, Block { index, is_tail: false })?;
            }
            streams.iter().try_for_each(|(pointer, bytes)| a.add(*pointer, int(unroll * LANES * bytes)))
        })?;
    }
    a.test(n, n)?;
    a.je(done)?;
    body(a, Block { index: 0, is_tail: true })?;
    a.set_label(&mut done)?;
    a.zero_bytes()
}

/// An instruction of three registers.
pub(super) type Op<R> = fn(&mut CodeAssembler, R, R, R) -> Result<(), IcedError>;

/// Joins the lanes of [`GATHERED`] by one instruction, in its two widths, to the return register.
fn join_gathered(a: &mut CodeAssembler, eight: Op<AsmRegisterYmm>, four: Op<AsmRegisterXmm>) -> Result<(), IcedError> {
    a.vextracti32x8(ymm5, GATHERED, 1)?;
    join_halves(a, eight, four)
}

/// The same of lanes in ymm4 and ymm5, both of which are overwritten.
pub(super) fn join_halves(
    a: &mut CodeAssembler,
    eight: Op<AsmRegisterYmm>,
    four: Op<AsmRegisterXmm>,
) -> Result<(), IcedError> {
    eight(a, ymm4, ymm4, ymm5)?;
    a.vextracti128(xmm5, ymm4, 1)?;
    four(a, xmm4, xmm4, xmm5)?;
    for lanes in [0b1110, 1] {
        a.vpshufd(xmm5, xmm4, lanes)?;
        four(a, xmm4, xmm4, xmm5)?;
    }
    a.vmovd(eax, xmm4)
}

/// `extern "C" fn(x, n) -> f32`.
fn squares(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (x, n) = (rdi, rsi);
    a.vpxord(GATHERED, GATHERED, GATHERED)?;
    for_blocks(a, n, &[(x, 4)], |a, block| {
        a.vmovups(block.register(), block.floats(x))?;
        let register = BLOCK[block.index];
        let partials = if block.is_tail { GATHERED.k1() } else { GATHERED };
        a.vfmadd231ps(partials, register, register)
    })?;
    reduce(a, (GATHERED, ymm4, xmm4), (ymm5, xmm5))?;
    a.vmovaps(xmm0, xmm4)
}

/// `extern "C" fn(x, w, n, out, r)`.
fn scale(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (x, w, n, out) = (rdi, rsi, rdx, rcx);
    a.vbroadcastss(FACTOR, xmm0)?;
    for_blocks(a, n, &[(x, 4), (w, 4), (out, 4)], |a, block| {
        a.vmulps(block.register(), FACTOR, block.floats(x))?;
        a.vmulps(block.register(), BLOCK[block.index], block.floats(w))?;
        a.vmovups(block.masked(block.floats(out)), BLOCK[block.index])
    })
}

/// `extern "C" fn(x, n) -> i32`.
fn absmax(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (x, n) = (rdi, rsi);
    a.mov(eax, i32::MAX)?;
    a.vpbroadcastd(FACTOR, eax)?;
    a.vpxord(GATHERED, GATHERED, GATHERED)?;
    for_blocks(a, n, &[(x, 4)], |a, block| {
        a.vpandd(block.register(), FACTOR, block.floats(x))?;
        a.vpmaxsd(GATHERED, GATHERED, BLOCK[block.index])
    })?;
    join_gathered(a, CodeAssembler::vpmaxsd, CodeAssembler::vpmaxsd)
}

/// `extern "C" fn(x, n, codes, inv_scale) -> i32`. Conversion rounds half to even, as every addition here does.
fn codes(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (x, n, codes) = (rdi, rsi, rdx);
    a.vbroadcastss(FACTOR, xmm0)?;
    a.vpxord(GATHERED, GATHERED, GATHERED)?;
    for_blocks(a, n, &[(x, 4), (codes, 1)], |a, block| {
        let register = BLOCK[block.index];
        a.vmulps(block.register(), FACTOR, block.floats(x))?;
        a.vcvtps2dq(register, register)?;
        a.vpaddd(GATHERED, GATHERED, register)?;
        a.vpmovdb(block.masked(xmmword_ptr(codes + int(block.index * LANES))), register)
    })?;
    join_gathered(a, CodeAssembler::vpaddd, CodeAssembler::vpaddd)
}

/// `extern "C" fn(x, n, out)`. Magnitudes are limited as integers: so is what is no number.
fn narrow(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (x, n, out) = (rdi, rsi, rdx);
    let (sign, largest, magnitude) = (FACTOR, zmm17, zmm5);
    splat(a, sign, -0.0)?;
    splat(a, largest, F16_MAX)?;
    for_blocks(a, n, &[(x, 4), (out, 2)], |a, block| {
        let register = BLOCK[block.index];
        a.vmovups(block.register(), block.floats(x))?;
        a.vpandnd(magnitude, sign, register)?;
        a.vpminsd(magnitude, magnitude, largest)?;
        // The sign where `sign` has a bit, the magnitude elsewhere.
        a.vpternlogd(register, magnitude, sign, 0b1110_0100)?;
        a.vcvtps2ph(block.masked(ymmword_ptr(out + int(block.index * LANES * 2))), register, ROUND_TO_EVEN)
    })
}

/// `extern "C" fn(g, u, n, out)`.
fn relu2(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (g, u, n, out) = (rdi, rsi, rdx, rcx);
    a.vpxord(FACTOR, FACTOR, FACTOR)?;
    for_blocks(a, n, &[(g, 4), (u, 4), (out, 4)], |a, block| {
        let register = BLOCK[block.index];
        a.vmovups(block.register(), block.floats(g))?;
        a.vmaxps(register, register, FACTOR)?;
        a.vmulps(register, register, register)?;
        a.vmulps(block.register(), register, block.floats(u))?;
        a.vmovups(block.masked(block.floats(out)), register)
    })
}

/// `extern "C" fn(g, u, n, out)`.
fn silu(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (g, u, n, out) = (rdi, rsi, rdx, rcx);
    let (least, sign, gate) = (FACTOR, zmm17, zmm5);
    load_constants(a)?;
    splat(a, least, -EXP_MAX)?;
    splat(a, sign, -0.0)?;
    for_blocks(a, n, &[(g, 4), (u, 4), (out, 4)], |a, block| {
        a.vmovups(block.zeroed(gate), block.floats(g))?;
        a.vmaxps(ARGUMENT, least, gate)?;
        a.vpxord(ARGUMENT, ARGUMENT, sign)?;
        exp(a)?;
        a.vaddps(RESULT, RESULT, ONE)?;
        a.vdivps(gate, gate, RESULT)?;
        a.vmulps(block.zeroed(gate), gate, block.floats(u))?;
        a.vmovups(block.masked(block.floats(out)), gate)
    })
}
