//! What holds for every program, whatever the machine: numbers in range, loops nested, symbols apart, types known.
//!
//! What depends on a machine or on values at run time is the business of the simulator's checker.

use thiserror::Error;

use crate::isa::matrix::program::addr::{Addr, Queue, Reg};
use crate::isa::matrix::program::inst::{
    Control, Copy, Fix, FixScale, FlagId, Inst, LOOP_LEVELS, LoadL0, LoadTable, Mmad, MmadInit, Order, ScalarLoad,
    ScalarOperand, Update, Work,
};
use crate::isa::matrix::program::vec::{MAX_REPEATS, Operand, VecForm, Vector};
use crate::isa::matrix::program::{CoreKind, Program, SYMBOL_ALIGN, Stage, Stream, Symbol};

/// Flags between two queues: ids below this.
pub const FLAG_IDS: u8 = 8;
/// Signals between cores: ids below this.
pub const CROSS_IDS: u8 = 11;
/// Global memory a program may span.
const GM_LIMIT: u64 = 1 << 40;

/// A program that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProgramError {
    #[error("stage '{stage}', {kind} stream, record {record}: {what}")]
    Record { stage: String, kind: &'static str, record: usize, what: &'static str },
    #[error("stage '{stage}': {what}")]
    Stage { stage: String, what: &'static str },
    #[error("symbol '{symbol}': {what}")]
    Symbol { symbol: String, what: &'static str },
    #[error("{what}: {count}, at most {limit}")]
    Count { what: &'static str, count: usize, limit: usize },
}

/// Checks every rule.
pub fn program(program: &Program) -> Result<(), ProgramError> {
    count("symbols", program.symbols.len(), usize::from(u16::MAX))?;
    count("ops", program.ops.len(), usize::from(u16::MAX))?;
    count("stages", program.stages.len(), usize::from(u16::MAX))?;
    symbols(program)?;
    program.stages.iter().try_for_each(|s| stage(program, s))
}

fn count(what: &'static str, count: usize, limit: usize) -> Result<(), ProgramError> {
    if count <= limit { Ok(()) } else { Err(ProgramError::Count { what, count, limit }) }
}

fn symbols(program: &Program) -> Result<(), ProgramError> {
    let refuse = |symbol: &Symbol, what| Err(ProgramError::Symbol { symbol: symbol.name.clone(), what });
    let mut by_address: Vec<&Symbol> = program.symbols.iter().collect();
    by_address.sort_by_key(|s| (s.address, s.bytes));
    let mut end = 0;
    for symbol in by_address {
        if symbol.address > GM_LIMIT || symbol.bytes > GM_LIMIT {
            return refuse(symbol, "lies beyond 2^40 bytes");
        }
        if !symbol.address.is_multiple_of(SYMBOL_ALIGN) {
            return refuse(symbol, "its address is no multiple of 512");
        }
        if symbol.address < end {
            return refuse(symbol, "overlaps the symbol before it");
        }
        end = symbol.address + symbol.bytes;
    }
    for constant in &program.constants {
        let Some(symbol) = program.symbols.get(usize::from(constant.symbol.0)) else {
            return Err(ProgramError::Symbol { symbol: "of a constant".into(), what: "does not exist" });
        };
        // Lossless: sizes fit 64 bits.
        if constant.bytes.len() as u64 != symbol.bytes {
            return refuse(symbol, "the constant has another size");
        }
    }
    Ok(())
}

fn stage(program: &Program, stage: &Stage) -> Result<(), ProgramError> {
    let refuse = |what| Err(ProgramError::Stage { stage: stage.name.clone(), what });
    let kinds: Vec<CoreKind> = stage.streams.iter().map(|s| s.kind).collect();
    match kinds[..] {
        [_] | [CoreKind::Cube, CoreKind::Vector] => {}
        _ => return refuse("has neither one stream nor one of cube and one of vector cores"),
    }
    for stream in &stage.streams {
        if stream.cores == 0 {
            return refuse("a stream has no cores");
        }
        for start in &stream.start {
            if start.values.len() != usize::from(stream.cores) || start.reg == Reg::ZERO {
                return refuse("start values need one value per core, of a register other than r0");
            }
        }
        let at = |record, what| {
            Err(ProgramError::Record { stage: stage.name.clone(), kind: stream.kind.name(), record, what })
        };
        for (index, record) in stream.records.iter().enumerate() {
            if !program.ops.is_empty() && usize::from(record.op) >= program.ops.len() {
                return at(index, "belongs to an op that does not exist");
            }
            if let Err(what) = inst(program, &record.inst).and_then(|()| owner(stream.kind, &record.inst)) {
                return at(index, what);
            }
        }
        if let Err((index, what)) = loops(stream) {
            return at(index, what);
        }
    }
    Ok(())
}

/// Loops of level l lie directly inside those of level l - 1; the last record halts, no other does.
fn loops(stream: &Stream) -> Result<(), (usize, &'static str)> {
    let mut open = 0u8;
    for (index, record) in stream.records.iter().enumerate() {
        match record.inst {
            Inst::Control(Control::Loop { level, .. }) if level == open && level < LOOP_LEVELS => open += 1,
            Inst::Control(Control::Loop { .. }) => return Err((index, "loop levels count from 0 inward, up to 7")),
            Inst::Control(Control::End { level, .. }) if open > 0 && level == open - 1 => open -= 1,
            Inst::Control(Control::End { .. }) => return Err((index, "the innermost open loop has another level")),
            Inst::Control(Control::Halt) if open > 0 || index + 1 != stream.records.len() => {
                return Err((index, "a halt stands at the end of its stream, outside loops"));
            }
            Inst::Work(_)
            | Inst::Order(_)
            | Inst::Control(Control::Halt | Control::AddrReg { .. } | Control::Scalar { .. })
            | Inst::ScalarLoad(_) => {}
        }
    }
    match stream.records.last().map(|r| r.inst) {
        Some(Inst::Control(Control::Halt)) => Ok(()),
        Some(_) | None => Err((stream.records.len(), "the stream does not end with a halt")),
    }
}

/// Cube cores have no vector unit, vector cores no cube.
fn owner(kind: CoreKind, inst: &Inst) -> Result<(), &'static str> {
    let has = |queue: Queue| match kind {
        CoreKind::Coupled => true,
        CoreKind::Cube => matches!(queue, Queue::S | Queue::M | Queue::Mte1 | Queue::Mte2 | Queue::Fix),
        CoreKind::Vector => matches!(queue, Queue::S | Queue::V | Queue::Mte2 | Queue::Mte3),
    };
    let flag_ends = match inst {
        Inst::Order(Order::Set { src, dst, .. } | Order::Wait { src, dst, .. }) => has(*src) && has(*dst),
        Inst::Work(_)
        | Inst::Order(Order::Bar { .. } | Order::XSet { .. } | Order::XWait { .. })
        | Inst::Control(_)
        | Inst::ScalarLoad(_) => true,
    };
    if has(inst.queue()) && flag_ends { Ok(()) } else { Err("the core has no such queue") }
}

fn ensure(holds: bool, what: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(what) }
}

