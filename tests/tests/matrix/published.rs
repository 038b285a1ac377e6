//! Timings that the vendor published for plain products, as gates; `docs/matrix.md` says which constants they fix.

use tcc_backends::isa::matrix::machine::Machine;
use tcc_backends::isa::matrix::machine::preset::preset;
use tcc_backends::isa::matrix::program::CoreKind;
use tcc_backends::isa::matrix::program::addr::Queue;
use tcc_backends::isa::matrix::sim::memory::Gm;
use tcc_backends::isa::matrix::sim::report::StageReport;
use tcc_backends::isa::matrix::sim::{Options, run};
use tcc_tests::cube_gemm::Gemm;

fn machine(name: &str) -> Machine {
    preset(name).expect("a preset").expect("it parses")
}

fn simulate(gemm: &Gemm, machine: &Machine) -> StageReport {
    let program = gemm.program(machine, CoreKind::Cube);
    let mut gm = Gm::for_timing(&program);
    let report = run(&program, machine, &mut gm, Options::default()).expect("it runs");
    report.stages.into_iter().next().expect("one stage")
}

/// Mean over the cores of a queue's busy cycles.
fn busy(stage: &StageReport, queue: Queue) -> f64 {
    stage.mean(CoreKind::Cube, |c| c.queue(queue).busy)
}

/// Id, machine, clock, bm, bn, µs of aicore, mac, MTE1, MTE2.
type Single = (&'static str, &'static str, f64, u32, u32, [f64; 4]);

/// One core, single-buffered, 8192³.
const SINGLE: [Single; 3] = [
    ("V03", "ascend910b", 1.85, 64, 64, [759_363.46, 141_699.459, 162_104.184, 582_515.828]),
    ("V04", "ascend910b", 1.85, 128, 256, [249_466.54, 81_477.188, 52_003.703, 195_613.432]),
    ("V13", "ascend950pr", 1.65, 64, 64, [1_096_625.66, 198_351.65, 115_705.132, 960_571.993]),
];

/// Cycles per tile of a part of the published product with the same k; the published ones are 8192³.
#[test]
fn single_buffered_tiles_take_the_published_cycles() {
    for (id, name, ghz, bm, bn, published) in SINGLE {
        let (m, n, k, bk) = (2 * bm, 2 * bn, 8192, 64);
        let (core_m, core_n, grid) = (m, n, (1, 1));
        let gemm = Gemm { m, n, k, bm, bk, bn, step: 1, core_m, core_n, grid, f32_out: true, unit_flag: false };
        let stage = simulate(&gemm, &machine(name));
        let tiles = f64::from((m / bm) * (n / bn) * (k / bk));
        let all = f64::from((8192 / bm) * (8192 / bn) * (8192 / bk));
        let [period, mac, mte1, mte2] = published.map(|us| us * ghz * 1000.0 / all);
        let ours =
            [stage.cores[0].cycles, busy(&stage, Queue::M), busy(&stage, Queue::Mte1), busy(&stage, Queue::Mte2)]
                .map(|cycles| cycles / tiles);
        println!("{id}: {ours:.1?}, published {:.1?}", [period, mac, mte1, mte2]);
        assert!((ours[0] / period - 1.0).abs() < 0.01, "{id}: {} cycles per tile, published {period}", ours[0]);
        assert!((ours[1] - mac).abs() < 1.01, "{id}: {} cycles per product, published {mac}", ours[1]);
        assert!((ours[2] - mte1).abs() < 1.01, "{id}: {} cycles of MTE1, published {mte1}", ours[2]);
        assert!((ours[3] / mte2 - 1.0).abs() < 0.01, "{id}: {} cycles of MTE2, published {mte2}", ours[3]);
    }
}

/// A product on all cores: what was published, in µs.
struct Row {
    id: &'static str,
    machine: &'static str,
    ghz: f64,
    gemm: Gemm,
    task: f64,
    aicore: f64,
    mac: f64,
    mte1: f64,
    mte2: f64,
    /// False where the cube binds: MTE2 then is a lower bound.
    gate_mte2: bool,
}

