//! Every row of every CPU's menu against a plain scalar sum, bit for bit.
//!
//! The menus are iterated, so a new row cannot escape. Each row runs on every machine that has its features; a row
//! that no machine can run is reported as skipped.

use tcc_backends::isa::{BACKENDS, Backend};
use tcc_ir::encoding::Encoding;
use tcc_ir::kernel::QuantLayout;
use tcc_ir::target::{MicroKernel, micro_args};
use tcc_tests::machines::{MACHINES, Machine, report_skipped};
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

#[test]
fn every_menu_row_equals_the_scalar_sum() {
    for backend in BACKENDS {
        let machines: Vec<_> = MACHINES.iter().filter(|m| m.target == backend.desc().name).collect();
        for row in backend.desc().menu {
            let Some(code) = backend.micro(row) else { continue };
            let what = format!("{} {row}", backend.desc().name);
            let runner = Runner::new(*backend, backend.desc().baseline.with(row.needs), vec![code.clone()])
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            let ran = machines.iter().filter(|machine| {
                let outcome = check_row(*backend, row, machine, &runner, &code.name);
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

/// Runs all cases of `row` on `machine`; false if the machine lacks what the row needs.
fn check_row(
    backend: &dyn Backend,
    row: &MicroKernel,
    machine: &Machine,
    runner: &Runner,
    function: &str,
) -> Result<bool, RunError> {
    let fits = machine.features(backend)?.contains(backend.desc().close(row.needs));
    if !fits || (row.vlen != 0 && row.vlen != machine.vlen) {
        return Ok(false);
    }
    let mut process = runner.start(machine.emulator_args)?;
    let mut random = Rng::new(0x7CC);
    for case in cases(row.encoding) {
        check(row, &case, &mut process, function, &mut random)?;
    }
    Ok(true)
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
    let acc = memory.place(&before.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>(), 64);
    let w = memory.place(&encoding.pack(&weights, case.n, k), 64);
    let q = memory.place_i8(&padded_rows(&activations, &layout));
    let scratch = memory.alloc(row.scratch_bytes, 64);
    let mut block = [0; micro_args::BYTES as usize / 8];
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
    let args = memory.place_words(&block);
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
