//! `init`: checks the caller's memory, core and weights, then makes an instance.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::encoding::Encoding;
use tcc_ir::plan::{BUFFER_ALIGN, Plan, WeightLayout, WeightSlot};
use tcc_runtime::abi::Status;
use tcc_runtime::abi::offsets::{blob, hooks};

use super::instance::{HOOKS, MAGIC, MAGIC_VALUE, THREADS, VARIANT, WEIGHTS, offset, state_bytes};
use super::{Api, copy, data, fail_if, fail_if_null, is_zero, return_ok, status_signature, variants};
use crate::clif::func::FunctionCx;
use crate::code::{EmitError, Function, Reloc, RelocKind, Target};
use crate::image::WEIGHTS_SLOT;

/// `(arena, bytes, weights, hooks, out) -> status`.
///
/// Compiled for the bare baseline: it must run, and refuse, on cores that lack what the kernels need.
pub(super) fn init(api: &Api<'_>) -> Result<Function, EmitError> {
    api.entry(api.baseline, "init", &status_signature(&[I64, I64, I64, I64, I64]), |f| {
        let (arena, size, blob, caller_hooks, out) = (f.param(0), f.param(1), f.param(2), f.param(3), f.param(4));
        fail_if_null(f, &[arena, out]);
        let hooks = own_hooks(f, caller_hooks);
        fail_if_misaligned(f, arena, Status::ARENA_ALIGN);
        let needed = f.size(super::bytes(api.plan.arena.total_bytes()));
        let small = f.ins().icmp(IntCC::UnsignedLessThan, size, needed);
        fail_if(f, small, Status::ARENA_SIZE);
        let variant = variants::choose(api, f, hooks);
        let weights = find_weights(api, f, blob);
        check_panels(api, f, weights);

        let (begin, end, zero) = (f.i64(0), f.size(state_bytes(api.plan.arena.max_threads) / 8), f.i64(0));
        f.for_range(begin, end, 1, |f, i| {
            let word = f.index(arena, i, 8);
            f.store(zero, word, 0);
        });
        let kept = f.offset(arena, HOOKS);
        copy(f, I64, kept, hooks, hooks::SIZE / 8);
        WEIGHTS.store(f, weights, arena);
        VARIANT.store(f, variant, arena);
        let threads = threads(api, f, hooks);
        THREADS.store(f, threads, arena);
        let magic = f.i64(MAGIC_VALUE);
        MAGIC.store(f, magic, arena);
        f.store(arena, out, 0);
        return_ok(f);
    })
}

/// A copy of the caller's hooks on the stack, members past its `size` zero; all zero where there are none.
fn own_hooks(f: &mut FunctionCx, caller: Value) -> Value {
    let own = f.stack(u32::try_from(hooks::SIZE).expect("a small struct"));
    let zero = f.i64(0);
    for word in 0..hooks::SIZE / 8 {
        f.store(zero, own, offset(8 * word));
    }
    let absent = is_zero(f, caller);
    let given = f.if_else(absent, |f| vec![f.i64(0)], |f| vec![f.load_unsigned(I32, caller, 0)])[0];
    let too_short = f.ins().icmp_imm_u(IntCC::UnsignedLessThan, given, 4);
    let unusable = f.ins().band_not(too_short, absent);
    fail_if(f, unusable, Status::ABI);
    let known = f.size(hooks::SIZE);
    let count = f.min(given, known);
    let begin = f.i64(0);
    f.for_range(begin, count, 1, |f, i| {
        let (from, to) = (f.ins().iadd(caller, i), f.ins().iadd(own, i));
        let byte = f.load(I8, from, 0);
        f.store(byte, to, 0);
    });
    own
}

fn fail_if_misaligned(f: &mut FunctionCx, address: Value, code: Status) {
    let low = i64::try_from(BUFFER_ALIGN - 1).expect("a small power of two");
    let low = f.ins().band_imm_u(address, low);
    fail_if(f, low, code);
}

