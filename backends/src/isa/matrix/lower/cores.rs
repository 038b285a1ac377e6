//! Values that differ between the cores of a stage: each core reads its own from a table, by its number.
//!
//! Counts of tiles and numbers of cores have a few bits each, so values of a step share words. What is a multiple of the
//! same number on every core, as offsets are, is there divided by it; what is the same on every core is in the stream.
//! Steps whose cores differ in the same way, as those of all layers do, share their rows.

use std::collections::BTreeMap;

use super::emit::Emit;
use super::vector::behind;
use crate::isa::matrix::program::addr::Reg;
use crate::isa::matrix::program::inst::{ScalarOp, ScalarOperand};
use crate::isa::matrix::program::{StartValues, SymbolId};

/// Registers from here on are no step's.
const RESERVED: u8 = 29;

/// The core's number among those of its kind: all that differs between cores when a stage begins.
pub const NUMBER: Reg = reserved(2);
/// The core's place in the rows of the step at hand.
const ROW: Reg = reserved(1);
/// Free between steps.
pub const SCRATCH: Reg = reserved(0);

/// Register `index` of a step, below [`RESERVED`].
pub const fn reg(index: u8) -> Reg {
    match Reg::new(index) {
        Some(reg) if index < RESERVED => reg,
        Some(_) | None => panic!("no register of steps"),
    }
}

const fn reserved(index: u8) -> Reg {
    match Reg::new(RESERVED + index) {
        Some(reg) => reg,
        None => panic!("there are 32 registers"),
    }
}

/// Bits of a word.
const WORD: u32 = 32;

/// `u32[row][core]` of every step's rows, one step's behind the other's.
#[derive(Clone, Debug, Default)]
pub struct CoreTable {
    words: Vec<u32>,
    /// Rows that are there already, and the offset of the first in bytes.
    known: BTreeMap<Vec<u32>, usize>,
}

/// A value that is not 0 to 2^32 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange;

/// A register's value on each core, in some bits of a word.
struct Field<'a> {
    reg: Reg,
    values: &'a [i64],
    /// What all values are multiples of.
    unit: i64,
    bits: u32,
}

impl Field<'_> {
    /// The bits of core `core`; 0 on cores that have no part in the step.
    fn of(&self, core: usize) -> u64 {
        // Not negative.
        self.values.get(core).map_or(0, |value| (value / self.unit).cast_unsigned())
    }
}

impl CoreTable {
    /// Sets the registers of `start` on each of `cores` cores, the first of which take part; the table is at `symbol`.
    pub fn load(
        &mut self,
        e: &mut Emit,
        symbol: SymbolId,
        start: &[StartValues],
        cores: usize,
    ) -> Result<(), OutOfRange> {
        let mut fields = vec![];
        for StartValues { reg, values } in start {
            match values[..] {
                [first, ref rest @ ..] if rest.iter().all(|value| *value == first) => e.add(*reg, Reg::ZERO, first),
                _ => fields.push(field(*reg, values)?),
            }
        }
        let words = words(&fields);
        if words.is_empty() {
            return Ok(());
        }
        let rows = words.iter().flat_map(|word| (0..cores).map(|core| packed(word, core)));
        let offset = self.place(rows.collect());
        // Offsets in the table.
        e.address(ROW, Some(symbol), offset as i64);
        e.scalar(ScalarOp::Shl, SCRATCH, NUMBER, ScalarOperand::Imm(2));
        e.scalar(ScalarOp::Add, ROW, ROW, ScalarOperand::Reg(SCRATCH));
        for (index, word) in words.iter().enumerate() {
            unpack(e, word, 4 * cores * index);
        }
        Ok(())
    }

    /// Offset of the rows, which are there or are added.
    fn place(&mut self, rows: Vec<u32>) -> usize {
        let end = 4 * self.words.len();
        *self.known.entry(rows).or_insert_with_key(|rows| {
            self.words.extend(rows);
            end
        })
    }

    /// The bytes of the table.
    pub fn bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

fn field(reg: Reg, values: &[i64]) -> Result<Field<'_>, OutOfRange> {
    let unit = values.iter().fold(0, |unit, value| gcd(unit, *value)).max(1);
    let most = values.iter().max().map_or(0, |most| most / unit);
    let bits = i64::BITS - most.leading_zeros();
    let is_in_range = values.iter().all(|value| *value >= 0) && bits <= WORD;
    if is_in_range { Ok(Field { reg, values, unit, bits }) } else { Err(OutOfRange) }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Fields that share words, each in the first that has room.
fn words<'a, 'b>(fields: &'a [Field<'b>]) -> Vec<Vec<&'a Field<'b>>> {
    let mut words: Vec<Vec<&Field>> = vec![];
    for field in fields {
        let has_room = |word: &&mut Vec<&Field>| word.iter().map(|f| f.bits).sum::<u32>() + field.bits <= WORD;
        match words.iter_mut().find(has_room) {
            Some(word) => word.push(field),
            None => words.push(vec![field]),
        }
    }
    words
}

