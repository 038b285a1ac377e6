//! Vector operations: operands, addressing and the table of operations with their scalar meaning.
//!
//! One repeat covers L = 256 / (bytes of the widest element type) lanes, in blocks of 32 bytes. Lane i of repeat r of an
//! operand whose elements have s bytes lies at
//! `base + 32 · (r · repeat_stride + (i · s / 32) · block_stride) + (i · s) % 32`; lanes from `lanes` on are left alone.
//! Repeats take effect one after the other. [`VEC_OPS`] is the only list of operations: a new one is a variant and a row.

use crate::isa::matrix::program::addr::{Addr, Reg};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec_lane as lane;
use crate::isa::matrix::program::vec_lane::Lane;

/// Bytes that one repeat of a vector operation covers.
pub const VECTOR_BYTES: u32 = 256;
/// Bytes of a block.
pub const BLOCK_BYTES: u32 = 32;

/// Most repeats of one instruction, and most blocks between two of them: the vendor's interface has a byte for each.
pub const MAX_REPEATS: u16 = 255;

/// Strides of one operand in blocks of 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stride {
    /// Between the blocks of a repeat; 0 reads one block again and again.
    pub block: u16,
    /// Between repeats; 0 reads (or accumulates into) the same place again and again.
    pub repeat: u16,
}

impl Stride {
    /// Contiguous elements of `bits` beside elements of `widest` bits.
    pub const fn dense(bits: u32, widest: u32) -> Stride {
        // At most 8.
        Stride { block: 1, repeat: (VECTOR_BYTES / BLOCK_BYTES * bits / widest) as u16 }
    }
}

/// The second operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    None,
    Vector(Addr),
    /// The bits of one element of the source type, for every lane.
    Scalar(u32),
    /// The same from the low 32 bits of a register, read when the instruction is issued.
    Reg(Reg),
}

/// One vector instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vector {
    pub op: VecOp,
    /// Type of the result (of what is compared, for comparisons).
    pub dst_ty: ElemType,
    /// Type of the sources.
    pub src_ty: ElemType,
    pub dst: Addr,
    pub src0: Addr,
    pub src1: Operand,
    /// 1..=[`MAX_REPEATS`].
    pub repeats: u16,
    /// Lanes of each repeat that are active, 1..=L.
    pub lanes: u8,
    pub dst_stride: Stride,
    pub src0_stride: Stride,
    pub src1_stride: Stride,
}

impl Vector {
    /// Lanes of a full repeat for these types.
    pub const fn lanes_of(dst_ty: ElemType, src_ty: ElemType) -> u32 {
        let bits = if dst_ty.bits() > src_ty.bits() { dst_ty.bits() } else { src_ty.bits() };
        VECTOR_BYTES * 8 / bits
    }

    /// Bytes of one repeat's bits in the mask that a comparison writes and a selection reads.
    pub const fn mask_bytes(&self) -> u32 {
        Vector::lanes_of(self.dst_ty, self.src_ty) / 8
    }

    /// The first repeat alone, whose distance from the next means nothing.
    pub fn alone(self) -> Vector {
        let once = |stride: Stride| Stride { repeat: 0, ..stride };
        let (dst_stride, src0_stride) = (once(self.dst_stride), once(self.src0_stride));
        Vector { repeats: 1, dst_stride, src0_stride, src1_stride: once(self.src1_stride), ..self }
    }

    /// The same instruction for what comes `repeats` repeats later.
    pub fn behind(self, repeats: u16) -> Vector {
        let after = |addr: Addr, bytes: u32| {
            // Bytes of one buffer: far below the 27 bits of an offset.
            Addr { offset: addr.offset + (u32::from(repeats) * bytes) as i32, ..addr }
        };
        let by_stride = |stride: Stride| BLOCK_BYTES * u32::from(stride.repeat);
        let (dst, src1) = match self.op.row().form {
            VecForm::Compare => (self.mask_bytes(), by_stride(self.src1_stride)),
            VecForm::Select => (by_stride(self.dst_stride), self.mask_bytes()),
            // One result for each of eight blocks.
            VecForm::BlockReduce => (self.dst_ty.bits(), 0),
            VecForm::Gather => (by_stride(self.dst_stride), 0),
            VecForm::Unary | VecForm::Binary | VecForm::Ternary | VecForm::Fill | VecForm::BlockFill => {
                (by_stride(self.dst_stride), by_stride(self.src1_stride))
            }
        };
        Vector {
            dst: after(self.dst, dst),
            src0: after(self.src0, by_stride(self.src0_stride)),
            src1: match self.src1 {
                Operand::Vector(addr) => Operand::Vector(after(addr, src1)),
                other @ (Operand::None | Operand::Scalar(_) | Operand::Reg(_)) => other,
            },
            ..self
        }
    }
}

