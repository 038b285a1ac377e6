//! What vector operations do to one lane: plain scalar Rust on the bits of elements.

use half::{bf16, f16};

use crate::isa::matrix::program::ty::ElemType;

/// One lane's inputs: bits of src0 and src1 (of `src_ty`) and of the old result (of `dst_ty`), zero-extended.
#[derive(Clone, Copy, Debug)]
pub struct Lane {
    pub a: u32,
    pub b: u32,
    pub old: u32,
    pub src_ty: ElemType,
    pub dst_ty: ElemType,
}

/// A value as the widest type of its kind, exactly.
#[derive(Clone, Copy)]
enum Value {
    Int(i64),
    Float(f32),
}

fn widen(bits: u32, ty: ElemType) -> Value {
    // Narrowing casts take the element's own bits; the rest is zero.
    match ty {
        ElemType::S4 => Value::Int(i64::from(((bits as u8) << 4) as i8 >> 4)),
        ElemType::S8 => Value::Int(i64::from(bits as u8 as i8)),
        ElemType::U8 => Value::Int(i64::from(bits as u8)),
        ElemType::S16 => Value::Int(i64::from(bits as u16 as i16)),
        ElemType::U16 => Value::Int(i64::from(bits as u16)),
        ElemType::S32 => Value::Int(i64::from(bits as i32)),
        ElemType::U32 => Value::Int(i64::from(bits)),
        ElemType::F16 => Value::Float(f16::from_bits(bits as u16).to_f32()),
        ElemType::Bf16 => Value::Float(bf16::from_bits(bits as u16).to_f32()),
        ElemType::F32 => Value::Float(f32::from_bits(bits)),
    }
}

/// Low bits of `value`: integers wrap.
fn wrap(value: i64, ty: ElemType) -> u32 {
    // Keeping the low bits is what wrapping means.
    let bits = value as u32;
    match ty.bits() {
        32 => bits,
        narrow => bits & ((1 << narrow) - 1),
    }
}

fn round(value: f32, ty: ElemType) -> u32 {
    match ty {
        ElemType::F16 => u32::from(f16::from_f32(value).to_bits()),
        ElemType::Bf16 => u32::from(bf16::from_f32(value).to_bits()),
        ElemType::F32 => value.to_bits(),
        ElemType::S4 | ElemType::S8 | ElemType::U8 | ElemType::S16 | ElemType::U16 | ElemType::S32 | ElemType::U32 => {
            let (low, high) = limits(ty);
            // `as` saturates and turns NaN into 0; the clamp then narrows.
            wrap((value.round_ties_even() as i64).clamp(low, high), ty)
        }
    }
}

/// Smallest and largest value of an integer type.
fn limits(ty: ElemType) -> (i64, i64) {
    match ty {
        ElemType::S4 => (-8, 7),
        ElemType::S8 => (-128, 127),
        ElemType::U8 => (0, 255),
        ElemType::S16 => (-32768, 32767),
        ElemType::U16 => (0, 65535),
        ElemType::S32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        ElemType::U32 => (0, i64::from(u32::MAX)),
        ElemType::F16 | ElemType::Bf16 | ElemType::F32 => (i64::MIN, i64::MAX),
    }
}

/// `f` of integers or of floats; f16 arithmetic is f32 arithmetic rounded.
fn binary(l: Lane, int: fn(i64, i64) -> i64, float: fn(f32, f32) -> f32) -> u32 {
    match (widen(l.a, l.src_ty), widen(l.b, l.src_ty)) {
        (Value::Int(a), Value::Int(b)) => wrap(int(a, b), l.dst_ty),
        (Value::Float(a), Value::Float(b)) => round(float(a, b), l.dst_ty),
        (Value::Int(_), Value::Float(_)) | (Value::Float(_), Value::Int(_)) => l.old,
    }
}

