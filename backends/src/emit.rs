//! From a plan to the functions of one object, and to its final image.
//!
//! Kernels are emitted one by one ([`emit_kernel`]), so that a caller may do it on several threads; everything else
//! follows from the plan in a fixed order, so the image does not depend on how.

use std::collections::BTreeMap;

use tcc_ir::kernel::KernelSpec;
use tcc_ir::plan::{KernelId, Plan};
use tcc_ir::target::Features;

use crate::clif::ClifContext;
use crate::clif::api::{self, Api};
use crate::clif::exe;
use crate::clif::micro::emit_callees;
use crate::code::{EmitError, Function};
use crate::image::{self, Image};
use crate::isa::Backend;
use crate::stack::StackBounds;

/// Symbol of an executable's entry point.
pub const START: &str = exe::START;

/// Symbol of [`Backend::probe`].
pub(crate) const PROBE: &str = "probe";
/// Symbol of [`Backend::vlen`].
pub(crate) const VLEN: &str = "vlen";

/// What `info` says about a build, but its numbers and hashes.
#[derive(Clone, Copy, Debug)]
pub struct InfoStrings<'a> {
    /// Target triple.
    pub target: &'a str,
    /// Names of the features the object needs, joined by commas.
    pub cpu_features: &'a str,
    pub tcc_version: &'a str,
    /// The model's licence, empty where unknown.
    pub licence: &'a str,
}

/// What an object is, beside its plan.
#[derive(Clone, Copy, Debug)]
pub struct EmitOptions<'a> {
    /// C prefix, an identifier.
    pub name: &'a str,
    /// True where the weights lie at the image's weights slot; false where the caller brings them.
    pub weights_inside: bool,
    /// Tokens whose logits `self_test` hashes, at most the context; empty = no golden run.
    pub golden_tokens: &'a [u32],
    /// The code calls the hooks `op_begin` and `op_end` around every op.
    pub op_hooks: bool,
    pub info: InfoStrings<'a>,
}

/// The code of an object for some cores: a plan for their features, and its kernels.
///
/// Arena, weights, labels and sizes are equal in the plans of all variants of an object.
#[derive(Clone, Copy, Debug)]
pub struct Variant<'a> {
    /// What the names of its functions end in where there are several.
    pub name: &'a str,
    /// Names of the features it needs, joined by commas.
    pub features: &'a str,
    pub plan: &'a Plan,
    /// [`emit_kernel`] of every kernel of the plan, in order.
    pub kernels: &'a [Function],
}

/// The kernel `id` of `plan` as a function.
pub fn emit_kernel(backend: &dyn Backend, plan: &Plan, id: KernelId) -> Result<Function, EmitError> {
    let cx = ClifContext::new(backend, plan.needs)?;
    let name = &kernel_symbols(plan)[id.0 as usize];
    crate::clif::kernel::emit_kernel(&cx, plan.kernel(id), name)
}

