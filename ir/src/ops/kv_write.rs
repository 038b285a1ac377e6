//! `kv_write cache, x, pos, valid`: stores rows 0..valid of `x: f32[m, heads·d]` at positions pos.. of
//! `cache: f32|f16|q8[heads, ctx, d]` and returns the cache. f16 rounds half to even and saturates at ±65504; q8
//! quantizes the d elements of a token's head as activations are.
//!
//! **Invariant:** state is a value; the planner gives the cache before and after one buffer.

use super::{Operands, TypeError, quantize_act};
use crate::numerics::f32_to_f16_saturating;
use crate::tensor::{Data, Tensor};
use crate::ty::{DType, ValueType};

/// Element types a cache may have.
pub const CACHE_TYPES: [DType; 3] = [DType::F32, DType::F16, DType::Q8];

pub(super) fn infer(cx: &Operands) -> Result<Vec<ValueType>, TypeError> {
    cx.count(4)?;
    let cache = cx.get(0)?;
    let &[heads, _, d] = &cache.shape[..] else {
        return cx.fail(format!("the cache is {cache}, expected three extents"));
    };
    if !CACHE_TYPES.contains(&cache.dtype) {
        return cx.fail(format!("the cache is {cache}, expected f32, f16 or q8"));
    }
    let (_, k) = cx.matrix(1, DType::F32)?;
    if k != heads * d {
        return cx.fail(format!("rows of {k} do not fill {heads} heads of {d}"));
    }
    cx.expect(2, DType::U32, &[1])?;
    cx.expect(3, DType::U32, &[1])?;
    Ok(vec![cache.clone()])
}

pub(super) fn eval<'a>(operands: &[&Tensor<'a>]) -> Tensor<'a> {
    let mut cache = operands[0].clone();
    write(&mut cache, operands[1], operands[2].as_u32()[0], operands[3].as_u32()[0]);
    cache
}

/// The write itself, in place: what [`eval`] does to its copy.
pub(crate) fn write(cache: &mut Tensor<'_>, x: &Tensor<'_>, pos: u32, valid: u32) {
    let (heads, ctx, d) = (cache.shape[0], cache.shape[1], cache.shape[2]);
    let x = x.as_f32();
    for row in 0..valid as usize {
        for head in 0..heads {
            let from = &x[(row * heads + head) * d..][..d];
            let run = head * ctx + pos as usize + row;
            let at = run * d;
            match &mut cache.data {
                Data::F32(c) => c.to_mut()[at..at + d].copy_from_slice(from),
                Data::F16(c) => {
                    for (to, v) in c.to_mut()[at..at + d].iter_mut().zip(from) {
                        *to = f32_to_f16_saturating(*v);
                    }
                }
                Data::Q8(codes, scales) => {
                    let mut to = codes.to_mut()[at..at + d].iter_mut();
                    let write = |code| *to.next().expect("a code per element") = code;
                    scales.to_mut()[run] = quantize_act::quantize(from, write);
                }
                other => unreachable!("type rule admits {CACHE_TYPES:?}, found {other:?}"),
            }
        }
    }
}
