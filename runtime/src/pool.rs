//! A thread pool for `parallel_for`: persistent threads that spin, then park; the calling thread takes part.
//!
//! A job is published in one atomic word, `(epoch, tasks left)`; claiming a task is one compare-and-swap on it, so a
//! thread that wakes late can only claim tasks of the job whose word it read. Every task runs exactly once. The word
//! alone says that a job is used up: what the next one writes beside it before it is published must not revive it.
//!
//! **Invariant:** a job's task and argument are not replaced while a claimed task of it is running: a new job is
//! published only after `unfinished` reached 0, under the lock `running`.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::abi::{Hooks, Task};
use crate::gate::Gate;
use crate::session::HookSet;

/// Bits of the word that hold the number of tasks left.
const INDEX_BITS: u32 = 24;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
/// Most tasks published at once; a longer loop is several jobs.
const JOB_TASKS: u32 = INDEX_MASK as u32;

/// A pool of threads; dropping it ends them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    threads: u32,
}

/// A value alone on its cache lines (two of 64: neighbors are fetched in pairs).
#[repr(align(128))]
struct Padded<T>(T);

struct Shared {
    /// `epoch << INDEX_BITS | tasks left`.
    word: Padded<AtomicU64>,
    unfinished: Padded<AtomicU32>,
    job: Padded<Job>,
    work: Gate,
    done: Gate,
    stop: AtomicBool,
    /// Held by the thread whose job runs.
    running: Mutex<()>,
}

/// The published job. Atomics, because a late thread may read them while the next job is written; it then fails to
/// claim and uses nothing of what it read.
struct Job {
    task: AtomicPtr<c_void>,
    arg: AtomicPtr<c_void>,
    first: AtomicU32,
    tasks: AtomicU32,
}

impl Pool {
    /// A pool that runs `threads` tasks at once: the caller's thread and `threads - 1` of its own (0 counts as 1).
    ///
    /// Fails where the system refuses a thread.
    pub fn new(threads: u32) -> std::io::Result<Pool> {
        let threads = threads.max(1);
        let mut pool = Pool { shared: Arc::new(Shared::new()), workers: Vec::new(), threads };
        for i in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let worker = std::thread::Builder::new().name(format!("tcc-{i}")).spawn(move || shared.serve())?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Tasks run at once.
    pub fn threads(&self) -> u32 {
        self.threads
    }

    /// The pool as hooks of a session.
    pub fn hooks(&self) -> HookSet<'_> {
        let user = std::ptr::from_ref(&*self.shared).cast_mut().cast::<c_void>();
        let hooks = Hooks { threads: self.threads, user, parallel_for: Some(parallel_for), ..Hooks::NONE };
        // SAFETY: `parallel_for` keeps the hook's contract for a `Shared`, which is `Sync` and lives as long as the
        // pool that the result borrows.
        unsafe { HookSet::new(hooks) }
    }

