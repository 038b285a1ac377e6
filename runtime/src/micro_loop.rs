//! One function of generated code called over and over on data that stays near the core: how fast it can be.

use std::io;
use std::sync::Barrier;
use std::time::Instant;

use crate::code::Code;

/// Alignment of buffers, bytes.
const ALIGN: usize = 64;

/// Time of one measurement, and how many are made: short enough that some are not interrupted.
const SECONDS: f64 = 0.001;
const TRIES: usize = 30;

/// Time of a measurement that interruptions are part of.
const SUSTAINED_SECONDS: f64 = 0.05;

/// A word of the function's argument block.
#[derive(Clone, Debug)]
pub enum Word {
    Value(u64),
    /// The address of a buffer with this content, aligned to 64 bytes, of which each thread has its own.
    Buffer(Vec<u8>),
}

/// What is said of a number of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Each thread at its best in a few short attempts.
    Best,
    /// The mean over a while, with whatever else the machine does meanwhile.
    Sustained,
}

/// Calls per second that `threads` threads (at least 1) make together; they begin together.
///
/// `code` is an `extern "C" fn(args: *const u64)` made by tcc for this machine, without relocations, that touches
/// nothing but the buffers of its argument block `words`: it is trusted.
pub fn calls_per_second(code: &[u8], words: &[Word], threads: usize, pace: Pace) -> io::Result<f64> {
    if code.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no code"));
    }
    let code = Code::new(code)?;
    let barrier = Barrier::new(threads.max(1));
    let rates = std::thread::scope(|scope| {
        let measure = || scope.spawn(|| one_thread(&code, words, &barrier, pace));
        let threads: Vec<_> = (0..threads.max(1)).map(|_| measure()).collect();
        threads.into_iter().map(|thread| thread.join().expect("measuring does not panic")).sum()
    });
    Ok(rates)
}

/// Calls per second of this thread, while the others of the barrier do the same.
fn one_thread(code: &Code, words: &[Word], barrier: &Barrier, pace: Pace) -> f64 {
    let mut memory: Vec<Vec<u8>> = words.iter().map(buffer).collect();
    let block: Vec<u64> = words.iter().zip(&mut memory).map(|(word, bytes)| address(word, bytes)).collect();
    // SAFETY: the caller vouches that the code is such a function.
    let call: unsafe extern "C" fn(*const u64) = unsafe { std::mem::transmute(code.as_ptr()) };
    let run = |times: u32| {
        let begin = Instant::now();
        for _ in 0..times {
            // SAFETY: the block is what the function expects, and its buffers are this thread's alone.
            unsafe { call(block.as_ptr()) };
        }
        begin.elapsed().as_secs_f64()
    };
    let mut times = 1;
    while run(times) < SECONDS && times < 1 << 30 {
        times *= 2;
    }
    match pace {
        Pace::Best => {
            let attempt = || {
                barrier.wait();
                run(times)
            };
            f64::from(times) / (0..TRIES).map(|_| attempt()).fold(f64::INFINITY, f64::min)
        }
        Pace::Sustained => {
            barrier.wait();
            let (mut calls, mut seconds) = (0.0, 0.0);
            while seconds < SUSTAINED_SECONDS {
                seconds += run(times);
                calls += f64::from(times);
            }
            calls / seconds
        }
    }
}

/// The word's bytes with room to align them.
fn buffer(word: &Word) -> Vec<u8> {
    match word {
        Word::Value(_) => Vec::new(),
        Word::Buffer(bytes) => vec![0; bytes.len() + ALIGN],
    }
}

/// What the block holds: the value, or the aligned address in `memory`, to which the content is copied.
fn address(word: &Word, memory: &mut [u8]) -> u64 {
    match word {
        Word::Value(value) => *value,
        Word::Buffer(bytes) => {
            let start = memory.as_ptr().align_offset(ALIGN);
            let place = &mut memory[start..start + bytes.len()];
            place.copy_from_slice(bytes);
            place.as_mut_ptr() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `add qword [rdi's second word's buffer], 1`, by hand: `mov rax, [rdi + 8]; inc qword [rax]; ret`.
    #[cfg(all(target_arch = "x86_64", not(windows)))]
    #[test]
    fn code_is_called_with_its_block() {
        let code = [0x48, 0x8b, 0x47, 0x08, 0x48, 0xff, 0x00, 0xc3];
        let words = [Word::Value(7), Word::Buffer(vec![0; 8])];
        for pace in [Pace::Best, Pace::Sustained] {
            let rate = calls_per_second(&code, &words, 2, pace).expect("memory");
            // Far between a call a microsecond and ten a nanosecond.
            assert!((1e6..2e10).contains(&rate), "{pace:?}: {rate}");
        }
    }

    #[test]
    fn nothing_is_not_called() {
        assert!(calls_per_second(&[], &[], 1, Pace::Best).is_err());
    }
}
