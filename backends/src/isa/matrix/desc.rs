//! The matrix unit as a target of plans: encodings in fractal order, activations in strips.

use tcc_ir::encoding::Encoding;
use tcc_ir::encoding::w2nz::Panel;
use tcc_ir::kernel::QuantForm;
use tcc_ir::target::{Features, MicroKernel, TargetDesc};

const fn row(name: &'static str, parts: usize, nr: usize) -> MicroKernel {
    MicroKernel {
        name,
        needs: Features::NONE,
        vlen: 0,
        encoding: Encoding::W2Nz(Panel { parts, nr, kp: 512 }),
        mr: 1,
        // Sums of 64 · 128 in magnitude for each column stay below 2^31.
        max_k: 262_143,
        scratch_bytes: 0,
        // Ranks alone: the tile search decides.
        macs_per_cycle: nr as f32,
    }
}

/// Products by mode and rows of a panel.
pub const MENU: &[MicroKernel] =
    &[row("i4hl-x64", 2, 64), row("i4hl-x128", 2, 128), row("i8-x64", 4, 64), row("i8-x128", 4, 128)];

/// The target's name on the command line.
pub const NAME: &str = "ascend";

/// The matrix unit; which machine it is says a machine file.
pub static DESC: TargetDesc = TargetDesc {
    name: NAME,
    baseline: Features::NONE,
    features: &[],
    cpus: &[],
    memories: &[],
    menu: MENU,
    activations: QuantForm::Strips,
    float_encoding: Encoding::W2Nz(Panel { parts: 4, nr: 64, kp: 512 }),
};
