//! Traps of the published formats: spellings, conventions and storage kinds that look alike and are not.
//!
//! Each test names what it guards against; most change one thing in a copy of a fixture.

use serde_json::{Value, json};
use tcc::arch::{self, BuildOptions};
use tcc::load::error::LoadError;
use tcc::load::{self, DensePolicy, LoadOptions};
use tcc::model::{Activations, Model, TableRef};
use tcc_ir::ops::Op;
use tcc_ir::program::{Program, WeightId, WeightStore};
use tcc_ir::tensor::Tensor;
use tcc_ir::text::print;
use tcc_ir::ty::DType;
use tcc_tests::oracle::{self, Expected, fixture, open, open_error};
use tcc_tests::patch::{Copy, Raw};

const Q_PROJ: &str = "model.layers.0.self_attn.q_proj";
const DOWN_PROJ: &str = "model.layers.0.mlp.down_proj";

/// The program of `model` as text, and all its weights.
fn program_and_weights(model: &Model) -> (String, Vec<Tensor<'static>>) {
    let (program, weights) = arch::build(model, &BuildOptions::default()).expect("fixtures build");
    let tensors = (0..program.weights.len()).map(|id| weight(&program, &weights, id)).collect();
    (print::program(&program), tensors)
}

/// Weight number `id` in floats or codes, owned.
fn weight(program: &Program, weights: &dyn WeightStore, id: usize) -> Tensor<'static> {
    let tensor = weights.tensor(WeightId(u32::try_from(id).expect("few weights"))).expect("readable");
    let ty = &program.weights[id].ty;
    assert_eq!(tensor.ty(), *ty, "{}", program.weights[id].name);
    if ty.dtype.is_float() {
        Tensor::f32(&ty.shape, tensor.floats(0..ty.elements()).into_owned())
    } else {
        Tensor::trit(&ty.shape, tensor.as_i8().to_vec())
    }
}

fn scale(model: &Model, linear: &str) -> Vec<f32> {
    model.scales(model.linear(linear)).expect("readable")
}

fn trits(model: &Model, linear: &str) -> Vec<i8> {
    model.trits(model.linear(linear)).expect("readable")
}

/// C1: the published file repeats `quantization_config`; the last one counts, and a warning names the key.
#[test]
fn a_repeated_configuration_key_warns_and_the_last_one_wins() {
    let equal = open(&fixture("llama-packed-dupkey"));
    assert!(equal.warnings[0].ends_with("key 'quantization_config' occurs more than once; the last one counts"));
    let copy = Copy::of("llama-packed-dupkey");
    let text = String::from_utf8(copy.read("config.json")).expect("UTF-8");
    let last = text.rfind("\"quantization_config\"").expect("the key is there");
    let last = format!("{}\"quantization_config\": {{\"quant_method\": \"bitnet\", \"linear_class\": ", &text[..last]);
    copy.write("config.json", format!("{last}\"autobitlinear\"}}}}"));
    let [divided, multiplied] = [equal, open(copy.path())].map(|model| scale(&model, Q_PROJ)[0]);
    assert_eq!(divided, 1.0 / multiplied);
    copy.write("config.json", format!("{last}\"bitlinear\"}}}}"));
    assert_eq!(scale(&open(copy.path()), Q_PROJ)[0], divided);
}

/// C2: both spellings of the configuration, and both names of the rotary kind, give the same program and tables.
#[test]
fn spellings_of_the_configuration_are_equal() {
    for name in ["llama-packed-llama3rope", "llama-packed-bias-linearrope", "qwen3-dense-longrope", "llama-dense"] {
        let new = program_and_weights(&open(&fixture(name)));
        for key in ["type", "rope_type"] {
            let copy = Copy::of(name);
            copy.edit_config(|config| {
                let mut rope = config.remove("rope_parameters").expect("the new spelling");
                let dtype = config.remove("dtype").expect("the new spelling");
                config.insert("torch_dtype".into(), dtype);
                config.insert("rope_theta".into(), rope["rope_theta"].take());
                rope[key] = rope["rope_type"].take();
                config.insert("rope_scaling".into(), rope);
            });
            assert!(program_and_weights(&open(copy.path())) == new, "{name}, {key}");
        }
    }
}

