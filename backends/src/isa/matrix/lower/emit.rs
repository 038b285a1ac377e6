//! Writes one stream: instructions with the ordering that they need.
//!
//! Vector instructions in one queue may overlap, so one that meets bytes of an earlier one needs `BAR V` between them;
//! [`Emit::vec`] sees to that by itself. Between queues, [`Emit::after`] is the plain case (everything done so far) and
//! rings of slots (`matmul`) the fast one.

use std::ops::Range;

use crate::isa::matrix::program::addr::{Addr, Queue, Reg};
use crate::isa::matrix::program::inst::{
    Control, Copy, CopyForm, CopyPath, Count, FlagId, Inst, Order, ScalarLoad, ScalarOp, ScalarOperand, ScalarSpace,
    Work,
};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::{MAX_REPEATS, Operand, Stride, VecForm, VecOp, Vector};
use crate::isa::matrix::program::{CoreKind, Record, StartValues, Stream, SymbolId};

/// An operand of a vector instruction: where it lies and how lanes walk over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strided {
    pub at: Addr,
    pub stride: Stride,
}

/// Blocks of `block` blocks apart, repeats `repeat` blocks apart, from `offset` in UB.
pub const fn strided(offset: usize, block: usize, repeat: usize) -> Strided {
    // Offsets and strides of one UB: far below the fields' limits.
    Strided { at: Addr::at(offset as i32), stride: Stride { block: block as u16, repeat: repeat as u16 } }
}

/// Contiguous 32-bit elements from `offset` in UB.
pub const fn dense(offset: usize) -> Strided {
    strided(offset, 1, 8)
}

/// One block for all lanes of all repeats.
pub const fn block(offset: usize) -> Strided {
    strided(offset, 0, 0)
}

impl Strided {
    /// The same behind the address in `reg`.
    pub const fn behind(self, reg: Reg) -> Strided {
        Strided { at: Addr::behind(reg, self.at.offset), ..self }
    }

    /// The same `bytes` further on.
    pub const fn plus(self, bytes: usize) -> Strided {
        // Within one UB.
        Strided { at: Addr { offset: self.at.offset + bytes as i32, ..self.at }, ..self }
    }
}

/// Second operand of a vector instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Second {
    None,
    Vector(Strided),
    /// Bits of one element.
    Bits(u32),
    Reg(Reg),
}

impl Second {
    pub fn f32(value: f32) -> Second {
        Second::Bits(value.to_bits())
    }
}

/// Types of result and source.
pub type Types = (ElemType, ElemType);

pub const F32: Types = (ElemType::F32, ElemType::F32);
pub const S32: Types = (ElemType::S32, ElemType::S32);
pub const U16: Types = (ElemType::U16, ElemType::U16);

/// A stream being written.
#[derive(Default)]
pub struct Emit {
    pub records: Vec<Record>,
    /// Op that the next records belong to.
    pub op: u16,
    /// Nesting of open loops.
    depth: u8,
    /// Bytes of UB that vector instructions since the last barrier wrote, and read.
    written: Vec<Range<i64>>,
    read: Vec<Range<i64>>,
}

impl Emit {
    pub fn push(&mut self, inst: impl Into<Inst>) {
        self.records.push(Record { inst: inst.into(), op: self.op });
    }

    pub fn set(&mut self, src: Queue, dst: Queue, id: u8) {
        self.push(Order::Set { src, dst, id: FlagId::Fixed(id) });
    }

    pub fn wait(&mut self, src: Queue, dst: Queue, id: u8) {
        self.push(Order::Wait { src, dst, id: FlagId::Fixed(id) });
    }

    /// Lets `dst` go on only after all that `src` has been given.
    pub fn after(&mut self, src: Queue, dst: Queue) {
        self.set(src, dst, 0);
        self.wait(src, dst, 0);
    }

    pub fn bar(&mut self, queue: Option<Queue>) {
        self.push(Order::Bar { queue });
        if queue.is_none_or(|q| q == Queue::V) {
            self.written.clear();
            self.read.clear();
        }
    }

    /// Loops that are open.
    pub fn depth(&self) -> u8 {
        self.depth
    }

    /// Opens a loop and returns its level.
    pub fn begin(&mut self, count: Count) -> u8 {
        self.settle();
        let level = self.depth;
        self.depth += 1;
        self.push(Control::Loop { level, count });
        level
    }

    /// Closes the innermost loop; each iteration adds to the registers.
    pub fn end(&mut self, adds: &[(Reg, i32)]) {
        use crate::isa::matrix::program::inst::Update;
        self.settle();
        self.depth -= 1;
        let mut updates = [None; 4];
        for (update, (reg, step)) in updates.iter_mut().zip(adds) {
            *update = Some(Update::Add(*reg, *step));
        }
        self.push(Control::End { level: self.depth, updates });
    }

