//! Ternary product with RVV 1.0, one code for any vector length of at least 128 bits.
//!
//! Lanes are output rows. A block's bytes are unpacked once into four planes of codes; each plane meets one scalar
//! activation per token row in `vwmacc.vx`, 8 to 16 bits; every 128 columns the 16-bit lanes are added to the 32-bit
//! accumulators in memory (`docs/encodings.md`, `i2-lane`).
//!
//! The registers hold one group of code bytes of `group` registers, and for each token row twice that of sums. A
//! panel of 64 rows fills the group where the vector length is `512 / group` bits; longer registers take two or four
//! panels at once, which shares the unpacking and the activations; shorter ones split the panel.
//!
//! | kernel | group | 128 bits | 256 bits | 512 bits | other lengths |
//! |---|---|---|---|---|---|
//! | m 1, 2 | 4 | panel | 2 panels | 4 panels | panel |
//! | m 1, 2 | 2 | | | 2 panels, of what is left | |
//! | m 4 | 2 | half a panel | panel | 2 panels | panel |

use tcc_ir::target::micro_args;

use super::super::floats::{int, repeat, while_left};
use super::super::inst::{
    A1, A2, A3, A4, A5, A6, A7, Lmul, S0, S1, S2, S3, S4, Sew, T0, T1, T2, T3, T4, T5, T6, V, X, ZERO, add, addi, bne,
    lb, li, mv, patch_branch, put, slli, srli, sub, vl1re8, vl2re8, vle8, vle32, vmv_v_i, vse32, vsetvli,
    vslidedown_vx, vwadd_wv, vwmacc_vx,
};
use super::{Frame, KR, NR, arg, for_chunks, join_sums, sums_of, token_rows, unpack};
use crate::asm::Asm;

/// Where the next accumulators are.
const ACC: X = A1;
/// The next panel's weights.
const W: X = A2;
/// Rows of the panels at hand still to do.
const ROWS_LEFT: X = A3;
const PANELS_LEFT: X = A4;
/// Rows at once: the vector length in use.
const ROWS: X = A5;
const BLOCKS_LEFT: X = A6;
/// Blocks of this chunk still to do.
const BLOCKS: X = A7;
/// Running addresses in the panels at hand.
const W_AT: [X; 4] = [T0, T1, T2, T3];
/// Running addresses in the token rows.
const Q_AT: [X; 4] = [T4, T5, T6, S0];
/// Activations, and whatever is short-lived outside the loop over blocks.
const TMP: [X; 4] = [S1, S2, S3, S4];

const FRAME: Frame = Frame { saved: &[S0, S1, S2, S3, S4], words: 0 };

/// Blocks per turn of the unrolled loop.
const UNROLL: usize = 4;

/// One way to use the registers.
#[derive(Clone, Copy)]
struct Shape {
    /// Token rows.
    m: usize,
    /// Panels at once; more than one only where `512 · panels / group` is the exact vector length.
    panels: usize,
    /// Registers of one group of code bytes: with the sums of `m` token rows, three planes and the raw bytes fit in 32.
    group: usize,
}

impl Shape {
    /// Largest group for `m` token rows.
    fn widest(m: usize) -> usize {
        if m == 4 { 2 } else { 4 }
    }

    /// Registers of the `i`-th sums: token row `i`, or plane 1 of the only one.
    fn sums(self, i: usize) -> V {
        V::new(2 * self.group * i)
    }

    /// First register behind the sums.
    fn behind_sums(self) -> usize {
        2 * self.group * self.m.max(2)
    }

    /// Registers of plane `p`; plane 3 takes the place of the raw bytes, which it uses last.
    fn plane(self, p: usize) -> V {
        V::new(self.behind_sums() + self.group * ((p + 1) % 4))
    }

    fn raw(self, panel: usize) -> V {
        V::new(self.behind_sums() + self.group / self.panels * panel)
    }

    /// `vtype` of code bytes.
    fn bytes(self) -> (Sew, Lmul) {
        (Sew::E8, Lmul::of(self.group))
    }

    /// `vtype` of the sums of one token row.
    fn halves(self) -> (Sew, Lmul) {
        (Sew::E16, Lmul::of(2 * self.group))
    }
}

