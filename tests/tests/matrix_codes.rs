//! Attention over int8 caches on simulated matrix units: bits of the op's definition, with the checker on, where sums are
//! longest, heads ragged and positions many.

use tcc_backends::isa::matrix::lower::attention::Attention;
use tcc_backends::isa::matrix::machine::Machine;
use tcc_backends::isa::matrix::machine::preset::{PRESETS, preset};
use tcc_backends::isa::matrix::sim::memory::Gm;
use tcc_backends::isa::matrix::sim::{self, Options};
use tcc_ir::cache::CacheLayout;
use tcc_ir::ops::Op;
use tcc_ir::tensor::{Data, Tensor};
use tcc_ir::ty::DType;
use tcc_tests::attention;
use tcc_tests::random::Rng;

/// Token rows behind positions, query and KV heads and their elements, positions of the cache.
#[derive(Clone, Copy, Debug)]
struct Shape {
    m: usize,
    pos: usize,
    heads: usize,
    kv_heads: usize,
    d: usize,
    ctx: usize,
}

/// What queries and the cache hold.
#[derive(Clone, Copy, Debug)]
enum Content {
    Random,
    /// The largest codes of queries against the smallest of keys, weights that are all the same, and values near the
    /// smallest: the longest sums, odd and even.
    Largest,
}

/// The query, keys and values.
fn operands(shape: Shape, content: Content, rng: &mut Rng) -> [Tensor<'static>; 3] {
    let Shape { m, heads, kv_heads, d, ctx, .. } = shape;
    let rows = kv_heads * ctx;
    let mut cache = |codes: &mut dyn FnMut(&mut Rng) -> i8, scale: &mut dyn FnMut(&mut Rng) -> f32| {
        let codes = (0..rows * d).map(|_| codes(rng)).collect();
        let scales = (0..rows).map(|_| scale(rng)).collect();
        Tensor { shape: vec![kv_heads, ctx, d], data: Data::Q8(codes, scales) }
    };
    let any = &mut |rng: &mut Rng| rng.next_u64() as i8;
    let (k, v) = match content {
        Content::Random => {
            (cache(any, &mut |rng| rng.f32().abs() / 64.0), cache(any, &mut |rng| rng.f32().abs() / 8.0))
        }
        Content::Largest => {
            (cache(&mut |_| -128, &mut |_| 1e-3), cache(&mut |rng| -128 + rng.below(4) as i8, &mut |_| 0.5))
        }
    };
    let q = match content {
        Content::Random => (0..m * heads * d).map(|_| rng.f32()).collect(),
        Content::Largest => vec![-1.5; m * heads * d],
    };
    [Tensor::f32(&[m, heads * d], q), k, v]
}

/// The cache as it lies in global memory. Behind position `seen` there are other codes, and scales that are no numbers.
fn laid_out(cache: &Tensor, layout: &CacheLayout, seen: usize) -> Vec<u8> {
    let Data::Q8(codes, scales) = &cache.data else { panic!("an int8 cache") };
    let (d, ctx) = (layout.d, layout.ctx);
    let mut bytes = vec![0xa5; layout.bytes() + 4 * 64 * layout.row_bytes()];
    for (head, t) in (0..layout.heads).flat_map(|head| (0..ctx).map(move |t| (head, t))) {
        let row = head * layout.head_bytes() + t * layout.row_bytes();
        let scale = layout.scales_offset_bytes() + 4 * (head * layout.positions() + t);
        let value = if t < seen { scales[head * ctx + t] } else { f32::NAN };
        bytes[scale..scale + 4].copy_from_slice(&value.to_le_bytes());
        for i in (0..d).filter(|_| t < seen) {
            bytes[row + i] = codes[(head * ctx + t) * d + i] as u8;
        }
    }
    bytes
}