/// C3: numbers as integers or floats, token ids alone or in lists, absent keys.
#[test]
fn lenient_spellings_load() {
    let copy = Copy::of("llama-packed-mqa-hd64");
    let edit = |f: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        copy.edit_config(|config| f(config));
        open(copy.path())
    };
    assert_eq!(open(copy.path()).config.rope.theta, 1_000_042.0);
    assert_eq!(edit(&|c| c["rope_parameters"]["rope_theta"] = json!(1_000_042)).config.rope.theta, 1_000_042.0);
    assert_eq!(edit(&|c| c["hidden_size"] = json!(64.0)).config.hidden, 64);
    copy.remove("generation_config.json");
    assert_eq!(edit(&|c| c["eos_token_id"] = json!([7, 3])).generation.eos, [3, 7]);
    assert_eq!(edit(&|c| c["eos_token_id"] = json!(9)).generation.eos, [9]);
    assert_eq!(open(copy.path()).generation.bos, Some(302));
    assert_eq!(edit(&|c| c["bos_token_id"] = Value::Null).generation.bos, None);
    assert_eq!(edit(&|c| drop(c.remove("bos_token_id"))).generation.bos, None);
    for skipped in [Value::Null, json!([]), json!(["lm_head"])] {
        let model = edit(&|c| c["quantization_config"]["modules_to_not_convert"] = skipped.clone());
        assert!(model.linears().all(|l| l.storage_name() == "packed"));
    }
    edit(&|c| drop(c["quantization_config"].as_object_mut().expect("an object").remove("modules_to_not_convert")));
}

/// C4: `BitnetForCausalLM` is not Llama although its `model_type` says so, and is not `BitNetForCausalLM`.
#[test]
fn the_class_name_decides_the_family() {
    let model = open(&fixture("old-bitnet-hd100-k1080"));
    assert_eq!(model.config.architecture, "BitnetForCausalLM");
    assert!(model.family.masters);
    assert_eq!(model.family.sub_norms.map(|n| n.attn), Some("self_attn.inner_attn_ln"));
    let copy = Copy::of("old-bitnet-hd100-k1080");
    copy.set("architectures", json!(["BitNetForCausalLM"]));
    assert!(matches!(open_error(copy.path()), LoadError::NotTernary { .. } | LoadError::Missing { .. }));
}

/// C5: a head size that is not hidden / heads.
#[test]
fn head_sizes_come_from_their_own_key() {
    let model = open(&fixture("llama-packed-mqa-hd64"));
    assert_eq!((model.config.hidden, model.config.heads, model.config.head_dim), (64, 2, 64));
    assert_eq!((model.linear(Q_PROJ).spec.n, model.linear(Q_PROJ).spec.k), (128, 64));
    assert_eq!(open(&fixture("old-bitnet-hd100-k1080")).config.head_dim, 100);
}

/// C6: what is not known is named, with what is known.
#[test]
fn unknown_names_are_errors_that_list_the_known_ones() {
    let message = |name: &str, edit: &dyn Fn(&Copy)| {
        let copy = Copy::of(name);
        edit(&copy);
        let error = open_error(copy.path());
        assert_eq!(error.code(), "TCC-E0210");
        error.to_string().replace(&copy.path().display().to_string(), "model")
    };
    assert_eq!(
        message("llama-packed-dupkey", &|c| c.set("architectures", json!(["GPT2LMHeadModel"]))),
        "'model/config.json': architectures 'GPT2LMHeadModel' is not supported, expected one of BitNetForCausalLM, \
         BitnetForCausalLM, LlamaForCausalLM, MiniCPMForCausalLM, Qwen3ForCausalLM"
    );
    assert_eq!(
        message("llama-packed-dupkey", &|c| c.set("quantization_config", json!({"quant_method": "gptq"}))),
        "'model/config.json': quantization_config.quant_method 'gptq' is not supported, expected one of bitnet"
    );
    assert_eq!(
        message("llama-packed-dupkey", &|c| c.set("rope_scaling", json!({"type": "yarn", "factor": 2.0}))),
        "'model/config.json': rope_scaling.type 'yarn' is not supported, expected one of default, linear, llama3, \
         longrope"
    );
    let linear_class = json!({"quant_method": "bitnet", "linear_class": "lut"});
    assert_eq!(
        message("llama-packed-dupkey", &|c| c.set("quantization_config", linear_class.clone())),
        "'model/config.json': quantization_config.linear_class 'lut' is not supported, expected one of bitlinear, \
         autobitlinear"
    );
    assert_eq!(
        message("llama-dense", &|c| c.set("hidden_act", "gelu")),
        "'model/config.json': hidden_act 'gelu' is not supported, expected one of relu2, silu"
    );
}

