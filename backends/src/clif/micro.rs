//! Assembled functions under the names that kernels call them by.

use std::collections::{BTreeMap, BTreeSet};

use tcc_ir::coded::RowCode;
use tcc_ir::kernel::KernelSpec;
use tcc_ir::screen::kernel::ScreenKernel;
use tcc_ir::target::MicroKernel;
use tcc_ir::ty::DType;

use super::isa::ClifContext;
use super::ternary_portable;
use super::{attention, attention_parts};
use crate::code::{EmitError, Function};
use crate::isa::{AttentionPart, Backend, RowPart};

/// Name of a micro-kernel's function in an image.
pub fn micro_symbol(row: &MicroKernel) -> String {
    format!("micro_{}", row.name)
}

/// Name of the dot product with weights of type `weight` in an image.
pub fn dense_dot_symbol(weight: DType) -> String {
    format!("dense_dot_{weight}")
}

/// Names of the loops of attention that read a cache of type `cache` as it is, in an image: scores, values.
pub fn cache_loop_symbols(cache: DType) -> [String; 2] {
    [format!("attention_scores_{cache}"), format!("attention_values_{cache}")]
}

/// Names in an image of the estimates of a head's panels of four and of eight bits, and of their refinement for some rows.
pub const SCREEN_PANELS: &str = "screen_panels";
pub const BYTE_PANELS: &str = "byte_panels";
pub const SCREEN_ROWS: &str = "screen_rows";

/// The functions that the kernels of `specs` call, each once, by name.
///
/// Errors: a menu row that the backend has no code for.
pub fn emit_callees<'a>(
    cx: &ClifContext,
    backend: &dyn Backend,
    specs: impl IntoIterator<Item = &'a KernelSpec>,
) -> Result<Vec<Function>, EmitError> {
    let mut rows: BTreeMap<&str, &MicroKernel> = BTreeMap::new();
    let (mut weights, mut parts, mut caches) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let (mut has_panels, mut has_bytes, mut has_low) = (false, false, false);
    let mut row_parts = BTreeSet::new();
    for spec in specs {
        row_parts.extend(parts_of_rows(spec));
        let schedules = spec.ternary_products().into_iter().flat_map(|products| products.schedules);
        rows.extend(schedules.flat_map(|schedule| &schedule.micro).map(|row| (row.name, *row)));
        match spec {
            KernelSpec::DenseMatmul { weight, .. } => weights.extend([*weight]),
            KernelSpec::Attention { heads, cache, .. } | KernelSpec::AttentionStep { heads, cache, .. } => {
                let m = if let KernelSpec::Attention { m, .. } = spec { *m } else { 1 };
                match attention::cache_loops(cx, m, *heads, cache) {
                    Some(_) => {
                        parts.insert(AttentionPart::Softmax);
                        caches.insert(cache.dtype);
                    }
                    None => parts.extend(AttentionPart::of(cache.dtype)),
                }
            }
            KernelSpec::Screen { step: ScreenKernel::Exact { weight }, .. } => weights.extend([*weight]),
            KernelSpec::Screen { step: ScreenKernel::High, .. } => has_panels = true,
            KernelSpec::Screen { step: ScreenKernel::Low, .. } => has_low = true,
            KernelSpec::Screen { step: ScreenKernel::Query, .. } => {}
            KernelSpec::CodedMatmul { table } => match table.code {
                RowCode::Int8 => has_bytes = true,
                RowCode::Int4 => has_panels = true,
            },
            KernelSpec::Embed { .. }
            | KernelSpec::CodedEmbed { .. }
            | KernelSpec::Norm { .. }
            | KernelSpec::NormQuant { .. }
            | KernelSpec::Quantize { .. }
            | KernelSpec::Glu { .. }
            | KernelSpec::GluQuant { .. }
            | KernelSpec::GluNormQuant { .. }
            | KernelSpec::TernaryMatmul { .. }
            | KernelSpec::TernaryGlu { .. }
            | KernelSpec::FloatTernaryMatmul { .. }
            | KernelSpec::Rope { .. }
            | KernelSpec::KvWrite { .. }
            | KernelSpec::Add { .. } => {}
        }
    }
    let row_loops = row_parts.iter().filter_map(|part| cx.row_loops().get(part).cloned());
    let micro = rows.into_values().map(|row| emit_micro(cx, backend, row));
    let dense = weights.into_iter().filter_map(|weight| cx.dense_dot(weight).cloned());
    let loops = caches.into_iter().filter_map(|cache| cx.cache_loops(cache));
    let loops = loops.flat_map(|loops| [loops.scores.clone(), loops.values.clone()]);
    let attention = parts.into_iter().map(|part| emit_attention(cx, part));
    let screen = cx.screen().into_iter().flat_map(|loops| {
        let used = [(has_panels, &loops.panels), (has_bytes, &loops.byte_panels), (has_low, &loops.rows)];
        used.into_iter().filter(|(is_used, _)| *is_used).map(|(_, code)| code.clone())
    });
    micro.chain(dense.chain(screen).chain(loops).chain(row_loops).map(Ok)).chain(attention).collect()
}

