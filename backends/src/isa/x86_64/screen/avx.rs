//! AVX2 and AVX-VNNI: sixteen lanes are two registers.
//!
//! AVX-VNNI sums to 32 bits at once, as AVX-512-VNNI does. AVX2 sums pairs of products to 16 bits. No sum overflows
//! there: a group's 32 columns are eight pairs in each half of a lane, each at most 2 · 15 · 128 in magnitude: 30720.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::eax;
use iced_x86::code_asm::registers::xmm::*;
use iced_x86::code_asm::registers::ymm::*;
use iced_x86::code_asm::{AsmMemoryOperand, AsmRegisterYmm, CodeAssembler, dword_ptr, xmmword_ptr, ymmword_ptr};
use tcc_ir::screen::GROUP;

use super::*;

pub(super) struct Avx {
    pub has_vnni: bool,
}

/// Lanes of one register.
const REGISTER_LANES: usize = 8;

const LANES: [AsmRegisterYmm; 2] = [ymm0, ymm1];
/// Of each register's lanes the sums of lower and of upper nibbles; or of one register's lanes those of each plane.
const SUMS: [AsmRegisterYmm; 4] = [ymm2, ymm3, ymm4, ymm5];
const BITS: AsmRegisterYmm = ymm6;
const BYTES: AsmRegisterYmm = ymm7;
const FACTOR: AsmRegisterYmm = ymm8;
const CODES_OF_PART: [AsmRegisterYmm; 2] = [ymm9, ymm10];
const ONES: AsmRegisterYmm = ymm11;
const MASKS: [AsmRegisterYmm; 4] = [ymm12, ymm13, ymm14, ymm15];

impl Body for Avx {
    fn clear(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        clear(a, &LANES)
    }

    fn group_constants(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        self.constants(a, &NIBBLE_MASKS)
    }

    fn group(&self, a: &mut CodeAssembler, half: usize) -> Result<(), IcedError> {
        clear(a, &SUMS)?;
        for eight in 0..GROUP / 8 {
            for (part, codes) in CODES_OF_PART.into_iter().enumerate() {
                a.vpbroadcastd(codes, dword_ptr(four_codes(half, eight, part)))?;
            }
            for (register, sums) in SUMS.chunks_exact(2).enumerate() {
                a.vmovdqu(BYTES, ymmword_ptr(nibbles(half, eight, register * REGISTER_LANES)))?;
                for (part, codes) in CODES_OF_PART.into_iter().enumerate() {
                    self.bits(a, part, 4 * part)?;
                    if self.has_vnni {
                        a.vex().vpdpbusd(sums[part], BITS, codes)?;
                    } else {
                        a.vpmaddubsw(BITS, BITS, codes)?;
                        a.vpaddw(sums[0], sums[0], BITS)?;
                    }
                }
            }
        }
        a.vbroadcastss(FACTOR, dword_ptr(group_scale(half)))?;
        a.vpbroadcastd(BYTES, dword_ptr(group_offset(half)))?;
        for (register, sums) in SUMS.chunks_exact(2).enumerate() {
            // Upper nibbles are multiplied by 16.
            self.double(a, sums, 4)?;
            a.vpaddd(sums[0], sums[0], BYTES)?;
            a.vmovaps(BITS, FACTOR)?;
            add(a, register, sums[0], row_scales(half, register * REGISTER_LANES), BITS)?;
        }
        Ok(())
    }

    fn store(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        for (register, lanes) in LANES.into_iter().enumerate() {
            a.vmovups(ymmword_ptr(OUT + int(4 * REGISTER_LANES * register)), lanes)?;
        }
        Ok(())
    }

    fn piece_constants(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        self.constants(a, &std::array::from_fn::<_, 4, _>(plane_mask))
    }

