//! The C interface of generated objects on every machine: arguments, errors, state, hooks, sampling, self-test.

use sha2::{Digest, Sha256};
use tcc_backends::isa;
use tcc_ir::sampling::{self, Settings};
use tcc_ir::target::Features;
use tcc_runtime::abi::offsets::{hooks, info, sampler};
use tcc_runtime::abi::{STATUSES, Status};
use tcc_tests::machines::{MACHINES, report_skipped};
use tcc_tests::random::Rng;
use tcc_tests::toy::{self, CTX, Toy, VOCAB};

const GOLDEN_TOKENS: [u32; 6] = [3, 299, 0, 17, 17, 250];

/// Runs `test` with the toy model of `first` and `second` on every machine that is there.
fn on_every_machine(golden: [u8; 32], weights: &[u8], mut test: impl FnMut(Toy)) {
    for machine in MACHINES {
        let backend = isa::backend(machine.target).expect("a machine of a known target");
        let started = machine
            .features(backend)
            .and_then(|features| Toy::start(backend, machine, features, (&GOLDEN_TOKENS, golden), weights));
        match started {
            Ok(toy) => test(toy),
            Err(error) => report_skipped(machine.name, &error),
        }
    }
}

fn random_rows() -> (Vec<f32>, Vec<f32>) {
    let mut rng = Rng::new(7);
    let mut row = || (0..VOCAB).map(|_| rng.f32()).collect::<Vec<_>>();
    (row(), row())
}

fn random_weights() -> Vec<u8> {
    let (first, second) = random_rows();
    toy::weights(&first, &second)
}

/// What the model means: `first + token · second`, as one fused operation.
fn expected_logits(token: u32) -> Vec<f32> {
    let (first, second) = random_rows();
    first.iter().zip(&second).map(|(a, b)| a + b * token as f32).collect()
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{a} for {b}");
    }
}

#[test]
fn init_refuses_what_it_cannot_use() {
    on_every_machine([0; 32], &random_weights(), |mut toy| {
        let (arena, bytes, blob, out) = (toy.arena, toy.arena_bytes, toy.blob, toy.buffer);
        let short = toy.memory.place_words(&[toy.weights, 64]);
        let misaligned = toy.memory.place_words(&[toy.weights + 4, toy.read_u64(toy.blob + 8)]);
        let empty = toy.memory.place_words(&[0, toy.read_u64(toy.blob + 8)]);
        let no_size = toy.hooks(&[(hooks::STRUCT_SIZE, 0)]);
        let hooks = toy.hooks(&[]);
        let cases = [
            ([0, bytes, blob, 0, out], Status::ARG),
            ([arena, bytes, blob, 0, 0], Status::ARG),
            ([arena + 32, bytes, blob, 0, out], Status::ARENA_ALIGN),
            ([arena, bytes - 1, blob, 0, out], Status::ARENA_SIZE),
            ([arena, bytes, 0, hooks, out], Status::WEIGHTS),
            ([arena, bytes, short, hooks, out], Status::WEIGHTS),
            ([arena, bytes, misaligned, hooks, out], Status::WEIGHTS),
            ([arena, bytes, empty, hooks, out], Status::WEIGHTS),
            ([arena, bytes, blob, no_size, out], Status::ABI),
            ([arena, bytes, blob, hooks, out], Status::OK),
        ];
        for (args, expected) in cases {
            assert_eq!(Status(toy.call("init", &args)), expected, "{args:x?}");
        }
        assert_eq!(toy.read_u64(out), arena);
    });
}

#[test]
fn a_core_without_the_features_is_refused() {
    // The hint names one feature more than the core is said to have.
    for machine in MACHINES {
        let backend = isa::backend(machine.target).expect("a machine of a known target");
        let needs = Features::bit(63).with(backend.desc().baseline);
        match Toy::start(backend, machine, needs, (&GOLDEN_TOKENS, [0; 32]), &random_weights()) {
            Ok(mut toy) => {
                let known = backend.desc().baseline.0.max(1);
                let refused = toy.hooks(&[(hooks::CPU_FEATURES, known)]);
                let accepted = toy.hooks(&[]);
                // Members past the size the caller states count as 0: the hint is not read.
                let shorter = toy.hooks(&[(hooks::STRUCT_SIZE, hooks::CPU_FEATURES as u64)]);
                for (hooks, expected) in [(refused, Status::CPU), (accepted, Status::OK), (shorter, Status::CPU)] {
                    assert_eq!(Status(toy.init_with(hooks)), expected, "{}", machine.name);
                }
            }
            Err(error) => report_skipped(machine.name, &error),
        }
    }
}

