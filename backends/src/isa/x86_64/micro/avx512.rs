//! AVX-512-VNNI kernels for up to eight token rows: a block of one panel is one register of 16 row lanes; `vpdpbusd`
//! multiplies four codes of each row by four broadcast activations.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::r9d;
use iced_x86::code_asm::registers::zmm::*;
use iced_x86::code_asm::{AsmMemoryOperand, AsmRegisterZmm, CodeAssembler, dword_bcst, dword_ptr, zmmword_ptr};

use super::bitmap::{self, Vectors};
use super::panels::{Ahead, Body, Walk, acc_address, q_address};
use super::source::Source;
use crate::code::Function;
use crate::isa::x86_64::fetch::Fetch;

/// The kernel `name` for `mr` token rows.
pub(super) fn emit(name: &str, mr: usize, source: Source, fetch: Fetch) -> Function {
    let ahead = Some(Ahead::new(fetch, source.kr()));
    let walk = |panels, unroll| Walk { mr, kr: source.kr(), panels, unroll, turn: None, bitmap: None, ahead };
    match mr {
        // One stream of weights, which the hardware follows best. A block of five planes takes longer than a product, so
        // the five chains of sums never wait; those of four planes need a second set.
        1 => {
            walk(&[1], &[2, 1]).kernel(name, &Masked { source, mr, sets: if source == Source::Base3 { 1 } else { 2 } })
        }
        2 => walk(&[2, 1], &[2, 1]).kernel(name, &Masked { source, mr, sets: 1 }),
        _ => walk(&[2, 1], &[1]).kernel(name, &Shifted { source, mr, sets: if mr < 8 { 2 } else { 1 } }),
    }
}

/// The kernel `name` for `mr` token rows, 1 or 4, that reads bitmaps.
pub(super) fn emit_bitmap(name: &str, mr: usize) -> Function {
    let (source, bitmap) = (Source::I2, Some(Vectors::Avx512));
    let turn = Some(bitmap::TURN_BLOCKS);
    let walk = |unroll| Walk { mr, kr: source.kr(), panels: &[1], unroll, turn, bitmap, ahead: None };
    match mr {
        1 => walk(&[2, 1]).kernel(name, &Masked { source, mr, sets: 2 }),
        _ => walk(&[1]).kernel(name, &Shifted { source, mr, sets: 2 }),
    }
}

static ZMM: [AsmRegisterZmm; 32] = [
    zmm0, zmm1, zmm2, zmm3, zmm4, zmm5, zmm6, zmm7, zmm8, zmm9, zmm10, zmm11, zmm12, zmm13, zmm14, zmm15, zmm16, zmm17,
    zmm18, zmm19, zmm20, zmm21, zmm22, zmm23, zmm24, zmm25, zmm26, zmm27, zmm28, zmm29, zmm30, zmm31,
];

/// Planes are masked but not shifted: plane p's codes are multiplied by 4^p and summed in registers of their own,
/// which are shifted once at the end; every bit shifted out is zero. Plane 4 comes as it is.
///
/// Planes are masked ahead of the products: a mask beside the product that waits for it takes the place of another
/// product where both have units in common (Zen 4: 39 weights of `base3` a cycle for one token row, without 36).
struct Masked {
    source: Source,
    mr: usize,
    /// Blocks take turns on this many sets of sums.
    sets: usize,
}

impl Masked {
    /// Planes with sums of their own; with two token rows the registers are for four, and plane 4 joins plane 0.
    fn sums(&self) -> usize {
        if self.mr == 1 { self.source.planes().len() } else { 4 }
    }

    fn sum(&self, panels: usize, set: usize, plane: usize, row: usize, panel: usize) -> AsmRegisterZmm {
        ZMM[((set * self.sums() + plane % self.sums()) * self.mr + row) * panels + panel]
    }

    fn mask(&self, plane: usize) -> AsmRegisterZmm {
        ZMM[24 + plane]
    }

    /// Planes that wait masked for their products: two of one panel, one of two.
    fn ahead(panels: usize) -> usize {
        if panels == 1 { 2 } else { 1 }
    }

    /// The codes of the `i`-th plane of the block, of each panel.
    fn codes(panels: usize, i: usize) -> &'static [AsmRegisterZmm] {
        &ZMM[18 + panels * (i % (1 + Self::ahead(panels)))..][..panels]
    }

    /// Masks the `i`-th plane of the block, if there is one.
    fn mask_plane(&self, a: &mut CodeAssembler, i: usize, low: &[AsmRegisterZmm]) -> Result<(), IcedError> {
        match self.source.planes().get(i) {
            Some(&plane) if plane < 4 => {
                let codes = Self::codes(low.len(), i);
                codes.iter().zip(low).try_for_each(|(codes, low)| a.vpandd(*codes, *low, self.mask(plane)))
            }
            _ => Ok(()),
        }
    }
}

impl Body for Masked {
    fn constants(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        self.source.constants(a)?;
        (0..4).try_for_each(|plane| broadcast(a, self.mask(plane), 0x0303_0303 << (2 * plane)))
    }

    fn begin(&self, a: &mut CodeAssembler, panels: usize) -> Result<(), IcedError> {
        clear(a, &ZMM[..self.sets * self.sums() * self.mr * panels])
    }