/// W1: rows of packed codes are strided; the codes of a byte are not neighbours.
#[test]
fn packed_rows_are_strided() {
    let folder = fixture("bitnet-packed-tied");
    let want = Expected::read(&folder).i8(&format!("ternary.{Q_PROJ}"));
    assert_eq!(trits(&open(&folder), Q_PROJ), want);
    let copy = Copy::of("bitnet-packed-tied");
    copy.edit_tensors(|tensors| {
        let bytes = &tensors[&format!("{Q_PROJ}.weight")].bytes;
        let adjacent: Vec<i8> =
            bytes.iter().flat_map(|b| [0, 2, 4, 6].map(|shift| (b >> shift & 3).cast_signed() - 1)).collect();
        assert_ne!(adjacent, want);
    });
}

/// W2: the same bytes under the two conventions give results a factor of the stored scale squared apart.
#[test]
fn the_linear_class_alone_decides_the_direction_of_scales() {
    let copy = Copy::of("bitnet-packed-tied");
    let product = |model: &Model| {
        let linear = model.linear(Q_PROJ);
        let (n, k) = (linear.spec.n, linear.spec.k);
        let operands = [
            Tensor::i8(&[1, k], vec![1; k]),
            Tensor::f32(&[1], vec![1.0]),
            Tensor::trit(&[n, k], trits(model, Q_PROJ)),
            Tensor::f32(&[1], scale(model, Q_PROJ)),
        ];
        let op = Op::TernaryLinear { bias: false, residual: false };
        op.eval(&operands.iter().collect::<Vec<_>>())[0].as_f32().to_vec()
    };
    let multiplied = product(&open(copy.path()));
    let stored = scale(&open(copy.path()), Q_PROJ)[0];
    copy.set("quantization_config", json!({"quant_method": "bitnet"}));
    let model = open(copy.path());
    assert!(model.warnings[0].contains("and divides"), "an inverted convention is suspected: {:?}", model.warnings);
    for (d, m) in product(&model).iter().zip(multiplied) {
        assert!((d * stored * stored - m).abs() <= 1e-6 * m.abs(), "{d} and {m}");
    }
}

/// W3: codes, row counts and pairs of weight and scale that cannot be.
#[test]
fn broken_packed_weights_are_refused_by_name() {
    let message = |edit: &dyn Fn(&Copy)| {
        let copy = Copy::of("bitnet-packed-tied");
        edit(&copy);
        open_error(copy.path()).to_string().replace(&copy.path().display().to_string(), "model")
    };
    let weight = format!("{DOWN_PROJ}.weight");
    assert_eq!(
        message(&|copy| copy.edit_tensors(|t| t.get_mut(&weight).expect("stored").bytes[200] |= 0b1100)),
        format!(
            "tensor '{weight}' in 'model/model.safetensors' has code 3 at row 17, column 8, expected codes 0, 1 and 2"
        )
    );
    assert_eq!(
        message(&|copy| copy.set("intermediate_size", 190)),
        "tensor 'model.layers.0.mlp.gate_proj.weight' in 'model/model.safetensors' is U8 [48, 64], expected a number \
         of rows that four divides, not 190"
    );
    assert_eq!(
        message(&|copy| copy.edit_tensors(|t| drop(t.remove(&format!("{DOWN_PROJ}.weight_scale"))))),
        format!(
            "tensor '{weight}' in 'model/model.safetensors' has no '{DOWN_PROJ}.weight_scale', expected a scale of \
             one positive number"
        )
    );
    let copy = Copy::of("llama-packed-dupkey");
    copy.edit_tensors(|tensors| drop(tensors.insert(weight.clone(), Raw::f32(&[64, 192], &[1.0; 64 * 192]))));
    assert_eq!(
        open_error(copy.path()).to_string().replace(&copy.path().display().to_string(), "model"),
        format!(
            "tensor '{weight}' in 'model/model.safetensors' is F32 [64, 192], expected packed U8 weights, because \
             '{DOWN_PROJ}.weight_scale' is stored"
        )
    );
}

