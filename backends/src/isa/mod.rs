//! The table of CPU backends and what each must provide.

pub mod aarch64;
pub mod matrix;
pub mod riscv64;
pub mod x86_64;

use tcc_ir::ops::Act;
use tcc_ir::target::{Features, MicroKernel, TargetDesc};
use tcc_ir::ty::DType;

use crate::code::{Function, RelocKind};

/// ELF facts of an ISA.
#[derive(Clone, Copy, Debug)]
pub struct ElfAbi {
    pub machine: u16,
    pub flags: u32,
    /// Relocation type(s) that store target - place in 64 bits: one, or an ADD/SUB pair.
    pub pc64: &'static [u32],
}

/// Numbers of the Linux system calls that executables use.
#[derive(Clone, Copy, Debug)]
pub struct Syscalls {
    pub read: i64,
    pub write: i64,
    pub mmap: i64,
    pub exit_group: i64,
}

/// A loop of attention as a function of its own. Strides are in bytes; rows of `d` elements follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttentionPart {
    /// `extern "C" fn(from: *const f16, to: *mut f32, n: u64)`: `n` elements widened.
    Widen,
    /// `extern "C" fn(q: *const f32, k: *const f32, d: u64, queries: u64, out: *mut f32, stride: u64, blocks: u64)`:
    /// `numerics::dot` of each row of `q: f32[queries, d]` and each position of `k: f32[blocks, d, 16]`; those of
    /// query i go to `out + i · stride`.
    Scores,
    /// `extern "C" fn(e: *mut f32, seen: u64, k_scales: *const f32, v_scales: *const f32, scale: f32) -> f32`: of
    /// dot products `e: f32[seen]`, times their position's key scale unless `k_scales` is null, then times `scale`,
    /// the exponentials of what each is above the largest; returns their `numerics::sum` and leaves them in `e`,
    /// times their position's value scale unless `v_scales` is null. All arrays are padded to whole blocks of 16
    /// positions, whose contents do not matter and whose results nobody reads.
    Softmax,
    /// `extern "C" fn(e: *const f32, v: *const f32, d: u64, queries: u64, sums: *mut f32, stride: u64, positions:
    /// u64)`: to each row of `sums: f32[queries, d]` is added, for each position t of `v: f32[positions, d]` in
    /// increasing order and rounded once, `e[t] · v[t]`, where the factors of query i are at `e + i · stride`.
    Values,
    /// `extern "C" fn(q: *const f32, d: u64, queries: u64, codes: *mut u8)`: `attention_codes::query` of each row of
    /// `q: f32[queries, d]`, laid out by `QueryCodes`.
    QueryCodes,
    /// `extern "C" fn(codes: *const u8, k: *const i8, d: u64, queries: u64, out: *mut f32, stride: u64, blocks: u64)`:
    /// `attention_codes::dot` of each query (`QueryCodes`) and each position of `k: i8[blocks, d / 4, 16, 4]`, times
    /// the query's scale; those of query i go to `out + i · stride`.
    CodeScores,
    /// `extern "C" fn(w: *mut f32, seen: u64, end: u64) -> f32`: `attention_codes::weights` of the weights of `seen`
    /// positions, laid out by `WeightCodes` in their place, and codes of zero for what follows of the positions
    /// before `end` and of their last block; returns the scale.
    WeightCodes,
    /// `extern "C" fn(codes: *const u8, v: *const i8, lanes: u64, queries: u64, sums: *mut i32, stride: u64, blocks:
    /// u64)`: to `sums: i32[queries, 2, lanes]`, whose rows stand for 128 times the first plus the second, are added the
    /// products of the codes of the weights of each position (`WeightCodes`, those of query i at `codes + i · stride`)
    /// with `v: i8[4 · blocks, lanes, 4]`, of at most `attention_codes::MOST_BLOCKS` blocks. Which of the two takes what
    /// is open: products of the high and of the low planes, or, after a call, the high and the low part of what it adds.
    CodeValues,
}

impl AttentionPart {
    pub const ALL: [AttentionPart; 8] = [
        AttentionPart::Widen,
        AttentionPart::Scores,
        AttentionPart::Softmax,
        AttentionPart::Values,
        AttentionPart::QueryCodes,
        AttentionPart::CodeScores,
        AttentionPart::WeightCodes,
        AttentionPart::CodeValues,
    ];

    /// The parts that attention over a cache of type `cache` calls.
    pub fn of(cache: DType) -> impl Iterator<Item = AttentionPart> {
        let needed = move |part: &AttentionPart| match part {
            AttentionPart::Widen => cache == DType::F16,
            AttentionPart::Scores | AttentionPart::Values => cache != DType::Q8,
            AttentionPart::Softmax => true,
            AttentionPart::QueryCodes
            | AttentionPart::CodeScores
            | AttentionPart::WeightCodes
            | AttentionPart::CodeValues => cache == DType::Q8,
        };
        Self::ALL.into_iter().filter(needed)
    }

