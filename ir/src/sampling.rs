//! The meaning of `sample`: from exact logits to one token, in integers (`docs/sampling.md`).
//!
//! Tokens are ranked by (logit descending, id ascending). `top_k` keeps a prefix of the ranking, `top_p` a shorter
//! prefix, and one draw picks among what is left. Generated code need not sort: it may find the same sets by search.
//!
//! **Invariant:** the token and the new state are a function of (logits, settings, state) alone. Generated code
//! returns the same; its tests compare it with [`sample`].

use crate::numerics;

/// `temperature_q16` and `top_p_q16` of 1.0.
pub const Q16_ONE: u32 = 1 << 16;
/// Weight of the best token: weights are `floor(exp(Δ / T) · 2^24)`.
pub const WEIGHT_ONE: u32 = 1 << 24;
/// Most tokens a vocabulary may have: then `top_p_q16 · total` fits 64 bits.
pub const MAX_VOCAB: usize = (1 << 24) - 1;

/// What the caller sets; the integers of the C struct `tcc_sampler`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Tokens kept; 1 = greedy, 0 = all.
    pub top_k: u32,
    /// T · 65536; 0 = greedy.
    pub temperature_q16: u32,
    /// Share of the weight kept · 65536; 65536 = all, 0 = the best token only.
    pub top_p_q16: u32,
}

impl Settings {
    /// True where no draw is made and the generator is left alone.
    pub fn is_greedy(&self) -> bool {
        self.top_k == 1 || self.temperature_q16 == 0
    }
}

/// Why no token was sampled; the generator's state is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    #[error("top_p_q16 is {top_p_q16}, more than 65536")]
    TopP { top_p_q16: u32 },
    #[error("the generator's state is all zeros")]
    State,
    #[error("logit {id} is not finite")]
    NonFinite { id: usize },
}

/// One step of xoroshiro128++ (Blackman and Vigna 2021, doi:10.1145/3460772): the output, and the state advanced.
pub fn next_random(state: &mut [u64; 2]) -> u64 {
    let [s0, mut s1] = *state;
    let output = s0.wrapping_add(s1).rotate_left(17).wrapping_add(s0);
    s1 ^= s0;
    *state = [s0.rotate_left(49) ^ s1 ^ (s1 << 21), s1.rotate_left(28)];
    output
}

/// T in f32: `f32(temperature_q16) · 2^-16`.
pub fn temperature(settings: &Settings) -> f32 {
    // Rounds to nearest even, as the conversion instruction does; the product is exact.
    settings.temperature_q16 as f32 * (1.0 / 65536.0)
}

/// Weight of a token whose logit is `logit` where the largest is `best`: `floor(exp((logit - best) / t) · 2^24)`,
/// each f32 operation rounded. At most [`WEIGHT_ONE`]; a token of weight 0 is never drawn.
pub fn weight(logit: f32, best: f32, t: f32) -> u32 {
    let e = numerics::exp((logit - best) / t);
    // 0 <= e <= 1, so the product is exact and truncation is the floor.
    (e * WEIGHT_ONE as f32) as u32
}

/// `floor(random · total / 2^64)`: a number below `total`.
pub fn scaled(random: u64, total: u64) -> u64 {
    // The high half of the 128-bit product fits 64 bits.
    ((u128::from(random) * u128::from(total)) >> 64) as u64
}

/// Samples one token of `logits: f32[vocab]` and advances `state` by one step, or by none when greedy.
///
/// Greedy: the first token of the ranking. Otherwise `top_k` keeps the first k of the ranking, all of weight
/// [`weight`]; `top_p` keeps the shortest prefix of those whose weight is at least `ceil(total · top_p_q16 / 65536)`
/// and at least 1; then `u = scaled(next_random, weight of the kept)`, and walking the kept tokens by increasing id,
/// the token is the first whose weight exceeds what is left of `u` after subtracting the weights before it.
pub fn sample(logits: &[f32], settings: &Settings, state: &mut [u64; 2]) -> Result<u32, SampleError> {
    assert!(!logits.is_empty() && logits.len() <= MAX_VOCAB, "a vocabulary has 1 to {MAX_VOCAB} tokens");
    if settings.top_p_q16 > Q16_ONE {
        return Err(SampleError::TopP { top_p_q16: settings.top_p_q16 });
    }
    if !settings.is_greedy() && *state == [0, 0] {
        return Err(SampleError::State);
    }
    if let Some(id) = logits.iter().position(|x| !x.is_finite()) {
        return Err(SampleError::NonFinite { id });
    }
    let mut kept = ranking(logits);
    if settings.is_greedy() {
        return Ok(kept[0]);
    }
    let (best, t) = (logits[kept[0] as usize], temperature(settings));
    let weight_of = |id: u32| u64::from(weight(logits[id as usize], best, t));
    if settings.top_k != 0 {
        kept.truncate(settings.top_k as usize);
    }
    kept.truncate(prefix_of_weight(&kept, settings.top_p_q16, weight_of));
    kept.sort_unstable();
    let total = kept.iter().map(|&id| weight_of(id)).sum();
    let mut u = scaled(next_random(state), total);
    for id in kept {
        match u.checked_sub(weight_of(id)) {
            Some(rest) => u = rest,
            None => return Ok(id),
        }
    }
    unreachable!("u is below the sum of the weights")
}

/// All ids by (logit descending, id ascending); -0 and +0 are equal.
fn ranking(logits: &[f32]) -> Vec<u32> {
    // The vocabulary is at most MAX_VOCAB.
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_by(|&a, &b| {
        let (x, y) = (logits[a as usize], logits[b as usize]);
        y.partial_cmp(&x).expect("logits are finite").then(a.cmp(&b))
    });
    ids
}

/// Length of the shortest prefix of `ranked` that holds the share `top_p_q16` of its weight, at least 1.
fn prefix_of_weight(ranked: &[u32], top_p_q16: u32, weight_of: impl Fn(u32) -> u64) -> usize {
    if top_p_q16 == Q16_ONE {
        return ranked.len();
    }
    let total: u64 = ranked.iter().map(|&id| weight_of(id)).sum();
    let needed = (total * u64::from(top_p_q16)).div_ceil(u64::from(Q16_ONE)).max(1);
    let mut sum = 0;
    for (i, &id) in ranked.iter().enumerate() {
        sum += weight_of(id);
        if sum >= needed {
            return i + 1;
        }
    }
    unreachable!("the share is at most the whole")
}

#[cfg(test)]
#[path = "sampling_tests.rs"]
mod tests;
