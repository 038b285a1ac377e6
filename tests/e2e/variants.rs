//! Objects with several variants: one copy of the weights, one hash, the best code that a core runs.

use std::path::Path;

use super::files::{compile, run, text, tool};
use super::harness::{self, example, hash, json, parallel, tcc};

/// A target's variants in one object.
struct Fat {
    target: &'static str,
    /// In the order they are asked for, each with the feature of this machine that it needs beyond the baseline, where
    /// this machine runs it.
    variants: &'static [(&'static str, Option<&'static str>)],
    /// Emulated cores, and the features of the code that runs there.
    cores: &'static [(&'static str, &'static str)],
}

const FATS: &[Fat] = &[
    Fat {
        target: "x86_64",
        variants: &[
            ("v3", None),
            ("avxvnni", Some("avxvnni")),
            ("avx512", Some("avx512")),
            ("avx512vnni", Some("avx512vnni")),
            ("avx512vnni+avx512vbmi", Some("avx512vbmi")),
            ("amxint8", Some("amxint8")),
        ],
        cores: &[],
    },
    Fat {
        target: "aarch64",
        variants: &[("baseline", None), ("dotprod", None), ("i8mm", None), ("sve", None), ("cortex-a710", None)],
        cores: &[
            ("cortex-a53", "neon"),
            ("cortex-a76", "neon,dotprod"),
            ("max,sve=off", "neon,dotprod,i8mm"),
            ("max", "neon,lse,dotprod,i8mm,sve,sve2"),
        ],
    },
    Fat {
        target: "riscv64",
        variants: &[("baseline", None), ("v", None), ("zba+zbb", None)],
        cores: &[
            ("rv64,v=false,zba=false,zbb=false", "rv64gc"),
            ("rv64,v=false,zba=true,zbb=true", "rv64gc,zba,zbb"),
            ("rv64,v=true,vext_spec=v1.0,vlen=256,zba=false,zbb=false", "rv64gc,v"),
            ("rv64,v=true,vext_spec=v1.0,vlen=128,zba=true,zbb=true", "rv64gc,v"),
        ],
    },
];

impl Fat {
    fn list(&self) -> String {
        self.variants.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",")
    }

    fn compile(&self, out: &Path, more: &[&str]) {
        compile(out, &[&["-t", self.target, "--variants", &self.list()], more].concat());
    }
}

#[test]
fn every_variant_has_the_hash_of_the_model() {
    let ids = "1,7,300,42,5,6,7,8,9,10,11";
    let expected = hash(&example(), ids, &["--engine", "interpreter"]);
    let here = tcc_runtime::host::features();
    let mut jobs = Vec::new();
    for fat in FATS {
        for (variant, feature) in fat.variants {
            match feature.filter(|f| !here.contains(f)) {
                Some(lacking) => {
                    eprintln!("skipped: {} {variant}: this machine lacks {lacking}", fat.target);
                    is_refused_here(fat, variant, lacking);
                }
                None => jobs.push((fat, *variant)),
            }
        }
    }
    let wrong = parallel(jobs, |(fat, variant)| {
        let list = fat.list();
        let args = ["-t", fat.target, "--variants", &list, "--variant", variant, "--threads", "3", "--prefill", "8"];
        let found = hash(&example(), ids, &args);
        (found != expected).then(|| format!("{} {variant}: {found}, expected {expected}", fat.target))
    });
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Code that would trap on this machine is not run, even if asked for by name.
fn is_refused_here(fat: &Fat, variant: &str, lacking: &str) {
    let model = example();
    let model = model.to_str().expect("UTF-8");
    let list = fat.list();
    let args = ["eval", model, "--ids", "1", "-t", fat.target, "--variants", &list, "--variant", variant];
    let output = tcc(&args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains(lacking) && stderr.contains("lacks"), "{stderr}");
}

#[test]
fn variants_of_the_default_target_start_from_its_baseline() {
    for fat in FATS.iter().filter(|fat| fat.target == std::env::consts::ARCH) {
        let (model, list) = (example(), fat.list());
        let model = model.to_str().expect("UTF-8");
        let sizes = |more: &[&str]| json(&[&["check", model, "--variants", &list], more].concat());
        assert_eq!(sizes(&[])["variants"], sizes(&["-t", fat.target])["variants"]);
    }
}

#[test]
fn init_takes_the_best_code_that_the_core_runs() {
    for fat in FATS.iter().filter(|fat| !fat.cores.is_empty()) {
        let folder = tempfile::tempdir().expect("a folder");
        fat.compile(folder.path(), &["--emit", "exe"]);
        let exe = folder.path().join("model").display().to_string();
        for (core, features) in fat.cores {
            let output = run(&format!("qemu-{}", fat.target), &["-cpu", core, &exe, "--self-test"]);
            assert_eq!(text(&output), format!("ok {features}\n"), "{core}: {output:?}");
        }
    }
}

#[test]
fn a_core_that_no_variant_is_for_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    compile(folder.path(), &["-t", "aarch64", "--variants", "dotprod,i8mm", "--emit", "exe,header"]);
    let exe = folder.path().join("model").display().to_string();
    let output = run("qemu-aarch64", &["-cpu", "cortex-a53", &exe, "1"]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "TCC_E_CPU\n");
    assert_eq!(output.status.code(), Some(3));
    let header = std::fs::read_to_string(folder.path().join("model.h")).expect("a header");
    assert!(header.contains("#define MODEL_CPU_FEATURES \"neon,dotprod\""), "{header}");
}

