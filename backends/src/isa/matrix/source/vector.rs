//! Vector operations as calls on tiles: a repeat is a row, a repeat stride the distance of rows, and an operand that does
//! not advance is expanded along rows or columns.

use crate::isa::matrix::program::addr::Addr;
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::{BLOCK_BYTES, Operand, Stride, VecForm, VecOp, Vector};

use super::{address, register, type_name};

/// Operations on one tile: the call, and what follows its operands.
const UNARY: [(VecOp, &str, &str); 6] = [
    (VecOp::Mov, "TMOV", ""),
    (VecOp::Not, "TNOT", ""),
    (VecOp::Abs, "TABS", ""),
    (VecOp::Neg, "TNEG", ""),
    (VecOp::Sqrt, "TSQRT", ""),
    (VecOp::Cast, "TCVT", ", RoundMode::CAST_RINT"),
];

/// Operations on two: the call's name between its prefixes and suffixes.
const BINARY: [(VecOp, &str); 11] = [
    (VecOp::Add, "ADD"),
    (VecOp::Sub, "SUB"),
    (VecOp::Mul, "MUL"),
    (VecOp::Max, "MAX"),
    (VecOp::Min, "MIN"),
    (VecOp::Div, "DIV"),
    (VecOp::And, "AND"),
    (VecOp::Or, "OR"),
    (VecOp::Xor, "XOR"),
    (VecOp::Shl, "SHL"),
    (VecOp::Shr, "SHR"),
];

/// Elements of one block.
fn block(ty: ElemType) -> u32 {
    BLOCK_BYTES * 8 / ty.bits()
}

pub(super) fn line(vector: &Vector) -> Result<String, &'static str> {
    let op = vector.op;
    match op.row().form {
        VecForm::Unary => unary(vector, op),
        VecForm::Binary => binary(vector, op),
        VecForm::Fill => {
            let scalar = scalar(vector.src1, vector.dst_ty)?;
            let tile = rows(vector, vector.dst_ty, vector.dst_stride)?;
            Ok(format!("{{ {tile} d; TASSIGN(d, {}); TEXPANDS(d, {scalar}); }}", address(vector.dst)))
        }
        VecForm::BlockFill => block_fill(vector),
        VecForm::Ternary | VecForm::Compare | VecForm::Select | VecForm::BlockReduce | VecForm::Gather => {
            Err("such vector operation in a product")
        }
    }
}

/// The tile of an operand: `repeats` rows of `lanes` elements, blocks of a row side by side.
fn rows(vector: &Vector, ty: ElemType, stride: Stride) -> Result<String, &'static str> {
    let (repeats, lanes) = (vector.repeats, u32::from(vector.lanes));
    let apart = match (stride, repeats) {
        (_, 1) => lanes.next_multiple_of(block(ty)),
        (Stride { block: 1, repeat }, _) if u32::from(repeat) * block(ty) >= lanes => u32::from(repeat) * block(ty),
        _ => return Err("operand whose rows overlap"),
    };
    if stride.block != 1 && lanes > block(ty) {
        return Err("operand with gaps in its rows");
    }
    Ok(format!("Vec<{}, {repeats}, {apart}, {repeats}, {lanes}>", type_name(ty)?))
}

fn unary(vector: &Vector, op: VecOp) -> Result<String, &'static str> {
    let (_, name, more) = UNARY.iter().find(|(known, ..)| *known == op).ok_or("such vector operation")?;
    let tiles = [rows(vector, vector.dst_ty, vector.dst_stride)?, rows(vector, vector.src_ty, vector.src0_stride)?];
    let tiles = [(&*tiles[0], address(vector.dst)), (&*tiles[1], address(vector.src0))];
    Ok(super::call(name, tiles, more))
}

fn binary(vector: &Vector, op: VecOp) -> Result<String, &'static str> {
    let (_, name) = BINARY.iter().find(|(known, _)| *known == op).ok_or("such vector operation")?;
    let ty = vector.src_ty;
    let (d, a) = (rows(vector, vector.dst_ty, vector.dst_stride)?, rows(vector, ty, vector.src0_stride)?);
    let head = format!("{{ {d} d; {a} a; ");
    let assign = format!("TASSIGN(d, {}); TASSIGN(a, {}); ", address(vector.dst), address(vector.src0));
    if let Operand::Vector(at) = vector.src1 {
        let (b, way) = second(vector, ty)?;
        return Ok(format!("{head}{b} b; {assign}TASSIGN(b, {}); T{way}{name}(d, a, b); }}", address(at)));
    }
    Ok(format!("{head}{assign}T{name}S(d, a, {}); }}", scalar(vector.src1, ty)?))
}

/// The tile of a second vector operand, and how it meets the rows of the first.
fn second(vector: &Vector, ty: ElemType) -> Result<(String, &'static str), &'static str> {
    let (repeats, lanes) = (vector.repeats, vector.lanes);
    let name = type_name(ty)?;
    match vector.src1_stride {
        // One block for each row, its elements alike.
        Stride { block: 0, repeat } => {
            let apart = if repeats == 1 { block(ty) } else { u32::from(repeat) * block(ty) };
            Ok((format!("Vec<{name}, {repeats}, {apart}, {repeats}, {}>", block(ty)), "ROWEXPAND"))
        }
        // One row for all.
        Stride { block: 1, repeat: 0 } if repeats > 1 => {
            let apart = u32::from(lanes).next_multiple_of(block(ty));
            Ok((format!("Vec<{name}, 1, {apart}, 1, {lanes}>"), "COLEXPAND"))
        }
        stride => Ok((rows(vector, ty, stride)?, "")),
    }
}

/// Each of some elements fills a block.
fn block_fill(vector: &Vector) -> Result<String, &'static str> {
    let ty = vector.dst_ty;
    let per_repeat = 8;
    let is_dense =
        vector.repeats == 1 || (u32::from(vector.lanes) == per_repeat * block(ty) && vector.src0_stride.repeat == 1);
    if !is_dense || vector.dst_stride.block != 1 {
        return Err("such way to fill blocks");
    }
    let count = (u32::from(vector.repeats) - 1) * per_repeat + u32::from(vector.lanes).div_ceil(block(ty));
    let name = type_name(ty)?;
    let dst = format!("Vec<{name}, {count}, {0}, {count}, {0}>", block(ty));
    let src = format!("Column<{name}, {}, {count}>", count.next_multiple_of(block(ty)));
    Ok(super::call("TROWEXPAND", [(&dst, address(vector.dst)), (&src, address(vector.src0))], ""))
}

/// A scalar operand as a value of its type.
fn scalar(operand: Operand, ty: ElemType) -> Result<String, &'static str> {
    let name = type_name(ty)?;
    match (operand, ty) {
        (Operand::Scalar(bits), ElemType::F32) => Ok(format!("{:?}f", f32::from_bits(bits))),
        (Operand::Scalar(bits), _) => Ok(format!("static_cast<{name}>({bits:#x})")),
        (Operand::Reg(reg), _) => Ok(format!("bits<{name}>({})", register(reg))),
        (Operand::None | Operand::Vector(Addr { .. }), _) => Err("such scalar"),
    }
}
