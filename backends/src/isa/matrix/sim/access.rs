//! Which bytes an instruction touches: the one definition for bounds, alignment, races and the cost of rows.

use crate::isa::matrix::machine::{FractalOrder, Machine};
use crate::isa::matrix::program::addr::{Addr, Reg, Space};
use crate::isa::matrix::program::inst::{
    Copy, CopyForm, FRACTAL, FRACTAL_BYTES, Fix, FixLayout, FixScale, Inst, LoadL0, LoadTable, Mmad, MmadInit,
    ScalarLoad, Work,
};
use crate::isa::matrix::program::vec::{BLOCK_BYTES, Operand, Stride, VecForm, Vector};

/// An instruction's addresses as numbers: registers are read when it is issued.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resolved {
    pub dst: i64,
    pub src0: i64,
    pub src1: i64,
    /// Bias or scale table, or the index of a flag.
    pub extra: i64,
    pub scalar: u32,
}

impl Resolved {
    pub fn of(inst: &Inst, regs: &[i64; Reg::COUNT as usize]) -> Resolved {
        let at = |a: Addr| regs[usize::from(a.reg.index())].wrapping_add(i64::from(a.offset));
        let none = Resolved::default();
        match inst {
            Inst::Work(
                Work::Copy(Copy { dst, src, .. })
                | Work::LoadL0(LoadL0 { dst, src, .. })
                | Work::LoadTable(LoadTable { dst, src, .. }),
            ) => Resolved { dst: at(*dst), src0: at(*src), ..none },
            Inst::Work(Work::Mmad(mmad)) => {
                let extra = match mmad.init {
                    MmadInit::Bias(bias) => at(bias),
                    MmadInit::Zero | MmadInit::Accumulate => 0,
                };
                Resolved { dst: at(mmad.c), src0: at(mmad.a), src1: at(mmad.b), extra, ..none }
            }
            Inst::Work(Work::Fix(fix)) => {
                let extra = match fix.scale {
                    FixScale::Columns(table) => at(table),
                    FixScale::Tile(_) => 0,
                };
                Resolved { dst: at(fix.dst), src0: at(fix.src), extra, ..none }
            }
            Inst::Work(Work::Vec(vector)) => {
                let (src1, scalar) = match vector.src1 {
                    Operand::None => (0, 0),
                    Operand::Vector(addr) => (at(addr), 0),
                    Operand::Scalar(bits) => (0, bits),
                    // The low half is what the instruction takes.
                    Operand::Reg(reg) => (0, regs[usize::from(reg.index())] as u32),
                };
                Resolved { dst: at(vector.dst), src0: at(vector.src0), src1, scalar, ..none }
            }
            Inst::Order(_) | Inst::Control(_) => none,
            Inst::ScalarLoad(ScalarLoad { src, .. }) => Resolved { src0: at(*src), ..none },
        }
    }
}

/// Runs of `bytes` at `start + i · outer + j · inner` for i < `outer_count`, j < `inner_count`; those of the last j have
/// `last` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub space: Space,
    pub is_write: bool,
    pub start: i64,
    pub bytes: u32,
    pub last: u32,
    pub inner_count: u32,
    pub inner: u32,
    pub outer_count: u32,
    pub outer: u32,
}

impl Access {
    fn rows(space: Space, is_write: bool, start: i64, rows: u32, bytes: u32, stride: u32) -> Access {
        let (inner_count, inner, last) = (rows, stride, bytes);
        Access { space, is_write, start, bytes, last, inner_count, inner, outer_count: 1, outer: 0 }.merged()
    }

    fn run(space: Space, is_write: bool, start: i64, bytes: u32) -> Access {
        Access::rows(space, is_write, start, 1, bytes, 0)
    }

    /// Adjacent runs as one.
    fn merged(mut self) -> Access {
        if self.inner_count > 1 && (self.inner == self.bytes || self.inner == 0) {
            self.bytes = if self.inner == 0 { self.bytes } else { self.bytes * (self.inner_count - 1) + self.last };
            self.inner_count = 1;
            self.last = self.bytes;
        }
        if self.inner_count == 1 && self.outer_count > 1 && (self.outer == self.bytes || self.outer == 0) {
            self.bytes = if self.outer == 0 { self.bytes } else { self.bytes * self.outer_count };
            self.outer_count = 1;
            self.last = self.bytes;
        }
        self
    }

