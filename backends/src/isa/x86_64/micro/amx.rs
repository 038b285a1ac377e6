//! AMX kernels for many token rows: a run of blocks of two panels is unpacked once to bytes in the kernel's scratch, a
//! tile of which is sixteen words of four columns by sixteen output rows; `tdpbsud` multiplies it with the activations
//! of sixteen token rows as they lie, 64 columns at once. Four tiles hold sums: two panels by 32 token rows.
//!
//! Sums of all runs are kept in the accumulators; where there are outputs, they are written from there
//! ([`Sums::finish`]). Tiles are configured on entry and released at the end, so a caller's are lost: the ABI keeps none.
//! Source: Intel SDM volume 1, chapter "Programming with Intel AMX".

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::tmm::*;
use iced_x86::code_asm::registers::zmm::*;
use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister64, AsmRegisterTmm, AsmRegisterZmm, CodeAssembler, byte_ptr, ptr, qword_ptr,
    zmmword_ptr,
};
use tcc_ir::target::micro_args;

use super::avx512::{LOW_BITS, broadcast, shift_down};
use super::finish::Sums;
use super::panels::{ACC, ARGS, BLOCK_BYTES, BLOCKS, PANELS, Q, Q_STRIDE, RUN, W, W_STRIDE, bind, scratch_argument};
use super::source::{Source, TABLE_BYTES};
use crate::code::Function;
use crate::isa::x86_64::function;
use crate::isa::x86_64::pieces::int;

/// Rows of a tile: token rows, or words of four columns.
const TILE_ROWS: usize = 16;

/// Bytes of a row of a tile, whatever it holds.
const ROW_BYTES: usize = 64;

/// Panels unpacked side by side.
const MOST_PANELS: usize = 2;

/// Most blocks of a run: its bytes stay in the nearest cache.
const RUN_BLOCKS: usize = 32;

/// Most words of four columns of a run, with those that fill the last tile.
const RUN_WORDS: usize = RUN_BLOCKS * 5 + TILE_ROWS;

/// Bytes of one unpacked panel of a run.
const PANEL_BYTES: usize = RUN_WORDS * ROW_BYTES;

/// The configuration of tiles lies behind the tables, the unpacked run behind that.
const CONFIG_AT: usize = TABLE_BYTES;
const RUN_AT: usize = CONFIG_AT + 64;

/// Scratch of one call, bytes.
pub(in crate::isa::x86_64) const SCRATCH_BYTES: usize = RUN_AT + MOST_PANELS * PANEL_BYTES;

/// Lines asked for with each tile, which is at most so many blocks.
const LINES: usize = 4;

/// Token rows whose outputs are written together.
const FINISHED_ROWS: usize = 8;

/// Blocks, or tiles of 64 columns, left in the run.
const LEFT: AsmRegister64 = rsi;
/// Bytes from one row of a tile to the next, but for activations.
const STRIDE: AsmRegister64 = r12;
/// Accumulators of the current token rows of panel 0.
const ACC_ROWS: AsmRegister64 = r14;
/// Unpacked bytes.
const TILE: AsmRegister64 = r15;
/// Weights of later panels, to be asked for.
const AHEAD: AsmRegister64 = rbp;
/// Activations of the second sixteen of 32 token rows.
const Q_SECOND: AsmRegister64 = rbx;

const SAVED: [AsmRegister64; 6] = [rbx, rbp, r12, r13, r14, r15];

/// Sums of sixteen token rows by panel, then those of the next sixteen.
const TOTALS: [AsmRegisterTmm; 2 * MOST_PANELS] = [tmm0, tmm1, tmm2, tmm3];
const ACTIVATIONS: [AsmRegisterTmm; 2] = [tmm4, tmm5];
const WEIGHTS: [AsmRegisterTmm; MOST_PANELS] = [tmm6, tmm7];

/// Where outputs are made from sums.
static OUTPUTS: [AsmRegisterZmm; FINISHED_ROWS * MOST_PANELS] =
    [zmm0, zmm1, zmm2, zmm3, zmm4, zmm5, zmm6, zmm7, zmm8, zmm9, zmm10, zmm11, zmm12, zmm13, zmm14, zmm15];
const CODES: AsmRegisterZmm = zmm16;
/// Packed bytes, and plane 4, of a block.
const LOW: AsmRegisterZmm = zmm19;
const TOP: AsmRegisterZmm = zmm20;
const ZERO: AsmRegisterZmm = zmm17;

