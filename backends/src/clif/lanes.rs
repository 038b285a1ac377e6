//! Values side by side: sixteen f32 as four 128-bit vectors or sixteen scalars, and one scalar for tails.
//!
//! Every operation is written once for both forms. Sums keep sixteen partials, element i in partial i mod 16
//! (`docs/numerics.md`), which any vector width can do exactly.

use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::types::{F32, F32X4, I8X16, I16X8, I32, I32X4};
use cranelift_codegen::ir::{Endianness, InstBuilder, MemFlagsData, Type, Value};
use tcc_ir::numerics::LANES;

use super::func::FunctionCx;

/// How many lanes, and what holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    lanes: usize,
    is_vector: bool,
}

impl Shape {
    /// One scalar.
    pub const ONE: Shape = Shape { lanes: 1, is_vector: false };

    /// `lanes` lanes in vectors where the target has them and the count is a multiple of four.
    pub fn of(f: &FunctionCx, lanes: usize) -> Shape {
        Shape { lanes, is_vector: f.has_vectors() && lanes.is_multiple_of(4) }
    }

    /// The sixteen lanes of sums.
    pub fn block(f: &FunctionCx) -> Shape {
        Shape::of(f, LANES)
    }

    pub fn lanes(self) -> usize {
        self.lanes
    }

    fn part_lanes(self) -> usize {
        if self.is_vector { 4 } else { 1 }
    }

    fn parts(self) -> usize {
        self.lanes / self.part_lanes()
    }

    fn float(self) -> Type {
        if self.is_vector { F32X4 } else { F32 }
    }

    fn int(self) -> Type {
        if self.is_vector { I32X4 } else { I32 }
    }
}

/// Lanes of f32, or of i32 where a method says so.
#[derive(Clone, Debug)]
pub struct Lanes {
    shape: Shape,
    parts: Vec<Value>,
}

/// Construction and memory.
impl Lanes {
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The same scalar in every lane.
    pub fn splat(f: &mut FunctionCx, shape: Shape, value: Value) -> Lanes {
        let part = match (shape.is_vector, f.type_of(value)) {
            (false, _) => value,
            (true, F32) => f.ins().splat(F32X4, value),
            (true, _) => f.ins().splat(I32X4, value),
        };
        Lanes { shape, parts: vec![part; shape.parts()] }
    }

    /// The same constant in every lane.
    pub fn constant(f: &mut FunctionCx, shape: Shape, value: f32) -> Lanes {
        let value = f.f32(value);
        Lanes::splat(f, shape, value)
    }

    /// The same integer in every lane.
    pub fn int_constant(f: &mut FunctionCx, shape: Shape, value: i32) -> Lanes {
        let value = f.i32(value);
        Lanes::splat(f, shape, value)
    }

    /// Four integers, one per lane.
    pub fn int_constants(f: &mut FunctionCx, shape: Shape, values: [i32; 4]) -> Lanes {
        assert_eq!(shape.lanes, values.len(), "a value per lane");
        let mut lanes = Lanes::int_constant(f, shape, values[0]);
        for (lane, value) in values.into_iter().enumerate().skip(1) {
            let value = f.i32(value);
            lanes.insert(f, lane, value);
        }
        lanes
    }

    /// Lanes of several pieces of one kind, one after the other.
    pub fn concat(pieces: &[Lanes]) -> Lanes {
        let lanes = pieces.iter().map(|l| l.shape.lanes).sum();
        let is_vector = pieces.iter().all(|l| l.shape.is_vector);
        let parts = pieces.iter().flat_map(|l| l.parts.clone()).collect();
        Lanes { shape: Shape { lanes, is_vector }, parts }
    }

    /// f32 at `address`, consecutive.
    pub fn load(f: &mut FunctionCx, shape: Shape, address: Value) -> Lanes {
        Lanes::load_as(f, shape, shape.float(), address)
    }

    /// i32 at `address`, consecutive.
    pub fn load_int(f: &mut FunctionCx, shape: Shape, address: Value) -> Lanes {
        Lanes::load_as(f, shape, shape.int(), address)
    }

    /// f32 at `address`, consecutive, in memory that the function does not write.
    pub fn load_fixed(f: &mut FunctionCx, shape: Shape, address: Value) -> Lanes {
        let ty = shape.float();
        let parts = (0..shape.parts()).map(|i| f.load_fixed(ty, address, part_offset(ty, i))).collect();
        Lanes { shape, parts }
    }

