//! The assembled micro-kernels: `extern "C" fn(args: *const MicroArgs)` (see [`tcc_ir::target::micro_args`]).

mod avx512;
mod panels;

use tcc_ir::target::MicroKernel;

use crate::code::Function;

/// The code of a menu row.
pub(super) fn emit(row: &MicroKernel) -> Function {
    avx512::emit(row.name, row.mr)
}
