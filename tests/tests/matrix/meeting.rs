//! Cores that share a model's steps meet within one stage: what the checker says without a meeting, and cores that have no
//! part in steps.

use std::collections::BTreeSet;
use std::path::Path;

use tcc::arch::BuildOptions;
use tcc::driver::{self, Front};
use tcc::golden;
use tcc::load::{self, LoadOptions};
use tcc::matrix::inspect::kind_of;
use tcc::matrix::tiles::{Choice, Decision, Forced, Product};
use tcc::matrix::{self, Body, Compiled, MatrixOptions};
use tcc::model::Model;
use tcc_backends::isa::matrix::lower::matmul::tile::Mode;
use tcc_backends::isa::matrix::lower::model::{self, Choose};
use tcc_backends::isa::matrix::lower::stage::{BEGIN, MEET};
use tcc_backends::isa::matrix::machine::Machine;
use tcc_backends::isa::matrix::machine::preset::preset;
use tcc_backends::isa::matrix::program::inst::{CrossMode, Inst, Order};
use tcc_backends::isa::matrix::program::{CoreKind, Program, Record};
use tcc_ir::plan::{Plan, Step};

use crate::dropped::findings;

/// Presets of several cores.
const SHARED: [&str; 3] = ["ascend910b", "ascend950pr", "ascend310p"];

fn machine(name: &str) -> Machine {
    preset(name).expect("a preset").expect("it parses")
}

fn open() -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/rust-docs-6m");
    load::open(&path, &LoadOptions::default()).expect("the example model")
}

fn front(model: &Model, prefill: usize) -> Front<'_> {
    let options = BuildOptions { ctx: Some(64), prefill, ..BuildOptions::default() };
    driver::front(model, &options, None, |_, _| {}).expect("it builds")
}

fn compile(front: &Front<'_>, machine: &Machine, tiles: Vec<Forced>) -> Compiled {
    let options = MatrixOptions { encoding: None, tiles };
    matrix::build(front, machine, &options).unwrap_or_else(|e| panic!("{}: {e}", machine.name))
}

/// Positions of records of the stream of `kind`.
fn positions(program: &Program, kind: CoreKind, is: impl Fn(&Record) -> bool) -> Vec<usize> {
    let stream = program.stages[0].streams.iter().find(|s| s.kind == kind);
    stream.into_iter().flat_map(|s| s.records.iter().enumerate()).filter(|(_, r)| is(r)).map(|(i, _)| i).collect()
}

/// The program without some records of the stream of `kind`.
fn without(program: &Program, kind: CoreKind, from: usize, count: usize) -> Program {
    let mut broken = program.clone();
    let stream = broken.stages[0].streams.iter_mut().find(|s| s.kind == kind).expect("a stream");
    stream.records.drain(from..from + count);
    broken
}

/// The kind of the op that a record belongs to.
fn kind_at(program: &Program, kind: CoreKind, index: usize) -> String {
    let stream = program.stages[0].streams.iter().find(|s| s.kind == kind).expect("a stream");
    kind_of(&program.ops[usize::from(stream.records[index].op)]).to_owned()
}

fn is_signal(record: &Record, of: (CrossMode, u8)) -> bool {
    matches!(record.inst, Inst::Order(Order::XSet { mode, id, .. }) if (mode, id) == of)
}

fn is_awaited(record: &Record, of: (CrossMode, u8)) -> bool {
    matches!(record.inst, Inst::Order(Order::XWait { mode, id, .. }) if (mode, id) == of)
}

