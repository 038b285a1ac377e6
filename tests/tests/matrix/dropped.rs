//! Lowered programs, each kind of step on each machine: without any one of their flags the checker fires.

use std::collections::BTreeMap;

use tcc::arch::BuildOptions;
use tcc::driver;
use tcc::load::{self, LoadOptions};
use tcc::matrix::inspect::kind_of;
use tcc::matrix::tiles::Product;
use tcc::matrix::{self, Compiled, MatrixOptions};
use tcc_backends::isa::matrix::desc::MENU;
use tcc_backends::isa::matrix::lower::attention::Attention;
use tcc_backends::isa::matrix::lower::matmul::{search as coupled, tile};
use tcc_backends::isa::matrix::lower::split::search::{self, Shape};
use tcc_backends::isa::matrix::machine::Machine;
use tcc_backends::isa::matrix::machine::preset::{PRESETS, preset};
use tcc_backends::isa::matrix::program::addr::Queue;
use tcc_backends::isa::matrix::program::inst::{FlagId, Inst, Order};
use tcc_backends::isa::matrix::program::{Constant, Program, Record, Stage, SymbolKind};
use tcc_backends::isa::matrix::sim::memory::Gm;
use tcc_backends::isa::matrix::sim::{Options, SimError, run};
use tcc_ir::cache::CacheLayout;
use tcc_ir::encoding::Encoding;
use tcc_ir::kernel::ScaleKind;
use tcc_ir::ty::DType;
use tcc_tests::attention;
use tcc_tests::oracle::fixture;
use tcc_tests::products::{gated, together};

/// The first step of each kind of `program`, alone, with the cores that have a part in it: what other steps leave in
/// global memory is taken as defined.
fn steps(program: &Program) -> BTreeMap<String, Program> {
    let mut found = BTreeMap::new();
    for stage in &program.stages {
        for op in 0..program.ops.len() as u16 {
            let mut alone = stage.clone();
            for stream in &mut alone.streams {
                let halt = stream.records.pop();
                stream.records.retain(|r| r.op == op);
                stream.records.extend(halt);
            }
            alone.streams.retain(|s| s.records.len() > 1);
            if !alone.streams.is_empty() {
                let kind = kind_of(&program.ops[usize::from(op)]).to_owned();
                found.entry(kind).or_insert_with(|| with_stage(program, alone));
            }
        }
    }
    found
}

fn with_stage(program: &Program, stage: Stage) -> Program {
    let mut symbols = program.symbols.clone();
    symbols.iter_mut().filter(|s| s.kind == SymbolKind::Scratch).for_each(|s| s.kind = SymbolKind::State);
    Program { symbols, stages: vec![stage], ..program.clone() }
}

/// What the checker finds, or the fault that ends the run.
pub fn findings(program: &Program, machine: &Machine) -> Vec<String> {
    let options = Options { check: true, max_records: 10_000_000, ..Options::default() };
    match run(program, machine, &mut Gm::for_timing(program), options) {
        Ok(report) => report.violations.iter().map(ToString::to_string).collect(),
        Err(SimError::Fault(fault)) => vec![fault.to_string()],
        Err(error) => panic!("{error}"),
    }
}

fn is_flag(record: &Record) -> bool {
    matches!(
        record.inst,
        Inst::Order(Order::Set { .. } | Order::Wait { .. } | Order::XSet { .. } | Order::XWait { .. })
    )
}

/// True if a record is ever reached: bodies of loops that no core enters are not.
fn runs(program: &Program, (stream, index): (usize, usize), machine: &Machine) -> bool {
    let mut faulty = program.clone();
    let queue = program.stages[0].streams[stream].records[index].inst.queue();
    // No machine gives programs the last flag.
    let other = if queue == Queue::S { Queue::Mte2 } else { Queue::S };
    faulty.stages[0].streams[stream].records[index].inst =
        Inst::Order(Order::Set { src: queue, dst: other, id: FlagId::Fixed(7) });
    !findings(&faulty, machine).is_empty()
}

/// Drops every record of a kind of every step, one at a time: how many there are, and how many nothing fires without.
fn drop_each(program: &Program, machine: &Machine, is_kind: fn(&Record) -> bool) -> (usize, Vec<String>) {
    drop_some(program, machine, is_kind, (0, 1))
}

