//! The memories of a run: global memory by symbol, and the buffers of one core.

use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::addr::Space;
use crate::isa::matrix::program::{CoreKind, Program, Stage, Symbol, SymbolId, SymbolKind};

/// Global memory: the bytes of each symbol that has any.
#[derive(Clone, Debug)]
pub struct Gm {
    /// By increasing address.
    segments: Vec<Segment>,
}

#[derive(Clone, Debug)]
struct Segment {
    symbol: SymbolId,
    kind: SymbolKind,
    address: u64,
    len: u64,
    /// Empty where a run for timing alone has no bytes.
    bytes: Vec<u8>,
}

/// A symbol and an offset into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    pub segment: usize,
    pub offset: u64,
}

impl Gm {
    /// All symbols zero, constants filled in: for runs that compute.
    pub fn new(program: &Program) -> Gm {
        Gm::with(program, |_| true)
    }

    /// Inputs and constants only: for runs that count cycles.
    pub fn for_timing(program: &Program) -> Gm {
        Gm::with(program, |kind| match kind {
            SymbolKind::Input | SymbolKind::Constant => true,
            SymbolKind::Weights | SymbolKind::State | SymbolKind::Scratch | SymbolKind::Output => false,
        })
    }

    fn with(program: &Program, has_bytes: fn(SymbolKind) -> bool) -> Gm {
        let segment = |(index, symbol): (usize, &Symbol)| {
            // Programs are verified to have fewer than 65536 symbols.
            let id = SymbolId(index as u16);
            let constant = program.constants.iter().find(|c| c.symbol == id);
            let bytes = match constant {
                Some(constant) => constant.bytes.clone(),
                None if has_bytes(symbol.kind) => vec![0; usize::try_from(symbol.bytes).expect("fits this host")],
                None => vec![],
            };
            Segment { symbol: id, kind: symbol.kind, address: symbol.address, len: symbol.bytes, bytes }
        };
        let mut segments: Vec<Segment> = program.symbols.iter().enumerate().map(segment).collect();
        segments.sort_by_key(|s| s.address);
        Gm { segments }
    }

    /// The bytes of a symbol.
    pub fn bytes(&self, symbol: SymbolId) -> &[u8] {
        self.segments.iter().find(|s| s.symbol == symbol).map_or(&[], |s| &s.bytes)
    }

    /// The bytes of a symbol, to be filled in.
    pub fn bytes_mut(&mut self, symbol: SymbolId) -> &mut [u8] {
        self.segments.iter_mut().find(|s| s.symbol == symbol).map_or(&mut [], |s| &mut s.bytes)
    }

    /// The symbol that holds all `span` bytes from `address`.
    pub(crate) fn locate(&self, address: u64, span: u64) -> Option<Located> {
        let after = self.segments.partition_point(|s| s.address <= address);
        let segment = after.checked_sub(1)?;
        let (offset, len) = (address - self.segments[segment].address, self.segments[segment].len);
        (span <= len && offset <= len - span).then_some(Located { segment, offset })
    }

    pub(crate) fn kind(&self, at: Located) -> SymbolKind {
        self.segments[at.segment].kind
    }

    pub(crate) fn symbol(&self, at: Located) -> SymbolId {
        self.segments[at.segment].symbol
    }

    /// `len` bytes; `None` where the run has no bytes for the symbol.
    pub(crate) fn read(&self, address: u64, len: usize) -> Option<&[u8]> {
        let at = self.locate(address, len as u64)?;
        let start = usize::try_from(at.offset).ok()?;
        self.segments[at.segment].bytes.get(start..start + len)
    }

    pub(crate) fn write(&mut self, address: u64, len: usize) -> Option<&mut [u8]> {
        let at = self.locate(address, len as u64)?;
        let start = usize::try_from(at.offset).ok()?;
        self.segments[at.segment].bytes.get_mut(start..start + len)
    }
}

/// The buffers of one core.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub l1: Vec<u8>,
    pub l0a: Vec<u8>,
    pub l0b: Vec<u8>,
    pub l0c: Vec<u8>,
    pub ub: Vec<u8>,
    pub bt: Vec<u8>,
    pub fb: Vec<u8>,
}

/// Bytes of a core's memory that programs may use; 0 for one that the machine lacks and for global memory.
pub(crate) fn capacity(machine: &Machine, space: Space) -> u64 {
    let b = &machine.buffer;
    let buffer = match space {
        Space::Gm => None,
        Space::L1 => Some(&b.l1),
        Space::L0a => Some(&b.l0a),
        Space::L0b => Some(&b.l0b),
        Space::L0c => Some(&b.l0c),
        Space::Ub => Some(&b.ub),
        Space::Bt => b.bt.as_ref(),
        Space::Fb => b.fb.as_ref(),
    };
    buffer.map_or(0, |b| u64::from(b.usable()))
}

/// The core whose L1 core `core` of a stage has: its own, or that of the cube core which a vector core stands beside.
pub(crate) fn l1_owner(stage: &Stage, machine: &Machine, core: usize) -> Option<usize> {
    let cores = |kind: CoreKind| stage.streams.iter().filter(move |s| s.kind == kind).map(|s| usize::from(s.cores));
    if cores(CoreKind::Vector).sum::<usize>() == 0 {
        return Some(core);
    }
    // Vector cores stand behind the cube cores, those of cube core g at the end of these + g · per.
    let cubes: usize = cores(CoreKind::Cube).sum();
    let per = machine.org.vector_per_cube.map_or(1, |v| v.value as usize).max(1);
    let owner = core.checked_sub(cubes).map_or(core, |vector| vector / per);
    (owner < cubes).then_some(owner)
}

impl Local {
    pub fn new(machine: &Machine) -> Local {
        // At most 64 MiB each, which parsing checks.
        let zeros = |space| vec![0; capacity(machine, space) as usize];
        Local {
            l1: zeros(Space::L1),
            l0a: zeros(Space::L0a),
            l0b: zeros(Space::L0b),
            l0c: zeros(Space::L0c),
            ub: zeros(Space::Ub),
            bt: zeros(Space::Bt),
            fb: zeros(Space::Fb),
        }
    }
}
