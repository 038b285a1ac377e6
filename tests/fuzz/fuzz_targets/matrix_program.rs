//! A program of the matrix unit, decoded, printed and run. Seeds: what `tcc_tests::parsers::matrix_seed` returns.
#![no_main]

use tcc_tests::parsers::{matrix_program, matrix_run};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    matrix_program(bytes);
    matrix_run(bytes);
});
