//! Programs of products of the same activations on a split machine, and their operands.

use tcc_backends::isa::matrix::lower::split::choice::Choice;
use tcc_backends::isa::matrix::lower::split::search::Shape;
use tcc_backends::isa::matrix::lower::split::{self, Product, Up};
use tcc_backends::isa::matrix::lower::vector::ternary::PANEL;
use tcc_backends::isa::matrix::machine::Machine;
use tcc_backends::isa::matrix::program::builder::ProgramBuilder;
use tcc_backends::isa::matrix::program::{Program, SymbolKind};
use tcc_ir::encoding::Encoding;
use tcc_ir::kernel::ScaleKind;
use tcc_ir::ops::{Act, Op};
use tcc_ir::tensor::Tensor;
use tcc_ir::ty::{DType, ValueType};

use crate::random::Rng;

/// Codes in strips of 32 columns; padding columns are zero codes.
pub fn strips(q: &[i8], shape: &Shape) -> Vec<u8> {
    let (rows, k) = (shape.m.next_multiple_of(16), shape.k.next_multiple_of(128));
    let mut out = vec![0u8; k * rows];
    for (i, a) in q.iter().enumerate() {
        let (token, c) = (i / shape.k, i % shape.k);
        out[(c / 32 * rows + token) * 32 + c % 32] = a.cast_unsigned();
    }
    out
}

/// The bytes of a tensor.
pub fn f32_bytes(x: &Tensor) -> Vec<u8> {
    x.as_f32().iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Products of `m` token rows and `k` columns that are worked on together: their program, and what lies at its symbols;
/// `outs` are what the ops' definition gives.
pub struct Together {
    pub program: Program,
    pub data: Vec<(String, Vec<u8>)>,
    pub outs: Vec<Vec<u8>>,
}

/// The products with random operands; `None` if they do not fit.
pub fn together(machine: &Machine, of: (usize, usize), parts: &[Shape], choice: Choice) -> Option<Together> {
    program(machine, of, parts, choice, false)
}

/// A product that gates another of `shape`, with random operands; `None` if it does not fit.
pub fn gated(machine: &Machine, shape: Shape, choice: Choice) -> Option<Together> {
    program(machine, (shape.m, shape.k), &[shape; 2], choice, true)
}

fn program(
    machine: &Machine,
    (m, k): (usize, usize),
    parts: &[Shape],
    choice: Choice,
    is_gate: bool,
) -> Option<Together> {
    let mut builder = ProgramBuilder::new("products", machine);
    let mut rng = Rng::named(&format!("{} {parts:?}", machine.name));
    let mut tensor = |dtype, shape: &[usize]| rng.tensor(&ValueType::new(dtype, shape));
    let (mut data, mut outs) = (vec![], vec![]);
    let mut input = |builder: &mut ProgramBuilder, name: String, bytes: Vec<u8>| {
        let kind = if name.starts_with('w') { SymbolKind::Weights } else { SymbolKind::Input };
        let symbol = builder.symbol(&name, kind, bytes.len() as u64, "bytes");
        data.push((name, bytes));
        (symbol, 0)
    };
    let (codes, act_scale) = (tensor(DType::I8, &[m, k]), tensor(DType::F32, &[m]));
    let q = input(&mut builder, "q".into(), strips(codes.as_i8(), &parts[0]));
    let act = input(&mut builder, "act_scale".into(), f32_bytes(&act_scale));
    let rows: usize = parts.iter().map(|part| part.n.next_multiple_of(PANEL.nr)).sum();
    let mut scratch = |name, bytes: usize| (builder.symbol(name, SymbolKind::Scratch, bytes as u64, "bytes"), 0);
    let expanded = scratch("expanded", split::scratch_bytes(machine, rows, k));
    let sums = scratch("sums", split::sums_bytes(m, rows));
    let mut products = vec![];
    for (i, Shape { n, scale, bias, residual, .. }) in parts.iter().copied().enumerate() {
        let (w, b, r) = (tensor(DType::Trit, &[n, k]), tensor(DType::F32, &[n]), tensor(DType::F32, &[m, n]));
        let scales = tensor(DType::F32, &[if scale == ScaleKind::PerTensor { 1 } else { n }]);
        let mut operands = vec![&codes, &act_scale, &w, &scales];
        operands.extend(bias.then_some(&b));
        operands.extend(residual.then_some(&r));
        outs.extend(Op::TernaryLinear { bias, residual }.eval(&operands));
        let packed = Encoding::W2Nz(PANEL).pack(w.as_i8(), n, k);
        let mut operand = |name: &str, bytes| input(&mut builder, format!("{name}{i}"), bytes);
        let (w, scales) = (operand("w", packed), operand("scale", f32_bytes(&scales)));
        let bias = bias.then(|| operand("bias", f32_bytes(&b)));
        let residual = residual.then(|| operand("residual", f32_bytes(&r)));
        let out = (builder.symbol(&format!("out{i}"), SymbolKind::Output, 4 * (m * n) as u64, "f32"), 0);
        products.push(Product { m, n, k, scale, q, act, w, scales, bias, residual, up: None, out, expanded, sums });
    }
    if let (true, [gate, up]) = (is_gate, &products[..]) {
        products = vec![Product { up: Some(Up { w: up.w, scales: up.scales }), ..*gate }];
        outs = Op::Glu { act: Act::Relu2 }.eval(&[&outs[0], &outs[1]]);
    }
    let outs = outs.iter().map(f32_bytes).collect();
    let op = builder.op("products");
    let streams = match choice {
        Choice::Blocks(tile) => split::streams(machine, &products, tile, op),
        Choice::Streamed(tile) => split::stream::streams(machine, &products, tile, op),
        Choice::Vector => return None,
    };
    builder.stage("products", streams.ok()??.into());
    Some(Together { program: builder.finish().ok()?, data, outs })
}
