//! The text form of programs: one record a line, every field named. What is printed reads back to the same bytes.

use thiserror::Error;

use tcc_ir::text::lexer::{Lexer, Token, quote};

use crate::isa::matrix::program::addr::{Addr, Reg};
use crate::isa::matrix::program::fields::{Fields, KINDS, kind, walk};
use crate::isa::matrix::program::inst::{Control, Inst};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::verify::{self, ProgramError};
use crate::isa::matrix::program::{
    Constant, CoreKind, Program, Record, Stage, StartValues, Stream, Symbol, SymbolId, SymbolKind,
};

/// Text that is no program.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TextError {
    #[error("line {line}: {what}")]
    Line { line: usize, what: String },
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// The text of a program.
pub fn print(program: &Program) -> String {
    let mut out = format!(
        "program digest={} {} {}\n",
        hex(&program.machine_digest),
        quote(&program.name),
        quote(&program.machine)
    );
    for symbol in &program.symbols {
        let Symbol { name, kind, address, bytes, layout, hash } = symbol;
        let kind = kind.name();
        let (name, layout, hash) = (quote(name), quote(layout), hex(hash));
        out += &format!("symbol kind={kind} address={address} bytes={bytes} hash={hash} {name} {layout}\n");
    }
    for constant in &program.constants {
        out += &format!("constant symbol={} bytes={}\n", constant.symbol.0, hex(&constant.bytes));
    }
    program.ops.iter().for_each(|op| out += &format!("op {}\n", quote(op)));
    for stage in &program.stages {
        out += &format!("stage {}\n", quote(&stage.name));
        for stream in &stage.streams {
            out += &format!("stream kind={} cores={}\n", stream.kind.name(), stream.cores);
            for start in &stream.start {
                let values: Vec<String> = start.values.iter().map(i64::to_string).collect();
                out += &format!("start reg={} values={}\n", start.reg, values.join(","));
            }
            print_records(&mut out, &stream.records);
        }
    }
    out
}

fn print_records(out: &mut String, records: &[Record]) {
    let mut depth = 1;
    for record in records {
        if matches!(record.inst, Inst::Control(Control::End { .. })) {
            depth -= 1;
        }
        out.extend(std::iter::repeat_n("  ", depth));
        *out += &record_text(record);
        out.push('\n');
        if matches!(record.inst, Inst::Control(Control::Loop { .. })) {
            depth += 1;
        }
    }
}

/// One record as a line.
pub fn record_text(record: &Record) -> String {
    let mut printer = Printer(KINDS[usize::from(kind(&record.inst))].0.to_owned());
    let mut inst = record.inst;
    match walk(&mut inst, &mut printer) {
        Ok(()) => format!("{} op={}", printer.0, record.op),
        Err(never) => match never {},
    }
}

/// The program of a text.
pub fn parse(text: &str) -> Result<Program, TextError> {
    let mut program = Program {
        name: String::new(),
        machine: String::new(),
        machine_digest: [0; 32],
        symbols: vec![],
        constants: vec![],
        ops: vec![],
        stages: vec![],
    };
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(';') {
            continue;
        }
        parse_line(&mut program, line).map_err(|what| TextError::Line { line: number, what })?;
    }
    verify::program(&program)?;
    Ok(program)
}

