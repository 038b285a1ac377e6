//! Kernels over token rows on simulated matrix units: bits of the ops' definitions, for every count of rows and for ragged
//! widths, on one core and on several, with the checker on; and cycles.

use tcc_backends::isa::matrix::lower::emit::Emit;
use tcc_backends::isa::matrix::lower::matmul::tile::Mode;
use tcc_backends::isa::matrix::lower::model::memories;
use tcc_backends::isa::matrix::lower::vector::quantize::{Before, quantize};
use tcc_backends::isa::matrix::lower::vector::rope::rope;
use tcc_backends::isa::matrix::lower::vector::{Place, Sharing, Tables, UbTooSmall, cache, rows};
use tcc_backends::isa::matrix::machine::preset::preset;
use tcc_backends::isa::matrix::machine::{Machine, OrganisationKind};
use tcc_backends::isa::matrix::program::builder::ProgramBuilder;
use tcc_backends::isa::matrix::program::{CoreKind, Program, SymbolId, SymbolKind};
use tcc_backends::isa::matrix::sim::memory::Gm;
use tcc_backends::isa::matrix::sim::{self, Options};
use tcc_ir::cache::{CacheLayout, CacheOrder};
use tcc_ir::ops::{Act, Op};
use tcc_ir::tensor::{Data, Tensor};
use tcc_ir::ty::{DType, ValueType};
use tcc_tests::random::Rng;
use tcc_tests::strips::strips;

/// One core, eight, and 48 of a split machine.
const MACHINES: [&str; 3] = ["kirinx90", "ascend310p", "ascend910b"];

/// Widths: below a set of partial sums; whole blocks and ragged ones on both sides of 255 blocks, which is what rows may be
/// apart in one instruction; and those of which UB of 128 KiB holds eight rows in two pieces, four in four, whose weights
/// pass through slots, and one.
const WIDTHS: [usize; 9] = [12, 100, 640, 2040, 2059, 2560, 6900, 6912, 14336];

/// Token rows: one, those of a run, and runs with a ragged one behind.
const FEW: [usize; 4] = [1, 5, 8, 19];

fn machine(name: &str) -> Machine {
    preset(name).expect("a preset").expect("it parses")
}

/// An operand: bytes of an array, or of a result.
type Operand<'a> = (&'a str, Vec<u8>);

/// The kernel that `write` writes, over `operands`.
fn program(
    machine: &Machine,
    operands: &[Operand],
    write: impl FnOnce(&mut Emit, &[Place], (&Tables, usize)) -> Result<Sharing, UbTooSmall>,
) -> (Program, Vec<SymbolId>) {
    let mut builder = ProgramBuilder::new("rows", machine);
    let symbol = |(name, bytes): &Operand| builder.symbol(name, SymbolKind::State, bytes.len() as u64, "bytes");
    let symbols: Vec<SymbolId> = operands.iter().map(symbol).collect();
    let places: Vec<Place> = symbols.iter().map(|symbol| (*symbol, 0)).collect();
    let tables = Tables::new(|name, bytes, ty| builder.constant(name, bytes, ty));
    let mut e = Emit::default();
    e.op = builder.op("rows");
    let (kind, cores) = match machine.org.kind {
        OrganisationKind::Coupled => (CoreKind::Coupled, machine.cube_cores()),
        OrganisationKind::Split => (CoreKind::Vector, machine.vector_cores()),
    };
    let (cores, start) = write(&mut e, &places, (&tables, cores as usize)).expect("it fits");
    builder.stage("rows", vec![e.stream(kind, cores, start)]);
    (builder.finish().expect("it verifies"), symbols)
}

