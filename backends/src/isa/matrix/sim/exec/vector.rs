//! The vector unit: lanes by the table of operations.

use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::{BLOCK_BYTES, Operand, Stride, VecForm, Vector};
use crate::isa::matrix::program::vec_lane::Lane;
use crate::isa::matrix::sim::access::Resolved;

const BLOCK: usize = BLOCK_BYTES as usize;

/// One operand: where its lanes lie.
#[derive(Clone, Copy)]
struct Lanes {
    base: usize,
    bits: usize,
    stride: Stride,
}

impl Lanes {
    fn new(base: i64, ty: ElemType, stride: Stride) -> Option<Lanes> {
        Some(Lanes { base: usize::try_from(base).ok()?, bits: ty.bits() as usize, stride })
    }

    fn read(&self, ub: &[u8], repeat: usize, lane: usize) -> Option<u32> {
        let (at, shift) = self.place(repeat, lane);
        Some(match self.bits {
            32 => u32::from_le_bytes(ub.get(at..at + 4)?.try_into().ok()?),
            16 => u32::from(u16::from_le_bytes(ub.get(at..at + 2)?.try_into().ok()?)),
            8 => u32::from(*ub.get(at)?),
            _ => u32::from(*ub.get(at)? >> shift & 15),
        })
    }

    fn write(&self, ub: &mut [u8], repeat: usize, lane: usize, bits: u32) -> Option<()> {
        let (at, shift) = self.place(repeat, lane);
        match self.bits {
            32 => ub.get_mut(at..at + 4)?.copy_from_slice(&bits.to_le_bytes()),
            16 => ub.get_mut(at..at + 2)?.copy_from_slice(&bits.to_le_bytes()[..2]),
            8 => *ub.get_mut(at)? = bits.to_le_bytes()[0],
            _ => {
                let byte = ub.get_mut(at)?;
                *byte = *byte & !(15 << shift) | (bits.to_le_bytes()[0] & 15) << shift;
            }
        }
        Some(())
    }

    /// Byte address, and the shift of a nibble.
    fn place(&self, repeat: usize, lane: usize) -> (usize, usize) {
        let bit = lane * self.bits;
        let (block, rest) = (bit / (8 * BLOCK), bit % (8 * BLOCK));
        let blocks = repeat * usize::from(self.stride.repeat) + block * usize::from(self.stride.block);
        (self.base + blocks * BLOCK + rest / 8, rest % 8)
    }
}

/// All of one instruction.
struct Run<'a> {
    vector: &'a Vector,
    dst: Lanes,
    src0: Lanes,
    src1: Lanes,
    scalar: Option<u32>,
}

pub fn run(vector: &Vector, at: &Resolved, ub: &mut [u8]) -> Option<()> {
    let scalar = match vector.src1 {
        Operand::Scalar(_) | Operand::Reg(_) => Some(at.scalar),
        Operand::None | Operand::Vector(_) => None,
    };
    let run = Run {
        vector,
        dst: Lanes::new(at.dst, vector.dst_ty, vector.dst_stride)?,
        src0: Lanes::new(at.src0, vector.src_ty, vector.src0_stride)?,
        src1: Lanes::new(at.src1, vector.src_ty, vector.src1_stride)?,
        scalar,
    };
    for repeat in 0..usize::from(vector.repeats) {
        match vector.op.row().form {
            VecForm::Unary | VecForm::Binary | VecForm::Ternary | VecForm::Fill => run.lanes(ub, repeat)?,
            VecForm::Compare => run.compare(ub, repeat)?,
            VecForm::Select => run.select(ub, repeat)?,
            VecForm::BlockFill => run.block_fill(ub, repeat)?,
            VecForm::BlockReduce => run.block_reduce(ub, repeat)?,
            VecForm::Gather => run.gather(ub, repeat, usize::try_from(at.src1).ok()?)?,
        }
    }
    Some(())
}