fn parse_line(program: &mut Program, line: &str) -> Result<(), String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut words = Words { rest };
    match word {
        "program" => {
            program.machine_digest = words.hex("digest")?.try_into().map_err(|_| "a digest has 32 bytes")?;
            [program.name, program.machine] = words.quoted()?;
        }
        "symbol" => {
            let kind = words.value("kind")?;
            let kind = SymbolKind::ALL.into_iter().find(|k| k.name() == kind).ok_or("no such kind of symbol")?;
            let (address, bytes) = (words.number("address")?, words.number("bytes")?);
            let hash = words.hex("hash")?.try_into().map_err(|_| "a hash has 32 bytes")?;
            let [name, layout] = words.quoted()?;
            program.symbols.push(Symbol { name, kind, address, bytes, layout, hash });
        }
        "constant" => {
            let symbol = SymbolId(words.number("symbol")?);
            program.constants.push(Constant { symbol, bytes: words.hex("bytes")? });
            words.end()?;
        }
        "op" => {
            let [name] = words.quoted()?;
            program.ops.push(name);
        }
        "stage" => {
            let [name] = words.quoted()?;
            program.stages.push(Stage { name, streams: vec![] });
        }
        "stream" => {
            let kind = words.value("kind")?;
            let kind = CoreKind::ALL.into_iter().find(|k| k.name() == kind).ok_or("no such kind of core")?;
            let cores = words.number("cores")?;
            words.end()?;
            let stage = program.stages.last_mut().ok_or("a stream stands before the first stage")?;
            stage.streams.push(Stream { kind, cores, start: vec![], records: vec![] });
        }
        "start" => {
            let mut reg = Reg::ZERO;
            words.reg("reg", &mut reg)?;
            let values =
                words.value("values")?.split(',').map(|v| v.parse().map_err(|_| format!("'{v}' is no number")));
            let values = values.collect::<Result<_, _>>()?;
            words.end()?;
            last_stream(program)?.start.push(StartValues { reg, values });
        }
        name => {
            let known = KINDS.iter().find(|(n, _)| *n == name);
            let mut inst = known.ok_or_else(|| format!("no record '{name}'"))?.1;
            walk(&mut inst, &mut words)?;
            let op = words.number("op")?;
            words.end()?;
            last_stream(program)?.records.push(Record { inst, op });
        }
    }
    Ok(())
}

fn last_stream(program: &mut Program) -> Result<&mut Stream, String> {
    let stage = program.stages.last_mut();
    stage.and_then(|s| s.streams.last_mut()).ok_or_else(|| "a record stands before the first stream".to_owned())
}

/// Two digits for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Writes fields as `key=value`.
struct Printer(String);

impl Printer {
    fn field(&mut self, key: &str, value: impl std::fmt::Display) {
        self.0 += &format!(" {key}={value}");
    }
}

impl Fields for Printer {
    type Error = std::convert::Infallible;

    fn small(&mut self, key: &'static str, value: &mut u8, names: &[&'static str], _: u32) -> Result<(), Self::Error> {
        self.field(key, names[usize::from(*value)]);
        Ok(())
    }

    fn int(&mut self, key: &'static str, value: &mut i64, _: u32, _: bool) -> Result<(), Self::Error> {
        self.field(key, *value);
        Ok(())
    }

    fn addr(&mut self, key: &'static str, value: &mut Addr) -> Result<(), Self::Error> {
        self.field(key, format_args!("{}{:+}", value.reg, value.offset));
        Ok(())
    }

    fn reg(&mut self, key: &'static str, value: &mut Reg) -> Result<(), Self::Error> {
        self.field(key, *value);
        Ok(())
    }

    fn float(&mut self, key: &'static str, value: &mut f32) -> Result<(), Self::Error> {
        self.field(key, format_args!("0x{:08x}", value.to_bits()));
        Ok(())
    }

    fn types(&mut self, key: &'static str, first: &mut ElemType, second: &mut ElemType) -> Result<(), Self::Error> {
        self.field(key, format_args!("{},{}", first.name(), second.name()));
        Ok(())
    }
}