#[test]
fn no_core_is_asked_for_tuning() {
    for machine in MACHINES {
        let backend = isa::backend(machine.target).expect("a machine of a known target");
        let desc = backend.desc();
        if desc.tuning == Features::NONE {
            continue;
        }
        let needs = desc.tuning.with(desc.baseline);
        match Toy::start(backend, machine, needs, (&GOLDEN_TOKENS, [0; 32]), &random_weights()) {
            Ok(mut toy) => {
                let hooks = [toy.hooks(&[(hooks::CPU_FEATURES, desc.baseline.0)]), toy.hooks(&[])];
                for hooks in hooks {
                    assert_eq!(Status(toy.init_with(hooks)), Status::OK, "{}", machine.name);
                }
            }
            Err(error) => report_skipped(machine.name, &error),
        }
    }
}

/// The two logits of `first + token · second` that tell whether it was computed.
fn has_expected_logits(toy: &mut Toy) {
    let (status, rows) = toy.eval_all(&GOLDEN_TOKENS);
    assert_eq!(status, 0);
    for (row, token) in rows.chunks_exact(VOCAB).zip(GOLDEN_TOKENS) {
        assert_close(row, &expected_logits(token));
    }
}

#[test]
fn init_chooses_the_first_variant_that_fits() {
    for machine in MACHINES {
        let backend = isa::backend(machine.target).expect("a machine of a known target");
        let features = match machine.features(backend) {
            Ok(features) => features,
            Err(error) => {
                report_skipped(machine.name, &error);
                continue;
            }
        };
        // No core has these bits; what code is made for does not depend on them.
        let (one, other) = (features.with(Features::bit(63)), features.with(Features::bit(62)));
        let variants = [one.with(other), other, features];
        match Toy::start_variants(backend, machine, &variants, (&GOLDEN_TOKENS, [0; 32]), &random_weights()) {
            Ok(mut toy) => {
                let cases = [(one.with(other), "v0"), (other, "v1"), (one, "v2"), (features, "v2")];
                for (hint, expected) in cases {
                    let hooks = toy.hooks(&[(hooks::CPU_FEATURES, hint.0)]);
                    assert_eq!(Status(toy.init_with(hooks)), Status::OK, "{}", machine.name);
                    let arena = toy.arena;
                    assert_eq!(toy.call_text("variant", arena).as_deref(), Some(expected), "{}", machine.name);
                    has_expected_logits(&mut toy);
                }
                let hooks = toy.hooks(&[(hooks::CPU_FEATURES, Features::bit(62).0)]);
                assert_eq!(Status(toy.init_with(hooks)), Status::CPU, "{}", machine.name);
                assert_eq!(toy.call_text("variant", 0), None);
            }
            Err(error) => report_skipped(machine.name, &error),
        }
    }
}

#[test]
fn vectors_of_another_length_are_refused() {
    for machine in MACHINES.iter().filter(|m| m.vlen != 0) {
        let backend = isa::backend(machine.target).expect("a machine of a known target");
        let features = machine.features(backend).expect("features named by the machine");
        let vlen = u64::from(machine.vlen);
        match Toy::start(backend, machine, features, (&GOLDEN_TOKENS, [0; 32]), &random_weights()) {
            Ok(mut toy) => {
                // Where the caller does not say, the core is asked.
                for (hint, expected) in [(0, Status::OK), (vlen, Status::OK), (2 * vlen, Status::CPU)] {
                    let hooks = toy.hooks(&[(hooks::VLEN, hint)]);
                    assert_eq!(Status(toy.init_with(hooks)), expected, "{}, hint {hint}", machine.name);
                }
            }
            Err(error) => report_skipped(machine.name, &error),
        }
    }
}

