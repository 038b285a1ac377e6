//! Judges an arena assignment by replaying the steps on byte intervals: whoever reads a value must find exactly the
//! bytes its producer wrote. Knows nothing of lifetimes.

use std::ops::Range;

use thiserror::Error;

use super::steps::{Operand, UnboundList, Version};

/// What the replay found.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CheckError {
    #[error("graph '{graph}', step '{step}': bytes {}..{} hold {found}, expected {expected}", bytes.start, bytes.end)]
    Clobbered { graph: String, step: String, bytes: Range<u64>, expected: String, found: String },
    #[error("graph '{graph}', step '{step}': bytes {}..{} lie outside the {limit} planned", bytes.start, bytes.end)]
    Outside { graph: String, step: String, bytes: Range<u64>, limit: u64 },
    #[error("graph '{graph}', step '{step}': bytes {}..{} are written and read at different offsets", bytes.start, bytes.end)]
    Overlap { graph: String, step: String, bytes: Range<u64> },
    #[error("graph '{graph}', step '{step}': offset {at} is not aligned to 64")]
    Misaligned { graph: String, step: String, at: u64 },
}

/// Replays `list` with buffers at `offsets`; every byte touched lies below `limit`.
pub(super) fn list(list: &UnboundList, offsets: &[u64], limit: u64) -> Result<(), CheckError> {
    // Disjoint intervals with the value they hold, unordered.
    let mut memory: Vec<(Range<u64>, Version)> = Vec::new();
    for step in &list.steps {
        let (graph, name) = (list.name.clone(), step.label.clone());
        let range = |op: &Operand| match op {
            Operand::Read(v) | Operand::Write(v) => {
                let at = offsets[v.buffer.0];
                Some((at..at + list.buffers[v.buffer.0], *v))
            }
            Operand::Fixed(_) => None,
        };
        let reads: Vec<_> = step.operands.iter().filter(|o| matches!(o, Operand::Read(_))).filter_map(range).collect();
        let writes: Vec<_> =
            step.operands.iter().filter(|o| matches!(o, Operand::Write(_))).filter_map(range).collect();
        for (bytes, _) in reads.iter().chain(&writes) {
            if bytes.end > limit {
                return Err(CheckError::Outside { graph, step: name, bytes: bytes.clone(), limit });
            }
            if !bytes.start.is_multiple_of(super::arena::ALIGN) {
                return Err(CheckError::Misaligned { graph, step: name, at: bytes.start });
            }
        }
        for (bytes, version) in &reads {
            if let Some(found) = foreign(&memory, bytes, *version) {
                let expected = format!("{version:?}");
                return Err(CheckError::Clobbered { graph, step: name, bytes: bytes.clone(), expected, found });
            }
        }
        // A step may write over what it reads only in place: same buffer, same offset.
        for (w, written) in &writes {
            let clash = reads.iter().any(|(r, read)| meets(r, w) && read.buffer != written.buffer);
            let twice = writes.iter().filter(|(other, _)| meets(other, w)).count() > 1;
            if clash || twice {
                return Err(CheckError::Overlap { graph, step: name, bytes: w.clone() });
            }
        }
        for (bytes, version) in writes {
            memory.retain(|(held, _)| !meets(held, &bytes));
            memory.push((bytes, version));
        }
    }
    Ok(())
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
    use super::super::steps::{BufferId, UnboundStep};
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
