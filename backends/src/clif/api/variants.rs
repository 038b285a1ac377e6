//! Several kinds of cores served by one object: each has its own copy of the code that depends on CPU features, and
//! `init` chooses among them.
//!
//! The code of a variant is emitted as if it were alone. [`merge`] keeps each different function once and gives the
//! copies names of their own; functions of the interface branch on the instance's choice, so there is no pointer table.

use std::collections::BTreeMap;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_runtime::abi::Status;
use tcc_runtime::abi::offsets::hooks;

use super::instance::{VARIANT, offset};
use super::self_test::GOLDEN_RUN;
use super::{Api, check_instance, fail_if, status_signature};
use crate::clif::func::{FunctionCx, signature};
use crate::code::{EmitError, Function, Reloc, Target};
use crate::emit::{PROBE, VLEN, Variant};
use crate::image::variant_symbol;

/// Functions of the interface whose code belongs to a variant: what their names end in, and how many words they take,
/// the first of which is the instance. All return a status.
const ENTRIES: &[(&str, usize)] = &[("eval", 3), ("eval_all", 4), ("eval_draft", 6), ("logits", 2), ("sample", 3)];

/// Index of the first variant that this core can run; leaves the function with `CPU` if there is none.
pub(super) fn choose(api: &Api<'_>, f: &mut FunctionCx, caller_hooks: Value) -> Value {
    let hint = f.load(I64, caller_hooks, offset(hooks::CPU_FEATURES));
    let found = f.call(PROBE, &signature(&[I64], &[I64]), &[hint])[0];
    let none = f.size(api.variants.len());
    let mut chosen = none;
    for (i, variant) in api.variants.iter().enumerate().rev() {
        let fits = fits(api, f, variant, found, caller_hooks);
        let index = f.size(i);
        chosen = f.ins().select(fits, index, chosen);
    }
    let unusable = f.ins().icmp(IntCC::Equal, chosen, none);
    fail_if(f, unusable, Status::CPU);
    chosen
}

/// Not 0 if a core with the features `found` has those of `variant`, and vectors of its length.
fn fits(api: &Api<'_>, f: &mut FunctionCx, variant: &Variant<'_>, found: Value, caller_hooks: Value) -> Value {
    let needs = variant.plan.needs.without(api.tuning);
    let needs = f.i64(needs.0.cast_signed());
    let missing = f.ins().band_not(needs, found);
    let has_all = f.ins().icmp_imm_s(IntCC::Equal, missing, 0);
    if variant.plan.vlen == 0 {
        return has_all;
    }
    let has_all = f.ins().uextend(I64, has_all);
    f.if_else(
        has_all,
        |f| {
            let hint = f.load_unsigned(I32, caller_hooks, offset(hooks::VLEN));
            // The core has vectors: the variant needs them.
            let vlen = f.if_else(hint, |_| vec![hint], |f| vec![measured_vlen(api, f)])[0];
            let same = f.ins().icmp_imm_u(IntCC::Equal, vlen, i64::from(variant.plan.vlen));
            vec![f.ins().uextend(I64, same)]
        },
        |f| vec![f.i64(0)],
    )[0]
}

/// Bits of a vector register of this core; 0 where the core cannot be asked.
fn measured_vlen(api: &Api<'_>, f: &mut FunctionCx) -> Value {
    if api.has_vlen {
        let bytes = f.call(VLEN, &signature(&[], &[I64]), &[])[0];
        f.scaled(bytes, 8)
    } else {
        f.i64(0)
    }
}

/// The code of all variants, `sets[v]` that of variant v: every different function once, and for what is called from
/// outside the variants a function that branches to the one that runs.
pub(super) fn merge(api: &Api<'_>, sets: Vec<Vec<Function>>) -> Result<Vec<Function>, EmitError> {
    let entries = sets.first().into_iter().flatten().filter(|f| is_entry(f));
    let mut functions: Vec<_> = entries.map(|entry| branch(api, entry)).collect::<Result<_, _>>()?;
    let owners = owners(&sets);
    // Name of what variant `v` calls `name`.
    let symbol = |v: usize, name: &str| match owners[v].get(name) {
        None => name.to_owned(),
        Some(0) if owners.iter().all(|owners| owners.get(name) == Some(&0)) => name.to_owned(),
        Some(owner) => variant_symbol(name, api.variants[*owner].name),
    };
    for (v, set) in sets.iter().enumerate() {
        let own = set.iter().filter(|f| owners[v][f.name.as_str()] == v);
        functions.extend(own.map(|f| renamed(f, |name| symbol(v, name), api.variants[v].name)));
    }
    Ok(functions)
}

