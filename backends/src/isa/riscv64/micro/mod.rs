//! The assembled ternary micro-kernels of riscv64.
//!
//! Each is `extern "C" fn(args: *const MicroArgs)` of [`micro_args`] under the lp64d calling convention.

mod rvv;
mod rvv_known;
mod scalar;

use tcc_ir::target::{MicroKernel, micro_args};

use super::desc;
use super::inst::{
    A0, SP, V, X, ZERO, addi, bge, bne, ld, li, mv, patch_branch, put, ret, sd, sub, vadd_vv, vand_vi, vsra_vi, vsrl_vi,
};
use crate::asm::Asm;
use crate::code::Function;

/// Columns of one block of `i2-lane`.
const KR: usize = 4;
/// Rows of one panel, hence bytes of one block.
const NR: usize = 64;
/// Blocks between two widenings: 128 columns of codes 0..2 times any int8 stay within -32768..=32512.
const BLOCKS_PER_CHUNK: i32 = 32;

/// Code of the menu row `row`; `None` if it is not one of ours.
pub fn micro(row: &MicroKernel) -> Option<Function> {
    let (bytes, frame_bytes) = match row.name {
        desc::RVV_M1 | desc::RVV_M2 | desc::RVV_M4 => rvv::kernel(row.mr),
        desc::SCALAR_M1 | desc::SCALAR_M2 => scalar::kernel(row.mr),
        // Registers of 128 to 512 bits.
        _ if row.vlen != 0 => rvv_known::kernel(row.vlen as usize, row.mr),
        _ => return None,
    };
    let name = format!("micro_{}", row.name);
    Some(Function { name, bytes, align: 16, frame_bytes, is_code: true, ..Function::default() })
}

/// Stack of a kernel: `words` 64-bit words of its own, then the callee-saved registers.
pub(super) struct Frame {
    pub saved: &'static [X],
    pub words: i32,
}

impl Frame {
    /// Size in bytes, a multiple of 16 as the calling convention asks.
    pub(super) fn bytes(&self) -> i32 {
        let saved = i32::try_from(self.saved.len()).expect("at most 32 registers");
        (8 * (self.words + saved) + 15) & !15
    }

    fn slots(&self) -> impl Iterator<Item = (X, i32)> {
        self.saved.iter().copied().zip((self.words..).map(|word| 8 * word))
    }

    pub(super) fn enter(&self, asm: &mut Asm) {
        asm.word(addi(SP, SP, -self.bytes()));
        self.slots().for_each(|(register, at)| asm.word(sd(register, at, SP)));
    }

    pub(super) fn leave(&self, asm: &mut Asm) {
        self.slots().for_each(|(register, at)| asm.word(ld(register, at, SP)));
        put(asm, &[addi(SP, SP, self.bytes()), ret()]);
    }
}

/// Loads a field of the argument block, whose address `a0` holds throughout.
fn arg(rd: X, field: i32) -> u32 {
    ld(rd, field, A0)
}

/// Addresses of the `registers.len()` token rows: `registers[0]` holds the first and is left as it is.
fn token_rows(asm: &mut Asm, registers: &[X], stride: X) {
    asm.word(arg(stride, micro_args::Q_STRIDE));
    for pair in registers.windows(2) {
        asm.word(super::inst::add(pair[1], pair[0], stride));
    }
}

/// Runs `chunk` over the `left` blocks, `blocks` of them at a time: as many as 16-bit sums hold.
fn for_chunks(asm: &mut Asm, left: X, blocks: X, chunk: impl FnOnce(&mut Asm)) {
    let full = asm.label();
    let next = asm.bound();
    asm.word(li(blocks, BLOCKS_PER_CHUNK));
    asm.branch(bge(left, blocks), full, patch_branch);
    asm.word(mv(blocks, left));
    asm.bind(full);
    asm.word(sub(left, left, blocks));
    chunk(asm);
    asm.branch(bne(left, ZERO), next, patch_branch);
}

/// Plane `p` of the code bytes in `raw`. `in_place` leaves plane 1 four times its height, which saves a shift.
fn unpack(asm: &mut Asm, plane: V, raw: V, p: usize, in_place: bool) {
    match p {
        0 => asm.word(vand_vi(plane, raw, 3)),
        1 if in_place => asm.word(vand_vi(plane, raw, 12)),
        3 => asm.word(vsrl_vi(plane, raw, 6)),
        // 2 or 4.
        _ => put(asm, &[vsrl_vi(plane, raw, 2 * p as u32), vand_vi(plane, plane, 3)]),
    }
}

/// Which sums plane `p` of token row `t` is added to. With one token row there is room for sums of plane 1 alone: 32
/// columns of codes 0, 4 and 8 times any int8 stay within -32768..=32512.
fn sums_of(m: usize, p: usize, t: usize) -> usize {
    if m == 1 && p == 1 { 1 } else { t }
}

/// Adds the sums of plane 1 to the others: a quarter of them, which is whole.
fn join_sums(asm: &mut Asm, sums: V, of_plane_1: V) {
    put(asm, &[vsra_vi(of_plane_1, of_plane_1, 2), vadd_vv(sums, sums, of_plane_1)]);
}
