//! Waiting for a condition that another thread makes true: spin a little, then sleep.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Times a waiting thread looks before it sleeps: some tens of microseconds, longer than the serial steps between
/// two loops of a token, shorter than what a sleeper costs a battery.
const SPINS: u32 = 2000;

/// A place to wait for a condition.
///
/// **Invariant:** no wake-up is lost. The waker changes the condition, then reads `sleepers`; a sleeper raises
/// `sleepers`, then reads the condition: in the one order of `SeqCst` at least one of them sees the other, and the
/// lock keeps the notification from falling between a sleeper's look and its sleep.
#[derive(Default)]
pub struct Gate {
    sleepers: AtomicU32,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Gate {
    pub fn new() -> Self {
        Gate::default()
    }

    /// Returns when `ready` is true. `ready` reads atomics with `SeqCst`.
    pub fn wait(&self, ready: impl Fn() -> bool) {
        for _ in 0..SPINS {
            if ready() {
                return;
            }
            spin_loop();
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while !ready() {
            guard = self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Lets the waiting threads look again, after a `SeqCst` store that may have made their condition true.
    pub fn open(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.changed.notify_all();
        }
    }
}
