//! Ternary products on split machines, whose cube and vector cores meet in global memory: bits against the op's definition,
//! with the checker on, and cycles.

use tcc_backends::isa::matrix::lower::split::choice::Choice;
use tcc_backends::isa::matrix::lower::split::search::{self, Shape};
use tcc_backends::isa::matrix::lower::vector::ternary::PANEL;
use tcc_backends::isa::matrix::machine::Machine;
use tcc_backends::isa::matrix::machine::preset::preset;
use tcc_backends::isa::matrix::program::addr::Reg;
use tcc_backends::isa::matrix::program::ty::CubeType;
use tcc_backends::isa::matrix::program::{Program, StartValues};
use tcc_backends::isa::matrix::sim::memory::Gm;
use tcc_backends::isa::matrix::sim::{self, Options};
use tcc_ir::encoding::Encoding;
use tcc_ir::kernel::ScaleKind;
use tcc_ir::ops::Op;
use tcc_ir::ty::{DType, ValueType};
use tcc_tests::products::{Together, f32_bytes, gated, strips, together};
use tcc_tests::random::Rng;

const MACHINES: [&str; 2] = ["ascend910b", "ascend950pr"];

fn choice(text: &str) -> Choice {
    text.parse().expect("a choice")
}

fn machine(name: &str) -> Machine {
    preset(name).expect("a preset").expect("it parses")
}

/// The program, in whose registers other steps left something.
fn littered(program: &Program) -> Program {
    let mut program = program.clone();
    for stream in program.stages.iter_mut().flat_map(|stage| &mut stage.streams) {
        let is_free = |reg: &Reg| stream.start.iter().all(|start| start.reg != *reg);
        let free: Vec<Reg> = (1..Reg::COUNT).filter_map(Reg::new).filter(is_free).collect();
        let values = vec![0x5555_5555; usize::from(stream.cores)];
        stream.start.extend(free.into_iter().map(|reg| StartValues { reg, values: values.clone() }));
    }
    program
}

/// Runs a product of random operands and compares it with the op's meaning.
fn check(machine: &Machine, shape: Shape, program: &Program) {
    let program = &littered(program);
    let (m, n, k) = (shape.m, shape.n, shape.k);
    let what = format!("{} {shape:?}", machine.name);
    let mut rng = Rng::named(&what);
    let mut tensor = |dtype, shape: &[usize]| rng.tensor(&ValueType::new(dtype, shape));
    let (q, act, w) = (tensor(DType::I8, &[m, k]), tensor(DType::F32, &[m]), tensor(DType::Trit, &[n, k]));
    let scale = tensor(DType::F32, &[if shape.scale == ScaleKind::PerTensor { 1 } else { n }]);
    let (bias, residual) = (tensor(DType::F32, &[n]), tensor(DType::F32, &[m, n]));
    let mut operands = vec![&q, &act, &w, &scale];
    operands.extend(shape.bias.then_some(&bias));
    operands.extend(shape.residual.then_some(&residual));
    let want = Op::TernaryLinear { bias: shape.bias, residual: shape.residual }.eval(&operands);
    let mut gm = Gm::new(program);
    let data = [
        ("q", strips(q.as_i8(), &shape)),
        ("act_scale", f32_bytes(&act)),
        ("weights", Encoding::W2Nz(PANEL).pack(w.as_i8(), n, k)),
        ("scale", f32_bytes(&scale)),
        ("bias", f32_bytes(&bias)),
        ("residual", f32_bytes(&residual)),
    ];
    for (name, bytes) in &data {
        if let Some(symbol) = program.find_symbol(name) {
            gm.bytes_mut(symbol)[..bytes.len()].copy_from_slice(bytes);
        }
    }
    let options = Options { functional: true, check: true, ..Options::default() };
    let report = sim::run(program, machine, &mut gm, options).unwrap_or_else(|e| panic!("{what}: {e}"));
    let found: Vec<String> = report.violations.iter().take(3).map(ToString::to_string).collect();
    assert!(found.is_empty(), "{what}: {found:?}");
    let out = gm.bytes(program.find_symbol("out").expect("an output"));
    assert!(out == f32_bytes(&want[0]), "{what}: other bits");
}