/// Code of the kernel for `m` token rows (1, 2 or 4), and its stack in bytes.
pub fn kernel(m: usize) -> (Vec<u8>, u32) {
    let mut asm = Asm::new();
    FRAME.enter(&mut asm);
    put(&mut asm, &[arg(ACC, micro_args::ACC), arg(W, micro_args::W), arg(PANELS_LEFT, micro_args::PANELS)]);
    let widest = Shape::widest(m);
    for (panels, group) in [(4, 4), (2, 2), (2, 4)] {
        if group <= widest {
            several_panels(&mut asm, Shape { m, panels, group });
        }
    }
    let one = Shape { m, panels: 1, group: widest };
    repeat(&mut asm, PANELS_LEFT, |asm| rows_of_panels(asm, one));
    FRAME.leave(&mut asm);
    // A hundred bytes or less.
    (asm.finish(), FRAME.bytes() as u32)
}

/// Takes `shape.panels` panels at a time while that many are left, on machines of the fitting vector length.
fn several_panels(asm: &mut Asm, shape: Shape) {
    let skip = asm.label();
    let bytes_per_register = int(64 * shape.panels / shape.group);
    put(asm, &[vsetvli(TMP[0], ZERO, Sew::E8, Lmul::M1), li(TMP[1], bytes_per_register)]);
    asm.branch(bne(TMP[0], TMP[1]), skip, patch_branch);
    while_left(asm, PANELS_LEFT, shape.panels, |asm| rows_of_panels(asm, shape));
    asm.bind(skip);
}

/// All rows of the next panels, as many at once as the registers hold; moves `ACC` and `W` past them.
fn rows_of_panels(asm: &mut Asm, shape: Shape) {
    let (sew, lmul) = shape.bytes();
    asm.word(li(ROWS_LEFT, int(NR * shape.panels)));
    let strip = asm.bound();
    asm.word(vsetvli(ROWS, ROWS_LEFT, sew, lmul));
    put(asm, &[mv(W_AT[0], W), arg(TMP[0], micro_args::W_PANEL_STRIDE)]);
    for pair in W_AT[..shape.panels].windows(2) {
        asm.word(add(pair[1], pair[0], TMP[0]));
    }
    asm.word(arg(Q_AT[0], micro_args::Q));
    token_rows(asm, &Q_AT[..shape.m], TMP[0]);
    asm.word(arg(BLOCKS_LEFT, micro_args::K_BLOCKS));
    for_chunks(asm, BLOCKS_LEFT, BLOCKS, |asm| chunk(asm, shape));
    put(asm, &[add(W, W, ROWS), slli(TMP[0], ROWS, 2), add(ACC, ACC, TMP[0]), sub(ROWS_LEFT, ROWS_LEFT, ROWS)]);
    asm.branch(bne(ROWS_LEFT, ZERO), strip, patch_branch);
    // The strips moved ACC over one token row of each panel, and W over one block of each.
    put(asm, &[addi(ACC, ACC, int(4 * NR * shape.panels * (shape.m - 1))), arg(TMP[0], micro_args::W_PANEL_STRIDE)]);
    for _ in 0..shape.panels {
        asm.word(add(W, W, TMP[0]));
    }
    asm.word(addi(W, W, -int(NR * shape.panels)));
}

/// `BLOCKS` blocks, and their sums into the accumulators.
fn chunk(asm: &mut Asm, shape: Shape) {
    let ((sew, lmul), (wide_sew, wide_lmul)) = (shape.bytes(), shape.halves());
    asm.word(vsetvli(ZERO, ROWS, wide_sew, wide_lmul));
    for i in 0..shape.m.max(2) {
        asm.word(vmv_v_i(shape.sums(i), 0));
    }
    asm.word(vsetvli(ZERO, ROWS, sew, lmul));
    let turn = |asm: &mut Asm, count: usize| {
        (0..count).for_each(|u| block(asm, shape, u));
        for q in &Q_AT[..shape.m] {
            asm.word(addi(*q, *q, int(KR * count)));
        }
    };
    while_left(asm, BLOCKS, UNROLL, |asm| turn(asm, UNROLL));
    repeat(asm, BLOCKS, |asm| turn(asm, 1));
    if shape.m == 1 {
        asm.word(vsetvli(ZERO, ROWS, wide_sew, wide_lmul));
        join_sums(asm, shape.sums(0), shape.sums(1));
    }
    if shape.panels > 1 {
        widen_panels(asm, shape);
    } else if shape.group == 4 {
        widen_halves(asm, shape);
    } else {
        widen(asm, shape);
    }
}

