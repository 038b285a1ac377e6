//! Objects for a matrix unit: what they are, that they run alone, that damage is seen.

use std::path::Path;

use tcc_backends::isa::matrix::program::{SymbolKind, codec};

use super::files::{compile, run, text};
use super::harness::{example, hash, json, ok, root, tcc};

const TARGET: [&str; 8] = ["-t", "ascend", "--machine", "kirin9030", "--ctx", "64", "--prefill", "8"];

fn compiled(out: &Path, more: &[&str]) -> String {
    compile(out, &[&TARGET[..], more].concat());
    out.join("model.o").to_str().expect("UTF-8").to_owned()
}

#[test]
fn an_object_runs_alone_and_gives_every_cpus_bits() {
    let folder = tempfile::tempdir().expect("a folder");
    let object = compiled(folder.path(), &[]);
    let ids = "1,7,300,5,9,2,3,4,11";
    let want = hash(&example(), ids, &[]);
    assert_eq!(hash(Path::new(&object), ids, &[]), want);
    // The golden tokens of the descriptor have the hash that it states.
    let described = json(&["inspect", &object]);
    let golden = &described["descriptor"]["golden"];
    let tokens: Vec<String> = golden["tokens"].as_array().expect("tokens").iter().map(|t| t.to_string()).collect();
    assert_eq!(
        hash(Path::new(&object), &tokens.join(","), &["-t", "ascend"]),
        golden["sha256"].as_str().expect("a hash")
    );

    let sections = text(&run("readelf", &["-hSW", &object]));
    for word in ["Machine:                           None", "tcc_descriptor", "tcc_program_prefill8", "tcc_weights"] {
        assert!(sections.contains(word), "{word}:\n{sections}");
    }
    assert!(!sections.contains(".text") && !sections.contains("SYMTAB") && !sections.contains("RELA"), "{sections}");
    for (standard, flags) in [("c99", ["-std=c99", "-x", "c"]), ("c++11", ["-std=c++11", "-x", "c++"])] {
        let source = folder.path().join("use.c");
        let body = "#include \"model.h\"\n#define ROW(m, section) { m, section },\n\
                    static const struct { unsigned m; const char *section; } rows[] = { MODEL_BODIES(ROW) };\n\
                    int main(void) { return (int)(sizeof rows / sizeof rows[0]) - 2; }\n";
        std::fs::write(&source, body).expect("writable");
        let program = folder.path().join("use");
        let (source, program) = (source.to_str().expect("UTF-8"), program.to_str().expect("UTF-8"));
        let all = [&flags[..], &["-Wall", "-Werror", "-pedantic", source, "-o", program]].concat();
        let built = run("cc", &all);
        assert!(built.status.success(), "{standard}: {}", String::from_utf8_lossy(&built.stderr));
        assert!(run(program, &[]).status.success(), "two bodies");
    }
}

#[test]
fn matrix_files_have_the_same_bytes_whatever_the_threads() {
    let (a, b) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let emit = ["--emit", "obj,header,program,asm,report"];
    compiled(a.path(), &[&emit[..], &["-j", "1"]].concat());
    compiled(b.path(), &[&emit[..], &["-j", "2"]].concat());
    let mut names: Vec<_> =
        std::fs::read_dir(a.path()).expect("a folder").map(|f| f.expect("a file").file_name()).collect();
    names.sort();
    assert_eq!(names.len(), 9, "{names:?}");
    for name in names {
        let read = |folder: &Path| std::fs::read(folder.join(&name)).expect("a written file");
        assert!(read(a.path()) == read(b.path()), "{name:?} differs between -j1 and -j2");
    }
    // A program's file prints as its listing, and so does the object's section.
    let listing = std::fs::read_to_string(a.path().join("model.head.s")).expect("a listing");
    let file = a.path().join("model.head.dvp");
    assert_eq!(ok(&["inspect", file.to_str().expect("UTF-8")]), listing);
    let object = a.path().join("model.o");
    assert_eq!(ok(&["inspect", object.to_str().expect("UTF-8"), "--program", "head"]), listing);
}