/// Ragged in every direction, one block of rows and several, one panel at a time and two, tiles that all cores share
/// unevenly, and fewer than there are.
#[test]
fn products_have_the_bits_of_the_definition() {
    let shape = |m, n, k, scale, bias, residual| Shape { m, n, k, scale, bias, residual };
    let cases = [
        (shape(1, 64, 128, ScaleKind::PerTensor, false, false), "m1 p1"),
        (shape(1, 64, 128, ScaleKind::PerTensor, false, false), "vector"),
        (shape(9, 200, 300, ScaleKind::PerRow, true, true), "m9 p2"),
        (shape(9, 200, 300, ScaleKind::PerRow, true, true), "vector"),
        (shape(70, 456, 1080, ScaleKind::PerTensor, false, true), "m32 p1"),
        (shape(33, 3304, 200, ScaleKind::PerRow, false, false), "m33 p1"),
        (shape(40, 3752, 1100, ScaleKind::PerRow, true, true), "m16 p2"),
        (shape(24, 1000, 256, ScaleKind::PerTensor, false, true), "m16 p4"),
        (shape(100, 4224, 640, ScaleKind::PerTensor, true, false), "m48 p2"),
        (shape(9, 200, 300, ScaleKind::PerRow, true, true), "m9 p2 pass"),
        (shape(70, 456, 1980, ScaleKind::PerTensor, false, true), "m32 p1 pass"),
        // Tiles of two panels alone, whose sums go straight to UB where they can.
        (shape(90, 1216, 1100, ScaleKind::PerRow, true, true), "m48 p2"),
        (shape(250, 1216, 700, ScaleKind::PerTensor, false, true), "m176 p2 pass"),
        // One accumulator on 910B.
        (shape(250, 3752, 1500, ScaleKind::PerRow, true, true), "m250 p2 pass"),
    ];
    for name in MACHINES {
        let machine = machine(name);
        for (shape, text) in cases {
            let program = search::alone(&shape, choice(text), &machine);
            check(&machine, shape, &program.unwrap_or_else(|| panic!("{shape:?} {text}")));
            let to_l1 = text.starts_with('m').then(|| search::alone(&shape, choice(&format!("{text} l1")), &machine));
            let to_l1 = to_l1.flatten();
            assert_eq!(
                to_l1.is_some(),
                machine.path.ub_l1.is_some() && text.starts_with('m'),
                "{name} {shape:?} {text}"
            );
            if let Some(program) = to_l1 {
                check(&machine, shape, &program);
            }
        }
        // Cores would write parts of one block of 32 bytes: one vector core does it.
        let odd = shape(2, 150, 140, ScaleKind::PerRow, false, true);
        assert!(search::alone(&odd, choice("m2 p1"), &machine).is_none());
        check(&machine, odd, &search::alone(&odd, choice("vector"), &machine).expect("it fits"));
    }
}

/// Runs products together, with the checker on, and compares them with what they should be.
fn check_together(machine: &Machine, products: &Together, what: &str) {
    let Together { program, data, outs } = products;
    let program = littered(program);
    let mut gm = Gm::new(&program);
    for (symbol, bytes) in data {
        gm.bytes_mut(program.find_symbol(symbol).expect("an operand"))[..bytes.len()].copy_from_slice(bytes);
    }
    let options = Options { functional: true, check: true, ..Options::default() };
    let report = sim::run(&program, machine, &mut gm, options).unwrap_or_else(|e| panic!("{what}: {e}"));
    let found: Vec<String> = report.violations.iter().take(3).map(ToString::to_string).collect();
    assert!(found.is_empty(), "{what}: {found:?}");
    for (i, want) in outs.iter().enumerate() {
        let out = gm.bytes(program.find_symbol(&format!("out{i}")).expect("an output"));
        assert!(out == want, "{what}: other bits of product {i}");
    }
}

