//! Reads the text form: declarations here, graphs in `parse_graph`.
//!
//! A text with `facts` is a whole program: every name is declared and a head is there. A text without is a fragment,
//! as test cases are: a weight or state is declared by its first mention, and `hidden` is that of the first hidden
//! input. Never panics; sizes are bounded by the constants below before anything is computed from them.

use std::collections::BTreeMap;

use thiserror::Error;

use super::lexer::{Lexer, Position, Token};
use crate::graph::Graph;
use crate::ops::TypeError;
use crate::program::{ModelFacts, Program, StateDecl, WeightDecl};
use crate::ty::{DType, ValueType};

/// Largest number of extents of a type.
pub const MAX_RANK: usize = 4;
/// Largest number of elements of a type; products of two of them with [`MAX_COUNT`] stay far below 2^64.
pub const MAX_ELEMENTS: usize = 1 << 40;
/// Largest number that an attribute or `m` may be.
pub const MAX_COUNT: usize = 1 << 20;
/// Largest number of nodes of a text.
pub const MAX_NODES: usize = 1 << 20;

/// Why a text is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseError {
    #[error("line {line}, column {column}: expected {expected}, found {found}")]
    Unexpected { line: usize, column: usize, expected: String, found: String },
    #[error("line {line}, column {column}: {source}")]
    Type { line: usize, column: usize, source: TypeError },
}

/// What a text holds.
#[derive(Clone, Debug)]
pub struct Source {
    pub program: Program,
    /// True for a text without `facts`: graphs to test, not a model.
    pub is_fragment: bool,
}

/// Reads a whole program.
pub fn program(text: &str) -> Result<Program, ParseError> {
    let source = source(text)?;
    if source.is_fragment {
        return Err(unexpected(Position { line: 1, column: 1 }, "'facts'", "a text without"));
    }
    Ok(source.program)
}

/// Reads a whole program or a fragment.
pub fn source(text: &str) -> Result<Source, ParseError> {
    let mut parser = Parser::new(text);
    let facts = if parser.is_word("facts") { Some(parser.facts()?) } else { None };
    let is_fragment = facts.is_none();
    let mut program = Program {
        facts: facts.unwrap_or(NO_FACTS),
        weights: vec![],
        states: vec![],
        bodies: vec![],
        head: Graph::new("head", 1),
    };
    let mut names = Names { is_open: is_fragment, ..Names::default() };
    while parser.is_word("weight") || parser.is_word("state") {
        parser.declaration(&mut program, &mut names)?;
    }
    while parser.is_word("graph") {
        let body = parser.graph(&mut program, &mut names)?;
        program.bodies.push(body);
    }
    if parser.is_word("head") {
        program.head = parser.graph(&mut program, &mut names)?;
    } else if !is_fragment {
        return parser.fail("'graph' or 'head'");
    }
    match parser.token {
        Token::End => Ok(Source { program, is_fragment }),
        _ => parser.fail("'graph', 'head' or the end of the text"),
    }
}

/// Facts of a fragment.
const NO_FACTS: ModelFacts =
    ModelFacts { vocab: 0, hidden: 0, layers: 0, ctx: 0, kv: DType::F32, bos: None, eos: vec![] };

/// Indices of declared names.
#[derive(Default)]
pub(super) struct Names {
    pub weights: BTreeMap<String, u32>,
    pub states: BTreeMap<String, u32>,
    /// True where a mention declares.
    pub is_open: bool,
}

/// The token at hand and those behind it.
pub(super) struct Parser<'a> {
    lexer: Lexer<'a>,
    pub token: Token,
    pub at: Position,
    /// Nodes read so far.
    pub nodes: usize,
}

