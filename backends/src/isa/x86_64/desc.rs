//! x86-64 as data: features, named CPUs, memories and the menu of micro-kernels.

use tcc_ir::encoding::Encoding;
use tcc_ir::encoding::bitmap::Panel;
use tcc_ir::kernel::QuantForm;
use tcc_ir::target::{Cpu, Feature, Features, Memory, MicroKernel, TargetDesc};

use super::micro::{AMX_SCRATCH_BYTES, BITMAP_SCRATCH_BYTES, TABLE_BYTES, TILE_SCRATCH_BYTES};
use crate::clif::float_ternary;
use crate::clif::ternary_portable::{PORTABLE, PORTABLE_BASE3, PORTABLE_BITMAP};

pub(super) const AVX2: Features = Features::bit(0);
pub(super) const FMA: Features = Features::bit(1);
/// BMI1, BMI2 and LZCNT.
pub(super) const BMI: Features = Features::bit(2);
pub(super) const F16C: Features = Features::bit(3);
/// The VEX-encoded form, 128 and 256 bits.
pub(super) const AVXVNNI: Features = Features::bit(4);
/// The subsets F, CD, BW, DQ and VL.
pub(super) const AVX512: Features = Features::bit(5);
pub(super) const AVX512VNNI: Features = Features::bit(6);
pub(super) const AVX512VBMI: Features = Features::bit(7);

/// Tiles and their products of bytes. Linux gives tiles to processes that ask for them, which code for bare machines
/// cannot: `probe` never finds them, callers say that they are there.
pub(super) const AMXINT8: Features = Features::bit(8);

/// What is asked for ahead goes to the second-level cache (`fetch.rs`).
pub(super) const FETCHL2: Features = Features::bit(9);

/// x86-64-v3: without it Cranelift would need library calls for `fma` and rounding.
const V3: Features = AVX2.with(FMA).with(BMI).with(F16C);
const V4: Features = V3.with(AVX512);
const ICELAKE: Features = V4.with(AVX512VNNI).with(AVX512VBMI);

const fn feature(name: &'static str, bit: Features, implies: Features) -> Feature {
    Feature { name, bit, implies }
}

const FEATURES: &[Feature] = &[
    feature("avx2", AVX2, Features::NONE),
    feature("fma", FMA, Features::NONE),
    feature("bmi", BMI, Features::NONE),
    feature("f16c", F16C, Features::NONE),
    feature("avxvnni", AVXVNNI, AVX2),
    feature("avx512", AVX512, AVX2),
    feature("avx512vnni", AVX512VNNI, AVX512),
    feature("avx512vbmi", AVX512VBMI, AVX512),
    feature("amxint8", AMXINT8, AVX512VNNI.with(AVX512VBMI)),
    feature("fetchl2", FETCHL2, Features::NONE),
];

const CPUS: &[Cpu] = &[
    Cpu { name: "x86-64-v3", features: V3 },
    Cpu { name: "x86-64-v4", features: V4 },
    Cpu { name: "haswell", features: V3 },
    Cpu { name: "alderlake", features: V3.with(AVXVNNI) },
    Cpu { name: "skylake-avx512", features: V4 },
    Cpu { name: "icelake-server", features: ICELAKE },
    Cpu { name: "zen4", features: ICELAKE.with(FETCHL2) },
    Cpu { name: "zen5", features: ICELAKE.with(AVXVNNI) },
];

/// One core's share of a common desktop or server part.
const MEMORIES: &[Memory] = &[
    Memory { name: "L1", bytes: 32 << 10, bytes_per_cycle: 64.0 },
    Memory { name: "L2", bytes: 1 << 20, bytes_per_cycle: 32.0 },
    Memory { name: "L3", bytes: 4 << 20, bytes_per_cycle: 16.0 },
    Memory { name: "DRAM", bytes: 1 << 40, bytes_per_cycle: 8.0 },
];

/// All rows read one layout, so that one blob serves every feature level: 16 rows are one 512-bit vector of row
/// lanes, or two of 256 bits that share their broadcasts.
const I2: Encoding = Encoding::I2 { nr: 16 };

/// Largest k with exact 32-bit sums where the top plane stays multiplied by 64: 2^31 / (64 · 2 · 128 / 4).
const MASKED_PLANES_MAX_K: usize = 524_288;

const fn row(name: &'static str, needs: Features, mr: usize, max_k: usize, macs_per_cycle: f32) -> MicroKernel {
    MicroKernel { name, needs, vlen: 0, encoding: I2, mr, max_k, scratch_bytes: 0, finishes: false, macs_per_cycle }
}

/// A row that unpacks its weights to its scratch, and writes outputs.
const fn tile(row: MicroKernel) -> MicroKernel {
    MicroKernel { scratch_bytes: TILE_SCRATCH_BYTES, finishes: true, ..row }
}

/// A row that reads 1.6 bits per weight, by byte tables in its scratch.
const fn base3_row(name: &'static str, mr: usize, max_k: usize, macs_per_cycle: f32) -> MicroKernel {
    let (needs, encoding) = (AVX512VNNI.with(AVX512VBMI), Encoding::Base3 { nr: 16 });
    let scratch_bytes = TABLE_BYTES;
    MicroKernel { name, needs, vlen: 0, encoding, mr, max_k, scratch_bytes, finishes: false, macs_per_cycle }
}

/// The same by tiles of the matrix extension.
const fn amx(row: MicroKernel) -> MicroKernel {
    MicroKernel { needs: row.needs.with(AMXINT8), scratch_bytes: AMX_SCRATCH_BYTES, finishes: true, ..row }
}

