//! Tests of sampling: the search that needs no sort (`docs/sampling.md`) against the definition, edges, frequencies.

use proptest::prelude::*;

use super::*;

const PLAIN: Settings = Settings { top_k: 0, temperature_q16: Q16_ONE, top_p_q16: Q16_ONE };

/// Order-preserving map of floats to integers, and back.
fn key(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

fn float(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
}

/// The largest threshold in `low..high` that `holds`; it holds at `low`, not at `high`, and is monotone between.
fn search(mut low: u32, mut high: u32, holds: impl Fn(f32) -> bool) -> f32 {
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(float(middle)) { low = middle } else { high = middle }
    }
    float(low)
}

/// `sample` as generated code does it: passes over the logits, no memory but scalars.
fn sample_by_search(logits: &[f32], settings: &Settings, state: &mut [u64; 2]) -> u32 {
    let mut best = 0;
    for (id, x) in logits.iter().enumerate() {
        if *x > logits[best] {
            best = id;
        }
    }
    if settings.is_greedy() {
        return best as u32;
    }
    let (max, t) = (logits[best], temperature(settings));
    let (mut threshold, mut ties) = (f32::MIN, logits.len() as u64);
    let above_max = key(max) + 1;
    if settings.top_k != 0 && (settings.top_k as usize) < logits.len() {
        let count = |f: &dyn Fn(f32) -> bool| logits.iter().filter(|x| f(**x)).count() as u64;
        let k = u64::from(settings.top_k);
        threshold = search(key(f32::MIN), above_max, |c| count(&|x| x >= c) >= k);
        ties = k - count(&|x| x > threshold);
    }
    let sum_above = |c: f32| logits.iter().filter(|x| **x > c).map(|x| u64::from(weight(*x, max, t))).sum::<u64>();
    let sum_from = |c: f32| logits.iter().filter(|x| **x >= c).map(|x| u64::from(weight(*x, max, t))).sum::<u64>();
    let equal = logits.iter().filter(|x| **x == threshold).count() as u64;
    let mut total = sum_above(threshold) + ties.min(equal) * u64::from(weight(threshold, max, t));
    if settings.top_p_q16 != Q16_ONE {
        let needed = (total * u64::from(settings.top_p_q16)).div_ceil(u64::from(Q16_ONE)).max(1);
        threshold = search(key(threshold), above_max, |c| sum_from(c) >= needed);
        let (above, one) = (sum_above(threshold), u64::from(weight(threshold, max, t)));
        ties = (needed - above).div_ceil(one);
        total = above + ties * one;
    }
    let mut u = scaled(next_random(state), total);
    for (id, &x) in logits.iter().enumerate() {
        let kept = x > threshold || (x == threshold && ties > 0);
        ties -= u64::from(x == threshold && kept);
        if kept {
            let w = u64::from(weight(x, max, t));
            if u < w {
                return id as u32;
            }
            u -= w;
        }
    }
    unreachable!("u is below the sum of the weights")
}

/// Few distinct values, so that ties, zeros of both signs and extremes meet every threshold.
fn logit() -> impl Strategy<Value = f32> {
    prop_oneof![
        prop::sample::select(vec![0.0f32, -0.0, 1.0, -1.0, 2.5, f32::MIN, f32::MAX, f32::MIN_POSITIVE]),
        -8.0f32..8.0,
        (-6i32..6).prop_map(|i| i as f32),
    ]
}

proptest! {
    #[test]
    fn search_equals_definition(
        logits in prop::collection::vec(logit(), 1..80),
        top_k in prop_oneof![Just(0u32), Just(1), 1u32..90],
        temperature_q16 in prop_oneof![Just(Q16_ONE), Just(0), 1u32..300_000, Just(u32::MAX)],
        top_p_q16 in prop_oneof![Just(Q16_ONE), Just(0), 0u32..=Q16_ONE],
        seed in 1u64..,
    ) {
        let settings = Settings { top_k, temperature_q16, top_p_q16 };
        let (mut a, mut b) = ([seed, !seed], [seed, !seed]);
        let expected = sample(&logits, &settings, &mut a).expect("finite logits and valid settings");
        prop_assert_eq!(sample_by_search(&logits, &settings, &mut b), expected);
        prop_assert_eq!(a, b);
    }

    #[test]
    fn one_token_is_the_first_argmax(logits in prop::collection::vec(logit(), 1..80), seed in 1u64..) {
        let best = logits.iter().copied().fold(f32::MIN, f32::max);
        let first = logits.iter().position(|x| *x == best).expect("the maximum is there") as u32;
        for settings in [
            Settings { top_k: 1, ..PLAIN },
            Settings { temperature_q16: 0, ..PLAIN },
            Settings { top_p_q16: 0, ..PLAIN },
        ] {
            prop_assert_eq!(sample(&logits, &settings, &mut [seed, 7]), Ok(first));
        }
    }
}

