//! What each directive of a text case does.

use tcc::passes::{self, FoldedStore, PassCx, PassError};
use tcc_ir::graph::Graph;
use tcc_ir::interp::{self, Inputs};
use tcc_ir::program::{Program, WeightStore};
use tcc_ir::tensor::{Data, Tensor};
use tcc_ir::text::parse::{ParseError, Source};
use tcc_ir::text::{parse, print};
use tcc_ir::ty::ValueType;
use tcc_ir::verify::{self, VerifyError};

use crate::random::{RandomWeights, Rng};

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The text to compare with the expectation.
    Text(String),
    /// An error, with its line where it has one.
    Refused { line: Option<usize>, message: String },
}

/// Why a case could not be judged at all.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    #[error("there is no directive '{0}'; known: parse, verify, pass NAME, pipeline")]
    Directive(String),
    #[error("the pass changed what '{graph}' computes")]
    Meaning { graph: String },
    #[error(transparent)]
    Pass(#[from] PassError),
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error(transparent)]
    Weight(#[from] tcc_ir::program::WeightError),
}

/// Does what `directive` says with `text`.
pub fn run(directive: &str, text: &str) -> Result<Outcome, CaseError> {
    let source = match parse::source(text) {
        Ok(source) => source,
        Err(error) => return Ok(refused(&error)),
    };
    match directive.split_once(' ').unwrap_or((directive, "")) {
        ("parse", "") => Ok(Outcome::Text(print(&source))),
        ("verify", "") => Ok(match verify(&source) {
            Ok(()) => Outcome::Text("verified\n".into()),
            Err(error) => Outcome::Refused { line: None, message: error.to_string() },
        }),
        ("pass", name) => apply(source, &[passes::find(name)?]),
        ("pipeline", "") => apply(source, &passes::PIPELINE.iter().collect::<Vec<_>>()),
        _ => Err(CaseError::Directive(directive.into())),
    }
}

fn refused(error: &ParseError) -> Outcome {
    let (ParseError::Unexpected { line, .. } | ParseError::Type { line, .. }) = error;
    Outcome::Refused { line: Some(*line), message: error.to_string() }
}

/// A program as a whole, a fragment's graphs alone.
fn print(source: &Source) -> String {
    if !source.is_fragment {
        return print::program(&source.program);
    }
    let graphs: Vec<_> = graphs(source).map(|g| print::graph(g, &source.program)).collect();
    graphs.join("\n")
}

fn graphs(source: &Source) -> impl Iterator<Item = &Graph> {
    source.program.graphs().filter(|g| !(source.is_fragment && g.is_empty()))
}

/// A fragment has no outputs that facts ask for.
fn verify(source: &Source) -> Result<(), VerifyError> {
    match source.is_fragment {
        true => graphs(source).try_for_each(|g| verify::graph(g, &source.program)),
        false => verify::program(&source.program),
    }
}

/// Runs passes, each judged by the verifier and by the interpreter on random data.
fn apply(mut source: Source, passes: &[&passes::Pass]) -> Result<Outcome, CaseError> {
    verify(&source)?;
    let before = source.program.clone();
    let weights = RandomWeights::new(&before);
    let mut cx = PassCx { store: &weights, folded: vec![] };
    for pass in passes {
        passes::apply(pass, &mut source.program, &mut cx)?;
        verify(&source)?;
    }
    let after = FoldedStore { base: Box::new(RandomWeights::new(&before)), base_len: weights.len(), folded: cx.folded };
    for (old, new) in before.graphs().zip(source.program.graphs()) {
        if meaning(old, &before, &weights)? != meaning(new, &source.program, &after)? {
            return Err(CaseError::Meaning { graph: old.name.clone() });
        }
    }
    Ok(Outcome::Text(print(&source)))
}

/// Bits of the graph's outputs, then of its states, after one run on random data.
fn meaning(graph: &Graph, program: &Program, weights: &dyn WeightStore) -> Result<Vec<Vec<u32>>, CaseError> {
    let mut rng = Rng::named(&graph.name);
    let mut states: Vec<_> = program.states.iter().map(|s| Rng::named(&s.name).tensor(&s.ty)).collect();
    let inputs = Inputs {
        // Vocabularies of cases hold token 0.
        tokens: Some(Tensor::u32(&[graph.m], vec![0; graph.m])),
        hidden: Some(rng.tensor(&ValueType::f32(&[graph.m, program.facts.hidden]))),
        pos: 1,
        valid: graph.m as u32,
    };
    let outputs = interp::run(graph, weights, &mut states, &inputs)?;
    Ok(outputs.iter().chain(&states).map(bits).collect())
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    match &tensor.data {
        Data::F32(x) => x.iter().map(|x| x.to_bits()).collect(),
        Data::F16(x) | Data::Bf16(x) => x.iter().map(|x| u32::from(*x)).collect(),
        // Sign extension keeps different codes different.
        Data::I8(x) | Data::Trit(x) => x.iter().map(|x| i32::from(*x) as u32).collect(),
        Data::Q8(codes, scales) => {
            let codes = codes.iter().map(|x| i32::from(*x) as u32);
            codes.chain(scales.iter().map(|x| x.to_bits())).collect()
        }
        Data::I32(x) => x.iter().map(|x| *x as u32).collect(),
        Data::U32(x) => x.to_vec(),
    }
}
