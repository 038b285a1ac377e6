//! How fast this machine reads memory: the roofline of decoding.

use std::hint::black_box;
use std::io;
use std::sync::Barrier;
use std::time::Instant;

use memmap2::MmapMut;

/// Bytes each measurement reads: far larger than any cache.
const BYTES: usize = 512 << 20;

/// Passes of which the fastest counts.
const PASSES: usize = 6;

/// Time of a measurement that interruptions are part of.
const SUSTAINED_SECONDS: f64 = 0.05;

/// Bytes summed between two fetches.
const LINE: usize = 64;

/// Size of pages asked for; the system may not grant large ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    Usual,
    Huge,
}

/// What is asked for ahead of the loads.
#[derive(Clone, Copy, Debug)]
enum Ahead {
    /// Nothing: the hardware's own streams are the fastest.
    Nothing,
    /// A line so many bytes ahead, to the first-level cache.
    First(usize),
    /// The same, to the second-level cache.
    Second(usize),
}

/// Ways of reading, of which the fastest is the limit: processors differ.
const WAYS: [Ahead; 3] = [Ahead::Nothing, Ahead::First(4096), Ahead::Second(2048)];

/// Memory that is read over and over to measure its bandwidth.
pub struct Reading {
    buffer: MmapMut,
    threads: usize,
    way: Ahead,
}

impl Reading {
    /// Memory in such pages that `threads` threads (at least 1) read together. Fails where the system has none.
    pub fn new(threads: usize, pages: Pages) -> io::Result<Self> {
        let mut buffer = MmapMut::map_anon(BYTES)?;
        #[cfg(target_os = "linux")]
        {
            let advice = match pages {
                Pages::Usual => memmap2::Advice::NoHugePage,
                Pages::Huge => memmap2::Advice::HugePage,
            };
            // A kernel without huge pages refuses; then both kinds are the same.
            let _ = buffer.advise(advice);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = pages;
        buffer.fill(1);
        let mut reading = Reading { buffer, threads: threads.max(1), way: WAYS[0] };
        let times = WAYS.map(|way| {
            reading.way = way;
            reading.pass_seconds().min(reading.pass_seconds())
        });
        let best = times.iter().zip(WAYS).min_by(|(a, _), (b, _)| a.total_cmp(b));
        reading.way = best.expect("a few").1;
        Ok(reading)
    }

    /// The fastest of a few passes, bytes per second: the machine undisturbed.
    pub fn best(&self) -> f64 {
        (0..PASSES).map(|_| BYTES as f64 / self.pass_seconds()).fold(0.0, f64::max)
    }

    /// The mean over a while, bytes per second, with whatever else the machine does meanwhile.
    pub fn sustained(&self) -> f64 {
        let (mut bytes, mut seconds) = (0.0, 0.0);
        while seconds < SUSTAINED_SECONDS {
            seconds += self.pass_seconds();
            bytes += BYTES as f64;
        }
        bytes / seconds
    }

    /// Seconds of one pass: each thread sums its own contiguous part; they begin together.
    fn pass_seconds(&self) -> f64 {
        let part = BYTES.div_ceil(self.threads).next_multiple_of(LINE);
        let barrier = Barrier::new(self.threads);
        let times: Vec<(Instant, Instant)> = std::thread::scope(|scope| {
            let parts = (0..self.threads).map(|thread| self.part(thread * part, part));
            let spawn = |bytes| {
                let (barrier, way) = (&barrier, self.way);
                scope.spawn(move || {
                    barrier.wait();
                    let begin = Instant::now();
                    black_box(widest_sum(bytes, way));
                    (begin, Instant::now())
                })
            };
            let threads: Vec<_> = parts.map(spawn).collect();
            threads.into_iter().map(|thread| thread.join().expect("reading does not panic")).collect()
        });
        let begin = times.iter().map(|(begin, _)| *begin).min().expect("at least one thread");
        let end = times.iter().map(|(_, end)| *end).max().expect("at least one thread");
        (end - begin).as_secs_f64()
    }

    /// `bytes` bytes from `start`, as far as there are any.
    fn part(&self, start: usize, bytes: usize) -> &[u8] {
        let start = start.min(BYTES);
        &self.buffer[start..(start + bytes).min(BYTES)]
    }
}

/// Bytes a measurement of a cache reads at least in each attempt.
const CACHE_BYTES: usize = 64 << 20;

/// Read bandwidth of this thread, bytes per second, over and over the same `bytes` bytes.
pub fn cache_bandwidth(bytes: usize) -> f64 {
    let buffer = vec![1u8; bytes.max(LINE).next_multiple_of(LINE)];
    let passes = CACHE_BYTES.div_ceil(buffer.len());
    let attempt = || {
        let begin = Instant::now();
        for _ in 0..passes {
            black_box(widest_sum(black_box(&buffer), Ahead::Nothing));
        }
        (passes * buffer.len()) as f64 / begin.elapsed().as_secs_f64()
    };
    // The first one brings the bytes near.
    (0..=PASSES).map(|_| attempt()).fold(0.0, f64::max)
}

/// [`sum`] with the widest registers that every core of this instruction set with vectors of 256 bits has.
fn widest_sum(bytes: &[u8], way: Ahead) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn wide(bytes: &[u8], way: Ahead) -> u64 {
            sum_by(bytes, way)
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the core has the feature.
            return unsafe { wide(bytes, way) };
        }
    }
    sum_by(bytes, way)
}

/// [`sum`], with the choice made once.
#[inline(always)]
fn sum_by(bytes: &[u8], way: Ahead) -> u64 {
    match way {
        Ahead::Nothing => sum(bytes, |_| {}),
        Ahead::First(ahead) => sum(bytes, |line| ask::<true>(line.wrapping_add(ahead))),
        Ahead::Second(ahead) => sum(bytes, |line| ask::<false>(line.wrapping_add(ahead))),
    }
}

/// Sum of 64-bit words, a cache line at a time, with enough accumulators that the loads are the limit.
#[inline(always)]
fn sum(bytes: &[u8], ahead_of: impl Fn(*const u8)) -> u64 {
    let mut sums = [0u64; LINE / 8];
    for line in bytes.chunks_exact(LINE) {
        ahead_of(line.as_ptr());
        for (sum, word) in sums.iter_mut().zip(line.chunks_exact(8)) {
            *sum = sum.wrapping_add(u64::from_ne_bytes(word.try_into().expect("chunks of eight")));
        }
    }
    sums.iter().fold(0, |a, b| a.wrapping_add(*b))
}

/// Asks for the cache line at `address`, wherever that is, to the first-level cache or the second.
#[inline(always)]
fn ask<const IS_FIRST: bool>(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch is a hint; it never faults, whatever the address.
        unsafe {
            match IS_FIRST {
                true => _mm_prefetch::<_MM_HINT_T0>(address.cast()),
                false => _mm_prefetch::<_MM_HINT_T1>(address.cast()),
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
