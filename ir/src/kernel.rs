//! Kernels as plans name them: an op family with every shape fixed. Kernels of equal spec are shared by all layers.
//!
//! A kernel is `extern "C" fn(args: *const u64, begin: u64, end: u64, scratch: *mut u8)`: it does tasks
//! `begin..end` of its outer axis. `args` are 64-bit words: the three of [`args`], then one address per entry of
//! [`KernelSpec::operands`]. Token rows at `valid` and above are neither read nor written.

use std::fmt;

use crate::attention::AttentionStep;
use crate::cache::{AttentionScratch, CacheLayout, CacheOrder, QueryTile};
use crate::coded::CodedLayout;
use crate::encoding::Encoding;
use crate::ops::Act;
use crate::schedule::MatmulSchedule;
use crate::screen::ScreenLayout;
use crate::screen::kernel::{ScreenKernel, TASK_ROWS};
use crate::target::micro_args;
use crate::ty::DType;

/// Token rows of one call of an assembled dot product of `DenseMatmul`; their sums wait on the stack.
pub const DENSE_ROWS: usize = 8;

/// Words every argument block begins with.
pub mod args {
    /// Absolute position of token row 0.
    pub const POS: usize = 0;
    /// Number of valid token rows.
    pub const VALID: usize = 1;
    /// Address of a u32 that a kernel sets to 1 when it meets a non-finite absmax.
    pub const NONFINITE: usize = 2;
    /// First operand.
    pub const FIRST: usize = 3;
}

/// Layout of quantized activations `i8[m, k]`: each row is `k` codes, zeros up to `k_pad`, then one i32 sum of the
/// codes of each run of `sum_group` columns (what offset codes subtract), zeros up to `stride`. Rows are aligned to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuantLayout {
    pub k: usize,
    /// Columns per stored sum; divides k.
    pub sum_group: usize,
}

impl QuantLayout {
    /// Alignment and padding unit of rows, bytes.
    pub const ALIGN: usize = 64;

    /// Offset of the sums, bytes: `k` zero-padded to a multiple of 64, with at least 32 zeros behind `k` so that
    /// blocks of any `kr <= 32` may be read whole.
    pub fn sums_offset_bytes(&self) -> usize {
        (self.k + 32).next_multiple_of(Self::ALIGN)
    }

    pub fn sums(&self) -> usize {
        self.k / self.sum_group
    }

    /// Bytes from one row to the next.
    pub fn stride_bytes(&self) -> usize {
        (self.sums_offset_bytes() + 4 * self.sums()).next_multiple_of(Self::ALIGN)
    }
}

/// How a target lays out quantized activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuantForm {
    /// Row by row with sums behind each, as [`QuantLayout`] says.
    Rows,
    /// Strips of 32 bytes per row in the order of a matrix unit's fractals, without sums: `[strips][rows][32]` with k
    /// padded to a multiple of 128 and rows to one of 16.
    Strips,
}

impl QuantForm {
    /// Bytes of `m` rows: the larger of a byte and two nibbles for each code.
    pub fn bytes(self, layout: &QuantLayout, m: usize) -> usize {
        match self {
            QuantForm::Rows => layout.stride_bytes() * m,
            QuantForm::Strips => layout.k.next_multiple_of(128) * m.next_multiple_of(16),
        }
    }
}

/// Granularity of a ternary matrix' scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaleKind {
    PerTensor,
    PerRow,
    /// One scale per row and run of `group` columns, stored `[n, k / group]`.
    PerGroup {
        group: usize,
    },
}

/// One of the two products of a gate.
#[derive(Clone, Debug, PartialEq)]
pub struct GatedProduct {
    pub scale: ScaleKind,
    pub schedule: MatmulSchedule,
}

impl GatedProduct {
    /// Private memory that either of `products` needs, bytes (a multiple of 64).
    pub fn scratch_bytes(products: &[GatedProduct; 2]) -> usize {
        let [gate, up] = products.each_ref().map(|product| product_scratch_bytes(&product.schedule));
        gate.max(up).next_multiple_of(64)
    }
}

/// Private memory of a task of a ternary product, bytes: the argument block of the micro-kernel, the accumulators of one
/// task for the widest kernel, one task's group results, and the micro-kernel's own scratch.
fn product_scratch_bytes(schedule: &MatmulSchedule) -> usize {
    let rows = schedule.task_rows().next_multiple_of(64);
    let mr = schedule.micro.iter().map(|k| k.mr).max().unwrap_or(1);
    let own = schedule.micro.iter().map(|k| k.scratch_bytes).max().unwrap_or(0);
    let block = usize::try_from(micro_args::BYTES).expect("a few words");
    block + 2 * 4 * rows * mr + own.next_multiple_of(64)
}

