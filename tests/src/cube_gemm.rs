//! Plain matrix products for the matrix unit, as the published timings describe them: f16 `[m, k] · [n, k]ᵀ`, tiled.

use tcc_backends::isa::matrix::machine::Machine;
use tcc_backends::isa::matrix::program::addr::{Addr, Queue, Reg};
use tcc_backends::isa::matrix::program::builder::{ProgramBuilder, StreamBuilder};
use tcc_backends::isa::matrix::program::inst::{
    Copy, CopyForm, CopyPath, Count, Fix, FixLayout, FixPath, FixScale, FlagId, LoadL0, Mmad, MmadInit, Quant,
    ScalarOp, ScalarOperand, Side, UnitFlag, Update, Work,
};
use tcc_backends::isa::matrix::program::ty::{CubeType, ElemType};
use tcc_backends::isa::matrix::program::{CoreKind, Program, SymbolKind};

/// Shape, tiles and split of one product. `m` and `n` are multiples of the tiles and `k` of `bk * step`.
#[derive(Clone, Copy, Debug)]
pub struct Gemm {
    pub m: u32,
    pub n: u32,
    pub k: u32,
    pub bm: u32,
    pub bk: u32,
    pub bn: u32,
    /// Tiles along k that one transfer into L1 brings; 1 also means single buffers everywhere.
    pub step: u32,
    /// Rows and columns of a core's share, and the grid of cores.
    pub core_m: u32,
    pub core_n: u32,
    pub grid: (u32, u32),
    pub f32_out: bool,
    pub unit_flag: bool,
}

const A: Reg = reg(1);
const B: Reg = reg(2);
const C: Reg = reg(3);
const A_TILE: Reg = reg(4);
const B_TILE: Reg = reg(5);
const C_TILE: Reg = reg(6);
const M_TILES: Reg = reg(7);
const N_TILES: Reg = reg(8);
/// 0 and 1 in turn, per block of L1; and that times the size of a block.
const PARITY: Reg = reg(9);
const L1_BLOCK: Reg = reg(10);
const B_ROW: Reg = reg(11);

const fn reg(index: u8) -> Reg {
    match Reg::new(index) {
        Some(reg) => reg,
        None => Reg::ZERO,
    }
}

impl Gemm {
    fn is_double(&self) -> bool {
        self.step > 1
    }

    fn l1_block(&self) -> u32 {
        (self.bm + self.bn) * self.bk * self.step * 2
    }

    fn out_bytes(&self) -> u32 {
        if self.f32_out { 4 } else { 2 }
    }

    /// The program, for all cores of the grid.
    pub fn program(&self, machine: &Machine, kind: CoreKind) -> Program {
        let mut program = ProgramBuilder::new("gemm", machine);
        let (m, n, k) = (u64::from(self.m), u64::from(self.n), u64::from(self.k));
        program.symbol("a", SymbolKind::Weights, m * k * 2, "f16");
        program.symbol("b", SymbolKind::Weights, n * k * 2, "f16");
        program.symbol("c", SymbolKind::Output, m * n * u64::from(self.out_bytes()), "row-major");
        let op = program.op("gemm");
        // Grids of tests are small.
        let cores = (self.grid.0 * self.grid.1) as u16;
        let mut s = StreamBuilder::new(kind, cores);
        s.begin_op(op);
        let starts = self.starts([0, m * k * 2, m * k * 2 + n * k * 2].map(|b| b.next_multiple_of(512) as i64));
        for (reg, values) in [A, B, C, M_TILES, N_TILES].into_iter().zip(starts) {
            s.start(reg, values);
        }
        self.stream(&mut s);
        program.stage("gemm", vec![s.finish()]);
        program.finish().expect("a valid program")
    }

