//! The pass pipeline: graph to graph, each pass preserving bits.
//!
//! **Invariant:** a pass never changes rounding; what does happens in the front end, once. The verifier runs after
//! every pass, and the property tests compare the interpreter before and after.

mod dead_code;
mod fold_constants;
mod fuse_epilogue;
mod fuse_glu;
mod fuse_norm_quant;
mod share;

use tcc_ir::graph::{Graph, NodeId, ValueId};
use tcc_ir::ops::TypeError;
use tcc_ir::program::{Program, WeightStore};
use tcc_ir::verify::{self, VerifyError};
use thiserror::Error;

pub use fold_constants::FoldedStore;

/// One pass of the pipeline.
pub struct Pass {
    pub name: &'static str,
    /// One sentence for `tcc explain`.
    pub about: &'static str,
    run: Run,
}

/// What a pass works on.
enum Run {
    Graph(fn(&mut Graph) -> Result<(), TypeError>),
    Program(fn(&mut Program, &mut PassCx) -> Result<(), PassError>),
}

/// What passes may read and add besides the program.
pub struct PassCx<'a> {
    pub store: &'a dyn WeightStore,
    /// Constants that folding made; they extend the program's weights in order.
    pub folded: Vec<tcc_ir::tensor::Tensor<'static>>,
}

/// Every pass, in order.
pub const PIPELINE: &[Pass] = &[
    Pass { name: "fold-constants", about: fold_constants::ABOUT, run: Run::Program(fold_constants::run) },
    Pass { name: "share", about: share::ABOUT, run: Run::Graph(share::run) },
    Pass { name: "fuse-norm-quant", about: fuse_norm_quant::ABOUT, run: Run::Graph(fuse_norm_quant::run) },
    Pass { name: "fuse-glu", about: fuse_glu::ABOUT, run: Run::Graph(fuse_glu::run) },
    Pass { name: "fuse-epilogue", about: fuse_epilogue::ABOUT, run: Run::Graph(fuse_epilogue::run) },
    Pass { name: "dead-code", about: dead_code::ABOUT, run: Run::Graph(dead_code::run) },
];

/// A pass failed; both variants are our bug or a weight that could not be read.
#[derive(Debug, Error)]
pub enum PassError {
    #[error("pass '{pass}' broke the program: {source}")]
    Broken { pass: &'static str, source: VerifyError },
    #[error(transparent)]
    Weight(#[from] tcc_ir::program::WeightError),
    #[error("pass '{pass}' built an ill-typed op: {source}")]
    Type { pass: &'static str, source: TypeError },
    #[error("there is no pass '{name}'; known passes: {known}")]
    Unknown { name: String, known: String },
}

/// Runs the pipeline up to and including `stop_after` (all of it if `None`), calling `observe` after each pass.
pub fn run(
    program: &mut Program,
    cx: &mut PassCx,
    stop_after: Option<&str>,
    mut observe: impl FnMut(&Pass, &Program),
) -> Result<(), PassError> {
    if let Some(name) = stop_after {
        find(name)?;
    }
    for pass in PIPELINE {
        run_one(pass, program, cx)?;
        observe(pass, program);
        if stop_after == Some(pass.name) {
            break;
        }
    }
    Ok(())
}

/// Runs one pass, without the verifier.
pub fn apply(pass: &Pass, program: &mut Program, cx: &mut PassCx) -> Result<(), PassError> {
    match pass.run {
        Run::Graph(run) => {
            program.graphs_mut().try_for_each(run).map_err(|source| PassError::Type { pass: pass.name, source })
        }
        Run::Program(run) => run(program, cx),
    }
}

/// Runs one pass and the verifier.
pub fn run_one(pass: &Pass, program: &mut Program, cx: &mut PassCx) -> Result<(), PassError> {
    apply(pass, program, cx)?;
    verify::program(program).map_err(|source| PassError::Broken { pass: pass.name, source })
}

/// The pass called `name`.
pub fn find(name: &str) -> Result<&'static Pass, PassError> {
    PIPELINE.iter().find(|p| p.name == name).ok_or_else(|| PassError::Unknown {
        name: name.to_owned(),
        known: PIPELINE.iter().map(|p| p.name).collect::<Vec<_>>().join(", "),
    })
}

/// The only reader of `value`, if there is exactly one and the graph does not return it.
fn sole_reader(graph: &Graph, value: ValueId) -> Option<(NodeId, usize)> {
    match graph.readers(value)[..] {
        [reader] if !graph.is_output(value) => Some(reader),
        _ => None,
    }
}

fn first(node: NodeId) -> ValueId {
    ValueId { node, result: 0 }
}

/// Replaces all results of `old` by those of `new` and removes `old`.
fn supersede(graph: &mut Graph, old: NodeId, new: NodeId) {
    for result in 0..graph.node(old).types.len() {
        graph.replace(ValueId { node: old, result }, ValueId { node: new, result });
    }
    graph.remove(old);
}
