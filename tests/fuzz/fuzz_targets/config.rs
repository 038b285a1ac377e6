//! A model's `config.json`. Seeds: those of `tests/fixtures/models/`.
#![no_main]

use tcc_tests::parsers::Folder;

thread_local! {
    static FOLDER: Folder = Folder::default();
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| FOLDER.with(|folder| folder.config(bytes)));
