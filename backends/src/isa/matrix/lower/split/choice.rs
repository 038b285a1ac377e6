//! What is decided about a product on a split machine, and its text: `m128 p2`, `stream i4hl r32` or `vector`.

use std::fmt;
use std::str::FromStr;

use super::Tile;
use super::stream::Streamed;
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
#[error("'{found}', expected the form 'm128 p2', 'stream i4hl r32' or 'vector'")]
pub struct ChoiceError {
    pub found: String,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Blocks(Tile { block_m, panels }) => write!(f, "m{block_m} p{panels}"),
            Choice::Streamed(Streamed { mode, rows }) => write!(f, "stream {} r{rows}", mode.name()),
            Choice::Vector => f.write_str("vector"),
        }
    }
}

impl FromStr for Choice {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Choice, ChoiceError> {
        let number = |word: &str, letter: char| word.strip_prefix(letter)?.parse().ok().filter(|n| *n > 0);
        let words: Vec<&str> = text.split_whitespace().collect();
        let choice = match words[..] {
            ["vector"] => Some(Choice::Vector),
            ["stream", mode, rows] => Mode::ALL
                .into_iter()
                .find(|known| known.name() == mode)
                .and_then(|mode| Some(Choice::Streamed(Streamed { mode, rows: number(rows, 'r')? }))),
            [block_m, panels] => {
                let sizes = number(block_m, 'm').zip(number(panels, 'p'));
                sizes.map(|(block_m, panels)| Choice::Blocks(Tile { block_m, panels }))
            }
            _ => None,
        };
        choice.ok_or_else(|| ChoiceError { found: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_come_back_from_their_text() {
        for text in ["m128 p2", "m1 p1", "stream i8 r16", "stream i4hl r64", "vector"] {
            assert_eq!(text.parse::<Choice>().map(|choice| choice.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "m128", "m0 p1", "p1 m128", "stream i5 r16", "stream i8 16", "vector r16"] {
            assert_eq!(text.parse::<Choice>(), Err(ChoiceError { found: text.to_owned() }));
        }
    }
}