    /// The f32 at `address` in every lane, from memory that the function does not write.
    pub fn splat_fixed(f: &mut FunctionCx, shape: Shape, address: Value) -> Lanes {
        let value = f.load_fixed(F32, address, 0);
        Lanes::splat(f, shape, value)
    }

    fn load_as(f: &mut FunctionCx, shape: Shape, ty: Type, address: Value) -> Lanes {
        let parts = (0..shape.parts()).map(|i| f.load(ty, address, part_offset(ty, i))).collect();
        Lanes { shape, parts }
    }

    /// f32 at `address`, `stride_bytes` apart.
    pub fn gather(f: &mut FunctionCx, shape: Shape, address: Value, stride_bytes: usize) -> Lanes {
        let mut lanes = Lanes::constant(f, shape, 0.0);
        for lane in 0..shape.lanes {
            let at = f.offset(address, lane * stride_bytes);
            let value = f.load(F32, at, 0);
            lanes.insert(f, lane, value);
        }
        lanes
    }

    /// Unsigned 16-bit integers at `address`, widened to i32, in memory that the function does not write.
    pub fn load_fixed_u16(f: &mut FunctionCx, shape: Shape, address: Value) -> Lanes {
        if !shape.is_vector {
            let offset = |i: usize| i32::try_from(2 * i).expect("a few lanes");
            let parts = (0..shape.parts()).map(|i| f.load_u16(address, offset(i))).collect();
            return Lanes { shape, parts };
        }
        if shape.parts() == 1 {
            return Lanes { shape, parts: vec![f.load_u16x4(address, 0)] };
        }
        let mut parts = Vec::with_capacity(shape.parts());
        for i in 0..shape.parts() / 2 {
            let halves = f.load_fixed(I16X8, address, part_offset(I16X8, i));
            parts.push(f.ins().uwiden_low(halves));
            parts.push(f.ins().uwiden_high(halves));
        }
        Lanes { shape, parts }
    }

    /// Stores 32-bit lanes at `address`, consecutive.
    pub fn store(&self, f: &mut FunctionCx, address: Value) {
        for (i, part) in self.parts.iter().enumerate() {
            f.store(*part, address, part_offset(self.shape.float(), i));
        }
    }

    /// Stores the low half of integer lanes within 0..=65535 as 16-bit integers.
    pub fn store_u16(&self, f: &mut FunctionCx, address: Value) {
        if !self.shape.is_vector {
            for (i, part) in self.parts.iter().enumerate() {
                f.store_low16(*part, address, i32::try_from(2 * i).expect("a few lanes"));
            }
            return;
        }
        assert!(self.parts.len().is_multiple_of(2), "vectors are narrowed in pairs");
        for (i, pair) in self.parts.chunks_exact(2).enumerate() {
            let halves = f.ins().unarrow(pair[0], pair[1]);
            f.store(halves, address, part_offset(I16X8, i));
        }
    }

    /// Stores integer lanes within -128..=127 as bytes: sixteen, or single scalars.
    pub fn store_i8(&self, f: &mut FunctionCx, address: Value) {
        if !self.shape.is_vector {
            for (i, part) in self.parts.iter().enumerate() {
                f.store_low8(*part, address, i32::try_from(i).expect("a few lanes"));
            }
            return;
        }
        assert_eq!(self.shape.lanes, LANES, "four vectors are narrowed to one");
        let low = f.ins().snarrow(self.parts[0], self.parts[1]);
        let high = f.ins().snarrow(self.parts[2], self.parts[3]);
        let bytes = f.ins().snarrow(low, high);
        debug_assert_eq!(f.type_of(bytes), I8X16);
        f.store(bytes, address, 0);
    }

    /// Lane `lane` as a scalar.
    pub fn extract(&self, f: &mut FunctionCx, lane: usize) -> Value {
        if self.shape.is_vector {
            f.ins().extractlane(self.parts[lane / 4], lane_number(lane))
        } else {
            self.parts[lane]
        }
    }

    /// Replaces lane `lane`.
    pub fn insert(&mut self, f: &mut FunctionCx, lane: usize, value: Value) {
        if self.shape.is_vector {
            self.parts[lane / 4] = f.ins().insertlane(self.parts[lane / 4], value, lane_number(lane));
        } else {
            self.parts[lane] = value;
        }
    }