/// The kinds of steps in front of which cores meet without need: what nothing fires without. The first layer and a little
/// more.
fn unneeded(program: &Program, machine: &Machine) -> BTreeSet<String> {
    let mut kinds = BTreeSet::new();
    let kind = if machine.vector_cores() > 0 { CoreKind::Vector } else { CoreKind::Coupled };
    let meetings = positions(program, kind, |r| is_signal(r, (CrossMode::All, MEET)));
    assert!(meetings.len() > 50, "{} {}: {} meetings", machine.name, program.name, meetings.len());
    for at in meetings.into_iter().take(18) {
        // Signal and wait, and the flag that lets stores wait with loads.
        let broken = without(program, kind, at, 4);
        if findings(&broken, machine).is_empty() {
            kinds.insert(kind_at(program, kind, at));
        }
    }
    kinds
}

/// Steps that need nothing of what other cores did in the one before: of other operands, or of rows that cores share alike.
const ALIKE: [&str; 8] = ["attn_norm", "ffn_up", "k", "k_rope", "k_write", "q_rope", "v", "v_write"];

#[test]
fn a_program_is_one_stage_whose_meetings_are_needed() {
    let model = open();
    for name in SHARED {
        let machine = machine(name);
        let compiled = compile(&front(&model, 32), &machine, vec![]);
        for Body { program, m, .. } in compiled.model.programs() {
            assert_eq!(program.stages.len(), 1, "{name} {}", program.name);
            let starts = program.stages[0].streams.iter().map(|stream| stream.start.len());
            assert!(starts.max() == Some(1), "{name} {}: cores differ by their numbers alone", program.name);
            assert_eq!(findings(program, &machine), Vec::<String>::new(), "{name} {}", program.name);
            if *m > 8 || program.name == "decode" {
                let silent = unneeded(program, &machine);
                println!("{name} {}: nothing fires in front of {silent:?}", program.name);
                assert!(silent.iter().all(|kind| ALIKE.contains(&kind.as_str())), "{name} {}", program.name);
            }
        }
    }
}

/// Products of the same activations have no meeting between them, in blocks of token rows and streamed; what is joined
/// without being independent is found.
#[test]
fn products_together_do_not_depend_on_each_other() {
    let model = open();
    for (name, m, text) in ["ascend910b", "ascend950pr"]
        .into_iter()
        .flat_map(|name| [(32, "m16 p1"), (1, "stream i8 r16")].map(|(m, text)| (name, m, text)))
    {
        let machine = machine(name);
        let compiled = compile(&front(&model, 32), &machine, vec![]);
        let choice = || text.parse().ok();
        let choose = Choose { coupled: &|_| None, split: &|_| choice(), together: &|_| choice(), gated: &|_| None };
        let lowered = |plan: &Plan| {
            let list = plan.bodies.iter().find(|list| list.m == m).expect("a body");
            model::lower(plan, &[(list, Mode::I8)], &machine, &choose).expect("it lowers").remove(0)
        };
        let program = lowered(&compiled.plan);
        assert!(program.ops.iter().any(|op| op == "L00.q+k+v"), "{:?}", program.ops);
        assert!(program.ops.iter().any(|op| op == "L00.ffn_gate+ffn_up"), "{:?}", program.ops);
        assert_eq!(findings(&program, &machine), Vec::<String>::new(), "{name} {text}");
        // Keys over queries.
        let mut broken = compiled.plan.clone();
        let steps = &mut broken.bodies.iter_mut().find(|list| list.m == m).expect("a body").steps;
        let of = |steps: &[Step], label: &str| steps.iter().position(|step| step.label == label).expect("a step");
        let (q, k) = (of(steps, "L00.q"), of(steps, "L00.k"));
        let out = *steps[q].args.last().expect("an output");
        *steps[k].args.last_mut().expect("an output") = out;
        assert!(!findings(&lowered(&broken), &machine).is_empty(), "{name} {text}: nothing fires");
    }
}

