//! Every row of every CPU's menu against a plain scalar sum, bit for bit.
//!
//! Once more with nothing behind what they read and write, so that an access behind it ends the process.
//!
//! The menus are iterated, so a new row cannot escape. Each row runs on every machine that has its features; a row
//! that no machine can run is reported as skipped.

use tcc_backends::isa::{BACKENDS, Backend};
use tcc_ir::encoding::Encoding;
use tcc_ir::kernel::QuantLayout;
use tcc_ir::target::{MicroKernel, micro_args};
use tcc_tests::machines::{MACHINES, Machine, report_skipped, tunings};
use tcc_tests::memory::Memory;
use tcc_tests::random::Rng;
use tcc_tests::runner::{Process, RunError, Runner};

/// Reduction lengths: one block, ragged ones, those of real models, the longest known.
const LENGTHS: [usize; 8] = [16, 17, 100, 1080, 2560, 6912, 8640, 23040];

/// Lengths around every bound of a narrow accumulator (64 steps of `vpmaddubsw`, 128 and 255 of a 16-bit
/// multiply-add) for any number of columns that one step may cover, and around blocks.
const BOUNDS: [usize; 30] = [
    1, 15, 31, 32, 33, 63, 64, 65, 112, 113, 127, 128, 129, 143, 144, 239, 240, 241, 251, 252, 253, 254, 255, 256, 257,
    496, 511, 512, 513, 1040,
];

/// What weights or activations hold.
#[derive(Clone, Copy, Debug)]
enum Fill {
    Random,
    All(i8),
}

/// Activations and weights that make every partial sum as large as it can be.
const WORST: [(Fill, Fill); 6] = [
    (Fill::All(-128), Fill::All(1)),
    (Fill::All(-128), Fill::All(-1)),
    (Fill::All(127), Fill::All(1)),
    (Fill::All(127), Fill::All(-1)),
    (Fill::All(-128), Fill::All(0)),
    (Fill::All(-128), Fill::Random),
];

/// One product: `mr` token rows by `n` output rows, over blocks `blocks` of a weight of reduction length `k`.
#[derive(Clone, Debug)]
struct Case {
    n: usize,
    k: usize,
    blocks: std::ops::Range<usize>,
    q: Fill,
    w: Fill,
}

/// The operand behind which there is no memory.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Last {
    Accumulators,
    Weights,
    Activations,
}

/// Bytes of memory where there is such an operand.
const MEMORY_BYTES: usize = 256 << 10;

#[test]
fn every_menu_row_equals_the_scalar_sum() {
    on_every_row(Memory::MAX_BYTES, |_, row, process, function| {
        let mut random = Rng::new(0x7CC);
        cases(row.encoding).iter().try_for_each(|case| check(row, case, None, process, function, &mut random))
    });
}

#[test]
fn no_menu_row_leaves_its_operands() {
    on_every_row(MEMORY_BYTES, |_, row, process, function| {
        let mut random = Rng::new(0x7CC);
        let (nr, kr) = (row.encoding.nr(), row.encoding.kr());
        for k in [1, 16, 63, 64, 100, 512, 1040] {
            for last in [Last::Accumulators, Last::Weights, Last::Activations] {
                for (panels, w) in [(1, Fill::Random), (2, Fill::All(1)), (3, Fill::All(0))] {
                    let case = Case { n: panels * nr, k, blocks: 0..k.div_ceil(kr), q: Fill::Random, w };
                    check(row, &case, Some(last), process, function, &mut random)?;
                }
            }
        }
        Ok(())
    });
}

/// A row that is told of one block of columns too many reads behind the weights, which must not go unseen.
#[test]
fn what_leaves_its_operands_is_seen() {
    let mut seen = 0;
    on_every_row(MEMORY_BYTES, |machine, row, process, function| {
        let mut random = Rng::new(0x7CC);
        // Where a bitmap's block that is not there leads, nobody knows. Emulators leave files where a process ends so.
        let Encoding::I2 { nr } = row.encoding else { return Ok(()) };
        if !machine.emulator_args.is_empty() {
            return Ok(());
        }
        let case = Case { n: nr, k: 1024, blocks: 0..1024 / row.encoding.kr() + 1, q: Fill::Random, w: Fill::Random };
        match check(row, &case, Some(Last::Weights), process, function, &mut random) {
            Err(RunError::Died { .. }) => seen += 1,
            other => panic!("{row}: expected its end, found {other:?}"),
        }
        Ok(())
    });
    assert!(seen > 0, "a machine without an emulator has a row of this encoding");
}