/// The image of an object of one or more `variants`, in the order in which `init` tries them.
///
/// Hashes are zero until [`Image::set_hash`] stores them.
pub fn emit_object(
    backend: &dyn Backend,
    variants: &[Variant<'_>],
    options: &EmitOptions<'_>,
) -> Result<Image, EmitError> {
    image::layout(backend, &functions(backend, variants, options)?)
}

/// The image of a Linux executable: an object with its weights inside and the entry point [`START`].
pub fn emit_executable(
    backend: &dyn Backend,
    variants: &[Variant<'_>],
    options: &EmitOptions<'_>,
) -> Result<Image, EmitError> {
    let options = EmitOptions { weights_inside: true, ..*options };
    let mut functions = functions(backend, variants, &options)?;
    functions.extend(exe::functions(backend, variants[0].plan, &options)?);
    image::layout(backend, &functions)
}

/// Every kernel of the plan, one after the other.
pub fn emit_kernels(backend: &dyn Backend, plan: &Plan) -> Result<Vec<Function>, EmitError> {
    let count = u32::try_from(plan.kernels.len()).expect("a plan has few kernels");
    (0..count).map(|id| emit_kernel(backend, plan, KernelId(id))).collect()
}

/// Every function and data block of an object, in layout order. Panics without a variant.
pub fn functions(
    backend: &dyn Backend,
    variants: &[Variant<'_>],
    options: &EmitOptions<'_>,
) -> Result<Vec<Function>, EmitError> {
    let baseline = ClifContext::new(backend, Features::NONE)?;
    let contexts: Vec<ClifContext> =
        variants.iter().map(|variant| ClifContext::new(backend, variant.plan.needs)).collect::<Result<_, _>>()?;
    let vlen = backend.vlen();
    let apis: Vec<Api<'_>> = variants
        .iter()
        .zip(&contexts)
        .map(|(variant, cx)| Api {
            cx,
            baseline: &baseline,
            plan: variant.plan,
            variants,
            kernels: kernel_symbols(variant.plan),
            options,
            has_vlen: vlen.is_some(),
            tuning: backend.desc().tuning,
        })
        .collect();
    let set = |(api, variant): (&Api<'_>, &Variant<'_>)| -> Result<Vec<Function>, EmitError> {
        let mut set = api::of_variant(api)?;
        set.extend_from_slice(variant.kernels);
        set.extend(emit_callees(api.cx, backend, &variant.plan.kernels)?);
        Ok(set)
    };
    let sets = apis.iter().zip(variants).map(set).collect::<Result<_, _>>()?;
    let mut functions = api::shared(&apis[0])?;
    functions.extend(api::merge(&apis[0], sets)?);
    functions.push(Function { name: PROBE.into(), ..backend.probe() });
    let has_fixed_vlen = variants.iter().any(|variant| variant.plan.vlen != 0);
    functions.extend(vlen.filter(|_| has_fixed_vlen).map(|f| Function { name: VLEN.into(), ..f }));
    let bounds = StackBounds::of(&functions)?;
    let (entry, task) = (bounds.largest(|f| f.is_api), bounds.largest(|f| f.is_task));
    functions.push(api::numbers(variants[0].plan, entry, task));
    Ok(functions)
}

/// Symbols of the plan's kernels: family and shape, with a number behind where several share them.
pub fn kernel_symbols(plan: &Plan) -> Vec<String> {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let symbol = |spec: &KernelSpec| {
        let name = shape_name(spec);
        let count = seen.entry(name.clone()).or_insert(0);
        *count += 1;
        if *count == 1 { name } else { format!("{name}_{count}") }
    };
    plan.kernels.iter().map(symbol).collect()
}

/// Family and shape of a kernel: `ternary_m1_n2560_k6912`.
fn shape_name(spec: &KernelSpec) -> String {
    let family = spec.family();
    match spec {
        KernelSpec::Embed { m, h, .. } => format!("{family}_m{m}_h{h}"),
        KernelSpec::CodedEmbed { m, table, .. } => format!("{family}_m{m}_h{}", table.k),
        KernelSpec::CodedMatmul { table } => format!("{family}_n{}_k{}", table.n, table.k),
        KernelSpec::Norm { m, k, .. } | KernelSpec::Glu { m, k, .. } | KernelSpec::Add { m, k } => {
            format!("{family}_m{m}_k{k}")
        }
        KernelSpec::NormQuant { m, layout, .. }
        | KernelSpec::Quantize { m, layout }
        | KernelSpec::GluQuant { m, layout, .. }
        | KernelSpec::GluNormQuant { m, layout, .. } => format!("{family}_m{m}_k{}", layout.k),
        KernelSpec::TernaryMatmul { m, n, layout, .. } | KernelSpec::TernaryGlu { m, n, layout, .. } => {
            format!("{family}_m{m}_n{n}_k{}", layout.k)
        }
        KernelSpec::FloatTernaryMatmul { m, n, k, .. } | KernelSpec::DenseMatmul { m, n, k, .. } => {
            format!("{family}_m{m}_n{n}_k{k}")
        }
        KernelSpec::Rope { m, heads, d } => format!("{family}_m{m}_h{heads}_d{d}"),
        KernelSpec::KvWrite { m, cache, .. } => format!("{family}_m{m}_h{}_d{}", cache.heads, cache.d),
        KernelSpec::Attention { m, heads, cache, .. } => format!("{family}_m{m}_h{heads}_d{}", cache.d),
        KernelSpec::AttentionStep { heads, cache, .. } => format!("{family}_h{heads}_d{}", cache.d),
        KernelSpec::Screen { layout, .. } => format!("{family}_n{}_k{}", layout.n, layout.k),
    }
}
