//! Copies between memories and loads of fractals.

use crate::isa::matrix::program::inst::{Copy, CopyForm, CopyPath, FRACTAL_BYTES, LoadL0, LoadTable, Side, Table};
use crate::isa::matrix::program::vec::BLOCK_BYTES;
use crate::isa::matrix::sim::access::Resolved;
use crate::isa::matrix::sim::exec::{slice, slice_mut};
use crate::isa::matrix::sim::memory::{Gm, Local};

pub fn copy(copy: &Copy, at: &Resolved, local: &mut Local, gm: &mut Gm) -> Option<()> {
    let len = copy.row_bytes as usize;
    for row in 0..u64::from(copy.rows) {
        let from = u64::try_from(at.src0).ok()? + row * u64::from(copy.src_stride);
        let src = match copy.path {
            CopyPath::GmToL1 | CopyPath::GmToUb => gm.read(from, len)?,
            CopyPath::UbToGm | CopyPath::UbToL1 => slice(&local.ub, usize::try_from(from).ok()?, len)?,
        };
        // One row: the borrow of its source ends before the destination is written.
        let src = src.to_vec();
        let to = u64::try_from(at.dst).ok()?;
        match copy.form {
            CopyForm::Linear => {
                let to = to + row * u64::from(copy.dst_stride);
                let dst = match copy.path {
                    CopyPath::GmToL1 | CopyPath::UbToL1 => slice_mut(&mut local.l1, usize::try_from(to).ok()?, len)?,
                    CopyPath::GmToUb => slice_mut(&mut local.ub, usize::try_from(to).ok()?, len)?,
                    CopyPath::UbToGm => gm.write(to, len)?,
                };
                dst.copy_from_slice(&src);
            }
            CopyForm::Nz => {
                for (column, bytes) in (0u64..).zip(src.chunks(BLOCK_BYTES as usize)) {
                    let to = to + column * u64::from(copy.dst_stride) + row * u64::from(BLOCK_BYTES);
                    let (to, len) = (usize::try_from(to).ok()?, BLOCK_BYTES as usize);
                    let dst = match copy.path {
                        CopyPath::GmToL1 | CopyPath::UbToL1 => slice_mut(&mut local.l1, to, len)?,
                        CopyPath::GmToUb => slice_mut(&mut local.ub, to, len)?,
                        CopyPath::UbToGm => gm.write(to as u64, len)?,
                    };
                    let (used, rest) = dst.split_at_mut(bytes.len());
                    used.copy_from_slice(bytes);
                    rest.fill(0);
                }
            }
        }
    }
    Some(())
}

pub fn load_l0(load: &LoadL0, at: &Resolved, local: &mut Local, l0a_is_nz: bool) -> Option<()> {
    let (rows, cols) = (usize::from(load.rows), usize::from(load.cols));
    let len = FRACTAL_BYTES as usize;
    let (src, dst) = (usize::try_from(at.src0).ok()?, usize::try_from(at.dst).ok()?);
    for row in 0..rows {
        for col in 0..cols {
            let fractal = slice(&local.l1, src + col * load.src_stride as usize + row * len, len)?;
            let index = fractal_index(load, row, col, l0a_is_nz);
            let memory = match load.side {
                Side::A => &mut local.l0a,
                Side::B => &mut local.l0b,
            };
            let to = slice_mut(memory, dst + index * len, len)?;
            if load.transpose {
                for (i, element) in fractal.chunks_exact(2).enumerate() {
                    let (r, c) = (i / 16, i % 16);
                    to[(c * 16 + r) * 2..][..2].copy_from_slice(element);
                }
            } else {
                to.copy_from_slice(fractal);
            }
        }
    }
    Some(())
}

/// Where fractal (row, col) of L1 goes, in the order that the operand has in L0.
fn fractal_index(load: &LoadL0, row: usize, col: usize, l0a_is_nz: bool) -> usize {
    let (rows, cols) = (usize::from(load.rows), usize::from(load.cols));
    // Rows and columns of the operand: k is outermost in L0B, and in L0A where it is Nz.
    let (outer, k, outers, ks) = if load.transpose { (col, row, cols, rows) } else { (row, col, rows, cols) };
    let k_first = match load.side {
        Side::A => l0a_is_nz,
        Side::B => true,
    };
    if k_first { k * outers + outer } else { outer * ks + k }
}

pub fn load_table(load: &LoadTable, at: &Resolved, local: &mut Local) -> Option<()> {
    let len = load.bytes as usize;
    let src = slice(&local.l1, usize::try_from(at.src0).ok()?, len)?;
    let table = match load.table {
        Table::Bias => &mut local.bt,
        Table::Scale => &mut local.fb,
    };
    slice_mut(table, usize::try_from(at.dst).ok()?, len)?.copy_from_slice(src);
    Some(())
}
