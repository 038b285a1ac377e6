//! Damaged, absurd and hostile files: each is an error that names file, tensor or key, what was found and what was
//! expected. Nothing panics and nothing is allocated on a file's word alone.

use serde_json::{Value, json};
use tcc::arch::{self, BuildOptions};
use tcc::explain::explain;
use tcc::load::error::LoadError;
use tcc::load::{self, LoadOptions};
use tcc_tests::oracle::{fixture, open_error};
use tcc_tests::patch::{Copy, Raw};
use tcc_tests::random::Rng;

const MODEL: &str = "bitnet-packed-tied";
const FILE: &str = "model.safetensors";
const WEIGHT: &str = "model.layers.0.self_attn.k_proj.weight";
const SCALE: &str = "model.layers.0.self_attn.k_proj.weight_scale";
const NORM: &str = "model.layers.1.input_layernorm.weight";

/// The error of a changed copy of the fixture; the temporary folder is written as `model`.
fn error(edit: impl FnOnce(&Copy)) -> String {
    let copy = Copy::of(MODEL);
    edit(&copy);
    let error = open_error(copy.path());
    assert!(explain(error.code()).is_some(), "{} is explained", error.code());
    error.to_string().replace(&copy.path().display().to_string(), "model")
}

/// The error after the header's `from` became `to`.
fn header_error(from: &str, to: &str) -> String {
    error(|copy| {
        copy.edit_header(|header| {
            assert!(header.contains(from), "{from} is in the header");
            header.replacen(from, to, 1)
        });
    })
}

/// The header's text of tensor `name`.
fn entry(name: &str) -> String {
    let header = String::from_utf8_lossy(&Copy::of(MODEL).read(FILE)).into_owned();
    let start = header.find(&format!("\"{name}\"")).expect("the tensor is in the header");
    let end = start + header[start..].find('}').expect("the entry ends");
    header[start..=end].to_owned()
}

/// The same entry with its byte range replaced.
fn with_offsets(name: &str, offsets: &str) -> String {
    let entry = entry(name);
    let start = entry.find("\"data_offsets\"").expect("an entry has offsets");
    format!("{}\"data_offsets\":{offsets}}}", &entry[..start])
}

#[test]
fn damaged_headers_are_refused() {
    let cut = |bytes: usize| error(move |copy| copy.write(FILE, &copy.read(FILE)[..bytes]));
    assert_eq!(
        cut(0),
        "'model/model.safetensors' is not a safetensors file: found 0 bytes, expected at least the 8 bytes of the \
         header's length"
    );
    assert!(cut(7).contains("found 7 bytes"));
    assert!(cut(100).contains("expected at most 92, the rest of the file"), "{}", cut(100));
    let length = Copy::of(MODEL).read(FILE).len();
    let short = cut(length - 1);
    assert!(short.contains("expected an ascending range inside the"), "{short}");
    let long = error(|copy| copy.write(FILE, [copy.read(FILE), vec![0; 3]].concat()));
    assert!(long.contains(&format!("found {} bytes, expected {length}, where the last tensor ends", length + 3)));
    for huge in [u64::MAX, 1 << 63, 100_000_001] {
        let message = error(|copy| {
            let mut bytes = copy.read(FILE);
            bytes[..8].copy_from_slice(&huge.to_le_bytes());
            copy.write(FILE, bytes);
        });
        assert!(message.contains(&format!("found a header of {huge} bytes, expected at most")), "{message}");
    }
    assert!(header_error("\"", "'").contains("found header JSON with"));
    assert!(error(|copy| copy.edit_header(|_| "[]".into())).contains("expected an object of tensors"));
    assert!(error(|copy| copy.edit_header(|_| "{\"a\":".into())).contains("EOF while parsing"));
    assert!(error(|copy| copy.write(FILE, "version https://git-lfs.github.com/spec/v1")).contains("found a header of"));
}

