//! Speed of this host's kernels of a screened head with the width of a 2B model: bytes of the screen per second, of the
//! high planes and of the records of all rows. Best of many runs; prints one line per level, set of features and memory.
//!
//! `cargo bench -p tcc-tests --bench screen`

use tcc_backends::clif::ClifContext;
use tcc_backends::clif::kernel::emit_kernel;
use tcc_backends::clif::micro::emit_callees;
use tcc_backends::isa::{Backend, backend};
use tcc_ir::kernel::{KernelSpec, args};
use tcc_ir::screen::ScreenLayout;
use tcc_ir::screen::kernel::ScreenKernel;
use tcc_ir::screen::query::QueryLayout;
use tcc_ir::target::Features;
use tcc_tests::machines::MACHINES;
use tcc_tests::memory::Memory;
use tcc_tests::runner::{RunError, Runner};
use tcc_tests::timing::best_seconds;

const K: usize = 2560;

/// Rows of a head whose screen stays in the second-level cache, and of one that no cache holds.
const HEADS: [(&str, usize); 2] = [("L2", 256), ("DRAM", 65_536)];

/// Every byte of screen and query: scales are small, and no sum is subnormal.
const FILL: u8 = 0x3c;

fn main() -> Result<(), RunError> {
    let Some(host) = backend(std::env::consts::ARCH) else {
        println!("no backend for this host");
        return Ok(());
    };
    let machine = MACHINES.iter().find(|m| m.target == host.desc().name).expect("every target has a machine");
    for features in [host.desc().baseline, machine.features(host)?] {
        println!("k {K}; {}", host.desc().feature_names(features));
        for (memory, n) in HEADS {
            let layout = ScreenLayout { n, k: K };
            for (step, bytes) in [
                (ScreenKernel::High, layout.panels() * layout.panel_bytes()),
                (ScreenKernel::Low, n * layout.record_bytes()),
            ] {
                let seconds = measure(host, features, layout, step, machine.emulator_args)?;
                println!("{:12} {memory:4} {:6.1} GB/s", step.family(), bytes as f64 / seconds / 1e9);
            }
        }
    }
    Ok(())
}

/// Seconds of one call for all rows; none of them is dropped.
fn measure(
    host: &dyn Backend,
    features: Features,
    layout: ScreenLayout,
    step: ScreenKernel,
    emulator_args: &[&str],
) -> Result<f64, RunError> {
    let spec = KernelSpec::Screen { layout, step };
    let build = |e| RunError::Build(format!("{e}"));
    let cx = ClifContext::new(host, features).map_err(build)?;
    let mut functions = vec![emit_kernel(&cx, &spec, "level").map_err(build)?];
    functions.extend(emit_callees(&cx, host, [&spec]).map_err(build)?);
    let mut process = Runner::new(host, features, functions)?.start(emulator_args)?;

    let mut memory = Memory::new();
    let mut query = vec![FILL; QueryLayout::new(&layout).bytes()];
    let threshold = usize::try_from(QueryLayout::THRESHOLD).expect("an offset");
    query[threshold..threshold + 4].copy_from_slice(&f32::MIN.to_le_bytes());
    let mut words = vec![0, 1, memory.alloc(4, 64), memory.place(&query, 64)];
    words.push(memory.place(&vec![FILL; layout.bytes()], 4096));
    words.push(memory.alloc(4 * layout.n, 64));
    // The panels' largest, and their counts where the level has them.
    while words.len() < args::FIRST + step.operands() {
        words.push(memory.alloc(4 * layout.panels(), 64));
    }
    let scratch = memory.alloc(spec.scratch_bytes(), 64);
    let call = [memory.place_words(&words), 0, spec.tasks() as u64, scratch];
    process.load("level", &call, &mut memory)?;
    best_seconds(&mut process, "level", &call)
}
