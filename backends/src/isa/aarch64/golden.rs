//! Judges of the encoder: bytes from an outside assembler, and what the emitted code is made of.

use std::collections::BTreeSet;

use tcc_ir::target::Features;
use tcc_ir::ty::DType;

use super::desc::{DESC, DOTPROD, NEON, SME, SVE};
use super::inst::FORMS;
use super::{abi, attention, dense, micro, rows, screen};
use crate::code::Function;
use crate::isa::{AttentionPart, RowPart, ScreenLoops};

const GOLDEN: &str = include_str!("golden.txt");

/// Lines `text | bytes` of the table.
fn golden() -> impl Iterator<Item = (&'static str, u32)> {
    GOLDEN.lines().filter(|line| !line.starts_with(';')).map(|line| {
        let (text, bytes) = line.split_once(" | ").expect("lines are 'text | bytes'");
        let bytes = u32::from_str_radix(bytes, 16).expect("four bytes in hexadecimal");
        (text, bytes.swap_bytes())
    })
}

fn functions() -> Vec<Function> {
    let rows = DESC.menu.iter().filter_map(micro::code);
    rows.chain(float_functions())
        .chain(screen_functions(DOTPROD))
        .chain(attention_functions(DOTPROD))
        .chain([abi::probe(), abi::start(), abi::syscall(), abi::hwcap()])
        .collect()
}

/// What a screened head runs on a core with `features`.
fn screen_functions(features: Features) -> impl Iterator<Item = Function> {
    let ScreenLoops { panels, rows, byte_panels } = screen::emit(features);
    [panels, rows, byte_panels].into_iter()
}

/// The loops of attention on a core with `features`.
fn attention_functions(features: Features) -> impl Iterator<Item = Function> {
    AttentionPart::ALL.into_iter().map(move |part| attention::emit(part, features))
}

/// What runs on every core of the target.
fn float_functions() -> impl Iterator<Item = Function> {
    let dense = [DType::F32, DType::F16, DType::Bf16].map(dense::emit);
    let rows = RowPart::ALL.into_iter().filter_map(rows::emit);
    attention_functions(NEON).chain(dense).chain(rows).chain(screen_functions(NEON))
}

fn words(function: &Function) -> impl Iterator<Item = u32> {
    function.bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().expect("whole words")))
}

#[test]
fn golden_bytes() {
    let mut seen = BTreeSet::new();
    for (text, word) in golden() {
        let hits: Vec<_> = FORMS.iter().filter_map(|(form, _)| Some((form, form.parse(text)?))).collect();
        assert!(!hits.is_empty(), "no form for '{text}'");
        for (form, fields) in hits {
            assert_eq!(form.encode(&fields), word, "'{text}' by '{}'", form.text);
            seen.insert(form.text);
        }
    }
    for (form, _) in FORMS {
        assert_eq!(form.layout_bits(), 32, "'{}'", form.text);
        assert!(seen.contains(form.text), "no golden bytes for '{}'", form.text);
    }
}

#[test]
fn every_form_is_used_and_within_the_features_of_its_row() {
    let mut used = BTreeSet::new();
    for word in functions().iter().flat_map(words) {
        let forms: Vec<_> = FORMS.iter().filter(|(form, _)| form.matches(word)).collect();
        assert!(!forms.is_empty(), "{word:08x} is no known form");
        used.extend(forms.iter().map(|(form, _)| form.text));
    }
    for (form, _) in FORMS {
        assert!(used.contains(form.text), "no code uses '{}'", form.text);
    }
    for row in DESC.menu {
        // Streaming mode has most of SVE; what it lacks traps on the emulated cores without FA64.
        let streaming = if row.needs.contains(SME) { SVE } else { Features::NONE };
        for word in micro::code(row).iter().flat_map(words) {
            let (form, needs) = FORMS.iter().find(|(form, _)| form.matches(word)).expect("known, see above");
            assert!(
                DESC.close(row.needs.with(streaming)).contains(*needs),
                "'{}' needs more than '{}'",
                form.text,
                row.name
            );
        }
    }
    for function in float_functions() {
        for word in words(&function) {
            let (form, needs) = FORMS.iter().find(|(form, _)| form.matches(word)).expect("known, see above");
            assert!(NEON.contains(*needs), "'{}' needs more than '{}' may", form.text, function.name);
        }
    }
}