/// Reads fields from words `key=value`, in order.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn value(&mut self, key: &str) -> Result<&'a str, String> {
        let trimmed = self.rest.trim_start();
        let (word, rest) = trimmed.split_once(' ').unwrap_or((trimmed, ""));
        let value = word.strip_prefix(key).and_then(|w| w.strip_prefix('='));
        let value = value.ok_or_else(|| format!("expected '{key}=...', found '{word}'"))?;
        self.rest = rest;
        Ok(value)
    }

    fn number<T: std::str::FromStr>(&mut self, key: &str) -> Result<T, String> {
        let value = self.value(key)?;
        value.parse().map_err(|_| format!("'{value}' is no number for '{key}'"))
    }

    fn hex(&mut self, key: &str) -> Result<Vec<u8>, String> {
        let value = self.value(key)?.as_bytes();
        let digit = |d: u8| char::from(d).to_digit(16).ok_or("not hexadecimal");
        if !value.len().is_multiple_of(2) {
            return Err(format!("'{key}' has half a byte"));
        }
        // Two hexadecimal digits fit a byte.
        let byte = |pair: &[u8]| Ok((digit(pair[0])? << 4 | digit(pair[1])?) as u8);
        value.chunks_exact(2).map(byte).collect()
    }

    /// The strings that end the line.
    fn quoted<const N: usize>(&mut self) -> Result<[String; N], String> {
        let mut lexer = Lexer::new(self.rest);
        let mut found = vec![];
        loop {
            match lexer.next_token().0 {
                Token::Text(text) => found.push(text),
                Token::End => break,
                other @ (Token::Word(_) | Token::Value(_) | Token::Number(_) | Token::Punct(_) | Token::Invalid(_)) => {
                    return Err(format!("expected a string, found {other}"));
                }
            }
        }
        let count = found.len();
        found.try_into().map_err(|_| format!("expected {N} strings, found {count}"))
    }

    fn end(&self) -> Result<(), String> {
        let rest = self.rest.trim();
        if rest.is_empty() { Ok(()) } else { Err(format!("'{rest}' is left over")) }
    }
}

/// `r3` as a register.
fn register(text: &str) -> Result<Reg, String> {
    let index = text.strip_prefix('r').and_then(|t| t.parse().ok());
    index.and_then(Reg::new).ok_or_else(|| format!("'{text}' is no register"))
}

impl Fields for Words<'_> {
    type Error = String;

    fn small(&mut self, key: &'static str, value: &mut u8, names: &[&'static str], _: u32) -> Result<(), String> {
        let word = self.value(key)?;
        let index = names.iter().position(|n| *n == word);
        let index = index.ok_or_else(|| format!("'{key}={word}': expected one of {}", names.join(", ")))?;
        // At most 64 names.
        *value = index as u8;
        Ok(())
    }

    fn int(&mut self, key: &'static str, value: &mut i64, bytes: u32, is_signed: bool) -> Result<(), String> {
        *value = self.number(key)?;
        let bits = 8 * bytes - u32::from(is_signed);
        let is_in_range = match bits {
            63.. => true,
            bits if is_signed => (-(1i64 << bits)..1i64 << bits).contains(value),
            bits => (0..1i64 << bits).contains(value),
        };
        if is_in_range { Ok(()) } else { Err(format!("'{key}={value}' does not fit {bytes} bytes")) }
    }

    fn addr(&mut self, key: &'static str, value: &mut Addr) -> Result<(), String> {
        let word = self.value(key)?;
        let split = word.find(['+', '-']).ok_or_else(|| format!("'{word}' is no address: expected r1+0"))?;
        let (reg, offset) = word.split_at(split);
        let offset = offset.parse().map_err(|_| format!("'{offset}' is no offset"))?;
        *value = Addr { reg: register(reg)?, offset };
        Ok(())
    }

    fn reg(&mut self, key: &'static str, value: &mut Reg) -> Result<(), String> {
        *value = register(self.value(key)?)?;
        Ok(())
    }

    fn float(&mut self, key: &'static str, value: &mut f32) -> Result<(), String> {
        let word = self.value(key)?;
        let bits = word.strip_prefix("0x").and_then(|h| u32::from_str_radix(h, 16).ok());
        *value = f32::from_bits(bits.ok_or_else(|| format!("'{word}' are no bits of a float: expected 0x3f800000"))?);
        Ok(())
    }

    fn types(&mut self, key: &'static str, first: &mut ElemType, second: &mut ElemType) -> Result<(), String> {
        let word = self.value(key)?;
        let ty = |name: &str| ElemType::ALL.into_iter().find(|t| t.name() == name);
        let pair = word.split_once(',').and_then(|(a, b)| Some((ty(a)?, ty(b)?)));
        (*first, *second) = pair.ok_or_else(|| format!("'{word}' are no two types"))?;
        Ok(())
    }
}
