//! Ternary products on simulated matrix units: cycles of the chosen tile, how busy each pipe is, and the seconds that
//! search and simulation take on this host.
//!
//! `cargo bench -p tcc-tests --bench matrix` runs [`PRODUCTS`], with `-- MACHINE COSTS MxNxK ROW [TILE]` behind it that
//! one; ROW is of the target's menu; on machines whose cores are split it is not looked at, and TILE is a choice
//! ("stream i4hl r16").

use std::time::Instant;

use tcc_backends::isa::matrix::desc::MENU;
use tcc_backends::isa::matrix::lower::matmul::bound::bounds;
use tcc_backends::isa::matrix::lower::matmul::search;
use tcc_backends::isa::matrix::lower::matmul::tile::{Mode, Shape, Tile};
use tcc_backends::isa::matrix::lower::split::{self, choice::Choice};
use tcc_backends::isa::matrix::machine::preset::preset;
use tcc_backends::isa::matrix::machine::{Machine, OrganisationKind};
use tcc_backends::isa::matrix::program::CoreKind;
use tcc_backends::isa::matrix::program::addr::Queue;
use tcc_backends::isa::matrix::sim::memory::Gm;
use tcc_backends::isa::matrix::sim::report::CoreReport;
use tcc_backends::isa::matrix::sim::{self, Options};
use tcc_ir::encoding::Encoding;
use tcc_ir::kernel::ScaleKind;

/// Machine, costs of the vector unit, m × n × k, row of the menu.
const PRODUCTS: &[[&str; 4]] = &[
    ["lite-generic", "measured", "1x2560x2560", "i4hl-x128"],
    ["lite-generic", "measured", "1x6912x2560", "i8-x128"],
    ["lite-generic", "documented", "256x6912x2560", "i8-x128"],
    ["kirinx90", "measured", "256x6912x2560", "i8-x64"],
    ["kirinx90", "measured", "256x2560x6912", "i8-x128"],
    ["kirin9030", "documented", "256x6912x2560", "i8-x128"],
    ["ascend310b", "measured", "256x6912x2560", "i8-x64"],
    ["ascend310p", "measured", "256x6912x2560", "i8-x64"],
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if args.is_empty() {
        PRODUCTS.iter().for_each(|product| run(product));
    } else {
        run(&args);
    }
}

/// Chooses a tile, or takes the one given, and runs the product.
fn run(args: &[&str]) {
    let [name, costs, size, row, tile @ ..] = args else { panic!("expected MACHINE COSTS MxNxK ROW [TILE]") };
    let mut machine = preset(name).expect("a preset").expect("it parses");
    machine.vector.costs = (*costs).into();
    let dims: Vec<usize> = size.split('x').map(|n| n.parse().expect("a number")).collect();
    if machine.org.kind == OrganisationKind::Split {
        return run_split(&machine, &dims, tile.first().copied());
    }
    let row = MENU.iter().find(|known| known.name == *row).expect("a row of the menu");
    let Encoding::W2Nz(panel) = row.encoding else { panic!("fractals") };
    let shape = Shape { m: dims[0], n: dims[1], k: dims[2], panel, mode: Mode::of(panel), residual: false };
    let start = Instant::now();
    let tile: Tile = match tile.first() {
        Some(tile) => tile.parse().expect("a tile"),
        None => search::choose(&shape, &machine).expect("a tile"),
    };
    let searched = start.elapsed().as_secs_f64();
    let program = search::alone(&shape, tile, &machine).expect("it fits");
    let start = Instant::now();
    let report = sim::run(&program, &machine, &mut Gm::for_timing(&program), Options::default()).expect("it runs");
    let ran = start.elapsed().as_secs_f64();
    let core = &report.stages[0].cores[0];
    let (m, n, k) = (shape.m, shape.n, shape.k);
    let cycles = report.stages[0].cores.iter().map(|c| c.cycles).fold(0.0, f64::max);
    let cores = report.stages[0].cores.len() as f64;
    println!(
        "{name} {costs} {size} {}: {tile}: {cycles:.0} cycles, {:.1} % of peak, {:.1} % of 32 B/cycle; {} records; search {searched:.2} s, run {ran:.2} s",
        row.name,
        100.0 * (m * n * k) as f64 / 8192.0 / cycles / cores,
        100.0 * (n * k / 4) as f64 / 32.0 / cycles / cores,
        core.records,
    );
    let limits = bounds(&shape, &tile, &machine);
    let limits: Vec<String> = limits.iter().map(|b| format!("{} {:.1} %", b.pipe, 100.0 * b.cycles / cycles)).collect();
    println!("   limits: {}", limits.join(", "));
    print_core(core);
}

