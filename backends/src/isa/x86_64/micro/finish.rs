//! How a tile kernel ends a run: sums are kept for the next one, or become outputs while they are in registers.
//!
//! Most of what an epilogue costs is not its arithmetic but stores to lines that no near cache holds: the lines of
//! outputs are asked for when the last run begins, which takes longer than they do.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::zmm::*;
use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegister64, AsmRegisterZmm, CodeAssembler, byte_ptr, dword_bcst, dword_ptr, qword_ptr,
    zmmword_ptr,
};
use tcc_ir::target::micro_args;

use super::panels::{ACC, ARGS, BLOCKS, NR, PANELS, Q_STRIDE, RUN, bind};
use crate::isa::x86_64::pieces::int;

/// The first of the current token rows among all of a call, then their scales.
const ROW: AsmRegister64 = rsi;
/// Their sums of activations, then their residuals.
const SUMS_AT: AsmRegister64 = r15;
/// Their outputs.
const OUT_AT: AsmRegister64 = rbx;

const ACT_SCALE: AsmRegisterZmm = zmm18;
/// Scales of the outputs of each panel.
const SCALES: [AsmRegisterZmm; 2] = [zmm21, zmm22];

/// Bytes of the accumulators, and of the outputs, of one token row of a panel.
const ROW_BYTES: usize = 4 * NR;

/// The sums of the current token rows of some panels, by token row and then panel.
pub(super) struct Sums<'a> {
    pub registers: &'a [AsmRegisterZmm],
    pub panels: usize,
    /// Token rows of a call.
    pub mr: usize,
    /// Their accumulators of the first panel in memory.
    pub acc_rows: AsmRegister64,
}

