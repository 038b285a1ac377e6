//! The assembled loops of screened and coded heads (see [`ScreenLoops`]): estimates of panels, and their refinement for
//! rows.
//!
//! Lanes of 32 bits are rows of a panel, or groups of a record: four bits or two of each of four bytes meet four codes.
//! Blocks, and records, are one stream each.

mod avx;
mod avx512;

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::{eax, ebx, r8d, r12d};
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::xmm::*;
use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister32, AsmRegister64, AsmRegisterXmm, CodeAssembler, byte_ptr, dword_ptr,
};
use tcc_ir::coded::{BYTE_BLOCK_BYTES, ROW_SCALES_BYTES};
use tcc_ir::screen::query::{HIGH_OFFSET, LOW_UNIT};
use tcc_ir::screen::{BLOCK, BLOCK_BYTES, GROUP, LANES_BYTES, PANEL_ROWS, PIECE_BYTES, PIECE_GROUPS};
use tcc_ir::target::Features;

use super::fetch::Fetch;
use super::pieces::int;
use super::{desc, function};
use crate::code::Function;
use crate::isa::ScreenLoops;

/// The current block.
const W: AsmRegister64 = rdi;
/// All codes.
const CODES: AsmRegister64 = rsi;
/// All blocks.
const COUNT: AsmRegister64 = rdx;
/// Panels left.
const PANELS: AsmRegister64 = rcx;
const OUT: AsmRegister64 = r8;
/// Bytes of all scales, which lie before the offsets.
const SCALES_BYTES: AsmRegister64 = r9;
/// Codes and scales of the current block.
const Q: AsmRegister64 = r10;
const SCALES: AsmRegister64 = r11;
/// Blocks left.
const LEFT: AsmRegister64 = rax;

/// All records, and the current piece of one.
const RECORDS: AsmRegister64 = rdi;
const RECORD: AsmRegister64 = r10;
/// Codes for low planes.
const LANE_CODES: AsmRegister64 = rsi;
/// Pieces of a record; then their bytes.
const PIECES: AsmRegister64 = rdx;
/// The current place in the list of rows, and the list's end.
const LIST: AsmRegister64 = rcx;
const LIST_END: AsmRegister64 = r11;
const ROWS_LEFT: AsmRegister64 = r8;
const FOUND: AsmRegister64 = r9;
/// The current row.
const ROW: AsmRegister64 = r8;
const ROW_32: AsmRegister32 = r8d;
/// The same piece of a later row.
const AHEAD: AsmRegister64 = rbx;
const AHEAD_32: AsmRegister32 = ebx;
/// Bytes of scales before the current piece, and of all pieces.
const PIECE: AsmRegister64 = r12;
const PIECE_32: AsmRegister32 = r12d;
const PIECES_BYTES: AsmRegister64 = r13;
const PIECE_SCALES: AsmRegister64 = r14;
const PIECE_OFFSETS: AsmRegister64 = r15;

/// Bytes of codes for a byte of scales: a group has one f32.
const CODES_PER_SCALE_BYTE: i32 = 8;

/// Rows between the current one and the one that is asked for: a few kilobytes. On Zen 4 refining rows and reading them
/// overlap only with more (`docs/performance.md`).
const fn rows_ahead(fetch: Fetch) -> usize {
    match fetch {
        Fetch::First => 3,
        Fetch::Second => 10,
    }
}

/// Distance of prefetches of blocks in bytes. Lines are asked for one by one between products: several at once wait for
/// each other, and loads behind them.
const PREFETCH_BYTES: i32 = 2048;

const LINE_BYTES: usize = 64;

const _: () = assert!(GROUP == CODES_PER_SCALE_BYTE as usize * 4);

/// What one level of features adds to the loops. Sixteen lanes of f32 stay in registers meanwhile.
trait Body {
    /// How later lines are asked for.
    fn fetch(&self) -> Fetch;

    /// Clears the sixteen lanes.
    fn clear(&self, a: &mut CodeAssembler) -> Result<(), IcedError>;

    /// Sets what [`Body::group`] needs.
    fn group_constants(&self, a: &mut CodeAssembler) -> Result<(), IcedError>;

    /// Adds group `half` of the current block: a lane is a row. Asks for lines of a later one meanwhile, one for each
    /// that it reads nibbles from ([`ask`]).
    fn group(&self, a: &mut CodeAssembler, half: usize) -> Result<(), IcedError>;

    /// Sets what [`Body::byte_group`] needs.
    fn byte_constants(&self, a: &mut CodeAssembler) -> Result<(), IcedError>;

    /// The same as [`Body::group`] with eight bits, signed, and all lines.
    fn byte_group(&self, a: &mut CodeAssembler, half: usize) -> Result<(), IcedError>;

    /// Multiplies the lanes by the scales of the rows, at `W`.
    fn scale_rows(&self, a: &mut CodeAssembler) -> Result<(), IcedError>;

