//! What all micro-kernels share: the registers of the operands, and the loops over panels and blocks.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::{AsmMemoryOperand, AsmRegister64, CodeAssembler, CodeLabel, byte_ptr, qword_ptr};
use tcc_ir::encoding::base3;
use tcc_ir::target::micro_args;

use super::bitmap::{self, Vectors};
use crate::code::Function;
use crate::isa::x86_64::fetch::Fetch;
use crate::isa::x86_64::function;

/// Output rows of a panel.
pub(super) const NR: usize = 16;

/// Bytes of a block of one panel: [`NR`] lanes of 32 bits.
pub(super) const BLOCK_BYTES: i32 = 4 * NR as i32;

/// The argument block.
pub(super) const ARGS: AsmRegister64 = rdi;
/// Accumulators of the current panels.
pub(super) const ACC: AsmRegister64 = rax;
/// Panels left.
pub(super) const PANELS: AsmRegister64 = rcx;
/// Bytes from one panel to the next.
pub(super) const W_STRIDE: AsmRegister64 = rdx;
/// Three times that.
const W_STRIDE_3: AsmRegister64 = r14;
/// First byte of the current panels.
pub(super) const W_PANEL: AsmRegister64 = rsi;
/// Weights of the current block.
pub(super) const W: AsmRegister64 = r8;
/// Blocks left.
pub(super) const BLOCKS: AsmRegister64 = r9;
/// Activations of the current block, one register for each four token rows.
pub(super) const Q: [AsmRegister64; 3] = [r10, rbx, rbp];
/// Bytes from one token row to the next.
pub(super) const Q_STRIDE: AsmRegister64 = r11;
/// Three times that.
pub(super) const Q_STRIDE_3: AsmRegister64 = r12;
/// Blocks left in this turn where narrow accumulators are widened between turns.
pub(super) const RUN: AsmRegister64 = r13;

/// The arithmetic of a kernel: what happens between the loops of [`Walk`].
pub(super) trait Body {
    /// Fills the registers that stay the same throughout.
    fn constants(&self, a: &mut CodeAssembler) -> Result<(), IcedError>;

    /// Clears the sums of `panels` panels.
    fn begin(&self, a: &mut CodeAssembler, panels: usize) -> Result<(), IcedError>;

    /// Adds the products of block `block` (counted from the current one) of `panels` panels.
    fn block(&self, a: &mut CodeAssembler, panels: usize, block: usize) -> Result<(), IcedError>;

    /// Adds the sums to the accumulators in memory; called between turns and at the end.
    fn end(&self, a: &mut CodeAssembler, panels: usize) -> Result<(), IcedError>;
}

/// How a kernel walks its operands.
#[derive(Clone, Copy)]
pub(super) struct Walk {
    /// Token rows, at most 12.
    pub mr: usize,
    /// Columns of a block; its activations are as many bytes.
    pub kr: usize,
    /// Panels processed together, at most two, most first; the last is 1.
    pub panels: &'static [usize],
    /// Blocks per iteration of the inner loop, most first; the last is 1.
    pub unroll: &'static [usize],
    /// Most blocks of a turn: between two widenings of narrow accumulators, or two unfoldings of a bitmap.
    pub turn: Option<i32>,
    /// Where panels are bitmaps: how they become the blocks of `i2` that bodies read, turn by turn. Then panels go one
    /// by one, and there are at most four token rows and a number of blocks in a turn.
    pub bitmap: Option<Vectors>,
    /// How weights are asked for; none where panels are bitmaps, which ask for themselves.
    pub ahead: Option<Ahead>,
}

/// How weights are asked for.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    fetch: Fetch,
    /// Where panels go one by one, bytes from what is read to what is asked for.
    bytes: i32,
}

impl Ahead {
    /// For blocks of `kr` columns.
    ///
    /// The hardware follows a stream but for the first lines of every page: a page ahead into the first-level cache
    /// (measured on Zen 5 with pages of 4 KiB: 43 GB/s, without 37). Zen 4 is best left alone where it reads two bits a
    /// weight, and where unpacking takes longer than reading, with lines three pages ahead in the second-level cache
    /// (`docs/performance.md`).
    pub fn new(fetch: Fetch, kr: usize) -> Ahead {
        let bytes = match fetch {
            Fetch::First => 4096,
            Fetch::Second if kr == base3::KR => 12_288,
            Fetch::Second => 512,
        };
        Ahead { fetch, bytes }
    }

