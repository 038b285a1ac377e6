//! Every kernel spec against the scalar meaning of its op, bit for bit, on every machine.
//!
//! Shapes have tails in every axis; rows at `valid` and above, guards and the flag of non-finite values are checked
//! as well. Each case runs twice: in one call, and with its tasks in two calls in the other order.

mod case;
mod coded;
mod floats;
mod kv;
mod matmul;
mod quant;
mod rows;
mod screen;

use case::{Call, Case};
use tcc_backends::clif::ClifContext;
use tcc_backends::clif::kernel::emit_kernel;
use tcc_backends::clif::micro::emit_callees;
use tcc_backends::code::Function;
use tcc_backends::isa::{AttentionPart, BACKENDS, Backend, RowPart};
use tcc_ir::ops::kv_write::CACHE_TYPES;
use tcc_ir::target::Features;
use tcc_ir::ty::DType;
use tcc_tests::machines::{MACHINES, Machine, report_skipped, tunings};
use tcc_tests::runner::{RunError, Runner};

/// Makes the cases of one family for a machine, given the micro-kernels it can run.
type Cases = fn(&dyn Backend, Features, u32) -> Vec<Case>;

fn conform(family: &str, cases: Cases) {
    for backend in BACKENDS {
        for machine in MACHINES.iter().filter(|m| m.target == backend.desc().name) {
            let what = format!("{family} on {} {}", machine.target, machine.name);
            if let Err(error) = run_on(*backend, machine, cases) {
                report_skipped(&what, &error);
            }
        }
    }
}

/// Runs the cases at every level of the machine, in every tuning.
fn run_on(backend: &dyn Backend, machine: &Machine, cases: Cases) -> Result<(), RunError> {
    for level in machine.levels(backend)? {
        for tuning in tunings(backend) {
            run_with(backend, machine, level.with(tuning), cases)?;
        }
    }
    Ok(())
}

fn run_with(backend: &dyn Backend, machine: &Machine, features: Features, cases: Cases) -> Result<(), RunError> {
    let cases = cases(backend, features, machine.vlen);
    assert!(!cases.is_empty(), "a family has cases");
    let functions = emit(backend, features, &cases);
    let runner = Runner::new(backend, features, functions)?;
    let mut process = runner.start(machine.emulator_args)?;
    for (i, case) in cases.iter().enumerate() {
        case.check(&mut process, |call| kernel_name(i, call), &format!("{} {}", machine.target, machine.name))?;
    }
    Ok(())
}

fn kernel_name(case: usize, call: usize) -> String {
    format!("kernel_{case}_{call}")
}

/// The kernels of all cases and the functions they call.
fn emit(backend: &dyn Backend, features: Features, cases: &[Case]) -> Vec<Function> {
    let cx = ClifContext::new(backend, features).expect("the backend's settings are known");
    let kernels = |(i, case): (usize, &Case)| {
        let kernel = |(j, call): (usize, &Call)| {
            emit_kernel(&cx, &call.spec, &kernel_name(i, j)).unwrap_or_else(|e| panic!("{}: {e}", case.what))
        };
        case.calls.iter().enumerate().map(kernel).collect::<Vec<_>>()
    };
    let mut functions: Vec<_> = cases.iter().enumerate().flat_map(kernels).collect();
    let specs = cases.iter().flat_map(|case| &case.calls).map(|call| &call.spec);
    functions.extend(emit_callees(&cx, backend, specs).expect("menu rows have code"));
    functions
}

#[test]
fn embed() {
    conform("embed", |_, _, _| floats::embed());
}

#[test]
fn norm() {
    conform("norm", |_, _, _| floats::norm());
}

#[test]
fn glu() {
    conform("glu", |_, _, _| floats::glu());
}

#[test]
fn rope() {
    conform("rope", |_, _, _| floats::rope());
}

#[test]
fn add() {
    conform("add", |_, _, _| floats::add());
}

#[test]
fn ternary_glu() {
    conform("ternary_glu", matmul::ternary_glu);
}

#[test]
fn quantize() {
    conform("quantize", |_, _, _| quant::quantize());
}

#[test]
fn non_finite_rows_are_flagged() {
    conform("quantize", |_, _, _| quant::non_finite());
}

#[test]
fn norm_quant() {
    conform("norm_quant", |_, _, _| quant::norm_quant());
}

#[test]
fn glu_quant() {
    conform("glu_quant", |_, _, _| quant::glu_quant());
}

#[test]
fn glu_norm_quant() {
    conform("glu_norm_quant", |_, _, _| quant::glu_norm_quant());
    for part in RowPart::ALL {
        report_unrun(part.symbol(), |backend, features| backend.row_loop(part, features).is_some());
    }
}

#[test]
fn kv_write() {
    conform("kv_write", |_, _, _| kv::write());
}

#[test]
fn attention() {
    conform("attention", |_, _, _| kv::attention());
    for part in AttentionPart::ALL {
        report_unrun(part.symbol(), |backend, features| backend.attention(part, features).is_some());
    }
    report_unrun("attention over caches as they are", |backend, features| {
        CACHE_TYPES.into_iter().any(|cache| backend.cache_loops(cache, features).is_some())
    });
}

#[test]
fn attention_steps() {
    conform("attention in steps", |_, _, _| kv::attention_steps());
}

#[test]
fn coded() {
    conform("coded", |_, _, _| coded::coded());
    report_unrun("coded", |backend, features| backend.screen(features).is_some());
}

#[test]
fn screen() {
    conform("screen", |_, _, _| screen::screen());
    report_unrun("screen", |backend, features| backend.screen(features).is_some());
}

#[test]
fn dense() {
    conform("dense", |_, _, _| matmul::dense());
    report_unrun("dense product", |backend, features| backend.dense_dot(DType::Bf16, features).is_some());
}

/// Reports assembled code that no machine here has the features for: its portable stand-in ran instead.
fn report_unrun(what: &str, is_assembled: impl Fn(&dyn Backend, Features) -> bool) {
    for backend in BACKENDS {
        let desc = backend.desc();
        let all = desc.features.iter().fold(Features::NONE, |set, feature| set.with(feature.bit));
        let is_assembled = |features| is_assembled(*backend, features);
        let machines = MACHINES.iter().filter(|m| m.target == desc.name);
        if is_assembled(all) && !machines.filter_map(|m| m.features(*backend).ok()).any(is_assembled) {
            eprintln!("skipped: assembled {what} of {}: no machine here has its features", desc.name);
        }
    }
}

#[test]
fn float_ternary() {
    conform("float_ternary", |_, _, _| matmul::float_ternary());
}

#[test]
fn ternary() {
    conform("ternary", matmul::ternary);
}

#[test]
fn products_without_code_are_refused() {
    for backend in BACKENDS {
        let cx = ClifContext::new(*backend, backend.desc().baseline).expect("the backend's settings are known");
        for (spec, reason) in matmul::refused() {
            let error = emit_kernel(&cx, &spec, "refused").expect_err("no code for this");
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
