//! Bytes: a product through every memory and layout, against a plain loop.

use half::f16;

use tcc_backends::isa::matrix::machine::preset::{PRESETS, preset};
use tcc_backends::isa::matrix::program::{CoreKind, SymbolId};
use tcc_backends::isa::matrix::sim::memory::Gm;
use tcc_backends::isa::matrix::sim::{Options, run};
use tcc_tests::cube_gemm::Gemm;
use tcc_tests::random::Rng;

/// Small integers: every order of summation is exact.
fn operand(rng: &mut Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| rng.below(17) as f32 - 8.0).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()
}

#[test]
fn products_are_exact_on_every_layout() {
    for (name, _) in PRESETS {
        let machine = preset(name).expect("a preset").expect("it parses");
        let kind = if machine.vector_cores() > 0 { CoreKind::Cube } else { CoreKind::Coupled };
        if machine.cube.contains_key("f16half") {
            continue;
        }
        for (step, unit_flag) in [(1, false), (2, false), (2, true)] {
            let cores = machine.cube_cores().min(2);
            let (m, n, k) = (32 * cores, 64, 128);
            let gemm = Gemm {
                m,
                n,
                k,
                bm: 16,
                bk: 32,
                bn: 32,
                step,
                core_m: 32,
                core_n: 64,
                grid: (cores, 1),
                f32_out: true,
                unit_flag,
            };
            let program = gemm.program(&machine, kind);
            let mut rng = Rng::named(name);
            let (a, b) = (operand(&mut rng, (m * k) as usize), operand(&mut rng, (n * k) as usize));
            let mut gm = Gm::new(&program);
            gm.bytes_mut(SymbolId(0)).copy_from_slice(&bytes(&a));
            gm.bytes_mut(SymbolId(1)).copy_from_slice(&bytes(&b));
            let options = Options { functional: true, check: true, ..Options::default() };
            let report = run(&program, &machine, &mut gm, options).expect("it runs");
            let found: Vec<_> = report.violations.iter().map(ToString::to_string).collect();
            assert!(found.is_empty(), "{name}: {found:#?}");
            let out: Vec<f32> = gm
                .bytes(SymbolId(2))
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")))
                .collect();
            for i in 0..m as usize {
                for j in 0..n as usize {
                    let k = k as usize;
                    let want: f32 = (0..k).map(|l| a[i * k + l] * b[j * k + l]).sum();
                    assert_eq!(out[i * n as usize + j], want, "{name}, step {step}, row {i}, column {j}");
                }
            }
        }
    }
}
