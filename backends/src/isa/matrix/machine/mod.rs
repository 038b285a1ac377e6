//! Machine descriptions: memories, paths, costs and quirks of one matrix unit, every number with its source.
//!
//! A description is a TOML file of format [`FORMAT`] (`docs/matrix.md`); the presets are compiled in. Unknown keys are
//! errors. The digest of a description names it in programs.

mod digest;
pub mod parse;
pub mod preset;
pub mod tagged;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::isa::matrix::machine::tagged::{Latency, Tagged};
use crate::isa::matrix::program::addr::Queue;
use crate::isa::matrix::program::inst::CrossMode;
use crate::isa::matrix::program::ty::CubeType;
use crate::isa::matrix::program::vec::CostClass;

/// Version of the machine file's format.
pub const FORMAT: u32 = 1;

/// One machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    pub format: u32,
    pub name: String,
    /// The vendor's number of the architecture.
    pub arch: u32,
    /// Absent where it is not published: then only cycles are printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ghz: Option<Tagged<f64>>,
    pub org: Organisation,
    pub buffer: Buffers,
    pub queue: Queues,
    pub path: Paths,
    /// Cube modes by name of [`CubeType`].
    pub cube: BTreeMap<String, CubeMode>,
    pub vector: VectorUnit,
    pub scalar: ScalarUnit,
    pub flag: Flags,
    pub gm: GlobalMemory,
    pub quirk: Quirks,
}

/// How cube and vector units are put together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Organisation {
    pub kind: OrganisationKind,
    /// Cube (or coupled) cores.
    pub cores: Tagged<u32>,
    /// Vector cores beside each cube core of a split machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector_per_cube: Option<Tagged<u32>>,
    /// Numbers of the cross-core modes.
    #[serde(default)]
    pub cross_core_modes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrganisationKind {
    /// Cube cores and vector cores with their own scalar units.
    Split,
    /// Cube and vector unit in one core.
    Coupled,
}

/// Order of fractals, then order inside one (`docs/matrix.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FractalOrder {
    Nz,
    Zz,
    Zn,
}

/// One memory of a core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Buffer {
    pub size: Tagged<u32>,
    /// Bytes that addresses are a multiple of.
    pub align: u32,
    /// Bytes at the end that programs leave alone.
    #[serde(default)]
    pub reserved: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fractal: Option<FractalOrder>,
    /// L0C: alignment of the result of a product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mmad_align: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub banks: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<u32>,
}

impl Buffer {
    /// Bytes that a program may use.
    pub fn usable(&self) -> u32 {
        self.size.value.saturating_sub(self.reserved)
    }
}

/// The memories of a core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Buffers {
    pub l1: Buffer,
    pub l0a: Buffer,
    pub l0b: Buffer,
    pub l0c: Buffer,
    pub ub: Buffer,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bt: Option<Buffer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fb: Option<Buffer>,
}

/// Entries that queues hold before issue stalls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queues {
    pub depth: Depths,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Depths {
    pub v: Tagged<u32>,
    pub m: Tagged<u32>,
    pub mte1: Tagged<u32>,
    pub mte2: Tagged<u32>,
    pub mte3: Tagged<u32>,
    pub fix: Tagged<u32>,
}

/// One path between memories.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Path {
    /// Bytes per cycle.
    pub rate: Tagged<f64>,
    /// Elements per cycle where that, and not bytes, is the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elements: Option<Tagged<f64>>,
    /// Cycles per operation beside the bytes.
    pub dt: Latency,
    /// Bytes per cycle by bytes of a row in global memory, for row-major to Nz: increasing, linear between entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nz_rate_by_row: Vec<RowRate>,
}

/// `[row_bytes, rate, tag]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowRate(pub u32, pub f64, pub tagged::Tag);

/// The paths; one that is absent does not exist on the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paths {
    pub gm_l1: Path,
    pub gm_ub: Path,
    pub l1_l0a: Path,
    pub l1_l0b: Path,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l1_bt: Option<Path>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l1_fb: Option<Path>,
    pub l0c_gm: Path,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l0c_l1: Option<Path>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l0c_ub: Option<Path>,
    pub ub_gm: Path,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ub_l1: Option<Path>,
}

/// One pair of operand types of the cube.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CubeMode {
    /// m, k and n of one step.
    pub mkn: [u32; 3],
    /// Elements of k per cycle: k of the step over its cycles.
    pub k_per_cycle: u32,
    pub tag: tagged::Tag,
    pub dt: Latency,
    /// False where only configuration text names the mode.
    pub public: bool,
}

/// The vector unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorUnit {
    /// Bytes per repeat.
    pub bytes: Tagged<u32>,
    /// Cycles per instruction beside its repeats.
    pub head: Latency,
    /// Cycles added where the lanes do not fill the last repeat.
    pub unaligned: Tagged<f64>,
    /// The cost table in use, a key of `slope`.
    pub costs: String,
    /// Whether f32 results are the exact ones rounded once: the bits of whole models rest on it.
    pub rounds_once: RoundsOnce,
    /// Cycles per repeat, by name of table and group of operations.
    pub slope: BTreeMap<String, BTreeMap<CostClass, Tagged<f64>>>,
}