/// Products of the same activations together: groups whose shares end in one product and begin in another, ragged ones,
/// scales and addends that differ, one that has fewer panels than there are groups.
#[test]
fn products_together_have_the_bits_of_the_definition() {
    let (m, k) = (70, 1080);
    let part = |n, scale, bias, residual| Shape { m, n, k, scale, bias, residual };
    let parts = [
        part(328, ScaleKind::PerTensor, false, true),
        part(64, ScaleKind::PerRow, true, false),
        part(456, ScaleKind::PerTensor, true, false),
    ];
    let ways = ["m32 p1", "m32 p2", "m70 p2", "m32 p2 pass", "m48 p3"];
    for (name, cores) in MACHINES.into_iter().flat_map(|name| [2, 5, 24].map(|cores| (name, cores))) {
        let mut machine = machine(name);
        machine.org.cores.value = cores;
        let l1 = machine.path.ub_l1.is_some().then(|| ways.map(|way| format!("{way} l1")));
        for text in ways.map(str::to_owned).into_iter().chain(l1.into_iter().flatten()) {
            let products = together(&machine, (m, k), &parts, choice(&text)).expect("it fits");
            check_together(&machine, &products, &format!("{name} {cores} {text}"));
        }
    }
}

/// A product that gates another: one tile size and two, one pair of panels at a time and two, blocks of token rows that are no
/// whole slices, resident activations and passing ones; refused where a gate has no form.
#[test]
fn gated_products_have_the_bits_of_the_definition() {
    let shape = |m, n, k| Shape { m, n, k, scale: ScaleKind::PerTensor, bias: false, residual: false };
    let ways = ["m32 p2 l1", "m48 p2 pass l1", "m16 p4 l1", "m250 p2 l1", "m176 p4 pass l1"];
    for cores in [2, 5, 32] {
        let mut machine = machine("ascend950pr");
        machine.org.cores.value = cores;
        let mut ran = 0;
        for (shape, text) in [shape(70, 320, 1080), shape(250, 1216, 700), shape(17, 64, 200)]
            .into_iter()
            .flat_map(|shape| ways.map(|text| (shape, text)))
        {
            if let Some(product) = gated(&machine, shape, choice(text)) {
                check_together(&machine, &product, &format!("{cores} {shape:?} {text}"));
                ran += 1;
            }
        }
        assert!(ran >= 10, "{cores}: {ran} fit");
    }
    let machine = machine("ascend950pr");
    let fits = shape(70, 320, 1080);
    for shape in [
        Shape { n: 328, ..fits },
        Shape { scale: ScaleKind::PerRow, ..fits },
        Shape { bias: true, ..fits },
        Shape { residual: true, ..fits },
    ] {
        assert!(gated(&machine, shape, choice("m32 p2 l1")).is_none(), "{shape:?}");
    }
    for text in ["m32 p1 l1", "m32 p3 l1", "m32 p2", "stream i8 r16"] {
        assert!(gated(&machine, fits, choice(text)).is_none(), "{text}");
    }
    assert!(gated(&self::machine("ascend910b"), fits, choice("m32 p2")).is_none());
}

