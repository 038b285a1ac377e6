//! Emits the kernels of a plan on all cores.

use rayon::prelude::*;
use tcc_backends::code::{EmitError, Function};
use tcc_backends::emit;
use tcc_ir::plan::{KernelId, Plan};

use crate::target::Target;

/// Bytes of the instance block that generated code for at most `max_threads` threads keeps at the arena's start.
pub fn state_bytes(max_threads: u32) -> u64 {
    tcc_backends::clif::api::instance::state_bytes(max_threads) as u64
}

/// Every kernel of the plan, in order.
pub fn kernels(plan: &Plan, target: &Target) -> Result<Vec<Function>, EmitError> {
    let count = u32::try_from(plan.kernels.len()).expect("a plan has few kernels");
    (0..count).into_par_iter().map(|id| emit::emit_kernel(target.backend, plan, KernelId(id))).collect()
}
