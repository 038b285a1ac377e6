//! `.dvp` files: records of 32 bytes, and the container around them. Little-endian throughout; `docs/matrix.md` has the
//! layout.
//!
//! **Invariant:** what decodes encodes to the same bytes. A record with bits that mean nothing is refused.

use thiserror::Error;

use crate::isa::matrix::program::addr::{Addr, Reg};
use crate::isa::matrix::program::fields::{Fields, KINDS, kind, walk};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::verify::{self, ProgramError};
use crate::isa::matrix::program::{
    Constant, CoreKind, Program, Record, Stage, StartValues, Stream, Symbol, SymbolId, SymbolKind,
};

/// First bytes of a file.
pub const MAGIC: [u8; 8] = *b"tcc-dvp\0";
/// Version of the format.
pub const VERSION: u32 = 1;
/// Bytes of a record.
pub const RECORD_BYTES: usize = 32;

/// Bytes that are no program.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("byte {at}: the file ends inside {what}")]
    Truncated { at: usize, what: &'static str },
    #[error("byte {at}: {what}")]
    Malformed { at: usize, what: &'static str },
    #[error("version {found}: this tcc reads version {VERSION}")]
    Version { found: u32 },
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// The file of a program.
pub fn encode(program: &Program) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    text(&mut out, &program.name);
    text(&mut out, &program.machine);
    out.extend(program.machine_digest);
    count(&mut out, program.symbols.len());
    for symbol in &program.symbols {
        text(&mut out, &symbol.name);
        out.push(symbol.kind as u8);
        out.extend(symbol.address.to_le_bytes());
        out.extend(symbol.bytes.to_le_bytes());
        text(&mut out, &symbol.layout);
        out.extend(symbol.hash);
    }
    count(&mut out, program.constants.len());
    for constant in &program.constants {
        out.extend(constant.symbol.0.to_le_bytes());
        count(&mut out, constant.bytes.len());
        out.extend(&constant.bytes);
    }
    count(&mut out, program.ops.len());
    program.ops.iter().for_each(|op| text(&mut out, op));
    count(&mut out, program.stages.len());
    for stage in &program.stages {
        text(&mut out, &stage.name);
        count(&mut out, stage.streams.len());
        stage.streams.iter().for_each(|s| stream(&mut out, s));
    }
    out
}

fn count(out: &mut Vec<u8>, count: usize) {
    // Programs are verified to be far smaller, constants are below 4 GiB.
    out.extend((count as u32).to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    count(out, text.len());
    out.extend(text.as_bytes());
}

fn stream(out: &mut Vec<u8>, stream: &Stream) {
    out.push(stream.kind as u8);
    out.extend(stream.cores.to_le_bytes());
    count(out, stream.start.len());
    for start in &stream.start {
        out.push(start.reg.index());
        start.values.iter().for_each(|v| out.extend(v.to_le_bytes()));
    }
    count(out, stream.records.len());
    stream.records.iter().for_each(|r| out.extend(encode_record(r)));
}

/// The program of a file.
pub fn decode(bytes: &[u8]) -> Result<Program, DecodeError> {
    let mut r = Reader { bytes, at: 0 };
    if r.take(8, "the magic number")? != MAGIC {
        return Err(DecodeError::Malformed { at: 0, what: "the magic number is not 'tcc-dvp'" });
    }
    let version = r.u32("the version")?;
    if version != VERSION {
        return Err(DecodeError::Version { found: version });
    }
    let (name, machine) = (r.text()?, r.text()?);
    let machine_digest = r.array("the machine's digest")?;
    let symbols = r.list(57, Reader::symbol)?;
    let constants = r.list(6, |r| {
        let symbol = SymbolId(u16::from_le_bytes(r.array("a constant")?));
        let len = r.u32("a constant")? as usize;
        Ok(Constant { symbol, bytes: r.take(len, "a constant")?.to_vec() })
    })?;
    let ops = r.list(4, Reader::text)?;
    let stages = r.list(8, |r| Ok(Stage { name: r.text()?, streams: r.list(11, Reader::stream)? }))?;
    if r.at != bytes.len() {
        return Err(r.malformed("bytes behind the program"));
    }
    let program = Program { name, machine, machine_digest, symbols, constants, ops, stages };
    verify::program(&program)?;
    Ok(program)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn malformed(&self, what: &'static str) -> DecodeError {
        DecodeError::Malformed { at: self.at, what }
    }

    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(DecodeError::Truncated { at: self.at, what })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        Ok(self.take(N, what)?.try_into().expect("as many bytes as were asked for"))
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn text(&mut self) -> Result<String, DecodeError> {
        let len = self.u32("a name")? as usize;
        let bytes = self.take(len, "a name")?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.malformed("a name is not UTF-8"))
    }

    /// A count and that many items of at least `least` bytes each.
    fn list<T>(
        &mut self,
        least: usize,
        item: impl Fn(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let len = self.u32("a count")? as usize;
        if len > (self.bytes.len() - self.at) / least {
            return Err(self.malformed("a count is larger than the file"));
        }
        (0..len).map(|_| item(self)).collect()
    }

    fn one_of<T: Copy>(&mut self, all: &[T], what: &'static str) -> Result<T, DecodeError> {
        let [index] = self.array(what)?;
        all.get(usize::from(index)).copied().ok_or_else(|| self.malformed(what))
    }

    fn symbol(&mut self) -> Result<Symbol, DecodeError> {
        Ok(Symbol {
            name: self.text()?,
            kind: self.one_of(&SymbolKind::ALL, "the kind of a symbol")?,
            address: u64::from_le_bytes(self.array("a symbol")?),
            bytes: u64::from_le_bytes(self.array("a symbol")?),
            layout: self.text()?,
            hash: self.array("a symbol")?,
        })
    }

    fn stream(&mut self) -> Result<Stream, DecodeError> {
        let kind = self.one_of(&CoreKind::ALL, "the kind of a stream")?;
        let cores = u16::from_le_bytes(self.array("a stream")?);
        let start = self.list(1, |r| {
            let [index] = r.array("a start value")?;
            let reg = Reg::new(index).ok_or_else(|| r.malformed("no such register"))?;
            let bytes = r.take(usize::from(cores) * 8, "start values")?;
            let value = |b: &[u8]| i64::from_le_bytes(b.try_into().expect("eight bytes"));
            Ok(StartValues { reg, values: bytes.chunks_exact(8).map(value).collect() })
        })?;
        let records = self.list(RECORD_BYTES, |r| {
            let bytes = r.array("a record")?;
            decode_record(&bytes).map_err(|what| DecodeError::Malformed { at: r.at - RECORD_BYTES, what })
        })?;
        Ok(Stream { kind, cores, start, records })
    }
}

/// The bytes of a record: kind, small fields, op, operands.
pub fn encode_record(record: &Record) -> [u8; RECORD_BYTES] {
    let mut bits = Bits { bytes: [0; RECORD_BYTES], at: 4, small: 0, is_writing: true };
    bits.bytes[0] = kind(&record.inst);
    bits.bytes[2..4].copy_from_slice(&record.op.to_le_bytes());
    let mut inst = record.inst;
    walk(&mut inst, &mut bits).expect("every instruction fits its record");
    bits.bytes
}

/// The record of 32 bytes.
pub fn decode_record(bytes: &[u8; RECORD_BYTES]) -> Result<Record, &'static str> {
    let mut inst = KINDS.get(usize::from(bytes[0])).ok_or("no such kind of record")?.1;
    let mut bits = Bits { bytes: *bytes, at: 4, small: 0, is_writing: false };
    walk(&mut inst, &mut bits)?;
    let record = Record { inst, op: u16::from_le_bytes([bytes[2], bytes[3]]) };
    if encode_record(&record) == *bytes { Ok(record) } else { Err("a record has bits that mean nothing") }
}

/// One record's bytes, being written or read.
struct Bits {
    bytes: [u8; RECORD_BYTES],
    at: usize,
    /// Bits of the second byte that are taken.
    small: u32,
    is_writing: bool,
}

impl Bits {
    fn word(&mut self, value: &mut u64, bytes: u32) -> Result<(), &'static str> {
        let len = bytes as usize;
        let slot = self.bytes.get_mut(self.at..self.at + len).ok_or("a record has too many operands")?;
        if self.is_writing {
            slot.copy_from_slice(&value.to_le_bytes()[..len]);
        } else {
            let mut word = [0; 8];
            word[..len].copy_from_slice(slot);
            *value = u64::from_le_bytes(word);
        }
        self.at += len;
        Ok(())
    }
}