    /// Name of the function in an image.
    pub fn symbol(self) -> &'static str {
        match self {
            AttentionPart::Widen => "attention_widen",
            AttentionPart::Scores => "attention_scores",
            AttentionPart::Softmax => "attention_softmax",
            AttentionPart::Values => "attention_values",
            AttentionPart::QueryCodes => "attention_query_codes",
            AttentionPart::CodeScores => "attention_code_scores",
            AttentionPart::WeightCodes => "attention_weight_codes",
            AttentionPart::CodeValues => "attention_code_values",
        }
    }
}

/// [`AttentionPart::Scores`] and [`AttentionPart::Values`] over floats as a cache stores them: what few queries use
/// is best widened on the way.
#[derive(Clone, Debug)]
pub struct CacheLoops {
    pub scores: Function,
    pub values: Function,
}

/// A loop over a row of `n` floats as a function of its own, for any `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowPart {
    /// `extern "C" fn(x: *const f32, n: u64) -> f32`: `numerics::dot` of the row with itself.
    Squares,
    /// `extern "C" fn(x: *const f32, w: *const f32, n: u64, out: *mut f32, r: f32)`: `w · (x · r)`; `out` may be `x`.
    Scale,
    /// `extern "C" fn(x: *const f32, n: u64) -> i32`: the largest bits but for their sign, as integers.
    Absmax,
    /// `extern "C" fn(x: *const f32, n: u64, codes: *mut i8, inv_scale: f32) -> i32`: the codes `rne(x · inv_scale)` of
    /// elements that no code lies beyond; returns their sum.
    Codes,
    /// `extern "C" fn(g: *const f32, u: *const f32, n: u64, out: *mut f32)`: the gate of `g`, times `u`;
    /// `out` may be `g` or `u`.
    Gate(Act),
    /// `extern "C" fn(x: *const f32, n: u64, out: *mut f16)`: `numerics::f32_to_f16_saturating` of each element, what is
    /// no number as if it were infinite.
    Narrow,
}

impl RowPart {
    pub const ALL: [RowPart; 7] = [
        RowPart::Squares,
        RowPart::Scale,
        RowPart::Absmax,
        RowPart::Codes,
        RowPart::Gate(Act::Relu2),
        RowPart::Gate(Act::Silu),
        RowPart::Narrow,
    ];

    /// Name of the function in an image.
    pub fn symbol(self) -> &'static str {
        match self {
            RowPart::Squares => "row_squares",
            RowPart::Scale => "row_scale",
            RowPart::Absmax => "row_absmax",
            RowPart::Codes => "row_codes",
            RowPart::Gate(Act::Relu2) => "row_relu2",
            RowPart::Gate(Act::Silu) => "row_silu",
            RowPart::Narrow => "row_narrow",
        }
    }
}

/// What an instruction set assembles of a [`RowPart`], each of them once.
pub(crate) struct RowBodies<F> {
    pub squares: F,
    pub scale: F,
    pub absmax: F,
    pub codes: F,
    pub relu2: F,
    pub silu: F,
    /// `None` where halves are no matter of course.
    pub narrow: Option<F>,
}

impl<F> RowBodies<F> {
    /// The body of `part`.
    pub fn of(self, part: RowPart) -> Option<F> {
        match part {
            RowPart::Squares => Some(self.squares),
            RowPart::Scale => Some(self.scale),
            RowPart::Absmax => Some(self.absmax),
            RowPart::Codes => Some(self.codes),
            RowPart::Gate(Act::Relu2) => Some(self.relu2),
            RowPart::Gate(Act::Silu) => Some(self.silu),
            RowPart::Narrow => self.narrow,
        }
    }
}

/// Assembled inner loops of screened and coded heads. Codes are those of a query, with scales and offsets behind them as
/// `QueryLayout` says; there is at least one block, and one piece.
#[derive(Clone, Debug)]
pub struct ScreenLoops {
    /// `extern "C" fn(planes: *const u8, codes: *const i8, blocks: u64, panels: u64, out: *mut f32)`: `out` becomes
    /// `Screened::estimate` of the 16 rows of each of `panels` consecutive panels, for any number of panels.
    pub panels: Function,
    /// The same for panels of `RowCode::Int8`: `out` becomes `Row::logit` but for its last addition.
    pub byte_panels: Function,
    /// `extern "C" fn(records: *const u8, lane_codes: *const i8, pieces: u64, rows: *const u32, count: u64, out: *mut
    /// f32)`: `out[row]` becomes `Screened::refinement` of record `row`, for each of the `count` ascending `rows`.
    pub rows: Function,
}

/// One instruction set: description, portable-code settings, assembled kernels, and binary interface.
pub trait Backend: Sync {
    fn desc(&self) -> &'static TargetDesc;

    /// Target triple for the portable code generator, ELF format, no operating system.
    fn clif_triple(&self) -> &'static str;

    /// Code-generator flags (`has_avx2`, ...) to enable for `features`.
    fn clif_flags(&self, features: Features) -> Vec<&'static str>;

