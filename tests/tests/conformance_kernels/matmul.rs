//! Cases of the three matrix products, with every combination of optional operands.

use tcc_backends::clif::ternary_portable::{PORTABLE, PORTABLE_ROWS};
use tcc_backends::isa::Backend;
use tcc_ir::encoding::{ENCODINGS, Encoding};
use tcc_ir::kernel::{GatedProduct, KernelSpec, QuantLayout, ScaleKind};
use tcc_ir::ops::{Act, Op};
use tcc_ir::schedule::{Level, MatmulSchedule};
use tcc_ir::target::{Features, MicroKernel};
use tcc_ir::tensor::Tensor;
use tcc_ir::ty::{DType, ValueType};
use tcc_tests::random::Rng;

use super::case::{Case, Operand, in_place, input, output, quantized};
use super::rows::{ROWS, WIDTHS, special};

/// What follows the product: bias, residual, and whether the result overwrites the residual.
#[derive(Clone, Copy)]
struct End {
    bias: bool,
    residual: bool,
    is_in_place: bool,
}

const ENDS: [End; 5] = [
    End { bias: false, residual: false, is_in_place: false },
    End { bias: true, residual: false, is_in_place: false },
    End { bias: false, residual: true, is_in_place: false },
    End { bias: true, residual: true, is_in_place: false },
    End { bias: false, residual: true, is_in_place: true },
];

/// Products that portable code refuses, with a word of the reason.
pub fn refused() -> Vec<(KernelSpec, &'static str)> {
    let layout = |sum_group| QuantLayout { k: 96, sum_group };
    let ternary = |group, sum_group| {
        let levels = vec![Level { memory: "l1", rows: 32 }];
        let schedule = MatmulSchedule { micro: vec![&PORTABLE], levels };
        let (scale, layout) = (ScaleKind::PerGroup { group }, layout(sum_group));
        KernelSpec::TernaryMatmul { m: 1, n: 8, layout, scale, bias: false, residual: false, schedule }
    };
    let float = |encoding, group| KernelSpec::FloatTernaryMatmul {
        m: 1,
        n: 8,
        k: 96,
        encoding,
        scale: ScaleKind::PerGroup { group },
        bias: false,
        residual: false,
        task_rows: 64,
    };
    vec![
        (ternary(24, 24), "multiple of 16"),
        (ternary(32, 96), "sums' 96"),
        (float(Encoding::I2 { nr: 8 }, 24), "multiple of 16"),
        (float(Encoding::I2Lane { nr: 64 }, 32), "expected 'i2'"),
        (float(Encoding::Base3 { nr: 16 }, 32), "expected 'i2'"),
    ]
}

