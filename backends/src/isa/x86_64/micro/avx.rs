//! AVX2 and AVX-VNNI kernels: a block of one panel is two registers of eight row lanes that share their activations.
//!
//! AVX-VNNI multiplies and sums to 32 bits in one instruction. AVX2 sums pairs of products in 16 bits and widens them
//! before any can overflow: a pair of codes at bits 0-1 adds at most 512 in magnitude, so 64 of them are exact; a
//! pair at bits 2-3 adds at most 2048, so 16 are.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::r9d;
use iced_x86::code_asm::registers::xmm::*;
use iced_x86::code_asm::registers::ymm::*;
use iced_x86::code_asm::{AsmRegisterXmm, AsmRegisterYmm, CodeAssembler, dword_ptr, ymmword_ptr};

use tcc_ir::encoding::i2;

use super::bitmap::{self, Vectors};
use super::panels::{Ahead, Body, NR, Walk, acc_address, q_address, w_address};
use crate::code::Function;
use crate::isa::x86_64::fetch::Fetch;

/// The instructions that multiply codes by activations.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Product {
    /// `vpdpbusd`, VEX-encoded.
    Vnni,
    /// `vpmaddubsw` and `vpaddw`.
    Madd,
}

/// The kernel `name` for `mr` token rows, 1 or 4, that reads `i2` or bitmaps.
pub(super) fn emit(name: &str, mr: usize, product: Product, reads_bitmap: bool, fetch: Fetch) -> Function {
    let bitmap = reads_bitmap.then_some(Vectors::Avx2);
    let walk = |unroll, widen_every: Option<i32>| {
        let turn = widen_every.or(bitmap.map(|_| bitmap::TURN_BLOCKS));
        let ahead = (!reads_bitmap).then(|| Ahead::new(fetch, i2::KR));
        Walk { mr, kr: i2::KR, panels: &[1], unroll, turn, bitmap, ahead }
    };
    match (product, mr) {
        (Product::Vnni, 1) => walk(&[2, 1], None).kernel(name, &Masked),
        // Sixteen pairs at bits 2-3, two in each block.
        (Product::Madd, 1) => walk(&[2, 1], Some(8)).kernel(name, &Paired),
        (Product::Vnni, _) => walk(&[1], None).kernel(name, &Shifted { mr, product }),
        // Sixty-four pairs at bits 0-1, four in each block.
        (Product::Madd, _) => walk(&[1], Some(16)).kernel(name, &Shifted { mr, product }),
    }
}

/// Lanes of one register.
const LANES: usize = 8;

/// Registers of one block.
const HALVES: usize = NR / LANES;

const YMM: [AsmRegisterYmm; 16] =
    [ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14, ymm15];

/// Low halves of [`YMM`].
const XMM: [AsmRegisterXmm; 16] =
    [xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15];

/// AVX-VNNI for one token row: plane p's codes stay multiplied by 4^p, with sums of their own that are shifted once
/// at the end; every bit shifted out is zero.
struct Masked;

impl Masked {
    fn sum(plane: usize, half: usize) -> AsmRegisterYmm {
        YMM[plane * HALVES + half]
    }
}

impl Body for Masked {
    fn constants(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        (0..4).try_for_each(|plane| broadcast(a, 12 + plane, 0x0303_0303 << (2 * plane)))
    }

    fn begin(&self, a: &mut CodeAssembler, _panels: usize) -> Result<(), IcedError> {
        clear(a, &YMM[..4 * HALVES])
    }

    fn block(&self, a: &mut CodeAssembler, panels: usize, block: usize) -> Result<(), IcedError> {
        let (bytes, codes, activations) = (&YMM[8..10], ymm10, ymm11);
        load(a, bytes, panels, block)?;
        for plane in 0..4 {
            a.vpbroadcastd(activations, dword_ptr(q_address(0, i2::KR * block + 4 * plane)))?;
            for (half, bytes) in bytes.iter().enumerate() {
                a.vpand(codes, *bytes, YMM[12 + plane])?;
                a.vex().vpdpbusd(Self::sum(plane, half), codes, activations)?;
            }
        }
        Ok(())
    }

    fn end(&self, a: &mut CodeAssembler, _panels: usize) -> Result<(), IcedError> {
        for half in 0..HALVES {
            let total = Self::sum(0, half);
            for plane in 1..4 {
                let sum = Self::sum(plane, half);
                a.vpsrad(sum, sum, 2 * plane as i32)?;
                a.vpaddd(total, total, sum)?;
            }
            add_to_memory(a, total, 1, 0, half)?;
        }
        Ok(())
    }
}

/// AVX2 for one token row: one shift brings planes 2 and 3 to where 0 and 1 are; planes 1 and 3 stay multiplied by 4
/// and have sums of their own.
struct Paired;

impl Body for Paired {
    fn constants(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        broadcast(a, 15, 0x0303_0303)?;
        broadcast(a, 13, 0x0C0C_0C0C)?;
        ones(a)
    }

    fn begin(&self, a: &mut CodeAssembler, _panels: usize) -> Result<(), IcedError> {
        clear(a, &YMM[..2 * HALVES])
    }