/// What the operands are after the kernel ran.
fn run(
    what: &str,
    machine: &Machine,
    operands: &[Operand],
    write: impl FnOnce(&mut Emit, &[Place], (&Tables, usize)) -> Result<Sharing, UbTooSmall>,
) -> Vec<Vec<u8>> {
    let (program, symbols) = program(machine, operands, write);
    let mut gm = Gm::new(&program);
    for (symbol, (_, bytes)) in symbols.iter().zip(operands) {
        gm.bytes_mut(*symbol)[..bytes.len()].copy_from_slice(bytes);
    }
    let options = Options { functional: true, check: true, ..Options::default() };
    let report = sim::run(&program, machine, &mut gm, options).unwrap_or_else(|e| panic!("{what}: {e}"));
    let found: Vec<String> = report.violations.iter().take(3).map(ToString::to_string).collect();
    assert!(found.is_empty(), "{what}: {found:?}");
    symbols.iter().zip(operands).map(|(symbol, (_, bytes))| gm.bytes(*symbol)[..bytes.len()].to_vec()).collect()
}

fn bytes(x: &Tensor) -> Vec<u8> {
    x.as_f32().iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Rows whose sizes differ by powers of ten, the second one zeros of both signs.
fn random(m: usize, k: usize, rng: &mut Rng) -> Tensor<'static> {
    let mut data = Vec::with_capacity(m * k);
    for row in 0..m {
        let scale = [1.0, 0.0, 1e-4, 1e3][row % 4];
        data.extend((0..k).map(|_| rng.f32() * scale));
    }
    Tensor::f32(&[m, k], data)
}

/// What stands before a quantizer: nothing, a norm, either gate, and both.
const BEFORE: [(Option<Act>, bool); 6] = [
    (None, false),
    (None, true),
    (Some(Act::Relu2), false),
    (Some(Act::Silu), false),
    (Some(Act::Relu2), true),
    (Some(Act::Silu), true),
];

/// Quantizes `m` random rows of `k` elements behind a gate and a norm, and compares codes and scales.
fn check_quantize(machine: &Machine, (m, k): (usize, usize), mode: Mode, (act, has_norm): (Option<Act>, bool)) {
    let what = format!("{} {m} rows of {k}, {}, {act:?}, norm {has_norm}", machine.name, mode.name());
    let mut rng = Rng::named(&what);
    let eps = 1e-5;
    let (x, u) = (random(m, k, &mut rng), random(m, k, &mut rng));
    let w = rng.tensor(&ValueType::f32(&[k]));
    let want = match (act, has_norm) {
        (None, false) => Op::QuantizeAct.eval(&[&x]),
        (None, true) => Op::NormQuant { eps }.eval(&[&x, &w]),
        (Some(act), false) => Op::GluQuant { act }.eval(&[&x, &u]),
        (Some(act), true) => Op::GluNormQuant { act, eps }.eval(&[&x, &u, &w]),
    };
    let codes = strips(want[0].as_i8(), (m, k), mode);
    let operands = [
        ("x", bytes(&x)),
        ("u", bytes(&u)),
        ("w", bytes(&w)),
        ("q", vec![0; codes.len()]),
        ("act_scale", vec![0; 4 * m]),
    ];
    let found = run(&what, machine, &operands, |e, p, shared| {
        let before = match (act, has_norm) {
            (None, false) => Before::Nothing,
            (None, true) => Before::Norm { eps, w: p[2] },
            (Some(act), false) => Before::Glu { act, u: p[1] },
            (Some(act), true) => Before::GluNorm { act, u: p[1], eps, w: p[2] },
        };
        quantize(e, memories(machine).ub, (m, k, mode), before, [p[0], p[3], p[4]], shared)
    });
    assert!(found[4] == bytes(&want[1]), "{what}: other scales");
    assert!(found[3] == codes, "{what}: other codes");
}

#[test]
fn quantized_rows_have_the_bits_of_the_definition() {
    for name in MACHINES {
        let machine = machine(name);
        for before in BEFORE {
            let widths = WIDTHS.into_iter().filter(|k| before == (None, true) || [100, 2059, 6900, 14336].contains(k));
            for (k, m) in widths.flat_map(|k| FEW.map(|m| (k, m))) {
                let mode = Mode::ALL[(m + k) % 2];
                check_quantize(&machine, (m, k), mode, before);
            }
        }
    }
}

