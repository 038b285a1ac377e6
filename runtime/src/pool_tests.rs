//! Tests of the pool: every task once, whatever the sizes, nesting, sharing and panics.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// Runs a loop of `n` on `pool` and checks that each index came once.
fn check_once(pool: &Pool, n: u32) {
    let counts: Vec<AtomicU32> = (0..n).map(|_| AtomicU32::new(0)).collect();
    pool.run(n, |i| {
        counts[i as usize].fetch_add(1, Ordering::Relaxed);
    });
    assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "n = {n}, threads = {}", pool.threads());
}

#[test]
fn each_task_runs_once() {
    for threads in [0, 1, 2, 3, 8] {
        let pool = Pool::new(threads).expect("threads start");
        for n in [0, 1, 2, 3, 7, 8, 9, 100, 5000] {
            check_once(&pool, n);
        }
    }
}

/// Many short jobs in a row: late threads meet jobs that are over.
#[test]
fn short_jobs_in_a_row() {
    let pool = Pool::new(4).expect("threads start");
    for i in 0..5000 {
        check_once(&pool, 1 + i % 5);
    }
}

/// Jobs of two and three tasks by turns: a thread that is late for one must not take a task of the next, which is more,
/// before that is published.
#[test]
fn late_threads_leave_the_next_job_alone() {
    let pool = Pool::new(3).expect("threads start");
    let ran = AtomicU32::new(0);
    for i in 0..200_000 {
        ran.store(0, Ordering::Relaxed);
        let n = 2 + i % 2;
        pool.run(n, |_| _ = ran.fetch_add(1, Ordering::Relaxed));
        assert_eq!(ran.load(Ordering::Relaxed), n);
    }
}

/// Pauses longer than the spin, so that threads sleep and must be woken.
#[test]
fn sleeping_threads_wake() {
    let pool = Pool::new(3).expect("threads start");
    for _ in 0..20 {
        std::thread::sleep(std::time::Duration::from_millis(2));
        check_once(&pool, 16);
    }
}

#[test]
fn all_threads_take_part() {
    let pool = Pool::new(3).expect("threads start");
    let barrier = std::sync::Barrier::new(3);
    // Three tasks that wait for each other can only end on three threads.
    pool.run(3, |_| {
        barrier.wait();
    });
}

#[test]
fn a_loop_inside_a_task_runs_there() {
    let pool = Pool::new(3).expect("threads start");
    let sum = AtomicU32::new(0);
    pool.run(6, |i| {
        let outer = std::thread::current().id();
        pool.run(4, |j| {
            assert_eq!(std::thread::current().id(), outer);
            sum.fetch_add(i * 4 + j, Ordering::Relaxed);
        });
    });
    assert_eq!(sum.into_inner(), (0..24).sum());
}

#[test]
fn callers_share_a_pool() {
    let pool = Pool::new(3).expect("threads start");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..200).for_each(|n| check_once(&pool, n % 17)));
        }
    });
}

#[test]
fn a_panic_reaches_the_caller_after_all_tasks_ran() {
    let pool = Pool::new(3).expect("threads start");
    let ran = AtomicU32::new(0);
    let result = catch_unwind(AssertUnwindSafe(|| {
        pool.run(50, |i| {
            ran.fetch_add(1, Ordering::Relaxed);
            assert!(i != 20, "task {i} fails");
        });
    }));
    let message = result.expect_err("the panic goes on").downcast::<String>().expect("a formatted message");
    assert!(message.contains("task 20 fails"), "{message}");
    assert_eq!(ran.into_inner(), 50);
    check_once(&pool, 100);
}

/// More tasks than one word can number are cut into jobs; the hook is called as an object calls it.
#[test]
fn the_hook_passes_indices_beyond_one_job() {
    unsafe extern "C" fn add(arg: *mut c_void, index: u32) {
        // SAFETY: the test passes an `AtomicU64` that outlives the loop.
        let sum = unsafe { &*arg.cast::<AtomicU64>() };
        sum.fetch_add(u64::from(index), Ordering::Relaxed);
    }
    let pool = Pool::new(2).expect("threads start");
    let sum = AtomicU64::new(0);
    let n = JOB_TASKS + 3;
    let user = std::ptr::from_ref(&*pool.shared).cast_mut().cast();
    // SAFETY: `user` is the pool's, `add` accepts `sum`.
    unsafe { parallel_for(user, n, add, std::ptr::from_ref(&sum).cast_mut().cast()) };
    assert_eq!(sum.into_inner(), u64::from(n) * u64::from(n - 1) / 2);
}
