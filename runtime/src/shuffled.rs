//! `parallel_for`s for tests: one thread, every order. Results that depend on the order of tasks show here, and whether
//! a thread takes what others leave.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::abi::{Hooks, Task};
use crate::sample::splitmix64;
use crate::session::HookSet;

/// Runs the tasks of every second loop in reverse, of the others in a shuffled order that `seed` decides.
pub struct ShuffledSerial {
    threads: u32,
    state: AtomicU64,
}

impl ShuffledSerial {
    /// Pretends to run `threads` tasks at once, so that loops are cut as for that many threads.
    pub fn new(threads: u32, seed: u64) -> Self {
        ShuffledSerial { threads: threads.max(1), state: AtomicU64::new(seed) }
    }

    /// The hooks of a session.
    pub fn hooks(&self) -> HookSet<'_> {
        let user = std::ptr::from_ref(self).cast_mut().cast::<c_void>();
        let hooks = Hooks { threads: self.threads, user, parallel_for: Some(parallel_for), ..Hooks::NONE };
        // SAFETY: `parallel_for` runs each task once before it returns, and the result borrows `self`.
        unsafe { HookSet::new(hooks) }
    }

    /// The order of the next loop over `n` tasks.
    fn order(&self, n: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n).rev().collect();
        let mut state = self.state.fetch_add(1, Ordering::Relaxed);
        if state.is_multiple_of(2) {
            for last in (1..order.len()).rev() {
                // Below last + 1, which came from a usize.
                let other = (splitmix64(&mut state) % (last as u64 + 1)) as usize;
                order.swap(last, other);
            }
        }
        order
    }
}

/// Hooks for `threads` threads of which the first alone comes: each loop runs its first task. An object whose threads
/// take what others leave has done all when that returns.
pub fn first_alone(threads: u32) -> HookSet<'static> {
    let hooks = Hooks { threads, parallel_for: Some(first_task), ..Hooks::NONE };
    // SAFETY: `first_task` needs no state; tasks that it leaves out can only make results wrong.
    unsafe { HookSet::new(hooks) }
}

unsafe extern "C" fn first_task(_: *mut c_void, _: u32, task: Task, arg: *mut c_void) {
    // SAFETY: the object's task may be called with its argument until this returns.
    unsafe { task(arg, 0) };
}

unsafe extern "C" fn parallel_for(user: *mut c_void, n: u32, task: Task, arg: *mut c_void) {
    // SAFETY: `hooks` set `user`, and the hooks borrow it.
    let shuffled = unsafe { &*user.cast::<ShuffledSerial>() };
    for index in shuffled.order(n) {
        // SAFETY: the object's task may be called with its argument until this returns.
        unsafe { task(arg, index) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_permutations_and_differ() {
        let shuffled = ShuffledSerial::new(3, 1);
        let orders: Vec<Vec<u32>> = (0..4).map(|_| shuffled.order(20)).collect();
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..20).collect::<Vec<_>>());
        }
        assert_eq!(orders[0], (0..20).rev().collect::<Vec<_>>());
        assert_ne!(orders[1], orders[3]);
        assert_ne!(orders[1], orders[0]);
    }
}
