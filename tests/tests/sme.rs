//! What the SME kernel leaves to its caller: streaming mode and ZA off, and what was in ZA where the caller wants it.

use tcc_backends::code::{Function, Reloc, RelocKind, Target};
use tcc_backends::isa::backend;
use tcc_ir::target::micro_args;
use tcc_tests::machines::{MACHINES, Machine, report_skipped};
use tcc_tests::memory::Memory;
use tcc_tests::runner::{RunError, Runner};

const KERNEL: &str = "sme-m16";
const BLOCKS: usize = 5;
/// Panels: of more than one vector at every length below 512 bits.
const PANELS: usize = 9;
const ROW_BYTES: usize = 128;
/// Bytes of ZA where it is largest.
const MOST_ZA_BYTES: usize = 256 * 256;

/// `extern "C" fn(args, block, za, out)`: fills ZA from `za` and has it saved as `block` says, if `block` is not null;
/// calls the kernel; stores SVCR and TPIDR2_EL0. By GNU as 2.40, -march=armv9-a+sme.
const CALLER: [u32; 20] = [
    0xd503_245f, // bti c
    0xa9bf_4ffe, // stp x30, x19, [sp, #-16]!
    0xaa03_03f3, // mov x19, x3
    0xb400_0161, // cbz x1, #44
    0xd503_457f, // smstart za
    0x04bf_5824, // rdsvl x4, #1
    0x5280_000c, // mov w12, #0
    0xe100_0040, // ldr za[w12, 0], [x2]
    0x8b04_0042, // add x2, x2, x4
    0x1100_058c, // add w12, w12, #1
    0xeb04_019f, // cmp x12, x4
    0x54ff_ff83, // b.lo #-16
    0x7900_1024, // strh w4, [x1, #8]
    0xd51b_d0a1, // msr TPIDR2_EL0, x1
    0x9400_0000, // bl KERNEL
    0xd53b_4244, // mrs x4, SVCR
    0xd53b_d0a5, // mrs x5, TPIDR2_EL0
    0xa900_1664, // stp x4, x5, [x19]
    0xa8c1_4ffe, // ldp x30, x19, [sp], #16
    0xd65f_03c0, // ret
];

fn caller() -> Function {
    let target = Target::Symbol(KERNEL.into());
    Function {
        name: "caller".into(),
        bytes: CALLER.iter().flat_map(|word| word.to_le_bytes()).collect(),
        align: 16,
        relocs: vec![Reloc { offset: 14 * 4, kind: RelocKind::Aarch64Call, target, addend: 0 }],
        frame_bytes: 16,
        calls: vec![KERNEL.into()],
        is_code: true,
        ..Function::default()
    }
}

/// Arguments of a product of weights 0, whose codes are 1, with activations 1; and where its sums go.
fn arguments(memory: &mut Memory, scratch_bytes: usize) -> (u64, u64) {
    let acc = memory.alloc(4 * PANELS * 16 * 4, 64);
    let w = memory.place(&[0b0101_0101; PANELS * BLOCKS * 16], 64);
    let q = memory.place(&[1; 16 * ROW_BYTES], 64);
    let scratch = memory.alloc(scratch_bytes, 64);
    let mut block = [0; micro_args::BYTES as usize / 8];
    for (at, value) in [
        (micro_args::ACC, acc),
        (micro_args::W, w),
        (micro_args::W_PANEL_STRIDE, BLOCKS as u64 * 16),
        (micro_args::PANELS, PANELS as u64),
        (micro_args::Q, q),
        (micro_args::Q_STRIDE, ROW_BYTES as u64),
        (micro_args::K_BLOCKS, BLOCKS as u64),
        (micro_args::SCRATCH, scratch),
    ] {
        block[at as usize / 8] = value;
    }
    (memory.place_words(&block), acc)
}

/// What a caller has in ZA.
#[derive(Clone, Copy, PartialEq)]
enum Za {
    Nothing,
    /// Values that it wants saved.
    Kept,
    /// Values that it has no buffer for.
    Dropped,
}

#[test]
fn streaming_mode_and_za_are_off_and_what_a_caller_had_in_za_is_saved() {
    let backend = backend("aarch64").expect("a backend of this name");
    let row = backend.desc().menu.iter().find(|row| row.name == KERNEL).expect("a row of this name");
    let kernel = backend.micro(row, row.needs).expect("an assembled row");
    let features = backend.desc().baseline.with(row.needs);
    let runner = Runner::new(backend, features, vec![caller(), kernel]).unwrap_or_else(|e| panic!("{e}"));
    let run = |machine: &Machine, had: Za| -> Result<(), RunError> {
        machine.features(backend)?;
        let mut process = runner.start(machine.emulator_args)?;
        let mut memory = Memory::new();
        let (args, acc) = arguments(&mut memory, row.scratch_bytes);
        let za: Vec<u8> = (0..MOST_ZA_BYTES).map(|i| (i % 251).to_le_bytes()[0]).collect();
        let saved = memory.alloc(MOST_ZA_BYTES, 64);
        let block = memory.place_words(&[if had == Za::Kept { saved } else { 0 }, 0]);
        let out = memory.place_words(&[u64::MAX, u64::MAX]);
        let from = memory.place(&za, 64);
        process.call("caller", &[args, if had == Za::Nothing { 0 } else { block }, from, out], &mut memory)?;
        let found = memory.read_i32(acc, PANELS * 16 * 4);
        assert!(found.iter().all(|sum| *sum == 16 * BLOCKS as i32), "{}: {found:?}", machine.name);
        assert_eq!(memory.read(out, 16), [0; 16], "{}: SVCR and TPIDR2_EL0", machine.name);
        let slices = usize::from(u16::from_le_bytes(memory.read(block + 8, 2).try_into().expect("two bytes")));
        assert_eq!(slices > 0, had != Za::Nothing, "{}", machine.name);
        let bytes = if had == Za::Kept { slices * slices } else { 0 };
        assert_eq!(memory.read(saved, bytes), &za[..bytes], "{}", machine.name);
        assert!(memory.read(saved + bytes as u64, MOST_ZA_BYTES - bytes).iter().all(|b| *b == 0), "{}", machine.name);
        Ok(())
    };
    let has_sme = |machine: &&Machine| {
        machine.target == "aarch64" && machine.features.is_some_and(|names| names.contains(&"sme"))
    };
    for machine in MACHINES.iter().filter(has_sme) {
        for had in [Za::Nothing, Za::Kept, Za::Dropped] {
            run(machine, had).unwrap_or_else(|e| report_skipped(machine.name, &e));
        }
    }
}