#[test]
fn generator_matches_its_published_code() {
    // Outputs of the authors' C code from the state {1, 2}.
    let mut state = [1u64, 2];
    let got: Vec<u64> = (0..4).map(|_| next_random(&mut state)).collect();
    assert_eq!(got, GENERATOR_FROM_1_2);
}

const GENERATOR_FROM_1_2: [u64; 4] =
    [393_217, 669_327_710_093_319, 1_732_421_326_133_921_491, 11_394_790_081_659_126_983];

#[test]
fn greedy_leaves_the_state_alone_and_a_draw_advances_it_once() {
    let mut state = [5, 6];
    sample(&[1.0, 2.0], &Settings { top_k: 1, ..PLAIN }, &mut state).expect("valid");
    assert_eq!(state, [5, 6]);
    let mut expected = state;
    next_random(&mut expected);
    sample(&[1.0], &PLAIN, &mut state).expect("valid");
    assert_eq!(state, expected);
}

#[test]
fn wrong_input_changes_nothing() {
    let mut state = [5, 6];
    let too_much = Settings { top_p_q16: Q16_ONE + 1, ..PLAIN };
    assert_eq!(sample(&[1.0], &too_much, &mut state), Err(SampleError::TopP { top_p_q16: Q16_ONE + 1 }));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(sample(&[1.0, bad], &PLAIN, &mut state), Err(SampleError::NonFinite { id: 1 }));
    }
    assert_eq!(state, [5, 6]);
    assert_eq!(sample(&[1.0], &PLAIN, &mut [0, 0]), Err(SampleError::State));
    assert_eq!(sample(&[1.0], &Settings { top_k: 1, ..PLAIN }, &mut [0, 0]), Ok(0));
}

#[test]
fn weights_span_their_range() {
    assert_eq!(weight(3.0, 3.0, 1.0), WEIGHT_ONE);
    assert_eq!(weight(-0.0, 0.0, 0.5), WEIGHT_ONE);
    assert_eq!(weight(f32::MIN, f32::MAX, f32::MIN_POSITIVE), 0);
    // exp(-16.7) · 2^24 is just below 1.
    assert_eq!(weight(-16.7, 0.0, 1.0), 0);
    assert_eq!(weight(-16.6, 0.0, 1.0), 1);
}

/// A tie at the cut of `top_p` keeps the lowest ids: of four equal tokens half the weight is the first two.
#[test]
fn ties_at_the_cut_go_to_low_ids() {
    let settings = Settings { top_p_q16: Q16_ONE / 2, ..PLAIN };
    let mut state = [3, 9];
    let mut seen = [0; 4];
    for _ in 0..200 {
        seen[sample(&[2.0; 4], &settings, &mut state).expect("valid") as usize] += 1;
    }
    assert!(seen[0] > 50 && seen[1] > 50 && seen[2] == 0 && seen[3] == 0, "{seen:?}");
}

/// 40000 draws follow the weights: chi-squared with 4 degrees of freedom, 99.99 % below 23.5.
#[test]
fn draws_follow_the_weights() {
    let logits = [1.0f32, -1.0, 2.5, 0.0, 1.0];
    let settings = Settings { temperature_q16: Q16_ONE * 3 / 4, ..PLAIN };
    let weights = logits.map(|x| f64::from(weight(x, 2.5, temperature(&settings))));
    let total: f64 = weights.iter().sum();
    for seed in 1..6u64 {
        let mut state = [seed, 0];
        let mut seen = [0f64; 5];
        for _ in 0..40_000 {
            seen[sample(&logits, &settings, &mut state).expect("valid") as usize] += 1.0;
        }
        let chi: f64 = seen.iter().zip(weights).map(|(s, w)| (s - 4e4 * w / total).powi(2) / (4e4 * w / total)).sum();
        assert!(chi < 23.5, "seed {seed}: chi-squared {chi}");
    }
}
