//! Signals between cores: who waits for whom, what was signalled and is not yet taken by all, and when a wait passes.

use std::collections::{BTreeMap, VecDeque};

use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::program::addr::Queue;
use crate::isa::matrix::program::inst::CrossMode;
use crate::isa::matrix::program::{CoreKind, Stage};
use crate::isa::matrix::sim::check::Checker;
use crate::isa::matrix::sim::check::clock::{Clock, Thread};
use crate::isa::matrix::sim::check::violation::Rule;
use crate::isa::matrix::sim::engine::{Engine, Stop};

/// Signals that a cross-core counter holds.
const CROSS_LIMIT: usize = 15;

/// A signal to other cores: when, and what it carries for the checker.
pub(super) type Post = (f64, Option<Clock>);

/// Signals of one mode and number from one core.
#[derive(Default)]
struct Posts {
    /// Those that every core which waits for them has taken, and does not find here any more.
    taken: usize,
    left: VecDeque<Post>,
}

/// The signals of a stage.
pub(super) struct Signals {
    /// By mode and core: whose signals it waits for, and who waits for its own.
    signallers: BTreeMap<CrossMode, Vec<Vec<usize>>>,
    waiters: BTreeMap<CrossMode, Vec<Vec<usize>>>,
    posts: BTreeMap<(usize, CrossMode, u8), Posts>,
}

impl Signals {
    pub fn new(stage: &Stage, machine: &Machine) -> Signals {
        let kinds = stage.streams.iter().flat_map(|s| std::iter::repeat_n(s.kind, usize::from(s.cores)));
        let kinds: Vec<CoreKind> = kinds.collect();
        let per = machine.org.vector_per_cube.map_or(1, |v| v.value as usize).max(1);
        let cores = kinds.len();
        let of_mode = |mode| (mode, (0..cores).map(|core| signallers(&kinds, per, core, mode)).collect());
        let signallers: BTreeMap<CrossMode, Vec<Vec<usize>>> = CrossMode::ALL.map(of_mode).into();
        let inverse = |of: &Vec<Vec<usize>>| {
            (0..cores).map(|core| (0..cores).filter(|w| of[*w].contains(&core)).collect()).collect()
        };
        let waiters = signallers.iter().map(|(mode, of)| (*mode, inverse(of))).collect();
        Signals { signallers, waiters, posts: BTreeMap::new() }
    }

    /// The signals of which some were not taken by all that wait for them: core, mode and number.
    pub fn left(&self, taken: impl Fn(usize, CrossMode, u8) -> usize) -> Vec<(usize, CrossMode, u8)> {
        let is_left = |key: &(usize, CrossMode, u8), posts: &Posts| {
            self.taken_by_all(*key, &taken) < posts.taken + posts.left.len()
        };
        self.posts.iter().filter(|(key, posts)| is_left(key, posts)).map(|(key, _)| *key).collect()
    }

    /// Signals that every core which waits for them has taken, given how many each has.
    fn taken_by_all(
        &self,
        (signaller, mode, id): (usize, CrossMode, u8),
        taken: impl Fn(usize, CrossMode, u8) -> usize,
    ) -> usize {
        self.waiters[&mode][signaller].iter().map(|waiter| taken(*waiter, mode, id)).min().unwrap_or(0)
    }

    /// Adds a signal; how many wait to be taken.
    fn post(
        &mut self,
        key: (usize, CrossMode, u8),
        post: Post,
        taken: impl Fn(usize, CrossMode, u8) -> usize,
    ) -> usize {
        let by_all = self.taken_by_all(key, taken);
        let posts = self.posts.entry(key).or_default();
        posts.left.push_back(post);
        let old = by_all.saturating_sub(posts.taken).min(posts.left.len());
        posts.left.drain(..old);
        posts.taken += old;
        posts.left.len()
    }