/// [`drop_each`] of every `every`th record, from number `first` on.
fn drop_some(
    program: &Program,
    machine: &Machine,
    is_kind: fn(&Record) -> bool,
    (first, every): (usize, usize),
) -> (usize, Vec<String>) {
    drop_of(steps(program), program, machine, is_kind, (first, every))
}

/// [`drop_some`] of some of the steps of `program`.
fn drop_of(
    steps: BTreeMap<String, Program>,
    program: &Program,
    machine: &Machine,
    is_kind: fn(&Record) -> bool,
    (first, every): (usize, usize),
) -> (usize, Vec<String>) {
    let (mut dropped, mut silent, mut seen) = (0, vec![], 0);
    for (kind, step_program) in steps {
        let at = format!("{} {} {kind}", machine.name, program.name);
        assert_eq!(findings(&step_program, machine), Vec::<String>::new(), "{at}");
        for stream in 0..step_program.stages[0].streams.len() {
            let records = &step_program.stages[0].streams[stream].records;
            let kind: Vec<usize> = (0..records.len()).filter(|i| is_kind(&records[*i])).collect();
            for index in kind {
                seen += 1;
                if (seen - 1) % every != first {
                    continue;
                }
                let mut broken = step_program.clone();
                let record = broken.stages[0].streams[stream].records.remove(index);
                dropped += 1;
                if findings(&broken, machine).is_empty() && runs(&step_program, (stream, index), machine) {
                    silent.push(format!("{at}: nothing fires without {index}: {:?}", record.inst));
                }
            }
        }
    }
    (dropped, silent)
}

/// A model of few layers.
fn compile(model: &str, machine: &Machine, prefill: usize) -> Compiled {
    let options = BuildOptions { ctx: Some(prefill.max(16)), prefill, ..BuildOptions::default() };
    compile_with(model, machine, &options)
}

fn compile_with(model: &str, machine: &Machine, options: &BuildOptions) -> Compiled {
    let model = load::open(&fixture(model), &LoadOptions::default()).expect("a fixture");
    let front = driver::front(&model, options, None, |_, _| {}).expect("it builds");
    let compiled = matrix::build(&front, machine, &MatrixOptions::default());
    compiled.unwrap_or_else(|e| panic!("{}: {e}", machine.name))
}

/// The programs of a model of few layers.
fn programs(model: &str, machine: &Machine) -> Vec<Program> {
    compile(model, machine, 4).model.programs().map(|body| body.program.clone()).collect()
}

#[test]
fn every_flag_of_lowered_steps_is_needed() {
    for (name, _) in PRESETS {
        let machine = preset(name).expect("a preset").expect("it parses");
        let names: &[&str] = match *name {
            "kirin9030" => &["bitnet-packed-tied", "llama-packed-bias-linearrope"],
            _ => &["bitnet-packed-tied"],
        };
        for model in names {
            let mut dropped = 0;
            for program in programs(model, &machine) {
                let (count, silent) = drop_each(&program, &machine, is_flag);
                assert!(silent.is_empty(), "{}", silent.join("\n"));
                dropped += count;
            }
            println!("{name}: {dropped} flags dropped");
            assert!(dropped > 50, "{name}: {dropped}");
        }
    }
}

/// Of so many flags one is dropped by default, with `TCC_TEST_FULL=1` each.
fn sample() -> usize {
    if std::env::var("TCC_TEST_FULL").is_ok_and(|v| v == "1") { 1 } else { 7 }
}

/// Prompts of 32 token rows, whose rotary positions turn a head of all rows at a time, and whose weights, though packed
/// for nibbles, are unpacked to bytes where that is faster. By default a few of the flags of each machine, other ones on
/// each, with `TCC_TEST_FULL=1` all.
#[test]
fn flags_of_long_prompts_are_needed() {
    let every = sample();
    let mut has_bytes = false;
    for (index, (name, _)) in PRESETS.iter().enumerate() {
        let machine = preset(name).expect("a preset").expect("it parses");
        let compiled = compile("bitnet-packed-tied", &machine, 32);
        let is_bytes = |product: &Product| match product {
            Product::Coupled(shape) => shape.mode == tile::Mode::I8 && tile::Mode::of(shape.panel) == tile::Mode::I4,
            Product::Split(_) => false,
        };
        has_bytes |= compiled.choices.iter().any(|choice| is_bytes(&choice.product));
        let body = compiled.model.bodies.iter().find(|body| body.m == 32).expect("a body of the whole prompt");
        let (count, silent) = drop_some(&body.program, &machine, is_flag, (index % every, every));
        println!("{name}, {} token rows: {count} flags dropped", body.m);
        assert!(silent.is_empty(), "{}", silent.join("\n"));
    }
    assert!(has_bytes, "no prompt has weights that are packed for nibbles and unpacked to bytes");
}

