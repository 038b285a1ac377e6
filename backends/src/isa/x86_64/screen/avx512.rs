//! AVX-512-VNNI: bits are masked where they are; those further up stay multiplied by a power of two and have sums of
//! their own, which are shifted once.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::eax;
use iced_x86::code_asm::registers::xmm::*;
use iced_x86::code_asm::registers::ymm::*;
use iced_x86::code_asm::registers::zmm::*;
use iced_x86::code_asm::{AsmRegisterZmm, CodeAssembler, dword_bcst, ymmword_ptr, zmmword_ptr};
use tcc_ir::screen::GROUP;

use super::*;

pub(super) struct Avx512 {
    pub fetch: Fetch,
}

const LANES: AsmRegisterZmm = zmm0;
const SUMS: [AsmRegisterZmm; 2] = [zmm1, zmm2];
const BITS: [AsmRegisterZmm; 2] = [zmm5, zmm6];
const SCALE: AsmRegisterZmm = zmm7;
const MASKS: [AsmRegisterZmm; 2] = [zmm16, zmm17];

impl Body for Avx512 {
    fn fetch(&self) -> Fetch {
        self.fetch
    }

    fn clear(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        a.vpxord(LANES, LANES, LANES)
    }

    fn group_constants(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        broadcast(a, NIBBLE_MASKS)
    }

    fn group(&self, a: &mut CodeAssembler, half: usize) -> Result<(), IcedError> {
        let [low, high] = [SUMS[0], SUMS[1]];
        clear_sums(a, 2)?;
        for eight in 0..GROUP / 8 {
            ask(a, self.fetch, half * GROUP / 8 + eight)?;
            a.vmovdqu64(BITS[1], zmmword_ptr(nibbles(half, eight, 0)))?;
            a.vpandd(BITS[0], BITS[1], MASKS[0])?;
            a.vpandd(BITS[1], BITS[1], MASKS[1])?;
            a.vpdpbusd(low, BITS[0], dword_bcst(four_codes(half, eight, 0)))?;
            a.vpdpbusd(high, BITS[1], dword_bcst(four_codes(half, eight, 1)))?;
        }
        a.vpmovzxwd(SCALE, ymmword_ptr(row_scales(half, 0)))?;
        a.vpslld(SCALE, SCALE, 16)?;
        a.vmulps(SCALE, SCALE, dword_bcst(group_scale(half)))?;
        a.vpaddd(low, low, low)?;
        a.vpsrad(high, high, 3)?;
        a.vpaddd(low, low, high)?;
        a.vpaddd(low, low, dword_bcst(group_offset(half)))?;
        a.vcvtdq2ps(low, low)?;
        a.vfmadd231ps(LANES, low, SCALE)
    }

    fn byte_constants(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        broadcast(a, [SIGNS, SIGNS_OFFSET])
    }

    fn byte_group(&self, a: &mut CodeAssembler, half: usize) -> Result<(), IcedError> {
        let [signs, signs_offset] = MASKS;
        // Two chains: each sum waits for the one before.
        a.vpmulld(SUMS[0], signs_offset, dword_bcst(group_offset(half)))?;
        a.vpxord(SUMS[1], SUMS[1], SUMS[1])?;
        for four in 0..GROUP / 4 {
            let sum = SUMS[four % 2];
            ask(a, self.fetch, half * GROUP / 4 + four)?;
            a.vpxord(BITS[0], signs, zmmword_ptr(bytes(half, four, 0)))?;
            a.vpdpbusd(sum, BITS[0], dword_bcst(four_codes(half, four / 2, four % 2)))?;
        }
        a.vpaddd(SUMS[0], SUMS[0], SUMS[1])?;
        a.vcvtdq2ps(SUMS[0], SUMS[0])?;
        a.vfmadd231ps(LANES, SUMS[0], dword_bcst(group_scale(half)))
    }

    fn scale_rows(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        a.vmulps(LANES, LANES, zmmword_ptr(W))
    }

    fn store(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        a.vmovups(zmmword_ptr(OUT), LANES)
    }

    fn piece_constants(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        broadcast(a, PLANE_MASKS)
    }

    fn piece(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        // Planes 0 and 2 have one sum, planes 1 and 3 another, which begins at the offset.
        let sums = [SUMS[0], SUMS[1]];
        clear_sums(a, 1)?;
        a.vmovdqu64(sums[1], zmmword_ptr(piece_offsets(0)))?;
        for row in 0..PIECE_ROWS {
            ask_piece(a, self.fetch, row)?;
            a.vmovdqu64(BITS[0], zmmword_ptr(low_bits(row, 0)))?;
            for half in 0..2 {
                if half == 1 {
                    // Bits that come from the neighbor byte are masked away.
                    a.vpsrlw(BITS[0], BITS[0], 4)?;
                }
                for (plane, sum) in sums.into_iter().enumerate() {
                    a.vpandd(BITS[1], BITS[0], MASKS[plane])?;
                    a.vpdpbusd(sum, BITS[1], zmmword_ptr(lane_codes(row, 2 * half + plane, 0)))?;
                }
            }
        }
        ask_piece(a, self.fetch, PIECE_ROWS)?;
        let total = sums[1];
        a.vpslld(sums[0], sums[0], 2)?;
        a.vpaddd(total, total, sums[0])?;
        a.vpmovzxwd(SCALE, ymmword_ptr(piece_row_scales(0)))?;
        a.vpslld(SCALE, SCALE, 16)?;
        a.vmulps(SCALE, SCALE, zmmword_ptr(piece_scales(0)))?;
        a.vcvtdq2ps(total, total)?;
        a.vfmadd231ps(LANES, total, SCALE)
    }

    fn halve(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        a.vextractf32x8(ymm1, LANES, 1)?;
        a.vaddps(ymm0, ymm0, ymm1)?;
        a.vextractf128(xmm1, ymm0, 1)?;
        a.vaddps(xmm0, xmm0, xmm1)
    }
}

fn clear_sums(a: &mut CodeAssembler, count: usize) -> Result<(), IcedError> {
    SUMS[..count].iter().try_for_each(|sum| a.vpxord(*sum, *sum, *sum))
}

fn broadcast(a: &mut CodeAssembler, masks: [u32; 2]) -> Result<(), IcedError> {
    for (register, mask) in MASKS.into_iter().zip(masks) {
        a.mov(eax, mask)?;
        a.vpbroadcastd(register, eax)?;
    }
    Ok(())
}
