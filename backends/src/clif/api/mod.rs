//! The functions of the C interface and what they call, written once for all instruction sets.
//!
//! **Invariant:** nothing here allocates, recurses, or writes outside arena and caller's buffers; the only indirect
//! calls are hooks. An error leaves position, kept hidden row and logits as before.

mod best;
mod draft;
mod eval;
mod head;
mod init;
pub mod instance;
mod parallel;
mod position;
mod sample;
mod search;
mod self_test;
mod sha256;
pub mod steps;
pub(super) mod tables;
mod variants;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I32;
use cranelift_codegen::ir::{InstBuilder, Signature, Type, Value};
use tcc_ir::plan::Plan;
use tcc_ir::target::Features;
use tcc_runtime::abi::Status;

use super::ClifContext;
use super::func::{FunctionCx, signature};
use crate::code::{EmitError, Function};
use crate::emit::{EmitOptions, Variant};
use instance::{MAGIC, MAGIC_VALUE};

/// What the functions of one variant of an object are made from.
pub(crate) struct Api<'a> {
    /// The code generator for the plan's features.
    pub cx: &'a ClifContext,
    /// The code generator for the bare baseline: code that runs before the core's features are known.
    pub baseline: &'a ClifContext,
    /// The variant's plan; arena, weights and labels are those of every variant.
    pub plan: &'a Plan,
    /// Every variant of the object, in the order in which `init` tries them.
    pub variants: &'a [Variant<'a>],
    /// Symbol of each kernel of the plan.
    pub kernels: Vec<String>,
    pub options: &'a EmitOptions<'a>,
    /// True where the backend can ask the core for the bits of a vector register.
    pub has_vlen: bool,
    /// Features that every core runs the code of, whatever it is asked.
    pub tuning: Features,
}

/// What all variants of an object share, for cores of the bare baseline: every function and data block but probes and
/// what depends on the stack bound, in layout order.
pub(crate) fn shared(api: &Api<'_>) -> Result<Vec<Function>, EmitError> {
    let arena = &api.plan.arena;
    assert!(arena.state_bytes >= instance::state_bytes(arena.max_threads) as u64, "room for the instance block");
    let mut functions = vec![
        tables::info(api)?,
        tables::strerror(api)?,
        tables::op_name(api)?,
        init::init(api)?,
        position::reset(api)?,
        position::pos(api)?,
        position::rewind(api)?,
        head::head_stats(api)?,
        tables::variant(api)?,
        self_test::self_test(api)?,
    ];
    functions.extend(tables::data_blocks(api));
    functions.extend(self_test::data_blocks(api));
    functions.extend(init::data_blocks(api));
    Ok(functions)
}

/// The functions of one variant but its kernels, in layout order.
pub(crate) fn of_variant(api: &Api<'_>) -> Result<Vec<Function>, EmitError> {
    let mut functions = vec![
        eval::eval(api)?,
        eval::eval_all(api)?,
        draft::eval_draft(api)?,
        head::logits(api)?,
        sample::sample(api)?,
        self_test::golden_run(api)?,
        eval::evaluate(api)?,
        eval::chunk(api)?,
        head::head_rows(api)?,
        head::fresh_logits(api)?,
        steps::stop_asked(api)?,
    ];
    functions.extend(steps::lists(api)?);
    functions.extend(parallel::functions(api)?);
    functions.extend(best::functions(api)?);
    functions.extend(search::functions(api)?);
    functions.extend(sample::parts(api)?);
    functions.extend(sha256::functions(api)?);
    Ok(functions)
}

/// The code of every variant of an object, kernels included, made one by one from `sets`.
pub(crate) fn merge(api: &Api<'_>, mut sets: Vec<Vec<Function>>) -> Result<Vec<Function>, EmitError> {
    match sets.len() {
        1 => Ok(sets.remove(0)),
        _ => variants::merge(api, sets),
    }
}

/// Data whose content needs the finished call graph.
pub(crate) use tables::numbers;

impl Api<'_> {
    /// A function of the C interface, `NAME_suffix`.
    fn entry(
        &self,
        cx: &ClifContext,
        suffix: &str,
        signature: &Signature,
        body: impl FnOnce(&mut FunctionCx),
    ) -> Result<Function, EmitError> {
        let name = format!("{}_{suffix}", self.options.name);
        Ok(Function { is_api: true, ..cx.function(&name, signature, body)? })
    }

    /// Bytes of one hidden row.
    fn hidden_bytes(&self) -> usize {
        4 * self.plan.facts.hidden
    }

    /// Bytes of one row of logits.
    fn logits_bytes(&self) -> usize {
        4 * self.plan.facts.vocab
    }
}

/// A read-only block of the image.
fn data(name: &str, bytes: Vec<u8>) -> Function {
    Function { name: name.to_string(), bytes, align: 8, ..Function::default() }
}

/// Signature of functions that return a status.
fn status_signature(params: &[Type]) -> Signature {
    signature(params, &[I32])
}

fn status(f: &mut FunctionCx, status: Status) -> Value {
    f.i32(status.0)
}

/// Leaves the function with `code` if `condition` is not 0.
fn fail_if(f: &mut FunctionCx, condition: Value, code: Status) {
    f.return_if(condition, |f| vec![status(f, code)]);
}

/// Leaves the function with `found` unless it is `OK`.
fn fail_unless_ok(f: &mut FunctionCx, found: Value) {
    f.return_if(found, |_| vec![found]);
}

/// Leaves the function with `OK`.
fn return_ok(f: &mut FunctionCx) {
    let ok = status(f, Status::OK);
    f.return_(&[ok]);
}

/// Leaves the function with `ARG` if one of `pointers` is null.
fn fail_if_null(f: &mut FunctionCx, pointers: &[Value]) {
    for pointer in pointers {
        let null = is_zero(f, *pointer);
        fail_if(f, null, Status::ARG);
    }
}

/// Leaves the function with `ARG` unless `instance` points at a live instance.
fn check_instance(f: &mut FunctionCx, instance: Value) {
    fail_if_null(f, &[instance]);
    let magic = MAGIC.load(f, instance);
    let dead = f.ins().icmp_imm_s(IntCC::NotEqual, magic, MAGIC_VALUE);
    fail_if(f, dead, Status::ARG);
}

fn is_zero(f: &mut FunctionCx, value: Value) -> Value {
    f.ins().icmp_imm_s(IntCC::Equal, value, 0)
}

/// Copies `n` scalars of type `ty`; the ranges do not overlap.
fn copy(f: &mut FunctionCx, ty: Type, to: Value, from: Value, n: usize) {
    let size = ty.bytes() as usize;
    let (begin, end) = (f.i64(0), f.size(n));
    f.for_range(begin, end, 1, |f, i| {
        let (source, sink) = (f.index(from, i, size), f.index(to, i, size));
        let value = f.load(ty, source, 0);
        f.store(value, sink, 0);
    });
}

/// Bytes of a plan as the builder takes them.
fn bytes(value: u64) -> usize {
    usize::try_from(value).expect("sizes of one machine fit its address space")
}
