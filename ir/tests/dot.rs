//! The DOT export of a small graph, as a whole.

use tcc_ir::{dot, text::parse};

const GRAPH: &str = r#"
graph "say \"hi\"" {
  %x: f32[1, 8] = input "hidden"
  %g: f32[8] = weight "norm"
  %q: i8[1, 8], %s: f32[1] = norm_quant %x, %g { eps = 1e-5 } @"L00.attn\u{a}norm"
  return %s
}
"#;

const DOT: &str = r#"digraph "say \"hi\"" {
  node [fontname="monospace"];
  n0 [label="input hidden", shape=ellipse];
  n1 [label="weight norm", shape=ellipse, color=gray50, fontcolor=gray30];
  n2 [label="norm_quant\neps = 1e-5\nL00.attn norm", shape=box, style=filled, fillcolor=lightgoldenrod];
  n0 -> n2 [label="f32[1, 8]", headlabel="0"];
  n1 -> n2 [label="f32[8]", headlabel="1"];
  out0 [label="return 0", shape=plaintext];
  n2 -> out0 [label="f32[1]"];
}
"#;

#[test]
fn labels_are_escaped_and_edges_typed() {
    let source = parse::source(GRAPH).expect("well formed");
    assert_eq!(dot::graph(&source.program.bodies[0], &source.program), DOT);
}