    /// Bytes from the first to the last that is touched.
    pub fn span(&self) -> u64 {
        u64::from(self.outer_count - 1) * u64::from(self.outer)
            + u64::from(self.inner_count - 1) * u64::from(self.inner)
            + u64::from(self.last)
    }

    /// Calls `each` with the first and last byte of every run.
    pub fn each_run(&self, mut each: impl FnMut(u64, u64)) {
        for i in 0..u64::from(self.outer_count) {
            for j in 0..u64::from(self.inner_count) {
                // Bounds are checked before runs are visited.
                let at = self.start as u64 + i * u64::from(self.outer) + j * u64::from(self.inner);
                let bytes = if j + 1 == u64::from(self.inner_count) { self.last } else { self.bytes };
                each(at, at + u64::from(bytes) - 1);
            }
        }
    }
}

/// What an instruction reads and writes.
pub(crate) fn accesses(inst: &Inst, at: &Resolved, machine: &Machine) -> Vec<Access> {
    match inst {
        Inst::Work(Work::Copy(copy)) => copy_accesses(copy, at),
        Inst::Work(Work::LoadL0(load)) => load_accesses(load, at),
        Inst::Work(Work::LoadTable(load)) => {
            let dst = load.table.dst();
            vec![Access::run(Space::L1, false, at.src0, load.bytes), Access::run(dst, true, at.dst, load.bytes)]
        }
        Inst::Work(Work::Mmad(mmad)) => mmad_accesses(mmad, at, machine),
        Inst::Work(Work::Fix(fix)) => fix_accesses(fix, at),
        Inst::Work(Work::Vec(vector)) => vector_accesses(vector, at),
        Inst::ScalarLoad(ScalarLoad { space, ty, .. }) => {
            vec![Access::run(space.space(), false, at.src0, ty.bits() / 8)]
        }
        Inst::Order(_) | Inst::Control(_) => vec![],
    }
}

fn copy_accesses(copy: &Copy, at: &Resolved) -> Vec<Access> {
    let rows = u32::from(copy.rows);
    let read = Access::rows(copy.path.src(), false, at.src0, rows, copy.row_bytes, copy.src_stride);
    let write = match copy.form {
        CopyForm::Linear => Access::rows(copy.path.dst(), true, at.dst, rows, copy.row_bytes, copy.dst_stride),
        CopyForm::Nz => {
            let columns = copy.row_bytes.div_ceil(BLOCK_BYTES);
            Access::rows(copy.path.dst(), true, at.dst, columns, rows * BLOCK_BYTES, copy.dst_stride)
        }
    };
    vec![read, write]
}

fn load_accesses(load: &LoadL0, at: &Resolved) -> Vec<Access> {
    let (rows, cols) = (u32::from(load.rows), u32::from(load.cols));
    vec![
        Access::rows(Space::L1, false, at.src0, cols, rows * FRACTAL_BYTES, load.src_stride),
        Access::run(load.side.dst(), true, at.dst, rows.saturating_mul(cols).saturating_mul(FRACTAL_BYTES)),
    ]
}

/// Fractals of a product: rows of A, columns of B, steps of k.
pub(crate) fn mmad_fractals(mmad: &Mmad) -> (u32, u32, u32) {
    let fractals = |x: u16| u32::from(x).div_ceil(FRACTAL);
    (fractals(mmad.m), fractals(mmad.n), u32::from(mmad.k).div_ceil(mmad.ty.k0()))
}

fn mmad_accesses(mmad: &Mmad, at: &Resolved, _machine: &Machine) -> Vec<Access> {
    let (m1, n1, k1) = mmad_fractals(mmad);
    let c_bytes = m1 * n1 * FRACTAL * FRACTAL * mmad.ty.accumulator().bits() / 8;
    let mut touched = vec![
        Access::run(Space::L0a, false, at.src0, m1 * k1 * FRACTAL_BYTES),
        Access::run(Space::L0b, false, at.src1, n1 * k1 * FRACTAL_BYTES),
    ];
    match mmad.init {
        MmadInit::Zero => {}
        MmadInit::Accumulate => touched.push(Access::run(Space::L0c, false, at.dst, c_bytes)),
        MmadInit::Bias(_) => {
            touched.push(Access::run(Space::Bt, false, at.extra, u32::from(mmad.n) * 4));
        }
    }
    touched.push(Access::run(Space::L0c, true, at.dst, c_bytes));
    touched
}

/// Bytes of one row of a result, `n` elements of `bits`.
fn row_bytes(n: u32, bits: u32) -> u32 {
    (n * bits).div_ceil(8)
}

