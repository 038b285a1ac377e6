//! `numerics::exp` of eight lanes with 256 bits. Its constants lie on the stack, because registers are few.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::eax;
use iced_x86::code_asm::registers::gpr64::{r10, rsp};
use iced_x86::code_asm::registers::xmm::xmm15;
use iced_x86::code_asm::registers::ymm::*;
use iced_x86::code_asm::{AsmMemoryOperand, AsmRegister64, AsmRegisterYmm, CodeAssembler, ymmword_ptr};
use tcc_ir::numerics::{EXP_MIN, EXP_POLY, LN2_HIGH, LN2_LOW, LOG2_E, ROUND_MAGIC};

use super::function;
use super::pieces::int;
use crate::code::Function;

/// Bytes of a register.
const WIDTH: usize = 32;

/// Of these, `r = fma(n, -LN2, x)` is one subtraction, rounded once; the coefficients of the polynomial follow.
const CONSTANTS: [f32; 6] = [EXP_MIN, LOG2_E, ROUND_MAGIC, LN2_HIGH, LN2_LOW, 1.0];
const ALL: usize = CONSTANTS.len() + EXP_POLY.len();

/// Where the constants are.
const AT: AsmRegister64 = r10;

/// What [`exp`] is of, and where it goes.
pub(super) const ARGUMENT: AsmRegisterYmm = ymm8;
pub(super) const RESULT: AsmRegisterYmm = ymm12;

/// A function that may use [`exp`], [`one`] and, by [`own`], constants of its own: `body` keeps [`AT`].
pub(super) fn with_constants(
    name: &str,
    own: &[f32],
    body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Function {
    // The first whole register behind the stack pointer, so that none lies in two cache lines.
    let bytes = (ALL + own.len() + 1) * WIDTH;
    let frame_bytes = u32::try_from(8 + bytes).expect("a few constants");
    function(name, frame_bytes, |a| {
        a.sub(rsp, int(bytes))?;
        a.lea(AT, rsp + int(WIDTH - 1))?;
        a.and(AT, -int(WIDTH))?;
        for (index, value) in CONSTANTS.iter().chain(&EXP_POLY).chain(own).enumerate() {
            a.mov(eax, value.to_bits())?;
            a.vmovd(xmm15, eax)?;
            a.vpbroadcastd(ymm15, xmm15)?;
            a.vmovaps(constant(index), ymm15)?;
        }
        body(a)?;
        a.vzeroupper()?;
        a.add(rsp, int(bytes))?;
        a.ret()
    })
}

/// Constant `index`, in every lane.
fn constant(index: usize) -> AsmMemoryOperand {
    ymmword_ptr(AT + int(index * WIDTH))
}

/// The loop's own constant `index`.
pub(super) fn own(index: usize) -> AsmMemoryOperand {
    constant(ALL + index)
}

/// 1 in every lane.
pub(super) fn one() -> AsmMemoryOperand {
    constant(CONSTANTS.len() - 1)
}

/// [`RESULT`] becomes `numerics::exp` of [`ARGUMENT`], which is not above `EXP_MAX`; changes ymm9 to ymm11.
pub(super) fn exp(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let [smallest, log2_e, magic, ln2_high, ln2_low, one] = std::array::from_fn(constant);
    let (x, biased, n, r, p) = (ARGUMENT, ymm9, ymm10, ymm11, RESULT);
    a.vmulps(biased, x, log2_e)?;
    a.vaddps(biased, biased, magic)?;
    a.vsubps(n, biased, magic)?;
    a.vmovaps(r, x)?;
    a.vfnmadd231ps(r, n, ln2_high)?;
    a.vfnmadd231ps(r, n, ln2_low)?;
    a.vmovaps(p, constant(CONSTANTS.len()))?;
    for coefficient in 1..EXP_POLY.len() {
        a.vfmadd213ps(p, r, constant(CONSTANTS.len() + coefficient))?;
    }
    a.vmulps(n, r, r)?;
    a.vfmadd213ps(p, n, r)?;
    a.vaddps(p, p, one)?;
    // The magic number's low nine bits are 0, so shifting the biased sum by 23 leaves n in the exponent field.
    a.vpslld(biased, biased, 23)?;
    a.vpaddd(p, p, biased)?;
    // Not less than: predicate 5.
    a.vcmpps(n, x, smallest, 5)?;
    a.vandps(p, p, n)
}
