//! The example model in this process: loaded from an object with its weights inside, every way of running it gives
//! the interpreter's bits, and sampling is what `tcc_ir::sampling` says.

use std::path::Path;
use std::time::{Duration, Instant};

use tcc::arch::BuildOptions;
use tcc::driver;
use tcc::golden;
use tcc::load::{self, LoadOptions};
use tcc::plan::{HEAD_ROWS, HeadChoice, PlanOptions};
use tcc::target::{self, TargetRequest};
use tcc_backends::image::HashSlot;
use tcc_ir::plan::{Step, StepList};
use tcc_ir::sampling::{self, Settings};
use tcc_runtime::abi::{Sampler, Status};
use tcc_runtime::arena::Arena;
use tcc_runtime::host;
use tcc_runtime::module::Module;
use tcc_runtime::op_clock::OpClock;
use tcc_runtime::pool::Pool;
use tcc_runtime::session::{Draft, HookSet, Session};
use tcc_runtime::shuffled::{ShuffledSerial, first_alone};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/models/rust-docs-6m");
/// Token rows of the largest body: as many as make steps of several products large enough for threads.
const PREFILL: usize = 32;
/// More than one chunk and a ragged rest.
const TOKENS: [u32; PREFILL + 7] = [
    17, 3, 250, 1999, 4095, 0, 42, 42, 7, 1024, 512, 9, 77, 5, 5, 640, 31, 2048, 4, 3000, 12, 99, 100, 101, 1, 2, 8,
    16, 33, 64, 129, 257, 513, 1025, 2049, 4094, 6, 10, 11,
];
const MAX_THREADS: u32 = 3;
const CTX: usize = 48;

/// The example model compiled for this machine, and what the interpreter says.
struct Compiled {
    module: Module,
    /// `[tokens, vocab]`.
    expected: Vec<f32>,
}

/// Compiles the example model; none where this machine cannot run its own target.
fn compiled(head: HeadChoice) -> Option<Compiled> {
    let model = load::open(Path::new(MODEL), &LoadOptions::default()).expect("the example model loads");
    let options = BuildOptions { ctx: Some(CTX), prefill: PREFILL, ..BuildOptions::default() };
    let front = driver::front(&model, &options, None, |_, _| {}).expect("the example model builds");
    let request = TargetRequest::default();
    let target = target::resolve(&request, host::features).expect("the host is a target");
    if !target.runs_here {
        eprintln!("skipped: this machine lacks its own target's baseline");
        return None;
    }
    let plan = PlanOptions {
        max_threads: MAX_THREADS,
        joins: MAX_THREADS > 1,
        encoding: None,
        head,
        head_rows: HEAD_ROWS,
        state_bytes: tcc::emit::state_bytes(MAX_THREADS),
    };
    let mut back = driver::back(&front, &target, "example", &plan, true).expect("code for the host");
    let together = |list: &StepList| list.steps.windows(2).any(|pair| pair[1].joined && pair.iter().all(is_split));
    assert!(back.plan().bodies.iter().any(together), "steps run at the same time");
    back.image = back.image_with_op_hooks().expect("code for the host");
    let folder = tempfile::tempdir().expect("a folder");
    let (weights, object) = (folder.path().join("weights"), folder.path().join("example.o"));
    back.write_weights(&front.store, &weights, |_| {}).expect("writable");
    let prompt = golden::tokens(&back.plan().facts);
    let hash = golden::hash(&golden::interpret(&front, &prompt).expect("the interpreter runs"));
    back.set_hash(HashSlot::Golden, hash);
    back.write_object(&object, Some(&weights)).expect("writable");
    let module = Module::open(&object, None).expect("loads");
    let expected = golden::interpret(&front, &TOKENS).expect("the interpreter runs");
    Some(Compiled { module, expected })
}

/// Whether threads share the step.
fn is_split(step: &Step) -> bool {
    step.bytes >= 32 << 10
}