/// What a call covers.
#[derive(Clone, Copy)]
struct Shape {
    source: Source,
    /// Token rows: 16, or a multiple of 32.
    mr: usize,
    panels: usize,
}

impl Shape {
    /// Tiles of token rows that are multiplied together.
    fn together(self) -> usize {
        (self.mr / TILE_ROWS).min(ACTIVATIONS.len())
    }

    /// The sums of the tile `tokens` of token rows with the weights of `panel`.
    fn totals(self) -> impl Iterator<Item = (usize, usize, AsmRegisterTmm)> {
        let tiles = (0..self.together()).flat_map(move |tokens| (0..self.panels).map(move |panel| (tokens, panel)));
        tiles.map(|(tokens, panel)| (tokens, panel, TOTALS[tokens * MOST_PANELS + panel]))
    }

    /// Sums of some token rows that become outputs.
    fn sums(self) -> Sums<'static> {
        let registers = &OUTPUTS[..FINISHED_ROWS * self.panels];
        Sums { registers, panels: self.panels, mr: self.mr, acc_rows: ACC_ROWS }
    }

    /// Where those are kept: at the accumulators of the current token rows.
    fn place(self, tokens: usize, panel: usize) -> AsmMemoryOperand {
        ptr(ACC_ROWS + STRIDE + int((panel * self.mr + tokens * TILE_ROWS) * ROW_BYTES))
    }
}

/// The kernel `name` for `mr` token rows: 16, or a multiple of 32.
pub(super) fn emit(name: &str, mr: usize, source: Source) -> Function {
    let frame_bytes = u32::try_from(8 + 8 * SAVED.len()).expect("a few registers");
    function(name, frame_bytes, |a| {
        SAVED.iter().try_for_each(|register| a.push(*register))?;
        a.mov(ACC, qword_ptr(ARGS + micro_args::ACC))?;
        a.mov(PANELS, qword_ptr(ARGS + micro_args::PANELS))?;
        a.mov(W_STRIDE, qword_ptr(ARGS + micro_args::W_PANEL_STRIDE))?;
        a.mov(Q_STRIDE, qword_ptr(ARGS + micro_args::Q_STRIDE))?;
        source.constants(a)?;
        broadcast(a, LOW_BITS, 0x0303_0303)?;
        configure(a)?;
        a.mov(STRIDE, int64(ROW_BYTES))?;
        a.mov(W, qword_ptr(ARGS + micro_args::W))?;
        for panels in [MOST_PANELS, 1] {
            panel_loop(a, Shape { source, mr, panels })?;
        }
        a.tilerelease()?;
        a.vzeroupper()?;
        SAVED.iter().rev().try_for_each(|register| a.pop(*register))?;
        a.ret()
    })
}

fn int64(value: usize) -> i64 {
    i64::from(int(value))
}

/// Makes all tiles sixteen rows of 64 bytes: palette 1, whose byte counts lie at 16 and row counts at 48.
fn configure(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let config: [u64; 8] = [1, 0, 0x0040_0040_0040_0040, 0x0040_0040_0040_0040, 0, 0, 0x1010_1010_1010_1010, 0];
    a.mov(TILE, qword_ptr(scratch_argument()))?;
    for (i, word) in config.into_iter().enumerate() {
        a.mov(LEFT, word)?;
        a.mov(qword_ptr(TILE + int(CONFIG_AT + 8 * i)), LEFT)?;
    }
    a.ldtilecfg(zmmword_ptr(TILE + int(CONFIG_AT)))
}

/// Runs while at least `shape.panels` panels are left.
fn panel_loop(a: &mut CodeAssembler, shape: Shape) -> Result<(), IcedError> {
    let [mut top, mut run, mut short, mut done] = std::array::from_fn(|_| a.create_label());
    let count = int(shape.panels);
    bind(a, &mut top)?;
    a.cmp(PANELS, count)?;
    a.jb(done)?;
    a.mov(Q[0], qword_ptr(ARGS + micro_args::Q))?;
    a.mov(BLOCKS, qword_ptr(ARGS + micro_args::K_BLOCKS))?;
    bind(a, &mut run)?;
    a.mov(RUN, BLOCKS)?;
    a.cmp(RUN, int(RUN_BLOCKS))?;
    a.jbe(short)?;
    a.mov(RUN, int64(RUN_BLOCKS))?;
    bind(a, &mut short)?;
    unpack(a, shape)?;
    products(a, shape)?;
    a.sub(BLOCKS, RUN)?;
    a.jne(run)?;
    finish(a, shape)?;
    // From the end of the first panel to the next ones.
    a.mov(LEFT, qword_ptr(ARGS + micro_args::K_BLOCKS))?;
    a.imul_3(LEFT, LEFT, BLOCK_BYTES)?;
    a.sub(W, LEFT)?;
    (0..shape.panels).try_for_each(|_| a.add(W, W_STRIDE))?;
    a.add(ACC, count * int(ROW_BYTES * shape.mr))?;
    a.sub(PANELS, count)?;
    a.jmp(top)?;
    bind(a, &mut done)
}

