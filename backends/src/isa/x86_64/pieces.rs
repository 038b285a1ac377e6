//! Pieces that kernels of several files are made of.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::{eax, r11d};
use iced_x86::code_asm::registers::gpr64::r11;
use iced_x86::code_asm::registers::k1;
use iced_x86::code_asm::{AsmRegister64, AsmRegisterXmm, AsmRegisterYmm, AsmRegisterZmm, CodeAssembler};
use tcc_ir::numerics::LANES;

/// Runs `body` while `left` is at least `count`.
pub(in crate::isa::x86_64) fn while_left(
    a: &mut CodeAssembler,
    left: AsmRegister64,
    count: usize,
    body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Result<(), IcedError> {
    let [mut top, mut done] = [a.create_label(), a.create_label()];
    a.cmp(left, int(count))?;
    a.jb(done)?;
    a.set_label(&mut top)?;
    body(a)?;
    a.sub(left, int(count))?;
    a.cmp(left, int(count))?;
    a.jae(top)?;
    a.set_label(&mut done)?;
    a.zero_bytes()
}

/// Sets the low `count` mod 16 bits of the mask register; changes rax and r11.
pub(in crate::isa::x86_64) fn tail_mask(a: &mut CodeAssembler, count: AsmRegister64) -> Result<(), IcedError> {
    a.mov(r11d, int(LANES - 1))?;
    a.and(r11, count)?;
    a.mov(eax, -1)?;
    a.bzhi(eax, eax, r11d)?;
    a.kmovw(k1, eax)
}

/// `numerics::reduce` of the partials in a register, whose lower parts it is named with, to its first lane; `spare` is
/// overwritten.
pub(in crate::isa::x86_64) fn reduce(
    a: &mut CodeAssembler,
    (all, eight, four): (AsmRegisterZmm, AsmRegisterYmm, AsmRegisterXmm),
    (spare, low_spare): (AsmRegisterYmm, AsmRegisterXmm),
) -> Result<(), IcedError> {
    a.vextractf32x8(spare, all, 1)?;
    reduce_halves(a, (eight, four), (spare, low_spare))
}

/// The same of partials in two registers: the first is the lower half and holds the sum, the other is overwritten.
pub(in crate::isa::x86_64) fn reduce_halves(
    a: &mut CodeAssembler,
    (eight, four): (AsmRegisterYmm, AsmRegisterXmm),
    (spare, low_spare): (AsmRegisterYmm, AsmRegisterXmm),
) -> Result<(), IcedError> {
    a.vaddps(eight, eight, spare)?;
    a.vextractf128(low_spare, eight, 1)?;
    a.vaddps(four, four, low_spare)?;
    a.vmovhlps(low_spare, four, four)?;
    a.vaddps(four, four, low_spare)?;
    a.vmovshdup(low_spare, four)?;
    a.vaddss(four, four, low_spare)
}

/// The largest of eight lanes to the first one; `spare` is overwritten.
pub(in crate::isa::x86_64) fn largest(
    a: &mut CodeAssembler,
    (eight, four): (AsmRegisterYmm, AsmRegisterXmm),
    spare: AsmRegisterXmm,
) -> Result<(), IcedError> {
    a.vextractf128(spare, eight, 1)?;
    a.vmaxps(four, four, spare)?;
    a.vmovhlps(spare, four, four)?;
    a.vmaxps(four, four, spare)?;
    a.vmovshdup(spare, four)?;
    a.vmaxss(four, four, spare)
}

pub(in crate::isa::x86_64) fn int(value: usize) -> i32 {
    i32::try_from(value).expect("sizes of a few blocks")
}
