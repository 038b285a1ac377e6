//! The instructions. All sizes are bytes unless a name says otherwise.
//!
//! A stream is fetched by the scalar unit, which resolves registers, runs the scalar instructions itself and hands
//! every other one to its queue; queues run side by side, each in order.

use crate::isa::matrix::program::SymbolId;
use crate::isa::matrix::program::addr::{Addr, Queue, Reg, Space};
use crate::isa::matrix::program::ty::{CubeType, ElemType};
use crate::isa::matrix::program::vec::Vector;

/// Loops nest at most this deep.
pub const LOOP_LEVELS: u8 = 8;
/// Rows and columns of a fractal; a row has 32 bytes.
pub const FRACTAL: u32 = 16;
/// Bytes of a fractal of operands.
pub const FRACTAL_BYTES: u32 = 512;

/// One instruction, by who runs it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Inst {
    /// A queue, on bytes of the memories.
    Work(Work),
    /// A queue, or all of them: when others may go on.
    Order(Order),
    /// The scalar unit itself, on registers.
    Control(Control),
    /// The scalar unit, which waits for a value of a memory.
    ScalarLoad(ScalarLoad),
}

/// What moves and computes, in the queue that stands behind each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// Rows of bytes between memories: LD (MTE2), ST and MV (MTE3).
    Copy(Copy),
    /// Fractals from L1 to L0A or L0B: LA and LB (MTE1).
    LoadL0(LoadL0),
    /// From L1 to the bias table (MTE1) or the scale table (FIX): LT.
    LoadTable(LoadTable),
    /// Product of tiles: MMAD (M).
    Mmad(Mmad),
    /// Out of L0C: FIX.
    Fix(Fix),
    /// Vector operation: VEC (V).
    Vec(Vector),
}

/// What joins queues and cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Fires once all earlier work of `src` has ended; runs in `src`.
    Set { src: Queue, dst: Queue, id: FlagId },
    /// Blocks `dst` until the flag is set, and clears it; runs in `dst`.
    Wait { src: Queue, dst: Queue, id: FlagId },
    /// Later work of `queue` starts after its earlier work has ended; `None` is every queue, the scalar unit included.
    Bar { queue: Option<Queue> },
    /// Signals other cores once all earlier work of `queue` has ended.
    XSet { queue: Queue, mode: CrossMode, id: u8 },
    /// Blocks `queue` until the signal's counter is above 0, and takes one.
    XWait { queue: Queue, mode: CrossMode, id: u8 },
}

/// What the scalar unit does as it fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Runs the records up to the `End` of the same level `count` times; 0 skips them.
    Loop { level: u8, count: Count },
    /// Updates registers, then repeats the loop of `level` or leaves it.
    End { level: u8, updates: [Option<Update>; 4] },
    /// `reg = address of symbol + offset`; without a symbol `reg = offset`.
    AddrReg { reg: Reg, symbol: Option<SymbolId>, offset: i64 },
    /// `reg = op(a, b)` on 64-bit integers.
    Scalar { op: ScalarOp, reg: Reg, a: Reg, b: ScalarOperand },
    /// Ends the stream.
    Halt,
}

/// `reg = value at src`, zero- or sign-extended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScalarLoad {
    pub reg: Reg,
    pub space: ScalarSpace,
    pub src: Addr,
    pub ty: ElemType,
}

impl From<Work> for Inst {
    fn from(work: Work) -> Inst {
        Inst::Work(work)
    }
}

impl From<Order> for Inst {
    fn from(order: Order) -> Inst {
        Inst::Order(order)
    }
}

impl From<Control> for Inst {
    fn from(control: Control) -> Inst {
        Inst::Control(control)
    }
}

/// Which memories a [`Copy`] connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CopyPath {
    GmToL1,
    GmToUb,
    UbToGm,
    UbToL1,
}

impl CopyPath {
    pub const ALL: [CopyPath; 4] = [CopyPath::GmToL1, CopyPath::GmToUb, CopyPath::UbToGm, CopyPath::UbToL1];

    pub const fn src(self) -> Space {
        match self {
            CopyPath::GmToL1 | CopyPath::GmToUb => Space::Gm,
            CopyPath::UbToGm | CopyPath::UbToL1 => Space::Ub,
        }
    }

    pub const fn dst(self) -> Space {
        match self {
            CopyPath::GmToL1 | CopyPath::UbToL1 => Space::L1,
            CopyPath::GmToUb => Space::Ub,
            CopyPath::UbToGm => Space::Gm,
        }
    }

