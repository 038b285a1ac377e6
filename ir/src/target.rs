//! Descriptions of machines: features, memories and the menu of ternary micro-kernels. Data only.

use std::fmt;

use crate::encoding::Encoding;
use crate::kernel::QuantForm;

/// A set of CPU features: bit i is the i-th name of the target's feature table ([`TargetDesc::features`]).
///
/// The same bits are the `TCC_CPU_*` values of the generated header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Features(pub u64);

impl Features {
    pub const NONE: Features = Features(0);

    pub const fn bit(i: u32) -> Features {
        Features(1 << i)
    }

    pub const fn with(self, other: Features) -> Features {
        Features(self.0 | other.0)
    }

    pub const fn without(self, other: Features) -> Features {
        Features(self.0 & !other.0)
    }

    /// What both have.
    pub const fn and(self, other: Features) -> Features {
        Features(self.0 & other.0)
    }

    pub const fn contains(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One named CPU feature.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    /// As in `--features +name`.
    pub name: &'static str,
    pub bit: Features,
    /// Features this one needs; enabling it enables them.
    pub implies: Features,
}

/// One named CPU (`--cpu`): a set of features.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    pub name: &'static str,
    pub features: Features,
}

/// One level of the memory hierarchy, nearest first.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub name: &'static str,
    pub bytes: usize,
    /// Sustained read bandwidth of one core, bytes per cycle; an assumption where not measured.
    pub bytes_per_cycle: f32,
}

/// One row of a menu: a ternary micro-kernel that adds Σ code·q to int32 accumulators, or turns them into outputs.
///
/// Bounds: `acc` is exact for any int8 activations while `k <= max_k`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MicroKernel {
    pub name: &'static str,
    pub needs: Features,
    /// For targets with vectors of unknown length: the register bits this row requires, 0 = any.
    pub vlen: u32,
    pub encoding: Encoding,
    /// Token rows per call, exactly.
    pub mr: usize,
    /// Longest reduction for which every accumulator is exact.
    pub max_k: usize,
    /// Bytes of private scratch per call (`MicroArgs::scratch`), 64-byte aligned.
    pub scratch_bytes: usize,
    /// Whether the kernel writes outputs where [`micro_args::OUT`] is not null.
    pub finishes: bool,
    /// Multiply-accumulates per cycle and core when fed from the nearest memory; an estimate for ranking.
    pub macs_per_cycle: f32,
}

/// A machine the compiler can aim at.
#[derive(Clone, Copy, Debug)]
pub struct TargetDesc {
    /// Short name: `x86_64`, `aarch64`, `riscv64`.
    pub name: &'static str,
    /// Features every object of this target needs.
    pub baseline: Features,
    pub features: &'static [Feature],
    pub cpus: &'static [Cpu],
    pub memories: &'static [Memory],
    /// Best first among equals; ends with rows that need nothing but the baseline.
    pub menu: &'static [MicroKernel],
    /// Output rows of one task of a product over weights of an encoding, where measured; others follow from memories.
    pub task_rows: &'static [(Encoding, usize)],
    /// Layout of quantized activations.
    pub activations: QuantForm,
    /// Whether the gate between two products is part of their kernel ([`KernelSpec::TernaryGlu`]).
    ///
    /// [`KernelSpec::TernaryGlu`]: crate::kernel::KernelSpec::TernaryGlu
    pub has_gated_products: bool,
    /// Features that a process has to ask its system for: code cannot find out by itself whether they were granted.
    pub granted: Features,
    /// Features that say what is faster on a core, not what it can do: every core runs their code, and none is asked.
    pub tuning: Features,
    /// Encoding that the ternary product with float activations reads.
    pub float_encoding: Encoding,
}

impl TargetDesc {
    /// Names of the features in `set`, in table order, joined by commas.
    pub fn feature_names(&self, set: Features) -> String {
        let names: Vec<_> = self.features.iter().filter(|f| set.contains(f.bit)).map(|f| f.name).collect();
        names.join(",")
    }

    /// `set` with everything its members imply.
    pub fn close(&self, set: Features) -> Features {
        let mut closed = set;
        loop {
            let next = self.features.iter().filter(|f| closed.contains(f.bit)).fold(closed, |s, f| s.with(f.implies));
            if next == closed {
                return closed;
            }
            closed = next;
        }
    }
}

/// Byte offsets of the argument block of a micro-kernel: `extern "C" fn(args: *const MicroArgs)`.
///
/// `acc: *mut i32 [panels][mr][nr]` is added to; `w: *const u8` is the first panel, `w_panel_stride` bytes from one
/// panel to the next; `q: *const i8` is the first of `mr` rows, `q_stride` bytes apart, 64-byte aligned and zero
/// padded to a multiple of 64 and of `kr`; `k_blocks` counts blocks of `kr` columns; `scratch` is private.
///
/// Rows that finish ([`MicroKernel::finishes`]) read the rest. Where `out` is null they do as above. Elsewhere `acc` is
/// the kernel's own, whatever it held, and output `(row, column)` of the panels becomes
/// `f32(Σ code·q - sums[row]) · act_scale[row] · scale[column]`, then `+ residual` unless that is null.
/// `out` and `residual` are `f32[mr][panels · nr]`, rows `out_stride` bytes apart, and may be the same; `sums` is the
/// first of `mr` i32, `q_stride` bytes apart; `act_scale` is `f32[mr]`; `scale` is `f32[nr]` of the first panel,
/// `scale_stride` bytes from one panel to the next, or one f32 for all where that is 0.
pub mod micro_args {
    pub const ACC: i32 = 0;
    pub const W: i32 = 8;
    pub const W_PANEL_STRIDE: i32 = 16;
    pub const PANELS: i32 = 24;
    pub const Q: i32 = 32;
    pub const Q_STRIDE: i32 = 40;
    pub const K_BLOCKS: i32 = 48;
    pub const SCRATCH: i32 = 56;
    pub const OUT: i32 = 64;
    pub const OUT_STRIDE: i32 = 72;
    pub const RESIDUAL: i32 = 80;
    pub const SUMS: i32 = 88;
    pub const ACT_SCALE: i32 = 96;
    pub const SCALE: i32 = 104;
    pub const SCALE_STRIDE: i32 = 112;
    pub const BYTES: i32 = 128;
}

impl fmt::Display for MicroKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, m {})", self.name, self.encoding, self.mr)
    }
}
