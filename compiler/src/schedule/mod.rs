//! Chooses the encoding of each ternary weight and the schedule of each product, from menus and costs alone.
//!
//! One weight has one layout: the encoding is chosen over all row counts that use it, decode first, because decode
//! reads every weight once per token. Kernels are then filtered by the layout they read.

mod cost;

use tcc_ir::encoding::Encoding;
use tcc_ir::schedule::{Level, MatmulSchedule, ScheduleError};
use tcc_ir::target::{Features, MicroKernel, TargetDesc};
use thiserror::Error;

/// The machine a program is compiled for.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    pub desc: &'static TargetDesc,
    pub features: Features,
    /// Vector register bits where known, 0 = any.
    pub vlen: u32,
}

/// Why no schedule exists.
#[derive(Debug, Error)]
pub enum ChooseError {
    #[error("no kernel on target '{target}' for encoding '{encoding}' with features '{features}'; usable: {usable}")]
    NoKernel { target: &'static str, encoding: String, features: String, usable: String },
    #[error("no kernel on target '{target}' is exact for k = {k}; the longest is {longest}")]
    TooLong { target: &'static str, k: usize, longest: usize },
    #[error(transparent)]
    Invalid(#[from] ScheduleError),
}

/// Smallest number of output rows worth a task: several panels share the loads of activations.
const MIN_TASK_ROWS: usize = 64;

/// Largest number of output rows of a task: keeps accumulators in the nearest memory and threads busy.
const MAX_TASK_ROWS: usize = 256;

impl Machine {
    /// Menu rows this machine can run, in menu order.
    pub fn usable(&self) -> impl Iterator<Item = &'static MicroKernel> {
        let (features, vlen) = (self.features, self.vlen);
        self.desc.menu.iter().filter(move |row| features.contains(row.needs) && (row.vlen == 0 || row.vlen == vlen))
    }
}

/// The encoding for an `[n, k]` weight whose groups (if any) are `group` columns long.
pub fn choose_encoding(
    machine: &Machine,
    n: usize,
    k: usize,
    group: Option<usize>,
    forced: Option<Encoding>,
) -> Result<Encoding, ChooseError> {
    let fits = |row: &&'static MicroKernel| {
        row.mr == 1
            && group.is_none_or(|g| g == k || g.is_multiple_of(row.encoding.kr()))
            && forced.is_none_or(|f| f == row.encoding)
    };
    let candidates: Vec<_> = machine.usable().filter(fits).collect();
    if candidates.is_empty() {
        return Err(no_kernel(machine, forced));
    }
    // The first of equals wins, so the choice does not depend on float noise or on the host.
    let exact = candidates.iter().copied().filter(|row| k <= row.max_k);
    let best =
        exact.min_by(|a, b| cost::decode_cycles(machine, a, n, k).total_cmp(&cost::decode_cycles(machine, b, n, k)));
    best.map(|row| row.encoding).ok_or_else(|| ChooseError::TooLong {
        target: machine.desc.name,
        k,
        longest: candidates.iter().map(|row| row.max_k).max().unwrap_or(0),
    })
}

fn no_kernel(machine: &Machine, forced: Option<Encoding>) -> ChooseError {
    let mut usable: Vec<String> = machine.usable().map(|row| row.encoding.to_string()).collect();
    usable.dedup();
    ChooseError::NoKernel {
        target: machine.desc.name,
        encoding: forced.map_or_else(|| "any".into(), |e| e.to_string()),
        features: machine.desc.feature_names(machine.features),
        usable: usable.join(", "),
    }
}

/// The schedule of an `[m, k] x [n, k]` product over weights laid out as `encoding`.
pub fn choose(
    machine: &Machine,
    m: usize,
    n: usize,
    k: usize,
    encoding: Encoding,
) -> Result<MatmulSchedule, ChooseError> {
    let rows = machine.usable().filter(|row| row.encoding == encoding && row.mr <= m && k <= row.max_k);
    let mut best: Vec<&'static MicroKernel> = Vec::new();
    for row in rows {
        match best.iter_mut().find(|b| b.mr == row.mr) {
            Some(b) if row.macs_per_cycle > b.macs_per_cycle => *b = row,
            Some(_) => {}
            None => best.push(row),
        }
    }
    best.sort_by_key(|row| std::cmp::Reverse(row.mr));
    // A kernel for more token rows is worth a place only if it is faster than those for fewer.
    let mut fastest = 0.0;
    let mut micro: Vec<_> = best
        .into_iter()
        .rev()
        .filter(|row| {
            let faster = row.mr == 1 || row.macs_per_cycle > fastest;
            fastest = row.macs_per_cycle.max(fastest);
            faster
        })
        .collect();
    micro.reverse();
    let schedule = MatmulSchedule { micro, levels: vec![task_tile(machine, n, k, encoding)] };
    schedule.verify(n, k)?;
    Ok(schedule)
}

/// The tile of one task: as many panels as the nearest memory holds twice (the next tile streams in behind this
/// one), within the bounds on task size.
fn task_tile(machine: &Machine, n: usize, k: usize, encoding: Encoding) -> Level {
    let nr = encoding.nr();
    let least = MIN_TASK_ROWS.next_multiple_of(nr);
    let rows_in = |bytes: usize| bytes / 2 / encoding.panel_bytes(k).max(1) * nr;
    let memory = machine.desc.memories.iter().find(|memory| rows_in(memory.bytes) >= least);
    let (name, fitting) = memory.map_or(("ram", least), |memory| (memory.name, rows_in(memory.bytes)));
    let most = (MAX_TASK_ROWS / nr).max(1) * nr;
    Level { memory: name, rows: fitting.clamp(least, most.max(least)).min(n.next_multiple_of(nr)) }
}