/// Runs `check` for every row of every menu, in a process of each machine that has what the row needs, whose images
/// have at most `memory_bytes`.
fn on_every_row(
    memory_bytes: usize,
    mut check: impl FnMut(&Machine, &MicroKernel, &mut Process, &str) -> Result<(), RunError>,
) {
    for backend in BACKENDS {
        let machines: Vec<_> = MACHINES.iter().filter(|m| m.target == backend.desc().name).collect();
        let desc = backend.desc();
        let tunings = tunings(*backend);
        for (row, tuning) in desc.menu.iter().flat_map(|row| tunings.iter().map(move |tuning| (row, *tuning))) {
            let features = desc.baseline.with(row.needs).with(tuning);
            let Some(code) = backend.micro(row, features) else { continue };
            let what = format!("{} {row} {}", desc.name, desc.feature_names(tuning));
            let runner = Runner::with_memory(*backend, features, vec![code.clone()], memory_bytes)
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            let ran = machines.iter().filter(|machine| {
                let outcome = start_row(*backend, row, machine, &runner).and_then(|process| match process {
                    Some(mut process) => check(machine, row, &mut process, &code.name).map(|()| true),
                    None => Ok(false),
                });
                outcome.unwrap_or_else(|e| {
                    report_skipped(&format!("{what} on {}", machine.name), &e);
                    false
                })
            });
            if ran.count() == 0 {
                let needs = backend.desc().feature_names(row.needs);
                eprintln!("skipped: {what}: no machine here has {needs} (vector length {})", row.vlen);
            }
        }
    }
}

/// A process for `row` on `machine`; none if the machine lacks what the row needs.
fn start_row(
    backend: &dyn Backend,
    row: &MicroKernel,
    machine: &Machine,
    runner: &Runner,
) -> Result<Option<Process>, RunError> {
    let fits = machine.features(backend)?.contains(backend.desc().close(row.needs));
    if !fits || (row.vlen != 0 && row.vlen != machine.vlen) {
        return Ok(None);
    }
    runner.start(machine.emulator_args).map(Some)
}

fn cases(encoding: Encoding) -> Vec<Case> {
    let (nr, kr) = (encoding.nr(), encoding.kr());
    let whole = |n, k: usize, q, w| Case { n, k, blocks: 0..k.div_ceil(kr), q, w };
    let mut cases = Vec::new();
    for k in LENGTHS {
        for panels in 1..=3 {
            cases.push(whole(panels * nr - panels, k, Fill::Random, Fill::Random));
        }
        cases.extend(WORST.map(|(q, w)| whole(nr, k, q, w)));
    }
    for k in BOUNDS {
        cases.extend(WORST.map(|(q, w)| whole(nr, k, q, w)));
    }
    // Many panels, and one group of columns inside a longer row.
    cases.push(whole(7 * nr - 1, 528, Fill::Random, Fill::Random));
    cases.extend(WORST.map(|(q, w)| whole(7 * nr, 528, q, w)));
    if encoding.has_groups(128, 1024) || encoding.has_groups(kr, 1024) {
        cases.push(Case { n: 3 * nr, k: 1024, blocks: 128 / kr..256 / kr, q: Fill::Random, w: Fill::Random });
    }
    cases
}

