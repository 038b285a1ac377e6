//! Ternary product with RVV 1.0 for registers of one known length.
//!
//! The arithmetic is that of [`rvv`](super::rvv). Knowing which registers hold what leaves out strips and what moves
//! halves of sums; lets one load bring several blocks, which are unpacked together; and leaves room for eight token
//! rows, of 1/4 of a panel where registers are short.
//!
//! Sums take 16 registers, so `16 / m / 2` registers of code bytes, 4 at most, hold one block of as many rows as fit: a
//! part of a panel, a panel, or several. What is left of panels is done with smaller groups.

use tcc_ir::target::micro_args;

use super::super::floats::{int, repeat, while_left};
use super::super::inst::{
    A1, A2, A3, A4, A5, A6, A7, Lmul, S0, S1, S2, S3, S4, S5, S6, S7, S8, Sew, T0, T1, T2, T3, T4, T5, T6, V, X, ZERO,
    add, addi, bne, lb, li, mv, patch_branch, put, vl1re8, vl2re8, vl4re8, vl8re8, vle32, vmv_v_i, vse32, vsetvli,
    vwadd_wv, vwmacc_vx,
};
use super::{Frame, KR, NR, arg, for_chunks, join_sums, sums_of, token_rows, unpack};
use crate::asm::Asm;

/// Where the next accumulators are.
const ACC: X = A1;
/// The next panel's weights.
const W: X = A2;
/// Parts of the panel still to do.
const PARTS_LEFT: X = A3;
const PANELS_LEFT: X = A4;
/// Where `vsetvli` puts what is known.
const LENGTH: X = A5;
const BLOCKS_LEFT: X = A6;
/// Blocks of this chunk still to do.
const BLOCKS: X = A7;
/// Running addresses in the panels at hand.
const W_AT: [X; 4] = [T0, T1, T2, T3];
/// Running addresses in the token rows.
const Q_AT: [X; 8] = [T4, T5, T6, S0, S5, S6, S7, S8];
/// Activations, and whatever is short-lived outside the loop over blocks.
const TMP: [X; 4] = [S1, S2, S3, S4];

const FRAME: Frame = Frame { saved: &[S0, S1, S2, S3, S4, S5, S6, S7, S8], words: 0 };

/// First register of the raw bytes.
const RAW: usize = 16;
/// Registers of the blocks that are unpacked at once.
const UNPACKED: usize = 4;

/// One way to use the registers.
#[derive(Clone, Copy)]
struct Shape {
    /// Bits of a register.
    vlen: usize,
    /// Token rows.
    m: usize,
    /// Panels at once.
    panels: usize,
    /// Rows of each at once.
    rows: usize,
    /// Blocks unpacked at once.
    blocks: usize,
}

impl Shape {
    /// The shapes for `m` token rows, that for most panels first.
    fn all(vlen: usize, m: usize) -> Vec<Shape> {
        let widest = 8 / m.max(2);
        let most = (widest * vlen / 8 / NR).max(1);
        let halved = std::iter::successors(Some(most), |panels| (*panels > 1).then_some(panels / 2));
        let shape = |panels| {
            let shape = Shape { vlen, m, panels, rows: NR.min(widest * vlen / 8), blocks: 1 };
            Shape { blocks: UNPACKED / shape.group(), ..shape }
        };
        halved.map(shape).collect()
    }

    /// Registers of one panel's bytes of a block.
    fn panel_registers(self) -> usize {
        8 * self.rows / self.vlen
    }

    /// Registers of one block.
    fn group(self) -> usize {
        self.panels * self.panel_registers()
    }

    /// First register of the `i`-th sums: token row `i`, or plane 1 of the only one.
    fn sums(self, i: usize) -> usize {
        2 * self.group() * i
    }

    /// First register of plane `p`; the last takes the place of the raw bytes.
    fn plane(self, p: usize) -> usize {
        RAW + UNPACKED * ((p + 1) % 4)
    }

    /// Blocks per turn of the unrolled loop.
    fn unroll(self) -> usize {
        self.blocks.max(if self.m > 2 { 4 } else { 8 })
    }
}

/// Code of the kernel for `m` token rows (1, 2, 4 or 8) and registers of `vlen` bits (128, 256 or 512), and its stack
/// in bytes.
pub fn kernel(vlen: usize, m: usize) -> (Vec<u8>, u32) {
    let mut asm = Asm::new();
    FRAME.enter(&mut asm);
    put(&mut asm, &[arg(ACC, micro_args::ACC), arg(W, micro_args::W), arg(PANELS_LEFT, micro_args::PANELS)]);
    for shape in Shape::all(vlen, m) {
        while_left(&mut asm, PANELS_LEFT, shape.panels, |asm| panels(asm, shape));
    }
    FRAME.leave(&mut asm);
    // A hundred bytes or less.
    (asm.finish(), FRAME.bytes() as u32)
}

/// Registers in groups of `registers`, all of them in use.
fn set(asm: &mut Asm, sew: Sew, registers: usize) {
    asm.word(vsetvli(LENGTH, ZERO, sew, Lmul::of(registers)));
}

