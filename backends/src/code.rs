//! Machine code as data: functions, their relocations, and the one image they are laid out in.

use thiserror::Error;

/// How a field of a function refers to a symbol. Names are ours; each ISA's `abi.rs` says what the bits look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RelocKind {
    /// 32-bit displacement from the end of the field (x86-64; the addend carries the -4).
    X86Pc32,
    /// 26-bit word displacement of `bl` / `b`.
    Aarch64Call,
    /// 21-bit page displacement of `adrp`.
    Aarch64AdrpPage,
    /// Low 12 bits of the address in `add`.
    Aarch64AddLow12,
    /// `auipc` + `jalr` pair.
    RiscvCall,
    /// High 20 bits of a displacement in `auipc`.
    RiscvPcrelHigh20,
    /// Low 12 bits in the I-type instruction that follows; the target is the offset of its `auipc` in this function.
    RiscvPcrelLow12I,
    /// 64-bit little-endian displacement from the field itself to the target.
    Pc64,
}

/// What a relocation points at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A function or data block of this image, by name.
    Symbol(String),
    /// An offset within the function that holds the relocation.
    Local(u32),
    /// The first byte of the weights section.
    Weights,
}

/// One field to be filled in when addresses are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloc {
    pub offset: u32,
    pub kind: RelocKind,
    pub target: Target,
    pub addend: i64,
}

/// A piece of code or read-only data under one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub bytes: Vec<u8>,
    /// Alignment in bytes, a power of two.
    pub align: u32,
    pub relocs: Vec<Reloc>,
    /// Bytes of stack one activation uses, return address included; 0 for data.
    pub frame_bytes: u32,
    /// Names of the functions it calls (hooks apart): the call graph for the stack bound.
    pub calls: Vec<String>,
    /// Op labels: byte offset where the code of each op begins.
    pub marks: Vec<(u32, String)>,
    /// True for code, false for data.
    pub is_code: bool,
    /// True for the functions of the C API.
    pub is_api: bool,
    /// True for what threads of `parallel_for` enter.
    pub is_task: bool,
}

/// Why code could not be made.
#[derive(Debug, Error)]
pub enum EmitError {
    #[error("no kernel on target '{target}' for {what}")]
    NoKernel { target: String, what: String },
    #[error("code generation failed for '{function}': {reason}")]
    Codegen { function: String, reason: String },
    #[error("'{function}' refers to '{symbol}', which is {problem}")]
    Reloc { function: String, symbol: String, problem: String },
    #[error("the call graph of the generated code is recursive: {cycle}")]
    Recursion { cycle: String },
}
