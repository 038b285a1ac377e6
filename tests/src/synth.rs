//! Random checkpoints in the published layout of BitNet b1.58 2B-4T, of its shape or that of an 8B model, for benchmarks:
//! right shapes, no meaning.
//!
//! In such a checkpoint no logit stands out, which is the worst case of a screened head. With a cosine asked for, layers
//! add just so little to a token's embedding that the last hidden row has about that cosine with it: the token's own
//! logit stands out, as the best does in a trained model.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

/// Shape of a synthetic checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub layers: usize,
    pub hidden: usize,
    pub inter: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub vocab: usize,
    /// Cosine of the last hidden row and the row of the best logit, between 0 and 1; `None` leaves it to chance.
    pub cosine: Option<f64>,
}

impl Shape {
    /// BitNet b1.58 2B-4T, 1.2 GB.
    pub const B2_4T: Shape =
        Shape { layers: 30, hidden: 2560, inter: 6912, heads: 20, kv_heads: 5, vocab: 128_256, cosine: None };

    /// The widths of Llama 3 8B in the same family, 2.8 GB.
    pub const B8: Shape = Shape { layers: 32, hidden: 4096, inter: 14336, heads: 32, kv_heads: 8, ..Shape::B2_4T };

    /// Scale of the linears that write to the residual stream.
    ///
    /// Their inputs have a mean square of 1 (each follows a norm) and two thirds of their codes are not zero, so a linear
    /// of k columns adds 2/3 k scale² to the mean square of the stream. All of them together are to add
    /// 1/cosine² - 1 times that of an embedding, to which they are at right angles but for chance.
    fn residual_scale(&self) -> f64 {
        let Some(cosine) = self.cosine else { return SCALE };
        let embedding = EMBEDDING * EMBEDDING / 3.0;
        let added = (self.layers * (self.hidden + self.inter)) as f64 * 2.0 / 3.0;
        (embedding * (cosine.powi(-2) - 1.0) / added).sqrt()
    }
}

/// Largest magnitude of an embedding's elements.
pub(crate) const EMBEDDING: f64 = 0.04;

/// A typical absmean: the scale of a linear.
pub(crate) const SCALE: f64 = 0.02;

/// SplitMix64 (Steele et al. 2014): tiny, seeded, the same everywhere.
pub(crate) struct SplitMix(pub u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// What fills a tensor.
#[derive(Clone, Copy)]
enum Fill {
    /// Four random codes 0..2 to a byte.
    Codes,
    /// bf16 uniform within [`EMBEDDING`].
    Embedding,
    /// bf16 1.0.
    Ones,
    /// One bf16.
    Scale(f64),
}

struct Tensor {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    fill: Fill,
}

impl Tensor {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * if self.dtype == "U8" { 1 } else { 2 }
    }
}

/// Writes config.json and model.safetensors into `folder`, the same bytes for the same shape.
pub fn write(folder: &Path, shape: &Shape) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("config.json"), format!("{:#}\n", config(shape)))?;
    let tensors = tensors(shape);
    let mut header = Map::new();
    let mut at = 0;
    for tensor in &tensors {
        let end = at + tensor.bytes();
        let entry = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, end] });
        header.insert(tensor.name.clone(), entry);
        at = end;
    }
    let mut header = Value::Object(header).to_string();
    // Pad so that the data begins at a multiple of 64.
    header.push_str(&" ".repeat((header.len() + 8).next_multiple_of(64) - 8 - header.len()));
    let mut out = BufWriter::with_capacity(1 << 20, File::create(folder.join("model.safetensors"))?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    let mut random = SplitMix(1);
    let codes: Vec<u8> =
        (0..81u32).map(|i| ((i % 3) | ((i / 3 % 3) << 2) | ((i / 9 % 3) << 4) | ((i / 27) << 6)) as u8).collect();
    for tensor in &tensors {
        fill(tensor, &codes, &mut random, &mut out)?;
    }
    out.flush()
}

