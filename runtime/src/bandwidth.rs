//! How fast this machine reads memory: the roofline of decoding.

use std::hint::black_box;
use std::time::Instant;

/// Bytes each measurement reads: far larger than any cache.
const BYTES: usize = 512 << 20;

/// Passes of which the fastest counts.
const PASSES: usize = 5;

/// Largest read bandwidth of `threads` threads together, bytes per second.
///
/// Each thread sums its own contiguous part of one buffer; the best of a few passes counts.
pub fn read_bandwidth(threads: usize) -> f64 {
    let words = vec![1u64; BYTES / 8];
    let part = words.len().div_ceil(threads.max(1));
    let mut best = 0.0f64;
    for _ in 0..PASSES {
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for words in words.chunks(part) {
                scope.spawn(move || black_box(sum(words)));
            }
        });
        best = best.max(BYTES as f64 / begin.elapsed().as_secs_f64());
    }
    best
}

/// Sum with enough independent accumulators that the loads are the limit.
fn sum(words: &[u64]) -> u64 {
    let mut sums = [0u64; 16];
    for run in words.chunks_exact(16) {
        for (sum, word) in sums.iter_mut().zip(run) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().fold(0, |a, b| a.wrapping_add(*b))
}