fn compare(l: Lane, int: fn(i64, i64) -> bool, float: fn(f32, f32) -> bool) -> u32 {
    match (widen(l.a, l.src_ty), widen(l.b, l.src_ty)) {
        (Value::Int(a), Value::Int(b)) => u32::from(int(a, b)),
        (Value::Float(a), Value::Float(b)) => u32::from(float(a, b)),
        (Value::Int(_), Value::Float(_)) | (Value::Float(_), Value::Int(_)) => 0,
    }
}

pub fn first(l: Lane) -> u32 {
    l.a
}

pub fn second(l: Lane) -> u32 {
    l.b
}

pub fn add(l: Lane) -> u32 {
    binary(l, |a, b| a.wrapping_add(b), |a, b| a + b)
}

pub fn sub(l: Lane) -> u32 {
    binary(l, |a, b| a.wrapping_sub(b), |a, b| a - b)
}

pub fn mul(l: Lane) -> u32 {
    binary(l, |a, b| a.wrapping_mul(b), |a, b| a * b)
}

pub fn max(l: Lane) -> u32 {
    binary(l, |a, b| if a > b { a } else { b }, |a, b| if a > b { a } else { b })
}

pub fn min(l: Lane) -> u32 {
    binary(l, |a, b| if a < b { a } else { b }, |a, b| if a < b { a } else { b })
}

pub fn div(l: Lane) -> u32 {
    binary(l, |a, b| a.checked_div(b).unwrap_or(0), |a, b| a / b)
}

/// `a · b + c` rounded once; in f16 by way of f64, where the product is exact.
fn fused(a: u32, b: u32, c: u32, ty: ElemType) -> u32 {
    match (widen(a, ty), widen(b, ty), widen(c, ty)) {
        (Value::Float(a), Value::Float(b), Value::Float(c)) => match ty {
            ElemType::F16 => u32::from(f16::from_f64(f64::from(a) * f64::from(b) + f64::from(c)).to_bits()),
            ElemType::S4
            | ElemType::S8
            | ElemType::U8
            | ElemType::S16
            | ElemType::U16
            | ElemType::S32
            | ElemType::U32
            | ElemType::Bf16
            | ElemType::F32 => round(a.mul_add(b, c), ty),
        },
        (Value::Int(a), Value::Int(b), Value::Int(c)) => wrap(a.wrapping_mul(b).wrapping_add(c), ty),
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => c,
    }
}

pub fn mla(l: Lane) -> u32 {
    fused(l.a, l.b, l.old, l.dst_ty)
}

pub fn madd(l: Lane) -> u32 {
    fused(l.old, l.a, l.b, l.dst_ty)
}

pub fn and(l: Lane) -> u32 {
    l.a & l.b
}

pub fn or(l: Lane) -> u32 {
    l.a | l.b
}

pub fn xor(l: Lane) -> u32 {
    l.a ^ l.b
}

pub fn not(l: Lane) -> u32 {
    wrap(i64::from(!l.a), l.dst_ty)
}

pub fn shl(l: Lane) -> u32 {
    wrap(i64::from(l.a) << l.b.min(32), l.dst_ty)
}

pub fn shr(l: Lane) -> u32 {
    match widen(l.a, l.src_ty) {
        Value::Int(a) => wrap(a >> l.b.min(63), l.dst_ty),
        Value::Float(_) => l.a,
    }
}

pub fn abs(l: Lane) -> u32 {
    binary(l, |a, _| a.wrapping_abs(), |a, _| a.abs())
}

pub fn neg(l: Lane) -> u32 {
    binary(l, |a, _| a.wrapping_neg(), |a, _| -a)
}

pub fn sqrt(l: Lane) -> u32 {
    binary(l, |a, _| a, |a, _| a.sqrt())
}