#[test]
fn tokens_become_logits_and_positions() {
    on_every_machine([0; 32], &random_weights(), |mut toy| {
        assert_eq!(toy.init(), 0);
        assert_eq!(Status(toy.logits().0), Status::ARG, "nothing was evaluated");
        // Six tokens are a chunk of four and one of two.
        let tokens = [5, 0, 299, 7, 1, 250];
        let (status, rows) = toy.eval_all(&tokens);
        assert_eq!((status, toy.pos()), (0, 6));
        for (token, row) in tokens.iter().zip(rows.chunks_exact(VOCAB)) {
            assert_close(row, &expected_logits(*token));
        }
        let last = rows[5 * VOCAB..].to_vec();
        assert_eq!(toy.logits(), (0, last));
        assert_eq!(toy.eval(&[299]), 0);
        assert_eq!(toy.logits(), (0, rows[2 * VOCAB..][..VOCAB].to_vec()));
        assert_eq!(toy.pos(), 7);
        // Rewinding to the present changes nothing; to the past it forgets the logits.
        assert_eq!(toy.call("rewind", &[toy.arena, 7]), 0);
        assert_eq!(toy.logits().0, 0);
        assert_eq!(Status(toy.call("rewind", &[toy.arena, 8])), Status::ARG);
        assert_eq!(toy.call("rewind", &[toy.arena, 3]), 0);
        assert_eq!((toy.pos(), Status(toy.logits().0)), (3, Status::ARG));
        toy.call("reset", &[toy.arena]);
        assert_eq!(toy.pos(), 0);
    });
}

