//! Vector clocks: what each queue of each core knows to have ended.

use std::rc::Rc;

use crate::isa::matrix::program::addr::Queue;

/// A queue of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Thread(pub u32);

impl Thread {
    pub fn new(core: usize, queue: Queue) -> Thread {
        // At most some hundred cores.
        Thread((core * Queue::COUNT + queue.index()) as u32)
    }

    pub fn core(self) -> usize {
        self.0 as usize / Queue::COUNT
    }

    pub fn queue(self) -> Queue {
        Queue::ALL[self.0 as usize % Queue::COUNT]
    }
}

/// One count per thread: its operations up to there have ended.
pub(crate) type Clock = Rc<Vec<u32>>;

/// The clocks of all threads.
#[derive(Clone, Debug)]
pub(crate) struct Clocks {
    threads: Vec<Clock>,
    /// Own operations known to have ended, although the queue went on: barriers, and flags that came back.
    complete: Vec<u32>,
}

impl Clocks {
    pub fn new(cores: usize) -> Clocks {
        let n = cores * Queue::COUNT;
        let zero = Rc::new(vec![0; n]);
        Clocks { threads: vec![zero; n], complete: vec![0; n] }
    }

    /// Starts an operation of `thread`; its number.
    pub fn tick(&mut self, thread: Thread) -> u32 {
        let clock = Rc::make_mut(&mut self.threads[thread.0 as usize]);
        clock[thread.0 as usize] += 1;
        clock[thread.0 as usize]
    }

    /// What a flag carries: everything that `thread` knows, its own operations so far included.
    pub fn snapshot(&self, thread: Thread) -> Clock {
        Rc::clone(&self.threads[thread.0 as usize])
    }

    /// `thread` learns what `from` knows.
    pub fn join(&mut self, thread: Thread, from: &Clock) {
        let index = thread.0 as usize;
        if Rc::ptr_eq(&self.threads[index], from) {
            return;
        }
        self.complete[index] = self.complete[index].max(from[index]);
        let own = &mut self.threads[index];
        if own.iter().zip(from.iter()).all(|(own, other)| own >= other) {
            return;
        }
        for (own, other) in Rc::make_mut(own).iter_mut().zip(from.iter()) {
            *own = (*own).max(*other);
        }
    }

    /// All of `thread`'s operations have ended before its next one starts.
    pub fn barrier(&mut self, thread: Thread) {
        self.complete[thread.0 as usize] = self.threads[thread.0 as usize][thread.0 as usize];
    }

    /// All operations of `threads` have ended before any of their next ones starts.
    pub fn barrier_of(&mut self, threads: [Thread; Queue::COUNT]) {
        let mut all = vec![0; self.complete.len()];
        for thread in threads {
            let clock = self.threads[thread.0 as usize].iter();
            all.iter_mut().zip(clock).for_each(|(all, known): (&mut u32, &u32)| *all = (*all).max(*known));
        }
        let all = Rc::new(all);
        for thread in threads {
            self.threads[thread.0 as usize] = Rc::clone(&all);
            self.barrier(thread);
        }
    }

    /// True if operation `number` of `other` ends before the next one of `thread`.
    pub fn is_before(&self, other: Thread, number: u32, thread: Thread) -> bool {
        self.threads[thread.0 as usize][other.0 as usize] >= number
    }

    /// True if `thread`'s own operation `number` is known to have ended.
    pub fn has_ended(&self, thread: Thread, number: u32) -> bool {
        self.complete[thread.0 as usize] >= number
    }
}
