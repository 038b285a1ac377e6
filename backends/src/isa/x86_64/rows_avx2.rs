//! The assembled loops over rows of floats with 256 bits (see [`RowPart`]): sixteen elements at a time, the rest one by
//! one.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr8::al;
use iced_x86::code_asm::registers::gpr32::eax;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::xmm::*;
use iced_x86::code_asm::registers::ymm::*;
use iced_x86::code_asm::{
    AsmRegister64, AsmRegisterXmm, AsmRegisterYmm, CodeAssembler, byte_ptr, dword_ptr, word_ptr, xmmword_ptr,
    ymmword_ptr,
};
use tcc_ir::numerics::{EXP_MAX, F16_MAX, LANES};

use super::exp_avx2::{ARGUMENT, RESULT, exp, one, own, with_constants};
use super::pieces::{int, reduce_halves, while_left};
use super::rows::{Op, ROUND_TO_EVEN, join_halves, leaf};
use crate::code::Function;
use crate::isa::{RowBodies, RowPart};

/// Bytes of a register.
const WIDTH: usize = 32;

/// Registers of two operands, with the first one's lower part.
type Pair = ([AsmRegisterYmm; 2], AsmRegisterXmm);
const LEFT: Pair = ([ymm0, ymm1], xmm0);
const RIGHT: Pair = ([ymm2, ymm3], xmm2);
/// What is gathered from all elements.
const GATHERED: [AsmRegisterYmm; 2] = [ymm4, ymm5];
/// A factor or limit of all elements.
const FACTOR: AsmRegisterYmm = ymm6;

/// The function of `part`.
pub(super) fn emit(part: RowPart) -> Option<Function> {
    let bodies: RowBodies<fn(&str) -> Function> = RowBodies {
        squares: |name| leaf(name, squares),
        scale: |name| leaf(name, scale),
        absmax: |name| leaf(name, absmax),
        codes: |name| leaf(name, codes),
        relu2: |name| leaf(name, relu2),
        silu: |name| with_constants(name, &[-EXP_MAX, -0.0], silu),
        narrow: Some(|name| leaf(name, narrow)),
    };
    Some(bodies.of(part)?(part.symbol()))
}

/// Elements that a step takes.
#[derive(Clone, Copy)]
enum Step {
    /// Sixteen, in two registers.
    Block,
    /// One, in the first lane of a register whose other lanes are 0.
    One,
}

impl Step {
    fn registers(self) -> usize {
        match self {
            Step::Block => 2,
            Step::One => 1,
        }
    }

    /// Loads f32 at `from`.
    fn load(self, a: &mut CodeAssembler, (to, first): Pair, from: AsmRegister64) -> Result<(), IcedError> {
        match self {
            Step::Block => {
                a.vmovups(to[0], ymmword_ptr(from))?;
                a.vmovups(to[1], ymmword_ptr(from + int(WIDTH)))
            }
            Step::One => a.vmovss(first, dword_ptr(from)),
        }
    }

    /// Stores f32 at `to`.
    fn store(self, a: &mut CodeAssembler, (from, first): Pair, to: AsmRegister64) -> Result<(), IcedError> {
        match self {
            Step::Block => {
                a.vmovups(ymmword_ptr(to), from[0])?;
                a.vmovups(ymmword_ptr(to + int(WIDTH)), from[1])
            }
            Step::One => a.vmovss(dword_ptr(to), first),
        }
    }

    /// `op` of the registers of `left`, to themselves, and of those of `right`.
    fn both(
        self,
        a: &mut CodeAssembler,
        left: [AsmRegisterYmm; 2],
        right: [AsmRegisterYmm; 2],
        op: Op<AsmRegisterYmm>,
    ) -> Result<(), IcedError> {
        left.into_iter().zip(right).take(self.registers()).try_for_each(|(x, y)| op(a, x, x, y))
    }
}

