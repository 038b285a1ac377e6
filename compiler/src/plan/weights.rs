//! Places weights in the blob, in declaration order.

use tcc_ir::plan::{WeightLayout, WeightSlot};
use tcc_ir::program::Program;

use super::arena::{self, align};
use super::layout::Layouts;

pub(super) fn place(program: &Program, layouts: &Layouts) -> Vec<WeightSlot> {
    let mut offset_bytes = 0;
    let mut slots = Vec::with_capacity(layouts.len());
    for (&id, &layout) in layouts {
        let ty = &program.weight(id).ty;
        let bytes = match layout {
            WeightLayout::Packed(encoding) => encoding.matrix_bytes(ty.shape[0], ty.shape[1]),
            WeightLayout::Coded(table) => table.bytes(),
            WeightLayout::Plain => ty.size_bytes().expect("trits are always packed"),
            WeightLayout::Screen(_) => unreachable!("screens are placed behind the weights they are of"),
        } as u64;
        slots.push(WeightSlot { id, layout, offset_bytes, bytes });
        offset_bytes = align(offset_bytes + bytes);
    }
    slots
}

/// Bytes of the blob: up to the end of the last of `slots`, and of what kernels may read behind any of them if its bytes
/// are damaged.
pub(super) fn total_bytes(program: &Program, slots: &[WeightSlot]) -> u64 {
    let end = |slot: &WeightSlot| {
        let beyond = match slot.layout {
            WeightLayout::Packed(encoding) => encoding.beyond_bytes(program.weight(slot.id).ty.shape[1]),
            WeightLayout::Coded(_) | WeightLayout::Plain | WeightLayout::Screen(_) => 0,
        };
        slot.offset_bytes + slot.bytes + beyond as u64
    };
    slots.iter().map(end).max().unwrap_or(0).next_multiple_of(arena::ALIGN)
}
