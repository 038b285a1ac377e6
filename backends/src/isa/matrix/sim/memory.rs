//! The memories of a run: global memory by symbol, and the buffers of one core.

use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::addr::Space;
use crate::isa::matrix::program::inst::{FixPath, Work};
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

/// Whose memories the cores of a stage reach.
///
/// Cube cores come first; the vector cores of cube core g begin at the end of these + g · per.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    cubes: usize,
    vectors: usize,
    /// Vector cores beside a cube core.
    per: usize,
}

impl Reach {
    pub fn new(stage: &Stage, machine: &Machine) -> Reach {
        let cores =
            |kind: CoreKind| stage.streams.iter().filter(|s| s.kind == kind).map(|s| usize::from(s.cores)).sum();
        let per = machine.org.vector_per_cube.map_or(1, |v| v.value as usize).max(1);
        Reach { cubes: cores(CoreKind::Cube), vectors: cores(CoreKind::Vector), per }
    }

    /// The core whose `space` core `core` works on with `work`: mostly its own. Vector cores write to the L1 of their
    /// cube core, which writes to the UB of its vector cores. `None` if that one does not run.
    pub fn owner(&self, core: usize, space: Space, work: &Work) -> Option<usize> {
        let vector = core.checked_sub(self.cubes).filter(|_| self.vectors > 0);
        match (space, work) {
            (Space::L1, _) => {
                vector.map_or(Some(core), |vector| Some(vector / self.per).filter(|cube| *cube < self.cubes))
            }
            (Space::Ub, Work::Fix(fix)) => {
                let sub = usize::from(fix.path == FixPath::Ub1);
                let is_cube = core < self.cubes;
                let beside = (self.per * core + sub).min(self.vectors);
                let beside = Some(self.cubes + beside).filter(|_| sub < self.per && beside < self.vectors);
                if is_cube { beside } else { Some(core).filter(|_| sub == 0) }
            }
            (Space::Gm | Space::L0a | Space::L0b | Space::L0c | Space::Ub | Space::Bt | Space::Fb, _) => Some(core),
        }
    }
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