/// Attention over int8 caches, where cores have several tiles, of two sizes, and steps of several units come before those
/// that hide positions; values are turned ahead, or step by step where the cache is too long for that. By default a few of the
/// flags, other ones of each, with `TCC_TEST_FULL=1` all.
#[test]
fn flags_of_long_attention_are_needed() {
    let every = sample();
    for (index, (name, m, ctx)) in
        [("kirinx90", 261, 261), ("ascend910b", 261, 261), ("ascend950pr", 261, 261), ("ascend910b", 261, 8192)]
            .into_iter()
            .enumerate()
    {
        let mut machine = preset(name).expect("a preset").expect("it parses");
        machine.org.cores.value = machine.org.cores.value.min(2);
        let cache = CacheLayout { heads: 2, ctx, d: 32, dtype: DType::Q8 };
        let of = attention::program(&machine, &Attention { m, heads: 4, cache, scale: 0.1 }).expect("it fits");
        let (dropped, silent) = drop_some(&of.program, &machine, is_flag, (index % every, every));
        println!("{name}, a cache of {ctx}: {dropped} flags dropped");
        assert!(dropped > 50 && silent.is_empty(), "{}", silent.join("\n"));
    }
}

/// Few token rows, whose positions are cut in pieces, two for some cores, none for others, one of them empty; values are turned
/// with the scores, or step by step where a core has two pieces. By default a few of the flags, other ones of each, with
/// `TCC_TEST_FULL=1` all.
#[test]
fn flags_of_attention_in_pieces_are_needed() {
    let every = sample();
    for (index, (name, cores, kv_heads, ctx)) in [
        ("ascend910b", 3, 1, 1024),
        ("ascend950pr", 3, 1, 1024),
        ("ascend950pr", 3, 2, 2048),
        ("ascend310p", 3, 2, 2048),
    ]
    .into_iter()
    .enumerate()
    {
        let mut machine = preset(name).expect("a preset").expect("it parses");
        machine.org.cores.value = cores;
        let cache = CacheLayout { heads: kv_heads, ctx, d: 32, dtype: DType::Q8 };
        let attention = Attention { m: 3, heads: 2 * kv_heads, cache, scale: 0.1 };
        let mut of = attention::program(&machine, &attention).expect("it fits");
        // Timing takes inputs as zero.
        of.program.symbols[usize::from(of.pos.0.0)].kind = SymbolKind::Constant;
        let position = (ctx as u32 / 2 + 130).to_le_bytes();
        of.program.constants.push(Constant { symbol: of.pos.0, bytes: [&position[..], &[0; 60]].concat() });
        let (dropped, silent) = drop_some(&of.program, &machine, is_flag, (index % every, every));
        println!("{name}, {kv_heads} heads in pieces: {dropped} flags dropped");
        assert!(dropped > 30 && silent.is_empty(), "{}", silent.join("\n"));
    }
}

/// Int8 caches: attention of one query, whose weights are in planes, few, and many, whose weights are whole; and writes of
/// one row, and of rows that cores share.
#[test]
fn every_flag_of_codes_in_caches_is_needed() {
    const KINDS: [&str; 3] = ["attention", "k_write", "v_write"];
    for (name, _) in PRESETS {
        let machine = preset(name).expect("a preset").expect("it parses");
        let options = BuildOptions { ctx: Some(40), prefill: 32, kv: DType::Q8, ..BuildOptions::default() };
        let compiled = compile_with("bitnet-packed-tied", &machine, &options);
        let mut dropped = 0;
        for program in compiled.model.programs().map(|body| &body.program) {
            let of_caches = steps(program).into_iter().filter(|(kind, _)| KINDS.contains(&kind.as_str())).collect();
            let (count, silent) = drop_of(of_caches, program, &machine, is_flag, (0, 1));
            assert!(silent.is_empty(), "{}", silent.join("\n"));
            dropped += count;
        }
        println!("{name}: {dropped} flags dropped");
        assert!(dropped > 50, "{name}: {dropped}");
    }
}

