//! Running compiled models: in this process, under an emulator, from text to text; and how fast.

pub mod chat;
pub mod emulate;
pub mod generate;
pub mod host;
pub mod rates;
pub mod tokenizer;
