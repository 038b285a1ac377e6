//! The riscv64 machines as data: features, CPUs, memories and the menu.

use tcc_ir::encoding::Encoding;
use tcc_ir::kernel::QuantForm;
use tcc_ir::target::{Cpu, Feature, Features, Memory, MicroKernel, TargetDesc};

use crate::clif::float_ternary;
use crate::clif::ternary_portable::{PORTABLE, PORTABLE_BASE3, PORTABLE_BITMAP};

/// rv64gc with the lp64d calling convention: what every object needs.
pub const RV64GC: Features = Features::bit(0);
/// Vector extension 1.0, registers of 128 bits or more.
pub const V: Features = Features::bit(1);
/// Address generation.
pub const ZBA: Features = Features::bit(2);
/// Basic bit manipulation.
pub const ZBB: Features = Features::bit(3);

pub const RVV_M1: &str = "rvv-m1";
pub const RVV_M2: &str = "rvv-m2";
pub const RVV_M4: &str = "rvv-m4";
pub const SCALAR_M1: &str = "rv64-m1";
pub const SCALAR_M2: &str = "rv64-m2";

/// Exact up to `256 k = 2^31`: a code is at most 2, an activation at least -128.
const MAX_K: usize = 8_388_608;

/// What all rows have in common.
const ROW: MicroKernel = MicroKernel {
    name: "",
    needs: RV64GC,
    vlen: 0,
    encoding: Encoding::I2Lane { nr: 64 },
    mr: 1,
    max_k: MAX_K,
    scratch_bytes: 0,
    finishes: false,
    macs_per_cycle: 0.0,
};

/// A row for registers of `vlen` bits.
const fn known(name: &'static str, vlen: u32, mr: usize, macs_per_cycle: f32) -> MicroKernel {
    MicroKernel { name, needs: RV64GC.with(V), vlen, mr, macs_per_cycle, ..ROW }
}

/// `macs_per_cycle` is an estimate for ranking: one vector pipe as wide as a register (128 bits where lengths vary) that
/// takes a cycle per register of a group, beside scalar pipes that keep up. The comments give guest instructions
/// executed per 256 multiply-accumulates (`qemu-riscv64 -singlestep -d nochain,exec`, 256 rows, k 1280), in brackets
/// the same with each vector instruction counted once per register of its widest group.
const MENU: &[MicroKernel] = &[
    known("rvv128-m8", 128, 8, 6.9),  // 36.0 (56)
    known("rvv128-m4", 128, 4, 6.3),  // 20.2 (51)
    known("rvv128-m2", 128, 2, 5.4),  // 12.7 (53)
    known("rvv128-m1", 128, 1, 4.4),  // 16.2 (64)
    known("rvv256-m8", 256, 8, 13.8), // 18.0 (28)
    known("rvv256-m4", 256, 4, 12.5), // 9.9 (25)
    known("rvv256-m2", 256, 2, 10.7), // 6.9 (27)
    known("rvv256-m1", 256, 1, 8.8),  // 9.1 (33)
    known("rvv512-m8", 512, 8, 27.5), // 8.8 (14)
    known("rvv512-m4", 512, 4, 25.1), // 5.4 (13)
    known("rvv512-m2", 512, 2, 21.5), // 4.0 (14)
    known("rvv512-m1", 512, 1, 17.5), // 5.6 (17)
    // 21.3, 10.6, 5.6 at 128, 256, 512 bits; (50, 25, 13).
    MicroKernel { name: RVV_M4, needs: RV64GC.with(V), mr: 4, macs_per_cycle: 6.2, ..ROW },
    // 13.1, 7.0, 4.1; (53, 27, 14).
    MicroKernel { name: RVV_M2, needs: RV64GC.with(V), mr: 2, macs_per_cycle: 5.3, ..ROW },
    // 16.7, 9.3, 5.7; (65, 33, 17).
    MicroKernel { name: RVV_M1, needs: RV64GC.with(V), mr: 1, macs_per_cycle: 4.3, ..ROW },
    // 230.
    MicroKernel { name: SCALAR_M2, mr: 2, macs_per_cycle: 1.1, ..ROW },
    // 275.
    MicroKernel { name: SCALAR_M1, mr: 1, macs_per_cycle: 0.93, ..ROW },
    MicroKernel { macs_per_cycle: 0.05, ..PORTABLE_BASE3 },
    MicroKernel { macs_per_cycle: 0.03, ..PORTABLE_BITMAP },
    MicroKernel { macs_per_cycle: 0.1, ..PORTABLE },
];

/// riscv64.
pub static DESC: TargetDesc = TargetDesc {
    name: "riscv64",
    baseline: RV64GC,
    features: &[
        Feature { name: "rv64gc", bit: RV64GC, implies: Features::NONE },
        Feature { name: "v", bit: V, implies: RV64GC },
        Feature { name: "zba", bit: ZBA, implies: RV64GC },
        Feature { name: "zbb", bit: ZBB, implies: RV64GC },
    ],
    cpus: &[
        Cpu { name: "generic-rv64", features: RV64GC },
        Cpu { name: "rv64gcv", features: RV64GC.with(V) },
        // Profiles.
        Cpu { name: "rva22u64", features: RV64GC.with(ZBA).with(ZBB) },
        Cpu { name: "rva23u64", features: RV64GC.with(V).with(ZBA).with(ZBB) },
        // FU740; the U74 of later licences adds Zba and Zbb.
        Cpu { name: "sifive-u74", features: RV64GC },
        // Registers of 512 bits.
        Cpu { name: "sifive-x280", features: RV64GC.with(V).with(ZBA).with(ZBB) },
        // Registers of 128 bits.
        Cpu { name: "sifive-p670", features: RV64GC.with(V).with(ZBA).with(ZBB) },
        // Registers of 256 bits.
        Cpu { name: "spacemit-x60", features: RV64GC.with(V).with(ZBA).with(ZBB) },
        // Its vectors are those of the draft 0.7.1, which V is not.
        Cpu { name: "thead-c910", features: RV64GC },
    ],
    // Sizes and bandwidths of a small in-order core: assumptions.
    memories: &[
        Memory { name: "L1", bytes: 32 << 10, bytes_per_cycle: 16.0 },
        Memory { name: "L2", bytes: 512 << 10, bytes_per_cycle: 8.0 },
        Memory { name: "DRAM", bytes: 1 << 40, bytes_per_cycle: 4.0 },
    ],
    menu: MENU,
    task_rows: &[],
    activations: QuantForm::Rows,
    has_gated_products: true,
    granted: Features::NONE,
    tuning: Features::NONE,
    float_encoding: float_ternary::ENCODING,
};