    /// Signal number `index` of each core that `core` waits for, if all have signalled.
    fn find(&self, core: usize, mode: CrossMode, id: u8, index: usize) -> Option<Vec<&Post>> {
        let of = |signaller: &usize| {
            let posts = self.posts.get(&(*signaller, mode, id))?;
            posts.left.get(index.checked_sub(posts.taken)?)
        };
        let signallers = &self.signallers[&mode][core];
        if signallers.is_empty() { None } else { signallers.iter().map(of).collect() }
    }
}

/// The cores whose signals core `index` of `kinds` waits for; `per` vector cores stand beside a cube core.
fn signallers(kinds: &[CoreKind], per: usize, index: usize, mode: CrossMode) -> Vec<usize> {
    let kind = kinds[index];
    let same = |k: CoreKind| (0..kinds.len()).filter(move |c| kinds[*c] == k);
    let first = same(CoreKind::Vector).next().unwrap_or(0);
    // Vector cores stand behind the cube cores, those of cube core g at first + g · per.
    let group = if kind == CoreKind::Vector { (index - first) / per } else { index };
    let vectors = same(CoreKind::Vector).filter(|v| (v - first) / per == group);
    match (mode, kind) {
        (CrossMode::All, _) => same(kind).collect(),
        (CrossMode::Pair, _) => vectors.collect(),
        (CrossMode::Group | CrossMode::Single, CoreKind::Vector) => {
            same(CoreKind::Cube).filter(|c| *c == group).collect()
        }
        (CrossMode::Group, CoreKind::Cube | CoreKind::Coupled) => vectors.collect(),
        (CrossMode::Single, CoreKind::Cube | CoreKind::Coupled) => vectors.take(1).collect(),
    }
}

impl<'a> Engine<'a, '_> {
    /// The signals that are not taken by all that wait for them: core, mode and number.
    pub(super) fn signals_left(&self) -> Vec<(usize, CrossMode, u8)> {
        self.signals.left(|core, mode, id| self.cores[core].taken(mode, id))
    }

    /// Notes a signal.
    pub(super) fn cross_set(
        &mut self,
        index: usize,
        (mode, id): (CrossMode, u8),
        post: Post,
        (thread, record): (Thread, u32),
        checker: &mut Option<Checker<'a>>,
    ) -> Result<(), Stop> {
        if !self.machine.has_cross_core(mode) {
            let detail = format!("cross-core mode {}", mode.number());
            return Err(self.stop(checker, (thread, record), (Rule::NotOnMachine, None, detail)));
        }
        let cores = &self.cores;
        let taken = |core: usize, mode, id| cores[core].taken(mode, id);
        if self.signals.post((index, mode, id), post, taken) > CROSS_LIMIT {
            let detail = format!("signal {id} of mode {}", mode.number());
            return Err(self.stop(checker, (thread, record), (Rule::CrossCoreCounter, None, detail)));
        }
        Ok(())
    }

    /// Passes once every signaller has signalled once more than this core has taken.
    pub(super) fn cross_wait(
        &mut self,
        index: usize,
        queue: Queue,
        (mode, id): (CrossMode, u8),
        free: f64,
        checker: &mut Option<Checker<'a>>,
    ) -> Option<f64> {
        let posts = self.signals.find(index, mode, id, self.cores[index].taken(mode, id))?;
        let last = posts.iter().map(|(time, _)| *time).fold(0.0, f64::max);
        let grant = free.max(last + self.machine.flag.cross_hop.value);
        if let Some(checker) = checker {
            let thread = Thread::new(index, queue);
            posts.iter().filter_map(|(_, clock)| clock.as_ref()).for_each(|c| checker.clocks.join(thread, c));
        }
        self.cores[index].take(mode, id);
        let state = self.cores[index].queue(queue);
        let idle = grant - free.max(state.end);
        if idle > 0.0 {
            *state.report.wait.entry("cores").or_default() += idle;
        }
        state.gate = grant;
        Some(grant)
    }
}
