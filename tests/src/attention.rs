//! Programs of one attention on a matrix unit.

use tcc_backends::isa::matrix::lower::attention::{Attention, Shared, attention, scratch_bytes};
use tcc_backends::isa::matrix::lower::cores::CoreTable;
use tcc_backends::isa::matrix::lower::emit::Emit;
use tcc_backends::isa::matrix::lower::stage::{self, Step};
use tcc_backends::isa::matrix::lower::vector::{Place, Tables};
use tcc_backends::isa::matrix::machine::{Machine, OrganisationKind};
use tcc_backends::isa::matrix::program::builder::ProgramBuilder;
use tcc_backends::isa::matrix::program::{CoreKind, Program, Stream, SymbolKind};

/// A program, and where its operands lie: queries, keys, values, result, position.
pub struct AttentionProgram {
    pub program: Program,
    pub q: Place,
    pub k: Place,
    pub v: Place,
    pub out: Place,
    pub pos: Place,
}

/// The program of `a` on `machine`, as a stage of its own.
pub fn program(machine: &Machine, a: &Attention) -> Result<AttentionProgram, String> {
    let mut builder = ProgramBuilder::new("attention", machine);
    let rows = 4 * a.m * a.heads * a.cache.d;
    // Whole units of positions are read.
    let cache = a.cache.bytes() + 4 * 64 * a.cache.row_bytes();
    let mut place = |name, kind, bytes: usize| (builder.symbol(name, kind, bytes as u64, "bytes"), 0);
    let [q, k, v] = [("q", rows), ("k", cache), ("v", cache)].map(|(name, n)| place(name, SymbolKind::State, n));
    let out = place("out", SymbolKind::Output, rows);
    let pos = place("pos", SymbolKind::Input, 64);
    let scratch = place("scratch", SymbolKind::Scratch, scratch_bytes(machine, a));
    let tables = Tables::new(|name, bytes, ty| builder.constant(name, bytes, ty));
    let mut e = Emit::default();
    e.op = builder.op("attention");
    let shared = attention(&mut e, machine, a, [q, k, v, out, pos, scratch], &tables).map_err(|e| e.to_string())?;
    let kind = match machine.org.kind {
        OrganisationKind::Coupled => CoreKind::Coupled,
        OrganisationKind::Split => CoreKind::Vector,
    };
    let streams = match shared {
        Shared::Cores((cores, start)) => vec![e.stream(kind, cores, start)],
        Shared::Groups(both) => both.into(),
        Shared::Steps(steps) => joined(&mut builder, steps)?,
    };
    builder.stage("attention", streams);
    let program = builder.finish().map_err(|e| e.to_string())?;
    Ok(AttentionProgram { program, q, k, v, out, pos })
}

/// Steps as one stage, between which cores meet.
fn joined(builder: &mut ProgramBuilder, steps: Vec<Vec<Stream>>) -> Result<Vec<Stream>, String> {
    let (op, symbol) = (builder.op("attention"), builder.constant("cores", vec![], "u32"));
    let steps: Vec<Step> =
        steps.into_iter().map(|streams| Step { label: "attention".to_owned(), op, streams }).collect();
    let mut table = CoreTable::default();
    let streams = stage::join(&steps, &mut table, symbol).map_err(|e| format!("{e:?}"))?;
    builder.set_constant(symbol, table.bytes());
    Ok(streams)
}