pub fn cast(l: Lane) -> u32 {
    match widen(l.a, l.src_ty) {
        Value::Float(a) => round(a, l.dst_ty),
        Value::Int(a) => match l.dst_ty {
            // Half to even, from the exact integer: f16 by way of f64, which holds every s32.
            ElemType::F32 => (a as f32).to_bits(),
            ElemType::F16 => u32::from(f16::from_f64(a as f64).to_bits()),
            ElemType::Bf16 => u32::from(bf16::from_f64(a as f64).to_bits()),
            ElemType::S4
            | ElemType::S8
            | ElemType::U8
            | ElemType::S16
            | ElemType::U16
            | ElemType::S32
            | ElemType::U32 => {
                let (low, high) = limits(l.dst_ty);
                wrap(a.clamp(low, high), l.dst_ty)
            }
        },
    }
}

pub fn cast_saturating(l: Lane) -> u32 {
    let bits = cast(l);
    let infinity = match l.dst_ty {
        ElemType::F16 => 0x7c00,
        ElemType::Bf16 => 0x7f80,
        ElemType::S4
        | ElemType::S8
        | ElemType::U8
        | ElemType::S16
        | ElemType::U16
        | ElemType::S32
        | ElemType::U32
        | ElemType::F32 => return bits,
    };
    if bits & 0x7fff == infinity { bits - 1 } else { bits }
}

pub fn eq(l: Lane) -> u32 {
    compare(l, |a, b| a == b, |a, b| a == b)
}

pub fn lt(l: Lane) -> u32 {
    compare(l, |a, b| a < b, |a, b| a < b)
}

pub fn gt(l: Lane) -> u32 {
    compare(l, |a, b| a > b, |a, b| a > b)
}

pub fn ge(l: Lane) -> u32 {
    compare(l, |a, b| a >= b, |a, b| a >= b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(a: u32, b: u32, old: u32, src_ty: ElemType, dst_ty: ElemType) -> Lane {
        Lane { a, b, old, src_ty, dst_ty }
    }

    #[test]
    fn casts_round_half_to_even_and_saturate() {
        let from_f32 = |x: f32, ty| cast(lane(x.to_bits(), 0, 0, ElemType::F32, ty));
        assert_eq!(from_f32(2.5, ElemType::S8), 2);
        assert_eq!(from_f32(-3.5, ElemType::S8), 0xfc);
        assert_eq!(from_f32(200.0, ElemType::S8), 127);
        assert_eq!(from_f32(-1e30, ElemType::S32), 0x8000_0000);
        assert_eq!(from_f32(70000.0, ElemType::F16), 0x7c00);
        assert_eq!(cast_saturating(lane(70000.0f32.to_bits(), 0, 0, ElemType::F32, ElemType::F16)), 0x7bff);
        assert_eq!(cast(lane(0xf, 0, 0, ElemType::S4, ElemType::F16)), u32::from(f16::from_f32(-1.0).to_bits()));
        assert_eq!(cast(lane(0x80, 0, 0, ElemType::S8, ElemType::S32)), 0xffff_ff80);
    }

    #[test]
    fn arithmetic_follows_the_element_type() {
        assert_eq!(shr(lane(0x8000, 4, 0, ElemType::S16, ElemType::S16)), 0xf800);
        assert_eq!(shr(lane(0x8000, 4, 0, ElemType::U16, ElemType::U16)), 0x0800);
        assert_eq!(add(lane(0xffff, 1, 0, ElemType::U16, ElemType::U16)), 0);
        assert_eq!(max(lane(0xffff_ffff, 1, 0, ElemType::S32, ElemType::S32)), 1);
        assert_eq!(shl(lane(0x0000_8001, 1, 0, ElemType::U16, ElemType::U16)), 2);
        let (a, b, c) = (1.0f32 + f32::EPSILON, 1.0f32 - f32::EPSILON, -1.0f32);
        let fused = mla(lane(a.to_bits(), b.to_bits(), c.to_bits(), ElemType::F32, ElemType::F32));
        assert_eq!(f32::from_bits(fused), a.mul_add(b, c));
        assert_ne!(f32::from_bits(fused), a * b + c);
    }
}