impl Fields for Bits {
    type Error = &'static str;

    fn small(
        &mut self,
        _: &'static str,
        value: &mut u8,
        names: &[&'static str],
        bits: u32,
    ) -> Result<(), &'static str> {
        if self.small + bits > 8 {
            return Err("a record has too many small fields");
        }
        let mask = ((1u32 << bits) - 1) as u8;
        if self.is_writing {
            self.bytes[1] |= (*value & mask) << self.small;
        } else {
            *value = self.bytes[1] >> self.small & mask;
        }
        self.small += bits;
        if usize::from(*value) < names.len() { Ok(()) } else { Err("a field has a value that means nothing") }
    }

    fn int(&mut self, _: &'static str, value: &mut i64, bytes: u32, is_signed: bool) -> Result<(), &'static str> {
        // Two's complement: the low bytes are the field.
        let mut word = *value as u64;
        self.word(&mut word, bytes)?;
        let unused = 64 - 8 * bytes;
        *value = if is_signed { (word << unused) as i64 >> unused } else { (word << unused >> unused) as i64 };
        Ok(())
    }

    fn addr(&mut self, _: &'static str, value: &mut Addr) -> Result<(), &'static str> {
        // Five bits of register, 27 of offset.
        let mut word = u64::from(value.reg.index()) << 27 | u64::from(value.offset as u32 & 0x7ff_ffff);
        self.word(&mut word, 4)?;
        let word = word as u32;
        let reg = Reg::new((word >> 27) as u8).ok_or("no such register")?;
        *value = Addr { reg, offset: (word << 5) as i32 >> 5 };
        Ok(())
    }

    fn reg(&mut self, _: &'static str, value: &mut Reg) -> Result<(), &'static str> {
        let mut word = u64::from(value.index());
        self.word(&mut word, 1)?;
        // One byte was read.
        *value = Reg::new(word as u8).ok_or("no such register")?;
        Ok(())
    }

    fn float(&mut self, _: &'static str, value: &mut f32) -> Result<(), &'static str> {
        let mut word = u64::from(value.to_bits());
        self.word(&mut word, 4)?;
        *value = f32::from_bits(word as u32);
        Ok(())
    }

    fn types(&mut self, _: &'static str, first: &mut ElemType, second: &mut ElemType) -> Result<(), &'static str> {
        let mut word = u64::from(*first as u8) | u64::from(*second as u8) << 4;
        self.word(&mut word, 1)?;
        let ty = |index: u64| ElemType::ALL.get(index as usize & 15).copied().ok_or("no such type");
        (*first, *second) = (ty(word)?, ty(word >> 4)?);
        Ok(())
    }
}
