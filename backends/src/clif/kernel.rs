//! The calling convention of kernels, and the match from a spec to its family.

use cranelift_codegen::ir::Value;
use cranelift_codegen::ir::types::I64;
use tcc_ir::kernel::{GatedProduct, KernelSpec, args};

use super::func::{FunctionCx, signature};
use super::isa::ClifContext;
use super::{
    add, attention, attention_steps, coded, dense, embed, float_ternary, glu, kv_write, norm, quantize, rope, screen,
    ternary,
};
use crate::code::{EmitError, Function};

/// The parameters every kernel has.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    args: Value,
    /// First task.
    pub begin: Value,
    /// One past the last task.
    pub end: Value,
    pub scratch: Value,
}

impl Kernel {
    fn new(f: &FunctionCx) -> Kernel {
        Kernel { args: f.param(0), begin: f.param(1), end: f.param(2), scratch: f.param(3) }
    }

    fn word(&self, f: &mut FunctionCx, i: usize) -> Value {
        f.load(I64, self.args, i32::try_from(8 * i).expect("a dozen words"))
    }

    /// Address of operand `i`.
    pub fn operand(&self, f: &mut FunctionCx, i: usize) -> Value {
        self.word(f, args::FIRST + i)
    }

    /// Absolute position of token row 0.
    pub fn pos(&self, f: &mut FunctionCx) -> Value {
        self.word(f, args::POS)
    }

    /// Number of valid token rows.
    pub fn valid(&self, f: &mut FunctionCx) -> Value {
        self.word(f, args::VALID)
    }

    /// Address of the flag of non-finite activations.
    pub fn nonfinite(&self, f: &mut FunctionCx) -> Value {
        self.word(f, args::NONFINITE)
    }

    /// Runs `body` for each task that is a valid token row.
    pub fn for_rows(&self, f: &mut FunctionCx, body: impl FnOnce(&mut FunctionCx, Value)) {
        let valid = self.valid(f);
        let end = f.min(self.end, valid);
        f.for_range(self.begin, end, 1, body);
    }
}

/// The kernel of `spec` as a function named `name`; what it calls is given by [`super::micro::emit_callees`].
///
/// Errors: a spec no portable code exists for, or that the code generator refuses.
pub fn emit_kernel(cx: &ClifContext, spec: &KernelSpec, name: &str) -> Result<Function, EmitError> {
    check(cx, spec)?;
    cx.function(name, &signature(&[I64, I64, I64, I64], &[]), |f| {
        let kernel = Kernel::new(f);
        build(f, cx, &kernel, spec);
        f.return_(&[]);
    })
}

/// Refuses the specs that [`build`] has no code for.
fn check(cx: &ClifContext, spec: &KernelSpec) -> Result<(), EmitError> {
    let problem = match spec {
        KernelSpec::TernaryMatmul { layout, scale, schedule, .. } => ternary::problem(*layout, *scale, schedule),
        KernelSpec::TernaryGlu { layout, products, .. } => {
            products.iter().find_map(|product| ternary::problem(*layout, product.scale, &product.schedule))
        }
        KernelSpec::FloatTernaryMatmul { k, encoding, scale, .. } => float_ternary::problem(*k, *encoding, *scale),
        KernelSpec::Embed { .. }
        | KernelSpec::CodedEmbed { .. }
        | KernelSpec::CodedMatmul { .. }
        | KernelSpec::Norm { .. }
        | KernelSpec::NormQuant { .. }
        | KernelSpec::Quantize { .. }
        | KernelSpec::Glu { .. }
        | KernelSpec::GluQuant { .. }
        | KernelSpec::GluNormQuant { .. }
        | KernelSpec::DenseMatmul { .. }
        | KernelSpec::Rope { .. }
        | KernelSpec::KvWrite { .. }
        | KernelSpec::Attention { .. }
        | KernelSpec::AttentionStep { .. }
        | KernelSpec::Add { .. }
        | KernelSpec::Screen { .. } => None,
    };
    match problem {
        None => Ok(()),
        Some(what) => {
            let what = format!("{}: {what}", spec.family());
            Err(EmitError::NoKernel { target: cx.target().to_string(), what })
        }
    }
}