/// Loops over rows that a kernel calls where they are assembled.
fn parts_of_rows(spec: &KernelSpec) -> Vec<RowPart> {
    const NORM: [RowPart; 2] = [RowPart::Squares, RowPart::Scale];
    const QUANTIZE: [RowPart; 2] = [RowPart::Absmax, RowPart::Codes];
    match spec {
        KernelSpec::Norm { .. } => NORM.to_vec(),
        KernelSpec::NormQuant { .. } => [NORM, QUANTIZE].concat(),
        KernelSpec::Quantize { .. } => QUANTIZE.to_vec(),
        KernelSpec::Glu { act, .. } | KernelSpec::TernaryGlu { act, .. } => vec![RowPart::Gate(*act)],
        KernelSpec::GluQuant { act, .. } => [&[RowPart::Gate(*act)][..], &QUANTIZE].concat(),
        KernelSpec::GluNormQuant { act, .. } => [&[RowPart::Gate(*act)][..], &NORM, &QUANTIZE].concat(),
        KernelSpec::KvWrite { cache, .. } if cache.has_scales() => QUANTIZE.to_vec(),
        KernelSpec::KvWrite { cache, .. } if cache.dtype == DType::F16 => vec![RowPart::Narrow],
        KernelSpec::KvWrite { .. }
        | KernelSpec::Embed { .. }
        | KernelSpec::CodedEmbed { .. }
        | KernelSpec::CodedMatmul { .. }
        | KernelSpec::TernaryMatmul { .. }
        | KernelSpec::FloatTernaryMatmul { .. }
        | KernelSpec::DenseMatmul { .. }
        | KernelSpec::Rope { .. }
        | KernelSpec::Attention { .. }
        | KernelSpec::AttentionStep { .. }
        | KernelSpec::Add { .. }
        | KernelSpec::Screen { .. } => Vec::new(),
    }
}

/// The function of a part of attention, assembled by the backend where it can.
fn emit_attention(cx: &ClifContext, part: AttentionPart) -> Result<Function, EmitError> {
    match cx.attention(part) {
        Some(code) => Ok(code.clone()),
        None => attention_parts::emit(cx, part),
    }
}

/// The function of a menu row, assembled by the backend unless it is a portable one; named by [`micro_symbol`].
///
/// Errors: a row that the backend has no code for.
fn emit_micro(cx: &ClifContext, backend: &dyn Backend, row: &MicroKernel) -> Result<Function, EmitError> {
    if let Some(portable) = ternary_portable::emit(cx, row) {
        return portable;
    }
    match backend.micro(row, cx.features()) {
        Some(code) => Ok(Function { name: micro_symbol(row), ..code }),
        None => Err(EmitError::NoKernel { target: cx.target().to_string(), what: format!("micro-kernel '{row}'") }),
    }
}
