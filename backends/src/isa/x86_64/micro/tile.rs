//! AVX-512-VNNI kernels for many token rows: a run of blocks of two panels is unpacked once to bytes in the kernel's
//! scratch, and all token rows are multiplied with it, eight at a time. The inner loop has nothing but products; what
//! follows them is that of [`Sums`].

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::zmm::*;
use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister64, AsmRegisterZmm, CodeAssembler, byte_ptr, qword_ptr, zmmword_ptr,
};
use tcc_ir::target::micro_args;

use super::avx512::{LOW_BITS, broadcast, clear, dot, shift_down};
use super::finish::Sums;
use super::panels::{
    ACC, ARGS, BLOCK_BYTES, BLOCKS, NR, PANELS, Q, Q_STRIDE, Q_STRIDE_3, RUN, W, W_STRIDE, bind, q_address,
    scratch_argument,
};
use super::source::{Source, TABLE_BYTES};
use crate::code::Function;
use crate::isa::x86_64::function;
use crate::isa::x86_64::pieces::int;

/// Token rows of one call, of one kernel each: the more, the less unpacking costs each of them.
pub(in crate::isa::x86_64) const MRS: [usize; 2] = [64, 32];

/// Token rows whose sums are in registers.
const ROWS: usize = 8;

/// Panels unpacked side by side.
const MOST_PANELS: usize = 2;

/// Most blocks of a run: its bytes, read once for each [`ROWS`] token rows, stay in the nearest caches.
const RUN_BLOCKS: i32 = 32;

/// Scratch of one call, bytes: the tables, and a run of at most five planes.
pub(in crate::isa::x86_64) const SCRATCH_BYTES: usize =
    TABLE_BYTES + RUN_BLOCKS as usize * 5 * MOST_PANELS * PLANE_BYTES as usize;

/// Bytes of one plane of one block of one panel.
const PLANE_BYTES: i32 = BLOCK_BYTES;

/// Blocks left in the run.
const LEFT: AsmRegister64 = rsi;
/// Accumulators of the current token rows of panel 0.
const ACC_ROWS: AsmRegister64 = r14;
/// Unpacked bytes of the current block.
const TILE: AsmRegister64 = r15;
/// Weights of later panels, to be asked for.
const AHEAD: AsmRegister64 = rbp;

const SAVED: [AsmRegister64; 6] = [rbx, rbp, r12, r13, r14, r15];

const SUMS: [AsmRegisterZmm; ROWS * MOST_PANELS] =
    [zmm0, zmm1, zmm2, zmm3, zmm4, zmm5, zmm6, zmm7, zmm8, zmm9, zmm10, zmm11, zmm12, zmm13, zmm14, zmm15];
/// Codes of one plane of each panel.
const CODES: [AsmRegisterZmm; MOST_PANELS] = [zmm16, zmm17];
const ACTIVATIONS: AsmRegisterZmm = zmm18;
/// Packed bytes, and plane 4, of a block.
const LOW: AsmRegisterZmm = zmm19;
const TOP: AsmRegisterZmm = zmm20;

/// The kernel `name` for `mr` token rows, one of [`MRS`].
pub(super) fn emit(name: &str, mr: usize, source: Source) -> Function {
    let frame_bytes = u32::try_from(8 + 8 * SAVED.len()).expect("a few registers");
    function(name, frame_bytes, |a| {
        SAVED.iter().try_for_each(|register| a.push(*register))?;
        a.mov(ACC, qword_ptr(ARGS + micro_args::ACC))?;
        a.mov(PANELS, qword_ptr(ARGS + micro_args::PANELS))?;
        a.mov(W_STRIDE, qword_ptr(ARGS + micro_args::W_PANEL_STRIDE))?;
        a.mov(Q_STRIDE, qword_ptr(ARGS + micro_args::Q_STRIDE))?;
        a.lea(Q_STRIDE_3, Q_STRIDE + Q_STRIDE * 2)?;
        source.constants(a)?;
        broadcast(a, LOW_BITS, 0x0303_0303)?;
        a.mov(W, qword_ptr(ARGS + micro_args::W))?;
        for panels in [MOST_PANELS, 1] {
            panel_loop(a, source, mr, panels)?;
        }
        a.vzeroupper()?;
        SAVED.iter().rev().try_for_each(|register| a.pop(*register))?;
        a.ret()
    })
}

/// Runs while at least `panels` panels are left.
fn panel_loop(a: &mut CodeAssembler, source: Source, mr: usize, panels: usize) -> Result<(), IcedError> {
    let [mut top, mut run, mut short, mut done] = std::array::from_fn(|_| a.create_label());
    let count = i32::try_from(panels).expect("a few panels");
    bind(a, &mut top)?;
    a.cmp(PANELS, count)?;
    a.jb(done)?;
    a.mov(Q[0], qword_ptr(ARGS + micro_args::Q))?;
    a.mov(BLOCKS, qword_ptr(ARGS + micro_args::K_BLOCKS))?;
    bind(a, &mut run)?;
    a.mov(RUN, BLOCKS)?;
    a.cmp(RUN, RUN_BLOCKS)?;
    a.jbe(short)?;
    a.mov(RUN, i64::from(RUN_BLOCKS))?;
    bind(a, &mut short)?;
    unpack(a, source, panels)?;
    products(a, source, mr, panels)?;
    a.sub(BLOCKS, RUN)?;
    a.jne(run)?;
    // From the end of the first panel to the next ones.
    a.mov(LEFT, qword_ptr(ARGS + micro_args::K_BLOCKS))?;
    a.imul_3(LEFT, LEFT, BLOCK_BYTES)?;
    a.sub(W, LEFT)?;
    (0..panels).try_for_each(|_| a.add(W, W_STRIDE))?;
    a.add(ACC, count * int(4 * NR * mr))?;
    a.sub(PANELS, count)?;
    a.jmp(top)?;
    bind(a, &mut done)
}