fn fix_accesses(fix: &Fix, at: &Resolved) -> Vec<Access> {
    let (m, n) = (u32::from(fix.m), u32::from(fix.n));
    let rows = FRACTAL * fix.from.bits() / 8;
    let columns = n.div_ceil(FRACTAL);
    let mut touched = vec![Access::rows(Space::L0c, false, at.src0, columns, m * rows, fix.src_stride)];
    if let FixScale::Columns(_) = fix.scale {
        touched.push(Access::run(Space::Fb, false, at.extra, n * 8));
    }
    let bits = fix.quant.result_bits(fix.from.bits());
    let width = fix_width(fix);
    touched.push(match fix.layout {
        FixLayout::RowMajor => Access::rows(fix.path.dst(), true, at.dst, m, row_bytes(n, bits), fix.dst_stride),
        FixLayout::Nz => {
            let columns = n.div_ceil(width);
            Access::rows(fix.path.dst(), true, at.dst, columns, m * row_bytes(width, bits), fix.dst_stride)
        }
    });
    touched
}

/// Elements in a row of the result's fractals: 16, more where narrow ones merge.
pub(crate) fn fix_width(fix: &Fix) -> u32 {
    match fix.quant.result_bits(fix.from.bits()) {
        4 => 64,
        8 => 32,
        _ => FRACTAL,
    }
}

fn vector_accesses(vector: &Vector, at: &Resolved) -> Vec<Access> {
    let row = vector.op.row();
    let repeats = u32::from(vector.repeats);
    let lanes = u32::from(vector.lanes);
    let strided = |is_write, start, bits: u32, lanes: u32, stride: Stride| {
        let bytes = (lanes * bits).div_ceil(8);
        let blocks = bytes.div_ceil(BLOCK_BYTES);
        let last = bytes - (blocks - 1) * BLOCK_BYTES;
        let run = if blocks > 1 { BLOCK_BYTES } else { bytes };
        let (inner, outer) = (u32::from(stride.block) * BLOCK_BYTES, u32::from(stride.repeat) * BLOCK_BYTES);
        Access {
            space: Space::Ub,
            is_write,
            start,
            bytes: run,
            last,
            inner_count: blocks,
            inner,
            outer_count: repeats,
            outer,
        }
        .merged()
    };
    let (dst_bits, src_bits) = (vector.dst_ty.bits(), vector.src_ty.bits());
    let dst = |is_write| strided(is_write, at.dst, dst_bits, lanes, vector.dst_stride);
    let src0 = || strided(false, at.src0, src_bits, lanes, vector.src0_stride);
    let mask_bytes = vector.mask_bytes();
    let mut touched = vec![];
    let second = |touched: &mut Vec<Access>| {
        if let Operand::Vector(_) = vector.src1 {
            touched.push(strided(false, at.src1, src_bits, lanes, vector.src1_stride));
        }
    };
    match row.form {
        VecForm::Unary => touched.extend([src0(), dst(true)]),
        VecForm::Binary => {
            touched.push(src0());
            second(&mut touched);
            touched.push(dst(true));
        }
        VecForm::Ternary => {
            touched.push(src0());
            second(&mut touched);
            touched.extend([dst(false), dst(true)]);
        }
        VecForm::Fill => touched.push(dst(true)),
        VecForm::Compare => {
            touched.push(src0());
            second(&mut touched);
            touched.push(Access::run(Space::Ub, true, at.dst, repeats * mask_bytes));
        }
        VecForm::Select => {
            touched.push(Access::run(Space::Ub, false, at.src1, repeats * mask_bytes));
            touched.extend([src0(), dst(true)]);
        }
        VecForm::BlockFill => {
            let blocks = lanes.div_ceil(8);
            touched.push(strided(false, at.src0, src_bits, blocks, vector.src0_stride));
            touched.push(dst(true));
        }
        VecForm::BlockReduce => {
            touched.push(src0());
            let blocks = (lanes * src_bits).div_ceil(BLOCK_BYTES * 8);
            touched.push(Access::run(Space::Ub, true, at.dst, ((repeats - 1) * 8 + blocks) * dst_bits / 8));
        }
        // What a gather reads depends on its offsets: the checker looks at them.
        VecForm::Gather => touched.extend([src0(), dst(true)]),
    }
    touched
}

/// True where columns of fractals are outermost in L0A.
pub(crate) fn l0a_is_nz(machine: &Machine) -> bool {
    machine.buffer.l0a.fractal == Some(FractalOrder::Nz)
}