fn rows() -> Vec<Row> {
    let b910 = |size, core: (u32, u32), f32_out, unit_flag| Gemm {
        m: size,
        n: size,
        k: size,
        bm: 128,
        bk: 64,
        bn: 256,
        step: 4,
        core_m: core.0,
        core_n: core.1,
        grid: (4, 6),
        f32_out,
        unit_flag,
    };
    let pr = |f32_out, unit_flag| Gemm {
        bm: 256,
        core_m: 2048,
        core_n: 1024,
        grid: (4, 8),
        ..b910(8192, (0, 0), f32_out, unit_flag)
    };
    let a = |id, gemm, task, aicore, [mac, mte1, mte2]: [f64; 3]| Row {
        id,
        machine: "ascend910b",
        ghz: 1.85,
        gemm,
        task,
        aicore,
        mac,
        mte1,
        mte2,
        gate_mte2: true,
    };
    let b = |id, gemm, task, aicore, [mac, mte1, mte2]: [f64; 3]| Row {
        id,
        machine: "ascend950pr",
        ghz: 1.65,
        gemm,
        task,
        aicore,
        mac,
        mte1,
        mte2,
        gate_mte2: false,
    };
    let large = |f32_out, unit_flag| b910(8192, (2048, 1536), f32_out, unit_flag);
    vec![
        // The part's row states ratios and the task alone.
        a("V02", b910(6144, (1536, 1024), true, false), 1506.0, 1506.0, [1305.7, 1025.6, 1433.7]),
        a("V06", large(false, false), 4053.44, 3665.12, [3163.682, 2609.617, 3513.806]),
        a("V07", large(false, true), 4012.44, 3559.06, [3076.396, 2533.512, 3435.584]),
        a("V08", large(false, true), 4121.16, 3670.7, [3081.664, 2538.348, 3552.248]),
        a("V09", large(false, true), 4081.64, 3636.85, [3082.158, 2553.064, 3487.068]),
        a("V10", large(true, true), 4227.605, 3760.55, [3083.197, 2516.081, 3685.713]),
        b("V14", pr(false, false), 2589.09, 2588.38, [2547.049, 827.939, 1895.165]),
        b("V15", pr(false, true), 2558.155, 2557.49, [2549.657, 835.579, 1900.322]),
        b("V16", pr(false, true), 2572.047, 2571.44, [2564.813, 828.001, 1874.267]),
        b("V17", pr(false, true), 2574.492, 2573.39, [2564.147, 819.207, 1892.742]),
        b("V18", pr(true, true), 2601.311, 2600.55, [2593.264, 816.91, 1875.057]),
    ]
}

#[test]
fn many_core_products_are_within_ten_percent() {
    let mut failures = vec![];
    for row in rows() {
        let stage = simulate(&row.gemm, &machine(row.machine));
        let us = |cycles: f64| cycles / row.ghz / 1000.0;
        let (task, aicore) = (us(stage.task_cycles()), us(stage.mean(CoreKind::Cube, |c| c.cycles)));
        let ratio = |queue| us(busy(&stage, queue)) / aicore * 100.0;
        let ours = [ratio(Queue::M), ratio(Queue::Mte1), ratio(Queue::Mte2)];
        let published = [row.mac, row.mte1, row.mte2].map(|us| us / row.aicore * 100.0);
        let off = [task / row.task, aicore / row.aicore].map(|r| (r - 1.0) * 100.0);
        println!(
            "{}: task {:+.1} %, aicore {:+.1} %, ratios {ours:.1?}, published {published:.1?}",
            row.id, off[0], off[1]
        );
        failures.extend(off.iter().filter(|o| o.abs() > 10.0).map(|o| format!("{}: {o:+.1} %", row.id)));
        for (i, name) in ["mac", "MTE1", "MTE2"].iter().enumerate() {
            let is_gated = i < 2 || row.gate_mte2;
            if is_gated && (ours[i] - published[i]).abs() > 6.0 {
                failures.push(format!("{}: {name} {:.1} %, published {:.1} %", row.id, ours[i], published[i]));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// More of anything is never slower.
#[test]
fn a_better_machine_is_never_slower() {
    let gemm = Gemm { m: 512, n: 1024, k: 1024, core_m: 256, core_n: 512, grid: (2, 2), ..rows()[1].gemm };
    let base = machine("ascend910b");
    let cycles = |machine: &Machine| simulate(&gemm, machine).task_cycles();
    let slow = cycles(&base);
    type Improvement = (&'static str, fn(&mut Machine));
    let improve: [Improvement; 7] = [
        ("GM to L1", |m| m.path.gm_l1.nz_rate_by_row.iter_mut().for_each(|r| r.1 *= 1.3)),
        ("L1 to L0B", |m| m.path.l1_l0b.rate.value *= 1.3),
        ("L0C to GM", |m| m.path.l0c_gm.rate.value *= 1.3),
        ("HBM", |m| m.gm.hbm_tbs.as_mut().expect("known").value *= 1.3),
        ("L2", |m| m.gm.l2_bytes.value *= 2),
        ("queues", |m| m.queue.depth.m.value *= 2),
        ("cube latency", |m| m.cube.get_mut("f16").expect("known").dt.alone = 40.0),
    ];
    for (what, better) in improve {
        let mut machine = base.clone();
        better(&mut machine);
        let fast = cycles(&machine);
        assert!(fast <= slow + 1e-6, "{what}: {fast} cycles, {slow} before");
    }
}
