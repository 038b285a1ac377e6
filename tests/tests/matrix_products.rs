//! Ternary products on simulated matrix units: bits against the op's definition, with the checker on, and cycles.

use tcc_backends::isa::matrix::desc::MENU;
use tcc_backends::isa::matrix::lower::matmul::bound::bounds;
use tcc_backends::isa::matrix::lower::matmul::search;
use tcc_backends::isa::matrix::lower::matmul::tile::{Mode, Shape, Tile};
use tcc_backends::isa::matrix::machine::Machine;
use tcc_backends::isa::matrix::machine::preset::preset;
use tcc_backends::isa::matrix::sim::memory::Gm;
use tcc_backends::isa::matrix::sim::{self, Options};
use tcc_ir::encoding::Encoding;
use tcc_ir::encoding::w2nz::Panel;
use tcc_ir::ops::Op;
use tcc_ir::target::MicroKernel;
use tcc_ir::tensor::Tensor;
use tcc_ir::ty::{DType, ValueType};
use tcc_tests::random::Rng;
use tcc_tests::strips::strips;

fn machine(name: &str) -> Machine {
    preset(name).expect("a preset").expect("it parses")
}

fn f32_bytes(x: &Tensor) -> Vec<u8> {
    x.as_f32().iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Runs a product of random operands and compares it with the op's meaning.
fn check(machine: &Machine, shape: Shape, tile: Tile) {
    let (m, n, k) = (shape.m, shape.n, shape.k);
    let mut rng = Rng::named(&format!("{shape:?} {tile}"));
    let mut tensor = |dtype, shape: &[usize]| rng.tensor(&ValueType::new(dtype, shape));
    let (q, act, w) = (tensor(DType::I8, &[m, k]), tensor(DType::F32, &[m]), tensor(DType::Trit, &[n, k]));
    let (scale, residual) = (tensor(DType::F32, &[1]), tensor(DType::F32, &[m, n]));
    let mut operands = vec![&q, &act, &w, &scale];
    if shape.residual {
        operands.push(&residual);
    }
    let want = Op::TernaryLinear { bias: false, residual: shape.residual }.eval(&operands);
    let program = search::alone(&shape, tile, machine).unwrap_or_else(|e| panic!("{shape:?} {tile}: {e}"));
    let mut gm = Gm::new(&program);
    let data = [
        ("q", strips(q.as_i8(), (m, k), shape.mode)),
        ("act_scale", f32_bytes(&act)),
        ("weights", Encoding::W2Nz(shape.panel).pack(w.as_i8(), n, k)),
        ("scale", f32_bytes(&scale)),
        ("residual", f32_bytes(&residual)),
    ];
    for (name, bytes) in &data {
        if let Some(symbol) = program.find_symbol(name) {
            gm.bytes_mut(symbol)[..bytes.len()].copy_from_slice(bytes);
        }
    }
    let options = Options { functional: true, check: true, ..Options::default() };
    let report = sim::run(&program, machine, &mut gm, options).unwrap_or_else(|e| panic!("{shape:?} {tile}: {e}"));
    let found: Vec<String> = report.violations.iter().take(3).map(ToString::to_string).collect();
    assert!(found.is_empty(), "{} {shape:?} {tile}: {found:?}", machine.name);
    let out = gm.bytes(program.find_symbol("out").expect("an output"));
    assert!(out == f32_bytes(&want[0]), "{} {shape:?} {tile}: other bits", machine.name);
}

fn panel(row: &MicroKernel) -> Panel {
    let Encoding::W2Nz(panel) = row.encoding else { panic!("{row} reads no fractals") };
    panel
}

/// Every row of the menu, ragged in every direction, with k cut and whole, on one core and on several.
#[test]
fn products_have_the_bits_of_the_definition() {
    for row in MENU {
        let mode = Mode::of(panel(row));
        let shape = |m, n, k, kp, residual| Shape { m, n, k, panel: Panel { kp, ..panel(row) }, mode, residual };
        let tile = |text: &str| text.parse::<Tile>().expect("a tile");
        let lite = machine("lite-generic");
        check(&lite, shape(1, 200, 300, 256, false), tile("m1/1 k384/128/128 g1 u2 s32"));
        check(&lite, shape(1, 256, 1300, 256, true), tile("m1/1 k1408/128/128 g1 u2 s32 stay"));
        check(&lite, shape(3, 256, 640, 512, false), tile("m3/3 k640/256/128 g1 u2 s32"));
        check(&lite, shape(40, 384, 700, 256, true), tile("m16/16 k768/128/64 g1 u2 s32"));
        check(&lite, shape(40, 384, 700, 256, true), tile("m32/16 k256/128/64 g1 u2 s32"));
        check(&lite, shape(1, 256, 1300, 256, true), tile("m1/1 k1408/128/128 g2 u5 s16 stay"));
        check(&lite, shape(40, 384, 1300, 128, true), tile("m32/16 k768/64/64 g3 u4 s16"));
        check(&lite, shape(70, 384, 1300, 256, false), tile("m32/32 k1408/128/128 g2 u3 s32"));
        // One panel of accumulators fills L0C.
        let m = 16384 / panel(row).nr / mode.rows();
        let alone = tile(&format!("m{m}/{m} k1408/64/64 g1 u3 s32"));
        check(&machine("kirin9030"), shape(m, 384, 1300, 256, true), alone);
        // The same in two spans of columns, whose slices take the place of unpacked parts; ragged, and with k cut.
        if panel(row).nr == 128 {
            let phone = machine("kirin9030");
            let spans = |k: usize, slice: usize| tile(&format!("m{m}/{m} k{k}/128/128 g1 u4 s{slice} n2"));
            check(&phone, shape(m + m / 2 + 3, 456, 1300, 512, false), spans(1408, 64));
            check(&phone, shape(m, 400, 1300, 512, true), spans(1408, 64));
            check(&phone, shape(m + 20, 384, 1300, 512, true), spans(1024, 64));
            check(&phone, shape(m, 384, 640, 256, true), spans(640, 32));
        }
        check(&machine("ascend310p"), shape(70, 768, 384, 128, true), tile("m32/32 k256/64/64 g1 u2 s32"));
    }
}

/// Weights packed for nibbles, unpacked to bytes: runs of every length, ragged in every direction.
#[test]
fn nibbles_that_become_bytes_have_the_bits_of_the_definition() {
    for nr in [64, 128] {
        let of = |kp| Panel { parts: Mode::I4.parts(), nr, kp };
        let shape = |m, n, k, kp, residual| Shape { m, n, k, panel: of(kp), mode: Mode::I8, residual };
        let tile = |text: &str| text.parse::<Tile>().expect("a tile");
        let lite = machine("lite-generic");
        check(&lite, shape(3, 200, 300, 256, false), tile("m3/3 k384/128/128 g1 u2 s32"));
        check(&lite, shape(40, 384, 700, 256, true), tile("m16/16 k768/256/64 g1 u2 s32"));
        let kb = 32768 / nr;
        check(&lite, shape(40, 384, 700, 512, true), tile(&format!("m32/16 k512/{kb}/256 g1 u2 s32")));
        check(&lite, shape(40, 384, 1300, 128, true), tile("m32/16 k768/64/64 g3 u4 s16"));
        check(&lite, shape(70, 384, 1300, 256, false), tile("m32/32 k1408/128/128 g2 u3 s32"));
        let m = 16384 / nr;
        let phone = machine("kirin9030");
        check(&phone, shape(m, 384, 1300, 256, true), tile(&format!("m{m}/{m} k1408/64/64 g1 u3 s32")));
        if nr == 128 {
            let spans = tile(&format!("m{m}/{m} k1408/128/128 g1 u4 s64 n2"));
            check(&phone, shape(m + m / 2 + 3, 456, 1300, 512, false), spans);
        }
        check(&machine("ascend310p"), shape(70, 768, 384, 128, true), tile("m32/32 k256/64/64 g1 u2 s32"));
        let stays = tile("m16/16 k384/64/64 g1 u2 s16 stay");
        assert!(search::alone(&shape(16, 64, 384, 256, false), stays, &lite).is_err());
    }
}

type Share = (&'static str, &'static str, &'static str, [usize; 3], f64, f64);

/// Shares of limits, in percent, that chosen tiles reach: a regression gate a little below what was measured
/// (`docs/matrix-mapping.md` has the limits).
/// Columns: machine, cost table, menu row, [m, n, k], percent of the int8 peak, of 32 bytes of weights per cycle.
const SHARES: &[Share] = &[
    ("lite-generic", "measured", "i4hl-x128", [1, 640, 2560], 0.0, 83.0),
    ("lite-generic", "measured", "i4hl-x128", [1, 2560, 2560], 0.0, 95.0),
    ("lite-generic", "measured", "i4hl-x128", [1, 6912, 2560], 0.0, 97.0),
    ("lite-generic", "measured", "i4hl-x128", [1, 2560, 6912], 0.0, 97.5),
    ("lite-generic", "measured", "i4hl-x128", [1, 4096, 14336], 0.0, 98.0),
    ("lite-generic", "measured", "i4hl-x128", [8, 2560, 2560], 0.0, 90.0),
    ("lite-generic", "measured", "i4hl-x128", [8, 6912, 2560], 0.0, 92.5),
    ("lite-generic", "measured", "i8-x128", [1, 6912, 2560], 0.0, 57.0),
    ("lite-generic", "documented", "i8-x128", [1, 6912, 2560], 0.0, 79.0),
    ("lite-generic", "documented", "i8-x128", [256, 2560, 2560], 87.0, 0.0),
    ("lite-generic", "documented", "i8-x128", [256, 6912, 2560], 92.0, 0.0),
    ("lite-generic", "documented", "i8-x128", [256, 2560, 6912], 77.0, 0.0),
    ("lite-generic", "measured", "i8-x128", [256, 6912, 2560], 80.0, 0.0),
    ("kirinx90", "measured", "i8-x64", [256, 2560, 2560], 89.0, 0.0),
    ("kirinx90", "measured", "i8-x64", [256, 6912, 2560], 90.0, 0.0),
    ("kirinx90", "measured", "i8-x128", [256, 2560, 6912], 93.0, 0.0),
    ("kirinx90", "documented", "i8-x128", [256, 6912, 2560], 95.0, 0.0),
    ("ascend310b", "measured", "i8-x64", [256, 6912, 2560], 74.0, 0.0),
    ("ascend310p", "measured", "i8-x64", [256, 6912, 2560], 72.0, 0.0),
    ("ascend310p", "measured", "i8-x64", [256, 2560, 6912], 73.5, 0.0),
    ("kirin9030", "measured", "i8-x128", [256, 2560, 2560], 76.5, 0.0),
    ("kirin9030", "measured", "i8-x128", [256, 6912, 2560], 77.0, 0.0),
    ("kirin9030", "measured", "i8-x128", [256, 2560, 6912], 72.5, 0.0),
    ("kirin9030", "documented", "i8-x128", [256, 6912, 2560], 77.0, 0.0),
];

/// The same of products that a residual is added to.
const SHARES_WITH_RESIDUAL: &[Share] = &[
    ("lite-generic", "measured", "i4hl-x128", [1, 2560, 2560], 0.0, 93.5),
    ("lite-generic", "measured", "i4hl-x128", [1, 2560, 6912], 0.0, 97.3),
    ("kirinx90", "measured", "i8-x64", [256, 2560, 2560], 89.0, 0.0),
    ("kirinx90", "measured", "i8-x128", [256, 2560, 6912], 92.0, 0.0),
    ("ascend310b", "measured", "i8-x64", [256, 2560, 6912], 58.0, 0.0),
    ("kirin9030", "measured", "i8-x128", [256, 2560, 6912], 69.5, 0.0),
];

#[test]
fn chosen_tiles_keep_their_share_of_the_limits() {
    let mut low = vec![];
    let with = SHARES_WITH_RESIDUAL.iter().map(|share| (share, true));
    let shares = SHARES.iter().map(|share| (share, false)).chain(with);
    for ((name, costs, product, [m, n, k], of_peak, of_memory), residual) in shares {
        let mut machine = machine(name);
        machine.vector.costs = (*costs).into();
        let row = MENU.iter().find(|row| row.name == *product).expect("a row of the menu");
        let shape = Shape { m: *m, n: *n, k: *k, panel: panel(row), mode: Mode::of(panel(row)), residual };
        let tile = search::choose(&shape, &machine).expect("a tile");
        let cycles = search::cycles(&shape, tile, &machine).expect("it runs");
        let cores = machine.cube_cores() as f64;
        let peak = 100.0 * (m * n * k) as f64 / 8192.0 / cycles / cores;
        let memory = 100.0 * (n * k / 4) as f64 / 32.0 / cycles / cores;
        let line = format!(
            "{name} {costs} {product} {m}x{n}x{k} residual {residual} {tile}: {cycles:.0} cycles, {peak:.1} % of peak, {memory:.1} % of memory"
        );
        println!("{line}");
        let above = bounds(&shape, &tile, &machine).into_iter().find(|bound| bound.cycles > cycles);
        if peak < *of_peak || memory < *of_memory {
            low.push(line);
        } else if let Some(bound) = above {
            low.push(format!("{line}: less than the bound of {bound:?}"));
        }
    }
    assert!(low.is_empty(), "{}", low.join("\n"));
}
