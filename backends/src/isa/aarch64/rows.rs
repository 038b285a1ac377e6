//! The loops over rows of floats with NEON (see [`RowPart`]): sixteen elements at a time, the rest one by one.

use tcc_ir::numerics::{EXP_MAX, F16_MAX};

use super::abi::{leaf, saving};
use super::exp::{ARGUMENTS, ONE, exp, load_constants};
use super::floats::{reduce, repeat, splat};
use super::inst::{A64, V, X};
use crate::code::Function;
use crate::isa::{RowBodies, RowPart};

/// Blocks of a row left.
const COUNT: X = X(9);
const SCRATCH: X = X(10);

/// What is gathered from all elements, then two operands.
const GATHERED: usize = 0;
const LEFT: usize = 4;
const RIGHT: usize = 16;
/// A factor or limit of all elements.
const FACTOR: V = V(20);

/// The function of `part`.
pub(super) fn emit(part: RowPart) -> Option<Function> {
    let bodies: RowBodies<fn(&str) -> Function> = RowBodies {
        squares: |name| leaf(name, squares),
        scale: |name| leaf(name, scale),
        absmax: |name| leaf(name, absmax),
        codes: |name| leaf(name, codes),
        relu2: |name| leaf(name, relu2),
        silu: |name| saving(name, silu),
        narrow: Some(|name| leaf(name, narrow)),
    };
    Some(bodies.of(part)?(part.symbol()))
}

/// Elements that a step takes.
#[derive(Clone, Copy)]
enum Step {
    /// Sixteen, in four registers.
    Block,
    /// One, in the first lane of a register; what the other lanes hold does not matter unless it is gathered.
    One,
}

impl Step {
    /// The registers from `first` on that elements are in.
    fn registers(self, first: usize) -> impl Iterator<Item = V> {
        let count = match self {
            Step::Block => 4,
            Step::One => 1,
        };
        (first..first + count).map(|register| V(register as u8))
    }

    /// Loads f32 at `from` and moves it past them; lanes that are not loaded become 0.
    fn load(self, a: &mut A64, first: usize, from: X) {
        let register = |i: usize| V((first + i) as u8);
        match self {
            Step::Block => {
                a.ldp_q_post(register(0), register(1), from, 32);
                a.ldp_q_post(register(2), register(3), from, 32);
            }
            Step::One => a.ldr_s_post(register(0), from, 4),
        }
    }

    /// Stores f32 at `to` and moves it past them.
    fn store(self, a: &mut A64, first: usize, to: X) {
        let register = |i: usize| V((first + i) as u8);
        match self {
            Step::Block => {
                a.stp_q_post(register(0), register(1), to, 32);
                a.stp_q_post(register(2), register(3), to, 32);
            }
            Step::One => a.str_s_post(register(0), to, 4),
        }
    }

    /// `op(a, x, x, y)` for the registers x from `left` and y from `right` on.
    fn both(self, a: &mut A64, left: usize, right: usize, op: fn(&mut A64, V, V, V)) {
        self.registers(left).zip(self.registers(right)).for_each(|(x, y)| op(a, x, x, y));
    }
}

/// Runs `body` for each block of `n` elements, then for each element left.
fn for_elements(a: &mut A64, n: X, body: impl Fn(&mut A64, Step)) {
    a.lsr(COUNT, n, 4);
    repeat(a, COUNT, |a| body(a, Step::Block));
    a.and_15(COUNT, n);
    repeat(a, COUNT, |a| body(a, Step::One));
}

fn clear_gathered(a: &mut A64) {
    Step::Block.registers(GATHERED).for_each(|register| a.movi(register, 0));
}

/// Joins what was gathered by `op` in the first register.
fn join_gathered(a: &mut A64, op: fn(&mut A64, V, V, V)) {
    for (to, from) in [(0, 1), (2, 3), (0, 2)] {
        op(a, V(to), V(to), V(from));
    }
}

/// `extern "C" fn(x, n) -> f32`.
///
/// Elements behind the last block go to the first partial each, and the partials round by one lane: sums of partials 8,
/// 4, 2 and 1 apart are the same wherever the first one lies. The other lanes of an element are 0, whose square leaves a
/// partial alone.
fn squares(a: &mut A64) {
    let (x, n) = (X(0), X(1));
    clear_gathered(a);
    let partials = [0, 1, 2, 3].map(V);
    for_elements(a, n, |a, step| {
        step.load(a, LEFT, x);
        step.registers(GATHERED).zip(step.registers(LEFT)).for_each(|(partial, x)| a.fmla(partial, x, x));
        if let Step::One = step {
            let first = V(LEFT as u8);
            a.orr_v(first, partials[0], partials[0]);
            for (register, next) in partials.into_iter().zip([partials[1], partials[2], partials[3], first]) {
                a.ext(register, register, next, 4);
            }
        }
    });
    reduce(a, partials);
}

