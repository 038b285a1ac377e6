//! Each way a graph can be wrong, and the error the verifier gives.

use tcc_ir::graph::{NodeId, ValueId};
use tcc_ir::ops::{InputKind, Op, TypeError};
use tcc_ir::program::{Program, WeightId};
use tcc_ir::text::parse;
use tcc_ir::ty::ValueType;
use tcc_ir::verify::{self, VerifyError};

const PROGRAM: &str = r#"
facts { vocab = 6, hidden = 4, layers = 1, ctx = 8, kv = f32, eos = [] }
weight "table": f32[6, 4]
state "k": f32[1, 8, 4]
graph decode {
  %pos: u32[1] = input "pos"
  %valid: u32[1] = input "valid"
  %ids: u32[1] = input "tokens"
  %table: f32[6, 4] = weight "table" @"table"
  %x: f32[1, 4] = embed %ids, %table @"x"
  %k0: f32[1, 8, 4] = state "k" @"k"
  %k1: f32[1, 8, 4] = kv_write %k0, %x, %pos, %valid @"write"
  %a: f32[1, 4] = attention %x, %k1, %k1, %pos { heads = 1, scale = 0.5 } @"attn"
  %b: f32[1, 4] = add %x, %a @"add"
  return %b
}
head head {
  %h: f32[1, 4] = input "hidden"
  %w: f32[6, 4] = weight "table"
  %l: f32[1, 6] = dense_linear %h, %w
  return %l
}
"#;

fn good() -> Program {
    parse::program(PROGRAM).expect("the text is well formed")
}

/// The first result of the first body's node labelled `label`.
fn value(program: &Program, label: &str) -> ValueId {
    let graph = &program.bodies[0];
    let node = graph.order().into_iter().find(|id| graph.node(*id).label == label).expect("labelled in PROGRAM");
    ValueId { node, result: 0 }
}

fn find(program: &Program, label: &str) -> NodeId {
    value(program, label).node
}

/// Breaks the good program and returns what the verifier says.
fn broken(edit: impl FnOnce(&mut Program)) -> VerifyError {
    let mut program = good();
    edit(&mut program);
    verify::program(&program).expect_err("the program was broken")
}

#[test]
fn a_good_program_verifies() {
    assert_eq!(verify::program(&good()), Ok(()));
}

#[test]
fn operands_that_do_not_fit() {
    let error = broken(|p| {
        let (add, table) = (find(p, "add"), value(p, "table"));
        p.bodies[0].set_operand(add, 1, table);
    });
    let source = TypeError { op: "add", what: "operand 1 is f32[6, 4], expected f32[1, 4]".into() };
    assert_eq!(error, VerifyError::Type { graph: "decode".into(), label: "add".into(), source });
}

#[test]
fn result_types_that_the_operands_do_not_give() {
    let error = broken(|p| {
        let add = find(p, "add");
        p.bodies[0].node_mut(add).types[0] = ValueType::f32(&[1, 5]);
    });
    assert_eq!(error, VerifyError::ResultTypes { graph: "decode".into(), label: "add".into() });
}

#[test]
fn leaves_that_are_not_as_declared() {
    let declaration = |label: &str, found: &ValueType, expected: &str| VerifyError::Declaration {
        graph: "decode".into(),
        label: label.into(),
        found: found.clone(),
        expected: expected.into(),
    };
    let ty = ValueType::f32(&[6, 4]);
    assert_eq!(broken(|p| p.weights[0].ty = ValueType::f32(&[7, 4])), declaration("table", &ty, "f32[7, 4]"));
    let error = broken(|p| {
        let table = find(p, "table");
        p.bodies[0].node_mut(table).op = Op::Weight(WeightId(9));
    });
    assert_eq!(error, declaration("table", &ty, "nothing"));
    assert_eq!(broken(|p| p.states.clear()), declaration("k", &ValueType::f32(&[1, 8, 4]), "nothing"));
    let error = broken(|p| {
        let table = find(p, "table");
        p.bodies[0].node_mut(table).op = Op::Input(InputKind::Hidden);
    });
    assert_eq!(error, declaration("table", &ty, "f32[1, 4]"));
    assert!(matches!(broken(|p| p.bodies[0].m = 2), VerifyError::Declaration { expected, .. } if expected == "u32[2]"));
}

#[test]
fn a_cycle() {
    let error = broken(|p| {
        let (write, add) = (find(p, "write"), value(p, "add"));
        p.bodies[0].set_operand(write, 1, add);
    });
    assert_eq!(error, VerifyError::Cycle { graph: "decode".into(), label: "write".into() });
}

#[test]
fn a_state_that_is_not_written_once_and_read_by_its_writer_alone() {
    let state = |writers, readers| VerifyError::State { graph: "decode".into(), label: "k".into(), writers, readers };
    let read_twice = broken(|p| {
        let (attn, k) = (find(p, "attn"), value(p, "k"));
        p.bodies[0].set_operand(attn, 2, k);
    });
    assert_eq!(read_twice, state(1, 1));
    let never_written = broken(|p| {
        let [x, write, attn] = ["x", "write", "attn"].map(|label| value(p, label));
        let graph = &mut p.bodies[0];
        graph.replace(attn, x);
        graph.remove(attn.node);
        graph.remove(write.node);
    });
    assert_eq!(never_written, state(0, 0));
    let written_twice = broken(|p| {
        let write = find(p, "write");
        let graph = &mut p.bodies[0];
        graph.push(Op::KvWrite, &graph.operands(write), "again").expect("same types");
    });
    assert_eq!(written_twice, state(2, 0));
}

#[test]
fn outputs_that_the_facts_do_not_ask_for() {
    let output = |graph: &str, found: &str, expected: &str| VerifyError::Output {
        graph: graph.into(),
        found: found.into(),
        expected: expected.into(),
    };
    assert_eq!(broken(|p| p.bodies[0].outputs.clear()), output("decode", "", "f32[1, 4]"));
    assert_eq!(broken(|p| p.bodies[0].outputs[0] = value(p, "table")), output("decode", "f32[6, 4]", "f32[1, 4]"));
    assert_eq!(broken(|p| p.facts.vocab = 7), output("head", "f32[1, 6]", "f32[1, 7]"));
    let error = verify::program(&parse::program(&PROGRAM.replace("return %b", "return %b, %x")).expect("well formed"));
    assert_eq!(error, Err(output("decode", "f32[1, 4], f32[1, 4]", "f32[1, 4]")));
}
