//! The pipe out of L0C: conversion, scale, ReLU, and the change from fractals to rows.

use half::{bf16, f16};

use crate::isa::matrix::program::inst::{FRACTAL, Fix, FixLayout, FixPath, FixScale, Quant};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::sim::access::{Resolved, fix_width};
use crate::isa::matrix::sim::exec::{slice, slice_mut};
use crate::isa::matrix::sim::memory::{Gm, Local};

pub fn fix(fix: &Fix, at: &Resolved, local: &mut Local, gm: &mut Gm) -> Option<()> {
    let (m, n) = (usize::from(fix.m), usize::from(fix.n));
    let bits = fix.quant.result_bits(fix.from.bits()) as usize;
    let width = fix_width(fix) as usize;
    let dst = usize::try_from(at.dst).ok()?;
    for i in 0..m {
        match fix.layout {
            FixLayout::RowMajor => {
                let row = row(fix, at, local, i, 0..n)?;
                write(fix.path, dst + i * fix.dst_stride as usize, &row, local, gm)?;
            }
            FixLayout::Nz => {
                for (column, first) in (0..n).step_by(width).enumerate() {
                    let mut row = row(fix, at, local, i, first..(first + width).min(n))?;
                    row.resize(width * bits / 8, 0);
                    let to = dst + column * fix.dst_stride as usize + i * width * bits / 8;
                    write(fix.path, to, &row, local, gm)?;
                }
            }
        }
    }
    Some(())
}

/// Converted elements of one row.
fn row(fix: &Fix, at: &Resolved, local: &Local, i: usize, columns: std::ops::Range<usize>) -> Option<Vec<u8>> {
    let side = FRACTAL as usize;
    let size = fix.from.bits() as usize / 8;
    let src = usize::try_from(at.src0).ok()?;
    let mut out = Vec::with_capacity(columns.len() * 4);
    let mut nibble = None;
    for j in columns {
        let from = src + (j / side) * fix.src_stride as usize + (i * side + j % side) * size;
        let bytes = slice(&local.l0c, from, size)?;
        let scale = match fix.scale {
            FixScale::Tile(scale) => scale,
            FixScale::Columns(_) => {
                let entry = slice(&local.fb, usize::try_from(at.extra).ok()? + 8 * j, 4)?;
                f32::from_le_bytes(entry.try_into().ok()?)
            }
        };
        let bits = convert(fix, bytes, scale)?;
        match fix.quant.result_bits(fix.from.bits()) {
            4 => match nibble.take() {
                // Two nibbles make a byte, the even one in the low bits.
                None => nibble = Some(bits as u8 & 15),
                Some(low) => out.push(low | (bits as u8) << 4),
            },
            // The low bytes hold the result.
            width => out.extend_from_slice(&bits.to_le_bytes()[..width as usize / 8]),
        }
    }
    out.extend(nibble);
    Some(out)
}

/// Bits of one result.
fn convert(fix: &Fix, bytes: &[u8], scale: f32) -> Option<u32> {
    let word = match *bytes {
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
        [a, b] => u32::from(u16::from_le_bytes([a, b])),
        _ => return None,
    };
    let is_negative = match fix.from {
        ElemType::F16 | ElemType::Bf16 => word & 0x8000 != 0,
        ElemType::S4
        | ElemType::S8
        | ElemType::U8
        | ElemType::S16
        | ElemType::U16
        | ElemType::S32
        | ElemType::U32
        | ElemType::F32 => word >> 31 != 0,
    };
    let word = if fix.relu && is_negative { 0 } else { word };
    // Both readings of the word; the mode says which one counts.
    let (int, float) = (word as i32, f32::from_bits(word));
    let saturated = |low: f32, high: f32| (int as f32 * scale).round_ties_even().clamp(low, high) as i32 as u32;
    Some(match fix.quant {
        Quant::Keep => word,
        Quant::F32ToF16 => u32::from(f16::from_f32(float).to_bits()),
        Quant::F32ToBf16 => u32::from(bf16::from_f32(float).to_bits()),
        Quant::S32ToF16 => u32::from(f16::from_f32((int as f32 * scale).clamp(-65504.0, 65504.0)).to_bits()),
        Quant::S32ToS8 => saturated(-128.0, 127.0),
        Quant::S32ToS4 => saturated(-8.0, 7.0),
    })
}

fn write(path: FixPath, at: usize, bytes: &[u8], local: &mut Local, gm: &mut Gm) -> Option<()> {
    let dst = match path {
        FixPath::Gm => gm.write(at as u64, bytes.len())?,
        FixPath::L1 => slice_mut(&mut local.l1, at, bytes.len())?,
        FixPath::Ub | FixPath::Ub1 => slice_mut(&mut local.ub, at, bytes.len())?,
    };
    dst.copy_from_slice(bytes);
    Some(())
}
