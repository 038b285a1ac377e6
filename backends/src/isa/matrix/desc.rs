//! The matrix unit as a target of plans: encodings in fractal order, activations in strips.

use tcc_ir::encoding::Encoding;
use tcc_ir::encoding::w2nz::Panel;
use tcc_ir::kernel::QuantForm;
use tcc_ir::target::{Feature, Features, MicroKernel, TargetDesc};

/// The vector unit's results reach the cube, and the cube's the vector unit, within a core.
pub const CUBE: Features = Features::bit(0);
/// The cube multiplies s4.
pub const S4: Features = Features::bit(1);

const fn row(name: &'static str, parts: usize, nr: usize, needs: Features) -> MicroKernel {
    MicroKernel {
        name,
        needs,
        vlen: 0,
        encoding: Encoding::W2Nz(Panel { parts, nr, kp: 512 }),
        mr: 1,
        // Sums of 64 · 128 in magnitude for each column stay below 2^31.
        max_k: 262_143,
        scratch_bytes: 0,
        finishes: false,
        // Ranks alone: the tile search decides.
        macs_per_cycle: nr as f32,
    }
}

/// Products by mode and rows of a panel; the one that needs nothing can run on the vector unit alone.
pub const MENU: &[MicroKernel] = &[
    row("i4hl-x64", 2, 64, CUBE.with(S4)),
    row("i4hl-x128", 2, 128, CUBE.with(S4)),
    row("i8-x64", 4, 64, Features::NONE),
    row("i8-x128", 4, 128, CUBE),
];

/// The target's name on the command line.
pub const NAME: &str = "ascend";

/// The matrix unit; which machine it is says a machine file.
pub static DESC: TargetDesc = TargetDesc {
    name: NAME,
    baseline: Features::NONE,
    features: &[
        Feature { name: "cube", bit: CUBE, implies: Features::NONE },
        Feature { name: "s4", bit: S4, implies: Features::NONE },
    ],
    cpus: &[],
    memories: &[],
    menu: MENU,
    task_rows: &[],
    activations: QuantForm::Strips,
    has_gated_products: false,
    granted: Features::NONE,
    tuning: Features::NONE,
    float_encoding: Encoding::W2Nz(Panel { parts: 4, nr: 64, kp: 512 }),
};