/// A case of a product whose operands so far are `tensors` for the op and `operands` for the kernel.
fn finish(
    op: Op,
    spec: KernelSpec,
    [m, n, valid]: [usize; 3],
    end: End,
    (tensors, mut operands): (Vec<&Tensor<'static>>, Vec<Operand>),
    rng: &mut Rng,
) -> Case {
    let (bias, residual) = (rng.tensor(&ValueType::f32(&[n])), rng.tensor(&ValueType::f32(&[m, n])));
    let mut tensors = tensors;
    if end.bias {
        tensors.push(&bias);
        operands.push(input(&bias));
    }
    if end.residual {
        tensors.push(&residual);
    }
    let result = op.eval(&tensors).remove(0);
    if end.is_in_place {
        operands.push(in_place(&residual, &result, valid));
        operands.push(Operand::Same(operands.len() - 1));
    } else {
        if end.residual {
            operands.push(input(&residual));
        }
        operands.push(output(&result, valid));
    }
    Case::new(spec, valid, operands)
}

/// Token rows and how many of them are valid: one, groups of eight, four, two and one, and what is left behind them.
const DENSE_ROWS: [(usize, usize); 5] = [(1, 1), (8, 8), (8, 3), (17, 17), (8, 6)];

pub fn dense() -> Vec<Case> {
    let mut rng = Rng::named("dense");
    let mut cases = Vec::new();
    for weight in [DType::F32, DType::F16, DType::Bf16] {
        for (i, k) in WIDTHS.into_iter().enumerate() {
            for (j, n) in [1, 2, 7, 33].into_iter().enumerate() {
                let (m, valid) = DENSE_ROWS[(i + j) % DENSE_ROWS.len()];
                let end = ENDS[(i + 2 * j) % ENDS.len()];
                let (scale, task_rows) = ([1.0, 0.375][j % 2], [16, 5][i % 2]);
                let x = special(m, k, &mut rng);
                let w = rng.tensor(&ValueType::new(weight, &[n, k]));
                let End { bias, residual, .. } = end;
                let op = Op::DenseLinear { scale, bias, residual };
                let spec = KernelSpec::DenseMatmul { m, n, k, weight, scale, bias, residual, task_rows };
                let operands = vec![input(&x), input(&w)];
                cases.push(finish(op, spec, [m, n, valid], end, (vec![&x, &w], operands), &mut rng));
            }
        }
    }
    cases
}

fn scale_shape(scale: ScaleKind, n: usize, k: usize) -> Vec<usize> {
    match scale {
        ScaleKind::PerTensor => vec![1],
        ScaleKind::PerRow => vec![n],
        ScaleKind::PerGroup { group } => vec![n, k / group],
    }
}

pub fn float_ternary() -> Vec<Case> {
    let mut rng = Rng::named("float_ternary");
    let mut cases = Vec::new();
    let lanes = |e: &&Encoding| matches!(e, Encoding::I2 { .. });
    for encoding in ENCODINGS.iter().copied().filter(|e| lanes(&e)) {
        let whole = WIDTHS.into_iter().flat_map(|k| [(k, ScaleKind::PerTensor), (k, ScaleKind::PerRow)]);
        let grouped = [16, 32, 64, 128, 256].map(|group| (512, ScaleKind::PerGroup { group }));
        // One group over a whole row rounds unlike a scale per row, and may be ragged.
        let single = [(100, ScaleKind::PerGroup { group: 100 })];
        for (i, (k, scale)) in whole.chain(grouped).chain(single).enumerate() {
            let (m, valid) = ROWS[i % ROWS.len()];
            let n = [1, 21, 40][i / 2 % 3];
            let end = ENDS[i % ENDS.len()];
            let x = special(m, k, &mut rng);
            let w = rng.tensor(&ValueType::new(DType::Trit, &[n, k]));
            let s = rng.tensor(&ValueType::f32(&scale_shape(scale, n, k)));
            let End { bias, residual, .. } = end;
            let op = Op::FloatTernaryLinear { bias, residual };
            let task_rows = 2 * encoding.nr();
            let spec = KernelSpec::FloatTernaryMatmul { m, n, k, encoding, scale, bias, residual, task_rows };
            let operands = vec![input(&x), Operand::Input(encoding.pack(w.as_i8(), n, k)), input(&s)];
            cases.push(finish(op, spec, [m, n, valid], end, (vec![&x, &w, &s], operands), &mut rng));
        }
    }
    cases
}

/// Schedules of the rows the machine can run: each row that takes one token row, alone and
/// behind the taller ones of its encoding.
fn schedules(backend: &dyn Backend, features: Features, vlen: u32) -> Vec<Vec<&'static MicroKernel>> {
    let usable = |row: &&MicroKernel| features.contains(row.needs) && (row.vlen == 0 || row.vlen == vlen);
    let rows: Vec<_> = backend.desc().menu.iter().filter(usable).collect();
    for portable in PORTABLE_ROWS {
        assert!(rows.iter().any(|row| row.name == portable.name), "every menu holds '{portable}'");
    }
    let mut schedules: Vec<Vec<&'static MicroKernel>> = Vec::new();
    for single in rows.iter().filter(|row| row.mr == 1) {
        let mut micro: Vec<_> = rows.iter().copied().filter(|r| r.encoding == single.encoding && r.mr > 1).collect();
        micro.sort_by_key(|row| std::cmp::Reverse(row.mr));
        micro.dedup_by_key(|row| row.mr);
        if !micro.is_empty() {
            schedules.push(micro.iter().copied().chain([*single]).collect());
        }
        schedules.push(vec![single]);
    }
    schedules
}