/// The operations in f32 whose rounding no public document promises.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundsOnce {
    pub div: Tagged<bool>,
    pub fma: Tagged<bool>,
    pub sqrt: Tagged<bool>,
}

impl RoundsOnce {
    /// The first operation that rounds in another way.
    pub fn first_failing(&self) -> Option<&'static str> {
        let all = [("div", self.div), ("fma", self.fma), ("sqrt", self.sqrt)];
        all.into_iter().find(|(_, rounds_once)| !rounds_once.value).map(|(name, _)| name)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScalarUnit {
    /// Cycles to issue one record.
    pub issue: Tagged<f64>,
    /// Cycles of a load by the scalar unit.
    pub load: Tagged<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flags {
    /// Ids that programs may use, from 0.
    pub ids: Tagged<u32>,
    /// Cycles from set to wait.
    pub hop: Tagged<f64>,
    /// Cycles of a signal between cores.
    pub cross_hop: Tagged<f64>,
}

/// Global memory, shared by all cores. Rates are per second where the clock is known, else per cycle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalMemory {
    /// Terabytes per second of DDR or HBM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hbm_tbs: Option<Tagged<f64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l2_tbs: Option<Tagged<f64>>,
    /// Bytes per cycle of DDR or HBM, all cores together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hbm_bytes_per_cycle: Option<Tagged<f64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l2_bytes_per_cycle: Option<Tagged<f64>>,
    /// Bytes; 0 where there is none.
    pub l2_bytes: Tagged<u64>,
    /// Launch of a stage.
    pub launch_us: Tagged<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quirks {
    /// m = 1 switches the cube to another form: refused.
    pub gemv_at_m1: bool,
    /// `BAR M` between accumulating products when (m/16)(n/16) is below this.
    pub bar_m_below: u32,
    /// `BAR V` between dependent vector operations.
    pub bar_v_on_raw: bool,
}

impl Machine {
    /// The cube's mode for `ty`, if the machine has it.
    pub fn cube_mode(&self, ty: CubeType) -> Option<&CubeMode> {
        self.cube.get(ty.name())
    }

    /// Cores that run cube (or coupled) streams.
    pub fn cube_cores(&self) -> u32 {
        self.org.cores.value
    }

    /// Cores that run vector streams; 0 on coupled machines.
    pub fn vector_cores(&self) -> u32 {
        self.org.vector_per_cube.map_or(0, |per| per.value * self.org.cores.value)
    }

    /// Cores that have a vector unit.
    pub fn vector_units(&self) -> usize {
        let cores = match self.org.kind {
            OrganisationKind::Coupled => self.cube_cores(),
            OrganisationKind::Split => self.vector_cores(),
        };
        cores as usize
    }

    pub fn has_cross_core(&self, mode: CrossMode) -> bool {
        self.org.cross_core_modes.contains(&mode.number())
    }

    /// Entries of a queue; the scalar unit has none.
    pub fn queue_depth(&self, queue: Queue) -> u32 {
        let depth = &self.queue.depth;
        match queue {
            Queue::S => u32::MAX,
            Queue::V => depth.v.value,
            Queue::M => depth.m.value,
            Queue::Mte1 => depth.mte1.value,
            Queue::Mte2 => depth.mte2.value,
            Queue::Mte3 => depth.mte3.value,
            Queue::Fix => depth.fix.value,
        }
    }

    /// Cycles per repeat of a group of vector operations, by the cost table in use.
    pub fn vector_slope(&self, class: CostClass) -> f64 {
        // Parsing checks that the table in use names every group.
        self.vector.slope.get(&self.vector.costs).and_then(|t| t.get(&class)).map_or(1.0, |s| s.value)
    }

    /// Bytes per cycle of DDR or HBM for all cores together, if known.
    pub fn hbm_bytes_per_cycle(&self) -> Option<f64> {
        per_cycle(self.gm.hbm_tbs, self.gm.hbm_bytes_per_cycle, self.clock_ghz)
    }

    /// Bytes per cycle of L2 for all cores together, if known.
    pub fn l2_bytes_per_cycle(&self) -> Option<f64> {
        per_cycle(self.gm.l2_tbs, self.gm.l2_bytes_per_cycle, self.clock_ghz)
    }

    /// True if times may be printed: clock and memory rate are published or given, not assumed.
    pub fn has_time(&self) -> bool {
        let is_known = |tag: tagged::Tag| tag != tagged::Tag::Assumed;
        let clock = self.clock_ghz.is_some_and(|c| is_known(c.tag));
        let rate = self.gm.hbm_tbs.or(self.gm.hbm_bytes_per_cycle).is_some_and(|r| is_known(r.tag));
        clock && rate
    }
}

fn per_cycle(tbs: Option<Tagged<f64>>, cycle: Option<Tagged<f64>>, clock_ghz: Option<Tagged<f64>>) -> Option<f64> {
    match (tbs, clock_ghz) {
        (Some(tbs), Some(clock)) => Some(tbs.value * 1000.0 / clock.value),
        (Some(_), None) | (None, _) => cycle.map(|c| c.value),
    }
}