/// A cube core whose activations may be read before its first weights are there waits for its vector cores to begin.
#[test]
fn cube_cores_wait_for_their_vector_cores_to_begin() {
    let model = open();
    for name in ["ascend910b", "ascend950pr"] {
        let machine = machine(name);
        let front = front(&model, 32);
        let forced = forced(&compile(&front, &machine, vec![]), 32, "m32 p1");
        let compiled = compile(&front, &machine, forced);
        let program = &compiled.model.bodies.last().expect("a body").program;
        let sets = positions(program, CoreKind::Vector, |r| is_signal(r, (CrossMode::Group, BEGIN)));
        let waits = positions(program, CoreKind::Cube, |r| is_awaited(r, (CrossMode::Group, BEGIN)));
        assert_eq!(sets.len(), waits.len());
        for (set, wait) in sets.into_iter().zip(waits).take(7) {
            let broken = without(&without(program, CoreKind::Vector, set, 1), CoreKind::Cube, wait, 1);
            let kind = kind_at(program, CoreKind::Vector, set);
            let is_silent = findings(&broken, &machine).is_empty();
            assert!(!is_silent || ALIKE.contains(&kind.as_str()), "{name}: nothing fires without that of {kind}");
        }
    }
}

/// `text` for every product of `m` token rows.
fn forced(compiled: &Compiled, m: usize, text: &str) -> Vec<Forced> {
    let of = |choice: &Choice| match choice.product {
        Product::Split(shape) if shape.m == m => {
            Some(Forced { product: choice.product, decision: Decision::Split(text.parse().expect("a choice")) })
        }
        Product::Split(_) | Product::Coupled(_) => None,
    };
    compiled.choices.iter().filter_map(of).collect()
}

/// Products that fewer groups share than others: the cube cores that have no part in one signal to all others in it, too.
#[test]
fn cores_without_a_part_take_part_in_signals_among_all() {
    let model = open();
    let machine = machine("ascend910b");
    let front = front(&model, 8);
    let tokens = [1, 7, 300];
    let want = golden::interpret(&front, &tokens).expect("the interpreter runs");
    let forced = forced(&compile(&front, &machine, vec![]), 1, "stream i4hl r32");
    let compiled = compile(&front, &machine, forced);
    let program = &compiled.model.bodies[0].program;
    let to_all = |r: &Record| matches!(r.inst, Inst::Order(Order::XSet { mode: CrossMode::All, .. }));
    let begins = positions(program, CoreKind::Cube, |r| is_awaited(r, (CrossMode::Group, BEGIN)));
    let split = positions(program, CoreKind::Cube, to_all);
    assert!(split.len() > begins.len(), "{} signals in {} products", split.len(), begins.len());
    let weights = compiled.weights(&front).expect("weights");
    let (logits, _) = matrix::run::logits(&compiled.model, &weights, &tokens, true).expect("the checker finds nothing");
    assert_eq!(golden::hex(&golden::hash(&logits)), golden::hex(&golden::hash(&want)));
    for at in split.into_iter().take(4) {
        let broken = without(program, CoreKind::Cube, at, 1);
        assert!(!findings(&broken, &machine).is_empty(), "nothing fires without record {at}");
    }
}

/// A product that gates the one beside it leaves what norms and quantizes next: the example's prompt in blocks of token rows.
#[test]
fn a_gate_within_a_product_gives_the_interpreters_logits() {
    let model = open();
    let machine = machine("ascend950pr");
    let front = front(&model, 40);
    let tokens: Vec<u32> = (0..60).map(|i| i * 37 % 4096).collect();
    let want = golden::interpret(&front, &tokens).expect("the interpreter runs");
    let forced = forced(&compile(&front, &machine, vec![]), 40, "m16 p2 l1");
    let compiled = compile(&front, &machine, forced);
    let program = &compiled.model.bodies.last().expect("a body").program;
    assert!(program.ops.iter().any(|op| op == "L00.ffn_gate*ffn_up"), "{:?}", program.ops);
    let weights = compiled.weights(&front).expect("weights");
    let (logits, _) = matrix::run::logits(&compiled.model, &weights, &tokens, true).expect("the checker finds nothing");
    assert_eq!(golden::hex(&golden::hash(&logits)), golden::hex(&golden::hash(&want)));
}
