//! Time by op, for builds that call the hooks `op_begin` and `op_end`: the clock is here, not in the object.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::abi::{Hooks, Task};
use crate::session::HookSet;

/// Hooks that measure how long each op takes, around other hooks.
pub struct OpClock<'a> {
    inner: HookSet<'a>,
    start: Instant,
    /// When the running op began, nanoseconds after `start`.
    began: AtomicU64,
    /// Nanoseconds of each op.
    spent: Vec<AtomicU64>,
}

impl<'a> OpClock<'a> {
    /// A clock for the `ops` ops of a model (`Info::op_count`), whose sessions also get the hooks `inner`.
    pub fn new(ops: u32, inner: HookSet<'a>) -> Self {
        let spent = (0..ops).map(|_| AtomicU64::new(0)).collect();
        OpClock { inner, start: Instant::now(), began: AtomicU64::new(0), spent }
    }

    /// The hooks of a session.
    pub fn hooks(&self) -> HookSet<'_> {
        let inner = self.inner.raw();
        let user = std::ptr::from_ref(self).cast_mut().cast::<c_void>();
        let hooks = Hooks {
            user,
            parallel_for: inner.parallel_for.map(|_| parallel_for as _),
            should_stop: inner.should_stop.map(|_| should_stop as _),
            op_begin: Some(op_begin),
            op_end: Some(op_end),
            now: None,
            ..inner
        };
        // SAFETY: the hooks below hand every call on to those of `inner`, which `self` borrows.
        unsafe { HookSet::new(hooks) }
    }

    /// Time spent in each op since the last call, by number.
    pub fn take(&self) -> Vec<Duration> {
        self.spent.iter().map(|spent| Duration::from_nanos(spent.swap(0, Ordering::Relaxed))).collect()
    }

    /// Nanoseconds after `start`; a session ends long before 2^64 of them.
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

/// # Safety
/// `user` is that of [`OpClock::hooks`].
unsafe fn clock<'c>(user: *mut c_void) -> &'c OpClock<'c> {
    // SAFETY: the session's hooks borrow the clock.
    unsafe { &*user.cast::<OpClock<'_>>() }
}

unsafe extern "C" fn op_begin(user: *mut c_void, _op: u32) {
    // SAFETY: `hooks` set `user`.
    let clock = unsafe { clock(user) };
    clock.began.store(clock.now(), Ordering::Relaxed);
}

unsafe extern "C" fn op_end(user: *mut c_void, op: u32) {
    // SAFETY: `hooks` set `user`.
    let clock = unsafe { clock(user) };
    if let Some(spent) = clock.spent.get(op as usize) {
        spent.fetch_add(clock.now() - clock.began.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

unsafe extern "C" fn parallel_for(user: *mut c_void, n: u32, task: Task, arg: *mut c_void) {
    // SAFETY: `hooks` set `user`.
    let inner = unsafe { clock(user) }.inner.raw();
    if let Some(parallel_for) = inner.parallel_for {
        // SAFETY: the inner hook with its own first argument; the rest is the caller's.
        unsafe { parallel_for(inner.user, n, task, arg) };
    }
}

unsafe extern "C" fn should_stop(user: *mut c_void) -> c_int {
    // SAFETY: `hooks` set `user`.
    let inner = unsafe { clock(user) }.inner.raw();
    // SAFETY: the inner hook with its own first argument.
    inner.should_stop.map_or(0, |should_stop| unsafe { should_stop(inner.user) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Pool;

    #[test]
    fn ops_are_timed_and_other_hooks_still_called() {
        let pool = Pool::new(2).expect("a thread");
        let clock = OpClock::new(2, pool.hooks());
        let hooks = clock.hooks().raw();
        let (begin, end) = (hooks.op_begin.expect("set"), hooks.op_end.expect("set"));
        unsafe extern "C" fn count(arg: *mut c_void, _index: u32) {
            // SAFETY: the test passes a counter.
            unsafe { &*arg.cast::<AtomicU64>() }.fetch_add(1, Ordering::Relaxed);
        }
        let counter = AtomicU64::new(0);
        // SAFETY: the hooks are live, and `count` takes the counter; an op past the last is ignored.
        unsafe {
            begin(hooks.user, 1);
            std::thread::sleep(Duration::from_millis(2));
            let arg = std::ptr::from_ref(&counter).cast_mut().cast();
            hooks.parallel_for.expect("set")(hooks.user, 5, count, arg);
            end(hooks.user, 1);
            end(hooks.user, 9);
        }
        assert_eq!(counter.into_inner(), 5);
        let spent = clock.take();
        assert!(spent[0].is_zero() && spent[1] >= Duration::from_millis(2), "{spent:?}");
        assert!(clock.take()[1].is_zero());
        assert!(hooks.should_stop.is_none());
    }
}