/// W4: scales in BF16 and F32 take one path.
#[test]
fn the_type_of_a_scale_does_not_matter() {
    let copy = Copy::of("bitnet-packed-tied");
    copy.edit_tensors(|tensors| {
        for (_, tensor) in tensors.iter_mut().filter(|(name, _)| name.ends_with(".weight_scale")) {
            assert_eq!(tensor.dtype, "BF16");
            *tensor = Raw::f32(&tensor.shape, &tensor.floats());
        }
    });
    assert!(program_and_weights(&open(copy.path())) == program_and_weights(&open(&fixture("bitnet-packed-tied"))));
}

/// W5: unpacked codes load; anything but a code among them is an error.
#[test]
fn unpacked_codes_must_be_codes() {
    let copy = Copy::of("bitnet-offline-unpacked");
    assert!(open(copy.path()).linears().all(|l| l.storage_name() == "offline-unpacked"));
    let weight = format!("{DOWN_PROJ}.weight");
    copy.edit_tensors(|tensors| {
        let tensor = tensors.get_mut(&weight).expect("stored");
        tensor.bytes[2 * 77..2 * 78].copy_from_slice(&0x3f00u16.to_le_bytes());
    });
    assert_eq!(
        open_error(copy.path()).to_string().replace(&copy.path().display().to_string(), "model"),
        format!(
            "tensor '{weight}' in 'model/model.safetensors' holds 0.5 at element 77, expected -1, 0 or 1, because a \
             scale is stored beside the weights"
        )
    );
}

/// W6: masters in BF16 and F16 round to the published codes; a tensor of zeros gives zeros, not NaN.
#[test]
fn masters_round_and_zeros_stay_zeros() {
    for name in ["bitnet-master-tied", "old-bitnet-hd100-k1080"] {
        let want = Expected::read(&fixture(name)).i8(&format!("ternary.{DOWN_PROJ}"));
        assert_eq!(trits(&open(&fixture(name)), DOWN_PROJ), want);
    }
    let copy = Copy::of("bitnet-master-tied");
    copy.edit_tensors(|tensors| tensors.get_mut(&format!("{Q_PROJ}.weight")).expect("stored").bytes.fill(0));
    let model = open(copy.path());
    assert!(trits(&model, Q_PROJ).iter().all(|t| *t == 0));
    assert!((scale(&model, Q_PROJ)[0] - 1e-5).abs() < 1e-11, "the floor of the mean");
}

/// W7: each granularity is found, with zeros of both signs and groups of zeros.
#[test]
fn every_granularity_of_fake_quantized_weights_is_found() {
    let copy = Copy::of("qwen3-fakequant-g128");
    let (n, k) = (128, 256);
    let pattern = |i: usize| [1i8, 0, -1, 0, 1, 1, -1][i % 7];
    for (group, shape) in
        [(None, vec![1]), (Some(256), vec![n]), (Some(128), vec![n, 2]), (Some(64), vec![n, 4]), (Some(32), vec![n, 8])]
    {
        let zeros = |i: usize| group.is_some_and(|g| i / g == 1);
        let of = |i: usize| if zeros(i) { 0.0 } else { group.map_or(0.25, |g| 1.0 + (i / g) as f32) };
        let value = |i: usize| match (pattern(i), zeros(i)) {
            (0, _) | (_, true) => [0.0, -0.0][i % 2],
            (sign, false) => f32::from(sign) * of(i),
        };
        let values: Vec<f32> = (0..n * k).map(value).collect();
        copy.edit_tensors(|t| drop(t.insert(format!("{DOWN_PROJ}.weight"), Raw::f32(&[n, k], &values))));
        let model = open(copy.path());
        assert_eq!(model.linear(DOWN_PROJ).scale_shape(), Some(shape), "{group:?}");
        let codes: Vec<i8> = (0..n * k).map(|i| if zeros(i) { 0 } else { pattern(i) }).collect();
        assert_eq!(trits(&model, DOWN_PROJ), codes);
        let scales: Vec<f32> = (0..n * k / group.unwrap_or(n * k)).map(|g| of(g * group.unwrap_or(1))).collect();
        assert_eq!(scale(&model, DOWN_PROJ), scales);
    }
}