/// Products of ternary weights `[n, k]` with int8 activations.
#[derive(Clone, Debug, PartialEq)]
pub struct TernaryProducts<'a> {
    pub n: usize,
    pub k: usize,
    /// One for each product.
    pub schedules: Vec<&'a MatmulSchedule>,
}

/// What a kernel computes, with every number fixed. Operand addresses follow in the order given for each variant.
#[derive(Clone, Debug, PartialEq)]
pub enum KernelSpec {
    /// tokens, table, out `f32[m, h]`. Tasks: token rows.
    Embed { m: usize, h: usize, table: DType, scale: f32 },
    /// tokens, table (coded), out `f32[m, k]`. Tasks: token rows.
    CodedEmbed { m: usize, table: CodedLayout, scale: f32 },
    /// x, w, out `f32[m, k]`; `d` elements per norm; out may be x. Tasks: token rows.
    Norm { m: usize, k: usize, d: usize, eps: f32 },
    /// x, w, q (layout), act_scale `f32[m]`; `scratch` holds one f32 row. Tasks: token rows.
    NormQuant { m: usize, eps: f32, layout: QuantLayout },
    /// x, q, act_scale. Tasks: token rows.
    Quantize { m: usize, layout: QuantLayout },
    /// g, u, out `f32[m, k]`; out may be g. Tasks: token rows.
    Glu { m: usize, k: usize, act: Act },
    /// g, u, q, act_scale; `scratch` holds one f32 row. Tasks: token rows.
    GluQuant { m: usize, act: Act, layout: QuantLayout },
    /// g, u, w, q, act_scale; `scratch` holds one f32 row. Tasks: token rows.
    GluNormQuant { m: usize, act: Act, eps: f32, layout: QuantLayout },
    /// q, act_scale, w (packed), scale, [bias], [residual], out `f32[m, n]`; out may be the residual, here and in the
    /// other two products. Tasks: `schedule.task_rows()` outputs.
    TernaryMatmul {
        m: usize,
        n: usize,
        layout: QuantLayout,
        scale: ScaleKind,
        bias: bool,
        residual: bool,
        schedule: MatmulSchedule,
    },
    /// q, act_scale, then w (packed) and scale of the product g, w and scale of the product u, out `f32[m, n]`: the gate
    /// of g, times u, where both are products as above with nothing added. Both schedules have tasks of as many outputs.
    TernaryGlu { m: usize, n: usize, layout: QuantLayout, act: Act, products: [GatedProduct; 2] },
    /// x, w (packed `encoding`), scale, [bias], [residual], out. Tasks: `task_rows` outputs.
    FloatTernaryMatmul {
        m: usize,
        n: usize,
        k: usize,
        encoding: Encoding,
        scale: ScaleKind,
        bias: bool,
        residual: bool,
        task_rows: usize,
    },
    /// x, w `table[n, k]`, [bias], [residual], out. Tasks: `task_rows` outputs.
    DenseMatmul {
        m: usize,
        n: usize,
        k: usize,
        weight: DType,
        scale: f32,
        bias: bool,
        residual: bool,
        task_rows: usize,
    },
    /// query (as `ScreenKernel::Query` makes it), w (coded), out `f32[n]`. Tasks: `TASK_ROWS` outputs.
    CodedMatmul { table: CodedLayout },
    /// x, cos, sin, out `f32[m, heads · d]`; out may be x. Tasks: heads.
    Rope { m: usize, heads: usize, d: usize },
    /// x, cache; `scratch` holds one row of the cache. Tasks: KV heads.
    KvWrite { m: usize, cache: CacheLayout, order: CacheOrder },
    /// q, k cache, v cache, out; `scratch` holds the parts of [`AttentionScratch`]. Tasks: tiles of token rows within
    /// tiles of the query heads of a KV head ([`QueryTile`]), within KV heads.
    Attention { m: usize, heads: usize, cache: CacheLayout, scale: f32 },
    /// One step of attention of one token row that threads share finely; operands, tasks and `scratch` are the step's.
    AttentionStep { heads: usize, cache: CacheLayout, step: AttentionStep },
    /// x, y, out `f32[m, k]`; out may be either. Tasks: token rows.
    Add { m: usize, k: usize },
    /// One step of the search for the best rows of a dense head; operands and tasks are the step's.
    Screen { layout: ScreenLayout, step: ScreenKernel },
}

