//! The assembled loops of a screened head (see [`ScreenLoops`]): estimates of panels, and their refinement for a row.
//!
//! Lanes of 32 bits are rows of a panel, or groups of a record: four bits or two of each of four bytes meet four codes.
//! Blocks of 576 bytes, and records, are one stream each.

mod avx;
mod avx512;

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::eax;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::xmm::*;
use iced_x86::code_asm::{AsmMemoryOperand, AsmRegister64, AsmRegisterXmm, CodeAssembler, byte_ptr};
use tcc_ir::screen::{BLOCK, BLOCK_BYTES, GROUP, PANEL_ROWS, PIECE_BYTES, PIECE_GROUPS};
use tcc_ir::target::Features;

use super::dense::int;
use super::{desc, function};
use crate::code::Function;
use crate::isa::ScreenLoops;

/// The current block or piece.
const W: AsmRegister64 = rdi;
/// All codes.
const CODES: AsmRegister64 = rsi;
/// All blocks or pieces.
const COUNT: AsmRegister64 = rdx;
/// Panels left.
const PANELS: AsmRegister64 = rcx;
const OUT: AsmRegister64 = r8;
/// Bytes of all scales, which lie before the offsets.
const SCALES_BYTES: AsmRegister64 = r9;
/// Codes and scales of the current block or piece.
const Q: AsmRegister64 = r10;
const SCALES: AsmRegister64 = r11;
/// Blocks or pieces left.
const LEFT: AsmRegister64 = rax;

/// Distance of prefetches of blocks in bytes.
const PREFETCH_BYTES: i32 = 4096;

const LINE_BYTES: usize = 64;

/// What one level of features adds to the loops. Sixteen lanes of f32 stay in registers meanwhile.
trait Body {
    /// Clears the sixteen lanes.
    fn clear(&self, a: &mut CodeAssembler) -> Result<(), IcedError>;

    /// Sets what [`Body::group`] needs.
    fn group_constants(&self, a: &mut CodeAssembler) -> Result<(), IcedError>;

    /// Adds group `half` of the current block: a lane is a row.
    fn group(&self, a: &mut CodeAssembler, half: usize) -> Result<(), IcedError>;

    /// Stores the lanes at `OUT`.
    fn store(&self, a: &mut CodeAssembler) -> Result<(), IcedError>;

    /// Sets what [`Body::piece`] needs.
    fn piece_constants(&self, a: &mut CodeAssembler) -> Result<(), IcedError>;

    /// Adds the current piece: a lane is a group.
    fn piece(&self, a: &mut CodeAssembler) -> Result<(), IcedError>;

    /// Adds lanes l and l + 8, then + 4: four lanes of xmm0 are left.
    fn halve(&self, a: &mut CodeAssembler) -> Result<(), IcedError>;
}

/// The loops for cores with `features`, the baseline included.
pub(super) fn emit(features: Features) -> ScreenLoops {
    if features.contains(desc::AVX512VNNI) {
        loops(&avx512::Avx512)
    } else if features.contains(desc::AVXVNNI) {
        loops(&avx::Avx { has_vnni: true })
    } else {
        loops(&avx::Avx { has_vnni: false })
    }
}

fn loops(body: &impl Body) -> ScreenLoops {
    ScreenLoops { panels: panels(body), row: row(body) }
}

fn panels(body: &impl Body) -> Function {
    function("screen_panels", 8, |a| {
        let [mut panel, mut block, mut done] = std::array::from_fn(|_| a.create_label());
        body.group_constants(a)?;
        a.lea(SCALES_BYTES, COUNT * 8)?;
        a.test(PANELS, PANELS)?;
        a.je(done)?;
        a.set_label(&mut panel)?;
        a.mov(Q, CODES)?;
        a.mov(LEFT, COUNT)?;
        a.imul_3(SCALES, COUNT, int(BLOCK))?;
        a.add(SCALES, CODES)?;
        body.clear(a)?;
        a.set_label(&mut block)?;
        for line in (0..BLOCK_BYTES).step_by(LINE_BYTES) {
            a.prefetcht0(byte_ptr(W + PREFETCH_BYTES + int(line)))?;
        }
        for half in 0..2 {
            body.group(a, half)?;
        }
        a.add(W, int(BLOCK_BYTES))?;
        a.add(Q, int(BLOCK))?;
        a.add(SCALES, 8)?;
        a.dec(LEFT)?;
        a.jne(block)?;
        body.store(a)?;
        a.add(OUT, int(4 * PANEL_ROWS))?;
        a.dec(PANELS)?;
        a.jne(panel)?;
        a.set_label(&mut done)?;
        a.vzeroupper()?;
        a.ret()
    })
}

