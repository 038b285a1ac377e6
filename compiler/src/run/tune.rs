//! Measures this machine for a profile: menu rows next to the core, sizes of tasks, caches, and the farthest memory.

use std::hint::black_box;
use std::time::Instant;

use tcc_ir::encoding::Encoding;
use tcc_ir::target::MicroKernel;
use tcc_runtime::bandwidth::{Pages, Reading, cache_bandwidth};
use tcc_runtime::micro_loop::Pace;

use super::caches;
use super::peak::{near_rate, rate};
use crate::error::Error;
use crate::profile::{Profile, VERSION};
use crate::target::Target;

/// Reduction length of the products whose tasks are sized.
const TASK_K: usize = 2560;
/// Output rows of tasks that are tried.
const TASK_ROWS: [usize; 4] = [64, 128, 256, 512];
/// Share of the best rate that smaller tasks may lose: they spread better over threads.
const TASK_LOSS: f64 = 0.02;

/// The profile of `target`, which is this machine, for models that run on `threads` threads: each has its share of
/// the memory's bandwidth. `says` hears what is measured next.
pub fn measure(target: &Target, threads: usize, says: impl Fn(&str)) -> Result<Profile, Error> {
    let desc = target.machine.desc;
    says("the clock");
    let hertz = clock_hertz();
    // One decimal: more would be noise.
    let per_cycle = |per_second: f64| (per_second / hertz * 10.0).round().max(1.0) as f32 / 10.0;
    let mut profile = Profile {
        tcc_profile: VERSION,
        target: desc.name.into(),
        cpu: cpu_name(),
        features: desc.feature_names(target.machine.features),
        bytes: Default::default(),
        bytes_per_cycle: Default::default(),
        macs_per_cycle: Default::default(),
        task_rows: Default::default(),
    };
    for row in target.machine.usable() {
        says(row.name);
        if let Some(rate) = near_rate(target.backend, row)? {
            profile.macs_per_cycle.insert(row.name.into(), per_cycle(rate));
        }
    }
    for (encoding, row) in widest_rows(target, &profile) {
        says(&format!("tasks over {encoding}"));
        if let Some(rows) = task_rows(target, row)? {
            profile.task_rows.insert(encoding.to_string(), rows);
        }
    }
    let Some((farthest, caches)) = desc.memories.split_last() else { return Ok(profile) };
    for (level, memory) in (1..).zip(caches) {
        let Some(bytes) = caches::share_bytes(level) else { continue };
        says(memory.name);
        profile.bytes.insert(memory.name.into(), bytes);
        // Half of it: the rest of the process lives there, too.
        profile.bytes_per_cycle.insert(memory.name.into(), per_cycle(cache_bandwidth(bytes / 2)));
    }
    says(farthest.name);
    let reading = Reading::new(threads, Pages::Usual).map_err(Error::io("measured", "memory"))?;
    profile.bytes_per_cycle.insert(farthest.name.into(), per_cycle(reading.best() / threads as f64));
    Ok(profile)
}

/// Of each encoding with measured rows, the row that takes most tokens at once: a task's weights stay near for it.
fn widest_rows(target: &Target, profile: &Profile) -> Vec<(Encoding, &'static MicroKernel)> {
    let mut widest: Vec<(Encoding, &MicroKernel)> = Vec::new();
    for row in target.machine.usable().filter(|row| profile.macs_per_cycle.contains_key(row.name)) {
        let rate = |row: &MicroKernel| (row.mr, profile.macs_per_cycle[row.name]);
        match widest.iter_mut().find(|(encoding, _)| *encoding == row.encoding) {
            Some((_, best)) if rate(row) > rate(best) => *best = row,
            Some(_) => {}
            None => widest.push((row.encoding, row)),
        }
    }
    widest
}

/// Output rows of a task at which `row` is about as fast as at any, the fewest of those that were tried; `None` for
/// rows that are not assembled.
fn task_rows(target: &Target, row: &MicroKernel) -> Result<Option<usize>, Error> {
    let mut tried = Vec::new();
    for rows in TASK_ROWS {
        let panels = rows.div_ceil(row.encoding.nr());
        let Some(rate) = rate(target.backend, row, TASK_K, panels, 1, Pace::Best)? else { return Ok(None) };
        tried.push((rows, rate));
    }
    let best = tried.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    Ok(tried.into_iter().find(|(_, rate)| *rate >= (1.0 - TASK_LOSS) * best).map(|(rows, _)| rows))
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
pub fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| "unknown".into(), |(_, name)| name.trim().to_owned())
}
