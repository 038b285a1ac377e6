//! Micro-kernels under the names that ternary kernels call them by.

use tcc_ir::target::MicroKernel;

use super::isa::ClifContext;
use super::ternary_portable::{self, PORTABLE};
use crate::code::{EmitError, Function};
use crate::isa::Backend;

/// Name of a micro-kernel's function in an image.
pub fn micro_symbol(row: &MicroKernel) -> String {
    format!("micro_{}", row.name)
}

/// The function of a menu row, assembled by the backend unless it is the portable one; named by [`micro_symbol`].
///
/// Errors: a row that the backend has no code for.
pub fn emit_micro(cx: &ClifContext, backend: &dyn Backend, row: &MicroKernel) -> Result<Function, EmitError> {
    if row.name == PORTABLE.name {
        return ternary_portable::emit(cx);
    }
    match backend.micro(row) {
        Some(code) => Ok(Function { name: micro_symbol(row), ..code }),
        None => Err(EmitError::NoKernel { target: cx.target().to_string(), what: format!("micro-kernel '{row}'") }),
    }
}