#[test]
fn impossible_tensor_ranges_are_refused() {
    let of = format!("tensor '{WEIGHT}' in 'model/model.safetensors' has ");
    let moved = |offsets: &str| header_error(&entry(WEIGHT), &with_offsets(WEIGHT, offsets));
    assert!(moved("[10,5]").starts_with(&format!("{of}bytes 10..5, expected an ascending range inside the")));
    assert!(moved("[0,18446744073709551615]").starts_with(&format!("{of}bytes 0..18446744073709551615, expected")));
    assert_eq!(moved("[0,513]"), format!("{of}513 bytes, expected 512 bytes for U8 [8, 64]"));
    assert!(moved("[-1,511]").contains("found header JSON with invalid value"));
    assert!(moved("[0]").contains("found header JSON with"));
    let overlap = moved("[0,512]");
    assert!(overlap.contains("overlapping the tensor before it, expected byte"), "{overlap}");
    let shape = |shape: &str| header_error(&entry(WEIGHT), &entry(WEIGHT).replace("[8,64]", shape));
    assert!(shape("[18446744073709551615,64]").contains("expected more bytes than a file can have"));
    assert!(shape("[4294967296,4294967296,2]").contains("expected more bytes than a file can have"));
    assert!(shape("[8,65]").contains("has 512 bytes, expected 520 bytes for U8 [8, 65]"));
    let dtype = header_error(&entry(WEIGHT), &entry(WEIGHT).replace("U8", "Q4"));
    assert_eq!(dtype, format!("{of}type 'Q4', expected a safetensors type such as BF16, F16, F32, U8"));
}

#[test]
fn duplicate_names_are_refused() {
    let other = "model.layers.1.self_attn.k_proj.weight\"";
    assert_eq!(
        header_error(other, &format!("{WEIGHT}\"")),
        format!("tensor '{WEIGHT}' is stored twice: in 'model/model.safetensors' and in 'model/model.safetensors'")
    );
    let copy = Copy::of("bitnet-packed-sharded");
    copy.edit_file("model-00003-of-00003.safetensors", |tensors| {
        tensors.insert("model.embed_tokens.weight".into(), Raw::f32(&[1], &[1.0]));
    });
    let error = open_error(copy.path());
    assert!(matches!(&error, LoadError::DuplicateTensor { tensor, .. } if tensor == "model.embed_tokens.weight"));
}

#[test]
fn wrong_types_shapes_and_values_are_refused() {
    let replace = |name: &'static str, raw: Raw| error(move |c| c.edit_tensors(|t| drop(t.insert(name.into(), raw))));
    let of = |name: &str| format!("tensor '{name}' in 'model/model.safetensors' ");
    assert_eq!(
        replace(WEIGHT, Raw::new("I8", &[8, 64], vec![0; 512])),
        of(WEIGHT) + "is I8 [8, 64], expected U8 with four of the 32 rows to a byte"
    );
    assert_eq!(
        replace(WEIGHT, Raw::new("U8", &[4, 128], vec![0; 512])),
        of(WEIGHT) + "is U8 [4, 128], expected U8 [8, 64]: 32 rows, four to a byte"
    );
    for scale in [f32::NAN, f32::INFINITY, 0.0, -1.0, 1e-45] {
        assert_eq!(
            replace(SCALE, Raw::f32(&[1], &[scale])),
            of(SCALE) + &format!("holds {scale} at element 0, expected a positive finite scale")
        );
    }
    assert_eq!(
        replace(SCALE, Raw::f32(&[2], &[1.0, 1.0])),
        of(SCALE) + "is F32 [2], expected one BF16, F16 or F32 number"
    );
    assert_eq!(replace(NORM, Raw::f32(&[63], &[1.0; 63])), of(NORM) + "is F32 [63], expected BF16, F16 or F32 [64]");
    let mut norm = [1.0; 64];
    norm[9] = f32::NAN;
    assert_eq!(replace(NORM, Raw::f32(&[64], &norm)), of(NORM) + "holds NaN at element 9, expected finite numbers");
    let embedding = "model.embed_tokens.weight";
    assert_eq!(
        replace(embedding, Raw::f32(&[303, 64], &[1.0; 303 * 64])),
        of(embedding) + "is F32 [303, 64], expected BF16, F16 or F32 [304, 64]"
    );
}