fn addr(addr: Addr) -> Result<(), &'static str> {
    ensure((Addr::MIN..=Addr::MAX).contains(&addr.offset), "an offset needs more than 27 bits")
}

fn written(reg: Reg) -> Result<(), &'static str> {
    ensure(reg != Reg::ZERO, "r0 is always 0 and cannot be written")
}

/// The rules of one instruction, whatever stands around it.
pub fn inst(program: &Program, inst: &Inst) -> Result<(), &'static str> {
    match inst {
        Inst::Work(Work::Copy(copy)) => copy_rules(copy),
        Inst::Work(Work::LoadL0(load)) => load_rules(load),
        Inst::Work(Work::LoadTable(LoadTable { dst, src, bytes, .. })) => {
            addr(*dst)?;
            addr(*src)?;
            ensure(*bytes > 0, "a table load has no bytes")
        }
        Inst::Work(Work::Mmad(mmad)) => mmad_rules(mmad),
        Inst::Work(Work::Fix(fix)) => fix_rules(fix),
        Inst::Work(Work::Vec(vector)) => vector_rules(vector),
        Inst::Order(Order::Set { src, dst, id } | Order::Wait { src, dst, id }) => {
            ensure(src != dst, "a flag joins two queues")?;
            flag(*id)
        }
        Inst::Order(Order::Bar { .. }) | Inst::Control(Control::Halt) => Ok(()),
        Inst::Order(Order::XSet { id, .. } | Order::XWait { id, .. }) => {
            ensure(*id < CROSS_IDS, "cross-core ids are 0..=10")
        }
        Inst::Control(Control::Loop { level, .. }) => ensure(*level < LOOP_LEVELS, "loop levels are 0..=7"),
        Inst::Control(Control::End { level, updates }) => {
            ensure(*level < LOOP_LEVELS, "loop levels are 0..=7")?;
            updates.iter().flatten().try_for_each(|u| match u {
                Update::Add(reg, _) | Update::Xor(reg, _) => written(*reg),
            })
        }
        Inst::Control(Control::AddrReg { reg, symbol, .. }) => {
            written(*reg)?;
            let exists = symbol.is_none_or(|s| usize::from(s.0) < program.symbols.len());
            ensure(exists, "the symbol does not exist")
        }
        Inst::Control(Control::Scalar { reg, b, .. }) => {
            written(*reg)?;
            match b {
                ScalarOperand::Reg(_) | ScalarOperand::Imm(_) => Ok(()),
            }
        }
        Inst::ScalarLoad(ScalarLoad { reg, src, ty, .. }) => {
            written(*reg)?;
            addr(*src)?;
            ensure(ty.bits() >= 8, "the scalar unit loads whole bytes")
        }
    }
}