/// Runs `body` for each block of `n` elements, then for each element left; `streams` are pointers with the bytes of an
/// element, which move on.
fn for_elements(
    a: &mut CodeAssembler,
    n: AsmRegister64,
    streams: &[(AsmRegister64, usize)],
    body: impl Fn(&mut CodeAssembler, Step) -> Result<(), IcedError>,
) -> Result<(), IcedError> {
    for (step, elements) in [(Step::Block, LANES), (Step::One, 1)] {
        while_left(a, n, elements, |a| {
            body(a, step)?;
            streams.iter().try_for_each(|(pointer, bytes)| a.add(*pointer, int(elements * bytes)))
        })?;
    }
    a.zero_bytes()
}

fn clear_gathered(a: &mut CodeAssembler) -> Result<(), IcedError> {
    GATHERED.iter().try_for_each(|register| a.vpxor(*register, *register, *register))
}

/// `extern "C" fn(x, n) -> f32`.
///
/// Elements behind the last block go to the first partial each, and the partials round by one lane: sums of partials 8,
/// 4, 2 and 1 apart are the same wherever the first one lies. The other lanes of an element are 0, whose square leaves a
/// partial alone.
fn squares(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (x, n) = (rdi, rsi);
    let (next, [low, high]) = (FACTOR, GATHERED);
    // Lane i of a turned register is lane i + 1.
    a.mov(rax, 0x0007_0605_0403_0201_i64)?;
    a.vmovq(xmm6, rax)?;
    a.vpmovzxbd(next, xmm6)?;
    clear_gathered(a)?;
    for_elements(a, n, &[(x, 4)], |a, step| {
        step.load(a, LEFT, x)?;
        step.both(a, GATHERED, LEFT.0, |a, partial, _, x| a.vfmadd231ps(partial, x, x))?;
        if let Step::One = step {
            a.vpermps(low, next, low)?;
            a.vpermps(high, next, high)?;
            a.vmovaps(ymm0, low)?;
            a.vblendps(low, low, high, 1 << 7)?;
            a.vblendps(high, high, ymm0, 1 << 7)?;
        }
        a.zero_bytes()
    })?;
    reduce_halves(a, (ymm4, xmm4), (ymm5, xmm5))?;
    a.vmovaps(xmm0, xmm4)
}

/// `extern "C" fn(x, w, n, out, r)`.
fn scale(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (x, w, n, out) = (rdi, rsi, rdx, rcx);
    a.vbroadcastss(FACTOR, xmm0)?;
    for_elements(a, n, &[(x, 4), (w, 4), (out, 4)], |a, step| {
        step.load(a, LEFT, x)?;
        step.load(a, RIGHT, w)?;
        step.both(a, LEFT.0, [FACTOR; 2], CodeAssembler::vmulps)?;
        step.both(a, LEFT.0, RIGHT.0, CodeAssembler::vmulps)?;
        step.store(a, LEFT, out)
    })
}

/// `extern "C" fn(x, n) -> i32`.
fn absmax(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (x, n) = (rdi, rsi);
    a.mov(eax, i32::MAX)?;
    a.vmovd(xmm6, eax)?;
    a.vpbroadcastd(FACTOR, xmm6)?;
    clear_gathered(a)?;
    for_elements(a, n, &[(x, 4)], |a, step| {
        step.load(a, LEFT, x)?;
        step.both(a, LEFT.0, [FACTOR; 2], CodeAssembler::vpand)?;
        step.both(a, GATHERED, LEFT.0, CodeAssembler::vpmaxsd)
    })?;
    join_halves(a, CodeAssembler::vpmaxsd, CodeAssembler::vpmaxsd)
}

