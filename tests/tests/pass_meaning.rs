//! Passes preserve bits: random graphs, each pass alone and the whole pipeline, the interpreter before and after.

use std::fmt::Write;

use tcc::passes::PIPELINE;
use tcc_tests::directive::{self, Outcome};
use tcc_tests::random::Rng;

/// Columns of every row, so that most ops fit each other.
const K: usize = 16;

/// A graph under construction, as text.
struct Text {
    rng: Rng,
    lines: String,
    /// Names of values `f32[m, K]`.
    rows: Vec<String>,
    m: usize,
    next: usize,
}

impl Text {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let m = 1 + rng.below(3);
        let lines = format!("graph body m = {m} {{\n  %x: f32[{m}, {K}] = input \"hidden\"\n");
        Text { rng, lines, rows: vec!["%x".into()], m, next: 0 }
    }

    /// One of the last rows: chains are what fusions look for.
    fn row(&mut self) -> String {
        let recent = self.rows.len().min(3);
        let i = if self.rng.below(4) == 0 { self.rng.below(self.rows.len()) } else { self.rows.len() - 1 };
        self.rows[i.max(self.rows.len() - recent)].clone()
    }

    fn name(&mut self) -> String {
        self.next += 1;
        format!("%v{}", self.next)
    }

    /// A leaf; few names, so that equal ones meet.
    fn weight(&mut self, ty: &str) -> String {
        let (name, n) = (self.name(), self.rng.below(2));
        writeln!(self.lines, "  {name}: {ty} = weight \"{ty} {n}\"").expect("writing to a string succeeds");
        name
    }

    fn define(&mut self, what: &str) {
        let name = self.name();
        writeln!(self.lines, "  {name}: f32[{}, {K}] = {what}", self.m).expect("writing to a string succeeds");
        self.rows.push(name);
    }

    fn op(&mut self) {
        let (x, y) = (self.row(), self.row());
        let matrix = format!("f32[{}, {K}]", self.m);
        match self.rng.below(8) {
            0 => self.define(&format!("add {x}, {y}")),
            1 => {
                let rows = self.weight(&matrix);
                self.define(&format!("add {rows}, {y}"));
            }
            2 => {
                let rows = self.weight(&matrix);
                self.rows.push(rows);
            }
            3 | 4 => {
                let d = if self.rng.below(4) == 0 { K / 2 } else { K };
                let w = self.weight(&format!("f32[{d}]"));
                self.define(&format!("rms_norm {x}, {w} {{ eps = 1e-5 }}"));
            }
            5 => {
                let act = ["relu2", "silu"][self.rng.below(2)];
                self.define(&format!("glu {x}, {y} {{ act = {act} }}"));
            }
            6 => {
                let w = self.weight(&format!("bf16[{K}, {K}]"));
                self.define(&format!("dense_linear {x}, {w}"));
            }
            _ => self.ternary(&x),
        }
    }

    fn ternary(&mut self, x: &str) {
        let (q, s, m) = (self.name(), self.name(), self.m);
        writeln!(self.lines, "  {q}: i8[{m}, {K}], {s}: f32[{m}] = quantize_act {x}").expect("a string");
        let w = self.weight(&format!("trit[{K}, {K}]"));
        let scale = self.weight("f32[1]");
        self.define(&format!("ternary_linear {q}, {s}, {w}, {scale}"));
    }

    fn finish(mut self) -> String {
        let (last, other) = (self.rows[self.rows.len() - 1].clone(), self.row());
        writeln!(self.lines, "  return {last}, {other}\n}}").expect("writing to a string succeeds");
        self.lines
    }
}

fn random_graph(seed: u64) -> String {
    let mut text = Text::new(seed);
    for _ in 0..4 + text.rng.below(12) {
        text.op();
    }
    text.finish()
}

#[test]
fn passes_preserve_bits_on_random_graphs() {
    let passes = PIPELINE.iter().map(|p| format!("pass {}", p.name));
    let directives: Vec<String> = passes.chain(["pipeline".into()]).collect();
    let mut changed = vec![0; directives.len()];
    for seed in 0..300 {
        let text = random_graph(seed);
        let before = directive::run("parse", &text).expect("a known directive");
        for (directive, changed) in directives.iter().zip(&mut changed) {
            match directive::run(directive, &text) {
                Ok(after @ Outcome::Text(_)) => *changed += usize::from(after != before),
                other => panic!("seed {seed}, {directive}: {other:?}\n{text}"),
            }
        }
    }
    // A generator on whose graphs a pass never acts would show nothing.
    let idle: Vec<_> = directives.iter().zip(changed).filter(|(_, n)| *n < 10).collect();
    assert!(idle.is_empty(), "acted on fewer than 10 of 300 graphs: {idle:?}");
}
