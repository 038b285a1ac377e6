//! Loads an object made by tcc into this process: code executable, weights mapped from their file.

use std::ffi::c_void;
use std::io;
use std::path::Path;

use object::elf::{R_AARCH64_PREL64, R_X86_64_PC64};
use object::{Object, ObjectSection, ObjectSymbol, Relocation, RelocationFlags, RelocationTarget};

use crate::abi::{Blob, Functions, TEXT_SECTION_PREFIX, WEIGHTS_SECTION};
use crate::code::Code;
use crate::map::MappedFile;
use crate::session::Model;
use crate::weights::MappedWeights;

/// Architecture of objects that this process can run.
#[cfg(target_arch = "x86_64")]
const HERE: object::Architecture = object::Architecture::X86_64;
#[cfg(target_arch = "aarch64")]
const HERE: object::Architecture = object::Architecture::Aarch64;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const HERE: object::Architecture = object::Architecture::Unknown;

/// A loaded object.
#[derive(Debug)]
pub struct Module {
    model: Model,
    // Held for the model, which points into both.
    _text: Code,
    _weights: MappedWeights,
}

/// Why an object could not be loaded.
#[derive(Debug)]
pub enum ModuleError {
    Io(io::Error),
    /// Not an object of this kind; what is wrong.
    Malformed(String),
    /// The model refused.
    Status(crate::abi::Status),
}

impl std::fmt::Display for ModuleError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ModuleError::Io(error) => error.fmt(f),
            ModuleError::Malformed(what) => f.write_str(what),
            ModuleError::Status(status) => status.fmt(f),
        }
    }
}

impl std::error::Error for ModuleError {}

impl From<io::Error> for ModuleError {
    fn from(error: io::Error) -> Self {
        ModuleError::Io(error)
    }
}

fn malformed<T>(what: impl Into<String>) -> Result<T, ModuleError> {
    Err(ModuleError::Malformed(what.into()))
}

impl Module {
    /// Loads the object at `path`, with the weights in its own section or, if given, in the file at `weights`.
    ///
    /// The object must be one that tcc made: its code is trusted.
    pub fn open(path: &Path, weights: Option<&Path>) -> Result<Module, ModuleError> {
        let file = MappedFile::open(path)?;
        let bytes = file.bytes(0..file.len())?;
        let elf = object::File::parse(bytes).map_err(|e| ModuleError::Malformed(e.to_string()))?;
        if elf.architecture() != HERE {
            return malformed(format!("the object is for {:?}, this machine is {HERE:?}", elf.architecture()));
        }
        let text = Text::find(&elf)?;
        let code = text.load()?;
        let functions = text.functions(&elf, &code)?;
        let held = match weights {
            Some(path) => MappedWeights::open(path, None)?,
            None => MappedWeights::open(path, Some(weights_range(&elf)?))?,
        };
        let blob = Blob { data: held.bytes().as_ptr().cast(), len: held.bytes().len() };
        // SAFETY: the functions lie in `code` and the blob in `held`; both are kept beside the model.
        let model = unsafe { Model::new(functions, Some(blob)) }.map_err(ModuleError::Status)?;
        Ok(Module { model, _text: code, _weights: held })
    }

    /// The model's interface.
    pub fn model(&self) -> &Model {
        &self.model
    }
}

/// The one text section.
struct Text<'d> {
    index: object::SectionIndex,
    /// Name of the model, the prefix of its symbols.
    name: String,
    data: &'d [u8],
}

impl<'d> Text<'d> {
    fn find(elf: &object::File<'d>) -> Result<Self, ModuleError> {
        for section in elf.sections() {
            let Some(name) = section.name().ok().and_then(|n| n.strip_prefix(TEXT_SECTION_PREFIX)) else { continue };
            // Weights are always handed over by address, so the displacement stays unused; nothing else may be open.
            if let Some((at, _)) = section.relocations().find(|(_, r)| !is_weights_displacement(r)) {
                return malformed(format!("an unknown relocation at offset {at} of the code"));
            }
            let data = section.data().map_err(|e| ModuleError::Malformed(e.to_string()))?;
            return Ok(Text { index: section.index(), name: name.to_owned(), data });
        }
        malformed(format!("no section '{TEXT_SECTION_PREFIX}NAME': not an object made by tcc"))
    }

    fn load(&self) -> Result<Code, ModuleError> {
        if self.data.is_empty() {
            return malformed("the code is empty");
        }
        Ok(Code::new(self.data)?)
    }

    /// The API's functions in `code`.
    fn functions(&self, elf: &object::File<'d>, code: &Code) -> Result<Functions, ModuleError> {
        let address = |suffix: &str| {
            let name = format!("{}_{suffix}", self.name);
            let symbol = elf.symbols().find(|s| s.name() == Ok(&name) && s.section_index() == Some(self.index));
            let offset = symbol.and_then(|s| usize::try_from(s.address()).ok()).filter(|at| *at < code.len());
            match offset {
                Some(offset) => Ok(code[offset..].as_ptr().cast::<c_void>()),
                None => malformed(format!("the code has no '{name}'")),
            }
        };
        // SAFETY: each address is that of the symbol of this name in an object of tcc, in memory mapped executable
        // that the module keeps.
        unsafe { Functions::resolve(address) }
    }
}

fn is_weights_displacement(relocation: &Relocation) -> bool {
    let kind = relocation.flags();
    let known = [R_X86_64_PC64, R_AARCH64_PREL64].map(|r_type| RelocationFlags::Elf { r_type });
    matches!(relocation.target(), RelocationTarget::Symbol(_)) && known.contains(&kind)
}

/// Where the weights lie in the object's file.
fn weights_range(elf: &object::File) -> Result<std::ops::Range<usize>, ModuleError> {
    let section = elf.section_by_name(WEIGHTS_SECTION).and_then(|s| s.file_range());
    let range = section.and_then(|(at, bytes)| {
        let at = usize::try_from(at).ok()?;
        Some(at..at.checked_add(usize::try_from(bytes).ok()?)?)
    });
    match range {
        Some(range) => Ok(range),
        None => malformed(format!("no section '{WEIGHTS_SECTION}': give the weights file")),
    }
}

#[cfg(test)]
#[path = "module_tests.rs"]
mod tests;
