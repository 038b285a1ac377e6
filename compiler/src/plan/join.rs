//! Finds the steps that threads may work off together: products of one input, for example, which stand side by side and
//! know nothing of each other. One loop over the tasks of all of them has one end at which threads wait.
//!
//! What runs at the same time lives at the same time, so buffers find their places after this (`arena.rs`), and
//! `check.rs` judges both.

use tcc_ir::plan::MAX_JOINED;

use super::layer_of;
use super::steps::{UnboundList, UnboundStep};

/// Joins each step of `list` to the ones before it where none of them touches what another writes.
pub(super) fn steps(list: &mut UnboundList) {
    let mut first = 0;
    for at in 1..list.steps.len() {
        let (before, rest) = list.steps.split_at_mut(at);
        let step = &mut rest[0];
        let fits =
            |other: &UnboundStep| layer_of(&other.label) == layer_of(&step.label) && step.is_independent_of(other);
        step.joined = at - first < MAX_JOINED && before[first..].iter().all(fits);
        if !step.joined {
            first = at;
        }
    }
}

/// The steps of `list` in groups of those that may run at the same time.
pub(super) fn groups(list: &UnboundList) -> impl Iterator<Item = &[UnboundStep]> {
    list.steps.chunk_by(|_, next| next.joined)
}

#[cfg(test)]
mod tests {
    use tcc_ir::program::StateId;

    use super::super::steps::{BufferId, Fixed, Operand, Version};
    use super::*;

    fn read(buffer: usize) -> Operand {
        Operand::Read(Version { buffer: BufferId(buffer), version: 0 })
    }

    fn write(buffer: usize) -> Operand {
        Operand::Write(Version { buffer: BufferId(buffer), version: 0 })
    }

    /// Which of the steps with these labels and operands are joined to those before them.
    fn joined(steps: Vec<(&str, Vec<Operand>)>) -> Vec<bool> {
        let steps = steps.into_iter().map(|(label, operands)| UnboundStep::for_test(label.into(), operands)).collect();
        let mut list = UnboundList { name: "test".into(), m: 1, steps, buffers: vec![64; 8] };
        super::steps(&mut list);
        list.steps.iter().map(|step| step.joined).collect()
    }

    #[test]
    fn products_of_one_input_are_joined() {
        let product = |label, to| (label, vec![read(0), write(to)]);
        let all = vec![("norm", vec![write(0)]), product("q", 1), product("k", 2), product("v", 3), product("z", 4)];
        assert_eq!(joined(all), [false, false, true, true, false], "four are more than run together");
        let layers = vec![product("L00.a", 1), product("L01.b", 2)];
        assert_eq!(joined(layers), [false, false], "a layer begins with a question to the caller");
    }

    #[test]
    fn steps_that_meet_are_not_joined() {
        let chain = vec![("a", vec![write(0)]), ("b", vec![write(1)]), ("c", vec![read(0), write(2)])];
        assert_eq!(joined(chain), [false, true, false], "what a joined step wrote is read");
        let overwritten = vec![("a", vec![read(0), write(1)]), ("b", vec![write(0)])];
        assert_eq!(joined(overwritten), [false, false]);
        let cache = |id| Operand::Fixed(Fixed::State(StateId(id)));
        let caches = vec![("k", vec![cache(0), read(0)]), ("v", vec![cache(1), read(1)]), ("a", vec![cache(0)])];
        assert_eq!(joined(caches), [false, true, false], "a cache is written and read");
    }
}