fn row(body: &impl Body) -> Function {
    function("screen_row", 8, |a| {
        let mut piece = a.create_label();
        body.piece_constants(a)?;
        a.mov(Q, CODES)?;
        a.mov(LEFT, COUNT)?;
        a.imul_3(SCALES, COUNT, int(PIECE_GROUPS * GROUP))?;
        a.add(SCALES, CODES)?;
        a.imul_3(SCALES_BYTES, COUNT, int(4 * PIECE_GROUPS))?;
        body.clear(a)?;
        a.set_label(&mut piece)?;
        body.piece(a)?;
        a.add(W, int(PIECE_BYTES))?;
        a.add(Q, int(PIECE_GROUPS * GROUP))?;
        a.add(SCALES, int(4 * PIECE_GROUPS))?;
        a.dec(LEFT)?;
        a.jne(piece)?;
        body.halve(a)?;
        a.vmovhlps(xmm1, xmm0, xmm0)?;
        a.vaddps(xmm0, xmm0, xmm1)?;
        a.vmovshdup(xmm1, xmm0)?;
        a.vaddss(xmm0, xmm0, xmm1)?;
        constant(a, xmm1, 0.25f32.to_bits())?;
        a.vmulss(xmm0, xmm0, xmm1)?;
        a.vzeroupper()?;
        a.ret()
    })
}

/// `bits` in the lowest lane; changes what `eax` is part of.
fn constant(a: &mut CodeAssembler, to: AsmRegisterXmm, bits: u32) -> Result<(), IcedError> {
    a.mov(eax, bits)?;
    a.vmovd(to, eax)
}

/// Bits 0 to 3, or 4 to 7, of every byte.
const NIBBLE_MASKS: [u32; 2] = [0x0f0f_0f0f, 0xf0f0_f0f0];

/// Bits 2 `plane` and the next of every byte.
fn plane_mask(plane: usize) -> u32 {
    0x0303_0303 << (2 * plane)
}

/// Scales of lanes `lane` and on, in group `half` of the current block.
fn row_scales(half: usize, lane: usize) -> AsmMemoryOperand {
    W + int(2 * (PANEL_ROWS * half + lane))
}

/// Bytes of lanes `lane` and on, eight columns `eight` of group `half` of the current block.
fn nibbles(half: usize, eight: usize, lane: usize) -> AsmMemoryOperand {
    W + int(2 * 2 * PANEL_ROWS + half * GROUP / 2 * PANEL_ROWS + eight * LINE_BYTES + 4 * lane)
}

/// Codes that the lower (`part` 0) or upper nibbles meet there.
fn four_codes(half: usize, eight: usize, part: usize) -> AsmMemoryOperand {
    Q + int(half * GROUP + 8 * eight + 4 * part)
}

/// Scale of group `half` of the current block, and its offset.
fn group_scale(half: usize) -> AsmMemoryOperand {
    SCALES + int(4 * half)
}

fn group_offset(half: usize) -> AsmMemoryOperand {
    SCALES + SCALES_BYTES + int(4 * half)
}

/// Scales of lanes `lane` and on of the current piece.
fn piece_row_scales(lane: usize) -> AsmMemoryOperand {
    W + int(2 * lane)
}

/// Bytes of lanes `lane` and on in row of lanes `row` of the current piece.
fn low_bits(row: usize, lane: usize) -> AsmMemoryOperand {
    W + int(2 * PIECE_GROUPS + row * LINE_BYTES + 4 * lane)
}

/// Codes that plane `plane` of those meets.
fn lane_codes(row: usize, plane: usize, lane: usize) -> AsmMemoryOperand {
    Q + int((4 * row + plane) * LINE_BYTES + 4 * lane)
}

/// Query's scales and offsets of lanes `lane` and on of the current piece.
fn piece_scales(lane: usize) -> AsmMemoryOperand {
    SCALES + int(4 * lane)
}

fn piece_offsets(lane: usize) -> AsmMemoryOperand {
    SCALES + SCALES_BYTES + int(4 * lane)
}

/// Rows of lanes of a piece.
const PIECE_ROWS: usize = GROUP / 16;