    /// Orders vector work before what comes next, where any is open.
    fn settle(&mut self) {
        if !self.written.is_empty() || !self.read.is_empty() {
            self.bar(Some(Queue::V));
        }
    }

    pub fn address(&mut self, reg: Reg, symbol: Option<SymbolId>, offset: i64) {
        self.push(Control::AddrReg { reg, symbol, offset });
    }

    pub fn scalar(&mut self, op: ScalarOp, reg: Reg, a: Reg, b: ScalarOperand) {
        self.push(Control::Scalar { op, reg, a, b });
    }

    pub fn add(&mut self, reg: Reg, a: Reg, value: i64) {
        self.scalar(ScalarOp::Add, reg, a, ScalarOperand::Imm(value));
    }

    pub fn scalar_load(&mut self, reg: Reg, src: Addr) {
        self.push(Inst::ScalarLoad(ScalarLoad { reg, space: ScalarSpace::Gm, src, ty: ElemType::U32 }));
    }

    /// `rows` rows of `row_bytes`, `from` and `to` bytes apart.
    pub fn copy(
        &mut self,
        path: CopyPath,
        (dst, src): (Addr, Addr),
        (rows, row_bytes): (usize, usize),
        (from, to): (usize, usize),
    ) {
        // Sizes of local memories and strides of arrays: below 4 GiB, rows below 65536.
        self.push(Work::Copy(Copy {
            path,
            form: CopyForm::Linear,
            dst,
            src,
            rows: rows as u16,
            row_bytes: row_bytes as u32,
            src_stride: from as u32,
            dst_stride: to as u32,
        }));
    }

    /// From global memory to UB, once the vector unit is through with what lies there.
    pub fn load(&mut self, dst: usize, src: Addr, rows: usize, row_bytes: usize, from: usize, to: usize) {
        // An offset in UB.
        self.copy(CopyPath::GmToUb, (Addr::at(dst as i32), src), (rows, row_bytes), (from, to));
    }

    /// From UB to global memory.
    pub fn store(&mut self, dst: Addr, src: usize, rows: usize, row_bytes: usize, from: usize, to: usize) {
        self.copy(CopyPath::UbToGm, (dst, Addr::at(src as i32)), (rows, row_bytes), (from, to));
    }

    /// A vector operation of any number of repeats, behind barriers where it meets earlier ones.
    #[expect(clippy::too_many_arguments, reason = "the operands of the instruction")]
    pub fn vec(&mut self, op: VecOp, types: Types, dst: Strided, a: Strided, b: Second, repeats: usize, lanes: usize) {
        let (src1, src1_stride) = match b {
            Second::None => (Operand::None, Stride { block: 0, repeat: 0 }),
            Second::Vector(v) => (Operand::Vector(v.at), v.stride),
            Second::Bits(bits) => (Operand::Scalar(bits), Stride { block: 0, repeat: 0 }),
            Second::Reg(reg) => (Operand::Reg(reg), Stride { block: 0, repeat: 0 }),
        };
        let mut next = Vector {
            op,
            dst_ty: types.0,
            src_ty: types.1,
            dst: dst.at,
            src0: a.at,
            src1,
            repeats: MAX_REPEATS,
            // At most 128.
            lanes: lanes as u8,
            dst_stride: dst.stride,
            src0_stride: a.stride,
            src1_stride,
        };
        let strides = [next.dst_stride, next.src0_stride, next.src1_stride];
        let is_far = strides.iter().any(|s| s.repeat > MAX_REPEATS);
        let most = if is_far { 1 } else { MAX_REPEATS };
        let mut left = repeats;
        while left > 0 {
            // At most `most`.
            let repeats = left.min(usize::from(most)) as u16;
            self.one(if is_far { next.alone() } else { Vector { repeats, ..next } });
            next = next.behind(repeats);
            left -= usize::from(repeats);
        }
    }

    /// One vector instruction, behind a barrier if it meets what an earlier one wrote or read.
    fn one(&mut self, vector: Vector) {
        let (written, read) = footprint(&vector);
        let meets = |open: &[Range<i64>], new: &[Range<i64>]| {
            open.iter().any(|o| new.iter().any(|n| o.start < n.end && n.start < o.end))
        };
        if meets(&self.written, &read) || meets(&self.written, &written) || meets(&self.read, &written) {
            self.bar(Some(Queue::V));
        }
        self.written.extend(written);
        self.read.extend(read);
        self.push(Work::Vec(vector));
    }