impl KernelSpec {
    /// Number of operand addresses behind the words of [`args`].
    pub fn operands(&self) -> usize {
        match self {
            KernelSpec::Embed { .. } | KernelSpec::CodedEmbed { .. } | KernelSpec::Norm { .. } => 3,
            KernelSpec::CodedMatmul { .. } => 3,
            KernelSpec::NormQuant { .. } | KernelSpec::GluQuant { .. } => 4,
            KernelSpec::Quantize { .. } | KernelSpec::Glu { .. } | KernelSpec::Add { .. } => 3,
            KernelSpec::GluNormQuant { .. } => 5,
            KernelSpec::TernaryMatmul { bias, residual, .. } => 5 + usize::from(*bias) + usize::from(*residual),
            KernelSpec::TernaryGlu { .. } => 7,
            KernelSpec::FloatTernaryMatmul { bias, residual, .. } => 4 + usize::from(*bias) + usize::from(*residual),
            KernelSpec::DenseMatmul { bias, residual, .. } => 3 + usize::from(*bias) + usize::from(*residual),
            KernelSpec::Rope { .. } | KernelSpec::Attention { .. } => 4,
            KernelSpec::KvWrite { .. } => 2,
            KernelSpec::AttentionStep { step, .. } => step.operands(),
            KernelSpec::Screen { step, .. } => step.operands(),
        }
    }

    /// The same kernel for at most `rows` token rows, each computed as before; `None` where rows are not independent
    /// alone, or were not one.
    pub fn with_rows(&self, rows: usize) -> Option<KernelSpec> {
        let mut spec = self.clone();
        match &mut spec {
            KernelSpec::Norm { m, .. } | KernelSpec::DenseMatmul { m, .. } if *m == 1 => *m = rows,
            KernelSpec::Norm { .. }
            | KernelSpec::DenseMatmul { .. }
            | KernelSpec::Embed { .. }
            | KernelSpec::CodedEmbed { .. }
            | KernelSpec::NormQuant { .. }
            | KernelSpec::Quantize { .. }
            | KernelSpec::Glu { .. }
            | KernelSpec::GluQuant { .. }
            | KernelSpec::GluNormQuant { .. }
            | KernelSpec::TernaryMatmul { .. }
            | KernelSpec::TernaryGlu { .. }
            | KernelSpec::FloatTernaryMatmul { .. }
            | KernelSpec::CodedMatmul { .. }
            | KernelSpec::Rope { .. }
            | KernelSpec::KvWrite { .. }
            | KernelSpec::Attention { .. }
            | KernelSpec::AttentionStep { .. }
            | KernelSpec::Add { .. }
            | KernelSpec::Screen { .. } => return None,
        }
        Some(spec)
    }

