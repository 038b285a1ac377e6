//! The text form. Seeds: `tests/cases/`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tcc_tests::parsers::ir_text(bytes));
