//! AVX-512-VNNI kernels: a block of one panel is one register of 16 row lanes; `vpdpbusd` multiplies four codes of
//! each row by four broadcast activations.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::r9d;
use iced_x86::code_asm::registers::zmm::*;
use iced_x86::code_asm::{AsmRegisterZmm, CodeAssembler, dword_bcst, dword_ptr, zmmword_ptr};

use super::panels::{Body, Walk, acc_address, q_address, w_address};
use crate::code::Function;

/// The kernel `name` for `mr` token rows.
pub(super) fn emit(name: &str, mr: usize) -> Function {
    match mr {
        // One stream of weights, which the hardware follows best; eight chains of sums hide the latency.
        1 => Walk { mr, panels: &[1], unroll: &[2, 1], widen_every: None }.kernel(name, &Masked { mr, sets: 2 }),
        2 => Walk { mr, panels: &[2, 1], unroll: &[2, 1], widen_every: None }.kernel(name, &Masked { mr, sets: 1 }),
        _ => {
            let sets = if mr < 8 { 2 } else { 1 };
            Walk { mr, panels: &[2, 1], unroll: &[1], widen_every: None }.kernel(name, &Shifted { mr, sets })
        }
    }
}

static ZMM: [AsmRegisterZmm; 32] = [
    zmm0, zmm1, zmm2, zmm3, zmm4, zmm5, zmm6, zmm7, zmm8, zmm9, zmm10, zmm11, zmm12, zmm13, zmm14, zmm15, zmm16, zmm17,
    zmm18, zmm19, zmm20, zmm21, zmm22, zmm23, zmm24, zmm25, zmm26, zmm27, zmm28, zmm29, zmm30, zmm31,
];

/// Bits of plane `plane` in every byte.
fn plane_mask(plane: usize) -> u32 {
    0x0303_0303 << (2 * plane)
}

/// Planes are masked but not shifted: plane p's codes are multiplied by 4^p and summed in registers of their own,
/// which are shifted once at the end; every bit shifted out is zero.
struct Masked {
    mr: usize,
    /// Blocks take turns on this many sets of sums.
    sets: usize,
}

impl Masked {
    fn sum(&self, panels: usize, set: usize, plane: usize, row: usize, panel: usize) -> AsmRegisterZmm {
        ZMM[((set * 4 + plane) * self.mr + row) * panels + panel]
    }

    fn mask(&self, plane: usize) -> AsmRegisterZmm {
        ZMM[28 + plane]
    }
}

impl Body for Masked {
    fn constants(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        for plane in 0..4 {
            a.mov(r9d, plane_mask(plane))?;
            a.vpbroadcastd(self.mask(plane), r9d)?;
        }
        Ok(())
    }

    fn begin(&self, a: &mut CodeAssembler, panels: usize) -> Result<(), IcedError> {
        clear(a, &ZMM[..self.sets * 4 * self.mr * panels])
    }

    fn block(&self, a: &mut CodeAssembler, panels: usize, block: usize) -> Result<(), IcedError> {
        let (codes, planes, activations) = (&ZMM[16..18], &ZMM[18..20], ZMM[20]);
        for (panel, code) in codes.iter().copied().enumerate().take(panels) {
            a.vmovdqu64(code, zmmword_ptr(w_address(panel, block, 0)))?;
        }
        for plane in 0..4 {
            for (masked, codes) in planes.iter().zip(&codes[..panels]) {
                a.vpandd(*masked, *codes, self.mask(plane))?;
            }
            for row in 0..self.mr {
                let sums: Vec<_> =
                    (0..panels).map(|panel| self.sum(panels, block % self.sets, plane, row, panel)).collect();
                dot(a, &sums, planes, q_address(row, block, plane), activations)?;
            }
        }
        Ok(())
    }

    fn end(&self, a: &mut CodeAssembler, panels: usize) -> Result<(), IcedError> {
        for panel in 0..panels {
            for row in 0..self.mr {
                let total = self.sum(panels, 0, 0, row, panel);
                for set in 1..self.sets {
                    for plane in 0..4 {
                        let sum = self.sum(panels, 0, plane, row, panel);
                        a.vpaddd(sum, sum, self.sum(panels, set, plane, row, panel))?;
                    }
                }
                for plane in 1..4 {
                    let sum = self.sum(panels, 0, plane, row, panel);
                    a.vpsrad(sum, sum, 2 * plane as i32)?;
                    a.vpaddd(total, total, sum)?;
                }
                add_to_memory(a, total, self.mr, panel, row)?;
            }
        }
        Ok(())
    }
}

/// Planes are shifted to the low bits, which costs little when many token rows share them: one sum for each row.
struct Shifted {
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

const LOW_BITS: AsmRegisterZmm = zmm31;

impl Body for Shifted {
    fn constants(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        a.mov(r9d, plane_mask(0))?;
        a.vpbroadcastd(LOW_BITS, r9d)
    }

    fn begin(&self, a: &mut CodeAssembler, panels: usize) -> Result<(), IcedError> {
        clear(a, &ZMM[..self.sets * self.mr * panels])
    }

    fn block(&self, a: &mut CodeAssembler, panels: usize, block: usize) -> Result<(), IcedError> {
        let (planes, activations) = (&ZMM[24..27], ZMM[27]);
        for plane in 0..4 {
            for (panel, code) in planes.iter().copied().enumerate().take(panels) {
                let bytes = zmmword_ptr(w_address(panel, block, 0));
                if plane == 0 {
                    a.vpandd(code, LOW_BITS, bytes)?;
                } else {
                    // Bits that come from the neighbor byte are masked away.
                    a.vpsrlw(code, bytes, 2 * plane as i32)?;
                    a.vpandd(code, code, LOW_BITS)?;
                }
            }
            for row in 0..self.mr {
                let sums = self.sums(panels, plane % self.sets, row);
                dot(a, sums, planes, q_address(row, block, plane), activations)?;
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
                add_to_memory(a, total, self.mr, panel, row)?;
            }
        }
        Ok(())
    }
}

fn clear(a: &mut CodeAssembler, registers: &[AsmRegisterZmm]) -> Result<(), IcedError> {
    for &register in registers {
        a.vpxord(register, register, register)?;
    }
    Ok(())
}

/// Adds to `sums[panel]` the products of `planes[panel]` and the four activations at `q`, loaded once if shared.
fn dot(
    a: &mut CodeAssembler,
    sums: &[AsmRegisterZmm],
    planes: &[AsmRegisterZmm],
    q: iced_x86::code_asm::AsmMemoryOperand,
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

fn add_to_memory(
    a: &mut CodeAssembler,
    sum: AsmRegisterZmm,
    mr: usize,
    panel: usize,
    row: usize,
) -> Result<(), IcedError> {
    let place = zmmword_ptr(acc_address(mr, panel, row, 0));
    a.vpaddd(sum, sum, place)?;
    a.vmovdqu64(place, sum)
}