    /// The schedules of the products of ternary weights with int8 activations that the kernel computes, each of
    /// `[n, k]`.
    pub fn ternary_products(&self) -> Option<TernaryProducts<'_>> {
        match self {
            KernelSpec::TernaryMatmul { n, layout, schedule, .. } => {
                Some(TernaryProducts { n: *n, k: layout.k, schedules: vec![schedule] })
            }
            KernelSpec::TernaryGlu { n, layout, products, .. } => {
                let schedules = products.iter().map(|product| &product.schedule).collect();
                Some(TernaryProducts { n: *n, k: layout.k, schedules })
            }
            KernelSpec::Embed { .. }
            | KernelSpec::CodedEmbed { .. }
            | KernelSpec::Norm { .. }
            | KernelSpec::NormQuant { .. }
            | KernelSpec::Quantize { .. }
            | KernelSpec::Glu { .. }
            | KernelSpec::GluQuant { .. }
            | KernelSpec::GluNormQuant { .. }
            | KernelSpec::FloatTernaryMatmul { .. }
            | KernelSpec::DenseMatmul { .. }
            | KernelSpec::CodedMatmul { .. }
            | KernelSpec::Rope { .. }
            | KernelSpec::KvWrite { .. }
            | KernelSpec::Attention { .. }
            | KernelSpec::AttentionStep { .. }
            | KernelSpec::Add { .. }
            | KernelSpec::Screen { .. } => None,
        }
    }

    /// Number of tasks of the outer axis.
    pub fn tasks(&self) -> usize {
        match self {
            KernelSpec::Embed { m, .. }
            | KernelSpec::CodedEmbed { m, .. }
            | KernelSpec::Norm { m, .. }
            | KernelSpec::NormQuant { m, .. }
            | KernelSpec::Quantize { m, .. }
            | KernelSpec::Glu { m, .. }
            | KernelSpec::GluQuant { m, .. }
            | KernelSpec::GluNormQuant { m, .. }
            | KernelSpec::Add { m, .. } => *m,
            KernelSpec::Rope { heads, .. } => *heads,
            KernelSpec::TernaryMatmul { n, schedule, .. } => n.div_ceil(schedule.task_rows()),
            KernelSpec::TernaryGlu { n, products, .. } => n.div_ceil(products[0].schedule.task_rows()),
            KernelSpec::FloatTernaryMatmul { n, task_rows, .. } | KernelSpec::DenseMatmul { n, task_rows, .. } => {
                n.div_ceil(*task_rows)
            }
            KernelSpec::KvWrite { cache, .. } => cache.heads,
            KernelSpec::Attention { m, heads, cache, .. } => {
                let group = heads / cache.heads;
                let tile = QueryTile::new(*m, group);
                cache.heads * group.div_ceil(tile.heads) * m.div_ceil(tile.rows)
            }
            KernelSpec::AttentionStep { heads, cache, step } => step.tasks(*heads, cache),
            KernelSpec::CodedMatmul { table } => table.n.div_ceil(TASK_ROWS),
            KernelSpec::Screen { layout, step } => step.tasks(layout),
        }
    }

    /// Private scratch one task needs, bytes (a multiple of 64).
    pub fn scratch_bytes(&self) -> usize {
        let bytes = match self {
            KernelSpec::NormQuant { layout, .. }
            | KernelSpec::GluQuant { layout, .. }
            | KernelSpec::GluNormQuant { layout, .. } => 4 * layout.k,
            KernelSpec::KvWrite { cache, .. } => cache.row_bytes(),
            KernelSpec::Attention { m, heads, cache, .. } => {
                AttentionScratch::new(QueryTile::new(*m, heads / cache.heads), cache).bytes
            }
            KernelSpec::AttentionStep { heads, cache, step } => step.scratch_bytes(*heads, cache),
            KernelSpec::TernaryMatmul { schedule, .. } => product_scratch_bytes(schedule),
            // The outputs of a task of the second product follow.
            KernelSpec::TernaryGlu { m, products, .. } => {
                GatedProduct::scratch_bytes(products) + 4 * m * products[0].schedule.task_rows()
            }
            KernelSpec::Embed { .. }
            | KernelSpec::CodedEmbed { .. }
            | KernelSpec::CodedMatmul { .. }
            | KernelSpec::Norm { .. }
            | KernelSpec::Quantize { .. }
            | KernelSpec::Glu { .. }
            | KernelSpec::FloatTernaryMatmul { .. }
            | KernelSpec::DenseMatmul { .. }
            | KernelSpec::Rope { .. }
            | KernelSpec::Add { .. } => 0,
            KernelSpec::Screen { step, .. } => step.scratch_bytes(),
        };
        bytes.next_multiple_of(64)
    }

    /// The op family's name: the stem of the kernel's symbol.
    pub fn family(&self) -> &'static str {
        match self {
            KernelSpec::Embed { .. } => "embed",
            KernelSpec::CodedEmbed { .. } => "coded_embed",
            KernelSpec::CodedMatmul { table } => table.code.family(),
            KernelSpec::Norm { .. } => "norm",
            KernelSpec::NormQuant { .. } => "norm_quant",
            KernelSpec::Quantize { .. } => "quantize",
            KernelSpec::Glu { .. } => "glu",
            KernelSpec::GluQuant { .. } => "glu_quant",
            KernelSpec::GluNormQuant { .. } => "glu_norm_quant",
            KernelSpec::TernaryMatmul { .. } => "ternary",
            KernelSpec::TernaryGlu { .. } => "ternary_glu",
            KernelSpec::FloatTernaryMatmul { .. } => "float_ternary",
            KernelSpec::DenseMatmul { .. } => "dense",
            KernelSpec::Rope { .. } => "rope",
            KernelSpec::KvWrite { .. } => "kv_write",
            KernelSpec::Attention { .. } => "attention",
            KernelSpec::AttentionStep { step, .. } => step.family(),
            KernelSpec::Add { .. } => "add",
            KernelSpec::Screen { step, .. } => step.family(),
        }
    }
}

impl fmt::Display for ScaleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScaleKind::PerTensor => f.write_str("tensor"),
            ScaleKind::PerRow => f.write_str("row"),
            ScaleKind::PerGroup { group } => write!(f, "g{group}"),
        }
    }
}