/// One block of four columns, the `u`-th behind the running addresses of the token rows.
fn block(asm: &mut Asm, shape: Shape, u: usize) {
    for (panel, w) in W_AT[..shape.panels].iter().enumerate() {
        let raw = shape.raw(panel);
        asm.word(match shape.group / shape.panels {
            _ if shape.panels == 1 => vle8(raw, *w),
            1 => vl1re8(raw, *w),
            _ => vl2re8(raw, *w),
        });
        asm.word(addi(*w, *w, int(NR)));
    }
    (0..KR).for_each(|p| unpack(asm, shape.plane(p), shape.raw(0), p, shape.m == 1));
    // Four activations are on their way while the multiplies of the four before run.
    let pairs: Vec<_> = (0..KR).flat_map(|p| (0..shape.m).map(move |t| (p, t))).collect();
    for four in pairs.chunks(TMP.len()) {
        for (q, (p, t)) in TMP.iter().zip(four) {
            asm.word(lb(*q, int(KR * u + p), Q_AT[*t]));
        }
        for (q, (p, t)) in TMP.iter().zip(four) {
            asm.word(vwmacc_vx(shape.sums(sums_of(shape.m, *p, *t)), *q, shape.plane(*p)));
        }
    }
}

/// Where 32-bit accumulators pass through; the planes are not needed any more.
fn wide() -> V {
    V::new(16)
}

/// Adds the sums to the accumulators where they fit in one group of eight registers.
fn widen(asm: &mut Asm, shape: Shape) {
    let (sew, lmul) = shape.halves();
    asm.word(vsetvli(ZERO, ROWS, sew, lmul));
    for t in 0..shape.m {
        put(asm, &[addi(TMP[0], ACC, int(4 * NR * t)), vle32(wide(), TMP[0])]);
        put(asm, &[vwadd_wv(wide(), wide(), shape.sums(t)), vse32(wide(), TMP[0])]);
    }
}

/// The same in two halves: eight registers of sums become sixteen. Which registers hold the upper half depends on
/// the vector length, so it is moved down by elements.
fn widen_halves(asm: &mut Asm, shape: Shape) {
    let (sew, lmul) = shape.halves();
    let (half, at) = (TMP[1], TMP[0]);
    asm.word(srli(half, ROWS, 1));
    for t in 0..shape.m {
        let sums = shape.sums(t);
        put(asm, &[vsetvli(ZERO, half, sew, Lmul::M4), addi(at, ACC, int(4 * NR * t)), vle32(wide(), at)]);
        put(asm, &[vwadd_wv(wide(), wide(), sums), vse32(wide(), at)]);
        put(asm, &[vsetvli(ZERO, ROWS, sew, lmul), vslidedown_vx(sums, sums, half)]);
        put(asm, &[vsetvli(ZERO, half, sew, Lmul::M4), addi(at, at, int(2 * NR)), vle32(wide(), at)]);
        put(asm, &[vwadd_wv(wide(), wide(), sums), vse32(wide(), at)]);
    }
}

/// The same for several panels, whose registers are known because the vector length is.
fn widen_panels(asm: &mut Asm, shape: Shape) {
    let per_panel = 2 * shape.group / shape.panels;
    put(asm, &[li(TMP[1], int(NR)), vsetvli(ZERO, TMP[1], Sew::E16, Lmul::of(per_panel))]);
    for panel in 0..shape.panels {
        for t in 0..shape.m {
            let sums = V::new(2 * shape.group * t + per_panel * panel);
            put(asm, &[addi(TMP[0], ACC, int(4 * NR * (panel * shape.m + t))), vle32(wide(), TMP[0])]);
            put(asm, &[vwadd_wv(wide(), wide(), sums), vse32(wide(), TMP[0])]);
        }
    }
}