/// `extern "C" fn(x, n, codes, inv_scale) -> i32`. Conversion rounds half to even, as every addition here does.
fn codes(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (x, n, codes) = (rdi, rsi, rdx);
    a.vbroadcastss(FACTOR, xmm0)?;
    clear_gathered(a)?;
    for_elements(a, n, &[(x, 4), (codes, 1)], |a, step| {
        step.load(a, LEFT, x)?;
        step.both(a, LEFT.0, [FACTOR; 2], CodeAssembler::vmulps)?;
        step.both(a, LEFT.0, LEFT.0, |a, x, _, _| a.vcvtps2dq(x, x))?;
        step.both(a, GATHERED, LEFT.0, CodeAssembler::vpaddd)?;
        match step {
            Step::Block => {
                a.vpackssdw(ymm0, ymm0, ymm1)?;
                // Each half holds four of both registers.
                a.vpermq(ymm0, ymm0, 0b11_01_10_00)?;
                a.vextracti128(xmm1, ymm0, 1)?;
                a.vpacksswb(xmm0, xmm0, xmm1)?;
                a.vmovdqu(xmmword_ptr(codes), xmm0)
            }
            Step::One => {
                a.vmovd(eax, xmm0)?;
                a.mov(byte_ptr(codes), al)
            }
        }
    })?;
    join_halves(a, CodeAssembler::vpaddd, CodeAssembler::vpaddd)
}

/// `extern "C" fn(x, n, out)`. Magnitudes are limited as integers: so is what is no number.
fn narrow(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (x, n, out) = (rdi, rsi, rdx);
    let (sign, largest) = (FACTOR, ymm7);
    for (to, lowest, value) in [(sign, xmm6, -0.0), (largest, xmm7, F16_MAX)] {
        a.mov(eax, f32::to_bits(value))?;
        a.vmovd(lowest, eax)?;
        a.vpbroadcastd(to, lowest)?;
    }
    for_elements(a, n, &[(x, 4), (out, 2)], |a, step| {
        step.load(a, LEFT, x)?;
        step.both(a, RIGHT.0, LEFT.0, |a, magnitude, _, x| a.vpandn(magnitude, FACTOR, x))?;
        step.both(a, RIGHT.0, [largest; 2], CodeAssembler::vpminsd)?;
        step.both(a, LEFT.0, [sign; 2], CodeAssembler::vpand)?;
        step.both(a, LEFT.0, RIGHT.0, CodeAssembler::vpor)?;
        match step {
            Step::Block => {
                a.vcvtps2ph(xmmword_ptr(out), ymm0, ROUND_TO_EVEN)?;
                a.vcvtps2ph(xmmword_ptr(out + int(WIDTH / 2)), ymm1, ROUND_TO_EVEN)
            }
            Step::One => {
                a.vcvtps2ph(xmm0, xmm0, ROUND_TO_EVEN)?;
                a.vpextrw(word_ptr(out), xmm0, 0)
            }
        }
    })
}

/// `extern "C" fn(g, u, n, out)`.
fn relu2(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (g, u, n, out) = (rdi, rsi, rdx, rcx);
    a.vxorps(FACTOR, FACTOR, FACTOR)?;
    for_elements(a, n, &[(g, 4), (u, 4), (out, 4)], |a, step| {
        step.load(a, LEFT, g)?;
        step.load(a, RIGHT, u)?;
        step.both(a, LEFT.0, [FACTOR; 2], CodeAssembler::vmaxps)?;
        step.both(a, LEFT.0, LEFT.0, CodeAssembler::vmulps)?;
        step.both(a, LEFT.0, RIGHT.0, CodeAssembler::vmulps)?;
        step.store(a, LEFT, out)
    })
}

/// `extern "C" fn(g, u, n, out)`; its own constants are the least argument and the sign.
fn silu(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (g, u, n, out) = (rdi, rsi, rdx, rcx);
    for_elements(a, n, &[(g, 4), (u, 4), (out, 4)], |a, step| {
        step.load(a, LEFT, g)?;
        step.load(a, RIGHT, u)?;
        for gate in LEFT.0.into_iter().take(step.registers()) {
            a.vmovaps(ARGUMENT, own(0))?;
            a.vmaxps(ARGUMENT, ARGUMENT, gate)?;
            a.vxorps(ARGUMENT, ARGUMENT, own(1))?;
            exp(a)?;
            a.vaddps(RESULT, RESULT, one())?;
            a.vdivps(gate, gate, RESULT)?;
        }
        step.both(a, LEFT.0, RIGHT.0, CodeAssembler::vmulps)?;
        step.store(a, LEFT, out)
    })
}