/// W8: dense weights are never rounded, not even when they miss being ternary by one ulp.
#[test]
fn dense_weights_are_refused_or_kept_and_never_rounded() {
    let error = open_error(&fixture("llama-dense"));
    assert_eq!(
        (error.code(), error.help()),
        ("TCC-E0217", Some("pass --dense keep to compile such linears as they are stored"))
    );
    assert!(error.to_string().starts_with("tensor 'model.layers.0."), "{error}");
    let copy = Copy::of("llama-fakequant-tensor");
    let weight = format!("{DOWN_PROJ}.weight");
    copy.edit_tensors(|tensors| {
        let tensor = tensors.get_mut(&weight).expect("stored");
        let nonzero = tensor.floats().iter().position(|v| *v != 0.0).expect("not all zeros");
        tensor.bytes[2 * nonzero] ^= 1;
    });
    assert_eq!(
        open_error(copy.path()).to_string().replace(&copy.path().display().to_string(), "model"),
        format!(
            "tensor '{weight}' in 'model/model.safetensors' is BF16 [64, 192] and not ternary, expected values \
             scale · {{-1, 0, 1}}"
        )
    );
    assert_eq!(open(copy.path()).linear(DOWN_PROJ).storage_name(), "dense");
}

/// W9: a tied head may be stored if it equals the embedding.
#[test]
fn a_tied_head_is_one_table() {
    let copy = Copy::of("bitnet-packed-tied");
    let (program, _) =
        arch::build(&open(copy.path()), &BuildOptions::default()).map(|(p, w)| (p, drop(w))).expect("builds");
    copy.edit_tensors(|tensors| {
        let table = tensors["model.embed_tokens.weight"].clone();
        tensors.insert("lm_head.weight".into(), table);
    });
    let model = open(copy.path());
    assert_eq!(model.head, TableRef::Embedding);
    let (with_head, _) = arch::build(&model, &BuildOptions::default()).expect("builds");
    assert_eq!(print::program(&with_head), print::program(&program));
    copy.edit_tensors(|tensors| tensors.get_mut("lm_head.weight").expect("stored").bytes[1000] ^= 1);
    assert_eq!(
        open_error(copy.path()).to_string().replace(&copy.path().display().to_string(), "model"),
        "'lm_head.weight' in 'model/model.safetensors' differs from 'model.embed_tokens.weight' from element 500 on, \
         expected equal tensors because tie_word_embeddings is true"
    );
    copy.set("tie_word_embeddings", false);
    assert_eq!(open(copy.path()).head, TableRef::Head);
    copy.edit_tensors(|tensors| drop(tensors.remove("lm_head.weight")));
    assert!(matches!(open_error(copy.path()), LoadError::Missing { tensor, .. } if tensor == "lm_head.weight"));
    copy.edit_config(|config| drop(config.remove("tie_word_embeddings")));
    assert_eq!(open(copy.path()).head, TableRef::Embedding);
}

/// W10: shards load from folder and index; what is not where the index says is an error.
#[test]
fn shards_are_where_the_index_says() {
    let copy = Copy::of("bitnet-packed-sharded");
    let from_folder = program_and_weights(&open(copy.path()));
    assert!(program_and_weights(&open(&copy.file("model.safetensors.index.json"))) == from_folder);
    let second = "model-00002-of-00003.safetensors";
    copy.edit_json("model.safetensors.index.json", |index| {
        index["weight_map"]["model.embed_tokens.weight"] = json!(second);
    });
    let error = open_error(copy.path());
    assert!(matches!(&error, LoadError::WrongShard { tensor, .. } if tensor == "model.embed_tokens.weight"), "{error}");
    copy.remove(second);
    let error = open_error(copy.path());
    assert!(error.to_string().contains("shard 'model-00002-of-00003.safetensors' does not exist"), "{error}");
}