    /// Stores the lanes at `OUT`.
    fn store(&self, a: &mut CodeAssembler) -> Result<(), IcedError>;

    /// Sets what [`Body::piece`] needs.
    fn piece_constants(&self, a: &mut CodeAssembler) -> Result<(), IcedError>;

    /// Adds the current piece: a lane is a group. Asks for the lines of a later row's meanwhile ([`ask_piece`]).
    fn piece(&self, a: &mut CodeAssembler) -> Result<(), IcedError>;

    /// Adds lanes l and l + 8, then + 4: four lanes of xmm0 are left.
    fn halve(&self, a: &mut CodeAssembler) -> Result<(), IcedError>;
}

/// The loops for cores with `features`, the baseline included.
pub(super) fn emit(features: Features) -> ScreenLoops {
    let fetch = Fetch::of(features);
    if features.contains(desc::AVX512VNNI) {
        loops(&avx512::Avx512 { fetch })
    } else {
        loops(&avx::Avx { has_vnni: features.contains(desc::AVXVNNI), fetch })
    }
}

fn loops(body: &impl Body) -> ScreenLoops {
    ScreenLoops { panels: panels(body, Codes::Nibbles), byte_panels: panels(body, Codes::Bytes), rows: rows(body) }
}

/// What the blocks of panels are made of.
#[derive(Clone, Copy, PartialEq)]
enum Codes {
    Nibbles,
    Bytes,
}

fn panels(body: &impl Body, codes: Codes) -> Function {
    // Lines that the groups ask for, one for each of lanes.
    let (name, block_bytes, asked) = match codes {
        Codes::Nibbles => ("screen_panels", BLOCK_BYTES, BLOCK / 8),
        Codes::Bytes => ("byte_panels", BYTE_BLOCK_BYTES, BLOCK / 4),
    };
    function(name, 8, |a| {
        let [mut panel, mut block, mut done] = std::array::from_fn(|_| a.create_label());
        match codes {
            Codes::Nibbles => body.group_constants(a)?,
            Codes::Bytes => body.byte_constants(a)?,
        }
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
        for half in 0..2 {
            match codes {
                Codes::Nibbles => body.group(a, half)?,
                Codes::Bytes => body.byte_group(a, half)?,
            }
        }
        (asked..block_bytes / LINE_BYTES).try_for_each(|line| ask(a, body.fetch(), line))?;
        a.add(W, int(block_bytes))?;
        a.add(Q, int(BLOCK))?;
        a.add(SCALES, 8)?;
        a.dec(LEFT)?;
        a.jne(block)?;
        if codes == Codes::Bytes {
            body.scale_rows(a)?;
            a.add(W, int(ROW_SCALES_BYTES))?;
        }
        body.store(a)?;
        a.add(OUT, int(4 * PANEL_ROWS))?;
        a.dec(PANELS)?;
        a.jne(panel)?;
        a.set_label(&mut done)?;
        a.vzeroupper()?;
        a.ret()
    })
}

/// Asks for line `line` of a later block.
fn ask(a: &mut CodeAssembler, fetch: Fetch, line: usize) -> Result<(), IcedError> {
    fetch.ask(a, byte_ptr(W + PREFETCH_BYTES + int(line * LINE_BYTES)))
}

/// Asks for line `line` of the same piece of a later row; pieces begin anywhere in their first one.
fn ask_piece(a: &mut CodeAssembler, fetch: Fetch, line: usize) -> Result<(), IcedError> {
    fetch.ask(a, byte_ptr(AHEAD + int(line * LINE_BYTES)))
}

/// Registers of [`rows`] that calls preserve.
const SAVED: [AsmRegister64; 5] = [rbx, r12, r13, r14, r15];