    /// Calls `task(0..n)`, each once, on the pool's threads; returns when all have returned.
    ///
    /// If a task panics, the others still run; then the first panic goes on in the caller.
    pub fn run(&self, n: u32, task: impl Fn(u32) + Sync) {
        let call = SafeCall { task: &task, panic: Mutex::new(None) };
        let arg = std::ptr::from_ref(&call).cast_mut().cast::<c_void>();
        // SAFETY: `run_safe_call` accepts a pointer to `SafeCall` from any thread, and `call` outlives the loop.
        unsafe { self.shared.run(n, run_safe_call, arg) };
        if let Some(panic) = lock(&call.panic).take() {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.work.open();
        for worker in self.workers.drain(..) {
            // A worker runs tasks that do not unwind; there is nothing to report from a destructor anyway.
            drop(worker.join());
        }
    }
}

/// The hook: `user` is the pool's [`Shared`].
unsafe extern "C" fn parallel_for(user: *mut c_void, n: u32, task: Task, arg: *mut c_void) {
    // SAFETY: `Pool::hooks` set `user`, and the hooks borrow the pool.
    let shared = unsafe { &*user.cast::<Shared>() };
    // SAFETY: the object's task may be called with its argument from any thread until this returns.
    unsafe { shared.run(n, task, arg) };
}

struct SafeCall<'a> {
    task: &'a (dyn Fn(u32) + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

unsafe extern "C" fn run_safe_call(arg: *mut c_void, index: u32) {
    // SAFETY: `Pool::run` passes a `SafeCall` that outlives its loop; the closure is `Sync`.
    let call = unsafe { &*arg.cast::<SafeCall<'_>>() };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (call.task)(index))) {
        lock(&call.panic).get_or_insert(panic);
    }
}

/// A lock whose data is valid at every instant, so that poison says nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn new() -> Self {
        Shared {
            word: Padded(AtomicU64::new(0)),
            unfinished: Padded(AtomicU32::new(0)),
            job: Padded(Job {
                task: AtomicPtr::new(std::ptr::null_mut()),
                arg: AtomicPtr::new(std::ptr::null_mut()),
                first: AtomicU32::new(0),
                tasks: AtomicU32::new(0),
            }),
            work: Gate::new(),
            done: Gate::new(),
            stop: AtomicBool::new(false),
            running: Mutex::new(()),
        }
    }

    /// A worker's life.
    fn serve(&self) {
        let mut seen = 0;
        loop {
            self.work.wait(|| self.epoch() != seen || self.stop.load(Ordering::SeqCst));
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            seen = self.epoch();
            self.drain(seen);
        }
    }

    fn epoch(&self) -> u64 {
        self.word.0.load(Ordering::SeqCst) >> INDEX_BITS
    }

    /// Runs `task(arg, 0..n)`. While another loop is running (a task that starts one, or two sessions of one pool)
    /// this thread does all of it alone.
    ///
    /// # Safety
    /// `task` may be called with `arg` and each index, from any thread, until this returns, and does not unwind.
    unsafe fn run(&self, n: u32, task: Task, arg: *mut c_void) {
        let free = match self.running.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        };
        if free.is_none() || n <= 1 {
            for index in 0..n {
                // SAFETY: the caller allows the call.
                unsafe { task(arg, index) };
            }
            return;
        }
        let mut first = 0;
        while first < n {
            let tasks = (n - first).min(JOB_TASKS);
            self.run_job(task, arg, first, tasks);
            first += tasks;
        }
    }

    /// Publishes one job, takes part in it and waits for its end. The caller holds `running`.
    fn run_job(&self, task: Task, arg: *mut c_void, first: u32, tasks: u32) {
        let job = &self.job.0;
        job.task.store(task as *mut c_void, Ordering::Relaxed);
        job.arg.store(arg, Ordering::Relaxed);
        job.first.store(first, Ordering::Relaxed);
        job.tasks.store(tasks, Ordering::Relaxed);
        self.unfinished.0.store(tasks, Ordering::Relaxed);
        let epoch = self.epoch() + 1;
        // Publishes the stores above to whoever reads the word.
        self.word.0.store(epoch << INDEX_BITS | u64::from(tasks), Ordering::SeqCst);
        self.work.open();
        self.drain(epoch);
        self.done.wait(|| self.unfinished.0.load(Ordering::SeqCst) == 0);
    }

    /// Claims and runs tasks of job `epoch` until none is left.
    fn drain(&self, epoch: u64) {
        while let Some((task, arg, index)) = self.claim(epoch) {
            // SAFETY: the task belongs to a loop that is still in `run`, whose caller allows the call: the loop
            // cannot end before `unfinished` counts this task.
            unsafe { task(arg, index) };
            if self.unfinished.0.fetch_sub(1, Ordering::SeqCst) == 1 {
                self.done.open();
            }
        }
    }

    /// The next task of job `epoch`, none if they are all claimed or the job is over.
    fn claim(&self, epoch: u64) -> Option<(Task, *mut c_void, u32)> {
        let mut word = self.word.0.load(Ordering::Acquire);
        loop {
            let job = &self.job.0;
            let (task, arg) = (job.task.load(Ordering::Relaxed), job.arg.load(Ordering::Relaxed));
            let (first, tasks) = (job.first.load(Ordering::Relaxed), job.tasks.load(Ordering::Relaxed));
            // Below 2^24.
            let left = (word & INDEX_MASK) as u32;
            if word >> INDEX_BITS != epoch || left == 0 {
                return None;
            }
            match self.word.0.compare_exchange_weak(word, word - 1, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: the word did not change, and with tasks left nobody replaces the job, so the one read above is
                // job `epoch`, whose `task` field was stored from a `Task`.
                Ok(_) => {
                    let task = unsafe { std::mem::transmute::<*mut c_void, Task>(task) };
                    return Some((task, arg, first + (tasks - left)));
                }
                Err(now) => word = now,
            }
        }
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