    /// One lane as lanes of shape [`Shape::ONE`].
    pub fn lane(&self, f: &mut FunctionCx, lane: usize) -> Lanes {
        Lanes { shape: Shape::ONE, parts: vec![self.extract(f, lane)] }
    }

    /// The values held, to be carried through a loop; [`Lanes::with_values`] is the way back.
    pub fn values(&self) -> &[Value] {
        &self.parts
    }

    /// Lanes of this shape held in `values`.
    pub fn with_values(&self, values: &[Value]) -> Lanes {
        assert_eq!(values.len(), self.parts.len(), "one value per part");
        Lanes { shape: self.shape, parts: values.to_vec() }
    }
}

/// The lane within its vector of four.
fn lane_number(lane: usize) -> u8 {
    u8::try_from(lane % 4).expect("0..4")
}

fn part_offset(ty: Type, i: usize) -> i32 {
    i32::try_from(i).expect("a few parts") * i32::try_from(ty.bytes()).expect("16 at most")
}

/// Arithmetic, each operation rounded once.
impl Lanes {
    fn map(&self, f: &mut FunctionCx, op: impl Fn(&mut FunctionCx, Value) -> Value) -> Lanes {
        Lanes { shape: self.shape, parts: self.parts.iter().map(|x| op(f, *x)).collect() }
    }

    fn zip(&self, f: &mut FunctionCx, y: &Lanes, op: impl Fn(&mut FunctionCx, Value, Value) -> Value) -> Lanes {
        assert_eq!(self.shape, y.shape, "lanes of one shape");
        Lanes { shape: self.shape, parts: self.parts.iter().zip(&y.parts).map(|(x, y)| op(f, *x, *y)).collect() }
    }

    pub fn add(&self, f: &mut FunctionCx, y: &Lanes) -> Lanes {
        self.zip(f, y, |f, x, y| f.ins().fadd(x, y))
    }

    pub fn sub(&self, f: &mut FunctionCx, y: &Lanes) -> Lanes {
        self.zip(f, y, |f, x, y| f.ins().fsub(x, y))
    }

    pub fn mul(&self, f: &mut FunctionCx, y: &Lanes) -> Lanes {
        self.zip(f, y, |f, x, y| f.ins().fmul(x, y))
    }

    pub fn div(&self, f: &mut FunctionCx, y: &Lanes) -> Lanes {
        self.zip(f, y, |f, x, y| f.ins().fdiv(x, y))
    }

    pub fn neg(&self, f: &mut FunctionCx) -> Lanes {
        self.map(f, |f, x| f.ins().fneg(x))
    }

    /// `self · y + z`, rounded once.
    pub fn fma(&self, f: &mut FunctionCx, y: &Lanes, z: &Lanes) -> Lanes {
        assert_eq!((self.shape, y.shape), (y.shape, z.shape), "lanes of one shape");
        let terms = self.parts.iter().zip(&y.parts).zip(&z.parts);
        Lanes { shape: self.shape, parts: terms.map(|((x, y), z)| f.ins().fma(*x, *y, *z)).collect() }
    }

    /// `self > y ? yes : no` in each lane.
    pub fn if_greater(&self, f: &mut FunctionCx, y: &Lanes, yes: &Lanes, no: &Lanes) -> Lanes {
        let shape = self.shape;
        let parts = (0..shape.parts()).map(|i| {
            let greater = f.ins().fcmp(FloatCC::GreaterThan, self.parts[i], y.parts[i]);
            let (yes, no) = (yes.parts[i], no.parts[i]);
            if !shape.is_vector {
                return f.ins().select(greater, yes, no);
            }
            let mask = f.ins().bitcast(F32X4, plain_bits(), greater);
            f.ins().bitselect(mask, yes, no)
        });
        Lanes { shape, parts: parts.collect() }
    }

    /// `a > b ? a : b`.
    pub fn max(&self, f: &mut FunctionCx, y: &Lanes) -> Lanes {
        self.if_greater(f, y, self, y)
    }

    /// The bits of f32 lanes as integers.
    pub fn bits(&self, f: &mut FunctionCx) -> Lanes {
        let ty = self.shape.int();
        self.map(f, |f, x| f.ins().bitcast(ty, plain_bits(), x))
    }

    /// Integer lanes read as the bits of f32.
    pub fn as_float(&self, f: &mut FunctionCx) -> Lanes {
        let ty = self.shape.float();
        self.map(f, |f, x| f.ins().bitcast(ty, plain_bits(), x))
    }

