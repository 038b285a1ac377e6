//! Speed of this host's micro-kernels: weights read per second from the second-level cache and from memory, and
//! multiply-accumulates per cycle. Best of many runs; prints one line per menu row.
//!
//! `cargo bench -p tcc-tests --bench micro [-- NAME]` runs the rows whose name contains NAME.

use tcc_backends::isa::{Backend, backend};
use tcc_ir::kernel::QuantLayout;
use tcc_ir::target::{MicroKernel, micro_args};
use tcc_tests::machines::MACHINES;
use tcc_tests::memory::Memory;
use tcc_tests::random::Rng;
use tcc_tests::runner::{RunError, Runner};
use tcc_tests::timing::{TRIES, best_seconds, clock_gigahertz};

/// Reduction length: that of a 2B model's hidden rows.
const K: usize = 2560;

/// Bytes of weights that stay in the second-level cache, and that no cache holds.
const SETS: [(&str, usize); 2] = [("L2", 384 << 10), ("DRAM", 96 << 20)];

fn main() -> Result<(), RunError> {
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let Some(host) = backend(std::env::consts::ARCH) else {
        println!("no backend for this host");
        return Ok(());
    };
    let machine = MACHINES.iter().find(|m| m.target == host.desc().name).expect("every target has a machine");
    let features = machine.features(host)?;
    let gigahertz = clock_gigahertz();
    println!("clock {gigahertz:.2} GHz; k {K}; best of {TRIES}");
    for row in host.desc().menu.iter().filter(|row| row.name.contains(&wanted)) {
        if !features.contains(host.desc().close(row.needs)) {
            println!("{:20} skipped: this core lacks {}", row.name, host.desc().feature_names(row.needs));
            continue;
        }
        for (memory, bytes) in SETS {
            if let Some((seconds, panels)) = measure(host, row, bytes)? {
                let weights = panels * row.encoding.nr() * K;
                let gmacs = (weights * row.mr) as f64 / seconds / 1e9;
                let gigabytes = bytes as f64 / seconds / 1e9;
                let per_cycle = gmacs / gigahertz;
                println!(
                    "{:20} {memory:4} {gigabytes:6.1} GB/s {gmacs:6.0} GMAC/s {per_cycle:6.1} MAC/cycle",
                    row.name
                );
            }
        }
    }
    Ok(())
}

/// Seconds of one pass over about `bytes` bytes of weights, and their panels; `None` for rows that are not assembled.
fn measure(host: &dyn Backend, row: &MicroKernel, bytes: usize) -> Result<Option<(f64, usize)>, RunError> {
    let Some(code) = host.micro(row, row.needs) else { return Ok(None) };
    let name = code.name.clone();
    let mut process = Runner::new(host, host.desc().baseline, vec![code])?.start(&[])?;
    let mut random = Rng::new(1);
    let layout = QuantLayout { k: K, sum_group: K };
    let nr = row.encoding.nr();
    // Two of five weights are zeros, about as in trained models.
    let trits: Vec<i8> = (0..nr * K).map(|_| [0, 0, 1, -1, 1, 0, -1, 1, -1, 0][random.below(10)]).collect();
    let mut panel = Vec::new();
    row.encoding.fitted_to(&trits, K).pack_panel(&trits, K, &mut panel);
    let panels = bytes / panel.len();
    let weights = panel.repeat(panels);
    let q: Vec<u8> = (0..row.mr * layout.stride_bytes()).map(|_| random.below(256) as u8).collect();

    let mut memory = Memory::new();
    let w = memory.place(&weights, 4096);
    let q = memory.place(&q, 64);
    let acc = memory.alloc(4 * panels * row.mr * row.encoding.nr(), 64);
    let scratch = memory.alloc(row.scratch_bytes, 64);
    let mut block = [0; micro_args::BYTES as usize / 8];
    for (at, value) in [
        (micro_args::ACC, acc),
        (micro_args::W, w),
        (micro_args::W_PANEL_STRIDE, panel.len() as u64),
        (micro_args::PANELS, panels as u64),
        (micro_args::Q, q),
        (micro_args::Q_STRIDE, layout.stride_bytes() as u64),
        (micro_args::K_BLOCKS, K.div_ceil(row.encoding.kr()) as u64),
        (micro_args::SCRATCH, scratch),
    ] {
        block[at as usize / 8] = value;
    }
    let args = [memory.place_words(&block)];
    process.load(&name, &args, &mut memory)?;
    Ok(Some((best_seconds(&mut process, &name, &args)?, panels)))
}
