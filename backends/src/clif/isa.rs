//! The code generator's settings for one target: what all functions of one image share.

use std::collections::BTreeMap;

use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use tcc_ir::ops::kv_write::CACHE_TYPES;
use tcc_ir::target::Features;
use tcc_ir::ty::DType;

use super::micro::{BYTE_PANELS, SCREEN_PANELS, SCREEN_ROWS, cache_loop_symbols, dense_dot_symbol};
use crate::code::{EmitError, Function};
use crate::isa::{AttentionPart, Backend, CacheLoops, RowPart, ScreenLoops};

/// A code generator configured for a backend and a set of CPU features.
pub struct ClifContext {
    pub(super) isa: OwnedTargetIsa,
    target: &'static str,
    features: Features,
    has_vectors: bool,
    dense_dots: BTreeMap<DType, Function>,
    dense_ahead_bytes: usize,
    attention: BTreeMap<AttentionPart, Function>,
    cache_loops: BTreeMap<DType, CacheLoops>,
    row_loops: BTreeMap<RowPart, Function>,
    screen: Option<ScreenLoops>,
}

/// Settings common to all targets. References to symbols are PC-relative because every name is declared colocated;
/// `is_pic` would send them through a global offset table instead.
const SETTINGS: &[(&str, &str)] = &[
    ("opt_level", "speed"),
    ("is_pic", "false"),
    ("enable_probestack", "false"),
    ("unwind_info", "false"),
    ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
];

impl ClifContext {
    /// Errors: a triple or flag of the backend that the code generator does not know.
    pub fn new(backend: &dyn Backend, features: Features) -> Result<Self, EmitError> {
        let flags = backend.clif_flags(features);
        let vectors = backend.has_vectors(features);
        let cx = Self::with_flags(backend.desc().name, backend.clif_triple(), &flags, vectors)?;
        let named = |weight| {
            let code = backend.dense_dot(weight, features)?;
            Some((weight, Function { name: dense_dot_symbol(weight), ..code }))
        };
        let dense_dots = [DType::F32, DType::F16, DType::Bf16].into_iter().filter_map(named).collect();
        let named = |part: AttentionPart| {
            let code = backend.attention(part, features)?;
            Some((part, Function { name: part.symbol().into(), ..code }))
        };
        let attention = AttentionPart::ALL.into_iter().filter_map(named).collect();
        let named = |cache| {
            let CacheLoops { scores, values } = backend.cache_loops(cache, features)?;
            let [scores_name, values_name] = cache_loop_symbols(cache);
            let scores = Function { name: scores_name, ..scores };
            Some((cache, CacheLoops { scores, values: Function { name: values_name, ..values } }))
        };
        let cache_loops = CACHE_TYPES.into_iter().filter_map(named).collect();
        let named = |part: RowPart| {
            let code = backend.row_loop(part, features)?;
            Some((part, Function { name: part.symbol().into(), ..code }))
        };
        let row_loops = RowPart::ALL.into_iter().filter_map(named).collect();
        let screen = backend.screen(features).map(|ScreenLoops { panels, byte_panels, rows }| ScreenLoops {
            panels: Function { name: SCREEN_PANELS.into(), ..panels },
            byte_panels: Function { name: BYTE_PANELS.into(), ..byte_panels },
            rows: Function { name: SCREEN_ROWS.into(), ..rows },
        });
        let dense_ahead_bytes = backend.dense_ahead_bytes(features);
        Ok(ClifContext { features, dense_ahead_bytes, dense_dots, attention, cache_loops, row_loops, screen, ..cx })
    }

    fn with_flags(target: &'static str, triple: &str, flags: &[&str], has_vectors: bool) -> Result<Self, EmitError> {
        let fail = |reason: String| EmitError::Codegen { function: format!("target {target}"), reason };
        let mut shared = settings::builder();
        for (name, value) in SETTINGS {
            shared.set(name, value).map_err(|e| fail(format!("setting '{name}': {e}")))?;
        }
        let mut builder = isa::lookup_by_name(triple).map_err(|e| fail(e.to_string()))?;
        for flag in flags {
            builder.enable(flag).map_err(|e| fail(format!("flag '{flag}': {e}")))?;
        }
        let isa = builder.finish(settings::Flags::new(shared)).map_err(|e| fail(e.to_string()))?;
        let (dense_dots, attention, cache_loops) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let row_loops = BTreeMap::new();
        Ok(ClifContext {
            isa,
            target,
            features: Features::NONE,
            has_vectors,
            dense_dots,
            dense_ahead_bytes: 0,
            attention,
            cache_loops,
            row_loops,
            screen: None,
        })
    }

    /// Short name of the target, for messages.
    pub fn target(&self) -> &'static str {
        self.target
    }

    /// What cores have that the code is for.
    pub fn features(&self) -> Features {
        self.features
    }

    /// True if 128-bit vectors may be used.
    pub fn has_vectors(&self) -> bool {
        self.has_vectors
    }

    /// [`Backend::dense_dot`] of these features, under the name that kernels call it by.
    pub fn dense_dot(&self, weight: DType) -> Option<&Function> {
        self.dense_dots.get(&weight)
    }

    /// [`Backend::dense_ahead_bytes`] of these features.
    pub fn dense_ahead_bytes(&self) -> usize {
        self.dense_ahead_bytes
    }

    /// [`Backend::screen`] of these features, under the names that kernels call them by.
    pub fn screen(&self) -> Option<&ScreenLoops> {
        self.screen.as_ref()
    }

    /// [`Backend::attention`] of these features, under the name that kernels call it by.
    pub fn attention(&self, part: AttentionPart) -> Option<&Function> {
        self.attention.get(&part)
    }

    /// [`Backend::row_loop`]s of these features, under the names that kernels call them by.
    pub fn row_loops(&self) -> &BTreeMap<RowPart, Function> {
        &self.row_loops
    }

    /// [`Backend::cache_loops`] of these features, under the names that kernels call them by.
    pub fn cache_loops(&self, cache: DType) -> Option<&CacheLoops> {
        self.cache_loops.get(&cache)
    }
}

#[cfg(test)]
mod tests {
    use cranelift_codegen::ir::InstBuilder;
    use cranelift_codegen::ir::types::F32;

    use super::*;
    use crate::clif::func::signature;
    use crate::isa::BACKENDS;

    /// On some target rounding a product once is a feature; without it the code generator would call a library.
    #[test]
    fn library_calls_are_refused() {
        let mut refused = 0;
        for backend in BACKENDS {
            let cx = ClifContext::with_flags(backend.desc().name, backend.clif_triple(), &[], false)
                .expect("no flag can be unknown");
            let result = cx.function("fused", &signature(&[F32], &[F32]), |f| {
                let x = f.param(0);
                let y = f.ins().fma(x, x, x);
                f.return_(&[y]);
            });
            match result {
                Ok(code) => assert_eq!(code.relocs, [], "{}", cx.target()),
                Err(EmitError::Reloc { function, symbol, .. }) => {
                    assert_eq!(function, "fused");
                    assert!(symbol.contains("Fma"), "{symbol}");
                    refused += 1;
                }
                Err(other) => panic!("expected a refusal, found {other}"),
            }
        }
        assert!(refused > 0, "no target calls a library here: find another instruction");
    }
}