    pub const fn queue(self) -> Queue {
        match self {
            CopyPath::GmToL1 | CopyPath::GmToUb => Queue::Mte2,
            CopyPath::UbToGm | CopyPath::UbToL1 => Queue::Mte3,
        }
    }
}

/// How a [`Copy`] arranges rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CopyForm {
    /// Row r goes to `dst + r · dst_stride`.
    Linear,
    /// Row-major to fractals by column (Nz): byte b of row r goes to
    /// `dst + (b / 32) · dst_stride + r · 32 + b % 32`; the rest of the last 32 byte column is zero.
    Nz,
}

impl CopyForm {
    pub const ALL: [CopyForm; 2] = [CopyForm::Linear, CopyForm::Nz];
}

/// `rows` rows of `row_bytes` from `src + r · src_stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    pub path: CopyPath,
    pub form: CopyForm,
    pub dst: Addr,
    pub src: Addr,
    pub rows: u16,
    pub row_bytes: u32,
    pub src_stride: u32,
    /// Between rows, or between fractal columns in the form `Nz`.
    pub dst_stride: u32,
}

/// Operand memories of the cube.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    A,
    B,
}

impl Side {
    pub const fn dst(self) -> Space {
        match self {
            Side::A => Space::L0a,
            Side::B => Space::L0b,
        }
    }
}

/// Fractals of 512 bytes from L1 (Nz) into the order that the cube reads.
///
/// Fractal (row r, column c) lies at `src + c · src_stride + r · 512` in L1. It goes to
/// `dst + 512 · (r · cols + c)` in L0A (Zz; with columns outermost on machines whose L0A is Nz), and to
/// `dst + 512 · (c · rows + r)` in L0B. There, rows are the n of a weight stored as `[n, k]` and columns its k, so L0B
/// holds Zn. With `transpose`, L1 holds `[k, n]` for L0B (or `[k, m]` for L0A): rows are k, columns n (m), each fractal of
/// 16-bit elements is transposed, and the order in L0 is again that of the operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadL0 {
    pub side: Side,
    pub dst: Addr,
    pub src: Addr,
    /// Rows of fractals (16 each) in L1.
    pub rows: u16,
    /// Columns of fractals (32 bytes each) in L1.
    pub cols: u16,
    /// Bytes between fractal columns in L1, a multiple of 512.
    pub src_stride: u32,
    pub transpose: bool,
}

/// The tables that L1 fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Bias, one s32 or f32 per column, by MTE1.
    Bias,
    /// Scales, 8 bytes per column with an f32 in the low half, by FIX.
    Scale,
}

impl Table {
    pub const fn dst(self) -> Space {
        match self {
            Table::Bias => Space::Bt,
            Table::Scale => Space::Fb,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadTable {
    pub table: Table,
    pub dst: Addr,
    pub src: Addr,
    pub bytes: u32,
}

/// What a product starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmadInit {
    Zero,
    /// The content of c.
    Accumulate,
    /// One value per column from the bias table.
    Bias(Addr),
}

/// Overlap of products with the pipe out of L0C at fractal grain; both sides must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnitFlag {
    Off,
    /// All but the last product of a tile.
    Keep,
    /// The last product of a tile, and the `Fix` that takes it.
    Last,
}

impl UnitFlag {
    pub const ALL: [UnitFlag; 3] = [UnitFlag::Off, UnitFlag::Keep, UnitFlag::Last];
}

/// `c[m, n] (+)= a[m, k] · b[k, n]`, in fractals.
///
/// With k0 = 32 bytes of k, fractal (i, j) of A lies at `a + 512 · (i · ⌈k/k0⌉ + j)` (Zz) or `a + 512 · (j · ⌈m/16⌉ + i)`
/// (machines whose L0A is Nz); fractal (j, i) of B at `b + 512 · (j · ⌈n/16⌉ + i)`, holding 16 rows of n with 32 bytes of
/// k; fractal (i, j) of C at `c + 16 · 16 · size · (j · ⌈m/16⌉ + i)`. Elements of A and B beyond k are ignored; whole
/// fractals of C are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mmad {
    pub ty: CubeType,
    pub c: Addr,
    pub a: Addr,
    pub b: Addr,
    pub m: u16,
    pub k: u16,
    pub n: u16,
    pub init: MmadInit,
    pub unit_flag: UnitFlag,
}

/// Where a [`Fix`] writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FixPath {
    Gm,
    L1,
    /// UB of the core; from a cube core of a split machine, that of its first vector core.
    Ub,
    /// UB of a cube core's second vector core.
    Ub1,
}

