//! Functions of the numerics contract on lanes: e^x and the two half-precision formats, exactly as
//! `tcc_ir::numerics` defines them.

use cranelift_codegen::ir::Value;
use tcc_ir::numerics::{EXP_MAX, EXP_MIN, EXP_POLY, F16_MAX, LN2_HIGH, LN2_LOW, LOG2_E, ROUND_MAGIC};
use tcc_ir::ty::DType;

use super::func::FunctionCx;
use super::lanes::{Lanes, Shape};

/// Weight of an f16's exponent bias against an f32's: widened bits read as f32 are too small by 2^112.
const F16_REBIAS: f32 = f32::from_bits((127 + 112) << 23);

/// Smallest normal f16, as f32 bits.
const F16_MIN_NORMAL_BITS: i32 = (127 - 14) << 23;

/// `n + ROUND_MAGIC` where n = rne(x), |x| < 2²²: the bits' low end holds n in two's complement.
pub fn rounded(f: &mut FunctionCx, x: &Lanes) -> Lanes {
    let magic = Lanes::constant(f, x.shape(), ROUND_MAGIC);
    x.add(f, &magic)
}

/// `numerics::exp` in each lane.
pub fn exp(f: &mut FunctionCx, x: &Lanes) -> Lanes {
    let shape = x.shape();
    let constant = |f: &mut FunctionCx, value| Lanes::constant(f, shape, value);
    let (smallest, largest) = (constant(f, EXP_MIN), constant(f, EXP_MAX));
    let capped = x.if_greater(f, &largest, &largest, x);
    let log2_e = constant(f, LOG2_E);
    let scaled = capped.mul(f, &log2_e);
    let biased = rounded(f, &scaled);
    let magic = constant(f, ROUND_MAGIC);
    let n = biased.sub(f, &magic);
    let (high, low) = (constant(f, -LN2_HIGH), constant(f, -LN2_LOW));
    let r = n.fma(f, &high, &capped);
    let r = n.fma(f, &low, &r);
    let mut p = constant(f, EXP_POLY[0]);
    for c in &EXP_POLY[1..] {
        let c = constant(f, *c);
        p = p.fma(f, &r, &c);
    }
    let (square, one) = (r.mul(f, &r), constant(f, 1.0));
    let y = p.fma(f, &square, &r).add(f, &one);
    // ROUND_MAGIC's low nine bits are 0, so shifting the biased sum by 23 leaves n in the exponent field.
    let exponent = biased.bits(f).shift_left(f, 23);
    let y = y.bits(f).int_add(f, &exponent).as_float(f);
    let zero = constant(f, 0.0);
    smallest.if_greater(f, x, &zero, &y)
}

/// Floats at `base + i`, widened exactly to f32. The function must not write the table. Panics on other types.
pub fn load_float(f: &mut FunctionCx, shape: Shape, dtype: DType, base: Value, i: Value) -> Lanes {
    let address = f.index(base, i, dtype.size_bytes().expect("floats have a size"));
    match dtype {
        DType::F32 => Lanes::load_fixed(f, shape, address),
        DType::Bf16 => {
            let bits = Lanes::load_fixed_u16(f, shape, address);
            bits.shift_left(f, 16).as_float(f)
        }
        DType::F16 => {
            // Exponent and mantissa move to f32's place under a copied sign; the multiplication is exact, also for
            // subnormals, which the product normalizes.
            let bits = Lanes::load_fixed_u16(f, shape, address);
            let kept = Lanes::int_constant(f, shape, 0x8fff_e000_u32.cast_signed());
            let bits = bits.shift_left(f, 16).shift_right_signed(f, 3).and(f, &kept);
            let rebias = Lanes::constant(f, shape, F16_REBIAS);
            bits.as_float(f).mul(f, &rebias)
        }
        DType::I8 | DType::I32 | DType::U32 | DType::Q8 | DType::Trit => {
            unreachable!("type rules admit floats, found {dtype}")
        }
    }
}

/// The bits of `numerics::f32_to_f16_saturating` in each lane, as integers.
pub fn to_f16_bits(f: &mut FunctionCx, x: &Lanes) -> Lanes {
    let shape = x.shape();
    let int = |f: &mut FunctionCx, value: i32| Lanes::int_constant(f, shape, value);
    let bits = x.bits(f);
    let sign_bit = int(f, 0x8000);
    let sign = bits.shift_right(f, 16).and(f, &sign_bit);
    let (magnitude, largest) = (int(f, i32::MAX), int(f, F16_MAX.to_bits().cast_signed()));
    let size = bits.and(f, &magnitude).int_min(f, &largest);

    // Normal results: 13 mantissa bits go, half to even, a carry into the exponent is right; then the bias changes.
    let one = int(f, 1);
    let odd = size.shift_right(f, 13).and(f, &one);
    let half = int(f, 0xfff - (112 << 23));
    let normal = size.int_add(f, &half).int_add(f, &odd).shift_right(f, 13);

    // Subnormal results: adding 0.5 leaves units of 2^-24 at the low end, rounded once by the addition.
    let point_five = Lanes::constant(f, shape, 0.5);
    let point_five_bits = int(f, 0.5f32.to_bits().cast_signed());
    let subnormal = size.as_float(f).add(f, &point_five).bits(f).int_sub(f, &point_five_bits);

    // Both candidates are read as f32 bits only to be selected.
    let smallest_normal = int(f, F16_MIN_NORMAL_BITS).as_float(f);
    let [size, normal, subnormal] = [size, normal, subnormal].map(|bits| bits.as_float(f));
    let chosen = smallest_normal.if_greater(f, &size, &subnormal, &normal);
    chosen.bits(f).or(f, &sign)
}
