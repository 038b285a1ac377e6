//! Reads machine files.

use thiserror::Error;

use crate::isa::matrix::machine::tagged::{Latency, Tag, Tagged};
use crate::isa::matrix::machine::{
    Buffer, CubeMode, FORMAT, FractalOrder, Machine, OrganisationKind, Path, VectorUnit,
};
use crate::isa::matrix::program::ty::CubeType;
use crate::isa::matrix::program::vec::CostClass;

/// A machine file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MachineError {
    /// Not TOML, a key that is unknown or missing, a value of another type; the text names line and column.
    #[error("{0}")]
    Syntax(String),
    #[error("format {found}: this version reads format {FORMAT}")]
    Format { found: u32 },
    /// A value that no machine has.
    #[error("'{key}': {what}")]
    Value { key: String, what: String },
}

/// The machine that `text` describes.
pub fn parse(text: &str) -> Result<Machine, MachineError> {
    let machine: Machine = toml::from_str(text).map_err(|e| MachineError::Syntax(e.to_string().trim_end().into()))?;
    check(&machine)?;
    Ok(machine)
}

fn refuse(key: impl Into<String>, what: impl Into<String>) -> MachineError {
    MachineError::Value { key: key.into(), what: what.into() }
}

/// What the types do not say.
pub fn check(machine: &Machine) -> Result<(), MachineError> {
    if machine.format != FORMAT {
        return Err(MachineError::Format { found: machine.format });
    }
    organisation(machine)?;
    buffers(machine)?;
    paths(machine)?;
    cube(machine)?;
    vector(machine)?;
    let depth = &machine.queue.depth;
    for (name, d) in [
        ("v", depth.v),
        ("m", depth.m),
        ("mte1", depth.mte1),
        ("mte2", depth.mte2),
        ("mte3", depth.mte3),
        ("fix", depth.fix),
    ] {
        in_range(&format!("queue.depth.{name}"), d.value, 1, 4096)?;
    }
    in_range("flag.ids", machine.flag.ids.value, 1, 8)?;
    time("flag.hop", machine.flag.hop.value)?;
    time("flag.cross_hop", machine.flag.cross_hop.value)?;
    time("scalar.issue", machine.scalar.issue.value)?;
    time("scalar.load", machine.scalar.load.value)?;
    time("gm.launch_us", machine.gm.launch_us.value)?;
    let rates = [
        ("clock_ghz", machine.clock_ghz),
        ("gm.hbm_tbs", machine.gm.hbm_tbs),
        ("gm.l2_tbs", machine.gm.l2_tbs),
        ("gm.hbm_bytes_per_cycle", machine.gm.hbm_bytes_per_cycle),
        ("gm.l2_bytes_per_cycle", machine.gm.l2_bytes_per_cycle),
    ];
    rates.iter().try_for_each(|(key, value)| value.map_or(Ok(()), |v: Tagged<f64>| rate(key, v.value)))
}

fn in_range(key: &str, value: u32, low: u32, high: u32) -> Result<(), MachineError> {
    if (low..=high).contains(&value) { Ok(()) } else { Err(refuse(key, format!("{value} is outside {low}..={high}"))) }
}

/// Finite and above 0.
fn rate(key: &str, value: f64) -> Result<(), MachineError> {
    let is_rate = value.is_finite() && value > 0.0;
    if is_rate { Ok(()) } else { Err(refuse(key, format!("{value} is no rate: expected a number above 0"))) }
}

/// Finite and not negative.
fn time(key: &str, value: f64) -> Result<(), MachineError> {
    let is_time = value.is_finite() && value >= 0.0;
    if is_time { Ok(()) } else { Err(refuse(key, format!("{value} is no time: expected 0 or more"))) }
}

fn latency(key: &str, latency: Latency) -> Result<(), MachineError> {
    time(key, latency.alone)?;
    time(key, latency.back_to_back)
}

fn organisation(machine: &Machine) -> Result<(), MachineError> {
    let org = &machine.org;
    in_range("org.cores", org.cores.value, 1, 256)?;
    match (org.kind, org.vector_per_cube) {
        (OrganisationKind::Split, Some(per)) => in_range("org.vector_per_cube", per.value, 1, 8)?,
        (OrganisationKind::Coupled, None) => {}
        (OrganisationKind::Split, None) => return Err(refuse("org.vector_per_cube", "missing: split cores need it")),
        (OrganisationKind::Coupled, Some(_)) => {
            return Err(refuse("org.vector_per_cube", "coupled cores have their vector unit inside"));
        }
    }
    match org.cross_core_modes.iter().find(|m| ![0, 1, 2, 4].contains(*m)) {
        Some(mode) => Err(refuse("org.cross_core_modes", format!("{mode} is none of 0, 1, 2, 4"))),
        None => Ok(()),
    }
}

fn buffers(machine: &Machine) -> Result<(), MachineError> {
    let b = &machine.buffer;
    let known = [
        ("l1", Some(&b.l1)),
        ("l0a", Some(&b.l0a)),
        ("l0b", Some(&b.l0b)),
        ("l0c", Some(&b.l0c)),
        ("ub", Some(&b.ub)),
        ("bt", b.bt.as_ref()),
        ("fb", b.fb.as_ref()),
    ];
    for (name, buffer) in known {
        if let Some(buffer) = buffer {
            check_buffer(name, buffer)?;
        }
    }
    let order = |name: &str, buffer: &Buffer, allowed: &[FractalOrder]| match buffer.fractal {
        Some(order) if allowed.contains(&order) => Ok(()),
        Some(_) | None => Err(refuse(format!("buffer.{name}.fractal"), format!("expected one of {allowed:?}"))),
    };
    order("l1", &b.l1, &[FractalOrder::Nz])?;
    order("l0a", &b.l0a, &[FractalOrder::Zz, FractalOrder::Nz])?;
    order("l0b", &b.l0b, &[FractalOrder::Zn])?;
    order("l0c", &b.l0c, &[FractalOrder::Nz])
}