/// Every count of rows up to two runs, in either mode.
#[test]
fn every_count_of_rows_has_the_bits_of_the_definition() {
    for (name, mode) in ["kirinx90", "ascend310p"].into_iter().zip(Mode::ALL) {
        for (m, k) in (1..=16).chain([37]).flat_map(|m| [(m, 2059), (m, 2560)]) {
            check_quantize(&machine(name), (m, k), mode, (None, true));
        }
        for m in (1..=9).chain([37]) {
            check_quantize(&machine(name), (m, 3001), mode, (Some(Act::Relu2), true));
        }
    }
    // Eight rows in three pieces that are as wide as strides allow.
    check_quantize(&machine("ascend950pr"), (13, 6016), Mode::I8, (Some(Act::Relu2), true));
}

#[test]
fn norms_and_pairs_have_the_bits_of_the_definition() {
    let eps = 1e-6;
    for name in MACHINES {
        let machine = machine(name);
        let ub = memories(&machine).ub;
        for (k, m) in WIDTHS.into_iter().flat_map(|k| [1, 5, 16, 19].map(|m| (k, m))) {
            let what = format!("{name} {m} rows of {k}");
            let mut rng = Rng::named(&what);
            let (x, y) = (random(m, k, &mut rng), random(m, k, &mut rng));
            let w = rng.tensor(&ValueType::f32(&[k]));
            let operands = [("x", bytes(&x)), ("y", bytes(&y)), ("w", bytes(&w)), ("out", vec![0; 4 * m * k])];
            let want = Op::RmsNorm { eps }.eval(&[&x, &w]);
            let norm = run(&what, &machine, &operands, |e, p, shared| {
                rows::norm(e, ub, (m, k, eps), [p[0], p[2], p[3]], shared)
            });
            assert!(norm[3] == bytes(&want[0]), "{what}: another norm");
            for act in [None, Some(Act::Relu2), Some(Act::Silu)] {
                let op = act.map_or(Op::Add, |act| Op::Glu { act });
                let pairs = run(&what, &machine, &operands, |e, p, (_, cores)| {
                    rows::pairs(e, ub, act, m * k, [p[0], p[1], p[3]], cores)
                });
                assert!(pairs[3] == bytes(&op.eval(&[&x, &y])[0]), "{what}: {act:?}");
            }
        }
    }
}

/// Heads of sizes that fill repeats and blocks and that do not, fewer and more of them than rows of a run.
#[test]
fn rotated_rows_have_the_bits_of_the_definition() {
    for name in MACHINES {
        let machine = machine(name);
        for (m, heads, d) in
            [(1, 20, 128), (8, 5, 128), (70, 3, 128), (70, 33, 100), (41, 4, 18), (9, 2, 192), (3, 1, 2)]
        {
            let (what, pos) = (format!("{name} {m} rows of {heads} heads of {d}"), 7);
            let mut rng = Rng::named(&what);
            let x = random(m, heads * d, &mut rng);
            let [cos, sin] = [0, 1].map(|_| rng.tensor(&ValueType::f32(&[m + pos as usize, d / 2])));
            let position = Tensor { shape: vec![1], data: Data::U32(vec![pos].into()) };
            let want = Op::Rope.eval(&[&x, &cos, &sin, &position]);
            let operands =
                [("x", bytes(&x)), ("cos", bytes(&cos)), ("sin", bytes(&sin)), ("pos", pos.to_le_bytes().to_vec())];
            // In place, as plans have it.
            let found = run(&what, &machine, &operands, |e, p, (_, cores)| {
                rope(e, memories(&machine).ub, (m, heads, d), [p[0], p[1], p[2], p[0], p[3]], cores)
            });
            assert!(found[0] == bytes(&want[0]), "{what}: other bits");
        }
    }
}

