//! What reads bytes from outside, each as one call for fuzzing: any input is read or refused, never a panic.

use std::io::Write;

use sha2::{Digest as _, Sha256};
use tcc::arch::BuildOptions;
use tcc::driver;
use tcc::load::{self, LoadOptions};
use tcc::matrix::descriptor::Descriptor;
use tcc::matrix::object::{self, Parts};
use tcc::matrix::{self, MatrixOptions};
use tcc::object::WeightsSource;
use tcc_backends::isa::matrix::machine::preset::preset;
use tcc_backends::isa::matrix::program::CoreKind;
use tcc_backends::isa::matrix::program::codec;
use tcc_backends::isa::matrix::program::text as matrix_text;
use tcc_backends::isa::matrix::sim::memory::Gm;
use tcc_backends::isa::matrix::sim::{Options, run};
use tcc_ir::text::{parse, print};
use tcc_ir::verify;

use crate::cube_gemm::Gemm;
use crate::oracle::fixture;
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

/// A program of the matrix unit: what decodes encodes to the same bytes and prints to text that reads back.
pub fn matrix_program(bytes: &[u8]) {
    let Ok(program) = codec::decode(bytes) else { return };
    assert_eq!(codec::encode(&program), bytes);
    let printed = matrix_text::print(&program);
    let back = matrix_text::parse(&printed).unwrap_or_else(|e| panic!("what was printed is refused: {e}\n{printed}"));
    assert_eq!(codec::encode(&back), bytes);
}

/// The same, run to an end, a finding or a fault where it is small enough to be given memory.
pub fn matrix_run(bytes: &[u8]) {
    let Ok(program) = codec::decode(bytes) else { return };
    let machine = preset("lite-generic").expect("a preset").expect("it parses");
    let is_small = program.gm_bytes() < 1 << 16 && program.stages.iter().flat_map(|s| &s.streams).all(|s| s.cores == 1);
    if is_small {
        let mut gm = Gm::new(&program);
        let options =
            Options { functional: true, check: true, trace: true, memory: true, warm: true, max_records: 2000 };
        // The verdict does not matter, that there is one does.
        let _ = run(&program, &machine, &mut gm, options);
    }
}

/// An object for a matrix unit: what is read has programs that the simulator takes.
pub fn matrix_object(bytes: &[u8]) {
    let Ok(object) = object::read(bytes) else { return };
    for body in object.model.programs() {
        assert_eq!(body.program.machine_digest, object.model.machine.digest());
    }
}

/// A small object to mutate: a fixture compiled for a machine with one core.
pub fn matrix_object_seed() -> Vec<u8> {
    let model = load::open(&fixture(FIXTURE), &LoadOptions::default()).expect("a fixture");
    let options = BuildOptions { ctx: Some(8), prefill: 1, ..BuildOptions::default() };
    let front = driver::front(&model, &options, None, |_, _| {}).expect("it builds");
    let machine = preset("lite-generic").expect("a preset").expect("it parses");
    let compiled = matrix::build(&front, &machine, &MatrixOptions::default()).expect("it lowers");
    let weights = compiled.weights(&front).expect("weights");
    let hash = Sha256::digest(&weights).into();
    let descriptor = Descriptor::new("seed", &compiled.model, (weights.len() as u64, hash), None);
    let mut produce = |out: &mut dyn Write| out.write_all(&weights);
    let weights = WeightsSource { bytes: weights.len() as u64, produce: &mut produce };
    let parts = Parts { descriptor: &descriptor, model: &compiled.model, choices: &compiled.choices, weights };
    let mut out = vec![];
    object::write_to(&mut out, parts).expect("memory takes everything");
    out
}

/// A small program of the matrix unit to mutate: a product of two tiles with all kinds of flags.
pub fn matrix_seed() -> Vec<u8> {
    let machine = preset("lite-generic").expect("a preset").expect("it parses");
    let gemm = Gemm {
        m: 32,
        n: 32,
        k: 128,
        bm: 16,
        bk: 32,
        bn: 32,
        step: 2,
        core_m: 32,
        core_n: 32,
        grid: (1, 1),
        f32_out: true,
        unit_flag: true,
    };
    codec::encode(&gemm.program(&machine, CoreKind::Coupled))
}
