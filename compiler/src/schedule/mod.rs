//! Chooses the encoding of each ternary weight and the schedule of each product, from menus and costs alone.
//!
//! One weight has one layout: the encoding is chosen over all row counts that use it, decode first, because decode
//! reads every weight once per token. Kernels are then filtered by the layout they read.

pub mod cost;
pub mod density;

use tcc_ir::encoding::Encoding;
use tcc_ir::encoding::bitmap::Density;
use tcc_ir::schedule::{Level, MatmulSchedule, ScheduleError};
use tcc_ir::target::{Features, MicroKernel, TargetDesc};
use thiserror::Error;

use self::cost::Cost;

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
    #[error("no product reads encoding '{encoding}' with a scale per group of {group} of {k} columns")]
    Group { encoding: String, group: usize, k: usize },
    #[error("the weights were not looked at, and what encoding '{encoding}' needs depends on them")]
    NotMeasured { encoding: String },
    #[error("no kernel on target '{target}' is exact for k = {k}; the longest is {longest}")]
    TooLong { target: &'static str, k: usize, longest: usize },
    #[error("no encoding on target '{target}' can be read with each of these features: {features}")]
    NoShared { target: &'static str, features: String },
    #[error(transparent)]
    Invalid(#[from] ScheduleError),
}

/// Smallest number of output rows worth a task: several panels share the loads of activations.
const MIN_TASK_ROWS: usize = 64;

/// Token rows from which a task that was not measured has so many output rows: those that the kernels for many token rows
/// take together, two panels of sixteen.
const MANY_TOKENS: usize = 32;
const MANY_TOKENS_TASK_ROWS: usize = 32;

/// Largest number of output rows of a task: keeps accumulators in the nearest memory.
const MAX_TASK_ROWS: usize = 256;

impl Machine {
    /// Menu rows this machine can run, in menu order.
    pub fn usable(&self) -> impl Iterator<Item = &'static MicroKernel> {
        let (features, vlen) = (self.features, self.vlen);
        self.desc.menu.iter().filter(move |row| features.contains(row.needs) && (row.vlen == 0 || row.vlen == vlen))
    }
}

/// An `[n, k]` matrix of trits to be packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    pub n: usize,
    pub k: usize,
    /// Columns per scale, where scales have groups along k.
    pub group: Option<usize>,
    /// Its zeros, where they were counted: encodings that depend on them are candidates only then.
    pub density: Option<Density>,
}

impl Shape {
    /// `encoding` with the sizes of this matrix; `None` where they depend on what was not counted.
    pub fn fit(&self, encoding: Encoding) -> Option<Encoding> {
        match (encoding, &self.density) {
            (_, Some(density)) => Some(encoding.fitted(density)),
            (Encoding::Bitmap(_), None) => None,
            (_, None) => Some(encoding),
        }
    }
}

/// A way to pack a weight: the one-row kernel that decoding would use, and what it costs.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    pub row: &'static MicroKernel,
    /// What the row reads, with the sizes of the matrix.
    pub encoding: Encoding,
    pub cost: Cost,
}

/// What can read a weight of `shape` with one token row, in menu order.
///
/// Errors: nothing can.
pub fn candidates(machine: &Machine, shape: Shape, forced: Option<Encoding>) -> Result<Vec<Candidate>, ChooseError> {
    let Shape { n, k, group, .. } = shape;
    let asked = |row: &&'static MicroKernel| row.mr == 1 && forced.is_none_or(|f| f == row.encoding);
    let readers: Vec<_> = machine.usable().filter(asked).collect();
    if readers.is_empty() {
        return Err(no_kernel(machine, forced));
    }
    let fits = |encoding: Encoding| group.is_none_or(|g| encoding.has_groups(g, k));
    if let (Some(encoding), Some(group)) = (forced.filter(|f| !fits(*f)), group) {
        return Err(ChooseError::Group { encoding: encoding.to_string(), group, k });
    }
    let fitting: Vec<_> = readers.into_iter().filter(|row| fits(row.encoding)).collect();
    if fitting.is_empty() {
        return Err(no_kernel(machine, forced));
    }
    if let (Some(encoding), None) = (forced, forced.and_then(|encoding| shape.fit(encoding))) {
        return Err(ChooseError::NotMeasured { encoding: encoding.to_string() });
    }
    let exact = fitting.iter().copied().filter(|row| k <= row.max_k);
    let sized = exact.filter_map(|row| Some((row, shape.fit(row.encoding)?)));
    let candidate = |(row, encoding)| Candidate { row, encoding, cost: Cost::of(machine, row, encoding, n, k) };
    let candidates: Vec<_> = sized.map(candidate).collect();
    if candidates.is_empty() {
        let longest = fitting.iter().map(|row| row.max_k).max().unwrap_or(0);
        return Err(ChooseError::TooLong { target: machine.desc.name, k, longest });
    }
    Ok(candidates)
}

