//! Speed of this host's attention kernel with the shapes of a 2B model: multiply-accumulates per cycle, and bytes of
//! the cache per second, from one cache over and over (the best of many runs) and from memory, from more caches by turns
//! than the processor holds (the tenth percentile). Prints one line per cache type and number of token rows, with this
//! core's features and with its target's baseline.
//!
//! `cargo bench -p tcc-tests --bench attention [-- q8]`

use tcc_backends::clif::ClifContext;
use tcc_backends::clif::kernel::emit_kernel;
use tcc_backends::clif::micro::emit_callees;
use tcc_backends::isa::{Backend, backend};
use tcc_ir::cache::CacheLayout;
use tcc_ir::kernel::KernelSpec;
use tcc_ir::ops::kv_write::CACHE_TYPES;
use tcc_ir::target::Features;
use tcc_ir::tensor::Data;
use tcc_ir::ty::{DType, ValueType};
use tcc_tests::machines::MACHINES;
use tcc_tests::memory::Memory;
use tcc_tests::random::Rng;
use tcc_tests::runner::{RunError, Runner};
use tcc_tests::timing::{best_seconds, clock_gigahertz, sweep_seconds};

const HEADS: usize = 20;
const KV_HEADS: usize = 5;
const D: usize = 128;
const CTX: usize = 4096;

/// Caches that calls read by turns.
#[derive(Clone, Copy)]
enum Caches {
    One,
    /// As many as a model's layers, or more: no cache of the processor holds them.
    Many,
}

/// Bytes of [`Caches::Many`].
const MANY_BYTES: usize = 400 << 20;

/// Token rows, the position of the first, and caches: prefill in the middle of 512 tokens, decode at 512 and at the end.
const WORK: [(usize, usize, Caches); 4] =
    [(32, 240, Caches::One), (1, 512, Caches::One), (1, CTX - 1, Caches::One), (1, CTX - 1, Caches::Many)];

fn main() -> Result<(), RunError> {
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let Some(host) = backend(std::env::consts::ARCH) else {
        println!("no backend for this host");
        return Ok(());
    };
    let machine = MACHINES.iter().find(|m| m.target == host.desc().name).expect("every target has a machine");
    let levels = [("host", machine.features(host)?), ("baseline", host.desc().baseline)];
    let gigahertz = clock_gigahertz();
    println!("clock {gigahertz:.2} GHz; {HEADS} heads, {KV_HEADS} KV heads, d {D}, context {CTX}");
    for dtype in CACHE_TYPES.into_iter().filter(|dtype| dtype.to_string().contains(&wanted)) {
        for ((m, pos, caches), (level, features)) in WORK.into_iter().flat_map(|work| levels.map(|level| (work, level)))
        {
            let seconds = measure(host, features, dtype, (m, pos, caches))?;
            let seen: usize = (0..m).map(|row| pos + row + 1).sum();
            let per_cycle = (2 * HEADS * D * seen) as f64 / seconds / 1e9 / gigahertz;
            let layout = CacheLayout { heads: KV_HEADS, ctx: CTX, d: D, dtype };
            let gigabytes = 2.0 * layout.read_bytes(pos + m) as f64 / seconds / 1e9;
            let microseconds = seconds * 1e6;
            let from = if let Caches::Many = caches { "DRAM" } else { "" };
            println!(
                "{dtype:4} m {m:2} at {pos:4} {level:8} {from:4} {microseconds:8.1} us {per_cycle:5.1} MAC/cycle {gigabytes:6.1} GB/s"
            );
        }
    }
    Ok(())
}

/// Seconds of one call for `m` token rows from position `pos` on, with code for `features`.
fn measure(
    host: &dyn Backend,
    features: Features,
    dtype: DType,
    (m, pos, caches): (usize, usize, Caches),
) -> Result<f64, RunError> {
    let cache = CacheLayout { heads: KV_HEADS, ctx: CTX, d: D, dtype };
    let spec = KernelSpec::Attention { m, heads: HEADS, cache, scale: 0.01 };
    let build = |e| RunError::Build(format!("{e}"));
    let cx = ClifContext::new(host, features).map_err(build)?;
    let mut functions = vec![emit_kernel(&cx, &spec, "attention").map_err(build)?];
    functions.extend(emit_callees(&cx, host, [&spec]).map_err(build)?);
    let mut process = Runner::new(host, features, functions)?.start(&[])?;

    let mut rng = Rng::new(1);
    let ty = ValueType::new(dtype, &[KV_HEADS, CTX, D]);
    let mut memory = Memory::new();
    let q = bytes(&rng.tensor(&ValueType::f32(&[m, HEADS * D])).data);
    let first = [pos as u64, m as u64, memory.alloc(4, 64), memory.place(&q, 64)];
    let last = [memory.alloc(4 * m * HEADS * D, 64)];
    let scratch = memory.alloc(spec.scratch_bytes(), 64);
    let mut elements = bytes(&rng.tensor(&ty).data);
    elements.resize(cache.bytes(), 0);
    let count = match caches {
        Caches::One => 1,
        Caches::Many => MANY_BYTES / (2 * cache.bytes()),
    };
    let mut calls = Vec::new();
    for _ in 0..count {
        let both = [(); 2].map(|()| memory.place(&elements, 4096));
        let words = [&first[..], &both, &last].concat();
        calls.push([memory.place_words(&words), 0, spec.tasks() as u64, scratch]);
    }
    process.load("attention", &calls[0], &mut memory)?;
    match caches {
        Caches::One => best_seconds(&mut process, "attention", &calls[0]),
        Caches::Many => sweep_seconds(&mut process, "attention", &calls),
    }
}

/// Stored elements, and behind those of q8 their scales, which follow directly at this shape.
fn bytes(data: &Data) -> Vec<u8> {
    match data {
        Data::F32(x) => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Data::F16(x) | Data::Bf16(x) => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Data::I8(x) | Data::Trit(x) => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Data::Q8(codes, scales) => {
            let codes = codes.iter().flat_map(|v| v.to_le_bytes());
            codes.chain(scales.iter().flat_map(|v| v.to_le_bytes())).collect()
        }
        Data::I32(x) => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Data::U32(x) => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}
