//! Running compiled models: in this process, under an emulator, and from text to text.

pub mod chat;
pub mod emulate;
pub mod generate;
pub mod host;
pub mod tokenizer;
