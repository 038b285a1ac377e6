//! From the code generator's result to [`Function`]: bytes, references, stack use, labels.

use cranelift_codegen::binemit::Reloc as ClifReloc;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::ExternalName;
use cranelift_codegen::{CompiledCode, Context, FinalizedMachReloc, FinalizedRelocTarget};

use super::isa::ClifContext;
use crate::code::{EmitError, Function, Reloc, RelocKind, Target};

/// Smallest alignment of a function, bytes: loop heads then sit as the code generator placed them.
const FUNCTION_ALIGN: u32 = 32;

/// Return address and saved frame pointer, 16 bytes on every target; above them lie only the caller's bytes.
///
/// The code generator leaves the pair out of some leaf functions on targets with a link register, where this is an
/// upper bound.
const SETUP_AREA_BYTES: u32 = 16;

/// What the builder knows by name.
pub(super) struct Names<'a> {
    pub function: &'a str,
    /// Name of each external symbol, by its index.
    pub symbols: Vec<String>,
    /// Functions of the image that are called, sorted.
    pub calls: Vec<String>,
    /// `marks[i]` is the label of source location `i + 1`.
    pub marks: Vec<String>,
}

/// Compiles `function` and maps what it refers to.
pub(super) fn finish(
    cx: &ClifContext,
    function: cranelift_codegen::ir::Function,
    names: Names,
) -> Result<Function, EmitError> {
    let mut context = Context::for_function(function);
    context.compile(cx.isa.as_ref(), &mut ControlPlane::default()).map_err(|error| EmitError::Codegen {
        function: names.function.to_string(),
        reason: cranelift_codegen::print_errors::pretty_error(error.func, error.inner),
    })?;
    let code = context.compiled_code().expect("compiled just now");
    let mut relocs = Vec::new();
    for reloc in code.buffer.relocs() {
        relocs.push(map_reloc(reloc, &names, &context.func)?);
    }
    Ok(Function {
        name: names.function.to_string(),
        bytes: code.code_buffer().to_vec(),
        align: code.buffer.alignment.max(FUNCTION_ALIGN),
        frame_bytes: frame_bytes(code),
        marks: label_offsets(code, &names.marks),
        calls: names.calls,
        relocs,
        is_code: true,
        is_api: false,
        is_task: false,
    })
}

/// Stack bytes of one activation, return address included.
///
/// The distance from the bottom of the frame to the frame pointer covers saved registers, spills, stack slots and
/// the arguments passed on to callees; above it lies the setup area. Tail calls, which alone would add more, are not
/// used.
fn frame_bytes(code: &CompiledCode) -> u32 {
    let layout = code.buffer.frame_layout().expect("a function body has a frame layout");
    layout.frame_to_fp_offset + SETUP_AREA_BYTES
}

/// The first byte of each label's code, in order of address. A label whose code was optimized away has none.
fn label_offsets(code: &CompiledCode, marks: &[String]) -> Vec<(u32, String)> {
    let mut first: Vec<Option<u32>> = vec![None; marks.len()];
    for location in code.buffer.get_srclocs_sorted() {
        let number = location.loc.bits();
        if location.loc.is_default() || number == 0 {
            continue;
        }
        let slot = &mut first[number as usize - 1];
        *slot = Some(slot.map_or(location.start, |start| start.min(location.start)));
    }
    let mut labels: Vec<_> = first.iter().zip(marks).filter_map(|(at, label)| Some(((*at)?, label.clone()))).collect();
    labels.sort();
    labels
}

fn map_reloc(
    reloc: &FinalizedMachReloc,
    names: &Names,
    body: &cranelift_codegen::ir::Function,
) -> Result<Reloc, EmitError> {
    let fail =
        |symbol: String, problem: String| EmitError::Reloc { function: names.function.to_string(), symbol, problem };
    let target = match &reloc.target {
        FinalizedRelocTarget::Func(offset) => Target::Local(*offset),
        FinalizedRelocTarget::ExternalName(ExternalName::User(name)) => {
            let index = body.params.user_named_funcs()[*name].index;
            Target::Symbol(names.symbols[index as usize].clone())
        }
        FinalizedRelocTarget::ExternalName(
            name @ (ExternalName::LibCall(_) | ExternalName::KnownSymbol(_) | ExternalName::TestCase(_)),
        ) => {
            let problem = "a library function of the code generator; no image has one";
            return Err(fail(format!("{name:?}"), problem.to_string()));
        }
    };
    // A foreign enum: whatever is not PC-relative to a symbol of the image is refused.
    let kind = match reloc.kind {
        ClifReloc::X86PCRel4 | ClifReloc::X86CallPCRel4 => RelocKind::X86Pc32,
        ClifReloc::Arm64Call => RelocKind::Aarch64Call,
        ClifReloc::Aarch64AdrPrelPgHi21 => RelocKind::Aarch64AdrpPage,
        ClifReloc::Aarch64AddAbsLo12Nc => RelocKind::Aarch64AddLow12,
        ClifReloc::RiscvCallPlt => RelocKind::RiscvCall,
        ClifReloc::RiscvPCRelHi20 => RelocKind::RiscvPcrelHigh20,
        ClifReloc::RiscvPCRelLo12I => RelocKind::RiscvPcrelLow12I,
        other => return Err(fail(format!("{target:?}"), format!("referred to by relocation {other}"))),
    };
    Ok(Reloc { offset: reloc.offset, kind, target, addend: reloc.addend })
}
