//! What reads bytes from outside, each as one call for fuzzing: any input is read or refused, never a panic.

use tcc::load::{self, LoadOptions};
use tcc_ir::text::{parse, print};
use tcc_ir::verify;

use crate::patch::Copy;

/// The IR text; what is accepted must print to a text that reads back to the same.
pub fn ir_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(source) = parse::source(text) else { return };
    // The verdict does not matter, that there is one does.
    let _ = verify::program(&source.program);
    let printed = print::program(&source.program);
    let back = parse::program(&printed).unwrap_or_else(|e| panic!("what was printed is refused: {e}\n{printed}"));
    assert_eq!(print::program(&back), printed);
}

/// A small model on disk whose files are replaced one at a time.
pub struct Folder {
    copy: Copy,
}

/// The fixture that inputs go into: the smallest with all norms.
pub const FIXTURE: &str = "bitnet-packed-tied";

impl Default for Folder {
    fn default() -> Self {
        Folder { copy: Copy::of(FIXTURE) }
    }
}

impl Folder {
    /// Opens the model with `bytes` as its weights file: length, header, data.
    pub fn safetensors_header(&self, bytes: &[u8]) {
        self.open_with("model.safetensors", bytes);
    }

    /// Opens the model with `bytes` as its configuration.
    pub fn config(&self, bytes: &[u8]) {
        self.open_with("config.json", bytes);
    }

    fn open_with(&self, file: &str, bytes: &[u8]) {
        self.copy.write(file, bytes);
        let _ = load::open(self.copy.path(), &LoadOptions::default());
    }
}
