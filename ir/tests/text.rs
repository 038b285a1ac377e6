//! The text form: `parse ∘ print` over random graphs, refusals with their positions, and bounds.

use proptest::prelude::*;
use tcc_ir::coded::RowCode;
use tcc_ir::graph::{Graph, ValueId};
use tcc_ir::ops::attr::OPS;
use tcc_ir::ops::{Act, InputKind, Op};
use tcc_ir::program::{ModelFacts, Program, StateDecl, StateId, WeightDecl, WeightId};
use tcc_ir::text::{parse, print};
use tcc_ir::ty::{DType, ValueType};

/// One random op: which, on which earlier rows, and its attributes.
#[derive(Clone, Debug)]
struct Choice {
    op: usize,
    rows: [usize; 2],
    n: usize,
    bits: u32,
    flags: [bool; 2],
    label: String,
}

fn choice() -> impl Strategy<Value = Choice> {
    (0..12usize, any::<[usize; 2]>(), 1..5usize, any::<u32>(), any::<[bool; 2]>(), "\\PC{0,6}|[\\x00-\\x1f\"\\\\]{0,3}")
        .prop_map(|(op, rows, n, bits, flags, label)| Choice { op, rows, n, bits, flags, label })
}

/// A program under construction.
struct Builder {
    program: Program,
    graph: Graph,
    /// Values of type `f32[m, _]`.
    rows: Vec<ValueId>,
    pos: ValueId,
    valid: ValueId,
}

impl Builder {
    fn new(m: usize) -> Self {
        let mut graph = Graph::new(format!("body {m}"), m);
        let scalar = || ValueType::new(DType::U32, &[1]);
        let pos = graph.leaf(Op::Input(InputKind::Pos), scalar(), "pos");
        let valid = graph.leaf(Op::Input(InputKind::Valid), scalar(), "");
        let x = graph.leaf(Op::Input(InputKind::Hidden), ValueType::f32(&[m, 8]), "x");
        let facts =
            ModelFacts { vocab: 9, hidden: 8, layers: 1, ctx: 4, kv: DType::F16, bos: Some(1), eos: vec![2, 3] };
        let head = Graph::new("head", 1);
        let program = Program { facts, weights: vec![], states: vec![], bodies: vec![], head };
        Builder { program, graph, rows: vec![x], pos, valid }
    }

    fn weight(&mut self, dtype: DType, shape: &[usize]) -> ValueId {
        let id = WeightId(self.program.weights.len() as u32);
        let ty = ValueType::new(dtype, shape);
        self.program.weights.push(WeightDecl { name: format!("w\"{}\n", id.0), ty: ty.clone() });
        self.graph.leaf(Op::Weight(id), ty, "")
    }

    fn width(&self, rows: ValueId) -> usize {
        self.graph.ty(rows).shape[1]
    }

    fn push(&mut self, choice: &Choice) {
        let m = self.graph.m;
        let [x, y] = choice.rows.map(|i| self.rows[i % self.rows.len()]);
        let (k, n, f) = (self.width(x), choice.n, f32::from_bits(choice.bits));
        let y = if self.width(y) == k { y } else { x };
        let [bias, residual] = choice.flags;
        let act = if bias { Act::Relu2 } else { Act::Silu };
        let (op, operands) = match choice.op {
            0 => (Op::Add, vec![x, y]),
            1 => (Op::RmsNorm { eps: f }, vec![x, self.weight(DType::F32, &[k])]),
            2 => (Op::QuantizeAct, vec![x]),
            3 => (Op::NormQuant { eps: f }, vec![x, self.weight(DType::F32, &[k])]),
            4 => (Op::Glu { act }, vec![x, y]),
            5 => (Op::GluQuant { act }, vec![x, y]),
            6 => (Op::GluNormQuant { act, eps: f }, vec![x, y, self.weight(DType::F32, &[k])]),
            7 => {
                let mut operands = vec![x, self.weight(DType::Bf16, &[n, k])];
                self.tail(&mut operands, m, n, choice.flags);
                (Op::DenseLinear { scale: f, bias, residual }, operands)
            }
            8 => {
                let mut operands = vec![x, self.weight(DType::Trit, &[n, k]), self.weight(DType::F32, &[n, k])];
                self.tail(&mut operands, m, n, choice.flags);
                (Op::FloatTernaryLinear { bias, residual }, operands)
            }
            9 => {
                let q = self.graph.add(Op::QuantizeAct, &[x], "q").expect("rows");
                let [q, s] = [0, 1].map(|result| ValueId { node: q, result });
                let mut operands = vec![q, s, self.weight(DType::Trit, &[n, k]), self.weight(DType::F32, &[1])];
                self.tail(&mut operands, m, n, choice.flags);
                (Op::TernaryLinear { bias, residual }, operands)
            }
            10 => {
                let code = RowCode::ALL[usize::from(bias)];
                (Op::CodedLinear { code }, vec![x, self.weight(DType::F16, &[n, k])])
            }
            _ => {
                let id = StateId(self.program.states.len() as u32);
                let ty = ValueType::new(DType::F16, &[1, 4, k]);
                self.program.states.push(StateDecl { name: format!("kv{}", id.0), ty: ty.clone() });
                let cache = self.graph.leaf(Op::State(id), ty, "");
                let (pos, valid) = (self.pos, self.valid);
                let kv = self.graph.push(Op::KvWrite, &[cache, y, pos, valid], "").expect("cache");
                (Op::Attention { heads: 1, scale: f }, vec![x, kv, kv, pos])
            }
        };
        let node = self.graph.add(op, &operands, choice.label.clone()).expect("operands are built to fit");
        let value = ValueId { node, result: 0 };
        if self.graph.ty(value).dtype == DType::F32 {
            self.rows.push(value);
        }
    }

