//! `tcc targets`: what can be compiled for.

use serde_json::{Value, json};
use tcc_backends::isa::BACKENDS;
use tcc_backends::isa::matrix::desc::{MENU, NAME};
use tcc_backends::isa::matrix::machine::preset::PRESETS;
use tcc_ir::target::{Features, TargetDesc};

use super::Cx;
use crate::error::Error;

pub(super) fn run(cx: &Cx) -> Result<(), Error> {
    let descs: Vec<_> = BACKENDS.iter().map(|b| b.desc()).collect();
    if cx.json {
        let list: Vec<Value> = descs.iter().map(|d| describe(d)).collect();
        let machines: Vec<_> = PRESETS.iter().map(|(name, _)| *name).collect();
        println!("{}", json!({ "targets": list, "matrix_units": machines }));
        return Ok(());
    }
    for desc in descs {
        println!("{}  (baseline: {})", desc.name, desc.feature_names(desc.baseline));
        let features: Vec<_> = desc.features.iter().map(|f| f.name).collect();
        println!("  features  {}", features.join(" "));
        if desc.granted != Features::NONE {
            println!("  granted   {}: by the system, to a process that asks", desc.feature_names(desc.granted));
        }
        if desc.tuning != Features::NONE {
            println!("  tuning    {}: what is faster, not what is possible", desc.feature_names(desc.tuning));
        }
        for cpu in desc.cpus {
            println!("  cpu       {:<18} {}", cpu.name, desc.feature_names(cpu.features));
        }
        for row in desc.menu {
            let needs = desc.feature_names(row.needs.without(desc.baseline));
            let vlen = if row.vlen == 0 { String::new() } else { format!(" vlen {}", row.vlen) };
            println!(
                "  kernel    {:<24} {:<12} m {:<2} needs {}{vlen}",
                row.name,
                row.encoding.to_string(),
                row.mr,
                or_baseline(&needs)
            );
        }
        println!();
    }
    matrix_units();
    Ok(())
}

/// The matrix unit's presets and encodings.
fn matrix_units() {
    println!("{}  (simulated: tcc eval -t {0} --machine NAME|FILE)", NAME);
    for (name, _) in PRESETS {
        println!("  machine   {name}");
    }
    for row in MENU {
        println!("  product   {:<24} {}", row.name, row.encoding);
    }
}

fn or_baseline(needs: &str) -> &str {
    if needs.is_empty() { "baseline" } else { needs }
}

fn describe(desc: &TargetDesc) -> Value {
    json!({
        "name": desc.name,
        "baseline": desc.feature_names(desc.baseline),
        "features": desc.features.iter().map(|f| f.name).collect::<Vec<_>>(),
        "granted": desc.feature_names(desc.granted),
        "tuning": desc.feature_names(desc.tuning),
        "cpus": desc.cpus.iter().map(|c| json!({ "name": c.name, "features": desc.feature_names(c.features) })).collect::<Vec<_>>(),
        "kernels": desc.menu.iter().map(|row| json!({
            "name": row.name,
            "needs": desc.feature_names(row.needs),
            "vlen": row.vlen,
            "encoding": row.encoding.to_string(),
            "m": row.mr,
            "max_k": row.max_k,
        })).collect::<Vec<_>>(),
    })
}