fn check(
    row: &MicroKernel,
    case: &Case,
    last: Option<Last>,
    process: &mut Process,
    function: &str,
    random: &mut Rng,
) -> Result<(), RunError> {
    let (mr, k) = (row.mr, case.k);
    let weights = fill(case.w, case.n * k, random, |r| r.below(3) as i8 - 1);
    let encoding = row.encoding.fitted_to(&weights, k);
    let activations = fill(case.q, mr * k, random, |r| r.next_u64().to_le_bytes()[0].cast_signed());
    let panels = case.n.div_ceil(encoding.nr());
    let before: Vec<i32> = (0..panels * mr * encoding.nr()).map(|_| random.below(1 << 20) as i32 - (1 << 19)).collect();
    let layout = QuantLayout { k, sum_group: k };

    let mut memory = Memory::new();
    let scratch = memory.alloc(row.scratch_bytes, 64);
    let mut block = [0; micro_args::BYTES as usize / 8];
    let args = memory.place_words(&block);
    let mut rows: Vec<u8> = padded_rows(&activations, &layout).iter().map(|v| v.to_le_bytes()[0]).collect();
    if last == Some(Last::Activations) {
        // The last row ends where the micro-kernel may no longer read.
        let padded = k.next_multiple_of(encoding.kr()).next_multiple_of(64);
        rows.truncate((mr - 1) * layout.stride_bytes() + padded);
    }
    let mut operands = [
        (Last::Accumulators, before.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>(), 0),
        (Last::Weights, encoding.pack(&weights, case.n, k), 0),
        (Last::Activations, rows, 0),
    ];
    for (_, bytes, address) in operands.iter_mut().filter(|(what, ..)| Some(*what) != last) {
        *address = memory.place(bytes, 64);
    }
    for (_, bytes, address) in operands.iter_mut().filter(|(what, ..)| Some(*what) == last) {
        *address = memory.place_last(bytes, 64, MEMORY_BYTES);
    }
    let [acc, w, q] = operands.map(|(.., address)| address);
    for (at, value) in [
        (micro_args::ACC, acc),
        (micro_args::W, w + (encoding.header_bytes() + case.blocks.start * encoding.block_bytes()) as u64),
        (micro_args::W_PANEL_STRIDE, encoding.panel_bytes(k) as u64),
        (micro_args::PANELS, panels as u64),
        (micro_args::Q, q + (case.blocks.start * encoding.kr()) as u64),
        (micro_args::Q_STRIDE, layout.stride_bytes() as u64),
        (micro_args::K_BLOCKS, case.blocks.len() as u64),
        (micro_args::SCRATCH, scratch),
    ] {
        block[at as usize / 8] = value;
    }
    let words: Vec<u8> = block.iter().flat_map(|w| w.to_le_bytes()).collect();
    memory.write(args, &words);
    process.call(function, &[args], &mut memory)?;

    let found = memory.read_i32(acc, before.len());
    let sums = expected(encoding, case, mr, &weights, &activations);
    for (i, (found, (before, sum))) in found.iter().zip(before.iter().zip(&sums)).enumerate() {
        assert_eq!(*found, before + sum, "{row}, {case:?}: accumulator {i}");
    }
    Ok(())
}

/// Σ code·q of `[panels][mr][nr]`; rows past n hold weight 0, which is code 1.
fn expected(encoding: Encoding, case: &Case, mr: usize, w: &[i8], q: &[i8]) -> Vec<i32> {
    let (nr, k) = (encoding.nr(), case.k);
    let columns = case.blocks.start * encoding.kr()..(case.blocks.end * encoding.kr()).min(k);
    let mut sums = Vec::new();
    for panel in 0..case.n.div_ceil(nr) {
        for token in 0..mr {
            let q = &q[token * k..][columns.clone()];
            for n in panel * nr..(panel + 1) * nr {
                let sum = if n < case.n {
                    let w = &w[n * k..][columns.clone()];
                    w.iter().zip(q).map(|(w, q)| (i32::from(*w) + 1) * i32::from(*q)).sum()
                } else {
                    q.iter().map(|q| i32::from(*q)).sum()
                };
                sums.push(sum);
            }
        }
    }
    sums
}

/// Token rows as kernels get them; what follows the zero padding is not for the micro-kernel and holds garbage.
fn padded_rows(q: &[i8], layout: &QuantLayout) -> Vec<i8> {
    let mut rows = Vec::new();
    for row in q.chunks(layout.k) {
        let end = rows.len() + layout.stride_bytes();
        let zeros = rows.len() + layout.sums_offset_bytes();
        rows.extend_from_slice(row);
        rows.resize(zeros, 0);
        rows.resize(end, 0x55);
    }
    rows
}

fn fill(what: Fill, count: usize, random: &mut Rng, next: fn(&mut Rng) -> i8) -> Vec<i8> {
    match what {
        Fill::Random => (0..count).map(|_| next(random)).collect(),
        Fill::All(value) => vec![value; count],
    }
}
