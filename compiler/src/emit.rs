//! Emits the kernels of a plan on all cores, then the object's image.

use rayon::prelude::*;
use tcc_backends::code::{EmitError, Function};
use tcc_backends::emit::{self, EmitOptions};
use tcc_backends::image::Image;
use tcc_ir::plan::{KernelId, Plan};

use crate::target::Target;

/// Bytes of the instance block that generated code keeps at the arena's start.
pub const STATE_BYTES: u64 = tcc_backends::clif::api::instance::STATE_BYTES as u64;

/// Every kernel of the plan, in order.
pub fn kernels(plan: &Plan, target: &Target) -> Result<Vec<Function>, EmitError> {
    let count = u32::try_from(plan.kernels.len()).expect("a plan has few kernels");
    (0..count).into_par_iter().map(|id| emit::emit_kernel(target.backend, plan, KernelId(id))).collect()
}

/// The image of an object around `kernels`.
pub fn object(
    plan: &Plan,
    target: &Target,
    kernels: &[Function],
    options: &EmitOptions<'_>,
) -> Result<Image, EmitError> {
    emit::emit_object(target.backend, plan, kernels, options)
}

/// The image of an executable around `kernels`.
pub fn executable(
    plan: &Plan,
    target: &Target,
    kernels: &[Function],
    options: &EmitOptions<'_>,
) -> Result<Image, EmitError> {
    emit::emit_executable(target.backend, plan, kernels, options)
}
