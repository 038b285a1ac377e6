//! Scores of many queries over an int8 cache on the cube of a coupled core.
//!
//! The two planes of a tile's query codes are rows of L0A for as long as the tile lasts, high ones first; rows of keys, as
//! they lie in the cache, are columns. Sums of 32 positions leave L0C for UB, where the vector unit puts the planes
//! together: `128 · high + low` is exact in s32. Values are in [`values`](super::values).

use tcc_ir::attention_codes::{PLANE, PLANE_BITS};

use super::step::Step;
use super::{AT, Attention, Tile, Way, flag, in_eights, values};
use crate::isa::matrix::lower::emit::{Emit, S32, Second, Types, dense, strided};
use crate::isa::matrix::lower::matmul::tile::Memories;
use crate::isa::matrix::lower::vector::behind;
use crate::isa::matrix::lower::vector::cache::pitch;
use crate::isa::matrix::program::addr::{Addr, Queue};
use crate::isa::matrix::program::inst::{
    Copy, CopyForm, CopyPath, Fix, FixLayout, FixPath, FixScale, LoadL0, Mmad, MmadInit, Quant, Side, UnitFlag, Work,
};
use crate::isa::matrix::program::ty::{CubeType, ElemType};
use crate::isa::matrix::program::vec::VecOp;

/// Positions of a step: columns of a product of scores, the sums of one of values.
pub const POSITIONS: usize = 32;

/// Bytes of a fractal's row.
pub const STRIP: usize = 32;

/// Bytes of the identity `s8[32, 32]`, which stays in front of L1 and of L0A.
pub const IDENTITY: usize = STRIP * STRIP;

/// Slots of one each, by the queues that they lie between: forward the one way, free again the other way.
const RING: [(Queue, Queue); 4] =
    [(Queue::Mte2, Queue::Mte1), (Queue::Mte1, Queue::M), (Queue::M, Queue::Fix), (Queue::Fix, Queue::V)];

/// True if `tile` is multiplied on the cube with these memories.
pub fn fits(memories: &Memories, a: &Attention, tile: &Tile) -> bool {
    let at = L1::of(a, tile);
    let (queries, rows) = (at.rows - at.codes, at.turned - at.rows);
    a.cache.has_scales()
        && tile.way == Way::Queries
        && tile.batch * tile.unit == POSITIONS
        && IDENTITY + queries <= memories.l0a
        && 2 * rows <= memories.l0b
        && at.end <= memories.l1
        // Sums of values, and turned ones.
        && 4 * queries + 4 * rows <= memories.l0c
}

/// What lies in L1 behind the identity, each part in whole fractals.
pub struct L1 {
    /// Both planes of the query codes, `[pitch / 32][2 * rows][32]`.
    pub codes: usize,
    /// Rows of keys or of values, `[pitch / 32][32 positions][32]`.
    pub rows: usize,
    /// Values with the positions of an element side by side, `[pitch][32 positions]`.
    pub turned: usize,
    /// Both planes of the codes of weights, `[2 * rows][32 positions]`.
    pub weights: usize,
    end: usize,
}

impl L1 {
    pub fn of(a: &Attention, tile: &Tile) -> L1 {
        let (pitch, both) = (pitch(&a.cache), 2 * rows(tile));
        let rows = IDENTITY + both * pitch;
        let turned = rows + POSITIONS * pitch;
        let weights = turned + POSITIONS * pitch;
        L1 { codes: IDENTITY, rows, turned, weights, end: weights + both * STRIP }
    }
}

/// Rows of a plane in L0A: whole fractals.
pub fn rows(tile: &Tile) -> usize {
    tile.queries().next_multiple_of(16)
}

/// Sets, or takes, the flags that say that slots are free.
pub fn presets(e: &mut Emit, is_start: bool) {
    let slots = RING.map(|ring| (ring, flag::CUBE)).into_iter().chain(values::RING.map(|ring| (ring, flag::TURNED)));
    for ((src, dst), id) in slots {
        if is_start { e.set(dst, src, id) } else { e.wait(dst, src, id) }
    }
}