fn build<'a>(f: &mut FunctionCx, cx: &ClifContext, kernel: &Kernel, spec: &'a KernelSpec) {
    match spec {
        KernelSpec::Embed { h, table, scale, .. } => embed::build(f, kernel, *h, *table, *scale),
        KernelSpec::CodedEmbed { table, scale, .. } => coded::build_embed(f, kernel, table, *scale),
        KernelSpec::CodedMatmul { table } => coded::build_matmul(f, cx, kernel, table),
        KernelSpec::Norm { k, d, eps, .. } => norm::build(f, kernel, *k, *d, *eps),
        KernelSpec::NormQuant { eps, layout, .. } => norm::build_quant(f, kernel, *eps, *layout),
        KernelSpec::Quantize { layout, .. } => quantize::build(f, kernel, *layout),
        KernelSpec::Glu { k, act, .. } => glu::build(f, kernel, *k, *act),
        KernelSpec::GluQuant { act, layout, .. } => glu::build_quant(f, kernel, *act, *layout),
        KernelSpec::GluNormQuant { act, eps, layout, .. } => glu::build_norm_quant(f, kernel, *act, *eps, *layout),
        KernelSpec::TernaryMatmul { n, layout, scale, bias, residual, schedule, .. } => {
            let has = super::epilogue::Operands { bias: *bias, residual: *residual };
            ternary::build(f, kernel, &ternary::Product { n: *n, layout: *layout, scale: *scale, schedule }, has);
        }
        KernelSpec::TernaryGlu { n, layout, act, products, .. } => {
            let up = f.offset(kernel.scratch, GatedProduct::scratch_bytes(products));
            let product = |of: &'a GatedProduct| ternary::Product {
                n: *n,
                layout: *layout,
                scale: of.scale,
                schedule: &of.schedule,
            };
            ternary::build_glu(f, kernel, &products.each_ref().map(product), up, *act);
        }
        KernelSpec::FloatTernaryMatmul { n, k, encoding, scale, bias, residual, task_rows, .. } => {
            let has = super::epilogue::Operands { bias: *bias, residual: *residual };
            let product =
                float_ternary::Product { n: *n, k: *k, encoding: *encoding, scale: *scale, task_rows: *task_rows };
            float_ternary::build(f, kernel, &product, has);
        }
        KernelSpec::DenseMatmul { n, k, weight, scale, bias, residual, task_rows, .. } => {
            let has = super::epilogue::Operands { bias: *bias, residual: *residual };
            let dot = cx.dense_dot(*weight).map(|code| (code.name.as_str(), cx.dense_ahead_bytes()));
            let product = dense::Product { n: *n, k: *k, weight: *weight, scale: *scale, task_rows: *task_rows, dot };
            dense::build(f, kernel, &product, has);
        }
        KernelSpec::Rope { heads, d, .. } => rope::build(f, kernel, *heads, *d),
        KernelSpec::KvWrite { cache, order, .. } => kv_write::build(f, kernel, cache, *order),
        KernelSpec::Attention { m, heads, cache, scale } => {
            let loops = attention::cache_loops(cx, *m, *heads, cache);
            attention::build(f, kernel, &attention::Cx::new(*m, *heads, cache, loops, kernel.scratch), *scale);
        }
        KernelSpec::AttentionStep { heads, cache, step } => {
            let loops = attention::cache_loops(cx, 1, *heads, cache);
            attention_steps::build(f, kernel, &attention::Cx::new(1, *heads, cache, loops, kernel.scratch), *step);
        }
        KernelSpec::Add { k, .. } => add::build(f, kernel, *k),
        KernelSpec::Screen { layout, step } => screen::build(f, cx, kernel, layout, *step),
    }
}
