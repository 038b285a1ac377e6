//! Cycles of one instruction: its work, and the latency beside it. `docs/matrix.md` has the formulas.

use crate::isa::matrix::machine::tagged::{Latency, Tag};
use crate::isa::matrix::machine::{Machine, Path};
use crate::isa::matrix::program::inst::{CopyForm, CopyPath, FRACTAL_BYTES, FixPath, Inst, Side, Table, Work};
use crate::isa::matrix::program::vec::Vector;
use crate::isa::matrix::sim::access::{fix_width, mmad_fractals};

/// What an instruction costs in its queue, traffic of global memory aside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub latency: Latency,
    pub work: f64,
}

const FREE: Latency = Latency { alone: 0.0, back_to_back: 0.0, tag: Tag::Derived };

/// Latency and work; `Err` names what the machine lacks.
pub(crate) fn cost(inst: &Inst, machine: &Machine) -> Result<Cost, &'static str> {
    let p = &machine.path;
    match inst {
        Inst::Work(Work::Copy(copy)) => {
            let path = match copy.path {
                CopyPath::GmToL1 => Some(&p.gm_l1),
                CopyPath::GmToUb => Some(&p.gm_ub),
                CopyPath::UbToGm => Some(&p.ub_gm),
                CopyPath::UbToL1 => p.ub_l1.as_ref(),
            };
            let path = path.ok_or("the machine has no path UB to L1")?;
            let bytes = f64::from(copy.rows) * f64::from(copy.row_bytes);
            let rate = match copy.form {
                CopyForm::Linear => path.rate.value,
                CopyForm::Nz => row_rate(path, copy.row_bytes),
            };
            Ok(Cost { latency: path.dt, work: bytes / rate })
        }
        Inst::Work(Work::LoadL0(load)) => {
            let path = match load.side {
                Side::A => &p.l1_l0a,
                Side::B => &p.l1_l0b,
            };
            let bytes = f64::from(load.rows) * f64::from(load.cols) * f64::from(FRACTAL_BYTES);
            Ok(Cost { latency: path.dt, work: bytes / path.rate.value })
        }
        Inst::Work(Work::LoadTable(load)) => {
            let path = match load.table {
                Table::Bias => p.l1_bt.as_ref().ok_or("the machine has no bias table")?,
                Table::Scale => p.l1_fb.as_ref().ok_or("the machine has no scale table")?,
            };
            Ok(Cost { latency: path.dt, work: f64::from(load.bytes) / path.rate.value })
        }
        Inst::Work(Work::Mmad(mmad)) => {
            let mode = machine.cube_mode(mmad.ty).ok_or("the machine's cube has no such mode")?;
            let (m1, _, k1) = mmad_fractals(mmad);
            let columns = u32::from(mmad.n).div_ceil(mode.mkn[2]);
            let steps = f64::from(m1) * f64::from(columns) * f64::from(k1);
            let per_step = f64::from(mmad.ty.k0()) / f64::from(mode.k_per_cycle);
            Ok(Cost { latency: mode.dt, work: steps * per_step })
        }
        Inst::Work(Work::Fix(fix)) => {
            let path = match fix.path {
                FixPath::Gm => Some(&p.l0c_gm),
                FixPath::L1 => p.l0c_l1.as_ref(),
                FixPath::Ub | FixPath::Ub1 => p.l0c_ub.as_ref(),
            };
            let path = path.ok_or("the machine has no such path out of L0C")?;
            let columns = f64::from(u32::from(fix.n).next_multiple_of(fix_width(fix)));
            let elements = f64::from(fix.m) * columns;
            let bytes = elements * f64::from(fix.quant.result_bits(fix.from.bits())) / 8.0;
            let by_elements = path.elements.map_or(0.0, |e| elements / e.value);
            Ok(Cost { latency: path.dt, work: (bytes / path.rate.value).max(by_elements) })
        }
        Inst::Work(Work::Vec(vector)) => Ok(vector_cost(vector, machine)),
        Inst::Order(_) | Inst::Control(_) | Inst::ScalarLoad(_) => Ok(Cost { latency: FREE, work: 0.0 }),
    }
}

fn vector_cost(vector: &Vector, machine: &Machine) -> Cost {
    let slope = machine.vector_slope(vector.op.row().cost_with(vector.src1));
    let is_full = u32::from(vector.lanes) == Vector::lanes_of(vector.dst_ty, vector.src_ty);
    let unaligned = if is_full { 0.0 } else { machine.vector.unaligned.value };
    Cost { latency: machine.vector.head, work: f64::from(vector.repeats) * slope + unaligned }
}

/// Bytes per cycle for rows of `row_bytes` that become fractals: linear between the known rows.
fn row_rate(path: &Path, row_bytes: u32) -> f64 {
    let rows = &path.nz_rate_by_row;
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return path.rate.value };
    if row_bytes <= first.0 {
        // A row shorter than the shortest known one moves as many rows per cycle.
        return first.1 * f64::from(row_bytes) / f64::from(first.0);
    }
    let between = rows.windows(2).find(|w| row_bytes <= w[1].0);
    between.map_or(last.1, |w| {
        let share = f64::from(row_bytes - w[0].0) / f64::from(w[1].0 - w[0].0);
        w[0].1 + share * (w[1].1 - w[0].1)
    })
}