    /// Optional operands of a product.
    fn tail(&mut self, operands: &mut Vec<ValueId>, m: usize, n: usize, [bias, residual]: [bool; 2]) {
        if bias {
            operands.push(self.weight(DType::F32, &[n]));
        }
        if residual {
            operands.push(self.weight(DType::F32, &[m, n]));
        }
    }

    fn finish(mut self) -> Program {
        self.graph.outputs = self.rows.iter().rev().take(2).copied().collect();
        self.program.head = self.graph.clone();
        self.program.bodies.push(self.graph);
        self.program
    }
}

fn random_program() -> impl Strategy<Value = Program> {
    (1..4usize, prop::collection::vec(choice(), 0..12)).prop_map(|(m, choices)| {
        let mut builder = Builder::new(m);
        choices.iter().for_each(|c| builder.push(c));
        builder.finish()
    })
}

/// Everything a graph says, nodes by their place in the order; attributes by their bits.
fn content(graph: &Graph) -> Vec<String> {
    let order = graph.order();
    let place = |v: &ValueId| (order.iter().position(|n| *n == v.node), v.result);
    let node = |id: &tcc_ir::graph::NodeId| {
        let mut node = graph.node(*id).clone();
        let bits: Vec<_> = node.op.attrs().iter().map(|a| format!("{:?}", bits(&a.slot))).collect();
        let operands: Vec<_> = graph.operands(*id).iter().map(place).collect();
        let leaf = if node.op.is_leaf() { format!("{:?}", node.op) } else { node.op.name().into() };
        format!("{leaf} {bits:?} {:?} {:?} {operands:?}", node.types, node.label)
    };
    let mut content: Vec<_> = order.iter().map(node).collect();
    content.push(format!("{} {} {:?}", graph.name, graph.m, graph.outputs.iter().map(place).collect::<Vec<_>>()));
    content
}

fn bits(slot: &tcc_ir::ops::attr::Slot) -> u64 {
    use tcc_ir::ops::attr::Slot;
    match slot {
        Slot::F32(x) => u64::from(x.to_bits()),
        Slot::Count(n) => **n as u64,
        Slot::Act(act) => u64::from(**act == Act::Silu),
        Slot::Code(code) => u64::from(**code == RowCode::Int4),
        Slot::Flag(flag) => u64::from(**flag),
    }
}