impl FixPath {
    pub const ALL: [FixPath; 4] = [FixPath::Gm, FixPath::L1, FixPath::Ub, FixPath::Ub1];

    /// From a cube core to UB of each of its vector cores.
    pub const UBS: [FixPath; 2] = [FixPath::Ub, FixPath::Ub1];

    pub const fn dst(self) -> Space {
        match self {
            FixPath::Gm => Space::Gm,
            FixPath::L1 => Space::L1,
            FixPath::Ub | FixPath::Ub1 => Space::Ub,
        }
    }
}

/// Conversion on the way out of L0C. `scale` multiplies f32(x); results are rounded half to even and saturate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quant {
    /// As it is.
    Keep,
    F32ToF16,
    F32ToBf16,
    /// `f16(f32(x) · scale)`.
    S32ToF16,
    /// `s8(rne(f32(x) · scale))`.
    S32ToS8,
    /// `s4(rne(f32(x) · scale))`.
    S32ToS4,
}

impl Quant {
    pub const ALL: [Quant; 6] =
        [Quant::Keep, Quant::F32ToF16, Quant::F32ToBf16, Quant::S32ToF16, Quant::S32ToS8, Quant::S32ToS4];

    pub const fn name(self) -> &'static str {
        match self {
            Quant::Keep => "keep",
            Quant::F32ToF16 => "f32_f16",
            Quant::F32ToBf16 => "f32_bf16",
            Quant::S32ToF16 => "s32_f16",
            Quant::S32ToS8 => "s32_s8",
            Quant::S32ToS4 => "s32_s4",
        }
    }

    /// Bits of a result from an accumulator of `from` bits.
    pub const fn result_bits(self, from: u32) -> u32 {
        match self {
            Quant::Keep => from,
            Quant::F32ToF16 | Quant::F32ToBf16 | Quant::S32ToF16 => 16,
            Quant::S32ToS8 => 8,
            Quant::S32ToS4 => 4,
        }
    }
}

/// Scales of a [`Fix`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FixScale {
    /// One for the tile.
    Tile(f32),
    /// One per column, from the scale table.
    Columns(Addr),
}

/// How a [`Fix`] arranges its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FixLayout {
    /// Row i at `dst + i · dst_stride`.
    RowMajor,
    /// Fractals by column: 16 elements wide, 32 for s8 and 64 for s4 (channel merge); columns `dst_stride` apart.
    Nz,
}

impl FixLayout {
    pub const ALL: [FixLayout; 2] = [FixLayout::RowMajor, FixLayout::Nz];
}

/// An `[m, n]` tile out of L0C.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fix {
    pub path: FixPath,
    pub dst: Addr,
    pub src: Addr,
    pub m: u16,
    pub n: u16,
    /// Type of the elements in L0C.
    pub from: ElemType,
    /// Bytes between columns of fractals in L0C.
    pub src_stride: u32,
    pub dst_stride: u32,
    pub quant: Quant,
    pub scale: FixScale,
    pub relu: bool,
    pub layout: FixLayout,
    pub unit_flag: UnitFlag,
}

/// Which of the flags between two queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagId {
    Fixed(u8),
    /// `base + iteration % modulo` of the loop at `level`; modulo is 2..=4.
    Iteration {
        base: u8,
        level: u8,
        modulo: u8,
    },
    /// `base` plus the value of a register.
    Reg {
        base: u8,
        reg: Reg,
    },
}

/// Which cores a cross-core signal joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CrossMode {
    /// Mode 0: all cores of the signaller's kind; passed once all have signalled.
    All,
    /// Mode 1: the vector cores beside one cube core.
    Pair,
    /// Mode 2: a cube core and all its vector cores.
    Group,
    /// Mode 4: a cube core and one of its vector cores.
    Single,
}

impl CrossMode {
    pub const ALL: [CrossMode; 4] = [CrossMode::All, CrossMode::Pair, CrossMode::Group, CrossMode::Single];

    /// The number that the vendor's documents give the mode.
    pub const fn number(self) -> u8 {
        match self {
            CrossMode::All => 0,
            CrossMode::Pair => 1,
            CrossMode::Group => 2,
            CrossMode::Single => 4,
        }
    }
}

/// Iterations of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Fixed(u32),
    /// The register's value when the loop is entered; negative is 0.
    Reg(Reg),
}

