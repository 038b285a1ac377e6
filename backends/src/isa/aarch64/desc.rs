//! What the compiler may know about aarch64: features, CPUs, memories and the menu of micro-kernels. Data only.

use tcc_ir::encoding::Encoding;
use tcc_ir::kernel::QuantForm;
use tcc_ir::target::{Cpu, Feature, Features, Memory, MicroKernel, TargetDesc};

use super::micro::{i8mm, sme, sve_i8mm};
use crate::clif::float_ternary;
use crate::clif::ternary_portable::{PORTABLE, PORTABLE_BASE3, PORTABLE_BITMAP};

// The order is ABI: these are the TCC_CPU_* bits.
pub(super) const NEON: Features = Features::bit(0);
pub(super) const LSE: Features = Features::bit(1);
pub(super) const DOTPROD: Features = Features::bit(2);
pub(super) const I8MM: Features = Features::bit(3);
pub(super) const SVE: Features = Features::bit(4);
pub(super) const SVE2: Features = Features::bit(5);
/// Streaming mode and ZA. SVE outside streaming mode does not follow.
pub(super) const SME: Features = Features::bit(6);

const FEATURES: &[Feature] = &[
    Feature { name: "neon", bit: NEON, implies: Features::NONE },
    Feature { name: "lse", bit: LSE, implies: Features::NONE },
    Feature { name: "dotprod", bit: DOTPROD, implies: NEON },
    Feature { name: "i8mm", bit: I8MM, implies: DOTPROD },
    Feature { name: "sve", bit: SVE, implies: NEON },
    Feature { name: "sve2", bit: SVE2, implies: SVE },
    Feature { name: "sme", bit: SME, implies: NEON },
];

/// Armv8.2 cores with the dot product extension.
pub(super) const V82: Features = NEON.with(LSE).with(DOTPROD);
/// The same with 8-bit matrix products and SVE.
const V84_SVE: Features = V82.with(I8MM).with(SVE);
const V9: Features = V84_SVE.with(SVE2);

const CPUS: &[Cpu] = &[
    Cpu { name: "generic", features: NEON },
    Cpu { name: "cortex-a53", features: NEON },
    Cpu { name: "cortex-a55", features: V82 },
    Cpu { name: "cortex-a57", features: NEON },
    Cpu { name: "cortex-a72", features: NEON },
    Cpu { name: "cortex-a73", features: NEON },
    Cpu { name: "cortex-a76", features: V82 },
    Cpu { name: "cortex-a78", features: V82 },
    Cpu { name: "cortex-a510", features: V9 },
    Cpu { name: "cortex-a710", features: V9 },
    Cpu { name: "cortex-x1", features: V82 },
    Cpu { name: "neoverse-n1", features: V82 },
    Cpu { name: "neoverse-n2", features: V9 },
    Cpu { name: "neoverse-v1", features: V84_SVE },
    Cpu { name: "neoverse-v2", features: V9 },
    Cpu { name: "a64fx", features: NEON.with(LSE).with(SVE) },
    Cpu { name: "apple-m1", features: V82 },
    Cpu { name: "apple-m2", features: V82.with(I8MM) },
    Cpu { name: "apple-m4", features: V82.with(I8MM).with(SME) },
];

/// Sizes every core above reaches or exceeds; bandwidths are assumptions for a Cortex-A76 class core.
const MEMORIES: &[Memory] = &[
    Memory { name: "l1", bytes: 32 << 10, bytes_per_cycle: 32.0 },
    Memory { name: "l2", bytes: 256 << 10, bytes_per_cycle: 16.0 },
    Memory { name: "ram", bytes: 1 << 40, bytes_per_cycle: 5.0 },
];

/// Four rows, sixteen columns and four planes fill one 128-bit register, and every row of the menu reads it.
const PANEL: Encoding = Encoding::I2 { nr: 4 };

/// A sum of k codes of 0..=2 times an int8 is at most 256 k in size.
const MAX_K: usize = (1 << 31) / 256;

/// The plane kept at four bits' height counts sixteen-fold, four columns in sixteen.
const MAX_K_UNSHIFTED: usize = (1 << 31) / (16 * 256 / 4);