    fn block(&self, a: &mut CodeAssembler, panels: usize, block: usize) -> Result<(), IcedError> {
        let (bytes, activations, product) = (&YMM[4..6], &YMM[6..10], ymm10);
        load(a, bytes, panels, block)?;
        for (plane, activations) in activations.iter().enumerate() {
            a.vpbroadcastd(*activations, dword_ptr(q_address(0, i2::KR * block + 4 * plane)))?;
        }
        for half in 0..HALVES {
            for plane in 0..4 {
                if plane == 2 {
                    a.vpsrlw(bytes[half], bytes[half], 4)?;
                }
                // Planes 0 and 2 at bits 0-1, planes 1 and 3 at bits 2-3.
                let (mask, sum) = ([ymm15, ymm13][plane % 2], YMM[plane % 2 * HALVES + half]);
                a.vpand(product, bytes[half], mask)?;
                a.vpmaddubsw(product, product, activations[plane])?;
                a.vpaddw(sum, sum, product)?;
            }
        }
        Ok(())
    }

    fn end(&self, a: &mut CodeAssembler, _panels: usize) -> Result<(), IcedError> {
        for half in 0..HALVES {
            let (low, high) = (YMM[half], YMM[HALVES + half]);
            a.vpmaddwd(low, low, ONES)?;
            a.vpmaddwd(high, high, ONES)?;
            // Exact: every term is a multiple of 4.
            a.vpsrad(high, high, 2)?;
            a.vpaddd(low, low, high)?;
            add_to_memory(a, low, 1, 0, half)?;
        }
        Ok(())
    }
}

/// Several token rows: planes are shifted to the low bits once for all of them.
struct Shifted {
    mr: usize,
    product: Product,
}

impl Body for Shifted {
    fn constants(&self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        broadcast(a, 15, 0x0303_0303)?;
        ones(a)
    }

    fn begin(&self, a: &mut CodeAssembler, _panels: usize) -> Result<(), IcedError> {
        clear(a, &YMM[..self.mr * HALVES])
    }

    fn block(&self, a: &mut CodeAssembler, panels: usize, block: usize) -> Result<(), IcedError> {
        let (bytes, codes, activations, product) = (&YMM[8..10], &YMM[10..12], ymm12, ymm13);
        load(a, bytes, panels, block)?;
        for plane in 0..4 {
            for (code, bytes) in codes.iter().zip(bytes) {
                if plane == 0 {
                    a.vpand(*code, *bytes, ymm15)?;
                } else {
                    // Bits that come from the neighbor byte are masked away.
                    a.vpsrlw(*code, *bytes, 2 * plane as i32)?;
                    a.vpand(*code, *code, ymm15)?;
                }
            }
            for row in 0..self.mr {
                a.vpbroadcastd(activations, dword_ptr(q_address(row, i2::KR * block + 4 * plane)))?;
                for (half, code) in codes.iter().enumerate() {
                    let sum = YMM[row * HALVES + half];
                    match self.product {
                        Product::Vnni => a.vex().vpdpbusd(sum, *code, activations)?,
                        Product::Madd => {
                            a.vpmaddubsw(product, *code, activations)?;
                            a.vpaddw(sum, sum, product)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn end(&self, a: &mut CodeAssembler, _panels: usize) -> Result<(), IcedError> {
        for row in 0..self.mr {
            for half in 0..HALVES {
                let sum = YMM[row * HALVES + half];
                if self.product == Product::Madd {
                    a.vpmaddwd(sum, sum, ONES)?;
                }
                add_to_memory(a, sum, self.mr, row, half)?;
            }
        }
        Ok(())
    }
}

/// Sixteen 16-bit ones: multiplying by them joins pairs of 16-bit sums to 32 bits.
const ONES: AsmRegisterYmm = ymm14;

fn ones(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.vpcmpeqw(ONES, ONES, ONES)?;
    a.vpsrlw(ONES, ONES, 15)
}

fn broadcast(a: &mut CodeAssembler, register: usize, word: u32) -> Result<(), IcedError> {
    a.mov(r9d, word)?;
    a.vmovd(XMM[register], r9d)?;
    a.vpbroadcastd(YMM[register], XMM[register])
}

fn clear(a: &mut CodeAssembler, registers: &[AsmRegisterYmm]) -> Result<(), IcedError> {
    registers.iter().try_for_each(|&register| a.vpxor(register, register, register))
}

/// Both halves of a block.
fn load(a: &mut CodeAssembler, halves: &[AsmRegisterYmm], panels: usize, block: usize) -> Result<(), IcedError> {
    assert_eq!(panels, 1, "registers are for one panel");
    for (at, half) in [0, 32].into_iter().zip(halves) {
        a.vmovdqu(*half, ymmword_ptr(w_address(0, block, at)))?;
    }
    Ok(())
}

fn add_to_memory(
    a: &mut CodeAssembler,
    sum: AsmRegisterYmm,
    mr: usize,
    row: usize,
    half: usize,
) -> Result<(), IcedError> {
    let place = ymmword_ptr(acc_address(mr, 0, row, half * LANES));
    a.vpaddd(sum, sum, place)?;
    a.vmovdqu(place, sum)
}