    /// Per core: addresses of A, B and C, tiles along m and n.
    fn starts(&self, [a, b, c]: [i64; 3]) -> [Vec<i64>; 5] {
        let mut starts: [Vec<i64>; 5] = Default::default();
        for row in 0..self.grid.0 {
            for column in 0..self.grid.1 {
                let (m0, n0) = (row * self.core_m, column * self.core_n);
                let (m, n) = ((self.m - m0).min(self.core_m), (self.n - n0).min(self.core_n));
                let [m0, n0, k, size] = [m0, n0, self.k, self.out_bytes()].map(i64::from);
                let values = [
                    a + m0 * k * 2,
                    b + n0 * k * 2,
                    c + (m0 * i64::from(self.n) + n0) * size,
                    i64::from(m.div_ceil(self.bm)),
                    i64::from(n.div_ceil(self.bn)),
                ];
                starts.iter_mut().zip(values).for_each(|(list, value)| list.push(value));
            }
        }
        starts
    }

    fn buffers(&self) -> u8 {
        if self.is_double() { 2 } else { 1 }
    }

    fn stream(&self, s: &mut StreamBuilder) {
        for id in 0..self.buffers() {
            s.set(Queue::Mte1, Queue::Mte2, FlagId::Fixed(id));
            s.set(Queue::M, Queue::Mte1, FlagId::Fixed(id));
        }
        if !self.unit_flag {
            s.set(Queue::Fix, Queue::M, FlagId::Fixed(0));
        }
        let row_a = i32::try_from(self.bm * self.k * 2).expect("small tiles");
        let row_b = i32::try_from(self.bn * self.k * 2).expect("small tiles");
        s.begin_loop(Count::Reg(M_TILES));
        s.scalar(ScalarOp::Add, B_ROW, B, ScalarOperand::Imm(0));
        s.scalar(ScalarOp::Add, C_TILE, C, ScalarOperand::Imm(0));
        s.begin_loop(Count::Reg(N_TILES));
        s.scalar(ScalarOp::Add, A_TILE, A, ScalarOperand::Imm(0));
        s.scalar(ScalarOp::Add, B_TILE, B_ROW, ScalarOperand::Imm(0));
        let blocks = self.k / (self.bk * self.step);
        self.k_block(s, true, blocks == 1);
        self.next_block(s);
        if blocks > 2 {
            s.begin_loop(Count::Fixed(blocks - 2));
            self.k_block(s, false, false);
            self.next_block(s);
            s.end_loop(&[]);
        }
        if blocks > 1 {
            self.k_block(s, false, true);
            self.next_block(s);
        }
        self.fix(s);
        let out = i32::try_from(self.bn * self.out_bytes()).expect("small tiles");
        s.end_loop(&[Update::Add(B_ROW, row_b), Update::Add(C_TILE, out)]);
        let rows = i32::try_from(self.bm * self.n * self.out_bytes()).expect("small tiles");
        s.end_loop(&[Update::Add(A, row_a), Update::Add(C, rows)]);
        if !self.unit_flag {
            s.wait(Queue::Fix, Queue::M, FlagId::Fixed(0));
        }
        for id in 0..self.buffers() {
            s.wait(Queue::M, Queue::Mte1, FlagId::Fixed(id));
            s.wait(Queue::Mte1, Queue::Mte2, FlagId::Fixed(id));
        }
    }

    fn next_block(&self, s: &mut StreamBuilder) {
        let step = i64::from(self.bk * self.step * 2);
        s.scalar(ScalarOp::Add, A_TILE, A_TILE, ScalarOperand::Imm(step));
        s.scalar(ScalarOp::Add, B_TILE, B_TILE, ScalarOperand::Imm(step));
        if self.is_double() {
            s.scalar(ScalarOp::Xor, PARITY, PARITY, ScalarOperand::Imm(1));
            s.scalar(ScalarOp::Mul, L1_BLOCK, PARITY, ScalarOperand::Imm(i64::from(self.l1_block())));
        }
    }

    /// Flag of the current block of L1.
    fn block(&self) -> FlagId {
        if self.is_double() { FlagId::Reg { base: 0, reg: PARITY } } else { FlagId::Fixed(0) }
    }

