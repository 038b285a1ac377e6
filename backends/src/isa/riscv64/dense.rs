//! The dot product of dense weights with RVV: `extern "C" fn(x, w, k, rows, out, later)` (see [`Backend::dense_dot`]);
//! the last is not used.
//!
//! One group of registers is the sixteen partials of `numerics::dot`; the last k mod 16 elements are a shorter vector
//! that leaves the other partials as they are.
//!
//! [`Backend::dense_dot`]: crate::isa::Backend::dense_dot

use tcc_ir::numerics::LANES;
use tcc_ir::ty::DType;

use super::abi::function;
use super::floats::{
    Halves, by_vector_length, element_bytes, int, load_widened, reduce, repeat, set_sixteen, while_left,
};
use super::inst::{
    A0, A1, A2, A3, A4, A5, A6, A7, FT0, FT1, Lmul, Sew, T1, T2, T3, T4, T5, T6, V, X, ZERO, add, addi, andi, beq, fsw,
    mv, patch_branch, put, ret, slli, srli, vfmacc_vv, vle32, vmv_v_i, vsetvli_tu,
};
use crate::asm::Asm;
use crate::code::Function;

/// First of the token rows left.
const X_ROW: X = A0;
const W_ROW: X = A1;
const K: X = A2;
/// Token rows left.
const ROWS: X = A3;
const OUT: X = A4;
/// Bytes of a token row.
const X_STRIDE: X = A5;
const W: X = A6;
const COUNT: X = A7;
/// Columns of the last block.
const TAIL: X = T1;
/// Activations of the token rows computed together.
const X_AT: [X; 4] = [T3, T4, T5, T6];
const HALVES: Halves = Halves { kept: T2, rebias: FT0 };

/// Token rows computed together, most first: each widened weight serves all of them.
const GROUPS: [usize; 2] = [4, 1];

/// Some token rows of weights of one type, sixteen lanes being a group of `lmul` registers.
#[derive(Clone, Copy)]
struct Shape {
    weight: DType,
    lmul: Lmul,
    rows: usize,
}

impl Shape {
    fn partials(self, row: usize) -> V {
        self.lmul.group(row)
    }

    fn weights(self) -> V {
        self.lmul.group(4)
    }

    /// Activations, and before them the narrow weights.
    fn other(self) -> V {
        self.lmul.group(5)
    }
}

/// The function for weights of type `weight`.
pub(super) fn emit(weight: DType) -> Function {
    let mut asm = Asm::new();
    put(&mut asm, &[slli(X_STRIDE, K, 2)]);
    HALVES.load(&mut asm, weight);
    by_vector_length(&mut asm, |asm, lmul| {
        set_sixteen(asm, lmul);
        asm.word(andi(TAIL, K, int(LANES - 1)));
        for rows in GROUPS {
            while_left(asm, ROWS, rows, |asm| row_group(asm, Shape { weight, lmul, rows }));
        }
        asm.word(ret());
    });
    function("dense_dot", asm, 0)
}

/// Dot products of the next token rows; moves `X_ROW` and `OUT` past them.
fn row_group(asm: &mut Asm, shape: Shape) {
    asm.word(mv(W, W_ROW));
    for (row, at) in X_AT[..shape.rows].iter().enumerate() {
        put(asm, &[mv(*at, X_ROW), add(X_ROW, X_ROW, X_STRIDE), vmv_v_i(shape.partials(row), 0)]);
    }
    asm.word(srli(COUNT, K, 5));
    repeat(asm, COUNT, |asm| {
        block(asm, shape);
        block(asm, shape);
    });
    put(asm, &[srli(COUNT, K, 4), andi(COUNT, COUNT, 1)]);
    repeat(asm, COUNT, |asm| block(asm, shape));
    let whole = asm.label();
    asm.branch(beq(TAIL, ZERO), whole, patch_branch);
    asm.word(vsetvli_tu(ZERO, TAIL, Sew::E32, shape.lmul));
    block(asm, shape);
    set_sixteen(asm, shape.lmul);
    asm.bind(whole);
    for row in 0..shape.rows {
        reduce(asm, shape.partials(row), shape.weights(), FT1);
        put(asm, &[fsw(FT1, 4 * int(row), OUT)]);
    }
    asm.word(addi(OUT, OUT, 4 * int(shape.rows)));
}

fn block(asm: &mut Asm, shape: Shape) {
    load_widened(asm, shape.weight, shape.weights(), shape.other(), W, HALVES);
    asm.word(addi(W, W, int(LANES * element_bytes(shape.weight))));
    for (row, at) in X_AT[..shape.rows].iter().enumerate() {
        put(asm, &[vle32(shape.other(), *at), addi(*at, *at, int(4 * LANES))]);
        asm.word(vfmacc_vv(shape.partials(row), shape.other(), shape.weights()));
    }
}