fn rows(body: &impl Body) -> Function {
    let frame_bytes = u32::try_from(8 + 8 * SAVED.len()).expect("a few registers");
    function("screen_rows", frame_bytes, |a| {
        let [mut row, mut piece, mut done] = std::array::from_fn(|_| a.create_label());
        SAVED.iter().try_for_each(|register| a.push(*register))?;
        a.lea(LIST_END, LIST + ROWS_LEFT * 4)?;
        // Scales and offsets lie behind all codes; pieces are counted in bytes of them, a whole cache line each.
        a.imul_3(PIECES_BYTES, PIECES, int(4 * PIECE_GROUPS))?;
        a.lea(PIECE_SCALES, LANE_CODES + PIECES_BYTES * CODES_PER_SCALE_BYTE)?;
        a.lea(PIECE_OFFSETS, PIECE_SCALES + PIECES_BYTES)?;
        a.imul_3(PIECES, PIECES, int(PIECE_BYTES))?;
        body.piece_constants(a)?;
        a.cmp(LIST, LIST_END)?;
        a.jae(done)?;
        a.set_label(&mut row)?;
        // The row a few places on, or the last.
        a.lea(AHEAD, LIST + int(4 * rows_ahead(body.fetch())))?;
        a.lea(ROW, LIST_END - 4)?;
        a.cmp(AHEAD, ROW)?;
        a.cmova(AHEAD, ROW)?;
        a.mov(AHEAD_32, dword_ptr(AHEAD))?;
        a.imul_2(AHEAD, PIECES)?;
        a.add(AHEAD, RECORDS)?;
        a.mov(ROW_32, dword_ptr(LIST))?;
        a.mov(RECORD, ROW)?;
        a.imul_2(RECORD, PIECES)?;
        a.add(RECORD, RECORDS)?;
        a.xor(PIECE_32, PIECE_32)?;
        body.clear(a)?;
        a.set_label(&mut piece)?;
        body.piece(a)?;
        a.add(RECORD, int(PIECE_BYTES))?;
        a.add(AHEAD, int(PIECE_BYTES))?;
        a.add(PIECE, int(4 * PIECE_GROUPS))?;
        a.cmp(PIECE, PIECES_BYTES)?;
        a.jb(piece)?;
        body.halve(a)?;
        a.vmovhlps(xmm1, xmm0, xmm0)?;
        a.vaddps(xmm0, xmm0, xmm1)?;
        a.vmovshdup(xmm1, xmm0)?;
        a.vaddss(xmm0, xmm0, xmm1)?;
        constant(a, xmm1, LOW_UNIT.to_bits())?;
        a.vmulss(xmm0, xmm0, xmm1)?;
        a.vmovss(dword_ptr(FOUND + ROW * 4), xmm0)?;
        a.add(LIST, 4)?;
        a.cmp(LIST, LIST_END)?;
        a.jb(row)?;
        a.set_label(&mut done)?;
        a.vzeroupper()?;
        SAVED.iter().rev().try_for_each(|register| a.pop(*register))?;
        a.ret()
    })
}

/// `bits` in the lowest lane; changes what `eax` is part of.
fn constant(a: &mut CodeAssembler, to: AsmRegisterXmm, bits: u32) -> Result<(), IcedError> {
    a.mov(eax, bits)?;
    a.vmovd(to, eax)
}

/// Every byte's sign, which makes a signed byte an unsigned one that is larger by 128.
const SIGNS: u32 = 0x8080_8080;

/// Times a group's offset for four bits, [`HIGH_OFFSET`] times the sum of its codes, this is -128 times that sum: odd
/// numbers have inverses modulo 2^32.
const SIGNS_OFFSET: u32 = inverse(HIGH_OFFSET.cast_unsigned()).wrapping_mul(128u32.wrapping_neg());

/// The inverse of an odd number modulo 2^32: each step doubles the bits that are right, three at first.
const fn inverse(odd: u32) -> u32 {
    let (mut inverse, mut step) = (odd, 0);
    while step < 4 {
        inverse = inverse.wrapping_mul(2u32.wrapping_sub(odd.wrapping_mul(inverse)));
        step += 1;
    }
    assert!(odd.wrapping_mul(inverse) == 1);
    inverse
}

/// Eight bits of four columns `four` of lanes `lane` and on, in group `half` of the current block.
fn bytes(half: usize, four: usize, lane: usize) -> AsmMemoryOperand {
    W + int((half * GROUP / 4 + four) * LANES_BYTES + 4 * lane)
}

/// Bits 0 to 3, or 4 to 7, of every byte.
const NIBBLE_MASKS: [u32; 2] = [0x0f0f_0f0f, 0xf0f0_f0f0];

/// Bits 0 and 1, or 2 and 3, of every nibble of which the upper ones are shifted down.
const PLANE_MASKS: [u32; 2] = [0x0303_0303, 0x0c0c_0c0c];

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
    RECORD + int(2 * lane)
}

/// Bytes of lanes `lane` and on in row of lanes `row` of the current piece.
fn low_bits(row: usize, lane: usize) -> AsmMemoryOperand {
    RECORD + int(2 * PIECE_GROUPS + row * LINE_BYTES + 4 * lane)
}

/// Codes that plane `plane` of those meets.
fn lane_codes(row: usize, plane: usize, lane: usize) -> AsmMemoryOperand {
    LANE_CODES + PIECE * CODES_PER_SCALE_BYTE + int((4 * row + plane) * LINE_BYTES + 4 * lane)
}

/// Query's scales and offsets of lanes `lane` and on of the current piece.
fn piece_scales(lane: usize) -> AsmMemoryOperand {
    PIECE_SCALES + PIECE + int(4 * lane)
}

fn piece_offsets(lane: usize) -> AsmMemoryOperand {
    PIECE_OFFSETS + PIECE + int(4 * lane)
}

/// Rows of lanes of a piece, and lines that it takes.
const PIECE_ROWS: usize = GROUP / 16;
const PIECE_LINES: usize = PIECE_BYTES.div_ceil(LINE_BYTES);
const _: () = assert!(PIECE_LINES == PIECE_ROWS + 1);