/// Unpacks [`RUN`] blocks: the words of a panel one behind the other, then words of zeros that fill its last tile.
fn unpack(a: &mut CodeAssembler, shape: Shape) -> Result<(), IcedError> {
    let [mut top, mut whole] = std::array::from_fn(|_| a.create_label());
    tiles_begin(a)?;
    a.lea(AHEAD, W + W_STRIDE * int(shape.panels))?;
    a.mov(LEFT, RUN)?;
    bind(a, &mut top)?;
    let planes = shape.source.planes();
    for panel in 0..shape.panels {
        shape.source.load(a, (panel, 0), LOW, TOP)?;
        for &plane in planes {
            let codes = if plane < 4 { CODES } else { TOP };
            shift_down(a, codes, LOW, plane)?;
            a.vmovdqu64(zmmword_ptr(TILE + int(panel * PANEL_BYTES + plane * ROW_BYTES)), codes)?;
        }
    }
    a.add(W, BLOCK_BYTES)?;
    a.add(TILE, int(planes.len() * ROW_BYTES))?;
    a.dec(LEFT)?;
    a.jne(top)?;
    // Sixteen blocks are whole tiles, however many words they have.
    a.test(RUN, int(TILE_ROWS - 1))?;
    a.je(whole)?;
    a.vpxord(ZERO, ZERO, ZERO)?;
    for panel in 0..shape.panels {
        for word in 0..TILE_ROWS - 1 {
            a.vmovdqu64(zmmword_ptr(TILE + int(panel * PANEL_BYTES + word * ROW_BYTES)), ZERO)?;
        }
    }
    bind(a, &mut whole)
}

/// Points [`TILE`] at the first unpacked word.
fn tiles_begin(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(TILE, qword_ptr(scratch_argument()))?;
    a.add(TILE, int(RUN_AT))
}

/// Multiplies all token rows with the run, up to 32 at a time, then points `Q[0]` at the next run.
///
/// Meanwhile it asks for the same blocks of the panels ahead, a few lines for each tile. Asking never faults.
fn products(a: &mut CodeAssembler, shape: Shape) -> Result<(), IcedError> {
    let mut rows = a.create_label();
    let (mr, together) = (shape.mr, shape.together());
    a.mov(ACC_ROWS, ACC)?;
    bind(a, &mut rows)?;
    for _ in 0..together * TILE_ROWS / FINISHED_ROWS {
        shape.sums().ask_for_outputs(a)?;
        a.add(ACC_ROWS, int(FINISHED_ROWS * ROW_BYTES))?;
    }
    a.sub(ACC_ROWS, int(together * TILE_ROWS * ROW_BYTES))?;
    load_totals(a, shape)?;
    tiles_begin(a)?;
    a.mov(Q_SECOND, Q_STRIDE)?;
    a.shl(Q_SECOND, TILE_ROWS.trailing_zeros())?;
    a.add(Q_SECOND, Q[0])?;
    tiles_of_run(a, shape)?;
    tiles(a, shape)?;
    for (tokens, panel, total) in shape.totals() {
        a.tilestored(shape.place(tokens, panel), total)?;
    }
    // From behind the last tile to the next panel ahead.
    tiles_of_run(a, shape)?;
    a.shl(LEFT, (LINES * ROW_BYTES).trailing_zeros())?;
    a.sub(AHEAD, LEFT)?;
    a.add(AHEAD, W_STRIDE)?;
    // Down to the next token rows; back to the run's first column.
    a.mov(Q[0], qword_ptr(ARGS + micro_args::K_BLOCKS))?;
    a.sub(Q[0], BLOCKS)?;
    a.imul_3(Q[0], Q[0], int(shape.source.kr()))?;
    a.add(Q[0], qword_ptr(ARGS + micro_args::Q))?;
    a.add(ACC_ROWS, int(together * TILE_ROWS * ROW_BYTES))?;
    a.mov(LEFT, ACC_ROWS)?;
    a.sub(LEFT, ACC)?;
    a.shr(LEFT, ROW_BYTES.trailing_zeros())?;
    a.imul_2(LEFT, Q_STRIDE)?;
    a.add(Q[0], LEFT)?;
    a.lea(LEFT, ACC + int(ROW_BYTES * mr))?;
    a.cmp(ACC_ROWS, LEFT)?;
    a.jne(rows)?;
    // To the next run.
    a.imul_3(LEFT, Q_STRIDE, -int(mr))?;
    a.add(Q[0], LEFT)?;
    a.imul_3(LEFT, RUN, int(shape.source.kr()))?;
    a.add(Q[0], LEFT)
}