fn check_buffer(name: &str, buffer: &Buffer) -> Result<(), MachineError> {
    let key = |field: &str| format!("buffer.{name}.{field}");
    in_range(&key("size"), buffer.size.value, 64, 1 << 26)?;
    for (field, align) in [("align", Some(buffer.align)), ("mmad_align", buffer.mmad_align)] {
        if align.is_some_and(|a| !a.is_power_of_two() || a > 4096) {
            return Err(refuse(key(field), "expected a power of two, at most 4096"));
        }
    }
    in_range(&key("reserved"), buffer.reserved, 0, buffer.size.value - 1)
}

fn paths(machine: &Machine) -> Result<(), MachineError> {
    let p = &machine.path;
    let known: [(&str, Option<&Path>); 11] = [
        ("gm_l1", Some(&p.gm_l1)),
        ("gm_ub", Some(&p.gm_ub)),
        ("l1_l0a", Some(&p.l1_l0a)),
        ("l1_l0b", Some(&p.l1_l0b)),
        ("l1_bt", p.l1_bt.as_ref()),
        ("l1_fb", p.l1_fb.as_ref()),
        ("l0c_gm", Some(&p.l0c_gm)),
        ("l0c_l1", p.l0c_l1.as_ref()),
        ("l0c_ub", p.l0c_ub.as_ref()),
        ("ub_gm", Some(&p.ub_gm)),
        ("ub_l1", p.ub_l1.as_ref()),
    ];
    for (name, path) in known.into_iter().filter_map(|(name, path)| path.map(|p| (name, p))) {
        rate(&format!("path.{name}.rate"), path.rate.value)?;
        path.elements.map_or(Ok(()), |e| rate(&format!("path.{name}.elements"), e.value))?;
        latency(&format!("path.{name}.dt"), path.dt)?;
        let rows = &path.nz_rate_by_row;
        if rows.windows(2).any(|w| w[0].0 >= w[1].0 || w[0].1 > w[1].1) {
            return Err(refuse(format!("path.{name}.nz_rate_by_row"), "rows and rates must increase"));
        }
        rows.iter().try_for_each(|r| rate(&format!("path.{name}.nz_rate_by_row"), r.1))?;
    }
    Ok(())
}

fn cube(machine: &Machine) -> Result<(), MachineError> {
    for (name, mode) in &machine.cube {
        let key = format!("cube.{name}");
        let Some(ty) = CubeType::ALL.iter().find(|t| t.name() == name) else {
            let known: Vec<_> = CubeType::ALL.iter().map(|t| t.name()).collect();
            return Err(refuse(key, format!("no such mode; known are {}", known.join(", "))));
        };
        check_mode(&key, *ty, mode)?;
    }
    Ok(())
}

fn check_mode(key: &str, ty: CubeType, mode: &CubeMode) -> Result<(), MachineError> {
    let [m, k, n] = mode.mkn;
    let is_step = m == 16 && [8, 16].contains(&n) && k == ty.k0();
    if !is_step {
        return Err(refuse(format!("{key}.mkn"), format!("{m} x {k} x {n}: expected 16 x {} x 8 or 16", ty.k0())));
    }
    in_range(&format!("{key}.k_per_cycle"), mode.k_per_cycle, 1, k)?;
    latency(&format!("{key}.dt"), mode.dt)
}

fn vector(machine: &Machine) -> Result<(), MachineError> {
    let v = &machine.vector;
    in_range("vector.bytes", v.bytes.value, 256, 256)?;
    latency("vector.head", v.head)?;
    time("vector.unaligned", v.unaligned.value)?;
    let Some(_) = v.slope.get(&v.costs) else {
        let known: Vec<_> = v.slope.keys().map(String::as_str).collect();
        return Err(refuse("vector.costs", format!("no table '{}'; there are {}", v.costs, known.join(", "))));
    };
    for (name, table) in &v.slope {
        for class in CostClass::ALL {
            match table.get(&class) {
                Some(slope) => rate(&format!("vector.slope.{name}"), slope.value)?,
                None => return Err(refuse(format!("vector.slope.{name}"), format!("has no {class:?}"))),
            }
        }
    }
    Ok(())
}

impl Machine {
    /// The machine with another vector cost table in use.
    pub fn with_vector_costs(self, table: &str) -> Result<Machine, MachineError> {
        let machine = Machine { vector: VectorUnit { costs: table.into(), ..self.vector }, ..self };
        check(&machine)?;
        Ok(machine)
    }

    /// The machine with a clock and a DDR rate (bytes per cycle, all cores) that the user gives.
    pub fn with_user_rates(self, clock_ghz: Option<f64>, gm_rate: Option<f64>) -> Result<Machine, MachineError> {
        let given = |value| Tagged { value, tag: Tag::User };
        let mut machine = self;
        machine.clock_ghz = clock_ghz.map(given).or(machine.clock_ghz);
        if let Some(bytes) = gm_rate {
            machine.gm.hbm_tbs = None;
            machine.gm.hbm_bytes_per_cycle = Some(given(bytes));
        }
        check(&machine)?;
        Ok(machine)
    }
}