/// Rows of keys and values go where attention reads them: positions of a head follow each other, and the elements of each
/// block of a key lie in the order that the unit's sums want. All else in the cache stays as it was.
#[test]
fn cached_rows_have_the_bits_of_the_definition() {
    for (name, dtype) in MACHINES.into_iter().flat_map(|name| [DType::F32, DType::F16, DType::Q8].map(|ty| (name, ty)))
    {
        for (m, heads, d) in [(1, 5, 128), (8, 2, 64), (21, 5, 128), (19, 3, 49), (17, 2, 200)] {
            check_cache(&machine(name), CacheLayout { heads, ctx: m + 5, d, dtype }, m, 3);
        }
    }
}

/// Eight positions of a head share a block of scales, which has one writer: runs of rows that begin and end anywhere in
/// one, of every number of blocks up to several; heads that fill blocks, that do not, and that are not stored side by side;
/// more heads than are done together, and heads of which UB holds a few rows.
#[test]
fn cached_codes_have_the_bits_of_the_definition() {
    const HEADS: [(usize, usize); 6] = [(5, 128), (2, 64), (3, 49), (2, 62), (3, 40), (1, 96)];
    for name in ["kirinx90", "ascend310p", "ascend910b", "ascend950pr"] {
        let machine = machine(name);
        let check = |m: usize, pos: usize, (heads, d): (usize, usize)| {
            check_cache(&machine, CacheLayout { heads, ctx: pos + m + 11, d, dtype: DType::Q8 }, m, pos);
        };
        for (i, m) in [1, 2, 3, 5, 7, 8, 9, 15, 16, 24, 37, 64].into_iter().enumerate() {
            for pos in [0, 1, 3, 7, 8, 12, 21] {
                check(m, pos, HEADS[(i + pos) % HEADS.len()]);
            }
            check(m, 5, HEADS[0]);
        }
        for (m, pos, heads, d) in [(9, 3, 40, 128), (20, 6, 3, 1000), (11, 2, 1, 2016), (2, 6, 33, 128)] {
            check(m, pos, (heads, d));
        }
    }
}

/// Writes `m` random rows at positions `pos ..` of a cache that holds other ones, in both orders, and compares all of it.
fn check_cache(machine: &Machine, layout: CacheLayout, m: usize, pos: usize) {
    const ORDER: [usize; 8] = [0, 4, 2, 6, 1, 5, 3, 7];
    let CacheLayout { heads, ctx, d, dtype } = layout;
    for order in [CacheOrder::Keys, CacheOrder::Values] {
        let what = format!("{} {m} rows of {heads} heads of {d} at {pos}, {dtype}, {order:?}", machine.name);
        let mut rng = Rng::named(&what);
        let x = random(m, heads * d, &mut rng);
        let [position, valid] = [pos, m].map(|n| Tensor { shape: vec![1], data: Data::U32(vec![n as u32].into()) });
        let written = &Op::KvWrite.eval(&[&zeros(dtype, [heads, ctx, d]), &x, &position, &valid])[0];
        let before: Vec<u8> = (0..layout.bytes()).map(|_| rng.below(256) as u8).collect();
        let mut want = before.clone();
        let turned = order == CacheOrder::Keys && d % 8 == 0 && dtype != DType::Q8;
        for (head, t) in (0..heads).flat_map(|head| (pos..pos + m).map(move |t| (head, t))) {
            let run = head * ctx + t;
            for i in 0..d {
                let from = if turned { i / 8 * 8 + ORDER[i % 8] } else { i };
                let size = layout.element_bytes();
                let at = head * layout.head_bytes() + t * layout.row_bytes() + size * i;
                want[at..at + size].copy_from_slice(&element(written, run * d + from)[..size]);
            }
            if let Data::Q8(_, scales) = &written.data {
                let at = layout.scales_offset_bytes() + 4 * (head * layout.positions() + t);
                want[at..at + 4].copy_from_slice(&scales[run].to_le_bytes());
            }
        }
        let operands = [("x", bytes(&x)), ("cache", before), ("pos", (pos as u32).to_le_bytes().to_vec())];
        let found = run(&what, machine, &operands, |e, p, shared| {
            cache::kv_write(e, memories(machine).ub, m, (layout, order), [p[0], p[1], p[2]], shared)
        });
        let other = found[1].iter().zip(&want).position(|(found, want)| found != want);
        assert_eq!(other, None, "{what}: the first other byte, scales are from {} on", layout.scales_offset_bytes());
    }
}