/// Weights through a ring: all cores and few, shares that differ, ragged panels and columns, several token rows and the
/// most there may be, every scale and addend; tiles of every size, whose slots are written again and are not,
/// and whose sums are scaled early and are not.
#[test]
fn streamed_products_have_the_bits_of_the_definition() {
    let shape = |m, n, k, scale, bias, residual| Shape { m, n, k, scale, bias, residual };
    let cases = [
        shape(1, 64, 128, ScaleKind::PerTensor, false, false),
        shape(1, 2576, 1420, ScaleKind::PerTensor, true, true),
        shape(2, 208, 300, ScaleKind::PerRow, false, true),
        shape(7, 1664, 1036, ScaleKind::PerRow, true, false),
        shape(16, 448, 640, ScaleKind::PerTensor, false, true),
        shape(1, 1216, 9000, ScaleKind::PerRow, true, true),
    ];
    for name in MACHINES {
        let machine = machine(name);
        let mut ran = 0;
        for shape in cases {
            let forms = ["i8 r16", "i8 r32", "i8 r64", "i4hl r16", "i4hl r32", "i4hl r64"];
            let forms = forms.into_iter().flat_map(|form| [form.to_owned(), format!("{form} early")]);
            for text in forms.flat_map(|form| [form.clone(), format!("{form} l1")]) {
                let fits = search::alone(&shape, choice(&format!("stream {text}")), &machine);
                if let Some(program) = fits {
                    check(&machine, shape, &program);
                    ran += 1;
                }
            }
        }
        // No four-bit cube; more rows than a fractal; more columns than L1 has room for; no tiles but the last.
        let least = if name == "ascend910b" { 30 } else { 31 };
        assert!(ran >= least, "{name}: {ran} fit");
    }
}

/// Streamed products of the same activations together: one, two and seven token rows, few groups and more than a product
/// has tiles, shares that end in one product and begin in another, within a core's tiles, too; scales and addends that one
/// has and others do not; output rows that are no multiple of the tile, which is then a smaller one.
#[test]
fn streamed_products_together_have_the_bits_of_the_definition() {
    let (tensor, row) = (ScaleKind::PerTensor, ScaleKind::PerRow);
    let cases = [
        ((1, 1420), [(1616, tensor, false, false), (48, tensor, false, false), (640, tensor, false, false)]),
        ((2, 300), [(1616, tensor, false, true), (48, row, true, false), (656, tensor, true, true)]),
        ((7, 1036), [(64, row, false, true), (2240, tensor, true, false), (192, row, false, true)]),
    ];
    for (name, cores) in MACHINES.into_iter().flat_map(|name| [2, 5, 24].map(|cores| (name, cores))) {
        let mut machine = machine(name);
        machine.org.cores.value = cores;
        let mut ran = 0;
        for ((m, k), parts) in cases {
            let parts = parts.map(|(n, scale, bias, residual)| Shape { m, n, k, scale, bias, residual });
            let forms = ["i8 r16", "i8 r64", "i4hl r16", "i4hl r32"];
            let forms = forms.into_iter().flat_map(|form| [form.to_owned(), format!("{form} early")]);
            for text in forms.flat_map(|form| [form.clone(), format!("{form} l1")]) {
                let Choice::Streamed(tile) = choice(&format!("stream {text}")) else { panic!("{text} is streamed") };
                let tile = Choice::Streamed(tile.dividing(&parts.map(|part| part.n)));
                if let Some(products) = together(&machine, (m, k), &parts, tile) {
                    check_together(&machine, &products, &format!("{name} {cores} {m} {tile}"));
                    ran += 1;
                }
            }
        }
        // No four-bit cube or no way to L1; no tiles but the last of many groups.
        assert!(ran >= 22, "{name} {cores}: {ran} fit");
    }
}

/// Percent of the int8 peak that chosen tiles reach on all cores with a warm L2: a regression gate a little below what
/// was measured.
const SHARES: &[(&str, [usize; 3], f64)] = &[
    ("ascend910b", [256, 2560, 2560], 38.5),
    ("ascend910b", [256, 6912, 2560], 53.5),
    ("ascend910b", [256, 2560, 6912], 50.5),
    ("ascend910b", [512, 6912, 2560], 63.5),
    ("ascend910b", [512, 14336, 4096], 71.0),
    ("ascend950pr", [256, 2560, 2560], 51.0),
    ("ascend950pr", [256, 6912, 2560], 73.0),
    ("ascend950pr", [256, 2560, 6912], 62.0),
    ("ascend950pr", [512, 6912, 2560], 82.5),
    ("ascend950pr", [512, 14336, 4096], 94.0),
];