impl Sums<'_> {
    fn rows(&self) -> usize {
        self.registers.len() / self.panels
    }

    /// Every sum and its accumulator in memory.
    fn in_memory(&self) -> impl Iterator<Item = (AsmRegisterZmm, AsmMemoryOperand)> {
        self.registers.iter().enumerate().map(|(i, sum)| {
            let (row, panel) = (i / self.panels, i % self.panels);
            (*sum, zmmword_ptr(self.acc_rows + int(ROW_BYTES * (panel * self.mr + row))))
        })
    }

    /// At the begin of the last run: asks for the lines of the outputs, to be written. Asking never faults, and does
    /// nothing on cores that do not know the instruction.
    pub fn ask_for_outputs(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        let mut none = a.create_label();
        a.cmp(qword_ptr(ARGS + micro_args::OUT), 0)?;
        a.je(none)?;
        a.cmp(RUN, BLOCKS)?;
        a.jne(none)?;
        self.row(a)?;
        self.outputs(a)?;
        for _ in 0..self.rows() {
            for panel in 0..self.panels {
                a.prefetchw(byte_ptr(OUT_AT + int(ROW_BYTES * panel)))?;
            }
            a.add(OUT_AT, qword_ptr(ARGS + micro_args::OUT_STRIDE))?;
        }
        bind(a, &mut none)
    }

    /// After a run: adds the sums to the accumulators; or, where there are outputs, writes those after the last run, and
    /// before it accumulators that hold nothing but the sums of the runs so far.
    pub fn end_run(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        let [mut add, mut keep, mut done] = std::array::from_fn(|_| a.create_label());
        let mut total = a.create_label();
        a.cmp(qword_ptr(ARGS + micro_args::OUT), 0)?;
        a.je(add)?;
        a.cmp(BLOCKS, qword_ptr(ARGS + micro_args::K_BLOCKS))?;
        a.je(total)?;
        bind(a, &mut add)?;
        for (sum, place) in self.in_memory() {
            a.vpaddd(sum, sum, place)?;
        }
        bind(a, &mut total)?;
        a.cmp(qword_ptr(ARGS + micro_args::OUT), 0)?;
        a.je(keep)?;
        a.cmp(RUN, BLOCKS)?;
        a.jne(keep)?;
        self.finish(a)?;
        a.jmp(done)?;
        bind(a, &mut keep)?;
        for (sum, place) in self.in_memory() {
            a.vmovdqu64(place, sum)?;
        }
        bind(a, &mut done)
    }

    /// Reads all sums from memory.
    pub fn load(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        self.in_memory().try_for_each(|(sum, place)| a.vmovdqu64(sum, place))
    }

    /// Writes the outputs of the sums in the registers, which are those of all runs.
    pub fn finish(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        self.load_scales(a)?;
        self.row(a)?;
        self.outputs(a)?;
        a.mov(SUMS_AT, ROW)?;
        a.imul_2(SUMS_AT, Q_STRIDE)?;
        a.add(SUMS_AT, qword_ptr(ARGS + micro_args::SUMS))?;
        a.shl(ROW, 2)?;
        a.add(ROW, qword_ptr(ARGS + micro_args::ACT_SCALE))?;
        for (row, sums) in self.registers.chunks(self.panels).enumerate() {
            a.vbroadcastss(ACT_SCALE, dword_ptr(ROW + int(4 * row)))?;
            for (sum, scale) in sums.iter().zip(SCALES) {
                a.vpsubd(*sum, *sum, dword_bcst(SUMS_AT))?;
                a.vcvtdq2ps(*sum, *sum)?;
                a.vmulps(*sum, *sum, ACT_SCALE)?;
                a.vmulps(*sum, *sum, scale)?;
            }
            a.add(SUMS_AT, Q_STRIDE)?;
        }
        self.add_residual(a)?;
        for sums in self.registers.chunks(self.panels) {
            for (panel, sum) in sums.iter().enumerate() {
                a.vmovups(zmmword_ptr(OUT_AT + int(ROW_BYTES * panel)), *sum)?;
            }
            a.add(OUT_AT, qword_ptr(ARGS + micro_args::OUT_STRIDE))?;
        }
        Ok(())
    }

    fn add_residual(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        let (at, mut none) = (SUMS_AT, a.create_label());
        a.mov(at, qword_ptr(ARGS + micro_args::RESIDUAL))?;
        a.test(at, at)?;
        a.je(none)?;
        a.sub(at, qword_ptr(ARGS + micro_args::OUT))?;
        a.add(at, OUT_AT)?;
        for sums in self.registers.chunks(self.panels) {
            for (panel, sum) in sums.iter().enumerate() {
                a.vaddps(*sum, *sum, zmmword_ptr(at + int(ROW_BYTES * panel)))?;
            }
            a.add(at, qword_ptr(ARGS + micro_args::OUT_STRIDE))?;
        }
        bind(a, &mut none)
    }

    /// Fills [`SCALES`].
    fn load_scales(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        let [mut same, mut done] = std::array::from_fn(|_| a.create_label());
        let (at, scales) = (SUMS_AT, &SCALES[..self.panels]);
        panels_done(a, at)?;
        a.imul_2(at, qword_ptr(ARGS + micro_args::SCALE_STRIDE))?;
        a.add(at, qword_ptr(ARGS + micro_args::SCALE))?;
        a.cmp(qword_ptr(ARGS + micro_args::SCALE_STRIDE), 0)?;
        a.je(same)?;
        for (panel, scale) in scales.iter().enumerate() {
            a.vmovups(*scale, zmmword_ptr(at + int(ROW_BYTES * panel)))?;
        }
        a.jmp(done)?;
        bind(a, &mut same)?;
        scales.iter().try_for_each(|scale| a.vbroadcastss(*scale, dword_ptr(at)))?;
        bind(a, &mut done)
    }

    /// Fills [`ROW`].
    fn row(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        a.mov(ROW, self.acc_rows)?;
        a.sub(ROW, ACC)?;
        a.shr(ROW, ROW_BYTES.trailing_zeros())
    }

    /// Points [`OUT_AT`] at the first of the current outputs.
    fn outputs(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        panels_done(a, OUT_AT)?;
        a.shl(OUT_AT, ROW_BYTES.trailing_zeros())?;
        a.add(OUT_AT, qword_ptr(ARGS + micro_args::OUT))?;
        a.mov(SUMS_AT, ROW)?;
        a.imul_2(SUMS_AT, qword_ptr(ARGS + micro_args::OUT_STRIDE))?;
        a.add(OUT_AT, SUMS_AT)
    }
}

/// The number of the first of the current panels.
fn panels_done(a: &mut CodeAssembler, to: AsmRegister64) -> Result<(), IcedError> {
    a.mov(to, qword_ptr(ARGS + micro_args::PANELS))?;
    a.sub(to, PANELS)
}
