//! Values of an int8 cache times the weights of many queries, on the cube of a coupled core.
//!
//! A product needs the positions of an element side by side, and no load turns bytes. So the cube does: the identity times
//! rows of values is `s32[element, position]`, which leaves L0C as s8, and goes from UB to L1 and back to L0B. The two planes
//! of the codes of weights are rows of L0A, and their sums stay in L0C until the pass is over: they are exact in s32.

use tcc_ir::attention_codes::{PLANE, PLANE_BITS};

use super::codes::TO_F32;
use super::cube::{IDENTITY, L1, POSITIONS, STRIP, at, load_operand, multiply, narrow, rows, sums_to_ub};
use super::step::Step;
use super::{flag, in_eights};
use crate::isa::matrix::lower::emit::{Emit, F32, S32, Second, dense, strided};
use crate::isa::matrix::lower::vector::cache::pitch;
use crate::isa::matrix::program::addr::Queue;
use crate::isa::matrix::program::inst::{Copy, CopyForm, CopyPath, MmadInit, Quant, Side, Work};
use crate::isa::matrix::program::vec::VecOp;

/// Slots of one each: turned values in UB, planes of weights there, both of them in L1, and in L0.
pub const RING: [(Queue, Queue); 4] =
    [(Queue::Fix, Queue::Mte3), (Queue::V, Queue::Mte3), (Queue::Mte3, Queue::Mte1), (Queue::Mte1, Queue::M)];

/// Elements whose high sums leave L0C together.
const COLUMNS: usize = 64;

/// `rows` rows of one strip from UB to L1.
fn strip_to_l1(e: &mut Emit, dst: usize, src: usize, rows: usize) {
    // Rows of a tile and elements of a head: below 65536.
    e.push(Work::Copy(Copy {
        path: CopyPath::UbToL1,
        form: CopyForm::Nz,
        dst: at(dst),
        src: at(src),
        rows: rows as u16,
        row_bytes: STRIP as u32,
        src_stride: STRIP as u32,
        dst_stride: (rows * STRIP) as u32,
    }));
}

/// Puts the identity in front of L1 and of L0A. Nothing else lies in UB yet.
pub fn identity(e: &mut Emit) {
    let (ones, identity) = (0, IDENTITY);
    for byte in 0..4 {
        // Every fourth row, a one in this byte of each word.
        let rows = strided(ones + STRIP * byte, 1, 4);
        e.vec(VecOp::Dup, F32, rows, rows, Second::Bits(1 << (8 * byte)), STRIP / 4, STRIP / 4);
    }
    e.fill(identity, 0, IDENTITY / 4);
    for word in 0..STRIP / 4 {
        // Of four rows all words up to the one on the diagonal, then zeros in front of it.
        let of = |base: usize| strided(base + 4 * STRIP * word, 1, 1);
        e.vec(VecOp::Mov, F32, of(identity), of(ones), Second::None, 4, word + 1);
        if word > 0 {
            e.vec(VecOp::Dup, F32, of(identity), of(identity), Second::Bits(0), 4, word);
        }
    }
    e.after(Queue::V, Queue::Mte3);
    strip_to_l1(e, 0, identity, STRIP);
    e.after(Queue::Mte3, Queue::Mte1);
    load_operand(e, (Side::A, 0), 0, (STRIP, STRIP));
    e.after(Queue::Mte1, Queue::M);
    e.stored();
}