#[test]
fn chosen_tiles_keep_their_share_of_the_peak() {
    let mut low = vec![];
    for (name, [m, n, k], least) in SHARES {
        let machine = machine(name);
        let (scale, bias, residual) = (ScaleKind::PerTensor, false, false);
        let shape = Shape { m: *m, n: *n, k: *k, scale, bias, residual };
        let choice = search::choose(&shape, &machine);
        let program = search::alone(&shape, choice, &machine).expect("it fits");
        let [cold, cycles] = [false, true].map(|warm| search::cycles(&program, &machine, warm).expect("it runs"));
        let peak = 100.0 * (m * n * k) as f64 / 8192.0 / f64::from(machine.cube_cores()) / cycles;
        let line =
            format!("{name} {m}x{n}x{k} {choice}: {cycles:.0} cycles, {peak:.1} % of peak; {cold:.0} with a cold L2");
        println!("{line}");
        if peak < *least {
            low.push(line);
        }
    }
    assert!(low.is_empty(), "{}", low.join("\n"));
}

/// Percent of what binds that a few token rows reach: L2, which unpacked weights pass twice and packed ones once, or the
/// memory behind it where weights go straight to L1. L2 is warm. A regression gate a little below what was measured
/// (`docs/matrix-mapping.md`). Columns: machine, cost table, [m, n, k], percent.
const DECODE: &[(&str, &str, [usize; 3], f64)] = &[
    ("ascend910b", "measured", [1, 6912, 2560], 83.5),
    ("ascend910b", "documented", [1, 6912, 2560], 84.0),
    ("ascend910b", "measured", [1, 2560, 2560], 65.5),
    ("ascend910b", "measured", [1, 2560, 6912], 69.0),
    ("ascend910b", "measured", [1, 14336, 4096], 90.5),
    ("ascend910b", "measured", [1, 4096, 14336], 76.0),
    ("ascend910b", "measured", [2, 6912, 2560], 82.0),
    ("ascend910b", "measured", [7, 6912, 2560], 80.5),
    ("ascend950pr", "measured", [1, 2560, 2560], 51.0),
    ("ascend950pr", "measured", [1, 6912, 2560], 69.5),
    ("ascend950pr", "documented", [1, 6912, 2560], 65.0),
    ("ascend950pr", "measured", [1, 14336, 4096], 81.0),
    ("ascend950pr", "measured", [8, 6912, 2560], 69.0),
];

#[test]
fn a_few_token_rows_keep_their_share_of_what_binds() {
    let mut low = vec![];
    for (name, costs, [m, n, k], least) in DECODE {
        let mut machine = machine(name);
        machine.vector.costs = (*costs).into();
        let (scale, bias, residual) = (ScaleKind::PerTensor, false, false);
        let shape = Shape { m: *m, n: *n, k: *k, scale, bias, residual };
        let choice = search::choose(&shape, &machine);
        let program = search::alone(&shape, choice, &machine).expect("it fits");
        let [cold, cycles] = [false, true].map(|warm| search::cycles(&program, &machine, warm).expect("it runs"));
        let unpacked = if machine.cube_mode(CubeType::S4).is_some() { 0.5 } else { 1.0 };
        let weights = (n * k) as f64;
        let least_cycles = weights * (0.25 + 2.0 * unpacked) / machine.l2_bytes_per_cycle().expect("a rate");
        let [of_l2, of_memory] = [least_cycles, weights / 4.0 / machine.hbm_bytes_per_cycle().expect("a rate")]
            .map(|least| 100.0 * least / cycles);
        let line = format!(
            "{name} {costs} {m}x{n}x{k} {choice}: {cycles:.0} cycles, {of_l2:.1} % of L2, {of_memory:.1} % of memory; {cold:.0} with a cold L2"
        );
        println!("{line}");
        let binding = if machine.path.ub_l1.is_some() { of_memory } else { of_l2 };
        if binding < *least {
            low.push(line);
        }
    }
    assert!(low.is_empty(), "{}", low.join("\n"));
}

