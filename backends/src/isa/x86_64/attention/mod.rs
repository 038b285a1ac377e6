//! The assembled loops of attention (see [`AttentionPart`] and [`CacheLoops`]): with 512 bits, and with 256 on cores
//! that have no more.

mod avx2;
mod code_loops_avx2;
mod code_scores;
mod code_values;
mod codes;
mod codes_avx2;
mod scores;
mod softmax;
mod softmax_avx2;
mod values;
mod widen;

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::registers::zmm::*;
use iced_x86::code_asm::{AsmMemoryOperand, AsmRegister64, AsmRegisterZmm, CodeAssembler, byte_ptr, qword_ptr};
use tcc_ir::cache::element_bytes;
use tcc_ir::target::Features;
use tcc_ir::ty::DType;

use super::fetch::Fetch;
use super::pieces::int;
use super::{desc, function};
use crate::code::Function;
use crate::isa::{AttentionPart, CacheLoops};

/// Callee-saved registers that scores and values use.
const SAVED: [AsmRegister64; 6] = [rbx, rbp, r12, r13, r14, r15];

/// Queries processed together, most first.
const QUERIES: [usize; 3] = [4, 2, 1];

/// Bytes from the scores or factors of one query to the next.
const STRIDE: AsmRegister64 = r9;

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

const REGISTERS: [AsmRegisterZmm; 32] = [
    zmm0, zmm1, zmm2, zmm3, zmm4, zmm5, zmm6, zmm7, zmm8, zmm9, zmm10, zmm11, zmm12, zmm13, zmm14, zmm15, zmm16, zmm17,
    zmm18, zmm19, zmm20, zmm21, zmm22, zmm23, zmm24, zmm25, zmm26, zmm27, zmm28, zmm29, zmm30, zmm31,
];

/// The keys or values that a loop reads.
#[derive(Clone, Copy)]
struct Elements {
    dtype: DType,
    /// How later ones are asked for, and bytes to them from what is read; none where it was just written.
    ahead: Option<(Fetch, usize)>,
}

impl Elements {
    /// Elements that were widened, or that lie near because other queries read them too.
    const WIDENED: Elements = Elements { dtype: DType::F32, ahead: None };

    /// Elements as the cache stores them. So many bytes cover the latency of a memory, and of codes the time that
    /// loops work on values of other lanes; more would not stay near.
    fn stored(cache: DType, fetch: Fetch) -> Elements {
        Elements { dtype: cache, ahead: Some((fetch, 16384)) }
    }

    /// Asks for the line that comes that much after the one at `at`, where something is asked for.
    fn ask_line(self, a: &mut CodeAssembler, at: AsmMemoryOperand) -> Result<(), IcedError> {
        let Some((fetch, ahead)) = self.ahead else { return Ok(()) };
        fetch.ask(a, byte_ptr(at + int(ahead)))
    }

    /// Bytes of an element.
    fn bytes(self) -> usize {
        element_bytes(self.dtype)
    }

    /// Asks for what comes after the `bytes` at `at`, where something is asked for.
    fn ask_ahead(self, a: &mut CodeAssembler, at: AsmRegister64, bytes: usize) -> Result<(), IcedError> {
        let Some((fetch, ahead)) = self.ahead else { return Ok(()) };
        for line in (0..bytes).step_by(LINE_BYTES) {
            fetch.ask(a, byte_ptr(at + int(ahead + line)))?;
        }
        Ok(())
    }
}

/// The function of `part` for cores with `features`.
pub(super) fn emit(part: AttentionPart, features: Features) -> Function {
    let is_wide = features.contains(desc::AVX512);
    let has_bytes = features.contains(desc::AVX512VNNI);
    let has_vnni = features.contains(desc::AVXVNNI);
    let codes = Elements::stored(DType::Q8, Fetch::of(features));
    match part {
        AttentionPart::Widen if is_wide => widen::widen(),
        AttentionPart::Widen => avx2::widen(),
        AttentionPart::Scores if is_wide => scores::scores(Elements::WIDENED),
        AttentionPart::Scores => avx2::scores(),
        AttentionPart::Softmax if is_wide => softmax::softmax(),
        AttentionPart::Softmax => softmax_avx2::softmax(),
        AttentionPart::Values if is_wide => values::values(Elements::WIDENED),
        AttentionPart::Values => avx2::values(),
        AttentionPart::QueryCodes if is_wide => codes::query_codes(),
        AttentionPart::QueryCodes => codes_avx2::query_codes(),
        AttentionPart::CodeScores if has_bytes => code_scores::scores(codes),
        AttentionPart::CodeScores => code_loops_avx2::scores(has_vnni),
        AttentionPart::WeightCodes if is_wide => codes::weight_codes(),
        AttentionPart::WeightCodes => codes_avx2::weight_codes(),
        AttentionPart::CodeValues if has_bytes => code_values::values(codes),
        AttentionPart::CodeValues => code_loops_avx2::values(has_vnni),
    }
}

/// The loops that read a cache of the float type `cache` as it is.
pub(super) fn cache_loops(cache: DType, fetch: Fetch) -> CacheLoops {
    let elements = Elements::stored(cache, fetch);
    CacheLoops { scores: scores::scores(elements), values: values::values(elements) }
}

/// A function that saves [`SAVED`] and has `stack_bytes` of its own at the stack pointer.
fn with_saved(
    name: &str,
    stack_bytes: usize,
    fill: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Function {
    let frame_bytes = u32::try_from(8 + 8 * SAVED.len() + stack_bytes).expect("a few registers");
    function(name, frame_bytes, |a| {
        SAVED.iter().try_for_each(|register| a.push(*register))?;
        if stack_bytes > 0 {
            a.sub(rsp, int(stack_bytes))?;
        }
        fill(a)?;
        a.vzeroupper()?;
        if stack_bytes > 0 {
            a.add(rsp, int(stack_bytes))?;
        }
        SAVED.iter().rev().try_for_each(|register| a.pop(*register))?;
        a.ret()
    })
}

/// Address of the seventh argument in a function of [`with_saved`].
fn stack_argument(stack_bytes: usize) -> AsmMemoryOperand {
    qword_ptr(rsp + int(8 + 8 * SAVED.len() + stack_bytes))
}