impl Step<'_> {
    /// Bytes of one column of fractals of the sums in L0C, whose rows are those of both planes.
    fn column_bytes(&self) -> usize {
        2 * rows(self.tile) * 64
    }

    /// Turned values in L0C lie behind the sums.
    fn turned_sums(&self) -> usize {
        pitch(&self.a.cache) / 16 * self.column_bytes()
    }

    /// UB of the planes of weights, `s8[rows, 32]` in the end: the high one, the low one.
    fn weight_planes(&self) -> [usize; 2] {
        let high = self.at.scratch;
        [high, high + 4 * POSITIONS * self.tile.queries()]
    }

    /// Sums of zero: weights of zero times query codes.
    pub fn clear_sums(&self, e: &mut Emit) {
        // Scores are through with L0A and with L0C.
        e.after(Queue::M, Queue::Mte1);
        e.after(Queue::Fix, Queue::M);
        e.wait(Queue::Mte3, Queue::V, flag::TURNED);
        let planes = self.weight_planes();
        planes.into_iter().for_each(|plane| e.fill(plane, 0, rows(self.tile) * STRIP / 4));
        e.wait(Queue::Mte1, Queue::Mte3, flag::TURNED);
        self.add_product(e, planes, L1::of(self.a, self.tile).codes, MmadInit::Zero);
    }

    /// Brings the step's values to L1, turned.
    pub fn turn_values(&self, e: &mut Emit) {
        let pitch = pitch(&self.a.cache);
        let (turned, size) = (self.turned_sums(), 4 * STRIP * POSITIONS);
        self.rows_to_cube(e);
        Step::through(e, 2, |e| {
            for strip in 0..pitch / STRIP {
                let operands = [turned + size * strip, 0, STRIP * POSITIONS * strip];
                multiply(e, operands, [STRIP, STRIP, POSITIONS], MmadInit::Zero);
            }
        });
        Step::free(e, 1);
        e.wait(Queue::Mte3, Queue::Fix, flag::TURNED);
        for strip in 0..pitch / STRIP {
            let dst = self.at.wide + STRIP * POSITIONS * strip;
            sums_to_ub(e, dst, (turned + size * strip, 64 * STRIP), [STRIP, POSITIONS], Quant::S32ToS8);
        }
        e.set(Queue::Fix, Queue::Mte3, flag::TURNED);
        e.wait(Queue::Fix, Queue::Mte3, flag::TURNED);
        Step::free(e, 2);
        e.wait(Queue::Mte1, Queue::Mte3, flag::TURNED);
        strip_to_l1(e, L1::of(self.a, self.tile).turned, self.at.wide, pitch);
        e.set(Queue::Mte3, Queue::Fix, flag::TURNED);
    }

    /// Adds the turned values times the codes of weights at `At::x`, `s32[units][queries][8]`, to the sums.
    pub fn add_on_cube(&self, e: &mut Emit, units: usize) {
        let (x, queries, pairs) = (self.at.x, self.tile.queries(), self.pairs());
        let planes @ [high, low] = self.weight_planes();
        e.wait(Queue::Mte3, Queue::V, flag::TURNED);
        for unit in 0..units {
            // A repeat puts eight queries' blocks in their rows of 32 positions.
            for (first, repeats, lanes) in in_eights(queries) {
                let codes = dense(x + 4 * unit * pairs + 32 * first);
                let of = |plane: usize| strided(plane + 4 * POSITIONS * first + 32 * unit, units, 8 * units);
                let shift = Second::Bits(PLANE_BITS);
                e.vec(VecOp::Shr, S32, of(high), codes, shift, repeats, lanes);
                e.vec(VecOp::And, S32, of(low), codes, Second::Bits(u32::from(PLANE) - 1), repeats, lanes);
            }
        }
        narrow(e, planes, queries * POSITIONS);
        self.add_product(e, planes, L1::of(self.a, self.tile).turned, MmadInit::Accumulate);
    }

    /// Brings `planes` from UB to the cube and multiplies them with the columns `s8[pitch, 32]` at `columns` in L1. The slot in
    /// L1 is taken.
    fn add_product(&self, e: &mut Emit, planes: [usize; 2], columns: usize, init: MmadInit) {
        let (pitch, rows, weights) = (pitch(&self.a.cache), rows(self.tile), L1::of(self.a, self.tile).weights);
        let to = |e: &mut Emit, src, dst| {
            e.set(src, dst, flag::TURNED);
            e.wait(src, dst, flag::TURNED);
        };
        to(e, Queue::V, Queue::Mte3);
        for (plane, from) in planes.into_iter().enumerate() {
            // Rows behind the last query have sums that nothing reads.
            strip_to_l1(e, weights + plane * rows * STRIP, from, rows);
        }
        e.set(Queue::Mte3, Queue::V, flag::TURNED);
        to(e, Queue::Mte3, Queue::Mte1);
        e.wait(Queue::M, Queue::Mte1, flag::TURNED);
        let turned = POSITIONS * pitch;
        load_operand(e, (Side::B, turned), columns, (pitch, STRIP));
        load_operand(e, (Side::A, IDENTITY), weights, (2 * rows, STRIP));
        to(e, Queue::Mte1, Queue::M);
        e.set(Queue::Mte1, Queue::Mte3, flag::TURNED);
        // Few fractals of sums may still be written by the product before.
        e.bar(Some(Queue::M));
        multiply(e, [0, IDENTITY, turned], [2 * rows, POSITIONS, pitch], init);
        e.set(Queue::M, Queue::Mte1, flag::TURNED);
    }

    /// Sums of a plane out of L0C to `f32[queries, columns]` at `dst`, for `columns` elements from `first` on.
    fn take_sums(&self, e: &mut Emit, (plane, dst): (usize, usize), first: usize, columns: usize) {
        let src = first / 16 * self.column_bytes() + plane * rows(self.tile) * 64;
        sums_to_ub(e, dst, (src, self.column_bytes()), [self.tile.queries(), columns], Quant::Keep);
    }

    /// The sums of values, f32, at `At::out`: both planes together, rounded once. `carried` has room for 64 elements of each
    /// query; weights are lost.
    pub fn cube_values(&self, e: &mut Emit, carried: usize) {
        let (out, queries, pitch) = (self.at.out, self.tile.queries(), pitch(&self.a.cache));
        let (h, carried) = (self.at.loaded, dense(carried));
        // All products are done.
        Step::through(e, 2, |_| ());
        for (column, lanes) in self.columns() {
            let first = column / 4;
            let columns = COLUMNS.min(pitch - first);
            Step::through(e, 3, |e| {
                if first == 0 {
                    self.take_sums(e, (1, out), 0, pitch);
                }
                self.take_sums(e, (0, h), first, columns);
            });
            let (low, high) = (strided(out + column, 1, pitch / 8), strided(h, 1, columns / 8));
            let shift = Second::Bits(PLANE_BITS);
            e.vec(VecOp::Shr, S32, carried, low, shift, queries, lanes);
            e.vec(VecOp::And, S32, low, low, Second::Bits(u32::from(PLANE) - 1), queries, lanes);
            e.vec(VecOp::Add, S32, high, high, Second::Vector(carried), queries, lanes);
            e.vec(VecOp::Cast, TO_F32, low, low, Second::None, queries, lanes);
            e.vec(VecOp::Cast, TO_F32, high, high, Second::None, queries, lanes);
            e.vec(VecOp::Mla, F32, low, high, Second::f32(f32::from(PLANE)), queries, lanes);
            Step::free(e, 3);
        }
        Step::free(e, 2);
    }
}

#[cfg(test)]
mod tests {
    use tcc_ir::attention_codes::{MOST_POSITIONS, PLANE, WEIGHT_MAX};

    /// What the sums of a plane may reach in L0C.
    #[test]
    fn sums_of_a_plane_fit_s32() {
        let largest = (PLANE - 1).max(WEIGHT_MAX / PLANE);
        let sum = -128 * i64::from(largest) * MOST_POSITIONS as i64;
        assert!(sum >= i64::from(i32::MIN), "{sum}");
    }
}
