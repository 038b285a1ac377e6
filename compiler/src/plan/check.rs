//! Judges an arena assignment by replaying the steps on byte intervals: whoever reads a value must find exactly the
//! bytes its producer wrote. Knows nothing of lifetimes.

use std::ops::Range;

use thiserror::Error;

use super::join;
use super::steps::{Operand, UnboundList, UnboundStep, Version};

/// What the replay found.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CheckError {
    #[error("graph '{graph}', step '{step}': bytes {}..{} hold {found}, expected {expected}", bytes.start, bytes.end)]
    Clobbered { graph: String, step: String, bytes: Range<u64>, expected: String, found: String },
    #[error("graph '{graph}', step '{step}': bytes {}..{} lie outside the {limit} planned", bytes.start, bytes.end)]
    Outside { graph: String, step: String, bytes: Range<u64>, limit: u64 },
    #[error("graph '{graph}', step '{step}': bytes {}..{} meet others that it, or a step beside it, writes", bytes.start, bytes.end)]
    Overlap { graph: String, step: String, bytes: Range<u64> },
    #[error("graph '{graph}', step '{step}': a step beside it writes {place:?}, too")]
    Shared { graph: String, step: String, place: Operand },
    #[error("graph '{graph}', step '{step}': offset {at} is not aligned to 64")]
    Misaligned { graph: String, step: String, at: u64 },
}

/// Replays `list` with buffers at `offsets`; every byte touched lies below `limit`. Steps that may run at the same time
/// find what they read before any of them began, and none writes where another reads or writes.
pub(super) fn list(list: &UnboundList, offsets: &[u64], limit: u64) -> Result<(), CheckError> {
    // Disjoint intervals with the value they hold, unordered.
    let mut memory: Vec<(Range<u64>, Version)> = Vec::new();
    for group in join::groups(list) {
        let touched: Vec<Touched> = group.iter().map(|step| Touched::by(step, list, offsets)).collect();
        for (at, step) in touched.iter().enumerate() {
            step.lies_below(limit)?;
            step.finds_its_reads(&memory)?;
            step.writes_apart(&touched[..at])?;
        }
        for (bytes, version) in touched.into_iter().flat_map(|step| step.writes) {
            memory.retain(|(held, _)| !meets(held, &bytes));
            memory.push((bytes, version));
        }
    }
    Ok(())
}

/// What a step touches.
struct Touched<'a> {
    graph: &'a str,
    step: &'a UnboundStep,
    reads: Vec<(Range<u64>, Version)>,
    writes: Vec<(Range<u64>, Version)>,
}

impl<'a> Touched<'a> {
    fn by(step: &'a UnboundStep, list: &'a UnboundList, offsets: &[u64]) -> Self {
        let range = |v: Version| (offsets[v.buffer.0]..offsets[v.buffer.0] + list.buffers[v.buffer.0], v);
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        for operand in &step.operands {
            match operand {
                Operand::Read(v) => reads.push(range(*v)),
                Operand::Write(v) => writes.push(range(*v)),
                Operand::Fixed(_) => {}
            }
        }
        Touched { graph: &list.name, step, reads, writes }
    }

    fn names(&self) -> (String, String) {
        (self.graph.to_owned(), self.step.label.clone())
    }

    fn lies_below(&self, limit: u64) -> Result<(), CheckError> {
        for (bytes, _) in self.reads.iter().chain(&self.writes) {
            let ((graph, step), bytes) = (self.names(), bytes.clone());
            if bytes.end > limit {
                return Err(CheckError::Outside { graph, step, bytes, limit });
            }
            if !bytes.start.is_multiple_of(super::arena::ALIGN) {
                return Err(CheckError::Misaligned { graph, step, at: bytes.start });
            }
        }
        Ok(())
    }

    fn finds_its_reads(&self, memory: &[(Range<u64>, Version)]) -> Result<(), CheckError> {
        for (bytes, version) in &self.reads {
            if let Some(found) = foreign(memory, bytes, *version) {
                let ((graph, step), expected) = (self.names(), format!("{version:?}"));
                return Err(CheckError::Clobbered { graph, step, bytes: bytes.clone(), expected, found });
            }
        }
        Ok(())
    }

    /// Whether the step writes over what it reads only in place (same buffer, same offset), and meets none of `others`,
    /// which may run at the same time, where either writes.
    fn writes_apart(&self, others: &[Touched]) -> Result<(), CheckError> {
        let overlap = |bytes: &Range<u64>| {
            let (graph, step) = self.names();
            Err(CheckError::Overlap { graph, step, bytes: bytes.clone() })
        };
        for (w, written) in &self.writes {
            let clash = self.reads.iter().any(|(r, read)| meets(r, w) && read.buffer != written.buffer);
            let twice = self.writes.iter().filter(|(other, _)| meets(other, w)).count() > 1;
            if clash || twice || others.iter().any(|other| other.touches(w)) {
                return overlap(w);
            }
        }
        let mut theirs = others.iter().flat_map(|other| &other.writes);
        if let Some((bytes, _)) = theirs.find(|(bytes, _)| self.touches(bytes)) {
            return overlap(bytes);
        }
        // Places outside the planned activations are apart from these, and from each other.
        let shared = |operand: &&Operand| {
            let is_written = matches!(operand, Operand::Fixed(fixed) if fixed.is_written());
            is_written && others.iter().any(|other| other.step.operands.contains(operand))
        };
        match self.step.operands.iter().find(shared) {
            Some(place) => {
                Err(CheckError::Shared { graph: self.graph.into(), step: self.step.label.clone(), place: *place })
            }
            None => Ok(()),
        }
    }

