//! Programs of the matrix unit: instruction streams, symbols, constants and start values; what `.dvp` files hold.
//!
//! The format is ours and described in `docs/matrix.md`; it is not the vendor's binary.

pub mod addr;
pub mod builder;
pub mod codec;
mod fields;
pub mod inst;
pub mod text;
pub mod ty;
pub mod vec;
pub mod vec_lane;
pub mod verify;

use crate::isa::matrix::program::addr::Reg;
use crate::isa::matrix::program::inst::Inst;

/// Bytes that every symbol's address in global memory is a multiple of.
pub const SYMBOL_ALIGN: u64 = 512;

/// Index of a symbol in [`Program::symbols`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SymbolId(pub u16);

/// What a symbol's bytes are and who writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SymbolKind {
    /// Written by the host before each run, read only here.
    Input,
    /// Packed weights, read only; the bytes lie beside the program.
    Weights,
    /// Read only bytes that the program carries ([`Program::constants`]).
    Constant,
    /// Kept from run to run: key-value caches.
    State,
    /// Undefined at the start of a run.
    Scratch,
    /// Read by the host after each run, undefined at the start.
    Output,
}

impl SymbolKind {
    /// Every kind, in the order of the encoding.
    pub const ALL: [SymbolKind; 6] = [
        SymbolKind::Input,
        SymbolKind::Weights,
        SymbolKind::Constant,
        SymbolKind::State,
        SymbolKind::Scratch,
        SymbolKind::Output,
    ];

    pub fn name(self) -> &'static str {
        match self {
            SymbolKind::Input => "input",
            SymbolKind::Weights => "weights",
            SymbolKind::Constant => "constant",
            SymbolKind::State => "state",
            SymbolKind::Scratch => "scratch",
            SymbolKind::Output => "output",
        }
    }

    /// True if the program may write the symbol's bytes.
    pub fn is_writable(self) -> bool {
        match self {
            SymbolKind::Input | SymbolKind::Weights | SymbolKind::Constant => false,
            SymbolKind::State | SymbolKind::Scratch | SymbolKind::Output => true,
        }
    }
}

/// A range of global memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    pub name: String,
    pub kind: SymbolKind,
    /// Address in global memory, a multiple of [`SYMBOL_ALIGN`].
    pub address: u64,
    pub bytes: u64,
    /// Name of the layout of the bytes (`w2nz8`, `f32`), free text for the reader.
    pub layout: String,
    /// SHA-256 of the bytes of weights; zero where there is none.
    pub hash: [u8; 32],
}

/// Which cores run a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CoreKind {
    /// Cube, vector and all pipes in one core.
    Coupled,
    /// The cube core of a split machine: no V, no UB.
    Cube,
    /// The vector core of a split machine: V, UB, MTE2 and MTE3 only.
    Vector,
}

impl CoreKind {
    pub const ALL: [CoreKind; 3] = [CoreKind::Coupled, CoreKind::Cube, CoreKind::Vector];

    pub fn name(self) -> &'static str {
        match self {
            CoreKind::Coupled => "coupled",
            CoreKind::Cube => "cube",
            CoreKind::Vector => "vector",
        }
    }
}

/// One record: an instruction and the op it belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    pub inst: Inst,
    /// Index into [`Program::ops`]: whose work this is.
    pub op: u16,
}

/// A register's value on each core when a stream starts; registers without one start at 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartValues {
    pub reg: Reg,
    /// One value per core of the stream, in core order.
    pub values: Vec<i64>,
}

/// The instructions that all cores of one kind run, each from the first record to its `HALT`.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    pub kind: CoreKind,
    /// Cores that run it, at most the machine's.
    pub cores: u16,
    pub start: Vec<StartValues>,
    pub records: Vec<Record>,
}

/// Streams that run side by side, after everything of the stage before has ended.
///
/// A stage is what the host launches: it costs the launch time, its end orders all memory, and it starts with all flags
/// clear and all local buffers undefined.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    pub name: String,
    /// One stream, or one of the cube cores and one of the vector cores.
    pub streams: Vec<Stream>,
}

/// One program: what a machine does for one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    pub name: String,
    /// Name of the machine description it was made for.
    pub machine: String,
    /// SHA-256 of that description's canonical form.
    pub machine_digest: [u8; 32],
    pub symbols: Vec<Symbol>,
    /// Bytes of the symbols of kind `Constant`.
    pub constants: Vec<Constant>,
    /// Names of the ops that records belong to.
    pub ops: Vec<String>,
    pub stages: Vec<Stage>,
}

/// The bytes of a constant symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constant {
    pub symbol: SymbolId,
    pub bytes: Vec<u8>,
}

impl Program {
    pub fn symbol(&self, id: SymbolId) -> &Symbol {
        &self.symbols[usize::from(id.0)]
    }

    /// The symbol called `name`.
    pub fn find_symbol(&self, name: &str) -> Option<SymbolId> {
        let index = self.symbols.iter().position(|s| s.name == name)?;
        u16::try_from(index).ok().map(SymbolId)
    }

    /// Bytes of global memory that the symbols span.
    pub fn gm_bytes(&self) -> u64 {
        self.symbols.iter().map(|s| s.address + s.bytes).max().unwrap_or(0)
    }
}
