//! Measures this machine for a profile: its menu rows next to the core, and its farthest memory.

use std::hint::black_box;
use std::time::Instant;

use tcc_runtime::bandwidth::{Pages, read_bandwidth};

use super::peak::rate;
use crate::error::Error;
use crate::profile::{Profile, VERSION};
use crate::target::Target;

/// The profile of `target`, which is this machine, for models that run on `threads` threads: each has its share of
/// the memory's bandwidth.
pub fn measure(target: &Target, threads: usize) -> Result<Profile, Error> {
    let desc = target.machine.desc;
    let hertz = clock_hertz();
    // One decimal: more would be noise.
    let per_cycle = |per_second: f64| (per_second / hertz * 10.0).round().max(1.0) as f32 / 10.0;
    let mut profile = Profile {
        tcc_profile: VERSION,
        target: desc.name.into(),
        cpu: cpu_name(),
        bytes_per_cycle: Default::default(),
        macs_per_cycle: Default::default(),
    };
    for row in target.machine.usable() {
        if let Some(rate) = rate(target.backend, row, 1)? {
            profile.macs_per_cycle.insert(row.name.into(), per_cycle(rate));
        }
    }
    if let Some(memory) = desc.memories.last() {
        let bandwidth = read_bandwidth(threads, Pages::Usual).map_err(Error::io("measured", "memory"))?;
        profile.bytes_per_cycle.insert(memory.name.into(), per_cycle(bandwidth / threads as f64));
    }
    Ok(profile)
}

/// Measurements of the clock of which the fastest counts.
const TRIES: usize = 40;

/// Clock of this core: a chain of dependent multiplications, three cycles each on the cores of the last decade.
pub fn clock_hertz() -> f64 {
    (0..TRIES).map(|_| one_clock()).fold(0.0, f64::max)
}

fn one_clock() -> f64 {
    const STEPS: u32 = 3_000_000;
    const LATENCY: f64 = 3.0;
    let begin = Instant::now();
    let mut product = black_box(3u64);
    for _ in 0..STEPS {
        product = black_box(product.wrapping_mul(product));
    }
    black_box(product);
    f64::from(STEPS) * LATENCY / begin.elapsed().as_secs_f64()
}

/// The processor's name where the system tells.
fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| "unknown".into(), |(_, name)| name.trim().to_owned())
}
