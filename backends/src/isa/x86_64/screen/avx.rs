//! AVX2 and AVX-VNNI: sixteen lanes are two registers.
//!
//! AVX-VNNI sums to 32 bits at once, as AVX-512-VNNI does. AVX2 sums pairs of products to 16 bits. No sum overflows
//! there: a group's 32 columns are eight pairs in each half of a lane, each at most 2 · 15 · 128 in magnitude: 30720.
//! For low planes, all sums times four, eight pairs of at most 4 · 2 · 3 · 128 are 24576.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::eax;
use iced_x86::code_asm::registers::xmm::*;
use iced_x86::code_asm::registers::ymm::*;
use iced_x86::code_asm::{AsmMemoryOperand, AsmRegisterYmm, CodeAssembler, dword_ptr, xmmword_ptr, ymmword_ptr};
use tcc_ir::screen::GROUP;

use super::*;

pub(super) struct Avx {
    pub has_vnni: bool,
    pub fetch: Fetch,
}

/// Lanes of one register.
const REGISTER_LANES: usize = 8;

const LANES: [AsmRegisterYmm; 2] = [ymm0, ymm1];
/// Of each register's lanes the sums of lower and of upper nibbles; or of one register's lanes those of two planes each.
const SUMS: [AsmRegisterYmm; 4] = [ymm2, ymm3, ymm4, ymm5];
const BITS: AsmRegisterYmm = ymm6;
const BYTES: AsmRegisterYmm = ymm7;
const FACTOR: AsmRegisterYmm = ymm8;
const CODES_OF_PART: [AsmRegisterYmm; 2] = [ymm9, ymm10];
const ONES: AsmRegisterYmm = ymm11;
const MASKS: [AsmRegisterYmm; 2] = [ymm12, ymm13];

impl Body for Avx {
    fn fetch(&self) -> Fetch {
        self.fetch
    }

    fn clear(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        clear(a, &LANES)
    }

    fn group_constants(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        self.constants(a, &NIBBLE_MASKS)
    }

