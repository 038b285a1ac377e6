//! What is decided about a product on a split machine, and its text: `m128 p2`, `stream i4hl r32` or `vector`; ` l1`
//! behind it where weights go straight to L1, before that ` pass` where activations pass through L1 with them, ` early`
//! where sums are scaled before the last ones are there.

use std::fmt;
use std::str::FromStr;

use super::stream::Streamed;
use super::{Tile, Via};
use crate::isa::matrix::lower::matmul::tile::Mode;

/// Which lowering a product has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Weights unpacked whole, blocks of token rows.
    Blocks(Tile),
    /// Weights through a ring, a few token rows.
    Streamed(Streamed),
    /// The vector cores alone.
    Vector,
}

/// A text that is no choice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{found}', expected the form 'm128 p2', 'm128 p2 pass l1', 'stream i4hl r32', 'stream i8 r32 early l1' or 'vector'"
)]
pub struct ChoiceError {
    pub found: String,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Blocks(Tile { block_m, panels, via, pass }) => {
                let pass = if *pass { " pass" } else { "" };
                write!(f, "m{block_m} p{panels}{pass}{}", suffix(*via))
            }
            Choice::Streamed(Streamed { mode, rows, via, early }) => {
                let early = if *early { " early" } else { "" };
                write!(f, "stream {} r{rows}{early}{}", mode.name(), suffix(*via))
            }
            Choice::Vector => f.write_str("vector"),
        }
    }
}

impl FromStr for Choice {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Choice, ChoiceError> {
        let number = |word: &str, letter: char| word.strip_prefix(letter)?.parse().ok().filter(|n| *n > 0);
        let words: Vec<&str> = text.split_whitespace().collect();
        let (words, via) = match words[..] {
            [ref words @ .., "l1"] => (words, Via::L1),
            ref words => (words, Via::L2),
        };
        let choice = match (words, via) {
            (["vector"], Via::L2) => Some(Choice::Vector),
            (["stream", mode, rows, early @ ..], _) if matches!(early, [] | ["early"]) => {
                let mode = Mode::ALL.into_iter().find(|known| known.name() == *mode);
                let early = !early.is_empty();
                mode.zip(number(rows, 'r')).map(|(mode, rows)| Choice::Streamed(Streamed { mode, rows, via, early }))
            }
            ([block_m, panels, pass @ ..], _) if matches!(pass, [] | ["pass"]) => {
                let sizes = number(block_m, 'm').zip(number(panels, 'p'));
                let pass = !pass.is_empty();
                sizes.map(|(block_m, panels)| Choice::Blocks(Tile { block_m, panels, via, pass }))
            }
            _ => None,
        };
        choice.ok_or_else(|| ChoiceError { found: text.to_owned() })
    }
}

/// What the text of a way ends with.
const fn suffix(via: Via) -> &'static str {
    match via {
        Via::L2 => "",
        Via::L1 => " l1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_come_back_from_their_text() {
        for text in [
            "m128 p2",
            "m1 p1",
            "m256 p2 pass",
            "m96 p1 l1",
            "m96 p1 pass l1",
            "stream i8 r16",
            "stream i4hl r64",
            "stream i8 r32 l1",
            "stream i8 r32 early",
            "stream i8 r32 early l1",
            "vector",
        ] {
            assert_eq!(text.parse::<Choice>().map(|choice| choice.to_string()), Ok(text.to_owned()));
        }
        for text in [
            "",
            "m128",
            "m0 p1",
            "p1 m128",
            "l1",
            "m128 p1 l2",
            "m128 p1 l1 pass",
            "pass",
            "stream i5 r16",
            "stream i8 16",
            "stream i8 r16 l1 early",
            "m128 p1 early",
            "vector l1",
        ] {
            assert_eq!(text.parse::<Choice>(), Err(ChoiceError { found: text.to_owned() }));
        }
    }
}
