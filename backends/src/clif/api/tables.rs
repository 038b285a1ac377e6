//! `info`, `strerror`, `op_name`, and the tables they read.
//!
//! Tables hold offsets, never addresses: a pointer in read-only data would need a relocation.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::plan::{BUFFER_ALIGN, Plan, Step, WEIGHTS_ALIGN};
use tcc_runtime::abi::offsets::info as fields;
use tcc_runtime::abi::{ABI_MAJOR, ABI_MINOR, STATUSES, Status};

use super::instance::{MAGIC, MAGIC_VALUE, VARIANT, offset};
use super::{Api, copy, data, fail_if, fail_if_null, is_zero, return_ok, status_signature};
use crate::clif::func::{FunctionCx, signature};
use crate::code::{EmitError, Function};
use crate::image::{HASHES, HashSlot};

/// Sentences of the status codes, then the one for unknown codes.
const STATUS_TEXTS: &str = "status_texts";
/// Labels of the ops: decode, head, search.
const OP_NAMES: &str = "op_names";
/// The strings of `info`, in the order of its pointers.
const INFO_STRINGS: &str = "info_strings";
/// Names of the features of each variant, joined by commas.
const VARIANT_FEATURES: &str = "variant_features";
/// The numbers of `info`, from `arena_bytes` on.
const INFO_NUMBERS: &str = "info_numbers";

/// The pointers of `info`, in the order of [`INFO_STRINGS`].
const INFO_POINTERS: [usize; 5] =
    [fields::NAME, fields::TARGET, fields::CPU_FEATURES, fields::TCC_VERSION, fields::LICENCE];

/// The ops that have a name: the steps of decode, of the head, and of the search.
fn ops(plan: &Plan) -> impl Iterator<Item = &Step> {
    let search = plan.search.iter().map(|search| &search.list);
    plan.bodies.first().into_iter().chain([&plan.head]).chain(search).flat_map(|list| &list.steps)
}

/// Number of the op labelled `label`, the same in every graph that has it; [`tables`](self) names the ops by it.
pub(super) fn op_index(plan: &Plan, label: &str) -> i32 {
    let index = ops(plan).position(|step| step.label == label).expect("chunks have the ops of decode");
    i32::try_from(index).expect("a model has few ops")
}

/// `(out) -> status`: fills in the caller's `tcc_info`.
pub(super) fn info(api: &Api<'_>) -> Result<Function, EmitError> {
    api.entry(api.baseline, "info", &status_signature(&[I64]), |f| {
        let out = f.param(0);
        fail_if_null(f, &[out]);
        let size = f.load_unsigned(I32, out, offset(fields::STRUCT_SIZE));
        let short = f.ins().icmp_imm_u(IntCC::UnsignedLessThan, size, i64::from(offset(fields::SIZE)));
        fail_if(f, short, Status::ABI);
        for (field, value) in [(fields::ABI_MAJOR, ABI_MAJOR), (fields::ABI_MINOR, ABI_MINOR), (fields::FLAGS, 0)] {
            let value = f.i32(value.cast_signed());
            f.store(value, out, offset(field));
        }
        for (i, field) in INFO_POINTERS.into_iter().enumerate() {
            let index = f.size(i);
            let text = string_at(f, INFO_STRINGS, index);
            f.store(text, out, offset(field));
        }
        let (hashes, to) = (f.symbol_address(HASHES), f.offset(out, fields::MODEL_SHA256));
        copy(f, I64, to, hashes, HashSlot::COUNT * HashSlot::BYTES / 8);
        let (numbers, to) = (f.symbol_address(INFO_NUMBERS), f.offset(out, fields::ARENA_BYTES));
        copy(f, I64, to, numbers, (fields::SIZE - fields::ARENA_BYTES) / 8);
        return_ok(f);
    })
}

/// `(status) -> text`, never null.
pub(super) fn strerror(api: &Api<'_>) -> Result<Function, EmitError> {
    api.entry(api.baseline, "strerror", &signature(&[I32], &[I64]), |f| {
        let code = f.param(0);
        let code = f.ins().uextend(I64, code);
        let unknown = f.size(STATUSES.len());
        let index = f.ins().umin(code, unknown);
        let text = string_at(f, STATUS_TEXTS, index);
        f.return_(&[text]);
    })
}

