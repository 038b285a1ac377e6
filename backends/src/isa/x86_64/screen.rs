//! The assembled estimates of a screened head (see [`Backend::screen_panels`]): `vpdpbusd` multiplies four nibbles of
//! each of sixteen rows by four broadcast codes.
//!
//! Nibbles are masked where they are: those of the upper half of a byte stay multiplied by 16 and have a sum of their
//! own, which is halved three times, so that both sums are doubled before the offset is added. A block of 576 bytes is
//! one stream; memory bounds it from about 20 bytes a cycle on.
//!
//! [`Backend::screen_panels`]: crate::isa::Backend::screen_panels

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::eax;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::zmm::*;
use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister64, AsmRegisterZmm, CodeAssembler, byte_ptr, dword_bcst, ymmword_ptr, zmmword_ptr,
};
use tcc_ir::screen::{BLOCK, BLOCK_BYTES, GROUP, PANEL_ROWS};

use super::dense::int;
use super::function;
use crate::code::Function;

/// The current block of the planes.
const W: AsmRegister64 = rdi;
const CODES: AsmRegister64 = rsi;
const BLOCKS: AsmRegister64 = rdx;
/// Panels left.
const PANELS: AsmRegister64 = rcx;
const OUT: AsmRegister64 = r8;
/// Bytes of the scales, which lie before the offsets.
const SCALES_BYTES: AsmRegister64 = r9;
/// Codes and scales of the current block.
const Q: AsmRegister64 = r10;
const SCALES: AsmRegister64 = r11;
/// Blocks left.
const LEFT: AsmRegister64 = rax;

const ESTIMATE: AsmRegisterZmm = zmm0;
/// Sums of the lower and of the upper nibbles of bytes.
const SUMS: [AsmRegisterZmm; 2] = [zmm1, zmm2];
const NIBBLES: [AsmRegisterZmm; 2] = [zmm3, zmm4];
const SCALE: AsmRegisterZmm = zmm5;
const MASKS: [AsmRegisterZmm; 2] = [zmm6, zmm7];

/// Distance of prefetches in bytes.
const PREFETCH_BYTES: i32 = 4096;

const LINE_BYTES: usize = 64;

/// Bytes of the scales of a block.
const BLOCK_SCALES_BYTES: usize = 2 * 2 * PANEL_ROWS;

/// The function named `name`.
pub(super) fn emit(name: &str) -> Function {
    function(name, 8, |a| {
        let [mut panel, mut block, mut done] = std::array::from_fn(|_| a.create_label());
        for (mask, bits) in MASKS.into_iter().zip([0x0f0f_0f0f_u32, 0xf0f0_f0f0]) {
            a.mov(eax, bits)?;
            a.vpbroadcastd(mask, eax)?;
        }
        a.lea(SCALES_BYTES, BLOCKS * 8)?;
        a.test(PANELS, PANELS)?;
        a.je(done)?;
        a.set_label(&mut panel)?;
        a.mov(Q, CODES)?;
        a.mov(LEFT, BLOCKS)?;
        a.mov(SCALES, BLOCKS)?;
        a.shl(SCALES, 6u32)?;
        a.add(SCALES, CODES)?;
        a.vpxord(ESTIMATE, ESTIMATE, ESTIMATE)?;
        a.set_label(&mut block)?;
        for line in (0..BLOCK_BYTES).step_by(LINE_BYTES) {
            a.prefetcht0(byte_ptr(W + PREFETCH_BYTES + int(line)))?;
        }
        for half in 0..2 {
            add_group(a, half)?;
        }
        a.add(W, int(BLOCK_BYTES))?;
        a.add(Q, int(BLOCK))?;
        a.add(SCALES, 8)?;
        a.dec(LEFT)?;
        a.jne(block)?;
        a.vmovups(zmmword_ptr(OUT), ESTIMATE)?;
        a.add(OUT, int(4 * PANEL_ROWS))?;
        a.dec(PANELS)?;
        a.jne(panel)?;
        a.set_label(&mut done)?;
        a.vzeroupper()?;
        a.ret()
    })
}

/// Adds one group of the current block to the estimates.
fn add_group(a: &mut CodeAssembler, half: usize) -> Result<(), IcedError> {
    let [low, high] = SUMS;
    for sum in SUMS {
        a.vpxord(sum, sum, sum)?;
    }
    for eight in 0..GROUP / 8 {
        let bytes = nibbles_address(half, eight);
        let columns = int(half * GROUP + 8 * eight);
        a.vmovdqu64(NIBBLES[1], zmmword_ptr(bytes))?;
        a.vpandd(NIBBLES[0], NIBBLES[1], MASKS[0])?;
        a.vpandd(NIBBLES[1], NIBBLES[1], MASKS[1])?;
        a.vpdpbusd(low, NIBBLES[0], dword_bcst(Q + columns))?;
        a.vpdpbusd(high, NIBBLES[1], dword_bcst(Q + columns + 4))?;
    }
    a.vpmovzxwd(SCALE, ymmword_ptr(W + int(2 * PANEL_ROWS * half)))?;
    a.vpslld(SCALE, SCALE, 16)?;
    a.vmulps(SCALE, SCALE, dword_bcst(SCALES + int(4 * half)))?;
    a.vpaddd(low, low, low)?;
    a.vpsrad(high, high, 3)?;
    a.vpaddd(low, low, high)?;
    a.vpaddd(low, low, dword_bcst(SCALES + SCALES_BYTES + int(4 * half)))?;
    a.vcvtdq2ps(low, low)?;
    a.vfmadd231ps(ESTIMATE, low, SCALE)
}

/// Address of eight columns of group `half` of the current block.
fn nibbles_address(half: usize, eight: usize) -> AsmMemoryOperand {
    W + int(BLOCK_SCALES_BYTES + half * GROUP / 2 * PANEL_ROWS + eight * LINE_BYTES)
}