/// `extern "C" fn(x, w, n, out, r)`.
fn scale(a: &mut A64) {
    let [x, w, n, out] = [0, 1, 2, 3].map(X);
    a.dup_s(FACTOR, V(0));
    for_elements(a, n, |a, step| {
        step.load(a, LEFT, x);
        step.load(a, RIGHT, w);
        step.registers(LEFT).for_each(|x| a.fmul(x, x, FACTOR));
        step.both(a, LEFT, RIGHT, A64::fmul);
        step.store(a, LEFT, out);
    });
}

/// `extern "C" fn(x, n) -> i32`.
fn absmax(a: &mut A64) {
    let (x, n) = (X(0), X(1));
    splat(a, FACTOR, f32::from_bits(i32::MAX.cast_unsigned()), SCRATCH);
    clear_gathered(a);
    for_elements(a, n, |a, step| {
        step.load(a, LEFT, x);
        step.registers(LEFT).for_each(|x| a.and_v(x, x, FACTOR));
        step.both(a, GATHERED, LEFT, A64::smax_s);
    });
    join_gathered(a, A64::smax_s);
    a.smaxv_s(V(0), V(0));
    a.fmov_w(X(0), V(0));
}

/// `extern "C" fn(x, n, codes, inv_scale) -> i32`.
fn codes(a: &mut A64) {
    let [x, n, codes] = [0, 1, 2].map(X);
    a.dup_s(FACTOR, V(0));
    clear_gathered(a);
    for_elements(a, n, |a, step| {
        step.load(a, LEFT, x);
        step.registers(LEFT).for_each(|x| a.fmul(x, x, FACTOR));
        step.registers(LEFT).for_each(|x| a.fcvtns(x, x));
        step.both(a, GATHERED, LEFT, A64::add_s);
        let [first, second, third, fourth] = [0, 1, 2, 3].map(|i| V(LEFT as u8 + i));
        match step {
            Step::Block => {
                a.uzp1_h(first, first, second);
                a.uzp1_h(third, third, fourth);
                a.uzp1_b(first, first, third);
                a.str_q_post(first, codes, 16);
            }
            Step::One => a.str_b_post(first, codes, 1),
        }
    });
    join_gathered(a, A64::add_s);
    a.addv_s(V(0), V(0));
    a.fmov_w(X(0), V(0));
}

/// `extern "C" fn(x, n, out)`. Magnitudes are limited as integers: so is what is no number.
fn narrow(a: &mut A64) {
    let [x, n, out] = [0, 1, 2].map(X);
    let (sign, largest) = (FACTOR, V(21));
    splat(a, sign, -0.0, SCRATCH);
    splat(a, largest, F16_MAX, SCRATCH);
    for_elements(a, n, |a, step| {
        step.load(a, LEFT, x);
        step.registers(LEFT).zip(step.registers(RIGHT)).for_each(|(x, magnitude)| a.bic_v(magnitude, x, sign));
        step.registers(RIGHT).for_each(|magnitude| a.smin_s(magnitude, magnitude, largest));
        step.registers(LEFT).zip(step.registers(RIGHT)).for_each(|(x, magnitude)| a.bit_v(magnitude, x, sign));
        let [first, second, third, fourth] = [0, 1, 2, 3].map(|i| V(RIGHT as u8 + i));
        a.fcvtn(first, first);
        match step {
            Step::Block => {
                a.fcvtn2(first, second);
                a.fcvtn(third, third);
                a.fcvtn2(third, fourth);
                a.stp_q_post(first, third, out, 32);
            }
            Step::One => a.str_h_post(first, out, 2),
        }
    });
}

/// `extern "C" fn(g, u, n, out)`.
fn relu2(a: &mut A64) {
    let [g, u, n, out] = [0, 1, 2, 3].map(X);
    a.movi(FACTOR, 0);
    for_elements(a, n, |a, step| {
        step.load(a, LEFT, g);
        step.load(a, RIGHT, u);
        step.registers(LEFT).for_each(|g| a.fmaxnm(g, g, FACTOR));
        step.both(a, LEFT, LEFT, A64::fmul);
        step.both(a, LEFT, RIGHT, A64::fmul);
        step.store(a, LEFT, out);
    });
}

/// `extern "C" fn(g, u, n, out)`.
fn silu(a: &mut A64) {
    let [g, u, n, out] = [0, 1, 2, 3].map(X);
    // Registers that exponentials leave alone.
    let (right, least, minus_one) = (12, V(16), V(17));
    load_constants(a, SCRATCH);
    splat(a, least, -EXP_MAX, SCRATCH);
    splat(a, minus_one, -1.0, SCRATCH);
    for_elements(a, n, |a, step| {
        step.load(a, LEFT, g);
        step.load(a, right, u);
        let gates: Vec<V> = step.registers(LEFT).collect();
        for gates in gates.chunks(ARGUMENTS.len()) {
            let both = || ARGUMENTS.into_iter().zip(gates);
            both().for_each(|(x, gate)| a.fmaxnm(x, *gate, least));
            both().for_each(|(x, _)| a.fmul(x, x, minus_one));
            exp(a);
            both().for_each(|(x, _)| a.fadd(x, x, ONE));
            both().for_each(|(x, gate)| a.fdiv(*gate, *gate, x));
        }
        step.both(a, LEFT, right, A64::fmul);
        step.store(a, LEFT, out);
    });
}