/// A row that reads 2 - z bits per weight, unfolded to its scratch.
const fn bitmap_row(name: &'static str, needs: Features, mr: usize, max_k: usize, macs_per_cycle: f32) -> MicroKernel {
    let encoding = Encoding::Bitmap(Panel { nr: 16, bytes: 0 });
    let scratch_bytes = BITMAP_SCRATCH_BYTES;
    MicroKernel { name, needs, vlen: 0, encoding, mr, max_k, scratch_bytes, finishes: false, macs_per_cycle }
}

/// Largest k where every plane is shifted down: 2^31 / (2 · 128).
const SHIFTED_PLANES_MAX_K: usize = 8_388_608;

/// Rates are those of Zen 5 from its second-level cache (`cargo bench -p tcc-tests --bench micro`, k = 2560); those of
/// the `avx512vbmi` rows and of the rows for 32 and 64 tokens are estimates for it (`docs/performance.md` has another
/// core's), those of tiles in the proportion to them that an Intel Xeon (model 167) measured. Those of bitmaps are of an
/// Intel Xeon (model 207); cores whose `pdep` is microcode (Zen 1 and 2) are far slower.
const MENU: &[MicroKernel] = &[
    amx(base3_row("amxint8-base3-m64", 64, SHIFTED_PLANES_MAX_K, 480.0)),
    amx(base3_row("amxint8-base3-m32", 32, SHIFTED_PLANES_MAX_K, 420.0)),
    amx(base3_row("amxint8-base3-m16", 16, SHIFTED_PLANES_MAX_K, 310.0)),
    amx(row("amxint8-m64", AVX512VNNI, 64, SHIFTED_PLANES_MAX_K, 540.0)),
    amx(row("amxint8-m32", AVX512VNNI, 32, SHIFTED_PLANES_MAX_K, 510.0)),
    amx(row("amxint8-m16", AVX512VNNI, 16, SHIFTED_PLANES_MAX_K, 350.0)),
    tile(base3_row("avx512vbmi-m64", 64, SHIFTED_PLANES_MAX_K, 124.0)),
    tile(base3_row("avx512vbmi-m32", 32, SHIFTED_PLANES_MAX_K, 122.0)),
    base3_row("avx512vbmi-m8", 8, SHIFTED_PLANES_MAX_K, 120.0),
    base3_row("avx512vbmi-m4", 4, SHIFTED_PLANES_MAX_K, 115.0),
    base3_row("avx512vbmi-m2", 2, MASKED_PLANES_MAX_K, 105.0),
    base3_row("avx512vbmi-m1", 1, MASKED_PLANES_MAX_K, 80.0),
    tile(row("avx512vnni-m64", AVX512VNNI, 64, SHIFTED_PLANES_MAX_K, 127.5)),
    tile(row("avx512vnni-m32", AVX512VNNI, 32, SHIFTED_PLANES_MAX_K, 127.0)),
    row("avx512vnni-m8", AVX512VNNI, 8, SHIFTED_PLANES_MAX_K, 126.0),
    row("avx512vnni-m4", AVX512VNNI, 4, SHIFTED_PLANES_MAX_K, 123.0),
    row("avx512vnni-m2", AVX512VNNI, 2, MASKED_PLANES_MAX_K, 120.0),
    row("avx512vnni-m1", AVX512VNNI, 1, MASKED_PLANES_MAX_K, 96.0),
    row("avxvnni-m4", AVXVNNI, 4, SHIFTED_PLANES_MAX_K, 57.0),
    row("avxvnni-m1", AVXVNNI, 1, MASKED_PLANES_MAX_K, 56.0),
    row("avx2-m4", AVX2, 4, SHIFTED_PLANES_MAX_K, 50.0),
    row("avx2-m1", AVX2, 1, SHIFTED_PLANES_MAX_K, 37.0),
    bitmap_row("avx512vnni-bitmap-m4", AVX512VNNI, 4, SHIFTED_PLANES_MAX_K, 48.0),
    bitmap_row("avx512vnni-bitmap-m1", AVX512VNNI, 1, MASKED_PLANES_MAX_K, 19.0),
    bitmap_row("avxvnni-bitmap-m4", AVXVNNI, 4, SHIFTED_PLANES_MAX_K, 32.0),
    bitmap_row("avxvnni-bitmap-m1", AVXVNNI, 1, MASKED_PLANES_MAX_K, 15.0),
    bitmap_row("avx2-bitmap-m4", AVX2, 4, SHIFTED_PLANES_MAX_K, 26.0),
    bitmap_row("avx2-bitmap-m1", AVX2, 1, SHIFTED_PLANES_MAX_K, 12.0),
    MicroKernel { macs_per_cycle: 2.0, ..PORTABLE_BASE3 },
    PORTABLE_BITMAP,
    MicroKernel { macs_per_cycle: 4.0, ..PORTABLE },
];

/// Portable code needs these to be free of library calls; all are part of the baseline.
pub(super) const CLIF_FLAGS: &[&str] = &[
    "has_cmpxchg16b",
    "has_sse3",
    "has_ssse3",
    "has_sse41",
    "has_sse42",
    "has_popcnt",
    "has_avx",
    "has_avx2",
    "has_fma",
    "has_bmi1",
    "has_bmi2",
    "has_lzcnt",
];

pub(super) const DESC: TargetDesc = TargetDesc {
    name: "x86_64",
    baseline: V3,
    features: FEATURES,
    cpus: CPUS,
    memories: MEMORIES,
    menu: MENU,
    task_rows: &[],
    activations: QuantForm::Rows,
    has_gated_products: true,
    granted: AMXINT8,
    tuning: FETCHL2,
    float_encoding: float_ternary::ENCODING,
};