fn fill(tensor: &Tensor, codes: &[u8], random: &mut SplitMix, out: &mut impl Write) -> io::Result<()> {
    write_random(tensor.bytes(), random, out, |bits, run| match tensor.fill {
        // 81 divides 2^16 almost evenly; a benchmark does not care for the rest.
        Fill::Codes => run.extend((0..4).map(|i| codes[((bits >> (16 * i)) as u16 as usize * 81) >> 16])),
        Fill::Embedding => {
            let value = (bits >> 40) as f32 / (1 << 24) as f32 * (2.0 * EMBEDDING as f32) - EMBEDDING as f32;
            run.extend_from_slice(&half::bf16::from_f32(value).to_bits().to_le_bytes());
        }
        Fill::Ones => run.extend_from_slice(&half::bf16::ONE.to_bits().to_le_bytes()),
        Fill::Scale(scale) => run.extend_from_slice(&half::bf16::from_f64(scale).to_bits().to_le_bytes()),
    })
}

/// Writes `bytes` bytes of elements, of which `push` adds some to a run for 64 random bits.
pub(crate) fn write_random(
    bytes: usize,
    random: &mut SplitMix,
    out: &mut impl Write,
    push: impl Fn(u64, &mut Vec<u8>),
) -> io::Result<()> {
    let mut left = bytes;
    let mut run = Vec::with_capacity(1 << 16);
    while left > 0 {
        run.clear();
        while run.len() < left.min(1 << 16) {
            push(random.next(), &mut run);
        }
        run.truncate(left);
        out.write_all(&run)?;
        left -= run.len();
    }
    Ok(())
}

fn tensors(s: &Shape) -> Vec<Tensor> {
    let head_dim = s.hidden / s.heads;
    let mut list = Vec::new();
    let mut add = |name: String, dtype, shape: &[usize], fill| {
        list.push(Tensor { name, dtype, shape: shape.to_vec(), fill });
    };
    add("model.embed_tokens.weight".into(), "BF16", &[s.vocab, s.hidden], Fill::Embedding);
    for layer in 0..s.layers {
        let prefix = format!("model.layers.{layer}");
        for (norm, n) in [
            ("input_layernorm", s.hidden),
            ("post_attention_layernorm", s.hidden),
            ("self_attn.attn_sub_norm", s.hidden),
            ("mlp.ffn_sub_norm", s.inter),
        ] {
            add(format!("{prefix}.{norm}.weight"), "BF16", &[n], Fill::Ones);
        }
        for (linear, n, k, scale) in [
            ("self_attn.q_proj", s.hidden, s.hidden, SCALE),
            ("self_attn.k_proj", s.kv_heads * head_dim, s.hidden, SCALE),
            ("self_attn.v_proj", s.kv_heads * head_dim, s.hidden, SCALE),
            ("self_attn.o_proj", s.hidden, s.hidden, s.residual_scale()),
            ("mlp.gate_proj", s.inter, s.hidden, SCALE),
            ("mlp.up_proj", s.inter, s.hidden, SCALE),
            ("mlp.down_proj", s.hidden, s.inter, s.residual_scale()),
        ] {
            add(format!("{prefix}.{linear}.weight"), "U8", &[n / 4, k], Fill::Codes);
            add(format!("{prefix}.{linear}.weight_scale"), "BF16", &[1], Fill::Scale(scale));
        }
    }
    add("model.norm.weight".into(), "BF16", &[s.hidden], Fill::Ones);
    list
}

fn config(s: &Shape) -> Value {
    json!({
        "architectures": ["BitNetForCausalLM"],
        "model_type": "bitnet",
        "hidden_size": s.hidden,
        "intermediate_size": s.inter,
        "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads,
        "vocab_size": s.vocab,
        "hidden_act": "relu2",
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": true,
        "torch_dtype": "bfloat16",
        "quantization_config": {
            "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"
        }
    })
}