/// What `End` does to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    Add(Reg, i32),
    /// Ping-pong between two addresses, or two flags.
    Xor(Reg, i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScalarOp {
    Add,
    Sub,
    Mul,
    /// Toward zero; by 0 gives 0.
    Div,
    /// Sign of the dividend; by 0 gives 0.
    Rem,
    Min,
    Max,
    And,
    Xor,
    Shl,
    /// Arithmetic.
    Shr,
}

impl ScalarOp {
    pub const ALL: [ScalarOp; 11] = [
        ScalarOp::Add,
        ScalarOp::Sub,
        ScalarOp::Mul,
        ScalarOp::Div,
        ScalarOp::Rem,
        ScalarOp::Min,
        ScalarOp::Max,
        ScalarOp::And,
        ScalarOp::Xor,
        ScalarOp::Shl,
        ScalarOp::Shr,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            ScalarOp::Add => "add",
            ScalarOp::Sub => "sub",
            ScalarOp::Mul => "mul",
            ScalarOp::Div => "div",
            ScalarOp::Rem => "rem",
            ScalarOp::Min => "min",
            ScalarOp::Max => "max",
            ScalarOp::And => "and",
            ScalarOp::Xor => "xor",
            ScalarOp::Shl => "shl",
            ScalarOp::Shr => "shr",
        }
    }

    /// The result; arithmetic wraps, shifts take the low six bits of `b`.
    pub fn eval(self, a: i64, b: i64) -> i64 {
        match self {
            ScalarOp::Add => a.wrapping_add(b),
            ScalarOp::Sub => a.wrapping_sub(b),
            ScalarOp::Mul => a.wrapping_mul(b),
            ScalarOp::Div => a.checked_div(b).unwrap_or(0),
            ScalarOp::Rem => a.checked_rem(b).unwrap_or(0),
            ScalarOp::Min => a.min(b),
            ScalarOp::Max => a.max(b),
            ScalarOp::And => a & b,
            ScalarOp::Xor => a ^ b,
            // The low six bits: what a 64-bit shift takes.
            ScalarOp::Shl => a.wrapping_shl((b & 63) as u32),
            ScalarOp::Shr => a.wrapping_shr((b & 63) as u32),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarOperand {
    Reg(Reg),
    Imm(i64),
}

/// Memories that the scalar unit reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScalarSpace {
    Gm,
    Ub,
}

impl ScalarSpace {
    pub const ALL: [ScalarSpace; 2] = [ScalarSpace::Gm, ScalarSpace::Ub];

    pub const fn space(self) -> Space {
        match self {
            ScalarSpace::Gm => Space::Gm,
            ScalarSpace::Ub => Space::Ub,
        }
    }
}

impl Inst {
    /// The same instruction of a stream that stands within `loops` more loops.
    pub fn within(mut self, loops: u8) -> Inst {
        match &mut self {
            Inst::Control(Control::Loop { level, .. } | Control::End { level, .. })
            | Inst::Order(
                Order::Set { id: FlagId::Iteration { level, .. }, .. }
                | Order::Wait { id: FlagId::Iteration { level, .. }, .. },
            ) => *level += loops,
            Inst::Work(_) | Inst::Order(_) | Inst::Control(_) | Inst::ScalarLoad(_) => {}
        }
        self
    }

    /// The queue that the instruction runs in; the scalar unit keeps what needs no other.
    pub fn queue(&self) -> Queue {
        match self {
            Inst::Work(work) => work.queue(),
            Inst::Order(order) => order.queue(),
            Inst::Control(_) | Inst::ScalarLoad(_) => Queue::S,
        }
    }
}

impl Work {
    /// The queue that the instruction runs in.
    pub fn queue(&self) -> Queue {
        match self {
            Work::Copy(copy) => copy.path.queue(),
            Work::LoadL0(_) => Queue::Mte1,
            Work::LoadTable(load) => match load.table {
                Table::Bias => Queue::Mte1,
                Table::Scale => Queue::Fix,
            },
            Work::Mmad(_) => Queue::M,
            Work::Fix(_) => Queue::Fix,
            Work::Vec(_) => Queue::V,
        }
    }
}

impl Order {
    /// The queue that the instruction runs in, the scalar unit's for a barrier of all queues.
    pub fn queue(&self) -> Queue {
        match self {
            Order::Set { src, .. } => *src,
            Order::Wait { dst, .. } => *dst,
            Order::XSet { queue, .. } | Order::XWait { queue, .. } => *queue,
            Order::Bar { queue } => queue.unwrap_or(Queue::S),
        }
    }
}