/// Address of the weights: the caller's blob, else the object's own.
fn find_weights(api: &Api<'_>, f: &mut FunctionCx, caller: Value) -> Value {
    let absent = is_zero(f, caller);
    let [data, length] = f.if_else(
        absent,
        |f| {
            let inside = if api.options.weights_inside {
                let slot = f.symbol_address(WEIGHTS_SLOT);
                let displacement = f.load(I64, slot, 0);
                f.ins().iadd(slot, displacement)
            } else {
                f.i64(0)
            };
            vec![inside, f.size(super::bytes(api.plan.weights_bytes))]
        },
        |f| vec![f.load(I64, caller, offset(blob::DATA)), f.load(I64, caller, offset(blob::LEN))],
    )[..] else {
        unreachable!("two values each way")
    };
    let missing = is_zero(f, data);
    fail_if(f, missing, Status::WEIGHTS);
    fail_if_misaligned(f, data, Status::WEIGHTS);
    let expected = f.size(super::bytes(api.plan.weights_bytes));
    let other = f.ins().icmp(IntCC::NotEqual, length, expected);
    fail_if(f, other, Status::WEIGHTS);
    data
}

/// Where the sizes of panels stand in the weights, and what they are: pairs of words.
const PANEL_SIZES: &str = "panel_sizes";

/// The words of [`PANEL_SIZES`].
///
/// Kernels find panels by the size in front of a bitmap, so a wrong one would lead them out of the weights. What presence
/// bits lead to lies inside whatever they are: the plan leaves room for it (`Encoding::beyond_bytes`).
fn panel_sizes(plan: &Plan) -> Vec<u64> {
    let size = |slot: &WeightSlot| match slot.layout {
        WeightLayout::Packed(Encoding::Bitmap(panel)) => Some([slot.offset_bytes, panel.bytes as u64]),
        WeightLayout::Packed(_) | WeightLayout::Plain | WeightLayout::Coded(_) | WeightLayout::Screen(_) => None,
    };
    plan.weights.iter().filter_map(size).flatten().collect()
}

/// Refuses weights whose panels do not have the sizes that they have in the plan.
fn check_panels(api: &Api<'_>, f: &mut FunctionCx, weights: Value) {
    let count = panel_sizes(api.plan).len() / 2;
    if count == 0 {
        return;
    }
    let (table, begin, end) = (f.symbol_address(PANEL_SIZES), f.i64(0), f.size(count));
    let other = f.for_carried(begin, end, 1, &[begin], |f, i, other| {
        let pair = f.index(table, i, 16);
        let (at, expected) = (f.load(I64, pair, 0), f.load(I64, pair, 8));
        let header = f.ins().iadd(weights, at);
        let found = f.load(I64, header, 0);
        let difference = f.ins().bxor(found, expected);
        vec![f.ins().bor(other[0], difference)]
    })[0];
    fail_if(f, other, Status::WEIGHTS);
}

/// Tasks run at once: 1 without `parallel_for`, else what the caller asks, 1 to the plan's maximum.
fn threads(api: &Api<'_>, f: &mut FunctionCx, hooks: Value) -> Value {
    let asked = f.load(I32, hooks, offset(hooks::THREADS));
    let most = f.i32(api.plan.arena.max_threads.max(1).cast_signed());
    let one = f.i32(1);
    let asked = f.ins().umax(asked, one);
    let capped = f.ins().umin(asked, most);
    let parallel_for = f.load(I64, hooks, offset(hooks::PARALLEL_FOR));
    f.ins().select(parallel_for, capped, one)
}

/// The field that receives the displacement of the weights, where they are in the object, and the sizes of panels.
pub(super) fn data_blocks(api: &Api<'_>) -> Vec<Function> {
    let reloc = Reloc { offset: 0, kind: RelocKind::Pc64, target: Target::Weights, addend: 0 };
    let slot = || Function { relocs: vec![reloc], ..data(WEIGHTS_SLOT, vec![0; 8]) };
    let sizes: Vec<u8> = panel_sizes(api.plan).into_iter().flat_map(u64::to_le_bytes).collect();
    let sizes = (!sizes.is_empty()).then(|| data(PANEL_SIZES, sizes));
    api.options.weights_inside.then(slot).into_iter().chain(sizes).collect()
}