/// Products of every form on two groups of cube and vector cores: more tiles than slots and than are unpacked ahead, tiles
/// of one panel behind those of two, several blocks of token rows, and a panel that both groups unpack; sums by way of
/// global memory, and, with no ragged panel behind tiles of two, straight to UB.
#[test]
fn every_flag_of_split_products_is_needed() {
    let forms = [
        ("ascend910b", &["stream i4hl r16", "stream i4hl r16 early", "m16 p1", "m16 p2", "m16 p2 pass"][..]),
        (
            "ascend950pr",
            &[
                "stream i8 r16",
                "stream i8 r32 early",
                "stream i8 r32 l1",
                "stream i8 r32 early l1",
                "m16 p1 l1",
                "m16 p2 l1",
                "m16 p2 pass l1",
                "m16 p2 l1 of 960",
                "m16 p2 pass l1 of 960",
            ],
        ),
    ];
    for (name, forms) in forms {
        let mut machine = preset(name).expect("a preset").expect("it parses");
        machine.org.cores.value = 2;
        for form in forms {
            let (form, n) =
                form.split_once(" of ").map_or((*form, 928), |(form, n)| (form, n.parse().expect("a number")));
            let m = if form.starts_with('m') { 40 } else { 2 };
            let shape = Shape { m, n, k: 640, scale: ScaleKind::PerRow, bias: true, residual: true };
            let program = search::alone(&shape, form.parse().expect("a choice"), &machine).expect("it fits");
            let (count, silent) = drop_each(&program, &machine, is_flag);
            println!("{name} {form} {n}: {count} flags dropped");
            assert!(silent.is_empty(), "{}", silent.join("\n"));
        }
    }
}

/// Streamed products of the same activations together on two groups, whose shares end in one product and begin in another.
#[test]
fn every_flag_of_streamed_products_together_is_needed() {
    let forms = [
        ("ascend910b", &["stream i4hl r16", "stream i4hl r16 early"][..]),
        ("ascend950pr", &["stream i8 r16 early", "stream i8 r16 l1", "stream i8 r16 early l1"]),
    ];
    for (name, forms) in forms {
        let mut machine = preset(name).expect("a preset").expect("it parses");
        machine.org.cores.value = 2;
        for form in forms {
            let part = |n, scale, bias| Shape { m: 2, n, k: 640, scale, bias, residual: !bias };
            let parts = [part(528, ScaleKind::PerRow, true), part(64, ScaleKind::PerTensor, false)];
            let parts = [parts[0], parts[1], part(336, ScaleKind::PerTensor, true)];
            let products = together(&machine, (2, 640), &parts, form.parse().expect("a choice")).expect("it fits");
            let (count, silent) = drop_each(&products.program, &machine, is_flag);
            println!("{name} {form}: {count} flags dropped");
            assert!(silent.is_empty(), "{}", silent.join("\n"));
        }
    }
}

/// Products that gate others on two groups, in several blocks of token rows.
#[test]
fn every_flag_of_gated_products_is_needed() {
    let mut machine = preset("ascend950pr").expect("a preset").expect("it parses");
    machine.org.cores.value = 2;
    for form in ["m16 p2 l1", "m48 p2 pass l1", "m32 p4 l1"] {
        let shape = Shape { m: 70, n: 448, k: 640, scale: ScaleKind::PerTensor, bias: false, residual: false };
        let product = gated(&machine, shape, form.parse().expect("a choice")).expect("it fits");
        let (count, silent) = drop_each(&product.program, &machine, is_flag);
        println!("{form}: {count} flags dropped");
        assert!(silent.is_empty(), "{}", silent.join("\n"));
    }
}

/// Products whose sums leave L0C in two spans, among them slices in the place of unpacked parts: whole and with k cut.
#[test]
fn every_flag_of_products_in_spans_is_needed() {
    let machine = preset("kirin9030").expect("a preset").expect("it parses");
    let row = MENU.iter().find(|row| row.name == "i8-x128").expect("a row of the menu");
    let Encoding::W2Nz(panel) = row.encoding else { panic!("fractals") };
    for (block_k, residual) in [(640, false), (512, true)] {
        let shape = tile::Shape { m: 132, n: 264, k: 640, panel, mode: tile::Mode::of(panel), residual };
        let tile = format!("m128/128 k{block_k}/128/128 g1 u4 s64 n2").parse().expect("a tile");
        let program = coupled::alone(&shape, tile, &machine).expect("it fits");
        let (count, silent) = drop_each(&program, &machine, is_flag);
        println!("{tile}: {count} flags dropped");
        assert!(silent.is_empty(), "{}", silent.join("\n"));
    }
}
