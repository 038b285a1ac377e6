//! Random checkpoints of [`Shape`] as GGUF files in f16, for other engines: their quantizers make from them what their
//! benchmarks run, on the same shapes as ours. Layout: `docs/gguf.md` of ggml, version 3.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use half::f16;

use crate::synth::{EMBEDDING, SCALE, Shape, SplitMix, write_random};

/// Alignment of the data, bytes: the format's default.
const ALIGN: usize = 32;

/// Architecture of the metadata: the name that ggml gives to BitNet b1.58 with norms inside attention and MLP.
const ARCHITECTURE: &str = "bitnet";

/// What fills a tensor.
#[derive(Clone, Copy, PartialEq)]
enum Fill {
    /// f16: minus [`SCALE`], 0 or [`SCALE`].
    Ternary,
    /// f16 uniform within [`EMBEDDING`].
    Embedding,
    /// f32 1.0.
    Ones,
}

impl Fill {
    /// Number of the type in the file, and bytes of an element.
    fn element(self) -> (u32, usize) {
        match self {
            Fill::Ternary | Fill::Embedding => (1, 2),
            Fill::Ones => (0, 4),
        }
    }
}

struct Tensor {
    name: String,
    /// Innermost first.
    shape: Vec<usize>,
    fill: Fill,
}

impl Tensor {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.fill.element().1
    }
}

/// Writes `file`, the same bytes for the same shape; there is no tokenizer in it, and the cosine is left to chance.
pub fn write(file: &Path, shape: &Shape) -> io::Result<()> {
    let tensors = tensors(shape);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(file)?);
    let mut header = header(shape, &tensors);
    header.resize(header.len().next_multiple_of(ALIGN), 0);
    out.write_all(&header)?;
    let mut random = SplitMix(1);
    for tensor in &tensors {
        fill(tensor, &mut random, &mut out)?;
    }
    out.flush()
}

fn fill(tensor: &Tensor, random: &mut SplitMix, out: &mut impl Write) -> io::Result<()> {
    let bytes = tensor.bytes();
    write_random(bytes, random, out, |bits, run| match tensor.fill {
        Fill::Ternary => run.extend((0..4).flat_map(|i| {
            // Three divides 2^16 almost evenly.
            let code = (u32::from((bits >> (16 * i)) as u16) * 3) >> 16;
            f16::from_f64((f64::from(code) - 1.0) * SCALE).to_bits().to_le_bytes()
        })),
        Fill::Embedding => {
            let unit = (bits >> 40) as f64 / f64::from(1 << 24);
            run.extend_from_slice(&f16::from_f64((2.0 * unit - 1.0) * EMBEDDING).to_bits().to_le_bytes());
        }
        Fill::Ones => run.extend_from_slice(&1.0_f32.to_le_bytes()),
    })?;
    out.write_all(&[0; ALIGN][..bytes.next_multiple_of(ALIGN) - bytes])
}

fn tensors(s: &Shape) -> Vec<Tensor> {
    let kv = s.kv_heads * (s.hidden / s.heads);
    let mut list = Vec::new();
    let mut add = |name: String, shape: &[usize], fill| {
        list.push(Tensor { name: format!("{name}.weight"), shape: shape.to_vec(), fill });
    };
    add("token_embd".into(), &[s.hidden, s.vocab], Fill::Embedding);
    for layer in 0..s.layers {
        for (norm, n) in
            [("attn_norm", s.hidden), ("attn_sub_norm", s.hidden), ("ffn_norm", s.hidden), ("ffn_sub_norm", s.inter)]
        {
            add(format!("blk.{layer}.{norm}"), &[n], Fill::Ones);
        }
        for (linear, n, k) in [
            ("attn_q", s.hidden, s.hidden),
            ("attn_k", kv, s.hidden),
            ("attn_v", kv, s.hidden),
            ("attn_output", s.hidden, s.hidden),
            ("ffn_gate", s.inter, s.hidden),
            ("ffn_up", s.inter, s.hidden),
            ("ffn_down", s.hidden, s.inter),
        ] {
            add(format!("blk.{layer}.{linear}"), &[k, n], Fill::Ternary);
        }
    }
    add("output_norm".into(), &[s.hidden], Fill::Ones);
    list
}

/// Everything in front of the data.
fn header(s: &Shape, tensors: &[Tensor]) -> Vec<u8> {
    let mut pairs = Vec::new();
    let mut count = 0_u64;
    let mut pair = |key: &str, ty: u32, value: &[u8]| {
        text(key, &mut pairs);
        pairs.extend_from_slice(&ty.to_le_bytes());
        pairs.extend_from_slice(value);
        count += 1;
    };
    let of_text = |value: &str| {
        let mut bytes = Vec::new();
        text(value, &mut bytes);
        bytes
    };
    pair("general.architecture", 8, &of_text(ARCHITECTURE));
    pair("general.file_type", 4, &1_u32.to_le_bytes());
    pair("tokenizer.ggml.model", 8, &of_text("no_vocab"));
    for (key, value) in [
        ("vocab_size", s.vocab),
        ("context_length", 4096),
        ("embedding_length", s.hidden),
        ("block_count", s.layers),
        ("feed_forward_length", s.inter),
        ("attention.head_count", s.heads),
        ("attention.head_count_kv", s.kv_heads),
        ("rope.dimension_count", s.hidden / s.heads),
    ] {
        pair(&format!("{ARCHITECTURE}.{key}"), 4, &(value as u32).to_le_bytes());
    }
    for (key, value) in [("attention.layer_norm_rms_epsilon", 1e-5_f32), ("rope.freq_base", 500_000.0)] {
        pair(&format!("{ARCHITECTURE}.{key}"), 6, &value.to_le_bytes());
    }
    pair(&format!("{ARCHITECTURE}.rope.scaling.type"), 8, &of_text("none"));
    let mut out = b"GGUF".to_vec();
    out.extend_from_slice(&3_u32.to_le_bytes());
    out.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&pairs);
    let mut at = 0;
    for tensor in tensors {
        text(&tensor.name, &mut out);
        out.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().for_each(|n| out.extend_from_slice(&(*n as u64).to_le_bytes()));
        out.extend_from_slice(&tensor.fill.element().0.to_le_bytes());
        out.extend_from_slice(&(at as u64).to_le_bytes());
        at += tensor.bytes().next_multiple_of(ALIGN);
    }
    out
}

/// A length and the text.
fn text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}