/// Logits of [`TOKENS`] in pieces of `chunk`, `[tokens, vocab]`.
fn logits(compiled: &Compiled, hooks: Option<&HookSet>, chunk: usize) -> Vec<f32> {
    let model = compiled.module.model();
    let mut arena = Arena::new(model.info().arena_bytes).expect("memory");
    let mut session = Session::new(model, arena.bytes_mut(), hooks).expect("starts");
    let mut rows = vec![0.0; compiled.expected.len()];
    let vocab = model.info().vocab as usize;
    for (tokens, out) in TOKENS.chunks(chunk).zip(rows.chunks_mut(chunk * vocab)) {
        session.eval_all(tokens, out).expect("evaluates");
    }
    rows
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn op_hooks_bracket_every_op() {
    let Some(compiled) = compiled(HeadChoice::Auto) else { return };
    let model = compiled.module.model();
    let pool = Pool::new(2).expect("a thread");
    let clock = OpClock::new(model.info().op_count, pool.hooks());
    let hooks = clock.hooks();
    let begin = Instant::now();
    // A chunk and a rest of one token: both kinds of body.
    assert_eq!(bits(&logits(&compiled, Some(&hooks), TOKENS.len() - 1)), bits(&compiled.expected));
    let (all, spent) = (begin.elapsed(), clock.take());
    let inside: Duration = spent.iter().sum();
    assert!(inside <= all, "brackets overlap: {inside:?} of {all:?}");
    for (op, time) in spent.iter().enumerate() {
        let label = model.op_name(u32::try_from(op).expect("few ops")).expect("a label");
        assert!(!time.is_zero(), "{label} took no time");
    }
}

#[test]
fn every_way_of_running_gives_the_same_bits() {
    let Some(compiled) = compiled(HeadChoice::Auto) else { return };
    let expected = bits(&compiled.expected);
    let same = |hooks: Option<&HookSet>, chunk, what: &str| {
        assert!(bits(&logits(&compiled, hooks, chunk)) == expected, "{what}, {chunk} tokens at a time");
    };
    for chunk in [1, 5, TOKENS.len()] {
        same(None, chunk, "one thread");
    }
    for threads in [2, MAX_THREADS] {
        let pool = Pool::new(threads).expect("threads start");
        same(Some(&pool.hooks()), PREFILL, "a pool");
    }
    for seed in 0..4 {
        let shuffled = ShuffledSerial::new(MAX_THREADS, seed);
        same(Some(&shuffled.hooks()), PREFILL, "tasks in another order");
    }
    let pool = Pool::new(MAX_THREADS + 2).expect("threads start");
    same(Some(&pool.hooks().with_max_threads(MAX_THREADS)), PREFILL, "a pool larger than the object allows");
}

#[test]
fn a_thread_takes_what_others_leave() {
    let Some(compiled) = compiled(HeadChoice::Auto) else { return };
    for threads in [2, MAX_THREADS] {
        let hooks = first_alone(threads);
        assert!(bits(&logits(&compiled, Some(&hooks), PREFILL)) == bits(&compiled.expected), "{threads} threads");
    }
}

#[test]
fn sampling_is_the_definition() {
    let samplers = [
        Sampler::GREEDY,
        Sampler::seeded(1, 1.0),
        Sampler::seeded(2, 0.7).with_top_k(40),
        Sampler::seeded(3, 1.5).with_top_p(0.9),
        Sampler::seeded(4, 2.0).with_top_k(300).with_top_p(0.5),
        Sampler::seeded(5, 1.0).with_top_k(256).with_top_p(0.9),
        Sampler::seeded(6, 1.2).with_top_k(2),
    ];
    for head in [HeadChoice::Exact, HeadChoice::Screened] {
        let Some(compiled) = compiled(head) else { return };
        for threads in [1, 2, MAX_THREADS] {
            let pool = Pool::new(threads).expect("threads start");
            check_samplers(&compiled, head == HeadChoice::Screened, &pool.hooks(), &samplers);
        }
        check_samplers(
            &compiled,
            head == HeadChoice::Screened,
            &ShuffledSerial::new(MAX_THREADS, 7).hooks(),
            &samplers,
        );
    }
}

/// Samples the whole context with each sampler, before anything asks for the logits.
fn check_samplers(compiled: &Compiled, is_screened: bool, hooks: &HookSet, samplers: &[Sampler]) {
    let model = compiled.module.model();
    let mut arena = Arena::new(model.info().arena_bytes).expect("memory");
    let mut session = Session::new(model, arena.bytes_mut(), Some(hooks)).expect("starts");
    let mut searches = 0;
    for mut sampler in samplers.iter().copied() {
        session.reset();
        session.eval(&TOKENS[..4]).expect("evaluates");
        for _ in 0..CTX - 4 {
            let settings = Settings {
                top_k: sampler.top_k,
                temperature_q16: sampler.temperature_q16,
                top_p_q16: sampler.top_p_q16,
            };
            let (before, mut state) = (sampler, sampler.rng);
            let token = session.sample(&mut sampler).expect("valid settings");
            let logits = session.logits().expect("finite").to_vec();
            let expected = sampling::sample(&logits, &settings, &mut state).expect("valid settings");
            assert_eq!((token, sampler.rng), (expected, state), "{settings:?}");
            searches += u64::from(is_screened && (before.top_k != 0 && before.top_k <= 256));
            // Once more from the logits that are there now.
            sampler = before;
            assert_eq!(session.sample(&mut sampler).expect("valid settings"), expected, "{settings:?}");
            session.eval(&[token]).expect("evaluates");
        }
    }
    let stats = session.head_stats().expect("a session");
    assert_eq!(stats.searches, searches);
    assert!(stats.rows_exact >= searches && stats.rows_low >= stats.rows_exact && stats.full > 0, "{stats:?}");
    assert!(!is_screened || stats.rows_low < searches * u64::from(model.info().vocab), "{stats:?}");
}

/// The head takes several rows of a draft at once where that pays; nobody can tell.
#[test]
fn drafts_of_any_length_give_the_same_tokens() {
    for head in [HeadChoice::Exact, HeadChoice::Screened] {
        let Some(compiled) = compiled(head) else { return };
        let model = compiled.module.model();
        let mut arena = Arena::new(model.info().arena_bytes).expect("memory");
        let mut session = Session::new(model, arena.bytes_mut(), None).expect("starts");
        for sampler in [Sampler::GREEDY, Sampler::seeded(3, 0.9).with_top_k(40)] {
            let begin = |session: &mut Session, sampler: &mut Sampler| {
                session.reset();
                session.eval(&TOKENS[..4]).expect("evaluates");
                session.sample(sampler).expect("valid settings")
            };
            let mut alone = sampler;
            let mut text = vec![begin(&mut session, &mut alone)];
            let mut logits = Vec::new();
            for rows in 1..=8 {
                session.eval(&text[rows - 1..]).expect("evaluates");
                text.push(session.sample(&mut alone).expect("valid settings"));
                logits.push(bits(session.logits().expect("finite")));
            }
            for rows in 1..=8 {
                let mut together = sampler;
                begin(&mut session, &mut together);
                let draft = session.eval_draft(&text[..rows], &mut together).expect("evaluates");
                assert_eq!(draft, Draft { kept: rows, next: text[rows] }, "{head:?}, {rows} rows");
                assert_eq!(bits(session.logits().expect("finite")), logits[rows - 1], "{head:?}, {rows} rows");
            }
        }
    }
}

#[test]
fn sessions_rewind_refuse_and_test_themselves() {
    let Some(compiled) = compiled(HeadChoice::Auto) else { return };
    let model = compiled.module.model();
    let mut arena = Arena::new(model.info().arena_bytes).expect("memory");
    assert_eq!(model.self_test(arena.bytes_mut(), None), Ok(()));
    let mut session = Session::new(model, arena.bytes_mut(), None).expect("starts");
    session.eval(&TOKENS).expect("evaluates");
    let last = bits(session.logits().expect("finite"));
    session.rewind(5).expect("a position of the past");
    assert_eq!(session.eval(&[model.info().vocab]), Err(Status::TOKEN));
    assert_eq!(session.eval(&[1; CTX]), Err(Status::CTX_FULL));
    assert_eq!(session.pos(), 5);
    session.eval(&TOKENS[5..]).expect("evaluates");
    assert_eq!(bits(session.logits().expect("finite")), last);
    session.reset();
    let tokens: Vec<_> = session.generate(&TOKENS, Sampler::GREEDY).expect("evaluates").collect();
    // One token after the prompt and one for each free position, then the error.
    assert_eq!(tokens.len(), CTX - TOKENS.len() + 2);
    assert_eq!(tokens.last(), Some(&Err(Status::CTX_FULL)));
    assert_eq!((model.name(), model.op_name(u32::MAX)), ("example", None));
}
