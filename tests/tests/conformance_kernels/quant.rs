//! Cases of the quantizer and of everything fused with it.

use tcc_ir::kernel::{KernelSpec, QuantLayout};
use tcc_ir::ops::{Act, Op};
use tcc_ir::tensor::Tensor;
use tcc_ir::ty::ValueType;
use tcc_tests::random::Rng;

use super::case::{Case, Operand, input, output, quantized};
use super::floats::gates;
use super::rows::{ROWS, WIDTHS, special};

/// One sum per row, and several.
fn layouts() -> impl Iterator<Item = QuantLayout> {
    let whole = WIDTHS.into_iter().map(|k| QuantLayout { k, sum_group: k });
    whole.chain([(256, 64), (256, 16), (1080, 40), (96, 32)].map(|(k, sum_group)| QuantLayout { k, sum_group }))
}

/// The two results of a quantizing op as operands.
fn results(layout: QuantLayout, results: &[Tensor<'static>], valid: usize) -> [Operand; 2] {
    [Operand::Output(quantized(layout, &results[0], valid)), output_scales(&results[1], valid)]
}

fn output_scales(scales: &Tensor<'static>, valid: usize) -> Operand {
    output(scales, valid)
}

pub fn quantize() -> Vec<Case> {
    let mut rng = Rng::named("quantize");
    let mut cases = Vec::new();
    for (m, valid) in ROWS {
        for layout in layouts() {
            let x = special(m, layout.k, &mut rng);
            let [codes, scales] = results(layout, &Op::QuantizeAct.eval(&[&x]), valid);
            let spec = KernelSpec::Quantize { m, layout };
            cases.push(Case::new(spec, valid, vec![input(&x), codes, scales]));
        }
    }
    cases
}

/// One bad element anywhere in a row raises the flag.
pub fn non_finite() -> Vec<Case> {
    let layout = QuantLayout { k: 100, sum_group: 100 };
    let mut cases = Vec::new();
    for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN] {
        for at in [0, 15, 47, 96, 99] {
            let mut x = vec![1.0; 3 * layout.k];
            x[layout.k + at] = bad;
            let x = Tensor::f32(&[3, layout.k], x);
            let [codes, scales] = results(layout, &Op::QuantizeAct.eval(&[&x]), 3);
            let mut case = Case::new(KernelSpec::Quantize { m: 3, layout }, 3, vec![input(&x), codes, scales]);
            case.what = format!("{bad} at {at}");
            case.nonfinite = true;
            cases.push(case);
        }
    }
    cases
}

pub fn norm_quant() -> Vec<Case> {
    let mut rng = Rng::named("norm_quant");
    let mut cases = Vec::new();
    for (m, valid) in ROWS {
        for layout in layouts() {
            let (x, w) = (special(m, layout.k, &mut rng), rng.tensor(&ValueType::f32(&[layout.k])));
            let eps = 1e-6;
            let [codes, scales] = results(layout, &Op::NormQuant { eps }.eval(&[&x, &w]), valid);
            let spec = KernelSpec::NormQuant { m, eps, layout };
            cases.push(Case::new(spec, valid, vec![input(&x), input(&w), codes, scales]));
        }
    }
    cases
}

pub fn glu_quant() -> Vec<Case> {
    let mut rng = Rng::named("glu_quant");
    let mut cases = Vec::new();
    for act in [Act::Relu2, Act::Silu] {
        for (m, valid) in ROWS {
            for layout in layouts() {
                let (g, u) = (gates(m, layout.k, &mut rng), rng.tensor(&ValueType::f32(&[m, layout.k])));
                let [codes, scales] = results(layout, &Op::GluQuant { act }.eval(&[&g, &u]), valid);
                let spec = KernelSpec::GluQuant { m, act, layout };
                cases.push(Case::new(spec, valid, vec![input(&g), input(&u), codes, scales]));
            }
        }
    }
    cases
}

pub fn glu_norm_quant() -> Vec<Case> {
    let mut rng = Rng::named("glu_norm_quant");
    let mut cases = Vec::new();
    for act in [Act::Relu2, Act::Silu] {
        for (m, valid) in ROWS {
            for layout in layouts() {
                let (g, u) = (modest_gates(m, layout.k, &mut rng), rng.tensor(&ValueType::f32(&[m, layout.k])));
                let (w, eps) = (rng.tensor(&ValueType::f32(&[layout.k])), 1e-5);
                let [codes, scales] = results(layout, &Op::GluNormQuant { act, eps }.eval(&[&g, &u, &w]), valid);
                let spec = KernelSpec::GluNormQuant { m, act, eps, layout };
                cases.push(Case::new(spec, valid, vec![input(&g), input(&u), input(&w), codes, scales]));
            }
        }
    }
    cases
}

/// Gate rows whose squared activations still have a finite sum of squares.
fn modest_gates(m: usize, k: usize, rng: &mut Rng) -> Tensor<'static> {
    let data = gates(m, k, rng).as_f32().iter().map(|g| g.clamp(-1e8, 1e8)).collect();
    Tensor::f32(&[m, k], data)
}
