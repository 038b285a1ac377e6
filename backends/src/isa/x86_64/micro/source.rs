//! How the AVX-512 kernels read a block of weights: one register of packed bytes, [`Source::planes`] planes of codes.
//!
//! Planes 0 to 3 are two bits each of a register. `i2` stores them so. `base3` needs the byte tables of AVX-512-VBMI:
//! `vpermi2b` with the low seven bits of the byte, then every code c of the bytes marked as turned becomes 2 - c.
//! Its plane 4 is `vpermb` with the low six bits.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::k::k1;
use iced_x86::code_asm::registers::zmm::*;
use iced_x86::code_asm::{AsmRegisterZmm, CodeAssembler, qword_ptr, zmmword_ptr};
use tcc_ir::encoding::{Encoding, base3, i2};

use super::avx512::broadcast;
use super::panels::{scratch_argument, w_address};

/// The layout of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    I2,
    Base3,
}

/// Bytes of the tables of `base3`, which a kernel writes to the begin of its scratch: two of 64 bytes for planes 0 to
/// 3, one for plane 4.
pub(in crate::isa::x86_64) const TABLE_BYTES: usize = 3 * 64;

/// Code 2 in planes 0 to 3.
const TWOS: AsmRegisterZmm = zmm31;
/// Planes 0 to 3 of bytes that are not turned, by the low seven bits.
const TABLE: [AsmRegisterZmm; 2] = [zmm30, zmm29];
/// Plane 4 by the low six bits.
const TOP_TABLE: AsmRegisterZmm = zmm28;

impl Source {
    /// The source of rows that read `encoding`; `None` if no AVX-512 kernel does.
    pub fn of(encoding: Encoding) -> Option<Source> {
        match encoding {
            Encoding::I2 { .. } => Some(Source::I2),
            Encoding::Base3 { .. } => Some(Source::Base3),
            Encoding::I2Lane { .. } | Encoding::Bitmap(_) | Encoding::W2Nz(_) => None,
        }
    }

    /// Columns of a block.
    pub fn kr(self) -> usize {
        match self {
            Source::I2 => i2::KR,
            Source::Base3 => base3::KR,
        }
    }

    /// Planes of a block, in the order that frees registers first: plane 4 has one of its own.
    pub fn planes(self) -> &'static [usize] {
        match self {
            Source::I2 => &[0, 1, 2, 3],
            Source::Base3 => &[4, 0, 1, 2, 3],
        }
    }

    /// Fills the registers that [`Source::load`] reads: zmm28 to zmm31 or none.
    pub fn constants(self, a: &mut CodeAssembler) -> Result<(), IcedError> {
        if self == Source::I2 {
            return Ok(());
        }
        a.mov(r8, qword_ptr(scratch_argument()))?;
        for (i, word) in tables().chunks_exact(8).enumerate() {
            a.mov(r9, u64::from_le_bytes(word.try_into().expect("eight bytes")))?;
            a.mov(qword_ptr(r8 + 8 * i), r9)?;
        }
        for (i, table) in [TABLE[0], TABLE[1], TOP_TABLE].into_iter().enumerate() {
            a.vmovdqu64(table, zmmword_ptr(r8 + 64 * i))?;
        }
        broadcast(a, TWOS, 0xAAAA_AAAA)
    }

    /// Loads the bytes of `block` of `panel`: planes 0 to 3 to `low`, plane 4, if there is one, to `top`.
    pub fn load(
        self,
        a: &mut CodeAssembler,
        (panel, block): (usize, usize),
        low: AsmRegisterZmm,
        top: AsmRegisterZmm,
    ) -> Result<(), IcedError> {
        a.vmovdqu64(low, zmmword_ptr(w_address(panel, block, 0)))?;
        if self == Source::I2 {
            return Ok(());
        }
        a.vpmovb2m(k1, low)?;
        a.vpermb(top, low, TOP_TABLE)?;
        a.vpermi2b(low, TABLE[0], TABLE[1])?;
        a.vpsubb(low.k1(), TWOS, low)
    }
}

/// The tables as in [`TABLE_BYTES`].
fn tables() -> [u8; TABLE_BYTES] {
    std::array::from_fn(|i| {
        let codes = base3::codes((i % 128) as u8);
        if i < 128 { (0..4).fold(0, |byte, p| byte | codes[p] << (2 * p)) } else { codes[4] }
    })
}