    fn group(&self, a: &mut CodeAssembler, half: usize) -> Result<(), IcedError> {
        clear(a, &SUMS)?;
        for eight in 0..GROUP / 8 {
            ask(a, self.fetch, half * GROUP / 8 + eight)?;
            for (part, codes) in CODES_OF_PART.into_iter().enumerate() {
                a.vpbroadcastd(codes, dword_ptr(four_codes(half, eight, part)))?;
            }
            for (register, sums) in SUMS.chunks_exact(2).enumerate() {
                a.vmovdqu(BYTES, ymmword_ptr(nibbles(half, eight, register * REGISTER_LANES)))?;
                for (part, codes) in CODES_OF_PART.into_iter().enumerate() {
                    self.nibbles(a, part)?;
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
            self.double(a, sums)?;
            a.vpaddd(sums[0], sums[0], BYTES)?;
            a.vmovaps(BITS, FACTOR)?;
            add(a, register, sums[0], row_scales(half, register * REGISTER_LANES), BITS)?;
        }
        Ok(())
    }

    fn byte_constants(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        self.constants(a, &[SIGNS, SIGNS_OFFSET])
    }

    fn byte_group(&self, a: &mut CodeAssembler, half: usize) -> Result<(), IcedError> {
        let [signs, signs_offset] = MASKS;
        let (sums, codes, signed) = ([SUMS[0], SUMS[1]], CODES_OF_PART[0], CODES_OF_PART[1]);
        if self.has_vnni {
            a.vpbroadcastd(sums[0], dword_ptr(group_offset(half)))?;
            a.vpmulld(sums[0], sums[0], signs_offset)?;
            a.vmovdqa(sums[1], sums[0])?;
        } else {
            clear(a, &sums)?;
        }
        for four in 0..GROUP / 4 {
            ask(a, self.fetch, half * GROUP / 4 + four)?;
            a.vpbroadcastd(codes, dword_ptr(four_codes(half, four / 2, four % 2)))?;
            for (register, sum) in sums.into_iter().enumerate() {
                let bytes = ymmword_ptr(bytes(half, four, register * REGISTER_LANES));
                if self.has_vnni {
                    a.vpxor(BITS, signs, bytes)?;
                    a.vex().vpdpbusd(sum, BITS, codes)?;
                } else {
                    // Magnitudes times codes that carry the signs: a pair is at most 2 · 127 · 127.
                    a.vmovdqu(BYTES, bytes)?;
                    a.vpsignb(signed, codes, BYTES)?;
                    a.vpabsb(BYTES, BYTES)?;
                    a.vpmaddubsw(BYTES, BYTES, signed)?;
                    a.vpmaddwd(BYTES, BYTES, ONES)?;
                    a.vpaddd(sum, sum, BYTES)?;
                }
            }
        }
        a.vbroadcastss(FACTOR, dword_ptr(group_scale(half)))?;
        for (lanes, sum) in LANES.into_iter().zip(sums) {
            a.vcvtdq2ps(sum, sum)?;
            a.vfmadd231ps(lanes, sum, FACTOR)?;
        }
        Ok(())
    }

    fn scale_rows(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        for (register, lanes) in LANES.into_iter().enumerate() {
            a.vmulps(lanes, lanes, ymmword_ptr(W + int(4 * REGISTER_LANES * register)))?;
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
        self.constants(a, &PLANE_MASKS)
    }

    fn piece(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        // Planes 0 and 2 have one sum, planes 1 and 3 another.
        let sums = [SUMS[0], SUMS[1]];
        for register in 0..LANES.len() {
            let lane = register * REGISTER_LANES;
            clear(a, &sums)?;
            for row in 0..PIECE_ROWS {
                let step = register * PIECE_ROWS + row;
                if step < PIECE_LINES {
                    ask_piece(a, self.fetch, step)?;
                }
                a.vmovdqu(BYTES, ymmword_ptr(low_bits(row, lane)))?;
                for half in 0..2 {
                    if half == 1 {
                        // Bits that come from the neighbor byte are masked away.
                        a.vpsrlw(BYTES, BYTES, 4)?;
                    }
                    for (plane, sum) in sums.into_iter().enumerate() {
                        a.vpand(BITS, BYTES, MASKS[plane])?;
                        let codes = ymmword_ptr(lane_codes(row, 2 * half + plane, lane));
                        if self.has_vnni {
                            a.vex().vpdpbusd(sum, BITS, codes)?;
                        } else {
                            a.vpmaddubsw(BITS, BITS, codes)?;
                            a.vpaddw(sum, sum, BITS)?;
                        }
                    }
                }
            }
            let [total, further] = sums;
            if self.has_vnni {
                a.vpslld(total, total, 2)?;
                a.vpaddd(total, total, further)?;
            } else {
                a.vpsllw(total, total, 2)?;
                a.vpaddw(total, total, further)?;
                a.vpmaddwd(total, total, ONES)?;
            }
            a.vpaddd(total, total, ymmword_ptr(piece_offsets(lane)))?;
            a.vmovups(BITS, ymmword_ptr(piece_scales(lane)))?;
            add(a, register, total, piece_row_scales(lane), BITS)?;
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
    /// Masks of bits; without VNNI upper nibbles are shifted down to the first.
    fn constants(&self, a: &mut CodeAssembler, masks: &[u32; 2]) -> Result<(), IcedError> {
        for (register, mask) in MASKS.into_iter().zip(masks) {
            a.mov(eax, *mask)?;
            a.vmovd(xmm2, eax)?;
            a.vpbroadcastd(register, xmm2)?;
        }
        a.vpcmpeqd(ONES, ONES, ONES)?;
        a.vpsrlw(ONES, ONES, 15)
    }

    /// The lower (`part` 0) or upper nibbles of the current bytes.
    fn nibbles(&self, a: &mut CodeAssembler, part: usize) -> Result<(), IcedError> {
        if self.has_vnni || part == 0 {
            return a.vpand(BITS, BYTES, MASKS[part]);
        }
        // Bits that come from the neighbor byte are masked away.
        a.vpsrlw(BITS, BYTES, 4)?;
        a.vpand(BITS, BITS, MASKS[0])
    }

    /// The doubled sum of lower and upper nibbles in the first register.
    fn double(&self, a: &mut CodeAssembler, sums: &[AsmRegisterYmm]) -> Result<(), IcedError> {
        let (total, upper) = (sums[0], sums[1]);
        if !self.has_vnni {
            a.vpmaddwd(total, total, ONES)?;
            return a.vpaddd(total, total, total);
        }
        a.vpaddd(total, total, total)?;
        // Upper nibbles are multiplied by 16. Exact: every bit shifted out is zero.
        a.vpsrad(upper, upper, 3)?;
        a.vpaddd(total, total, upper)
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