    fn block(&self, a: &mut CodeAssembler, panels: usize, block: usize) -> Result<(), IcedError> {
        let (low, activations, ahead) = (&ZMM[16..][..panels], ZMM[22], Self::ahead(panels));
        for (panel, (low, top)) in low.iter().zip(Self::codes(panels, 0)).enumerate() {
            self.source.load(a, (panel, block), *low, *top)?;
        }
        (0..ahead).try_for_each(|i| self.mask_plane(a, i, low))?;
        for (i, &plane) in self.source.planes().iter().enumerate() {
            self.mask_plane(a, i + ahead, low)?;
            for row in 0..self.mr {
                let sums: Vec<_> =
                    (0..panels).map(|panel| self.sum(panels, block % self.sets, plane, row, panel)).collect();
                let q = q_address(row, self.source.kr() * block + 4 * plane);
                dot(a, &sums, Self::codes(panels, i), q, activations)?;
            }
        }
        Ok(())
    }

    fn end(&self, a: &mut CodeAssembler, panels: usize) -> Result<(), IcedError> {
        for panel in 0..panels {
            for row in 0..self.mr {
                let total = self.sum(panels, 0, 0, row, panel);
                for set in 1..self.sets {
                    for plane in 0..self.sums() {
                        let sum = self.sum(panels, 0, plane, row, panel);
                        a.vpaddd(sum, sum, self.sum(panels, set, plane, row, panel))?;
                    }
                }
                for plane in 1..self.sums() {
                    let sum = self.sum(panels, 0, plane, row, panel);
                    if plane < 4 {
                        a.vpsrad(sum, sum, 2 * plane as i32)?;
                    }
                    a.vpaddd(total, total, sum)?;
                }
                add_to_memory(a, total, acc_address(self.mr, panel, row, 0))?;
            }
        }
        Ok(())
    }
}

/// Planes are shifted to the low bits, which costs little when many token rows share them: one sum for each row.
struct Shifted {
    source: Source,
    mr: usize,
    /// Planes take turns on this many sets of sums.
    sets: usize,
}

impl Shifted {
    /// Sums of token row `row` in set `set`, one for each panel.
    fn sums(&self, panels: usize, set: usize, row: usize) -> &'static [AsmRegisterZmm] {
        &ZMM[(set * self.mr + row) * panels..][..panels]
    }
}

impl Body for Shifted {
    fn constants(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        self.source.constants(a)?;
        broadcast(a, LOW_BITS, 0x0303_0303)
    }

    fn begin(&self, a: &mut CodeAssembler, panels: usize) -> Result<(), IcedError> {
        clear(a, &ZMM[..self.sets * self.mr * panels])
    }

    fn block(&self, a: &mut CodeAssembler, panels: usize, block: usize) -> Result<(), IcedError> {
        let (low, planes, activations) = (&ZMM[22..24], &ZMM[24..26], ZMM[26]);
        for panel in 0..panels {
            self.source.load(a, (panel, block), low[panel], planes[panel])?;
        }
        for &plane in self.source.planes() {
            for (code, low) in planes.iter().zip(&low[..panels]) {
                shift_down(a, *code, *low, plane)?;
            }
            for row in 0..self.mr {
                let sums = self.sums(panels, plane % self.sets, row);
                dot(a, sums, planes, q_address(row, self.source.kr() * block + 4 * plane), activations)?;
            }
        }
        Ok(())
    }

    fn end(&self, a: &mut CodeAssembler, panels: usize) -> Result<(), IcedError> {
        for panel in 0..panels {
            for row in 0..self.mr {
                let total = self.sums(panels, 0, row)[panel];
                for set in 1..self.sets {
                    a.vpaddd(total, total, self.sums(panels, set, row)[panel])?;
                }
                add_to_memory(a, total, acc_address(self.mr, panel, row, 0))?;
            }
        }
        Ok(())
    }
}

/// Two low bits of every byte: what [`shift_down`] reads.
pub(super) const LOW_BITS: AsmRegisterZmm = zmm27;

/// The codes of `plane`, as bytes, to `code`; those of plane 4 are there.
pub(super) fn shift_down(
    a: &mut CodeAssembler,
    code: AsmRegisterZmm,
    low: AsmRegisterZmm,
    plane: usize,
) -> Result<(), IcedError> {
    match plane {
        0 => a.vpandd(code, low, LOW_BITS),
        1..4 => {
            // Bits that come from the neighbor byte are masked away.
            a.vpsrlw(code, low, 2 * plane as i32)?;
            a.vpandd(code, code, LOW_BITS)
        }
        _ => Ok(()),
    }
}

/// `word` to every 32-bit lane.
pub(super) fn broadcast(a: &mut CodeAssembler, register: AsmRegisterZmm, word: u32) -> Result<(), IcedError> {
    a.mov(r9d, word)?;
    a.vpbroadcastd(register, r9d)
}

pub(super) fn clear(a: &mut CodeAssembler, registers: &[AsmRegisterZmm]) -> Result<(), IcedError> {
    registers.iter().try_for_each(|&register| a.vpxord(register, register, register))
}

/// Adds to `sums[panel]` the products of `planes[panel]` and the four activations at `q`, loaded once if shared.
pub(super) fn dot(
    a: &mut CodeAssembler,
    sums: &[AsmRegisterZmm],
    planes: &[AsmRegisterZmm],
    q: AsmMemoryOperand,
    activations: AsmRegisterZmm,
) -> Result<(), IcedError> {
    if let [sum] = sums {
        return a.vpdpbusd(*sum, planes[0], dword_bcst(q));
    }
    a.vpbroadcastd(activations, dword_ptr(q))?;
    for (sum, plane) in sums.iter().zip(planes) {
        a.vpdpbusd(*sum, *plane, activations)?;
    }
    Ok(())
}

/// Adds `sum` to the accumulators at `place`.
pub(super) fn add_to_memory(
    a: &mut CodeAssembler,
    sum: AsmRegisterZmm,
    place: AsmMemoryOperand,
) -> Result<(), IcedError> {
    a.vpaddd(sum, sum, zmmword_ptr(place))?;
    a.vmovdqu64(zmmword_ptr(place), sum)
}