/// A fixed address in a local memory.
pub fn at(offset: usize) -> Addr {
    // Local memories are far below 2^26 bytes.
    Addr::at(offset as i32)
}

/// Loads `rows` rows of `row_bytes`, in fractals at `src` in L1, to a place in L0A or L0B.
pub fn load_operand(e: &mut Emit, (side, dst): (Side, usize), src: usize, (rows, row_bytes): (usize, usize)) {
    // Sizes of L0: below 65536 fractals.
    e.push(Work::LoadL0(LoadL0 {
        side,
        dst: at(dst),
        src: at(src),
        rows: (rows / 16) as u16,
        cols: (row_bytes / STRIP) as u16,
        src_stride: (rows * STRIP) as u32,
        transpose: false,
    }));
}

/// Narrows `count` elements of both planes from s32 to s8, in place: a repeat reads all that it overwrites, and the ones
/// behind it lie further on.
pub fn narrow(e: &mut Emit, planes: [usize; 2], count: usize) {
    let types: Types = (ElemType::S8, ElemType::S32);
    planes.into_iter().for_each(|plane| e.each(VecOp::Cast, types, plane, plane, Second::None, count));
}

/// A product of `m` rows in L0A, `n` columns in L0B and `k` bytes of each, at `c`, `a` and `b`.
pub fn multiply(e: &mut Emit, [c, a, b]: [usize; 3], [m, k, n]: [usize; 3], init: MmadInit) {
    // Rows of a tile and elements of a head: within the fields.
    e.push(Work::Mmad(Mmad {
        ty: CubeType::S8,
        c: at(c),
        a: at(a),
        b: at(b),
        m: m as u16,
        k: k as u16,
        n: n as u16,
        init,
        unit_flag: UnitFlag::Off,
    }));
}

/// Sums `s32[m, n]` at `src` in L0C, whose columns of fractals are `columns` bytes apart, to rows of `n` elements at `dst`
/// in UB.
pub fn sums_to_ub(e: &mut Emit, dst: usize, (src, columns): (usize, usize), [m, n]: [usize; 2], quant: Quant) {
    let row_bytes = n * if quant == Quant::S32ToS8 { 1 } else { 4 };
    e.push(Work::Fix(Fix {
        path: FixPath::Ub,
        dst: at(dst),
        src: at(src),
        m: m as u16,
        n: n as u16,
        from: ElemType::S32,
        src_stride: columns as u32,
        dst_stride: row_bytes as u32,
        quant,
        scale: FixScale::Tile(1.0),
        relu: false,
        layout: FixLayout::RowMajor,
        unit_flag: UnitFlag::Off,
    }));
}

