//! The instance block at the start of the arena: the whole state of a model instance but its KV caches.
//!
//! Fields have fixed offsets; bytes that no field names are padding. The block is zeroed by `init`.

use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{Type, Value};
use tcc_ir::kernel::args;
use tcc_ir::plan::BUFFER_ALIGN;
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

/// Argument words of the running kernel (`tcc_ir::kernel::args`).
const ARGS: usize = (HOOKS + hooks::SIZE).next_multiple_of(BUFFER_ALIGN);
/// Most operands a kernel has.
const MAX_OPERANDS: usize = 13;

/// Argument word `i` of the running kernel.
pub(super) const fn arg(i: usize) -> Field {
    assert!(i < args::FIRST + MAX_OPERANDS);
    Field::u64_at(ARGS + 8 * i)
}

/// Next claim of tiles; alone on its cache line, the only word that tasks write together.
pub(super) const NEXT: Field = Field::u32_at(ARGS + 8 * (args::FIRST + MAX_OPERANDS));
/// The step that runs in parallel: index of its kernel, number of tiles, how many large claims come first, tiles of a
/// large and of a small one.
pub(super) const KERNEL: Field = Field::u32_at(NEXT.offset + BUFFER_ALIGN);
pub(super) const TILES: Field = Field::u32_at(KERNEL.offset + 4);
pub(super) const LARGE_CLAIMS: Field = Field::u32_at(KERNEL.offset + 8);
pub(super) const LARGE: Field = Field::u32_at(KERNEL.offset + 12);
pub(super) const SMALL: Field = Field::u32_at(KERNEL.offset + 16);

/// Memory for the sampler's counters or the self-test's hash.
pub(super) const WORK: Field = Field::u64_at((SMALL.offset + 4).next_multiple_of(BUFFER_ALIGN));
pub(super) const WORK_BYTES: usize = 2048;

/// Searches made, rows whose low bits they read, and rows whose weights they read; never reset.
pub(super) const SEARCHES: Field = Field::u64_at(WORK.offset + WORK_BYTES);
pub(super) const SEARCH_ROWS_LOW: Field = Field::u64_at(SEARCHES.offset + 8);
pub(super) const SEARCH_ROWS_EXACT: Field = Field::u64_at(SEARCHES.offset + 16);
/// Rows of logits computed in full.
pub(super) const FULL_HEADS: Field = Field::u64_at(SEARCHES.offset + 24);

/// Bytes of the instance block, a multiple of 64.
pub const STATE_BYTES: usize = (FULL_HEADS.offset + 8).next_multiple_of(BUFFER_ALIGN);

const _: () = {
    assert!(NEXT.offset.is_multiple_of(BUFFER_ALIGN) && STATE_BYTES.is_multiple_of(BUFFER_ALIGN));
    assert!(HEAD_OUT.offset + 8 <= HOOKS);
};