impl Run<'_> {
    fn eval(&self, a: u32, b: u32, old: u32) -> u32 {
        let Vector { dst_ty, src_ty, .. } = *self.vector;
        (self.vector.op.row().eval)(Lane { a, b, old, src_ty, dst_ty })
    }

    fn second(&self, ub: &[u8], repeat: usize, lane: usize) -> Option<u32> {
        match (self.scalar, self.vector.src1) {
            (Some(bits), _) => Some(bits),
            (None, Operand::Vector(_)) => self.src1.read(ub, repeat, lane),
            (None, Operand::None | Operand::Scalar(_) | Operand::Reg(_)) => Some(0),
        }
    }

    /// Every lane is read before one is written, as in hardware: operands may overlap exactly.
    fn lanes(&self, ub: &mut [u8], repeat: usize) -> Option<()> {
        let reads_first = self.vector.op.row().form != VecForm::Fill;
        let mut results = [0u32; 128];
        let lanes = usize::from(self.vector.lanes);
        for (lane, result) in results.iter_mut().enumerate().take(lanes) {
            let a = if reads_first { self.src0.read(ub, repeat, lane)? } else { 0 };
            let b = self.second(ub, repeat, lane)?;
            *result = self.eval(a, b, self.dst.read(ub, repeat, lane)?);
        }
        (0..lanes).try_for_each(|lane| self.dst.write(ub, repeat, lane, results[lane]))
    }

    fn mask_bytes(&self) -> usize {
        self.vector.mask_bytes() as usize
    }

    fn compare(&self, ub: &mut [u8], repeat: usize) -> Option<()> {
        let first = self.dst.base + repeat * self.mask_bytes();
        let mut mask = [0u8; 16];
        for lane in 0..usize::from(self.vector.lanes) {
            let (a, b) = (self.src0.read(ub, repeat, lane)?, self.second(ub, repeat, lane)?);
            mask[lane / 8] |= u8::from(self.eval(a, b, 0) != 0) << (lane % 8);
        }
        ub.get_mut(first..first + self.mask_bytes())?.copy_from_slice(&mask[..self.mask_bytes()]);
        Some(())
    }

    fn select(&self, ub: &mut [u8], repeat: usize) -> Option<()> {
        let first = self.src1.base + repeat * self.mask_bytes();
        for lane in 0..usize::from(self.vector.lanes) {
            if ub.get(first + lane / 8)? >> (lane % 8) & 1 != 0 {
                let bits = self.src0.read(ub, repeat, lane)?;
                self.dst.write(ub, repeat, lane, bits)?;
            }
        }
        Some(())
    }

    fn block_fill(&self, ub: &mut [u8], repeat: usize) -> Option<()> {
        let lanes = usize::from(self.vector.lanes);
        let mut elements = [0u32; 8];
        for (block, element) in elements.iter_mut().enumerate().take(lanes.div_ceil(8)) {
            *element = self.src0.read(ub, repeat, block)?;
        }
        (0..lanes).try_for_each(|lane| self.dst.write(ub, repeat, lane, elements[lane / 8]))
    }

    /// A tree over neighbors; lanes that are off are left out, so their partner passes.
    fn block_reduce(&self, ub: &mut [u8], repeat: usize) -> Option<()> {
        let per_block = 8 * BLOCK / self.src0.bits;
        let lanes = usize::from(self.vector.lanes);
        for (block, first) in (0..lanes).step_by(per_block).enumerate() {
            let read = |lane| self.src0.read(ub, repeat, lane);
            let mut level: Vec<u32> = (first..(first + per_block).min(lanes)).map(read).collect::<Option<_>>()?;
            while level.len() > 1 {
                let pair = |pair: &[u32]| pair.get(1).map_or(pair[0], |b| self.eval(pair[0], *b, 0));
                level = level.chunks(2).map(pair).collect();
            }
            let result = Lanes { base: self.dst.base + (8 * repeat + block) * self.dst.bits / 8, ..self.dst };
            result.write(ub, 0, 0, level[0])?;
        }
        Some(())
    }

    fn gather(&self, ub: &mut [u8], repeat: usize, base: usize) -> Option<()> {
        let lanes = usize::from(self.vector.lanes);
        let mut results = [0u32; 128];
        for (lane, result) in results.iter_mut().enumerate().take(lanes) {
            let offset = self.src0.read(ub, repeat, lane)? as usize;
            *result = Lanes { base: base + offset, ..self.src1 }.read(ub, 0, 0)?;
        }
        (0..lanes).try_for_each(|lane| self.dst.write(ub, repeat, lane, results[lane]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::matrix::program::addr::Addr;
    use crate::isa::matrix::program::inst::{Inst, Work};
    use crate::isa::matrix::program::ty::ElemType::{F32, S8, S16, U32};
    use crate::isa::matrix::program::vec::{Stride, VecOp};

    fn apply(vector: Vector, ub: &mut [u8]) {
        let at = Resolved::of(&Inst::Work(Work::Vec(vector)), &[0; 32]);
        run(&vector, &at, ub).expect("operands lie in the buffer");
    }

    #[test]
    fn an_instruction_goes_on_behind_its_first_repeats() {
        let (block, half) = (Stride { block: 1, repeat: 8 }, Stride { block: 1, repeat: 2 });
        let second = Operand::Vector(Addr::at(4096));
        let forms = [
            (VecOp::Neg, F32, F32, Operand::None, block),
            (VecOp::Cast, S16, S8, Operand::None, Stride { block: 1, repeat: 4 }),
            (VecOp::Sub, F32, F32, second, block),
            (VecOp::Mla, F32, F32, second, half),
            (VecOp::Dup, F32, F32, Operand::Scalar(7), block),
            (VecOp::CmpLt, F32, F32, second, block),
            (VecOp::Select, F32, F32, second, block),
            (VecOp::BlockFill, U32, U32, Operand::None, Stride { block: 1, repeat: 1 }),
            (VecOp::BlockSum, F32, F32, Operand::None, block),
        ];
        for (op, dst_ty, src_ty, src1, src0_stride) in forms {
            let lanes = Vector::lanes_of(dst_ty, src_ty) as u8;
            let (dst, src0) = (Addr::at(8192), Addr::at(0));
            let strides = (block, src0_stride, half);
            let whole = Vector {
                op,
                dst_ty,
                src_ty,
                dst,
                src0,
                src1,
                repeats: 5,
                lanes,
                dst_stride: strides.0,
                src0_stride: strides.1,
                src1_stride: strides.2,
            };
            let start: Vec<u8> = (0..16384u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 & 0xbf).collect();
            let (mut once, mut twice) = (start.clone(), start.clone());
            apply(whole, &mut once);
            apply(Vector { repeats: 2, ..whole }, &mut twice);
            apply(Vector { repeats: 3, ..whole.behind(2) }, &mut twice);
            assert!(once != start && once == twice, "{op:?}");
        }
    }
}
