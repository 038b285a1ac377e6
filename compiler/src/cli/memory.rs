//! Peak anonymous memory of a piece of work, sampled from the operating system's own count.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time between samples: allocations that live shorter may be missed.
const INTERVAL: Duration = Duration::from_millis(5);

/// Runs `work` and returns its result with the largest anonymous memory of this process seen meanwhile, in bytes;
/// `None` where the system does not say.
pub fn peak<T: Send>(work: impl FnOnce() -> T + Send) -> (T, Option<u64>) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut peak = anonymous_bytes();
            while !done.load(Ordering::Acquire) {
                std::thread::sleep(INTERVAL);
                peak = peak.max(anonymous_bytes());
            }
            peak
        });
        let result = work();
        done.store(true, Ordering::Release);
        (result, sampler.join().expect("sampling does not panic"))
    })
}

/// Resident anonymous memory of this process, as Linux states it.
fn anonymous_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
