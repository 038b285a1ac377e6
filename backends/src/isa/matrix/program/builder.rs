//! Builds programs: symbols get addresses, names become numbers, loops close in order.

use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::addr::{Queue, Reg};
use crate::isa::matrix::program::inst::{Control, Count, FlagId, Inst, Order, ScalarOp, ScalarOperand, Update};
use crate::isa::matrix::program::verify::{self, ProgramError};
use crate::isa::matrix::program::{
    Constant, CoreKind, Program, Record, SYMBOL_ALIGN, Stage, StartValues, Stream, Symbol, SymbolId, SymbolKind,
};

/// A program under construction.
#[derive(Clone, Debug)]
pub struct ProgramBuilder {
    program: Program,
}

impl ProgramBuilder {
    pub fn new(name: &str, machine: &Machine) -> ProgramBuilder {
        let program = Program {
            name: name.to_owned(),
            machine: machine.name.clone(),
            machine_digest: machine.digest(),
            symbols: vec![],
            constants: vec![],
            ops: vec![],
            stages: vec![],
        };
        ProgramBuilder { program }
    }

    /// Reserves `bytes` of global memory behind all other symbols.
    pub fn symbol(&mut self, name: &str, kind: SymbolKind, bytes: u64, layout: &str) -> SymbolId {
        let address = self.program.gm_bytes().next_multiple_of(SYMBOL_ALIGN);
        // More than 65536 symbols are refused by `finish`.
        let id = SymbolId(self.program.symbols.len() as u16);
        let (name, layout) = (name.to_owned(), layout.to_owned());
        self.program.symbols.push(Symbol { name, kind, address, bytes, layout, hash: [0; 32] });
        id
    }

    /// A symbol whose bytes the program carries.
    pub fn constant(&mut self, name: &str, bytes: Vec<u8>, layout: &str) -> SymbolId {
        // Lossless on every host that can hold the bytes.
        let symbol = self.symbol(name, SymbolKind::Constant, bytes.len() as u64, layout);
        self.program.constants.push(Constant { symbol, bytes });
        symbol
    }

    /// Gives the constant `symbol`, which was declared last, other bytes: none that follows would move.
    pub fn set_constant(&mut self, symbol: SymbolId, bytes: Vec<u8>) {
        debug_assert_eq!(usize::from(symbol.0) + 1, self.program.symbols.len(), "symbols behind it would move");
        if let Some(constant) = self.program.constants.iter_mut().find(|constant| constant.symbol == symbol) {
            // Lossless on every host that can hold the bytes.
            self.program.symbols[usize::from(symbol.0)].bytes = bytes.len() as u64;
            constant.bytes = bytes;
        }
    }

    /// States the SHA-256 of a symbol's bytes.
    pub fn set_hash(&mut self, symbol: SymbolId, hash: [u8; 32]) {
        self.program.symbols[usize::from(symbol.0)].hash = hash;
    }

    /// The number of the op called `name`, for the records that do its work.
    pub fn op(&mut self, name: &str) -> u16 {
        let known = self.program.ops.iter().position(|n| n == name);
        let index = known.unwrap_or_else(|| {
            self.program.ops.push(name.to_owned());
            self.program.ops.len() - 1
        });
        // More than 65536 ops are refused by `finish`.
        index as u16
    }

    pub fn stage(&mut self, name: &str, streams: Vec<Stream>) {
        self.program.stages.push(Stage { name: name.to_owned(), streams });
    }

    /// The program, if it obeys the rules of [`verify::program`].
    pub fn finish(self) -> Result<Program, ProgramError> {
        verify::program(&self.program)?;
        Ok(self.program)
    }
}

/// A stream under construction.
#[derive(Clone, Debug)]
pub struct StreamBuilder {
    stream: Stream,
    op: u16,
    depth: u8,
}

impl StreamBuilder {
    pub fn new(kind: CoreKind, cores: u16) -> StreamBuilder {
        StreamBuilder { stream: Stream { kind, cores, start: vec![], records: vec![] }, op: 0, depth: 0 }
    }

    /// Records from here on belong to `op`.
    pub fn begin_op(&mut self, op: u16) {
        self.op = op;
    }

    /// `reg` starts at `values[core]`.
    pub fn start(&mut self, reg: Reg, values: Vec<i64>) {
        self.stream.start.push(StartValues { reg, values });
    }

    pub fn push(&mut self, inst: impl Into<Inst>) {
        self.stream.records.push(Record { inst: inst.into(), op: self.op });
    }

    pub fn set(&mut self, src: Queue, dst: Queue, id: FlagId) {
        self.push(Order::Set { src, dst, id });
    }

    pub fn wait(&mut self, src: Queue, dst: Queue, id: FlagId) {
        self.push(Order::Wait { src, dst, id });
    }

    /// Sets and waits for a flag at once: `dst` continues after everything in `src`.
    pub fn order(&mut self, src: Queue, dst: Queue, id: u8) {
        self.set(src, dst, FlagId::Fixed(id));
        self.wait(src, dst, FlagId::Fixed(id));
    }

    pub fn bar(&mut self, queue: Queue) {
        self.push(Order::Bar { queue: Some(queue) });
    }

    pub fn bar_all(&mut self) {
        self.push(Order::Bar { queue: None });
    }

    /// Opens a loop inside those that are open; its level.
    pub fn begin_loop(&mut self, count: Count) -> u8 {
        let level = self.depth;
        self.depth += 1;
        self.push(Control::Loop { level, count });
        level
    }

    /// Closes the innermost loop after at most four updates of registers.
    pub fn end_loop(&mut self, updates: &[Update]) {
        // The last update slot repeats nothing: more than four are pushed as scalar additions before.
        let (extra, last) = updates.split_at(updates.len().saturating_sub(4));
        for update in extra {
            let (op, reg, step) = match *update {
                Update::Add(reg, step) => (ScalarOp::Add, reg, step),
                Update::Xor(reg, step) => (ScalarOp::Xor, reg, step),
            };
            self.scalar(op, reg, reg, ScalarOperand::Imm(i64::from(step)));
        }
        let mut slots = [None; 4];
        for (slot, update) in slots.iter_mut().zip(last) {
            *slot = Some(*update);
        }
        // An end without a loop is refused by `verify`.
        self.depth = self.depth.wrapping_sub(1);
        self.push(Control::End { level: self.depth, updates: slots });
    }

    /// `reg = address of symbol + offset`.
    pub fn address(&mut self, reg: Reg, symbol: SymbolId, offset: i64) {
        self.push(Control::AddrReg { reg, symbol: Some(symbol), offset });
    }

    /// `reg = value`.
    pub fn immediate(&mut self, reg: Reg, value: i64) {
        self.push(Control::AddrReg { reg, symbol: None, offset: value });
    }

    pub fn scalar(&mut self, op: ScalarOp, reg: Reg, a: Reg, b: ScalarOperand) {
        self.push(Control::Scalar { op, reg, a, b });
    }

    /// The stream, ended by `HALT`.
    pub fn finish(mut self) -> Stream {
        self.push(Control::Halt);
        self.stream
    }
}
