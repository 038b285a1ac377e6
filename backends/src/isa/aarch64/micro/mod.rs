//! The micro-kernels of the menu. One `i2x4` block is one register: four rows, sixteen columns, four planes.
//!
//! Every kernel is `extern "C" fn(args: *const MicroArgs)`: it adds Σ code·q to `acc[panels][mr][4]`, where the code
//! of weight w is w + 1. Panels go in groups; accumulators of a group stay in registers over k.

mod dotprod;
mod dotprod_tile;
pub(super) mod i8mm;
mod neon;
mod neon_tile;
pub(super) mod sme;
mod sve;
pub(super) mod sve_i8mm;
mod sve_tile;

use tcc_ir::target::{MicroKernel, micro_args};

use super::abi::function;
use super::desc::SME;
use super::floats::repeat;
use super::inst::{A64, SAVED_BYTES, V, X};
use crate::code::Function;

/// Bytes of weights or activations in one block of one row of panels: one register.
const BLOCK_BYTES: i64 = 16;

// The argument block in registers. x18 belongs to the platform; x19 and up are never touched.
const ARGS: X = X(0);
const ACC: X = X(1);
const W: X = X(2);
const W_STRIDE: X = X(3);
const PANELS: X = X(4);
const Q: X = X(5);
const Q_STRIDE: X = X(6);
const BLOCKS: X = X(7);
/// Private memory, free for other use in kernels that ask for none.
const SCRATCH: X = X(17);

/// The code of a menu row; `None` if it is not one of the assembled ones.
pub(super) fn code(row: &MicroKernel) -> Option<Function> {
    let body: fn(&mut A64, usize) = match row.name {
        "dotprod" => |a, _| dotprod::emit(a),
        "dotprod-m4" | "dotprod-m8" => dotprod_tile::emit,
        "i8mm-m4" | "i8mm-m8" => i8mm::emit,
        "neon" => |a, _| neon::emit(a),
        "sve" => |a, _| sve::emit(a),
        "sve-m8" => |a, _| sve_tile::emit(a),
        "sve-i8mm-m4" | "sve-i8mm-m8" => sve_i8mm::emit,
        "sme-m16" => |a, _| sme::emit(a),
        "neon-m4" => |a, _| neon_tile::emit(a),
        _ => return None,
    };
    let mut a = A64::default();
    a.bti_c();
    load_args(&mut a);
    a.save_vectors();
    body(&mut a, row.mr);
    a.restore_vectors_and_ret();
    let own = if row.needs.contains(SME) { sme::FRAME_BYTES } else { 0 };
    let frame = u32::try_from(SAVED_BYTES + own).expect("a small constant");
    Some(function(row.name, a, frame))
}

fn load_args(a: &mut A64) {
    load_panel_args(a);
    load_pair(a, (Q, micro_args::Q), (Q_STRIDE, micro_args::Q_STRIDE));
    load_pair(a, (BLOCKS, micro_args::K_BLOCKS), (SCRATCH, micro_args::SCRATCH));
}

/// What moves with the panels, from the start.
fn load_panel_args(a: &mut A64) {
    load_pair(a, (ACC, micro_args::ACC), (W, micro_args::W));
    load_pair(a, (W_STRIDE, micro_args::W_PANEL_STRIDE), (PANELS, micro_args::PANELS));
}

fn load_pair(a: &mut A64, (first, offset): (X, i32), (second, next): (X, i32)) {
    assert_eq!(offset + 8, next, "pairs are adjacent");
    a.ldp(first, second, ARGS, offset.into());
}

/// The codes of one plane, shifted down.
pub(super) fn shift_plane(a: &mut A64, codes: V, packed: V, plane: i64, mask: V) {
    match plane {
        0 => a.and_v(codes, packed, mask),
        3 => a.ushr_b(codes, packed, 6),
        _ => {
            a.ushr_b(codes, packed, 2 * plane);
            a.and_v(codes, codes, mask);
        }
    }
}

/// Runs `group(panels)` over all panels: as long as there are at least `widest`, that many at a time, then one by one.
///
/// `group` must leave `ACC` and `W` at the next panel.
fn for_panels(a: &mut A64, widest: usize, group: impl Fn(&mut A64, usize)) {
    // Panel groups are a few registers wide.
    let step = widest as i64;
    let (single, done) = (a.asm.label(), a.asm.label());
    a.cmp_imm(PANELS, step);
    a.b_lo(single);
    let wide = a.asm.bound();
    group(a, widest);
    a.sub_imm(PANELS, PANELS, step);
    a.cmp_imm(PANELS, step);
    a.b_hs(wide);
    a.asm.bind(single);
    a.cbz(PANELS, done);
    let one = a.asm.bound();
    group(a, 1);
    a.subs_imm(PANELS, PANELS, 1);
    a.b_ne(one);
    a.asm.bind(done);
}