/// Percent of the cycles of products by themselves that they take together with a warm L2: a regression gate a little above
/// what was measured. Columns: machine, token rows and columns, output rows, percent.
const TOGETHER: &[(&str, [usize; 2], &[usize], f64)] = &[
    ("ascend910b", [1, 2560], &[2560, 640, 640], 68.5),
    ("ascend910b", [1, 2560], &[6912, 6912], 94.0),
    ("ascend910b", [1, 4096], &[14336, 14336], 96.5),
    ("ascend950pr", [1, 2560], &[2560, 640, 640], 58.0),
    ("ascend950pr", [1, 2560], &[6912, 6912], 86.5),
    ("ascend950pr", [1, 4096], &[14336, 14336], 94.0),
    ("ascend910b", [512, 2560], &[2560, 640, 640], 77.5),
    ("ascend950pr", [512, 2560], &[2560, 640, 640], 75.5),
    ("ascend950pr", [512, 2560], &[6912, 6912], 91.0),
    ("ascend950pr", [512, 4096], &[14336, 14336], 98.5),
];

/// The same for a product that gates another, by itself: what its gate costs beside both without one.
const GATED: &[([usize; 3], f64)] = &[([512, 6912, 2560], 105.0), ([512, 14336, 4096], 101.0)];

#[test]
fn gates_cost_products_little() {
    let machine = machine("ascend950pr");
    for ([m, n, k], most) in GATED {
        let shape = Shape { m: *m, n: *n, k: *k, scale: ScaleKind::PerTensor, bias: false, residual: false };
        let of_each = search::choose(&shape, &machine);
        let apart = search::choose_together(&[(shape, of_each); 2], &machine).expect("they are faster together");
        let choice = search::choose_gated((&shape, of_each), Some(apart), &machine).expect("it is faster");
        let cycles = |program: Option<Program>| search::cycles(&program?, &machine, true);
        let products = together(&machine, (*m, *k), &[shape; 2], apart).map(|products| products.program);
        let [gated, products] =
            [search::gated(&shape, choice, &machine), products].map(|p| cycles(p).expect("it runs"));
        let percent = 100.0 * gated / products;
        println!("{m}x{n}x{k} {choice}: {gated:.0} cycles, {products:.0} with {apart} and no gate, {percent:.1} %");
        assert!(percent < *most, "{m}x{n}x{k}: {percent:.1} %");
    }
}

#[test]
fn products_are_faster_together() {
    let mut slow = vec![];
    for (name, [m, k], n, most) in TOGETHER {
        let machine = machine(name);
        let shape = |n: &usize| {
            let (scale, bias, residual) = (ScaleKind::PerTensor, false, false);
            Shape { m: *m, n: *n, k: *k, scale, bias, residual }
        };
        let parts: Vec<Shape> = n.iter().map(shape).collect();
        let cycles = |program: &Program| search::cycles(program, &machine, true).expect("it runs");
        let choices: Vec<Choice> = parts.iter().map(|part| search::choose(part, &machine)).collect();
        let alone = parts.iter().zip(&choices).map(|(part, choice)| search::alone(part, *choice, &machine));
        let alone: f64 = alone.map(|program| cycles(&program.expect("it fits"))).sum();
        let chosen: Vec<(Shape, Choice)> = parts.iter().copied().zip(choices).collect();
        let tile = search::choose_together(&chosen, &machine).expect("they are faster together");
        let all = cycles(&together(&machine, (*m, *k), &parts, tile).expect("it fits").program);
        let percent = 100.0 * all / alone;
        let line = format!("{name} {m}x{n:?}x{k} {tile}: {all:.0} cycles, {alone:.0} alone, {percent:.1} %");
        println!("{line}");
        if percent > *most {
            slow.push(line);
        }
    }
    assert!(slow.is_empty(), "{}", slow.join("\n"));
}