pub fn ternary(backend: &dyn Backend, features: Features, vlen: u32) -> Vec<Case> {
    let mut rng = Rng::named("ternary");
    let mut cases = Vec::new();
    for micro in schedules(backend, features, vlen) {
        let whole = WIDTHS.into_iter().flat_map(|k| {
            let layout = QuantLayout { k, sum_group: k };
            [(layout, ScaleKind::PerTensor), (layout, ScaleKind::PerRow)]
        });
        // Sums finer than the scales, as when another reader of the activations has smaller groups.
        let unit = micro[0].encoding.kr().max(16);
        let grouped = [(1, 1), (2, 1), (4, 4), (8, 2), (16, 16)].map(|(group, sum_group)| {
            let layout = QuantLayout { k: 32 * unit, sum_group: sum_group * unit };
            (layout, ScaleKind::PerGroup { group: group * unit })
        });
        let encoding = micro[0].encoding;
        let grouped = grouped.into_iter().filter(|(layout, scale)| match scale {
            ScaleKind::PerGroup { group } => encoding.has_groups(*group, layout.k),
            ScaleKind::PerTensor | ScaleKind::PerRow => true,
        });
        let fine = [(QuantLayout { k: 256, sum_group: 64 }, ScaleKind::PerRow)];
        // One group over a whole row rounds unlike a scale per row, and may be ragged.
        let single = [(QuantLayout { k: 100, sum_group: 100 }, ScaleKind::PerGroup { group: 100 })];
        for (i, (layout, scale)) in whole.chain(grouped).chain(fine).chain(single).enumerate() {
            let [m, valid] = [[1, 1], [8, 8], [8, 5], [20, 19]][i % 4];
            let n = [1, 100, 64, 131][(i + i / 4) % 4];
            cases.push(ternary_case(&micro, [m, n, valid], layout, scale, ENDS[i % ENDS.len()], &mut rng));
        }
        for (first, _) in micro.iter().enumerate().filter(|(_, row)| row.finishes) {
            cases.extend(finished(&micro[first..], &mut rng));
        }
    }
    cases
}