    /// True if 128-bit vectors may be used in portable code.
    fn has_vectors(&self, features: Features) -> bool;

    /// Code of an assembled menu row for cores with `features`, those that it needs among them; `None` for rows that
    /// portable code implements.
    fn micro(&self, row: &MicroKernel, features: Features) -> Option<Function>;

    /// Assembled dot products with a row of dense weights of the float type `weight`, for cores with `features`;
    /// `None` where portable code does it.
    ///
    /// `extern "C" fn(x: *const f32, w: *const T, k: u64, rows: u64, out: *mut f32, later: *const T)`: `out[i]` becomes
    /// `numerics::dot` of token row i of `x: f32[rows, k]` and `w: weight[k]`, for any `k` and `rows`. `later`, any
    /// address, is where a row lies that a later call likely reads: it may be asked for meanwhile.
    fn dense_dot(&self, weight: DType, features: Features) -> Option<Function> {
        let _ = (weight, features);
        None
    }

    /// Distance from a weight row of a dense product to the `later` one, bytes, where rows follow each other. Farther, a
    /// core may have more lines under way than its nearest cache can wait for.
    fn dense_ahead_bytes(&self, features: Features) -> usize {
        let _ = features;
        2048
    }

    /// Assembled inner loops of a screened head (`tcc_ir::screen`), for cores with `features`; `None` where portable
    /// code does them.
    fn screen(&self, features: Features) -> Option<ScreenLoops> {
        let _ = features;
        None
    }

    /// The assembled form of a loop of attention, for cores with `features`; `None` where portable code does it.
    fn attention(&self, part: AttentionPart, features: Features) -> Option<Function> {
        let _ = (part, features);
        None
    }

    /// The loops of attention that read a cache of the float type `cache` as it is, for cores with `features`; `None`
    /// where its elements are widened first.
    fn cache_loops(&self, cache: DType, features: Features) -> Option<CacheLoops> {
        let _ = (cache, features);
        None
    }

    /// The assembled form of a loop over a row of floats, for cores with `features`; `None` where portable code does it.
    fn row_loop(&self, part: RowPart, features: Features) -> Option<Function> {
        let _ = (part, features);
        None
    }

    /// `extern "C" fn(hint: u64) -> u64`: the features of this core, from `hint` where it is not 0, else probed
    /// where the ISA lets user code probe, else 0 beyond the baseline; [`TargetDesc::granted`] is never probed.
    fn probe(&self) -> Function;

    /// Linux entry point `_start`: passes the initial stack pointer to `extern "C" fn exe_main(sp) -> !`.
    fn start(&self) -> Function;

    /// `extern "C" fn exe_syscall(n, a0, a1, a2, a3, a4, a5) -> i64`.
    fn syscall(&self) -> Function;

    /// Features of the core from a Linux auxiliary vector's `AT_HWCAP` and `AT_HWCAP2` words, as a function
    /// `extern "C" fn(hwcap: u64, hwcap2: u64) -> u64`; used by executables, which pass the result as the hint. Asks the
    /// system for what it grants, as `start` does.
    fn hwcap(&self) -> Function;

    /// `extern "C" fn() -> u64`: bytes of a vector register, called only where vectors are known to be there.
    /// `None` where the vector length is not a property of the core.
    fn vlen(&self) -> Option<Function> {
        None
    }

    /// `-cpu` of the user-mode emulator for a processor with these features and vector register bits (0 = any);
    /// `None` leaves the emulator's own choice.
    fn emulated_cpu(&self, features: Features, vlen: u32) -> Option<String> {
        let _ = (features, vlen);
        None
    }

    /// The instructions of `code`, which lies at `address`: length in bytes and text of each.
    fn disassemble(&self, code: &[u8], address: u64) -> Vec<(usize, String)> {
        let _ = address;
        let word = |bytes: &[u8]| bytes.iter().rev().map(|b| format!("{b:02x}")).collect::<String>();
        code.chunks(4).map(|bytes| (bytes.len(), format!(".inst 0x{}", word(bytes)))).collect()
    }

    fn syscalls(&self) -> Syscalls;

    fn elf(&self) -> ElfAbi;

    /// Fills the field at `at` in `code` (the whole image) with a reference from address `place` to `target`, the
    /// addend included.
    ///
    /// `place` is the field's own address, but for [`RelocKind::RiscvPcrelLow12I`]: there it is the address of the
    /// `auipc` and `target` what that `auipc` refers to, so that both halves split one displacement.
    fn apply(&self, kind: RelocKind, code: &mut [u8], at: usize, place: u64, target: u64) -> Result<(), String>;
}

/// Every CPU backend.
pub const BACKENDS: &[&dyn Backend] = &[&x86_64::X86_64, &aarch64::Aarch64, &riscv64::Riscv64];

/// The backend named `name`.
pub fn backend(name: &str) -> Option<&'static dyn Backend> {
    BACKENDS.iter().copied().find(|b| b.desc().name == name)
}
