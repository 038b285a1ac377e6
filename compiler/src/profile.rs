//! Measured rates of one machine: `tcc tune` writes them, `--profile` reads them, and the scheduler uses them instead
//! of the estimates in the target's description. Without a profile nothing is measured and nothing changes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tcc_ir::encoding::{ENCODINGS, Encoding};
use tcc_ir::target::{Features, Memory, MicroKernel, TargetDesc};
use thiserror::Error;

/// Version of the file's layout.
pub const VERSION: u32 = 2;

/// A profile as its file holds it: names in order, no dates, no paths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// [`VERSION`].
    pub tcc_profile: u32,
    /// Short name of the target, as in its description.
    pub target: String,
    /// The processor's own name.
    pub cpu: String,
    /// Names of its CPU features, joined by commas: kernels that need others were not measured.
    pub features: String,
    /// Bytes of a core's share of each cache; those left out stay as described.
    pub bytes: BTreeMap<String, usize>,
    /// Read bandwidth of one core by memory; those left out stay as described.
    pub bytes_per_cycle: BTreeMap<String, f32>,
    /// Rate by menu row, fed from the nearest memory; those left out stay as described.
    pub macs_per_cycle: BTreeMap<String, f32>,
    /// Output rows of a task by encoding; those left out follow from the caches.
    pub task_rows: BTreeMap<String, usize>,
}

/// Why a profile cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ProfileError {
    #[error("the profile is not one: {reason}")]
    Syntax { reason: String },
    #[error("the profile has version {found}, expected {VERSION}")]
    Version { found: u32 },
    #[error("the profile is of target '{found}', expected '{expected}'")]
    Target { found: String, expected: &'static str },
    #[error("the profile names the {what} '{found}', which target '{target}' does not have; known: {known}")]
    Name { what: &'static str, found: String, target: &'static str, known: String },
    #[error("the profile gives '{name}' the value {found}, expected a positive number")]
    Rate { name: String, found: String },
    #[error("the profile was measured without {missing}, which the code may use: it is of '{cpu}' with {features}")]
    Features { missing: String, cpu: String, features: String },
    #[error("the profile is of '{found}', this machine is '{expected}'")]
    Cpu { found: String, expected: String },
}

impl Profile {
    /// Reads the text of a profile.
    pub fn parse(text: &str) -> Result<Profile, ProfileError> {
        let profile: Profile =
            serde_json::from_str(text).map_err(|e| ProfileError::Syntax { reason: e.to_string() })?;
        if profile.tcc_profile != VERSION {
            return Err(ProfileError::Version { found: profile.tcc_profile });
        }
        for (name, rate) in profile.bytes_per_cycle.iter().chain(&profile.macs_per_cycle) {
            if !(rate.is_finite() && *rate > 0.0) {
                return Err(ProfileError::Rate { name: name.clone(), found: rate.to_string() });
            }
        }
        for (name, count) in profile.bytes.iter().chain(&profile.task_rows) {
            if *count == 0 {
                return Err(ProfileError::Rate { name: name.clone(), found: "0".into() });
            }
        }
        Ok(profile)
    }