/// W11: a row that no vector length divides keeps its last columns.
#[test]
fn ragged_rows_keep_their_tails() {
    let model = open(&fixture("old-bitnet-hd100-k1080"));
    let codes = trits(&model, DOWN_PROJ);
    assert_eq!(codes.len(), 200 * 1080);
    assert!(codes.chunks_exact(1080).any(|row| row[1024..].iter().any(|t| *t != 0)));
}

/// W12: biases are added, and the norm in a linear has its own epsilon.
#[test]
fn optional_parts_of_linears_are_applied() {
    let model = open(&fixture("llama-packed-bias-linearrope"));
    assert!(model.linear(Q_PROJ).has_bias && !model.linear(DOWN_PROJ).has_bias);
    let model = open(&fixture("llama-packed-rmsinlinear"));
    assert_eq!(model.linear(DOWN_PROJ).norm_eps, Some(1e-6));
    assert_eq!(model.config.eps, 1e-5);
    let copy = Copy::of("llama-packed-rmsinlinear");
    copy.edit_config(|config| config["quantization_config"]["use_rms_norm"] = json!(false));
    assert!(matches!(open_error(copy.path()), LoadError::Leftover { .. }), "a norm cannot be ignored");
}

/// N3: MiniCPM's scalars fold into neighbours, tied and untied; the logits are the oracle's (see load_fixtures).
#[test]
fn minicpm_scalars_fold() {
    let model = open(&fixture("minicpm-row-tied"));
    assert_eq!(model.head, TableRef::Embedding);
    let (program, _) = arch::build(&model, &BuildOptions::default()).expect("builds");
    assert!(print::program(&program).contains("12"), "the embedding's factor stays in the op: one table");
    let branch = (1.4f64 / 2.0f64.sqrt()) as f32;
    for (linear, factor) in [("self_attn.o_proj", branch), ("mlp.down_proj", branch), ("mlp.up_proj", 1.0)] {
        let name = format!("model.layers.0.{linear}");
        let folded = oracle::weight(&model, &BuildOptions::default(), &format!("{name}.weight_scale"));
        let plain: Vec<f32> = scale(&model, &name).iter().map(|s| s * factor).collect();
        assert_eq!(folded, plain, "{name}");
    }
    let norm = model.vector("model.norm.weight", 64).expect("readable");
    let folded = oracle::weight(&model, &BuildOptions::default(), "model.norm.weight");
    assert_eq!(folded, norm.iter().map(|w| w * 0.25).collect::<Vec<_>>(), "hidden 64 over base 16");
}

/// T1: generation stops at the union of both files' tokens.
#[test]
fn stop_tokens_are_the_union_of_both_files() {
    let copy = Copy::of("bitnet-packed-tied");
    let eos = |config: Value, generation: Value| {
        copy.set("eos_token_id", config);
        copy.edit_json("generation_config.json", |g| drop(g.insert("eos_token_id".into(), generation)));
        open(copy.path()).generation.eos
    };
    assert_eq!(eos(json!(5), Value::Null), [5]);
    assert_eq!(eos(Value::Null, json!([7, 6])), [6, 7]);
    assert_eq!(eos(json!([5, 9]), json!([5, 6])), [5, 6, 9]);
    assert_eq!(eos(Value::Null, Value::Null), [0; 0]);
}

/// Tokenizer, template and special tokens are found where the formats put them.
#[test]
fn text_files_are_found() {
    let copy = Copy::of("bitnet-packed-tied");
    let text = open(copy.path()).text;
    assert_eq!(text.tokenizer, Some(copy.file("tokenizer.json")));
    assert_eq!(text.bos_token.as_deref(), Some("<|begin_of_text|>"));
    assert_eq!(text.add_bos_token, Some(true));
    assert!(text.chat_template.expect("a template").contains("Assistant: "));
    copy.write("chat_template.jinja", "{{ x }}");
    assert_eq!(open(copy.path()).text.chat_template.as_deref(), Some("{{ x }}"));
}

