//! The header compiles in every standard of C and C++, with the numbers and offsets that the code uses.

use std::fs;
use std::path::Path;
use std::process::Command;

use tcc_ir::plan::{ArenaPlan, HeadRows, StepList};
use tcc_ir::program::ModelFacts;
use tcc_ir::ty::DType;
use tcc_runtime::abi::{FUNCTIONS, offsets};

use super::*;

const FEATURES: &[Feature] = &[
    Feature { name: "wide", bit: Features::bit(0), implies: Features::NONE },
    Feature { name: "dot-product", bit: Features::bit(5), implies: Features::NONE },
];

fn plan() -> Plan {
    let list = |name: &str, m| StepList { name: name.into(), m, steps: Vec::new() };
    Plan {
        facts: ModelFacts { vocab: 40, hidden: 64, layers: 2, ctx: 16, kv: DType::F16, bos: None, eos: Vec::new() },
        needs: Features::NONE,
        vlen: 0,
        kernels: Vec::new(),
        bodies: vec![list("decode", 1), list("prefill", 8)],
        head: list("head", 1),
        head_rows: HeadRows { most: 1, kept: 0, kept_offset: 0 },
        search: None,
        weights: Vec::new(),
        // Past 32 bits: the macros must still work in #if and as values.
        weights_bytes: 5 << 30,
        states: Vec::new(),
        arena: ArenaPlan {
            state_bytes: 512,
            logits_bytes: 192,
            kv_bytes: 5 << 30,
            act_bytes: 1024,
            scratch_bytes_per_thread: 128,
            max_threads: 3,
            ..ArenaPlan::default()
        },
    }
}

fn header(name: &str) -> String {
    let image = Image { stack_bytes: 640, task_stack_bytes: 320, ..Image::default() };
    text(&HeaderParts {
        name,
        tcc_version: "0.1.0",
        target: "any-none-elf",
        needs: FEATURES[0].bit,
        variants: &[("dot-product".into(), FEATURES[0].bit.with(FEATURES[1].bit)), ("any".into(), FEATURES[0].bit)],
        features: FEATURES,
        plan: &plan(),
        image: &image,
        weights: WeightsMode::Object,
        golden: Some([0xab; 32]),
    })
}

#[test]
fn numbers_of_the_plan_become_macros() {
    let text = header("toy");
    for line in [
        "#define TOY_VOCAB 40u",
        "#define TOY_ARENA_BYTES 5368711232u /* sum of the next five */",
        "#define TOY_ARENA_SCRATCH 384u /* 3 threads x 128 bytes */",
        "#define TOY_STACK_BYTES 640u /* any entry, without your hooks */",
        "#  define TCC_CPU_DOT_PRODUCT 0x20ull",
        "#define TOY_CPU_FEATURES \"wide\"",
        "#define TOY_VARIANTS 2 /* init chooses the first that fits; cpu_features forces one */",
        "#define TOY_VARIANT_DOT_PRODUCT 0x21ull /* wide,dot-product */",
    ] {
        assert!(text.contains(line), "'{line}' is missing from\n{text}");
    }
}

#[test]
fn every_function_of_the_interface_is_declared() {
    let text = header("toy");
    for function in FUNCTIONS {
        assert!(text.contains(&format!("toy_{function}(")), "{function}");
    }
}

/// A program with two models in one file that checks every offset of the shared types.
fn program() -> String {
    let mut c = String::from("#include \"toy.h\"\n#include \"other.h\"\n#include \"toy.h\"\n");
    let mut check = |ty: &str, size: usize, fields: &[(&str, usize)]| {
        c += &format!("typedef char size_of_{ty}[sizeof({ty}) == {size} ? 1 : -1];\n");
        for (field, offset) in fields {
            c += &format!("typedef char offset_of_{ty}_{field}[offsetof({ty}, {field}) == {offset} ? 1 : -1];\n");
        }
    };
    use offsets::{blob, head_stats, hooks, info, sampler};
    let fields = [
        ("size", hooks::STRUCT_SIZE),
        ("threads", hooks::THREADS),
        ("user", hooks::USER),
        ("parallel_for", hooks::PARALLEL_FOR),
        ("now", hooks::NOW),
        ("op_begin", hooks::OP_BEGIN),
        ("op_end", hooks::OP_END),
        ("should_stop", hooks::SHOULD_STOP),
        ("cpu_features", hooks::CPU_FEATURES),
        ("vlen", hooks::VLEN),
    ];
    check("tcc_hooks", hooks::SIZE, &fields);
    check("tcc_blob", blob::SIZE, &[("data", blob::DATA), ("len", blob::LEN)]);
    let members = [("searches", head_stats::SEARCHES), ("full", head_stats::FULL)];
    check("tcc_head_stats", head_stats::SIZE, &members);
    check("tcc_sampler", sampler::SIZE, &[("top_p_q16", sampler::TOP_P_Q16), ("rng", sampler::RNG)]);
    let fields = [
        ("flags", info::FLAGS),
        ("name", info::NAME),
        ("licence", info::LICENCE),
        ("model_sha256", info::MODEL_SHA256),
        ("golden_sha256", info::GOLDEN_SHA256),
        ("arena_bytes", info::ARENA_BYTES),
        ("state_bytes", info::STATE_BYTES),
        ("vocab", info::VOCAB),
        ("max_threads", info::MAX_THREADS),
    ];
    check("tcc_info", info::SIZE, &fields);
    c + "int main(void) { return toy_pos(0) == TOY_CTX && other_pos(0) == OTHER_CTX; }\n"
}

fn compiles(compiler: &str, standard: &str, language: &str, folder: &Path) {
    let output = Command::new(compiler)
        .args([&format!("-std={standard}"), "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"])
        // A test of layout declares types it does not use.
        .args(["-Wno-unused-local-typedefs", "-x", language, "main.c"])
        .current_dir(folder)
        .output();
    match output {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{compiler} -std={standard}\n{text}");
        }
        Err(_) => println!("skipped: {compiler} not found"),
    }
}

#[test]
fn two_headers_compile_in_every_standard() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("toy.h"), header("toy")).expect("writable");
    fs::write(folder.path().join("other.h"), header("other")).expect("writable");
    fs::write(folder.path().join("main.c"), program()).expect("writable");
    for standard in ["c99", "c11", "c17", "c2x"] {
        compiles("gcc", standard, "c", folder.path());
    }
    for standard in ["c++11", "c++14", "c++17", "c++20", "c++23"] {
        compiles("g++", standard, "c++", folder.path());
    }
}
