//! Speed of this host's ternary products as whole kernels, epilogue included, with the shapes of a 2B model:
//! multiply-accumulates per cycle, and bytes of weights per second, from the caches. Best of many runs.
//!
//! `cargo bench -p tcc-tests --bench product [-- base3]` runs the encodings whose name contains this.

use tcc::schedule::{self, Machine, Shape};
use tcc_backends::clif::ClifContext;
use tcc_backends::clif::kernel::emit_kernel;
use tcc_backends::clif::micro::emit_callees;
use tcc_backends::isa::{Backend, backend};
use tcc_ir::encoding::Encoding;
use tcc_ir::kernel::{KernelSpec, QuantLayout, ScaleKind};
use tcc_tests::machines::MACHINES;
use tcc_tests::memory::Memory;
use tcc_tests::random::Rng;
use tcc_tests::runner::{RunError, Runner};
use tcc_tests::timing::{best_seconds, clock_gigahertz};

/// Output rows, reduction length, whether a residual is added: down, gate or up, attention out, keys or values.
const SHAPES: [(usize, usize, bool); 4] =
    [(2560, 6912, true), (6912, 2560, false), (2560, 2560, true), (640, 2560, false)];

/// Token rows: prefill with chunks of 64 and 32, a few tokens, decode.
const ROWS: [usize; 4] = [64, 32, 8, 1];

fn main() -> Result<(), RunError> {
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let Some(host) = backend(std::env::consts::ARCH) else {
        println!("no backend for this host");
        return Ok(());
    };
    let emulated = MACHINES.iter().find(|m| m.target == host.desc().name).expect("every target has a machine");
    let machine = Machine { desc: host.desc(), features: emulated.features(host)?, vlen: 0 };
    let gigahertz = clock_gigahertz();
    println!("clock {gigahertz:.2} GHz");
    for (n, k, residual) in SHAPES {
        let candidates =
            schedule::candidates(&machine, Shape { n, k, group: None, density: None }, None).map_err(build_error)?;
        // Menus list the rows of one encoding, best first, and end with portable ones.
        let mut encodings: Vec<_> = candidates.iter().map(|c| c.row.encoding).take(2).collect();
        encodings.dedup();
        for encoding in encodings.into_iter().filter(|e| e.to_string().contains(&wanted)) {
            for m in ROWS {
                let schedule = schedule::choose(&machine, m, n, k, encoding).map_err(build_error)?;
                let (layout, scale) = (QuantLayout { k, sum_group: k }, ScaleKind::PerTensor);
                let spec = KernelSpec::TernaryMatmul { m, n, layout, scale, bias: false, residual, schedule };
                let seconds = measure(host, &machine, &spec, (m, encoding, n, layout, residual))?;
                let per_cycle = (m * n * k) as f64 / seconds / 1e9 / gigahertz;
                let gigabytes = encoding.matrix_bytes(n, k) as f64 / seconds / 1e9;
                let microseconds = seconds * 1e6;
                println!(
                    "{encoding} n {n:4} k {k:4} m {m:2} {microseconds:8.1} us {per_cycle:6.1} MAC/cycle {gigabytes:6.1} GB/s"
                );
            }
        }
    }
    Ok(())
}

/// Seconds of one call of the whole product.
fn measure(
    host: &dyn Backend,
    machine: &Machine,
    spec: &KernelSpec,
    (m, encoding, n, layout, residual): (usize, Encoding, usize, QuantLayout, bool),
) -> Result<f64, RunError> {
    let cx = ClifContext::new(host, machine.features).map_err(build_error)?;
    let mut functions = vec![emit_kernel(&cx, spec, "product").map_err(build_error)?];
    functions.extend(emit_callees(&cx, host, [spec]).map_err(build_error)?);
    let mut process = Runner::new(host, machine.features, functions)?.start(&[])?;
    let (mut memory, mut random) = (Memory::new(), Rng::new(1));
    let nr = encoding.nr();
    let trits: Vec<i8> = (0..nr * layout.k).map(|_| random.below(3) as i8 - 1).collect();
    let weights = encoding.pack(&trits, nr, layout.k).repeat(n.div_ceil(nr));
    let q: Vec<u8> = (0..m * layout.stride_bytes()).map(|_| random.below(256) as u8).collect();
    let mut words = vec![0, m as u64, memory.alloc(4, 64), memory.place(&q, 64)];
    words.extend([memory.alloc(4 * m, 64), memory.place(&weights, 4096), memory.alloc(4, 64)]);
    let out = memory.alloc(4 * m * n, 64);
    words.extend(residual.then_some(out).into_iter().chain([out]));
    let scratch = memory.alloc(spec.scratch_bytes(), 64);
    let args = [memory.place_words(&words), 0, spec.tasks() as u64, scratch];
    process.load("product", &args, &mut memory)?;
    best_seconds(&mut process, "product", &args)
}

fn build_error(error: impl std::fmt::Display) -> RunError {
    RunError::Build(error.to_string())
}