    /// Signed integer lanes converted to f32, half to even.
    pub fn to_float(&self, f: &mut FunctionCx) -> Lanes {
        let ty = self.shape.float();
        self.map(f, |f, x| f.ins().fcvt_from_sint(ty, x))
    }
}

/// Integer arithmetic on i32 lanes.
impl Lanes {
    pub fn int_add(&self, f: &mut FunctionCx, y: &Lanes) -> Lanes {
        self.zip(f, y, |f, x, y| f.ins().iadd(x, y))
    }

    pub fn int_sub(&self, f: &mut FunctionCx, y: &Lanes) -> Lanes {
        self.zip(f, y, |f, x, y| f.ins().isub(x, y))
    }

    pub fn int_mul(&self, f: &mut FunctionCx, y: &Lanes) -> Lanes {
        self.zip(f, y, |f, x, y| f.ins().imul(x, y))
    }

    pub fn and(&self, f: &mut FunctionCx, y: &Lanes) -> Lanes {
        self.zip(f, y, |f, x, y| f.ins().band(x, y))
    }

    pub fn or(&self, f: &mut FunctionCx, y: &Lanes) -> Lanes {
        self.zip(f, y, |f, x, y| f.ins().bor(x, y))
    }

    pub fn int_max(&self, f: &mut FunctionCx, y: &Lanes) -> Lanes {
        self.zip(f, y, |f, x, y| f.ins().smax(x, y))
    }

    pub fn int_min(&self, f: &mut FunctionCx, y: &Lanes) -> Lanes {
        self.zip(f, y, |f, x, y| f.ins().smin(x, y))
    }

    pub fn shift_left(&self, f: &mut FunctionCx, bits: i64) -> Lanes {
        self.map(f, |f, x| f.ins().ishl_imm_u(x, bits))
    }

    pub fn shift_right(&self, f: &mut FunctionCx, bits: i64) -> Lanes {
        self.map(f, |f, x| f.ins().ushr_imm_u(x, bits))
    }

    /// Shift right that copies the sign.
    pub fn shift_right_signed(&self, f: &mut FunctionCx, bits: i64) -> Lanes {
        self.map(f, |f, x| f.ins().sshr_imm_u(x, bits))
    }
}

/// The sixteen partials combined pairwise: l and l + 8, then + 4, + 2, + 1.
fn reduce(f: &mut FunctionCx, lanes: &Lanes, op: impl Fn(&mut FunctionCx, Value, Value) -> Value) -> Value {
    assert_eq!(lanes.shape.lanes, LANES, "sums have sixteen partials");
    let mut parts = lanes.parts.clone();
    if lanes.shape.is_vector {
        let eight = [op(f, parts[0], parts[2]), op(f, parts[1], parts[3])];
        let four = Lanes { shape: Shape { lanes: 4, is_vector: true }, parts: vec![op(f, eight[0], eight[1])] };
        parts = (0..4).map(|lane| four.extract(f, lane)).collect();
    }
    while parts.len() > 1 {
        let half = parts.len() / 2;
        parts = (0..half).map(|l| op(f, parts[l], parts[l + half])).collect();
    }
    parts[0]
}

impl Lanes {
    /// The sum of sixteen f32 partials in the order of the numerics contract.
    pub fn sum(&self, f: &mut FunctionCx) -> Value {
        reduce(f, self, |f, x, y| f.ins().fadd(x, y))
    }

    /// The largest of sixteen numbers, by `a > b ? a : b`.
    pub fn largest(&self, f: &mut FunctionCx) -> Value {
        reduce(f, self, |f, x, y| {
            let is_vector = f.type_of(x) == F32X4;
            let shape = if is_vector { Shape { lanes: 4, is_vector } } else { Shape::ONE };
            let [x, y] = [x, y].map(|value| Lanes { shape, parts: vec![value] });
            x.max(f, &y).parts[0]
        })
    }

    /// The sum of sixteen integer partials.
    pub fn int_sum(&self, f: &mut FunctionCx) -> Value {
        reduce(f, self, |f, x, y| f.ins().iadd(x, y))
    }

    /// The largest of sixteen signed integer partials.
    pub fn int_largest(&self, f: &mut FunctionCx) -> Value {
        reduce(f, self, |f, x, y| f.ins().smax(x, y))
    }
}

/// Memory flags of a change of type without a change of bits.
fn plain_bits() -> MemFlagsData {
    MemFlagsData::new().with_endianness(Endianness::Little)
}
