//! Reads one graph of the text form.

use std::collections::BTreeMap;

use super::lexer::{Position, Token, quote};
use super::parse::{MAX_COUNT, MAX_NODES, Names, ParseError, Parser, unexpected};
use crate::coded::RowCode;
use crate::graph::{Graph, ValueId};
use crate::ops::attr::{Attr, Slot};
use crate::ops::{Act, InputKind, Op};
use crate::program::{Program, StateId, WeightId};
use crate::ty::ValueType;

/// A result as written on the left of `=`.
struct Written {
    name: String,
    at: Position,
    ty: ValueType,
}

type Values = BTreeMap<String, ValueId>;

impl Parser<'_> {
    /// `graph name [m = 8] { nodes, return }`; also behind `head`.
    pub fn graph(&mut self, program: &mut Program, names: &mut Names) -> Result<Graph, ParseError> {
        self.advance();
        let name = match self.token {
            Token::Text(_) => self.string("a name")?,
            _ => self.word("a name")?,
        };
        let mut m = 1;
        if self.is_word("m") {
            self.advance();
            self.punct('=')?;
            m = self.integer(1, MAX_COUNT)?;
        }
        self.punct('{')?;
        let mut graph = Graph::new(name, m);
        let mut values = Values::new();
        while matches!(self.token, Token::Value(_)) {
            self.node(&mut graph, &mut values, program, names)?;
        }
        if self.is_word("return") {
            self.advance();
            graph.outputs = self.operands(&values)?;
        }
        if !self.is_punct('}') {
            return self.fail("a value, 'return' or '}'");
        }
        self.advance();
        Ok(graph)
    }

    /// `%q: i8[1, 8], %s: f32[1] = quantize_act %x { attributes } @"label"`.
    fn node(
        &mut self,
        graph: &mut Graph,
        values: &mut Values,
        program: &mut Program,
        names: &mut Names,
    ) -> Result<(), ParseError> {
        let results = self.results(values)?;
        self.punct('=')?;
        let at = self.at;
        if self.nodes == MAX_NODES {
            return self.fail(format!("at most {MAX_NODES} ops"));
        }
        self.nodes += 1;
        let mut op = match &self.token {
            Token::Word(word) => Op::from_name(word),
            _ => None,
        };
        let Some(op) = &mut op else { return self.fail("an op") };
        self.advance();
        let mut ids = vec![];
        if op.is_leaf() {
            *op = self.leaf(*op, &results[0].ty, program, names)?;
        } else {
            ids = self.operands(values)?;
            self.attrs(op, at)?;
        }
        let label = if self.accept('@') { self.string("a label in quotes")? } else { String::new() };
        let node = match &results[..] {
            [result] if op.is_leaf() => graph.leaf(*op, result.ty.clone(), label).node,
            _ if op.is_leaf() => return Err(unexpected(at, "one result of a leaf", results.len().to_string())),
            _ => graph.add(*op, &ids, label).map_err(|source| ParseError::Type {
                line: at.line,
                column: at.column,
                source,
            })?,
        };
        check_types(&results, &graph.node(node).types, at)?;
        for (result, Written { name, .. }) in results.into_iter().enumerate() {
            values.insert(name, ValueId { node, result });
        }
        Ok(())
    }

    /// Names and types on the left of `=`.
    fn results(&mut self, values: &Values) -> Result<Vec<Written>, ParseError> {
        let mut results: Vec<Written> = vec![];
        loop {
            let at = self.at;
            let name = self.value("a value")?;
            if values.contains_key(&name) || results.iter().any(|r| r.name == name) {
                return Err(unexpected(at, "a new value", format!("%{name}, defined above")));
            }
            self.punct(':')?;
            let ty = self.ty()?;
            results.push(Written { name, at, ty });
            if !self.accept(',') {
                return Ok(results);
            }
        }
    }

    fn value(&mut self, expected: &str) -> Result<String, ParseError> {
        match &mut self.token {
            Token::Value(name) if !name.is_empty() => {
                let name = std::mem::take(name);
                self.advance();
                Ok(name)
            }
            _ => self.fail(expected),
        }
    }

    fn operands(&mut self, values: &Values) -> Result<Vec<ValueId>, ParseError> {
        let mut operands = vec![];
        loop {
            let at = self.at;
            let name = self.value("a value")?;
            match values.get(&name) {
                Some(value) => operands.push(*value),
                None => return Err(unexpected(at, "a value defined above", format!("%{name}"))),
            }
            if !self.accept(',') {
                return Ok(operands);
            }
        }
    }

    /// What the leaf names, in quotes.
    fn leaf(&mut self, op: Op, ty: &ValueType, program: &mut Program, names: &mut Names) -> Result<Op, ParseError> {
        let at = self.at;
        let name = self.string("a name in quotes")?;
        if let Op::Input(_) = op {
            let Some(kind) = InputKind::ALL.into_iter().find(|k| k.name() == name) else {
                return Err(unexpected(at, "\"tokens\", \"pos\", \"valid\" or \"hidden\"", quote(&name)));
            };
            if let (InputKind::Hidden, true, &[_, hidden]) = (kind, program.facts.hidden == 0, &ty.shape[..]) {
                program.facts.hidden = hidden;
            }
            return Ok(Op::Input(kind));
        }
        let is_weight = matches!(op, Op::Weight(_));
        let table = if is_weight { &names.weights } else { &names.states };
        let id = match table.get(&name) {
            Some(id) => *id,
            None if names.is_open && is_weight => {
                names.weight(program, &name, ty.clone());
                names.weights[&name]
            }
            None if names.is_open => {
                names.state(program, &name, ty.clone());
                names.states[&name]
            }
            None => return Err(unexpected(at, "a declared name", quote(&name))),
        };
        Ok(if is_weight { Op::Weight(WeightId(id)) } else { Op::State(StateId(id)) })
    }

    /// `{ eps = 1e-5, bias }`: any order, each once, the required ones all there. `at` is where the op stands.
    fn attrs(&mut self, op: &mut Op, at: Position) -> Result<(), ParseError> {
        let mut missing = op.attrs();
        if self.accept('{') {
            while !self.is_punct('}') {
                self.attr(&mut missing)?;
                if !self.accept(',') {
                    break;
                }
            }
            self.punct('}')?;
        }
        match missing.iter().find(|a| a.is_required) {
            Some(attr) => Err(unexpected(at, format!("attribute '{}'", attr.name), "none")),
            None => Ok(()),
        }
    }

    fn attr(&mut self, missing: &mut Vec<Attr<'_>>) -> Result<(), ParseError> {
        let found = missing.iter().position(|a| self.is_word(a.name));
        let Some(found) = found else {
            let names: Vec<_> = missing.iter().map(|a| format!("'{}'", a.name)).collect();
            return self.fail(if names.is_empty() { "'}'".into() } else { names.join(" or ") });
        };
        let attr = missing.remove(found);
        self.advance();
        match attr.slot {
            Slot::Flag(flag) => *flag = true,
            Slot::F32(x) => {
                self.punct('=')?;
                *x = self.float()?;
            }
            Slot::Count(n) => {
                self.punct('=')?;
                *n = self.integer(1, MAX_COUNT)?;
            }
            Slot::Act(act) => {
                self.punct('=')?;
                let at = self.at;
                let name = self.word("'relu2' or 'silu'")?;
                let known = Act::ALL.into_iter().find(|a| a.name() == name);
                *act = known.ok_or_else(|| unexpected(at, "'relu2' or 'silu'", format!("'{name}'")))?;
            }
            Slot::Code(code) => {
                self.punct('=')?;
                let at = self.at;
                let name = self.word("'int8' or 'int4'")?;
                let known = RowCode::ALL.into_iter().find(|c| c.name() == name);
                *code = known.ok_or_else(|| unexpected(at, "'int8' or 'int4'", format!("'{name}'")))?;
            }
        }
        Ok(())
    }
}

/// The written types must be those that the op gives.
fn check_types(written: &[Written], given: &[ValueType], at: Position) -> Result<(), ParseError> {
    if written.len() != given.len() {
        return Err(unexpected(at, format!("{} results", given.len()), written.len().to_string()));
    }
    match written.iter().zip(given).find(|(w, g)| w.ty != **g) {
        Some((w, g)) => Err(unexpected(w.at, format!("%{}: {g}", w.name), w.ty.to_string())),
        None => Ok(()),
    }
}