/// A core's word: the first field in the low bits.
fn packed(word: &[&Field], core: usize) -> u32 {
    let value = word.iter().rev().fold(0, |value, field| value << field.bits | field.of(core));
    // Fields fit a word.
    value as u32
}

/// Sets the registers of a word, which is so many bytes behind the core's place.
fn unpack(e: &mut Emit, word: &[&Field], offset: usize) {
    let Some((last, others)) = word.split_last() else { return };
    e.scalar_load(last.reg, behind(ROW, offset));
    let mut shift = 0;
    for field in others {
        let mut from = last.reg;
        if shift > 0 {
            e.scalar(ScalarOp::Shr, field.reg, from, ScalarOperand::Imm(i64::from(shift)));
            from = field.reg;
        }
        e.scalar(ScalarOp::And, field.reg, from, ScalarOperand::Imm((1 << field.bits) - 1));
        shift += field.bits;
    }
    if shift > 0 {
        e.scalar(ScalarOp::Shr, last.reg, last.reg, ScalarOperand::Imm(i64::from(shift)));
    }
    for field in word.iter().filter(|field| field.unit > 1) {
        e.scalar(ScalarOp::Mul, field.reg, field.reg, ScalarOperand::Imm(field.unit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::matrix::program::Record;
    use crate::isa::matrix::program::inst::{Control, Inst};

    /// Registers of core `core` behind the records, with the table at address 0.
    fn run(records: &[Record], table: &[u8], core: i64) -> [i64; 32] {
        let mut regs = [0; 32];
        regs[usize::from(NUMBER.index())] = core;
        for record in records {
            let at = |reg: Reg| usize::from(reg.index());
            match record.inst {
                Inst::Control(Control::AddrReg { reg, offset, .. }) => regs[at(reg)] = offset,
                Inst::Control(Control::Scalar { op, reg, a, b }) => {
                    let b = match b {
                        ScalarOperand::Reg(b) => regs[at(b)],
                        ScalarOperand::Imm(b) => b,
                    };
                    regs[at(reg)] = op.eval(regs[at(a)], b);
                }
                Inst::ScalarLoad(load) => {
                    let from =
                        usize::try_from(regs[at(load.src.reg)]).expect("in the table") + load.src.offset as usize;
                    let word = [0, 1, 2, 3].map(|byte| table[from + byte]);
                    regs[at(load.reg)] = i64::from(u32::from_le_bytes(word));
                }
                other => panic!("{other:?}"),
            }
        }
        regs
    }

    #[test]
    fn every_core_has_its_values() {
        let values: [[i64; 4]; 7] = [
            [0, 1, 2, 3],
            [7; 4],
            [0, 5_000_000_000, 10_000_000_000, 15_000_000_000],
            [1, 0, 0, 0],
            [4_294_967_295, 1, 0, 9],
            [300_000, 1, 0, 9],
            [70_001, 70_000, 69_999, 0],
        ];
        let start: Vec<StartValues> =
            values.iter().zip(1..).map(|(v, i)| StartValues { reg: reg(i), values: v.to_vec() }).collect();
        let mut table = CoreTable::default();
        let (mut first, mut second) = (Emit::default(), Emit::default());
        // Six cores, of which four have a part.
        for e in [&mut first, &mut second] {
            assert_eq!(table.load(e, SymbolId(0), &start, 6), Ok(()));
        }
        assert_eq!(first.records, second.records, "the same rows are there once");
        let bytes = table.bytes();
        for core in 0..6 {
            let regs = run(&first.records, &bytes, core as i64);
            for (values, i) in values.iter().zip(1..).filter(|_| core < 4) {
                assert_eq!(regs[i], values[core], "register {i} of core {core}");
            }
        }
    }

    #[test]
    fn values_that_fit_no_word_are_refused() {
        for values in [vec![0, -1], vec![1, 1 << 32]] {
            let start = [StartValues { reg: reg(1), values }];
            let loaded = CoreTable::default().load(&mut Emit::default(), SymbolId(0), &start, 2);
            assert_eq!(loaded, Err(OutOfRange));
        }
    }
}