#[test]
fn damaged_objects_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let object = compiled(folder.path(), &["--golden", "off"]);
    let bytes = std::fs::read(&object).expect("an object");
    let path = folder.path().join("damaged.o");
    let fails = |bytes: &[u8], status: i32, words: &str| {
        std::fs::write(&path, bytes).expect("writable");
        let output = tcc(&["eval", path.to_str().expect("UTF-8"), "--ids", "1"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{stderr}");
        assert!(stderr.contains(words), "{words}: {stderr}");
    };
    let mut weights = bytes.clone();
    let middle = bytes.len() / 2;
    weights[middle] ^= 4;
    fails(&weights, 6, "the weights have another SHA-256");
    fails(&bytes[..middle], 3, "cannot be used");
    let mut cpu = bytes.clone();
    cpu[18] = 62;
    fails(&cpu, 3, "its machine is 62,");
    let mut other = bytes.clone();
    let descriptor = bytes[..4096].windows(13).position(|text| text == b"\"vocab\": 4096");
    let vocab = descriptor.expect("the descriptor is text") + 9;
    other[vocab..vocab + 4].copy_from_slice(b"9999");
    fails(&other, 3, "symbol 'logits' is missing or smaller than 39996 bytes");
    fails(&without_input(&bytes, folder.path()), 3, "symbol 'input' is no input");
}

/// The object `bytes`, whose programs stand in `folder` too, with scratch memory in place of its input.
fn without_input(bytes: &[u8], folder: &Path) -> Vec<u8> {
    compiled(folder, &["--golden", "off", "--emit", "obj,program"]);
    let mut object = bytes.to_vec();
    let files = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    for file in files.filter(|file| file.extension().is_some_and(|e| e == "dvp")) {
        let right = std::fs::read(file).expect("a program");
        let mut program = codec::decode(&right).expect("it decodes");
        let input = program.symbols.iter_mut().find(|s| s.name == "input").expect("the input");
        input.kind = SymbolKind::Scratch;
        let wrong = codec::encode(&program);
        let at = object.windows(right.len()).position(|window| window == right).expect("a section of the object");
        object.splice(at..at + right.len(), wrong);
    }
    assert_eq!(object.len(), bytes.len());
    object
}

/// The same for machines whose cube and vector units are cores of their own.
#[test]
fn choices_of_split_machines_are_printed_and_forced() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = example();
    let model = model.to_str().expect("UTF-8");
    let machine = ["-t", "ascend", "--machine", "ascend950pr", "--ctx", "64", "--prefill", "8"];
    let printed = ok(&[&["inspect", model, "--schedules"], &machine[..]].concat());
    let lines: Vec<&str> = printed.lines().filter(|line| !line.starts_with(';')).collect();
    let product = |rows: &str| {
        let line = lines.iter().find(|line| line.starts_with(rows)).expect("a product of so many rows");
        line.split_once(": ").expect("a choice").0
    };
    let file = folder.path().join("tiles");
    let of = |rows, choice: &str, ids| {
        std::fs::write(&file, format!("{}: {choice}\n", product(rows))).expect("a file");
        [&["eval", model, "--ids", ids, "--tiles", file.to_str().expect("UTF-8")], &machine[..]].concat()
    };
    let (token, chunk) = ("1,2", "1,2,3,4,5,6,7,8");
    let decode = ["vector", "m1 p1", "stream i8 r16", "stream i8 r64"].map(|choice| ("m1 ", choice, token));
    let plain = [token, chunk].map(|ids| (ids, hash(&example(), ids, &["--engine", "interpreter"])));
    for (rows, choice, ids) in decode.into_iter().chain([("m8 ", "m8 p1 pass", chunk)]) {
        let found = ok(&of(rows, choice, ids));
        let (_, plain) = plain.iter().find(|(of, _)| *of == ids).expect("hashed above");
        assert!(found.starts_with(plain), "{choice}: {found}");
    }
    let forced = |choice| of("m1 ", choice, token);
    // Its cube has no four-bit mode; sizes that nothing has.
    for choice in ["stream i4hl r16", "stream i8 r24", "m18446744073709551615 p1", "m1 p99999999999999999"] {
        let output = tcc(&forced(choice));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(3) && stderr.contains("the forced choice"), "{choice}: {stderr}");
    }
}

#[test]
fn tiles_are_printed_and_forced() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = example();
    let model = model.to_str().expect("UTF-8");
    let printed = ok(&[&["inspect", model, "--schedules"], &TARGET[..]].concat());
    let of = |line: &str| printed.lines().find(|l| l.starts_with(line)).expect("the product").to_owned();
    let found = of("m1 n256 k768 w2nz4-x128-k512 residual: ");
    assert!(printed.contains(" cycles\n; L00.ffn_down, "), "{printed}");
    let other = "m1 n256 k768 w2nz4-x128-k512 residual: m1/1 k768/128/128 g1 u3 s16";
    assert_ne!(found, other);
    let file = folder.path().join("tiles");
    let file_name = file.to_str().expect("UTF-8");
    std::fs::write(&file, printed.replace(&found, other)).expect("writable");
    let object = compiled(folder.path(), &["--tiles", file_name]);
    let tiles = ok(&["inspect", &object, "--schedules"]);
    assert!(tiles.contains(other), "{tiles}");
    assert_eq!(hash(Path::new(&object), "1,7", &[]), hash(&example(), "1,7", &[]));

    let fails = |text: &str, status: i32, words: &str| {
        std::fs::write(&file, text).expect("writable");
        let args = [&["eval", model, "--ids", "1", "--tiles", file_name], &TARGET[..]].concat();
        let output = tcc(&args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{stderr}");
        assert!(stderr.contains(words), "{words}: {stderr}");
    };
    fails("m1 n256: m1/1", 2, "line 1: 'm1 n256: m1/1'");
    fails("m1 n5 k768 w2nz4-x128-k512: m1/1 k768/128/128 g1 u3 s16", 2, "no product 'm1 n5 k768 w2nz4-x128-k512'");
    let product = "m1 n256 k256 w2nz4-x128-k512: ";
    // Too large; more rows in a tile than in its block; steps that are no parts; steps that do not divide; out of range.
    for tile in [
        "m1/1 k256/99999/99999 g1 u3 s16",
        "m1/16 k256/64/64 g1 u3 s16",
        "m1/1 k256/96/96 g1 u3 s16",
        "m1/1 k256/128/96 g1 u3 s16",
        "m18446744073709551615/1 k256/64/64 g1 u3 s16",
    ] {
        fails(&format!("{product}{tile}"), 3, "does not fit");
    }
}