/// What a vector operation reads and how lanes map to results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VecForm {
    /// `dst = f(src0)`.
    Unary,
    /// `dst = f(src0, src1)`.
    Binary,
    /// `dst = f(src0, src1, dst)`.
    Ternary,
    /// `dst = src1` for every lane; src0 is ignored.
    Fill,
    /// Bit i of the result is `f(src0, src1)` of lane i; repeat r writes its L / 8 bytes at `dst + r · L / 8`.
    Compare,
    /// `dst = src0` where bit i of the mask is set, the mask laid out as `Compare` writes it at src1.
    Select,
    /// Element e of repeat r (8 a repeat, 32-bit) fills block e of the result; src0 advances by its repeat stride.
    BlockFill,
    /// One element from each block of 8 (of 16 for 16-bit types), at `dst + size · (8 · r + block)`.
    BlockReduce,
    /// `dst[i] = element at src1 + src0[i]`, with src0 byte offsets of type u32.
    Gather,
}

/// Group of operations that cost the same; machine files give each a slope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CostClass {
    /// Bitwise, two vector sources.
    Logic,
    /// Shifts by a scalar.
    Shift,
    /// Arithmetic on two vector sources.
    Add,
    /// Arithmetic and bitwise with a scalar, or on one source.
    Scalar,
    /// Multiply and add.
    Fma,
    Div,
    Sqrt,
    Cast,
    /// Copies, fills, broadcasts.
    Move,
    Compare,
    Select,
    Reduce,
    Gather,
}

impl CostClass {
    pub const ALL: [CostClass; 13] = [
        CostClass::Logic,
        CostClass::Shift,
        CostClass::Add,
        CostClass::Scalar,
        CostClass::Fma,
        CostClass::Div,
        CostClass::Sqrt,
        CostClass::Cast,
        CostClass::Move,
        CostClass::Compare,
        CostClass::Select,
        CostClass::Reduce,
        CostClass::Gather,
    ];
}

