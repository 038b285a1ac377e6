//! Loops over the elements of a row: blocks of sixteen lanes, then what is left one by one.

use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::numerics::LANES;

use super::func::FunctionCx;
use super::lanes::{Lanes, Shape};

/// Runs `body` over elements `0..k`: with sixteen lanes while they last, then with one; the value is the index of
/// the first element.
pub(super) fn for_elements(f: &mut FunctionCx, k: usize, body: impl Fn(&mut FunctionCx, Shape, Value)) {
    let whole = k / LANES * LANES;
    let (start, middle, end) = (f.i64(0), f.size(whole), f.size(k));
    let block = Shape::block(f);
    if whole > 0 {
        f.for_range(start, middle, LANES, |f, i| body(f, block, i));
    }
    if whole < k {
        f.for_range(middle, end, 1, |f, i| body(f, Shape::ONE, i));
    }
}

/// As [`for_elements`] over a number of elements that is known at run time only.
pub(super) fn for_count(f: &mut FunctionCx, n: Value, body: impl Fn(&mut FunctionCx, Shape, Value)) {
    let lanes = i64::try_from(LANES).expect("sixteen");
    let (zero, whole) = (f.i64(0), f.ins().band_imm_s(n, -lanes));
    for (begin, end, shape) in [(zero, whole, Shape::block(f)), (whole, n, Shape::ONE)] {
        f.for_range(begin, end, shape.lanes(), |f, i| body(f, shape, i));
    }
}

/// Folds elements `0..k` into sixteen partials each of `init`: element i goes to partial i mod 16, in increasing i.
///
/// `step` is given the shape, the index of the first element, and the partials to replace, in that shape. Elements
/// that do not exist leave their partials alone.
pub(super) fn fold(
    f: &mut FunctionCx,
    k: usize,
    init: Vec<Lanes>,
    step: impl Fn(&mut FunctionCx, Shape, Value, &[Lanes]) -> Vec<Lanes>,
) -> Vec<Lanes> {
    let whole = k / LANES * LANES;
    let mut partials = init;
    if whole > 0 {
        let (start, end) = (f.i64(0), f.size(whole));
        let block = Shape::block(f);
        let carried: Vec<_> = partials.iter().flat_map(|l| l.values().to_vec()).collect();
        let last = f.for_carried(start, end, LANES, &carried, |f, i, values| {
            let before = regroup(&partials, values);
            step(f, block, i, &before).iter().flat_map(|l| l.values().to_vec()).collect()
        });
        partials = regroup(&partials, &last);
    }
    for lane in 0..k - whole {
        let i = f.size(whole + lane);
        let before: Vec<_> = partials.iter().map(|l| l.lane(f, lane)).collect();
        let after = step(f, Shape::ONE, i, &before);
        for (partial, new) in partials.iter_mut().zip(after) {
            partial.insert(f, lane, new.values()[0]);
        }
    }
    partials
}

/// `values` split among lanes shaped as `like`.
pub(super) fn regroup(like: &[Lanes], values: &[Value]) -> Vec<Lanes> {
    let mut rest = values;
    like.iter()
        .map(|lanes| {
            let (own, others) = rest.split_at(lanes.values().len());
            rest = others;
            lanes.with_values(own)
        })
        .collect()
}
