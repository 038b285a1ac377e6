//! Settings of the sampler in a user's units. What they mean is `docs/sampling.md`; the object itself samples.

use crate::abi::Sampler;

/// 1.0 in the sampler's fixed-point members.
const ONE_Q16: f32 = 65536.0;

impl Sampler {
    /// Always the most likely token.
    pub const GREEDY: Sampler = Sampler {
        size: size_of::<Sampler>() as u32,
        top_k: 1,
        temperature_q16: 0,
        top_p_q16: ONE_Q16 as u32,
        rng: [0; 2],
    };

    /// A sampler at `temperature` (0 = greedy) with its generator seeded: equal arguments give equal texts.
    pub fn seeded(seed: u64, temperature: f32) -> Sampler {
        let mut state = seed;
        let rng = [splitmix64(&mut state), splitmix64(&mut state)];
        // `as` saturates and maps NaN to 0: any temperature gives a valid setting.
        let temperature_q16 = (temperature * ONE_Q16) as u32;
        Sampler { top_k: 0, temperature_q16, rng, ..Sampler::GREEDY }
    }

    /// Keeps the `k` most likely tokens; 0 = all.
    pub fn with_top_k(self, k: u32) -> Sampler {
        Sampler { top_k: k, ..self }
    }

    /// Keeps the most likely tokens that hold the share `p` of the probability; 1 = all.
    pub fn with_top_p(self, p: f32) -> Sampler {
        // As above; more than all is all.
        Sampler { top_p_q16: ((p * ONE_Q16) as u32).min(ONE_Q16 as u32), ..self }
    }
}

/// One step of splitmix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195), which its authors and those of
/// xoroshiro use to spread seeds. Two outputs in a row are never both 0.
pub(crate) fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_spread() {
        // First outputs of the published code from the seed 1234567.
        let mut state = 1_234_567;
        assert_eq!(splitmix64(&mut state), 6_457_827_717_110_365_317);
        assert_eq!(splitmix64(&mut state), 3_203_168_211_198_807_973);
        assert_ne!(Sampler::seeded(0, 1.0).rng, [0, 0]);
        assert_ne!(Sampler::seeded(0, 1.0).rng, Sampler::seeded(1, 1.0).rng);
    }

    #[test]
    fn units_become_fixed_point() {
        let sampler = Sampler::seeded(1, 0.5).with_top_p(0.25).with_top_k(40);
        assert_eq!((sampler.temperature_q16, sampler.top_p_q16, sampler.top_k), (32768, 16384, 40));
        assert_eq!(Sampler::seeded(1, f32::NAN).temperature_q16, 0);
        assert_eq!(Sampler::seeded(1, -1.0).temperature_q16, 0);
        assert_eq!(Sampler::seeded(1, 1.0).with_top_p(7.0).top_p_q16, 65536);
    }
}
