//! The final image: functions and read-only data of one object laid out in one text section.
//!
//! Objects, executables and in-process loading all use the same bytes.
//!
//! **Invariant:** after [`layout`] only the displacement of the weights is open; everything else is resolved, so the
//! image runs at any address that keeps [`TEXT_ALIGN`].

use std::collections::BTreeMap;

use crate::code::{EmitError, Function, Reloc, RelocKind, Target};
use crate::isa::Backend;
use crate::stack::StackBounds;

/// Alignment of the text section, bytes: page-relative references inside it stay valid wherever it is placed.
pub const TEXT_ALIGN: u64 = 4096;

/// Alignment of every function, bytes: one cache line.
const FUNCTION_ALIGN: usize = 64;

/// Name of the 8-byte data block that holds the displacement from itself to the weights.
pub const WEIGHTS_SLOT: &str = "weights_displacement";

/// Name of the data block with the four hashes of [`HashSlot`].
pub const HASHES: &str = "hashes";

/// The hashes the object states about itself, in the order they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashSlot {
    Model,
    Weights,
    Build,
    Golden,
}

impl HashSlot {
    /// Number of hashes.
    pub const COUNT: usize = 4;
    /// Bytes of one hash (SHA-256).
    pub const BYTES: usize = 32;

    /// Where the hash lies within the data block [`HASHES`].
    pub fn offset_bytes(self) -> usize {
        let index = match self {
            HashSlot::Model => 0,
            HashSlot::Weights => 1,
            HashSlot::Build => 2,
            HashSlot::Golden => 3,
        };
        index * HashSlot::BYTES
    }
}

/// What a symbol names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolKind {
    /// A function of the C API: global.
    Api,
    /// Any other function: local.
    Function,
    /// The call site of an op within a step function: local.
    Label,
    /// Read-only data: local.
    Data,
}

/// A name for a range of the text section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    pub name: String,
    pub kind: SymbolKind,
    pub offset: u64,
    pub bytes: u64,
}

/// Name of a function, or of an op's call site, in the code of one variant among several; what all variants share has
/// its plain name.
pub fn variant_symbol(name: &str, variant: &str) -> String {
    format!("{name}.{variant}")
}

/// The plain name of `symbol` if it is in the code of `variant`, else `symbol` itself.
pub fn in_variant<'s>(symbol: &'s str, variant: &str) -> &'s str {
    symbol.strip_suffix(variant).and_then(|name| name.strip_suffix('.')).unwrap_or(symbol)
}

/// The text section of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub text: Vec<u8>,
    /// In layout order.
    pub symbols: Vec<Symbol>,
    /// Offset of the 8-byte field that receives `weights - field`; absent where weights never sit beside the code.
    pub weights_slot: Option<u64>,
    /// Largest stack of any API function, hooks apart, bytes.
    pub stack_bytes: u64,
    /// Stack of one task on a thread of the caller, bytes; 0 without a task entry.
    pub task_stack_bytes: u64,
}

impl Image {
    /// The symbol called `name`.
    pub fn symbol(&self, name: &str) -> Option<&Symbol> {
        self.symbols.iter().find(|s| s.name == name && s.kind != SymbolKind::Label)
    }

    /// Stores a hash known only after the image was made. Panics if the image has no hashes.
    pub fn set_hash(&mut self, slot: HashSlot, hash: [u8; HashSlot::BYTES]) {
        let start = self.symbol(HASHES).expect("an object states its hashes").offset as usize;
        let at = start + slot.offset_bytes();
        self.text[at..at + HashSlot::BYTES].copy_from_slice(&hash);
    }

    /// Stores the hash that `self_test` expects.
    pub fn set_golden(&mut self, hash: [u8; HashSlot::BYTES]) {
        self.set_hash(HashSlot::Golden, hash);
    }