    fn touches(&self, bytes: &Range<u64>) -> bool {
        self.reads.iter().chain(&self.writes).any(|(mine, _)| meets(mine, bytes))
    }
}

/// Judges `kept`, bytes that keep what they hold while the steps of `list` run with buffers at `offsets`: no buffer meets
/// them, and they lie below `limit`.
pub(super) fn kept(list: &UnboundList, offsets: &[u64], kept: Range<u64>, limit: u64) -> Result<(), CheckError> {
    let (graph, step) = (list.name.clone(), "kept logits".to_owned());
    if kept.end > limit {
        return Err(CheckError::Outside { graph, step, bytes: kept, limit });
    }
    let mut buffers = offsets.iter().zip(&list.buffers).map(|(at, bytes)| *at..at + bytes);
    match buffers.find(|buffer| meets(buffer, &kept)) {
        Some(bytes) => Err(CheckError::Overlap { graph, step, bytes }),
        None => Ok(()),
    }
}

/// What `bytes` hold if that is not exactly `version`.
fn foreign(memory: &[(Range<u64>, Version)], bytes: &Range<u64>, version: Version) -> Option<String> {
    match memory.iter().find(|(held, _)| meets(held, bytes)) {
        Some((held, found)) if held == bytes && *found == version => None,
        Some((_, found)) => Some(format!("{found:?}")),
        None => Some("nothing".into()),
    }
}

fn meets(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

#[cfg(test)]
mod tests {
    use tcc_ir::program::StateId;

    use super::super::steps::{BufferId, Fixed, UnboundStep};
    use super::*;

    fn value(buffer: usize, version: usize) -> Version {
        Version { buffer: BufferId(buffer), version }
    }

    fn steps(operands: Vec<Vec<Operand>>, buffers: Vec<u64>) -> UnboundList {
        let steps = operands.into_iter().enumerate();
        let steps = steps.map(|(i, operands)| UnboundStep::for_test(format!("s{i}"), operands)).collect();
        UnboundList { name: "test".into(), m: 1, steps, buffers }
    }

    #[test]
    fn a_clobbered_value_is_found() {
        let (a, b) = (value(0, 0), value(1, 0));
        let list = steps(vec![vec![Operand::Write(a)], vec![Operand::Write(b)], vec![Operand::Read(a)]], vec![64, 64]);
        assert_eq!(super::list(&list, &[0, 64], 128), Ok(()));
        assert!(matches!(super::list(&list, &[0, 0], 128), Err(CheckError::Clobbered { .. })));
        assert!(matches!(super::list(&list, &[0, 64], 100), Err(CheckError::Outside { .. })));
        assert!(matches!(super::list(&list, &[0, 72], 192), Err(CheckError::Misaligned { .. })));
    }

    #[test]
    fn kept_bytes_meet_no_buffer() {
        let list = steps(vec![], vec![64, 128]);
        let kept = |bytes| super::kept(&list, &[0, 64], bytes, 320);
        assert_eq!([192..320, 256..256].map(kept), [Ok(()), Ok(())]);
        assert!(matches!(kept(128..256), Err(CheckError::Overlap { .. })));
        assert!(matches!(kept(192..384), Err(CheckError::Outside { .. })));
    }

    #[test]
    fn steps_that_run_together_meet_nowhere() {
        let (a, b, c) = (value(0, 0), value(1, 0), value(2, 0));
        let together = |first: Vec<Operand>, second: Vec<Operand>, offsets: &[u64]| {
            let begin = vec![Operand::Write(a)];
            let mut list = steps(vec![begin, first, second], vec![64; 3]);
            list.steps[2].joined = true;
            super::list(&list, offsets, 192)
        };
        let [read_a, read_b, write_b, write_c] =
            [Operand::Read(a), Operand::Read(b), Operand::Write(b), Operand::Write(c)];
        let products = |offsets: &[u64]| together(vec![read_a, write_b], vec![read_a, write_c], offsets);
        assert_eq!(products(&[0, 64, 128]), Ok(()));
        let overlaps = |found| assert!(matches!(found, Err(CheckError::Overlap { .. })));
        overlaps(products(&[0, 64, 64]));
        // One after the other the second may write where the first has read.
        overlaps(together(vec![read_a, write_b], vec![write_c], &[0, 64, 0]));
        overlaps(together(vec![write_c], vec![read_a, write_b], &[0, 64, 0]));
        let cache = Operand::Fixed(Fixed::State(StateId(0)));
        let shared = together(vec![cache, write_b], vec![cache, write_c], &[0, 64, 128]);
        assert!(matches!(shared, Err(CheckError::Shared { .. })), "{shared:?}");
        let chain = together(vec![write_b], vec![read_b, write_c], &[0, 64, 128]);
        assert!(matches!(chain, Err(CheckError::Clobbered { .. })));
    }

    #[test]
    fn in_place_needs_the_same_buffer() {
        let (a, b, c) = (value(0, 0), value(0, 1), value(1, 0));
        let in_place = steps(vec![vec![Operand::Write(a)], vec![Operand::Read(a), Operand::Write(b)]], vec![64]);
        assert_eq!(super::list(&in_place, &[0], 64), Ok(()));
        let stale = steps(
            vec![vec![Operand::Write(a)], vec![Operand::Read(a), Operand::Write(b)], vec![Operand::Read(a)]],
            vec![64],
        );
        assert!(matches!(super::list(&stale, &[0], 64), Err(CheckError::Clobbered { .. })));
        let overlapping = steps(vec![vec![Operand::Write(a)], vec![Operand::Read(a), Operand::Write(c)]], vec![64, 64]);
        assert!(matches!(super::list(&overlapping, &[0, 0], 64), Err(CheckError::Overlap { .. })));
    }
}
