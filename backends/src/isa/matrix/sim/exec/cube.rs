//! The cube: integer products are exact and saturate in s32; float products are summed in increasing k, each product and
//! each sum rounded to f32, which is one order of the many that hardware may take.

use half::{bf16, f16};

use crate::isa::matrix::program::inst::{FRACTAL, FRACTAL_BYTES, Mmad, MmadInit};
use crate::isa::matrix::program::ty::CubeType;
use crate::isa::matrix::sim::access::{Resolved, mmad_fractals};
use crate::isa::matrix::sim::exec::{slice, slice_mut};
use crate::isa::matrix::sim::memory::Local;

const SIDE: usize = FRACTAL as usize;

pub fn mmad(mmad: &Mmad, at: &Resolved, local: &mut Local, l0a_is_nz: bool) -> Option<()> {
    let (m1, n1, k1) = mmad_fractals(mmad);
    let (m1, n1, k1) = (m1 as usize, n1 as usize, k1 as usize);
    let (a, b, c) = (usize::try_from(at.src0).ok()?, usize::try_from(at.src1).ok()?, usize::try_from(at.dst).ok()?);
    let fractal = FRACTAL_BYTES as usize;
    let size = mmad.ty.accumulator().bits() as usize / 8;
    for i in 0..m1 {
        for j in 0..n1 {
            let out = c + SIDE * SIDE * size * (j * m1 + i);
            let mut tile = start(mmad, at, local, out, j)?;
            for k in 0..k1 {
                let ai = if l0a_is_nz { k * m1 + i } else { i * k1 + k };
                let fa = slice(&local.l0a, a + fractal * ai, fractal)?;
                let fb = slice(&local.l0b, b + fractal * (k * n1 + j), fractal)?;
                let valid = usize::from(mmad.k) - k * mmad.ty.k0() as usize;
                product(&mut tile, fa, fb, mmad.ty, valid.min(mmad.ty.k0() as usize));
            }
            store(&tile, mmad.ty, slice_mut(&mut local.l0c, out, SIDE * SIDE * size)?);
        }
    }
    Some(())
}

/// A 16 × 16 tile of the accumulator.
enum Tile {
    Int([i32; SIDE * SIDE]),
    Float([f32; SIDE * SIDE]),
}

fn start(mmad: &Mmad, at: &Resolved, local: &Local, out: usize, column: usize) -> Option<Tile> {
    let is_int = match mmad.ty {
        CubeType::S4 | CubeType::S8 => true,
        CubeType::F16 | CubeType::F16Half | CubeType::Bf16 | CubeType::F32 => false,
    };
    let mut words = [0u32; SIDE * SIDE];
    match mmad.init {
        MmadInit::Zero => {}
        MmadInit::Accumulate => {
            let size = mmad.ty.accumulator().bits() as usize / 8;
            let bytes = slice(&local.l0c, out, SIDE * SIDE * size)?;
            for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(size)) {
                *word = match *bytes {
                    [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
                    [a, b] => f16::from_le_bytes([a, b]).to_f32().to_bits(),
                    _ => return None,
                };
            }
        }
        MmadInit::Bias(_) => {
            let first = usize::try_from(at.extra).ok()? + column * SIDE * 4;
            let valid = (usize::from(mmad.n) - column * SIDE).min(SIDE);
            let bias = slice(&local.bt, first, valid * 4)?;
            for (i, bytes) in bias.chunks_exact(4).enumerate() {
                let word = u32::from_le_bytes(bytes.try_into().ok()?);
                (0..SIDE).for_each(|row| words[row * SIDE + i] = word);
            }
        }
    }
    Some(if is_int { Tile::Int(words.map(|w| w as i32)) } else { Tile::Float(words.map(f32::from_bits)) })
}

/// Element `i` of a fractal's row of 32 bytes.
fn int(row: &[u8], i: usize, ty: CubeType) -> i64 {
    match ty {
        // The nibble moves to the top to take its sign.
        CubeType::S4 => i64::from(((row[i / 2] >> (4 * (i % 2))) << 4) as i8 >> 4),
        CubeType::S8 | CubeType::F16 | CubeType::F16Half | CubeType::Bf16 | CubeType::F32 => i64::from(row[i] as i8),
    }
}

fn float(row: &[u8], i: usize, ty: CubeType) -> f32 {
    match ty {
        CubeType::F16 | CubeType::F16Half => f16::from_le_bytes([row[2 * i], row[2 * i + 1]]).to_f32(),
        CubeType::Bf16 => bf16::from_le_bytes([row[2 * i], row[2 * i + 1]]).to_f32(),
        CubeType::S4 | CubeType::S8 | CubeType::F32 => {
            f32::from_le_bytes([row[4 * i], row[4 * i + 1], row[4 * i + 2], row[4 * i + 3]])
        }
    }
}

fn product(tile: &mut Tile, a: &[u8], b: &[u8], ty: CubeType, valid: usize) {
    const ROW: usize = 32;
    match tile {
        Tile::Int(sums) => {
            for (row, sums) in a.chunks_exact(ROW).zip(sums.chunks_exact_mut(SIDE)) {
                for (column, sum) in b.chunks_exact(ROW).zip(sums) {
                    let dot: i64 = match ty {
                        CubeType::S8 => {
                            let pairs = row[..valid].iter().zip(&column[..valid]);
                            i64::from(pairs.map(|(a, b)| i32::from(*a as i8) * i32::from(*b as i8)).sum::<i32>())
                        }
                        CubeType::S4 | CubeType::F16 | CubeType::F16Half | CubeType::Bf16 | CubeType::F32 => {
                            (0..valid).map(|i| int(row, i, ty) * int(column, i, ty)).sum()
                        }
                    };
                    // The clamp makes the cast exact.
                    *sum = (i64::from(*sum) + dot).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
                }
            }
        }
        Tile::Float(sums) => {
            for (row, sums) in a.chunks_exact(ROW).zip(sums.chunks_exact_mut(SIDE)) {
                for (column, sum) in b.chunks_exact(ROW).zip(sums) {
                    for i in 0..valid {
                        *sum += float(row, i, ty) * float(column, i, ty);
                    }
                    if ty == CubeType::F16Half {
                        *sum = f16::from_f32(*sum).to_f32();
                    }
                }
            }
        }
    }
}

fn store(tile: &Tile, ty: CubeType, out: &mut [u8]) {
    match tile {
        Tile::Int(sums) => {
            for (out, sum) in out.chunks_exact_mut(4).zip(sums) {
                out.copy_from_slice(&sum.to_le_bytes());
            }
        }
        Tile::Float(sums) if ty == CubeType::F16Half => {
            for (out, sum) in out.chunks_exact_mut(2).zip(sums) {
                out.copy_from_slice(&f16::from_f32(*sum).to_le_bytes());
            }
        }
        Tile::Float(sums) => {
            for (out, sum) in out.chunks_exact_mut(4).zip(sums) {
                out.copy_from_slice(&sum.to_le_bytes());
            }
        }
    }
}