#[test]
fn simulated_time_says_where_it_comes_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let object = compiled(folder.path(), &["--golden", "off"]);
    let file = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (trace, page) = (file("trace.json"), file("page.html"));
    let value = json(&["bench", &object, "-t", "ascend", "--prompt", "9", "--trace", &trace, "--html", &page]);
    let model = example();
    let again = [&["bench", model.to_str().expect("UTF-8"), "--prompt", "9"], &TARGET[..]].concat();
    assert_eq!(json(&again), value, "from the files as from the object");

    assert_eq!((&value["simulated"], &value["machine"]["time_is_known"]), (&true.into(), &false.into()));
    assert_eq!(value["machine"]["values"]["gm.l2_bytes"]["tag"], "config");
    for (phase, programs) in [("decode", 2), ("prefill", 3)] {
        let phase = &value[phase];
        assert!(
            phase["tokens_per_second"].is_null() && phase["programs"].as_array().expect("a list").len() == programs
        );
        let cycles = phase["cycles"].as_f64().expect("a number");
        let sum = |list: &str, key: &str| -> f64 {
            phase[list].as_array().expect("a list").iter().map(|v| v[key].as_f64().expect("a number")).sum()
        };
        assert!(cycles > 1e5 && (sum("ops", "cycles") - cycles).abs() < 1.0);
        let most = phase["pipes"]
            .as_array()
            .expect("a list")
            .iter()
            .max_by(|a, b| a["share"].as_f64().expect("a share").total_cmp(&b["share"].as_f64().expect("a share")));
        let most = most.expect("pipes")["pipe"].as_str().expect("a name");
        assert!(phase["roofline"].as_str().expect("a line").contains(&format!("bound: {most} (")));
    }
    let text = std::fs::read_to_string(&trace).expect("a trace");
    let trace: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    assert!(events.iter().any(|e| e["ph"] == "M" && e["args"]["name"] == "prefill, core 0"));
    assert!(events.iter().any(|e| e["ph"] == "f" && e["name"] == "MTE2>V 0"));
    let page = std::fs::read_to_string(&page).expect("a page");
    assert!(page.starts_with("<!doctype html>") && page.contains("Simulated cycles, not measured"));

    // With both rates given, and only then, tokens per second.
    let rates = ["--clock", "1e9", "--gm-rate", "3.2e10"];
    let given = json(&[&again[..], &rates].concat());
    let decode = &given["decode"];
    let cycles = decode["cycles"].as_f64().expect("a number");
    assert!((decode["tokens_per_second"].as_f64().expect("a rate") - 1e9 / cycles).abs() < 1e-6);
    assert_eq!(given["machine"]["values"]["clock_ghz"], serde_json::json!({ "value": 1.0, "tag": "user" }));
    let output = tcc(&[&["bench", &object, "-t", "ascend"], &rates[..]].concat());
    assert_eq!(output.status.code(), Some(2));
}

/// The source of products, against declarations of our own: its grammar, and that the shapes of its tiles agree.
#[test]
fn products_become_source_that_a_compiler_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    compiled(folder.path(), &["--emit", "source", "--encoding", "w2nz8-x64-k512"]);
    let stub = root().join("tests/fixtures/matrix/stub");
    let stub = stub.to_str().expect("UTF-8");
    let files: Vec<_> =
        std::fs::read_dir(folder.path()).expect("a folder").map(|f| f.expect("a file").path()).collect();
    assert_eq!(files.len(), 10, "five products of one row and five of eight: {files:?}");
    for file in &files {
        let file = file.to_str().expect("UTF-8");
        let checked = run(
            "cc",
            &["-std=c++17", "-x", "c++", "-Wall", "-Wno-unused", "-Werror", "-fsyntax-only", "-I", stub, file],
        );
        assert!(checked.status.success(), "{file}: {}", String::from_utf8_lossy(&checked.stderr));
        assert!(std::fs::read_to_string(file).expect("text").starts_with("// NOT VERIFIED ON HARDWARE"));
    }
    let model = example();
    let out = folder.path().join("none");
    let emit = ["compile", model.to_str().expect("UTF-8"), "--emit", "source", "-o", out.to_str().expect("UTF-8")];
    let output = tcc(&[&emit[..], &TARGET[..], &["--encoding", "w2nz4-x64-k512"]].concat());
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("TCC-E0403"));
}