fn zeros(dtype: DType, shape: [usize; 3]) -> Tensor<'static> {
    let [heads, ctx, d] = shape;
    let n = heads * ctx * d;
    let data = match dtype {
        DType::F32 => Data::F32(vec![0.0; n].into()),
        DType::F16 => Data::F16(vec![0; n].into()),
        _ => Data::Q8(vec![0; n].into(), vec![0.0; heads * ctx].into()),
    };
    Tensor { shape: shape.to_vec(), data }
}

/// The bytes of an element of a cache, and zeros.
fn element(cache: &Tensor, index: usize) -> [u8; 4] {
    match &cache.data {
        Data::F32(x) => x[index].to_le_bytes(),
        Data::F16(x) => u32::from(x[index]).to_le_bytes(),
        Data::Q8(x, _) => u32::from(x[index] as u8).to_le_bytes(),
        other => unreachable!("no cache holds {other:?}"),
    }
}

/// Cycles of a row of a layer of BitNet 2B-4T on kirinx90, of 512: a regression gate a little above what was measured.
#[test]
fn cycles_of_a_row_stay_low() {
    let machine = machine("kirinx90");
    let (ub, m, eps) = (memories(&machine).ub, 512, 1e-5);
    let operand = |name, bytes| (name, vec![0; bytes]);
    let operands = |k: usize| {
        let rows = 4 * m * k;
        [operand("x", rows), operand("u", rows), operand("w", 4 * k), operand("q", m * k), operand("scale", 4 * m)]
    };
    let norm = program(&machine, &operands(2560), |e, p, shared| {
        quantize(e, ub, (m, 2560, Mode::I8), Before::Norm { eps, w: p[2] }, [p[0], p[3], p[4]], shared)
    });
    let gate = program(&machine, &operands(6912), |e, p, shared| {
        let before = Before::GluNorm { act: Act::Relu2, u: p[1], eps, w: p[2] };
        quantize(e, ub, (m, 6912, Mode::I8), before, [p[0], p[3], p[4]], shared)
    });
    let cache = |order: CacheOrder| {
        let layout = CacheLayout { heads: 5, ctx: m, d: 128, dtype: DType::Q8 };
        let operands = [operand("x", 4 * m * 5 * 128), operand("cache", layout.bytes()), operand("pos", 4)];
        program(&machine, &operands, |e, p, shared| {
            cache::kv_write(e, ub, m, (layout, order), [p[0], p[1], p[2]], shared)
        })
    };
    let (keys, values) = (cache(CacheOrder::Keys), cache(CacheOrder::Values));
    let gated =
        [("norm", norm, 600.0), ("gate and norm", gate, 2700.0), ("keys", keys, 140.0), ("values", values, 140.0)];
    for (name, (program, _), gate) in gated {
        let report = sim::run(&program, &machine, &mut Gm::for_timing(&program), Options::default()).expect("it runs");
        let core = &report.stages[0].cores[0];
        let cycles = core.cycles / m as f64;
        println!("{name}: {cycles:.0} cycles a row");
        assert!(cycles < gate, "{name}: {cycles:.0} cycles a row");
    }
}