    fn piece(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        for register in 0..LANES.len() {
            let lane = register * REGISTER_LANES;
            clear(a, &SUMS)?;
            for row in 0..PIECE_ROWS {
                a.vmovdqu(BYTES, ymmword_ptr(low_bits(row, lane)))?;
                for (plane, sum) in SUMS.into_iter().enumerate() {
                    self.bits(a, plane, 2 * plane)?;
                    let codes = ymmword_ptr(lane_codes(row, plane, lane));
                    if self.has_vnni {
                        a.vex().vpdpbusd(sum, BITS, codes)?;
                    } else {
                        a.vpmaddubsw(BITS, BITS, codes)?;
                        a.vpaddw(SUMS[0], SUMS[0], BITS)?;
                    }
                }
            }
            self.double(a, &SUMS, 2)?;
            a.vpaddd(SUMS[0], SUMS[0], ymmword_ptr(piece_offsets(lane)))?;
            a.vmovups(BITS, ymmword_ptr(piece_scales(lane)))?;
            add(a, register, SUMS[0], piece_row_scales(lane), BITS)?;
        }
        Ok(())
    }

    fn halve(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        a.vaddps(ymm0, ymm0, ymm1)?;
        a.vextractf128(xmm1, ymm0, 1)?;
        a.vaddps(xmm0, xmm0, xmm1)
    }
}

impl Avx {
    /// Masks of the bits of each plane; without VNNI all planes are shifted to the first.
    fn constants(&self, a: &mut CodeAssembler, masks: &[u32]) -> Result<(), IcedError> {
        for (register, mask) in MASKS.into_iter().zip(masks) {
            a.mov(eax, *mask)?;
            a.vmovd(xmm2, eax)?;
            a.vpbroadcastd(register, xmm2)?;
        }
        a.vpcmpeqd(ONES, ONES, ONES)?;
        a.vpsrlw(ONES, ONES, 15)
    }

    /// The bits of plane `plane`, which begin at bit `from`, of the current bytes.
    fn bits(&self, a: &mut CodeAssembler, plane: usize, from: usize) -> Result<(), IcedError> {
        if self.has_vnni || plane == 0 {
            return a.vpand(BITS, BYTES, MASKS[plane]);
        }
        // Bits that come from the neighbor byte are masked away.
        a.vpsrlw(BITS, BYTES, int(from))?;
        a.vpand(BITS, BITS, MASKS[0])
    }

    /// The doubled sum of all planes, each `shift` bits further up than the one before, in the first register.
    fn double(&self, a: &mut CodeAssembler, sums: &[AsmRegisterYmm], shift: i32) -> Result<(), IcedError> {
        let total = sums[0];
        if !self.has_vnni {
            a.vpmaddwd(total, total, ONES)?;
            return a.vpaddd(total, total, total);
        }
        a.vpaddd(total, total, total)?;
        for (sum, plane) in sums.iter().zip(0..).skip(1) {
            // Exact: every bit shifted out is zero.
            a.vpsrad(*sum, *sum, plane * shift - 1)?;
            a.vpaddd(total, total, *sum)?;
        }
        Ok(())
    }
}

/// Adds `sum` times the scales at `scales` times `factor`, which is overwritten, to the lanes of `register`.
fn add(
    a: &mut CodeAssembler,
    register: usize,
    sum: AsmRegisterYmm,
    scales: AsmMemoryOperand,
    factor: AsmRegisterYmm,
) -> Result<(), IcedError> {
    a.vpmovzxwd(CODES_OF_PART[0], xmmword_ptr(scales))?;
    a.vpslld(CODES_OF_PART[0], CODES_OF_PART[0], 16)?;
    a.vmulps(factor, CODES_OF_PART[0], factor)?;
    a.vcvtdq2ps(sum, sum)?;
    a.vfmadd231ps(LANES[register], sum, factor)
}

fn clear(a: &mut CodeAssembler, registers: &[AsmRegisterYmm]) -> Result<(), IcedError> {
    registers.iter().try_for_each(|register| a.vpxor(*register, *register, *register))
}