/// Bytes per cycle of a core, and its queues.
fn print_core(core: &CoreReport) {
    let cycles = core.cycles;
    println!("   hbm {:.1} B/cycle, l2 {:.1}", core.hbm_bytes as f64 / cycles, core.l2_bytes as f64 / cycles);
    for queue in Queue::ALL {
        let q = core.queue(queue);
        println!(
            "   {:5} busy {:5.1} %  ops {:7} full {:5.1} % gm {:5.1} % waits {:?}",
            queue.name(),
            100.0 * q.busy / core.cycles,
            q.operations,
            100.0 * q.full / core.cycles,
            100.0 * q.gm_share / core.cycles,
            q.wait.iter().map(|(k, v)| format!("{k} {:.1}", 100.0 * v / core.cycles)).collect::<Vec<_>>()
        );
    }
}

/// A product on cube and vector cores of their own, as chosen or given.
fn run_split(machine: &Machine, dims: &[usize], choice: Option<&str>) {
    let (m, n, k) = (dims[0], dims[1], dims[2]);
    let shape = split::search::Shape { m, n, k, scale: ScaleKind::PerTensor, bias: false, residual: false };
    let choice: Choice =
        choice.map_or_else(|| split::search::choose(&shape, machine), |text| text.parse().expect("a choice"));
    let program = split::search::alone(&shape, choice, machine).expect("it fits");
    for warm in [false, true] {
        let options = Options { warm, ..Options::default() };
        let report = sim::run(&program, machine, &mut Gm::for_timing(&program), options).expect("it runs");
        print_split(machine, dims, choice, warm, &report.stages[0].cores);
    }
}

/// What cube and vector cores took, with a cold L2 or a warm one.
fn print_split(machine: &Machine, dims: &[usize], choice: Choice, warm: bool, cores: &[CoreReport]) {
    let (m, n, k) = (dims[0], dims[1], dims[2]);
    let cycles = cores.iter().map(|core| core.cycles).fold(0.0, f64::max);
    let bytes: u64 = cores.iter().map(|core| core.l2_bytes).sum();
    let behind: u64 = cores.iter().map(|core| core.hbm_bytes).sum();
    let rate = machine.l2_bytes_per_cycle().expect("a rate");
    println!(
        "{} {} {m}x{n}x{k} {choice}, {} L2: {cycles:.0} cycles, {:.1} % of the int8 peak; {bytes} bytes through L2, {:.1} % of its time, {behind} behind it",
        machine.name,
        machine.vector.costs,
        if warm { "warm" } else { "cold" },
        100.0 * (m * n * k) as f64 / 8192.0 / f64::from(machine.cube_cores()) / cycles,
        100.0 * bytes as f64 / rate / cycles,
    );
    for kind in [CoreKind::Cube, CoreKind::Vector] {
        let of_kind = cores.iter().filter(|core| core.kind == kind);
        if let Some(core) = of_kind.max_by(|a, b| a.cycles.total_cmp(&b.cycles)) {
            println!("   slowest {kind:?} core: {:.0} cycles", core.cycles);
            print_core(core);
        }
    }
}
