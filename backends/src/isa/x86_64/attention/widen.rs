//! Elements of a cache widened to f32, for queries so many that each element serves several groups of them.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::zmm::*;
use iced_x86::code_asm::{AsmMemoryOperand, AsmRegisterZmm, CodeAssembler, byte_ptr, ymmword_ptr, zmmword_ptr};
use tcc_ir::cache::element_bytes;
use tcc_ir::numerics::LANES;
use tcc_ir::ty::DType;

use super::{LINE_BYTES, REGISTERS};
use crate::code::Function;
use crate::isa::x86_64::function;
use crate::isa::x86_64::pieces::{int, tail_mask, while_left};

/// How far ahead of what is widened the cache is fetched, bytes: the chunk after the next.
pub(super) const PREFETCH_BYTES: i32 = 8192;

/// `extern "C" fn(from, to, n)`.
pub(super) fn widen() -> Function {
    let (from, to, n, element_bytes) = (rdi, rsi, rdx, element_bytes(DType::F16));
    function("attention_widen", 8, |a| {
        let mut done = a.create_label();
        tail_mask(a, n)?;
        for blocks in [8, 1] {
            while_left(a, n, blocks * LANES, |a| {
                for line in (0..blocks * LANES * element_bytes).step_by(LINE_BYTES) {
                    a.prefetcht0(byte_ptr(from + PREFETCH_BYTES + int(line)))?;
                }
                for (block, register) in REGISTERS[..blocks].iter().enumerate() {
                    load_widened(a, DType::F16, *register, from + int(block * LANES * element_bytes))?;
                    a.vmovups(zmmword_ptr(to + int(block * LANES * 4)), *register)?;
                }
                a.add(from, int(blocks * LANES * element_bytes))?;
                a.add(to, int(blocks * LANES * 4))
            })?;
        }
        a.test(n, n)?;
        a.je(done)?;
        load_widened(a, DType::F16, zmm0.k1().z(), from + 0)?;
        a.vmovups(zmmword_ptr(to).k1(), zmm0)?;
        a.set_label(&mut done)?;
        a.vzeroupper()?;
        a.ret()
    })
}

/// Sixteen elements of a cache as f32 in `to`, which may be masked.
pub(super) fn load_widened(
    a: &mut CodeAssembler,
    cache: DType,
    to: AsmRegisterZmm,
    from: AsmMemoryOperand,
) -> Result<(), IcedError> {
    match cache {
        DType::F16 => a.vcvtph2ps(to, ymmword_ptr(from)),
        DType::F32 => a.vmovups(to, zmmword_ptr(from)),
        DType::Bf16 | DType::I8 | DType::I32 | DType::U32 | DType::Q8 | DType::Trit => {
            unreachable!("no float cache of {cache}")
        }
    }
}