#[test]
fn weights_are_there_once_and_variants_are_listed() {
    for fat in FATS {
        let (one, many) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let emit = ["--emit", "obj,header,report"];
        compile(one.path(), &[&["-t", fat.target], &emit[..]].concat());
        fat.compile(many.path(), &emit);
        let object = many.path().join("model.o").display().to_string();
        let weights = |object: &str| {
            let inspected = json(&["inspect", object]);
            let sections = inspected["sections"].as_array().expect("sections").clone();
            sections.iter().find(|s| s["name"] == "tcc_weights").expect("weights")["bytes"].as_u64()
        };
        assert_eq!(weights(&object), weights(&one.path().join("model.o").display().to_string()));
        let undefined = run(&tool(fat.target, "nm"), &["-u", &object]);
        assert_eq!(text(&undefined).trim(), "", "{}: undefined symbols", fat.target);
        let inspected = json(&["inspect", &object]);
        let report = std::fs::read_to_string(many.path().join("model.report.json")).expect("a report");
        let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
        let mut names: Vec<&str> = Vec::new();
        for (seen, told) in
            inspected["variants"].as_array().expect("a list").iter().zip(report["variants"].as_array().expect("a list"))
        {
            assert_eq!(seen["name"], told["name"]);
            // Whole symbols on one side; labels within them on the other.
            assert_eq!(seen["code_bytes"], told["code_bytes"], "{seen:#}");
            assert!(seen["code_bytes"].as_u64() > Some(0), "{seen:#}");
            names.push(seen["name"].as_str().expect("a name"));
        }
        let mut asked: Vec<&str> = fat.variants.iter().map(|(name, _)| *name).collect();
        // The best first: what needs nothing is tried last.
        assert_eq!(names.last(), asked.first());
        names.sort_unstable();
        asked.sort_unstable();
        assert_eq!(names, asked);
    }
}

#[test]
fn comparisons_have_a_row_for_each_variant() {
    let model = example();
    let model = model.to_str().expect("UTF-8");
    let fat = "aarch64:baseline:dotprod:i8mm";
    let value = json(&["compare", model, "--targets", &format!("{fat},aarch64"), "--no-speed", "--ids", "1,7,300"]);
    let rows = value["rows"].as_array().expect("rows");
    let label = |i: usize| rows[i]["target"].as_str().expect("a name").to_owned();
    assert_eq!(
        [0, 1, 2, 3].map(label),
        ["baseline", "dotprod", "i8mm", ""].map(|v| match v {
            "" => "aarch64".to_owned(),
            v => format!("{fat} {v}"),
        })
    );
    let instructions: Vec<u64> =
        rows.iter().map(|row| row["decode_instructions_per_token"].as_u64().expect("counted")).collect();
    // Another kernel runs, and choosing it costs next to nothing.
    assert!(instructions[1] < instructions[0] * 9 / 10, "{instructions:?}");
    assert!(instructions[0].abs_diff(instructions[3]) < instructions[3] / 1000, "{instructions:?}");
}

#[test]
fn wrong_variants_are_refused() {
    let model = example();
    let model = model.to_str().expect("UTF-8");
    for (variants, words) in [
        ("baseline,neonx", "variant 'neonx' of target 'aarch64'"),
        ("i8mm,dotprod+i8mm", "are both for cores with neon,dotprod,i8mm"),
    ] {
        let output = tcc(&["check", model, "-t", "aarch64", "--variants", variants]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let said: String = stderr.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
    let args = ["eval", model, "--ids", "1", "-t", "aarch64", "--variants", "baseline,dotprod", "--variant", "sve"];
    let output = harness::tcc(&args);
    assert!(String::from_utf8_lossy(&output.stderr).contains("known: dotprod, baseline"));
}

/// Nobody but the caller knows what the system grants a process.
#[cfg(target_arch = "x86_64")]
#[test]
fn granted_features_are_the_callers_word() {
    use tcc_backends::isa::backend;
    use tcc_runtime::abi::Status;
    use tcc_runtime::arena::Arena;
    use tcc_runtime::host;
    use tcc_runtime::module::Module;
    use tcc_runtime::pool::Pool;
    use tcc_runtime::session::Session;

    let folder = tempfile::tempdir().expect("a folder");
    compile(folder.path(), &["-t", "x86_64", "--features", "+amxint8"]);
    let module = Module::open(&folder.path().join("model.o"), None).expect("loads");
    let model = module.model();
    let mut arena = Arena::new(model.info().arena_bytes).expect("memory");
    let status = |arena: &mut Arena, hooks| Session::new(model, arena.bytes_mut(), hooks).err();
    assert_eq!(status(&mut arena, None), Some(Status::CPU));
    let here = host::features();
    if here.contains(&"amxint8") {
        let desc = backend("x86_64").expect("a backend").desc();
        let found =
            desc.features.iter().filter(|f| here.contains(&f.name)).fold(desc.baseline, |set, f| set.with(f.bit));
        let pool = Pool::new(1).expect("threads start");
        let hooks = pool.hooks().with_cpu(found.0, 0);
        assert_eq!(status(&mut arena, Some(&hooks)), None);
    }
}