/// Fills [`LEFT`] with the number of tiles of the run.
fn tiles_of_run(a: &mut CodeAssembler, shape: Shape) -> Result<(), IcedError> {
    a.imul_3(LEFT, RUN, int(shape.source.planes().len()))?;
    a.add(LEFT, int(TILE_ROWS - 1))?;
    a.shr(LEFT, TILE_ROWS.trailing_zeros())
}

/// The products of [`LEFT`] tiles of 64 columns.
fn tiles(a: &mut CodeAssembler, shape: Shape) -> Result<(), IcedError> {
    let mut top = a.create_label();
    bind(a, &mut top)?;
    for (activations, q) in ACTIVATIONS.iter().zip([Q[0], Q_SECOND]).take(shape.together()) {
        a.tileloadd(*activations, ptr(q + Q_STRIDE))?;
        a.add(q, int(ROW_BYTES))?;
    }
    for (panel, weights) in WEIGHTS.iter().enumerate().take(shape.panels) {
        a.tileloadd(*weights, ptr(TILE + STRIDE + int(panel * PANEL_BYTES)))?;
    }
    for (tokens, panel, total) in shape.totals() {
        a.tdpbsud(total, ACTIVATIONS[tokens], WEIGHTS[panel])?;
    }
    for line in 0..LINES {
        a.prefetcht0(byte_ptr(AHEAD + int(line * ROW_BYTES)))?;
        if shape.panels > 1 && shape.mr <= 2 * TILE_ROWS {
            a.prefetcht0(byte_ptr(AHEAD + W_STRIDE + int(line * ROW_BYTES)))?;
        }
    }
    a.add(AHEAD, int(LINES * ROW_BYTES))?;
    a.add(TILE, int(TILE_ROWS * ROW_BYTES))?;
    a.dec(LEFT)?;
    a.jne(top)
}

/// Sums of the runs so far: none before the first where there are outputs, else what the accumulators hold.
fn load_totals(a: &mut CodeAssembler, shape: Shape) -> Result<(), IcedError> {
    let [mut kept, mut done] = std::array::from_fn(|_| a.create_label());
    a.cmp(qword_ptr(ARGS + micro_args::OUT), 0)?;
    a.je(kept)?;
    a.cmp(BLOCKS, qword_ptr(ARGS + micro_args::K_BLOCKS))?;
    a.jne(kept)?;
    shape.totals().try_for_each(|(_, _, total)| a.tilezero(total))?;
    a.jmp(done)?;
    bind(a, &mut kept)?;
    for (tokens, panel, total) in shape.totals() {
        a.tileloadd(total, shape.place(tokens, panel))?;
    }
    bind(a, &mut done)
}

/// Writes the outputs of all token rows, if there are any, after the last run.
fn finish(a: &mut CodeAssembler, shape: Shape) -> Result<(), IcedError> {
    let [mut rows, mut none] = std::array::from_fn(|_| a.create_label());
    let sums = shape.sums();
    a.cmp(qword_ptr(ARGS + micro_args::OUT), 0)?;
    a.je(none)?;
    a.mov(ACC_ROWS, ACC)?;
    bind(a, &mut rows)?;
    sums.load(a)?;
    sums.finish(a)?;
    a.add(ACC_ROWS, int(FINISHED_ROWS * ROW_BYTES))?;
    a.lea(LEFT, ACC + int(ROW_BYTES * shape.mr))?;
    a.cmp(ACC_ROWS, LEFT)?;
    a.jne(rows)?;
    bind(a, &mut none)
}
