//! Whether an operand lies as the instruction that wrote it left it: order of fractals, distance of their columns, type of
//! sums. Bytes that came from global memory as they were are trusted: what they hold is known to no record.

use crate::isa::matrix::program::inst::{
    Copy, CopyForm, FRACTAL, Fix, FixLayout, Inst, LoadL0, Mmad, MmadInit, Side, Work,
};
use crate::isa::matrix::program::vec::BLOCK_BYTES;
use crate::isa::matrix::sim::access::{fix_width, mmad_fractals};

/// What is wrong with reading, by `reader`, what `writer` wrote; `l0a_is_nz` says how the machine orders L0A.
pub(crate) fn mismatch(writer: &Inst, reader: &Inst, l0a_is_nz: bool) -> Option<String> {
    if let (Inst::Work(Work::LoadL0(load)), Inst::Work(Work::Mmad(mmad))) = (writer, reader) {
        operand(load, mmad, l0a_is_nz)
    } else if let (Inst::Work(Work::Mmad(before)), Inst::Work(Work::Mmad(mmad))) = (writer, reader) {
        (mmad.init == MmadInit::Accumulate).then(|| sums(before, mmad)).flatten()
    } else if let (Inst::Work(Work::Mmad(mmad)), Inst::Work(Work::Fix(fix))) = (writer, reader) {
        result(mmad, fix)
    } else if let (Inst::Work(Work::Fix(fix)), Inst::Work(Work::LoadL0(load))) = (writer, reader) {
        from_fix(fix, load)
    } else if let (Inst::Work(Work::Copy(copy)), Inst::Work(Work::LoadL0(load))) = (writer, reader) {
        from_copy(copy, load)
    } else {
        None
    }
}

fn differ(what: &str, has: u32, needs: u32) -> Option<String> {
    (has != needs).then(|| format!("{what}: {has} as written, {needs} as read"))
}

/// Fractals of an operand in L0: the ones that follow each other must be those that the product takes for neighbors.
fn operand(load: &LoadL0, mmad: &Mmad, l0a_is_nz: bool) -> Option<String> {
    let (m1, n1, k1) = mmad_fractals(mmad);
    let (rows, cols) = (u32::from(load.rows), u32::from(load.cols));
    // A transposed load has k in its rows.
    let (outer, k) = if load.transpose { (cols, rows) } else { (rows, cols) };
    match load.side {
        Side::A if l0a_is_nz && k1 > 1 => differ("fractals of a column of A", outer, m1),
        Side::A if !l0a_is_nz && m1 > 1 => differ("fractals of a row of A", k, k1),
        Side::B if k1 > 1 => differ("fractals of a column of B", outer, n1),
        Side::A | Side::B => None,
    }
}

/// Sums that a product adds to.
fn sums(before: &Mmad, mmad: &Mmad) -> Option<String> {
    let (has, needs) = (before.ty.accumulator(), mmad.ty.accumulator());
    if has != needs {
        return Some(format!("sums of type {}, added to as {}", has.name(), needs.name()));
    }
    let ((had_m1, ..), (m1, n1, _)) = (mmad_fractals(before), mmad_fractals(mmad));
    if n1 > 1 { differ("fractals of a column of sums", had_m1, m1) } else { None }
}

/// Sums that leave L0C.
fn result(mmad: &Mmad, fix: &Fix) -> Option<String> {
    let has = mmad.ty.accumulator();
    if has != fix.from {
        return Some(format!("sums of type {}, read as {}", has.name(), fix.from.name()));
    }
    let (m1, ..) = mmad_fractals(mmad);
    let column = m1 * FRACTAL * FRACTAL * has.bits() / 8;
    if u32::from(fix.n) > FRACTAL { differ("bytes between columns of sums", column, fix.src_stride) } else { None }
}

fn from_fix(fix: &Fix, load: &LoadL0) -> Option<String> {
    match fix.layout {
        FixLayout::RowMajor => Some("rows in L1, read as fractals".to_owned()),
        FixLayout::Nz if u32::from(fix.n) > fix_width(fix) && load.cols > 1 => {
            differ("bytes between columns in L1", fix.dst_stride, load.src_stride)
        }
        FixLayout::Nz => None,
    }
}

fn from_copy(copy: &Copy, load: &LoadL0) -> Option<String> {
    match copy.form {
        CopyForm::Nz if copy.row_bytes > BLOCK_BYTES && load.cols > 1 => {
            differ("bytes between columns in L1", copy.dst_stride, load.src_stride)
        }
        CopyForm::Nz | CopyForm::Linear => None,
    }
}