/// Cases of a schedule whose tallest kernel writes outputs: one run of blocks and several, one panel and several, and
/// what it leaves to the epilogue (a bias, ragged panels, several sums of activations, token rows that are left).
fn finished(micro: &[&'static MicroKernel], rng: &mut Rng) -> Vec<Case> {
    let m = 2 * micro[0].mr + 9;
    let (tensor, row) = (ScaleKind::PerTensor, ScaleKind::PerRow);
    let shapes = [(16, 100, tensor), (16, 1300, row), (80, 2560, tensor), (80, 660, row), (72, 1300, row)];
    let shapes = shapes.into_iter().flat_map(|shape| ENDS.map(|end| (shape, end)));
    let whole = shapes.map(|((n, k, scale), end)| (n, QuantLayout { k, sum_group: k }, scale, end));
    let fine = ENDS.map(|end| (48, QuantLayout { k: 256, sum_group: 64 }, row, end));
    let mut case = |(n, layout, scale, end)| ternary_case(micro, [m, n, m - 1], layout, scale, end, rng);
    whole.chain(fine).map(&mut case).collect()
}

fn ternary_case(
    micro: &[&'static MicroKernel],
    [m, n, valid]: [usize; 3],
    layout: QuantLayout,
    scale: ScaleKind,
    end: End,
    rng: &mut Rng,
) -> Case {
    let (encoding, k) = (micro[0].encoding, layout.k);
    let q = rng.tensor(&ValueType::new(DType::I8, &[m, k]));
    let act_scale = rng.tensor(&ValueType::f32(&[m]));
    let w = rng.tensor(&ValueType::new(DType::Trit, &[n, k]));
    let s = rng.tensor(&ValueType::f32(&scale_shape(scale, n, k)));
    let End { bias, residual, .. } = end;
    let op = Op::TernaryLinear { bias, residual };
    let levels = vec![Level { memory: "l1", rows: encoding.nr().max(32) }];
    let schedule = MatmulSchedule { micro: micro.to_vec(), levels };
    schedule.verify(n, k).expect("a schedule as the planner makes them");
    let spec = KernelSpec::TernaryMatmul { m, n, layout, scale, bias, residual, schedule };
    let packed = encoding.fitted_to(w.as_i8(), k).pack(w.as_i8(), n, k);
    let operands = vec![Operand::Input(quantized(layout, &q, m)), input(&act_scale), Operand::Input(packed), input(&s)];
    finish(op, spec, [m, n, valid], end, (vec![&q, &act_scale, &w, &s], operands), rng)
}

/// Gates of two products: each schedule with itself and with the next one, whose encoding may be another; with scales per
/// tensor and row, and per group.
pub fn ternary_glu(backend: &dyn Backend, features: Features, vlen: u32) -> Vec<Case> {
    let mut rng = Rng::named("ternary_glu");
    let all = schedules(backend, features, vlen);
    let pairs = (0..all.len()).flat_map(|i| [[&all[i], &all[i]], [&all[i], &all[(i + 1) % all.len()]]]);
    let shapes = [(1, 33), (100, 256), (64, 100), (131, 48)];
    let cases = pairs.enumerate().flat_map(|(i, pair)| {
        let tallest = pair[0][0].mr.max(pair[1][0].mr);
        let [m, valid] = [[1, 1], [8, 5], [tallest + 3, tallest + 2]][i % 3];
        let (n, k) = shapes[i % shapes.len()];
        let mut scales = [ScaleKind::PerTensor, ScaleKind::PerRow];
        scales.rotate_left(m % 2);
        let whole = (QuantLayout { k, sum_group: k }, scales);
        let act = Act::ALL[i / 2 % 2];
        let kinds = std::iter::once(whole).chain(grouped_gate(pair));
        let cases = kinds.map(|(layout, scales)| gated_case(pair, [m, n, valid], (layout, scales), act, &mut rng));
        cases.collect::<Vec<_>>()
    });
    cases.collect()
}

/// A layout and scales per group for products of the schedules `pair`, where their encodings have groups.
fn grouped_gate(pair: [&Vec<&'static MicroKernel>; 2]) -> Option<(QuantLayout, [ScaleKind; 2])> {
    let encodings = pair.map(|micro| micro[0].encoding);
    // Of any two units the larger is a multiple of the other.
    let unit = encodings.iter().map(|encoding| encoding.kr()).max().expect("two").max(16);
    let layout = QuantLayout { k: 8 * unit, sum_group: unit };
    let groups = [4 * unit, 2 * unit];
    let fits = encodings.iter().zip(groups).all(|(encoding, group)| encoding.has_groups(group, layout.k));
    fits.then(|| (layout, groups.map(|group| ScaleKind::PerGroup { group })))
}

fn gated_case(
    pair: [&Vec<&'static MicroKernel>; 2],
    [m, n, valid]: [usize; 3],
    (layout, scales): (QuantLayout, [ScaleKind; 2]),
    act: Act,
    rng: &mut Rng,
) -> Case {
    let k = layout.k;
    let q = rng.tensor(&ValueType::new(DType::I8, &[m, k]));
    let act_scale = rng.tensor(&ValueType::f32(&[m]));
    let mut operands = vec![Operand::Input(quantized(layout, &q, m)), input(&act_scale)];
    let task_rows = pair.map(|micro| micro[0].encoding.nr()).into_iter().max().expect("two").max(32);
    let products = std::array::from_fn(|i| {
        let levels = vec![Level { memory: "l1", rows: task_rows }];
        let schedule = MatmulSchedule { micro: pair[i].clone(), levels };
        schedule.verify(n, k).expect("a schedule as the planner makes them");
        // Products alike share one code: those of one schedule have one kind of scale, too.
        let other = if pair[0] == pair[1] { 0 } else { i };
        GatedProduct { scale: scales[other], schedule }
    });
    let mut rows = |product: &GatedProduct| {
        let encoding = product.schedule.micro[0].encoding;
        let w = rng.tensor(&ValueType::new(DType::Trit, &[n, k]));
        let s = rng.tensor(&ValueType::f32(&scale_shape(product.scale, n, k)));
        operands.push(Operand::Input(encoding.fitted_to(w.as_i8(), k).pack(w.as_i8(), n, k)));
        operands.push(input(&s));
        Op::TernaryLinear { bias: false, residual: false }.eval(&[&q, &act_scale, &w, &s]).remove(0)
    };
    let [g, u] = products.each_ref().map(&mut rows);
    let result = Op::Glu { act }.eval(&[&g, &u]).remove(0);
    operands.push(output(&result, valid));
    Case::new(KernelSpec::TernaryGlu { m, n, layout, act, products }, valid, operands)
}
