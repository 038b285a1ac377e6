//! The instance block at the start of the arena: the whole state of a model instance but its KV caches.
//!
//! Fields have fixed offsets; bytes that no field names are padding. The block is zeroed by `init`.

use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{Type, Value};
use tcc_ir::kernel::args;
use tcc_ir::plan::{BUFFER_ALIGN, MAX_JOINED};
use tcc_runtime::abi::offsets::hooks;

use crate::clif::func::FunctionCx;

/// One scalar of the instance block.
#[derive(Clone, Copy)]
pub(super) struct Field {
    offset: usize,
    ty: Type,
}

impl Field {
    const fn u32_at(offset: usize) -> Field {
        Field { offset, ty: I32 }
    }

    const fn u64_at(offset: usize) -> Field {
        Field { offset, ty: I64 }
    }

    pub fn load(self, f: &mut FunctionCx, instance: Value) -> Value {
        f.load(self.ty, instance, offset(self.offset))
    }

    /// Loads a 32-bit field widened to 64 bits.
    pub fn load_wide(self, f: &mut FunctionCx, instance: Value) -> Value {
        f.load_unsigned(self.ty, instance, offset(self.offset))
    }

    /// Stores a value of the field's type; a 64-bit value is narrowed to a 32-bit field.
    pub fn store(self, f: &mut FunctionCx, value: Value, instance: Value) {
        let narrow = self.ty == I32 && f.type_of(value) == I64;
        let value = if narrow { cranelift_codegen::ir::InstBuilder::ireduce(f.ins(), I32, value) } else { value };
        f.store(value, instance, offset(self.offset));
    }

    /// Stores a constant.
    pub fn set(self, f: &mut FunctionCx, value: i32, instance: Value) {
        let value = if self.ty == I32 { f.i32(value) } else { f.i64(i64::from(value)) };
        self.store(f, value, instance);
    }

    pub fn address(self, f: &mut FunctionCx, instance: Value) -> Value {
        f.offset(instance, self.offset)
    }
}

/// An offset within a struct as the builder takes it.
pub(super) fn offset(bytes: usize) -> i32 {
    i32::try_from(bytes).expect("structs are far below 2^31 bytes")
}

/// Value of [`MAGIC`] in a live instance: "tccinst1".
pub(super) const MAGIC_VALUE: i64 = i64::from_le_bytes(*b"tccinst1");

pub(super) const MAGIC: Field = Field::u64_at(0);
/// Tokens evaluated.
pub(super) const POS: Field = Field::u32_at(8);
/// 1 if the kept hidden row is that of the token before `POS`.
pub(super) const KEPT: Field = Field::u32_at(12);
/// 1 if the logits are those of the kept hidden row.
pub(super) const LOGITS_READY: Field = Field::u32_at(16);
/// Set to 1 by kernels that meet a non-finite value.
pub(super) const NONFINITE: Field = Field::u32_at(20);
/// Address of the weights blob.
pub(super) const WEIGHTS: Field = Field::u64_at(24);
/// Tasks run at once, 1 to the plan's maximum; 1 without `parallel_for`.
pub(super) const THREADS: Field = Field::u32_at(32);
/// Index of the variant that runs.
pub(super) const VARIANT: Field = Field::u32_at(36);
/// Row the head reads and row it writes.
pub(super) const HEAD_IN: Field = Field::u64_at(40);
pub(super) const HEAD_OUT: Field = Field::u64_at(48);

/// The caller's hooks, members past its `size` zero.
pub(super) const HOOKS: usize = 64;
pub(super) const USER: Field = Field::u64_at(HOOKS + hooks::USER);
pub(super) const PARALLEL_FOR: Field = Field::u64_at(HOOKS + hooks::PARALLEL_FOR);
pub(super) const OP_BEGIN: Field = Field::u64_at(HOOKS + hooks::OP_BEGIN);
pub(super) const OP_END: Field = Field::u64_at(HOOKS + hooks::OP_END);
pub(super) const SHOULD_STOP: Field = Field::u64_at(HOOKS + hooks::SHOULD_STOP);

/// Most operands a kernel has.
const MAX_OPERANDS: usize = 13;
/// Bytes of the argument words of a kernel (`tcc_ir::kernel::args`).
const ARGS_BYTES: usize = 8 * (args::FIRST + MAX_OPERANDS);
/// Argument words of the running kernel, or of the first of those that run at the same time.
const ARGS: usize = (HOOKS + hooks::SIZE).next_multiple_of(BUFFER_ALIGN);

/// The loop that threads work off, and between how many of them its tasks are divided.
pub(super) const LOOP: Field = Field::u32_at(ARGS + ARGS_BYTES);
pub(super) const PARTS: Field = Field::u32_at(LOOP.offset + 4);

/// Memory for the sampler's counters or the self-test's hash.
pub(super) const WORK: Field = Field::u64_at((PARTS.offset + 4).next_multiple_of(BUFFER_ALIGN));
pub(super) const WORK_BYTES: usize = 2048;

/// Searches made, rows whose low bits they read, and rows whose weights they read; never reset.
pub(super) const SEARCHES: Field = Field::u64_at(WORK.offset + WORK_BYTES);
pub(super) const SEARCH_ROWS_LOW: Field = Field::u64_at(SEARCHES.offset + 8);
pub(super) const SEARCH_ROWS_EXACT: Field = Field::u64_at(SEARCHES.offset + 16);
/// Rows of logits computed in full.
pub(super) const FULL_HEADS: Field = Field::u64_at(SEARCHES.offset + 24);

/// Bytes of what every instance has, a multiple of 64.
const COMMON_BYTES: usize = (FULL_HEADS.offset + 8).next_multiple_of(BUFFER_ALIGN);

/// Where the parts of a loop begin that threads claim tasks from.
const CLAIMS: usize = (COMMON_BYTES + (MAX_JOINED - 1) * ARGS_BYTES).next_multiple_of(BUFFER_ALIGN);

/// Bytes of the instance block of a model whose steps at most `max_threads` threads work off; a multiple of 64.
pub const fn state_bytes(max_threads: u32) -> usize {
    if max_threads > 1 { CLAIMS + max_threads as usize * BUFFER_ALIGN } else { COMMON_BYTES }
}

/// Argument blocks in use where at most `max_threads` threads work.
pub(super) const fn blocks(max_threads: u32) -> usize {
    if max_threads > 1 { MAX_JOINED } else { 1 }
}

/// Argument word `i` of block `block`: that of the kernel that runs, or of one of those that run at the same time.
pub(super) const fn arg(block: usize, i: usize) -> Field {
    assert!(block < MAX_JOINED && i < args::FIRST + MAX_OPERANDS);
    let begin = if block == 0 { ARGS } else { COMMON_BYTES + (block - 1) * ARGS_BYTES };
    Field::u64_at(begin + 8 * i)
}

/// Tasks of part `part` of the running loop that nobody has claimed: the first in the low half of the word, the end in
/// the high half. Alone on its cache line, as threads write it together.
pub(super) fn claims(f: &mut FunctionCx, instance: Value, part: Value) -> Value {
    let first = f.offset(instance, CLAIMS);
    f.index(first, part, BUFFER_ALIGN)
}

const _: () = assert!(HEAD_OUT.offset + 8 <= HOOKS && ARGS_BYTES.is_multiple_of(8));