    /// `count` contiguous elements of every operand, which lie at offsets in UB; a second vector too. Comparisons have
    /// results of another size: [`Emit::compare`].
    pub fn each(&mut self, op: VecOp, types: Types, dst: usize, a: usize, b: Second, count: usize) {
        let lanes = Vector::lanes_of(types.0, types.1) as usize;
        let bytes = |ty: ElemType, lanes: usize| lanes * ty.bits() as usize / 8;
        let (d, s) = (bytes(types.0, lanes), bytes(types.1, lanes));
        let (full, tail) = (count / lanes, count % lanes);
        let at = |offset: usize, step: usize, repeats: usize| strided(offset + step * repeats, 1, step / 32);
        let second = |repeats: usize| match b {
            Second::Vector(v) if v.stride.block == 1 => {
                // An offset in UB.
                let offset = (v.at.offset as usize) + s * repeats;
                Second::Vector(Strided { at: Addr { offset: offset as i32, ..v.at }, stride: at(0, s, 0).stride })
            }
            other @ (Second::None | Second::Vector(_) | Second::Bits(_) | Second::Reg(_)) => other,
        };
        if full > 0 {
            self.vec(op, types, at(dst, d, 0), at(a, s, 0), second(0), full, lanes);
        }
        if tail > 0 {
            self.vec(op, types, at(dst, d, full), at(a, s, full), second(full), 1, tail);
        }
    }

    /// [`Emit::each`] of two f32 vectors.
    pub fn each2(&mut self, op: VecOp, dst: usize, a: usize, b: usize, count: usize) {
        self.each(op, F32, dst, a, Second::Vector(dense(b)), count);
    }

    /// Fills `count` 32-bit elements.
    pub fn fill(&mut self, dst: usize, bits: u32, count: usize) {
        self.each(VecOp::Dup, F32, dst, dst, Second::Bits(bits), count);
    }

    /// Fills a block of 32 bytes with each of `count` 32-bit elements from `src` on.
    pub fn spread(&mut self, dst: usize, src: usize, count: usize) {
        self.spread_every(dst, src, count, 1);
    }

    /// [`Emit::spread`] with blocks that begin `step` blocks apart.
    pub fn spread_every(&mut self, dst: usize, src: usize, count: usize, step: usize) {
        let (full, tail) = (count / 8, count % 8);
        if full > 0 {
            self.vec(VecOp::BlockFill, F32, strided(dst, step, 8 * step), strided(src, 1, 1), Second::None, full, 64);
        }
        if tail > 0 {
            let (dst, src) = (strided(dst + 256 * step * full, step, 8 * step), strided(src + 32 * full, 1, 1));
            self.vec(VecOp::BlockFill, F32, dst, src, Second::None, 1, 8 * tail);
        }
    }

    /// The stream for `cores` cores, ended.
    pub fn stream(mut self, kind: CoreKind, cores: usize, start: Vec<StartValues>) -> Stream {
        self.push(Control::Halt);
        // At most the machine's cores.
        Stream { kind, cores: cores as u16, start, records: self.records }
    }
}

/// Bytes of UB that an instruction writes and reads, as enclosing ranges; addresses behind registers may be anywhere.
fn footprint(v: &Vector) -> (Vec<Range<i64>>, Vec<Range<i64>>) {
    let lanes = i64::from(v.lanes);
    let span = |at: Addr, stride: Stride, ty: ElemType| {
        if at.reg != Reg::ZERO {
            return 0..i64::MAX;
        }
        let bytes = lanes * i64::from(ty.bits()) / 8;
        let blocks = (bytes + 31) / 32;
        let last = (i64::from(v.repeats) - 1) * i64::from(stride.repeat) + (blocks - 1) * i64::from(stride.block);
        let start = i64::from(at.offset);
        start..start + 32 * (last + 1)
    };
    let repeats = i64::from(v.repeats);
    let start = i64::from(v.dst.offset);
    let written = match v.op.row().form {
        VecForm::Compare => start..start + repeats * 16,
        VecForm::BlockReduce => start..start + repeats * 32,
        VecForm::Unary
        | VecForm::Binary
        | VecForm::Ternary
        | VecForm::Fill
        | VecForm::Select
        | VecForm::BlockFill
        | VecForm::Gather => span(v.dst, v.dst_stride, v.dst_ty),
    };
    let mut read = match v.op.row().form {
        VecForm::Fill => vec![],
        VecForm::Unary
        | VecForm::Binary
        | VecForm::Compare
        | VecForm::Select
        | VecForm::BlockFill
        | VecForm::BlockReduce
        | VecForm::Gather => vec![span(v.src0, v.src0_stride, v.src_ty)],
        VecForm::Ternary => vec![span(v.src0, v.src0_stride, v.src_ty), span(v.dst, v.dst_stride, v.dst_ty)],
    };
    if let Operand::Vector(at) = v.src1 {
        read.push(match v.op.row().form {
            // The mask's bits; any element behind the base.
            VecForm::Select | VecForm::Gather => i64::from(at.offset)..i64::MAX,
            VecForm::Unary
            | VecForm::Binary
            | VecForm::Ternary
            | VecForm::Fill
            | VecForm::Compare
            | VecForm::BlockFill
            | VecForm::BlockReduce => span(at, v.src1_stride, v.src_ty),
        });
    }
    (vec![written], read)
}