impl Step<'_> {
    /// Brings the query codes, f32 in order, to L0A in two planes.
    pub fn codes_to_cube(&self, e: &mut Emit) {
        let (q, lo, pitch, rows) = (self.at.q, self.at.lo, pitch(&self.a.cache), rows(self.tile));
        let count = self.tile.queries() * pitch;
        e.each(VecOp::Cast, (ElemType::S32, ElemType::F32), lo, q, Second::None, count);
        e.each(VecOp::And, S32, q, lo, Second::Bits(u32::from(PLANE) - 1), count);
        e.each(VecOp::Shr, S32, lo, lo, Second::Bits(PLANE_BITS), count);
        narrow(e, [lo, q], count);
        e.after(Queue::V, Queue::Mte3);
        // The tile before is through with L1 and with L0A.
        e.after(Queue::Mte1, Queue::Mte3);
        e.after(Queue::M, Queue::Mte1);
        for (plane, from) in [lo, q].into_iter().enumerate() {
            // Rows behind the last query have sums that nothing reads. Tiles of one UB: below 65536 rows.
            e.push(Work::Copy(Copy {
                path: CopyPath::UbToL1,
                form: CopyForm::Nz,
                dst: at(L1::of(self.a, self.tile).codes + plane * rows * STRIP),
                src: at(from),
                rows: rows as u16,
                row_bytes: pitch as u32,
                src_stride: pitch as u32,
                dst_stride: (2 * rows * STRIP) as u32,
            }));
        }
        e.after(Queue::Mte3, Queue::Mte1);
        // Sums take the place of the codes.
        e.after(Queue::Mte3, Queue::Fix);
        load_operand(e, (Side::A, IDENTITY), L1::of(self.a, self.tile).codes, (2 * rows, pitch));
    }

    /// Waits until the slot in front of `RING[index]` is free, writes it, and lets the next queue go on.
    pub fn through(e: &mut Emit, index: usize, write: impl FnOnce(&mut Emit)) {
        let (src, dst) = RING[index];
        e.wait(dst, src, flag::CUBE);
        write(e);
        e.set(src, dst, flag::CUBE);
        e.wait(src, dst, flag::CUBE);
    }

    /// Gives the slot in front of `RING[index]` back.
    pub fn free(e: &mut Emit, index: usize) {
        let (src, dst) = RING[index];
        e.set(dst, src, flag::CUBE);
    }

    /// Brings the step's rows of keys or values to L0B, as the cube's columns.
    pub fn rows_to_cube(&self, e: &mut Emit) {
        let (cache, rows) = (&self.a.cache, L1::of(self.a, self.tile).rows);
        Step::through(e, 0, |e| {
            // Rows of a cache and of a tile: within the fields.
            e.push(Work::Copy(Copy {
                path: CopyPath::GmToL1,
                form: CopyForm::Nz,
                dst: at(rows),
                src: behind(AT, 0),
                rows: POSITIONS as u16,
                row_bytes: cache.d as u32,
                src_stride: cache.row_bytes() as u32,
                dst_stride: (POSITIONS * STRIP) as u32,
            }));
        });
        Step::through(e, 1, |e| load_operand(e, (Side::B, 0), rows, (POSITIONS, pitch(cache))));
        Step::free(e, 0);
    }

    /// Sums of the step's positions for all queries: `s32[2, rows, 32]` at `At::lo`.
    pub fn cube_sums(&self, e: &mut Emit) {
        let (cache, m) = (&self.a.cache, 2 * rows(self.tile));
        self.rows_to_cube(e);
        Step::through(e, 2, |e| {
            multiply(e, [0, IDENTITY, 0], [m, pitch(cache), POSITIONS], MmadInit::Zero);
        });
        Step::free(e, 1);
        Step::through(e, 3, |e| {
            sums_to_ub(e, self.at.lo, (0, 64 * m), [m, POSITIONS], Quant::Keep);
        });
        Step::free(e, 2);
    }

    /// Puts the planes of unit `unit` of the step together at `At::s`, rounded once; frees them behind the last unit.
    pub fn join_planes(&self, e: &mut Emit, unit: usize) {
        let (s, high) = (self.at.s, self.at.lo + 32 * unit);
        let low = high + 4 * POSITIONS * rows(self.tile);
        let queries = self.tile.queries();
        // A repeat has eight queries, eight positions of each.
        for (first, repeats, lanes) in in_eights(queries) {
            let of = |sums: usize| strided(sums + 4 * POSITIONS * first, POSITIONS / 8, POSITIONS);
            let s = dense(s + 32 * first);
            e.vec(VecOp::Shl, S32, s, of(high), Second::Bits(PLANE_BITS), repeats, lanes);
            e.vec(VecOp::Add, S32, s, s, Second::Vector(of(low)), repeats, lanes);
        }
        if unit + 1 == POSITIONS / self.tile.unit {
            Step::free(e, 3);
        }
        e.each(VecOp::Cast, (ElemType::F32, ElemType::S32), s, s, Second::None, self.pairs());
    }
}