    /// The text that [`Profile::parse`] reads: the same rates, the same bytes.
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("names and finite numbers") + "\n"
    }

    /// `desc` with these rates. It is never freed: a process reads one profile for each of a few targets.
    ///
    /// Errors: a profile of another target, or of a machine without one of `features`; names that the target does not have.
    pub fn apply(&self, desc: &'static TargetDesc, features: Features) -> Result<&'static TargetDesc, ProfileError> {
        if self.target != desc.name {
            return Err(ProfileError::Target { found: self.target.clone(), expected: desc.name });
        }
        let had: Vec<&str> = self.features.split(',').collect();
        let features = features.without(desc.tuning);
        let missing = desc.features.iter().filter(|f| features.contains(f.bit) && !had.contains(&f.name));
        let missing: Vec<&str> = missing.map(|f| f.name).collect();
        if !missing.is_empty() {
            let (cpu, features) = (self.cpu.clone(), self.features.clone());
            return Err(ProfileError::Features { missing: missing.join(", "), cpu, features });
        }
        self.check_names(desc)?;
        let memory = |memory: &Memory| Memory {
            bytes: self.bytes.get(memory.name).copied().unwrap_or(memory.bytes),
            bytes_per_cycle: self.bytes_per_cycle.get(memory.name).copied().unwrap_or(memory.bytes_per_cycle),
            ..*memory
        };
        let row = |row: &MicroKernel| MicroKernel {
            macs_per_cycle: self.macs_per_cycle.get(row.name).copied().unwrap_or(row.macs_per_cycle),
            ..*row
        };
        let memories = Vec::leak(desc.memories.iter().map(memory).collect());
        let menu = Vec::leak(desc.menu.iter().map(row).collect());
        let rows = |e: &Encoding| self.task_rows.get(&e.to_string()).map(|rows| (*e, *rows));
        let task_rows = Vec::leak(ENCODINGS.iter().filter_map(rows).collect());
        Ok(Box::leak(Box::new(TargetDesc { memories, menu, task_rows, ..*desc })))
    }

    /// Fails for names that `desc` does not have.
    fn check_names(&self, desc: &TargetDesc) -> Result<(), ProfileError> {
        let memories: Vec<String> = desc.memories.iter().map(|memory| memory.name.to_owned()).collect();
        let rows: Vec<String> = desc.menu.iter().map(|row| row.name.to_owned()).collect();
        let encodings: Vec<String> = ENCODINGS.iter().map(ToString::to_string).collect();
        let names = |map: &BTreeMap<String, f32>| map.keys().cloned().collect::<Vec<_>>();
        let counted = |map: &BTreeMap<String, usize>| map.keys().cloned().collect::<Vec<_>>();
        for (what, known, used) in [
            ("memory", &memories, counted(&self.bytes)),
            ("memory", &memories, names(&self.bytes_per_cycle)),
            ("kernel", &rows, names(&self.macs_per_cycle)),
            ("encoding", &encodings, counted(&self.task_rows)),
        ] {
            if let Some(found) = used.into_iter().find(|name| !known.contains(name)) {
                return Err(ProfileError::Name { what, found, target: desc.name, known: known.join(", ") });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcc_ir::encoding::bitmap::Density;

    use crate::schedule::{Machine, Shape, choose, choose_encoding};
    use crate::target::{TargetRequest, resolve};

    /// A machine that has every kernel of its target.
    fn machine() -> Machine {
        let request = TargetRequest { target: Some("x86_64".into()), ..TargetRequest::default() };
        let desc = resolve(&request, Vec::new).expect("a known target").machine.desc;
        let features = desc.features.iter().fold(Features::NONE, |set, feature| set.with(feature.bit));
        Machine { desc, features, vlen: 0 }
    }

    const FEATURES: &str = "avx2,fma,bmi,f16c,avxvnni,avx512,avx512vnni,avx512vbmi,amxint8";

    fn profile(change: impl FnOnce(&mut Profile)) -> Profile {
        let mut profile = Profile {
            tcc_profile: VERSION,
            target: "x86_64".into(),
            cpu: "a test".into(),
            features: FEATURES.into(),
            bytes: BTreeMap::new(),
            bytes_per_cycle: BTreeMap::from([("DRAM".into(), 8.0)]),
            macs_per_cycle: BTreeMap::new(),
            task_rows: BTreeMap::new(),
        };
        change(&mut profile);
        profile
    }

    #[test]
    fn text_is_read_again() {
        let profile = profile(|p| _ = p.macs_per_cycle.insert("avx2-m1".into(), 33.5));
        assert_eq!(Profile::parse(&profile.text()), Ok(profile));
    }

    #[test]
    fn wrong_profiles_say_what_is_wrong() {
        let parse = |p: Profile| Profile::parse(&p.text());
        assert_eq!(parse(profile(|p| p.tcc_profile = 1)), Err(ProfileError::Version { found: 1 }));
        let zero = profile(|p| _ = p.macs_per_cycle.insert("avx2-m1".into(), 0.0));
        assert_eq!(parse(zero), Err(ProfileError::Rate { name: "avx2-m1".into(), found: "0".into() }));
        let syntax = |text: &str| matches!(Profile::parse(text), Err(ProfileError::Syntax { .. }));
        assert!(syntax(""));
        assert!(syntax(&profile(|_| {}).text().replace("cpu", "gpu")), "unknown fields are refused");
        let apply = |p: Profile| p.apply(machine().desc, machine().features).map(|desc| desc.name);
        let other = apply(profile(|p| p.target = "riscv64".into()));
        assert_eq!(other, Err(ProfileError::Target { found: "riscv64".into(), expected: "x86_64" }));
        let unknown = apply(profile(|p| _ = p.macs_per_cycle.insert("morse-m1".into(), 1.0)));
        assert!(matches!(unknown, Err(ProfileError::Name { what: "kernel", .. })), "{unknown:?}");
        let unknown = apply(profile(|p| _ = p.bytes_per_cycle.insert("drum".into(), 1.0)));
        assert!(matches!(unknown, Err(ProfileError::Name { what: "memory", .. })), "{unknown:?}");
        let unknown = apply(profile(|p| _ = p.task_rows.insert("i2x5".into(), 64)));
        assert!(matches!(unknown, Err(ProfileError::Name { what: "encoding", .. })), "{unknown:?}");
        let fewer = apply(profile(|p| p.features = "avx2,fma,bmi,f16c,avx512,avx512vnni".into()));
        assert!(
            matches!(fewer, Err(ProfileError::Features { missing, .. }) if missing == "avxvnni, avx512vbmi, amxint8")
        );
        let empty = parse(profile(|p| _ = p.bytes.insert("L1".into(), 0)));
        assert_eq!(empty, Err(ProfileError::Rate { name: "L1".into(), found: "0".into() }));
    }

    /// What was measured of caches and tasks decides the rows of a task.
    #[test]
    fn tiles_follow_the_profile() {
        let rows = |change: fn(&mut Profile)| {
            let desc = profile(change).apply(machine().desc, machine().features).expect("known names");
            let machine = Machine { desc, ..machine() };
            choose(&machine, 1, 4096, 1024, Encoding::I2 { nr: 16 }).expect("a kernel").levels[0].rows
        };
        // Panels of 16 rows have 4 KiB.
        let sizes: [usize; 3] = [
            rows(|p| _ = p.bytes.insert("L1".into(), 32 << 10)),
            rows(|p| _ = p.bytes.insert("L1".into(), 48 << 10)),
            rows(|p| _ = p.task_rows.insert("i2x16".into(), 512)),
        ];
        assert_eq!(sizes, [128, 192, 512]);
    }

    /// Slow memory asks for few bytes, fast memory for little arithmetic.
    #[test]
    fn bandwidth_decides_the_encoding() {
        let family = |bandwidth| {
            let profile = profile(|p| _ = p.bytes_per_cycle.insert("DRAM".into(), bandwidth));
            let machine =
                Machine { desc: profile.apply(machine().desc, machine().features).expect("known names"), ..machine() };
            let shape = Shape { n: 2560, k: 2560, group: None, density: None };
            choose_encoding(&[machine], shape, None).expect("a kernel").family()
        };
        assert_eq!((family(2.0), family(64.0)), ("base3", "i2"));
    }

    /// Where memory is slow, a bitmap is worth its arithmetic if enough weights are zero, and only if they were counted.
    #[test]
    fn zeros_decide_the_encoding() {
        let (n, k) = (64, 2560);
        let profile = profile(|p| _ = p.bytes_per_cycle.insert("DRAM".into(), 2.0));
        let desc = profile.apply(machine().desc, machine().features).expect("known names");
        let family = |density: Option<Density>| {
            let shape = Shape { n, k, group: None, density };
            choose_encoding(&[Machine { desc, ..machine() }], shape, None).expect("a kernel").family()
        };
        let zeros_of_ten = |zeros: usize| {
            let w: Vec<i8> = (0..n * k).map(|i| if i * 7 % 10 < zeros { 0 } else { 1 }).collect();
            Some(Density::of(&w, k, 16))
        };
        assert_eq!([zeros_of_ten(6), zeros_of_ten(3), None].map(family), ["bitmap", "base3", "base3"]);
    }
}