#[test]
fn an_error_leaves_the_instance_as_before() {
    let (mut first, second) = random_rows();
    // Token 100 makes one logit infinite, and no other token does.
    first[40] = f32::MAX;
    let mut weights = toy::weights(&first, &second);
    let poisoned_row = 100 * 64;
    weights[poisoned_row..poisoned_row + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    on_every_machine([0; 32], &weights, |mut toy| {
        let flag = toy.memory.alloc(64, 64);
        let should_stop = toy.process.address(toy::HOOK_SHOULD_STOP).expect("a hook");
        let hooks = toy.hooks(&[(hooks::USER, flag), (hooks::SHOULD_STOP, should_stop)]);
        assert_eq!(toy.init_with(hooks), 0);
        assert_eq!(toy.eval(&[1, 2]), 0);
        let before = toy.logits();
        assert_eq!(before.0, 0);
        assert_eq!(Status(toy.eval(&[])), Status::ARG);
        assert_eq!(Status(toy.eval(&[4, VOCAB as u32])), Status::TOKEN);
        assert_eq!(Status(toy.eval(&[4; CTX - 1])), Status::CTX_FULL);
        assert_eq!(Status(toy.eval_all(&[4, 100]).0), Status::NONFINITE);
        toy.memory.write(flag, &[1]);
        assert_eq!(Status(toy.eval(&[4])), Status::STOPPED);
        toy.memory.write(flag, &[0]);
        assert_eq!((toy.logits(), toy.pos()), (before, 2));
        assert_eq!(toy.eval(&[4; CTX - 2]), 0);
        assert_eq!(toy.pos(), CTX as i32);
    });
}

#[test]
fn functions_refuse_what_is_no_instance() {
    on_every_machine([0; 32], &random_weights(), |mut toy| {
        let (arena, buffer) = (toy.arena, toy.buffer);
        // The arena is all zeros: no instance lives there yet.
        for instance in [0, arena] {
            assert_eq!(Status(toy.call("eval", &[instance, buffer, 1])), Status::ARG);
            assert_eq!(Status(toy.call("eval_all", &[instance, buffer, 1, buffer])), Status::ARG);
            assert_eq!(Status(toy.call("logits", &[instance, buffer])), Status::ARG);
            assert_eq!(Status(toy.call("rewind", &[instance, 0])), Status::ARG);
            assert_eq!(Status(toy.call("sample", &[instance, buffer, buffer])), Status::ARG);
            let args = [instance, buffer, 1, buffer, buffer, buffer];
            assert_eq!(Status(toy.call("eval_draft", &args)), Status::ARG);
        }
        assert_eq!(toy.call("pos", &[0]), 0);
        toy.call("reset", &[0]);
    });
}

#[test]
fn threads_share_a_step_and_leave_the_bits_alone() {
    on_every_machine([0; 32], &random_weights(), |mut toy| {
        assert_eq!(toy.init(), 0);
        let alone = toy.eval_all(&[5, 6, 7]);
        for threads in [1, 2, 3, 100] {
            let counter = toy.memory.alloc(64, 64);
            let parallel_for = toy.process.address(toy::HOOK_PARALLEL_FOR).expect("a hook");
            let size_and_threads = hooks::SIZE as u64 | threads << 32;
            let hooks = toy.hooks(&[
                (hooks::STRUCT_SIZE, size_and_threads),
                (hooks::USER, counter),
                (hooks::PARALLEL_FOR, parallel_for),
            ]);
            assert_eq!(toy.init_with(hooks), 0);
            assert_eq!(toy.eval_all(&[5, 6, 7]), alone);
            // One call for the head, which takes all rows at once; none for a single thread.
            assert_eq!(toy.read_u64(counter), u64::from(threads > 1));
            // And one for both rows of a draft that is right.
            assert_eq!(toy.init_with(hooks), 0);
            let greedy = place_sampler(&mut toy, Settings { top_k: 1, temperature_q16: 0, top_p_q16: 65_536 }, [1, 2]);
            let next = toy.eval_draft(&[5], greedy).2;
            toy.call("reset", &[toy.arena]);
            assert_eq!(toy.pos(), 0);
            let before = toy.read_u64(counter);
            assert_eq!(toy.eval_draft(&[5, next], greedy).1, 2);
            assert_eq!(toy.read_u64(counter) - before, u64::from(threads > 1));
        }
    });
}

#[test]
fn info_states_the_build() {
    on_every_machine([9; 32], &random_weights(), |mut toy| {
        let out = toy.buffer;
        toy.memory.write(out, &(info::SIZE as u32 - 1).to_le_bytes());
        assert_eq!(Status(toy.call("info", &[out])), Status::ABI);
        toy.memory.write(out, &(info::SIZE as u32).to_le_bytes());
        assert_eq!(toy.call("info", &[out]), 0);
        let at = |toy: &Toy, field: usize, bytes: usize| toy.memory.read(out + field as u64, bytes).to_vec();
        let plan = toy::plan(Features::NONE, 0, 16);
        assert_eq!(at(&toy, info::GOLDEN_SHA256, 32), [9; 32]);
        assert_eq!(at(&toy, info::ARENA_BYTES, 8), plan.arena.total_bytes().to_le_bytes());
        assert_eq!(at(&toy, info::WEIGHTS_BYTES, 8), plan.weights_bytes.to_le_bytes());
        for (field, value) in [(info::VOCAB, VOCAB), (info::CTX, CTX), (info::PREFILL, 4), (info::OP_COUNT, 2)] {
            assert_eq!(at(&toy, field, 4), (value as u32).to_le_bytes());
        }
        let stack = u64::from_le_bytes(at(&toy, info::STACK_BYTES, 8).try_into().expect("eight bytes"));
        assert!((128..4096).contains(&stack), "{stack} bytes of stack");
        for (field, text) in [(info::NAME, "toy"), (info::TARGET, "any"), (info::TCC_VERSION, "1.2.3")] {
            let address = toy.read_u64(out + field as u64);
            assert_eq!(toy.text(address), text);
        }
    });
}

#[test]
fn codes_and_ops_have_names() {
    on_every_machine([0; 32], &random_weights(), |mut toy| {
        for status in STATUSES {
            let code = u64::from(status.status.0.cast_unsigned());
            assert_eq!(toy.call_text("strerror", code).as_deref(), Some(status.sentence));
        }
        for unknown in [99, u64::from(u32::MAX)] {
            assert_eq!(toy.call_text("strerror", unknown).as_deref(), Some("unknown status"));
        }
        assert_eq!(toy.call_text("op_name", 0).as_deref(), Some("embed"));
        assert_eq!(toy.call_text("op_name", 1).as_deref(), Some("head"));
        assert_eq!(toy.call_text("op_name", 2), None);
    });
}

/// Logits where ranks, ties and both zeros matter.
fn hard_logits(rng: &mut Rng) -> Vec<f32> {
    let ties = rng.below(2) == 0;
    let one = |rng: &mut Rng| match rng.below(8) {
        0 => 0.0,
        1 => -0.0,
        2 => f32::MIN_POSITIVE / 4.0,
        _ if ties => rng.below(5) as f32 - 2.0,
        _ => 8.0 * rng.f32(),
    };
    (0..VOCAB).map(|_| one(rng)).collect()
}

#[test]
fn sampling_is_what_its_definition_says() {
    let mut rng = Rng::new(11);
    for _ in 0..6 {
        let logits = hard_logits(&mut rng);
        on_every_machine([0; 32], &toy::weights(&logits, &[0.0; VOCAB]), |mut toy| {
            assert_eq!((toy.init(), toy.eval(&[0])), (0, 0));
            // The object's own logits: a sum with +0 turns -0 into it.
            let (_, logits) = toy.logits();
            for _ in 0..40 {
                let settings = Settings {
                    top_k: [0, 1, 2, 7, 299, 300, 5000][rng.below(7)],
                    temperature_q16: [0, 1, 6554, 65536, 131_072, u32::MAX][rng.below(6)],
                    top_p_q16: [0, 1, 30_000, 60_000, 65_535, 65_536, 65_537][rng.below(7)],
                };
                let state = if rng.below(8) == 0 { [0, 0] } else { [rng.next_u64(), rng.next_u64()] };
                compare_sample(&mut toy, &logits, settings, state);
            }
        });
    }
}

/// A `tcc_sampler` in the toy's memory.
fn place_sampler(toy: &mut Toy, settings: Settings, state: [u64; 2]) -> u64 {
    let word = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let head = word(sampler::SIZE as u32, settings.top_k);
    toy.memory.place_words(&[head, word(settings.temperature_q16, settings.top_p_q16), state[0], state[1]])
}

#[test]
fn drafts_give_what_one_token_at_a_time_gives() {
    let greedy = Settings { top_k: 1, temperature_q16: 0, top_p_q16: 65_536 };
    let warm = Settings { top_k: 0, temperature_q16: 65_536, top_p_q16: 65_536 };
    let mut rng = Rng::new(5);
    on_every_machine([0; 32], &random_weights(), |mut toy| {
        for (settings, right) in [(greedy, 3), (greedy, 0), (warm, 1), (warm, 2), (warm, 3)] {
            let state = [rng.next_u64(), rng.next_u64()];
            let (alone, together) =
                (place_sampler(&mut toy, settings, state), place_sampler(&mut toy, settings, state));
            let generator = |toy: &Toy, at: u64| [16, 24].map(|word| toy.read_u64(at + word));
            // The text that eval and sample in turns give, and the generator before each of its tokens.
            assert_eq!((toy.init(), toy.eval(&[7])), (0, 0));
            let (mut text, mut states) = (vec![250], Vec::new());
            for _ in 0..4 {
                assert_eq!(toy.eval(&text[text.len() - 1..]), 0);
                let token = toy.buffer + 256;
                assert_eq!(toy.call("sample", &[toy.arena, alone, token]), 0);
                text.push(u32::from_le_bytes(toy.memory.read(token, 4).try_into().expect("four bytes")));
                states.push((generator(&toy, alone), toy.logits()));
            }
            // A guess of it that is right for `right` tokens.
            assert_eq!((toy.init(), toy.eval(&[7])), (0, 0));
            let mut guess = text[..4].to_vec();
            if let Some(wrong) = guess.get_mut(right + 1) {
                *wrong = (*wrong + 1) % VOCAB as u32;
            }
            let kept = right + 1;
            assert_eq!(toy.eval_draft(&guess, together), (0, kept as u64, text[kept]), "{settings:?} {right}");
            assert_eq!(toy.pos(), 1 + kept as i32);
            assert_eq!((generator(&toy, together), toy.logits()), states[right], "{settings:?} {right}");
        }
    });
}

#[test]
fn a_draft_that_fails_leaves_everything_as_before() {
    let (mut first, second) = random_rows();
    // Token 100 makes the logits infinite, and is the best after every other one.
    first[100] = 1e30;
    let mut weights = toy::weights(&first, &second);
    weights[100 * 64..][..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    on_every_machine([0; 32], &weights, |mut toy| {
        assert_eq!(toy.init(), 0);
        let cold = place_sampler(&mut toy, Settings { top_k: 1, temperature_q16: 0, top_p_q16: 65_536 }, [1, 2]);
        let warm = place_sampler(&mut toy, Settings { top_k: 9, temperature_q16: 1, top_p_q16: 65_536 }, [1, 2]);
        let dead = place_sampler(&mut toy, Settings { top_k: 0, temperature_q16: 1, top_p_q16: 65_536 }, [0, 0]);
        let short = toy.memory.place_words(&[sampler::SIZE as u64 - 1, 0, 0, 0]);
        // At the beginning there is no row to keep, and there is none after a failure.
        assert_eq!(Status(toy.eval_draft(&[100], cold).0), Status::NONFINITE);
        assert_eq!((toy.pos(), Status(toy.logits().0)), (0, Status::ARG));
        assert_eq!(toy.eval(&[1, 2]), 0);
        let before = toy.logits();
        assert_eq!(before.0, 0);
        let cases: [(&[u32], u64, Status); 9] = [
            (&[], cold, Status::ARG),
            (&[1; 5], cold, Status::ARG),
            (&[1], 0, Status::ARG),
            (&[1], dead, Status::ARG),
            (&[1], short, Status::ABI),
            (&[1, VOCAB as u32], cold, Status::TOKEN),
            // The first row is fine and its choice is the guess; the second row fails.
            (&[4, 100], cold, Status::NONFINITE),
            (&[4, 100], warm, Status::NONFINITE),
            (&[100, 4], cold, Status::NONFINITE),
        ];
        for (tokens, sampler, expected) in cases {
            assert_eq!(Status(toy.eval_draft(tokens, sampler).0), expected, "{tokens:?}");
            assert_eq!((toy.logits(), toy.pos()), (before.clone(), 2), "{tokens:?}");
        }
        assert_eq!([16, 24].map(|word| toy.read_u64(warm + word)), [1, 2]);
        // The last row fails, and nobody asks for it.
        assert_eq!(toy.eval_draft(&[1, 5, 100], cold), (0, 1, 100));
        assert_eq!((toy.pos(), toy.logits().0), (3, 0));
        assert_eq!(toy.eval(&[4; CTX - 5]), 0);
        assert_eq!(Status(toy.eval_draft(&[1; 3], cold).0), Status::CTX_FULL);
        assert_eq!(toy.eval_draft(&[1; 2], cold), (0, 1, 100));
        assert_eq!(toy.pos(), CTX as i32 - 1);
    });
}

fn compare_sample(toy: &mut Toy, logits: &[f32], settings: Settings, state: [u64; 2]) {
    let words = [sampler::SIZE as u32, settings.top_k, settings.temperature_q16, settings.top_p_q16];
    let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    bytes.extend(state.iter().flat_map(|w| w.to_le_bytes()));
    toy.memory.write(toy.buffer, &bytes);
    let token = toy.buffer + 256;
    let status = Status(toy.call("sample", &[toy.arena, toy.buffer, token]));
    let left = [0, 8].map(|i| toy.read_u64(toy.buffer + sampler::RNG as u64 + i));
    let mut expected_state = state;
    match sampling::sample(logits, &settings, &mut expected_state) {
        Ok(id) => {
            assert_eq!(status, Status::OK, "{settings:?}");
            assert_eq!(toy.memory.read(token, 4), id.to_le_bytes(), "{settings:?} {state:x?}");
        }
        Err(_) => assert_eq!(status, Status::ARG, "{settings:?}"),
    }
    assert_eq!(left, expected_state, "{settings:?}");
}

#[test]
fn the_self_test_confirms_the_golden_logits() {
    let weights = random_weights();
    let mut golden = [0; 32];
    on_every_machine([0; 32], &weights, |mut toy| {
        assert_eq!(toy.init(), 0);
        let (status, rows) = toy.eval_all(&GOLDEN_TOKENS);
        assert_eq!(status, 0);
        let bytes: Vec<u8> = rows.iter().flat_map(|x| x.to_le_bytes()).collect();
        golden = Sha256::digest(&bytes).into();
    });
    let self_test = |toy: &mut Toy| {
        let hooks = toy.hooks(&[]);
        Status(toy.call("self_test", &[toy.arena, toy.arena_bytes, toy.blob, hooks]))
    };
    on_every_machine(golden, &weights, |mut toy| assert_eq!(self_test(&mut toy), Status::OK));
    let mut flipped = weights.clone();
    // The lowest bit of a weight that every golden token reads.
    flipped[VOCAB * 64] ^= 1;
    on_every_machine(golden, &flipped, |mut toy| assert_eq!(self_test(&mut toy), Status::HASH));
}

#[test]
fn sha256_agrees_with_the_published_algorithm() {
    let mut rng = Rng::new(3);
    on_every_machine([0; 32], &random_weights(), |mut toy| {
        let context = toy.memory.alloc(512, 64);
        for words in [0, 1, 13, 14, 15, 16, 17, 31, 32, 100, 1000] {
            let bytes: Vec<u8> = (0..4 * words).map(|_| rng.below(256) as u8).collect();
            toy.memory.write(toy.buffer, &bytes);
            for (function, args) in [
                ("sha256_init", vec![context]),
                ("sha256_words", vec![context, toy.buffer, words as u64]),
                ("sha256_finish", vec![context]),
            ] {
                toy.process.call(function, &args, &mut toy.memory).unwrap_or_else(|e| panic!("{function}: {e}"));
            }
            assert_eq!(toy.memory.read(context, 32), &Sha256::digest(&bytes)[..], "{words} words");
        }
    });
}