pub(super) fn unexpected(at: Position, expected: impl Into<String>, found: impl Into<String>) -> ParseError {
    ParseError::Unexpected { line: at.line, column: at.column, expected: expected.into(), found: found.into() }
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let mut lexer = Lexer::new(text);
        let (token, at) = lexer.next_token();
        Parser { lexer, token, at, nodes: 0 }
    }

    /// Moves on; returns the token left behind.
    pub fn advance(&mut self) -> Token {
        let (token, at) = self.lexer.next_token();
        self.at = at;
        std::mem::replace(&mut self.token, token)
    }

    pub fn fail<T>(&self, expected: impl Into<String>) -> Result<T, ParseError> {
        Err(unexpected(self.at, expected, self.token.to_string()))
    }

    pub fn is_word(&self, word: &str) -> bool {
        matches!(&self.token, Token::Word(w) if w == word)
    }

    pub fn is_punct(&self, c: char) -> bool {
        self.token == Token::Punct(c)
    }

    pub fn punct(&mut self, c: char) -> Result<(), ParseError> {
        if !self.is_punct(c) {
            return self.fail(format!("'{c}'"));
        }
        self.advance();
        Ok(())
    }

    /// Moves past `c` if it is next.
    pub fn accept(&mut self, c: char) -> bool {
        let is_next = self.is_punct(c);
        if is_next {
            self.advance();
        }
        is_next
    }

    pub fn word(&mut self, expected: &str) -> Result<String, ParseError> {
        match &mut self.token {
            Token::Word(word) => {
                let word = std::mem::take(word);
                self.advance();
                Ok(word)
            }
            _ => self.fail(expected),
        }
    }

    pub fn string(&mut self, expected: &str) -> Result<String, ParseError> {
        match &mut self.token {
            Token::Text(text) => {
                let text = std::mem::take(text);
                self.advance();
                Ok(text)
            }
            _ => self.fail(expected),
        }
    }

    /// A whole number in `min..=max`.
    pub fn integer(&mut self, min: usize, max: usize) -> Result<usize, ParseError> {
        let number = match &self.token {
            Token::Number(digits) => digits.parse().ok().filter(|n| (min..=max).contains(n)),
            _ => None,
        };
        match number {
            Some(n) => {
                self.advance();
                Ok(n)
            }
            None => self.fail(format!("a whole number of {min}..={max}")),
        }
    }

    /// A finite decimal, or `0x` and the bits.
    pub fn float(&mut self) -> Result<f32, ParseError> {
        let number = match &self.token {
            Token::Number(digits) => match digits.strip_prefix("0x") {
                Some(bits) => u32::from_str_radix(bits, 16).ok().map(f32::from_bits),
                None => digits.parse().ok().filter(|x: &f32| x.is_finite()),
            },
            _ => None,
        };
        match number {
            Some(x) => {
                self.advance();
                Ok(x)
            }
            None => self.fail("a finite number, or 0x and the bits of an f32"),
        }
    }

    pub fn dtype(&mut self) -> Result<DType, ParseError> {
        let dtype = match &self.token {
            Token::Word(word) => DType::from_name(word),
            _ => None,
        };
        match dtype {
            Some(dtype) => {
                self.advance();
                Ok(dtype)
            }
            None => self.fail("an element type"),
        }
    }

    /// `f32[1, 2560]`.
    pub fn ty(&mut self) -> Result<ValueType, ParseError> {
        let dtype = self.dtype()?;
        self.punct('[')?;
        let (mut shape, mut elements) = (vec![], 1);
        loop {
            if shape.len() == MAX_RANK {
                return self.fail(format!("at most {MAX_RANK} extents"));
            }
            // Invariant: the product of the extents stays within MAX_ELEMENTS.
            let extent = self.integer(1, MAX_ELEMENTS / elements)?;
            elements *= extent;
            shape.push(extent);
            if !self.accept(',') {
                break;
            }
        }
        self.punct(']')?;
        Ok(ValueType { dtype, shape })
    }

    fn declaration(&mut self, program: &mut Program, names: &mut Names) -> Result<(), ParseError> {
        let is_weight = self.is_word("weight");
        self.advance();
        let at = self.at;
        let name = self.string("a name in quotes")?;
        self.punct(':')?;
        let ty = self.ty()?;
        let is_new = if is_weight { names.weight(program, &name, ty) } else { names.state(program, &name, ty) };
        if is_new { Ok(()) } else { Err(unexpected(at, "a new name", format!("{name:?}, declared above"))) }
    }

    /// `facts { vocab = 8, ... }` in the order printed, `bos` where there is one.
    fn facts(&mut self) -> Result<ModelFacts, ParseError> {
        self.advance();
        self.punct('{')?;
        let mut facts = NO_FACTS;
        facts.vocab = self.size("vocab")?;
        facts.hidden = self.size("hidden")?;
        facts.layers = self.size("layers")?;
        facts.ctx = self.size("ctx")?;
        self.key("kv")?;
        facts.kv = self.dtype()?;
        self.punct(',')?;
        if self.is_word("bos") {
            self.key("bos")?;
            facts.bos = Some(self.token_id()?);
            self.punct(',')?;
        }
        self.key("eos")?;
        self.punct('[')?;
        while !self.is_punct(']') {
            facts.eos.push(self.token_id()?);
            if !self.accept(',') {
                break;
            }
        }
        self.punct(']')?;
        self.punct('}')?;
        Ok(facts)
    }

    /// `key = number,`.
    fn size(&mut self, key: &str) -> Result<usize, ParseError> {
        self.key(key)?;
        let size = self.integer(0, MAX_ELEMENTS)?;
        self.punct(',')?;
        Ok(size)
    }

    fn key(&mut self, key: &str) -> Result<(), ParseError> {
        if !self.is_word(key) {
            return self.fail(format!("'{key}'"));
        }
        self.advance();
        self.punct('=')
    }

    fn token_id(&mut self) -> Result<u32, ParseError> {
        let id = self.integer(0, u32::MAX as usize)?;
        Ok(u32::try_from(id).expect("integer() bounds it"))
    }
}

impl Names {
    /// Declares a weight; false if the name is taken.
    pub fn weight(&mut self, program: &mut Program, name: &str, ty: ValueType) -> bool {
        // Fewer than 2^32 declarations: each takes more than one byte of text.
        let id = program.weights.len() as u32;
        let is_new = self.weights.insert(name.into(), id).is_none();
        program.weights.push(WeightDecl { name: name.into(), ty });
        is_new
    }

    /// Declares a state; false if the name is taken.
    pub fn state(&mut self, program: &mut Program, name: &str, ty: ValueType) -> bool {
        let id = program.states.len() as u32;
        let is_new = self.states.insert(name.into(), id).is_none();
        program.states.push(StateDecl { name: name.into(), ty });
        is_new
    }
}