#[test]
fn missing_and_leftover_tensors_are_refused() {
    let without = |name: &'static str| error(move |c| c.edit_tensors(|t| drop(t.remove(name))));
    assert_eq!(
        without(WEIGHT),
        format!("tensor '{WEIGHT}' is missing from 'model/model.safetensors', expected a matrix of 32 by 64")
    );
    assert_eq!(
        without(NORM),
        format!("tensor '{NORM}' is missing from 'model/model.safetensors', expected floats [64]")
    );
    let with =
        |name: &'static str| error(move |c| c.edit_tensors(|t| drop(t.insert(name.into(), Raw::f32(&[1], &[1.0])))));
    let leftover = "model.layers.0.self_attn.q_norm.weight";
    assert_eq!(
        with(leftover),
        format!(
            "tensor '{leftover}' in 'model/model.safetensors' belongs to nothing, expected only tensors of \
             BitNetForCausalLM with 2 layers"
        )
    );
    assert!(with("lm_head.weight_scale").contains("belongs to nothing"));
    assert!(error(|c| c.set("num_hidden_layers", 1)).contains("'model.layers.1.input_layernorm.weight'"));
    let copy = Copy::of(MODEL);
    copy.edit_tensors(|t| {
        drop(t.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), Raw::f32(&[1], &[1.0])))
    });
    load::open(copy.path(), &LoadOptions::default()).expect("a buffer of old checkpoints carries nothing");
}