/// Runs attention on `machine`, and compares with the definition.
fn check(machine: &Machine, shape: Shape, content: Content) {
    let what = format!("{} {shape:?} {content:?}", machine.name);
    let Shape { m, pos, heads, kv_heads, d, ctx } = shape;
    let [q, k, v] = operands(shape, content, &mut Rng::named(&what));
    let position = Tensor { shape: vec![1], data: Data::U32(vec![pos as u32].into()) };
    let scale = 0.1;
    let want = Op::Attention { heads, scale }.eval(&[&q, &k, &v, &position]);
    let layout = CacheLayout { heads: kv_heads, ctx, d, dtype: DType::Q8 };
    let a = Attention { m, heads, cache: layout, scale };
    let [k, v] = [&k, &v].map(|cache| laid_out(cache, &layout, pos + m));
    let q: Vec<u8> = q.as_f32().iter().flat_map(|x| x.to_le_bytes()).collect();
    let of = attention::program(machine, &a).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut gm = Gm::new(&of.program);
    let position = (pos as u32).to_le_bytes();
    for (place, bytes) in [(of.q, &q[..]), (of.k, &k), (of.v, &v), (of.pos, &position)] {
        gm.bytes_mut(place.0)[..bytes.len()].copy_from_slice(bytes);
    }
    let options = Options { functional: true, check: true, ..Options::default() };
    let report = sim::run(&of.program, machine, &mut gm, options).unwrap_or_else(|e| panic!("{what}: {e}"));
    let found: Vec<String> = report.violations.iter().take(3).map(ToString::to_string).collect();
    assert!(found.is_empty(), "{what}: {found:?}");
    let got = gm.bytes(of.out.0)[..q.len()].chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]]));
    for (i, (got, want)) in got.zip(want[0].as_f32()).enumerate() {
        let (row, head) = (i / (heads * d), i / d % heads);
        assert!(got.to_bits() == want.to_bits(), "{what}: {got} instead of {want} in head {head} of row {row}");
    }
}

fn machine(name: &str) -> Machine {
    preset(name).expect("a preset").expect("it parses")
}

/// Few queries and many, and no more positions than whole weights have.
#[test]
fn every_preset_has_the_bits_of_the_definition() {
    let shapes = [(1, 9, 4, 2, 64, 40), (9, 20, 4, 1, 40, 40), (40, 3, 4, 2, 64, 64), (33, 1000, 2, 1, 16, 1040)];
    for (name, _) in PRESETS {
        for (m, pos, heads, kv_heads, d, ctx) in shapes {
            check(&machine(name), Shape { m, pos, heads, kv_heads, d, ctx }, Content::Random);
        }
    }
}

/// Heads below a block, of odd sizes, and with more elements than are summed together; one query, few and many.
#[test]
fn ragged_and_large_heads_have_the_bits_of_the_definition() {
    for (index, d) in [1, 5, 30, 49, 100, 130, 200, 264, 392].into_iter().enumerate() {
        let name = ["kirinx90", "ascend310p", "ascend910b"][index % 3];
        for (m, pos) in [(1, 17), (7, 0), (26, 9)] {
            check(&machine(name), Shape { m, pos, heads: 3, kv_heads: 1, d, ctx: 48 }, Content::Random);
        }
        check(&machine(name), Shape { m: 25, pos: 0, heads: 1, kv_heads: 1, d, ctx: 1100 }, Content::Largest);
    }
}

#[test]
fn many_heads_have_the_bits_of_the_definition() {
    for (heads, kv_heads) in [(64, 1), (71, 1), (96, 32), (20, 5)] {
        for (m, ctx) in [(1, 130), (3, 40), (3, 1100)] {
            check(&machine("ascend310p"), Shape { m, pos: 30, heads, kv_heads, d: 24, ctx }, Content::Random);
        }
    }
}

/// Sums of 1024 positions, which whole weights may have, and of more, whose planes are rounded.
#[test]
fn the_longest_sums_have_the_bits_of_the_definition() {
    for content in [Content::Largest, Content::Random] {
        for (m, pos, ctx) in [(30, 994, 1024), (30, 995, 1025), (26, 1974, 2000), (1, 1023, 1024), (1, 4099, 4100)] {
            check(&machine("kirinx90"), Shape { m, pos, heads: 2, kv_heads: 1, d: 16, ctx }, content);
        }
    }
}