/// True for what is called from outside the variants.
fn is_entry(function: &Function) -> bool {
    function.is_api || function.name == GOLDEN_RUN
}

/// For each variant, by name of its functions: the first variant whose function of that name is the same, callees
/// included.
fn owners(sets: &[Vec<Function>]) -> Vec<BTreeMap<&str, usize>> {
    let named: Vec<BTreeMap<&str, &Function>> =
        sets.iter().map(|set| set.iter().map(|f| (f.name.as_str(), f)).collect()).collect();
    let mut owners: Vec<BTreeMap<&str, usize>> =
        named.iter().map(|set| set.keys().map(|name| (*name, 0)).collect()).collect();
    // Owners only move up, so this ends; they start where every callee counts as the same.
    loop {
        let before = owners.clone();
        for (v, set) in named.iter().enumerate() {
            for (name, function) in set {
                let same_callees = |u: usize| referred(function).all(|to| before[u].get(to) == before[v].get(to));
                let same = |u: &usize| {
                    named[*u].get(name).is_some_and(|other| other == function)
                        && !is_entry(function)
                        && same_callees(*u)
                };
                let owner = (before[v][name]..v).find(same).unwrap_or(v);
                owners[v].insert(name, owner);
            }
        }
        if owners == before {
            return owners;
        }
    }
}

/// Names that a function refers to.
fn referred(function: &Function) -> impl Iterator<Item = &str> {
    function.relocs.iter().filter_map(|reloc| match &reloc.target {
        Target::Symbol(name) => Some(name.as_str()),
        Target::Local(_) | Target::Weights => None,
    })
}

/// A variant's function under its name in the object, referring to others by theirs.
fn renamed(function: &Function, symbol: impl Fn(&str) -> String, variant: &str) -> Function {
    let name = symbol(&function.name);
    let own = name != function.name;
    let target = |target: &Target| match target {
        Target::Symbol(name) => Target::Symbol(symbol(name)),
        Target::Local(_) | Target::Weights => target.clone(),
    };
    Function {
        relocs: function.relocs.iter().map(|r| Reloc { target: target(&r.target), ..r.clone() }).collect(),
        calls: function.calls.iter().map(|name| symbol(name)).collect(),
        marks: function
            .marks
            .iter()
            .map(|(at, label)| (*at, if own { variant_symbol(label, variant) } else { label.clone() }))
            .collect(),
        is_api: false,
        name,
        ..function.clone()
    }
}

/// The function under the name of `entry` that calls the one of the instance's variant.
fn branch(api: &Api<'_>, entry: &Function) -> Result<Function, EmitError> {
    let is_suffix = |suffix: &str| entry.name == format!("{}_{suffix}", api.options.name);
    // The golden run is the one without a name of the interface.
    let listed = ENTRIES.iter().find(|(suffix, _)| is_suffix(suffix));
    let words = if entry.name == GOLDEN_RUN { 1 } else { listed.expect("every entry is listed").1 };
    let signature = status_signature(&vec![I64; words]);
    let code = api.baseline.function(&entry.name, &signature, |f| {
        let words: Vec<_> = (0..words).map(|i| f.param(i)).collect();
        check_instance(f, words[0]);
        let running = VARIANT.load(f, words[0]);
        let symbols = api.variants.iter().map(|variant| variant_symbol(&entry.name, variant.name));
        let symbols: Vec<_> = symbols.collect();
        let (last, others) = symbols.split_last().expect("there is a variant");
        for (i, symbol) in (0..).zip(others) {
            let is_it = f.ins().icmp_imm_s(IntCC::Equal, running, i);
            f.return_if(is_it, |f| f.call(symbol, &signature, &words));
        }
        let status = f.call(last, &signature, &words);
        f.return_(&status);
    })?;
    Ok(Function { is_api: entry.is_api, ..code })
}