#[test]
fn absurd_configurations_are_refused() {
    let set = |key: &'static str, value: Value| error(move |c| c.set(key, value));
    let of = |key: &str, found: &str, expected: &str| {
        format!("'model/config.json': key '{key}' is {found}, expected {expected}")
    };
    let width = "a whole number in 1 to 4194304";
    for value in [json!(0), json!(-64), json!(64.5), json!(1u64 << 40), json!(u64::MAX), json!(1e300), json!("64")] {
        assert_eq!(set("hidden_size", value.clone()), of("hidden_size", &value.to_string(), width));
    }
    assert_eq!(set("hidden_size", Value::Null), of("hidden_size", "missing", width));
    assert_eq!(set("num_hidden_layers", json!(0)), of("num_hidden_layers", "0", "a whole number in 1 to 4096"));
    assert_eq!(set("vocab_size", json!(1e9)), of("vocab_size", "1000000000.0", "a whole number in 1 to 16777216"));
    assert_eq!(set("rms_norm_eps", json!(0)), of("rms_norm_eps", "0", "a number in 0.000000000001 to 1"));
    assert_eq!(set("rope_theta", json!("x")), of("rope_theta", "\"x\"", "a number in 1 to 1000000000000"));
    assert_eq!(set("num_key_value_heads", json!(3)), of("num_key_value_heads", "3", "a divisor of 2 heads"));
    let divisor = "a divisor of hidden_size 64, as there is no head_dim";
    assert_eq!(set("num_attention_heads", json!(3)), of("num_attention_heads", "3", divisor));
    assert_eq!(set("head_dim", json!(31)), of("head_dim", "31", "an even number: positions rotate pairs"));
    assert_eq!(
        set("head_dim", json!(4_000_000)),
        of("head_dim", "4000000", "at most 4194304 elements in all heads together")
    );
    assert_eq!(set("eos_token_id", json!(304)), of("eos_token_id", "304", "token ids in 0 to 303"));
    assert_eq!(set("architectures", json!([])), of("architectures", "missing", "a list with the model's class name"));
    let longrope = json!({"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]});
    assert_eq!(
        set("rope_scaling", longrope),
        of("rope_scaling.short_factor", "[1.0]", "16 numbers in 0.001 to 1000000")
    );
    assert_eq!(
        set("rope_scaling", json!({"type": "linear", "factor": 0})),
        of("rope_scaling.factor", "0", "a number in 0.001 to 1000000")
    );
    assert_eq!(
        set("use_sliding_window", json!(true)),
        of("use_sliding_window", "true", "false: attention sees the whole context")
    );
}

#[test]
fn broken_json_is_refused() {
    assert!(error(|c| c.write("config.json", "{")).starts_with("'model/config.json' is not valid JSON: EOF"));
    assert!(error(|c| c.write("config.json", "[]")).contains("is not valid JSON: [], expected an object"));
    assert!(error(|c| c.write("generation_config.json", "1 2")).starts_with("'model/generation_config.json' is not"));
    assert!(error(|c| c.write("config.json", [0xff, 0xfe])).contains("is not valid JSON"));
    assert!(error(|c| c.remove("config.json")).starts_with("'model/config.json' cannot be read: "));
}

#[test]
fn shards_cannot_leave_their_folder() {
    for shard in ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "", "a\\b", "c:x"] {
        let copy = Copy::of("bitnet-packed-sharded");
        copy.edit_json("model.safetensors.index.json", |index| {
            index["weight_map"]["model.norm.weight"] = json!(shard);
        });
        let error = open_error(copy.path());
        assert_eq!(error.code(), "TCC-E0206");
        let message = error.to_string();
        assert!(message.contains(&format!("shard '{shard}' is not a plain file name, expected a name")), "{message}");
    }
    let copy = Copy::of("bitnet-packed-sharded");
    for map in [json!(null), json!([]), json!({"model.norm.weight": 3})] {
        copy.edit_json("model.safetensors.index.json", |index| index["weight_map"] = map);
        assert_eq!(open_error(copy.path()).code(), "TCC-E0209");
    }
}

#[test]
fn paths_that_are_no_models_are_refused() {
    let folder = fixture(MODEL);
    for (path, found) in [
        (folder.join("nothing"), "there is no such file or folder"),
        (folder.join("config.json"), "a file that is neither .safetensors nor .safetensors.index.json"),
        (folder.join(".."), "the folder has no model.safetensors and no shard index"),
    ] {
        let error = open_error(&path);
        assert_eq!(error.to_string(), format!("'{}' is not a model: {found}", path.display()));
    }
    load::open(&folder.join(FILE), &LoadOptions::default()).expect("one file with config.json beside it is a model");
}

/// A file that is cut short while it is mapped ends in an error when the next tensor is read.
#[test]
fn a_file_cut_while_it_is_mapped_is_an_error() {
    let copy = Copy::of(MODEL);
    let model = load::open(copy.path(), &LoadOptions::default()).expect("the fixture loads");
    let file = std::fs::OpenOptions::new().write(true).open(copy.file(FILE)).expect("writable");
    file.set_len(4096).expect("the file can be cut");
    let linear = model.linear("model.layers.0.self_attn.k_proj");
    let message = model.trits(linear).expect_err("the file was cut").to_string();
    assert!(message.contains("the file was cut from") && message.contains("to 4096 bytes"), "{message}");
}

/// Random damage to header and configuration never panics, and what still loads still builds.
#[test]
fn random_damage_is_an_error_or_harmless() {
    let copy = Copy::of(MODEL);
    let originals = [FILE, "config.json", "generation_config.json"].map(|name| (name, copy.read(name)));
    let mut rng = Rng::named("random damage");
    let (mut refused, mut loaded) = (0, 0);
    for _ in 0..1500 {
        let (name, original) = &originals[rng.below(originals.len())];
        let mut bytes = original.clone();
        // The header is about six thousand bytes; damage beyond it is damage to weights.
        for _ in 0..=rng.below(3) {
            let at = rng.below(bytes.len().min(6000));
            match rng.below(3) {
                0 => bytes[at] ^= 1 << rng.below(8),
                1 => bytes[at] = b"0123456789\"{}[],:.-eE"[rng.below(21)],
                _ => drop(bytes.remove(at)),
            }
        }
        copy.write(name, &bytes);
        match load::open(copy.path(), &LoadOptions::default()) {
            Err(error) => {
                assert!(explain(error.code()).is_some());
                refused += 1;
            }
            Ok(model) => {
                arch::build(&model, &BuildOptions::default()).expect("a model that loads builds");
                loaded += 1;
            }
        }
        copy.write(name, original);
    }
    assert!(refused > 500 && loaded > 10, "{refused} refused, {loaded} loaded: both happen");
}