    /// Stores the displacement of weights that lie `displacement` bytes after the first byte of the text.
    ///
    /// Does nothing for an image that takes its weights from the caller.
    pub fn set_weights(&mut self, displacement: i64) {
        if let Some(slot) = self.weights_slot {
            // An image is far below 2^63 bytes.
            let value = displacement - slot as i64;
            let at = slot as usize;
            self.text[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// Lays out `functions` in the order given and resolves every reference between them.
///
/// # Errors
/// Names that are missing or twice there, references out of reach, recursion, more than one reference to the weights.
pub fn layout(backend: &dyn Backend, functions: &[Function]) -> Result<Image, EmitError> {
    let mut placer = Placer { backend, functions, offsets: Vec::new(), by_name: BTreeMap::new(), text: Vec::new() };
    placer.place()?;
    let weights_slot = placer.resolve()?;
    let stacks = StackBounds::of(functions)?;
    Ok(Image {
        symbols: placer.symbols(),
        weights_slot,
        stack_bytes: stacks.largest(|f| f.is_api),
        task_stack_bytes: stacks.largest(|f| f.is_task),
        text: placer.text,
    })
}

/// The layout under construction.
struct Placer<'a> {
    backend: &'a dyn Backend,
    functions: &'a [Function],
    /// Where each function begins.
    offsets: Vec<usize>,
    by_name: BTreeMap<&'a str, usize>,
    text: Vec<u8>,
}

impl<'a> Placer<'a> {
    fn place(&mut self) -> Result<(), EmitError> {
        for (index, function) in self.functions.iter().enumerate() {
            let align = if function.is_code { FUNCTION_ALIGN } else { 8 };
            let align = align.max(function.align as usize);
            self.text.resize(self.text.len().next_multiple_of(align), 0);
            self.offsets.push(self.text.len());
            self.text.extend_from_slice(&function.bytes);
            if self.by_name.insert(&function.name, index).is_some() {
                return Err(problem(function, &function.name, "defined twice"));
            }
        }
        Ok(())
    }

    /// Fills every field but the displacement of the weights, whose offset it returns.
    fn resolve(&mut self) -> Result<Option<u64>, EmitError> {
        let mut weights_slot = None;
        for (index, function) in self.functions.iter().enumerate() {
            for reloc in &function.relocs {
                let at = self.offsets[index] + reloc.offset as usize;
                if reloc.target == Target::Weights {
                    if reloc.kind != RelocKind::Pc64 || weights_slot.replace(at as u64).is_some() {
                        return Err(problem(function, "weights", "reached other than by the one 64-bit displacement"));
                    }
                    continue;
                }
                let (place, target) = self.ends(index, reloc)?;
                self.backend
                    .apply(reloc.kind, &mut self.text, at, place, target)
                    .map_err(|reason| problem(function, &format!("{:?}", reloc.target), &reason))?;
            }
        }
        Ok(weights_slot)
    }

    /// Where a reference starts from and where it goes, as offsets in the text.
    fn ends(&self, index: usize, reloc: &Reloc) -> Result<(u64, u64), EmitError> {
        let function = &self.functions[index];
        let start = self.offsets[index] as u64;
        if reloc.kind == RelocKind::RiscvPcrelLow12I {
            return self.low_half(index, reloc);
        }
        let base = match &reloc.target {
            Target::Symbol(name) => {
                let found = self.by_name.get(name.as_str());
                self.offsets[*found.ok_or_else(|| problem(function, name, "not part of the image"))?] as u64
            }
            Target::Local(offset) => start + u64::from(*offset),
            Target::Weights => return Err(problem(function, "weights", "not reachable by a code reference")),
        };
        Ok((start + u64::from(reloc.offset), base.wrapping_add_signed(reloc.addend)))
    }

    /// The low half of a split displacement shares place and target with its high half.
    fn low_half(&self, index: usize, reloc: &Reloc) -> Result<(u64, u64), EmitError> {
        let function = &self.functions[index];
        let high = function
            .relocs
            .iter()
            .find(|r| reloc.target == Target::Local(r.offset) && r.kind == RelocKind::RiscvPcrelHigh20);
        match high {
            Some(high) => self.ends(index, high),
            None => Err(problem(function, &format!("{:?}", reloc.target), "not the high half of a displacement")),
        }
    }

    fn symbols(&self) -> Vec<Symbol> {
        let mut symbols = Vec::new();
        for (function, start) in self.functions.iter().zip(&self.offsets) {
            let start = *start as u64;
            let end = start + function.bytes.len() as u64;
            let kind = match (function.is_code, function.is_api) {
                (true, true) => SymbolKind::Api,
                (true, false) => SymbolKind::Function,
                (false, _) => SymbolKind::Data,
            };
            symbols.push(Symbol { name: function.name.clone(), kind, offset: start, bytes: end - start });
            for (i, (offset, label)) in function.marks.iter().enumerate() {
                let offset = start + u64::from(*offset);
                let next = function.marks.get(i + 1).map_or(end, |(next, _)| start + u64::from(*next));
                let bytes = next.saturating_sub(offset);
                symbols.push(Symbol { name: label.clone(), kind: SymbolKind::Label, offset, bytes });
            }
        }
        symbols
    }
}

fn problem(function: &Function, symbol: &str, problem: &str) -> EmitError {
    EmitError::Reloc { function: function.name.clone(), symbol: symbol.into(), problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::BACKENDS;

    fn block(name: &str, bytes: usize, relocs: Vec<Reloc>) -> Function {
        Function { name: name.into(), bytes: vec![0; bytes], align: 8, relocs, ..Function::default() }
    }

    fn displacement(offset: u32, target: Target) -> Reloc {
        Reloc { offset, kind: RelocKind::Pc64, target, addend: 0 }
    }

    fn word(image: &Image, at: u64) -> i64 {
        let at = at as usize;
        i64::from_le_bytes(image.text[at..at + 8].try_into().expect("eight bytes"))
    }

    #[test]
    fn references_become_displacements() {
        let functions = [
            block("far", 24, vec![displacement(16, Target::Symbol("near".into()))]),
            block(WEIGHTS_SLOT, 8, vec![displacement(0, Target::Weights)]),
            block("near", 8, vec![]),
            block(HASHES, HashSlot::COUNT * HashSlot::BYTES, vec![]),
        ];
        for backend in BACKENDS {
            let mut image = layout(*backend, &functions).expect("a whole image");
            let offset = |image: &Image, name: &str| image.symbol(name).expect("placed").offset;
            let (far, near) = (offset(&image, "far"), offset(&image, "near"));
            assert_eq!(word(&image, far + 16), near as i64 - (far as i64 + 16));
            let slot = image.weights_slot.expect("a slot");
            assert_eq!(slot, offset(&image, WEIGHTS_SLOT));
            image.set_weights(1 << 40);
            assert_eq!(slot as i64 + word(&image, slot), 1 << 40);
            image.set_golden([7; 32]);
            let end = offset(&image, HASHES) as usize + HashSlot::COUNT * HashSlot::BYTES;
            assert_eq!(image.text[end - 32..end], [7; 32]);
            assert_eq!(image.text[end - 64..end - 32], [0; 32]);
        }
    }

    #[test]
    fn an_incomplete_image_is_refused() {
        let to = |name: &str| vec![displacement(0, Target::Symbol(name.into()))];
        let weights = || vec![displacement(0, Target::Weights)];
        let cases = [
            (vec![block("a", 8, to("b"))], "'a' refers to 'b', which is not part of the image"),
            (vec![block("a", 8, vec![]), block("a", 8, vec![])], "'a' refers to 'a', which is defined twice"),
            (
                vec![block("a", 8, weights()), block("b", 8, weights())],
                "'b' refers to 'weights', which is reached other than by the one 64-bit displacement",
            ),
        ];
        for (functions, message) in cases {
            let error = layout(BACKENDS[0], &functions).expect_err("refused");
            assert_eq!(error.to_string(), message);
        }
    }
}
