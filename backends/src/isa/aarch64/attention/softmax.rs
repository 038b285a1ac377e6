//! Softmax: scores become factors in place.

use tcc_ir::numerics::{EXP_MIN, EXP_POLY, LN2_HIGH, LN2_LOW, LOG2_E, ROUND_MAGIC};
use tcc_ir::ty::DType;

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
const MAGIC: V = V(18);
const LOG2: V = V(19);
const HIGH: V = V(20);
const LOW: V = V(21);
const ONE: V = V(22);
const SMALLEST: V = V(23);
/// Horner coefficients.
const POLY: [V; 6] = [V(24), V(25), V(26), V(27), V(28), V(29)];
const TOTAL: usize = 4;

/// Registers of one exponential.
struct Exponential {
    /// The score, then what is left of it, then the result.
    x: V,
    is_small: V,
    exponent: V,
    p: V,
    next: V,
}

const PAIR: [Exponential; 2] = [
    Exponential { x: V(0), is_small: V(2), exponent: V(3), p: V(30), next: V(31) },
    Exponential { x: V(1), is_small: V(8), exponent: V(9), p: V(10), next: V(11) },
];

/// `extern "C" fn(e, seen, k_scales, v_scales, scale) -> f32`.
pub(super) fn emit(a: &mut A64) {
    a.dup_s(SCALE, V(0));
    let constants =
        [(MAGIC, ROUND_MAGIC), (LOG2, LOG2_E), (HIGH, LN2_HIGH), (LOW, LN2_LOW), (ONE, 1.0), (SMALLEST, EXP_MIN)];
    for (register, value) in constants.into_iter().chain(POLY.into_iter().zip(EXP_POLY)) {
        splat(a, register, value, SCRATCH);
    }
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

/// `numerics::exp` of the scores of half a block less the largest, which are not above 0, so that its upper bound
/// never acts.
fn exponentials(a: &mut A64, half: usize) {
    a.ldp_q(PAIR[0].x, PAIR[1].x, AT, 32 * half as i64);
    let both = |a: &mut A64, step: fn(&mut A64, &Exponential)| PAIR.iter().for_each(|e| step(a, e));
    both(a, |a, e| a.fsub(e.x, e.x, LARGEST));
    both(a, |a, e| a.fcmgt(e.is_small, SMALLEST, e.x));
    both(a, |a, e| a.fmul(e.exponent, e.x, LOG2));
    both(a, |a, e| a.fadd(e.exponent, e.exponent, MAGIC));
    both(a, |a, e| a.fsub(e.p, e.exponent, MAGIC));
    both(a, |a, e| a.fmls(e.x, e.p, HIGH));
    both(a, |a, e| a.fmls(e.x, e.p, LOW));
    // The magic number's low nine bits are 0, so shifting the biased sum by 23 leaves n in the exponent field.
    both(a, |a, e| a.shl_s(e.exponent, e.exponent, 23));
    for e in &PAIR {
        a.orr_v(e.p, POLY[1], POLY[1]);
        a.fmla(e.p, e.x, POLY[0]);
    }
    for (step, coefficient) in POLY[2..].iter().enumerate() {
        for e in &PAIR {
            let (from, to) = if step % 2 == 0 { (e.p, e.next) } else { (e.next, e.p) };
            a.orr_v(to, *coefficient, *coefficient);
            a.fmla(to, from, e.x);
        }
    }
    both(a, |a, e| a.fmul(e.next, e.x, e.x));
    both(a, |a, e| a.fmla(e.x, e.p, e.next));
    both(a, |a, e| a.fadd(e.x, e.x, ONE));
    both(a, |a, e| a.add_s(e.x, e.x, e.exponent));
    both(a, |a, e| a.bic_v(e.x, e.x, e.is_small));
    for (i, e) in PAIR.iter().enumerate() {
        let total = V((TOTAL + 2 * half + i) as u8);
        a.fadd(total, total, e.x);
    }
    a.stp_q(PAIR[0].x, PAIR[1].x, AT, 32 * half as i64);
}