/// Which pairs of (result, source) types an operation takes.
#[derive(Clone, Copy, Debug)]
pub enum Types {
    /// Both the same, one of these.
    Same(&'static [ElemType]),
    /// One of these pairs.
    Pairs(&'static [(ElemType, ElemType)]),
}

/// One row of the table of operations.
pub struct VecRow {
    pub op: VecOp,
    pub name: &'static str,
    pub form: VecForm,
    pub types: Types,
    /// True if src1 may be a scalar, true if it may be a vector.
    pub scalar: bool,
    pub vector: bool,
    /// Cost with a vector src1 (or none); with a scalar it is `Scalar`, but for divisions, shifts, fills, comparisons.
    pub cost: CostClass,
    /// One lane. Bits of the element types, in and out.
    pub eval: fn(Lane) -> u32,
}

use ElemType::{Bf16, F16, F32, S4, S8, S16, S32, U8, U16, U32};

const ARITHMETIC: Types = Types::Same(&[S16, S32, F16, F32]);
const FLOATS: Types = Types::Same(&[F16, F32]);
const BITS: Types = Types::Same(&[S16, U16, S32, U32]);
const ANY: Types = Types::Same(&[S16, U16, S32, U32, F16, Bf16, F32]);
const WORDS: Types = Types::Same(&[S32, U32, F32]);

/// (result, source) of casts. The pairs between s8 and 32-bit types, u8 and u16 may take two instructions of hardware.
const CASTS: Types = Types::Pairs(&[
    (F32, S32),
    (S32, F32),
    (F32, F16),
    (F16, F32),
    (F32, Bf16),
    (Bf16, F32),
    (F16, S8),
    (S8, F16),
    (F32, S8),
    (S8, F32),
    (S32, S8),
    (S8, S32),
    (F16, S4),
    (S4, F16),
    (S16, S8),
    (S8, S16),
    (U16, U8),
    (U8, U16),
    (F32, S16),
    (S16, F32),
    (F16, S16),
    (S16, F16),
    (S32, S16),
    (S16, S32),
    (U32, U16),
    (U16, U32),
    (U32, U8),
    (U8, U32),
    (F16, S32),
    (S32, F16),
]);

macro_rules! vec_ops {
    ($($(#[$doc:meta])* $op:ident $name:literal $form:ident $types:ident scalar=$scalar:literal vector=$vector:literal
       $cost:ident $eval:expr;)*) => {
        /// A vector operation; [`VecOp::row`] says what it does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum VecOp { $($(#[$doc])* $op,)* }

        /// Every operation, in the order of the encoding (new ones at the end).
        pub const VEC_OPS: &[VecRow] = &[$(VecRow {
            op: VecOp::$op,
            name: $name,
            form: VecForm::$form,
            types: $types,
            scalar: $scalar,
            vector: $vector,
            cost: CostClass::$cost,
            eval: $eval,
        },)*];
    };
}

vec_ops! {
    /// Copies.
    Mov "mov" Unary ANY scalar=false vector=false Move lane::first;
    /// Fills with a scalar.
    Dup "dup" Fill ANY scalar=true vector=false Move lane::second;
    Add "add" Binary ARITHMETIC scalar=true vector=true Add lane::add;
    Sub "sub" Binary ARITHMETIC scalar=true vector=true Add lane::sub;
    Mul "mul" Binary ARITHMETIC scalar=true vector=true Add lane::mul;
    /// `a > b ? a : b`.
    Max "max" Binary ARITHMETIC scalar=true vector=true Add lane::max;
    /// `a < b ? a : b`.
    Min "min" Binary ARITHMETIC scalar=true vector=true Add lane::min;
    /// Correctly rounded: an assumption about the hardware.
    Div "div" Binary FLOATS scalar=true vector=true Div lane::div;
    /// `dst = fma(src0, src1, dst)`, rounded once: an assumption about the hardware.
    Mla "mla" Ternary FLOATS scalar=true vector=true Fma lane::mla;
    /// `dst = fma(dst, src0, src1)`, rounded once: an assumption about the hardware.
    Madd "madd" Ternary FLOATS scalar=true vector=true Fma lane::madd;
    And "and" Binary BITS scalar=true vector=true Logic lane::and;
    Or "or" Binary BITS scalar=true vector=true Logic lane::or;
    Xor "xor" Binary BITS scalar=true vector=true Logic lane::xor;
    Not "not" Unary BITS scalar=false vector=false Scalar lane::not;
    Shl "shl" Binary BITS scalar=true vector=false Shift lane::shl;
    /// Arithmetic on signed types, logical on unsigned ones.
    Shr "shr" Binary BITS scalar=true vector=false Shift lane::shr;
    Abs "abs" Unary ARITHMETIC scalar=false vector=false Scalar lane::abs;
    Neg "neg" Unary ARITHMETIC scalar=false vector=false Scalar lane::neg;
    /// Correctly rounded: an assumption about the hardware.
    Sqrt "sqrt" Unary FLOATS scalar=false vector=false Sqrt lane::sqrt;
    /// Half to even; to integers saturating, from f32 to f16 and bf16 to infinity.
    Cast "cast" Unary CASTS scalar=false vector=false Cast lane::cast;
    /// As `Cast`, but results beyond the largest finite float become it.
    CastSat "cast_sat" Unary CASTS scalar=false vector=false Cast lane::cast_saturating;
    CmpEq "cmp_eq" Compare ARITHMETIC scalar=true vector=true Compare lane::eq;
    CmpLt "cmp_lt" Compare ARITHMETIC scalar=true vector=true Compare lane::lt;
    CmpGt "cmp_gt" Compare ARITHMETIC scalar=true vector=true Compare lane::gt;
    CmpGe "cmp_ge" Compare ARITHMETIC scalar=true vector=true Compare lane::ge;
    Select "select" Select ANY scalar=false vector=true Select lane::first;
    BlockFill "block_fill" BlockFill WORDS scalar=false vector=false Move lane::first;
    /// Neighbors first: `((x0 + x1) + (x2 + x3)) + ((x4 + x5) + (x6 + x7))`, an assumption about the hardware.
    BlockSum "block_sum" BlockReduce FLOATS scalar=false vector=false Reduce lane::add;
    BlockMax "block_max" BlockReduce FLOATS scalar=false vector=false Reduce lane::max;
    Gather "gather" Gather WORDS scalar=false vector=true Gather lane::first;
}

impl VecOp {
    /// The operation's row.
    pub fn row(self) -> &'static VecRow {
        &VEC_OPS[self as usize]
    }
}

impl VecRow {
    /// True if the operation takes these types of result and source.
    pub fn takes(&self, dst: ElemType, src: ElemType) -> bool {
        match self.types {
            Types::Same(types) => dst == src && types.contains(&dst),
            Types::Pairs(pairs) => pairs.contains(&(dst, src)),
        }
    }

    /// The group that an instruction with this second operand costs as.
    pub fn cost_with(&self, src1: Operand) -> CostClass {
        let is_scalar = match src1 {
            Operand::Scalar(_) | Operand::Reg(_) => true,
            Operand::None | Operand::Vector(_) => false,
        };
        match self.cost {
            CostClass::Add if is_scalar => CostClass::Scalar,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_at_their_own_index() {
        assert!(VEC_OPS.iter().enumerate().all(|(i, row)| row.op as usize == i));
        assert!(VEC_OPS.len() <= 64, "the encoding has six bits for the operation");
    }
}
