//! The assembled micro-kernels: `extern "C" fn(args: *const MicroArgs)` (see [`tcc_ir::target::micro_args`]).

mod avx;
mod avx512;
#[cfg(test)]
mod judge;
mod panels;

use tcc_ir::target::MicroKernel;

use self::avx::Product;
use super::desc::{AVX2, AVX512VNNI, AVXVNNI};
use crate::code::Function;

/// The code of a menu row; `None` for the portable one, which needs nothing.
pub(super) fn emit(row: &MicroKernel) -> Option<Function> {
    if row.needs.contains(AVX512VNNI) {
        Some(avx512::emit(row.name, row.mr))
    } else if row.needs.contains(AVXVNNI) {
        Some(avx::emit(row.name, row.mr, Product::Vnni))
    } else if row.needs.contains(AVX2) {
        Some(avx::emit(row.name, row.mr, Product::Madd))
    } else {
        None
    }
}
