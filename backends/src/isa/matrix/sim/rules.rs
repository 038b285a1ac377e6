//! What a record must obey on this machine, with the addresses it has now: bounds, alignment, modes.

use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::addr::Space;
use crate::isa::matrix::program::inst::{Inst, ScalarLoad, Work};
use crate::isa::matrix::program::vec::{VecForm, Vector};
use crate::isa::matrix::sim::access::{Access, Resolved};
use crate::isa::matrix::sim::check::violation::Rule;
use crate::isa::matrix::sim::memory::{Gm, capacity};

/// A broken rule, the bytes it is about, and what was found.
pub(crate) type Broken = (Rule, Option<(Space, u64, u64)>, String);

/// Checks the accesses of one record.
pub(crate) fn check(inst: &Inst, at: &Resolved, accesses: &[Access], machine: &Machine, gm: &Gm) -> Result<(), Broken> {
    if let Inst::Work(Work::Mmad(mmad)) = inst
        && machine.quirk.gemv_at_m1
        && mmad.m == 1
    {
        let detail = "m = 1 switches the cube to another form of operands: use 2 or more".to_owned();
        return Err((Rule::OperandRange, None, detail));
    }
    for access in accesses {
        bounds(access, machine, gm)?;
        alignment(inst, access, machine)?;
    }
    let gathers = matches!(inst, Inst::Work(Work::Vec(Vector { op, .. })) if op.row().form == VecForm::Gather);
    if gathers && at.src1 < 0 {
        return Err((Rule::OutOfBounds, None, "the base of a gather is negative".to_owned()));
    }
    Ok(())
}

fn bounds(access: &Access, machine: &Machine, gm: &Gm) -> Result<(), Broken> {
    let range = |start: u64| Some((access.space, start, start + access.span() - 1));
    let Ok(start) = u64::try_from(access.start) else {
        let detail = format!("the address is {}", access.start);
        return Err((Rule::OutOfBounds, None, detail));
    };
    if access.space == Space::Gm {
        return match gm.locate(start, access.span()) {
            Some(_) => Ok(()),
            None => Err((Rule::OutOfBounds, range(start), "no symbol holds all of it".to_owned())),
        };
    }
    let usable = capacity(machine, access.space);
    if start.checked_add(access.span()).is_some_and(|end| end <= usable) {
        Ok(())
    } else {
        Err((Rule::OutOfBounds, range(start), format!("the buffer has {usable} usable bytes")))
    }
}

/// Bytes that the address of an access is a multiple of.
fn align(inst: &Inst, access: &Access, machine: &Machine) -> u32 {
    let b = &machine.buffer;
    let by_element = match inst {
        Inst::ScalarLoad(ScalarLoad { ty, .. }) => Some(ty.bits() / 8),
        Inst::Work(Work::Vec(vector)) => match vector.op.row().form {
            VecForm::BlockReduce if access.is_write => Some(vector.dst_ty.bits() / 8),
            VecForm::Unary
            | VecForm::Binary
            | VecForm::Ternary
            | VecForm::Fill
            | VecForm::Compare
            | VecForm::Select
            | VecForm::BlockFill
            | VecForm::BlockReduce
            | VecForm::Gather => None,
        },
        Inst::Work(Work::Copy(_) | Work::LoadL0(_) | Work::LoadTable(_) | Work::Mmad(_) | Work::Fix(_))
        | Inst::Order(_)
        | Inst::Control(_) => None,
    };
    by_element.unwrap_or(match access.space {
        Space::Gm => 1,
        Space::L1 => b.l1.align,
        Space::L0a => b.l0a.align,
        Space::L0b => b.l0b.align,
        Space::L0c => match inst {
            Inst::Work(Work::Mmad(_)) => b.l0c.mmad_align.unwrap_or(b.l0c.align),
            Inst::Work(Work::Copy(_) | Work::LoadL0(_) | Work::LoadTable(_) | Work::Fix(_) | Work::Vec(_))
            | Inst::Order(_)
            | Inst::Control(_)
            | Inst::ScalarLoad(_) => b.l0c.align,
        },
        Space::Ub => b.ub.align,
        Space::Bt => b.bt.as_ref().map_or(1, |b| b.align),
        Space::Fb => b.fb.as_ref().map_or(1, |b| b.align),
    })
}

fn alignment(inst: &Inst, access: &Access, machine: &Machine) -> Result<(), Broken> {
    let align = align(inst, access, machine);
    // Bounds hold: the address is not negative. Rows of one access start on blocks.
    let start = access.start as u64;
    let is_local = access.space != Space::Gm;
    let strides = [(access.inner_count, access.inner), (access.outer_count, access.outer)];
    let row_align = if is_local { align.min(32) } else { 1 };
    let is_aligned = start.is_multiple_of(u64::from(align))
        && strides.iter().all(|(count, stride)| *count <= 1 || stride.is_multiple_of(row_align));
    if is_aligned {
        Ok(())
    } else {
        let range = Some((access.space, start, start + access.span() - 1));
        Err((Rule::Misaligned, range, format!("{} needs multiples of {align}", access.space.name())))
    }
}
