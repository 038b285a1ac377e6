//! Running compiled models: in this process, under an emulator, from text to text; and how fast.

pub mod caches;
pub mod chat;
pub mod count;
pub mod emulate;
pub mod first;
pub mod generate;
pub mod host;
pub mod limits;
pub mod ops;
pub mod peak;
pub mod rates;
pub mod stolen;
pub mod tokenizer;
pub mod tune;