/// `(instance) -> text`: the features of the variant that runs, null for what is no instance.
pub(super) fn variant(api: &Api<'_>) -> Result<Function, EmitError> {
    api.entry(api.baseline, "variant", &signature(&[I64], &[I64]), |f| {
        let instance = f.param(0);
        let null = is_zero(f, instance);
        f.return_if(null, |f| vec![f.i64(0)]);
        let magic = MAGIC.load(f, instance);
        let dead = f.ins().icmp_imm_s(IntCC::NotEqual, magic, MAGIC_VALUE);
        f.return_if(dead, |f| vec![f.i64(0)]);
        let running = VARIANT.load_wide(f, instance);
        let text = string_at(f, VARIANT_FEATURES, running);
        f.return_(&[text]);
    })
}

/// `(op) -> text`, null past the last op.
pub(super) fn op_name(api: &Api<'_>) -> Result<Function, EmitError> {
    api.entry(api.baseline, "op_name", &signature(&[I32], &[I64]), |f| {
        let op = f.param(0);
        let op = f.ins().uextend(I64, op);
        let count = f.size(ops(api.plan).count());
        let past = f.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, op, count);
        f.return_if(past, |f| vec![f.i64(0)]);
        let text = string_at(f, OP_NAMES, op);
        f.return_(&[text]);
    })
}

/// Address of string `index` of the table `name`.
pub(in crate::clif) fn string_at(f: &mut FunctionCx, name: &str, index: Value) -> Value {
    let table = f.symbol_address(name);
    let entry = f.index(table, index, 4);
    let offset = f.load_unsigned(I32, entry, 0);
    f.ins().iadd(table, offset)
}

/// A table of strings: the offset of each from the table's start, then the strings, each ended by a zero.
pub(in crate::clif) fn strings<'s>(name: &str, texts: impl IntoIterator<Item = &'s str>) -> Function {
    let texts: Vec<_> = texts.into_iter().collect();
    let mut bytes = Vec::new();
    let mut at = 4 * texts.len();
    for text in &texts {
        bytes.extend_from_slice(&u32::try_from(at).expect("tables of names are small").to_le_bytes());
        at += text.len() + 1;
    }
    for text in &texts {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
    }
    data(name, bytes)
}

/// The tables that are known before code is laid out. Hashes are zero until they are set.
pub(super) fn data_blocks(api: &Api<'_>) -> Vec<Function> {
    let texts = &api.options.info;
    vec![
        strings(STATUS_TEXTS, STATUSES.iter().map(|s| s.sentence).chain(["unknown status"])),
        strings(OP_NAMES, ops(api.plan).map(|step| step.label.as_str())),
        strings(INFO_STRINGS, [api.options.name, texts.target, texts.cpu_features, texts.tcc_version, texts.licence]),
        strings(VARIANT_FEATURES, api.variants.iter().map(|variant| variant.features)),
        data(HASHES, vec![0; HashSlot::COUNT * HashSlot::BYTES]),
    ]
}

/// The numbers of `info`, in the order of its fields.
pub(crate) fn numbers(plan: &Plan, stack_bytes: u64, task_stack_bytes: u64) -> Function {
    let arena = &plan.arena;
    let words = [
        arena.total_bytes(),
        BUFFER_ALIGN as u64,
        plan.weights_bytes,
        WEIGHTS_ALIGN as u64,
        stack_bytes,
        task_stack_bytes,
        arena.state_bytes + arena.kv_bytes,
    ];
    let facts = &plan.facts;
    let counts = [facts.vocab, facts.ctx, plan.prefill(), facts.layers, facts.hidden, ops(plan).count()];
    let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    for count in counts {
        bytes.extend_from_slice(&u32::try_from(count).expect("counts of a model fit 32 bits").to_le_bytes());
    }
    bytes.extend_from_slice(&arena.max_threads.to_le_bytes());
    bytes.resize(fields::SIZE - fields::ARENA_BYTES, 0);
    data(INFO_NUMBERS, bytes)
}
