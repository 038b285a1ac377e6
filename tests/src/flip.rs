//! Shows that an int8 code on a rounding tie explains a difference in logits.
//!
//! Two correct implementations sum in different orders, so a value that lies within a few ulp of a tie may round
//! either way, and everything after it moves. The explanation is checked, not assumed: with the code turned over,
//! the logits must agree as closely as without any tie.

use std::collections::{BTreeMap, BTreeSet};

use tcc_ir::graph::{Graph, NodeId, ValueId};
use tcc_ir::numerics::{ABSMAX_FLOOR, absmax, max, rne};
use tcc_ir::ops::{InputKind, Op};
use tcc_ir::program::{Program, WeightStore};
use tcc_ir::tensor::{Data, Tensor};

use crate::oracle::difference;

/// Distance from a tie, in codes, within which rounding errors of sums can turn a code over.
const NEAR_TIE: f32 = 1e-3;

/// Codes that are tried, nearest to a tie first.
const TRIED: usize = 64;

/// Activation codes that round alike in every implementation: those of equal elements in one row of a quantized
/// value, whichever quantizers read it. (Query heads that share a KV head attend to one position alike.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Codes {
    value: ValueId,
    row: usize,
    /// The elements, as f32 bits.
    bits: u32,
}

/// A prompt whose logits are to be explained.
pub struct Case<'c> {
    pub program: &'c Program,
    pub weights: &'c dyn WeightStore,
    pub ids: &'c [u32],
    pub expected: &'c [f32],
}

/// Turns codes near ties over, one after the other, until the logits agree within `close` standard deviations of
/// `std`. Returns a description of the turned codes, or `None` if no such codes explain the difference.
pub fn explain(case: &Case, close: f64) -> Option<Vec<String>> {
    let mut flipped = BTreeSet::new();
    let mut found = Vec::new();
    let (logits, near) = evaluate(case, &flipped);
    let mut error = difference(&logits, case.expected).largest;
    for (distance, codes, label) in near.into_iter().take(TRIED) {
        if error <= close {
            break;
        }
        flipped.insert(codes);
        let tried = difference(&evaluate(case, &flipped).0, case.expected).largest;
        if tried < error / 2.0 {
            error = tried;
            found.push(format!("{label} row {} has a code {distance:.1e} from a tie", codes.row));
        } else {
            flipped.remove(&codes);
        }
    }
    (error <= close).then_some(found)
}

/// The logits with the codes `flipped` turned over, and all codes near a tie, nearest first.
fn evaluate(case: &Case, flipped: &BTreeSet<Codes>) -> (Vec<f32>, Vec<(f32, Codes, String)>) {
    let body = case.program.bodies.iter().find(|g| g.m >= case.ids.len()).expect("the prompt fits one graph");
    let mut run = Run { case, flipped, near: Vec::new() };
    let mut rows = case.ids.to_vec();
    rows.resize(body.m, 0);
    let hidden = run.graph(body, &Tensor::u32(&[body.m], rows));
    let width = case.program.facts.hidden;
    let hidden = hidden.as_f32().chunks_exact(width).take(case.ids.len()).map(<[f32]>::to_vec).collect::<Vec<_>>();
    let head = |row: Vec<f32>| run.graph(&case.program.head, &Tensor::f32(&[1, width], row)).as_f32().to_vec();
    let logits = hidden.into_iter().flat_map(head).collect();
    run.near.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    run.near.dedup_by_key(|near| near.1);
    (logits, run.near)
}

struct Run<'r> {
    case: &'r Case<'r>,
    flipped: &'r BTreeSet<Codes>,
    near: Vec<(f32, Codes, String)>,
}

impl<'r> Run<'r> {
    /// Evaluates `graph` from position 0; `input` is its tokens or its hidden row.
    fn graph(&mut self, graph: &Graph, input: &Tensor<'r>) -> Tensor<'r> {
        let mut values: BTreeMap<NodeId, Vec<Tensor<'r>>> = BTreeMap::new();
        for id in graph.order() {
            let node = graph.node(id);
            let operands = graph.operands(id);
            let read: Vec<&Tensor> = operands.iter().map(|v| &values[&v.node][v.result]).collect();
            let results = match node.op {
                Op::Input(InputKind::Tokens | InputKind::Hidden) => vec![input.clone()],
                Op::Input(InputKind::Pos) => vec![Tensor::u32(&[1], vec![0])],
                Op::Input(InputKind::Valid) => {
                    vec![Tensor::u32(&[1], vec![u32::try_from(self.case.ids.len()).expect("a short prompt")])]
                }
                Op::Weight(weight) => vec![self.case.weights.tensor(weight).expect("the model is readable")],
                Op::State(state) => vec![Tensor::zeros(&self.case.program.state(state).ty)],
                Op::QuantizeAct => self.quantize(operands[0], &node.label, read[0]),
                op => op.eval(&read),
            };
            values.insert(id, results);
        }
        values[&graph.outputs[0].node][graph.outputs[0].result].clone()
    }

    /// The quantizer, with its flipped codes turned over.
    fn quantize(&mut self, value: ValueId, label: &str, x: &Tensor<'r>) -> Vec<Tensor<'r>> {
        let mut results = Op::QuantizeAct.eval(&[x]);
        let k = x.shape[1];
        let mut codes = results[0].as_i8().to_vec();
        for (row, values) in x.as_f32().chunks_exact(k).take(self.case.ids.len()).enumerate() {
            let inv_scale = 127.0 / max(absmax(values), ABSMAX_FLOOR);
            for (v, code) in values.iter().zip(&mut codes[row * k..]) {
                let (exact, alike) = (v * inv_scale, Codes { value, row, bits: v.to_bits() });
                let distance = 0.5 - (exact - rne(exact)).abs();
                if self.flipped.contains(&alike) {
                    *code = code.saturating_add(if exact > rne(exact) { 1 } else { -1 });
                } else if distance < NEAR_TIE {
                    self.near.push((distance, alike, label.to_owned()));
                }
            }
        }
        results[0].data = Data::I8(codes.into());
        results
    }
}
