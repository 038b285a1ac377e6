//! What is decided about a model's products: printed, read back, forced.
//!
//! One product a line, `m1 n2560 k2560 w2nz4-x64-k512: m1/1 k2560/512/256 g1 u3 s16 stay`, with ` residual` behind the
//! encoding where one is added, and ` i8` before it where weights packed for nibbles are unpacked to bytes. On split
//! machines ` rows` for scales per row and ` bias` stand before it, and the text of a choice behind the colon (`stream
//! i4hl r32`). `;` begins a comment. What is printed forces the same.

use std::fmt;
use std::str::FromStr;

use tcc_backends::isa::matrix::lower::matmul::search;
use tcc_backends::isa::matrix::lower::matmul::tile::{Mode, Shape, Tile, TileError};
use tcc_backends::isa::matrix::lower::model::{product, split_product};
use tcc_backends::isa::matrix::lower::split;
use tcc_backends::isa::matrix::lower::split::choice::{Choice as SplitChoice, ChoiceError};
use tcc_backends::isa::matrix::lower::split::search::Shape as SplitShape;
use tcc_backends::isa::matrix::lower::vector::ternary::PANEL;
use tcc_backends::isa::matrix::machine::Machine;
use tcc_ir::encoding::{ENCODINGS, Encoding};
use tcc_ir::kernel::ScaleKind;
use tcc_ir::plan::{Plan, StepList};
use thiserror::Error;

use crate::error::Error;

/// A product, on a machine of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    Coupled(Shape),
    Split(SplitShape),
}

/// What is decided about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Coupled(Tile),
    Split(SplitChoice),
}

/// A product, what is decided about it, and the steps that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub product: Product,
    /// `None` before lowering.
    pub decision: Option<Decision>,
    /// Labels of the steps.
    pub steps: Vec<String>,
}

impl Choice {
    /// Cycles of the product alone, simulated; `None` where nothing is decided or it does not fit.
    pub fn cycles(&self, machine: &Machine) -> Option<f64> {
        match (self.product, self.decision?) {
            (Product::Coupled(shape), Decision::Coupled(tile)) => search::cycles(&shape, tile, machine),
            (Product::Split(shape), Decision::Split(choice)) => {
                split::search::cycles(&split::search::alone(&shape, choice, machine)?, machine, true)
            }
            (Product::Coupled(_), Decision::Split(_)) | (Product::Split(_), Decision::Coupled(_)) => None,
        }
    }
}

/// What the user decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forced {
    pub product: Product,
    pub decision: Decision,
}

/// A line of tiles that cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TilesError {
    #[error("line {line}: {source}")]
    Tile { line: usize, source: TileError },
    #[error("line {line}: {source}")]
    Choice { line: usize, source: ChoiceError },
    #[error("line {line}: '{found}', expected the form 'm1 n2560 k2560 w2nz4-x64-k512: m1/1 k2560/512/256 g1 u3 s16'")]
    Product { line: usize, found: String },
    #[error("line {line}: the product has a tile already")]
    Twice { line: usize },
}

/// The products of `list` on the cube of `machine`, in `mode`, in order of first use; added to `choices`.
pub fn add_products(choices: &mut Vec<Choice>, plan: &Plan, list: &StepList, machine: &Machine, mode: Mode) {
    for step in &list.steps {
        let spec = plan.kernel(step.kernel);
        let split = || split_product(spec, machine).map(Product::Split);
        let found = product(spec, machine, mode).map(Product::Coupled).or_else(split);
        let Some(product) = found else { continue };
        match choices.iter_mut().find(|choice| choice.product == product) {
            Some(choice) => choice.steps.push(step.label.clone()),
            None => choices.push(Choice { product, decision: None, steps: vec![step.label.clone()] }),
        }
    }
}

/// Fails where the model does not have a product.
pub fn check_forced(forced: &[Forced], choices: &[Choice]) -> Result<(), Error> {
    let unknown = forced.iter().find(|f| choices.iter().all(|choice| choice.product != f.product));
    match unknown {
        None => Ok(()),
        Some(f) => Err(Error::usage(
            format!("the model has no product '{}' that a tile could be for", f.product),
            "`tcc inspect MODEL --schedules -t ascend --machine NAME` prints the products; --encoding forces the layout",
        )),
    }
}

/// The text of the decisions, with the steps of each product as a comment above it.
pub fn text(choices: &[Choice]) -> String {
    let line = |choice: &Choice| {
        let decision = choice.decision.map_or_else(|| "none".to_owned(), |decision| decision.to_string());
        format!("; {}\n{}: {decision}\n", choice.steps.join(", "), choice.product)
    };
    choices.iter().map(line).collect()
}

/// The decisions of a text.
pub fn parse(text: &str) -> Result<Vec<Forced>, TilesError> {
    let mut all: Vec<Forced> = vec![];
    for (line, number) in text.lines().zip(1..) {
        let content = line.split(';').next().unwrap_or("").trim();
        if content.is_empty() {
            continue;
        }
        let malformed = || TilesError::Product { line: number, found: content.to_owned() };
        let (left, right) = content.split_once(':').ok_or_else(malformed)?;
        let (shape, extra) = shape(left).ok_or_else(malformed)?;
        let forced = decide(shape, &extra, right.trim(), number)?.ok_or_else(malformed)?;
        if all.iter().any(|known| known.product == forced.product) {
            return Err(TilesError::Twice { line: number });
        }
        all.push(forced);
    }
    Ok(all)
}

