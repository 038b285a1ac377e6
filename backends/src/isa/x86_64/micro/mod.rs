//! The assembled micro-kernels: `extern "C" fn(args: *const MicroArgs)` (see [`tcc_ir::target::micro_args`]).

mod amx;
mod avx;
mod avx512;
mod bitmap;
mod finish;
#[cfg(test)]
mod judge;
mod panels;
mod source;
mod tile;

use tcc_ir::encoding::Encoding;
use tcc_ir::target::MicroKernel;

pub(super) use self::amx::SCRATCH_BYTES as AMX_SCRATCH_BYTES;
use self::avx::Product;
pub(super) use self::bitmap::SCRATCH_BYTES as BITMAP_SCRATCH_BYTES;
use self::source::Source;
pub(super) use self::source::TABLE_BYTES;
pub(super) use self::tile::{MRS as TILE_MRS, SCRATCH_BYTES as TILE_SCRATCH_BYTES};
use super::desc::{AMXINT8, AVX2, AVX512VNNI, AVXVNNI};
use super::fetch::Fetch;
use crate::code::Function;

/// The code of a menu row, which may ask for weights ahead as `fetch` says; `None` for portable ones, which need nothing.
pub(super) fn emit(row: &MicroKernel, fetch: Fetch) -> Option<Function> {
    let reads_bitmap = matches!(row.encoding, Encoding::Bitmap(_));
    if row.needs.contains(AVX512VNNI) {
        if reads_bitmap {
            return Some(avx512::emit_bitmap(row.name, row.mr));
        }
        let source = Source::of(row.encoding)?;
        if row.needs.contains(AMXINT8) {
            return Some(amx::emit(row.name, row.mr, source));
        }
        let is_tile = TILE_MRS.contains(&row.mr);
        Some(if is_tile { tile::emit(row.name, row.mr, source) } else { avx512::emit(row.name, row.mr, source, fetch) })
    } else if row.needs.contains(AVXVNNI) {
        Some(avx::emit(row.name, row.mr, Product::Vnni, reads_bitmap, fetch))
    } else if row.needs.contains(AVX2) {
        Some(avx::emit(row.name, row.mr, Product::Madd, reads_bitmap, fetch))
    } else {
        None
    }
}