/// The default of the activations is the published code's, and the option overrides it.
#[test]
fn activations_follow_the_family_unless_asked() {
    let activations = |name: &str, asked: Option<Activations>| {
        let options = LoadOptions { dense: DensePolicy::Keep, activations: asked };
        load::open(&fixture(name), &options).expect("fixtures load").linear(DOWN_PROJ).activations
    };
    for (name, usual) in [
        ("bitnet-packed-tied", Activations::Int8),
        ("bitnet-master-tied", Activations::Int8),
        ("old-bitnet-hd100-k1080", Activations::Int8),
        ("llama-packed-dupkey", Activations::Int8),
        ("llama-fakequant-g32", Activations::Float),
        ("minicpm-row-tied", Activations::Float),
    ] {
        assert_eq!(activations(name, None), usual, "{name}");
        for asked in [Activations::Int8, Activations::Float] {
            assert_eq!(activations(name, Some(asked)), asked, "{name}");
        }
    }
    assert_eq!(activations("llama-dense", Some(Activations::Int8)), Activations::Float);
}

/// The context is the model's own, capped, and never more than the model's.
#[test]
fn the_context_is_bounded_by_the_model() {
    let copy = Copy::of("llama-packed-dupkey");
    let build = |ctx: Option<usize>| {
        let model = open(copy.path());
        let options = BuildOptions { ctx, ..BuildOptions::default() };
        arch::build(&model, &options).map(|(program, _)| program.facts.ctx).map_err(|e| e.to_string())
    };
    assert_eq!(build(None), Ok(256));
    assert_eq!(build(Some(100)), Ok(100));
    let message = "a context of 257 positions was asked for, expected 1 to 256, the model's max_position_embeddings";
    assert_eq!(build(Some(257)), Err(message.into()));
    assert!(build(Some(0)).is_err());
    copy.set("max_position_embeddings", 100_000);
    assert_eq!(build(None), Ok(4096));
}

/// Sums over an int8 cache have 32 bits: a context that could overflow them is refused, and the other caches take it.
#[test]
fn int8_caches_are_bounded_by_their_sums() {
    let copy = Copy::of("llama-packed-dupkey");
    copy.set("max_position_embeddings", 200_000);
    let build = |ctx: usize, kv: DType| {
        let model = open(copy.path());
        let options = BuildOptions { ctx: Some(ctx), kv, ..BuildOptions::default() };
        arch::build(&model, &options).map(|(program, _)| program.facts.ctx)
    };
    assert_eq!(build(131_072, DType::Q8).ok(), Some(131_072));
    let error = build(131_073, DType::Q8).expect_err("one position too many");
    assert_eq!(error.code(), "TCC-E0235");
    assert!(error.to_string().contains("131073 positions of 32 elements a head"), "{error}");
    assert_eq!(build(131_073, DType::F16).ok(), Some(131_073));
}

/// A linear that the configuration leaves out is float, although the others are quantized.
#[test]
fn linears_that_are_left_out_stay_float() {
    let copy = Copy::of("bitnet-master-tied");
    copy.edit_config(|c| c["quantization_config"]["modules_to_not_convert"] = json!(["lm_head", "mlp.down_proj"]));
    assert!(matches!(open_error(copy.path()), LoadError::NotTernary { tensor, .. } if tensor.contains("down_proj")));
    let model = open(copy.path());
    assert_eq!(model.linear(DOWN_PROJ).storage_name(), "dense");
    assert_eq!(model.linear(DOWN_PROJ).activations, Activations::Float);
    assert_eq!(model.linear(Q_PROJ).storage_name(), "master");
}

/// Prefill sizes give ascending graphs without repetition, and never more rows than the context.
#[test]
fn prefill_sizes_are_deduplicated() {
    let model = open(&fixture("llama-packed-dupkey"));
    let rows = |prefill, ctx| {
        let options = BuildOptions { ctx, ..oracle::exact(prefill) };
        arch::build(&model, &options).expect("builds").0.bodies.iter().map(|g| g.m).collect::<Vec<_>>()
    };
    assert_eq!(rows(1, None), [1]);
    assert_eq!(rows(4, None), [1, 4]);
    assert_eq!(rows(8, None), [1, 8]);
    assert_eq!(rows(32, None), [1, 8, 32]);
    assert_eq!(rows(32, Some(16)), [1, 8, 16]);
    assert!(arch::build(&model, &oracle::exact(0)).is_err());
}