/// Unpacks [`RUN`] blocks of `panels` panels: block, then plane, then panel.
fn unpack(a: &mut CodeAssembler, source: Source, panels: usize) -> Result<(), IcedError> {
    let mut top = a.create_label();
    tile_begin(a)?;
    a.lea(AHEAD, W + W_STRIDE * int(panels))?;
    a.mov(LEFT, RUN)?;
    bind(a, &mut top)?;
    for (panel, own) in CODES.iter().copied().enumerate().take(panels) {
        source.load(a, (panel, 0), LOW, TOP)?;
        for (i, &plane) in source.planes().iter().enumerate() {
            let codes = if plane < 4 { own } else { TOP };
            shift_down(a, codes, LOW, plane)?;
            a.vmovdqu64(zmmword_ptr(plane_address(panels, i, panel)), codes)?;
        }
    }
    a.add(W, BLOCK_BYTES)?;
    a.add(TILE, tile_block_bytes(source, panels))?;
    a.dec(LEFT)?;
    a.jne(top)
}

/// Multiplies all token rows with the run, [`ROWS`] at a time, then points `Q[0]` at the next run.
///
/// Each eight token rows ask for the same blocks of another of the panels ahead, one line for each block of
/// products: the streams are a few pages each, which the hardware does not follow, and asking for many lines in a row
/// would wait for the first of them. Asking never faults.
fn products(a: &mut CodeAssembler, source: Source, mr: usize, panels: usize) -> Result<(), IcedError> {
    let [mut rows, mut blocks] = std::array::from_fn(|_| a.create_label());
    let sums = Sums { registers: &SUMS[..ROWS * panels], panels, mr, acc_rows: ACC_ROWS };
    a.mov(ACC_ROWS, ACC)?;
    bind(a, &mut rows)?;
    sums.ask_for_outputs(a)?;
    clear(a, sums.registers)?;
    tile_begin(a)?;
    a.lea(Q[1], Q[0] + Q_STRIDE * 4)?;
    a.mov(LEFT, RUN)?;
    bind(a, &mut blocks)?;
    a.prefetcht0(byte_ptr(AHEAD))?;
    a.add(AHEAD, BLOCK_BYTES)?;
    for (i, &plane) in source.planes().iter().enumerate() {
        for (panel, codes) in CODES.iter().copied().enumerate().take(panels) {
            a.vmovdqu64(codes, zmmword_ptr(plane_address(panels, i, panel)))?;
        }
        for row in 0..ROWS {
            dot(a, &SUMS[row * panels..][..panels], &CODES, q_address(row, 4 * plane), ACTIVATIONS)?;
        }
    }
    a.add(TILE, tile_block_bytes(source, panels))?;
    a.add(Q[0], int(source.kr()))?;
    a.add(Q[1], int(source.kr()))?;
    a.dec(LEFT)?;
    a.jne(blocks)?;
    sums.end_run(a)?;
    // Back to the run's first column, down to the next token rows; to the next panel ahead.
    a.imul_3(LEFT, RUN, BLOCK_BYTES)?;
    a.sub(AHEAD, LEFT)?;
    a.add(AHEAD, W_STRIDE)?;
    a.imul_3(LEFT, RUN, int(source.kr()))?;
    a.sub(Q[0], LEFT)?;
    a.lea(Q[0], Q[0] + Q_STRIDE * 8)?;
    a.add(ACC_ROWS, int(4 * NR * ROWS))?;
    a.lea(LEFT, ACC + int(4 * NR * mr))?;
    a.cmp(ACC_ROWS, LEFT)?;
    a.jne(rows)?;
    a.imul_3(LEFT, Q_STRIDE, -int(mr))?;
    a.add(Q[0], LEFT)?;
    a.imul_3(LEFT, RUN, int(source.kr()))?;
    a.add(Q[0], LEFT)
}

/// Points [`TILE`] at the first unpacked block.
fn tile_begin(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(TILE, qword_ptr(scratch_argument()))?;
    a.add(TILE, int(TABLE_BYTES))
}

/// Address of the `i`-th plane of `panel` in the unpacked block at [`TILE`].
fn plane_address(panels: usize, i: usize, panel: usize) -> AsmMemoryOperand {
    TILE + PLANE_BYTES * int(i * panels + panel)
}

fn tile_block_bytes(source: Source, panels: usize) -> i32 {
    PLANE_BYTES * int(source.planes().len() * panels)
}