/// Many queries on every cube: the longest sums, ragged heads, ragged rows, tiles of two sizes.
#[test]
fn cubes_have_the_bits_of_the_definition() {
    for machine in PRESETS.iter().map(|(name, _)| machine(name)) {
        for (m, pos, d, ctx) in [(30, 994, 16, 1025), (29, 30, 49, 64), (27, 5, 100, 40), (64, 0, 128, 64)] {
            for content in [Content::Largest, Content::Random] {
                check(&machine, Shape { m, pos, heads: 3, kv_heads: 1, d, ctx }, content);
            }
        }
    }
}

/// Caches with more positions than L1 has room for values.
#[test]
fn long_caches_have_the_bits_of_the_definition() {
    for name in ["ascend910b", "ascend950pr"] {
        for (m, pos) in [(1, 2100), (1, 63), (7, 120), (40, 2000)] {
            check(&machine(name), Shape { m, pos, heads: 8, kv_heads: 2, d: 128, ctx: 8192 }, Content::Random);
        }
    }
}

/// Heads whose rows are as far apart as blocks of one instruction may be.
#[test]
fn the_largest_heads_have_the_bits_of_the_definition() {
    for (name, d) in [("ascend310p", 2016), ("ascend310b", 2010), ("ascend950pr", 1050)] {
        for (m, pos, content) in [(1, 40, Content::Random), (2, 3, Content::Largest)] {
            check(&machine(name), Shape { m, pos, heads: 2, kv_heads: 1, d, ctx: 48 }, content);
        }
    }
}

/// Few token rows over long caches: positions cut in pieces, of which some are empty, one core's or many cores', with units
/// that only some rows see; heads of whole strips and others, and one KV head, whose heads may be ragged.
#[test]
fn pieces_have_the_bits_of_the_definition() {
    // Five heads are hardly fewer than eight cores.
    for (name, ctx) in [("ascend910b", 2048), ("ascend950pr", 2048), ("ascend310p", 8192)] {
        for (m, pos) in [(1, 0), (1, 63), (1, 64), (1, 700), (1, 2015), (3, 62), (3, 126), (3, 1500), (8, 1020)] {
            let shape = Shape { m, pos, heads: 10, kv_heads: 5, d: 32, ctx };
            check(&pieces(name, shape), shape, Content::Random);
        }
        for (m, pos, heads, kv_heads, d, ctx) in [
            (3, 255, 20, 5, 128, ctx - 9),
            (1, 4000, 8, 2, 128, 16384),
            (1, 1100, 6, 2, 72, 1111),
            (2, 190, 9, 3, 40, 4000),
        ] {
            let shape = Shape { m, pos, heads, kv_heads, d, ctx };
            check(&pieces(name, shape), shape, Content::Random);
        }
        for (m, pos, heads, d) in [(1, 200, 1, 5), (3, 1027, 3, 100), (2, 639, 20, 30), (1, 1038, 5, 16)] {
            let shape = Shape { m, pos, heads, kv_heads: 1, d, ctx: 1041 };
            for content in [Content::Largest, Content::Random] {
                check(&pieces(name, shape), shape, content);
            }
        }
    }
}

/// The machine, on which the positions of `shape` are cut.
fn pieces(name: &str, shape: Shape) -> Machine {
    let Shape { m, heads, kv_heads, d, ctx, .. } = shape;
    let machine = machine(name);
    let cache = CacheLayout { heads: kv_heads, ctx, d, dtype: DType::Q8 };
    let of = attention::program(&machine, &Attention { m, heads, cache, scale: 0.1 });
    // What cores that meet differ in is a constant.
    let meets = of.expect("it fits").program.symbols.iter().any(|symbol| symbol.name == "cores");
    assert!(meets, "{name}: {shape:?} is not cut");
    machine
}