/// The cheapest of `candidates`: the first of equals, so the choice does not depend on float noise or on the host.
pub fn cheapest(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates.iter().min_by(|a, b| a.cost.cycles().total_cmp(&b.cost.cycles()))
}

/// The encoding for a weight of `shape` that all of `machines` read: of those they share, the one whose cost is least
/// above a machine's own best on the machine where it is most. The first of equals, as in [`cheapest`].
pub fn choose_encoding(machines: &[Machine], shape: Shape, forced: Option<Encoding>) -> Result<Encoding, ChooseError> {
    let lists = machines.iter().map(|machine| candidates(machine, shape, forced));
    let lists: Vec<Vec<Candidate>> = lists.collect::<Result<_, _>>()?;
    let worst = |encoding: Encoding| {
        let excess = |list: &Vec<Candidate>| {
            let best = cheapest(list).map(|best| best.cost.cycles())?;
            Some(cheapest_reader(list, encoding)? / best)
        };
        let all: Option<Vec<f64>> = lists.iter().map(excess).collect();
        all.map(|all| all.into_iter().fold(0.0, f64::max))
    };
    let encodings = lists.first().into_iter().flatten().map(|c| c.encoding);
    let shared = encodings.filter_map(|encoding| Some((encoding, worst(encoding)?)));
    let best = shared.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(encoding, _)| encoding);
    best.ok_or_else(|| no_shared(machines))
}

/// Cycles of the cheapest of `candidates` that reads `encoding`.
pub fn cheapest_reader(candidates: &[Candidate], encoding: Encoding) -> Option<f64> {
    let readers = candidates.iter().filter(|c| c.encoding == encoding);
    readers.map(|c| c.cost.cycles()).min_by(f64::total_cmp)
}

fn no_shared(machines: &[Machine]) -> ChooseError {
    let features: Vec<_> = machines.iter().map(|machine| machine.desc.feature_names(machine.features)).collect();
    let target = machines.first().map_or("", |machine| machine.desc.name);
    ChooseError::NoShared { target, features: features.join("; ") }
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

/// The schedule of an `[m, k] x [n, k]` product over weights laid out as `encoding`, with the sizes of these weights or,
/// where they are not known, without.
pub fn choose(
    machine: &Machine,
    m: usize,
    n: usize,
    k: usize,
    encoding: Encoding,
) -> Result<MatmulSchedule, ChooseError> {
    let rows = machine.usable().filter(|row| row.encoding == encoding.kind() && row.mr <= m && k <= row.max_k);
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
    let schedule = MatmulSchedule { micro, levels: vec![task_tile(machine, m, n, k, encoding)] };
    schedule.verify(n, k)?;
    Ok(schedule)
}

/// The tile of one task: as many rows as were measured, else as many panels as the nearest memory holds, within the
/// bounds on task size. More panels would gain nothing: weights pass once, and threads that share fewer tasks end a step
/// further apart. With many token rows a few panels are as much work.
fn task_tile(machine: &Machine, m: usize, n: usize, k: usize, encoding: Encoding) -> Level {
    let (nr, panel_bytes) = (encoding.nr(), encoding.panel_bytes(k).max(1));
    let (least, most) = match m < MANY_TOKENS {
        true => (MIN_TASK_ROWS, MAX_TASK_ROWS),
        false => (MANY_TOKENS_TASK_ROWS, MANY_TOKENS_TASK_ROWS),
    };
    let (least, most) = (least.next_multiple_of(nr), most / nr * nr);
    let nearest = machine.desc.memories.first().map_or(0, |memory| memory.bytes);
    let measured = machine.desc.task_rows.iter().find(|(of, _)| *of == encoding.kind());
    let wanted = measured.map_or((nearest / panel_bytes * nr).clamp(least, most.max(least)), |(_, rows)| *rows);
    let rows = wanted.min(n).next_multiple_of(nr);
    let holder = machine.desc.memories.iter().find(|memory| memory.bytes >= rows / nr * panel_bytes);
    Level { memory: holder.map_or("ram", |memory| memory.name), rows }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{TargetRequest, resolve};

    #[test]
    fn tasks_of_many_tokens_have_fewer_output_rows() {
        let request = TargetRequest {
            target: Some("x86_64".into()),
            features: Some("+avx512vnni".into()),
            ..TargetRequest::default()
        };
        let machine = resolve(&request, Vec::new).expect("a known target").machine;
        let encoding = Encoding::I2 { nr: 16 };
        let rows = |m| choose(&machine, m, 2560, 2560, encoding).expect("a kernel").task_rows();
        assert_eq!([1, 8, 31, 32, 64].map(rows), [64, 64, 64, 32, 32]);
    }
}