    fn load(&self, rows: u32, src: Reg, l1: u32) -> Work {
        Work::Copy(Copy {
            path: CopyPath::GmToL1,
            form: CopyForm::Nz,
            dst: Addr::behind(L1_BLOCK, l1 as i32),
            src: Addr::behind(src, 0),
            rows: rows as u16,
            row_bytes: self.bk * self.step * 2,
            src_stride: self.k * 2,
            dst_stride: rows * 32,
        })
    }

    /// One transfer into L1 and its products.
    fn k_block(&self, s: &mut StreamBuilder, is_first: bool, is_last: bool) {
        let b_l1 = self.bm * self.bk * self.step * 2;
        s.wait(Queue::Mte1, Queue::Mte2, self.block());
        s.push(self.load(self.bm, A_TILE, 0));
        s.push(self.load(self.bn, B_TILE, b_l1));
        s.set(Queue::Mte2, Queue::Mte1, self.block());
        s.wait(Queue::Mte2, Queue::Mte1, self.block());
        for step in 0..self.step {
            let half = step % u32::from(self.buffers());
            let id = FlagId::Fixed(half as u8);
            let l0 = |side, rows: u32, l1: u32| {
                Work::LoadL0(LoadL0 {
                    side,
                    dst: Addr::at((half * rows * self.bk * 2) as i32),
                    src: Addr::behind(L1_BLOCK, (l1 + step * rows * self.bk * 2) as i32),
                    rows: (rows / 16) as u16,
                    cols: (self.bk / 16) as u16,
                    src_stride: rows * 32,
                    transpose: false,
                })
            };
            s.wait(Queue::M, Queue::Mte1, id);
            s.push(l0(Side::A, self.bm, 0));
            s.push(l0(Side::B, self.bn, b_l1));
            s.set(Queue::Mte1, Queue::M, id);
            if step + 1 == self.step {
                s.set(Queue::Mte1, Queue::Mte2, self.block());
            }
            s.wait(Queue::Mte1, Queue::M, id);
            let (starts, ends) = (is_first && step == 0, is_last && step + 1 == self.step);
            if starts && !self.unit_flag {
                s.wait(Queue::Fix, Queue::M, FlagId::Fixed(0));
            }
            // With single buffers the flags from and to MTE1 already order one product behind the other.
            if self.is_double() && !starts && (self.bm / 16) * (self.bn / 16) < 10 {
                s.bar(Queue::M);
            }
            s.push(self.mmad(half, starts, ends));
            s.set(Queue::M, Queue::Mte1, id);
        }
    }

    fn mmad(&self, half: u32, starts: bool, ends: bool) -> Work {
        let unit_flag = match (self.unit_flag, ends) {
            (false, _) => UnitFlag::Off,
            (true, false) => UnitFlag::Keep,
            (true, true) => UnitFlag::Last,
        };
        Work::Mmad(Mmad {
            ty: CubeType::F16,
            c: Addr::at(0),
            a: Addr::at((half * self.bm * self.bk * 2) as i32),
            b: Addr::at((half * self.bn * self.bk * 2) as i32),
            m: self.bm as u16,
            k: self.bk as u16,
            n: self.bn as u16,
            init: if starts { MmadInit::Zero } else { MmadInit::Accumulate },
            unit_flag,
        })
    }

    fn fix(&self, s: &mut StreamBuilder) {
        if !self.unit_flag {
            s.order(Queue::M, Queue::Fix, 0);
        }
        s.push(Work::Fix(Fix {
            path: FixPath::Gm,
            dst: Addr::behind(C_TILE, 0),
            src: Addr::at(0),
            m: self.bm as u16,
            n: self.bn as u16,
            from: ElemType::F32,
            src_stride: self.bm * 64,
            dst_stride: self.n * self.out_bytes(),
            quant: if self.f32_out { Quant::Keep } else { Quant::F32ToF16 },
            scale: FixScale::Tile(1.0),
            relu: false,
            layout: FixLayout::RowMajor,
            unit_flag: if self.unit_flag { UnitFlag::Last } else { UnitFlag::Off },
        }));
        if !self.unit_flag {
            s.set(Queue::Fix, Queue::M, FlagId::Fixed(0));
        }
    }
}
