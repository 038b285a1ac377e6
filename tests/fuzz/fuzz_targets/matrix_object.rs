//! An object for a matrix unit, read. Seeds: what `tcc_tests::parsers::matrix_object_seed` returns.
#![no_main]

use tcc_tests::parsers::matrix_object;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| matrix_object(bytes));
