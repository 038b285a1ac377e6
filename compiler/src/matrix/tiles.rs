//! The tiles of a model's products: printed, read back, forced.
//!
//! One product a line, `m1 n2560 k2560 w2nz4-x64-k512: m1/1 k2560/512/256 g1 u3 s16 stay`, with ` residual` behind the encoding
//! where one is added; `;` begins a comment. What is printed forces the same tiles.

use std::fmt;
use std::str::FromStr;

use tcc_backends::isa::matrix::lower::matmul::tile::{Shape, Tile, TileError};
use tcc_backends::isa::matrix::lower::model::product;
use tcc_backends::isa::matrix::machine::Machine;
use tcc_ir::encoding::{ENCODINGS, Encoding};
use tcc_ir::plan::Plan;
use thiserror::Error;

use crate::error::Error;

/// A product, its tile, and the steps that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub shape: Shape,
    /// `None` before lowering.
    pub tile: Option<Tile>,
    /// Labels of the steps.
    pub steps: Vec<String>,
}

/// A tile that the user gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forced {
    pub shape: Shape,
    pub tile: Tile,
}

/// A line of tiles that cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TilesError {
    #[error("line {line}: {source}")]
    Tile { line: usize, source: TileError },
    #[error("line {line}: '{found}', expected the form 'm1 n2560 k2560 w2nz4-x64-k512: m1/1 k2560/512/256 g1 u3 s16'")]
    Product { line: usize, found: String },
    #[error("line {line}: the product has a tile already")]
    Twice { line: usize },
}

/// The products of `plan` on the cube of `machine`, in order of first use.
pub fn products(plan: &Plan, machine: &Machine) -> Vec<Choice> {
    let mut choices: Vec<Choice> = vec![];
    for step in plan.bodies.iter().chain([&plan.head]).flat_map(|list| &list.steps) {
        let Some(shape) = product(plan.kernel(step.kernel), machine) else { continue };
        match choices.iter_mut().find(|choice| choice.shape == shape) {
            Some(choice) => choice.steps.push(step.label.clone()),
            None => choices.push(Choice { shape, tile: None, steps: vec![step.label.clone()] }),
        }
    }
    choices
}

/// Fails for a tile of a product that the model does not have.
pub fn check_forced(forced: &[Forced], choices: &[Choice]) -> Result<(), Error> {
    let unknown = forced.iter().find(|f| choices.iter().all(|choice| choice.shape != f.shape));
    match unknown {
        None => Ok(()),
        Some(f) => Err(Error::usage(
            format!("the model has no product '{}' that a tile could be for", Product(&f.shape)),
            "`tcc inspect MODEL --schedules -t ascend --machine NAME` prints the products; --encoding forces the layout",
        )),
    }
}

/// The text of the tiles, with the steps of each product as a comment above it.
pub fn text(choices: &[Choice]) -> String {
    let line = |choice: &Choice| {
        let tile = choice.tile.map_or_else(|| "none".to_owned(), |tile| tile.to_string());
        format!("; {}\n{}: {tile}\n", choice.steps.join(", "), Product(&choice.shape))
    };
    choices.iter().map(line).collect()
}

/// The tiles of a text.
pub fn parse(text: &str) -> Result<Vec<Forced>, TilesError> {
    let mut all: Vec<Forced> = vec![];
    for (line, number) in text.lines().zip(1..) {
        let content = line.split(';').next().unwrap_or("").trim();
        if content.is_empty() {
            continue;
        }
        let malformed = || TilesError::Product { line: number, found: content.to_owned() };
        let (product, tile) = content.split_once(':').ok_or_else(malformed)?;
        let shape = shape(product).ok_or_else(malformed)?;
        let tile = Tile::from_str(tile.trim()).map_err(|source| TilesError::Tile { line: number, source })?;
        if all.iter().any(|forced| forced.shape == shape) {
            return Err(TilesError::Twice { line: number });
        }
        all.push(Forced { shape, tile });
    }
    Ok(all)
}

fn shape(text: &str) -> Option<Shape> {
    let mut words = text.split_whitespace();
    let mut number = |letter: char| words.next()?.strip_prefix(letter)?.parse().ok().filter(|n| *n > 0);
    let (m, n, k) = (number('m')?, number('n')?, number('k')?);
    let name = words.next()?;
    let Encoding::W2Nz(panel) = *ENCODINGS.iter().find(|e| e.to_string() == name)? else { return None };
    let residual = match (words.next(), words.next()) {
        (None, None) => false,
        (Some("residual"), None) => true,
        _ => return None,
    };
    Some(Shape { m, n, k, panel, residual })
}

/// A product in the words of the text.
pub struct Product<'a>(pub &'a Shape);

impl fmt::Display for Product<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { m, n, k, panel, residual } = self.0;
        write!(f, "m{m} n{n} k{k} {}", Encoding::W2Nz(*panel))?;
        f.write_str(if *residual { " residual" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "; L00.qkv, L01.qkv\n\
                        m1 n2560 k2560 w2nz4-x64-k512: m1/1 k2560/512/256 g1 u3 s16 stay\n\
                        ; L00.down\n\
                        m32 n256 k640 w2nz8-x128-k512 residual: m32/16 k640/128/64 g2 u4 s32\n";

    #[test]
    fn tiles_come_back_from_their_text() {
        let read = parse(TEXT).expect("valid");
        let steps = [vec!["L00.qkv".to_owned(), "L01.qkv".to_owned()], vec!["L00.down".to_owned()]];
        let choice = |(forced, steps): (&Forced, _)| Choice { shape: forced.shape, tile: Some(forced.tile), steps };
        let choices: Vec<Choice> = read.iter().zip(steps).map(choice).collect();
        assert_eq!(text(&choices), TEXT);
    }

    #[test]
    fn mistakes_are_named() {
        let message = |text: &str| parse(text).expect_err("a mistake").to_string();
        let line = TEXT.lines().nth(1).expect("a product");
        assert!(message(&line.replace("n2560", "x2560")).starts_with("line 1: 'm1 x2560 k2560"));
        assert!(message(&line.replace("k512:", "k513:")).contains("expected the form"));
        assert!(message(&line.replace("512/256", "512")).starts_with("line 1: tile 'm1/1 k2560/512 g1 u3 s16 stay'"));
        assert_eq!(message(&format!("{line}\n{line}")), "line 2: the product has a tile already");
    }
}