fn flag(id: FlagId) -> Result<(), &'static str> {
    match id {
        FlagId::Fixed(id) => ensure(id < FLAG_IDS, "flag ids are 0..=7"),
        FlagId::Iteration { base, level, modulo } => {
            ensure(level < LOOP_LEVELS, "loop levels are 0..=7")?;
            ensure((2..=4).contains(&modulo) && base + modulo <= FLAG_IDS, "flag ids are 0..=7, modulo 2..=4")
        }
        FlagId::Reg { base, .. } => ensure(base < FLAG_IDS, "flag ids are 0..=7"),
    }
}

fn copy_rules(copy: &Copy) -> Result<(), &'static str> {
    addr(copy.dst)?;
    addr(copy.src)?;
    ensure(copy.rows > 0 && copy.row_bytes > 0, "a copy has no bytes")
}

fn load_rules(load: &LoadL0) -> Result<(), &'static str> {
    addr(load.dst)?;
    addr(load.src)?;
    ensure(load.rows > 0 && load.cols > 0, "a load has no fractals")
}

fn mmad_rules(mmad: &Mmad) -> Result<(), &'static str> {
    for operand in [mmad.a, mmad.b, mmad.c] {
        addr(operand)?;
    }
    if let MmadInit::Bias(bias) = mmad.init {
        addr(bias)?;
    }
    let in_range = |x: u16| (1..=4095).contains(&x);
    ensure(in_range(mmad.m) && in_range(mmad.k) && in_range(mmad.n), "m, k and n are 1..=4095")
}

fn fix_rules(fix: &Fix) -> Result<(), &'static str> {
    addr(fix.dst)?;
    addr(fix.src)?;
    if let FixScale::Columns(table) = fix.scale {
        addr(table)?;
    }
    ensure(fix.m > 0 && fix.n > 0, "a fix has no elements")?;
    ensure(fix.from.bits() >= 16, "L0C holds s32, f32 or f16")
}

fn vector_rules(vector: &Vector) -> Result<(), &'static str> {
    let row = vector.op.row();
    addr(vector.dst)?;
    addr(vector.src0)?;
    ensure(row.takes(vector.dst_ty, vector.src_ty), "the operation does not take these types")?;
    let lanes = Vector::lanes_of(vector.dst_ty, vector.src_ty);
    ensure((1..=lanes).contains(&u32::from(vector.lanes)), "lanes out of range")?;
    ensure((1..=MAX_REPEATS).contains(&vector.repeats), "a vector instruction has 1 to 255 repeats")?;
    let strides = [vector.dst_stride, vector.src0_stride, vector.src1_stride];
    ensure(strides.iter().all(|s| s.repeat <= MAX_REPEATS), "repeats are at most 255 blocks apart")?;
    // Those of one operand have room for more.
    let two = matches!(row.form, VecForm::Binary | VecForm::Ternary | VecForm::Compare | VecForm::Select);
    ensure(!two || strides.iter().all(|s| s.block <= MAX_REPEATS), "blocks of two operands are at most 255 apart")?;
    let needs_second = match row.form {
        VecForm::Unary | VecForm::BlockFill | VecForm::BlockReduce => false,
        VecForm::Binary | VecForm::Ternary | VecForm::Fill | VecForm::Compare | VecForm::Select | VecForm::Gather => {
            true
        }
    };
    match vector.src1 {
        Operand::None => ensure(!needs_second, "the operation needs a second operand"),
        Operand::Vector(second) => {
            ensure(needs_second && row.vector, "the operation takes no second vector")?;
            addr(second)
        }
        Operand::Scalar(_) | Operand::Reg(_) => ensure(needs_second && row.scalar, "the operation takes no scalar"),
    }
}