/// The next panels; moves `ACC` and `W` past them.
fn panels(asm: &mut Asm, shape: Shape) {
    let parts = NR / shape.rows;
    asm.word(li(PARTS_LEFT, int(parts)));
    let part = asm.bound();
    put(asm, &[mv(W_AT[0], W), arg(TMP[0], micro_args::W_PANEL_STRIDE)]);
    for pair in W_AT[..shape.panels].windows(2) {
        asm.word(add(pair[1], pair[0], TMP[0]));
    }
    asm.word(arg(Q_AT[0], micro_args::Q));
    token_rows(asm, &Q_AT[..shape.m], TMP[0]);
    asm.word(arg(BLOCKS_LEFT, micro_args::K_BLOCKS));
    for_chunks(asm, BLOCKS_LEFT, BLOCKS, |asm| chunk(asm, shape));
    asm.word(addi(ACC, ACC, int(4 * shape.rows * shape.panels)));
    if parts > 1 {
        put(asm, &[addi(W, W, int(shape.rows)), addi(PARTS_LEFT, PARTS_LEFT, -1)]);
        asm.branch(bne(PARTS_LEFT, ZERO), part, patch_branch);
        asm.word(addi(W, W, -int(NR)));
    }
    // ACC moved over one token row of each panel.
    put(asm, &[addi(ACC, ACC, int(4 * NR * shape.panels * (shape.m - 1))), arg(TMP[0], micro_args::W_PANEL_STRIDE)]);
    for _ in 0..shape.panels {
        asm.word(add(W, W, TMP[0]));
    }
}

/// `BLOCKS` blocks, and their sums into the accumulators.
fn chunk(asm: &mut Asm, shape: Shape) {
    set(asm, Sew::E16, 8);
    for first in (0..shape.sums(shape.m.max(2))).step_by(8) {
        asm.word(vmv_v_i(V::new(first), 0));
    }
    set(asm, Sew::E8, shape.group());
    let next = |asm: &mut Asm, count: usize| {
        for q in &Q_AT[..shape.m] {
            asm.word(addi(*q, *q, int(KR * count)));
        }
    };
    while_left(asm, BLOCKS, shape.unroll(), |asm| {
        for at in (0..shape.unroll()).step_by(shape.blocks) {
            blocks(asm, shape, at);
        }
        next(asm, shape.unroll());
    });
    repeat(asm, BLOCKS, |asm| {
        blocks(asm, Shape { blocks: 1, ..shape }, 0);
        next(asm, 1);
    });
    widen(asm, shape);
}

/// `shape.blocks` blocks of four columns, the first of them `at` blocks behind the running addresses of the token rows.
/// Bytes in groups of one block are in use before and after.
fn blocks(asm: &mut Asm, shape: Shape, at: usize) {
    load(asm, shape);
    let several = shape.blocks > 1;
    if several {
        set(asm, Sew::E8, UNPACKED);
    }
    (0..4).for_each(|p| unpack(asm, V::new(shape.plane(p)), V::new(RAW), p, shape.m == 1));
    if several {
        set(asm, Sew::E8, shape.group());
    }
    multiply(asm, shape, at);
}

/// The raw bytes; moves the running addresses past them.
fn load(asm: &mut Asm, shape: Shape) {
    // Blocks of one whole panel follow each other.
    let joined = if shape.panels == 1 && shape.rows == NR { shape.blocks } else { 1 };
    let registers = shape.panel_registers() * joined;
    let mut raw = RAW;
    for _ in 0..shape.blocks / joined {
        for w in &W_AT[..shape.panels] {
            asm.word(match registers {
                1 => vl1re8(V::new(raw), *w),
                2 => vl2re8(V::new(raw), *w),
                4 => vl4re8(V::new(raw), *w),
                8 => vl8re8(V::new(raw), *w),
                other => unreachable!("{other} registers of a load: a power of two up to 8"),
            });
            asm.word(addi(*w, *w, int(NR * joined)));
            raw += registers;
        }
    }
}

/// Products of unpacked planes, for every block and token row.
fn multiply(asm: &mut Asm, shape: Shape, at: usize) {
    let columns = (0..shape.blocks).flat_map(|b| (0..KR).map(move |p| (b, p)));
    let products = columns.flat_map(|(b, p)| (0..shape.m).map(move |t| (b, p, t)));
    // Four activations are on their way while the multiplies of the four before run.
    for four in products.collect::<Vec<_>>().chunks(TMP.len()) {
        for (q, (b, p, t)) in TMP.iter().zip(four) {
            asm.word(lb(*q, int(KR * (at + b) + p), Q_AT[*t]));
        }
        for (q, (b, p, t)) in TMP.iter().zip(four) {
            let sums = shape.sums(sums_of(shape.m, *p, *t));
            asm.word(vwmacc_vx(V::new(sums), *q, V::new(shape.plane(*p) + shape.group() * b)));
        }
    }
}

/// Adds the sums to the accumulators, four registers at a time at most, by way of registers of planes.
fn widen(asm: &mut Asm, shape: Shape) {
    let of_panel = 2 * shape.panel_registers();
    let registers = of_panel.min(4);
    if shape.m == 1 {
        set(asm, Sew::E16, 2 * shape.group());
        join_sums(asm, V::new(shape.sums(0)), V::new(shape.sums(1)));
    }
    set(asm, Sew::E16, registers);
    let mut wide = [V::new(16), V::new(24)].into_iter().cycle();
    for panel in 0..shape.panels {
        for t in 0..shape.m {
            for first in (0..of_panel).step_by(registers) {
                let sums = V::new(shape.sums(t) + of_panel * panel + first);
                let row = NR * (panel * shape.m + t) + first * shape.vlen / 16;
                let wide = wide.next().expect("endless");
                put(asm, &[addi(TMP[0], ACC, int(4 * row)), vle32(wide, TMP[0])]);
                put(asm, &[vwadd_wv(wide, wide, sums), vse32(wide, TMP[0])]);
            }
        }
    }
}