    /// Asks for the weights that come after those of block `block`.
    ///
    /// Two panels at a time are two streams of a few pages each, which the hardware does not follow: both lines of the
    /// next two panels are asked for (8 token rows from memory: 110 multiply-accumulates per cycle, without 65; two token
    /// rows on Zen 4: 48 with the second-level cache, 42 with the first).
    fn ask(self, a: &mut CodeAssembler, panels: usize, block: usize) -> Result<(), IcedError> {
        let at = BLOCK_BYTES * i32::try_from(block).expect("a few blocks");
        if panels == 1 {
            return self.fetch.ask(a, byte_ptr(W + self.bytes + at));
        }
        self.fetch.ask(a, byte_ptr(W + W_STRIDE * 2 + at))?;
        self.fetch.ask(a, byte_ptr(W + W_STRIDE_3 + at))
    }
}

impl Walk {
    /// The kernel named `name` that runs `body` over all panels and blocks.
    pub fn kernel(&self, name: &str, body: &impl Body) -> Function {
        let saved = self.saved();
        let spilled = self.bitmap.map_or(0, |_| bitmap::SPILLED.len());
        let frame_bytes = u32::try_from(8 + 8 * (saved.len() + spilled)).expect("a few registers");
        function(name, frame_bytes, |a| {
            for register in &saved {
                a.push(*register)?;
            }
            a.mov(ACC, qword_ptr(ARGS + micro_args::ACC))?;
            a.mov(PANELS, qword_ptr(ARGS + micro_args::PANELS))?;
            a.mov(W_STRIDE, qword_ptr(ARGS + micro_args::W_PANEL_STRIDE))?;
            a.mov(W_PANEL, qword_ptr(ARGS + micro_args::W))?;
            a.mov(Q_STRIDE, qword_ptr(ARGS + micro_args::Q_STRIDE))?;
            if self.mr > 3 {
                a.lea(Q_STRIDE_3, Q_STRIDE + Q_STRIDE * 2)?;
            }
            if self.panels[0] > 1 {
                a.lea(W_STRIDE_3, W_STRIDE + W_STRIDE * 2)?;
            }
            body.constants(a)?;
            for &panels in self.panels {
                self.panel_loop(a, body, panels)?;
            }
            a.vzeroupper()?;
            for register in saved.iter().rev() {
                a.pop(*register)?;
            }
            a.ret()
        })
    }

    /// Callee-saved registers in use.
    fn saved(&self) -> Vec<AsmRegister64> {
        let mut saved = self.q_registers()[1..].to_vec();
        if self.mr > 3 {
            saved.push(Q_STRIDE_3);
        }
        if self.panels[0] > 1 {
            saved.push(W_STRIDE_3);
        }
        if self.turn.is_some() {
            saved.push(RUN);
        }
        if self.bitmap.is_some() {
            saved.extend(bitmap::SAVED);
        }
        saved
    }

