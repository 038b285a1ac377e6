//! The assembled ternary micro-kernels of riscv64.
//!
//! Each is `extern "C" fn(args: *const MicroArgs)` of [`micro_args`] under the lp64d calling convention.

mod rvv;
mod scalar;

use tcc_ir::target::{MicroKernel, micro_args};

use super::desc;
use super::inst::{A0, SP, X, addi, ld, put, ret, sd};
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
        desc::RVV_M1 => rvv::kernel(1),
        desc::RVV_M2 => rvv::kernel(2),
        desc::RVV_M4 => rvv::kernel(4),
        desc::SCALAR_M1 => scalar::kernel(1),
        desc::SCALAR_M2 => scalar::kernel(2),
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