/// Instructions are those executed per 256 products by qemu-aarch64 for [256, 4096] (`-singlestep -d exec`, counted).
/// `macs_per_cycle` follows from the inner loop's vector instructions on two 128-bit vector pipes (Cortex-A76,
/// Neoverse N1), without `dotprod` on one pipe that multiplies (Cortex-A72). Nothing here was timed.
/// SVE rows are rated for 128 bits, the length they gain least from, and come before their equals.
/// The SME row is rated for 512 bits, two vector instructions beside one product a cycle.
const MENU: &[MicroKernel] = &[
    MicroKernel {
        name: "sme-m16",
        needs: SME,
        vlen: 0,
        encoding: PANEL,
        mr: 16,
        max_k: MAX_K,
        scratch_bytes: sme::SCRATCH_BYTES,
        finishes: false,
        macs_per_cycle: 500.0, // 19.0 instructions at 128 bits, 5.7 at 256, 1.9 at 512
    },
    MicroKernel {
        name: "sve-i8mm-m8",
        needs: SVE.with(I8MM),
        vlen: 0,
        encoding: PANEL,
        mr: 8,
        max_k: MAX_K,
        scratch_bytes: sve_i8mm::scratch_bytes(8),
        finishes: false,
        macs_per_cycle: 44.0, // 15.5 instructions at 128 bits, 8.1 at 256
    },
    MicroKernel {
        name: "sve-i8mm-m4",
        needs: SVE.with(I8MM),
        vlen: 0,
        encoding: PANEL,
        mr: 4,
        max_k: MAX_K,
        scratch_bytes: sve_i8mm::scratch_bytes(4),
        finishes: false,
        macs_per_cycle: 34.0, // 18.6 instructions at 128 bits, 9.7 at 256
    },
    MicroKernel {
        name: "sve-m8",
        needs: SVE,
        vlen: 0,
        encoding: PANEL,
        mr: 8,
        max_k: MAX_K,
        scratch_bytes: 0,
        finishes: false,
        macs_per_cycle: 27.0, // 22.4 instructions at 128 bits, 11.3 at 256
    },
    MicroKernel {
        name: "sve",
        needs: SVE,
        vlen: 0,
        encoding: PANEL,
        mr: 1,
        max_k: MAX_K_UNSHIFTED,
        scratch_bytes: 0,
        finishes: false,
        macs_per_cycle: 16.0, // 40.3 instructions at 128 bits, 20.3 at 256
    },
    MicroKernel {
        name: "i8mm-m8",
        needs: I8MM,
        vlen: 0,
        encoding: PANEL,
        mr: 8,
        max_k: MAX_K,
        scratch_bytes: i8mm::scratch_bytes(8),
        finishes: false,
        macs_per_cycle: 44.0, // 13.6 instructions
    },
    MicroKernel {
        name: "i8mm-m4",
        needs: I8MM,
        vlen: 0,
        encoding: PANEL,
        mr: 4,
        max_k: MAX_K,
        scratch_bytes: i8mm::scratch_bytes(4),
        finishes: false,
        macs_per_cycle: 34.0, // 16.9 instructions
    },
    MicroKernel {
        name: "dotprod-m8",
        needs: DOTPROD,
        vlen: 0,
        encoding: PANEL,
        mr: 8,
        max_k: MAX_K,
        scratch_bytes: 0,
        finishes: false,
        macs_per_cycle: 27.0, // 22.1 instructions
    },
    MicroKernel {
        name: "dotprod-m4",
        needs: DOTPROD,
        vlen: 0,
        encoding: PANEL,
        mr: 4,
        max_k: MAX_K,
        scratch_bytes: 0,
        finishes: false,
        macs_per_cycle: 23.0, // 24.6 instructions
    },
    MicroKernel {
        name: "neon-m4",
        needs: NEON,
        vlen: 0,
        encoding: PANEL,
        mr: 4,
        max_k: MAX_K,
        scratch_bytes: 0,
        finishes: false,
        macs_per_cycle: 8.0, // 49.1 instructions
    },
    MicroKernel {
        name: "dotprod",
        needs: DOTPROD,
        vlen: 0,
        encoding: PANEL,
        mr: 1,
        max_k: MAX_K_UNSHIFTED,
        scratch_bytes: 0,
        finishes: false,
        macs_per_cycle: 16.0, // 35.7 instructions
    },
    MicroKernel {
        name: "neon",
        needs: NEON,
        vlen: 0,
        encoding: PANEL,
        mr: 1,
        max_k: MAX_K,
        scratch_bytes: 0,
        finishes: false,
        macs_per_cycle: 7.0, // 61.9 instructions
    },
    PORTABLE_BASE3,
    PORTABLE_BITMAP,
    PORTABLE,
];

pub(super) const DESC: TargetDesc = TargetDesc {
    name: "aarch64",
    baseline: NEON,
    features: FEATURES,
    cpus: CPUS,
    memories: MEMORIES,
    menu: MENU,
    task_rows: &[],
    activations: QuantForm::Rows,
    has_gated_products: true,
    granted: Features::NONE,
    tuning: Features::NONE,
    float_encoding: float_ternary::ENCODING,
};