    fn q_registers(&self) -> &'static [AsmRegister64] {
        &Q[..self.mr.div_ceil(4)]
    }

    /// Runs while at least `panels` panels are left.
    fn panel_loop(&self, a: &mut CodeAssembler, body: &impl Body, panels: usize) -> Result<(), IcedError> {
        let [mut top, mut done] = [a.create_label(), a.create_label()];
        let count = i32::try_from(panels).expect("a few panels");
        bind(a, &mut top)?;
        a.cmp(PANELS, count)?;
        a.jb(done)?;
        a.mov(W, W_PANEL)?;
        a.mov(Q[0], qword_ptr(ARGS + micro_args::Q))?;
        for pair in self.q_registers().windows(2) {
            a.lea(pair[1], pair[0] + Q_STRIDE * 4)?;
        }
        a.mov(BLOCKS, qword_ptr(ARGS + micro_args::K_BLOCKS))?;
        if self.bitmap.is_some() {
            bitmap::begin(a)?;
        }
        match self.turn {
            None => {
                body.begin(a, panels)?;
                self.block_loops(a, body, panels, BLOCKS)?;
                body.end(a, panels)?;
            }
            Some(most) => self.turns(a, body, panels, most)?,
        }
        a.add(ACC, count * acc_bytes(self.mr))?;
        for _ in 0..panels {
            a.add(W_PANEL, W_STRIDE)?;
        }
        a.sub(PANELS, count)?;
        a.jmp(top)?;
        bind(a, &mut done)
    }

    /// All blocks in turns of at most `most`, unfolding before each where panels are bitmaps, widening after each.
    fn turns(&self, a: &mut CodeAssembler, body: &impl Body, panels: usize, most: i32) -> Result<(), IcedError> {
        let [mut top, mut short, mut done] = std::array::from_fn(|_| a.create_label());
        bind(a, &mut top)?;
        a.test(BLOCKS, BLOCKS)?;
        a.je(done)?;
        a.mov(RUN, BLOCKS)?;
        a.cmp(RUN, most)?;
        a.jbe(short)?;
        a.mov(RUN, i64::from(most))?;
        bind(a, &mut short)?;
        a.sub(BLOCKS, RUN)?;
        if let Some(vectors) = self.bitmap {
            bitmap::unfold(a, vectors)?;
        }
        body.begin(a, panels)?;
        self.block_loops(a, body, panels, RUN)?;
        body.end(a, panels)?;
        a.jmp(top)?;
        bind(a, &mut done)
    }

    /// `left` blocks, the widest unrolled loop first.
    fn block_loops(
        &self,
        a: &mut CodeAssembler,
        body: &impl Body,
        panels: usize,
        left: AsmRegister64,
    ) -> Result<(), IcedError> {
        for &unroll in self.unroll {
            let [mut top, mut done] = [a.create_label(), a.create_label()];
            let count = i32::try_from(unroll).expect("a few blocks");
            a.cmp(left, count)?;
            a.jb(done)?;
            bind(a, &mut top)?;
            for block in 0..unroll {
                if let Some(ahead) = self.ahead {
                    ahead.ask(a, panels, block)?;
                }
                body.block(a, panels, block)?;
            }
            a.add(W, count * BLOCK_BYTES)?;
            for &q in self.q_registers() {
                a.add(q, i32::try_from(unroll * self.kr).expect("a few blocks"))?;
            }
            a.sub(left, count)?;
            a.cmp(left, count)?;
            a.jae(top)?;
            bind(a, &mut done)?;
        }
        Ok(())
    }
}

/// Bytes of the accumulators of one panel of `mr` token rows.
fn acc_bytes(mr: usize) -> i32 {
    i32::try_from(4 * NR * mr).expect("a few token rows")
}

/// Address of the activation `column` columns behind those of the current block, of token row `row`.
pub(super) fn q_address(row: usize, column: usize) -> AsmMemoryOperand {
    let at = i32::try_from(column).expect("a few blocks");
    let q = Q[row / 4];
    match row % 4 {
        0 => q + at,
        1 => q + Q_STRIDE + at,
        2 => q + Q_STRIDE * 2 + at,
        _ => q + Q_STRIDE_3 + at,
    }
}

/// Address of byte `at` of block `block` (from the current one) of the panel `panel` of those processed together.
pub(super) fn w_address(panel: usize, block: usize, at: i32) -> AsmMemoryOperand {
    let at = at + BLOCK_BYTES * i32::try_from(block).expect("a few blocks");
    match panel {
        0 => W + at,
        1 => W + W_STRIDE + at,
        _ => unreachable!("walks process at most two panels together"),
    }
}

/// Where the argument block holds the address of the kernel's own scratch.
pub(super) fn scratch_argument() -> AsmMemoryOperand {
    ARGS + micro_args::SCRATCH
}

/// Address of the accumulator of lane `lane` in token row `row` of one of the current panels.
pub(super) fn acc_address(mr: usize, panel: usize, row: usize, lane: usize) -> AsmMemoryOperand {
    ACC + i32::try_from(4 * ((panel * mr + row) * NR + lane)).expect("a few panels")
}

/// Binds `label` here; several labels may be bound to one place.
pub(super) fn bind(a: &mut CodeAssembler, label: &mut CodeLabel) -> Result<(), IcedError> {
    a.set_label(label)?;
    a.zero_bytes()
}
