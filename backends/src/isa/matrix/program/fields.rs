//! The fields of each instruction, once for all forms: the binary and the text codec walk the same list, forward or back.
//!
//! A [`Fields`] either stores each value it is shown or replaces it. Small fields share the record's second byte, in order
//! from the low bits; others follow one another in the 28 operand bytes.

use crate::isa::matrix::program::SymbolId;
use crate::isa::matrix::program::addr::{Addr, Queue, Reg};
use crate::isa::matrix::program::inst::{
    Control, Copy, CopyForm, CopyPath, Count, CrossMode, Fix, FixLayout, FixPath, FixScale, FlagId, Inst, LoadL0,
    LoadTable, Mmad, MmadInit, Order, Quant, ScalarLoad, ScalarOp, ScalarOperand, ScalarSpace, Side, Table, UnitFlag,
    Update, Work,
};
use crate::isa::matrix::program::ty::{CubeType, ElemType};
use crate::isa::matrix::program::vec::{Operand, Stride, VEC_OPS, VecOp, Vector};

/// One direction of one codec.
pub(crate) trait Fields {
    type Error;

    /// An index below `names.len()`, which fits `bits`, in the second byte.
    fn small(
        &mut self,
        key: &'static str,
        value: &mut u8,
        names: &[&'static str],
        bits: u32,
    ) -> Result<(), Self::Error>;

    /// An integer of `bytes` bytes, two's complement where `is_signed`.
    fn int(&mut self, key: &'static str, value: &mut i64, bytes: u32, is_signed: bool) -> Result<(), Self::Error>;

    fn addr(&mut self, key: &'static str, value: &mut Addr) -> Result<(), Self::Error>;

    fn reg(&mut self, key: &'static str, value: &mut Reg) -> Result<(), Self::Error>;

    /// Bits of an f32.
    fn float(&mut self, key: &'static str, value: &mut f32) -> Result<(), Self::Error>;

    /// Two element types in one byte.
    fn types(&mut self, key: &'static str, first: &mut ElemType, second: &mut ElemType) -> Result<(), Self::Error>;
}

/// Name of each kind of record and an instruction of that kind to fill in; the code is the position.
pub(crate) const KINDS: &[(&str, Inst)] = &[
    ("copy", Inst::Work(Work::Copy(COPY))),
    ("load_l0", Inst::Work(Work::LoadL0(LOAD))),
    ("load_table", Inst::Work(Work::LoadTable(LoadTable { table: Table::Bias, dst: ZERO, src: ZERO, bytes: 0 }))),
    ("mmad", Inst::Work(Work::Mmad(MMAD))),
    ("fix", Inst::Work(Work::Fix(FIX))),
    ("vec", Inst::Work(Work::Vec(VECTOR))),
    ("set", Inst::Order(Order::Set { src: Queue::S, dst: Queue::S, id: FlagId::Fixed(0) })),
    ("wait", Inst::Order(Order::Wait { src: Queue::S, dst: Queue::S, id: FlagId::Fixed(0) })),
    ("bar", Inst::Order(Order::Bar { queue: None })),
    ("xset", Inst::Order(Order::XSet { queue: Queue::S, mode: CrossMode::All, id: 0 })),
    ("xwait", Inst::Order(Order::XWait { queue: Queue::S, mode: CrossMode::All, id: 0 })),
    ("loop", Inst::Control(Control::Loop { level: 0, count: Count::Fixed(0) })),
    ("end", Inst::Control(Control::End { level: 0, updates: [None; 4] })),
    ("areg", Inst::Control(Control::AddrReg { reg: Reg::ZERO, symbol: None, offset: 0 })),
    (
        "scalar",
        Inst::Control(Control::Scalar { op: ScalarOp::Add, reg: Reg::ZERO, a: Reg::ZERO, b: ScalarOperand::Imm(0) }),
    ),
    ("load", Inst::ScalarLoad(ScalarLoad { reg: Reg::ZERO, space: ScalarSpace::Gm, src: ZERO, ty: ElemType::U32 })),
    ("halt", Inst::Control(Control::Halt)),
];

const ZERO: Addr = Addr::at(0);
const COPY: Copy = Copy {
    path: CopyPath::GmToL1,
    form: CopyForm::Linear,
    dst: ZERO,
    src: ZERO,
    rows: 0,
    row_bytes: 0,
    src_stride: 0,
    dst_stride: 0,
};
const LOAD: LoadL0 = LoadL0 { side: Side::A, dst: ZERO, src: ZERO, rows: 0, cols: 0, src_stride: 0, transpose: false };
const MMAD: Mmad = Mmad {
    ty: CubeType::S8,
    c: ZERO,
    a: ZERO,
    b: ZERO,
    m: 0,
    k: 0,
    n: 0,
    init: MmadInit::Zero,
    unit_flag: UnitFlag::Off,
};
const FIX: Fix = Fix {
    path: FixPath::Gm,
    dst: ZERO,
    src: ZERO,
    m: 0,
    n: 0,
    from: ElemType::S32,
    src_stride: 0,
    dst_stride: 0,
    quant: Quant::Keep,
    scale: FixScale::Tile(0.0),
    relu: false,
    layout: FixLayout::RowMajor,
    unit_flag: UnitFlag::Off,
};
const NO_STRIDE: Stride = Stride { block: 0, repeat: 0 };
const VECTOR: Vector = Vector {
    op: VecOp::Mov,
    dst_ty: ElemType::F32,
    src_ty: ElemType::F32,
    dst: ZERO,
    src0: ZERO,
    src1: Operand::None,
    repeats: 0,
    lanes: 0,
    dst_stride: NO_STRIDE,
    src0_stride: NO_STRIDE,
    src1_stride: NO_STRIDE,
};

/// The code of an instruction's kind.
pub(crate) fn kind(inst: &Inst) -> u8 {
    match inst {
        Inst::Work(Work::Copy(_)) => 0,
        Inst::Work(Work::LoadL0(_)) => 1,
        Inst::Work(Work::LoadTable(_)) => 2,
        Inst::Work(Work::Mmad(_)) => 3,
        Inst::Work(Work::Fix(_)) => 4,
        Inst::Work(Work::Vec(_)) => 5,
        Inst::Order(Order::Set { .. }) => 6,
        Inst::Order(Order::Wait { .. }) => 7,
        Inst::Order(Order::Bar { .. }) => 8,
        Inst::Order(Order::XSet { .. }) => 9,
        Inst::Order(Order::XWait { .. }) => 10,
        Inst::Control(Control::Loop { .. }) => 11,
        Inst::Control(Control::End { .. }) => 12,
        Inst::Control(Control::AddrReg { .. }) => 13,
        Inst::Control(Control::Scalar { .. }) => 14,
        Inst::ScalarLoad(_) => 15,
        Inst::Control(Control::Halt) => 16,
    }
}

/// Shows `f` one value of an enum that is the list `all`.
fn choice<F: Fields, T: std::marker::Copy + PartialEq>(
    f: &mut F,
    key: &'static str,
    value: &mut T,
    (all, names, bits): (&[T], &[&'static str], u32),
) -> Result<(), F::Error> {
    // Lists are shorter than 2^bits, at most 64.
    let mut index = all.iter().position(|v| v == value).unwrap_or(0) as u8;
    f.small(key, &mut index, names, bits)?;
    *value = all[usize::from(index)];
    Ok(())
}

/// Integers of the records' fields.
trait Int: std::marker::Copy + Into<i64> + TryFrom<i64> + Default {
    const BYTES: u32;
    const SIGNED: bool;
}

macro_rules! ints {
    ($($ty:ty: $bytes:literal $signed:literal),*) => {
        $(impl Int for $ty { const BYTES: u32 = $bytes; const SIGNED: bool = $signed; })*
    };
}
ints!(u8: 1 false, u16: 2 false, u32: 4 false, i32: 4 true, i64: 8 true);

fn int<F: Fields, T: Int>(f: &mut F, key: &'static str, value: &mut T) -> Result<(), F::Error> {
    let mut wide: i64 = (*value).into();
    f.int(key, &mut wide, T::BYTES, T::SIGNED)?;
    // A codec gives back values of the field's size.
    *value = T::try_from(wide).unwrap_or_default();
    Ok(())
}

const BOOL: (&[bool], &[&str], u32) = (&[false, true], &["no", "yes"], 1);
const QUEUES: (&[Queue], &[&str], u32) = (&Queue::ALL, &["S", "V", "M", "MTE1", "MTE2", "MTE3", "FIX"], 3);
const UNIT: (&[UnitFlag], &[&str], u32) = (&UnitFlag::ALL, &["off", "keep", "last"], 2);
const MODES: (&[CrossMode], &[&str], u32) = (&CrossMode::ALL, &["all", "pair", "group", "single"], 2);
const SCALAR_OPS: (&[ScalarOp], &[&str], u32) =
    (&ScalarOp::ALL, &["add", "sub", "mul", "div", "rem", "min", "max", "and", "xor", "shl", "shr"], 4);
const ELEMS: (&[ElemType], &[&str], u32) =
    (&ElemType::ALL, &["s4", "s8", "u8", "s16", "u16", "s32", "u32", "f16", "bf16", "f32"], 4);

/// Shows every field of `inst` to `f`, in the order of the format.
pub(crate) fn walk<F: Fields>(inst: &mut Inst, f: &mut F) -> Result<(), F::Error> {
    match inst {
        Inst::Work(Work::Copy(copy)) => walk_copy(copy, f),
        Inst::Work(Work::LoadL0(load)) => {
            choice(f, "side", &mut load.side, (&[Side::A, Side::B], &["a", "b"], 1))?;
            choice(f, "transpose", &mut load.transpose, BOOL)?;
            f.addr("dst", &mut load.dst)?;
            f.addr("src", &mut load.src)?;
            int(f, "rows", &mut load.rows)?;
            int(f, "cols", &mut load.cols)?;
            int(f, "src_stride", &mut load.src_stride)
        }
        Inst::Work(Work::LoadTable(load)) => {
            choice(f, "table", &mut load.table, (&[Table::Bias, Table::Scale], &["bias", "scale"], 1))?;
            f.addr("dst", &mut load.dst)?;
            f.addr("src", &mut load.src)?;
            int(f, "bytes", &mut load.bytes)
        }
        Inst::Work(Work::Mmad(mmad)) => walk_mmad(mmad, f),
        Inst::Work(Work::Fix(fix)) => walk_fix(fix, f),
        Inst::Work(Work::Vec(vector)) => walk_vector(vector, f),
        Inst::Order(Order::Set { src, dst, id } | Order::Wait { src, dst, id }) => {
            choice(f, "src", src, QUEUES)?;
            choice(f, "dst", dst, QUEUES)?;
            walk_flag(id, f)
        }
        Inst::Order(Order::Bar { queue }) => {
            let mut has_queue = queue.is_some();
            choice(f, "one", &mut has_queue, BOOL)?;
            let mut one = queue.unwrap_or(Queue::S);
            if has_queue {
                choice(f, "queue", &mut one, QUEUES)?;
            }
            *queue = has_queue.then_some(one);
            Ok(())
        }
        Inst::Order(Order::XSet { queue, mode, id } | Order::XWait { queue, mode, id }) => {
            choice(f, "queue", queue, QUEUES)?;
            choice(f, "mode", mode, MODES)?;
            int(f, "id", id)
        }
        Inst::Control(Control::Loop { level, count }) => walk_loop(level, count, f),
        Inst::Control(Control::End { level, updates }) => {
            int(f, "level", level)?;
            updates.iter_mut().try_for_each(|u| walk_update(u, f))
        }
        Inst::Control(Control::AddrReg { reg, symbol, offset }) => {
            let mut has_symbol = symbol.is_some();
            choice(f, "at_symbol", &mut has_symbol, BOOL)?;
            f.reg("reg", reg)?;
            let mut id = symbol.map_or(0, |s| s.0);
            if has_symbol {
                int(f, "symbol", &mut id)?;
            }
            *symbol = has_symbol.then_some(SymbolId(id));
            int(f, "offset", offset)
        }
        Inst::Control(Control::Scalar { op, reg, a, b }) => walk_scalar(op, [reg, a], b, f),
        Inst::ScalarLoad(ScalarLoad { reg, space, src, ty }) => {
            choice(f, "space", space, (&ScalarSpace::ALL, &["gm", "ub"], 1))?;
            choice(f, "ty", ty, ELEMS)?;
            f.reg("reg", reg)?;
            f.addr("src", src)
        }
        Inst::Control(Control::Halt) => Ok(()),
    }
}

fn walk_copy<F: Fields>(copy: &mut Copy, f: &mut F) -> Result<(), F::Error> {
    choice(f, "path", &mut copy.path, (&CopyPath::ALL, &["gm_l1", "gm_ub", "ub_gm", "ub_l1"], 2))?;
    choice(f, "form", &mut copy.form, (&CopyForm::ALL, &["linear", "nz"], 1))?;
    f.addr("dst", &mut copy.dst)?;
    f.addr("src", &mut copy.src)?;
    int(f, "rows", &mut copy.rows)?;
    int(f, "row_bytes", &mut copy.row_bytes)?;
    int(f, "src_stride", &mut copy.src_stride)?;
    int(f, "dst_stride", &mut copy.dst_stride)
}

fn walk_mmad<F: Fields>(mmad: &mut Mmad, f: &mut F) -> Result<(), F::Error> {
    let types = ["s4", "s8", "f16", "f16half", "bf16", "f32"];
    choice(f, "ty", &mut mmad.ty, (&CubeType::ALL, &types, 3))?;
    choice(f, "unit", &mut mmad.unit_flag, UNIT)?;
    let (mut init, mut bias) = match mmad.init {
        MmadInit::Zero => (0, Addr::at(0)),
        MmadInit::Accumulate => (1, Addr::at(0)),
        MmadInit::Bias(bias) => (2, bias),
    };
    f.small("init", &mut init, &["zero", "accumulate", "bias"], 2)?;
    f.addr("c", &mut mmad.c)?;
    f.addr("a", &mut mmad.a)?;
    f.addr("b", &mut mmad.b)?;
    int(f, "m", &mut mmad.m)?;
    int(f, "k", &mut mmad.k)?;
    int(f, "n", &mut mmad.n)?;
    if init == 2 {
        f.addr("bias", &mut bias)?;
    }
    mmad.init = [MmadInit::Zero, MmadInit::Accumulate, MmadInit::Bias(bias)][usize::from(init)];
    Ok(())
}

fn walk_fix<F: Fields>(fix: &mut Fix, f: &mut F) -> Result<(), F::Error> {
    choice(f, "path", &mut fix.path, (&FixPath::ALL, &["gm", "l1", "ub", "ub1"], 2))?;
    choice(f, "layout", &mut fix.layout, (&FixLayout::ALL, &["rows", "nz"], 1))?;
    choice(f, "relu", &mut fix.relu, BOOL)?;
    choice(f, "unit", &mut fix.unit_flag, UNIT)?;
    let (mut per_column, mut scale, mut table) = match fix.scale {
        FixScale::Tile(scale) => (false, scale, Addr::at(0)),
        FixScale::Columns(table) => (true, 0.0, table),
    };
    choice(f, "per_column", &mut per_column, BOOL)?;
    f.addr("dst", &mut fix.dst)?;
    f.addr("src", &mut fix.src)?;
    int(f, "m", &mut fix.m)?;
    int(f, "n", &mut fix.n)?;
    int(f, "src_stride", &mut fix.src_stride)?;
    int(f, "dst_stride", &mut fix.dst_stride)?;
    if per_column {
        f.addr("scales", &mut table)?;
    } else {
        f.float("scale", &mut scale)?;
    }
    fix.scale = if per_column { FixScale::Columns(table) } else { FixScale::Tile(scale) };
    let mut quant = fix.quant as u8;
    wide_choice(f, "quant", &mut quant, Quant::ALL.len())?;
    fix.quant = Quant::ALL[usize::from(quant)];
    let mut unused = ElemType::S4;
    f.types("from", &mut fix.from, &mut unused)
}

/// An index below `len` in a byte of its own; one that is too large becomes 0, which re-encoding then refuses.
fn wide_choice<F: Fields>(f: &mut F, key: &'static str, value: &mut u8, len: usize) -> Result<(), F::Error> {
    int(f, key, value)?;
    if usize::from(*value) >= len {
        *value = 0;
    }
    Ok(())
}

fn walk_vector<F: Fields>(vector: &mut Vector, f: &mut F) -> Result<(), F::Error> {
    let ops: Vec<VecOp> = VEC_OPS.iter().map(|row| row.op).collect();
    let names: Vec<&'static str> = VEC_OPS.iter().map(|row| row.name).collect();
    choice(f, "do", &mut vector.op, (&ops, &names, 6))?;
    let (mut kind, mut second, mut bits, mut reg) = match vector.src1 {
        Operand::None => (0, Addr::at(0), 0, Reg::ZERO),
        Operand::Vector(addr) => (1, addr, 0, Reg::ZERO),
        Operand::Scalar(bits) => (2, Addr::at(0), bits, Reg::ZERO),
        Operand::Reg(reg) => (3, Addr::at(0), 0, reg),
    };
    f.small("second", &mut kind, &["none", "vector", "scalar", "reg"], 2)?;
    f.types("ty", &mut vector.dst_ty, &mut vector.src_ty)?;
    f.addr("dst", &mut vector.dst)?;
    f.addr("src0", &mut vector.src0)?;
    match kind {
        1 => f.addr("src1", &mut second)?,
        2 => int(f, "bits", &mut bits)?,
        3 => f.reg("scalar", &mut reg)?,
        _ => {}
    }
    let operands = [Operand::None, Operand::Vector(second), Operand::Scalar(bits), Operand::Reg(reg)];
    vector.src1 = operands[usize::from(kind)];
    int(f, "repeats", &mut vector.repeats)?;
    int(f, "lanes", &mut vector.lanes)?;
    int(f, "dst_block", &mut vector.dst_stride.block)?;
    int(f, "dst_repeat", &mut vector.dst_stride.repeat)?;
    int(f, "src0_block", &mut vector.src0_stride.block)?;
    int(f, "src0_repeat", &mut vector.src0_stride.repeat)?;
    int(f, "src1_block", &mut vector.src1_stride.block)?;
    int(f, "src1_repeat", &mut vector.src1_stride.repeat)
}

fn walk_flag<F: Fields>(id: &mut FlagId, f: &mut F) -> Result<(), F::Error> {
    let (mut kind, mut base, mut level, mut modulo, mut reg) = match *id {
        FlagId::Fixed(base) => (0, base, 0, 2, Reg::ZERO),
        FlagId::Iteration { base, level, modulo } => (1, base, level, modulo, Reg::ZERO),
        FlagId::Reg { base, reg } => (2, base, 0, 2, reg),
    };
    f.small("by", &mut kind, &["id", "iteration", "reg"], 2)?;
    int(f, "id", &mut base)?;
    match kind {
        1 => {
            int(f, "level", &mut level)?;
            int(f, "modulo", &mut modulo)?;
        }
        2 => f.reg("reg", &mut reg)?,
        _ => {}
    }
    *id =
        [FlagId::Fixed(base), FlagId::Iteration { base, level, modulo }, FlagId::Reg { base, reg }][usize::from(kind)];
    Ok(())
}

fn walk_loop<F: Fields>(level: &mut u8, count: &mut Count, f: &mut F) -> Result<(), F::Error> {
    let (mut is_reg, mut fixed, mut reg) = match *count {
        Count::Fixed(count) => (false, count, Reg::ZERO),
        Count::Reg(reg) => (true, 0, reg),
    };
    choice(f, "by_reg", &mut is_reg, BOOL)?;
    int(f, "level", level)?;
    if is_reg {
        f.reg("count", &mut reg)?;
    } else {
        int(f, "count", &mut fixed)?;
    }
    *count = if is_reg { Count::Reg(reg) } else { Count::Fixed(fixed) };
    Ok(())
}

fn walk_update<F: Fields>(update: &mut Option<Update>, f: &mut F) -> Result<(), F::Error> {
    let (mut kind, mut reg, mut step) = match *update {
        None => (0, Reg::ZERO, 0),
        Some(Update::Add(reg, step)) => (1, reg, step),
        Some(Update::Xor(reg, step)) => (2, reg, step),
    };
    f.small("update", &mut kind, &["none", "add", "xor"], 2)?;
    if kind > 0 {
        f.reg("reg", &mut reg)?;
        int(f, "step", &mut step)?;
    }
    *update = [None, Some(Update::Add(reg, step)), Some(Update::Xor(reg, step))][usize::from(kind)];
    Ok(())
}

fn walk_scalar<F: Fields>(
    op: &mut ScalarOp,
    [reg, a]: [&mut Reg; 2],
    b: &mut ScalarOperand,
    f: &mut F,
) -> Result<(), F::Error> {
    choice(f, "do", op, SCALAR_OPS)?;
    let (mut is_reg, mut b_reg, mut value) = match *b {
        ScalarOperand::Reg(reg) => (true, reg, 0),
        ScalarOperand::Imm(value) => (false, Reg::ZERO, value),
    };
    choice(f, "by_reg", &mut is_reg, BOOL)?;
    f.reg("reg", reg)?;
    f.reg("a", a)?;
    if is_reg {
        f.reg("b", &mut b_reg)?;
    } else {
        int(f, "b", &mut value)?;
    }
    *b = if is_reg { ScalarOperand::Reg(b_reg) } else { ScalarOperand::Imm(value) };
    Ok(())
}
