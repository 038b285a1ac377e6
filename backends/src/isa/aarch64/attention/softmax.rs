//! Softmax: scores become factors in place.

use tcc_ir::ty::DType;

use super::super::exp::{ARGUMENTS, exp, load_constants};
use super::super::floats::{LANES, load_block, reduce, repeat, splat};
use super::super::inst::{A64, V, X};
use super::{BLOCK_BYTES, registers};

const E: X = X(0);
const SEEN: X = X(1);
const K_SCALES: X = X(2);
const V_SCALES: X = X(3);
const BLOCKS: X = X(4);
const LEFT: X = X(5);
const AT: X = X(6);
const SCALES: X = X(7);
const SCRATCH: X = X(8);

const SCALE: V = V(16);
const LARGEST: V = V(17);
const TOTAL: usize = 4;

/// `extern "C" fn(e, seen, k_scales, v_scales, scale) -> f32`.
pub(super) fn emit(a: &mut A64) {
    a.dup_s(SCALE, V(0));
    load_constants(a, SCRATCH);
    splat(a, LARGEST, f32::NEG_INFINITY, SCRATCH);
    a.add_imm(BLOCKS, SEEN, LANES - 1);
    a.lsr(BLOCKS, BLOCKS, 4);
    multiply_by(a, K_SCALES);
    for_blocks(a, |a| {
        let block = registers(0);
        load(a, block);
        block.iter().for_each(|e| a.fmul(*e, *e, SCALE));
        store(a, block);
    });
    fill_last_block(a);
    for_blocks(a, |a| {
        load_block(a, DType::F32, registers(0), AT);
        registers(0).iter().for_each(|e| a.fmax(LARGEST, LARGEST, *e));
    });
    a.fmaxv(LARGEST, LARGEST);
    a.dup_s(LARGEST, LARGEST);
    registers(TOTAL).iter().for_each(|total| a.movi(*total, 0));
    for_blocks(a, |a| {
        exponentials(a, 0);
        exponentials(a, 1);
        a.add_imm(AT, AT, BLOCK_BYTES);
    });
    multiply_by(a, V_SCALES);
    reduce(a, registers(TOTAL));
    a.orr_v(V(0), V(TOTAL as u8), V(TOTAL as u8));
}

/// Runs `body`, which moves `AT` on, for every block of sixteen positions.
fn for_blocks(a: &mut A64, body: impl FnOnce(&mut A64)) {
    a.mov(AT, E);
    a.mov(LEFT, BLOCKS);
    repeat(a, LEFT, body);
}

fn load(a: &mut A64, block: [V; 4]) {
    a.ldp_q(block[0], block[1], AT, 0);
    a.ldp_q(block[2], block[3], AT, 32);
}

fn store(a: &mut A64, block: [V; 4]) {
    a.stp_q_post(block[0], block[1], AT, 32);
    a.stp_q_post(block[2], block[3], AT, 32);
}

/// Multiplies by the scales of the positions, unless they are null.
fn multiply_by(a: &mut A64, scales: X) {
    let none = a.asm.label();
    a.cbz(scales, none);
    a.mov(SCALES, scales);
    for_blocks(a, |a| {
        // Beside the sums of exponentials.
        let (block, scales) = (registers(0), registers(8));
        load(a, block);
        load_block(a, DType::F32, scales, SCALES);
        block.iter().zip(scales).for_each(|(e, scale)| a.fmul(*e, *e, scale));
        store(a, block);
    });
    a.asm.bind(none);
}

/// Writes what [`LARGEST`] holds at first, minus infinity, behind the last position: its exponential is +0.
fn fill_last_block(a: &mut A64) {
    a.mov_imm(LEFT, 0);
    a.add_lsl(AT, E, SEEN, 2);
    a.add_lsl(LEFT, LEFT, BLOCKS, 4);
    a.sub(LEFT, LEFT, SEEN);
    repeat(a, LEFT, |a| a.str_s_post(LARGEST, AT, 4));
}

/// The exponentials of the scores of half a block less the largest, which are not above 0.
fn exponentials(a: &mut A64, half: usize) {
    let [low, high] = ARGUMENTS;
    a.ldp_q(low, high, AT, 32 * half as i64);
    ARGUMENTS.iter().for_each(|x| a.fsub(*x, *x, LARGEST));
    exp(a);
    for (i, x) in ARGUMENTS.into_iter().enumerate() {
        let total = V((TOTAL + 2 * half + i) as u8);
        a.fadd(total, total, x);
    }
    a.stp_q(low, high, AT, 32 * half as i64);
}