/// The decision of a line, in the words of the machine's kind; `None` if the product has words of the other kind.
fn decide(shape: Shape, extra: &[&str], text: &str, line: usize) -> Result<Option<Forced>, TilesError> {
    let tile = match Tile::from_str(text) {
        Ok(tile) => {
            let (product, decision) = (Product::Coupled(shape), Decision::Coupled(tile));
            return Ok(extra.is_empty().then_some(Forced { product, decision }));
        }
        Err(error) => error,
    };
    // A tile of either kind begins with its rows; only coupled ones have a stroke behind them.
    let choice = match SplitChoice::from_str(text) {
        Ok(choice) => choice,
        Err(_) if text.contains('/') => return Err(TilesError::Tile { line, source: tile }),
        Err(source) => return Err(TilesError::Choice { line, source }),
    };
    let Shape { m, n, k, panel, mode: _, residual } = shape;
    let scale = if extra.contains(&ROWS) { ScaleKind::PerRow } else { ScaleKind::PerTensor };
    let product = Product::Split(SplitShape { m, n, k, scale, bias: extra.contains(&BIAS), residual });
    Ok((panel == PANEL).then_some(Forced { product, decision: Decision::Split(choice) }))
}

/// Words behind the encoding.
const ROWS: &str = "rows";
const BIAS: &str = "bias";
const RESIDUAL: &str = "residual";
/// Bytes from weights packed for nibbles.
const BYTES: &str = Mode::I8.name();

/// The shape of a product, and those of its words that only split machines have.
fn shape(text: &str) -> Option<(Shape, Vec<&str>)> {
    let mut words = text.split_whitespace();
    let mut number = |letter: char| words.next()?.strip_prefix(letter)?.parse().ok().filter(|n| *n > 0);
    let (m, n, k) = (number('m')?, number('n')?, number('k')?);
    let name = words.next()?;
    let Encoding::W2Nz(panel) = *ENCODINGS.iter().find(|e| e.to_string() == name)? else { return None };
    let given: Vec<&str> = words.collect();
    // In this order, each at most once.
    let known: Vec<&str> = [BYTES, ROWS, BIAS, RESIDUAL].into_iter().filter(|word| given.contains(word)).collect();
    let (residual, own) = (given.contains(&RESIDUAL), Mode::of(panel));
    let mode = if given.contains(&BYTES) { Mode::I8 } else { own };
    let extra = given.iter().copied().filter(|word| ![BYTES, RESIDUAL].contains(word)).collect();
    let is_new = mode != own || !given.contains(&BYTES);
    (given == known && is_new).then_some((Shape { m, n, k, panel, mode, residual }, extra))
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (m, n, k, panel, words) = match self {
            Product::Coupled(Shape { m, n, k, panel, mode, residual }) => {
                (m, n, k, *panel, [*mode != Mode::of(*panel), false, false, *residual])
            }
            Product::Split(SplitShape { m, n, k, scale, bias, residual }) => {
                (m, n, k, PANEL, [false, *scale == ScaleKind::PerRow, *bias, *residual])
            }
        };
        write!(f, "m{m} n{n} k{k} {}", Encoding::W2Nz(panel))?;
        let words = [BYTES, ROWS, BIAS, RESIDUAL].into_iter().zip(words).filter(|(_, has)| *has);
        words.map(|(word, _)| word).try_for_each(|word| write!(f, " {word}"))
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decision::Coupled(tile) => tile.fmt(f),
            Decision::Split(choice) => choice.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "; L00.qkv, L01.qkv\n\
                        m1 n2560 k2560 w2nz4-x64-k512: m1/1 k2560/512/256 g1 u3 s16 stay\n\
                        ; L00.gate\n\
                        m64 n2560 k2560 w2nz4-x64-k512 i8 residual: m64/64 k2560/512/128 g1 u3 s16\n\
                        ; L00.down\n\
                        m32 n256 k640 w2nz8-x128-k512 residual: m32/16 k640/128/64 g2 u4 s32\n\
                        ; L00.up\n\
                        m1 n6912 k2560 w2nz8-x64-k512: stream i4hl r32\n\
                        ; L00.o\n\
                        m64 n2560 k2560 w2nz8-x64-k512 rows bias residual: m64 p2\n";

    #[test]
    fn tiles_come_back_from_their_text() {
        let read = parse(TEXT).expect("valid");
        let steps = [&["L00.qkv", "L01.qkv"][..], &["L00.gate"], &["L00.down"], &["L00.up"], &["L00.o"]];
        let choice = |(forced, steps): (&Forced, &[&str])| Choice {
            product: forced.product,
            decision: Some(forced.decision),
            steps: steps.iter().map(|step| (*step).to_owned()).collect(),
        };
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
        let split = "m1 n6912 k2560 w2nz8-x64-k512: stream i4hl r32";
        assert!(message(&split.replace("r32", "32")).starts_with("line 1: 'stream i4hl 32', expected the form"));
        assert!(message(&split.replace("k512:", "k512 residual bias:")).contains("expected the form"));
        assert!(message(&split.replace("w2nz8", "w2nz4")).contains("expected the form"));
        assert!(
            message(&TEXT.lines().nth(5).expect("a product").replace("x128-k512", "x128-k512 i8")).contains("expected")
        );
        assert_eq!(message(&format!("{line}\n{line}")), "line 2: the product has a tile already");
    }
}