proptest! {
    #[test]
    fn parse_inverts_print(program in random_program()) {
        let text = print::program(&program);
        let back = parse::program(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        prop_assert_eq!(&back.facts, &program.facts);
        prop_assert_eq!(&back.weights, &program.weights);
        prop_assert_eq!(&back.states, &program.states);
        for (a, b) in back.graphs().zip(program.graphs()) {
            prop_assert_eq!(content(a), content(b));
        }
        prop_assert_eq!(print::program(&back), text);
    }

    /// Any edit of a good text is read or refused, never a panic.
    #[test]
    fn mangled_text_never_panics(program in random_program(), at in any::<prop::sample::Index>(), with in "\\PC{0,3}") {
        let text = print::program(&program);
        let cut = at.index(text.chars().count());
        let mangled: String = text.chars().take(cut).chain(with.chars()).chain(text.chars().skip(cut + 1)).collect();
        let _ = parse::source(&mangled);
    }
}

#[test]
fn ops_table_is_complete_and_names_differ() {
    for op in OPS {
        assert_eq!(Op::from_name(op.name()).map(|o| o.name()), Some(op.name()));
        assert_eq!(OPS.iter().filter(|o| o.name() == op.name()).count(), 1);
    }
}

/// Text and the error it must give, at its line and column.
#[test]
fn refusals_say_where_expected_and_found() {
    let cases = [
        ("grph g {}", "line 1, column 1: expected 'graph', 'head' or the end of the text, found 'grph'"),
        (
            "graph g {\n %x: f32[1, 0]",
            "line 2, column 13: expected a whole number of 1..=1099511627776, found number 0",
        ),
        ("graph g { %x: f99[1]", "line 1, column 15: expected an element type, found 'f99'"),
        ("graph g { %x: f32[1,1,1,1,1]", "line 1, column 27: expected at most 4 extents, found number 1"),
        ("graph g { %x: f32[1099511627776, 2]", "line 1, column 34: expected a whole number of 1..=1, found number 2"),
        ("graph g { %x: f32[1] = nop }", "line 1, column 24: expected an op, found 'nop'"),
        ("graph g { return %x }", "line 1, column 18: expected a value defined above, found %x"),
        (
            "graph g { %x: u32[1] = input \"pos\"\n%x: u32[1] = input \"pos\" }",
            "line 2, column 1: expected a new value, found %x, defined above",
        ),
        (
            "graph g { %x: u32[1] = input \"rain\" }",
            "line 1, column 30: expected \"tokens\", \"pos\", \"valid\" or \"hidden\", found \"rain\"",
        ),
        (
            "graph g { %x: f32[1, 4] = input \"hidden\"\n%q: i8[1, 4] = quantize_act %x }",
            "line 2, column 16: expected 2 results, found 1",
        ),
        (
            "graph g { %x: f32[1, 4] = input \"hidden\"\n%y: f32[1, 5] = add %x, %x }",
            "line 2, column 1: expected %y: f32[1, 4], found f32[1, 5]",
        ),
        (
            "graph g { %x: f32[1, 4] = input \"hidden\"\n%y: f32[1, 4] = rms_norm %x, %x { eps = 1 } }",
            "line 2, column 17: rms_norm: operand 1 is f32[1, 4], expected a vector of f32",
        ),
        (
            "graph g { %x: f32[1, 4] = input \"hidden\"\n%y: f32[1, 4] = glu %x, %x }",
            "line 2, column 17: expected attribute 'act', found none",
        ),
        (
            "graph g { %x: f32[1, 4] = input \"hidden\"\n%y: f32[1, 4] = glu %x, %x { act = 1, act = 1 } }",
            "line 2, column 36: expected 'relu2' or 'silu', found number 1",
        ),
        (
            "graph g { %x: f32[1, 4] = input \"hidden\"\n%y: f32[1, 4] = rms_norm %x, %x { eps = 1e99 } }",
            "line 2, column 41: expected a finite number, or 0x and the bits of an f32, found number 1e99",
        ),
        ("graph \"g", "line 1, column 7: expected a name, found a string that does not end on its line"),
        ("graph g m = 0", "line 1, column 13: expected a whole number of 1..=1048576, found number 0"),
        (
            "weight \"a\": f32[1]\nweight \"a\": f32[1]",
            "line 2, column 8: expected a new name, found \"a\", declared above",
        ),
        ("facts { vocab = 1, ctx", "line 1, column 20: expected 'hidden', found 'ctx'"),
    ];
    for (text, want) in cases {
        assert_eq!(parse::source(text).map(|_| ()).map_err(|e| e.to_string()), Err(want.to_string()), "{text}");
    }
}

#[test]
fn a_program_needs_facts_declarations_and_a_head() {
    let facts = "facts { vocab = 1, hidden = 1, layers = 1, ctx = 1, kv = f32, eos = [] }";
    let error = |text: &str| parse::program(text).expect_err("incomplete").to_string();
    assert_eq!(error("graph g {}"), "line 1, column 1: expected 'facts', found a text without");
    assert_eq!(error(facts), "line 1, column 73: expected 'graph' or 'head', found the end of the text");
    let undeclared = format!("{facts} head h {{ %w: f32[1] = weight \"w\" }}");
    assert_eq!(error(&undeclared), "line 1, column 103: expected a declared name, found \"w\"");
}
